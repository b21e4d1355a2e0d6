//! The disk that holds Firepot's home.

use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use serde::Serialize;

use crate::Reading;

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The directory that was asked about: the home, or its nearest ancestor that exists.
    pub path: PathBuf,
    /// Its size.
    pub total_bytes: u64,
    /// What an unprivileged process may still write.
    pub free_bytes: u64,
}

impl Disk {
    pub(crate) fn probe(home: &Path) -> Reading<Self> {
        let home = std::path::absolute(home).unwrap_or_else(|_| home.to_owned());
        let Some(path) = home.ancestors().find(|path| path.exists()) else {
            return Reading::absent(format!("nothing above {} exists", home.display()));
        };
        match statvfs(path) {
            Ok(stat) => Reading::Known(Self {
                path: path.to_owned(),
                total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
                free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            }),
            Err(error) => Reading::absent(format!("{}: {error}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_that_does_not_exist_yet_is_on_its_ancestor_s_disk() {
        let dir = tempfile::tempdir().unwrap();
        let reading = Disk::probe(&dir.path().join("a/b/c"));
        let disk = reading.known().unwrap();
        assert_eq!(disk.path, dir.path());
        assert!(disk.total_bytes > 0 && disk.free_bytes <= disk.total_bytes);
    }

    #[test]
    fn a_relative_home_is_found() {
        assert!(Disk::probe(Path::new("some/home")).known().unwrap().path.is_absolute());
    }
}
