//! How far our stamps are from those of an independent client: both ask the fake the same questions, whose tokens are written
//! by a schedule, in turn. Prints medians and 95 % quantiles of the differences, in milliseconds.
//!
//! `cargo run --release -p firepot-trial --example client_difference [ROUNDS]`; wants Python 3.

use std::{process::Command, time::Duration};

use firepot_measure::quantile;
use firepot_trial::{
    Ask, Clock, Patience, Turn, discover,
    fake::{FakeTarget, Kind, Script},
    watch,
};
use serde_json::Value;

const TOKENS: u32 = 64;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(30), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(compare(rounds))
}

async fn compare(rounds: usize) -> Result<(), Failure> {
    let ms = Duration::from_millis;
    let script = Script { kind: Kind::Ollama, ttft: ms(40), gap: ms(8), jitter: 0.5, ..Script::default() };
    let fake = FakeTarget::start(script).await?;
    let (mut ttft, mut gaps) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let prompt = format!("Question {round}");
        // Whoever goes first must not matter.
        let (ours, theirs) = if round.is_multiple_of(2) {
            let ours = ours(&fake, &prompt).await?;
            (ours, theirs(&fake.url(), &prompt).await?)
        } else {
            let theirs = theirs(&fake.url(), &prompt).await?;
            (ours(&fake, &prompt).await?, theirs)
        };
        ttft.extend(ours.first().zip(theirs.first()).map(|(ours, theirs)| ours - theirs));
        gaps.extend(between(&ours).zip(between(&theirs)).map(|(ours, theirs)| ours - theirs));
    }
    for (what, differences) in [("time to first token", &ttft), ("gaps", &gaps)] {
        let sizes: Vec<f64> = differences.iter().map(|difference| difference.abs()).collect();
        let at = |q| quantile(&sizes, q).unwrap_or(f64::NAN);
        println!(
            "{what}: {} pairs; difference {:+.3} ms in the median; its size {:.3} ms in the median, {:.3} ms at 95 %",
            sizes.len(),
            quantile(differences, 0.5).unwrap_or(f64::NAN),
            at(0.5),
            at(0.95)
        );
    }
    Ok(())
}

fn between(moments: &[f64]) -> impl Iterator<Item = f64> + '_ {
    moments.windows(2).map(|two| two[1] - two[0])
}

/// When each token came, in milliseconds from sending, as a trial sees it.
async fn ours(fake: &FakeTarget, prompt: &str) -> Result<Vec<f64>, Failure> {
    let target = discover(&fake.url(), None, Patience::default()).await?;
    let ask = Ask {
        model: "fake".into(),
        turns: vec![Turn::user(prompt)],
        max_tokens: TOKENS,
        ctx: 2048,
        strict: false,
        schema: None,
    };
    let clock = Clock::start();
    let (seen, error) = watch(target.generate(&ask, clock).await?, clock, |_| {}).await;
    match error {
        Some(error) => Err(error.into()),
        None => Ok(seen.steps.iter().map(|step| (step.at_ns - seen.sent_ns) as f64 / 1e6).collect()),
    }
}

/// The same, as the independent client sees it.
async fn theirs(url: &str, prompt: &str) -> Result<Vec<f64>, Failure> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/stamps.py");
    let mut python = Command::new("python3");
    python.args([script, url, prompt, &TOKENS.to_string()]);
    let output = tokio::task::spawn_blocking(move || python.output()).await??;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let stamps: Value = serde_json::from_slice(&output.stdout)?;
    Ok(stamps.as_array().into_iter().flatten().filter_map(Value::as_f64).collect())
}
