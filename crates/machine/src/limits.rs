//! Bounds on what a probe reads.

/// Longest file of `/proc` or `/sys` that is read. `/proc/cpuinfo` has about 1.5 KiB for each logical core.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Entries of `/sys/bus/pci/devices` that are looked at.
pub const PCI_DEVICES_MAX: usize = 4096;
/// GPUs that NVML is asked about.
pub const GPUS_MAX: u32 = 64;
/// Processes on one GPU that are listed.
pub const GPU_PROCESSES_MAX: u32 = 4096;
/// Longest process name that is read; NVML cuts it.
pub const PROCESS_NAME_BYTES_MAX: usize = 256;
/// Devices of llama.cpp that are listed.
pub const COMPUTE_DEVICES_MAX: usize = 256;
/// Caches of one core that are looked at.
pub const CACHES_MAX: usize = 16;
/// Directories between a control group and the root of its hierarchy.
pub const CGROUP_DEPTH_MAX: usize = 32;
/// Entries of `/usr/local/lib` that are looked through for Colab's Python package.
pub const PYTHONS_MAX: usize = 256;
