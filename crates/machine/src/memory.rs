//! Main memory: what the system has, what a control group leaves of it.

use serde::Serialize;

use crate::{
    Reading,
    cgroup::{Cgroup, MemoryLimit},
    tree::Tree,
};

/// Main memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What the system has (`MemTotal`).
    pub total_bytes: Reading<u64>,
    /// What the system can give without swapping (`MemAvailable`: page cache counts).
    pub available_bytes: Reading<u64>,
    /// The tightest limit of the control groups that this process is in.
    pub cgroup_limit_bytes: Reading<u64>,
    /// What this process and its like may use in all: the smaller of total and limit.
    pub effective_total_bytes: Reading<u64>,
    /// What they may use now: the smaller of what the system and the control group have left.
    pub effective_available_bytes: Reading<u64>,
}

impl Memory {
    pub(crate) fn probe(tree: &Tree, cgroup: &Cgroup) -> Self {
        Self::from_parts(&tree.text("/proc/meminfo"), cgroup.memory_limit(tree))
    }

    /// Memory of which only the effective sizes are known, as tests and remote machines describe it.
    #[must_use]
    pub fn of(total_bytes: u64, available_bytes: u64) -> Self {
        Self {
            total_bytes: Reading::Known(total_bytes),
            available_bytes: Reading::Known(available_bytes),
            cgroup_limit_bytes: Reading::absent("not looked at"),
            effective_total_bytes: Reading::Known(total_bytes),
            effective_available_bytes: Reading::Known(available_bytes),
        }
    }

    pub(crate) fn unread(reason: &str) -> Self {
        Self::from_parts(&Err(reason.to_owned()), Reading::absent(reason))
    }

    fn from_parts(meminfo: &Result<String, String>, limit: Reading<MemoryLimit>) -> Self {
        let field = |name: &str| -> Reading<u64> {
            let text = meminfo.as_ref().map_err(Clone::clone);
            text.and_then(|text| kib_field(text, name).ok_or_else(|| format!("/proc/meminfo has no {name}")))
                .into()
        };
        let (total_bytes, available_bytes) = (field("MemTotal"), field("MemAvailable"));
        let limit_bytes = limit.clone().map(|limit| limit.limit_bytes);
        let left_bytes = limit.map(|limit| limit.available_bytes);
        Self {
            effective_total_bytes: total_bytes.clone().tighter(limit_bytes.clone()),
            effective_available_bytes: available_bytes.clone().tighter(left_bytes),
            total_bytes,
            available_bytes,
            cgroup_limit_bytes: limit_bytes,
        }
    }
}

/// A field of `/proc/meminfo`, whose `kB` are 1024 bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEMINFO: &str =
        "MemTotal:       24684092 kB\nMemFree:        23256548 kB\nMemAvailable:   24221816 kB\n";

    fn no_limit() -> Reading<MemoryLimit> {
        Reading::absent("no control group limits the memory")
    }

    #[test]
    fn without_a_limit_the_system_decides() {
        let memory = Memory::from_parts(&Ok(MEMINFO.to_owned()), no_limit());
        insta::assert_json_snapshot!(memory, @r#"
        {
          "total_bytes": 25276510208,
          "available_bytes": 24803139584,
          "cgroup_limit_bytes": {
            "absent": "no control group limits the memory"
          },
          "effective_total_bytes": 25276510208,
          "effective_available_bytes": 24803139584
        }
        "#);
    }

    #[test]
    fn a_control_group_decides_where_it_is_tighter() {
        let limit =
            |limit_bytes, available_bytes| Reading::Known(MemoryLimit { limit_bytes, available_bytes });
        let memory = Memory::from_parts(&Ok(MEMINFO.to_owned()), limit(4096, 1024));
        assert_eq!(memory.effective_total_bytes, Reading::Known(4096));
        assert_eq!(memory.effective_available_bytes, Reading::Known(1024));
        let memory = Memory::from_parts(&Ok(MEMINFO.to_owned()), limit(1 << 50, 1 << 49));
        assert_eq!(memory.effective_total_bytes, memory.total_bytes);
        assert_eq!(memory.effective_available_bytes, memory.available_bytes);
    }

    #[test]
    fn an_old_kernel_has_no_available_field() {
        let memory = Memory::from_parts(&Ok("MemTotal: 1 kB\n".to_owned()), no_limit());
        assert_eq!(memory.total_bytes, Reading::Known(1024));
        assert_eq!(memory.effective_available_bytes.reason(), Some("/proc/meminfo has no MemAvailable"));
    }

    #[test]
    fn a_field_is_not_taken_for_one_that_begins_alike() {
        assert_eq!(kib_field("MemTotalX: 5 kB\nMemTotal: 7 kB\n", "MemTotal"), Some(7 * 1024));
        assert_eq!(kib_field("MemTotal: many kB\n", "MemTotal"), None);
        assert_eq!(kib_field("MemTotal: 18446744073709551615 kB\n", "MemTotal"), None);
    }

    proptest! {
        #[test]
        fn the_effective_size_is_never_above_the_system_s(total in 0..1_u64 << 40, limit: u64) {
            let meminfo = format!("MemTotal: {total} kB\nMemAvailable: {total} kB\n");
            let limit = MemoryLimit { limit_bytes: limit, available_bytes: limit / 2 };
            let memory = Memory::from_parts(&Ok(meminfo), Reading::Known(limit));
            prop_assert!(memory.effective_total_bytes.known() <= Some(&(total * 1024)));
            prop_assert!(memory.effective_available_bytes.known() <= memory.effective_total_bytes.known());
        }
    }
}
