//! The draw: a function of (seed, choice, position) alone.
//!
//! A counter-based generator has no state, so a continued generation draws what the undisturbed one would have
//! drawn, and nothing has to be saved.

/// A number in `[0, 1)` with 53 random bits.
///
/// Two rounds of `SplitMix64`'s finalizer (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014) over the three counters.
pub fn uniform(seed: u64, choice: u32, position: u32) -> f64 {
    let counter = (u64::from(choice) << 32) | u64::from(position);
    let bits = mix(mix(seed).wrapping_add(counter.wrapping_mul(GOLDEN)).wrapping_add(GOLDEN));
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_draw_repeats_and_each_argument_changes_it() {
        let draw = uniform(7, 0, 3);
        assert_eq!(draw.to_bits(), uniform(7, 0, 3).to_bits());
        for other in [uniform(8, 0, 3), uniform(7, 1, 3), uniform(7, 0, 4)] {
            assert_ne!(draw.to_bits(), other.to_bits());
        }
    }

    #[test]
    fn draws_fill_the_interval_evenly() {
        let mut counts = [0_u32; 10];
        for position in 0..10_000 {
            counts[(uniform(1, 0, position) * 10.0) as usize] += 1;
        }
        // Chi-squared with 9 degrees of freedom; 27.9 is its 99.9 % quantile.
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 27.9, "{counts:?}");
    }
}
