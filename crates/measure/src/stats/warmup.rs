//! Where a series becomes steady: found, not assumed.

use super::median::quantile;

/// How far the beginning must lie from the rest, in robust deviations of a mean of so many samples.
const FAR: f64 = 4.0;
/// A median absolute deviation times this is a normal distribution's deviation.
const MAD: f64 = 1.4826;
/// Fewest samples that must remain to compare with.
const REST: usize = 5;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmup {
    /// After so many samples it is steady.
    Steady {
        /// Samples before.
        after: usize,
    },
    /// It changes so late that no steady part can be told.
    NotSteady,
}

/// Looks where samples, in order, become steady.
///
/// Candidates are the cuts in the first half; the one is taken that makes the standard error of what remains smallest (MSER, White
/// 1997). It counts only when what it cuts lies far from what remains, so that a steady series loses nothing by chance.
#[must_use]
pub fn warmup(samples: &[f64]) -> Warmup {
    let most = (samples.len() / 2).min(samples.len().saturating_sub(REST));
    let error = |cut: usize| {
        let rest = &samples[cut..];
        let count = rest.len() as f64;
        let mean = rest.iter().sum::<f64>() / count;
        rest.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / (count * count)
    };
    let best = (0..=most).min_by(|&a, &b| error(a).total_cmp(&error(b))).unwrap_or(0);
    let rest = &samples[best..];
    // The cut is often later than it must be: what lies before it and is like the rest stays.
    let after = (0..best).find(|&cut| !is_far(&samples[cut..best], rest)).unwrap_or(best);
    if after > 0 && after == most && samples.len() >= 2 * REST {
        return Warmup::NotSteady;
    }
    Warmup::Steady { after }
}

fn is_far(head: &[f64], rest: &[f64]) -> bool {
    let Some(middle) = quantile(rest, 0.5) else { return false };
    let count = head.len() as f64;
    let mean = head.iter().sum::<f64>() / count;
    let deviations: Vec<f64> = rest.iter().map(|sample| (sample - middle).abs()).collect();
    let deviation = quantile(&deviations, 0.5).unwrap_or(0.0) * MAD;
    (mean - middle).abs() > FAR * deviation / count.sqrt()
}

#[cfg(test)]
mod tests {
    use super::{super::random::Random, *};

    fn noise(seed: u64, count: usize) -> Vec<f64> {
        let mut random = Random::new(seed);
        (0..count).map(|_| 100.0 + 2.0 * random.normal()).collect()
    }

    #[test]
    fn slow_first_samples_are_found() {
        let mut exact = 0;
        for seed in 0..50 {
            let mut samples = noise(seed, 20);
            samples[0] += 60.0;
            samples[1] += 30.0;
            samples[2] += 15.0;
            // A few more than must be may go with them, never fewer than the two that are far off.
            let Warmup::Steady { after: after @ 2..=9 } = warmup(&samples) else {
                panic!("{seed}: {samples:?}")
            };
            exact += u32::from(after == 3);
        }
        assert!(exact >= 35, "{exact} of 50 were cut where the slow ones end");
    }

    #[test]
    fn a_steady_series_keeps_its_samples() {
        let cut = (0..500).filter(|&seed| warmup(&noise(seed, 20)) != Warmup::Steady { after: 0 }).count();
        assert!(cut <= 25, "{cut} of 500 were cut");
    }

    #[test]
    fn a_series_that_changes_in_its_middle_is_not_steady() {
        let mut samples = noise(1, 20);
        samples[..10].iter_mut().for_each(|sample| *sample += 40.0);
        assert_eq!(warmup(&samples), Warmup::NotSteady);
        assert_eq!(warmup(&[]), Warmup::Steady { after: 0 });
    }
}
