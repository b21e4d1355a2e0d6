//! Whether a GPU that is here is used, and what is said when it is not.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use firepot_machine::{ComputeKind, Gpu, Machine};
use serde::Deserialize;

use crate::planner::LocalPlanner;

/// This build has a backend for GPUs inside.
const BUILT_IN: bool = cfg!(any(feature = "cuda", feature = "vulkan"));

/// What lies beside the CUDA library of a portable build.
const ABOUT_CUDA: &str = "cuda.json";

/// Whether this program has a backend for GPUs: inside, or in a library beside it.
pub fn has_backend() -> bool {
    BUILT_IN || cuda_library().is_some_and(|library| library.exists())
}

/// Where a portable build looks for the CUDA library, whether it is there or not.
pub fn cuda_library() -> Option<PathBuf> {
    firepot_llama::library_dir().map(|dir| dir.join("libggml-cuda.so"))
}

/// For which cards and drivers a CUDA library was built; `xtask dist` writes it.
#[derive(Clone, Debug, Deserialize)]
struct AboutCuda {
    /// Compute capabilities with machine code of their own, such as `75`.
    architectures: Vec<String>,
    /// Oldest driver that it runs on.
    driver_min: String,
}

impl AboutCuda {
    fn read() -> Option<Self> {
        let path = cuda_library()?.with_file_name(ABOUT_CUDA);
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    }

    /// Why a card does not run it, if that can be told. Machine code runs on cards of the same major version and no lower minor one
    /// (CUDA C++ Programming Guide, "Binary Compatibility").
    fn against(&self, card: &Gpu, driver: Option<&str>) -> Option<(String, &'static str)> {
        if let Some(driver) = driver.filter(|driver| version(driver) < version(&self.driver_min)) {
            let reason = format!("its driver {driver} is older than {}", self.driver_min);
            return Some((reason, "update the NVIDIA driver"));
        }
        let &(major, minor) = card.compute_capability.known()?;
        let runs =
            |arch: &String| arch.parse::<u32>().is_ok_and(|arch| arch / 10 == major && arch % 10 <= minor);
        if self.architectures.iter().any(runs) {
            return None;
        }
        let built = self.architectures.join(", sm_");
        let reason = format!("it is sm_{major}{minor}, and the CUDA library was built for sm_{built}");
        Some((reason, "build from source on this machine: `make build`"))
    }
}

fn version(text: &str) -> Vec<u32> {
    text.split('.').map_while(|part| part.parse().ok()).collect()
}

/// What `firepot devices` prints. It is a process of its own, since a driver may end it.
///
/// # Errors
/// When it ends early.
pub fn ask_llama() -> anyhow::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("devices").stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    anyhow::ensure!(output.status.success(), "the probe ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// How the machine's GPUs and this build go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none.
    None,
    /// There is one and llama.cpp uses it.
    Usable,
    /// There is one that cannot be used; why, and the way out.
    Unused {
        /// Why.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
}

/// Judges this machine. Where there is a GPU, llama.cpp is asked whether it finds it, which takes a process.
pub fn judge_here(planner: &LocalPlanner) -> Verdict {
    let machine = planner.probe();
    if machine.gpus.devices.is_empty() || !has_backend() {
        judge(&machine)
    } else {
        judge(&LocalPlanner::with_llama(machine))
    }
}

/// Judges a machine of which it is known what llama.cpp finds.
pub fn judge(machine: &Machine) -> Verdict {
    judge_by(machine, has_backend(), AboutCuda::read().as_ref())
}

fn judge_by(machine: &Machine, has_backend: bool, about: Option<&AboutCuda>) -> Verdict {
    if let Some(card) = machine.gpus.unusable().first() {
        let reason = format!("{} is here and cannot be used: {}", card.name, card.reason);
        return Verdict::Unused { reason, hint: "install its driver" };
    }
    let Some(card) = machine.gpus.devices.first() else { return Verdict::None };
    if !has_backend {
        let hint = if cuda_library().is_some() {
            "install the wheel with the CUDA library beside this one: pip install firepot-cuda"
        } else {
            "build again with `make build`, which picks the backend"
        };
        return unused(card, "this build has no backend for it", hint);
    }
    let computes = machine.compute.known().map(Vec::as_slice).unwrap_or_default();
    let found = computes.iter().filter(|device| device.kind == ComputeKind::Gpu).count();
    if found >= machine.gpus.devices.len() {
        return Verdict::Usable;
    }
    let mut cards = machine.gpus.devices.iter().zip(machine.match_devices());
    let card = cards.find_map(|(card, device)| device.is_none().then_some(card)).unwrap_or(card);
    let driver = machine.gpus.driver_version.known().map(String::as_str);
    match (about.and_then(|about| about.against(card, driver)), machine.compute.reason()) {
        (Some((reason, hint)), _) => unused(card, &reason, hint),
        (None, Some(reason)) => unused(card, reason, "see what `firepot devices` prints"),
        (None, None) => {
            unused(card, "llama.cpp does not find it", "see what `firepot --log debug devices` prints")
        }
    }
}

fn unused(card: &Gpu, reason: &str, hint: &'static str) -> Verdict {
    Verdict::Unused { reason: format!("{} is here and is not used: {reason}", card.name), hint }
}

#[cfg(test)]
mod tests {
    use firepot_machine::{ComputeDevice, Gpus, Reading};

    use super::*;

    fn machine(capability: (u32, u32), driver: &str, found: &str) -> Machine {
        let mut gpus = Gpus::of(vec![Gpu::of("Tesla T4", capability, 15 << 30, 14 << 30)]);
        gpus.driver_version = Reading::Known(driver.to_owned());
        let compute = ComputeDevice::parse_report(&format!(r#"{{"devices":[{found}]}}"#));
        Machine { gpus, compute, ..Machine::unread("a test") }
    }

    const CPU: &str = r#"{"name":"CPU","kind":"cpu","total_bytes":1,"free_bytes":1}"#;
    const T4: &str = r#"{"name":"CUDA0","description":"Tesla T4","kind":"gpu","backend":"CUDA","total_bytes":1,"free_bytes":1}"#;

    fn check(machine: &Machine, has_backend: bool, expected: &str) {
        let about = AboutCuda {
            architectures: vec!["75".to_owned(), "80".to_owned()],
            driver_min: "450.80.02".to_owned(),
        };
        let said = match judge_by(machine, has_backend, Some(&about)) {
            Verdict::None => "none".to_owned(),
            Verdict::Usable => "usable".to_owned(),
            Verdict::Unused { reason, .. } => reason,
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn a_card_is_used_or_it_is_said_why_not() {
        check(&Machine::unread("a test"), true, "none");
        check(&machine((7, 5), "550.54", T4), true, "usable");
        let no_backend = "Tesla T4 is here and is not used: this build has no backend for it";
        check(&machine((7, 5), "550.54", CPU), false, no_backend);
        let driver = "Tesla T4 is here and is not used: its driver 440.33 is older than 450.80.02";
        check(&machine((7, 5), "440.33", CPU), true, driver);
        let old =
            "Tesla T4 is here and is not used: it is sm_61, and the CUDA library was built for sm_75, sm_80";
        check(&machine((6, 1), "550.54", CPU), true, old);
        check(
            &machine((8, 6), "550.54", CPU),
            true,
            "Tesla T4 is here and is not used: llama.cpp does not find it",
        );
    }

    #[test]
    fn one_card_of_two_that_is_not_used_is_named() {
        let mut machine = machine((7, 5), "550.54", T4);
        let second = Gpu::of("Tesla T4", (7, 5), 15 << 30, 14 << 30);
        machine.gpus.devices.push(Gpu { index: 1, ..second });
        check(&machine, true, "Tesla T4 is here and is not used: llama.cpp does not find it");
    }
}
