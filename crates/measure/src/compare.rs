//! Two bundles, or two targets of one trial, beside each other.

mod unequal;

use crate::{
    bundle::{Bundle, Case, CaseKind, Request},
    metrics::{self, Better},
    stats::{Difference, difference, paired_difference},
    summary::{Summary, decode_tokens_per_s, samples, ttft_metric, ttft_ms},
};

/// Differences less probable than this by chance count as found.
const SIGNIFICANT: f64 = 0.05;
/// Of the permutation tests: a comparison gives the same figures each time.
const SEED: u64 = 1;

/// Two sides, compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What is not equal on both sides, so that the differences may come from it.
    pub unequal: Vec<Unequal>,
    /// One for each case and metric that both sides have.
    pub rows: Vec<Row>,
}

/// Something in which two sides are not equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unequal {
    /// What.
    pub says: String,
    /// Another model, or another or changed machine: a difference says nothing about the program.
    pub misleads: bool,
}

/// One metric of one case on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the metric.
    pub metric: &'static str,
    /// The case.
    pub case: String,
    /// The second side over the first, with interval and test.
    pub difference: Difference,
    /// The test's probability, corrected for the number of rows (Holm).
    pub p_adjusted: f64,
    /// What follows.
    pub change: Change,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The second side is better.
    Better,
    /// The second side is worse.
    Worse,
    /// No difference was found.
    NotFound,
}

impl Row {
    /// How much worse the second side is, in percent of the first; negative when it is better.
    #[must_use]
    pub fn worse_percent(&self) -> f64 {
        let ratio = self.difference.ratio;
        100.0 * if is_rate(self.metric) { 1.0 - ratio } else { ratio - 1.0 }
    }
}

impl Comparison {
    /// Rows in which the second side was found to be worse by at least so many percent.
    pub fn worse_by(&self, percent: f64) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.change == Change::Worse && row.worse_percent() >= percent)
    }

    /// Why nothing can be concluded from a difference about the program; empty when something can.
    pub fn misleads(&self) -> impl Iterator<Item = &str> {
        self.unequal.iter().filter(|unequal| unequal.misleads).map(|unequal| unequal.says.as_str())
    }
}

/// Whether a second side may be taken for no worse than the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing was found to be worse by as much.
    Passed,
    /// Both sides have nothing in common that could be compared.
    Nothing,
    /// The sides are not equal, so that nothing can be judged.
    Unequal(Vec<String>),
    /// What was found to be worse, and by how much.
    Worse(Vec<String>),
}

impl Comparison {
    /// Judges the second side: it fails when it was found to be worse by so many percent, and when that cannot be judged.
    #[must_use]
    pub fn gate(&self, percent: f64) -> Gate {
        if self.rows.is_empty() {
            return Gate::Nothing;
        }
        let misleads: Vec<String> = self.misleads().map(str::to_owned).collect();
        if !misleads.is_empty() {
            return Gate::Unequal(misleads);
        }
        let told = |row: &Row| format!("{} of {} by {:.1} %", row.metric, row.case, row.worse_percent());
        let worse: Vec<String> = self.worse_by(percent).map(told).collect();
        if worse.is_empty() { Gate::Passed } else { Gate::Worse(worse) }
    }
}

/// Compares two bundles by their first targets.
#[must_use]
pub fn compare(first: (&Bundle, &Summary), second: (&Bundle, &Summary)) -> Comparison {
    let mut found = Vec::new();
    for case in &first.0.workload.cases {
        let Some(other) = second.0.workload.cases.iter().find(|other| is_same_case(case, other)) else {
            continue;
        };
        let a = samples(first.0, first.1, &case.id, target(first.0));
        let b = samples(second.0, second.1, &other.id, target(second.0));
        for (metric, value) in compared(case.kind) {
            let (a, b) = (series(&a, value), series(&b, value));
            found.extend(difference(&b, &a, SEED).map(|difference| (metric, case.id.clone(), difference)));
        }
    }
    Comparison { unequal: unequal::sessions(first, second), rows: rows(found) }
}

/// Compares the two targets of a trial that alternated; `None` when it had but one.
#[must_use]
pub fn versus(bundle: &Bundle, summary: &Summary) -> Option<Comparison> {
    let [a, b] = &bundle.workload.targets[..] else { return None };
    let mut found = Vec::new();
    for case in &bundle.workload.cases {
        let (first, second) =
            (samples(bundle, summary, &case.id, &a.id), samples(bundle, summary, &case.id, &b.id));
        for (metric, value) in compared(case.kind) {
            let pair = |request: &&Request| {
                let beside = second.iter().find(|other| other.index == request.index)?;
                Some((value(beside)?, value(request)?))
            };
            let pairs: Vec<_> = first.iter().filter_map(pair).collect();
            let difference = paired_difference(&pairs, SEED);
            found.extend(difference.map(|difference| (metric, case.id.clone(), difference)));
        }
    }
    Some(Comparison { unequal: unequal::targets(bundle, a, b), rows: rows(found) })
}

type Value = fn(&Request) -> Option<f64>;

fn compared(kind: CaseKind) -> Vec<(&'static str, Value)> {
    let ttft: (&'static str, Value) = (ttft_metric(kind), ttft_ms);
    let decode: (&'static str, Value) = ("decode_tokens_per_s", decode_tokens_per_s);
    match kind {
        CaseKind::ColdStart | CaseKind::PrefixHit => vec![ttft],
        CaseKind::Warm | CaseKind::Concurrency => vec![ttft, decode],
        CaseKind::Depth => vec![decode],
        CaseKind::Determinism | CaseKind::Restart | CaseKind::Quality => Vec::new(),
    }
}

fn series(samples: &[&Request], value: Value) -> Vec<f64> {
    samples.iter().filter_map(|request| value(request)).collect()
}

fn target(bundle: &Bundle) -> &str {
    bundle.workload.targets.first().map_or("a", |target| target.id.as_str())
}

fn is_same_case(a: &Case, b: &Case) -> bool {
    let shape = |case: &Case| {
        (
            case.kind,
            case.prompt_tokens,
            case.depth_tokens,
            case.concurrency,
            case.max_tokens,
            case.strict,
            case.ignore_eos,
        )
    };
    shape(a) == shape(b)
}

fn is_rate(metric: &str) -> bool {
    metrics::find(metric).is_ok_and(|metric| metric.better == Better::Higher)
}

fn rows(found: Vec<(&'static str, String, Difference)>) -> Vec<Row> {
    let adjusted = holm(&found.iter().map(|(_, _, difference)| difference.p_value).collect::<Vec<_>>());
    let row = |((metric, case, difference), p_adjusted): ((&'static str, String, Difference), f64)| {
        let change = if p_adjusted >= SIGNIFICANT {
            Change::NotFound
        } else if (difference.ratio > 1.0) == is_rate(metric) {
            Change::Better
        } else {
            Change::Worse
        };
        Row { metric, case, difference, p_adjusted, change }
    };
    found.into_iter().zip(adjusted).map(row).collect()
}

/// Holm's correction: one false alarm among all tests is as improbable as in a single one.
fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut highest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        highest = highest.max(p_values[index] * (p_values.len() - rank) as f64).min(1.0);
        adjusted[index] = highest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_multiplies_the_smallest_by_all_and_keeps_the_order() {
        assert_eq!(holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
        assert_eq!(holm(&[0.9, 0.9]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
