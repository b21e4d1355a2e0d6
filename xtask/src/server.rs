//! A server of the real program with the test model, for measurements over HTTP.

use std::{
    ffi::OsStr,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// The program, as `make build` leaves it.
pub const FIREPOT: &str = "target/release/firepot";
/// The test model's file.
pub const MODEL_FILE: &str = "target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf";
/// Its name in the server.
pub const MODEL: &str = "bench:small";

/// A server with the test model, and how to get in.
pub struct Server {
    _home: TempDir,
    process: Child,
    /// Its address, as a URL begins.
    pub base: String,
    /// A key for everything, where one is asked for.
    pub key: Option<String>,
}

impl Server {
    /// Starts a program over a home with the test model.
    ///
    /// # Errors
    /// When it ends early.
    pub fn start(program: impl AsRef<OsStr>, args: &[&str]) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let firepot = || {
            let mut command = Command::new(program.as_ref());
            command.arg("--home").arg(home.path()).stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        ensure!(firepot().args(["import", MODEL_FILE, MODEL]).status()?.success(), "the import failed");
        let mut process =
            firepot().args(["--port", "0", "serve"]).args(args).stderr(Stdio::null()).spawn()?;
        let path = home.path().join("run/server.json");
        let record: Value = loop {
            let read = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match read {
                Some(record) => break record,
                None => ensure!(process.try_wait()?.is_none(), "the server ended"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        let base = format!("http://{}", record["address"].as_str().context("no address")?);
        Ok(Self { process, base, key: record["key"].as_str().map(str::to_owned), _home: home })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
