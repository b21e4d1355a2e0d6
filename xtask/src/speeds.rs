//! Speeds that a calibration predicts, beside those that the same machine then shows.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use firepot_catalogue::Quant;
use firepot_machine::{Environment, Machine};
use firepot_measure::{quantile, read_bandwidth};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    bench::{Answer, Program, Service, output},
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
    /// Predictions of an earlier run, with which answers are compared too, else with this one's first; this run's are then
    /// written there.
    #[arg(long, value_name = "FILE", default_value = "target/bench/predicted-speeds.json")]
    earlier: PathBuf,
    /// How often each model is calibrated and measured.
    #[arg(long, default_value_t = 5)]
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
/// The longest first: what is left of a long one is moved out of the KV cache, and would slow the next if it were not.
const PROMPTS: [u32; 4] = [2048, 1024, 512, 128];
/// Tokens of an answer.
const ANSWER: u32 = 32;
/// Answers of one case: so many, or fewer when they take longer than this together.
const ANSWERS_MAX: u32 = 3;
const ANSWERS_TIME: Duration = Duration::from_secs(16);

/// A prediction and what came.
#[derive(Clone, Copy, Debug)]
struct Compared {
    predicted: f64,
    low: f64,
    high: f64,
    measured: f64,
}

impl Compared {
    fn of(rate: Rate, measured: f64) -> Self {
        let Rate { predicted, low, high } = rate;
        Self { predicted, low, high, measured }
    }

    fn error(&self) -> f64 {
        (self.predicted / self.measured - 1.0).abs()
    }

    fn inside(&self) -> bool {
        (self.low..=self.high).contains(&self.measured)
    }
}

/// A predicted figure as `fit` prints it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Rate {
    predicted: f64,
    low: f64,
    high: f64,
}

impl Rate {
    /// The same as the calibration alone has it.
    fn without(self, correction: f64) -> Self {
        let Self { predicted, low, high } = self;
        Self { predicted: predicted / correction, low: low / correction, high: high / correction }
    }
}

/// What `fit` says of answers after a prompt of so many tokens.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Speeds {
    prompt_tokens: u32,
    decode: Rate,
    prefill: Rate,
    ttft: Rate,
}

impl Speeds {
    fn without(self, correction: Option<Correction>) -> Self {
        let Some(Correction { decode, prefill, .. }) = correction else { return self };
        Self {
            decode: self.decode.without(decode),
            prefill: self.prefill.without(prefill),
            ttft: self.ttft.without(1.0 / prefill),
            ..self
        }
    }

    fn beside(self, measured: Measured) -> Figures {
        Figures {
            decode: Compared::of(self.decode, measured.decode),
            prefill: Compared::of(self.prefill, measured.prefill),
            ttft: Compared::of(self.ttft, measured.ttft),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Correction {
    decode: f64,
    prefill: f64,
    answers: u32,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    decode: f64,
    prefill: f64,
    ttft: f64,
}

#[derive(Clone, Copy, Debug)]
struct Figures {
    decode: Compared,
    prefill: Compared,
    ttft: Compared,
}

/// What a calibration predicted of a model, and when in Unix seconds.
#[derive(Debug, Deserialize, Serialize)]
struct Predicted {
    taken_at_s: u64,
    speeds: Vec<Speeds>,
}

/// Such predictions of all models.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Earlier(BTreeMap<String, Predicted>);

impl Earlier {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Minutes since the calibration, and what it predicted.
    fn of(&self, model: &str, prompt: u32) -> Option<(u64, Speeds)> {
        let Predicted { taken_at_s, speeds } = self.0.get(model)?;
        let minutes = unix_s().saturating_sub(*taken_at_s) / 60;
        Some((minutes, *speeds.iter().find(|speeds| speeds.prompt_tokens == prompt)?))
    }
}

/// One answer.
#[derive(Debug)]
struct Case {
    model: String,
    prompt: u32,
    /// From the calibration alone.
    alone: Figures,
    /// Corrected by answers before it.
    corrected: Option<Figures>,
    /// From a calibration so many minutes older.
    older: Option<(u64, Figures)>,
    /// Bytes per second at the time of the calibration and after the answer.
    bandwidth: (f64, f64),
}

/// Calibrates, predicts and measures every model, and writes the report.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.model.exists(), "{} is not there: `make up` gets it", args.model.display());
    let home = tempfile::tempdir()?;
    let earlier = Earlier::read(&args.earlier);
    let checked = Checked { firepot: &args.firepot.canonicalize()?, home: home.path(), earlier };
    let mut models = vec![("smollm2-135m-Q4_1".to_owned(), 2048)];
    checked.command(&["import", path(&args.model)?, &models[0].0])?;
    for (name, quant, longest) in MODELS {
        let model = synth::model(name).map_err(anyhow::Error::msg)?;
        let stored = format!("{name}-{}", quant.name());
        let file = synth::write_missing(model, quant, &args.model)?;
        checked.command(&["import", path(&file)?, &stored])?;
        models.push((stored, longest));
    }
    let machine = Machine::probe(home.path(), &Environment::default());
    let processor = machine.cpu.model.known().map(String::as_str);
    let mut cases = Vec::new();
    let mut now = Earlier::default();
    for round in 0..args.rounds {
        for (model, longest) in &models {
            cases.extend(checked.measure(model, *longest, round, &mut now)?);
            File::create(&args.out)?.write_all(report(&cases, processor)?.as_bytes())?;
        }
    }
    if let Some(dir) = args.earlier.parent() {
        std::fs::create_dir_all(dir)?;
    }
    File::create(&args.earlier)?.write_all(&serde_json::to_vec_pretty(&now)?)?;
    println!("{}", args.out.display());
    Ok(())
}

fn path(file: &Path) -> anyhow::Result<&str> {
    file.to_str().context("a path that is no text")
}

fn unix_s() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

struct Checked<'a> {
    firepot: &'a Path,
    home: &'a Path,
    earlier: Option<Earlier>,
}

impl Checked<'_> {
    fn command(&self, args: &[&str]) -> anyhow::Result<String> {
        output(Command::new(self.firepot).arg("--home").arg(self.home).args(args))
    }

    fn measure(&self, model: &str, longest: u32, round: u32, now: &mut Earlier) -> anyhow::Result<Vec<Case>> {
        let calibration: Value =
            serde_json::from_str(&self.command(&["calibrate", "--again", "--json", model])?)?;
        let fit: Value = serde_json::from_str(&self.command(&["fit", "--json", model])?)?;
        let fit = &fit["models"][0];
        if !fit["speeds"].is_array() {
            eprintln!("{model}: {}", fit["speeds_absent"]);
            return Ok(Vec::new());
        }
        let speeds: Vec<Speeds> = serde_json::from_value(fit["speeds"].clone())?;
        let correction: Option<Correction> = serde_json::from_value(fit["correction"].clone())?;
        let alone = speeds.iter().map(|speeds| speeds.without(correction)).collect();
        now.0.entry(model.to_owned()).or_insert_with(|| Predicted { taken_at_s: unix_s(), speeds: alone });
        let mut serve = Command::new(self.firepot);
        serve.arg("--home").arg(self.home).args(["serve", "--no-reload", "--snapshot-bytes", "0"]);
        let service = Service::start(Program::Firepot, &mut serve, model, &self.home.join("serve.log"))?;
        // Loads it.
        service.complete_stamped("Once", 4, false)?;
        let mut cases = Vec::new();
        for prompt in PROMPTS.into_iter().filter(|&prompt| prompt <= longest) {
            let predicted = speeds
                .iter()
                .find(|speeds| speeds.prompt_tokens == prompt)
                .with_context(|| format!("nothing is predicted for {prompt} tokens"))?;
            let measured = median_answer(&service, prompt, round)?;
            let older = self.earlier.as_ref().or((round > 0).then_some(&*now));
            let older = older.and_then(|earlier| earlier.of(model, prompt));
            let older = older.map(|(minutes, predicted)| (minutes, predicted.beside(measured)));
            let case = Case {
                model: model.to_owned(),
                prompt,
                alone: predicted.without(correction).beside(measured),
                corrected: correction.filter(|found| found.answers > 0).map(|_| predicted.beside(measured)),
                older,
                bandwidth: (calibration["cpu"]["bandwidth"].as_f64().unwrap_or(f64::NAN), read_bandwidth(2)),
            };
            eprintln!("{}", row(&case));
            cases.push(case);
        }
        Ok(cases)
    }
}

/// The median of some answers: one alone says as much of the moment as of the machine.
fn median_answer(service: &Service, prompt: u32, round: u32) -> anyhow::Result<Measured> {
    let started = Instant::now();
    let mut answers = Vec::new();
    for number in 0..ANSWERS_MAX {
        if !answers.is_empty() && started.elapsed() > ANSWERS_TIME {
            break;
        }
        answers.push(measure(
            &service.complete_stamped(&text(prompt, round * ANSWERS_MAX + number), ANSWER, false)?,
            prompt,
        )?);
    }
    let median = |of: fn(&Measured) -> f64| -> anyhow::Result<f64> {
        quantile(&answers.iter().map(of).collect::<Vec<_>>(), 0.5).context("no answer")
    };
    Ok(Measured {
        decode: median(|answer| answer.decode)?,
        prefill: median(|answer| answer.prefill)?,
        ttft: median(|answer| answer.ttft)?,
    })
}

fn measure(answer: &Answer, prompt: u32) -> anyhow::Result<Measured> {
    let Answer { prompt_tokens, emitted_tokens, .. } = *answer;
    ensure!(emitted_tokens == u64::from(ANSWER), "an answer of {emitted_tokens} tokens");
    ensure!(
        prompt_tokens.abs_diff(prompt.into()) * 50 <= u64::from(prompt),
        "a prompt of {prompt_tokens} tokens instead of {prompt}"
    );
    let computing = answer.prompt_computing.context("no time of the prompt")?;
    let decoding = answer.decoding.context("no time of the answer")?;
    Ok(Measured {
        decode: (emitted_tokens - 1) as f64 / decoding.as_secs_f64(),
        prefill: prompt_tokens as f64 / computing.as_secs_f64(),
        ttft: answer.ttft().as_secs_f64(),
    })
}

/// Number of cases, mean and median error, share within the interval.
fn errors(all: &[Figures], of: Figure) -> String {
    let errors: Vec<f64> = all.iter().map(|figures| of(figures).error() * 100.0).collect();
    let inside = all.iter().filter(|figures| of(figures).inside()).count();
    let count = all.len().max(1);
    let mean = errors.iter().sum::<f64>() / count as f64;
    let median = quantile(&errors, 0.5).unwrap_or(f64::NAN);
    format!("{} | {mean:.1} % | {median:.1} % | {} %", all.len(), inside * 100 / count)
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
        cell(&case.alone.decode, 1),
        cell(&case.alone.prefill, 0),
        cell(&case.alone.ttft, 2),
        then / 1e9,
        now / 1e9
    )
}

const HEAD: &str = "# Predicted speeds beside measured ones\n\n`cargo xtask check-speeds` wrote this. Each model is calibrated anew \
    (`firepot calibrate --again`), its speeds are predicted (`firepot fit`), and it then answers prompts of several lengths through the \
    server, one at a time, the longest first, with nothing of them in its cache; a case is the median of three answers, the last of which is begun within 16 s. All within two minutes of the calibration but for the largest models. The models other than \
    SmolLM2 have random weights. From the second round on the answers of the rounds before correct the predictions: these stand in lines of their own. An interval is to hold nine of ten.\n\n";

type Figure = fn(&Figures) -> Compared;

const FIGURES: [(&str, Figure, u32); 3] = [
    ("decode, tokens/s", |figures| figures.decode, 12),
    ("prefill, tokens/s", |figures| figures.prefill, 12),
    ("first token, s", |figures| figures.ttft, 15),
];

fn report(cases: &[Case], processor: Option<&str>) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    if let Some(name) = processor {
        writeln!(text, "Processor: {name}.\n")?;
    }
    text.push_str("| figure | predicted by | cases | mean error | median error | in the interval | asked for |\n|---|---|---|---|---|---|---|\n");
    let alone: Vec<Figures> = cases.iter().map(|case| case.alone).collect();
    let corrected: Vec<Figures> = cases.iter().filter_map(|case| case.corrected).collect();
    let older: Vec<Figures> = cases.iter().filter_map(|case| Some(case.older?.1)).collect();
    let minutes = || cases.iter().filter_map(|case| Some(case.older?.0));
    let older_by = minutes().min().zip(minutes().max());
    let older_by = older_by.map(|(least, most)| format!("a calibration {least} to {most} minutes before"));
    for (name, of, asked) in FIGURES {
        let asked = format!("≤ {asked} %, 85 to 95 %");
        writeln!(text, "| {name} | a calibration just before | {} | {asked} |", errors(&alone, of))?;
        if !corrected.is_empty() {
            writeln!(
                text,
                "| {name} | the same, corrected by answers before | {} | |",
                errors(&corrected, of)
            )?;
        }
        if let Some(by) = &older_by {
            writeln!(text, "| {name} | {by} | {} | |", errors(&older, of))?;
        }
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
