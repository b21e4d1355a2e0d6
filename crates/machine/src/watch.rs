//! What changes while a machine computes, read many times a second: clocks, temperatures, load. What a machine does not show
//! is absent; why, is said once, by whoever opens the watch. Nothing is kept or averaged here.

use std::fs;

use nvml_wrapper::Nvml;
use serde::{Deserialize, Serialize};

use crate::nvml;

/// A GPU at one moment. A value that the driver does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuMoment {
    /// Its place in NVML's order.
    pub index: u32,
    /// Memory that processes hold.
    pub used_bytes: Option<u64>,
    /// Share of the last sampling period (up to 1 s) in which a kernel ran.
    pub busy_percent: Option<u32>,
    /// Clock of the multiprocessors.
    pub sm_mhz: Option<u32>,
    /// Clock of the memory.
    pub memory_mhz: Option<u32>,
    /// Temperature of the chip.
    pub temperature_c: Option<u32>,
    /// Power draw.
    pub milliwatts: Option<u32>,
    /// Why its clocks are held down, in NVML's words; empty when they are not.
    pub throttled: Option<Vec<String>>,
}

/// The GPUs, looked at again and again through one open library.
#[derive(Debug)]
pub struct GpuWatch {
    nvml: Nvml,
    count: u32,
}

impl GpuWatch {
    /// Opens NVML.
    ///
    /// # Errors
    /// Why there is nothing to watch.
    pub fn open() -> Result<Self, String> {
        let nvml = nvml::open(&nvml::LIBRARIES)?;
        match nvml.device_count() {
            Ok(0) => Err("NVML lists no GPU".to_owned()),
            Ok(count) => Ok(Self { nvml, count: count.min(crate::limits::GPUS_MAX) }),
            Err(error) => Err(format!("NVML cannot count GPUs: {error}")),
        }
    }

    /// Each GPU that answers, as it is now.
    #[must_use]
    pub fn read(&self) -> Vec<GpuMoment> {
        (0..self.count).filter_map(|index| nvml::moment(&self.nvml, index)).collect()
    }
}

/// The processor at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuMoment {
    /// Mean clock of the first cores.
    pub mhz: Option<f64>,
    /// The hottest thermal zone, in degrees Celsius.
    pub celsius: Option<f64>,
    /// Time in which all cores together computed something, in clock ticks since the start of the system.
    pub busy_ticks: Option<u64>,
    /// The same with the time in which they were idle.
    pub total_ticks: Option<u64>,
    /// Times that cores were slowed by heat since the start of the system, summed over the first cores.
    pub throttled: Option<u64>,
    /// Energy that the package has taken, in microjoules; begins anew now and then.
    pub energy_uj: Option<u64>,
}

/// Where the processor's clocks and sensors are read. Files that are not there are looked for once.
#[derive(Clone, Debug)]
pub struct CpuWatch {
    clocks: Vec<String>,
    zones: Vec<String>,
    throttles: Vec<String>,
    energy: Result<String, String>,
}

const CPUS: &str = "/sys/devices/system/cpu";
const ZONES: &str = "/sys/class/thermal";
const ENERGY: &str = "/sys/class/powercap/intel-rapl:0/energy_uj";
/// Files of one kind that are read; more would only cost time.
const FILES_MAX: usize = 8;

impl CpuWatch {
    /// Finds what is there to be read.
    #[must_use]
    pub fn open() -> Self {
        let readable = |path: &String| fs::read_to_string(path).is_ok();
        let of_cores = |file: &str| -> Vec<String> {
            (0..FILES_MAX).map(|core| format!("{CPUS}/cpu{core}/{file}")).filter(readable).collect()
        };
        let zones = fs::read_dir(ZONES).into_iter().flatten().flatten();
        let zones = zones.map(|entry| entry.path().join("temp").display().to_string());
        Self {
            clocks: of_cores("cpufreq/scaling_cur_freq"),
            zones: zones.filter(readable).take(FILES_MAX).collect(),
            throttles: of_cores("thermal_throttle/core_throttle_count"),
            energy: fs::read_to_string(ENERGY)
                .map(|_| ENERGY.to_owned())
                .map_err(|error| format!("{ENERGY}: {error}")),
        }
    }

    /// What cannot be read here, by the name of the field, and why.
    #[must_use]
    pub fn absent(&self) -> Vec<(&'static str, String)> {
        let mut absent = Vec::new();
        if self.clocks.is_empty() {
            absent.push(("mhz", format!("{CPUS} shows no clock, as in most virtual machines")));
        }
        if self.zones.is_empty() {
            absent.push(("celsius", format!("{ZONES} shows no temperature, as in most virtual machines")));
        }
        if self.throttles.is_empty() {
            absent.push(("throttled", format!("{CPUS} counts no throttling")));
        }
        if let Err(why) = &self.energy {
            absent.push(("watts", why.clone()));
        }
        absent
    }

    /// The processor as it is now.
    #[must_use]
    pub fn read(&self) -> CpuMoment {
        let number = |path: &String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let numbers = |paths: &[String]| paths.iter().filter_map(number).collect::<Vec<_>>();
        let clocks = numbers(&self.clocks);
        let throttles = numbers(&self.throttles);
        let ticks = fs::read_to_string("/proc/stat").ok().and_then(|text| ticks(&text));
        CpuMoment {
            mhz: (!clocks.is_empty())
                .then(|| clocks.iter().sum::<u64>() as f64 / clocks.len() as f64 / 1000.0),
            celsius: numbers(&self.zones).into_iter().max().map(|most| most as f64 / 1000.0),
            busy_ticks: ticks.map(|ticks| ticks.0),
            total_ticks: ticks.map(|ticks| ticks.1),
            throttled: (!throttles.is_empty()).then(|| throttles.iter().sum()),
            energy_uj: self.energy.as_ref().ok().and_then(number),
        }
    }
}

/// Busy ticks and all ticks of all cores (`/proc/stat`, proc(5)): user, nice, system, idle, iowait, irq, softirq, steal.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let all = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = all.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let &[.., idle, iowait, _, _, steal] = fields.as_slice() else { return None };
    let total: u64 = fields.iter().sum();
    Some((total.checked_sub(idle)?.checked_sub(iowait)?.checked_sub(steal)?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let stat = "cpu  10 1 2 100 20 3 4 5 0 0\ncpu0 1 2 3\n";
        assert_eq!(ticks(stat), Some((20, 145)));
        assert_eq!(ticks("cpu  1 2\n"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn what_cannot_be_read_has_a_reason_and_the_rest_a_value() {
        let watch = CpuWatch::open();
        let (now, absent) = (watch.read(), watch.absent());
        let is_absent = |name: &str| absent.iter().any(|(field, why)| *field == name && !why.is_empty());
        assert_eq!(now.mhz.is_none(), is_absent("mhz"));
        assert_eq!(now.celsius.is_none(), is_absent("celsius"));
        assert_eq!(now.throttled.is_none(), is_absent("throttled"));
        assert_eq!(now.energy_uj.is_none(), is_absent("watts"));
        assert!(now.total_ticks >= now.busy_ticks && now.busy_ticks.is_some());
        assert!(GpuWatch::open().map_or(true, |gpus| !gpus.read().is_empty()));
    }
}
