//! How long decode calls take here, learnt from those that were made.

use std::time::Duration;

/// Weight of the newest measurement.
const WEIGHT: f64 = 0.3;

/// Taken for a prompt token before anything was measured: careful on a slow machine, soon corrected on a fast one.
const PREFILL_TOKEN_GUESS: Duration = Duration::from_millis(5);

/// Exponentially weighted means, in seconds.
#[derive(Debug)]
pub struct Rates {
    prefill_token: f64,
    /// A call that emits one token for each running answer and prefills nothing.
    decode_step: f64,
    measured: bool,
}

impl Default for Rates {
    fn default() -> Self {
        Self { prefill_token: PREFILL_TOKEN_GUESS.as_secs_f64(), decode_step: 0.0, measured: false }
    }
}

impl Rates {
    /// Learns from a call.
    pub fn record(&mut self, decoding: u32, prefill: u32, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if prefill == 0 {
            let first = self.decode_step == 0.0;
            self.decode_step = if first { seconds } else { blend(self.decode_step, seconds) };
            return;
        }
        let step = if decoding > 0 { self.decode_step } else { 0.0 };
        let token = (seconds - step).max(seconds * 0.1) / f64::from(prefill);
        self.prefill_token = if self.measured { blend(self.prefill_token, token) } else { token };
        self.measured = true;
    }

    /// Prompt tokens that fit a time.
    pub fn prefill_tokens_in(&self, time: Duration) -> u32 {
        (time.as_secs_f64() / self.prefill_token.max(1e-9)).min(f64::from(u32::MAX)) as u32
    }

    /// Expected time of a call without prefill.
    pub fn decode_step(&self) -> Duration {
        Duration::from_secs_f64(self.decode_step)
    }

    /// Expected time of a call.
    pub fn expected(&self, decoding: u32, prefill: u32) -> Duration {
        let step = if decoding > 0 { self.decode_step } else { 0.0 };
        Duration::from_secs_f64(step + self.prefill_token * f64::from(prefill))
    }
}

fn blend(old: f64, new: f64) -> f64 {
    old + WEIGHT * (new - old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_measurement_replaces_the_guess_and_later_ones_blend_in() {
        let mut rates = Rates::default();
        assert_eq!(rates.prefill_tokens_in(Duration::from_millis(150)), 30);
        rates.record(0, 100, Duration::from_millis(100));
        assert_eq!(rates.prefill_tokens_in(Duration::from_millis(150)), 150);
        rates.record(2, 0, Duration::from_millis(20));
        assert_eq!(rates.expected(2, 10), Duration::from_millis(30));
        rates.record(2, 100, Duration::from_millis(220));
        assert!(rates.prefill_tokens_in(Duration::from_millis(150)) < 150);
    }
}
