//! What is known to be in a partial file: a header, then one record for each piece that was written.
//!
//! ```text
//! header (64 bytes)  magic "FIREPART", version u32, 0 u32, size of the file u64, boot id 36 bytes, CRC-32 u32
//! record (24 bytes)  offset u64, length u64, CRC-32 of the data u32, CRC-32 of the record u32
//! ```
//!
//! Little-endian. A record is written after its data, so after a process was killed every record tells the truth:
//! the kernel keeps what was written. After a power cut it may not have kept the data; then the boot id is another
//! and the data is compared with the records before it is believed.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::{
    StoreError,
    atomic::{locked_temp, publish},
};

const MAGIC: &[u8; 8] = b"FIREPART";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const RECORD_BYTES: usize = 24;
const BOOT_ID_BYTES: usize = 36;
/// Where the kernel does not tell; then no data is believed unread.
const NO_BOOT_ID: [u8; BOOT_ID_BYTES] = [0; BOOT_ID_BYTES];
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// A piece of data and what it must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it begins.
    pub offset: u64,
    /// How long it is in bytes.
    pub length: u64,
    /// Of its bytes.
    pub crc32: u32,
}

impl Record {
    /// The bytes that it stands for.
    pub const fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length
    }

    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.crc32.to_le_bytes());
        let crc32 = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc32.to_le_bytes());
        bytes
    }

    /// Nothing for bytes that no journal of a file of `size_bytes` has.
    fn from_bytes(bytes: &[u8], size_bytes: u64) -> Option<Self> {
        let (data, crc32) = bytes.split_at_checked(20)?;
        if u32_at(crc32, 0)? != crc32fast::hash(data) {
            return None;
        }
        let record = Self { offset: u64_at(data, 0)?, length: u64_at(data, 8)?, crc32: u32_at(data, 16)? };
        let end = record.offset.checked_add(record.length)?;
        (end <= size_bytes).then_some(record)
    }
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Length of the whole file in bytes.
    pub size_bytes: u64,
    /// It was written since this machine was started.
    pub this_boot: bool,
    /// All records up to the first that is torn.
    pub records: Vec<Record>,
}

/// Reads a journal; nothing when there is none or its header is not whole.
pub fn read(path: &Path) -> Option<Contents> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).ok()?;
    let (header, records) = bytes.split_at_checked(HEADER_BYTES)?;
    let (fields, crc32) = header.split_at(HEADER_BYTES - 4);
    let whole = u32_at(crc32, 0)? == crc32fast::hash(fields)
        && fields.starts_with(MAGIC)
        && u32_at(fields, 8)? == VERSION;
    if !whole {
        return None;
    }
    let size_bytes = u64_at(fields, 16)?;
    let boot_id = boot_id();
    let this_boot = fields[24..] == boot_id && boot_id != NO_BOOT_ID;
    let records = records.chunks_exact(RECORD_BYTES);
    let records = records.map_while(|record| Record::from_bytes(record, size_bytes)).collect();
    Some(Contents { size_bytes, this_boot, records })
}

/// A journal that is being written. Its data file is locked by the caller.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    end: u64,
}

impl Journal {
    /// Replaces the journal at `path` by one with these records, whole or not at all.
    pub fn create(path: &Path, size_bytes: u64, records: &[Record]) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::io("write", path, error);
        let mut temp = locked_temp(path.parent().unwrap_or(path))?;
        temp.write_all(&header(size_bytes)).map_err(failed)?;
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.to_bytes()).collect();
        temp.write_all(&bytes).map_err(failed)?;
        publish(temp, path)?;
        Self::open(path, records.len())
    }

    /// Opens a journal after its first `records`.
    pub fn open(path: &Path, records: usize) -> Result<Self, StoreError> {
        let failed = |error| StoreError::io("open", path, error);
        let file = File::options().write(true).open(path).map_err(failed)?;
        let end = (HEADER_BYTES + records * RECORD_BYTES) as u64;
        file.set_len(end).map_err(failed)?;
        Ok(Self { file, path: path.to_owned(), end })
    }

    /// Adds a record. After a failure the next one takes its place.
    pub fn append(&mut self, record: Record) -> Result<(), StoreError> {
        self.file
            .write_all_at(&record.to_bytes(), self.end)
            .map_err(|error| StoreError::io("write", &self.path, error))?;
        self.end += RECORD_BYTES as u64;
        Ok(())
    }
}

fn header(size_bytes: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&size_bytes.to_le_bytes());
    bytes[24..HEADER_BYTES - 4].copy_from_slice(&boot_id());
    let crc32 = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..].copy_from_slice(&crc32.to_le_bytes());
    bytes
}

/// Another after each start of the machine.
fn boot_id() -> [u8; BOOT_ID_BYTES] {
    let mut id = [0; BOOT_ID_BYTES];
    match File::open(BOOT_ID_PATH).and_then(|mut file| file.read_exact(&mut id)) {
        Ok(()) => id,
        Err(_) => NO_BOOT_ID,
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
pub mod testing {
    //! A journal as another boot of the machine would have left it.

    use super::*;

    /// Makes the journal at `path` one of an earlier boot.
    pub fn age(path: &Path) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut fields = [0; HEADER_BYTES - 4];
        file.read_exact_at(&mut fields, 0).unwrap();
        fields[24..].fill(b'0');
        file.write_all_at(&fields, 0).unwrap();
        file.write_all_at(&crc32fast::hash(&fields).to_le_bytes(), fields.len() as u64).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: [Record; 2] =
        [Record { offset: 10, length: 5, crc32: 7 }, Record { offset: 0, length: 3, crc32: 9 }];

    fn journal() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, 100, &RECORDS[..1]).unwrap();
        journal.append(RECORDS[1]).unwrap();
        (dir, path)
    }

    #[test]
    fn a_journal_says_what_was_written_to_it() {
        let (_dir, path) = journal();
        let contents = read(&path).unwrap();
        assert_eq!(contents, Contents { size_bytes: 100, this_boot: true, records: RECORDS.to_vec() });
    }

    #[test]
    fn a_journal_cut_anywhere_keeps_its_whole_records() {
        let (_dir, path) = journal();
        let whole = std::fs::metadata(&path).unwrap().len();
        for length in (0..whole).rev() {
            File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            let records = read(&path).map(|contents| contents.records.len());
            let expected = (length as usize).checked_sub(HEADER_BYTES).map(|length| length / RECORD_BYTES);
            assert_eq!(records, expected, "{length} bytes");
        }
    }

    #[test]
    fn a_damaged_record_ends_the_journal_and_the_next_one_takes_its_place() {
        let (_dir, path) = journal();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"x", (HEADER_BYTES + RECORD_BYTES + 3) as u64).unwrap();
        assert_eq!(read(&path).unwrap().records, RECORDS[..1]);
        Journal::open(&path, 1).unwrap().append(RECORDS[1]).unwrap();
        assert_eq!(read(&path).unwrap().records, RECORDS);
    }

    #[test]
    fn a_record_that_reaches_beyond_the_file_is_not_believed() {
        let (_dir, path) = journal();
        let mut journal = Journal::open(&path, 2).unwrap();
        journal.append(Record { offset: u64::MAX, length: 2, crc32: 0 }).unwrap();
        assert_eq!(read(&path).unwrap().records.len(), 2);
    }

    #[test]
    fn a_journal_of_another_boot_is_told_apart() {
        let (_dir, path) = journal();
        testing::age(&path);
        assert!(!read(&path).unwrap().this_boot);
    }
}
