//! Log-probabilities of the model's own distribution, before any sampler.

use firepot_chat::{Logprob, TokenId, TokenLogprob};

use super::filter::top_k;
use crate::Tokenizer;

/// The chosen token's log-probability and those of the `rivals` most likely tokens.
pub fn log_probabilities(
    logits: &[f32],
    chosen: TokenId,
    rivals: u8,
    tokenizer: &dyn Tokenizer,
) -> TokenLogprob {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    let normalizer = f64::from(most) + sum.ln();
    let describe = |id: TokenId, logit: f32| {
        let mut bytes = Vec::new();
        tokenizer.piece(id, true, &mut bytes);
        Logprob { id, bytes, logprob: (f64::from(logit) - normalizer).min(0.0) as f32 }
    };
    let mut best = Vec::new();
    if rivals > 0 {
        top_k(logits, rivals.into(), &mut best);
    }
    let logit = usize::try_from(chosen).ok().and_then(|index| logits.get(index)).copied();
    TokenLogprob {
        chosen: describe(chosen, logit.unwrap_or(f32::NEG_INFINITY)),
        top: best.iter().map(|candidate| describe(candidate.id, candidate.logit)).collect(),
    }
}
