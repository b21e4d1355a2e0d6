//! When a scripted answer's tokens come, and what they are.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use super::{Manner, Script};

/// When each token of an answer is written, counted from the request, for a prompt and a limit of tokens.
#[must_use]
pub fn schedule(script: &Script, prompt: &str, max_tokens: usize) -> Vec<Duration> {
    let endless = matches!(script.manner, Manner::NeverEnds | Manner::OnlyThinks);
    let count = match script.ends_after {
        _ if endless => max_tokens + 100_000,
        Some(end) => end.min(max_tokens),
        None => max_tokens,
    };
    let words = u32::try_from(prompt.split_whitespace().count()).unwrap_or(u32::MAX);
    let mut at = script.ttft + script.per_word.saturating_mul(words);
    let mut rng = fastrand::Rng::with_seed(seed(prompt));
    let gap = script.gap.mul_f64(script.slowdown.max(0.0));
    (0..count)
        .map(|index| {
            if index > 0 {
                at += gap.mul_f64((1.0 + script.jitter * (2.0 * rng.f64() - 1.0)).max(0.0));
            }
            at
        })
        .collect()
}

/// The token at a place of an answer.
pub(super) fn token(prompt: &str, index: usize) -> (u32, String) {
    const WORDS: [&str; 8] = ["river ", "stone ", "light ", "garden ", "winter ", "paper ", "road ", "hill "];
    let mut hasher = DefaultHasher::new();
    (seed(prompt), index).hash(&mut hasher);
    let id = (hasher.finish() % 1000) as u32;
    (id, WORDS[id as usize % WORDS.len()].to_owned())
}

fn seed(prompt: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    prompt.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_prompt_has_the_same_schedule_and_a_slowdown_stretches_it() {
        let script = Script { jitter: 0.2, ..Script::default() };
        let first = schedule(&script, "a b", 50);
        assert_eq!(first, schedule(&script, "a b", 50));
        assert_ne!(first, schedule(&script, "a c", 50));
        let slow = schedule(&Script { slowdown: 1.05, ..script.clone() }, "a b", 50);
        let span = |times: &[Duration]| times[49].as_secs_f64() - times[0].as_secs_f64();
        assert!((span(&slow) / span(&first) - 1.05).abs() < 1e-6);
        assert_eq!(schedule(&Script { ends_after: Some(0), ..script }, "a", 9), []);
    }
}
