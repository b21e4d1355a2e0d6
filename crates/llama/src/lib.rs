//! [`firepot_engine::Decoder`] over llama.cpp: the only crate with `unsafe` code or llama.cpp.
//!
//! It stands on `llama-cpp-sys-2` alone, pinned exactly. llama.cpp may abort the process on an error of its own; that is
//! why it runs only in a runner. Nothing here schedules, samples or knows a template.

mod constraint;
mod context;
mod decoder;
mod devices;
mod error;
mod log;
mod memory;
mod model;
mod vocab;

pub use decoder::{AbortHandle, LlamaDecoder, LoadControl};
pub use devices::{Device, DeviceKind, build_info, devices, gpu_supported, system_info};
pub use error::LoadError;
pub use log::bridge_logs;
pub use memory::dry_run;
