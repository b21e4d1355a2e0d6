//! Why there is no plan.

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More context than the model knows.
    #[error("a context of {wanted} tokens was asked for and the model was trained with {trained}")]
    BeyondTraining {
        /// Asked for.
        wanted: u32,
        /// The model's.
        trained: u32,
    },
    /// A number outside its range.
    #[error("{parameter} is {value}; it must be from {min} to {max}")]
    OutOfRange {
        /// Which.
        parameter: &'static str,
        /// What was asked for.
        value: u32,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// Memory does not suffice.
    #[error(
        "the model needs {needs_bytes} bytes for {ctx} tokens of context and {available_bytes} are available"
    )]
    DoesNotFit {
        /// Weights, cache and margin.
        needs_bytes: u64,
        /// What is there.
        available_bytes: u64,
        /// The context that was planned.
        ctx: u32,
        /// The largest context that would fit, if any does.
        fits_ctx: Option<u32>,
    },
}

impl PlanError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BeyondTraining { trained, .. } => Some(format!("use a context of at most {trained}")),
            Self::OutOfRange { .. } => None,
            Self::DoesNotFit { fits_ctx: Some(ctx), .. } => Some(format!("a context of {ctx} tokens fits")),
            Self::DoesNotFit { .. } => Some("use a smaller model, or free memory".to_owned()),
        }
    }
}
