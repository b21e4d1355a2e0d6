//! The processor: cores that exist, cores that may be used, instruction sets that llama.cpp has kernels for.

use std::collections::HashSet;

use rustix::thread::{CpuSet, sched_getaffinity};
use serde::{Deserialize, Serialize};

use crate::{
    Cache, Frequency, Reading, caches, cgroup::Cgroup, frequency::nominal_mhz, reading::NOT_LOOKED_AT,
    topology, tree::Tree,
};

/// The processor as this process may use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Model name; absent on most ARM systems.
    pub model: Reading<String>,
    /// Logical cores that the system has online.
    pub cores_logical: Reading<u32>,
    /// Logical cores that this process may run on: affinity, and the control group's quota rounded down (never
    /// below 1).
    pub cores_allowed: Reading<u32>,
    /// Physical cores below the logical ones of the affinity.
    pub cores_physical: Reading<u32>,
    /// CPU time that the control group allows, in thousandths of a core.
    pub quota_millicores: Reading<u64>,
    /// Instruction sets that llama.cpp has kernels for, by its own names.
    pub features: Vec<String>,
    /// Clocks and who governs them.
    pub frequency: Frequency,
    /// Data caches of the first core, smallest level first.
    pub caches: Reading<Vec<Cache>>,
    /// Memory nodes; more than one means that memory of another node is slower.
    pub numa_nodes: Reading<u32>,
    /// Whether a physical core carries several logical ones.
    pub smt: Reading<bool>,
    /// Whether this is a virtual machine.
    pub virtualized: Reading<bool>,
}

impl Cpu {
    pub(crate) fn probe(tree: &Tree, cgroup: &Cgroup) -> Self {
        let cpuinfo = tree.text("/proc/cpuinfo");
        let cpu = Self::from_parts(cpuinfo, &affinity(), cgroup.quota_millicores(tree));
        let nominal_mhz = cpu.model.known().and_then(|model| nominal_mhz(model));
        Self {
            frequency: Frequency::probe(tree, nominal_mhz, cpu.frequency.now_mhz),
            caches: caches::probe(tree),
            numa_nodes: topology::numa_nodes(tree),
            smt: topology::smt(tree).known().map_or(cpu.smt, |&smt| Reading::Known(smt)),
            ..cpu
        }
    }

    /// A processor of which only the cores that may be used and the features are known, as tests and descriptions of
    /// other machines give it.
    #[must_use]
    pub fn of(cores: u32, features: &[&str]) -> Self {
        Self {
            cores_logical: Reading::Known(cores),
            cores_allowed: Reading::Known(cores),
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
            ..Self::unread(NOT_LOOKED_AT)
        }
    }

    pub(crate) fn unread(reason: &str) -> Self {
        Self::from_parts(Err(reason.to_owned()), &Err(reason.to_owned()), Reading::absent(reason))
    }

    fn from_parts(
        cpuinfo: Result<String, String>,
        affinity: &Result<HashSet<u32>, String>,
        quota_millicores: Reading<u64>,
    ) -> Self {
        let info = cpuinfo.map(|text| CpuInfo::parse(&text));
        let by_affinity: Reading<u32> =
            affinity.as_ref().map(|cores| cores.len() as u32).map_err(Clone::clone).into();
        let by_quota = quota_millicores.clone().map(|quota| (quota / 1000).clamp(1, u32::MAX.into()) as u32);
        let physical = |info: &CpuInfo| info.physical_cores(affinity.as_ref().ok());
        Self {
            model: info.clone().and_then(|info| info.model.ok_or_else(|| NO_NAME.to_owned())).into(),
            cores_logical: info.as_ref().map(|info| info.cores.len() as u32).map_err(Clone::clone).into(),
            cores_allowed: by_affinity.tighter(by_quota),
            cores_physical: info.as_ref().map_err(Clone::clone).and_then(physical).into(),
            quota_millicores,
            frequency: Frequency::unread(
                NOT_LOOKED_AT,
                info.clone().and_then(|info| info.mhz.ok_or_else(|| NO_CLOCK.to_owned())).into(),
            ),
            caches: Reading::absent(NOT_LOOKED_AT),
            numa_nodes: Reading::absent(NOT_LOOKED_AT),
            smt: info.as_ref().map_err(Clone::clone).and_then(CpuInfo::smt).into(),
            virtualized: info.as_ref().map_err(Clone::clone).and_then(CpuInfo::virtualized).into(),
            features: info.map(|info| info.features).unwrap_or_default(),
        }
    }
}

const NO_NAME: &str = "/proc/cpuinfo gives no model name";
const NO_CLOCK: &str = "/proc/cpuinfo gives no clock";
const NO_TOPOLOGY: &str = "/proc/cpuinfo does not say which logical cores share a physical one";

fn affinity() -> Result<HashSet<u32>, String> {
    let set = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).map(|core| core as u32).collect())
}

/// What `/proc/cpuinfo` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct CpuInfo {
    model: Option<String>,
    cores: Vec<Core>,
    features: Vec<String>,
    /// Clock of the first core, now.
    mhz: Option<u32>,
    /// Whether a hypervisor announces itself; `None` where the processor has no flags (ARM).
    hypervisor: Option<bool>,
}

/// One logical core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Core {
    id: u32,
    socket: Option<u32>,
    physical: Option<u32>,
}

impl CpuInfo {
    fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            info.take(key.trim(), value.trim());
        }
        info
    }

    fn take(&mut self, key: &str, value: &str) {
        match key {
            "processor" => {
                if let Ok(id) = value.parse() {
                    self.cores.push(Core { id, socket: None, physical: None });
                }
            }
            "model name" | "Model" | "Hardware" if self.model.is_none() && !value.is_empty() => {
                self.model = Some(value.to_owned());
            }
            "physical id" => self.set(|core| core.socket = value.parse().ok()),
            "core id" => self.set(|core| core.physical = value.parse().ok()),
            "cpu MHz" if self.mhz.is_none() => self.mhz = whole_mhz(value),
            "flags" if self.hypervisor.is_none() => {
                self.hypervisor = Some(value.split_whitespace().any(|flag| flag == "hypervisor"));
                self.features = features(value);
            }
            "Features" if self.features.is_empty() => self.features = features(value),
            _ => {}
        }
    }

    fn set(&mut self, change: impl FnOnce(&mut Core)) {
        if let Some(core) = self.cores.last_mut() {
            change(core);
        }
    }

    /// Distinct (socket, core) pairs of the logical cores in `allowed`, or of all.
    fn physical_cores(&self, allowed: Option<&HashSet<u32>>) -> Result<u32, String> {
        let usable =
            self.cores.iter().filter(|core| allowed.is_none_or(|allowed| allowed.contains(&core.id)));
        let places: Option<HashSet<(u32, u32)>> = usable.map(|core| core.socket.zip(core.physical)).collect();
        match places {
            Some(places) if !places.is_empty() => Ok(places.len() as u32),
            _ => Err(NO_TOPOLOGY.to_owned()),
        }
    }

    fn smt(&self) -> Result<bool, String> {
        Ok(self.physical_cores(None)? < self.cores.len() as u32)
    }

    fn virtualized(&self) -> Result<bool, String> {
        self.hypervisor.ok_or_else(|| "/proc/cpuinfo gives no flags".to_owned())
    }
}

/// `2793.450` → 2793; 0 is not a clock.
fn whole_mhz(text: &str) -> Option<u32> {
    text.split('.').next()?.parse().ok().filter(|&mhz| mhz > 0)
}

/// The kernel's flag and ggml's name of what `ggml-cpu` has kernels for (`ggml/src/ggml-cpu/CMakeLists.txt`).
const FEATURES: &[(&str, &str)] = &[
    ("ssse3", "ssse3"),
    ("avx", "avx"),
    ("avx2", "avx2"),
    ("f16c", "f16c"),
    ("fma", "fma"),
    ("bmi2", "bmi2"),
    ("avx_vnni", "avx_vnni"),
    ("avx512f", "avx512f"),
    ("avx512vbmi", "avx512_vbmi"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx512_bf16", "avx512_bf16"),
    ("amx_tile", "amx_tile"),
    ("amx_int8", "amx_int8"),
    ("amx_bf16", "amx_bf16"),
    ("asimd", "neon"),
    ("asimdhp", "fp16"),
    ("asimddp", "dotprod"),
    ("i8mm", "i8mm"),
    ("sve", "sve"),
    ("sve2", "sve2"),
    ("sme", "sme"),
];

fn features(flags: &str) -> Vec<String> {
    let flags: HashSet<&str> = flags.split_whitespace().collect();
    FEATURES.iter().filter(|(flag, _)| flags.contains(flag)).map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPYC: &str = "processor\t: 0\nmodel name\t: AMD EPYC\nphysical id\t: 0\nsiblings\t: 2\ncore id\t\t: 0\n\
        flags\t\t: fpu ssse3 fma avx f16c avx2 bmi2 avx512f avx_vnni avx512_bf16 avx512vbmi avx512_vnni\n\n\
        processor\t: 1\nmodel name\t: AMD EPYC\nphysical id\t: 0\ncore id\t\t: 1\nflags\t\t: fpu\n";

    /// Two hyper-threads of each of two cores, as a notebook's Xeon shows them.
    const XEON: &str = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.00GHz\nphysical id\t: 0\n\
        core id\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\ncore id\t: 1\n\nprocessor\t: 2\nphysical id\t: 0\n\
        core id\t: 0\n\nprocessor\t: 3\nphysical id\t: 0\ncore id\t: 1\n";

    /// The first core of the machine that this was written on: one thread a core, below a hypervisor.
    const ICE_LAKE: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\n\
        model name\t: Intel(R) Xeon(R) Processor @ 2.80GHz\ncpu MHz\t\t: 2793.450\ncache size\t: 49152 KB\n\
        physical id\t: 0\nsiblings\t: 2\ncore id\t\t: 0\ncpu cores\t: 2\n\
        flags\t\t: fpu ssse3 fma avx f16c hypervisor avx2 bmi2 avx512f avx512vbmi avx512_vnni\n\
        bugs\t\t: spectre_v1\n\nprocessor\t: 1\nphysical id\t: 0\ncore id\t\t: 1\n";

    const GRAVITON: &str = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimdhp asimddp sve i8mm\n\
        CPU implementer\t: 0x41\nCPU part\t: 0xd40\n\nprocessor\t: 1\nFeatures\t: fp asimd\n";

    fn cpu(text: &str, affinity: &[u32], quota: Reading<u64>) -> Cpu {
        Cpu::from_parts(Ok(text.to_owned()), &Ok(affinity.iter().copied().collect()), quota)
    }

    fn no_quota() -> Reading<u64> {
        Reading::absent("no quota is set")
    }

    #[test]
    fn an_x86_processor_is_read() {
        let cpu = cpu(EPYC, &[0, 1], no_quota());
        assert_eq!(cpu.model, Reading::Known("AMD EPYC".to_owned()));
        assert_eq!(cpu.cores_logical, Reading::Known(2));
        assert_eq!(cpu.cores_physical, Reading::Known(2));
        assert_eq!(cpu.cores_allowed, Reading::Known(2));
        insta::assert_snapshot!(cpu.features.join(" "), @"ssse3 avx avx2 f16c fma bmi2 avx_vnni avx512f avx512_vbmi avx512_vnni avx512_bf16");
    }

    #[test]
    fn a_virtual_machine_is_told_by_its_hypervisor() {
        let virtual_machine = cpu(ICE_LAKE, &[0, 1], no_quota());
        assert_eq!(virtual_machine.virtualized, Reading::Known(true));
        assert_eq!(virtual_machine.smt, Reading::Known(false));
        assert_eq!(virtual_machine.frequency.now_mhz, Reading::Known(2793));
        assert_eq!(cpu(EPYC, &[0, 1], no_quota()).virtualized, Reading::Known(false));
        assert_eq!(
            cpu(GRAVITON, &[0], no_quota()).virtualized.reason(),
            Some("/proc/cpuinfo gives no flags")
        );
        assert_eq!(cpu(XEON, &[0, 1], no_quota()).smt, Reading::Known(true));
        assert_eq!(cpu(GRAVITON, &[0], no_quota()).smt.reason(), Some(NO_TOPOLOGY));
    }

    #[test]
    fn a_described_processor_has_its_cores_and_features() {
        let cpu = Cpu::of(4, &["avx2", "fma"]);
        assert_eq!((cpu.cores_allowed, cpu.features.len()), (Reading::Known(4), 2));
        assert_eq!(cpu.caches.reason(), Some("not looked at"));
    }

    #[test]
    fn hyper_threads_share_a_physical_core() {
        assert_eq!(cpu(XEON, &[0, 1, 2, 3], no_quota()).cores_physical, Reading::Known(2));
        assert_eq!(cpu(XEON, &[0, 2], no_quota()).cores_physical, Reading::Known(1));
    }

    #[test]
    fn an_arm_processor_has_no_name_and_no_topology() {
        let cpu = cpu(GRAVITON, &[0, 1], no_quota());
        assert_eq!(cpu.model.reason(), Some(NO_NAME));
        assert!(cpu.cores_physical.known().is_none());
        assert_eq!(cpu.cores_logical, Reading::Known(2));
        assert_eq!(cpu.features, ["neon", "fp16", "dotprod", "i8mm", "sve"]);
    }

    #[test]
    fn a_quota_limits_the_cores_and_leaves_one_at_least() {
        let allowed = |quota| cpu(XEON, &[0, 1, 2, 3], Reading::Known(quota)).cores_allowed;
        assert_eq!(allowed(2500), Reading::Known(2));
        assert_eq!(allowed(300), Reading::Known(1));
        assert_eq!(allowed(64_000), Reading::Known(4));
    }

    #[test]
    fn what_could_not_be_read_is_absent_with_its_reason() {
        let cpu = Cpu::unread("not looked at");
        assert_eq!(cpu.model.reason(), Some("not looked at"));
        assert_eq!(cpu.cores_allowed.reason(), Some("not looked at"));
        assert_eq!(cpu.cores_physical.reason(), Some("not looked at"));
    }

    #[test]
    fn this_process_runs_on_some_core() {
        assert!(!affinity().unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_text_gives_some_processor(text in "(processor|core id|physical id|flags|x)?[\t :]{0,3}[0-9a-z\n]{0,40}") {
            let cpu = cpu(&text, &[0], no_quota());
            prop_assert!(cpu.cores_logical.known().is_some());
        }
    }
}
