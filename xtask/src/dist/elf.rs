//! What a program or library needs, as `readelf` and `objdump` tell it.

use std::{collections::BTreeSet, path::Path};

use super::output_of;

/// What a file needs of the system.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Libraries, by the names by which they are asked for.
    pub libraries: BTreeSet<String>,
    /// Newest version of each family of symbols: `GLIBC` 2.34, `GLIBCXX` 3.4.30.
    pub versions: Vec<(String, Vec<u32>)>,
}

impl Needs {
    /// Reads a file.
    ///
    /// # Errors
    /// When a tool of binutils is missing or the file is none of theirs.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let path = path.to_string_lossy();
        let dynamic = output_of("readelf", &["-d", "--wide", &path])?;
        let symbols = output_of("readelf", &["-V", "--wide", &path])?;
        let mut versions: Vec<(String, Vec<u32>)> = Vec::new();
        for word in symbols.split_whitespace() {
            let Some((family, version)) = word.split_once('_') else { continue };
            let version: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
            if !["GLIBC", "GLIBCXX", "CXXABI", "GCC"].contains(&family) || version.is_empty() {
                continue;
            }
            match versions.iter_mut().find(|(known, _)| known == family) {
                Some((_, newest)) => *newest = (*newest).clone().max(version),
                None => versions.push((family.to_owned(), version)),
            }
        }
        versions.sort();
        Ok(Self { libraries: bracketed(&dynamic, "(NEEDED)").collect(), versions })
    }

    /// The newest version of a family that is needed.
    pub fn newest(&self, family: &str) -> Option<&[u32]> {
        self.versions.iter().find(|(known, _)| known == family).map(|(_, version)| version.as_slice())
    }
}

/// The name by which a library is asked for.
///
/// # Errors
/// As [`Needs::of`].
pub fn soname(path: &Path) -> anyhow::Result<Option<String>> {
    let dynamic = output_of("readelf", &["-d", "--wide", &path.to_string_lossy()])?;
    Ok(bracketed(&dynamic, "(SONAME)").next())
}

fn bracketed<'a>(dynamic: &'a str, kind: &'a str) -> impl Iterator<Item = String> + 'a {
    let lines = dynamic.lines().filter(move |line| line.contains(kind));
    lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
}
