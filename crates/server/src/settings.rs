//! What the server is told when it starts. Resolved by the binary; nothing here reads the environment.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use firepot_store::ModelName;

use crate::{deadline::DeadlineSource, limits, pool::Wishes};

/// Everything that the server is told.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Names of this machine that `Host` may have beside `localhost` and IP addresses of its own, without a
    /// port.
    pub allowed_hosts: Vec<String>,
    /// Origins (`https://chat.example`) whose pages may use the API beside the server's own page.
    pub allowed_origins: Vec<String>,
    /// Ask for a key even on loopback, as behind a tunnel.
    pub require_key: bool,
    /// Certificate and key, to speak TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// How a runner is started.
    pub runner: RunnerCommand,
    /// The program that runs trials, with what stands before its subcommand; without it there are none.
    pub verify: Option<RunnerCommand>,
    /// Where runners log.
    pub log_dir: PathBuf,
    /// Wishes for loading that hold when a request has none.
    pub load: Wishes,
    /// How long a model stays loaded after its last answer when no request says otherwise.
    pub keep_alive: KeepAlive,
    /// Answers that wait or run at the same time, over all models.
    pub max_in_flight: usize,
    /// Who says when the session ends.
    pub deadline: DeadlineSource,
    /// Whether answers are journalled. Only measurements of what that costs do without.
    pub journal: bool,
    /// Whether what was loaded before is loaded again.
    pub reload: Reload,
    /// One sentence for `/api/ps` when a GPU is there and is not used.
    pub gpu_unused: Option<String>,
    /// Where runners keep KV caches of conversations; `None`: nowhere.
    pub snapshots: Option<SnapshotSettings>,
    /// When things count as hung, late or over.
    pub times: Times,
}

/// Where KV caches of conversations are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// The directory.
    pub dir: PathBuf,
    /// Most bytes in it.
    pub bytes_max: u64,
}

impl ServerSettings {
    /// Settings with every default, for runners started by `runner` that log in `log_dir`.
    #[must_use]
    pub fn new(address: SocketAddr, runner: RunnerCommand, log_dir: PathBuf) -> Self {
        Self {
            address,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            require_key: false,
            tls: None,
            runner,
            verify: None,
            log_dir,
            load: Wishes::default(),
            keep_alive: KeepAlive::default(),
            max_in_flight: limits::MAX_IN_FLIGHT,
            deadline: DeadlineSource::Unknown("nobody said it".to_owned()),
            journal: true,
            reload: Reload::default(),
            gpu_unused: None,
            snapshots: None,
            times: Times::default(),
        }
    }

    /// Whether each request needs a key: whoever can reach more than loopback is not alone.
    #[must_use]
    pub fn asks_for_keys(&self) -> bool {
        self.require_key || !self.address.ip().to_canonical().is_loopback()
    }
}

/// What goes on by itself after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Models that were loaded are loaded again, and pulls that were under way go on; otherwise nothing of this is written
    /// down either, and the next server goes by what an earlier one wrote.
    pub enabled: bool,
    /// Models that somebody else is about to load, before all others.
    pub except: Vec<ModelName>,
}

impl Default for Reload {
    fn default() -> Self {
        Self { enabled: true, except: Vec::new() }
    }
}

/// A program that speaks the link on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerCommand {
    /// Its path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// `GLIBC_TUNABLES` for it, which nothing else can say.
    pub libc_tunables: Option<String>,
}

/// How long a model stays loaded after its last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// This long; zero unloads it at once.
    For(Duration),
    /// Until it is unloaded by name or by need of memory.
    Forever,
}

impl Default for KeepAlive {
    /// Ollama's: five minutes.
    fn default() -> Self {
        Self::For(Duration::from_mins(5))
    }
}

/// When things count as hung, late or over. Tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// See [`limits::MAX_SILENCE`].
    pub max_silence: Duration,
    /// See [`limits::MIN_STALL`].
    pub min_stall: Duration,
    /// See [`limits::MIN_LOAD_STALL`].
    pub min_load_stall: Duration,
    /// See [`limits::FIRST_RESTART_PAUSE`].
    pub first_restart_pause: Duration,
    /// See [`limits::STABLE_AFTER`].
    pub stable_after: Duration,
    /// See [`limits::STOP_GRACE`].
    pub stop_grace: Duration,
    /// See [`limits::SHUTDOWN_GRACE`].
    pub shutdown_grace: Duration,
    /// See [`limits::DEADLINE_CLOSES`].
    pub deadline_closes: Duration,
    /// See [`limits::HEADER_READ_TIMEOUT`].
    pub head_read: Duration,
    /// See [`limits::LOGIN_BODY_TIMEOUT`].
    pub login_body: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            max_silence: limits::MAX_SILENCE,
            min_stall: limits::MIN_STALL,
            min_load_stall: limits::MIN_LOAD_STALL,
            first_restart_pause: limits::FIRST_RESTART_PAUSE,
            stable_after: limits::STABLE_AFTER,
            stop_grace: limits::STOP_GRACE,
            shutdown_grace: limits::SHUTDOWN_GRACE,
            deadline_closes: limits::DEADLINE_CLOSES,
            head_read: limits::HEADER_READ_TIMEOUT,
            login_body: limits::LOGIN_BODY_TIMEOUT,
        }
    }
}
