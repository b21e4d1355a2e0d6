//! The page docs/statistics.md: what the statistics do on simulated series.

use std::fmt::Write as _;

use super::{Shape, coverage, found, found_in_pairs, stopped};

/// Simulated series for each cell: 2 standard errors of a coverage of 95 % are 0.5 %.
const ROUNDS: u32 = 8000;
/// Simulated comparisons for each cell.
const COMPARISONS: u32 = 4000;
const SEED: u64 = 1;
const COVERAGE: std::ops::RangeInclusive<f64> = 0.93..=0.97;
const FOUND: f64 = 0.95;
const FALSE_ALARMS: f64 = 0.06;

/// The page, and which figures are not reached. Takes about half a minute in a release build.
#[must_use]
pub fn document() -> (String, Vec<String>) {
    let mut missed = Vec::new();
    let mut out = String::from(
        "# What the statistics do\n\nWritten by `cargo xtask check-statistics` from simulated series whose truth is known; the seed is fixed, so it writes the same each time.\n",
    );
    push_coverage(&mut out, &mut missed);
    push_stopping(&mut out, &mut missed);
    push_found(&mut out, &mut missed);
    let verdict = if missed.is_empty() {
        "Every figure is reached.".to_owned()
    } else {
        format!("Not reached: {}.", missed.join("; "))
    };
    let _ = write!(out, "\n{verdict}\n");
    (out, missed)
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn push_coverage(out: &mut String, missed: &mut Vec<String>) {
    const COUNTS: [usize; 5] = [10, 14, 20, 28, 40];
    let _ = write!(
        out,
        "\n## Intervals: in how many of 100 series the truth lies within\n\nThe interval of the median, between interpolated order statistics, a trend taken out where Kendall's test finds one. To reach: 93 to 97. {ROUNDS} series for each cell, relative deviation 4 %.\n\n| samples |{}\n|---|{}\n",
        COUNTS.map(|count| format!(" {count} |")).concat(),
        "--:|".repeat(COUNTS.len())
    );
    for shape in Shape::ALL {
        let _ = write!(out, "| {} |", shape.name());
        for count in COUNTS {
            let covered = coverage(shape, 0.04, count, ROUNDS, SEED);
            let _ = write!(out, " {} |", percent(covered));
            if !COVERAGE.contains(&covered) {
                missed.push(format!(
                    "coverage of {} with {count} samples is {} %",
                    shape.name(),
                    percent(covered)
                ));
            }
        }
        out.push('\n');
    }
}

fn push_stopping(out: &mut String, missed: &mut Vec<String>) {
    const SPREADS: [f64; 6] = [0.01, 0.02, 0.03, 0.04, 0.06, 0.1];
    for (what, precision) in [("decode, ± 2 %", 0.02), ("TTFT, ± 5 %", 0.05)] {
        let _ = write!(
            out,
            "\n## The same when sampling stops by itself: {what}\n\nFrom 10 samples to 40, looking at 10, 14, 20, 28 and 40: coverage, mean count of samples, and in how many of 100 the cap was reached. The columns are relative deviations.\n\n| |{}\n|---|{}\n",
            SPREADS.map(|spread| format!(" {} % |", percent(spread))).concat(),
            "--:|".repeat(SPREADS.len())
        );
        for shape in Shape::ALL {
            let _ = write!(out, "| {} |", shape.name());
            for spread in SPREADS {
                let found = stopped(shape, spread, precision, ROUNDS, SEED);
                let _ = write!(
                    out,
                    " {} ({:.0}; {:.0}) |",
                    percent(found.coverage),
                    found.mean_samples,
                    100.0 * found.capped
                );
                if !COVERAGE.contains(&found.coverage) {
                    missed.push(format!(
                        "coverage of {}, deviation {} %, {what}, is {} %",
                        shape.name(),
                        percent(spread),
                        percent(found.coverage)
                    ));
                }
            }
            out.push('\n');
        }
    }
}

fn push_found(out: &mut String, missed: &mut Vec<String>) {
    let _ = write!(
        out,
        "\n## A slowdown of 5 % between two sessions of 20 samples\n\nIn how many of 100 the permutation test finds a difference (p < 0.05), when there is one and when there is none. To reach: at least 95, at most 6. {COMPARISONS} comparisons for each cell, relative deviation 3 %.\n\n| | slower by 5 % | the same |\n|---|--:|--:|\n"
    );
    let mut push = |name: &str, slow: f64, same: f64| {
        let _ = writeln!(out, "| {name} | {} | {} |", percent(slow), percent(same));
        if slow < FOUND || same > FALSE_ALARMS {
            missed.push(format!("{name}: found {} %, false alarms {} %", percent(slow), percent(same)));
        }
    };
    for shape in [Shape::Normal, Shape::LogNormal, Shape::Outliers] {
        let rate = |slowdown| found(shape, 0.03, slowdown, 20, COMPARISONS, SEED);
        push(shape.name(), rate(0.05), rate(0.0));
    }
    let rate = |slowdown| found_in_pairs(0.03, 0.05, slowdown, 20, COMPARISONS, SEED);
    push("20 pairs in one trial, on a machine that wanders by 5 % from pair to pair", rate(0.05), rate(0.0));
}
