//! What the statistics really do, on series whose truth is known. `cargo xtask check-statistics` writes it to docs/statistics.md; tests run
//! less of it.

mod document;

pub use document::document;

use crate::stats::{
    Level, Stopping, Wanted, Warmup, difference, level, paired_difference, random::Random, warmup,
};

/// How simulated samples vary around a level of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Normally.
    Normal,
    /// Log-normally, as times do.
    LogNormal,
    /// Exponentially above a least time: strongly skewed.
    Exponential,
    /// Log-normally, and one of twenty takes half as long again or more.
    Outliers,
    /// Log-normally, while the level rises by four deviations.
    Drift,
    /// Exponentially above a least time that rises by three deviations.
    SkewedDrift,
}

impl Shape {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Normal, Self::LogNormal, Self::Exponential, Self::Outliers, Self::Drift, Self::SkewedDrift];

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::LogNormal => "log-normal",
            Self::Exponential => "exponential above a least time",
            Self::Outliers => "log-normal, 1 in 20 far above",
            Self::Drift => "log-normal, drifting by 4 deviations",
            Self::SkewedDrift => "exponential, drifting by 3 deviations",
        }
    }

    /// One series of `most` samples with the relative deviation `spread`.
    fn series(self, random: &mut Random, spread: f64, most: usize) -> Vec<f64> {
        (0..most).map(|index| self.sample(random, spread) + self.drift(spread, index as f64, most)).collect()
    }

    fn sample(self, random: &mut Random, spread: f64) -> f64 {
        match self {
            Self::Normal => 1.0 + spread * random.normal(),
            Self::LogNormal | Self::Drift => (spread * random.normal()).exp(),
            Self::Exponential | Self::SkewedDrift => 1.0 - spread * random.unit().ln(),
            Self::Outliers => {
                let usual = (spread * random.normal()).exp();
                let far = random.unit();
                if random.below(20) == 0 { usual * (1.5 + far) } else { usual }
            }
        }
    }

    fn drift(self, spread: f64, place: f64, most: usize) -> f64 {
        let whole = match self {
            Self::Drift => 4.0,
            Self::SkewedDrift => 3.0,
            _ => 0.0,
        };
        whole * spread * place / (most.max(2) - 1) as f64
    }

    /// The true level of the samples `from..to` of `most`: the median at half time.
    fn truth(self, spread: f64, (from, to): (usize, usize), most: usize) -> f64 {
        let median = match self {
            Self::Normal | Self::LogNormal | Self::Drift => 1.0,
            Self::Exponential | Self::SkewedDrift => 1.0 + spread * std::f64::consts::LN_2,
            // Of the usual ones, 0.5/0.95 lie below the median: 0.0660 deviations above theirs.
            Self::Outliers => (spread * 0.066_01).exp(),
        };
        median + self.drift(spread, (from + to - 1) as f64 / 2.0, most)
    }
}

/// Share of `rounds` intervals that hold the truth, of `count` samples each.
#[must_use]
pub fn coverage(shape: Shape, spread: f64, count: usize, rounds: u32, seed: u64) -> f64 {
    let mut random = Random::of(seed, shape.name(), count as u64);
    let truth = shape.truth(spread, (0, count), count);
    let held = (0..rounds).filter(|_| {
        let found = level(&shape.series(&mut random, spread, count));
        found.is_some_and(|level| (level.low..=level.high).contains(&truth))
    });
    held.count() as f64 / f64::from(rounds)
}

/// Fewest and most samples of a simulated case.
const MIN: usize = 10;
const CAP: usize = 40;

/// How sampling that stops by itself did.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// Share of the first series' intervals that hold the truth.
    pub coverage: f64,
    /// The same of the second series; of one alone, the same again.
    pub second_coverage: f64,
    /// Mean count of samples.
    pub mean_samples: f64,
    /// Share that ended at the cap.
    pub capped: f64,
}

/// Simulates `rounds` cases that stop at a precision, from 10 samples to 40.
#[must_use]
pub fn stopped(shape: Shape, spread: f64, precision: f64, rounds: u32, seed: u64) -> Stopped {
    let mut random = Random::of(seed, shape.name(), (spread * 1e6) as u64);
    stopped_cases(shape, spread, rounds, || {
        [Drawn { samples: shape.series(&mut random, spread, CAP), precision }]
    })
}

/// The same of cases that have two series, which are looked at together behind one warm-up: the first two samples take longer by 50 and
/// 20 %. As decode rate and TTFT of a warm case, to 2 and 5 %.
#[must_use]
pub fn stopped_together(shape: Shape, spread: f64, rounds: u32, seed: u64) -> Stopped {
    let mut random = Random::of(seed, shape.name(), (spread * 1e6) as u64 + 1);
    stopped_cases(shape, spread, rounds, || {
        [0.02, 0.05].map(|precision| {
            let mut samples = shape.series(&mut random, spread, CAP);
            samples[0] *= 1.5;
            samples[1] *= 1.2;
            Drawn { samples, precision }
        })
    })
}

/// A drawn series with the precision that is wanted of it.
struct Drawn {
    samples: Vec<f64>,
    precision: f64,
}

fn stopped_cases<const N: usize>(
    shape: Shape,
    spread: f64,
    rounds: u32,
    mut draw: impl FnMut() -> [Drawn; N],
) -> Stopped {
    let (mut held, mut samples, mut capped) = ([0_u32; N], 0_usize, 0_u32);
    for _ in 0..rounds {
        let drawn = draw();
        let (count, precise) = stop(&drawn);
        capped += u32::from(!precise);
        samples += count;
        // As a summary computes it afterwards.
        let found = warmup(&drawn[0].samples[..count]);
        let after = if let Warmup::Steady { after } = found { after } else { 0 };
        let truth = shape.truth(spread, (after, count), CAP);
        for (held, one) in held.iter_mut().zip(&drawn) {
            let found = level(&one.samples[after..count]);
            *held += u32::from(found.is_some_and(|Level { low, high, .. }| (low..=high).contains(&truth)));
        }
    }
    let part = |count: u32| f64::from(count) / f64::from(rounds);
    Stopped {
        coverage: part(held[0]),
        second_coverage: part(held[N - 1]),
        mean_samples: samples as f64 / f64::from(rounds),
        capped: part(capped),
    }
}

/// With how many samples a case ends, and whether its intervals were narrow enough.
fn stop(drawn: &[Drawn]) -> (usize, bool) {
    let mut stopping = Stopping::default();
    for count in 1..=CAP {
        let wanted: Vec<Wanted<'_>> = drawn
            .iter()
            .map(|one| Wanted { samples: &one.samples[..count], precision: one.precision })
            .collect();
        if stopping.look(wanted[0].samples, &wanted, MIN, count == CAP) {
            return (count, true);
        }
    }
    (CAP, false)
}

/// Share of `rounds` comparisons of two sessions of `count` samples in which a difference is found (p < 0.05), when
/// the second is slower by `slowdown`.
#[must_use]
pub fn found(shape: Shape, spread: f64, slowdown: f64, count: usize, rounds: u32, seed: u64) -> f64 {
    let mut random = Random::of(seed, shape.name(), (slowdown * 1e6) as u64 + count as u64);
    let found = (0..rounds).filter(|round| {
        let first = shape.series(&mut random, spread, count);
        let second: Vec<f64> = shape
            .series(&mut random, spread, count)
            .into_iter()
            .map(|time| time * (1.0 + slowdown))
            .collect();
        difference(&first, &second, u64::from(*round)).is_some_and(|difference| difference.p_value < 0.05)
    });
    found.count() as f64 / f64::from(rounds)
}

/// The same of one trial that alternates, on a machine whose speed wanders by `wander` from pair to pair.
#[must_use]
pub fn found_in_pairs(spread: f64, wander: f64, slowdown: f64, count: usize, rounds: u32, seed: u64) -> f64 {
    let mut random = Random::of(seed, "pairs", (slowdown * 1e6) as u64);
    let found = (0..rounds).filter(|round| {
        let mut pace = 1.0;
        let pairs: Vec<(f64, f64)> = (0..count)
            .map(|_| {
                pace *= (wander * random.normal()).exp();
                let mut sample = |level: f64| level * pace * (spread * random.normal()).exp();
                (sample(1.0), sample(1.0 + slowdown))
            })
            .collect();
        paired_difference(&pairs, u64::from(*round)).is_some_and(|difference| difference.p_value < 0.05)
    });
    found.count() as f64 / f64::from(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many series as docs/statistics.md has: 2 standard errors of a coverage of 95 % are 0.5 %.
    const ROUNDS: u32 = 8000;
    const REACHED: std::ops::RangeInclusive<f64> = 0.93..=0.97;

    #[test]
    fn intervals_hold_the_truth_in_93_to_97_of_100() {
        for shape in Shape::ALL {
            for count in [10, 20, 40] {
                let coverage = coverage(shape, 0.04, count, ROUNDS, 1);
                println!("{} {count}: {coverage}", shape.name());
                assert!(REACHED.contains(&coverage), "{} with {count}: {coverage}", shape.name());
            }
        }
    }

    /// What is told of few samples: 95 % from 6 on, else what their range covers. A drift within so few makes the interval wider, never too narrow.
    #[test]
    fn intervals_of_few_samples_hold_the_truth_as_often_as_they_say() {
        for shape in Shape::ALL {
            for count in 2..10 {
                let told = level(&vec![1.0; count]).unwrap().coverage;
                let coverage = coverage(shape, 0.04, count, ROUNDS, 1);
                println!("{} {count}: {coverage}, told {told}", shape.name());
                assert!(coverage >= told - 0.02, "{} with {count}: {coverage}, told {told}", shape.name());
                let drifts = matches!(shape, Shape::Drift | Shape::SkewedDrift);
                assert!(
                    drifts || coverage <= told + 0.02,
                    "{} with {count}: {coverage}, told {told}",
                    shape.name()
                );
            }
        }
    }

    #[test]
    fn stopping_when_the_interval_is_narrow_keeps_the_coverage() {
        for shape in Shape::ALL {
            for spread in [0.02, 0.04] {
                let alone = stopped(shape, spread, 0.02, ROUNDS / 2, 1);
                println!("{} {spread}: {alone:?}", shape.name());
                let together = stopped_together(shape, spread, ROUNDS / 2, 1);
                println!("{} {spread} together: {together:?}", shape.name());
                for coverage in [alone.coverage, together.coverage, together.second_coverage] {
                    assert!(REACHED.contains(&coverage), "{} {spread}: {coverage}", shape.name());
                }
            }
        }
    }

    #[test]
    fn a_slowdown_of_five_percent_is_found_and_none_is_rarely() {
        for shape in [Shape::LogNormal, Shape::Outliers] {
            let (slow, same) = (found(shape, 0.03, 0.05, 20, 2000, 1), found(shape, 0.03, 0.0, 20, 2000, 1));
            println!("{}: {slow} {same}", shape.name());
            assert!(slow >= 0.95 && same <= 0.06, "{}: {slow} {same}", shape.name());
        }
        let (slow, same) =
            (found_in_pairs(0.03, 0.05, 0.05, 20, 2000, 1), found_in_pairs(0.03, 0.05, 0.0, 20, 2000, 1));
        println!("pairs: {slow} {same}");
        assert!(slow >= 0.95 && same <= 0.06, "pairs: {slow} {same}");
    }
}
