//! What was measured, on what, with what: files that are written once.

use std::collections::BTreeMap;

use firepot_machine::Reading;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `trial.json`: whose bundle this is. The first file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Version of the schema of all files ([`crate::bundle::SCHEMA`]).
    pub schema: u32,
    /// Names the trial; random.
    pub id: String,
    /// When the trial began, in seconds since 1970.
    pub created_unix_s: u64,
    /// The program that measured.
    pub tool: Tool,
}

/// The program that measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Its version.
    pub version: String,
    /// Commit of its source.
    pub commit: Reading<String>,
    /// Whether its source had changes that were not committed.
    pub dirty: Reading<bool>,
    /// SHA-256 of the running file, 64 hex digits.
    pub binary_sha256: Reading<String>,
    /// How it was built: target, profile, features, flags of llama.cpp.
    pub build_flags: Vec<String>,
}

/// `machine.json`: where the target ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineRecord {
    /// Processor, as it calls itself.
    pub cpu: Reading<String>,
    /// Logical cores that the process may use.
    pub cores: Reading<u32>,
    /// Main memory that the process may use, in bytes.
    pub memory_bytes: Reading<u64>,
    /// Graphics processors; empty when there is none.
    pub gpus: Reading<Vec<Gpu>>,
    /// `kaggle`, `colab`, `container`, `wsl2` or `bare`.
    pub platform: Reading<String>,
    /// Everything else that the probe read, in its own form; null for a foreign server's machine.
    pub details: Value,
}

/// A graphics processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Version of its driver.
    pub driver: Reading<String>,
}

/// `calibration.json`: how fast the machine computes, or why that is not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationRecord {
    /// When it was taken, in seconds since 1970.
    pub taken_unix_s: u64,
    /// Bytes per second at which main memory was read then.
    pub bandwidth_bytes_per_s: f64,
    /// The whole calibration, in its own form.
    pub details: Value,
}

/// `model.json`: the model of each target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Models {
    /// One for each target of the workload.
    pub models: Vec<Model>,
}

/// A model, as exactly as the server lets it be known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// The target that served it ([`crate::bundle::Target::id`]).
    pub target: String,
    /// Its name there.
    pub name: String,
    /// Repository and commit, or the registry's digest.
    pub revision: Reading<String>,
    /// Size of the weights' file, in bytes.
    pub size_bytes: Reading<u64>,
    /// SHA-256 of the weights' file, 64 hex digits.
    pub sha256: Reading<String>,
    /// SHA-256 of the GGUF header.
    pub header_sha256: Reading<String>,
    /// SHA-256 of the tokenizer's part of the header.
    pub tokenizer_sha256: Reading<String>,
    /// SHA-256 of the chat template.
    pub template_sha256: Reading<String>,
    /// Parameters, as the header counts them.
    pub parameters: Reading<u64>,
    /// The mix of types of the weights, e.g. `Q4_K_M`.
    pub quantization: Reading<String>,
    /// Tokens of context that one answer had.
    pub context_tokens: Reading<u32>,
}

/// `plan.json`: what was predicted *before* the first sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanRecord {
    /// When it was made, in seconds since 1970.
    pub made_unix_s: u64,
    /// Predicted figures by the name of the summary's metric (`decode_tokens_per_s`, `ttft_warm_ms`, …) of the case that they are for.
    pub predicted: Vec<Predicted>,
    /// The load's parameters with their reasons, in the planner's own form.
    pub details: Value,
}

/// One predicted figure. Never to be shown as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Predicted {
    /// Name of the metric in the summary.
    pub metric: String,
    /// The case ([`crate::bundle::Case::id`]); none for figures of the whole trial.
    pub case: Option<String>,
    /// The prediction, in the metric's unit.
    pub value: f64,
    /// Lower end of its interval, where it has one.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// `session.json`: what the trial took from the ground that it stood on. Written at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// From the first process of the trial to the end, pauses between its parts left out, in seconds.
    pub measured_s: f64,
    /// What is left of the session on borrowed ground.
    pub left_s: Reading<u64>,
    /// What the account may use, where that is known.
    pub quota: Reading<Quota>,
    /// What the trial cost.
    pub cost: Reading<Cost>,
    /// Hosts outside this machine that the tool's processes contacted, sorted; empty when there was none.
    pub hosts_contacted: Reading<Vec<String>>,
    /// Hosts that were expected, such as the model's hub or the target itself.
    pub hosts_expected: Vec<String>,
    /// Settings that the tool took, by name, without anything that names the user.
    pub settings: BTreeMap<String, String>,
}

/// What an account may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quota {
    /// Hours in a week.
    pub hours_per_week: f64,
    /// Who says so.
    pub source: String,
}

/// What a trial cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// The amount; 0 on free ground.
    pub amount: f64,
    /// ISO 4217 code.
    pub currency: String,
    /// How it is known.
    pub source: String,
}
