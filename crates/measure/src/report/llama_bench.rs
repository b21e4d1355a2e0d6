//! Rates in the form of `llama-bench -o json`, for tools that read that.

use serde_json::{Map, Value, json};

use super::Input;
use crate::{
    bundle::{Bundle, Case, CaseKind, Request},
    stats::quantile,
    summary::{decode_tokens_per_s, prefill_tokens_per_s, samples},
};

/// One object for prefill and one for decode of each case with one request at a time. Only fields that are known are there; rates are of requests
/// through a server, so sampling and transport are in them, which `llama-bench` leaves out.
#[must_use]
pub fn llama_bench(input: &Input<'_>) -> String {
    let mut tests = Vec::new();
    for (bundle, summary) in input.sessions {
        for target in &bundle.workload.targets {
            let single = |case: &&Case| matches!(case.kind, CaseKind::Warm | CaseKind::Depth);
            for case in bundle.workload.cases.iter().filter(single) {
                let samples = samples(bundle, summary, &case.id, &target.id);
                let prompt = case.prompt_tokens;
                tests.extend(test(bundle, &target.id, case, &samples, prefill_tokens_per_s, (prompt, 0)));
                tests.extend(test(
                    bundle,
                    &target.id,
                    case,
                    &samples,
                    decode_tokens_per_s,
                    (0, case.max_tokens),
                ));
            }
        }
    }
    format!("{:#}\n", Value::Array(tests))
}

fn test(
    bundle: &Bundle,
    target: &str,
    case: &Case,
    samples: &[&Request],
    rate: fn(&Request) -> Option<f64>,
    (n_prompt, n_gen): (u32, u32),
) -> Option<Value> {
    let rates: Vec<f64> = samples.iter().filter_map(|request| rate(request)).collect();
    let count = rates.len() as f64;
    quantile(&rates, 0.5)?;
    let (mean, deviation) = mean_and_deviation(&rates, count);
    let times: Vec<f64> =
        rates.iter().map(|rate| (f64::from(n_prompt + n_gen) * 1e9 / rate).round()).collect();
    let (mean_ns, deviation_ns) = mean_and_deviation(&times, count);
    let mut test = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            test.insert(name.to_owned(), value);
        }
    };
    let tool = &bundle.trial.tool;
    put("build_commit", json!(tool.commit.known()));
    put("cpu_info", json!(bundle.machine.cpu.known()));
    let gpus = bundle.machine.gpus.known().map_or(&[][..], Vec::as_slice);
    put("gpu_info", json!(gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>().join(", ")));
    if let Some(model) = bundle.models.models.iter().find(|model| model.target == target) {
        put("model_filename", json!(model.name));
        put("model_type", json!(model.quantization.known()));
        put("model_size", json!(model.size_bytes.known()));
        put("model_n_params", json!(model.parameters.known()));
    }
    put("n_prompt", json!(n_prompt));
    put("n_gen", json!(n_gen));
    put("n_depth", json!(case.depth_tokens + if n_gen > 0 { case.prompt_tokens } else { 0 }));
    put("test_time", json!(super::sections::time(bundle.trial.created_unix_s)));
    put("avg_ns", json!(mean_ns.round()));
    put("stddev_ns", json!(deviation_ns.round()));
    put("avg_ts", json!(mean));
    put("stddev_ts", json!(deviation));
    put("samples_ns", json!(times));
    put("samples_ts", json!(rates));
    Some(Value::Object(test))
}

fn mean_and_deviation(values: &[f64], count: f64) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}
