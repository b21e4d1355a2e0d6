//! Lines of `quality.jsonl`: one for each question.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of `quality.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum QualityLine {
    /// A question and its checked answer.
    Question(Question),
    /// Perplexity of the bundled text.
    Perplexity(Perplexity),
}

/// A question with its checked answer. Question and expectation follow from `kind`, `seed` and `level`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The target.
    pub target: String,
    /// The generator.
    pub kind: QualityKind,
    /// Its number within the kind, counted from 0.
    pub index: u32,
    /// Seed that the generator was given.
    pub seed: u64,
    /// How hard; of needles, the number of them.
    pub level: u32,
    /// Of needles: tokens of the haystack, about.
    pub length_tokens: Option<u32>,
    /// Of needles: where in the haystack, in percent.
    pub depth_percent: Option<u32>,
    /// Of schemas: whether the server was asked to hold the answer to the schema.
    pub constrained: Option<bool>,
    /// What the checker expects, as it says it.
    pub expected: String,
    /// The answer without its thinking, cut to [`crate::limits::ANSWER_CHARS`].
    pub answer: String,
    /// What the checker says.
    pub verdict: Verdict,
    /// Whether the limit of tokens came while it was still thinking.
    pub cut_in_thinking: bool,
    /// Tokens of thinking.
    pub thinking_tokens: Option<u32>,
    /// Tokens of thinking and answer.
    pub generated_tokens: Option<u32>,
    /// From sending to the first token of the answer, in microseconds.
    pub ttft_answer_us: Option<u64>,
    /// From sending to the end, in microseconds.
    pub total_us: u64,
}

/// A generator of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QualityKind {
    /// Integer expressions.
    Arithmetic,
    /// Stories with one number as answer.
    WordProblem,
    /// Small puzzles.
    Logic,
    /// Something to be found in a long text.
    Needle,
    /// JSON that keeps to a schema.
    JsonSchema,
}

impl QualityKind {
    /// The case that asks questions of this kind ([`crate::bundle::Case::id`]).
    #[must_use]
    pub const fn case(self) -> &'static str {
        match self {
            Self::Arithmetic => "quality-arithmetic",
            Self::WordProblem => "quality-word-problem",
            Self::Logic => "quality-logic",
            Self::Needle => "quality-needle",
            Self::JsonSchema => "quality-json-schema",
        }
    }
}

/// What a checker says of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Right.
    Correct,
    /// Wrong.
    Wrong,
    /// Nothing in it could be read as an answer.
    NoAnswer,
    /// The request failed; it counts neither way.
    Failed,
}

/// Perplexity of the bundled text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Perplexity {
    /// The target.
    pub target: String,
    /// SHA-256 of the text.
    pub text_sha256: String,
    /// Tokens that were scored.
    pub tokens: u32,
    /// Sum of the natural logarithms of their probabilities, negated.
    pub nll: f64,
}
