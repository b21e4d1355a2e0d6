//! How much main memory a process uses by itself.

use std::fs;

/// Memory of a process that no file backs (`RssAnon`), in bytes; `None` when the process is gone or the system does not say.
pub fn own_bytes(pid: u32) -> Option<u64> {
    anonymous_bytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn anonymous_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_writes_is_counted_as_its_own_and_a_process_that_is_gone_has_nothing() {
        let before = own_bytes(std::process::id()).unwrap();
        let written = std::hint::black_box(vec![7_u8; 64 << 20]);
        assert!(own_bytes(std::process::id()).unwrap() > before + (32 << 20));
        drop(written);
        assert_eq!(own_bytes(u32::MAX), None);
        assert_eq!(anonymous_bytes("VmRSS:\t 9 kB\nRssAnon:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(anonymous_bytes("Name:\tkthread\n"), None);
    }
}
