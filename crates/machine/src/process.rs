//! Memory of a process, from `/proc`.

use std::{fs, io};

use serde::Serialize;

/// What `/proc/PID/status` says of a process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessMemory {
    /// Resident now, mapped files included.
    pub resident_bytes: u64,
    /// Resident now without files.
    pub anonymous_bytes: u64,
    /// The most that was resident.
    pub peak_bytes: u64,
}

/// Memory of the process with this id.
///
/// # Errors
/// When there is no such process, or it may not be looked at.
pub fn process_memory(pid: u32) -> io::Result<ProcessMemory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse(&status)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has ended, or is a kernel thread"))
}

fn parse(status: &str) -> Option<ProcessMemory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1 << 10)
    };
    Some(ProcessMemory {
        resident_bytes: bytes("VmRSS")?,
        anonymous_bytes: bytes("RssAnon")?,
        peak_bytes: bytes("VmHWM")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_become_bytes_and_a_process_without_memory_has_none() {
        let parsed = parse("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t 4 kB\n");
        let (resident_bytes, anonymous_bytes, peak_bytes) = (1 << 20, 4 << 10, 2 << 20);
        assert_eq!(parsed, Some(ProcessMemory { resident_bytes, anonymous_bytes, peak_bytes }));
        assert_eq!(parse("Name:\tzombie\nState:\tZ\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_no_process_is_an_error() {
        let own = process_memory(std::process::id()).unwrap();
        assert!(own.resident_bytes > 0 && own.peak_bytes >= own.resident_bytes);
        assert!(process_memory(u32::MAX).is_err());
    }

    #[test]
    fn what_a_process_writes_is_counted_without_files() {
        let anonymous_bytes = || process_memory(std::process::id()).unwrap().anonymous_bytes;
        let before = anonymous_bytes();
        let written = std::hint::black_box(vec![7_u8; 64 << 20]);
        assert!(anonymous_bytes() > before + (32 << 20));
        drop(written);
    }
}
