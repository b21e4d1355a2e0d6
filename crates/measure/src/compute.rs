//! How fast the processors compute just now: what prefill is bound by. On a shared machine, or a hot one, it moves while bandwidth
//! stays.

use std::{hint::black_box, thread, time::Instant};

use crate::stats::quantile;

/// Sums that are made at the same time, which no processor's vector units wait for.
const SUMS: usize = 128;
/// Values that stay in a core's first cache: 8 KiB.
const VALUES: usize = 16 * SUMS;
/// Times that a thread goes through them in a pass: 128 Mi multiply-adds, some milliseconds.
const ROUNDS: usize = (128 << 20) / VALUES;
const PASSES: usize = 9;

/// Multiply-adds of 32-bit floats in a second that `threads` threads make together, the median of nine passes. It is a yardstick for
/// one machine and build at two times, and not the most that the processors could.
#[must_use]
pub fn compute_rate(threads: usize) -> f64 {
    let threads = threads.max(1);
    let pass = || {
        let started = Instant::now();
        thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(multiply_add))));
        started.elapsed()
    };
    let times: Vec<f64> = (0..PASSES).map(|_| pass().as_secs_f64()).collect();
    let median = quantile(&times, 0.5).unwrap_or(f64::INFINITY);
    (threads * ROUNDS * VALUES) as f64 / median
}

fn multiply_add() -> f32 {
    let values = black_box([1.0_f32; VALUES]);
    let mut sums = [0.0_f32; SUMS];
    for _ in 0..ROUNDS {
        for part in black_box(&values).chunks_exact(SUMS) {
            // Not `mul_add`, which is a function's call where a build may not use FMA.
            sums.iter_mut().zip(part).for_each(|(sum, value)| *sum = *sum * 0.5 + value);
        }
    }
    black_box(sums).iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_compute() {
        assert!(compute_rate(2) > 0.0);
    }
}
