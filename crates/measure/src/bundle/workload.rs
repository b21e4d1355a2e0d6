//! `workload.json`: what was to be measured, decided before the first sample.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `workload.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// How much.
    pub suite: Suite,
    /// From which every prompt and every order follows.
    pub seed: u64,
    /// Whom is asked: one, or two that alternate (`--versus`).
    pub targets: Vec<Target>,
    /// What is asked, in order.
    pub cases: Vec<Case>,
    /// When a case has samples enough.
    pub rules: Rules,
    /// What an answer must keep to be good for a user.
    pub goodput: Goodput,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Suite {
    /// At most a minute.
    Smoke,
    /// At most 8 minutes.
    Standard,
    /// At most 45 minutes.
    Full,
}

/// A server that is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// `a`, and `b` for the second one.
    pub id: String,
    /// What it is.
    pub kind: TargetKind,
    /// Program and version, as it says itself.
    pub server: String,
    /// Whether it ran on the machine of the trial; `machine.json` is about that of the first target.
    pub on_this_machine: bool,
}

/// What kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// Firepot, with stamps of its own.
    Firepot,
    /// A server that speaks Ollama's API.
    Ollama,
    /// A server that speaks `OpenAI`'s API.
    Openai,
    /// A scripted one, for tests of the instrument.
    Fake,
}

/// One thing that is measured, by repeated requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Case {
    /// Names it in the other files, e.g. `warm-512`, `decode-2048`, `concurrency-8`.
    pub id: String,
    /// What it is for.
    pub kind: CaseKind,
    /// Tokens of the prompt that are new.
    pub prompt_tokens: u32,
    /// Tokens that are in the context before them.
    pub depth_tokens: u32,
    /// Requests at the same time.
    pub concurrency: u32,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// Whether strict mode is asked for (identical ids are promised only there).
    pub strict: bool,
    /// Whether the answer is to go on behind the tokens that end it, up to `max_tokens`, so that each sample has the same
    /// length. Servers without such an option are not asked for it.
    #[serde(default)]
    pub ignore_eos: bool,
    /// Seed of its prompts and draws.
    pub seed: u64,
    /// Fewest samples.
    pub min_samples: u32,
    /// Most samples.
    pub max_samples: u32,
}

/// What a case is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaseKind {
    /// A process is started, its model's file on disk, and the first token awaited: TTFT cold.
    ColdStart,
    /// The model is loaded and the prompt in no cache: TTFT warm, prefill and decode rate.
    Warm,
    /// All but the last message is in the cache: TTFT prefix hit.
    PrefixHit,
    /// Decode rate behind a context of `depth_tokens`.
    Depth,
    /// Several requests at once: throughput and goodput.
    Concurrency,
    /// The same request again and again: the hash of the ids must not differ.
    Determinism,
    /// A process is killed.
    Restart,
    /// Questions with exact checkers.
    Quality,
}

/// When a case has samples enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    /// Coverage that the intervals are to have.
    pub coverage: f64,
    /// Half of the decode rate's interval over the rate at which sampling may stop.
    pub decode_precision: f64,
    /// The same for TTFT.
    pub ttft_precision: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { coverage: 0.95, decode_precision: 0.02, ttft_precision: 0.05 }
    }
}

/// What an answer must keep to count for goodput.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Goodput {
    /// Longest time to the first token, in milliseconds.
    pub ttft_ms: f64,
    /// Longest time for each further token, in milliseconds.
    pub tpot_ms: f64,
}

impl Default for Goodput {
    /// Two seconds to begin with and ten tokens a second, faster than most people read.
    fn default() -> Self {
        Self { ttft_ms: 2000.0, tpot_ms: 100.0 }
    }
}
