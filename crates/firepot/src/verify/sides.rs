//! Which servers a trial asks: ours, or one at an address, or two in turn.

use std::{net::ToSocketAddrs as _, path::Path, sync::Arc};

use firepot_machine::Reading;
use firepot_measure::bundle::{self, File, TargetKind};
use firepot_store::{Home, Model, write_atomic};
use firepot_trial::{Http, Ollama, Patience, Side, Target, discover};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::{foreign, own};
use crate::{
    attach::Attached,
    cli::{self, Load},
    client::Client,
    exit::{Exit, Failure},
    settings::Settings,
};

/// Name of the file beside a bundle that says how to go on with it. It is no part of the bundle, since it has addresses.
const RESUME: &str = "resume.json";

/// Which servers are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The model, by the first server's name.
    pub model: String,
    /// Address of the first server; without it, ours.
    pub target: Option<String>,
    /// Address of the second server.
    pub versus: Option<String>,
    /// The model, by the second server's name.
    pub versus_model: Option<String>,
    /// Whether machine and processes are looked at.
    pub telemetry: bool,
}

impl Wanted {
    /// What the arguments say of a model.
    pub fn of(args: &cli::Verify, model: &str) -> Self {
        Self {
            model: model.to_owned(),
            target: args.target.clone(),
            versus: args.versus.clone(),
            versus_model: args.versus_model.clone(),
            telemetry: !args.no_telemetry,
        }
    }

    /// Keeps it beside a bundle.
    pub fn keep(&self, dir: &Path) -> anyhow::Result<()> {
        Ok(write_atomic(&dir.join(RESUME), &serde_json::to_vec_pretty(self)?)?)
    }

    /// What was kept beside a bundle.
    pub fn kept(dir: &Path) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let path = dir.join(RESUME);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(nothing_to_resume(dir)),
            read => read.with_context(|| path.display().to_string())?,
        };
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// A finished bundle needs it no more.
    pub fn forget(dir: &Path) {
        // What stays is no part of the bundle.
        let _ = std::fs::remove_file(dir.join(RESUME));
    }
}

/// What servers at named addresses want to see. They are kept nowhere.
#[derive(Default)]
pub struct Keys {
    /// For the first one.
    pub target: Option<String>,
    /// For the second one.
    pub versus: Option<String>,
}

/// The servers of a trial.
#[derive(Default)]
pub struct Sides {
    /// As the trial wants them.
    pub all: Vec<Side>,
    /// Our model's files, when our own server is the first one.
    pub model: Option<Model>,
    /// A server that was started for the trial, or is ours.
    attached: Option<Attached>,
    server_versions: Vec<String>,
    /// Whether a model of them thinks before it answers.
    pub think: bool,
    /// Why our server does not use a GPU that is there.
    pub gpu_unused: Option<String>,
}

impl Sides {
    /// A client of our own server, when it is the first one.
    pub fn own(&self) -> Option<&Client> {
        self.attached.as_ref().map(Attached::client)
    }

    /// Finds the servers, or starts ours.
    pub async fn open(settings: &Settings, home: &Home, wanted: &Wanted, keys: Keys) -> anyhow::Result<Self> {
        let mut found = Self::default();
        match &wanted.target {
            Some(address) => {
                found.add(discover_with(address, keys.target).await?, &wanted.model, true).await?;
            }
            None => found.add_own(settings, home, &wanted.model).await?,
        }
        if let Some(address) = &wanted.versus {
            let model = wanted.versus_model.as_deref().unwrap_or(&wanted.model);
            let added = found.add(discover_with(address, keys.versus).await?, model, false).await;
            if let Err(error) = added {
                found.close().await?;
                return Err(error);
            }
        }
        Ok(found)
    }

    async fn add(&mut self, target: Box<dyn Target>, model: &str, first: bool) -> anyhow::Result<()> {
        let version = target.version().await?;
        target.load(model).await?;
        self.think |= target.thinks(model).await;
        let on_this_machine = is_local(&target.address());
        let id = if first { "a" } else { "b" };
        self.all.push(Side {
            id: id.to_owned(),
            target: Arc::from(target),
            model: model.to_owned(),
            on_this_machine,
            ctx: None,
        });
        self.server_versions.push(version);
        Ok(())
    }

    async fn add_own(&mut self, settings: &Settings, home: &Home, name: &str) -> anyhow::Result<()> {
        let model = crate::commands::pull::find_or_pull(settings, home, name).await?;
        let attached =
            Attached::find_or_start(settings, &Load { snapshot_bytes: Some(0), ..Load::default() }).await?;
        let address = format!("http://{}", attached.client().address());
        let pid = attached.server_pid(settings);
        let http = Http::new(&address, Patience::default())?;
        let name = model.name.to_string();
        let added = self.add(Box::new(Ollama::firepot(http, pid)), &name, true).await;
        if let Err(error) = added {
            attached.stop().await?;
            return Err(error);
        }
        let runners: Value = attached.client().get("/firepot/v1/runners").await?;
        self.gpu_unused = runners["gpu_unused"].as_str().map(str::to_owned);
        let entries = runners["runners"].as_array().map(Vec::as_slice).unwrap_or_default();
        let entry = entries.iter().find(|entry| entry["model"] == name);
        let ctx = entry.and_then(|entry| entry["context_length"].as_u64());
        self.all[0].ctx = ctx.and_then(|ctx| u32::try_from(ctx).ok());
        (self.model, self.attached) = (Some(model), Some(attached));
        Ok(())
    }

    /// The servers as the bundle keeps them.
    pub fn targets(&self) -> Vec<bundle::Target> {
        let sides = self.all.iter().zip(&self.server_versions);
        sides
            .map(|(side, version)| bundle::Target {
                id: side.id.clone(),
                kind: match side.target.kind() {
                    "firepot" => TargetKind::Firepot,
                    "ollama" => TargetKind::Ollama,
                    _ => TargetKind::Openai,
                },
                server: version.clone(),
                on_this_machine: side.on_this_machine,
            })
            .collect()
    }

    /// The models as the bundle keeps them.
    pub fn models(&self) -> bundle::Models {
        let record = |side: &Side| match self.model.as_ref().filter(|_| side.id == "a") {
            Some(model) => {
                let unknown = || Reading::absent("the server does not say it");
                own(&side.id, model, side.ctx.map_or_else(unknown, Reading::Known))
            }
            None => foreign(&side.id, &side.model),
        };
        bundle::Models { models: self.all.iter().map(record).collect() }
    }

    /// Whether the first server is on this machine: it is the one that the bundle's machine is about.
    pub fn are_here(&self) -> bool {
        self.all.first().is_some_and(|side| side.on_this_machine)
    }

    /// Hosts outside this machine that are asked.
    pub fn hosts(&self) -> Vec<String> {
        let away = self.all.iter().filter(|side| !side.on_this_machine);
        let hosts = away.map(|side| host(&side.target.address()));
        hosts.flat_map(|host| resolved(&host).into_iter().chain([host])).collect()
    }

    /// Processes whose sockets are looked at.
    pub fn pids(&self) -> Vec<u32> {
        self.all.iter().filter_map(|side| side.target.server_pid()).collect()
    }

    /// Stops what was started for the trial.
    pub async fn close(self) -> anyhow::Result<()> {
        match self.attached {
            Some(attached) => attached.stop().await,
            None => Ok(()),
        }
    }
}

/// A directory in which no trial waits: it has ended, or was killed before its first sample, or never was one.
fn nothing_to_resume(dir: &Path) -> anyhow::Error {
    let failure = |says: &str| Failure::new(Exit::Failed, format!("{}: {says}", dir.display()));
    let failure = if dir.join(File::Summary.name()).exists() {
        failure("this trial has ended").hint("begin a new one: firepot verify MODEL")
    } else {
        failure("no trial was begun there that could be gone on with")
            .hint("if it is what a killed verify left, it has no sample: remove it, and begin anew")
    };
    failure.into()
}

async fn discover_with(address: &str, key: Option<String>) -> anyhow::Result<Box<dyn Target>> {
    Ok(discover(address, key, Patience::default()).await?)
}

fn host(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}

/// The addresses of a host, as the sockets show them.
fn resolved(host: &str) -> Vec<String> {
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:443")
    };
    with_port.to_socket_addrs().into_iter().flatten().map(|address| address.ip().to_string()).collect()
}

fn is_local(address: &str) -> bool {
    let host = host(address);
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    let ip = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_this_machine_are_told_from_others() {
        for address in ["http://127.0.0.1:11434", "http://localhost:1/v1", "http://[::1]:8080"] {
            assert!(is_local(address), "{address}");
        }
        for address in ["https://example.org/v1", "http://10.0.0.1:1", "http://localhost.example.org"] {
            assert!(!is_local(address), "{address}");
        }
    }
}
