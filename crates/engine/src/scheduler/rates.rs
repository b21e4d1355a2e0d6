//! How long decode calls take here, learnt from those that were made.

use std::time::Duration;

use crate::limits::ATTENTION_TILE;

/// Weight of the newest measurement.
const WEIGHT: f64 = 0.3;

/// Taken for a prompt token before anything was measured: careful on a slow machine, soon corrected on a fast one.
const PREFILL_TOKEN_GUESS: Duration = Duration::from_millis(5);

/// Taken for a token of a batch that fills a tile when only smaller batches were measured, as a share of theirs.
const TILE_SHARE_GUESS: f64 = 0.85;

/// What is left of the mean for tiles after each batch that was made smaller, so that a tile is tried again.
const FORGET: f64 = 0.99;

/// Exponentially weighted means, in seconds.
#[derive(Debug, Default)]
pub struct Rates {
    /// For a prompt token in a batch of fewer rows than a tile.
    below_tile: Option<f64>,
    /// For a prompt token in a larger batch.
    tile: Option<f64>,
    /// A call that emits one token for each running answer and prefills nothing.
    decode_step: Option<f64>,
}

impl Rates {
    /// Learns from a call.
    pub fn record(&mut self, decoding: u32, prefill: u32, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if prefill == 0 {
            self.decode_step = Some(blend(self.decode_step, seconds));
            return;
        }
        let step = self.step(decoding);
        let token = (seconds - step).max(seconds * 0.1) / f64::from(prefill);
        if decoding + prefill >= ATTENTION_TILE {
            self.tile = Some(blend(self.tile, token));
        } else {
            self.below_tile = Some(blend(self.below_tile, token));
            self.tile = self.tile.map(|tile| tile * FORGET);
        }
    }

    /// Prompt tokens that fit a time beside this many running answers.
    pub fn prefill_tokens_in(&self, time: Duration, decoding: u32) -> u32 {
        let left = (time.as_secs_f64() - self.step(decoding)).max(0.0);
        let fit = |token: f64| (left / token.max(1e-9)).min(f64::from(u32::MAX)) as u32;
        let tiled = fit(self.prefill_token(ATTENTION_TILE));
        let below = ATTENTION_TILE.saturating_sub(decoding);
        if tiled >= below { tiled } else { fit(self.prefill_token(0)).min(below.saturating_sub(1)) }
    }

    /// Expected time of a call.
    pub fn expected(&self, decoding: u32, prefill: u32) -> Duration {
        let tokens = f64::from(prefill) * self.prefill_token(decoding + prefill);
        Duration::from_secs_f64(self.step(decoding) + tokens)
    }

    fn step(&self, decoding: u32) -> f64 {
        if decoding > 0 { self.decode_step.unwrap_or(0.0) } else { 0.0 }
    }

    fn prefill_token(&self, rows: u32) -> f64 {
        let guess = PREFILL_TOKEN_GUESS.as_secs_f64();
        if rows >= ATTENTION_TILE {
            self.tile.or_else(|| self.below_tile.map(|token| token * TILE_SHARE_GUESS)).unwrap_or(guess)
        } else {
            self.below_tile.or(self.tile).unwrap_or(guess)
        }
    }
}

fn blend(old: Option<f64>, new: f64) -> f64 {
    old.map_or(new, |old| old + WEIGHT * (new - old))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(150);

    #[test]
    fn the_first_measurement_replaces_the_guess_and_later_ones_blend_in() {
        let mut rates = Rates::default();
        assert_eq!(rates.prefill_tokens_in(TICK, 0), 30);
        rates.record(0, 100, Duration::from_millis(100));
        assert_eq!(rates.prefill_tokens_in(TICK, 0), 150);
        rates.record(2, 0, Duration::from_millis(20));
        assert_eq!(rates.expected(2, 100), Duration::from_millis(120));
        rates.record(2, 100, Duration::from_millis(220));
        assert!(rates.prefill_tokens_in(TICK, 2) < 130);
    }

    #[test]
    fn batches_below_a_tile_have_a_rate_of_their_own_and_a_slow_tile_is_tried_again() {
        let mut rates = Rates::default();
        rates.record(1, 40, Duration::from_millis(200));
        rates.record(1, 63, Duration::from_millis(630));
        assert_eq!(rates.expected(1, 40), Duration::from_millis(200));
        assert_eq!(rates.expected(1, 63), Duration::from_millis(630));
        for _ in 0..70 {
            rates.record(1, 40, Duration::from_millis(200));
        }
        assert!(rates.expected(1, 63) < Duration::from_millis(320));
    }
}
