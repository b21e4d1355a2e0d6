//! The calibration of this machine and what answers took since: where they are kept, and for what they hold.

use std::path::{Path, PathBuf};

use firepot_calibrate::{Answer, Calibration, Observed, Stamp, Way, Work};
use firepot_gguf::Layout;
use firepot_machine::Machine;
use firepot_plan::{Fastest, threads};
use firepot_store::{StoreError, write_atomic};
use serde::de::DeserializeOwned;

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
    Stamp { cpu, threads: threads(&machine.cpu), build }
}

/// The stored calibration, when it is of this machine and this build.
pub fn read(home: &Path, machine: &Machine) -> Option<Calibration> {
    read_json(&path(home)).filter(|calibration: &Calibration| calibration.stamp == stamp(machine))
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
