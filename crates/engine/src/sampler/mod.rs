//! Choosing the next token from logits.
//!
//! The order is llama.cpp's default: bias, penalties, top-k, typical, top-p, min-p, temperature, draw. With a constraint,
//! a token is chosen freely first; only when the constraint refuses it is the whole vocabulary masked and the token
//! chosen again, as llama.cpp does. The draw for both is the same number.

mod draw;
mod filter;
mod logprobs;

use std::collections::HashMap;

use firepot_chat::{Sampling, TokenId};
pub use logprobs::log_probabilities;

use self::filter::Candidate;
use crate::{Constraint, ConstraintError};

/// One generation's sampler. Everything that it remembers is the ids it was given: a continued generation rebuilds
/// it by replaying them.
pub struct Sampler {
    settings: Sampling,
    seed: u64,
    history: Vec<TokenId>,
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
    probabilities: Vec<f32>,
}

/// No token can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The decoder gave a number that is not one.
    #[error("the model computed logits that are not numbers")]
    NotANumber,
    /// Constraint and bias leave no token.
    #[error("the format leaves no token that can come next")]
    NoCandidate,
}

impl Sampler {
    /// A sampler whose penalties see `history` (prompt and emitted ids).
    pub fn new(settings: Sampling, history: Vec<TokenId>) -> Self {
        let seed = settings.seed.unwrap_or_default();
        Self {
            settings,
            seed,
            history,
            logits: Vec::new(),
            candidates: Vec::new(),
            probabilities: Vec::new(),
        }
    }

    /// Chooses the token at `position` of the answer.
    pub fn choose(
        &mut self,
        logits: &[f32],
        position: u32,
        constraint: Option<&mut Box<dyn Constraint>>,
    ) -> Result<TokenId, SampleError> {
        self.prepare(logits);
        let free = self.pick(position)?;
        let Some(constraint) = constraint else { return Ok(free) };
        if constraint.allows(free) {
            return Ok(free);
        }
        constraint.mask(&mut self.logits);
        self.pick(position)
    }

    /// Remembers an emitted token.
    pub fn accept(&mut self, token: TokenId) {
        self.history.push(token);
    }

    /// Copies the logits and applies bias and penalties.
    fn prepare(&mut self, logits: &[f32]) {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        for &(token, bias) in &self.settings.logit_bias {
            if let Some(logit) = usize::try_from(token).ok().and_then(|index| self.logits.get_mut(index)) {
                *logit += bias;
            }
        }
        self.penalize();
    }

    /// llama.cpp's penalties: the repeat penalty divides what is positive and multiplies what is not.
    #[expect(clippy::float_cmp, reason = "exactly the neutral values are off")]
    fn penalize(&mut self) {
        let Sampling { repeat_penalty, presence_penalty, frequency_penalty, repeat_last_n, .. } =
            self.settings;
        let off = repeat_penalty == 1.0 && presence_penalty == 0.0 && frequency_penalty == 0.0;
        if off || repeat_last_n == 0 {
            return;
        }
        let window = usize::try_from(repeat_last_n).unwrap_or(usize::MAX);
        let start = self.history.len().saturating_sub(window);
        let mut counts: HashMap<TokenId, u32> = HashMap::new();
        for &token in &self.history[start..] {
            *counts.entry(token).or_default() += 1;
        }
        for (token, count) in counts {
            let Some(logit) = usize::try_from(token).ok().and_then(|index| self.logits.get_mut(index)) else {
                continue;
            };
            *logit = if *logit > 0.0 { *logit / repeat_penalty } else { *logit * repeat_penalty };
            *logit -= count as f32 * frequency_penalty + presence_penalty;
        }
    }

    fn pick(&mut self, position: u32) -> Result<TokenId, SampleError> {
        if self.settings.temperature <= 0.0 {
            return self.best();
        }
        self.filter()?;
        filter::softmax(&self.candidates, self.settings.temperature, &mut self.probabilities);
        let draw = draw::uniform(self.seed, self.settings.choice, position);
        let mut sum = 0.0_f64;
        for (candidate, &probability) in self.candidates.iter().zip(&self.probabilities) {
            sum += f64::from(probability);
            if draw < sum {
                return Ok(candidate.id);
            }
        }
        // Rounding can leave the sum a little below 1.
        self.candidates.last().map(|candidate| candidate.id).ok_or(SampleError::NoCandidate)
    }

    fn best(&self) -> Result<TokenId, SampleError> {
        let most = filter::largest(&self.logits).ok_or(SampleError::NotANumber)?;
        let best = self.logits.iter().position(|&logit| logit >= most);
        match best {
            Some(id) if most > f32::NEG_INFINITY => Ok(id as TokenId),
            _ => Err(SampleError::NoCandidate),
        }
    }

    fn filter(&mut self) -> Result<(), SampleError> {
        let Sampling { top_k, top_p, min_p, typical_p, .. } = self.settings;
        filter::largest(&self.logits).ok_or(SampleError::NotANumber)?;
        filter::top_k(&self.logits, top_k as usize, &mut self.candidates);
        if top_k == 0 && (top_p < 1.0 || typical_p < 1.0) {
            self.candidates.sort_unstable_by(filter::better);
        }
        filter::typical(&mut self.candidates, typical_p, &mut self.probabilities);
        filter::top_p(&mut self.candidates, top_p, &mut self.probabilities);
        filter::min_p(&mut self.candidates, min_p);
        if self.candidates.is_empty() { Err(SampleError::NoCandidate) } else { Ok(()) }
    }
}

/// Moves a constraint past a token that was chosen or replayed.
pub fn advance(constraint: &mut Option<Box<dyn Constraint>>, token: TokenId) -> Result<(), ConstraintError> {
    constraint.as_mut().map_or(Ok(()), |constraint| constraint.accept(token))
}

#[cfg(test)]
mod tests;
