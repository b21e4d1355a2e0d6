//! The server that is killed and started again, always at the same address.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use firepot_fail::{Order, done};
use serde_json::json;
use tempfile::TempDir;

use super::answer::MODEL;

/// From the mark of a death to the death.
const DEATH_WITHIN: Duration = Duration::from_secs(10);

/// A server over a home of its own, which takes orders to die.
pub struct Stack {
    program: PathBuf,
    dir: TempDir,
    port: u16,
    url: String,
    process: Child,
    ordered: Option<Order>,
}

impl Stack {
    /// Imports the model and starts the server.
    pub fn start(program: &Path, model: &Path) -> anyhow::Result<Self> {
        let program = program.canonicalize().context("the program is not built: make build")?;
        let dir = tempfile::tempdir()?;
        let home = dir.path().join("home");
        let imported =
            Command::new(&program).arg("--home").arg(&home).arg("import").arg(model).arg(MODEL).output()?;
        ensure!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = serve(&program, dir.path(), port)?;
        let url = format!("http://127.0.0.1:{port}");
        let stack = Self { program, dir, port, url, process, ordered: None };
        stack.wait()?;
        Ok(stack)
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Orders a death.
    pub fn order(&mut self, order: Order) -> anyhow::Result<()> {
        firepot_store::write_atomic(&self.file(), order.to_string().as_bytes())?;
        self.ordered = Some(order);
        Ok(())
    }

    /// The order, if it was carried out since this was asked last.
    pub fn done(&mut self) -> anyhow::Result<Option<Order>> {
        let file = done(&self.file());
        if !file.exists() {
            return Ok(None);
        }
        fs::remove_file(file)?;
        let order = self.ordered.take();
        if order.is_some_and(super::is_of_server) {
            // The order is marked as done just before the kill.
            self.died()?;
        }
        Ok(order)
    }

    fn died(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + DEATH_WITHIN;
        while self.process.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "the server lives on after its death");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Takes an order back.
    pub fn withdraw(&mut self) {
        let _ = fs::remove_file(self.file());
        self.ordered = None;
    }

    /// Starts the server again if it is dead.
    pub fn live_on(&mut self) -> anyhow::Result<()> {
        if self.process.try_wait()?.is_some() {
            self.process = serve(&self.program, self.dir.path(), self.port)?;
            self.wait()?;
        }
        Ok(())
    }

    /// Unloads the model.
    pub fn unload(&self) -> anyhow::Result<()> {
        let body = json!({ "model": MODEL, "keep_alive": 0, "stream": false });
        let client = reqwest::blocking::Client::builder().no_proxy().build()?;
        client.post(format!("{}/api/generate", self.url)).json(&body).send()?.error_for_status()?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("order")
    }

    fn wait(&self) -> anyhow::Result<()> {
        let client = reqwest::blocking::Client::builder().no_proxy().build()?;
        let end = Instant::now() + Duration::from_secs(30);
        while !client.get(format!("{}/healthz", self.url)).send().is_ok_and(|answer| answer.status() == 200) {
            ensure!(Instant::now() < end, "the server does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn serve(program: &Path, dir: &Path, port: u16) -> anyhow::Result<Child> {
    Ok(Command::new(program)
        .arg("--home")
        .arg(dir.join("home"))
        .args(["--port", &port.to_string(), "--log", "error", "--die-by"])
        .arg(dir.join("order"))
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?)
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
