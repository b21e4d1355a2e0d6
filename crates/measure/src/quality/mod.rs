//! Questions from a seed with exact checkers: no data is downloaded, and none can be in a model's training.
//!
//! They are to notice a broken quantization, template or KV type, not to rank models. The same seed gives the same questions for
//! ever: a bundle's checks may be repeated. Asking is not done here.

mod arithmetic;
mod checker;
mod json_schema;
mod logic;
mod needle;
mod text;
mod word_problem;

pub use checker::{Expected, Task};
pub use json_schema::violations;
pub use needle::needle;
pub use text::{TEXT, TEXT_SOURCE, text_sha256};

use crate::bundle::QualityKind;

/// Hardest level of the kinds that have levels.
pub const LEVELS: u32 = 5;

/// The question of a kind, a seed, a number and a level from 1 to [`LEVELS`]. Needles, which need a length, are made by [`needle`]:
/// asked for here, one gets the shortest.
#[must_use]
pub fn task(kind: QualityKind, seed: u64, index: u32, level: u32) -> Task {
    let level = level.clamp(1, LEVELS);
    match kind {
        QualityKind::Arithmetic => arithmetic::task(seed, index, level),
        QualityKind::WordProblem => word_problem::task(seed, index, level),
        QualityKind::Logic => logic::task(seed, index, level),
        QualityKind::Needle => needle(seed, index, 1, 256, 50),
        QualityKind::JsonSchema => json_schema::task(seed, index, level),
    }
}

#[cfg(test)]
mod tests;
