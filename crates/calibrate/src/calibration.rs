//! What the probe found.

use serde::{Deserialize, Serialize};

use crate::Looked;

/// Of which machine and which build a calibration is. Another one says nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Processor, as it calls itself.
    pub cpu: String,
    /// Threads that computed.
    pub threads: u32,
    /// llama.cpp's version and what it was built for.
    pub build: String,
}

/// How fast a machine computes with models in main memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Of which machine.
    pub stamp: Stamp,
    /// When, in seconds since 1970.
    pub taken_at_s: u64,
    /// Bytes per second at which main memory was read at that time: what decoding is bound by.
    pub bandwidth: f64,
    /// By type of matrices.
    pub kinds: Vec<KindRates>,
    /// Seconds that a decoded token takes for each layer beside its matrices: calls and barriers.
    pub layer_s: f64,
    /// Seconds that a prompt's token takes for each number that it touches beside matrices.
    pub element_s: f64,
    /// Without flash attention.
    pub plain: Attention,
    /// With it.
    pub flash: Attention,
    /// Bytes per second at which a file was read around the page cache; absent where that could not be known.
    pub disk: Option<f64>,
    /// What the probe took, in seconds.
    pub took_s: f64,
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
    /// Multiplications per second of a prompt.
    pub prefill_macs: f64,
}

/// The bandwidth has moved so far that the calibration is of another time.
const MOVED: f64 = 0.15;

impl Calibration {
    /// Whether it says anything about a machine that is `stamp` and reads memory at this rate now.
    #[must_use]
    pub fn holds(&self, stamp: &Stamp, bandwidth: f64) -> bool {
        self.stamp == *stamp && (bandwidth / self.bandwidth - 1.0).abs() <= MOVED
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
