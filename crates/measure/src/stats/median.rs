//! Medians with intervals that hold without assuming a distribution.

use serde::Serialize;

/// Least coverage of an interval.
const COVERAGE: f64 = 0.95;

/// A median's interval between two order statistics.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Probability that such an interval holds the true median: 0.95 or more where there are samples enough (6), else
    /// what the whole range gives.
    pub coverage: f64,
}

/// A median, its interval, and how many samples they are from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The samples' median.
    pub median: f64,
    /// Where the true median lies.
    pub interval: Interval,
    /// How many samples.
    pub samples: usize,
}

/// The `q`-quantile (0 to 1) by linear interpolation; `None` without samples or with one that is not finite.
#[must_use]
pub fn quantile(samples: &[f64], q: f64) -> Option<f64> {
    let sorted = sorted(samples)?;
    let place = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// The median and its interval from order statistics: of `n` samples, fewer than `k` lie below the true median with the
/// probability of fewer than `k` heads in `n` tosses. `None` without samples or with one that is not finite.
#[must_use]
pub fn median_interval(samples: &[f64]) -> Option<Summary> {
    let sorted = sorted(samples)?;
    let n = sorted.len();
    let widest = (0, sign_coverage(n, 0));
    let narrower = (1..n.div_ceil(2)).map(|cut| (cut, sign_coverage(n, cut)));
    let (cut, coverage) = narrower.take_while(|(_, coverage)| *coverage >= COVERAGE).last().unwrap_or(widest);
    let interval = Interval { low: sorted[cut], high: sorted[n - 1 - cut], coverage };
    Some(Summary { median: quantile(&sorted, 0.5)?, interval, samples: n })
}

/// Median and interval of the pairs' ratios, first over second.
#[must_use]
pub fn paired_ratios(pairs: &[(f64, f64)]) -> Option<Summary> {
    let ratios: Vec<f64> = pairs.iter().map(|(ours, peer)| ours / peer).collect();
    median_interval(&ratios)
}

/// Probability that the true median lies between the sample with `cut` samples below it and the one with `cut` above.
pub(super) fn sign_coverage(n: usize, cut: usize) -> f64 {
    let mut ways = 1.0;
    let mut tail = 0.0;
    for heads in 0..=cut {
        tail += ways;
        ways *= (n - heads) as f64 / (heads + 1) as f64;
    }
    (1.0 - 2.0 * tail * 0.5_f64.powi(n as i32)).max(0.0)
}

fn sorted(samples: &[f64]) -> Option<Vec<f64>> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty() && sorted.iter().all(|sample| sample.is_finite())).then_some(sorted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        let of = |n: u32| {
            let samples: Vec<f64> = (1..=n).map(f64::from).collect();
            let Summary { median, interval, .. } = median_interval(&samples).unwrap();
            (median, interval.low, interval.high, (interval.coverage * 1e4).round() / 1e4)
        };
        // Coverages from tables of the binomial distribution.
        assert_eq!(of(1), (1.0, 1.0, 1.0, 0.0));
        assert_eq!(of(5), (3.0, 1.0, 5.0, 0.9375));
        assert_eq!(of(7), (4.0, 1.0, 7.0, 0.9844));
        assert_eq!(of(10), (5.5, 2.0, 9.0, 0.9785));
        assert_eq!(of(20), (10.5, 6.0, 15.0, 0.9586));
    }

    #[test]
    fn without_usable_samples_there_is_nothing() {
        assert_eq!(median_interval(&[]), None);
        assert_eq!(median_interval(&[1.0, f64::NAN]), None);
        assert_eq!(quantile(&[f64::INFINITY], 0.5), None);
        assert_eq!(paired_ratios(&[(1.0, 0.0)]), None);
    }

    proptest! {
        #[test]
        fn the_median_lies_in_its_interval_and_the_interval_in_the_samples(
            samples in proptest::collection::vec(-1e6..1e6_f64, 1..60),
        ) {
            let Summary { median, interval, .. } = median_interval(&samples).unwrap();
            prop_assert!(interval.low <= median && median <= interval.high);
            prop_assert!(samples.contains(&interval.low) && samples.contains(&interval.high));
            prop_assert!(samples.len() < 6 || interval.coverage >= COVERAGE);
        }
    }
}
