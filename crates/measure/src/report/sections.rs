//! Parts of a report as text and tables.

use super::{
    Input,
    document::{Block, Mark, Table, Verdict},
    number,
};
use crate::{
    bundle::{Bundle, EventKind, QualityKind, QualityLine, Verdict as Checked},
    claims::Answer,
    metrics,
    probed::PROBED,
    repeat::repeatability,
    summary::{Ended, Figure, Summary},
};

/// Rows of a raw table; the bundle has the rest.
const ROWS: usize = 400;

/// A time as people and programs read it.
pub(super) fn time(unix_s: u64) -> String {
    let stamp = i64::try_from(unix_s).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    stamp.map_or_else(|| "unknown".to_owned(), |stamp| stamp.to_string())
}

/// Which model on which machine.
pub(super) fn model_on_machine(bundle: &Bundle) -> String {
    let model = bundle.models.models.first();
    let quantization = model.and_then(|model| model.quantization.known());
    let name = model.map_or("an unknown model", |model| model.name.as_str());
    let gpus = bundle.machine.gpus.known().map_or(&[][..], Vec::as_slice);
    let gpu = gpus.first().map(|gpu| format!("{} × {}, ", gpus.len(), gpu.name)).unwrap_or_default();
    let cpu = bundle.machine.cpu.known().map_or("an unknown processor", String::as_str);
    let cores = bundle.machine.cores.known().map(|cores| format!(", {cores} cores")).unwrap_or_default();
    let quantization = quantization.map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{name}{quantization} on {gpu}{cpu}{cores}")
}

/// Head of a column of figures.
const FIGURE: &str = "figure [95 % unless said]";

/// A figure with its interval; of fewer samples than a level is to have, with their number and what the interval covers.
fn with_range(figure: &Figure) -> String {
    let range = figure.low.zip(figure.high).filter(|(low, high)| low < high);
    let range = range.map(|(low, high)| format!("{}, {}", number(low), number(high)));
    let few = figure.is_of_few().then(|| figure.how_sure());
    let told = [range, few].into_iter().flatten().collect::<Vec<_>>().join("; ");
    let told = if told.is_empty() { told } else { format!(" [{told}]") };
    format!("{}{told}", number(figure.value))
}

pub(super) fn claims(input: &Input<'_>) -> Vec<Block> {
    let sessions = input.pairs();
    let mut blocks = Vec::new();
    for claims in input.claims {
        blocks.push(Block::Heading(3, format!("Claims: {}", claims.source)));
        let verdicts = claims.answer(&sessions).into_iter().map(|answered| Verdict {
            mark: match answered.answer {
                Answer::Confirmed => Mark::Yes,
                Answer::Refuted => Mark::No,
                Answer::NotMeasured => Mark::Open,
            },
            word: answered.answer.name(),
            says: answered.says,
            because: answered.because,
        });
        blocks.push(Block::Verdicts(verdicts.collect()));
    }
    blocks
}

pub(super) fn verdicts(input: &Input<'_>) -> Block {
    let sessions = input.pairs();
    let mut verdicts = Vec::new();
    let together = repeatability(&sessions);
    if let Some(repeatable) = together.repeatable {
        let mut because: Vec<String> = together
            .rows
            .iter()
            .map(|row| {
                let within = row.within_percent.map_or_else(|| "–".to_owned(), number);
                format!(
                    "{} of {}: between sessions {} %, within a session ± {within} %",
                    row.metric,
                    row.case,
                    number(row.between_percent)
                )
            })
            .collect();
        for (what, percent) in together.machine_percent {
            because.extend(percent.map(|percent| format!("{what}: between sessions {} %", number(percent))));
        }
        because.extend(together.reasons.clone());
        let says = format!(
            "{} sessions {} the same.",
            together.sessions,
            if repeatable { "say" } else { "do not say" }
        );
        verdicts.push(verdict(
            repeatable,
            if repeatable { "repeatable" } else { "not repeatable" },
            says,
            because,
        ));
    }
    for (bundle, summary) in sessions {
        for target in &bundle.workload.targets {
            verdicts.extend(of_session(bundle, summary, &target.id));
        }
    }
    Block::Verdicts(verdicts)
}

fn verdict(good: bool, word: &'static str, says: String, because: Vec<String>) -> Verdict {
    Verdict { mark: if good { Mark::Yes } else { Mark::No }, word, says, because }
}

fn of_session(bundle: &Bundle, summary: &Summary, target: &str) -> Vec<Verdict> {
    let figure = |metric| summary.figure(metric, None, target);
    let mut verdicts = Vec::new();
    if let Some(done) = figure("completed_requests") {
        let all = done.value as usize == done.samples;
        let failed = summary.cases.iter().flat_map(|case| {
            case.failed.iter().map(|(kind, count)| format!("{}: {count} × {kind}", case.case))
        });
        let says = format!("{} of {} requests came to their end.", done.value, done.samples);
        verdicts.push(verdict(all, if all { "complete" } else { "incomplete" }, says, failed.collect()));
    }
    if let (Some(lost), Some(restarts)) = (figure("restart_lost_tokens"), figure("restarts")) {
        let whole =
            lost.value == 0.0 && figure("restart_repeated_tokens").is_none_or(|twice| twice.value == 0.0);
        let says = format!("{} runners were killed; {} tokens were lost.", restarts.value, lost.value);
        let next =
            figure("restart_next_token_ms").map(|next| format!("next token after {} ms", with_range(next)));
        verdicts.push(verdict(
            whole,
            if whole { "nothing lost" } else { "lost" },
            says,
            next.into_iter().collect(),
        ));
    }
    if let Some(same) = summary.figure("identical_ids_percent", None, target) {
        let all = same.value >= 100.0;
        let reloads = match summary.figure("identical_ids_reloads", None, target) {
            Some(reloads) if reloads.value > 0.0 => ", the model loaded anew between them",
            Some(_) => "; the model was never loaded anew between them",
            None => "; whether the model was loaded anew between them is not known",
        };
        let share = number(same.value);
        let says = format!("{} strict answers: {share} % have the same token ids{reloads}.", same.samples);
        verdicts.push(verdict(
            all,
            if all { "deterministic" } else { "not deterministic" },
            says,
            Vec::new(),
        ));
    }
    verdicts.extend(left_out(summary, target));
    let judged: Vec<bool> = summary
        .predictions
        .iter()
        .filter_map(|one| Some((one.low?..=one.high?).contains(&one.measured?)))
        .collect();
    if !judged.is_empty() {
        let held = judged.iter().filter(|held| **held).count();
        let says =
            format!("{held} of {} figures lay in the interval that was predicted before.", judged.len());
        verdicts.push(verdict(held == judged.len(), "predicted", says, Vec::new()));
    }
    for probed in PROBED {
        /// Rates follow these two; this much of them is more than the intervals that are aimed at.
        const STEADY_PERCENT: f64 = 10.0;
        let Some(swing) = figure(probed.swing) else { continue };
        let steady = swing.value <= STEADY_PERCENT;
        let (what, moved) = (probed.what, number(swing.value));
        let says = format!("The machine's {what} moved by {moved} % while it was measured.");
        verdicts.push(verdict(steady, if steady { "steady" } else { "not steady" }, says, Vec::new()));
    }
    let interrupted = bundle.events.iter().find_map(|event| match &event.kind {
        EventKind::Interrupted { reason } => Some(reason.clone()),
        _ => None,
    });
    if let Some(reason) = interrupted {
        verdicts.push(Verdict { mark: Mark::Open, word: "interrupted", says: reason, because: Vec::new() });
    }
    verdicts
}

/// Cases without their fewest samples.
fn left_out(summary: &Summary, target: &str) -> Option<Verdict> {
    let of_target = summary.cases.iter().filter(|outcome| outcome.target == target);
    let because: Vec<String> = of_target
        .filter_map(|outcome| match &outcome.ended {
            Some(Ended::LeftOut { reason }) => Some(format!("{}: {reason}", outcome.case)),
            _ => None,
        })
        .collect();
    let count =
        if because.len() == 1 { "1 case was".to_owned() } else { format!("{} cases were", because.len()) };
    let says = format!("{count} left out or cut short.");
    (!because.is_empty()).then_some(Verdict { mark: Mark::Open, word: "left out", says, because })
}

pub(super) fn in_short(input: &Input<'_>) -> Vec<Block> {
    const WANTED: [&str; 13] = [
        "ttft_cold_ms",
        "ttft_warm_ms",
        "ttft_prefix_hit_ms",
        "ttft_answer_ms",
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "gap_p99_ms",
        "throughput_tokens_per_s",
        "peak_memory_bytes",
        "peak_gpu_bytes",
        "bandwidth_bytes_per_s",
        "compute_macs_per_s",
        "quality_percent",
    ];
    let mut rows = Vec::new();
    for (index, (bundle, summary)) in input.sessions.iter().enumerate() {
        for target in &bundle.workload.targets {
            for figure in WANTED.iter().filter_map(|metric| summary.figure(metric, None, &target.id)) {
                let metric = metrics::find(&figure.metric).ok();
                rows.push(vec![
                    metric.map_or(figure.metric.clone(), |metric| metric.what.to_owned()),
                    figure.case.clone().unwrap_or_default(),
                    format!("{} / {}", index + 1, target.server),
                    with_range(figure),
                    metric.map_or(String::new(), |metric| metric.unit.to_owned()),
                    figure.samples.to_string(),
                ]);
            }
        }
    }
    let head = ["what", "case", "session / server", FIGURE, "unit", "samples"];
    Table::block("Figures in short", &head, rows).into_iter().collect()
}

pub(super) fn cases(bundle: &Bundle, summary: &Summary) -> Option<Block> {
    let percent = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| number(100.0 * share));
    let row = |outcome: &crate::summary::CaseOutcome| {
        let case = bundle.workload.cases.iter().find(|case| case.id == outcome.case);
        let failed: Vec<String> =
            outcome.failed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        vec![
            outcome.case.clone(),
            outcome.target.clone(),
            case.map_or_else(String::new, |case| format!("{} + {}", case.depth_tokens, case.prompt_tokens)),
            case.map_or_else(String::new, |case| case.concurrency.to_string()),
            outcome.ended.as_ref().map_or_else(|| "–".to_owned(), Ended::words),
            outcome.requests.to_string(),
            if failed.is_empty() { "0".to_owned() } else { failed.join(", ") },
            outcome.warmup.map_or_else(|| "never steady".to_owned(), |count| count.to_string()),
            percent(outcome.decode_precision),
            percent(outcome.ttft_precision),
            outcome.decode_trend_percent.map_or_else(|| "none".to_owned(), number),
        ]
    };
    let head = [
        "case",
        "target",
        "context + prompt",
        "at once",
        "ended",
        "requests",
        "failed",
        "left out as warm-up",
        "decode ± %",
        "TTFT ± %",
        "trend %",
    ];
    Table::block("Cases", &head, summary.cases.iter().map(row).collect())
}

pub(super) fn figures(summary: &Summary) -> Option<Block> {
    let row = |figure: &Figure| {
        vec![
            figure.metric.clone(),
            figure.case.clone().unwrap_or_default(),
            figure.target.clone(),
            with_range(figure),
            metrics::find(&figure.metric).map_or("", |metric| metric.unit).to_owned(),
            figure.samples.to_string(),
        ]
    };
    let head = ["metric", "case", "target", FIGURE, "unit", "samples"];
    Table::block("All figures", &head, summary.figures.iter().map(row).collect())
}

pub(super) fn absent(summary: &Summary) -> Option<Block> {
    let rows = summary.absent.iter().map(|absent| {
        vec![
            absent.metric.clone(),
            absent.case.clone().unwrap_or_default(),
            absent.target.clone(),
            absent.reason.clone(),
        ]
    });
    Table::block("What could not be measured, and why", &["metric", "case", "target", "why"], rows.collect())
}

pub(super) fn needles(bundle: &Bundle) -> Option<Block> {
    let mut cells: std::collections::BTreeMap<(u32, u32), (u32, u32)> = std::collections::BTreeMap::new();
    for line in &bundle.quality {
        let QualityLine::Question(question) = line else { continue };
        let place = question.length_tokens.zip(question.depth_percent);
        let Some(place) =
            place.filter(|_| question.kind == QualityKind::Needle && question.verdict != Checked::Failed)
        else {
            continue;
        };
        let cell = cells.entry(place).or_default();
        cell.0 += u32::from(question.verdict == Checked::Correct);
        cell.1 += 1;
    }
    let rows = cells.into_iter().map(|((length, depth), (found, of))| {
        vec![length.to_string(), depth.to_string(), format!("{found} of {of}")]
    });
    Table::block("Needles found", &["tokens of text", "depth %", "found"], rows.collect())
}

pub(super) fn restarts(bundle: &Bundle) -> Option<Block> {
    let after = |from: u64, to: Option<u64>| {
        to.and_then(|to| to.checked_sub(from)).map_or_else(|| "–".to_owned(), |us| number(us as f64 / 1000.0))
    };
    let count = |count: Option<u32>| count.map_or_else(|| "–".to_owned(), |count| count.to_string());
    let rows = bundle.restarts.iter().take(ROWS).map(|restart| {
        vec![
            format!("{:?}", restart.fault),
            restart.target.clone(),
            after(restart.killed_us, restart.ready_us),
            after(restart.killed_us, restart.next_token_us),
            restart.tokens_before.to_string(),
            count(restart.tokens_lost),
            count(restart.tokens_repeated),
            if restart.completed { "yes" } else { "no" }.to_owned(),
            restart.error.clone().unwrap_or_default(),
        ]
    });
    let head = [
        "fault",
        "target",
        "ready after ms",
        "next token after ms",
        "tokens before",
        "lost",
        "twice",
        "completed",
        "error",
    ];
    Table::block("Runners that were killed", &head, rows.collect())
}

pub(super) fn requests(bundle: &Bundle) -> Option<Block> {
    let ms = |from: u64, to: Option<u64>| {
        to.and_then(|to| to.checked_sub(from)).map_or_else(|| "–".to_owned(), |us| number(us as f64 / 1000.0))
    };
    let count = |count: Option<u32>| count.map_or_else(|| "–".to_owned(), |count| count.to_string());
    let rows = bundle.requests.iter().take(ROWS).map(|request| {
        let (client, tokens) = (&request.client, &request.tokens);
        vec![
            request.case.clone(),
            request.target.clone(),
            request.index.to_string(),
            format!("{:?}", request.phase).to_lowercase(),
            number(client.sent_us as f64 / 1e6),
            ms(request.spawned_us.unwrap_or(client.sent_us), client.first_us),
            ms(client.sent_us, Some(client.end_us)),
            count(tokens.prompt),
            count(tokens.cached),
            count(tokens.generated),
            tokens.ids_sha256.as_deref().map_or("–", |hash| hash.get(..8).unwrap_or(hash)).to_owned(),
            request.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
        ]
    });
    let caption = if bundle.requests.len() > ROWS {
        format!("Requests: the first {ROWS} of {}, all are in requests.jsonl", bundle.requests.len())
    } else {
        "Requests".to_owned()
    };
    let head = [
        "case",
        "target",
        "no.",
        "phase",
        "sent s",
        "TTFT ms",
        "total ms",
        "prompt",
        "cached",
        "generated",
        "ids",
        "error",
    ];
    Table::block(&caption, &head, rows.collect())
}
