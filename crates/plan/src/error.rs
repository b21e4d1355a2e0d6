//! Why there is no plan.

use std::fmt;

use crate::{KvType, limits::CELLS_STEP};

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A wish that no machine could fulfil.
    #[error("{parameter} is {wanted}, and must be from {min} to {max}")]
    OutOfRange {
        /// Name of the parameter.
        parameter: &'static str,
        /// What was asked for.
        wanted: u32,
        /// Least that can be asked for.
        min: u32,
        /// Most that can be asked for.
        max: u32,
    },
    /// A context beyond what the model was trained with.
    #[error("a context of {wanted} tokens was asked for, and the model was trained with {trained}")]
    CtxBeyondTraining {
        /// What was asked for.
        wanted: u32,
        /// What the model was trained with.
        trained: u32,
    },
    /// A context was asked for beside wishes that take a longer one.
    #[error("a context of {wanted} tokens was asked for, and {}", takes_more(*least, *think_tokens))]
    CtxBelowWishes {
        /// What was asked for.
        wanted: u32,
        /// What the other wishes take.
        least: u32,
        /// Tokens of thinking that were asked for, where these are what takes it.
        think_tokens: Option<u32>,
    },
    /// A type of KV cache was asked for that the model's heads have no whole blocks for.
    #[error(
        "a KV cache in {} is made of blocks of {} elements, and a head of this model has {head_elements}",
        kv_type.name(), KvType::BLOCK_ELEMENTS
    )]
    KvTypeUnfit {
        /// What was asked for.
        kv_type: KvType,
        /// Elements of a head's keys or values.
        head_elements: u32,
    },
    /// The model does not fit with any context.
    #[error(
        "the model needs {} MiB with the smallest context, {} MiB of them weights, and {}",
        mib_up(*needs_bytes), mib_up(*weights_bytes), are_available(*available)
    )]
    ModelTooLarge {
        /// Weights, compute buffers and the smallest KV cache.
        needs_bytes: u64,
        /// Weights alone.
        weights_bytes: u64,
        /// What of main memory and of GPUs is available for them, the margins taken off, in bytes.
        available: (u64, u64),
        /// Weights of the largest model of this shape that fits somewhere; 0 where not even the smallest does.
        fits_bytes: u64,
    },
    /// The model fits, but not with this context.
    #[error(
        "a context of {wanted} tokens needs {} MiB with the model and a KV cache in {}, and {}",
        mib_up(*needs_bytes), kv_type.name(), are_available(*available)
    )]
    CtxTooLarge {
        /// What was asked for.
        wanted: u32,
        /// Weights, compute buffers and the KV cache of one answer.
        needs_bytes: u64,
        /// What of main memory and of GPUs is available for them, the margins taken off, in bytes.
        available: (u64, u64),
        /// Type of the KV cache.
        kv_type: KvType,
        /// Largest context that fits somewhere; 0 where none does.
        fits_ctx: u32,
    },
    /// Memory does not suffice, and something leaves the model less of it than the machine has.
    #[error("{error}: {limit}")]
    Limited {
        /// What leaves it less.
        limit: MemoryLimit,
        /// What does not fit.
        error: Box<Self>,
    },
}

/// What leaves a model less memory than the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// The ceiling that was asked for, in bytes.
    Ceiling(u64),
    /// The limit of a control group that this process is in, in bytes.
    ControlGroup(u64),
}

impl MemoryLimit {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Ceiling(_) => "allow it more memory",
            Self::ControlGroup(_) => "give the container or control group more memory",
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ceiling(bytes) => write!(f, "{} MiB is the most that it was allowed", mib(*bytes)),
            Self::ControlGroup(bytes) => write!(f, "the limit of a control group is {} MiB", mib(*bytes)),
        }
    }
}

impl PlanError {
    /// What the user can do about it: the nearest thing that fits.
    #[must_use]
    pub fn hint(&self) -> String {
        self.hint_with("free some memory")
    }

    /// `remedy` is how the model gets more memory.
    fn hint_with(&self, remedy: &str) -> String {
        match self {
            Self::Limited { limit, error } => error.hint_with(limit.remedy()),
            Self::OutOfRange { parameter, min, max, .. } => {
                format!("give {parameter} a value from {min} to {max}")
            }
            Self::CtxBeyondTraining { trained, .. } => {
                format!("ask for a context of at most {trained} tokens")
            }
            Self::CtxBelowWishes { least, .. } => {
                format!("ask for a context of {least} tokens or more, or leave it to the planner")
            }
            Self::KvTypeUnfit { .. } => "ask for a KV cache in f16, or for none".to_owned(),
            Self::ModelTooLarge { fits_bytes: 0, .. } | Self::CtxTooLarge { fits_ctx: 0, .. } => {
                remedy.to_owned()
            }
            Self::ModelTooLarge { fits_bytes, .. } => {
                format!("a file of about {} MiB would fit; else {remedy}", mib(*fits_bytes))
            }
            Self::CtxTooLarge { fits_ctx, kv_type, .. } => {
                format!("a context of {fits_ctx} tokens fits, with a KV cache in {}", kv_type.name())
            }
        }
    }

    /// Whether it may pass when memory becomes free.
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        matches!(self, Self::ModelTooLarge { .. } | Self::CtxTooLarge { .. } | Self::Limited { .. })
    }
}

fn takes_more(least: u32, think_tokens: Option<u32>) -> String {
    match think_tokens {
        Some(tokens) => format!("{tokens} tokens of thinking beside question and answer take {least}"),
        None => format!("one of at least {least} too"),
    }
}

fn are_available((host_bytes, gpu_bytes): (u64, u64)) -> String {
    match gpu_bytes {
        0 => format!("{} MiB are available", mib(host_bytes)),
        _ => {
            format!("{} MiB of main memory and {} MiB on GPUs are available", mib(host_bytes), mib(gpu_bytes))
        }
    }
}

/// Whole MiB that are there.
pub const fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// Whole MiB that are needed.
pub const fn mib_up(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// `value` when it is in the range.
pub fn in_range(parameter: &'static str, wanted: u32, min: u32, max: u32) -> Result<u32, PlanError> {
    if (min..=max).contains(&wanted) {
        Ok(wanted)
    } else {
        Err(PlanError::OutOfRange { parameter, wanted, min, max })
    }
}

/// Rounds a number of tokens up to whole steps of cells.
pub const fn cells_for(tokens: u64) -> u64 {
    tokens.div_ceil(CELLS_STEP as u64).saturating_mul(CELLS_STEP as u64)
}
