//! The page docs/statistics.md: what the statistics do on simulated series.

use std::fmt::Write as _;

use super::{Shape, Stopped, coverage, found, found_in_pairs, stopped, stopped_together};
use crate::stats::level;

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
    push_few(&mut out, &mut missed);
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
        "\n## Intervals: in how many of 100 series the truth lies within\n\nThe interval of the median, between interpolated order statistics, a trend taken out where Kendall's test finds one. To reach: 93 to 97. {ROUNDS} series for each cell, relative deviation 4 %.\n\n{}",
        head("samples", &COUNTS.map(|count| count.to_string()))
    );
    for shape in Shape::ALL {
        let _ = write!(out, "| {} |", shape.name());
        for count in COUNTS {
            let covered = coverage(shape, 0.04, count, ROUNDS, SEED);
            let _ = write!(out, " {} |", percent(covered));
            miss(missed, covered, || format!("coverage of {} with {count} samples", shape.name()));
        }
        out.push('\n');
    }
}

fn push_few(out: &mut String, missed: &mut Vec<String>) {
    const COUNTS: [usize; 8] = [2, 3, 4, 5, 6, 7, 8, 9];
    /// How far the coverage may lie below what is told.
    const BELOW: f64 = 0.02;
    let told = |count| level(&vec![1.0; count]).map_or(0.0, |level| level.coverage);
    let _ = write!(
        out,
        "\n## The same of fewer samples than a rate is to have\n\nSuch a figure says how many samples it has and what its interval covers: of fewer than 6 it is their range. Within so few a drift counts as spread, so that the interval is wider than it must be. To reach: at most 2 less than is told.\n\n{}| told |",
        head("samples", &COUNTS.map(|count| count.to_string()))
    );
    for count in COUNTS {
        let _ = write!(out, " {} |", percent(told(count)));
    }
    out.push('\n');
    for shape in Shape::ALL {
        let _ = write!(out, "| {} |", shape.name());
        for count in COUNTS {
            let covered = coverage(shape, 0.04, count, ROUNDS, SEED);
            let _ = write!(out, " {} |", percent(covered));
            if covered < told(count) - BELOW {
                let (name, covered) = (shape.name(), percent(covered));
                missed.push(format!("coverage of {name} with {count} samples is {covered} %"));
            }
        }
        out.push('\n');
    }
}

fn push_stopping(out: &mut String, missed: &mut Vec<String>) {
    let looks = "From 10 samples to 40, looking when 10, 20 and 40 are behind the warm-up that was found, and at the last; a series with a trend goes on";
    let cell = "mean count of samples, and in how many of 100 the cap was reached. The columns are relative deviations.";
    for (what, precision) in [("decode, ± 2 %", 0.02), ("TTFT, ± 5 %", 0.05)] {
        let _ = write!(
            out,
            "\n## The same when sampling stops by itself: {what}\n\n{looks}: coverage, {cell}\n\n{}",
            head("", &SPREADS.map(|spread| format!("{} %", percent(spread))))
        );
        push_stopped(
            out,
            missed,
            what,
            |shape, spread| stopped(shape, spread, precision, ROUNDS, SEED),
            |found| percent(found.coverage),
        );
    }
    let what = "decode and TTFT together";
    let _ = write!(
        out,
        "\n## The same of a warm case: {what}, ± 2 % and ± 5 %\n\n{looks}. The first two samples take longer, by 50 and 20 %. Both series are cut where the first becomes steady, and it stops when both are narrow enough at the same look. Coverage of the first, of the second, {cell}\n\n{}",
        head("", &SPREADS.map(|spread| format!("{} %", percent(spread))))
    );
    push_stopped(
        out,
        missed,
        what,
        |shape, spread| stopped_together(shape, spread, ROUNDS, SEED),
        |found| format!("{} {}", percent(found.coverage), percent(found.second_coverage)),
    );
}

const SPREADS: [f64; 6] = [0.01, 0.02, 0.03, 0.04, 0.06, 0.1];

fn push_stopped(
    out: &mut String,
    missed: &mut Vec<String>,
    what: &str,
    simulate: impl Fn(Shape, f64) -> Stopped,
    told: impl Fn(&Stopped) -> String,
) {
    for shape in Shape::ALL {
        let _ = write!(out, "| {} |", shape.name());
        for spread in SPREADS {
            let found = simulate(shape, spread);
            let _ =
                write!(out, " {} ({:.0}; {:.0}) |", told(&found), found.mean_samples, 100.0 * found.capped);
            for covered in [found.coverage, found.second_coverage] {
                let named =
                    || format!("coverage of {}, deviation {} %, {what},", shape.name(), percent(spread));
                miss(missed, covered, named);
            }
        }
        out.push('\n');
    }
}

/// The head of a table whose first column has names.
fn head(first: &str, columns: &[String]) -> String {
    format!("| {first} | {} |\n|---|{}\n", columns.join(" | "), "--:|".repeat(columns.len()))
}

fn miss(missed: &mut Vec<String>, covered: f64, named: impl Fn() -> String) {
    if !COVERAGE.contains(&covered) {
        missed.push(format!("{} is {} %", named(), percent(covered)));
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
