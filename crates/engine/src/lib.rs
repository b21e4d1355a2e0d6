//! Scheduling, sampling and caching over a [`Decoder`].
//!
//! The [`Scheduler`] is a value with a `tick`: it takes `now` and a decoder, and has no clock, runtime or channel
//! inside. It knows no dialect, no template and no llama.cpp. [`fake`] has a decoder without a model.

mod decoder;
pub mod fake;
pub mod limits;
mod sampler;
mod scheduler;
mod text;
mod thinking;

pub use decoder::{
    AbortHandle, Batch, BatchItem, Constraint, ConstraintError, DecodeError, Decoder, DecoderInfo,
    DeviceLimit, DeviceMemory, KvType, LoadSpec, PrefixCut, SeqId, StateError, TokenizeError, Tokenizer,
};
pub use scheduler::{
    Candidate, EngineEvent, EngineRequest, EngineStats, Key, NextCall, Prefix, QueueFull, Scheduler,
    SchedulerConfig, Tick, common_prefix, usable_tokens,
};
pub use text::released;
pub use thinking::ThinkControl;
