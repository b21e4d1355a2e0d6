//! What is asked of a model that nobody loads yet: whether it fits, and how.

use firepot_store::Model;

use super::planning::Wishes;

/// Of which model it is asked.
#[derive(Clone, Copy, Debug)]
pub enum FitModel<'a> {
    /// One of the store.
    Stored(&'a Model),
    /// One that is not there and may be known by its name.
    Named(&'a str),
}

/// What is asked of it; `None` is left to the planner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FitQuestion {
    /// How it would be loaded.
    pub wishes: Wishes,
    /// The least context of one answer, in tokens.
    pub ctx_min: Option<u32>,
    /// Tokens that an answer may think before it says something.
    pub think_tokens: Option<u32>,
    /// The name of another machine; `None` is this one.
    pub on: Option<String>,
    /// Most seconds to the first token.
    pub ttft_s: Option<f64>,
    /// Tokens of the prompt before it.
    pub prompt_tokens: Option<u32>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FitFailure {
    /// No model is known by that name.
    UnknownModel,
    /// No machine is.
    UnknownMachine {
        /// For the user.
        message: String,
        /// What the user can do.
        hint: String,
    },
}
