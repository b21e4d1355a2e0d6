//! Which GPUs llama.cpp computes on, under its own names, and why not on the others.
//!
//! ggml's CUDA backend lists every card that the driver counts, whatever it was compiled for: that it lists a card says nothing of code for it.

use std::fmt;

use serde::Deserialize;

use crate::{ComputeDevice, ComputeKind, Gpu, GpuVendor, Gpus, Machine, Reading, UnusableGpu};

/// For which cards and drivers CUDA code was built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CudaBuild {
    /// Compute capabilities that it was built for, such as `75`.
    pub architectures: Vec<String>,
    /// Oldest driver that it runs on, where that is known.
    pub driver_min: Option<String>,
    /// Whether it may have PTX beside machine code, which the driver compiles for newer cards.
    #[serde(default)]
    pub ptx: bool,
}

impl CudaBuild {
    /// What ggml's CUDA backend says in llama.cpp's line of features (`CUDA : ARCHS = 750,800 | …`), which does not tell PTX from machine
    /// code; `None` when it says nothing.
    #[must_use]
    pub fn of_features(line: &str) -> Option<Self> {
        let (_, of_cuda) = line.split_once("CUDA : ")?;
        let list = of_cuda.split(" | ").find_map(|feature| feature.trim().strip_prefix("ARCHS = "))?;
        // nvcc lists 100 × major + 10 × minor.
        let listed = list.split(',').map(|arch| arch.trim().strip_suffix('0').map(str::to_owned));
        Some(Self { architectures: listed.collect::<Option<_>>()?, driver_min: None, ptx: true })
    }

    /// Whether a card of this compute capability runs it. Machine code runs on cards of the same major version and no lower minor one, PTX on
    /// all that are no older (CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility").
    fn runs_on(&self, (major, minor): (u32, u32)) -> bool {
        let runs = |arch: u32| arch <= 10 * major + minor && (self.ptx || arch / 10 == major);
        self.architectures.iter().any(|arch| arch.parse().is_ok_and(runs))
    }
}

/// Why llama.cpp does not compute on a card that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The driver is older than the CUDA code wants.
    OldDriver {
        /// Its version.
        driver: String,
        /// The oldest that would do.
        least: String,
    },
    /// There is no code for it.
    NoCode {
        /// Its compute capability.
        capability: (u32, u32),
        /// Those that there is code for.
        built: Vec<String>,
    },
    /// llama.cpp could not be asked, for this reason.
    NotAsked(String),
    /// llama.cpp does not list it.
    NotListed,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OldDriver { driver, least } => write!(to, "its driver {driver} is older than {least}"),
            Self::NoCode { capability: (major, minor), built } => {
                let built = built.join(", sm_");
                write!(to, "it is sm_{major}{minor}, and the CUDA library was built for sm_{built}")
            }
            Self::NotAsked(reason) => to.write_str(reason),
            Self::NotListed => to.write_str("llama.cpp does not find it"),
        }
    }
}

/// llama.cpp's names of a machine's GPUs, in the machine's order; empty for one that it does not compute on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNames(Vec<String>);

impl DeviceNames {
    /// The name of the GPU at this place.
    #[must_use]
    pub fn of(&self, gpu: usize) -> String {
        self.0.get(gpu).cloned().unwrap_or_default()
    }
}

impl FromIterator<String> for DeviceNames {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl Machine {
    /// For each GPU that NVML lists, what keeps llama.cpp from computing on it.
    #[must_use]
    pub fn obstacles(&self, cuda: Option<&CudaBuild>) -> Vec<Option<Obstacle>> {
        let matched = self.match_devices();
        self.gpus.devices.iter().zip(matched).map(|(gpu, device)| self.obstacle(gpu, device, cuda)).collect()
    }

    fn obstacle(
        &self,
        gpu: &Gpu,
        device: Option<&ComputeDevice>,
        cuda: Option<&CudaBuild>,
    ) -> Option<Obstacle> {
        if device.is_some_and(|device| !device.is_cuda()) {
            return None;
        }
        let driver = self.gpus.driver_version.known();
        let least = cuda.and_then(|cuda| cuda.driver_min.as_ref());
        if let Some((driver, least)) = driver.zip(least)
            && version(driver) < version(least)
        {
            return Some(Obstacle::OldDriver { driver: driver.clone(), least: least.clone() });
        }
        if let Some((&capability, cuda)) = gpu.compute_capability.known().zip(cuda)
            && !cuda.runs_on(capability)
        {
            return Some(Obstacle::NoCode { capability, built: cuda.architectures.clone() });
        }
        match (device, self.compute.reason()) {
            (Some(_), _) => None,
            (None, Some(reason)) => Some(Obstacle::NotAsked(reason.to_owned())),
            (None, None) => Some(Obstacle::NotListed),
        }
    }

    /// Graphics cards that llama.cpp lists and NVML does not: those of other makers, and NVIDIA's where the library is missing. Each stands
    /// on the PCI bus, so that none is a processor that plays one (Mesa's llvmpipe), and tells what is free of its memory. Integrated graphics are not
    /// among them: what they take is main memory.
    #[must_use]
    pub fn further_gpus(&self) -> Vec<(&ComputeDevice, Gpu)> {
        let of_nvml =
            |address: &String| self.gpus.devices.iter().any(|gpu| gpu.pci_address.known() == Some(address));
        let unplaced = self.gpus.devices.iter().any(|gpu| gpu.pci_address.known().is_none());
        let mut found: Vec<(&ComputeDevice, Gpu)> = Vec::new();
        for device in self.compute.known().map(Vec::as_slice).unwrap_or_default() {
            let Some(address) = device.id.known().filter(|address| !of_nvml(address)) else { continue };
            let card = self.gpus.pci.iter().find(|card| card.address == *address);
            let another = card.is_some_and(|card| card.vendor != GpuVendor::Nvidia || !unplaced);
            let twice = found.iter().any(|(other, _)| other.id == device.id);
            let told = device.free_bytes.known().is_some();
            if device.kind == ComputeKind::Gpu && another && told && !twice {
                let place = self.gpus.devices.len() + found.len();
                found.push((device, described(device, place)));
            }
        }
        found
    }

    /// Cards that nothing can use: as [`Gpus::unusable`], without those that llama.cpp lists.
    #[must_use]
    pub fn unusable_gpus(&self) -> Vec<UnusableGpu> {
        let devices = self.compute.known().map(Vec::as_slice).unwrap_or_default();
        let listed = |card: &UnusableGpu| {
            card.address.is_some() && devices.iter().any(|device| device.id.known() == card.address.as_ref())
        };
        self.gpus.unusable().into_iter().filter(|card| !listed(card)).collect()
    }

    /// This machine with the GPUs that plans may use. Those that llama.cpp does not compute on have no known free memory, so that the others keep
    /// their places; those that NVML does not list follow. Where none is left, the machine has none, and says why.
    #[must_use]
    pub fn for_plans(mut self, cuda: Option<&CudaBuild>) -> (Self, DeviceNames) {
        let obstacles = self.obstacles(cuda);
        let matched = self.match_devices().into_iter();
        let mut names: Vec<String> =
            matched.map(|device| device.map(|device| device.name.clone()).unwrap_or_default()).collect();
        let further = self.further_gpus().into_iter().map(|(device, gpu)| (device.name.clone(), gpu));
        let further: Vec<(String, Gpu)> = further.collect();
        let first = self.gpus.devices.iter().zip(&obstacles).find_map(|(gpu, obstacle)| {
            obstacle.as_ref().map(|obstacle| format!("{}: {obstacle}", gpu.name))
        });
        if let Some(why) = first.filter(|_| further.is_empty() && obstacles.iter().all(Option::is_some)) {
            self.gpus = Gpus { driver_version: self.gpus.driver_version, ..Gpus::none(&why) };
            return (self, DeviceNames::default());
        }
        for ((gpu, name), obstacle) in self.gpus.devices.iter_mut().zip(&mut names).zip(obstacles) {
            if let Some(obstacle) = obstacle {
                gpu.free_bytes = Reading::absent(obstacle.to_string());
                name.clear();
            }
        }
        for (name, gpu) in further {
            names.push(name);
            self.gpus.devices.push(gpu);
        }
        (self, DeviceNames(names))
    }
}

/// What llama.cpp says of a card that NVML does not list.
fn described(device: &ComputeDevice, place: usize) -> Gpu {
    Gpu {
        pci_address: device.id.clone(),
        total_bytes: device.total_bytes.clone(),
        free_bytes: device.free_bytes.clone(),
        ..Gpu::unread(place as u32, &device.description, "NVML does not list it")
    }
}

fn version(text: &str) -> Vec<u32> {
    text.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PciGpu;

    const FIRST: &str = "0000:00:04.0";
    const SECOND: &str = "0000:00:05.0";

    /// A card as NVML lists it.
    fn card(name: &str, capability: (u32, u32), address: &str) -> Gpu {
        Gpu {
            pci_address: Reading::Known(address.to_owned()),
            ..Gpu::of(name, capability, 16 << 30, 15 << 30)
        }
    }

    fn on_bus(vendor: GpuVendor, address: &str) -> PciGpu {
        PciGpu { address: address.to_owned(), vendor, device_id: 1, driver: Some("x".to_owned()) }
    }

    /// A device as llama.cpp lists it.
    fn listed(name: &str, kind: &str, id: Option<&str>) -> serde_json::Value {
        let backend = name.trim_end_matches(|c: char| c.is_ascii_digit());
        serde_json::json!({"name": name, "description": "a card", "kind": kind, "backend": backend,
            "total_bytes": 8_u64 << 30, "free_bytes": 7_u64 << 30, "id": id})
    }

    fn machine(cards: Vec<Gpu>, bus: &[PciGpu], devices: &[serde_json::Value]) -> Machine {
        let report = serde_json::json!({ "devices": devices }).to_string();
        Machine {
            gpus: Gpus {
                driver_version: Reading::Known("550.54".to_owned()),
                pci: bus.to_vec(),
                ..Gpus::of(cards)
            },
            compute: ComputeDevice::parse_report(&report),
            ..Machine::unread("a test")
        }
    }

    fn two_t4(devices: &[serde_json::Value]) -> Machine {
        let bus = [FIRST, SECOND].map(|at| on_bus(GpuVendor::Nvidia, at));
        machine(vec![card("Tesla T4", (7, 5), FIRST), card("Tesla T4", (7, 5), SECOND)], &bus, devices)
    }

    /// Machine code for some cards, as `xtask dist` builds it.
    fn shipped() -> CudaBuild {
        let json = r#"{"toolkit":"11.8","architectures":["75","80"],"driver_min":"450.80.02"}"#;
        serde_json::from_str(json).unwrap()
    }

    /// Names and free memory of what plans may use, and why there is nothing.
    fn check(
        machine: Machine,
        cuda: Option<&CudaBuild>,
        expected: &[(&str, Option<u64>)],
        absent: Option<&str>,
    ) {
        let (machine, names) = machine.for_plans(cuda);
        let found: Vec<(String, Option<u64>)> = (machine.gpus.devices.iter().enumerate())
            .map(|(place, gpu)| (names.of(place), gpu.free_bytes.known().map(|bytes| bytes >> 30)))
            .collect();
        let found: Vec<(&str, Option<u64>)> =
            found.iter().map(|(name, free)| (name.as_str(), *free)).collect();
        assert_eq!((found.as_slice(), machine.gpus.absent.as_deref()), (expected, absent));
    }

    #[test]
    fn a_plan_names_each_card_as_llama_cpp_does() {
        let swapped = [listed("CUDA0", "gpu", Some(SECOND)), listed("CUDA1", "gpu", Some(FIRST))];
        check(two_t4(&swapped), None, &[("CUDA1", Some(15)), ("CUDA0", Some(15))], None);
    }

    #[test]
    fn a_card_that_llama_cpp_does_not_list_is_not_planned_on() {
        let hidden = [listed("CUDA0", "gpu", Some(SECOND))];
        check(two_t4(&hidden), None, &[("", None), ("CUDA0", Some(15))], None);
        let why = "Tesla T4: llama.cpp does not find it";
        check(two_t4(&[listed("CPU", "cpu", None)]), None, &[], Some(why));
        let dead = Machine { compute: Reading::absent("the probe ended"), ..two_t4(&[]) };
        check(dead, None, &[], Some("Tesla T4: the probe ended"));
    }

    #[test]
    fn a_card_without_code_for_it_is_not_used_although_it_is_listed() {
        let devices = [listed("CUDA0", "gpu", Some(FIRST)), listed("CUDA1", "gpu", Some(SECOND))];
        let cards = || vec![card("Tesla P100", (6, 0), FIRST), card("Tesla T4", (7, 5), SECOND)];
        let mixed = || machine(cards(), &[], &devices);
        check(mixed(), Some(&shipped()), &[("", None), ("CUDA1", Some(15))], None);
        let p100 = || machine(cards().drain(..1).collect(), &[], &devices);
        let why = "Tesla P100: it is sm_60, and the CUDA library was built for sm_75, sm_80";
        check(p100(), Some(&shipped()), &[], Some(why));
        check(p100(), None, &[("CUDA0", Some(15))], None);
        let vulkan = machine(cards().drain(..1).collect(), &[], &[listed("Vulkan0", "gpu", Some(FIRST))]);
        check(vulkan, Some(&shipped()), &[("Vulkan0", Some(15))], None);
        let mut old = p100();
        old.gpus.driver_version = Reading::Known("440.33".to_owned());
        check(old, Some(&shipped()), &[], Some("Tesla P100: its driver 440.33 is older than 450.80.02"));
    }

    #[test]
    fn machine_code_runs_within_a_major_version_and_ptx_on_newer_ones() {
        let runs = |build: &CudaBuild, cards: [(u32, u32); 4]| cards.map(|card| build.runs_on(card));
        let cards = [(6, 1), (7, 5), (8, 9), (9, 0)];
        assert_eq!(runs(&shipped(), cards), [false, true, true, false]);
        let line = "CUDA : ARCHS = 750,1200 | USE_GRAPHS = 1 | CPU : SSE3 = 1";
        let inside = CudaBuild::of_features(line).unwrap();
        assert_eq!(inside.architectures, ["75", "120"]);
        assert_eq!(runs(&inside, cards), [false, true, true, true]);
        for none in ["CPU : SSE3 = 1 | ARCHS = 750", "CUDA : USE_GRAPHS = 1", "CUDA : ARCHS = native | "] {
            assert_eq!(CudaBuild::of_features(none), None, "{none}");
        }
    }

    #[test]
    fn a_card_that_nvml_does_not_know_is_planned_on_as_llama_cpp_describes_it() {
        let bus = [on_bus(GpuVendor::Amd, FIRST)];
        let amd = |kind, id| machine(Vec::new(), &bus, &[listed("Vulkan0", kind, id)]);
        check(amd("gpu", Some(FIRST)), None, &[("Vulkan0", Some(7))], Some("not looked at"));
        // Integrated graphics; Mesa's software device, which has no place on the bus; a card that the kernel does not show.
        for none in [amd("integrated_gpu", Some(FIRST)), amd("gpu", None), amd("gpu", Some(SECOND))] {
            check(none, None, &[], Some("not looked at"));
        }
    }

    #[test]
    fn a_card_is_never_planned_on_twice() {
        let both = [listed("CUDA0", "gpu", Some(FIRST)), listed("Vulkan0", "gpu", Some(FIRST))];
        let bus = [on_bus(GpuVendor::Nvidia, FIRST)];
        check(
            machine(vec![card("Tesla T4", (7, 5), FIRST)], &bus, &both),
            None,
            &[("CUDA0", Some(15))],
            None,
        );
        let unplaced = machine(vec![Gpu::of("a card", (7, 5), 16 << 30, 15 << 30)], &bus, &both);
        check(unplaced, None, &[("CUDA0", Some(15))], None);
        check(machine(Vec::new(), &bus, &both), None, &[("CUDA0", Some(7))], Some("not looked at"));
    }

    #[test]
    fn a_card_that_llama_cpp_lists_is_usable_without_nvml() {
        let bus = [on_bus(GpuVendor::Nvidia, FIRST), on_bus(GpuVendor::Nvidia, SECOND)];
        let half = machine(Vec::new(), &bus, &[listed("CUDA0", "gpu", Some(FIRST))]);
        let names: Vec<String> = half.unusable_gpus().into_iter().map(|card| card.name).collect();
        assert_eq!(names, ["NVIDIA GPU at 0000:00:05.0"]);
    }
}
