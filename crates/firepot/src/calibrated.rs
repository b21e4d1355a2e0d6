//! The calibration of this machine: where it is kept, and for what it holds.

use std::path::{Path, PathBuf};

use firepot_calibrate::{Calibration, Stamp, Work};
use firepot_gguf::Layout;
use firepot_machine::Machine;
use firepot_plan::{Fastest, threads};

/// Longer files are no calibration.
const BYTES_MAX: u64 = 1 << 20;

/// Where a home keeps it.
pub fn path(home: &Path) -> PathBuf {
    home.join("calibration.json")
}

/// What a calibration of this machine and this build is marked with.
pub fn stamp(machine: &Machine) -> Stamp {
    let cpu = machine.cpu.model.known().cloned().unwrap_or_else(|| "unknown".to_owned());
    let build = format!("firepot {}, {}", env!("CARGO_PKG_VERSION"), firepot_llama::build_info());
    Stamp { cpu, threads: threads(&machine.cpu), build }
}

/// The stored calibration, when it is of this machine and this build.
pub fn read(home: &Path, machine: &Machine) -> Option<Calibration> {
    let path = path(home);
    let small = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= BYTES_MAX);
    let text = small.then(|| std::fs::read_to_string(path).ok())??;
    let calibration: Calibration = serde_json::from_str(&text).ok()?;
    (calibration.stamp == stamp(machine)).then_some(calibration)
}

/// What it says is fastest for a model on the CPU.
pub fn fastest(home: &Path, machine: &Machine, layout: &Layout) -> Option<Fastest> {
    read(home, machine)?.fastest(&Work::of(layout))
}
