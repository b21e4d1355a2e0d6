//! What shows the moment of a trial, as screenshots do: the driver's own words, what was loaded, versions, the page and an answer in it.
//! It measures nothing.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use firepot_machine::Machine;
use firepot_measure::bundle::{File, Suite};
use firepot_trial::Trial;
use serde_json::{Value, json};

use crate::{client::Client, program};

/// How long the answer for the picture may take.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
/// What the page needs until it shows everything.
const PAGE_MS: u32 = 2500;
/// Browsers that take pictures without a screen, by the names of their programs.
const BROWSERS: [&str; 5] =
    ["chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome"];

/// The question under the picture.
const QUESTION: &str = "What is 7 times 8? Answer in one sentence.";

/// Gathers proofs into a trial's bundle; of each that cannot be had it notes why. A smoke test has no time for pictures.
pub async fn prove(trial: &Trial, machine: &Machine, own: Option<&Client>, model: &str, suite: Suite) {
    let keep = |file: File, found: anyhow::Result<Vec<u8>>| {
        let kept = found.and_then(|bytes| Ok(trial.prove(file, &bytes)?));
        if let Err(error) = kept {
            trial.absent(file.name(), &format!("{error:#}"));
        }
    };
    keep(File::ProofDriver, program::run("nvidia-smi", &[]).await.map(|said| said.printed));
    let browser = browser().await;
    keep(File::ProofVersions, versions(machine, browser.as_ref()));
    let Some(own) = own else {
        for file in [File::ProofLoaded, File::ProofPage, File::ProofAnswer] {
            trial.absent(file.name(), "the server is another's");
        }
        return;
    };
    keep(File::ProofLoaded, loaded(own).await);
    let pictures = match suite {
        Suite::Smoke => Err(anyhow::anyhow!("pictures are no part of the smoke suite")),
        Suite::Standard | Suite::Full => pictures(own, browser.as_ref(), model).await,
    };
    match pictures {
        Ok([page, answer]) => {
            keep(File::ProofPage, Ok(page));
            keep(File::ProofAnswer, Ok(answer));
        }
        Err(error) => {
            let reason = format!("{error:#}");
            for file in [File::ProofPage, File::ProofAnswer] {
                trial.absent(file.name(), &reason);
            }
        }
    }
}

struct Browser {
    program: &'static str,
    version: String,
}

async fn browser() -> Option<Browser> {
    for program in BROWSERS {
        if let Ok(said) = program::run(program, &["--version"]).await {
            let version = String::from_utf8_lossy(&said.printed).trim().to_owned();
            return Some(Browser { program, version });
        }
    }
    None
}

fn versions(machine: &Machine, browser: Option<&Browser>) -> anyhow::Result<Vec<u8>> {
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    Ok(serde_json::to_vec_pretty(&json!({
        "firepot": env!("CARGO_PKG_VERSION"),
        "llama.cpp": firepot_llama::build_info(),
        "system": os,
        "kernel": kernel.as_deref().map(str::trim),
        "nvidia_driver": machine.gpus.driver_version,
        "cuda_of_driver": machine.gpus.cuda_version,
        "browser": browser.map(|browser| &browser.version),
    }))?)
}

async fn loaded(own: &Client) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(&own.get::<Value>("/api/ps").await?)?)
}

/// The page as it greets, and with an answer. The chat for it is made and removed.
async fn pictures(own: &Client, browser: Option<&Browser>, model: &str) -> anyhow::Result<[Vec<u8>; 2]> {
    let browser = browser.context("no browser is here that takes pictures (chromium or google-chrome)")?;
    let access: Value = own.get("/firepot/v1/access").await?;
    ensure!(access["required"] == false, "the server asks for a key, which a picture would need");
    let folder = tempfile::tempdir()?;
    let page = picture(browser, folder.path(), &format!("{}/", own.base())).await?;
    let chat: Value = own
        .post(
            "/firepot/v1/chats",
            &json!({ "model": model, "settings": { "max_tokens": 128, "temperature": 0 } }),
        )
        .await?;
    let id = chat["id"].as_str().context("the server made a chat without an id")?;
    let path = format!("/firepot/v1/chats/{id}");
    let answer = async {
        answered(own, &path).await?;
        picture(browser, folder.path(), &format!("{}/#/c/{id}", own.base())).await
    };
    let answer = answer.await;
    own.delete(&path).await?;
    Ok([page, answer?])
}

async fn answered(own: &Client, chat: &str) -> anyhow::Result<()> {
    let question = json!({ "kind": "send", "content": QUESTION });
    own.post::<Value>(&format!("{chat}/answer"), &question).await?;
    let end = Instant::now() + ANSWER_LIMIT;
    loop {
        let now: Value = own.get(chat).await?;
        if now["live"].is_null() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the answer took longer than {} s", ANSWER_LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn picture(browser: &Browser, folder: &Path, url: &str) -> anyhow::Result<Vec<u8>> {
    let file = folder.join("picture.png");
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let screenshot = format!("--screenshot={}", file.display());
    let timeout = format!("--timeout={PAGE_MS}");
    // A notebook's user is often root, for whom there is no sandbox; nothing but our own page is shown.
    let switches =
        ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--window-size=1280,900"];
    let args: Vec<&str> =
        switches.into_iter().chain([profile.as_str(), &screenshot, &timeout, url]).collect();
    program::run(browser.program, &args).await?;
    std::fs::read(&file).context("the browser took no picture")
}
