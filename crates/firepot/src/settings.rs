//! Settings, resolved once from arguments and environment. Below this, plain structs are passed on and nothing
//! reads the environment.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use firepot_plan::GpuUse;

use crate::{cli::Cli, gpu, planner::LocalPlanner};

/// Ollama's port, so that its clients find Firepot without being told.
pub const DEFAULT_PORT: u16 = 11_434;

/// Name of the home below the user's home directory.
const HOME_DIR: &str = ".firepot";

/// Every environment variable that Firepot reads.
///
/// `FIREPOT_HOME`, `FIREPOT_HOST`, `FIREPOT_PORT`, `FIREPOT_LOG`, `FIREPOT_CTX`, `FIREPOT_PARALLEL` and
/// `FIREPOT_THREADS` stand for the options of the same name and are read with the arguments. The build's
/// `FIREPOT_BACKEND` (`cuda`, `vulkan`, `cpu`) is read by `scripts/backend.sh`.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `HOME`: where the default home lies.
    pub home_dir: Option<PathBuf>,
    /// `KAGGLE_KERNEL_RUN_TYPE`: set on Kaggle.
    pub kaggle: Option<String>,
    /// `COLAB_RELEASE_TAG`: set on Colab.
    pub colab: Option<String>,
}

impl Environment {
    /// Reads the environment of this process.
    #[expect(clippy::disallowed_methods, reason = "this is where it is read")]
    pub fn read() -> Self {
        let text = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self {
            home_dir: std::env::home_dir(),
            kaggle: text("KAGGLE_KERNEL_RUN_TYPE"),
            colab: text("COLAB_RELEASE_TAG"),
        }
    }
}

/// What holds for every command.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything Firepot keeps.
    pub home: PathBuf,
    /// Where the server listens, or is looked for.
    pub address: SocketAddr,
    /// The address was named by the user and is not the default.
    pub address_named: bool,
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
            address: SocketAddr::new(host, cli.port.unwrap_or(DEFAULT_PORT)),
            address_named: cli.host.is_some() || cli.port.is_some(),
            environment,
        }
    }

    /// The planner of this machine.
    pub fn planner(&self) -> LocalPlanner {
        let environment = firepot_machine::Environment {
            kaggle_kernel_run_type: self.environment.kaggle.clone(),
            colab_release_tag: self.environment.colab.clone(),
        };
        let gpu = if gpu::BUILT { GpuUse::Auto } else { GpuUse::NoBackend };
        LocalPlanner { home: self.home.clone(), environment, gpu }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

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
        let settings = resolve(&["--home", "/data", "list", "--port", "0", "--host", "::1"]);
        assert_eq!(settings.home, PathBuf::from("/data"));
        assert_eq!(settings.address.to_string(), "[::1]:0");
        assert!(settings.address_named);
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
