//! A GPU: what it is and what it does now.

use serde::{Deserialize, Serialize};

use crate::{Reading, reading::NOT_LOOKED_AT};

/// A GPU that NVML lists, or one that is described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its place in NVML's order, which is that of the PCI bus.
    pub index: u32,
    /// Its name, such as `Tesla T4`.
    pub name: String,
    /// What tells it from all others, such as `GPU-8f3c…`.
    pub uuid: Reading<String>,
    /// Its PCI address as the kernel writes it: `0000:00:04.0`.
    pub pci_address: Reading<String>,
    /// CUDA compute capability, major and minor: (7, 5) for a T4.
    pub compute_capability: Reading<(u32, u32)>,
    /// Its memory as the driver counts it, with what the driver keeps for itself.
    pub total_bytes: Reading<u64>,
    /// What no process holds.
    pub free_bytes: Reading<u64>,
    /// What processes hold.
    pub used_bytes: Reading<u64>,
    /// What the driver and the firmware keep: total less used and free.
    pub reserved_bytes: Reading<u64>,
    /// Clocks.
    pub clocks: GpuClocks,
    /// Power.
    pub power: GpuPower,
    /// Temperature of the chip, in degrees Celsius.
    pub temperature_c: Reading<u32>,
    /// Its link to the system.
    pub pcie: PcieLink,
    /// Whether its memory corrects errors, which takes some of it on cards with GDDR.
    pub ecc: Reading<bool>,
    /// Processes that use it, without this one. Ids and names are of the driver's process namespace, which a
    /// container often does not share; there this process may be among them.
    pub processes: Reading<Vec<GpuProcess>>,
}

/// Clocks of a GPU, in MHz.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuClocks {
    /// Multiprocessors, now.
    pub sm_mhz: Reading<u32>,
    /// Multiprocessors, at most.
    pub sm_max_mhz: Reading<u32>,
    /// Memory, now.
    pub memory_mhz: Reading<u32>,
    /// Memory, at most.
    pub memory_max_mhz: Reading<u32>,
}

/// Power of a GPU, in milliwatts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuPower {
    /// What the driver lets it draw.
    pub limit_milliwatts: Reading<u32>,
    /// What it draws.
    pub draw_milliwatts: Reading<u32>,
}

/// The PCI Express link of a GPU. An idle card often lowers its generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcieLink {
    /// Generation, now.
    pub generation: Reading<u32>,
    /// Highest generation that card and slot have in common.
    pub generation_max: Reading<u32>,
    /// Lanes, now.
    pub width: Reading<u32>,
    /// Most lanes that card and slot have in common.
    pub width_max: Reading<u32>,
}

/// A process that uses a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// Its id.
    pub pid: u32,
    /// GPU memory that it holds.
    pub bytes: Reading<u64>,
    /// Its program.
    pub name: Reading<String>,
}

impl Gpu {
    /// A GPU of which only this much is known, as tests and descriptions of other machines give it. Its index is 0;
    /// [`Gpus::of`](crate::Gpus::of) numbers several.
    #[must_use]
    pub fn of(name: &str, capability: (u32, u32), total_bytes: u64, free_bytes: u64) -> Self {
        Self {
            compute_capability: Reading::Known(capability),
            total_bytes: Reading::Known(total_bytes),
            free_bytes: Reading::Known(free_bytes),
            ..Self::unread(0, name, NOT_LOOKED_AT)
        }
    }

    /// A GPU of which nothing but its place and name is known, for this reason.
    #[must_use]
    pub fn unread(index: u32, name: &str, reason: &str) -> Self {
        Self {
            index,
            name: name.to_owned(),
            uuid: Reading::absent(reason),
            pci_address: Reading::absent(reason),
            compute_capability: Reading::absent(reason),
            total_bytes: Reading::absent(reason),
            free_bytes: Reading::absent(reason),
            used_bytes: Reading::absent(reason),
            reserved_bytes: Reading::absent(reason),
            clocks: GpuClocks::unread(reason),
            power: GpuPower {
                limit_milliwatts: Reading::absent(reason),
                draw_milliwatts: Reading::absent(reason),
            },
            temperature_c: Reading::absent(reason),
            pcie: PcieLink::unread(reason),
            ecc: Reading::absent(reason),
            processes: Reading::absent(reason),
        }
    }
}

impl GpuClocks {
    fn unread(reason: &str) -> Self {
        Self {
            sm_mhz: Reading::absent(reason),
            sm_max_mhz: Reading::absent(reason),
            memory_mhz: Reading::absent(reason),
            memory_max_mhz: Reading::absent(reason),
        }
    }
}

impl PcieLink {
    fn unread(reason: &str) -> Self {
        Self {
            generation: Reading::absent(reason),
            generation_max: Reading::absent(reason),
            width: Reading::absent(reason),
            width_max: Reading::absent(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_described_gpu_says_what_was_not_looked_at_and_comes_back_from_json() {
        let gpu = Gpu::of("Tesla T4", (7, 5), 15 << 30, 14 << 30);
        assert_eq!(gpu.compute_capability, Reading::Known((7, 5)));
        assert_eq!(gpu.pcie.width.reason(), Some("not looked at"));
        let json = serde_json::to_string(&gpu).unwrap();
        assert!(
            json.starts_with(r#"{"index":0,"name":"Tesla T4","uuid":{"absent":"not looked at"}"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Gpu>(&json).unwrap(), gpu);
    }
}
