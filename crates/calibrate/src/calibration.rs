//! What the probe found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Looked;

/// Of how this crate measures and predicts. It is raised with every change of what a stored figure means or of what follows from it:
/// the fields of [`DeviceRates`], [`Work`](crate::Work), the sums and constants of `predict.rs`, and how `probe.rs` divides times. Files of
/// another reckoning are not read. A test compares predictions with those of this number.
pub const RECKONING: u32 = 4;

/// Of which machine and which build a calibration is. Another one says nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Processor, as it calls itself.
    pub cpu: String,
    /// Threads that compute when nothing else was found to be faster.
    pub threads: u32,
    /// Names of the GPUs that this build can use, by their numbers among the machine's.
    pub gpus: Vec<String>,
    /// llama.cpp's version and what it was built for.
    pub build: String,
    /// [`RECKONING`] of the program that measured.
    pub reckoning: u32,
}

/// How fast a machine computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Of which machine.
    pub stamp: Stamp,
    /// With models in main memory; absent where nothing asked for it.
    pub cpu: Option<DeviceRates>,
    /// With models wholly on a GPU, by the GPU's name.
    pub gpus: BTreeMap<String, DeviceRates>,
    /// Bytes per second at which a file was read around the page cache; absent where that could not be known.
    pub disk: Option<f64>,
    /// What the last probe took, in seconds.
    pub took_s: f64,
}

/// Numbers of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// For tokens, one after the other.
    pub decode: u32,
    /// For prompts.
    pub prefill: u32,
}

impl Threads {
    /// The same for both.
    #[must_use]
    pub const fn both(threads: u32) -> Self {
        Self { decode: threads, prefill: threads }
    }
}

/// How fast models are that a device holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceRates {
    /// When it was measured, in seconds since 1970.
    pub taken_at_s: u64,
    /// Threads that it was measured with; of main memory those that were fastest.
    pub threads: Threads,
    /// Bytes per second at which its memory was read at that time: what decoding is bound by.
    pub bandwidth: f64,
    /// By type of matrices.
    pub kinds: Vec<KindRates>,
    /// Seconds that a decoded token takes for each layer beside its matrices: calls and barriers.
    pub layer_s: f64,
    /// Seconds that a prompt's token takes for each number that it touches beside matrices.
    pub element_s: f64,
    /// Without flash attention; of a GPU the same as with it.
    pub plain: Attention,
    /// With it.
    pub flash: Attention,
}

/// What attention costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Seconds for each multiplication of a decoded token.
    pub decode_s: f64,
    /// Seconds for each score of a prompt's token.
    pub score_s: f64,
    /// Seconds for each multiplication of a prompt's token.
    pub mac_s: f64,
}

impl Attention {
    /// Seconds of a decoded token.
    #[must_use]
    pub fn decode(&self, looked: Looked) -> f64 {
        looked.macs * self.decode_s
    }

    /// Seconds of a prompt's token.
    #[must_use]
    pub fn prefill(&self, looked: Looked) -> f64 {
        looked.scores * self.score_s + looked.macs * self.mac_s
    }
}

/// How fast matrices of one type are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindRates {
    /// Name of the type in llama.cpp.
    pub kind: String,
    /// As the file has them.
    pub plain: Rates,
    /// Repacked for the processor, where llama.cpp knows how; the same figures where it does not.
    pub repacked: Rates,
}

/// Rates of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Bytes per second that a decoded token reads.
    pub decode_bytes: f64,
    /// Multiplications per second of a prompt, but for what each pass takes.
    pub prefill_macs: f64,
    /// What a pass of a prompt's chunk over a matrix takes before its first token, in tokens: to read and to unpack it.
    pub pass_tokens: f64,
}

/// The bandwidth has moved so far that the calibration is of another time.
const MOVED: f64 = 0.15;

impl Calibration {
    /// Nothing was measured yet.
    #[must_use]
    pub const fn empty(stamp: Stamp) -> Self {
        Self { stamp, cpu: None, gpus: BTreeMap::new(), disk: None, took_s: 0.0 }
    }

    /// Main memory's rates, else those of the first GPU.
    #[must_use]
    pub fn main(&self) -> Option<&DeviceRates> {
        self.cpu.as_ref().or_else(|| self.gpus.values().next())
    }
}

impl DeviceRates {
    /// Whether they are still of a machine that reads its memory at this rate now.
    #[must_use]
    pub fn holds(&self, bandwidth: f64) -> bool {
        (bandwidth / self.bandwidth - 1.0).abs() <= MOVED
    }

    /// The rates of a type.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&KindRates> {
        self.kinds.iter().find(|rates| rates.kind == name)
    }

    /// Attention with or without flash attention.
    #[must_use]
    pub const fn attention(&self, flash: bool) -> Attention {
        if flash { self.flash } else { self.plain }
    }
}
