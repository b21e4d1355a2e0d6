//! How fast main memory can be read just now: what decoding is bound by.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

/// Far more than the caches of the machines that are measured.
pub const PROBE_BYTES: usize = 256 << 20;

/// Bytes per second that `threads` threads read together, the best of eight passes over [`PROBE_BYTES`].
#[must_use]
pub fn read_bandwidth(threads: usize) -> f64 {
    let words = vec![1_u64; PROBE_BYTES / size_of::<u64>()];
    let pass = || {
        let started = Instant::now();
        thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads.max(1))) {
                scope.spawn(move || black_box(part.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word))));
            }
        });
        started.elapsed()
    };
    let best = (0..8).map(|_| pass()).min().unwrap_or(Duration::MAX);
    PROBE_BYTES as f64 / best.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_can_be_read() {
        assert!(read_bandwidth(2) > 0.0);
    }
}
