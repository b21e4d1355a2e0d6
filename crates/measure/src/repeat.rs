//! Whether several sessions say the same, and if not, whether the machine or something else changed.

use std::collections::BTreeSet;

use crate::{
    bundle::{Bundle, CaseKind},
    probed::PROBED,
    stats::quantile,
    summary::{Summary, ttft_metric},
};

/// Largest difference between sessions that counts as the same, in percent.
pub const DECODE_PERCENT: f64 = 3.0;
/// The same for TTFT.
pub const TTFT_PERCENT: f64 = 5.0;
/// The same for what is probed of the machine.
pub const MACHINE_PERCENT: f64 = 3.0;
/// Load of other programs that explains a difference, in percent of the machine.
const OTHERS_PERCENT: f64 = 10.0;

/// What several sessions say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeatability {
    /// How many.
    pub sessions: usize,
    /// Each case's decode rate and TTFT.
    pub rows: Vec<Row>,
    /// Largest difference of each rate that is probed of the machine, in percent.
    pub machine_percent: [(&'static str, Option<f64>); PROBED.len()],
    /// Largest difference of a decode rate, in percent.
    pub decode_percent: Option<f64>,
    /// Largest difference of a TTFT, in percent.
    pub ttft_percent: Option<f64>,
    /// Whether they agree; none with fewer than two sessions or nothing to compare.
    pub repeatable: Option<bool>,
    /// Why not, or why it cannot be said.
    pub reasons: Vec<String>,
}

/// One figure in each session.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the metric.
    pub metric: &'static str,
    /// The case.
    pub case: String,
    /// Its value in each session.
    pub values: Vec<f64>,
    /// Spread within the sessions: half of the median interval over the value, in percent.
    pub within_percent: Option<f64>,
    /// Spread between them: highest over lowest, less 100 %.
    pub between_percent: f64,
    /// Most that counts as the same.
    pub limit_percent: f64,
}

impl Row {
    /// Whether the difference is too large, and yet no larger than what the intervals within the sessions make.
    fn is_spread(&self) -> bool {
        let within = self.within_percent.is_some_and(|within| self.between_percent <= 2.0 * within);
        within && self.between_percent > self.limit_percent
    }
}

/// Looks at sessions together, at their first target.
#[must_use]
pub fn repeatability(sessions: &[(&Bundle, &Summary)]) -> Repeatability {
    let rows = rows(sessions);
    let largest = |limit: f64| {
        let of_kind = rows.iter().filter(|row| row.limit_percent.total_cmp(&limit).is_eq());
        of_kind.map(|row| row.between_percent).max_by(f64::total_cmp)
    };
    let (decode_percent, ttft_percent) = (largest(DECODE_PERCENT), largest(TTFT_PERCENT));
    let machine_percent = PROBED.map(|probed| (probed.what, between(&values(sessions, probed.rate, None))));
    let compared = sessions.len() > 1 && !rows.is_empty();
    let agree = rows.iter().all(|row| row.between_percent <= row.limit_percent);
    let same_model = is_same(sessions.iter().map(|(bundle, _)| {
        bundle.models.models.first().map(|model| (model.name.clone(), model.sha256.known().cloned()))
    }));
    let reasons = match (compared, agree && same_model) {
        (false, _) => vec![format!("{} session(s) with a case in common: two are needed", sessions.len())],
        (true, true) => Vec::new(),
        (true, false) => reasons(sessions, &rows, &machine_percent, same_model),
    };
    Repeatability {
        sessions: sessions.len(),
        rows,
        machine_percent,
        decode_percent,
        ttft_percent,
        repeatable: compared.then_some(agree && same_model),
        reasons,
    }
}

fn target(bundle: &Bundle) -> &str {
    bundle.workload.targets.first().map_or("a", |target| target.id.as_str())
}

fn rows(sessions: &[(&Bundle, &Summary)]) -> Vec<Row> {
    let Some((first, _)) = sessions.first() else { return Vec::new() };
    let mut rows = Vec::new();
    for case in &first.workload.cases {
        let ttft = ttft_metric(case.kind);
        let wanted: &[(&'static str, f64)] = match case.kind {
            CaseKind::Warm => &[("decode_tokens_per_s", DECODE_PERCENT), (ttft, TTFT_PERCENT)],
            CaseKind::Depth => &[("decode_tokens_per_s", DECODE_PERCENT)],
            _ => &[],
        };
        for &(metric, limit_percent) in wanted {
            let values = values(sessions, metric, Some(&case.id));
            let Some(between_percent) = between(&values).filter(|_| values.len() == sessions.len()) else {
                continue;
            };
            let within_percent = within(sessions, metric, &case.id);
            let case = case.id.clone();
            rows.push(Row { metric, case, values, within_percent, between_percent, limit_percent });
        }
    }
    rows
}

fn values(sessions: &[(&Bundle, &Summary)], metric: &str, case: Option<&str>) -> Vec<f64> {
    let figure = |(bundle, summary): &(&Bundle, &Summary)| {
        summary.figure(metric, case, target(bundle)).map(|figure| figure.value)
    };
    sessions.iter().filter_map(figure).collect()
}

fn between(values: &[f64]) -> Option<f64> {
    let (low, high) = (quantile(values, 0.0)?, quantile(values, 1.0)?);
    (values.len() > 1 && low > 0.0).then(|| 100.0 * (high / low - 1.0))
}

fn within(sessions: &[(&Bundle, &Summary)], metric: &str, case: &str) -> Option<f64> {
    let half = |(bundle, summary): &(&Bundle, &Summary)| {
        let figure = summary.figure(metric, Some(case), target(bundle))?;
        Some(50.0 * (figure.high? - figure.low?) / figure.value)
    };
    let halves: Vec<f64> = sessions.iter().filter_map(half).collect();
    quantile(&halves, 0.5)
}

fn is_same<T: Ord>(values: impl Iterator<Item = T>) -> bool {
    values.collect::<BTreeSet<T>>().len() <= 1
}

/// What of machine, model and program is known to differ.
fn reasons(
    sessions: &[(&Bundle, &Summary)],
    rows: &[Row],
    machine_percent: &[(&str, Option<f64>)],
    same_model: bool,
) -> Vec<String> {
    let mut reasons = Vec::new();
    for row in rows.iter().filter(|row| row.between_percent > row.limit_percent) {
        reasons.push(format!(
            "{} of {} differs by {:.1} % between sessions, more than {} %",
            row.metric, row.case, row.between_percent, row.limit_percent
        ));
    }
    let told = reasons.len();
    let spread = rows.iter().filter(|row| row.is_spread()).count();
    if spread > 0 {
        reasons.push(format!(
            "the sessions are not steady enough for these limits: {spread} of {told} differences are no larger than what two intervals of one session make"
        ));
    }
    if !same_model {
        reasons.push("the model is not the same in all sessions".to_owned());
    }
    if !is_same(sessions.iter().map(|(bundle, _)| bundle.machine.cpu.known().cloned())) {
        reasons.push("the machine is not the same in all sessions: processors differ".to_owned());
    }
    if !is_same(sessions.iter().map(|(bundle, _)| bundle.trial.tool.binary_sha256.known().cloned())) {
        reasons.push("the program is not the same in all sessions".to_owned());
    }
    for (what, percent) in machine_percent {
        match percent {
            Some(percent) if *percent > MACHINE_PERCENT => reasons
                .push(format!("the machine changed: its {what} differs by {percent:.1} % between sessions")),
            Some(_) => {}
            None => {
                let why = format!("whether the machine changed is not known: its {what} was not probed");
                reasons.push(why);
            }
        }
    }
    for (index, other) in values(sessions, "other_cpu_percent", None).into_iter().enumerate() {
        if other > OTHERS_PERCENT {
            let session = index + 1;
            reasons.push(format!("other programs used {other:.0} % of the processors in session {session}"));
        }
    }
    if reasons.len() == told {
        reasons.push(
            "machine, model and program are the same as far as was measured: what differs is not known"
                .to_owned(),
        );
    }
    reasons
}
