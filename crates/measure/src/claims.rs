//! Claims: sentences with thresholds for a machine and a model, which a trial confirms or refutes, or does not measure.

mod about;

use serde::Deserialize;

pub use self::about::{MachineIs, ModelIs};
use crate::{
    bundle::{Bundle, Case, CaseKind, MachineRecord},
    metrics,
    repeat::{Repeatability, repeatability},
    report::number,
    summary::{Figure, Summary},
};

/// A file of claims.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who claims this.
    pub source: String,
    /// The machine that the claims are about.
    #[serde(default)]
    pub machine: MachineIs,
    /// The model that the claims are about, where a claim does not name another one.
    #[serde(default)]
    pub model: ModelIs,
    /// The claims.
    #[serde(rename = "claim")]
    pub claims: Vec<Claim>,
}

/// A sentence and what must be so for it to hold.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Names the claim.
    pub id: String,
    /// The sentence.
    pub says: String,
    /// Whether the sentence says that something does not work.
    #[serde(default)]
    pub negative: bool,
    /// The model, when it is another one than the file's.
    pub model: Option<ModelIs>,
    /// What must have been measured for the samples to say anything: how many there are, how long a context was. Where one of
    /// these is missed the claim is not measured, whatever `needs` says.
    #[serde(default)]
    pub requires: Vec<Need>,
    /// All must hold.
    pub needs: Vec<Need>,
}

/// A threshold.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Name of the metric ([`metrics::METRICS`]).
    pub metric: String,
    /// The case; without it, the first that has the metric.
    pub case: Option<String>,
    /// In place of a case: the one with the longest context, of those with at least so many tokens before the prompt.
    pub depth_min: Option<u32>,
    /// The figure must be at least this.
    pub at_least: Option<f64>,
    /// The figure must be at most this.
    pub at_most: Option<f64>,
}

/// A file of claims cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// It is not TOML of this form.
    #[error("the claims cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A metric that does not exist.
    #[error("claim '{claim}' is about the unknown metric '{metric}'")]
    UnknownMetric {
        /// The claim.
        claim: String,
        /// The name.
        metric: String,
        /// A name that looks like it.
        nearest: Option<&'static str>,
    },
    /// A claim that nothing could refute, or a threshold that is no number.
    #[error("claim '{claim}' has no threshold that could be missed")]
    Empty {
        /// The claim.
        claim: String,
    },
    /// A case that is named and described at once.
    #[error("claim '{claim}' gives both 'case' and 'depth_min'")]
    TwoCases {
        /// The claim.
        claim: String,
    },
}

impl ClaimsError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownMetric { nearest, .. } => Some(match nearest {
                Some(name) => format!("did you mean '{name}'?"),
                None => "metrics have names such as 'decode_tokens_per_s' or 'ttft_warm_ms'".to_owned(),
            }),
            Self::Empty { .. } => {
                Some("give each of 'needs' and 'requires' an 'at_least' or 'at_most'".to_owned())
            }
            Self::TwoCases { .. } => Some("leave one of them out".to_owned()),
            Self::Toml(_) => None,
        }
    }
}

/// What the samples say of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All thresholds are kept.
    Confirmed,
    /// One is not.
    Refuted,
    /// The samples do not say.
    NotMeasured,
}

impl Answer {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refuted => "refuted",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A claim with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The claim's name.
    pub id: String,
    /// The sentence.
    pub says: String,
    /// The answer.
    pub answer: Answer,
    /// Figures or reasons, one for each threshold.
    pub because: Vec<String>,
}

impl Claims {
    /// Reads a file of claims.
    ///
    /// # Errors
    /// When it has another form, or names what does not exist.
    pub fn parse(text: &str) -> Result<Self, ClaimsError> {
        let claims: Self = toml::from_str(text)?;
        for claim in &claims.claims {
            let all = || claim.requires.iter().chain(&claim.needs);
            if claim.needs.is_empty() || all().any(|need| !need.can_be_missed()) {
                return Err(ClaimsError::Empty { claim: claim.id.clone() });
            }
            if all().any(|need| need.case.is_some() && need.depth_min.is_some()) {
                return Err(ClaimsError::TwoCases { claim: claim.id.clone() });
            }
            for need in all() {
                metrics::find(&need.metric).map_err(|nearest| ClaimsError::UnknownMetric {
                    claim: claim.id.clone(),
                    metric: need.metric.clone(),
                    nearest,
                })?;
            }
        }
        Ok(claims)
    }

    /// Whether the bundle is of the machine that the claims are about.
    #[must_use]
    pub fn are_about(&self, machine: &MachineRecord) -> bool {
        self.machine.mismatch(machine).is_none()
    }

    /// Answers each claim by the samples of some sessions, of their first target.
    #[must_use]
    pub fn answer(&self, sessions: &[(&Bundle, &Summary)]) -> Vec<Answered> {
        self.claims.iter().map(|claim| self.answer_one(claim, sessions)).collect()
    }

    fn answer_one(&self, claim: &Claim, sessions: &[(&Bundle, &Summary)]) -> Answered {
        let model = claim.model.as_ref().unwrap_or(&self.model);
        let mut others = Vec::new();
        let mut about = Vec::new();
        for (bundle, summary) in sessions {
            let mismatch = self
                .machine
                .mismatch(&bundle.machine)
                .or_else(|| model.mismatch(bundle.models.models.first()));
            match mismatch {
                None => about.push((*bundle, *summary)),
                Some(reason) => others.push(reason),
            }
        }
        others.dedup();
        let (answer, because) = if about.is_empty() {
            let none = if others.is_empty() { vec!["no trial".to_owned()] } else { others };
            (Answer::NotMeasured, none)
        } else {
            claim.judge(&about)
        };
        Answered { id: claim.id.clone(), says: claim.says.clone(), answer, because }
    }
}

impl Claim {
    fn judge(&self, sessions: &[(&Bundle, &Summary)]) -> (Answer, Vec<String>) {
        let together = repeatability(sessions);
        let judged =
            |needs: &[Need]| -> Vec<_> { needs.iter().map(|need| need.judge(sessions, &together)).collect() };
        let missed = judged(&self.requires).into_iter().filter_map(|(answer, because)| match answer {
            Answer::Confirmed => None,
            Answer::Refuted => Some(format!("too little to tell: {because}")),
            Answer::NotMeasured => Some(because),
        });
        let missed: Vec<String> = missed.collect();
        if !missed.is_empty() {
            return (Answer::NotMeasured, missed);
        }
        let found = judged(&self.needs);
        (all_of(&found), found.into_iter().map(|(_, because)| because).collect())
    }
}

/// One missed threshold refutes; one that was not measured keeps the others from confirming.
fn all_of(found: &[(Answer, String)]) -> Answer {
    let any = |wanted| found.iter().any(|(answer, _)| *answer == wanted);
    if any(Answer::Refuted) {
        Answer::Refuted
    } else if any(Answer::NotMeasured) || found.is_empty() {
        Answer::NotMeasured
    } else {
        Answer::Confirmed
    }
}

impl Need {
    fn can_be_missed(&self) -> bool {
        let given = [self.at_least, self.at_most];
        given.iter().any(Option::is_some) && given.iter().flatten().all(|threshold| threshold.is_finite())
    }

    /// Of several sessions each must keep the threshold.
    fn judge(&self, sessions: &[(&Bundle, &Summary)], together: &Repeatability) -> (Answer, String) {
        let whole = match self.metric.as_str() {
            "sessions" => Some(Some(together.sessions as f64)),
            "between_decode_percent" => Some(together.decode_percent),
            "between_ttft_percent" => Some(together.ttft_percent),
            _ => None,
        };
        if let Some(value) = whole {
            let reason =
                || together.reasons.first().cloned().unwrap_or_else(|| "nothing to compare".to_owned());
            return value
                .map_or_else(|| self.missing(&reason()), |value| self.told(value, (value, value), ""));
        }
        let judged: Vec<_> = sessions.iter().map(|session| self.judge_one(*session)).collect();
        let answer = all_of(&judged);
        let because = judged.into_iter().filter(|(one, _)| *one == answer).map(|(_, because)| because);
        (answer, because.collect::<Vec<_>>().join("; "))
    }

    fn judge_one(&self, (bundle, summary): (&Bundle, &Summary)) -> (Answer, String) {
        let target = bundle.workload.targets.first().map_or("a", |target| target.id.as_str());
        let case = match self.depth_min {
            None => self.case.as_deref(),
            Some(least) => match deepest(&bundle.workload.cases, least) {
                Some(case) => Some(case.id.as_str()),
                None => return self.missing("no case has a context that long"),
            },
        };
        if let Some(figure) = summary.figure(&self.metric, case, target) {
            return self.told(figure.value, self.range(figure), &how_many(figure));
        }
        let reason = summary.reason(&self.metric, case, target);
        self.missing(reason.unwrap_or("no such case was measured"))
    }

    /// What is judged by its interval. A count has none. Nor is one asked for where the threshold is the end of the scale: that all of these
    /// requests come to their end, or none, no interval of a share could ever confirm.
    fn range(&self, figure: &Figure) -> (f64, f64) {
        let share = metrics::find(&self.metric).is_ok_and(|metric| metric.unit == "%");
        let is_end =
            |threshold: Option<f64>, end: f64| threshold.is_some_and(|at| at.total_cmp(&end).is_eq());
        if share && (is_end(self.at_least, 100.0) || is_end(self.at_most, 0.0)) {
            return (figure.value, figure.value);
        }
        (figure.low.unwrap_or(figure.value), figure.high.unwrap_or(figure.value))
    }

    fn told(&self, value: f64, (low, high): (f64, f64), of: &str) -> (Answer, String) {
        let (least, most) =
            (self.at_least.unwrap_or(f64::NEG_INFINITY), self.at_most.unwrap_or(f64::INFINITY));
        let mut figure = number(value);
        if low < high {
            figure = format!("{figure} [{}, {}]", number(low), number(high));
        }
        let named = format!("{}{} = {figure}{of}, wanted {}", self.metric, self.of_case(), self.wanted());
        if least <= low && high <= most {
            (Answer::Confirmed, named)
        } else if high < least || low > most {
            (Answer::Refuted, named)
        } else {
            (
                Answer::NotMeasured,
                format!("{named}: the interval holds the threshold, more samples are needed"),
            )
        }
    }

    fn missing(&self, reason: &str) -> (Answer, String) {
        (Answer::NotMeasured, format!("{}{}: {reason}", self.metric, self.of_case()))
    }

    fn of_case(&self) -> String {
        let case = self.case.as_ref().map(|case| format!(" of {case}"));
        let depth = || {
            let depth = number(f64::from(self.depth_min?));
            Some(format!(" behind {depth} tokens or more"))
        };
        case.or_else(depth).unwrap_or_default()
    }

    fn wanted(&self) -> String {
        let least = self.at_least.map(|least| format!("at least {}", number(least)));
        let most = self.at_most.map(|most| format!("at most {}", number(most)));
        [least, most].into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

/// Of how many a share is, and of how few a level.
fn how_many(figure: &Figure) -> String {
    let share = metrics::find(&figure.metric).is_ok_and(|metric| metric.unit == "%");
    match (figure.low, figure.is_of_few()) {
        (Some(_), _) if share => format!(" (of {})", figure.samples),
        (Some(_), true) => format!(" ({})", figure.how_sure()),
        _ => String::new(),
    }
}

fn deepest(cases: &[Case], least: u32) -> Option<&Case> {
    let deep = cases.iter().filter(|case| case.kind == CaseKind::Depth && case.depth_tokens >= least);
    deep.max_by_key(|case| case.depth_tokens)
}
