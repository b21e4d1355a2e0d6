//! What everything that measures shares: paired statistics, the order of runs, and probes of the machine and of
//! processes. Nothing here knows what is measured.

mod bandwidth;
mod order;
mod process;
mod stats;

pub use bandwidth::{PROBE_BYTES, read_bandwidth};
pub use order::{Side, abba};
pub use process::{ProcessMemory, process_memory};
pub use stats::{Interval, Summary, median_interval, paired_ratios, quantile};
