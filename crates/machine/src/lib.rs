//! What this box is: CPU, memory, disk, GPUs, platform → [`Machine`].
//!
//! Probes stand at the edge and are thin; parsers are pure (text in, value out). What cannot be read is absent with
//! a reason, never 0. A probe measures nothing; [`read_speed`] does, when it is asked. No model is known, and the
//! environment is handed in: only the binary reads it. Linux, x86-64 and aarch64; Windows through WSL2.

mod caches;
mod cgroup;
mod compute;
mod cpu;
mod disk;
mod frequency;
mod gpu;
mod gpus;
mod limits;
mod machine;
mod memory;
mod mounts;
mod nvml;
mod pci;
mod platform;
mod process;
mod read_speed;
mod reading;
mod session;
mod swap;
mod terms;
mod topology;
mod tree;
mod usable;
mod watch;

pub use caches::Cache;
pub use compute::{ComputeDevice, ComputeKind};
pub use cpu::Cpu;
pub use disk::Disk;
pub use frequency::Frequency;
pub use gpu::{Gpu, GpuClocks, GpuPower, GpuProcess, PcieLink};
pub use gpus::{Gpus, LostGpu, UnusableGpu};
pub use machine::{Environment, Machine};
pub use memory::{HugePages, Memory};
pub use mounts::DiskKind;
pub use pci::{GpuVendor, PciGpu};
pub use platform::{Platform, PlatformKind};
pub use process::{ProcessMemory, process_memory};
pub use read_speed::{BLOCK_BYTES, CacheBypass, READ_BYTES_MIN, READ_TIME_MAX, ReadSpeed, read_speed};
pub use reading::{NOT_LOOKED_AT, Reading};
pub use session::{COLAB_SESSION_S, KAGGLE_SESSION_S, KAGGLE_TPU_SESSION_S, SessionLimit};
pub use terms::{Fact, Gives, Quota, Rule, SavedFolder, Switch, Terms};
pub use usable::{CudaBuild, DeviceNames, Obstacle};
pub use watch::{CpuMoment, CpuWatch, GpuMoment, GpuWatch};
