//! The names of everything that a summary may say, with units and in which direction they are better. Claims, comparisons and
//! tables use these names and no others.

/// In which direction a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The higher.
    Higher,
    /// The lower.
    Lower,
    /// Neither: it describes.
    Neither,
}

/// A named figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    /// Unit for people.
    pub unit: &'static str,
    /// In which direction it is better.
    pub better: Better,
}

const fn metric(name: &'static str, unit: &'static str, better: Better, what: &'static str) -> Metric {
    Metric { name, what, unit, better }
}

use Better::{Higher, Lower, Neither};

/// All metrics, in the order in which they are shown.
pub const METRICS: &[Metric] = &[
    metric("ttft_cold_ms", "ms", Lower, "start of the process to first token, file on disk"),
    metric("load_ms", "ms", Lower, "start of the process until the model is loaded"),
    metric("ttft_warm_ms", "ms", Lower, "time to first token, prompt in no cache"),
    metric("ttft_prefix_hit_ms", "ms", Lower, "time to first token, all but the last message cached"),
    metric("ttft_loaded_ms", "ms", Lower, "time to first token, beside other requests or behind a context"),
    metric("ttft_p95_ms", "ms", Lower, "time to first token, 95 of 100 are faster"),
    metric("ttft_max_ms", "ms", Lower, "time to first token, slowest"),
    metric("ttft_answer_ms", "ms", Lower, "time to the first token after the thinking"),
    metric("ttft_server_ms", "ms", Lower, "time to first token by the server's own stamps"),
    metric("prefill_tokens_per_s", "tokens/s", Higher, "prompt tokens computed, cached ones left out"),
    metric("decode_tokens_per_s", "tokens/s", Higher, "tokens after the first"),
    metric(
        "decode_tokens_per_gb",
        "tokens/GB",
        Higher,
        "the same for each GB/s of memory bandwidth just then",
    ),
    metric("tpot_ms", "ms", Lower, "time for each token after the first"),
    metric("gap_p50_ms", "ms", Lower, "gap between tokens, median"),
    metric("gap_p95_ms", "ms", Lower, "gap between tokens, 95 of 100 are shorter"),
    metric("gap_p99_ms", "ms", Lower, "gap between tokens, 99 of 100 are shorter"),
    metric("gap_max_ms", "ms", Lower, "gap between tokens, longest"),
    metric("total_ms", "ms", Lower, "request sent until its answer ended"),
    metric("throughput_tokens_per_s", "tokens/s", Higher, "tokens of all requests at the same time"),
    metric("goodput_percent", "%", Higher, "requests within the limits of TTFT and TPOT"),
    metric("sent_requests", "requests", Neither, "requests that were sent, but for those that warm up"),
    metric("completed_requests", "requests", Higher, "requests that came to their end"),
    metric("completed_percent", "%", Higher, "requests that came to their end"),
    metric("peak_memory_bytes", "bytes", Lower, "most resident memory of the target"),
    metric("peak_memory_percent", "%", Lower, "the same over what the machine has"),
    metric("peak_gpu_bytes", "bytes", Lower, "most memory on GPUs"),
    metric("peak_gpu_percent", "%", Lower, "the same over what the GPUs have"),
    metric("cpu_percent", "%", Neither, "processor time of the target, of one core"),
    metric("other_cpu_percent", "%", Lower, "processor time of everything else, of the whole machine"),
    metric("bandwidth_bytes_per_s", "bytes/s", Higher, "memory bandwidth between samples"),
    metric(
        "bandwidth_swing_percent",
        "%",
        Lower,
        "highest over lowest bandwidth between samples, less 100 %",
    ),
    metric("compute_macs_per_s", "multiply-adds/s", Higher, "compute rate of the processors between samples"),
    metric(
        "compute_swing_percent",
        "%",
        Lower,
        "highest over lowest compute rate between samples, less 100 %",
    ),
    metric("identical_ids_percent", "%", Higher, "strict answers with the most frequent token ids"),
    metric("identical_ids_reloads", "loads", Neither, "loads of the model between those strict answers"),
    metric("restarts", "restarts", Neither, "runners that were killed on purpose"),
    metric(
        "restart_completed_percent",
        "%",
        Higher,
        "answers that came to their end although the runner was killed",
    ),
    metric("restart_lost_tokens", "tokens", Lower, "positions that never reached the client, in all"),
    metric("restart_repeated_tokens", "tokens", Lower, "positions that reached the client twice, in all"),
    metric("restart_ready_ms", "ms", Lower, "kill until a model is loaded again"),
    metric("restart_next_token_ms", "ms", Lower, "kill until the next token is at the client"),
    metric("quality_percent", "%", Higher, "questions answered correctly"),
    metric("quality_arithmetic_percent", "%", Higher, "integer expressions"),
    metric("quality_word_problem_percent", "%", Higher, "stories with one number as answer"),
    metric("quality_logic_percent", "%", Higher, "small puzzles"),
    metric("quality_needle_percent", "%", Higher, "needles found in a long text"),
    metric("quality_json_schema_percent", "%", Higher, "JSON that keeps to its schema"),
    metric("cut_in_thinking_percent", "%", Lower, "answers that ended while thinking"),
    metric("tokens_to_answer", "tokens", Lower, "tokens of thinking before the answer"),
    metric(
        "time_to_answer_ms",
        "ms",
        Lower,
        "question sent until the first token of its answer, thinking included",
    ),
    metric("perplexity", "", Lower, "of the bundled text"),
    metric("context_tokens", "tokens", Higher, "context of one answer"),
    metric("longest_depth_tokens", "tokens", Higher, "longest context behind which an answer was completed"),
    metric("measured_hours", "h", Neither, "length of the trial"),
    metric("session_left_hours", "h", Higher, "what was left of the session at the end"),
    metric("hosts_unexpected", "hosts", Lower, "hosts contacted that are not listed"),
    metric("cost_amount", "", Lower, "what the trial cost"),
    metric("sessions", "sessions", Higher, "bundles that are looked at together"),
    metric("between_decode_percent", "%", Lower, "decode rate: largest difference between sessions"),
    metric("between_ttft_percent", "%", Lower, "TTFT: largest difference between sessions"),
];

/// The metric of a name.
///
/// # Errors
/// The name that looks most like it, if one does.
pub fn find(name: &str) -> Result<&'static Metric, Option<&'static str>> {
    METRICS.iter().find(|metric| metric.name == name).ok_or_else(|| nearest(name))
}

fn nearest(name: &str) -> Option<&'static str> {
    /// Names that are less alike are no help.
    const ALIKE: f64 = 0.7;
    METRICS
        .iter()
        .map(|metric| (strsim::jaro_winkler(metric.name, name), metric.name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_has_its_neighbour() {
        assert_eq!(find("decode_tokens_per_s").unwrap().better, Higher);
        assert_eq!(find("decode_token_per_s"), Err(Some("decode_tokens_per_s")));
        assert_eq!(find("zzz"), Err(None));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
