//! What this box is: CPU, memory, disk, GPUs, platform → [`Machine`].
//!
//! Probes stand at the edge and are thin; parsers are pure (text in, value out). What cannot be read is absent with
//! a reason, never 0. Nothing is measured here (no bandwidth, no rates), no model is known, and the environment is
//! handed in: only the binary reads it. Linux, x86-64 and aarch64; Windows through WSL2.

mod cgroup;
mod cpu;
mod disk;
mod gpu;
mod limits;
mod machine;
mod memory;
mod pci;
mod platform;
mod reading;
mod tree;

pub use cpu::Cpu;
pub use disk::Disk;
pub use gpu::{Gpu, Gpus, UnusableGpu};
pub use machine::{Environment, Machine};
pub use memory::Memory;
pub use pci::{GpuVendor, PciGpu};
pub use platform::{Platform, PlatformKind};
pub use reading::Reading;
