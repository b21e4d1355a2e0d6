//! The whole box.

use std::path::Path;

use serde::Serialize;

use crate::{Cpu, Disk, Gpus, Memory, Platform, PlatformKind, Reading, cgroup::Cgroup, tree::Tree};

/// What the environment says about the platform. The binary fills it in: nothing else reads the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `KAGGLE_KERNEL_RUN_TYPE`.
    pub kaggle_kernel_run_type: Option<String>,
    /// `COLAB_RELEASE_TAG`.
    pub colab_release_tag: Option<String>,
}

/// What this box is, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// The disk that holds the home.
    pub disk: Reading<Disk>,
    /// Graphics processors.
    pub gpus: Gpus,
    /// Notebook service, container or bare machine.
    pub platform: Platform,
}

impl Machine {
    /// Looks at the running system. Reads a few small files and asks NVML, which takes some milliseconds, and up to
    /// seconds when the NVIDIA driver has to wake up.
    #[must_use]
    pub fn probe(home: &Path, environment: &Environment) -> Self {
        Self::probe_tree(&Tree::system(), home, environment)
    }

    /// A machine of which nothing is known, for this reason: a beginning for tests and descriptions.
    #[must_use]
    pub fn unread(reason: &str) -> Self {
        Self {
            cpu: Cpu::unread(reason),
            memory: Memory::unread(reason),
            disk: Reading::absent(reason),
            gpus: Gpus::none(reason),
            platform: Platform { kind: PlatformKind::Bare, evidence: reason.to_owned() },
        }
    }

    fn probe_tree(tree: &Tree, home: &Path, environment: &Environment) -> Self {
        let cgroup = Cgroup::parse(&tree.optional("/proc/self/cgroup").unwrap_or_default());
        Self {
            cpu: Cpu::probe(tree, &cgroup),
            memory: Memory::probe(tree, &cgroup),
            disk: Disk::probe(home),
            gpus: Gpus::probe(tree),
            platform: Platform::probe(tree, environment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::fake::FakeTree;

    #[test]
    fn a_recorded_notebook_is_put_together() {
        let fake = FakeTree::new(&[
            (
                "proc/cpuinfo",
                "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.00GHz\nflags\t: avx2 fma\n",
            ),
            ("proc/meminfo", "MemTotal: 32880000 kB\nMemAvailable: 31000000 kB\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "32212254720\n"),
            ("sys/fs/cgroup/cpu.max", "400000 100000\n"),
            ("sys/bus/pci/devices/0000:00:04.0/vendor", "0x10de\n"),
            ("sys/bus/pci/devices/0000:00:04.0/class", "0x030200\n"),
            ("kaggle/working/notebook", ""),
        ]);
        let machine = Machine::probe_tree(&fake.tree(), Path::new("/"), &Environment::default());
        assert_eq!(machine.cpu.quota_millicores, Reading::Known(4000));
        assert_eq!(machine.cpu.features, ["avx2", "fma"]);
        assert_eq!(machine.memory.effective_total_bytes, Reading::Known(30 << 30));
        assert_eq!(machine.memory.effective_available_bytes, Reading::Known(31_000_000 * 1024));
        assert_eq!(machine.gpus.pci.len(), 1);
        assert_eq!(machine.platform.kind, PlatformKind::Kaggle);
    }

    #[test]
    fn an_empty_tree_gives_reasons_and_no_zeros() {
        let fake = FakeTree::new(&[]);
        let machine = Machine::probe_tree(&fake.tree(), Path::new("/"), &Environment::default());
        let absent =
            |reading: &Reading<u64>| reading.reason().unwrap().starts_with("/proc/meminfo: No such file");
        assert!(absent(&machine.memory.total_bytes) && absent(&machine.memory.effective_available_bytes));
        assert!(machine.cpu.cores_logical.reason().is_some());
        assert!(machine.gpus.unusable().is_empty());
    }

    #[test]
    fn this_machine_has_memory_a_core_and_a_disk() {
        let machine = Machine::probe(Path::new("/tmp"), &Environment::default());
        assert!(machine.memory.effective_total_bytes.known().is_some_and(|&bytes| bytes > 64 << 20));
        assert!(machine.cpu.cores_allowed.known().is_some_and(|&cores| cores >= 1));
        assert!(machine.disk.known().is_some());
        let json = serde_json::to_value(&machine).unwrap();
        assert!(json["memory"]["effective_available_bytes"].is_u64());
    }

    #[test]
    fn a_machine_of_which_nothing_is_known_says_why_everywhere() {
        let machine = Machine::unread("it is far away");
        assert_eq!(machine.memory.effective_available_bytes.reason(), Some("it is far away"));
        assert_eq!(machine.cpu.cores_allowed.reason(), Some("it is far away"));
        assert_eq!(machine.gpus.absent.as_deref(), Some("it is far away"));
    }
}
