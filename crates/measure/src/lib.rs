//! What everything that measures shares: paired statistics, the order of runs, probes of the machine and of
//! processes; and what a trial leaves as evidence: its bundle, which is written, read and checked here. Nothing here asks a model.

mod bandwidth;
pub mod bundle;
pub mod limits;
mod pairs;
mod process;
mod stats;

pub use bandwidth::{PROBE_BYTES, read_bandwidth};
pub use pairs::{Pair, Side, sample_pairs};
pub use process::{ProcessMemory, process_memory};
pub use stats::{Interval, Summary, median_interval, paired_ratios, quantile};
