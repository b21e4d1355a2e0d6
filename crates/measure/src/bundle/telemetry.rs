//! Lines of `probes.jsonl` and `telemetry.jsonl`: what the machine did meanwhile.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of `probes.jsonl`: how fast main memory could be read and the processors computed, between two samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// When it had ended, in microseconds from the beginning of the trial.
    pub at_us: u64,
    /// The process of the trial that took it.
    pub part: u32,
    /// Bytes per second.
    pub bandwidth_bytes_per_s: f64,
    /// Multiply-adds of 32-bit floats per second ([`crate::compute_rate`]).
    pub compute_macs_per_s: f64,
    /// Threads that read, and computed.
    pub threads: u32,
}

/// A line of `telemetry.jsonl`, at least ten in a second. What cannot be read is null, and `absent.json` says why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Telemetry {
    /// When, in microseconds from the beginning of the trial.
    pub at_us: u64,
    /// The target ([`crate::bundle::Target::id`]) whose process `rss_bytes`, `anonymous_bytes` and `cpu_percent` are of.
    pub target: String,
    /// Resident memory of the target's processes, mapped files included, in bytes.
    pub rss_bytes: Option<u64>,
    /// The same without files.
    pub anonymous_bytes: Option<u64>,
    /// Processor time of the target's processes over time since the last line, in percent of one core.
    pub cpu_percent: Option<f64>,
    /// Busy time of the whole machine, in percent of all its cores.
    pub machine_percent: Option<f64>,
    /// Mean clock of the cores, in MHz.
    pub cpu_mhz: Option<f64>,
    /// Hottest sensor of the processor, in °C.
    pub cpu_celsius: Option<f64>,
    /// Times that cores were slowed by heat since boot, summed.
    pub cpu_throttled: Option<u64>,
    /// Power of the processor's package, in watts.
    pub cpu_watts: Option<f64>,
    /// Graphics processors; empty when there is none.
    pub gpus: Vec<GpuTelemetry>,
}

/// One graphics processor at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpuTelemetry {
    /// Its number.
    pub index: u32,
    /// Memory in use by everybody, in bytes.
    pub used_bytes: Option<u64>,
    /// Memory in use by the target, in bytes.
    pub target_bytes: Option<u64>,
    /// Time in which a kernel ran, in percent.
    pub busy_percent: Option<f64>,
    /// Clock of the multiprocessors, in MHz.
    pub sm_mhz: Option<f64>,
    /// Clock of the memory, in MHz.
    pub memory_mhz: Option<f64>,
    /// Temperature in °C.
    pub celsius: Option<f64>,
    /// Power in watts.
    pub watts: Option<f64>,
    /// Why its clocks are held down, in the driver's words; empty when they are not.
    pub throttled: Option<Vec<String>>,
}
