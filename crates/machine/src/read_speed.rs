//! How fast a disk gives a large file to one reader, past the page cache.
//!
//! One thread reads blocks of [`BLOCK_BYTES`] one after the other, as a loader that waits for each does. The page
//! cache is gone around with `O_DIRECT`; a file system that has none of it is asked to drop the file's pages, and
//! whether it did is looked at. A cache below this machine (a host's, a disk's own) cannot be gone around.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Advice, Mode, OFlags, fadvise, fstatfs, open},
    io::{Errno, ReadWriteFlags, pread, preadv2},
};
use serde::{Deserialize, Serialize};

use crate::Reading;

/// Most time that a measurement takes, whatever is asked for. A single block that a disk holds back may pass it.
pub const READ_TIME_MAX: Duration = Duration::from_secs(1);
/// Read at once. Large enough that a call costs little beside it, small enough that a disk of 10 MB/s gives several
/// in [`READ_TIME_MAX`].
pub const BLOCK_BYTES: usize = 1 << 20;
/// A smaller file says nothing of a disk: its reading is over in a few blocks.
pub const READ_BYTES_MIN: u64 = 16 << 20;
/// `O_DIRECT` wants addresses and offsets at multiples of the disk's block, which is 4096 bytes at most in use.
const ALIGNMENT_BYTES: usize = 4096;
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (`linux/magic.h`): file systems that lie in memory.
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// A measured speed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSpeed {
    /// Bytes in a second.
    pub bytes_per_s: u64,
    /// Bytes that were read to know it.
    pub read_bytes: u64,
    /// How the page cache was gone around.
    pub cache: CacheBypass,
}

/// How the page cache was gone around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheBypass {
    /// `O_DIRECT`: the disk was read.
    Direct,
    /// The file's pages were dropped first, and none was seen to stay.
    Dropped,
    /// It was not: pages may have come from memory, and the disk may be slower.
    NotBypassed,
}

/// Reads a file from its beginning for at most `max_time` ([`READ_TIME_MAX`] at most) and at most `max_bytes`; about
/// as long when the file is large. Absent when the file cannot be read, is smaller than [`READ_BYTES_MIN`], or lies
/// in memory.
#[must_use]
pub fn read_speed(path: &Path, max_bytes: u64, max_time: Duration) -> Reading<ReadSpeed> {
    measure(path, max_bytes, max_time.min(READ_TIME_MAX))
        .map_err(|reason| format!("{}: {reason}", path.display()))
        .into()
}

fn measure(path: &Path, max_bytes: u64, max_time: Duration) -> Result<ReadSpeed, String> {
    let plain = File::open(path).map_err(|error| error.to_string())?;
    let metadata = plain.metadata().map_err(|error| error.to_string())?;
    let length = metadata.len().min(max_bytes);
    if !metadata.is_file() || length < READ_BYTES_MIN {
        return Err(format!("{READ_BYTES_MIN} bytes of a file are needed to measure a disk"));
    }
    if fstatfs(&plain).is_ok_and(|found| MEMORY_FILE_SYSTEMS.contains(&(found.f_type as u64))) {
        return Err("the file lies in memory, not on a disk".to_owned());
    }
    let mut block = Block::new();
    let direct = open(path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty()).map(File::from);
    if let Ok(direct) = direct
        && let Ok(found) = timed(&direct, &mut block, length, max_time, CacheBypass::Direct)
    {
        return Ok(found);
    }
    let cache = drop_pages(&plain, length);
    timed(&plain, &mut block, length, max_time, cache).map_err(|error| error.to_string())
}

/// The block at an address that `O_DIRECT` accepts.
struct Block {
    bytes: Vec<u8>,
    start: usize,
}

impl Block {
    fn new() -> Self {
        let bytes = vec![0; BLOCK_BYTES + ALIGNMENT_BYTES];
        let start = bytes.as_ptr().align_offset(ALIGNMENT_BYTES).min(ALIGNMENT_BYTES);
        Self { bytes, start }
    }

    fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BLOCK_BYTES]
    }
}

fn timed(
    file: &File,
    block: &mut Block,
    length: u64,
    max_time: Duration,
    cache: CacheBypass,
) -> io::Result<ReadSpeed> {
    let start = Instant::now();
    let mut read_bytes = 0;
    while read_bytes < length && (read_bytes == 0 || start.elapsed() < max_time) {
        match pread(file, block.space(), read_bytes) {
            Ok(0) => break,
            Ok(count) => read_bytes += count as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let nanoseconds = start.elapsed().as_nanos().max(1);
    let bytes_per_s = u64::try_from(u128::from(read_bytes) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX);
    if read_bytes == 0 || bytes_per_s == 0 {
        return Err(io::Error::other("nothing could be read"));
    }
    Ok(ReadSpeed { bytes_per_s, read_bytes, cache })
}

/// Asks the kernel to drop the pages, and looks at some places whether it did: a read that must not wait gives
/// nothing where no page is there. Pages that a process has mapped stay.
fn drop_pages(file: &File, length: u64) -> CacheBypass {
    const PLACES: u64 = 64;
    if fadvise(file, 0, None, Advice::DontNeed).is_err() {
        return CacheBypass::NotBypassed;
    }
    let gone = |offset| {
        let mut byte = [0];
        let found = preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
        found == Err(Errno::AGAIN)
    };
    let all_gone = (0..PLACES).all(|place| gone(length / PLACES * place));
    if all_gone { CacheBypass::Dropped } else { CacheBypass::NotBypassed }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A file of 24 MiB on the disk of this crate; temporary directories may lie in memory.
    fn large_file() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for _ in 0..24 {
            file.write_all(&vec![7; 1 << 20]).unwrap();
        }
        file.as_file().sync_all().unwrap();
        file
    }

    #[test]
    fn a_file_on_a_disk_is_read_to_its_bound() {
        let file = large_file();
        let speed = read_speed(file.path(), 20 << 20, Duration::from_secs(1));
        let speed = speed.known().unwrap();
        assert!(speed.bytes_per_s > 0);
        assert!(speed.read_bytes <= 20 << 20 && speed.read_bytes >= BLOCK_BYTES as u64);
    }

    #[test]
    fn no_time_gives_one_block() {
        let file = large_file();
        let speed = read_speed(file.path(), u64::MAX, Duration::ZERO);
        assert_eq!(speed.known().unwrap().read_bytes, BLOCK_BYTES as u64);
    }

    #[test]
    fn pages_that_stay_are_noticed_and_pages_that_go_as_well() {
        let file = large_file();
        let mut block = Block::new();
        let opened = File::open(file.path()).unwrap();
        let dropped = drop_pages(&opened, 24 << 20);
        if dropped == CacheBypass::Dropped {
            let found = timed(&opened, &mut block, 24 << 20, READ_TIME_MAX, dropped).unwrap();
            assert_eq!((found.cache, found.read_bytes), (CacheBypass::Dropped, 24 << 20));
        }
        let in_memory = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        in_memory.as_file().set_len(24 << 20).unwrap();
        in_memory.as_file().write_all(&vec![7; 24 << 20]).unwrap();
        assert_eq!(drop_pages(in_memory.as_file(), 24 << 20), CacheBypass::NotBypassed);
    }

    #[test]
    fn what_cannot_be_measured_has_a_reason() {
        let reason = |path: &Path| read_speed(path, u64::MAX, READ_TIME_MAX).reason().unwrap().to_owned();
        assert!(reason(Path::new("/none/model.gguf")).contains("No such file"));
        let small = tempfile::NamedTempFile::new().unwrap();
        assert!(reason(small.path()).ends_with("16777216 bytes of a file are needed to measure a disk"));
        assert!(reason(Path::new("/")).ends_with("are needed to measure a disk"));
        let in_memory = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        in_memory.as_file().set_len(READ_BYTES_MIN).unwrap();
        assert!(reason(in_memory.path()).ends_with("the file lies in memory, not on a disk"));
    }

    #[test]
    fn the_block_is_aligned() {
        let mut block = Block::new();
        assert_eq!(block.space().as_ptr().align_offset(ALIGNMENT_BYTES), 0);
        assert_eq!(block.space().len(), BLOCK_BYTES);
    }
}
