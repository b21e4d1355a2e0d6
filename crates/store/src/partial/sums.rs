//! Checksums of a blob's blocks, by which damage is found in one place instead of everywhere.
//!
//! ```text
//! magic "FIRESUMS", version u32, length of the source u32, size of the blob u64, source,
//! a CRC-32 for each block, CRC-32 of all that
//! ```

use std::{fs::File, io::Read as _, ops::Range, path::PathBuf};

use crate::{
    Digest, Home, StoreError,
    home::make_dir,
    limits::{SUMS_BYTES_MAX, SUMS_SOURCE_BYTES_MAX},
    write_atomic,
};

/// Length of a block in bytes; a blob's last block may be shorter.
pub const BLOCK_BYTES: u64 = 1024 * 1024;

const MAGIC: &[u8; 8] = b"FIRESUMS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;

/// The CRC-32 of each block of a blob, and where the blob came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Length of the blob in bytes.
    pub size_bytes: u64,
    /// A URL without secrets, or empty.
    pub source: String,
    blocks: Vec<u32>,
}

impl Sums {
    /// The ranges of bytes whose blocks are not as `actual` has them, of what should be there; neighbours are one
    /// range.
    #[must_use]
    pub fn differing(&self, actual: &Self) -> Vec<Range<u64>> {
        let mut differing: Vec<Range<u64>> = Vec::new();
        for (index, expected) in self.blocks.iter().enumerate() {
            let range = self.block(index as u64);
            let same = actual.blocks.get(index) == Some(expected) && actual.block(index as u64) == range;
            match differing.last_mut() {
                _ if same => {}
                Some(last) if last.end == range.start => last.end = range.end,
                _ => differing.push(range),
            }
        }
        differing
    }

    fn block(&self, index: u64) -> Range<u64> {
        let start = index * BLOCK_BYTES;
        start..(start + BLOCK_BYTES).min(self.size_bytes)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let source = if self.source.len() > SUMS_SOURCE_BYTES_MAX { "" } else { &self.source };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((source.len() as u32).to_le_bytes());
        bytes.extend(self.size_bytes.to_le_bytes());
        bytes.extend(source.as_bytes());
        bytes.extend(self.blocks.iter().flat_map(|block| block.to_le_bytes()));
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (bytes, crc32) = bytes.split_last_chunk::<4>()?;
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let whole = u32::from_le_bytes(*crc32) == crc32fast::hash(bytes)
            && header.starts_with(MAGIC)
            && header[8..12] == VERSION.to_le_bytes();
        if !whole {
            return None;
        }
        let source_length = u32::from_le_bytes(header[12..16].try_into().ok()?);
        let size_bytes = u64::from_le_bytes(header[16..].try_into().ok()?);
        let (source, blocks) = rest.split_at_checked(source_length as usize)?;
        let source = String::from_utf8(source.to_vec()).ok()?;
        let (blocks, rest) = blocks.as_chunks::<4>();
        let blocks: Vec<u32> = blocks.iter().map(|block| u32::from_le_bytes(*block)).collect();
        let complete = rest.is_empty() && blocks.len() as u64 == size_bytes.div_ceil(BLOCK_BYTES);
        complete.then_some(Self { size_bytes, source, blocks })
    }
}

/// Makes [`Sums`] of bytes that come one after the other.
#[derive(Clone, Debug, Default)]
pub struct SumsHasher {
    block: crc32fast::Hasher,
    size_bytes: u64,
    blocks: Vec<u32>,
}

impl SumsHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.size_bytes % BLOCK_BYTES;
            let (head, tail) = bytes.split_at(bytes.len().min(room as usize));
            self.block.update(head);
            self.size_bytes += head.len() as u64;
            if self.size_bytes.is_multiple_of(BLOCK_BYTES) {
                self.end_block();
            }
            bytes = tail;
        }
    }

    /// The checksums of all bytes, for a blob that came from `source`.
    #[must_use]
    pub fn finish(mut self, source: &str) -> Sums {
        if !self.size_bytes.is_multiple_of(BLOCK_BYTES) {
            self.end_block();
        }
        Sums { size_bytes: self.size_bytes, source: source.to_owned(), blocks: self.blocks }
    }

    fn end_block(&mut self) {
        self.blocks.push(std::mem::take(&mut self.block).finalize());
    }
}

impl Home {
    /// Where the checksums of blobs lie, each by its blob's file name.
    #[must_use]
    pub fn sums_dir(&self) -> PathBuf {
        self.path().join("sums")
    }

    /// The checksums of a blob; nothing when there are none that can be used.
    #[must_use]
    pub fn sums(&self, digest: &Digest) -> Option<Sums> {
        let file = File::open(self.sums_dir().join(digest.file_name())).ok()?;
        let mut bytes = Vec::new();
        file.take(SUMS_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Sums::from_bytes(&bytes)
    }

    /// Keeps the checksums of a blob.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_sums(&self, digest: &Digest, sums: &Sums) -> Result<(), StoreError> {
        self.require_write()?;
        make_dir(&self.sums_dir())?;
        write_atomic(&self.sums_dir().join(digest.file_name()), &sums.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHome;

    fn sums(bytes: &[u8]) -> Sums {
        let mut hasher = SumsHasher::default();
        bytes.chunks(300_001).for_each(|chunk| hasher.update(chunk));
        hasher.finish("https://hub.example/a")
    }

    #[test]
    fn checksums_are_read_as_they_were_written() {
        let test = TestHome::new();
        for size in [0, 1, 1 << 20, (1 << 20) + 1, 5_000_000] {
            let written = sums(&vec![7; size]);
            let digest = Digest::of(&size.to_le_bytes());
            test.home.write_sums(&digest, &written).unwrap();
            assert_eq!(test.home.sums(&digest), Some(written));
        }
        assert_eq!(test.home.sums(&Digest::of(b"none")), None);
    }

    #[test]
    fn checksums_with_any_byte_changed_count_as_absent() {
        let bytes = sums(&[1; 100]).to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Sums::from_bytes(&damaged), None, "byte {at}");
            assert_eq!(Sums::from_bytes(&bytes[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn damage_is_found_in_its_blocks() {
        let mut bytes = vec![3; 4_500_000];
        let good = sums(&bytes);
        assert_eq!(good.differing(&good), []);
        bytes[1_100_000] = 4;
        bytes[2_100_000] = 4;
        bytes[4_400_000] = 4;
        let mib = BLOCK_BYTES;
        assert_eq!(good.differing(&sums(&bytes)), [mib..3 * mib, 4 * mib..4_500_000]);
        assert_eq!(good.differing(&sums(&bytes[..1_000_000])).first(), Some(&(0..4_500_000)));
    }
}
