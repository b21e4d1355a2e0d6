//! llama.cpp as a [`Decoder`](firepot_engine::Decoder).
//!
//! The only crate with `unsafe` and the only one that links llama.cpp, over `llama-cpp-sys-2` and a small C++ shim
//! for what has no C interface. [`LlamaDecoder::load`] turns a `LoadSpec` into a decoder; [`dry_run`] says what that
//! would take; [`devices`] says what there is.
//!
//! It makes no decision: the planner chose every parameter, the engine schedules and samples. It knows no link and no
//! process. llama.cpp may still end the process on odd input, so it runs in a runner.

mod abort;
mod backend;
mod constraint;
mod context;
mod decoder;
mod devices;
mod error;
mod file;
mod log;
mod memory;
mod model;
mod params;
mod schema;
mod shim;
mod vocab;

pub use backend::{build_info, library_dir, system_info};
pub use constraint::GRAMMAR_BYTES_MAX;
pub use decoder::{LlamaDecoder, LoadControl};
pub use devices::{Device, DeviceKind, devices, gpu_supported};
pub use error::LoadError;
pub use log::TARGET as LOG_TARGET;
pub use memory::dry_run;
pub use schema::{SCHEMA_BYTES_MAX, SCHEMA_DEPTH_MAX};
