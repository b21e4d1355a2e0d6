//! (`ModelMeta`, `Machine`, `Want`) → [`Plan`]: how a model is loaded, each parameter with its reason.
//!
//! Integer arithmetic in bytes, no I/O. What is here is predicted and is never shown as measured. Which of repacking,
//! flash attention and thread counts is fastest on a machine is not known here yet: a calibration will tell.

mod decide;
mod error;
mod limits;
mod memory;
mod types;

#[cfg(test)]
mod tests;

pub use decide::plan;
pub use error::PlanError;
pub use types::{KvType, Plan, Predicted, Reason, Want};
