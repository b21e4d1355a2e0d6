//! Where a header's bytes come from.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Random access to bytes: a file, a buffer, a file at a server.
pub trait ByteSource {
    /// Length in bytes.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn size_bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When fewer bytes are there.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Fills the beginning of `buffer` from `offset`, at least `least` bytes of it, and says how many. A header is read so, forwards
    /// and never back; what is left out between two calls is not needed. A source whose bytes have yet to come waits for no more than
    /// `least`.
    ///
    /// # Errors
    /// When fewer than `least` bytes are there.
    fn read_window(&self, offset: u64, least: usize, buffer: &mut [u8]) -> io::Result<usize> {
        debug_assert!(least <= buffer.len(), "a window holds what is needed of it");
        self.read_at(offset, buffer)?;
        Ok(buffer.len())
    }
}

impl ByteSource for File {
    fn size_bytes(&self) -> io::Result<u64> {
        let metadata = self.metadata()?;
        if metadata.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(metadata.len()) }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl ByteSource for [u8] {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ByteSource for Vec<u8> {
    fn size_bytes(&self) -> io::Result<u64> {
        self.as_slice().size_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buffer)
    }
}
