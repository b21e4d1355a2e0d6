//! Statistics of few, skewed and drifting samples. What the intervals and tests really do is simulated in [`crate::simulation`] and
//! written to docs/statistics.md.

mod difference;
mod level;
mod median;
mod proportion;
pub mod random;
mod stopping;
mod warmup;

pub use difference::{Difference, difference, paired_difference};
pub use level::{COVERAGE, Level, level};
pub use median::{Interval, Summary, median_interval, paired_ratios, quantile};
pub use proportion::{Proportion, wilson};
pub use stopping::{Stopping, Wanted};
pub use warmup::{Warmup, warmup};
