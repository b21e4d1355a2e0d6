//! How often something is so, of few trials.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// 97.5 % of a standard normal distribution.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// A share with Wilson's interval (95 %), which holds for few trials and for shares of 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proportion {
    /// How often it was so.
    pub hits: u32,
    /// Of how many.
    pub of: u32,
    /// Share in percent.
    pub percent: f64,
    /// Lower end, in percent.
    pub low: f64,
    /// Upper end, in percent.
    pub high: f64,
}

/// Share of `hits` among `of`; `None` of nothing.
#[must_use]
pub fn wilson(hits: u32, of: u32) -> Option<Proportion> {
    if of == 0 || hits > of {
        return None;
    }
    let (n, share) = (f64::from(of), f64::from(hits) / f64::from(of));
    let scale = 1.0 + Z * Z / n;
    let middle = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let percent = |share: f64| 100.0 * share.clamp(0.0, 1.0);
    // At the ends the bound is the end itself, which rounding would miss.
    let low = if hits == 0 { 0.0 } else { percent(middle - half) };
    let high = if hits == of { 100.0 } else { percent(middle + half) };
    Some(Proportion { hits, of, percent: 100.0 * share, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_published_one() {
        // Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (hits, of, low, high) in
            [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)]
        {
            let found = wilson(hits, of).unwrap();
            assert!((found.low - low).abs() < 0.01 && (found.high - high).abs() < 0.01, "{found:?}");
        }
        assert_eq!(wilson(0, 0), None);
        assert!((wilson(20, 20).unwrap().high - 100.0).abs() < f64::EPSILON);
    }
}
