//! When there are samples enough.

use super::level::{Level, level};

/// Whether to take a further sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Go on.
    More,
    /// The interval is narrow enough.
    Enough(Level),
    /// There are as many samples as may be, and the interval is wider than was wanted.
    Cap(Level),
}

/// Looks at the samples of a case so far, in order: enough when half of the interval is at most `precision` of the level.
///
/// It looks at `min` samples and each time there are √2 times as many: the more often one looks, the more often an interval is
/// narrow by chance.
#[must_use]
pub fn decide(samples: &[f64], precision: f64, min: usize, max: usize) -> Decision {
    let at_cap = samples.len() >= max.max(1);
    if !at_cap && !is_look(samples.len(), min.max(1)) {
        return Decision::More;
    }
    match level(samples) {
        Some(level) if level.precision().is_some_and(|reached| reached <= precision) => {
            Decision::Enough(level)
        }
        Some(level) if at_cap => Decision::Cap(level),
        _ => Decision::More,
    }
}

fn is_look(count: usize, min: usize) -> bool {
    let mut look = min as f64;
    while look.round() < count as f64 {
        look *= std::f64::consts::SQRT_2;
    }
    look.round() as usize == count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_ever_more_rarely() {
        let looks: Vec<usize> = (1..=40).filter(|&count| is_look(count, 10)).collect();
        assert_eq!(looks, [10, 14, 20, 28, 40]);
    }

    #[test]
    fn a_steady_series_stops_at_once_and_a_wild_one_at_the_cap() {
        let steady: Vec<f64> = (0..10).map(|index| 100.0 + 0.1 * f64::from(index % 3)).collect();
        assert!(matches!(decide(&steady, 0.02, 10, 40), Decision::Enough(_)));
        assert_eq!(decide(&steady[..9], 0.02, 10, 40), Decision::More);
        let wild: Vec<f64> = (0..40).map(|index| 100.0 + 50.0 * f64::from(index % 2)).collect();
        assert_eq!(decide(&wild[..10], 0.02, 10, 40), Decision::More);
        assert!(matches!(decide(&wild, 0.02, 10, 40), Decision::Cap(_)));
    }
}
