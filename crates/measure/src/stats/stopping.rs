//! When there are samples enough.

use super::{
    level::{COVERAGE, Level, level},
    warmup::{Warmup, warmup},
};

/// Looks, sample after sample, whether the intervals of a case are narrow enough.
///
/// All series of a case are looked at together and behind one cut, that of the warm-up. It looks when `min` samples are behind the cut, and each time
/// there are twice as many: the more often one looks, the more often an interval is narrow by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopping {
    /// Most samples that were behind the cut so far.
    most: usize,
    /// What the last look said.
    precise: bool,
}

/// A series that is to have an interval as narrow as this.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Samples, in order.
    pub samples: &'a [f64],
    /// Half of the interval over the level, at most.
    pub precision: f64,
}

impl Stopping {
    /// After a further sample: whether the intervals were narrow enough at the last look. `lead` is the series that tells the warm-up;
    /// `is_last`: no further sample may be taken, so that it looks whatever the count is.
    pub fn look(&mut self, lead: &[f64], wanted: &[Wanted<'_>], min: usize, is_last: bool) -> bool {
        let Warmup::Steady { after } = warmup(lead) else {
            self.precise = false;
            return false;
        };
        let kept = lead.len() - after;
        if is_last || kept >= look_after(self.most, min.max(1)) {
            let is_narrow = |wanted: &Wanted<'_>| {
                // The range of very few samples holds the truth too rarely, however narrow it is; and a series that still drifts has not found its level.
                let level = wanted.samples.get(after..).and_then(level);
                let level = level.filter(|level| level.coverage >= COVERAGE && level.trend.is_none());
                level.as_ref().and_then(Level::precision).is_some_and(|reached| reached <= wanted.precision)
            };
            self.precise = !wanted.is_empty() && wanted.iter().all(is_narrow);
        }
        self.most = self.most.max(kept);
        self.precise
    }

    /// What the last look said.
    #[must_use]
    pub const fn is_precise(&self) -> bool {
        self.precise
    }
}

/// The first count above `most` at which it looks.
fn look_after(most: usize, min: usize) -> usize {
    let mut look = min;
    while look <= most {
        look *= 2;
    }
    look
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which counts it would stop, of series that are given whole.
    fn stops(series: &[(&[f64], f64)], min: usize) -> Option<usize> {
        let mut stopping = Stopping::default();
        (1..=series[0].0.len()).find(|&count| {
            let wanted: Vec<_> = series
                .iter()
                .map(|(samples, precision)| Wanted { samples: &samples[..count], precision: *precision })
                .collect();
            stopping.look(&series[0].0[..count], &wanted, min, false)
        })
    }

    #[test]
    fn it_looks_ever_more_rarely() {
        let looks = [0, 9, 10, 19, 20, 39, 40].map(|most| look_after(most, 10));
        assert_eq!(looks, [10, 10, 20, 20, 40, 40, 80]);
    }

    #[test]
    fn a_steady_series_stops_at_once_and_a_wild_one_never() {
        let steady: Vec<f64> = (0..40).map(|index| 100.0 + 0.1 * f64::from(index % 3)).collect();
        assert_eq!(stops(&[(&steady, 0.02)], 10), Some(10));
        let wild: Vec<f64> = (0..40).map(|index| 100.0 + 50.0 * f64::from(index % 2)).collect();
        assert_eq!(stops(&[(&wild, 0.02)], 10), None);
        assert!(!Stopping::default().look(&[], &[], 1, true));
        assert_eq!(
            stops(&[(&steady, 0.02)], 3),
            Some(6),
            "the range of fewer samples is no interval of 95 %"
        );
    }

    /// Two slow first samples move the looks, of both series alike: each with a cut of its own would rarely be looked at together.
    #[test]
    fn two_series_are_looked_at_together_behind_one_cut() {
        let mut decode: Vec<f64> = (0..40).map(|index| 100.0 + 0.1 * f64::from(index % 3)).collect();
        let ttft: Vec<f64> = (0..40).map(|index| 50.0 + 0.1 * f64::from(index % 5)).collect();
        decode[0] = 60.0;
        decode[1] = 80.0;
        assert_eq!(stops(&[(&decode, 0.02), (&ttft, 0.05)], 10), Some(12));
        // The one that is too wide holds back the other.
        let wide: Vec<f64> = (0..40).map(|index| 50.0 + 20.0 * f64::from(index % 2)).collect();
        assert_eq!(stops(&[(&decode, 0.02), (&wide, 0.05)], 10), None);
    }

    #[test]
    fn a_series_that_drifts_goes_on() {
        let drifting: Vec<f64> = (0..40).map(|index| 100.0 + 0.02 * f64::from(index)).collect();
        assert_eq!(stops(&[(&drifting, 0.02)], 10), None);
    }

    #[test]
    fn the_last_sample_is_looked_at_whatever_its_number() {
        let steady: Vec<f64> = (0..12).map(|index| 100.0 + 0.1 * f64::from(index % 3)).collect();
        let wanted = [Wanted { samples: &steady, precision: 0.02 }];
        let mut stopping = Stopping { most: 11, precise: false };
        assert!(!stopping.look(&steady, &wanted, 10, false));
        assert!(stopping.look(&steady, &wanted, 10, true));
    }
}
