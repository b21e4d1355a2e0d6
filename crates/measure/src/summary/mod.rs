//! What follows from the raw samples of a bundle: a pure function, so that anyone can compute it again.

mod cases;
mod ended;
mod series;
mod steady;
mod whole;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    bundle::{Bundle, Request},
    stats::{COVERAGE, Interval, Level},
};

pub(crate) use cases::ttft_metric;
pub use ended::Ended;
use series::{BandwidthAt, usable};
pub use series::{decode_tokens_per_s, ttft_ms};
pub(crate) use series::{gaps_ms, prefill_tokens_per_s};
pub use steady::Watch;

/// `summary.json`: every aggregate of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What could not be had, and why.
    pub absent: Vec<AbsentFigure>,
    /// How the cases went.
    pub cases: Vec<CaseOutcome>,
    /// What was predicted before, beside what was measured.
    pub predictions: Vec<Prediction>,
}

/// A measured figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// Name of the metric ([`crate::metrics::METRICS`]).
    pub metric: String,
    /// The case; none for figures of the whole trial.
    pub case: Option<String>,
    /// The target.
    pub target: String,
    /// The figure, in the metric's unit.
    pub value: f64,
    /// Lower end of its interval, where it has one.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// How often such an interval holds the truth, at this count of samples: 0.95, less where a level has fewer than 6. None of a figure
    /// without interval.
    #[serde(default)]
    pub coverage: Option<f64>,
    /// How many samples it is from.
    pub samples: usize,
}

/// Samples that a level is to have. Of fewer it is told, and how many they were.
const SAMPLES_MIN: usize = 10;

impl Figure {
    /// Whether it is a level of fewer samples than one is to have.
    #[must_use]
    pub fn is_of_few(&self) -> bool {
        self.coverage.is_some() && self.samples < SAMPLES_MIN
    }

    /// Of how many samples it is, and how far its interval can be relied on.
    #[must_use]
    pub fn how_sure(&self) -> String {
        let count =
            if self.samples == 1 { "1 sample".to_owned() } else { format!("{} samples", self.samples) };
        match self.coverage {
            Some(coverage) if coverage > 0.0 => {
                format!("{} %, {count}", crate::report::number(100.0 * coverage))
            }
            _ => count,
        }
    }
}

/// A figure that could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AbsentFigure {
    /// Name of the metric.
    pub metric: String,
    /// The case; none for figures of the whole trial.
    pub case: Option<String>,
    /// The target.
    pub target: String,
    /// Why.
    pub reason: String,
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CaseOutcome {
    /// The case.
    pub case: String,
    /// The target.
    pub target: String,
    /// How it came to its end; none when nothing says so.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// Requests, warm-up and failed ones included; of other cases, restarts or questions.
    pub requests: usize,
    /// Requests that failed, by kind.
    pub failed: BTreeMap<String, usize>,
    /// Samples at the beginning that were left out because the case was not steady yet; none when it never was.
    pub warmup: Option<usize>,
    /// Half of the decode rate's interval over the rate.
    pub decode_precision: Option<f64>,
    /// Half of TTFT's interval over TTFT.
    pub ttft_precision: Option<f64>,
    /// Change of the decode rate from the first sample to the last by its trend, where it has one, in percent.
    pub decode_trend_percent: Option<f64>,
}

/// A prediction beside what came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prediction {
    /// Name of the metric.
    pub metric: String,
    /// The case.
    pub case: Option<String>,
    /// What was predicted before the trial.
    pub predicted: f64,
    /// Lower end of the prediction's interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// What was measured; none when it was not.
    pub measured: Option<f64>,
}

impl Summary {
    /// The figure of a metric, of a case or of the whole trial; without a case, the first case that has it.
    #[must_use]
    pub fn figure(&self, metric: &str, case: Option<&str>, target: &str) -> Option<&Figure> {
        let fits = |figure: &&Figure| figure.metric == metric && figure.target == target;
        self.figures.iter().filter(fits).find(|figure| case.is_none() || figure.case.as_deref() == case)
    }

    /// Why there is no such figure.
    #[must_use]
    pub fn reason(&self, metric: &str, case: Option<&str>, target: &str) -> Option<&str> {
        let fits = |absent: &&AbsentFigure| absent.metric == metric && absent.target == target;
        let found =
            self.absent.iter().filter(fits).find(|absent| case.is_none() || absent.case.as_deref() == case);
        found.map(|absent| absent.reason.as_str())
    }
}

/// Requests of a case and target whose figures count: without warm-up and failed ones, in order.
pub(crate) fn samples<'a>(
    bundle: &'a Bundle,
    summary: &Summary,
    case: &str,
    target: &str,
) -> Vec<&'a Request> {
    let outcome = summary.cases.iter().find(|outcome| outcome.case == case && outcome.target == target);
    let left_out = outcome.and_then(|outcome| outcome.warmup).unwrap_or(0);
    usable(&bundle.requests, case, target).split_off(left_out)
}

/// Computes every aggregate of a bundle.
#[must_use]
pub fn summarize(bundle: &Bundle) -> Summary {
    let mut summary = Summary::default();
    let bandwidth = BandwidthAt::new(&bundle.probes);
    for target in &bundle.workload.targets {
        for case in &bundle.workload.cases {
            cases::summarize(&mut summary, bundle, &bandwidth, case, &target.id);
        }
        whole::summarize(&mut summary, bundle, &target.id);
    }
    summary.predictions = predictions(bundle, &summary);
    summary
}

fn predictions(bundle: &Bundle, summary: &Summary) -> Vec<Prediction> {
    let Some(plan) = bundle.plan.known() else { return Vec::new() };
    let first = bundle.workload.targets.first().map_or("a", |target| target.id.as_str());
    let beside = |predicted: &crate::bundle::Predicted| Prediction {
        metric: predicted.metric.clone(),
        case: predicted.case.clone(),
        predicted: predicted.value,
        low: predicted.low,
        high: predicted.high,
        measured: summary
            .figure(&predicted.metric, predicted.case.as_deref(), first)
            .map(|figure| figure.value),
    };
    plan.predicted.iter().map(beside).collect()
}

/// Collects figures and reasons of one case, or of the whole trial, and one target.
struct Collector<'a> {
    summary: &'a mut Summary,
    bundle: &'a Bundle,
    case: Option<&'a str>,
    target: &'a str,
}

impl Collector<'_> {
    fn push(&mut self, metric: &str, value: f64, range: Option<Interval>, samples: usize) {
        debug_assert!(crate::metrics::find(metric).is_ok(), "{metric} is no metric");
        self.summary.figures.push(Figure {
            metric: metric.to_owned(),
            case: self.case.map(str::to_owned),
            target: self.target.to_owned(),
            value,
            low: range.map(|range| range.low),
            high: range.map(|range| range.high),
            coverage: range.map(|range| range.coverage),
            samples,
        });
    }

    fn push_level(&mut self, metric: &str, level: Level) {
        let Level { low, high, coverage, .. } = level;
        self.push(metric, level.value, Some(Interval { low, high, coverage }), level.samples);
    }

    fn push_share(&mut self, metric: &str, hits: usize, of: usize) {
        if let Some(share) = crate::stats::wilson(hits as u32, of as u32) {
            let range = Interval { low: share.low, high: share.high, coverage: COVERAGE };
            self.push(metric, share.percent, Some(range), of);
        }
    }

    /// Says why there is no figure: what the bundle says of `field`, else `otherwise`.
    fn absent(&mut self, metric: &str, field: &str, otherwise: &str) {
        debug_assert!(crate::metrics::find(metric).is_ok(), "{metric} is no metric");
        let reasons = &self.bundle.absent.0;
        let of_target = reasons.get(&format!("{}:{field}", self.target));
        let reason = of_target.or_else(|| reasons.get(field)).map_or(otherwise, String::as_str);
        self.summary.absent.push(AbsentFigure {
            metric: metric.to_owned(),
            case: self.case.map(str::to_owned),
            target: self.target.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Says that nothing of these cases was had: because one was left out, or none was wanted.
    fn absent_of(&mut self, metric: &str, fits: impl Fn(&crate::bundle::Case) -> bool) {
        let reason = ended::left_out(self.bundle, fits);
        self.absent(metric, "", reason.as_deref().unwrap_or("no such case was measured"));
    }
}
