//! Settings, resolved once from arguments and environment. Below this, plain structs are passed on and nothing
//! reads the environment.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Mutex,
};

use clap::ValueEnum as _;
use firepot_machine::Terms;
use firepot_plan::GpuUse;
use firepot_server::pool::Wishes;
use firepot_store::{Access, Home, Secret, Sources};

use crate::{
    cli::{CacheType, Cli, Load},
    gpu::{self, Answers},
    planner::LocalPlanner,
};

/// Ollama's port, so that its clients find Firepot without being told.
pub const DEFAULT_PORT: u16 = 11_434;

/// Name of the home below the user's home directory.
const HOME_DIR: &str = ".firepot";

/// Every environment variable that Firepot reads.
///
/// `FIREPOT_HOME`, `FIREPOT_DISK_BUDGET`, `FIREPOT_HOST`, `FIREPOT_PORT`, `FIREPOT_LOG`, `FIREPOT_CTX`, `FIREPOT_PARALLEL`, `FIREPOT_KV_TYPE`, `FIREPOT_MEMORY`,
/// `FIREPOT_DEADLINE`, `FIREPOT_NO_RELOAD`, `FIREPOT_STATE`, `FIREPOT_NO_CALIBRATION`, `FIREPOT_SNAPSHOT_BYTES` and `FIREPOT_THREADS` stand for the options of the same name and are read with the arguments. The build's
/// `FIREPOT_BACKEND` (`cuda`, `vulkan`, `cpu`) is read by `scripts/backend.sh`.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `HOME`: where the default home lies.
    pub home_dir: Option<PathBuf>,
    /// `KAGGLE_KERNEL_RUN_TYPE`: set on Kaggle.
    pub kaggle: Option<String>,
    /// `COLAB_RELEASE_TAG`: set on Colab.
    pub colab: Option<String>,
    /// `FIREPOT_KEY`: for a server that is not this home's.
    pub key: Option<Secret>,
    /// `GLIBC_TUNABLES`: handed on to runners, in place of ours.
    pub libc_tunables: Option<String>,
    /// `JPY_PARENT_PID`: set in what a Jupyter kernel starts.
    pub jupyter: Option<String>,
    /// `FIREPOT_REGISTRY`: a mirror that stands for Ollama's registry.
    pub registry: Option<String>,
    /// `HF_ENDPOINT`: a mirror that stands for Hugging Face.
    pub hf_endpoint: Option<String>,
    /// `HF_TOKEN`: for repositories that ask for one.
    pub hf_token: Option<Secret>,
    /// `HF_TOKEN_PATH`: a file with it, by default `token` in `HF_HOME`.
    pub hf_token_path: Option<PathBuf>,
    /// `HF_HOME`: by default `~/.cache/huggingface`.
    pub hf_home: Option<PathBuf>,
    /// `HF_HUB_CACHE`: by default `hub` in `HF_HOME`.
    pub hf_hub_cache: Option<PathBuf>,
    /// `OLLAMA_MODELS`: by default `~/.ollama/models`.
    pub ollama_models: Option<PathBuf>,
    /// `OLLAMA_KV_CACHE_TYPE`: for servers, where `--kv-type` says nothing. As with Ollama, a type that is not known is none.
    pub ollama_kv_type: Option<CacheType>,
}

impl Environment {
    /// Reads the environment of this process.
    #[expect(clippy::disallowed_methods, reason = "this is where it is read")]
    pub fn read() -> Self {
        let text = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self {
            home_dir: std::env::home_dir(),
            kaggle: text("KAGGLE_KERNEL_RUN_TYPE"),
            colab: text("COLAB_RELEASE_TAG"),
            registry: text("FIREPOT_REGISTRY"),
            hf_endpoint: text("HF_ENDPOINT"),
            hf_token: text("HF_TOKEN").map(Secret::from),
            key: text("FIREPOT_KEY").filter(|key| !key.is_empty()).map(Secret::from),
            libc_tunables: text("GLIBC_TUNABLES"),
            jupyter: text("JPY_PARENT_PID"),
            hf_token_path: path("HF_TOKEN_PATH"),
            hf_home: path("HF_HOME"),
            hf_hub_cache: path("HF_HUB_CACHE"),
            ollama_models: path("OLLAMA_MODELS"),
            ollama_kv_type: text("OLLAMA_KV_CACHE_TYPE")
                .and_then(|name| CacheType::from_str(name.trim(), true).ok()),
        }
    }
}

/// What holds for every command.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything Firepot keeps.
    pub home: PathBuf,
    /// Most bytes that the store's models may take together.
    pub disk_budget: Option<u64>,
    /// Where the server listens, or is looked for.
    pub address: SocketAddr,
    /// The address was named by the user and is not the default. Port 0 names none: it is any that is free.
    pub address_named: bool,
    /// Planned deaths, also of runners.
    pub die_by: Option<PathBuf>,
    /// What the environment says.
    pub environment: Environment,
}

impl Settings {
    /// Resolves arguments over defaults.
    pub fn resolve(cli: &Cli, environment: Environment) -> Self {
        let default_home = || environment.home_dir.clone().unwrap_or_default().join(HOME_DIR);
        let host = cli.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Self {
            home: cli.home.clone().unwrap_or_else(default_home),
            disk_budget: cli.disk_budget,
            address: SocketAddr::new(host, cli.port.unwrap_or(DEFAULT_PORT)),
            address_named: cli.port != Some(0) && (cli.host.is_some() || cli.port.is_some()),
            die_by: cli.die_by.clone(),
            environment,
        }
    }

    /// The home, and the models of other programs beside it.
    pub fn open_home(&self) -> anyhow::Result<Home> {
        let below = |path: &str| self.environment.home_dir.as_ref().map(|home| home.join(path));
        let environment = &self.environment;
        let ollama = environment.ollama_models.clone().or_else(|| below(".ollama/models"));
        let hub_cache = environment.hf_hub_cache.clone();
        let hugging_face = hub_cache.or_else(|| self.hugging_face_home().map(|home| home.join("hub")));
        let sources = Sources {
            ollama: ollama.into_iter().collect(),
            hugging_face: hugging_face.into_iter().collect(),
        };
        let home = Home::open(&self.home, Access::ReadWrite)?;
        Ok(home.with_sources(sources).with_disk_budget(self.disk_budget))
    }

    /// The token for Hugging Face, from where its own programs look for it; a file longer than `limit` holds none.
    pub fn hugging_face_token(&self, limit: u64) -> Option<String> {
        let environment = &self.environment;
        let of_file = || {
            let kept = || self.hugging_face_home().map(|home| home.join("token"));
            let path = environment.hf_token_path.clone().or_else(kept)?;
            let metadata = std::fs::metadata(&path).ok()?;
            (metadata.is_file() && metadata.len() <= limit).then(|| std::fs::read_to_string(path).ok())?
        };
        let token = environment.hf_token.as_ref().map(|token| token.reveal().to_owned());
        let token = token.filter(|token| !token.is_empty()).or_else(of_file)?;
        let token = token.trim();
        (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())).then(|| token.to_owned())
    }

    /// Names that are taken out of what is handed on: the user's and the machine's.
    pub fn identity(&self) -> firepot_measure::Identity {
        let user = self.environment.home_dir.as_ref().and_then(|home| home.file_name());
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let names = user.map(|name| name.to_string_lossy().into_owned()).into_iter().chain(host);
        let names = names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        firepot_measure::Identity { names: names.collect() }
    }

    fn hugging_face_home(&self) -> Option<PathBuf> {
        let default = || self.environment.home_dir.as_ref().map(|home| home.join(".cache/huggingface"));
        self.environment.hf_home.clone().or_else(default)
    }

    /// Whether what is printed becomes part of a notebook, which is kept and passed on.
    pub fn is_notebook(&self) -> bool {
        let environment = &self.environment;
        environment.jupyter.is_some() || environment.kaggle.is_some() || environment.colab.is_some()
    }

    /// The terms of the platform that this machine belongs to.
    pub fn terms(&self) -> Terms {
        Terms::of(self.planner().probe().platform.kind)
    }

    /// The arguments by which another process of this program works on the same home.
    pub fn home_args(&self) -> Vec<OsString> {
        let budget = self.disk_budget.map(|bytes| format!("--disk-budget={bytes}").into());
        ["--home".into(), self.home.clone().into()].into_iter().chain(budget).collect()
    }

    /// What is wished of every load.
    pub fn wishes(&self, load: &Load) -> Wishes {
        Wishes {
            ctx: load.ctx,
            parallel: load.parallel,
            threads: load.threads,
            kv_type: load.kv_type.or(self.environment.ollama_kv_type).map(Into::into),
            memory_bytes: load.memory.map(|mib| mib << 20),
            ..Wishes::default()
        }
    }

    /// The planner of this machine.
    pub fn planner(&self) -> LocalPlanner {
        let environment = firepot_machine::Environment {
            kaggle_kernel_run_type: self.environment.kaggle.clone(),
            colab_release_tag: self.environment.colab.clone(),
        };
        let gpu = if gpu::has_backend() { GpuUse::Auto } else { GpuUse::NoBackend };
        let (asked, observed_at) = (Answers::default(), Mutex::default());
        LocalPlanner { home: self.home.clone(), environment, gpu, asked, observed_at }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use firepot_engine::KvType;

    use super::*;
    use crate::cli::Command;

    fn resolve(args: &[&str]) -> Settings {
        let environment = Environment { home_dir: Some("/home/ada".into()), ..Environment::default() };
        Settings::resolve(&Cli::parse_from([&["firepot"], args].concat()), environment)
    }

    #[test]
    fn without_arguments_the_home_and_ollamas_address_are_used() {
        let settings = resolve(&["list"]);
        assert_eq!(settings.home, PathBuf::from("/home/ada/.firepot"));
        assert_eq!(settings.address.to_string(), "127.0.0.1:11434");
        assert!(!settings.address_named);
    }

    #[test]
    fn arguments_win() {
        let settings = resolve(&["--home", "/data", "list", "--port", "99", "--host", "::1"]);
        assert_eq!(settings.home, PathBuf::from("/data"));
        assert_eq!(settings.address.to_string(), "[::1]:99");
        assert!(settings.address_named);
        assert!(!resolve(&["--port", "0", "--host", "::1", "list"]).address_named);
    }

    #[test]
    fn a_type_of_cache_that_was_typed_wins_over_ollama_s() {
        let mut settings = resolve(&["list"]);
        let load = |args: &[&str]| match Cli::parse_from([&["firepot", "serve"], args].concat()).command {
            Command::Serve(serve) => serve.load,
            _ => unreachable!("serve was asked for"),
        };
        assert_eq!(settings.wishes(&load(&[])), Wishes::default());
        settings.environment.ollama_kv_type = Some(CacheType::Q8_0);
        let wished = |args| settings.wishes(&load(args));
        assert_eq!(wished(&[]).kv_type, Some(KvType::Q8_0));
        let typed = wished(&["--kv-type", "q4_0", "--memory", "512"]);
        assert_eq!((typed.kv_type, typed.memory_bytes), (Some(KvType::Q4_0), Some(512 << 20)));
    }

    #[test]
    fn load_options_are_handed_on_as_they_were_typed() {
        let args = ["--ctx", "4096", "--kv-type", "q8_0", "--memory", "512"];
        let Command::Serve(serve) = Cli::parse_from([&["firepot", "serve"], &args[..]].concat()).command
        else {
            unreachable!("serve was asked for");
        };
        assert_eq!(crate::attach::load_args(&serve.load), args);
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
