//! Graphics cards on the PCI bus, whether or not a driver or library can use them. Under WSL2 the GPU is not on it.

use serde::{Deserialize, Serialize};

use crate::{limits::PCI_DEVICES_MAX, tree::Tree};

const DEVICES: &str = "/sys/bus/pci/devices";
/// Base class "display controller" (PCI Code and ID Assignment, 1.4): VGA, XGA, 3D and other.
const CLASS_DISPLAY: u32 = 0x03;
/// Google's PCI vendor id, and its TPUs of versions 2 to 6 (`_TPU_PCI_DEVICE_IDS` in JAX's `hardware_utils.py`).
const TPU_VENDOR: u32 = 0x1ae0;
const TPU_DEVICES: [u32; 6] = [0x0027, 0x0056, 0x005e, 0x0062, 0x0063, 0x006f];

/// Makers of GPUs that llama.cpp has a backend for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuVendor {
    /// PCI vendor 0x10de.
    Nvidia,
    /// PCI vendor 0x1002.
    Amd,
    /// PCI vendor 0x8086. Mostly integrated graphics, which share main memory.
    Intel,
}

impl GpuVendor {
    fn from_pci(vendor: u32) -> Option<Self> {
        match vendor {
            0x10de => Some(Self::Nvidia),
            0x1002 => Some(Self::Amd),
            0x8086 => Some(Self::Intel),
            _ => None,
        }
    }

    /// The maker's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
        }
    }
}

/// A graphics card on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciGpu {
    /// Its address, such as `0000:00:04.0`.
    pub address: String,
    /// Its maker.
    pub vendor: GpuVendor,
    /// PCI device id.
    pub device_id: u32,
    /// The kernel driver that is bound to it.
    pub driver: Option<String>,
}

impl PciGpu {
    /// All of them, by address.
    pub(crate) fn probe(tree: &Tree) -> Vec<Self> {
        let addresses = tree.names(DEVICES, PCI_DEVICES_MAX);
        addresses.into_iter().filter_map(|address| Self::read(tree, address)).collect()
    }

    fn read(tree: &Tree, address: String) -> Option<Self> {
        let number = |name: &str| hex(&tree.optional(&format!("{DEVICES}/{address}/{name}"))?);
        let display = number("class")? >> 16 == CLASS_DISPLAY;
        let vendor = GpuVendor::from_pci(number("vendor")?).filter(|_| display)?;
        let device_id = number("device").unwrap_or(0);
        let driver = tree.link_name(&format!("{DEVICES}/{address}/driver"));
        Some(Self { address, vendor, device_id, driver })
    }
}

/// Whether a TPU is on the bus.
pub fn has_tpu(tree: &Tree) -> bool {
    tree.names(DEVICES, PCI_DEVICES_MAX).iter().any(|address| {
        let number = |name: &str| hex(&tree.optional(&format!("{DEVICES}/{address}/{name}"))?);
        number("vendor") == Some(TPU_VENDOR) && number("device").is_some_and(|id| TPU_DEVICES.contains(&id))
    })
}

/// A PCI address as the kernel writes it (`0000:00:04.0`), from NVML's (`00000000:00:04.0`), CUDA's (`0000:00:04.0`)
/// or that of one of llama.cpp's virtual devices (`0000:00:04.0-v1`); `None` when it is none.
pub fn normal_address(text: &str) -> Option<String> {
    let text = text.trim().split('-').next()?;
    let (place, function) = text.rsplit_once('.')?;
    let mut parts = place.split(':').map(|part| u32::from_str_radix(part, 16).ok());
    let (domain, bus, device) = (parts.next()??, parts.next()??, parts.next()??);
    let function: u32 = function.parse().ok()?;
    (parts.next().is_none() && bus <= 0xff && device <= 0x1f && function <= 7)
        .then(|| format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::fake::FakeTree;

    #[test]
    fn graphics_cards_are_told_from_other_devices() {
        let fake = FakeTree::new(&[
            ("sys/bus/pci/devices/0000:00:04.0/vendor", "0x10de\n"),
            ("sys/bus/pci/devices/0000:00:04.0/class", "0x030200\n"),
            ("sys/bus/pci/devices/0000:00:04.0/device", "0x1eb8\n"),
            ("sys/bus/pci/devices/0000:00:05.0/vendor", "0x10de\n"),
            ("sys/bus/pci/devices/0000:00:05.0/class", "0x040300\n"),
            ("sys/bus/pci/devices/0000:00:06.0/vendor", "0x1af4\n"),
            ("sys/bus/pci/devices/0000:00:06.0/class", "0x030000\n"),
            ("sys/bus/pci/devices/0000:03:00.0/vendor", "0x1002\n"),
            ("sys/bus/pci/devices/0000:03:00.0/class", "0x030000\n"),
            ("sys/bus/pci/devices/0000:04:00.0/vendor", "garbage\n"),
            ("sys/bus/pci/devices/0000:05:00.0/vendor", "0x8086\n"),
            ("sys/bus/pci/devices/0000:05:00.0/class", "0x038000\n"),
            ("sys/bus/pci/devices/0000:05:01.0/vendor", "0x8086\n"),
            ("sys/bus/pci/devices/0000:05:01.0/class", "0x020000\n"),
        ]);
        fake.link("sys/bus/pci/devices/0000:03:00.0/driver", "../../../bus/pci/drivers/amdgpu");
        insta::assert_json_snapshot!(PciGpu::probe(&fake.tree()), @r#"
        [
          {
            "address": "0000:00:04.0",
            "vendor": "nvidia",
            "device_id": 7864,
            "driver": null
          },
          {
            "address": "0000:03:00.0",
            "vendor": "amd",
            "device_id": 0,
            "driver": "amdgpu"
          },
          {
            "address": "0000:05:00.0",
            "vendor": "intel",
            "device_id": 0,
            "driver": null
          }
        ]
        "#);
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        for text in ["00000000:00:1E.0", "0000:00:1e.0", "0000:00:1e.0-v1", " 0:0:1e.0\n"] {
            assert_eq!(normal_address(text).as_deref(), Some("0000:00:1e.0"), "{text}");
        }
        assert_eq!(normal_address("00010000:81:00.0").as_deref(), Some("10000:81:00.0"));
        for text in ["", "CUDA0", "0000:00.0", "0000:00:04", "0000:100:04.0", "0:0:4:4.0", "0000:00:04.x"] {
            assert_eq!(normal_address(text), None, "{text}");
        }
    }

    #[test]
    fn a_tpu_is_known_by_its_ids() {
        let card = |device: &str| {
            let fake = FakeTree::new(&[("sys/bus/pci/devices/0000:00:05.0/vendor", "0x1ae0\n")]);
            fake.file("sys/bus/pci/devices/0000:00:05.0/device", device);
            has_tpu(&fake.tree())
        };
        assert!(card("0x0063\n"));
        // Google's network card.
        assert!(!card("0x0042\n"));
    }

    proptest::proptest! {
        #[test]
        fn a_normal_address_stays_as_it_is(text in "[0-9a-fA-F:. -]{0,24}") {
            if let Some(address) = normal_address(&text) {
                proptest::prop_assert_eq!(normal_address(&address), Some(address));
            }
        }
    }

    #[test]
    fn a_system_without_a_bus_has_no_cards() {
        assert!(PciGpu::probe(&FakeTree::new(&[]).tree()).is_empty());
    }
}
