//! The processor: cores that exist, cores that may be used, instruction sets that llama.cpp has kernels for.

use std::collections::HashSet;

use rustix::thread::{CpuSet, sched_getaffinity};
use serde::Serialize;

use crate::{Reading, cgroup::Cgroup, tree::Tree};

/// The processor as this process may use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
}

impl Cpu {
    pub(crate) fn probe(tree: &Tree, cgroup: &Cgroup) -> Self {
        let cpuinfo = tree.text("/proc/cpuinfo");
        Self::from_parts(cpuinfo, &affinity(), cgroup.quota_millicores(tree))
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
            features: info.map(|info| info.features).unwrap_or_default(),
        }
    }
}

const NO_NAME: &str = "/proc/cpuinfo gives no model name";

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
            "flags" | "Features" if self.features.is_empty() => self.features = features(value),
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
            _ => Err("/proc/cpuinfo does not say which logical cores share a physical one".to_owned()),
        }
    }
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
