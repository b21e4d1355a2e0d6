//! Asking NVML, NVIDIA's management library, which comes with the driver.
//!
//! Each value is asked for by itself and may fail by itself: a GPU can be lost between two calls. A broken library
//! may also say that all is well and write nothing; what cannot be zero is then absent.

use std::{collections::HashSet, ffi::OsStr, mem, process};

use nvml_wrapper::{
    Device, Nvml,
    bitmasks::device::ThrottleReasons,
    cuda_driver_version_major, cuda_driver_version_minor,
    enum_wrappers::device::{Clock, TemperatureSensor},
    enums::device::UsedGpuMemory,
    error::NvmlError,
    struct_wrappers::device::{MemoryInfo, ProcessInfo},
};

use crate::{
    Gpu, GpuClocks, GpuMoment, GpuPower, GpuProcess, Gpus, LostGpu, PcieLink, Reading,
    limits::{GPU_PROCESSES_MAX, GPUS_MAX, PROCESS_NAME_BYTES_MAX},
    pci::normal_address,
};

/// Names under which the library is found: a driver installs the first, its development files the second, WSL2
/// keeps it apart.
pub const LIBRARIES: [&str; 3] =
    ["libnvidia-ml.so.1", "libnvidia-ml.so", "/usr/lib/wsl/lib/libnvidia-ml.so.1"];

/// All that NVML says; the cards on the bus are left out.
pub fn ask(libraries: &[&str]) -> Gpus {
    match open(libraries) {
        Ok(nvml) => ask_all(&nvml),
        Err(reason) => Gpus::none(&reason),
    }
}

/// An idle card has low clocks of its own; that is no throttling.
fn throttled(reasons: ThrottleReasons) -> Vec<String> {
    let held = reasons.iter_names().filter(|(_, reason)| *reason != ThrottleReasons::GPU_IDLE);
    held.map(|(name, _)| name.to_ascii_lowercase()).filter(|name| name != "none").collect()
}

/// What a GPU does now, of the values that change while it computes.
pub fn moment(nvml: &Nvml, index: u32) -> Option<GpuMoment> {
    let device = nvml.device_by_index(index).ok()?;
    let busy = device.utilization_rates().ok();
    Some(GpuMoment {
        index,
        used_bytes: device.memory_info().ok().map(|memory| memory.used),
        busy_percent: busy.map(|busy| busy.gpu),
        sm_mhz: device.clock_info(Clock::SM).ok(),
        memory_mhz: device.clock_info(Clock::Memory).ok(),
        temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
        milliwatts: device.power_usage().ok(),
        throttled: device.current_throttle_reasons().ok().map(throttled),
    })
}

pub fn open(libraries: &[&str]) -> Result<Nvml, String> {
    let mut reason = format!("NVIDIA's library {} is not installed", LIBRARIES[0]);
    for path in libraries {
        match Nvml::builder().lib_path(OsStr::new(path)).init() {
            Ok(nvml) => return with_shutdown(nvml),
            // A library that loads and refuses says more than the absence of the next one.
            Err(NvmlError::LibloadingError(error)) => {
                if !is_missing(&error.to_string()) {
                    reason = format!("NVIDIA's library {} cannot be loaded: {error}", LIBRARIES[0]);
                }
            }
            Err(error) => return Err(format!("NVML refuses: {error}")),
        }
    }
    Err(reason)
}

/// The loader's words (glibc, musl) for a file that is not there.
fn is_missing(error: &str) -> bool {
    error.contains("No such file")
}

/// The wrapper panics as it is dropped when the library cannot be shut down; such a library is left open.
fn with_shutdown(nvml: Nvml) -> Result<Nvml, String> {
    if nvml.lib().nvmlShutdown.is_ok() {
        return Ok(nvml);
    }
    mem::forget(nvml);
    Err("NVML refuses: the library has no nvmlShutdown".to_owned())
}

fn ask_all(nvml: &Nvml) -> Gpus {
    let count = nvml.device_count();
    let mut gpus = Gpus {
        absent: match &count {
            Ok(0) => Some("NVML lists no GPU".to_owned()),
            Ok(_) => None,
            Err(error) => Some(format!("NVML cannot count GPUs: {error}")),
        },
        driver_version: text("driver version", nvml.sys_driver_version()),
        cuda_version: cuda_version(nvml),
        ..Gpus::none("")
    };
    for index in 0..count.unwrap_or(0).min(GPUS_MAX) {
        match ask_one(nvml, index) {
            Ok(gpu) => gpus.devices.push(gpu),
            Err(lost) => gpus.lost.push(lost),
        }
    }
    if gpus.devices.is_empty() && !gpus.lost.is_empty() {
        gpus.absent = Some(format!("NVML lists a GPU that does not answer: {}", gpus.lost[0].reason));
    }
    gpus
}

fn cuda_version(nvml: &Nvml) -> Reading<String> {
    let number = nvml.sys_cuda_driver_version();
    let show =
        |number| format!("{}.{}", cuda_driver_version_major(number), cuda_driver_version_minor(number));
    read("CUDA version", number).and_then(|number| nonzero("CUDA version", number)).map(show)
}

/// A GPU that gives neither a name nor its memory is lost.
fn ask_one(nvml: &Nvml, index: u32) -> Result<Gpu, LostGpu> {
    let lost = |pci_address, reason| LostGpu { index, pci_address, reason };
    let device = nvml.device_by_index(index).map_err(|error| {
        let reason = format!("NVML gives no handle: {error}");
        lost(Reading::absent(reason.clone()), reason)
    })?;
    let pci_address = pci_address(&device);
    let name = text("name", device.name());
    let memory = read("memory", device.memory_info()).and_then(sound_memory);
    if let (None, Some(reason)) = (name.known(), memory.reason()) {
        return Err(lost(pci_address, reason.to_owned()));
    }
    Ok(Gpu {
        index,
        name: name.known().cloned().unwrap_or_else(|| format!("GPU {index}")),
        uuid: text("UUID", device.uuid()),
        pci_address,
        compute_capability: capability(&device),
        total_bytes: memory.clone().map(|memory| memory.total),
        free_bytes: memory.clone().map(|memory| memory.free),
        used_bytes: memory.clone().map(|memory| memory.used),
        reserved_bytes: memory.map(|memory| memory.reserved),
        clocks: clocks(&device),
        power: power(&device),
        temperature_c: read("temperature", device.temperature(TemperatureSensor::Gpu)),
        pcie: pcie(&device),
        ecc: read("ECC state", device.is_ecc_enabled()).map(|state| state.currently_enabled),
        processes: processes(nvml, &device),
    })
}

fn pci_address(device: &Device<'_>) -> Reading<String> {
    let address = read("PCI address", device.pci_info()).map(|info| info.bus_id);
    address.and_then(|text| normal_address(&text).ok_or_else(|| format!("NVML's PCI address is {text:?}")))
}

fn capability(device: &Device<'_>) -> Reading<(u32, u32)> {
    let what = "compute capability";
    let parts = |(major, minor): (i32, i32)| {
        let parts = u32::try_from(major).ok().filter(|&major| major > 0).zip(u32::try_from(minor).ok());
        parts.ok_or_else(|| format!("NVML says that the {what} is {major}.{minor}"))
    };
    read(what, device.cuda_compute_capability()).map(|found| (found.major, found.minor)).and_then(parts)
}

fn sound_memory(memory: MemoryInfo) -> Result<MemoryInfo, String> {
    match memory {
        MemoryInfo { total: 0, .. } => Err("NVML says that the memory is 0".to_owned()),
        MemoryInfo { total, free, .. } if free > total => {
            Err(format!("NVML says that {free} of {total} bytes are free"))
        }
        _ => Ok(memory),
    }
}

fn clocks(device: &Device<'_>) -> GpuClocks {
    let now = |what, clock| size(what, device.clock_info(clock));
    let most = |what, clock| size(what, device.max_clock_info(clock));
    GpuClocks {
        sm_mhz: now("multiprocessor clock", Clock::SM),
        sm_max_mhz: most("highest multiprocessor clock", Clock::SM),
        memory_mhz: now("memory clock", Clock::Memory),
        memory_max_mhz: most("highest memory clock", Clock::Memory),
    }
}

fn power(device: &Device<'_>) -> GpuPower {
    GpuPower {
        limit_milliwatts: size("power limit", device.enforced_power_limit()),
        draw_milliwatts: size("power draw", device.power_usage()),
    }
}

fn pcie(device: &Device<'_>) -> PcieLink {
    PcieLink {
        generation: size("PCIe generation", device.current_pcie_link_gen()),
        generation_max: size("highest PCIe generation", device.max_pcie_link_gen()),
        width: size("PCIe width", device.current_pcie_link_width()),
        width_max: size("highest PCIe width", device.max_pcie_link_width()),
    }
}

/// Processes that compute or draw; a process that does both is listed once.
fn processes(nvml: &Nvml, device: &Device<'_>) -> Reading<Vec<GpuProcess>> {
    let compute = listed(device.running_compute_processes_count(), || device.running_compute_processes());
    let drawing = listed(device.running_graphics_processes_count(), || device.running_graphics_processes());
    let mut seen = HashSet::from([process::id()]);
    compute.map(|found| {
        let all = found.into_iter().chain(drawing.known().cloned().unwrap_or_default());
        all.filter(|info| seen.insert(info.pid)).map(|info| describe(nvml, &info)).collect()
    })
}

/// The wrapper makes room for as many as the library says, so that the number is looked at first.
fn listed(
    count: Result<u32, NvmlError>,
    list: impl FnOnce() -> Result<Vec<ProcessInfo>, NvmlError>,
) -> Reading<Vec<ProcessInfo>> {
    match count {
        Ok(count) if count > GPU_PROCESSES_MAX => {
            Reading::absent(format!("NVML says that {count} processes use the GPU"))
        }
        Ok(_) => read("list of processes", list()),
        Err(error) => read("number of processes", Err(error)),
    }
}

fn describe(nvml: &Nvml, info: &ProcessInfo) -> GpuProcess {
    let bytes = match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Reading::Known(bytes),
        UsedGpuMemory::Unavailable => Reading::absent("the driver does not tell"),
    };
    let name = text("process name", nvml.sys_process_name(info.pid, PROCESS_NAME_BYTES_MAX));
    GpuProcess { pid: info.pid, bytes, name }
}

fn read<T>(what: &str, result: Result<T, NvmlError>) -> Reading<T> {
    result.map_err(|error| format!("NVML gives no {what}: {error}")).into()
}

/// A text that cannot be empty.
fn text(what: &str, result: Result<String, NvmlError>) -> Reading<String> {
    let filled = |text: String| {
        if text.is_empty() { Err(format!("NVML gives an empty {what}")) } else { Ok(text) }
    };
    read(what, result).and_then(filled)
}

/// A number that cannot be zero.
fn size(what: &str, result: Result<u32, NvmlError>) -> Reading<u32> {
    read(what, result).and_then(|value| nonzero(what, value))
}

fn nonzero<T: Default + PartialEq>(what: &str, value: T) -> Result<T, String> {
    if value == T::default() { Err(format!("NVML says that the {what} is 0")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;
    use crate::tree::fake::FakeTree;

    const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/fake_nvml.c");

    /// What is read through a library that is built from `testdata/fake_nvml.c`; wants a C compiler named `cc`.
    fn ask_fake(arguments: &[&str]) -> Gpus {
        let dir = tempfile::tempdir().unwrap();
        ask(&[build_fake(dir.path(), arguments).as_str()])
    }

    fn build_fake(dir: &Path, arguments: &[&str]) -> String {
        let library = dir.join("libnvidia-ml.so.1").display().to_string();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o", &library, SOURCE]).args(arguments);
        assert!(compiler.status().expect("a C compiler").success());
        library
    }

    fn json(gpu: &Gpu) -> serde_json::Value {
        serde_json::to_value(gpu).unwrap()
    }

    /// Whether some number in it is zero, beside the index.
    fn has_zero(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Number(number) => number.as_u64() == Some(0),
            serde_json::Value::Array(values) => values.iter().any(has_zero),
            serde_json::Value::Object(fields) => {
                fields.iter().any(|(name, value)| name != "index" && has_zero(value))
            }
            _ => false,
        }
    }

    #[test]
    fn two_cards_are_read() {
        let gpus = ask_fake(&["-DMODE=WORKS"]);
        assert_eq!((gpus.devices.len(), gpus.absent.as_deref()), (2, None));
        assert_eq!(gpus.driver_version, Reading::Known("580.105.08".to_owned()));
        assert_eq!(gpus.cuda_version, Reading::Known("13.0".to_owned()));
        let second = &gpus.devices[1];
        assert_eq!((second.index, second.pci_address.known().unwrap().as_str()), (1, "0000:00:05.0"));
        insta::assert_json_snapshot!(json(&gpus.devices[0]));
    }

    #[test]
    fn a_library_that_refuses_or_cannot_count_gives_its_reason() {
        let refuses = ask_fake(&["-DMODE=INIT_FAILS"]);
        assert_eq!(refuses.absent.as_deref(), Some("NVML refuses: NVIDIA driver is not loaded"));
        let stuck = ask_fake(&["-DMODE=COUNT_FAILS"]);
        assert!(stuck.absent.unwrap().starts_with("NVML cannot count GPUs: "));
        assert!(stuck.driver_version.reason().unwrap().starts_with("NVML gives no driver version: "));
        assert!(stuck.devices.is_empty() && stuck.lost.is_empty());
    }

    #[test]
    fn a_library_that_is_none_or_lacks_a_function_gives_a_reason() {
        let without = ask_fake(&["-DMODE=WORKS", "-DWITHOUT_SHUTDOWN"]);
        assert_eq!(without.absent.as_deref(), Some("NVML refuses: the library has no nvmlShutdown"));
        let other = ask(&["libc.so.6"]);
        assert!(other.absent.unwrap().starts_with("NVML refuses: function symbol failed to load"));
        let fake = FakeTree::new(&[("libnvidia-ml.so.1", "no library at all\n")]);
        let text = ask(&[&fake.tree().path("/libnvidia-ml.so.1").display().to_string()]);
        let absent = text.absent.unwrap();
        assert!(absent.starts_with("NVIDIA's library libnvidia-ml.so.1 cannot be loaded: "), "{absent}");
        assert!(absent.ends_with("file too short"), "{absent}");
    }

    #[test]
    fn a_lost_card_is_no_device_and_says_why() {
        let lost = "device fell off the bus or has otherwise become inacessible";
        let gpus = ask_fake(&["-DMODE=SECOND_LOST"]);
        assert_eq!((gpus.devices.len(), gpus.lost.len(), &gpus.absent), (1, 1, &None));
        assert_eq!(gpus.lost[0].reason, format!("NVML gives no memory: {lost}"));
        assert_eq!(gpus.lost[0].pci_address, Reading::Known("0000:00:05.0".to_owned()));
        let gpus = ask_fake(&["-DMODE=HANDLE_FAILS"]);
        assert_eq!((gpus.devices.len(), gpus.lost[0].index), (1, 1));
        assert_eq!(gpus.lost[0].reason, format!("NVML gives no handle: {lost}"));
    }

    #[test]
    fn a_card_that_is_lost_between_two_calls_has_no_zeros() {
        let gpus = ask_fake(&["-DMODE=LOST_LATER"]);
        let gpu = &gpus.devices[0];
        assert_eq!((gpu.name.as_str(), gpu.total_bytes.known()), ("Tesla T4", Some(&16_106_127_360)));
        for reason in [gpu.compute_capability.reason(), gpu.clocks.sm_mhz.reason(), gpu.processes.reason()] {
            assert!(reason.unwrap().contains("fell off the bus"), "{reason:?}");
        }
        assert!(!has_zero(&json(gpu)));
    }

    #[test]
    fn a_library_that_writes_nothing_gives_no_zeros() {
        let gpus = ask_fake(&["-DMODE=ZEROS"]);
        assert!(gpus.devices.is_empty());
        assert_eq!(gpus.lost[1].reason, "NVML says that the memory is 0");
        assert_eq!(gpus.cuda_version.reason(), Some("NVML says that the CUDA version is 0"));
        assert_eq!(gpus.driver_version.reason(), Some("NVML gives an empty driver version"));
        assert!(gpus.absent.unwrap().starts_with("NVML lists a GPU that does not answer: "));
    }

    #[test]
    fn a_number_of_processes_that_cannot_be_is_not_believed() {
        let gpus = ask_fake(&["-DMODE=TOO_MANY"]);
        let reason = gpus.devices[0].processes.reason();
        assert_eq!(reason, Some("NVML says that 4294967295 processes use the GPU"));
    }
}
