//! GPUs: those that NVIDIA's management library (NVML) lists, and those that are present but cannot be used.

use std::ffi::OsStr;

use nvml_wrapper::{Nvml, cuda_driver_version_major, cuda_driver_version_minor, error::NvmlError};
use serde::Serialize;

use crate::{GpuVendor, PciGpu, Reading, limits::GPUS_MAX, tree::Tree};

/// Names under which the library is found: a driver installs the first, its development files the second, WSL2
/// keeps it apart.
const LIBRARIES: [&str; 3] = ["libnvidia-ml.so.1", "libnvidia-ml.so", "/usr/lib/wsl/lib/libnvidia-ml.so.1"];

/// All that is known of GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// GPUs that NVML lists, in its order.
    pub devices: Vec<Gpu>,
    /// Why NVML lists none; `None` when it could be asked.
    pub absent: Option<String>,
    /// Version of the NVIDIA driver.
    pub driver_version: Reading<String>,
    /// Newest CUDA version that the driver supports.
    pub cuda_version: Reading<String>,
    /// Graphics cards on the PCI bus.
    pub pci: Vec<PciGpu>,
}

/// A GPU that NVML lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its name, such as `Tesla T4`.
    pub name: String,
    /// CUDA compute capability, major and minor: (7, 5) for a T4.
    pub compute_capability: Reading<(u32, u32)>,
    /// Its memory as the driver counts it.
    pub total_bytes: Reading<u64>,
    /// What no process holds.
    pub free_bytes: Reading<u64>,
}

/// A graphics card that is there and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnusableGpu {
    /// Maker and address.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Gpus {
    pub(crate) fn probe(tree: &Tree) -> Self {
        let pci = PciGpu::probe(tree);
        match open() {
            Ok(nvml) => Self::ask(&nvml, pci),
            Err(reason) => Self { pci, ..Self::none(&reason) },
        }
    }

    /// No GPU, for this reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self {
            devices: Vec::new(),
            absent: Some(reason.to_owned()),
            driver_version: Reading::absent(reason),
            cuda_version: Reading::absent(reason),
            pci: Vec::new(),
        }
    }

    /// Cards on the bus that no backend could use: NVIDIA cards that NVML does not list, AMD cards without a kernel
    /// driver. Intel's are not among them: most are integrated, and a CPU without them lacks nothing. Whether this
    /// program was built with the right backend is not known here.
    #[must_use]
    pub fn unusable(&self) -> Vec<UnusableGpu> {
        let listed = self.devices.len();
        let nvidia = self.pci.iter().filter(|gpu| gpu.vendor == GpuVendor::Nvidia);
        let amd = self.pci.iter().filter(|gpu| gpu.vendor == GpuVendor::Amd && gpu.driver.is_none());
        nvidia.skip(listed).chain(amd).map(|gpu| self.why_unusable(gpu)).collect()
    }

    fn why_unusable(&self, gpu: &PciGpu) -> UnusableGpu {
        let reason = match (&gpu.driver, &self.absent) {
            (None, _) => "no kernel driver is bound to it".to_owned(),
            (Some(driver), Some(absent)) => format!("its driver is {driver}, but {absent}"),
            (Some(driver), None) => format!("its driver is {driver}, and NVML does not list it"),
        };
        UnusableGpu { name: format!("{} GPU at {}", gpu.vendor.name(), gpu.address), reason }
    }

    fn ask(nvml: &Nvml, pci: Vec<PciGpu>) -> Self {
        let count = nvml.device_count().map(|count| count.min(GPUS_MAX));
        let version =
            |number| format!("{}.{}", cuda_driver_version_major(number), cuda_driver_version_minor(number));
        Self {
            devices: (0..*count.as_ref().unwrap_or(&0)).filter_map(|index| Gpu::ask(nvml, index)).collect(),
            absent: match &count {
                Ok(0) => Some("NVML lists no GPU".to_owned()),
                Ok(_) => None,
                Err(error) => Some(format!("NVML cannot count GPUs: {error}")),
            },
            driver_version: read("driver version", nvml.sys_driver_version()),
            cuda_version: read("CUDA version", nvml.sys_cuda_driver_version()).map(version),
            pci,
        }
    }
}

impl Gpu {
    /// A device that is lost or not permitted is not listed: it cannot be used.
    fn ask(nvml: &Nvml, index: u32) -> Option<Self> {
        let device = nvml.device_by_index(index).ok()?;
        let memory = read("memory", device.memory_info());
        Some(Self {
            name: device.name().unwrap_or_else(|_| format!("GPU {index}")),
            compute_capability: read("compute capability", device.cuda_compute_capability())
                .map(|capability| (capability.major as u32, capability.minor as u32)),
            total_bytes: memory.clone().map(|memory| memory.total),
            free_bytes: memory.map(|memory| memory.free),
        })
    }
}

fn open() -> Result<Nvml, String> {
    let mut last = None;
    for path in LIBRARIES {
        match Nvml::builder().lib_path(OsStr::new(path)).init() {
            Ok(nvml) => return Ok(nvml),
            // A library that loads and refuses says more than the absence of the next one.
            Err(error @ NvmlError::LibloadingError(_)) => last = last.or(Some(error)),
            Err(error) => return Err(format!("NVML refuses: {error}")),
        }
    }
    Err(last.map_or_else(
        || "no NVML".to_owned(),
        |_| "NVIDIA's library libnvidia-ml.so.1 is not installed".to_owned(),
    ))
}

fn read<T>(what: &str, result: Result<T, NvmlError>) -> Reading<T> {
    result.map_err(|error| format!("NVML gives no {what}: {error}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(vendor: GpuVendor, address: &str, driver: Option<&str>) -> PciGpu {
        PciGpu { address: address.to_owned(), vendor, device_id: 1, driver: driver.map(str::to_owned) }
    }

    fn t4() -> Gpu {
        Gpu {
            name: "Tesla T4".to_owned(),
            compute_capability: Reading::Known((7, 5)),
            total_bytes: Reading::Known(15 << 30),
            free_bytes: Reading::Known(14 << 30),
        }
    }

    fn check(gpus: &Gpus, expected: &[&str]) {
        let found: Vec<String> =
            gpus.unusable().into_iter().map(|gpu| format!("{}: {}", gpu.name, gpu.reason)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_card_without_driver_or_library_is_reported() {
        let pci = vec![
            card(GpuVendor::Nvidia, "0000:00:04.0", None),
            card(GpuVendor::Nvidia, "0000:00:05.0", Some("nvidia")),
            card(GpuVendor::Amd, "0000:03:00.0", None),
            card(GpuVendor::Amd, "0000:04:00.0", Some("amdgpu")),
            card(GpuVendor::Intel, "0000:00:02.0", None),
        ];
        let gpus = Gpus { pci, ..Gpus::none("libnvidia-ml.so.1 is not installed") };
        check(
            &gpus,
            &[
                "NVIDIA GPU at 0000:00:04.0: no kernel driver is bound to it",
                "NVIDIA GPU at 0000:00:05.0: its driver is nvidia, but libnvidia-ml.so.1 is not installed",
                "AMD GPU at 0000:03:00.0: no kernel driver is bound to it",
            ],
        );
    }

    #[test]
    fn cards_that_nvml_lists_are_usable() {
        let cards = ["0000:00:04.0", "0000:00:05.0"].map(|at| card(GpuVendor::Nvidia, at, Some("nvidia")));
        let gpus = Gpus { absent: None, devices: vec![t4(), t4()], pci: cards.to_vec(), ..Gpus::none("x") };
        check(&gpus, &[]);
        let one_lost = Gpus { devices: vec![t4()], ..gpus };
        check(&one_lost, &["NVIDIA GPU at 0000:00:05.0: its driver is nvidia, and NVML does not list it"]);
    }

    #[test]
    fn without_the_library_there_is_a_reason_and_with_it_there_are_versions() {
        let gpus = Gpus::probe(&Tree::system());
        match &gpus.absent {
            Some(reason) => assert!(gpus.devices.is_empty() && !reason.is_empty()),
            None => assert!(!gpus.devices.is_empty() && gpus.driver_version.known().is_some()),
        }
    }
}
