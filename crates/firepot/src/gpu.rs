//! Whether a GPU that is here is used, and what is said when it is not.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use firepot_machine::{ComputeDevice, CudaBuild, DeviceNames, Gpu, Machine, Obstacle, Reading};
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

/// What llama.cpp says of this machine's devices.
#[derive(Clone, Debug)]
pub struct Asked {
    devices: Reading<Vec<ComputeDevice>>,
    cuda: Option<CudaBuild>,
}

impl Asked {
    /// Asks by `firepot devices`: a process of its own, since a driver may end it, which takes some hundredths of a second and more with a GPU.
    pub fn now() -> Self {
        match ask_llama() {
            Ok(report) => Self::of_report(&report, of_library()),
            Err(error) => Self { devices: Reading::absent(error.to_string()), cuda: of_library() },
        }
    }

    /// `library` says what the CUDA library beside this program was built for; without one, llama.cpp's own features do.
    fn of_report(report: &str, library: Option<CudaBuild>) -> Self {
        let inside = || CudaBuild::of_features(&serde_json::from_str::<Report>(report).ok()?.system);
        Self { devices: ComputeDevice::parse_report(report), cuda: library.or_else(inside) }
    }

    /// The machine with what llama.cpp finds.
    pub fn on(&self, machine: Machine) -> Machine {
        Machine { compute: self.devices.clone(), ..machine }
    }

    /// The machine with the GPUs that plans may use, and llama.cpp's names for them.
    pub fn for_plans(&self, machine: Machine) -> (Machine, DeviceNames) {
        self.on(machine).for_plans(self.cuda.as_ref())
    }

    /// Whether this is still believed after so long.
    fn holds(&self, age: Duration, machine: &Machine) -> bool {
        let tells_memory = || !self.on(machine.clone()).further_gpus().is_empty();
        age < BELIEVED_OF_MEMORY || (age < BELIEVED && !tells_memory())
    }
}

/// The part of what `firepot devices` prints that says how it was built.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    system: String,
}

/// What lies beside the CUDA library of a portable build; `xtask dist` writes it.
fn of_library() -> Option<CudaBuild> {
    let path = cuda_library()?.with_file_name(ABOUT_CUDA);
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn ask_llama() -> anyhow::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("devices").stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    anyhow::ensure!(output.status.success(), "the probe ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether there is a card that llama.cpp may find.
pub const fn worth_asking(machine: &Machine) -> bool {
    !machine.gpus.devices.is_empty() || !machine.gpus.pci.is_empty()
}

/// How long llama.cpp's answer is believed: a card may be lost, and then those after it have other names.
const BELIEVED: Duration = Duration::from_secs(10);
/// The same where it alone tells what is free on a card.
const BELIEVED_OF_MEMORY: Duration = Duration::from_secs(1);

/// llama.cpp's last answer, and when it came.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Option<(Instant, Arc<Asked>)>>);

impl Answers {
    /// What llama.cpp says now of this machine, or said just before.
    pub fn on(&self, machine: &Machine) -> Arc<Asked> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, asked)) = kept.as_ref().filter(|(at, asked)| asked.holds(at.elapsed(), machine)) {
            return Arc::clone(asked);
        }
        let asked = Arc::new(Asked::now());
        *kept = Some((Instant::now(), Arc::clone(&asked)));
        asked
    }
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
    if has_backend() && worth_asking(&machine) {
        judge(&planner.asked.on(&machine), machine)
    } else {
        judge_by(&machine, has_backend(), None)
    }
}

/// Judges a machine of which llama.cpp said this.
pub fn judge(asked: &Asked, machine: Machine) -> Verdict {
    judge_by(&asked.on(machine), has_backend(), asked.cuda.as_ref())
}

fn judge_by(machine: &Machine, has_backend: bool, cuda: Option<&CudaBuild>) -> Verdict {
    if let Some(card) = machine.unusable_gpus().first() {
        let reason = format!("{} is here and cannot be used: {}", card.name, card.reason);
        return Verdict::Unused { reason, hint: "install its driver" };
    }
    if let Some(card) = machine.gpus.devices.first().filter(|_| !has_backend) {
        let hint = if cuda_library().is_some() {
            "install the wheel with the CUDA library beside this one: pip install firepot-cuda"
        } else {
            "build again with `make build`, which picks the backend"
        };
        return unused(card, "this build has no backend for it", hint);
    }
    let obstacles = machine.obstacles(cuda);
    let mut cards = machine.gpus.devices.iter().zip(obstacles);
    if let Some((card, obstacle)) = cards.find_map(|(card, obstacle)| Some((card, obstacle?))) {
        return unused(card, &obstacle.to_string(), way_out(&obstacle));
    }
    let used = !machine.gpus.devices.is_empty() || !machine.further_gpus().is_empty();
    if used { Verdict::Usable } else { Verdict::None }
}

const fn way_out(obstacle: &Obstacle) -> &'static str {
    match obstacle {
        Obstacle::OldDriver { .. } => "update the NVIDIA driver",
        Obstacle::NoCode { .. } => "build from source on this machine: `make build`",
        Obstacle::NotAsked(_) => "see what `firepot devices` prints",
        Obstacle::NotListed => {
            "see what `firepot --log debug devices` prints, and whether CUDA_VISIBLE_DEVICES leaves it out"
        }
    }
}

fn unused(card: &Gpu, reason: &str, hint: &'static str) -> Verdict {
    Verdict::Unused { reason: format!("{} is here and is not used: {reason}", card.name), hint }
}

#[cfg(test)]
mod tests {
    use firepot_machine::{GpuVendor, Gpus, PciGpu};

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
        let cuda = CudaBuild {
            architectures: vec!["75".to_owned(), "80".to_owned()],
            driver_min: Some("450.80.02".to_owned()),
            ptx: false,
        };
        let said = match judge_by(machine, has_backend, Some(&cuda)) {
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
        // llama.cpp lists it nevertheless.
        check(&machine((6, 1), "550.54", T4), true, old);
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
    #[test]
    fn what_cuda_code_was_built_for_is_told_by_the_library_or_by_llama_cpp() {
        let report = r#"{"system":"CUDA : ARCHS = 750 | CPU : SSE3 = 1","devices":[]}"#;
        assert_eq!(Asked::of_report(report, None).cuda.unwrap().architectures, ["75"]);
        let library = CudaBuild { architectures: vec!["80".to_owned()], ..CudaBuild::default() };
        assert_eq!(Asked::of_report(report, Some(library.clone())).cuda, Some(library));
        assert!(Asked::of_report(r#"{"devices":[]}"#, None).cuda.is_none());
    }
    #[test]
    fn what_llama_cpp_alone_tells_of_memory_is_asked_for_again_soon() {
        let asked = Asked::of_report(&format!(r#"{{"devices":[{T4}]}}"#), None);
        let of_nvml = machine((7, 5), "550.54", T4);
        let held = |asked: &Asked, machine: &Machine| {
            [0, 5, 15].map(|s| asked.holds(Duration::from_secs(s), machine))
        };
        assert_eq!(held(&asked, &of_nvml), [true, true, false]);
        let at = "0000:03:00.0";
        let card = T4.replace("CUDA", "Vulkan").replace('}', &format!(r#","id":"{at}"}}"#));
        let asked = Asked::of_report(&format!(r#"{{"devices":[{card}]}}"#), None);
        let mut of_amd = Machine::unread("a test");
        of_amd.gpus.pci.push(PciGpu {
            address: at.to_owned(),
            vendor: GpuVendor::Amd,
            device_id: 1,
            driver: None,
        });
        assert_eq!(held(&asked, &of_amd), [true, false, false]);
    }
}
