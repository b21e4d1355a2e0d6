//! What is probed of the machine between samples: rates that those of models follow.

use crate::bundle::Probe;

pub struct Probed {
    /// What it is, in words.
    pub what: &'static str,
    /// The metric of its level, and that of how far it moved.
    pub rate: &'static str,
    pub swing: &'static str,
    pub of: fn(&Probe) -> f64,
}

pub const PROBED: [Probed; 2] = [
    Probed {
        what: "memory bandwidth",
        rate: "bandwidth_bytes_per_s",
        swing: "bandwidth_swing_percent",
        of: |probe| probe.bandwidth_bytes_per_s,
    },
    Probed {
        what: "compute rate",
        rate: "compute_macs_per_s",
        swing: "compute_swing_percent",
        of: |probe| probe.compute_macs_per_s,
    },
];
