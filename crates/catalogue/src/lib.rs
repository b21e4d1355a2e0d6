//! Models that people run, and machines that they borrow, as data: what can be planned before anything is there.
//!
//! A model's shape becomes the table of tensors that its GGUF file has, and that a [`firepot_gguf::Layout`]; synthetic
//! models are written from the same tables. Both lists are in `data/`, with the source of each figure. No I/O.

mod models;
mod profiles;
mod quant;
mod shape;

pub use models::{Found, Kind, Model, OllamaFile, PublishedFile, find, models};
pub use profiles::{Profile, UnknownProfile, profile, profiles};
pub use quant::{Quant, Storage};
pub use shape::{Family, Scales, Shape, TensorSpec, Values};
