//! The calibration of this machine and what answers took since: where they are kept, and for what they hold.
//!
//! Reading memory's bandwidth, by which a calibration is known to hold still, takes some tenths of a second and disturbs answers that
//! run. So it is read where somebody waits for figures or for a load anyway: before `up` and `run` load, where what has moved is measured
//! again, and by `fit`, which says it. A server that loads a model goes by the stored figures: what it takes from them is which of two
//! ways is faster, and those were timed side by side.

use std::path::{Path, PathBuf};

use firepot_calibrate::{Answer, Asked, Calibration, Gpu, Observed, RECKONING, Stamp, Way, Work};
use firepot_gguf::Layout;
use firepot_machine::{DeviceNames, Machine};
use firepot_plan::{Fastest, Plan, other_threads, threads};
use firepot_store::{StoreError, write_atomic};
use serde::de::DeserializeOwned;

use crate::gpu::has_backend;

/// Longer files are not ours.
const BYTES_MAX: u64 = 1 << 20;

/// Where a home keeps it.
pub fn path(home: &Path) -> PathBuf {
    home.join("calibration.json")
}

/// What a calibration of this machine and this build is marked with.
pub fn stamp(machine: &Machine) -> Stamp {
    let cpu = machine.cpu.model.known().cloned().unwrap_or_else(|| "unknown".to_owned());
    let build = format!("firepot {}, {}", env!("CARGO_PKG_VERSION"), firepot_llama::build_info());
    let gpus = machine.gpus.devices.iter().filter(|_| has_backend()).map(|gpu| gpu.name.clone());
    Stamp { cpu, threads: threads(&machine.cpu), gpus: gpus.collect(), build, reckoning: RECKONING }
}

/// The stored calibration, when it is of this machine and this build, however old it is.
pub fn read(home: &Path, machine: &Machine) -> Option<Calibration> {
    read_json(&path(home)).filter(|calibration: &Calibration| calibration.stamp == stamp(machine))
}

/// What is to be measured for a model that is loaded by `plan`, its types aside: nothing where a GPU and main memory share it, since
/// nothing is predicted then.
pub fn asked_by(plan: &Plan, machine: &Machine, names: &DeviceNames, stamp: &Stamp) -> Asked {
    match (plan.gpu_layers, plan.host_experts) {
        (0, _) => on_cpu(machine),
        (-1, 0) => on_gpus(plan.gpus.iter().copied(), names, stamp),
        _ => Asked::default(),
    }
}

/// The same where no model is named: the GPUs that plans may use, else main memory.
pub fn asked_usually(machine: &Machine, names: &DeviceNames, stamp: &Stamp) -> Asked {
    let asked = on_gpus(0..stamp.gpus.len(), names, stamp);
    if asked.gpus.is_empty() { on_cpu(machine) } else { asked }
}

fn on_cpu(machine: &Machine) -> Asked {
    Asked { cpu: true, threads: other_threads(&machine.cpu), ..Asked::default() }
}

/// The first of each kind that llama.cpp has a name for.
fn on_gpus(numbers: impl Iterator<Item = usize>, names: &DeviceNames, stamp: &Stamp) -> Asked {
    let mut gpus: Vec<Gpu> = Vec::new();
    for number in numbers {
        let Some(name) = stamp.gpus.get(number) else { continue };
        let device = names.of(number);
        if !device.is_empty() && gpus.iter().all(|gpu| gpu.name != *name) {
            gpus.push(Gpu { name: name.clone(), device });
        }
    }
    Asked { gpus, ..Asked::default() }
}

/// What answers took, on this machine and this build.
pub fn observed(home: &Path, machine: &Machine) -> Observed {
    let stamp = stamp(machine);
    let stored = read_json(&observed_path(home)).filter(|observed: &Observed| observed.stamp == stamp);
    stored.unwrap_or_else(|| Observed::new(stamp))
}

/// Keeps what an answer took, if there is a calibration to compare it with.
///
/// # Errors
/// When the home cannot be written.
pub fn observe(
    home: &Path,
    machine: &Machine,
    layout: &Layout,
    way: Way,
    answer: &Answer,
) -> Result<(), StoreError> {
    let Some(calibration) = read(home, machine) else { return Ok(()) };
    let mut observed = observed(home, machine);
    if observed.note(&calibration, &Work::of(layout), way, answer) {
        let text = serde_json::to_vec_pretty(&observed).unwrap_or_default();
        write_atomic(&observed_path(home), &text)?;
    }
    Ok(())
}

fn observed_path(home: &Path) -> PathBuf {
    home.join("observed.json")
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let small = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= BYTES_MAX);
    let text = small.then(|| std::fs::read_to_string(path).ok())??;
    serde_json::from_str(&text).ok()
}

/// What it says is fastest for a model on the CPU.
pub fn fastest(home: &Path, machine: &Machine, layout: &Layout) -> Option<Fastest> {
    read(home, machine)?.fastest(&Work::of(layout))
}

#[cfg(test)]
mod tests {
    use firepot_machine::{Cpu, Memory};
    use firepot_plan::{Want, plan};

    use super::*;

    fn machine() -> Machine {
        Machine { cpu: Cpu::of(8, &[]), memory: Memory::of(16 << 30, 14 << 30), ..Machine::unread("a test") }
    }

    fn planned(gpu_layers: i32, gpus: &[usize], host_experts: u32) -> Plan {
        let model = firepot_catalogue::find("qwen3:8b").unwrap();
        let layout = model.model.layout(model.quant).unwrap();
        let plan = plan(&layout, &machine(), &Want::default()).unwrap();
        Plan { gpu_layers, gpus: gpus.to_vec(), host_experts, ..plan }
    }

    #[test]
    fn what_is_measured_is_where_the_model_goes_and_nothing_that_nobody_uses() {
        let machine = machine();
        let gpus = ["Tesla T4", "NVIDIA L4", "Tesla T4"].map(str::to_owned).to_vec();
        let stamp = Stamp { gpus, ..stamp(&machine) };
        let names: DeviceNames = ["CUDA0", "CUDA1", "CUDA2"].map(str::to_owned).into_iter().collect();
        let asked = |plan: &Plan| {
            let Asked { cpu, threads, gpus, .. } = asked_by(plan, &machine, &names, &stamp);
            (cpu, threads, gpus.into_iter().map(|gpu| gpu.name).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(asked(&planned(0, &[], 0)), (true, vec![4], String::new()));
        assert_eq!(asked(&planned(-1, &[0, 2], 0)), (false, Vec::new(), "Tesla T4".to_owned()));
        assert_eq!(asked(&planned(-1, &[1], 0)), (false, Vec::new(), "NVIDIA L4".to_owned()));
        assert_eq!(asked(&planned(-1, &[0], 4)), (false, Vec::new(), String::new()));
        assert_eq!(asked(&planned(12, &[0], 0)), (false, Vec::new(), String::new()));
        let usually = asked_usually(&machine, &names, &stamp);
        assert!(!usually.cpu && usually.gpus.len() == 2);
        assert!(asked_usually(&machine, &DeviceNames::default(), &stamp).cpu);
        assert!(asked_usually(&machine, &names, &Stamp { gpus: Vec::new(), ..stamp }).cpu);
    }

    #[test]
    fn a_calibration_of_another_reckoning_is_not_read() {
        let home = tempfile::tempdir().unwrap();
        let machine = machine();
        let mut stored = Calibration::empty(stamp(&machine));
        let write = |stored: &Calibration| {
            write_atomic(&path(home.path()), &serde_json::to_vec(stored).unwrap()).unwrap();
        };
        write(&stored);
        assert!(read(home.path(), &machine).is_some());
        stored.stamp.reckoning = RECKONING - 1;
        write(&stored);
        assert!(read(home.path(), &machine).is_none());
    }
}
