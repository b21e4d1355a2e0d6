//! A look at the model file before llama.cpp gets it, for errors that name the cause.
//!
//! The header is not read beyond its magic: `firepot-gguf` does that.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use crate::LoadError;

/// First bytes of every GGUF file.
const MAGIC: [u8; 4] = *b"GGUF";

/// The path as llama.cpp wants it, when it is a readable file that begins as GGUF does.
pub fn checked_path(path: &Path) -> Result<CString, LoadError> {
    check(path)?;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| LoadError::bad_parameter("path", "a path cannot contain a NUL byte"))
}

fn check(path: &Path) -> Result<(), LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() == 0 {
        return Err(LoadError::Empty { path: path.to_owned() });
    }
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == MAGIC => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(unreadable(error)),
        _ => Err(LoadError::NotGguf { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check_bytes(bytes: &[u8]) -> Result<(), LoadError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        check(file.path())
    }

    #[test]
    fn what_is_not_gguf_is_named() {
        assert!(matches!(check_bytes(b""), Err(LoadError::Empty { .. })));
        assert!(matches!(check_bytes(b"GG"), Err(LoadError::NotGguf { .. })));
        assert!(matches!(check_bytes(b"once upon a time"), Err(LoadError::NotGguf { .. })));
        assert!(check_bytes(b"GGUF").is_ok());
    }

    #[test]
    fn a_missing_file_and_a_directory_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(check(directory.path()), Err(LoadError::NotAFile { .. })));
        let missing = directory.path().join("missing.gguf");
        assert!(matches!(check(&missing), Err(LoadError::Unreadable { .. })));
    }

    #[test]
    fn a_path_with_a_nul_byte_is_refused() {
        assert!(checked_path(Path::new("a\0b")).is_err());
    }
}
