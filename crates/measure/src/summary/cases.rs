//! The figures of one case.

use std::collections::BTreeMap;

use super::{
    BandwidthAt, CaseOutcome, Collector, Ended, Summary,
    ended::{ended, left_out},
    series::{
        decode_tokens_per_s, gaps_ms, is_seen, load_ms, prefill_tokens_per_s, total_ms, tpot_ms,
        ttft_answer_ms, ttft_ms, ttft_server_ms, usable,
    },
    steady::steady,
};
use crate::{
    bundle::{Bundle, Case, CaseKind, Goodput, Phase, QualityLine, Request, Verdict},
    stats::{Level, Warmup, level, quantile},
};

pub(super) fn summarize(
    summary: &mut Summary,
    bundle: &Bundle,
    bandwidth: &BandwidthAt,
    case: &Case,
    target: &str,
) {
    let all: Vec<&Request> = bundle
        .requests
        .iter()
        .filter(|request| request.case == case.id && request.target == target)
        .collect();
    let ended = ended(bundle, case);
    if all.is_empty() {
        return without_requests(summary, bundle, case, target, ended);
    }
    let usable = usable(&bundle.requests, &case.id, target);
    let found = steady(case, &usable);
    let left_out = if let Warmup::Steady { after } = found { after } else { 0 };
    let samples = &usable[left_out..];
    let mut collector = Collector { summary, bundle, case: Some(&case.id), target };
    let levels = push_levels(&mut collector, case, samples, bandwidth);
    if case.kind == CaseKind::Concurrency {
        push_throughput(&mut collector, case, samples);
        push_goodput(&mut collector, &all, bundle.workload.goodput);
    }
    if case.kind == CaseKind::Determinism {
        push_identical(&mut collector, samples);
    }
    let decode = levels.get("decode_tokens_per_s");
    let ttft = levels.get(ttft_metric(case.kind));
    summary.cases.push(CaseOutcome {
        case: case.id.clone(),
        target: target.to_owned(),
        ended,
        requests: all.len(),
        failed: failures(&all),
        warmup: matches!(found, Warmup::Steady { .. }).then_some(left_out),
        decode_precision: decode.and_then(Level::precision),
        ttft_precision: ttft.and_then(Level::precision),
        decode_trend_percent: decode.and_then(|level| level.trend).map(|trend| 100.0 * trend),
    });
}

/// A case that was left out, or one of restarts or questions, whose figures are of the whole trial.
fn without_requests(summary: &mut Summary, bundle: &Bundle, case: &Case, target: &str, ended: Option<Ended>) {
    let restarts = bundle.restarts.iter().filter(|one| one.case == case.id && one.target == target).count();
    let questions: Vec<Verdict> = bundle
        .quality
        .iter()
        .filter_map(|line| match line {
            QualityLine::Question(one) if one.kind.case() == case.id && one.target == target => {
                Some(one.verdict)
            }
            _ => None,
        })
        .collect();
    let taken = restarts + questions.len();
    if let Some(Ended::LeftOut { reason }) = &ended {
        let mut collector = Collector { summary, bundle, case: Some(&case.id), target };
        for metric in main_metrics(case.kind) {
            collector.absent(metric, "", reason);
        }
    } else if taken == 0 {
        return;
    }
    let failed = questions.iter().filter(|verdict| **verdict == Verdict::Failed).count();
    summary.cases.push(CaseOutcome {
        case: case.id.clone(),
        target: target.to_owned(),
        ended,
        requests: taken,
        failed: (failed > 0).then(|| ("failed".to_owned(), failed)).into_iter().collect(),
        warmup: Some(0),
        decode_precision: None,
        ttft_precision: None,
        decode_trend_percent: None,
    });
}

/// What a case is measured for; of those that have requests.
const fn main_metrics(kind: CaseKind) -> &'static [&'static str] {
    match kind {
        CaseKind::ColdStart => &["ttft_cold_ms", "load_ms"],
        CaseKind::Warm => &["ttft_warm_ms", "prefill_tokens_per_s", "decode_tokens_per_s"],
        CaseKind::PrefixHit => &["ttft_prefix_hit_ms"],
        CaseKind::Depth => &["decode_tokens_per_s"],
        CaseKind::Concurrency => &["throughput_tokens_per_s", "goodput_percent"],
        CaseKind::Determinism => &["identical_ids_percent", "identical_ids_reloads"],
        CaseKind::Restart | CaseKind::Quality => &[],
    }
}

/// The metric that TTFT is of in such a case.
pub(crate) const fn ttft_metric(kind: CaseKind) -> &'static str {
    match kind {
        CaseKind::ColdStart => "ttft_cold_ms",
        CaseKind::Warm => "ttft_warm_ms",
        CaseKind::PrefixHit => "ttft_prefix_hit_ms",
        _ => "ttft_loaded_ms",
    }
}

/// Why there is no time for each token of what came from a server without stamps of tokens.
const IN_CHUNKS: &str =
    "the server sends several tokens in a chunk and stamps none: when each came is not known";

/// A metric, its values, and the field that would have them.
type Series = (&'static str, fn(&Request) -> Option<f64>, &'static str);

fn push_levels(
    collector: &mut Collector<'_>,
    case: &Case,
    samples: &[&Request],
    bandwidth: &BandwidthAt,
) -> BTreeMap<&'static str, Level> {
    let series: [Series; 7] = [
        (ttft_metric(case.kind), ttft_ms, "requests.client.first_us"),
        ("ttft_answer_ms", ttft_answer_ms, "requests.tokens.thinking"),
        ("ttft_server_ms", ttft_server_ms, "requests.server.first_us"),
        ("prefill_tokens_per_s", prefill_tokens_per_s, "requests.server.prefill_us"),
        ("decode_tokens_per_s", decode_tokens_per_s, "requests.tokens.generated"),
        ("tpot_ms", tpot_ms, "requests.tokens.generated"),
        ("total_ms", total_ms, "requests.client.end_us"),
    ];
    let mut levels = BTreeMap::new();
    // A cold start is measured for its first token; the machine is not yet warm for the rest.
    let cold = case.kind == CaseKind::ColdStart;
    let left_out = left_out(collector.bundle, |of| of.id == case.id);
    let otherwise = left_out.as_deref().filter(|_| samples.is_empty()).unwrap_or("no request has it");
    let is_in_chunks = samples.iter().any(|request| {
        request.tokens.generated.is_some_and(|count| count > request.tokens.chunks) && !is_seen(request)
    });
    for (metric, value, field) in series {
        if cold && metric != "ttft_cold_ms" && metric != "total_ms" {
            continue;
        }
        let values: Vec<f64> = samples.iter().filter_map(|request| value(request)).collect();
        let of_tokens = matches!(metric, "decode_tokens_per_s" | "tpot_ms");
        let why = if of_tokens && is_in_chunks { IN_CHUNKS } else { otherwise };
        push_series(collector, &mut levels, metric, &values, (field, why));
    }
    let times: Vec<f64> = samples.iter().filter_map(|request| ttft_ms(request)).collect();
    push_quantiles(collector, &times, &[("ttft_p95_ms", 0.95), ("ttft_max_ms", 1.0)]);
    if cold {
        let values: Vec<f64> = samples.iter().filter_map(|request| load_ms(request)).collect();
        push_series(collector, &mut levels, "load_ms", &values, ("requests.ready_us", otherwise));
        return levels;
    }
    let per_gb = |request: &&Request| {
        let gb_per_s = bandwidth.bytes_per_s(request.client.sent_us)? / 1e9;
        decode_tokens_per_s(request).map(|rate| rate / gb_per_s)
    };
    let values: Vec<f64> = samples.iter().filter_map(per_gb).collect();
    let why = if is_in_chunks { IN_CHUNKS } else { otherwise };
    push_series(collector, &mut levels, "decode_tokens_per_gb", &values, ("probes", why));
    push_gaps(collector, samples);
    levels
}

fn push_series(
    collector: &mut Collector<'_>,
    levels: &mut BTreeMap<&'static str, Level>,
    metric: &'static str,
    values: &[f64],
    (field, otherwise): (&str, &str),
) {
    match level(values) {
        Some(level) => {
            collector.push_level(metric, level);
            levels.insert(metric, level);
        }
        // Not every model thinks; that is no gap in the evidence.
        None if metric == "ttft_answer_ms" => {}
        None => collector.absent(metric, field, otherwise),
    }
}

fn push_gaps(collector: &mut Collector<'_>, samples: &[&Request]) {
    let gaps: Vec<f64> = samples.iter().flat_map(|request| gaps_ms(request)).collect();
    let wanted = [("gap_p50_ms", 0.5), ("gap_p95_ms", 0.95), ("gap_p99_ms", 0.99), ("gap_max_ms", 1.0)];
    push_quantiles(collector, &gaps, &wanted);
}

fn push_quantiles(collector: &mut Collector<'_>, values: &[f64], wanted: &[(&str, f64)]) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    for (metric, q) in wanted {
        if let Some(value) = quantile(&sorted, *q) {
            collector.push(metric, value, None, values.len());
        }
    }
}

/// Requests at the same time are one sample: their tokens over the time of all.
fn push_throughput(collector: &mut Collector<'_>, case: &Case, samples: &[&Request]) {
    let mut rounds: BTreeMap<u32, Vec<&Request>> = BTreeMap::new();
    for request in samples {
        rounds.entry(request.index / case.concurrency.max(1)).or_default().push(request);
    }
    let rate = |round: &Vec<&Request>| {
        let tokens: u32 = round.iter().map(|request| request.tokens.generated).sum::<Option<u32>>()?;
        let begun = round.iter().map(|request| request.client.sent_us).min()?;
        let ended = round.iter().map(|request| request.client.end_us).max()?;
        (ended > begun).then(|| f64::from(tokens) * 1e6 / (ended - begun) as f64)
    };
    let whole = rounds.values().filter(|round| round.len() == case.concurrency as usize);
    let rates: Vec<f64> = whole.filter_map(rate).collect();
    match level(&rates) {
        Some(level) => collector.push_level("throughput_tokens_per_s", level),
        None => {
            collector.absent("throughput_tokens_per_s", "requests.tokens.generated", "no round was whole");
        }
    }
}

/// Failed requests are not good. Those of which the time for each token is not known are not judged, unless the first came too late.
fn push_goodput(collector: &mut Collector<'_>, all: &[&Request], limits: Goodput) {
    let is_good = |request: &&Request| -> Option<bool> {
        let begun = request.error.is_none() && ttft_ms(request).is_some_and(|ms| ms <= limits.ttft_ms);
        if !begun || request.tokens.generated.is_some_and(|count| count <= 1) {
            return Some(begun);
        }
        tpot_ms(request).map(|ms| ms <= limits.tpot_ms)
    };
    let sampled = all.iter().filter(|request| request.phase == Phase::Sample);
    let judged: Vec<bool> = sampled.filter_map(is_good).collect();
    if judged.is_empty() {
        return collector.absent("goodput_percent", "requests.tokens.generated", IN_CHUNKS);
    }
    collector.push_share("goodput_percent", judged.iter().filter(|good| **good).count(), judged.len());
}

/// All count, the first ones too: a cut at the beginning could hide the one that deviates.
fn push_identical(collector: &mut Collector<'_>, samples: &[&Request]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for hash in samples.iter().filter_map(|request| request.tokens.ids_sha256.as_deref()) {
        *counts.entry(hash).or_default() += 1;
    }
    let of = counts.values().sum();
    match counts.values().max() {
        Some(most) => collector.push_share("identical_ids_percent", *most, of),
        None => {
            collector.absent(
                "identical_ids_percent",
                "requests.tokens.ids_sha256",
                "no answer has token ids",
            );
        }
    }
    match samples.iter().map(|request| request.reloaded).collect::<Option<Vec<bool>>>() {
        Some(reloaded) => {
            let count = reloaded.iter().filter(|reloaded| **reloaded).count();
            collector.push("identical_ids_reloads", count as f64, None, reloaded.len());
        }
        None => collector.absent("identical_ids_reloads", "requests.reloaded", "the bundle does not say it"),
    }
}

fn failures(all: &[&Request]) -> BTreeMap<String, usize> {
    let mut failed = BTreeMap::new();
    for failure in all.iter().filter_map(|request| request.error.as_ref()) {
        let kind = serde_json::to_value(failure.kind).ok();
        let name = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("other").to_owned();
        *failed.entry(name).or_default() += 1;
    }
    failed
}
