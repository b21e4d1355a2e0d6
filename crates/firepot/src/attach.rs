//! Finding the server that is running, or starting one for as long as a command needs it.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::ValueEnum as _;
use firepot_store::{Access, Home, ServerRecord};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cli::Load,
    client::Client,
    exit::{Exit, Failure},
    settings::Settings,
};

/// How long a server that was just started may take until it listens: before that it asks llama.cpp for GPUs, whose driver may have to wake up.
const START_LIMIT: Duration = Duration::from_mins(1);

/// How long a server may take to end after it was asked to.
pub const STOP_LIMIT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);

/// A server to talk to, and whether this command must stop it again.
pub struct Attached {
    client: Client,
    started: Option<Child>,
}

impl Attached {
    /// The running server of this home, else the one at a named address, else one that is started for now.
    pub async fn find_or_start(settings: &Settings, load: &Load) -> anyhow::Result<Self> {
        match running(settings).await? {
            Some(client) => Ok(Self { client, started: None }),
            None => start(settings, load).await,
        }
    }

    /// The server's API.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The server's process, when it was started here or is the one of this home.
    pub fn server_pid(&self, settings: &Settings) -> Option<u32> {
        let of_home = || {
            let record = Home::open(&settings.home, Access::ReadOnly).ok()?.server_record().ok()??;
            (record.address == self.client.address()).then_some(record.pid)
        };
        self.started.as_ref().map(Child::id).or_else(of_home)
    }

    /// Stops the server if it was started here.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Some(mut child) = self.started else { return Ok(()) };
        terminate(child.id());
        let end = Instant::now() + STOP_LIMIT;
        while child.try_wait()?.is_none() {
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// Asks a process to end.
pub fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// A client of the server that is running, if there is one: at the address that the user named, else at the one
/// that the home's record holds.
pub async fn running(settings: &Settings) -> anyhow::Result<Option<Client>> {
    let record = recorded(settings).filter(|record| record.address == settings.address);
    match record {
        _ if !settings.address_named => own(settings).await,
        Some(record) => answering(Client::of(&record)?).await,
        None => answering(Client::new(settings.address, settings.environment.key.clone())?).await,
    }
}

/// A client of the server that is running on this home, wherever it listens.
pub async fn own(settings: &Settings) -> anyhow::Result<Option<Client>> {
    let Some(record) = recorded(settings) else { return Ok(None) };
    answering(Client::of(&record)?).await
}

async fn answering(client: Client) -> anyhow::Result<Option<Client>> {
    Ok(client.is_there().await.then_some(client))
}

/// The server that is running, or an error that says how to start one.
pub async fn require(settings: &Settings) -> anyhow::Result<Client> {
    running(settings).await?.ok_or_else(|| {
        Failure::new(Exit::NoServer, format!("no server is running for {}", settings.home.display()))
            .hint("start one with: firepot up")
            .into()
    })
}

fn recorded(settings: &Settings) -> Option<ServerRecord> {
    Home::open(&settings.home, Access::ReadOnly).ok()?.server_record().ok().flatten()
}

async fn start(settings: &Settings, load: &Load) -> anyhow::Result<Attached> {
    let mut child = spawn_serve(settings, load)?;
    let end = Instant::now() + START_LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("the server ended before it listened ({status}); its reason is above");
        }
        let record =
            Home::open(&settings.home, Access::ReadOnly).ok().and_then(|home| home.server_record().ok()?);
        if let Some(record) = record.filter(|record| record.pid == child.id()) {
            return Ok(Attached { client: Client::of(&record)?, started: Some(child) });
        }
        if Instant::now() > end {
            child.kill()?;
            anyhow::bail!("the server did not listen within {} s", START_LIMIT.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A server of this home on a free port, in a process group of its own so that Ctrl-C reaches only this command. It ends with this
/// process, however that ends.
fn spawn_serve(settings: &Settings, load: &Load) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(settings.home_args()).args(["--host", "127.0.0.1", "--port", "0", "--log", "error"]);
    command
        .arg("serve")
        .args(["--no-reload", "--until-eof"])
        .args(load_args(load))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0);
    Ok(command.spawn()?)
}

/// The same load options as arguments again.
pub fn load_args(load: &Load) -> Vec<String> {
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let kv_type = load.kv_type.and_then(|kind| Some(kind.to_possible_value()?.get_name().to_owned()));
    let options = [
        ("--ctx", number(load.ctx.map(u64::from))),
        ("--parallel", number(load.parallel.map(u64::from))),
        ("--kv-type", kv_type),
        ("--memory", number(load.memory)),
        ("--threads", number(load.threads.map(u64::from))),
        ("--snapshot-bytes", number(load.snapshot_bytes)),
    ];
    options
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| [name.to_owned(), value]))
        .flatten()
        .collect()
}
