//! `firepot up --detach`: the server in a process of its own, which goes on when this one ends.

use std::{
    fs::OpenOptions,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use firepot_store::{Home, Model};
use serde_json::{Value, json};

use crate::{
    attach,
    cli::Up,
    client::Client,
    commands::key::{first_key, show_link},
    exit::{Exit, Failure},
    reach::print_first_key,
    settings::Settings,
};

/// How long a model may take: a large file on a slow disk takes minutes.
const LIMIT: Duration = Duration::from_mins(10);

const POLL: Duration = Duration::from_millis(50);

/// Starts the same command in the background and waits until its models are loaded.
pub async fn detach(settings: &Settings, home: &Home, models: &[Model], args: &Up) -> anyhow::Result<()> {
    let reach = &args.reach;
    let asks = reach.require_key || reach.public.is_some() || !settings.address.ip().is_loopback();
    let key = if asks && !settings.is_notebook() { first_key(home)? } else { None };
    let log_path = home.logs_dir().join("up.log");
    let log = OpenOptions::new().create(true).append(true).open(&log_path)?;
    let log_start = log.metadata()?.len();
    let mut child = command(settings, models, args)?.stdout(log.try_clone()?).stderr(log).spawn()?;
    let limit = LIMIT * u32::try_from(models.len()).unwrap_or(1);
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Err(ended(status, &log_path, log_start).into());
        }
        if let Some(client) = loaded_in(home, &child, models).await?
            && (reach.public.is_none() || is_public(&client).await?)
        {
            let names: Vec<String> = models.iter().map(|model| model.name.to_string()).collect();
            println!("Firepot is up in the background: {} serves {}.", client.base(), names.join(", "));
            key.as_ref().map_or(Ok(()), print_first_key)?;
            if reach.public.is_some() {
                show_link(&client, &json!({ "name": "link of the tunnel" })).await?;
            }
            println!("`firepot down` stops it.");
            return Ok(());
        }
        if Instant::now() > end {
            attach::terminate(child.id());
            anyhow::bail!("the models were not loaded within {} s", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn command(settings: &Settings, models: &[Model], args: &Up) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(settings.home_args()).arg("--host").arg(settings.address.ip().to_string());
    command.arg("--port").arg(settings.address.port().to_string()).arg("up");
    command.args(models.iter().map(|model| model.name.to_string()));
    command.args(attach::load_args(&args.load)).args(args.allow_cpu.then_some("--allow-cpu"));
    command.args(args.no_calibration.then_some("--no-calibration"));
    command.args(args.session.no_reload.then_some("--no-reload"));
    command.args(args.session.deadline.iter().map(|when| format!("--deadline={when}")));
    if let Some(dir) = &args.session.state {
        command.arg("--state").arg(dir);
    }
    command.args(args.admit.hosts.iter().map(|host| format!("--allow-host={host}")));
    command.args(args.admit.origins.iter().map(|origin| format!("--allow-origin={origin}")));
    command.args(args.reach.arguments()).arg("--log-output");
    command.stdin(Stdio::null()).process_group(0);
    Ok(command)
}

/// What the background process said before it ended becomes this command's own error.
fn ended(status: ExitStatus, log_path: &Path, log_start: u64) -> Failure {
    let said = said_since(log_path, log_start).unwrap_or_default();
    let line = |prefix: &str| said.lines().rev().find_map(|line| line.strip_prefix(prefix));
    let exit = status.code().and_then(Exit::from_code).unwrap_or(Exit::Failed);
    let message = line("error: ").map_or_else(|| format!("the server ended: {status}"), str::to_owned);
    let log_hint = || format!("what it printed is in {}", log_path.display());
    Failure::new(exit, message).hint(line("hint: ").map_or_else(log_hint, str::to_owned))
}

fn said_since(log_path: &Path, start: u64) -> std::io::Result<String> {
    let mut log = std::fs::File::open(log_path)?;
    log.seek(SeekFrom::Start(start))?;
    let mut said = Vec::new();
    log.take(64 << 10).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Whether the tunnel is open.
async fn is_public(client: &Client) -> anyhow::Result<bool> {
    let access: Value = client.get("/firepot/v1/access").await?;
    Ok(access["public_url"].is_string())
}

/// A client once the last of the models is loaded: they are loaded one after the other.
async fn loaded_in(home: &Home, child: &Child, models: &[Model]) -> anyhow::Result<Option<Client>> {
    let Some(record) = home.server_record()?.filter(|record| record.pid == child.id()) else {
        return Ok(None);
    };
    let client = Client::of(&record)?;
    let ps: Value = client.get("/api/ps").await?;
    let last = models.last().map(|model| model.name.to_string()).unwrap_or_default();
    let loaded =
        ps["models"].as_array().is_some_and(|loaded| loaded.iter().any(|entry| entry["name"] == last));
    Ok(loaded.then_some(client))
}
