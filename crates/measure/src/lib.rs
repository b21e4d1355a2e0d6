//! What everything that measures shares: paired statistics, the order of runs, probes of the machine and of
//! processes; and what a trial leaves as evidence: its bundle, which is written, read and checked here. Nothing here asks a model.

mod bandwidth;
pub mod bundle;
mod check;
pub mod claims;
pub mod compare;
mod compute;
pub mod limits;
pub mod metrics;
mod pairs;
mod probed;
pub mod quality;
pub mod repeat;
pub mod report;
pub mod schema;
mod scrub;
mod share;
pub mod simulation;
pub mod stats;
pub mod summary;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use bandwidth::{PROBE_BYTES, read_bandwidth};
pub use check::{Checked, check};
pub use compute::compute_rate;
pub use pairs::{Pair, Side, sample_pairs};
pub use scrub::{Identity, without_traces};
pub use share::{pack, share};
pub use stats::{Interval, Summary, median_interval, paired_ratios, quantile};
