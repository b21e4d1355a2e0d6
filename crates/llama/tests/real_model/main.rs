//! llama.cpp on the real small model, `SmolLM2-135M-Instruct` at `Q4_1`.
//!
//! Nothing here measures time, and texts are compared only where llama.cpp promises equal bits: its logits depend on
//! the shape of a batch and on what else is in the cache.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod decode;
mod format;
mod load;
mod state;
mod support;
mod text;
