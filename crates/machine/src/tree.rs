//! Bounded reading of small text files below a root, which is `/` outside of tests.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::limits::FILE_BYTES_MAX;

/// A file tree to probe.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree of the running system.
    pub fn system() -> Self {
        Self::below("/")
    }

    /// A tree that stands below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The text of a file, or why there is none.
    pub fn text(&self, path: &str) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("{path}: {error}");
        let mut bytes = Vec::new();
        let file = File::open(self.path(path)).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text of a file, if it can be read.
    pub fn optional(&self, path: &str) -> Option<String> {
        self.text(path).ok()
    }

    /// Whether something is there.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Names in a directory, sorted; empty when it cannot be read.
    pub fn names(&self, path: &str, limit: usize) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let entries = entries.take(limit).flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    /// The last part of where a link points.
    pub fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Where a file of the tree really is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path)))
    }
}

/// A tree of recorded files.
#[cfg(test)]
pub mod fake {
    use std::{
        fs::{self, File},
        io::Write as _,
        os::unix::fs::symlink,
    };

    use super::Tree;

    pub struct FakeTree {
        dir: tempfile::TempDir,
    }

    impl FakeTree {
        pub fn new(files: &[(&str, &str)]) -> Self {
            let tree = Self { dir: tempfile::tempdir().unwrap() };
            for (path, text) in files {
                tree.file(path, text);
            }
            tree
        }

        pub fn file(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        }

        pub fn link(&self, path: &str, target: &str) {
            symlink(target, self.dir.path().join(path)).unwrap();
        }

        pub fn tree(&self) -> Tree {
            Tree::below(self.dir.path())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeTree;

    #[test]
    fn a_missing_file_is_named_with_its_path() {
        let error = FakeTree::new(&[]).tree().text("/proc/meminfo").unwrap_err();
        assert!(error.starts_with("/proc/meminfo: No such file"), "{error}");
    }

    #[test]
    fn names_are_sorted_and_limited() {
        let fake = FakeTree::new(&[("d/b", ""), ("d/a", ""), ("d/c", "")]);
        assert_eq!(fake.tree().names("/d", 10), ["a", "b", "c"]);
        assert_eq!(fake.tree().names("/d", 2).len(), 2);
        assert!(fake.tree().names("/none", 2).is_empty());
    }
}
