//! Where memory goes when it ends: `/proc/swaps`.

/// Bytes of swap that lie compressed in memory itself (zram), from the text of `/proc/swaps`; `None` when it is not
/// that text.
pub fn zram_bytes(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.next().filter(|header| header.starts_with("Filename"))?;
    let kib = |line: &str| {
        let mut columns = line.split_whitespace();
        let name = columns.next().filter(|name| is_zram(name));
        let size = columns.nth(1)?.parse::<u64>().ok()?;
        Some(if name.is_some() { size } else { 0 })
    };
    lines.try_fold(0_u64, |sum, line| sum.checked_add(kib(line)?))?.checked_mul(1024)
}

/// A device `/dev/zram0`; a file of that name elsewhere is none.
fn is_zram(name: &str) -> bool {
    name.strip_prefix("/dev/zram").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zram_is_told_from_a_disk() {
        let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert_eq!(zram_bytes(header), Some(0));
        let laptop = format!(
            "{header}/dev/zram0                              partition\t8388604\t\t1024\t\t100\n\
             /swapfile                               file\t\t2097148\t\t0\t\t-2\n"
        );
        assert_eq!(zram_bytes(&laptop), Some(8_388_604 * 1024));
        assert_eq!(zram_bytes(""), None);
        assert_eq!(zram_bytes(&format!("{header}/dev/zram0 partition many 0 1\n")), None);
    }

    proptest! {
        #[test]
        fn any_text_gives_some_bytes_or_none(text in "(Filename\n)?(/dev/zram[0-9]? [a-z]? ?[0-9]{0,30}\n?){0,3}") {
            let _ = zram_bytes(&text);
        }
    }
}
