//! Graphics cards on the PCI bus, whether or not a driver or library can use them. Under WSL2 the GPU is not on it.

use serde::Serialize;

use crate::{limits::PCI_DEVICES_MAX, tree::Tree};

const DEVICES: &str = "/sys/bus/pci/devices";
/// Base class "display controller" (PCI Code and ID Assignment, 1.4): VGA, XGA, 3D and other.
const CLASS_DISPLAY: u32 = 0x03;

/// Makers of GPUs that llama.cpp has a backend for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    fn a_system_without_a_bus_has_no_cards() {
        assert!(PciGpu::probe(&FakeTree::new(&[]).tree()).is_empty());
    }
}
