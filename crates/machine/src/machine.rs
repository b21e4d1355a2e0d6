//! The whole box.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    ComputeDevice, Cpu, Disk, Gpus, Memory, Platform, PlatformKind, Reading, cgroup::Cgroup, tree::Tree,
};

/// What the environment says about the platform. The binary fills it in: nothing else reads the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `KAGGLE_KERNEL_RUN_TYPE`.
    pub kaggle_kernel_run_type: Option<String>,
    /// `COLAB_RELEASE_TAG`.
    pub colab_release_tag: Option<String>,
}

/// What this box is, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// The disk that holds the home.
    pub disk: Reading<Disk>,
    /// Graphics processors.
    pub gpus: Gpus,
    /// What llama.cpp finds. It is asked in a process of its own, by the binary: a driver may end the one that asks.
    pub compute: Reading<Vec<ComputeDevice>>,
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

    /// The machine that the files below `root` speak of, as they were recorded of another one; only GPUs and limits of the process are
    /// this machine's.
    #[must_use]
    pub fn recorded(root: &Path, environment: &Environment) -> Self {
        Self::probe_tree(&Tree::below(root), Path::new("/"), environment)
    }

    /// A machine of which nothing is known, for this reason: a beginning for tests and descriptions.
    #[must_use]
    pub fn unread(reason: &str) -> Self {
        Self {
            cpu: Cpu::unread(reason),
            memory: Memory::unread(reason),
            disk: Reading::absent(reason),
            gpus: Gpus::none(reason),
            compute: Reading::absent(reason),
            platform: Platform::of(PlatformKind::Bare, reason),
        }
    }

    fn probe_tree(tree: &Tree, home: &Path, environment: &Environment) -> Self {
        let cgroup = Cgroup::parse(&tree.optional("/proc/self/cgroup").unwrap_or_default());
        Self {
            cpu: Cpu::probe(tree, &cgroup),
            memory: Memory::probe(tree, &cgroup),
            disk: Disk::probe(tree, home),
            gpus: Gpus::probe(tree),
            compute: Reading::absent("llama.cpp was not asked"),
            platform: Platform::probe(tree, environment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DiskKind, Gpu, tree::fake::FakeTree};

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
            ("proc/1/stat", "1 (tini) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 0 50991104 3798\n"),
            ("proc/uptime", "600.12 1100.50\n"),
            ("proc/self/mountinfo", "1086 963 0:131 / / rw,relatime - overlay overlay rw\n"),
        ]);
        let machine = Machine::probe_tree(&fake.tree(), Path::new("/"), &Environment::default());
        assert_eq!(machine.cpu.quota_millicores, Reading::Known(4000));
        assert_eq!(machine.cpu.features, ["avx2", "fma"]);
        assert_eq!(machine.memory.effective_total_bytes, Reading::Known(30 << 30));
        assert_eq!(machine.memory.effective_available_bytes, Reading::Known(31_000_000 * 1024));
        assert_eq!(machine.gpus.pci.len(), 1);
        assert_eq!(machine.platform.kind, PlatformKind::Kaggle);
        assert_eq!(machine.platform.session.known().map(|session| session.left_s), Some(43_200 - 600));
        assert_eq!(machine.disk.known().unwrap().kind, Reading::Known(DiskKind::Overlay));
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
        assert_eq!(serde_json::from_value::<Machine>(json).unwrap(), machine);
    }

    #[test]
    fn another_machine_is_described_by_what_is_known_of_it() {
        let t4 = || Gpu::of("Tesla T4", (7, 5), 15_360 << 20, 14_912 << 20);
        let machine = Machine {
            cpu: Cpu::of(4, &["avx2", "fma", "f16c"]),
            memory: Memory::of(31 << 30, 29 << 30),
            gpus: Gpus::of(vec![t4(), t4()]),
            platform: Platform::of(PlatformKind::Kaggle, "a profile"),
            ..Machine::unread("not looked at")
        };
        assert_eq!(machine.gpus.devices[1].index, 1);
        assert!(machine.gpus.unusable().is_empty());
        let json = serde_json::to_string(&machine).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&json).unwrap(), machine);
    }

    #[test]
    fn a_machine_of_which_nothing_is_known_says_why_everywhere() {
        let machine = Machine::unread("it is far away");
        assert_eq!(machine.memory.effective_available_bytes.reason(), Some("it is far away"));
        assert_eq!(machine.cpu.cores_allowed.reason(), Some("it is far away"));
        assert_eq!(machine.gpus.absent.as_deref(), Some("it is far away"));
    }
}
