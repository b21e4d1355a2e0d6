//! The figures of the whole trial.

use super::{Collector, Summary};
use crate::{
    bundle::{Bundle, Case, CaseKind, Phase, QualityKind, QualityLine, Question, Telemetry, Verdict},
    probed::PROBED,
    stats::{level, quantile},
};

pub(super) fn summarize(summary: &mut Summary, bundle: &Bundle, target: &str) {
    let mut collector = Collector { summary, bundle, case: None, target };
    push_completed(&mut collector);
    push_memory(&mut collector);
    push_load(&mut collector);
    push_probes(&mut collector);
    push_restarts(&mut collector);
    push_quality(&mut collector);
    push_session(&mut collector);
}

fn push_completed(collector: &mut Collector<'_>) {
    let target = collector.target;
    let of_target = |request: &&crate::bundle::Request| request.target == target;
    let sampled: Vec<_> =
        collector.bundle.requests.iter().filter(of_target).filter(|one| one.phase == Phase::Sample).collect();
    let completed = sampled.iter().filter(|one| one.error.is_none() && one.finish.is_some()).count();
    collector.push("sent_requests", sampled.len() as f64, None, sampled.len());
    if sampled.is_empty() {
        for metric in ["completed_requests", "completed_percent", "longest_depth_tokens"] {
            collector.absent(metric, "requests", "no request was sent");
        }
        return;
    }
    collector.push("completed_requests", completed as f64, None, sampled.len());
    collector.push_share("completed_percent", completed, sampled.len());
    let cases = &collector.bundle.workload.cases;
    let deep = |id: &str| cases.iter().find(|case| case.id == id && case.kind == CaseKind::Depth);
    let depths = sampled
        .iter()
        .filter(|one| one.error.is_none() && one.finish.is_some())
        .filter_map(|one| deep(&one.case))
        .map(|case| case.depth_tokens);
    match depths.max() {
        Some(longest) => collector.push("longest_depth_tokens", f64::from(longest), None, 1),
        None => collector.absent_of("longest_depth_tokens", |case| case.kind == CaseKind::Depth),
    }
}

fn lines<'a>(collector: &Collector<'a>) -> Vec<&'a Telemetry> {
    collector.bundle.telemetry.iter().filter(|line| line.target == collector.target).collect()
}

fn push_memory(collector: &mut Collector<'_>) {
    let lines = lines(collector);
    match lines.iter().filter_map(|line| line.rss_bytes).max() {
        Some(peak) => {
            collector.push("peak_memory_bytes", peak as f64, None, lines.len());
            if let Some(&total) = collector.bundle.machine.memory_bytes.known().filter(|total| **total > 0) {
                collector.push("peak_memory_percent", 100.0 * peak as f64 / total as f64, None, lines.len());
            }
        }
        None => collector.absent("peak_memory_bytes", "telemetry.rss_bytes", "it was not sampled"),
    }
    let on_gpus = |line: &&Telemetry| {
        line.gpus.iter().map(|gpu| gpu.target_bytes.or(gpu.used_bytes)).sum::<Option<u64>>()
    };
    let gpus = collector.bundle.machine.gpus.known().filter(|gpus| !gpus.is_empty());
    let peak = lines.iter().filter(|line| !line.gpus.is_empty()).filter_map(on_gpus).max();
    match (gpus, peak) {
        (Some(gpus), Some(peak)) => {
            let total: u64 = gpus.iter().map(|gpu| gpu.memory_bytes).sum();
            collector.push("peak_gpu_bytes", peak as f64, None, lines.len());
            collector.push("peak_gpu_percent", 100.0 * peak as f64 / total.max(1) as f64, None, lines.len());
        }
        (Some(_), None) => collector.absent("peak_gpu_bytes", "telemetry.gpus", "it was not sampled"),
        (None, _) => collector.absent("peak_gpu_bytes", "telemetry.gpus", "the machine has no GPU"),
    }
}

fn push_load(collector: &mut Collector<'_>) {
    let lines = lines(collector);
    let used: Vec<f64> = lines.iter().filter_map(|line| line.cpu_percent).collect();
    match quantile(&used, 0.5) {
        Some(middle) => collector.push("cpu_percent", middle, None, used.len()),
        None => collector.absent("cpu_percent", "telemetry.cpu_percent", "it was not sampled"),
    }
    let Some(&cores) = collector.bundle.machine.cores.known().filter(|cores| **cores > 0) else { return };
    let other =
        |line: &&Telemetry| Some((line.machine_percent? - line.cpu_percent? / f64::from(cores)).max(0.0));
    let others: Vec<f64> = lines.iter().filter_map(other).collect();
    match quantile(&others, 0.5) {
        Some(middle) => collector.push("other_cpu_percent", middle, None, others.len()),
        None => collector.absent("other_cpu_percent", "telemetry.machine_percent", "it was not sampled"),
    }
}

fn push_probes(collector: &mut Collector<'_>) {
    for probed in PROBED {
        let rates: Vec<f64> = collector.bundle.probes.iter().map(probed.of).collect();
        let Some(found) = level(&rates) else {
            collector.absent(probed.rate, "probes", "it was not probed");
            continue;
        };
        collector.push_level(probed.rate, found);
        let (low, high) = (quantile(&rates, 0.0), quantile(&rates, 1.0));
        if let (Some(low), Some(high)) = (low.filter(|low| *low > 0.0), high) {
            collector.push(probed.swing, 100.0 * (high / low - 1.0), None, rates.len());
        }
    }
}

fn push_restarts(collector: &mut Collector<'_>) {
    let target = collector.target;
    let restarts: Vec<_> =
        collector.bundle.restarts.iter().filter(|restart| restart.target == target).collect();
    if restarts.is_empty() {
        for metric in [
            "restarts",
            "restart_completed_percent",
            "restart_lost_tokens",
            "restart_repeated_tokens",
            "restart_ready_ms",
            "restart_next_token_ms",
        ] {
            collector.absent_of(metric, |case| case.kind == CaseKind::Restart);
        }
        return;
    }
    let count = restarts.len();
    collector.push("restarts", count as f64, None, count);
    let completed = restarts.iter().filter(|restart| restart.completed).count();
    collector.push_share("restart_completed_percent", completed, count);
    let lost = restarts.iter().map(|restart| restart.tokens_lost).sum::<Option<u32>>();
    let repeated = restarts.iter().map(|restart| restart.tokens_repeated).sum::<Option<u32>>();
    for (metric, tokens) in [("restart_lost_tokens", lost), ("restart_repeated_tokens", repeated)] {
        match tokens {
            Some(tokens) => collector.push(metric, f64::from(tokens), None, count),
            None => {
                collector.absent(metric, "restarts.tokens_lost", "the positions of some answers are unknown");
            }
        }
    }
    let after = |from: u64, to: Option<u64>| to?.checked_sub(from).map(|us| us as f64 / 1000.0);
    let ready: Vec<f64> =
        restarts.iter().filter_map(|restart| after(restart.killed_us, restart.ready_us)).collect();
    let next: Vec<f64> =
        restarts.iter().filter_map(|restart| after(restart.killed_us, restart.next_token_us)).collect();
    for (metric, times) in [("restart_ready_ms", ready), ("restart_next_token_ms", next)] {
        match level(&times) {
            Some(level) => collector.push_level(metric, level),
            None => collector.absent(metric, "restarts.ready_us", "no restart came so far"),
        }
    }
}

fn push_quality(collector: &mut Collector<'_>) {
    let target = collector.target;
    let questions: Vec<&Question> = collector
        .bundle
        .quality
        .iter()
        .filter_map(|line| if let QualityLine::Question(question) = line { Some(question) } else { None })
        .filter(|question| question.target == target && question.verdict != Verdict::Failed)
        .collect();
    let kinds = [
        ("quality_percent", None),
        ("quality_arithmetic_percent", Some(QualityKind::Arithmetic)),
        ("quality_word_problem_percent", Some(QualityKind::WordProblem)),
        ("quality_logic_percent", Some(QualityKind::Logic)),
        ("quality_needle_percent", Some(QualityKind::Needle)),
        ("quality_json_schema_percent", Some(QualityKind::JsonSchema)),
    ];
    for (metric, kind) in kinds {
        let asked: Vec<_> =
            questions.iter().filter(|question| kind.is_none_or(|kind| question.kind == kind)).collect();
        let correct = asked.iter().filter(|question| question.verdict == Verdict::Correct).count();
        if asked.is_empty() {
            let asks =
                |case: &Case| kind.map_or(case.kind == CaseKind::Quality, |kind| kind.case() == case.id);
            collector.absent_of(metric, asks);
        } else {
            collector.push_share(metric, correct, asked.len());
        }
    }
    let cut = questions.iter().filter(|question| question.cut_in_thinking).count();
    collector.push_share("cut_in_thinking_percent", cut, questions.len());
    push_way_to_answer(collector, &questions);
    push_perplexity(collector);
}

/// Tokens and time to the answer, of those that came: what ended while thinking has none.
fn push_way_to_answer(collector: &mut Collector<'_>, questions: &[&Question]) {
    let came = questions.iter().filter_map(|one| Some((one.ttft_answer_us?, one.thinking_tokens)));
    let (times, thinking): (Vec<f64>, Vec<Option<u32>>) =
        came.map(|(us, thinking)| (us as f64 / 1000.0, thinking)).unzip();
    let thinking: Vec<f64> =
        thinking.into_iter().flatten().filter(|&tokens| tokens > 0).map(f64::from).collect();
    // Not every model thinks; that is no gap in the evidence.
    if let Some(level) = level(&thinking) {
        collector.push_level("tokens_to_answer", level);
    }
    match level(&times) {
        Some(level) => collector.push_level("time_to_answer_ms", level),
        None if questions.is_empty() => {
            collector.absent_of("time_to_answer_ms", |case| case.kind == CaseKind::Quality);
        }
        None => collector.absent("time_to_answer_ms", "quality.ttft_answer_us", "no question was answered"),
    }
}

fn push_perplexity(collector: &mut Collector<'_>) {
    let target = collector.target;
    let found = collector.bundle.quality.iter().find_map(|line| match line {
        QualityLine::Perplexity(line) if line.target == target && line.tokens > 0 => Some(line),
        _ => None,
    });
    match found {
        Some(line) => {
            let perplexity = (line.nll / f64::from(line.tokens)).exp();
            collector.push("perplexity", perplexity, None, line.tokens as usize);
        }
        None => collector.absent("perplexity", "quality.perplexity", "it was not measured"),
    }
}

fn push_session(collector: &mut Collector<'_>) {
    let bundle = collector.bundle;
    let target = collector.target;
    let model = bundle.models.models.iter().find(|model| model.target == target);
    match model.map(|model| &model.context_tokens) {
        Some(context) => match context.known() {
            Some(&tokens) => collector.push("context_tokens", f64::from(tokens), None, 1),
            None => collector.absent("context_tokens", "", context.reason().unwrap_or_default()),
        },
        None => collector.absent("context_tokens", "", "the model is not described"),
    }
    let Some(session) = &bundle.session else { return };
    collector.push("measured_hours", session.measured_s / 3600.0, None, 1);
    match session.left_s.known() {
        Some(&left_s) => collector.push("session_left_hours", left_s as f64 / 3600.0, None, 1),
        None => collector.absent("session_left_hours", "", session.left_s.reason().unwrap_or_default()),
    }
    match session.hosts_contacted.known() {
        Some(hosts) => {
            let unexpected = hosts.iter().filter(|host| !session.hosts_expected.contains(host)).count();
            collector.push("hosts_unexpected", unexpected as f64, None, hosts.len());
        }
        None => {
            collector.absent("hosts_unexpected", "", session.hosts_contacted.reason().unwrap_or_default());
        }
    }
    match session.cost.known() {
        Some(cost) => collector.push("cost_amount", cost.amount, None, 1),
        None => collector.absent("cost_amount", "", session.cost.reason().unwrap_or_default()),
    }
}
