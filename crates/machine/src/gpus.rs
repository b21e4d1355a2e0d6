//! All GPUs: those that NVIDIA's management library (NVML) lists, and those that are present but cannot be used.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{Gpu, GpuVendor, PciGpu, Reading, nvml, reading::NOT_LOOKED_AT, tree::Tree};

/// All that is known of GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpus {
    /// GPUs that NVML lists and that answer, in its order.
    pub devices: Vec<Gpu>,
    /// GPUs that NVML counts and that do not answer.
    pub lost: Vec<LostGpu>,
    /// Why NVML lists none; `None` when it could be asked.
    pub absent: Option<String>,
    /// Version of the NVIDIA driver.
    pub driver_version: Reading<String>,
    /// Newest CUDA version that the driver supports.
    pub cuda_version: Reading<String>,
    /// Graphics cards on the PCI bus.
    pub pci: Vec<PciGpu>,
    /// Cards on the PCI bus that the driver has and does not show to this container.
    pub withheld: Vec<PciGpu>,
}

/// A GPU that NVML counts and that does not answer: it fell off the bus, or its driver broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostGpu {
    /// Its place in NVML's order.
    pub index: u32,
    /// Its PCI address.
    pub pci_address: Reading<String>,
    /// What NVML says.
    pub reason: String,
}

/// A graphics card that is there and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusableGpu {
    /// Maker and address.
    pub name: String,
    /// Its PCI address, where it is known.
    pub address: Option<String>,
    /// Why.
    pub reason: String,
}

/// The NVIDIA driver's own list of cards. A container runtime shows only those that it hands over, while `/sys` shows
/// all of the host.
const DRIVER_GPUS: &str = "/proc/driver/nvidia/gpus";

impl Gpus {
    pub(crate) fn probe(tree: &Tree) -> Self {
        Self::probe_with(tree, &nvml::LIBRARIES)
    }

    pub(crate) fn probe_with(tree: &Tree, libraries: &[&str]) -> Self {
        let (pci, withheld) = PciGpu::probe(tree).into_iter().partition(|card| is_shown(tree, card));
        Self { pci, withheld, ..nvml::ask(libraries) }
    }

    /// No GPU, for this reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self {
            devices: Vec::new(),
            lost: Vec::new(),
            absent: Some(reason.to_owned()),
            driver_version: Reading::absent(reason),
            cuda_version: Reading::absent(reason),
            pci: Vec::new(),
            withheld: Vec::new(),
        }
    }

    /// These GPUs, numbered in this order, and nothing else known: a description of another machine.
    #[must_use]
    pub fn of(devices: Vec<Gpu>) -> Self {
        let absent = devices.is_empty().then(|| NOT_LOOKED_AT.to_owned());
        let devices = (0..).zip(devices).map(|(index, gpu)| Gpu { index, ..gpu }).collect();
        Self { devices, absent, ..Self::none(NOT_LOOKED_AT) }
    }

    /// Cards that no backend could use: NVIDIA cards that NVML does not list or that do not answer, AMD cards without
    /// a kernel driver. Intel's are not among them: most are integrated, and a CPU without them lacks nothing.
    /// Whether this program was built with the right backend is not known here.
    #[must_use]
    pub fn unusable(&self) -> Vec<UnusableGpu> {
        let mut lost: Vec<&LostGpu> = self.lost.iter().collect();
        let amd = self.pci.iter().filter(|gpu| gpu.vendor == GpuVendor::Amd && gpu.driver.is_none());
        let cards = self.unlisted().into_iter().chain(amd);
        let mut found: Vec<UnusableGpu> =
            cards.map(|gpu| self.why_unusable(gpu, take_lost(&mut lost, gpu))).collect();
        // What is lost without a card on the bus: WSL2 shows none.
        found.extend(lost.into_iter().map(|gpu| UnusableGpu {
            name: format!("NVIDIA GPU {}", gpu.index),
            address: gpu.pci_address.known().cloned(),
            reason: gpu.reason.clone(),
        }));
        found
    }

    /// NVIDIA cards on the bus that are not among the devices, by address; never more than the devices leave over,
    /// in case NVML and the kernel count addresses differently.
    fn unlisted(&self) -> Vec<&PciGpu> {
        let nvidia = || self.pci.iter().filter(|gpu| gpu.vendor == GpuVendor::Nvidia);
        let addresses: HashSet<&String> =
            self.devices.iter().filter_map(|gpu| gpu.pci_address.known()).collect();
        let without_address = self.devices.iter().filter(|gpu| gpu.pci_address.known().is_none()).count();
        let rest = nvidia().filter(|card| !addresses.contains(&card.address)).skip(without_address);
        rest.take(nvidia().count().saturating_sub(self.devices.len())).collect()
    }

    fn why_unusable(&self, gpu: &PciGpu, lost: Option<&LostGpu>) -> UnusableGpu {
        let reason = match (&gpu.driver, lost, &self.absent) {
            (None, _, _) => "no kernel driver is bound to it".to_owned(),
            (Some(driver), Some(lost), _) => format!("its driver is {driver}, but {}", lost.reason),
            (Some(driver), None, Some(absent)) => format!("its driver is {driver}, but {absent}"),
            (Some(driver), None, None) => format!("its driver is {driver}, and NVML does not list it"),
        };
        let name = format!("{} GPU at {}", gpu.vendor.name(), gpu.address);
        UnusableGpu { name, address: Some(gpu.address.clone()), reason }
    }
}

fn is_shown(tree: &Tree, card: &PciGpu) -> bool {
    let held_by_nvidia = card.driver.as_deref() == Some("nvidia");
    !held_by_nvidia || !tree.exists(DRIVER_GPUS) || tree.exists(&format!("{DRIVER_GPUS}/{}", card.address))
}

/// The lost GPU that this card is: by address, else the first whose address is not known.
fn take_lost<'a>(lost: &mut Vec<&'a LostGpu>, card: &PciGpu) -> Option<&'a LostGpu> {
    if card.vendor != GpuVendor::Nvidia {
        return None;
    }
    let at = lost.iter().position(|gpu| gpu.pci_address.known() == Some(&card.address));
    let at = at.or_else(|| lost.iter().position(|gpu| gpu.pci_address.known().is_none()))?;
    Some(lost.remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::fake::FakeTree;

    fn card(vendor: GpuVendor, address: &str, driver: Option<&str>) -> PciGpu {
        PciGpu { address: address.to_owned(), vendor, device_id: 1, driver: driver.map(str::to_owned) }
    }

    fn t4() -> Gpu {
        Gpu::of("Tesla T4", (7, 5), 15 << 30, 14 << 30)
    }

    fn t4_at(address: &str) -> Gpu {
        Gpu { pci_address: Reading::Known(address.to_owned()), ..t4() }
    }

    fn lost(address: Option<&str>) -> LostGpu {
        let pci_address = address.map(str::to_owned).ok_or_else(|| "lost".to_owned()).into();
        LostGpu { index: 1, pci_address, reason: "NVML gives no memory: it is lost".to_owned() }
    }

    fn two_cards() -> Gpus {
        let cards = ["0000:00:04.0", "0000:00:05.0"].map(|at| card(GpuVendor::Nvidia, at, Some("nvidia")));
        Gpus { absent: None, pci: cards.to_vec(), ..Gpus::none("x") }
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
        check(&Gpus { devices: vec![t4(), t4()], ..two_cards() }, &[]);
        check(
            &Gpus { devices: vec![t4()], ..two_cards() },
            &["NVIDIA GPU at 0000:00:05.0: its driver is nvidia, and NVML does not list it"],
        );
    }

    #[test]
    fn the_card_that_is_not_listed_is_found_by_its_address() {
        check(
            &Gpus { devices: vec![t4_at("0000:00:05.0")], ..two_cards() },
            &["NVIDIA GPU at 0000:00:04.0: its driver is nvidia, and NVML does not list it"],
        );
        check(&Gpus { devices: vec![t4_at("9999:00:04.0"), t4_at("9999:00:05.0")], ..two_cards() }, &[]);
    }

    #[test]
    fn a_lost_card_is_reported_once_with_what_nvml_says() {
        for address in [Some("0000:00:05.0"), None] {
            let gpus =
                Gpus { devices: vec![t4_at("0000:00:04.0")], lost: vec![lost(address)], ..two_cards() };
            check(
                &gpus,
                &["NVIDIA GPU at 0000:00:05.0: its driver is nvidia, but NVML gives no memory: it is lost"],
            );
        }
        let on_wsl = Gpus { lost: vec![lost(None)], pci: Vec::new(), ..two_cards() };
        check(&on_wsl, &["NVIDIA GPU 1: NVML gives no memory: it is lost"]);
    }

    #[test]
    fn cards_that_a_container_is_not_given_are_no_fault() {
        let fake =
            FakeTree::new(&[("proc/driver/nvidia/gpus/0000:00:04.0/information", "Model: Tesla T4\n")]);
        for at in ["0000:00:04.0", "0000:00:05.0"] {
            fake.file(&format!("sys/bus/pci/devices/{at}/vendor"), "0x10de\n");
            fake.file(&format!("sys/bus/pci/devices/{at}/class"), "0x030200\n");
            fake.link(&format!("sys/bus/pci/devices/{at}/driver"), "../../../bus/pci/drivers/nvidia");
        }
        let gpus = Gpus::probe_with(&fake.tree(), &["/none/libnvidia-ml.so.1"]);
        assert_eq!(gpus.withheld.len(), 1);
        check(
            &gpus,
            &[
                "NVIDIA GPU at 0000:00:04.0: its driver is nvidia, but NVIDIA's library libnvidia-ml.so.1 is not \
               installed",
            ],
        );
    }

    #[test]
    fn described_gpus_are_numbered() {
        let gpus = Gpus::of(vec![t4(), t4()]);
        assert_eq!(gpus.devices.iter().map(|gpu| gpu.index).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(gpus.absent, None);
        assert_eq!(Gpus::of(Vec::new()).absent.as_deref(), Some("not looked at"));
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
