//! Hugging Face: which files of a repository are the model that a name means. Pure; asking is in `puller`.

use firepot_store::{Digest, is_quantization, split_of, strip_gguf};
use serde::Deserialize;

/// Wanted first when a name says no quantization: the field's usual middle way, then what is nearest to it.
const PREFERRED: [&str; 8] = ["Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0", "F16"];

/// Most quantizations that an error lists.
const LISTED_MAX: usize = 12;

/// What `GET /api/models/{repository}/revision/{revision}?blobs=true` answers, as far as it is read.
#[derive(Debug, Deserialize)]
pub struct Repository {
    /// Commit of the revision.
    pub sha: String,
    /// Every file.
    #[serde(default)]
    pub siblings: Vec<RepositoryFile>,
}

/// A file of a repository.
#[derive(Clone, Debug, Deserialize)]
pub struct RepositoryFile {
    /// Path in the repository.
    #[serde(rename = "rfilename")]
    pub path: String,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Of files that lie outside Git, as every large one does.
    pub lfs: Option<LargeFile>,
}

/// What is known of a large file.
#[derive(Clone, Debug, Deserialize)]
pub struct LargeFile {
    /// SHA-256 in hex.
    pub sha256: String,
    /// Length in bytes.
    pub size: u64,
}

impl RepositoryFile {
    /// Length in bytes, where it is told.
    pub fn size_bytes(&self) -> Option<u64> {
        self.lfs.as_ref().map(|lfs| lfs.size).or(self.size)
    }

    /// Digest of its content, where it is told.
    pub fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.lfs.as_ref()?.sha256).parse().ok()
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// Why no file was chosen.
#[derive(Debug, PartialEq, Eq)]
pub enum NoFile {
    /// The repository has no GGUF file.
    NoGguf,
    /// None of this quantization; these are there.
    NoQuantization(Vec<String>),
    /// Parts of a split model are missing.
    Incomplete,
}

/// The model's files, in order; more than one when it is split.
pub fn choose(files: &[RepositoryFile], tag: &str) -> Result<Vec<RepositoryFile>, NoFile> {
    let mut groups = groups(files);
    if groups.is_empty() {
        return Err(NoFile::NoGguf);
    }
    groups.sort_by(|a, b| a.stem.cmp(&b.stem));
    let wanted: Vec<&str> = if tag == "latest" { PREFERRED.to_vec() } else { vec![tag] };
    let found = wanted.iter().find_map(|tag| groups.iter().find(|group| group.is(tag)));
    let group = match found {
        Some(group) => group,
        None if tag == "latest" => &groups[0],
        None => {
            let mut names: Vec<String> = groups.iter().map(Group::quantization).collect();
            names.dedup();
            names.truncate(LISTED_MAX);
            return Err(NoFile::NoQuantization(names));
        }
    };
    if group.files.len() != group.expected {
        return Err(NoFile::Incomplete);
    }
    Ok(group.files.iter().map(|file| (*file).clone()).collect())
}

/// One model in a repository.
struct Group<'a> {
    /// Name without the number of the part and the ending.
    stem: String,
    expected: usize,
    files: Vec<&'a RepositoryFile>,
}

impl Group<'_> {
    fn quantization(&self) -> String {
        quantization(&self.stem).unwrap_or_else(|| self.stem.clone())
    }

    /// Whether a tag means it: its quantization, or its whole name.
    fn is(&self, tag: &str) -> bool {
        let tag = strip_gguf(tag);
        self.stem.eq_ignore_ascii_case(tag)
            || quantization(&self.stem).is_some_and(|found| found.eq_ignore_ascii_case(tag))
    }
}

fn groups(files: &[RepositoryFile]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut sorted: Vec<&RepositoryFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    for file in sorted {
        let Some(stem) = file.name().strip_suffix(".gguf") else { continue };
        let lower = stem.to_ascii_lowercase();
        if ["mmproj", "imatrix", "ggml-vocab"].iter().any(|other| lower.contains(other)) {
            continue;
        }
        let (stem, expected) = split_of(stem).map_or((stem, 1), |(stem, _, parts)| (stem, parts as usize));
        let stem = stem.to_owned();
        match groups.iter_mut().find(|group| group.stem == stem && group.expected == expected) {
            Some(group) => group.files.push(file),
            None => groups.push(Group { stem, expected, files: vec![file] }),
        }
    }
    groups
}

/// The last word of a file's name that is a quantization: `Qwen3-8B-Q4_K_M` → `Q4_K_M`, `UD-Q4_K_XL` with its prefix.
fn quantization(stem: &str) -> Option<String> {
    let words: Vec<&str> = stem.split(['-', '.']).collect();
    let at = words.iter().rposition(|word| is_quantization(word))?;
    let special = at > 0 && words[at - 1].eq_ignore_ascii_case("UD");
    Some(if special { format!("{}-{}", words[at - 1], words[at]) } else { words[at].to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<RepositoryFile> {
        let file = |path: &&str| RepositoryFile { path: (*path).to_owned(), size: Some(1), lfs: None };
        paths.iter().map(file).collect()
    }

    fn chosen(paths: &[&str], tag: &str) -> Result<Vec<String>, NoFile> {
        choose(&files(paths), tag).map(|files| files.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn a_tag_is_a_quantization_in_any_case_or_a_files_name() {
        let paths = ["README.md", "M-7B.Q8_0.gguf", "M-7B.Q4_K_M.gguf", "mmproj-M-7B-f16.gguf"];
        for (tag, expected) in [
            ("q4_k_m", "M-7B.Q4_K_M.gguf"),
            ("latest", "M-7B.Q4_K_M.gguf"),
            ("M-7B.Q8_0.gguf", "M-7B.Q8_0.gguf"),
        ] {
            assert_eq!(chosen(&paths, tag).unwrap(), [expected], "{tag}");
        }
        let there = vec!["Q4_K_M".to_owned(), "Q8_0".to_owned()];
        assert_eq!(chosen(&paths, "Q3_K_S"), Err(NoFile::NoQuantization(there)));
    }

    #[test]
    fn a_split_model_is_all_of_its_files_in_order() {
        let paths =
            ["Q4_K_M/m-Q4_K_M-00002-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "m-Q2_K.gguf"];
        assert_eq!(chosen(&paths, "latest").unwrap(), [paths[1], paths[0]]);
        assert_eq!(chosen(&paths[1..], "Q4_K_M"), Err(NoFile::Incomplete));
    }

    #[test]
    fn without_a_preferred_one_the_first_is_taken_and_other_files_are_none() {
        assert_eq!(chosen(&["b-IQ2_XS.gguf", "a-IQ1_M.gguf"], "latest").unwrap(), ["a-IQ1_M.gguf"]);
        assert_eq!(chosen(&["model.safetensors", "mmproj-f16.gguf"], "latest"), Err(NoFile::NoGguf));
    }

    #[test]
    fn quantizations_are_read_from_names() {
        for (stem, expected) in [
            ("Qwen3-8B-Q4_K_M", Some("Q4_K_M")),
            ("Qwen3-30B-A3B-UD-Q4_K_XL", Some("UD-Q4_K_XL")),
            ("SmolLM2-135M-Instruct.Q4_1", Some("Q4_1")),
            ("gpt-oss-20b-MXFP4", Some("MXFP4")),
            ("Qwen3-8B", None),
            ("Phi-4-iq3_xxs", Some("iq3_xxs")),
        ] {
            assert_eq!(quantization(stem).as_deref(), expected, "{stem}");
        }
    }

    #[test]
    fn what_the_hub_says_of_a_file_is_read() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let json = format!(
            r#"{{"sha":"c0ffee","private":false,"siblings":[{{"rfilename":"a.gguf","size":3,"blobId":"x",
            "lfs":{{"sha256":"{hex}","size":3,"pointerSize":1}}}},{{"rfilename":"README.md"}}]}}"#
        );
        let repository: Repository = serde_json::from_str(&json).unwrap();
        let [model, readme] = &repository.siblings[..] else { panic!("{repository:?}") };
        assert_eq!((model.size_bytes(), model.digest().unwrap().hex()), (Some(3), hex.to_owned()));
        assert_eq!((readme.size_bytes(), readme.digest()), (None, None));
    }
}
