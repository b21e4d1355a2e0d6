//! The level of a series of samples: its median with an interval, whatever the distribution, and whether it drifts or not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::median::{quantile, sign_coverage};

/// Coverage that is aimed at.
pub const COVERAGE: f64 = 0.95;
/// Nominal coverage of the interval. It is above [`COVERAGE`] because sampling stops when the interval is narrow, which
/// favours intervals that are too narrow by chance; with it the simulated coverage is 93 to 97 % with and without stopping.
const NOMINAL: f64 = 0.965;
/// A trend counts from this many standard deviations of Kendall's S on (5 %, two-sided).
const TREND_Z: f64 = 1.96;
/// Fewest samples of which a trend can be told.
const TREND_SAMPLES: usize = 8;
/// Longer series are not examined for a trend: it takes time by the square of their length.
const TREND_MOST: usize = 1000;

/// The middle of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Level {
    /// The samples' median; of a series with a trend, its level at half time.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Coverage that is aimed at: 0.95, or what the range of fewer than 6 samples gives.
    pub coverage: f64,
    /// How many samples.
    pub samples: usize,
    /// Change from the first to the last sample by the trend, where there is one, as a share of `value`.
    pub trend: Option<f64>,
}

impl Level {
    /// Half of the interval over the value; `None` when the value is 0.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        (self.value != 0.0).then(|| (self.high - self.low) / 2.0 / self.value.abs())
    }
}

/// Level of samples in the order in which they were taken. `None` without samples or with one that is not finite.
///
/// The interval lies between order statistics, interpolated after Hettmansperger and Sheather (1986), which needs no assumption
/// about the distribution. A trend that Kendall's test finds is taken out first (Theil and Sen's slope), since it would otherwise count as spread.
#[must_use]
pub fn level(samples: &[f64]) -> Option<Level> {
    let value = quantile(samples, 0.5)?;
    let slope = trend(samples);
    let middle = (samples.len() - 1) as f64 / 2.0;
    let mut flat: Vec<f64> = samples
        .iter()
        .enumerate()
        .map(|(index, sample)| sample - slope.unwrap_or(0.0) * (index as f64 - middle))
        .collect();
    flat.sort_by(f64::total_cmp);
    let (mut low, mut high) = interpolated(&flat);
    let mut value = value;
    if slope.is_some() {
        value = quantile(&flat, 0.5)?;
        // What is left of the spread is smaller by what the slope was fitted to: two of n degrees of freedom.
        let wider = (samples.len() as f64 / (samples.len() - 2) as f64).sqrt();
        (low, high) = (value - (value - low) * wider, value + (high - value) * wider);
    }
    let whole = (samples.len() - 1) as f64;
    Some(Level {
        value,
        low,
        high,
        coverage: COVERAGE.min(sign_coverage(flat.len(), 0)),
        samples: samples.len(),
        trend: slope.map(|slope| slope * whole / value).filter(|trend| trend.is_finite()),
    })
}

/// Interval of sorted samples between two neighbouring pairs of order statistics.
fn interpolated(sorted: &[f64]) -> (f64, f64) {
    let n = sorted.len();
    let most = (n / 2).saturating_sub(1);
    let cut = (1..=most).take_while(|&cut| sign_coverage(n, cut) >= NOMINAL).last().unwrap_or(0);
    let outer = sign_coverage(n, cut);
    if outer < NOMINAL || cut >= most {
        return (sorted[cut], sorted[n - 1 - cut]);
    }
    let share = (outer - NOMINAL) / (outer - sign_coverage(n, cut + 1));
    let place = (cut + 1) as f64;
    let weight = (n as f64 - place) * share / (place + (n as f64 - 2.0 * place) * share);
    let between = |outer: f64, inner: f64| (1.0 - weight) * outer + weight * inner;
    (between(sorted[cut], sorted[cut + 1]), between(sorted[n - 1 - cut], sorted[n - 2 - cut]))
}

/// Slope for each sample, when Kendall's test finds a trend.
fn trend(samples: &[f64]) -> Option<f64> {
    let n = samples.len();
    if !(TREND_SAMPLES..=TREND_MOST).contains(&n) {
        return None;
    }
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    let mut rising = 0_i64;
    for (index, early) in samples.iter().enumerate() {
        for (distance, late) in (1_u32..).zip(&samples[index + 1..]) {
            let slope = (late - early) / f64::from(distance);
            rising += i64::from(slope > 0.0) - i64::from(slope < 0.0);
            slopes.push(slope);
        }
    }
    let count = n as f64;
    let deviation = (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
    if (rising.abs() - 1) as f64 <= TREND_Z * deviation {
        return None;
    }
    let middle = slopes.len() / 2;
    Some(*slopes.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_series_with_a_trend_has_the_level_of_its_middle() {
        let rising: Vec<f64> =
            (0..20).map(|index| 100.0 + f64::from(index) + if index % 2 == 0 { 0.2 } else { -0.2 }).collect();
        let level = level(&rising).unwrap();
        assert!((level.value - 109.5).abs() < 0.3, "{level:?}");
        assert!(level.high - level.low < 1.0, "{level:?}");
        assert!((level.trend.unwrap() - 19.0 / 109.5).abs() < 0.01, "{level:?}");
    }

    #[test]
    fn few_samples_say_how_little_they_cover() {
        let level = level(&[2.0, 1.0, 3.0]).unwrap();
        assert_eq!((level.value, level.low, level.high, level.coverage), (2.0, 1.0, 3.0, 0.75));
        assert_eq!(super::level(&[]), None);
        assert_eq!(super::level(&[1.0, f64::NAN]), None);
    }

    proptest! {
        #[test]
        fn the_level_lies_in_its_interval(samples in proptest::collection::vec(1e-3..1e6_f64, 1..80)) {
            let level = level(&samples).unwrap();
            prop_assert!(level.low <= level.value && level.value <= level.high, "{:?}", level);
        }
    }
}
