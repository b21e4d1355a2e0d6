//! What answers took beside what was predicted for them, and what follows for later predictions.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{Calibration, Stamp, Way, Work};

/// Answers that are kept of one model, the newest.
const ANSWERS_MAX: usize = 8;
/// Models of which answers are kept, those that answered last.
const MODELS_MAX: usize = 64;
/// A rate that is farther from its prediction says that the machine did something else at that time.
const FACTOR_MAX: f64 = 3.0;
/// Shorter prompts and answers say too little.
const PROMPT_MIN: u32 = 64;
const ANSWER_MIN: u32 = 16;

/// An answer that had the machine for itself, by the runner's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Those of them that were in the cache.
    pub cached_tokens: u32,
    /// Emitted tokens.
    pub emitted_tokens: u32,
    /// Seconds from the first batch to the first token.
    pub prefill_s: f64,
    /// Seconds from the first token to the last.
    pub decode_s: f64,
}

/// Measured rates of one answer beside what a calibration predicted, uncorrected, in tokens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Beside {
    prefill: Option<Pair>,
    decode: Option<Pair>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Pair {
    predicted: f64,
    measured: f64,
}

impl Pair {
    fn plausible(predicted: f64, measured: f64) -> Option<Self> {
        let factor = measured / predicted;
        (factor.is_finite() && (1.0 / FACTOR_MAX..=FACTOR_MAX).contains(&factor))
            .then_some(Self { predicted, measured })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// [`Work::key`] of the model: those that cost the same are corrected alike.
    work: String,
    answers: VecDeque<Beside>,
}

/// What was seen on this machine with this build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Of which machine and build.
    pub stamp: Stamp,
    /// The one that answered last is last.
    models: VecDeque<Seen>,
}

impl Observed {
    /// Nothing was seen yet.
    #[must_use]
    pub const fn new(stamp: Stamp) -> Self {
        Self { stamp, models: VecDeque::new() }
    }

    /// Keeps what an answer of a model took. `false` when it says too little, or nothing was predicted.
    pub fn note(&mut self, calibration: &Calibration, work: &Work, way: Way, answer: &Answer) -> bool {
        let predicted = |depth| calibration.rates(work, way, depth);
        let prefill = || {
            let whole = answer.cached_tokens == 0 && answer.prompt_tokens >= PROMPT_MIN;
            let rate = f64::from(answer.prompt_tokens) / answer.prefill_s;
            whole.then(|| Pair::plausible(predicted(answer.prompt_tokens).ok()?.prefill, rate))?
        };
        let decode = || {
            let depth = answer.prompt_tokens.saturating_add(answer.emitted_tokens / 2);
            let rate = f64::from(answer.emitted_tokens.saturating_sub(1)) / answer.decode_s;
            let long = answer.emitted_tokens >= ANSWER_MIN;
            long.then(|| Pair::plausible(predicted(depth).ok()?.decode, rate))?
        };
        let beside = Beside { prefill: prefill(), decode: decode() };
        if beside == Beside::default() {
            return false;
        }
        let key = work.key();
        let known = self.models.iter().position(|seen| seen.work == key);
        let known = known.and_then(|at| self.models.remove(at));
        let mut seen = known.unwrap_or_else(|| Seen { work: key, answers: VecDeque::new() });
        seen.answers.push_back(beside);
        newest(&mut seen.answers, ANSWERS_MAX);
        self.models.push_back(seen);
        newest(&mut self.models, MODELS_MAX);
        true
    }

    /// What follows for a model: nothing when none that costs the same has answered.
    #[must_use]
    pub fn correction(&self, work: &Work) -> Correction {
        let key = work.key();
        let Some(seen) = self.models.iter().find(|seen| seen.work == key) else {
            return Correction::default();
        };
        let factor = |of: fn(&Beside) -> Option<Pair>| {
            factor(seen.answers.iter().filter_map(of).map(|pair| pair.measured / pair.predicted).collect())
        };
        Correction {
            prefill: factor(|beside| beside.prefill),
            decode: factor(|beside| beside.decode),
            answers: seen.answers.len() as u32,
        }
    }
}

fn newest<T>(items: &mut VecDeque<T>, most: usize) {
    while items.len() > most {
        items.pop_front();
    }
}

/// The median of n ratios, drawn towards 1 as if one more answer had come as predicted.
fn factor(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    let n = ratios.len();
    let Some(&upper) = ratios.get(n / 2) else { return 1.0 };
    let median = (ratios[(n - 1) / 2] * upper).sqrt();
    median.powf(n as f64 / (n + 1) as f64)
}

/// What answers of the same model were measured to be beside what was predicted: factors on rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Correction {
    /// Of decoding.
    pub decode: f64,
    /// Of prefill.
    pub prefill: f64,
    /// From so many answers.
    pub answers: u32,
}

impl Default for Correction {
    fn default() -> Self {
        Self { decode: 1.0, prefill: 1.0, answers: 0 }
    }
}
