//! Speeds that a calibration predicts, beside those that the same machine then shows.

use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use firepot_catalogue::Quant;
use firepot_measure::{quantile, read_bandwidth};
use serde_json::Value;

use crate::{
    bench::{Program, Service},
    synth,
};

/// Arguments of `check-speeds`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The test model, whose tokenizer the synthetic ones get.
    #[arg(long, value_name = "FILE", default_value = "target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf")]
    model: PathBuf,
    /// The program that predicts and serves.
    #[arg(long, value_name = "FILE", default_value = "target/release/firepot")]
    firepot: PathBuf,
    /// How often each model is calibrated and measured.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Where the report is written.
    #[arg(long, value_name = "FILE", default_value = "docs/speeds.md")]
    out: PathBuf,
}

/// Shapes of the catalogue with random weights, and the longest prompt for each: none is a model that the probe measures.
const MODELS: [(&str, Quant, u32); 8] = [
    ("qwen3-0.6b", Quant::Q4KM, 1024),
    ("smollm2-1.7b", Quant::Q4_0, 512),
    ("smollm2-1.7b", Quant::Q4KM, 512),
    ("granite-3.1-1b-a400m", Quant::Q4KM, 1024),
    ("qwen3-0.6b", Quant::Q8_0, 512),
    ("smollm2-1.7b", Quant::Q6K, 512),
    ("smollm2-1.7b", Quant::Q5KM, 512),
    ("r1-distill-qwen-7b", Quant::Q4KM, 128),
];
const PROMPTS: [u32; 4] = [128, 512, 1024, 2048];
/// Tokens of an answer.
const ANSWER: u32 = 24;
/// Shorter answers say too little of decoding.
const ANSWER_MIN: u64 = 12;
/// Prompts that are tried until one gets such an answer.
const TRIES: u32 = 4;

/// A prediction and what came.
#[derive(Clone, Copy, Debug)]
struct Compared {
    predicted: f64,
    low: f64,
    high: f64,
    measured: f64,
}

impl Compared {
    fn of(rate: &Value, measured: f64) -> anyhow::Result<Self> {
        let at = |field: &str| rate[field].as_f64().with_context(|| format!("no {field} in {rate}"));
        Ok(Self { predicted: at("predicted")?, low: at("low")?, high: at("high")?, measured })
    }

    fn error(&self) -> f64 {
        (self.predicted / self.measured - 1.0).abs()
    }

    fn inside(&self) -> bool {
        (self.low..=self.high).contains(&self.measured)
    }
}

/// One answer.
#[derive(Debug)]
struct Case {
    model: String,
    prompt: u32,
    decode: Compared,
    prefill: Compared,
    ttft: Compared,
    /// Bytes per second at the time of the calibration and after the answer.
    bandwidth: (f64, f64),
}

/// Calibrates, predicts and measures every model, and writes the report.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.model.exists(), "{} is not there: `make up` gets it", args.model.display());
    let home = tempfile::tempdir()?;
    let checked = Checked { firepot: &args.firepot.canonicalize()?, home: home.path() };
    let mut models = vec![("smollm2-135m-Q4_1".to_owned(), 2048)];
    checked.command(&["import", path(&args.model)?, &models[0].0])?;
    for (name, quant, longest) in MODELS {
        let model = synth::model(name).map_err(anyhow::Error::msg)?;
        let (file, stored) = (synth::default_path(model, quant), format!("{name}-{}", quant.name()));
        if !file.exists() {
            synth::write_model(model, quant, 1, &args.model, &file)?;
        }
        checked.command(&["import", path(&file)?, &stored])?;
        models.push((stored, longest));
    }
    let mut cases = Vec::new();
    for round in 0..args.rounds {
        for (model, longest) in &models {
            cases.extend(checked.measure(model, *longest, round)?);
            File::create(&args.out)?.write_all(report(&cases)?.as_bytes())?;
        }
    }
    println!("{}", args.out.display());
    Ok(())
}

fn path(file: &Path) -> anyhow::Result<&str> {
    file.to_str().context("a path that is no text")
}

struct Checked<'a> {
    firepot: &'a Path,
    home: &'a Path,
}

impl Checked<'_> {
    fn command(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(self.firepot);
        let output = command.arg("--home").arg(self.home).args(args).output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn measure(&self, model: &str, longest: u32, round: u32) -> anyhow::Result<Vec<Case>> {
        let calibration: Value =
            serde_json::from_str(&self.command(&["calibrate", "--again", "--json", model])?)?;
        // In a slow moment the probe may have had no time for the last type.
        self.command(&["calibrate", model])?;
        let fit: Value = serde_json::from_str(&self.command(&["fit", "--json", model])?)?;
        let fit = &fit["models"][0];
        let speeds =
            fit["speeds"].as_array().with_context(|| format!("{model}: {}", fit["speeds_absent"]))?;
        let mut serve = Command::new(self.firepot);
        serve.arg("--home").arg(self.home).arg("serve");
        let service = Service::start(Program::Firepot, &mut serve, model, &self.home.join("serve.log"))?;
        // Loads it; a model of random weights may say nothing.
        drop(service.complete("Once", 4));
        let mut cases = Vec::new();
        for prompt in PROMPTS.into_iter().filter(|&prompt| prompt <= longest) {
            let predicted = speeds
                .iter()
                .find(|speeds| speeds["prompt_tokens"] == prompt)
                .with_context(|| format!("nothing is predicted for {prompt} tokens"))?;
            // A model of random weights may end at once.
            let mut tries = round * TRIES..(round + 1) * TRIES;
            let answer = tries.find_map(|seed| {
                let answer = service.complete(&text(prompt, seed), ANSWER).ok()?;
                (answer.emitted_tokens >= ANSWER_MIN).then_some(answer)
            });
            let Some(answer) = answer else {
                eprintln!("{model}: {prompt} tokens get no answer");
                continue;
            };
            ensure!(
                answer.prompt_tokens.abs_diff(prompt.into()) * 50 <= prompt.into(),
                "a prompt of {} tokens instead of {prompt}",
                answer.prompt_tokens
            );
            let computing = answer.prompt_computing.context("no time of the prompt")?;
            let decoding = answer.decoding.context("no time of the answer")?;
            let decode = (answer.emitted_tokens - 1) as f64 / decoding.as_secs_f64();
            let case = Case {
                model: model.to_owned(),
                prompt,
                decode: Compared::of(&predicted["decode"], decode)?,
                prefill: Compared::of(
                    &predicted["prefill"],
                    answer.prompt_tokens as f64 / computing.as_secs_f64(),
                )?,
                ttft: Compared::of(&predicted["ttft"], answer.ttft().as_secs_f64())?,
                bandwidth: (calibration["bandwidth"].as_f64().unwrap_or(f64::NAN), read_bandwidth(2)),
            };
            eprintln!("{}", row(&case));
            cases.push(case);
        }
        Ok(cases)
    }
}

/// About so many tokens, which begin as no other prompt does.
fn text(tokens: u32, seed: u32) -> String {
    let mut rng = fastrand::Rng::with_seed((u64::from(tokens) << 32) | u64::from(seed));
    let words = ["the", "house", "and", "water", "time", "people", "year", "light"];
    (0..tokens).flat_map(|_| [" ", words[rng.usize(..words.len())]]).collect()
}

fn row(case: &Case) -> String {
    let cell = |compared: &Compared, digits: usize| {
        let mark = if compared.inside() { "" } else { " ✗" };
        format!("{:.digits$} beside {:.digits$}{mark}", compared.predicted, compared.measured)
    };
    let (then, now) = case.bandwidth;
    format!(
        "| {} | {} | {} | {} | {} | {:.1} → {:.1} |",
        case.model,
        case.prompt,
        cell(&case.decode, 1),
        cell(&case.prefill, 0),
        cell(&case.ttft, 2),
        then / 1e9,
        now / 1e9
    )
}

const HEAD: &str = "# Predicted speeds beside measured ones\n\n`cargo xtask check-speeds` wrote this. Each model is calibrated anew \
    (`firepot calibrate --again`), its speeds are predicted (`firepot fit`), and it then answers prompts of several lengths through the \
    server, one at a time, with nothing in its cache. All within two minutes of the calibration but for the largest models. The models other than \
    SmolLM2 have random weights. An interval is to hold nine of ten.\n\n";

type Figure = fn(&Case) -> Compared;

fn report(cases: &[Case]) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    text.push_str("| figure | cases | mean error | median error | in the interval | asked for |\n|---|---|---|---|---|---|\n");
    let figures: [(&str, Figure, u32); 3] = [
        ("decode, tokens/s", |case| case.decode, 12),
        ("prefill, tokens/s", |case| case.prefill, 12),
        ("first token, s", |case| case.ttft, 15),
    ];
    for (name, of, asked) in figures {
        let errors: Vec<f64> = cases.iter().map(|case| of(case).error() * 100.0).collect();
        let inside = cases.iter().filter(|case| of(case).inside()).count();
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        let median = quantile(&errors, 0.5).unwrap_or(f64::NAN);
        let share = inside * 100 / cases.len().max(1);
        writeln!(
            text,
            "| {name} | {} | {mean:.1} % | {median:.1} % | {share} % | ≤ {asked} %, 85 to 95 % |",
            cases.len()
        )?;
    }
    text.push_str(
        "\n| model | prompt | decode, tokens/s: predicted beside measured | prefill, tokens/s | first token, s | bandwidth, GB/s |\n\
         |---|---|---|---|---|---|\n",
    );
    for case in cases {
        writeln!(text, "{}", row(case))?;
    }
    Ok(text)
}
