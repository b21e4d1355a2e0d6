//! Whether another number of threads than the usual one is faster.

use std::time::{Duration, Instant};

use firepot_gguf::TensorType;

use crate::{
    CalibrateError, Threads,
    model::Sizes,
    timed::{Probe, Scale, Switches, layers, median},
};

/// Pairs of times, usual and other, that must all be in favour of the other.
const PAIRS: usize = 5;
/// And by so much, by their median: a part of a shared machine's noise is the same for all pairs.
const CLEARLY: f64 = 1.05;
/// No pair is begun after so long. What is undecided then stays as usual.
const TIME: Duration = Duration::from_millis(900);
/// Tokens and prompts of one time.
const TOKENS: u32 = 8;
const PROMPT: u32 = 32;

/// The fastest of the usual number and `others`, for tokens and for prompts. Each time is taken with a load of its own: threads of
/// another one would wait in a loop beside it.
pub fn fastest(
    probe: &mut Probe<'_, '_>,
    others: &[u32],
    kind: TensorType,
) -> Result<Threads, CalibrateError> {
    let usual = probe.threads;
    let others: Vec<u32> = others.iter().copied().filter(|&other| other != usual.decode).collect();
    if others.is_empty() {
        return Ok(usual);
    }
    let file = probe.write(Sizes::wide(layers(Sizes::wide(1), kind, Scale::CPU.wide_bytes)), kind)?;
    let mut time = |threads: u32| {
        probe.loaded(file.path(), Threads::both(threads), Switches { flash: false, repack: false }, |timed| {
            timed.prompt(0, 8)?;
            let token_s = median(&timed.tokens(TOKENS)?);
            timed.cut(0);
            Ok((token_s, timed.prompt(0, PROMPT)?))
        })
    };
    let started = Instant::now();
    let (mut decode, mut prefill) = (Best::of(usual.decode), Best::of(usual.prefill));
    for other in others {
        let (mut tokens, mut prompts) = (Pairs::default(), Pairs::default());
        for pair in 0..PAIRS {
            if started.elapsed() > TIME || (tokens.lost() && prompts.lost()) {
                break;
            }
            // Which comes first changes, so that what grows or fades favours neither.
            let (here, there) = if pair % 2 == 0 {
                let here = time(usual.decode)?;
                (here, time(other)?)
            } else {
                let there = time(other)?;
                (time(usual.decode)?, there)
            };
            tokens.add(here.0, there.0);
            prompts.add(here.1, there.1);
        }
        decode.compare(other, &tokens);
        prefill.compare(other, &prompts);
    }
    Ok(Threads { decode: decode.threads, prefill: prefill.threads })
}

/// How many times faster another number was, pair by pair.
#[derive(Debug, Default)]
struct Pairs(Vec<f64>);

impl Pairs {
    fn add(&mut self, usual_s: f64, other_s: f64) {
        self.0.push(usual_s / other_s);
    }

    fn lost(&self) -> bool {
        self.0.iter().any(|&gain| gain.is_nan() || gain <= 1.0)
    }

    /// The median, where it is clear.
    fn clear_gain(&self) -> Option<f64> {
        let gain = median(&self.0);
        (self.0.len() >= PAIRS && !self.lost() && gain >= CLEARLY).then_some(gain)
    }
}

struct Best {
    threads: u32,
    gain: f64,
}

impl Best {
    const fn of(usual: u32) -> Self {
        Self { threads: usual, gain: 1.0 }
    }

    fn compare(&mut self, other: u32, pairs: &Pairs) {
        if let Some(gain) = pairs.clear_gain().filter(|&gain| gain > self.gain) {
            *self = Self { threads: other, gain };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gain(pairs: &[(f64, f64)]) -> Option<f64> {
        let mut found = Pairs::default();
        for &(usual, other) in pairs {
            found.add(usual, other);
        }
        found.clear_gain()
    }

    #[test]
    fn another_number_is_taken_when_it_is_clearly_faster_and_not_by_noise() {
        assert!(gain(&[(1.1, 1.0); 5]).is_some());
        // Too few, not by enough, or against it once.
        assert_eq!(gain(&[(1.1, 1.0); 4]), None);
        assert_eq!(gain(&[(1.04, 1.0); 5]), None);
        assert_eq!(gain(&[(1.3, 1.0), (1.3, 1.0), (0.99, 1.0), (1.3, 1.0), (1.3, 1.0)]), None);
        // One stolen moment of the usual number is not enough.
        assert_eq!(gain(&[(9.0, 1.0), (1.01, 1.0), (1.02, 1.0), (1.01, 1.0), (1.02, 1.0)]), None);
        assert_eq!(gain(&[(f64::NAN, 1.0); 5]), None);
    }

    #[test]
    fn the_fastest_of_several_clear_ones_is_taken() {
        let pairs = |gain| Pairs(vec![gain; PAIRS]);
        let mut best = Best::of(8);
        best.compare(16, &pairs(1.06));
        best.compare(4, &pairs(1.2));
        best.compare(2, &pairs(1.1));
        assert_eq!(best.threads, 4);
    }
}
