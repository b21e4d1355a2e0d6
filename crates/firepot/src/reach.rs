//! How others reach the server: keys, TLS, and a tunnel. What is printed of it is here too, so that there is one place that prints
//! secrets: a key to whoever made it, a link that opens one session within minutes.

use std::{io::Write as _, path::PathBuf, time::Duration};

use clap::Args;
use firepot_server::{Door, Server, ServerSettings, tls_config};
use firepot_store::Secret;
use firepot_tunnel::{Bind, Event, Pauses, SshOptions, Trouble, Tunnel, Via, keep};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use crate::{
    exit::{Exit, Failure},
    settings::Settings,
};

/// Events of a tunnel that wait to be told.
const MAX_WAITING_EVENTS: usize = 16;

/// Minutes that a login link lives, as the server has it.
const LINK_MINUTES: i64 = firepot_server::limits::LOGIN_LIFE.as_mins();

/// Who may use the server, and how they reach it.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch")]
#[derive(Clone, Debug, Default, Args)]
pub struct Reach {
    /// Ask for a key on loopback too, as behind a tunnel or proxy of your own.
    #[arg(long)]
    pub require_key: bool,
    /// Certificate in PEM, with the chain behind it, to speak TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Open a tunnel, so that you reach the server from anywhere: `ngrok`, `cloudflared` or `ssh:[USER@]HOST[:PORT]`.
    #[arg(long, value_name = "TUNNEL")]
    pub public: Option<Via>,
    /// Where an SSH tunnel listens at the other end; `*:8080` for all of its addresses. By default any port of its loopback.
    #[arg(long, value_name = "[ADDRESS:]PORT", requires = "public")]
    pub tunnel_port: Option<Bind>,
    /// The address by which an SSH tunnel is reached, when a proxy at the other end leads to it.
    #[arg(long, value_name = "URL", requires = "public")]
    pub tunnel_url: Option<String>,
    /// Configuration for ssh in place of your own.
    #[arg(long, value_name = "FILE", requires = "public")]
    pub ssh_config: Option<PathBuf>,
    /// Let clients with a key pull from addresses of private networks.
    #[arg(long)]
    pub allow_private_pulls: bool,
    /// Your word that your plan allows what the platform's rules forbid those who pay nothing, such as a web page on Colab.
    #[arg(long)]
    pub plan_allows: bool,
    /// Print no secret: what is printed goes to a log.
    #[arg(long, hide = true)]
    pub log_output: bool,
}

impl Reach {
    /// The server's settings for it.
    pub fn apply(&self, server: &mut ServerSettings) -> anyhow::Result<()> {
        server.require_key = self.require_key || self.public.is_some();
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let hint = "give a certificate and its key in PEM: --tls-cert FILE --tls-key FILE";
            let config = tls_config(cert, key);
            server.tls = Some(config.map_err(|error| Failure::new(Exit::Failed, error).hint(hint))?);
        }
        let plain = server.tls.is_none() && !server.address.ip().is_loopback();
        if plain {
            eprintln!(
                "warning: whoever is on the way can read along: there is no TLS (--tls-cert, --tls-key)"
            );
        }
        Ok(())
    }

    /// Goes by the platform's rules: what they forbid is refused unless the user's plan allows it; what they only frown upon is told.
    pub fn obey(&self, settings: &Settings) -> anyhow::Result<()> {
        if self.public.is_none() && settings.address.ip().is_loopback() {
            return Ok(());
        }
        let terms = settings.terms();
        let Some(rule) = terms.public else { return Ok(()) };
        let said = format!("{} ({}, read {})", rule.fact.says, rule.fact.source, rule.fact.read);
        if rule.forbids && !self.plan_allows {
            return Err(Failure::new(Exit::Failed, format!("{} does not allow this: {said}", terms.name))
                .hint(format!("{}; if your plan allows it, say so: --plan-allows", rule.instead))
                .into());
        }
        if !self.plan_allows {
            eprintln!("warning: {}: {said}; {}", terms.name, rule.instead);
        }
        Ok(())
    }

    /// The same as arguments again.
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let public = self.public.as_ref().map(|via| match via {
            Via::Ssh { destination, port: Some(port) } => format!("ssh:{destination}:{port}"),
            Via::Ssh { destination, port: None } => format!("ssh:{destination}"),
            other => other.program().to_owned(),
        });
        let bind = self.tunnel_port.as_ref().map(|bind| match &bind.address {
            Some(address) => format!("{address}:{}", bind.port),
            None => bind.port.to_string(),
        });
        let values = [
            ("--tls-cert", path(&self.tls_cert)),
            ("--tls-key", path(&self.tls_key)),
            ("--public", public),
            ("--tunnel-port", bind),
            ("--tunnel-url", self.tunnel_url.clone()),
            ("--ssh-config", path(&self.ssh_config)),
        ];
        let switches = [
            ("--require-key", self.require_key),
            ("--allow-private-pulls", self.allow_private_pulls),
            ("--plan-allows", self.plan_allows),
        ];
        let values = values.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        values.chain(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned())).collect()
    }

    fn tunnel(&self, server: &Server) -> Option<Tunnel> {
        let (bind, config, url) =
            (self.tunnel_port.clone(), self.ssh_config.clone(), self.tunnel_url.clone());
        Some(Tunnel {
            via: self.public.clone()?,
            options: SshOptions { bind, config, url },
            address: server.address(),
            tls: self.tls_cert.is_some(),
            program: None,
            tether: std::env::current_exe()
                .ok()
                .map(|program| vec![program.into(), "tether".into(), "--".into()]),
            pauses: Pauses::default(),
        })
    }
}

/// Makes sure that there is a key where one is asked for, and shows a new one, this once.
pub async fn show_first_key(door: &Door, reach: &Reach, settings: &Settings) -> anyhow::Result<()> {
    if reach.log_output || settings.is_notebook() {
        // A log or a notebook would keep it. Links and `firepot key create` are the way in.
        return Ok(());
    }
    let made = door.first_key().await.map_err(|error| {
        Failure::new(Exit::Home, format!("no key can be made: {error}"))
            .hint("without a key nothing but loopback is served")
    })?;
    made.map_or(Ok(()), |key| print_first_key(&key))
}

/// Shows the first key.
pub fn print_first_key(key: &Secret) -> anyhow::Result<()> {
    println!("A key is asked for. This one may do everything, and is shown this once:");
    println!("  {}", key.reveal());
    println!("`firepot key` makes others, and revokes them.");
    Ok(std::io::stdout().flush()?)
}

/// A tunnel that is kept open. The task ends with an error when there will be none.
pub struct Public(JoinHandle<anyhow::Error>);

impl Public {
    /// Opens the tunnel that was asked for; nothing when none was.
    pub fn open(server: &Server, reach: &Reach) -> Self {
        let (door, shown) = (server.door(), !reach.log_output);
        Self(match reach.tunnel(server) {
            Some(tunnel) => tokio::spawn(follow(tunnel, door, shown)),
            None => tokio::spawn(std::future::pending()),
        })
    }

    /// Waits for the error with which it ends.
    pub async fn failed(&mut self) -> anyhow::Error {
        (&mut self.0).await.unwrap_or_else(anyhow::Error::from)
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells what happens to a tunnel, to the user and to the server. Ends when there never was one.
async fn follow(tunnel: Tunnel, door: Door, shown: bool) -> anyhow::Error {
    let (send, mut events) = mpsc::channel(MAX_WAITING_EVENTS);
    let program = tunnel.via.program();
    // Ends the program with this task.
    let mut kept = JoinSet::new();
    kept.spawn(keep(tunnel, send));
    let mut last = String::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Opened { url } => {
                if let Err(error) = opened(&door, &url, &last, shown).await {
                    return error;
                }
                last = url;
            }
            Event::Lost { trouble, again_in } => {
                door.set_tunnel(None);
                eprintln!("the tunnel is not open: {trouble}; trying again in {} s", secs(again_in));
            }
            Event::GaveUp { trouble, was_open } => {
                door.set_tunnel(None);
                let failure = failure(program, trouble);
                if !was_open {
                    return failure.into();
                }
                eprintln!("error: {failure}");
                eprintln!("the server goes on without its tunnel");
            }
        }
    }
    std::future::pending().await
}

async fn opened(door: &Door, url: &str, last: &str, shown: bool) -> anyhow::Result<()> {
    let address =
        url.parse().map_err(|_| anyhow::anyhow!("the tunnel leads from {url}, which is no address"))?;
    door.set_tunnel(Some(address));
    if url == last {
        println!("The tunnel is open again at {url}");
    } else {
        println!("Reachable from elsewhere at {url}");
        if shown {
            let path = door.login_path("link of the tunnel").await?;
            print_link(url, path.reveal());
        }
    }
    Ok(std::io::stdout().flush()?)
}

/// Shows a link; its secret is behind `#`, which browsers send to nobody.
pub fn print_link(base: &str, path: &str) {
    println!("  log in with this link, once, within {LINK_MINUTES} minutes: {base}{path}");
}

fn failure(program: &str, trouble: Trouble) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("no tunnel by {program}: {trouble}"));
    Failure { hint: trouble.hint, ..failure }
}

fn secs(duration: Duration) -> u64 {
    duration.as_secs().max(1)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::{Cli, Command};

    #[test]
    fn arguments_for_a_process_in_the_background_are_those_that_were_given() {
        let args = [
            "--require-key",
            "--allow-private-pulls",
            "--tls-cert=c.pem",
            "--tls-key=k.pem",
            "--public=ssh:ada@vps:2222",
            "--tunnel-port=*:8080",
            "--tunnel-url=https://chat.example",
            "--ssh-config=conf",
        ];
        let reach = |args: &[&str]| match Cli::parse_from([&["firepot", "serve"], args].concat()).command {
            Command::Serve(serve) => serve.reach,
            _ => unreachable!("serve was asked for"),
        };
        let again = reach(&args).arguments();
        let again: Vec<&str> = again.iter().map(String::as_str).collect();
        assert_eq!(reach(&again).arguments(), reach(&args).arguments());
        assert_eq!(again.len(), args.len());
    }
}
