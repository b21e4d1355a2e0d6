//! Scheduling, sampling and caching over a [`Decoder`].
//!
//! The [`Scheduler`] is a value with a `tick`: it takes `now` and a decoder, and has no clock, runtime or channel
//! inside. It knows no dialect, no template and no llama.cpp.

mod decoder;

pub use decoder::{
    Batch, BatchItem, Constraint, ConstraintError, DecodeError, Decoder, DecoderInfo, DeviceMemory, KvType,
    LoadSpec, PrefixCut, SeqId, StateError, TokenizeError, Tokenizer,
};
