//! What everything that measures shares: paired statistics, the order of runs, and probes of the machine and of
//! processes. Nothing here knows what is measured.

mod bandwidth;
mod pairs;
mod process;
mod stats;

pub use bandwidth::{PROBE_BYTES, read_bandwidth};
pub use pairs::{Pair, Side, sample_pairs};
pub use process::{ProcessMemory, process_memory};
pub use stats::{Interval, Summary, median_interval, paired_ratios, quantile};
