//! (`Layout`, `Machine`, [`Want`]) → [`Plan`]: integer arithmetic, every decision with its reason.
//!
//! No I/O, no clock, nothing measured: what a plan says about memory is a prediction ([`Predicted`]).

mod budget;
mod compute;
mod decide;
mod error;
mod explain;
mod extras;
mod footprint;
mod limits;
mod nearest;
mod placement;
mod plan;
mod runner;
mod shape;
mod speed;
#[cfg(test)]
mod tests;
mod threads;
mod want;
#[cfg(test)]
mod want_tests;

pub use budget::{available_bytes, with_freed};
pub use decide::plan;
pub use error::{MemoryLimit, PlanError};
pub use explain::{Change, Explanation, explain};
pub use footprint::{DeviceBytes, Params, host_bytes, sequences};
pub use limits::{
    ANSWER_CELLS_MIN, BATCH_TOKENS_MAX, CELLS_STEP, CTX_DEFAULT_MAX, CTX_FLOOR, CTX_GPU_MIN,
    GPU_MARGIN_BYTES, HOST_MARGIN_BYTES, KV_CELLS_MAX, PARALLEL_MAX, THREADS_MAX,
};
pub use plan::{KvType, Plan, Predicted, Reason};
pub use speed::{bytes_per_token, decode_at_most};
pub use threads::{other_threads, threads};
pub use want::{Fastest, Gains, GpuUse, Taken, Want};
