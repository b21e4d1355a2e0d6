//! GGUF header and tensor table → [`ModelMeta`], what a model is, and [`Layout`], what it takes.
//!
//! Reads through a [`ByteSource`] in bounded windows and never the tensors' data. A hostile file costs at most the
//! limits in `limits.rs`: nothing is allocated on its word alone. No network, no llama.cpp.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

mod arch;
mod cursor;
mod error;
mod header;
mod layer;
mod layout;
mod limits;
mod meta;
#[cfg(test)]
mod refusal_tests;
mod source;
#[cfg(test)]
mod tests;
mod types;
mod value;
pub mod write;

pub use error::GgufError;
pub use header::{Gguf, Tensor};
pub use layer::{Attention, Layer, Recurrent, TENSOR_ALIGNMENT, Weights};
pub use layout::Layout;
pub use meta::ModelMeta;
pub use source::ByteSource;
pub use types::{TensorType, file_type_name};
pub use value::Value;
