//! Where a case becomes steady, and when it has samples enough: the same for who samples and for who computes again.

use super::{decode_tokens_per_s, ttft_ms};
use crate::{
    bundle::{Case, CaseKind, Request, Rules},
    stats::{Stopping, Wanted, Warmup, warmup},
};

/// The samples of a case and target so far.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    ttft_ms: Vec<Option<f64>>,
    decode: Vec<Option<f64>>,
    stopping: Stopping,
    /// Samples that were looked at.
    seen: usize,
}

impl Watch {
    /// Takes a sample; of several at once, the first.
    pub fn take(&mut self, request: &Request) {
        self.ttft_ms.push(ttft_ms(request));
        self.decode.push(decode_tokens_per_s(request));
    }

    /// Whether the intervals of what a case is for are narrow enough. Cases that count something never are.
    pub fn is_precise(&mut self, case: &Case, rules: &Rules) -> bool {
        while self.seen < self.ttft_ms.len() {
            self.seen += 1;
            let ttft = values(&self.ttft_ms[..self.seen]);
            let decode = values(&self.decode[..self.seen]);
            let lead = lead(case.kind, decode.as_deref(), ttft.as_deref());
            let ttft = ttft.as_deref().map(|samples| Wanted { samples, precision: rules.ttft_precision });
            let decode =
                decode.as_deref().map(|samples| Wanted { samples, precision: rules.decode_precision });
            let wanted = match case.kind {
                CaseKind::ColdStart | CaseKind::PrefixHit => vec![ttft],
                CaseKind::Warm => vec![ttft, decode],
                CaseKind::Depth => vec![decode],
                CaseKind::Concurrency | CaseKind::Determinism | CaseKind::Restart | CaseKind::Quality => {
                    return false;
                }
            };
            // One that a sample lacks has no interval of all of them.
            let Some(wanted) = wanted.into_iter().collect::<Option<Vec<_>>>() else { return false };
            let is_last = self.seen >= case.max_samples as usize;
            // Each cold start is a first one: nothing is cut.
            let lead = lead.map_or_else(|| vec![1.0; self.seen], <[f64]>::to_vec);
            self.stopping.look(&lead, &wanted, case.min_samples as usize, is_last);
        }
        self.stopping.is_precise()
    }
}

/// Where the samples of a case become steady.
pub(super) fn steady(case: &Case, samples: &[&Request]) -> Warmup {
    let all = |value: fn(&Request) -> Option<f64>| {
        samples.iter().map(|one| value(one)).collect::<Option<Vec<f64>>>()
    };
    let (decode, ttft) = (all(decode_tokens_per_s), all(ttft_ms));
    lead(case.kind, decode.as_deref(), ttft.as_deref()).map_or(Warmup::Steady { after: 0 }, warmup)
}

/// The series by which a case becomes steady: its decode rates or, of answers of one token, TTFT. None where no sample may be left out: each
/// cold start is a first one, and a strict answer that deviates must count wherever it stands.
fn lead<'a>(kind: CaseKind, decode: Option<&'a [f64]>, ttft: Option<&'a [f64]>) -> Option<&'a [f64]> {
    match kind {
        CaseKind::ColdStart | CaseKind::Determinism => None,
        _ => decode.or(ttft),
    }
}

/// The values of all samples, when all have one.
fn values(samples: &[Option<f64>]) -> Option<Vec<f64>> {
    samples.iter().copied().collect()
}
