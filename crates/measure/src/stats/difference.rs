//! Whether two sets of samples differ, and by how much: as ratios, since rates and times vary in proportion.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{median::quantile, proportion::Z, random::Random};

/// Rearrangements that a permutation test draws.
const PERMUTATIONS: u32 = 4999;
/// Most samples of a side that are compared; the rest is left out evenly.
const MOST: usize = 1000;

/// The first over the second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Ratio, first over second (Hodges and Lehmann's estimate).
    pub ratio: f64,
    /// Lower end of its interval (95 %).
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Probability of a difference at least as large if there were none, by a permutation test of ranks.
    pub p_value: f64,
    /// Samples of the first; of pairs, their number.
    pub first_samples: usize,
    /// Samples of the second.
    pub second_samples: usize,
}

/// Compares two independent sets. `None` unless both have samples, all positive and finite.
#[must_use]
pub fn difference(first: &[f64], second: &[f64], seed: u64) -> Option<Difference> {
    let (first, second) = (logs(first)?, logs(second)?);
    let (m, n) = (first.len(), second.len());
    let mut distances: Vec<f64> = first.iter().flat_map(|a| second.iter().map(move |b| a - b)).collect();
    distances.sort_by(f64::total_cmp);
    let (mf, nf) = (m as f64, n as f64);
    let cut = cut(mf * nf / 2.0, (mf * nf * (mf + nf + 1.0) / 12.0).sqrt());
    let together: Vec<f64> = first.iter().chain(&second).copied().collect();
    let mut ranks = ranks(&together);
    let expected = mf * (mf + nf + 1.0) / 2.0;
    let off = |ranks: &[f64]| (ranks[..m].iter().sum::<f64>() - expected).abs();
    let observed = off(&ranks);
    let mut random = Random::new(seed);
    let p_value = permuted(observed, || {
        random.shuffle(&mut ranks);
        off(&ranks)
    });
    between(&distances, cut, p_value, m, n)
}

/// Compares pairs that were taken close to each other, so that a drift of the machine is in both. `None` unless there are
/// pairs, all positive and finite.
#[must_use]
pub fn paired_difference(pairs: &[(f64, f64)], seed: u64) -> Option<Difference> {
    let ratios: Vec<f64> = pairs.iter().map(|(first, second)| first / second).collect();
    let distances = logs(&ratios)?;
    let n = distances.len();
    let mut walsh = Vec::with_capacity(n * (n + 1) / 2);
    for (index, a) in distances.iter().enumerate() {
        walsh.extend(distances[index..].iter().map(|b| f64::midpoint(*a, *b)));
    }
    walsh.sort_by(f64::total_cmp);
    let nf = n as f64;
    let cut = cut(nf * (nf + 1.0) / 4.0, (nf * (nf + 1.0) * (2.0 * nf + 1.0) / 24.0).sqrt());
    let sizes: Vec<f64> = distances.iter().map(|distance| distance.abs()).collect();
    let ranks = ranks(&sizes);
    let signed = |positive: &mut dyn FnMut(usize) -> bool| {
        ranks.iter().enumerate().map(|(i, rank)| if positive(i) { *rank } else { -rank }).sum::<f64>().abs()
    };
    let observed = signed(&mut |index| distances[index] > 0.0);
    let mut random = Random::new(seed);
    let p_value = permuted(observed, || signed(&mut |_| random.next_u64() & 1 == 0));
    between(&walsh, cut, p_value, n, n)
}

fn between(sorted: &[f64], cut: usize, p_value: f64, first: usize, second: usize) -> Option<Difference> {
    let cut = cut.min((sorted.len() - 1) / 2);
    Some(Difference {
        ratio: quantile(sorted, 0.5)?.exp(),
        low: sorted[cut].exp(),
        high: sorted[sorted.len() - 1 - cut].exp(),
        p_value,
        first_samples: first,
        second_samples: second,
    })
}

/// Order statistics that are cut at each end, from mean and deviation of the rank statistic.
fn cut(mean: f64, deviation: f64) -> usize {
    (mean - 0.5 - Z * deviation).floor().max(0.0) as usize
}

fn permuted(observed: f64, mut draw: impl FnMut() -> f64) -> f64 {
    // A rank statistic is a multiple of one half; the tolerance is for its sum's rounding.
    let at_least = (0..PERMUTATIONS).filter(|_| draw() >= observed - 1e-6).count();
    (at_least + 1) as f64 / f64::from(PERMUTATIONS + 1)
}

/// Ranks from 1; equal values share their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut begin = 0;
    while begin < order.len() {
        let value = values[order[begin]];
        let end = begin
            + order[begin..].iter().take_while(|&&index| values[index].total_cmp(&value).is_eq()).count();
        let rank = (begin + end + 1) as f64 / 2.0;
        order[begin..end].iter().for_each(|&index| ranks[index] = rank);
        begin = end;
    }
    ranks
}

fn logs(samples: &[f64]) -> Option<Vec<f64>> {
    let step = samples.len().div_ceil(MOST).max(1);
    let usable = !samples.is_empty() && samples.iter().all(|sample| *sample > 0.0 && sample.is_finite());
    usable.then(|| samples.iter().step_by(step).map(|sample| sample.ln()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, level: f64, count: usize) -> Vec<f64> {
        let mut random = Random::new(seed);
        (0..count).map(|_| level * (0.03 * random.normal()).exp()).collect()
    }

    #[test]
    fn a_difference_of_five_percent_is_found_and_none_is_not() {
        let found = difference(&noise(1, 95.0, 20), &noise(2, 100.0, 20), 1).unwrap();
        assert!(
            found.p_value < 0.01 && found.low < 0.95 && found.high > 0.95 && found.high < 1.0,
            "{found:?}"
        );
        let none = difference(&noise(3, 100.0, 20), &noise(4, 100.0, 20), 1).unwrap();
        assert!(none.p_value > 0.05 && none.low < 1.0 && none.high > 1.0, "{none:?}");
    }

    #[test]
    fn pairs_cancel_a_drift() {
        let pairs: Vec<(f64, f64)> = noise(5, 100.0, 12)
            .into_iter()
            .zip(noise(6, 100.0, 12))
            .enumerate()
            .map(|(index, (a, b))| {
                let drift = 1.0 + 0.05 * index as f64;
                (0.93 * a * drift, b * drift)
            })
            .collect();
        let found = paired_difference(&pairs, 1).unwrap();
        assert!(found.p_value < 0.05 && (found.ratio - 0.93).abs() < 0.03, "{found:?}");
    }

    #[test]
    fn what_cannot_be_compared_is_not() {
        assert_eq!(difference(&[], &[1.0], 1), None);
        assert_eq!(difference(&[0.0], &[1.0], 1), None);
        assert_eq!(paired_difference(&[(1.0, f64::INFINITY)], 1), None);
        let one = difference(&[2.0], &[1.0], 1).unwrap();
        assert!((one.ratio - 2.0).abs() < 1e-9 && one.p_value > 0.5, "{one:?}");
    }

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }
}
