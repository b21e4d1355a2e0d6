//! A calibration and a model's work → speeds, with intervals.

use firepot_plan::{Fastest, KvType, Plan};
use serde::Serialize;

use crate::{
    Calibration, Correction, Work,
    calibration::Rates,
    work::{CELLS_STEP, LEAST_SHARE},
};

/// Chunks of a prompt that is computed alone, and the longest time for one: the scheduler's own (`CHUNK_GRID`, `ALONE_BUDGET`).
const CHUNKS: [u32; 3] = [512, 256, 128];
const CHUNK_S: f64 = 2.5;
/// From a request to the engine and from the first token to the client, over loopback, in seconds.
const AROUND_S: f64 = 0.004;
/// What models reach of what the probe's own models let expect, and what a decoded token takes beside: sampling, telling it,
/// and threads that wake while server and client use the same cores. By 108 cases of `check-speeds` on a 2-core EPYC before
/// those of docs/speeds.md.
const DECODE_REACHED: f64 = 0.92;
const TOKEN_S: f64 = 0.003;
const PREFILL_REACHED: f64 = 0.96;
/// Nine of ten measured rates lie between predicted / (1 + spread) and predicted · (1 + spread), by the same cases.
const DECODE_SPREAD: f64 = 0.20;
const PREFILL_SPREAD: f64 = 0.27;
const TTFT_SPREAD: f64 = 0.27;

/// A predicted figure and the interval in which nine of ten measured ones are to lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// The prediction.
    pub predicted: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Rate {
    fn new(predicted: f64, spread: f64) -> Self {
        Self { predicted, low: predicted / (1.0 + spread), high: predicted * (1.0 + spread) }
    }
}

/// Predicted speeds of one answer that runs alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speeds {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens per second after the first.
    pub decode: Rate,
    /// Prompt tokens per second.
    pub prefill: Rate,
    /// Seconds to the first token, with the model loaded and nothing in its cache.
    pub ttft: Rate,
}

/// How a model is loaded, as far as the probe tells ways apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// With flash attention.
    pub flash: bool,
    /// With weights repacked for the processor.
    pub repack: bool,
}

impl Way {
    /// The way of a plan.
    ///
    /// # Errors
    /// Why the probe says nothing of it.
    pub fn of(plan: &Plan) -> Result<Self, String> {
        if plan.gpu_layers != 0 {
            return Err("GPUs are not calibrated".to_owned());
        }
        if plan.kv_type_k != KvType::F16 || plan.kv_type_v != KvType::F16 {
            return Err("a quantized KV cache is not calibrated".to_owned());
        }
        Ok(Self { flash: plan.flash_attention, repack: plan.repack })
    }
}

/// Tokens per second that follow from the probe alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) decode: f64,
    pub(crate) prefill: f64,
}

impl Calibration {
    /// Speeds after a prompt of so many tokens.
    ///
    /// # Errors
    /// Why there is no prediction.
    pub fn predict(
        &self,
        work: &Work,
        plan: &Plan,
        prompt_tokens: u32,
        correction: Correction,
    ) -> Result<Speeds, String> {
        let expected = self.rates(work, Way::of(plan)?, prompt_tokens)?;
        let decode = expected.decode * correction.decode;
        let prefill = expected.prefill * correction.prefill;
        let ttft = f64::from(prompt_tokens) / prefill + AROUND_S;
        Ok(Speeds {
            prompt_tokens,
            decode: Rate::new(decode, DECODE_SPREAD),
            prefill: Rate::new(prefill, PREFILL_SPREAD),
            ttft: Rate::new(ttft, TTFT_SPREAD),
        })
    }

    /// Rates of a prompt of so many tokens, and of decoding after it.
    pub(crate) fn rates(&self, work: &Work, way: Way, tokens: u32) -> Result<Expected, String> {
        let decode = 1.0 / self.decode_s(work, way, tokens)?;
        Ok(Expected { decode, prefill: f64::from(tokens) / self.prefill_s(work, way, tokens)? })
    }

    /// What is fastest for a typical answer: a prompt of 512 tokens and 256 more. `None` where a rate is missing.
    #[must_use]
    pub fn fastest(&self, work: &Work) -> Option<Fastest> {
        let time = |flash, repack| {
            let way = Way { flash, repack };
            let decode_s = self.decode_s(work, way, TYPICAL.0 + TYPICAL.1 / 2).ok()?;
            Some(self.prefill_s(work, way, TYPICAL.0).ok()? + decode_s * f64::from(TYPICAL.1))
        };
        let (plain, flash, repacked) = (time(false, false)?, time(true, false)?, time(false, true)?);
        let percent = |than: f64, other: f64| ((other / than - 1.0) * 100.0).round() as i32;
        Some(Fastest {
            flash_gain_percent: percent(flash, plain),
            repack_gain_percent: percent(repacked, plain),
        })
    }

    /// Seconds of one decoded token at this depth.
    fn decode_s(&self, work: &Work, way: Way, depth: u32) -> Result<f64, String> {
        let cells = (depth + 1).next_multiple_of(CELLS_STEP);
        let matrices = self.over_kinds(work, way, |kind, rates| kind.decode_bytes / rates.decode_bytes)?;
        let looked = work.attention(cells);
        let attention = self.attention(way.flash).decode(looked) + looked.bytes / self.bandwidth;
        Ok((matrices + work.layers * self.layer_s + attention) / DECODE_REACHED + TOKEN_S)
    }

    /// Seconds of a prompt, in the chunks in which the scheduler computes it.
    fn prefill_s(&self, work: &Work, way: Way, tokens: u32) -> Result<f64, String> {
        let matrices = self.over_kinds(work, way, |kind, rates| kind.prefill_macs / rates.prefill_macs)?;
        let each = matrices + work.elements * self.element_s;
        let fits = |chunk: &u32| each * f64::from(*chunk) <= CHUNK_S;
        let chunk = CHUNKS.into_iter().find(fits).unwrap_or(CHUNKS[CHUNKS.len() - 1]);
        let (mut seconds, mut done) = (0.0, 0);
        while done < tokens {
            let now = chunk.min(tokens - done);
            let cells = (done + now).next_multiple_of(CELLS_STEP);
            let attention = self.attention(way.flash).prefill(work.attention(cells));
            seconds += f64::from(now) * (each + attention) + work.layers * self.layer_s;
            done += now;
        }
        // The last token's output.
        let output = self.over_kinds(work, way, |kind, rates| output_bytes(kind) / rates.decode_bytes)?;
        Ok((seconds + output) / PREFILL_REACHED)
    }

    fn over_kinds(
        &self,
        work: &Work,
        way: Way,
        of: impl Fn(&crate::KindWork, Rates) -> f64,
    ) -> Result<f64, String> {
        let all: f64 = work.kinds.iter().map(|kind| kind.decode_bytes).sum();
        let mut seconds = 0.0;
        for kind in &work.kinds {
            let little = kind.decode_bytes <= all * LEAST_SHARE;
            let rates = match self.kind(kind.kind) {
                Some(rates) => rates,
                None if little => self.kinds.first().ok_or("nothing was measured")?,
                None => return Err(format!("{} was not measured", kind.kind)),
            };
            seconds += of(kind, if way.repack { rates.repacked } else { rates.plain });
        }
        Ok(seconds)
    }
}

/// Tokens of a typical prompt and of its answer.
const TYPICAL: (u32, u32) = (512, 256);

/// What a decoded token reads and a prompt's token does not.
fn output_bytes(kind: &crate::KindWork) -> f64 {
    if kind.prefill_macs == 0.0 { kind.decode_bytes } else { 0.0 }
}
