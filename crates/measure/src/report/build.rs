//! What a report says, in order: verdicts, figures, drawings, method, raw tables.

use firepot_machine::Reading;

use super::{Input, beside, document::Block, document::Table, meanwhile::meanwhile, number, plots, sections};
use crate::bundle::Bundle;

pub(super) fn document(input: &Input<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    let Some((first, _)) = input.sessions.first() else { return blocks };
    blocks.push(Block::Heading(1, sections::model_on_machine(first)));
    for (bundle, _) in input.sessions {
        blocks.push(Block::Text(about(bundle)));
    }
    blocks.push(Block::Heading(2, "Verdicts".to_owned()));
    blocks.extend(sections::claims(input));
    if !input.claims.is_empty() {
        blocks.push(Block::Heading(3, "The trial itself".to_owned()));
    }
    blocks.push(sections::verdicts(input));
    blocks.push(Block::Heading(2, "Figures".to_owned()));
    blocks.extend(sections::in_short(input));
    blocks.extend(beside::comparisons(input));
    blocks.extend(plots::plots(input));
    blocks.push(Block::Heading(2, "Method".to_owned()));
    blocks.extend(method(first));
    for (index, (bundle, summary)) in input.sessions.iter().enumerate() {
        let title =
            if input.sessions.len() > 1 { format!("Session {}", index + 1) } else { "Raw tables".to_owned() };
        blocks.push(Block::Heading(2, title));
        blocks.extend(what_was_measured(bundle));
        let tables = [
            meanwhile(bundle),
            sections::cases(bundle, summary),
            sections::figures(summary),
            sections::absent(summary),
            sections::needles(bundle),
            sections::restarts(bundle),
            sections::requests(bundle),
        ];
        blocks.extend(tables.into_iter().flatten());
    }
    blocks
}

fn about(bundle: &Bundle) -> String {
    let tool = &bundle.trial.tool;
    let commit = tool.commit.known().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let dirty = if tool.dirty.known() == Some(&true) { " with changes" } else { "" };
    format!(
        "Trial {} of {}, suite {:?}, seed {}, by Firepot {}{commit}{dirty}.",
        bundle.trial.id,
        sections::time(bundle.trial.created_unix_s),
        bundle.workload.suite,
        bundle.workload.seed,
        tool.version
    )
}

/// The definitions that hold for every figure.
fn method(bundle: &Bundle) -> Vec<Block> {
    let (rules, goodput) = (bundle.workload.rules, bundle.workload.goodput);
    let mut texts = vec![
        "TTFT is the time from sending the request to the first token at the client; cold, from the start of the process, with the model's file on disk; warm, with the model loaded and the prompt in no cache; prefix hit, with all but the last message cached. TPOT is (time of the last token − time of the first) / (tokens − 1): the first token is not in it. The decode rate is 1 / TPOT. The prefill rate is the prompt's tokens that were really computed over the time that computing them took. Gaps are between tokens by the server's stamps, or between chunks at the client where the server has none. Where a server neither stamps tokens nor sends them one by one, TPOT and decode rate are absent.".to_owned(),
        format!(
            "A figure is the median of its samples; from 10 samples on its interval is made for {} % and holds in 93 to 97 of 100 simulated series, skewed and drifting ones too (docs/statistics.md). A figure of fewer says how many they were, and what their interval covers: of fewer than 6 it is their range, which holds the truth less often. Sampling stops when half of the interval is within {} % of the decode rate and {} % of TTFT, as far as the case is for them, else at the cap of the case or when its time is over. Samples before a case is steady are found and left out. Shares have Wilson's intervals. Differences are tested by permutation of ranks, corrected after Holm.",
            number(100.0 * rules.coverage),
            number(100.0 * rules.decode_precision),
            number(100.0 * rules.ttft_precision)
        ),
        format!(
            "Goodput counts requests whose first token came within {} ms and each further one within {} ms. Memory bandwidth and the rate at which the processors multiply and add are probed between samples, so that a change of the machine is told from a change of the model. What was predicted was written down before the first sample and is never shown as measured. What could not be measured is absent, with the reason.",
            number(goodput.ttft_ms),
            number(goodput.tpot_ms)
        ),
    ];
    if bundle.workload.cases.iter().any(|case| case.ignore_eos) {
        texts.push(
            "Answers are greedy. But for the quality cases they go on past a token that ends them, up to the length of their case, where the server has an option for it: a short answer would be measured by fewer tokens.".to_owned(),
        );
    }
    texts.push(
        "This page follows from the bundle alone; `firepot check DIR` hashes every file again and computes every figure anew.".to_owned(),
    );
    texts.into_iter().map(Block::Text).collect()
}

fn what_was_measured(bundle: &Bundle) -> Vec<Block> {
    fn told<T: ToString>(reading: &Reading<T>) -> String {
        match reading {
            Reading::Known(value) => value.to_string(),
            Reading::Absent { reason } => format!("not known: {reason}"),
        }
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let machine = &bundle.machine;
    let mut rows = vec![
        row("processor", told(&machine.cpu)),
        row("cores", told(&machine.cores)),
        row("memory, bytes", told(&machine.memory_bytes)),
        row("platform", told(&machine.platform)),
        row("binary, SHA-256", told(&bundle.trial.tool.binary_sha256)),
        row("built with", bundle.trial.tool.build_flags.join(", ")),
    ];
    for gpu in machine.gpus.known().map_or(&[][..], Vec::as_slice) {
        rows.push(row(
            "GPU",
            format!("{}, {} bytes, driver {}", gpu.name, gpu.memory_bytes, told(&gpu.driver)),
        ));
    }
    for target in &bundle.workload.targets {
        rows.push(row("server", format!("{}: {}", target.id, target.server)));
    }
    for model in &bundle.models.models {
        rows.push(row("model", format!("{}: {}", model.target, model.name)));
        rows.push(row("revision", told(&model.revision)));
        rows.push(row("file, bytes", told(&model.size_bytes)));
        rows.push(row("file, SHA-256", told(&model.sha256)));
        rows.push(row("header, SHA-256", told(&model.header_sha256)));
        rows.push(row("tokenizer, SHA-256", told(&model.tokenizer_sha256)));
        rows.push(row("template, SHA-256", told(&model.template_sha256)));
        rows.push(row("parameters", told(&model.parameters)));
        rows.push(row("context of an answer, tokens", told(&model.context_tokens)));
    }
    if let Some(session) = &bundle.session {
        rows.push(row("measured, s", number(session.measured_s)));
        if let Some(why) = session.settings.get("gpu_unused") {
            rows.push(row("GPU not used", why.clone()));
        }
        let hosts = session
            .hosts_contacted
            .clone()
            .map(|hosts| if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") });
        rows.push(row("hosts contacted", told(&hosts)));
        let cost =
            session.cost.clone().map(|cost| format!("{} {} ({})", cost.amount, cost.currency, cost.source));
        rows.push(row("cost", told(&cost)));
    }
    Table::block("What was measured, on what, with what", &["what", "value"], rows).into_iter().collect()
}
