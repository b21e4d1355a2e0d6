//! Sequential, bounded reading over a [`ByteSource`].

use std::io;

use crate::{
    ByteSource, GgufError,
    limits::{HEADER_BYTES_MAX, ITEMS_KEPT_TOTAL, WINDOW_BYTES},
};

/// Reads forward through one window at a time.
pub struct Cursor<'a, S: ?Sized> {
    source: &'a S,
    size_bytes: u64,
    window: Vec<u8>,
    window_start: u64,
    position: u64,
    items_kept: u64,
}

impl<'a, S: ByteSource + ?Sized> Cursor<'a, S> {
    pub fn new(source: &'a S) -> Result<Self, GgufError> {
        let size_bytes = source.size_bytes()?;
        Ok(Self { source, size_bytes, window: Vec::new(), window_start: 0, position: 0, items_kept: 0 })
    }

    /// Accounts for array elements that will be kept; `false` when there is no room for them.
    pub fn keep_items(&mut self, items: u64) -> bool {
        let total = self.items_kept.saturating_add(items);
        let fits = total <= ITEMS_KEPT_TOTAL;
        if fits {
            self.items_kept = total;
        }
        fits
    }

    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Moves past `bytes` without reading them.
    pub fn skip(&mut self, bytes: u64) -> Result<(), GgufError> {
        self.position = self.end_of(bytes)?;
        Ok(())
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    pub fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count or length that must not exceed `limit`.
    pub fn bounded(&mut self, what: &'static str, limit: u64) -> Result<u64, GgufError> {
        let found = self.u64()?;
        if found > limit { Err(GgufError::TooLarge { what, found, limit }) } else { Ok(found) }
    }

    /// A length and as many bytes of UTF-8.
    pub fn string(&mut self, what: &'static str, limit: u64) -> Result<String, GgufError> {
        let length = self.bounded(what, limit)?;
        self.end_of(length)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Damaged(format!("{what} is not valid UTF-8")))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), GgufError> {
        let end = self.end_of(out.len() as u64)?;
        if out.len() > WINDOW_BYTES {
            self.read_window(out.len(), out)?;
        } else {
            let start = self.window_offset(end)?;
            out.copy_from_slice(&self.window[start..start + out.len()]);
        }
        self.position = end;
        Ok(())
    }

    /// Offset of `position` in a window that reaches `end`.
    fn window_offset(&mut self, end: u64) -> Result<usize, GgufError> {
        let window_end = self.window_start + self.window.len() as u64;
        if self.position < self.window_start || end > window_end {
            let length = (self.size_bytes - self.position).min(WINDOW_BYTES as u64);
            let mut window = std::mem::take(&mut self.window);
            window.resize(length as usize, 0);
            let there = self.read_window((end - self.position) as usize, &mut window)?;
            window.truncate(there);
            self.window = window;
            self.window_start = self.position;
        }
        Ok((self.position - self.window_start) as usize)
    }

    fn read_window(&self, least: usize, window: &mut [u8]) -> Result<usize, GgufError> {
        let there = self.source.read_window(self.position, least, window)?;
        if there < least { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) } else { Ok(there) }
    }

    fn end_of(&self, bytes: u64) -> Result<u64, GgufError> {
        let end = self.position.saturating_add(bytes);
        if end > self.size_bytes {
            return Err(GgufError::Truncated { needs_bytes: end, has_bytes: self.size_bytes });
        }
        if end > HEADER_BYTES_MAX {
            return Err(GgufError::TooLarge { what: "its size", found: end, limit: HEADER_BYTES_MAX });
        }
        Ok(end)
    }
}
