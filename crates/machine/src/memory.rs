//! Main memory: what the system has, what a control group leaves of it.

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::{
    Reading,
    cgroup::{Cgroup, MemoryLimit},
    reading::NOT_LOOKED_AT,
    swap,
    tree::Tree,
};

/// Main memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Swap space; a model that is read from it crawls.
    pub swap_total_bytes: Reading<u64>,
    /// Swap space that is free.
    pub swap_free_bytes: Reading<u64>,
    /// The part of the swap space that lies compressed in memory itself.
    pub swap_zram_bytes: Reading<u64>,
    /// When the kernel backs memory with huge pages by itself.
    pub huge_pages: Reading<HugePages>,
    /// What this process may lock in memory; absent when it may lock all.
    pub memlock_limit_bytes: Reading<u64>,
}

/// The kernel's setting of transparent huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// Everywhere.
    Always,
    /// Where a program asks for them.
    Madvise,
    /// Nowhere.
    Never,
}

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

impl Memory {
    pub(crate) fn probe(tree: &Tree, cgroup: &Cgroup) -> Self {
        let zram =
            |text: String| swap::zram_bytes(&text).ok_or_else(|| "/proc/swaps is not as known".to_owned());
        let setting =
            |text: String| HugePages::parse(&text).ok_or_else(|| format!("{HUGE_PAGES} holds {text:?}"));
        Self {
            swap_zram_bytes: tree.text("/proc/swaps").and_then(zram).into(),
            huge_pages: tree.text(HUGE_PAGES).and_then(setting).into(),
            memlock_limit_bytes: getrlimit(Resource::Memlock)
                .current
                .ok_or_else(|| "no limit is set".to_owned())
                .into(),
            ..Self::from_parts(&tree.text("/proc/meminfo"), cgroup.memory_limit(tree))
        }
    }

    /// Memory of which only the effective sizes are known, as tests and remote machines describe it.
    #[must_use]
    pub fn of(total_bytes: u64, available_bytes: u64) -> Self {
        Self {
            total_bytes: Reading::Known(total_bytes),
            available_bytes: Reading::Known(available_bytes),
            effective_total_bytes: Reading::Known(total_bytes),
            effective_available_bytes: Reading::Known(available_bytes),
            ..Self::unread(NOT_LOOKED_AT)
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
            swap_total_bytes: field("SwapTotal"),
            swap_free_bytes: field("SwapFree"),
            swap_zram_bytes: Reading::absent(NOT_LOOKED_AT),
            huge_pages: Reading::absent(NOT_LOOKED_AT),
            memlock_limit_bytes: Reading::absent(NOT_LOOKED_AT),
        }
    }
}

impl HugePages {
    /// From `always [madvise] never`, where the brackets mark what is set.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('[')?.1.split_once(']')?.0 {
            "always" => Some(Self::Always),
            "madvise" => Some(Self::Madvise),
            "never" => Some(Self::Never),
            _ => None,
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
    use crate::tree::fake::FakeTree;

    const MEMINFO: &str = "MemTotal:       24684092 kB\nMemFree:        23256548 kB\nMemAvailable:   24221816 kB\n\
         SwapTotal:             0 kB\nSwapFree:              0 kB\n";

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
          "effective_available_bytes": 24803139584,
          "swap_total_bytes": 0,
          "swap_free_bytes": 0,
          "swap_zram_bytes": {
            "absent": "not looked at"
          },
          "huge_pages": {
            "absent": "not looked at"
          },
          "memlock_limit_bytes": {
            "absent": "not looked at"
          }
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
    fn a_laptop_with_compressed_swap_is_read() {
        let fake = FakeTree::new(&[
            ("proc/meminfo", "MemTotal: 8000000 kB\nSwapTotal: 8388604 kB\nSwapFree: 8387580 kB\n"),
            (
                "proc/swaps",
                "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition\t8388604\t1024\t100\n",
            ),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ]);
        let memory = Memory::probe(&fake.tree(), &Cgroup::parse(""));
        assert_eq!(memory.swap_total_bytes, Reading::Known(8_388_604 * 1024));
        assert_eq!(memory.swap_free_bytes, Reading::Known(8_387_580 * 1024));
        assert_eq!(memory.swap_zram_bytes, memory.swap_total_bytes);
        assert_eq!(memory.huge_pages, Reading::Known(HugePages::Madvise));
    }

    #[test]
    fn what_memory_does_not_say_has_a_reason() {
        let memory = Memory::probe(&FakeTree::new(&[]).tree(), &Cgroup::parse(""));
        assert!(memory.swap_zram_bytes.reason().unwrap().starts_with("/proc/swaps: No such file"));
        assert!(memory.swap_total_bytes.reason().unwrap().starts_with("/proc/meminfo: No such file"));
        assert_eq!(HugePages::parse("always madvise never"), None);
        assert_eq!(HugePages::parse("[sometimes]"), None);
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
