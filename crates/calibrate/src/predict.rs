//! A calibration and a model's work → speeds, with intervals.

use firepot_engine::limits::{ALONE_BUDGET, CHUNK_GRID};
use firepot_plan::{Fastest, Gains, KvType, Plan};
use serde::Serialize;

use crate::{
    Calibration, Correction, DeviceRates, Threads, Work,
    calibration::Rates,
    work::{LEAST_SHARE, cells},
};

/// From a request to the engine and from the first token to the client, over loopback, in seconds.
const AROUND_S: f64 = 0.004;
/// How predictions follow from sums over the probe's rates.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// What models reach of what the probe's own models let expect.
    decode_reached: f64,
    prefill_reached: f64,
    /// What a decoded token takes beside: sampling, telling it, and threads that wake while server and client use the same cores.
    token_s: f64,
    /// Nine of ten measured rates lie between predicted / (1 + spread) and predicted · (1 + spread).
    decode_spread: f64,
    prefill_spread: f64,
}

/// By cases of `check-speeds` on a 2-core EPYC (Zen 4) and a 2-core Xeon (Sapphire Rapids), whose speed moves more; all before those of
/// docs/speeds.md.
const CPU: Limits = Limits {
    decode_reached: 0.98,
    prefill_reached: 0.99,
    token_s: 0.003,
    decode_spread: 0.20,
    prefill_spread: 0.28,
};
/// Guesses: no answer from a GPU was compared with its prediction yet. The intervals are wide for that.
const GPU: Limits = Limits {
    decode_reached: 0.92,
    prefill_reached: 0.90,
    token_s: 0.0005,
    decode_spread: 0.35,
    prefill_spread: 0.50,
};

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
    /// Where it is.
    pub on: On,
    /// With flash attention.
    pub flash: bool,
    /// With weights repacked for the processor.
    pub repack: bool,
}

/// Where a model is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// In main memory, computed by so many threads.
    Cpu(Threads),
    /// On GPUs of one kind, of which this is one, by its number among the machine's.
    Gpu(usize),
}

impl Way {
    /// The way of a plan.
    ///
    /// # Errors
    /// Why the probe says nothing of it.
    pub fn of(plan: &Plan) -> Result<Self, String> {
        if plan.kv_type_k != KvType::F16 || plan.kv_type_v != KvType::F16 {
            return Err("a quantized KV cache is not calibrated".to_owned());
        }
        let on = match (plan.gpu_layers, plan.host_experts, plan.gpus.first()) {
            (0, ..) => On::Cpu(Threads { decode: plan.threads, prefill: plan.threads_batch }),
            (-1, 0, Some(&gpu)) => On::Gpu(gpu),
            _ => return Err("a model that a GPU and main memory share is not calibrated".to_owned()),
        };
        Ok(Self { on, flash: plan.flash_attention, repack: plan.repack })
    }
}

/// Tokens per second that follow from the probe alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) decode: f64,
    pub(crate) prefill: f64,
}

impl Calibration {
    /// Speeds after a prompt of so many tokens. A correction is of answers from main memory.
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
        let way = Way::of(plan)?;
        if let Some(other) = plan.gpus.iter().find(|&&gpu| !self.alike(gpu, plan.gpus[0])) {
            return Err(format!("GPU {other} is of another kind than GPU {}", plan.gpus[0]));
        }
        let expected = self.rates(work, way, prompt_tokens)?;
        let correction = if matches!(way.on, On::Cpu(_)) { correction } else { Correction::default() };
        let limits = limits(way.on);
        let decode = expected.decode * correction.decode;
        let prefill = expected.prefill * correction.prefill;
        let ttft = f64::from(prompt_tokens) / prefill + AROUND_S;
        Ok(Speeds {
            prompt_tokens,
            decode: Rate::new(decode, limits.decode_spread),
            prefill: Rate::new(prefill, limits.prefill_spread),
            ttft: Rate::new(ttft, limits.prefill_spread),
        })
    }

    /// The rates of where a plan has its model.
    ///
    /// # Errors
    /// Why there are none.
    pub fn device(&self, on: On) -> Result<&DeviceRates, String> {
        match on {
            On::Cpu(threads) => {
                let found = self
                    .cpu
                    .as_ref()
                    .ok_or("models in main memory were not measured yet: firepot calibrate MODEL")?;
                let Threads { decode, prefill } = found.threads;
                (found.threads == threads).then_some(found).ok_or_else(|| {
                    format!(
                        "this machine was measured with {decode} threads for tokens and {prefill} for prompts"
                    )
                })
            }
            On::Gpu(gpu) => {
                let name = self.stamp.gpus.get(gpu).ok_or_else(|| format!("GPU {gpu} is not calibrated"))?;
                self.gpus.get(name).ok_or_else(|| format!("{name} was not measured yet: firepot calibrate"))
            }
        }
    }

    fn alike(&self, gpu: usize, other: usize) -> bool {
        self.stamp.gpus.get(gpu) == self.stamp.gpus.get(other)
    }

    /// Rates of a prompt of so many tokens, and of decoding after it.
    pub(crate) fn rates(&self, work: &Work, way: Way, tokens: u32) -> Result<Expected, String> {
        let device = self.device(way.on)?;
        let decode = 1.0 / device.decode_s(work, way, tokens)?;
        Ok(Expected { decode, prefill: f64::from(tokens) / device.prefill_s(work, way, tokens)? })
    }

    /// What is fastest in main memory, for a typical answer: a prompt of 512 tokens and 256 more. `None` where nothing was measured.
    #[must_use]
    pub fn fastest(&self, work: &Work) -> Option<Fastest> {
        let cpu = self.cpu.as_ref()?;
        let Threads { decode, prefill } = cpu.threads;
        Some(Fastest { threads: decode, threads_batch: prefill, gains: cpu.gains(work) })
    }
}

impl DeviceRates {
    /// `None` where a rate is missing.
    fn gains(&self, work: &Work) -> Option<Gains> {
        let time = |flash, repack| {
            let way = Way { on: On::Cpu(self.threads), flash, repack };
            let decode_s = self.decode_s(work, way, TYPICAL.0 + TYPICAL.1 / 2).ok()?;
            Some(self.prefill_s(work, way, TYPICAL.0).ok()? + decode_s * f64::from(TYPICAL.1))
        };
        let (plain, flash, repacked) = (time(false, false)?, time(true, false)?, time(false, true)?);
        let percent = |than: f64, other: f64| ((other / than - 1.0) * 100.0).round() as i32;
        Some(Gains { flash_percent: percent(flash, plain), repack_percent: percent(repacked, plain) })
    }

    /// Seconds of one decoded token at this depth.
    pub(crate) fn decode_s(&self, work: &Work, way: Way, depth: u32) -> Result<f64, String> {
        let matrices = self.over_kinds(work, way, |kind, rates| kind.decode_bytes / rates.decode_bytes)?;
        let looked = work.attention(cells(depth.saturating_add(1)));
        let attention = self.attention(way.flash).decode(looked) + looked.bytes / self.bandwidth;
        let limits = limits(way.on);
        Ok((matrices + work.layers * self.layer_s + attention) / limits.decode_reached + limits.token_s)
    }

    /// Seconds of a prompt, in the chunks in which the scheduler computes it.
    fn prefill_s(&self, work: &Work, way: Way, tokens: u32) -> Result<f64, String> {
        let each = self.over_kinds(work, way, |kind, rates| kind.prefill_macs / rates.prefill_macs)?
            + work.elements * self.element_s;
        let pass = self.over_kinds(work, way, |kind, rates| {
            rates.pass_tokens * kind.pass_elements / rates.prefill_macs
        })? + work.layers * self.layer_s;
        let fits = |chunk: &u32| each * f64::from(*chunk) + pass <= ALONE_BUDGET.as_secs_f64();
        let chunk = CHUNK_GRID.into_iter().find(fits).unwrap_or(CHUNK_GRID[CHUNK_GRID.len() - 1]);
        let (mut seconds, mut done) = (0.0, 0);
        while done < tokens {
            let now = chunk.min(tokens - done);
            let attention = self.attention(way.flash).prefill(work.attention(cells(done + now)));
            seconds += f64::from(now) * (each + attention) + pass;
            done += now;
        }
        let last = self.over_kinds(work, way, |kind, rates| kind.last_bytes / rates.decode_bytes)?;
        Ok((seconds + last) / limits(way.on).prefill_reached)
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

const fn limits(on: On) -> Limits {
    match on {
        On::Cpu(_) => CPU,
        On::Gpu(_) => GPU,
    }
}

/// Tokens of a typical prompt and of its answer.
const TYPICAL: (u32, u32) = (512, 256);
