//! How cases came to their ends, as the events tell.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, Case, EventKind};

/// How a case came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Ended {
    /// Its interval was narrow enough.
    Precise,
    /// It had as many samples as it may have.
    Samples,
    /// Its time was over, and it had its fewest samples.
    Time,
    /// It was left out, or has fewer samples than it must have.
    LeftOut {
        /// Why.
        reason: String,
    },
}

impl Ended {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Precise => "interval narrow enough".to_owned(),
            Self::Samples => "most samples".to_owned(),
            Self::Time => "its time was over".to_owned(),
            Self::LeftOut { reason } => format!("left out: {reason}"),
        }
    }
}

/// How a case ended; none when it did not.
pub(super) fn ended(bundle: &Bundle, case: &Case) -> Option<Ended> {
    bundle.events.iter().rev().find_map(|event| match &event.kind {
        EventKind::StoppedEarly { case: of, .. } if *of == case.id => Some(Ended::Precise),
        EventKind::Cap { case: of, samples, time_over } if *of == case.id => {
            // Bundles of before do not say it.
            let short = *time_over || *samples < case.max_samples;
            Some(if short { Ended::Time } else { Ended::Samples })
        }
        EventKind::Skipped { case: of, reason } if *of == case.id => {
            Some(Ended::LeftOut { reason: reason.clone() })
        }
        _ => None,
    })
}

/// Why the first of some cases was left out.
pub(super) fn left_out(bundle: &Bundle, fits: impl Fn(&Case) -> bool) -> Option<String> {
    let cases = bundle.workload.cases.iter().filter(|case| fits(case));
    cases.filter_map(|case| ended(bundle, case)).find_map(|ended| match ended {
        Ended::LeftOut { reason } => Some(reason),
        _ => None,
    })
}
