//! A server process with a home of its own, and ways to look at it and to hurt it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The name under which the test model is imported.
pub const MODEL: &str = "smollm2:135m";

/// Bound of every wait; far beyond what a healthy stack needs on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// The binary under test, built by the same Cargo run.
pub fn firepot() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let path = deps.parent().unwrap().parent().unwrap().join("firepot");
    assert!(path.is_file(), "{} is missing; run: cargo build --release --workspace", path.display());
    path
}

/// The real small model.
pub fn model_file() -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.is_file(), "the test model is missing; run: make test-model");
    path.canonicalize().unwrap()
}

/// Waits until `probe` gives a value.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < end, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A home with the test model in it.
pub fn home_with_model() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let import = run_in(home.path(), &["import", model_file().to_str().unwrap(), MODEL]);
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    home
}

/// Runs a command to its end.
pub fn run_in(home: &Path, args: &[&str]) -> Output {
    Command::new(firepot()).arg("--home").arg(home).args(args).stdin(Stdio::null()).output().unwrap()
}

/// A client that asks loopback itself.
pub fn http_client() -> reqwest::Client {
    firepot_fetch::provide_tls();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A running server.
pub struct Stack {
    pub home: TempDir,
    pub address: SocketAddr,
    process: Child,
    http: reqwest::Client,
    printed: TempDir,
}

impl Stack {
    /// A server with the test model in its store.
    pub async fn start() -> Self {
        Self::start_with(home_with_model(), &[]).await
    }

    /// A server over this home.
    pub async fn start_with(home: TempDir, args: &[&str]) -> Self {
        Self::start_in(home, args, &[]).await
    }

    /// The same with these variables in its environment.
    pub async fn start_in(home: TempDir, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(firepot());
        command.arg("--home").arg(home.path()).args(["--port", "0", "serve"]).args(args);
        command.envs(environment.iter().copied());
        Self::start_by(command, home).await
    }

    /// By this command, which becomes the server over this home.
    pub async fn start_by(mut command: Command, home: TempDir) -> Self {
        let printed = tempfile::tempdir().unwrap();
        let output = |name: &str| fs::File::create(printed.path().join(name)).unwrap();
        let mut process =
            command.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr")).spawn().unwrap();
        let record = home.path().join("run/server.json");
        let pid = process.id();
        let address = eventually("the server's address", async || {
            let said = || fs::read_to_string(printed.path().join("stderr")).unwrap_or_default();
            assert!(process.try_wait().unwrap().is_none(), "the server ended before it listened: {}", said());
            let record: Value = serde_json::from_slice(&fs::read(&record).ok()?).ok()?;
            if record["pid"] != pid {
                return None;
            }
            record["address"].as_str()?.parse().ok()
        })
        .await;
        Self { home, address, process, http: http_client(), printed }
    }

    /// What it has printed so far, on `stdout` or `stderr`.
    pub fn printed(&self, output: &str) -> String {
        fs::read_to_string(self.printed.path().join(output)).unwrap()
    }

    /// What follows `start` in a line that it prints, once it has.
    pub async fn line_after(&self, start: &str) -> String {
        eventually(start, async || {
            let printed = self.printed("stdout");
            let rest = printed.split_once(start)?.1;
            rest.split_once('\n').map(|(line, _)| line.trim().to_owned())
        })
        .await
    }

    /// Ends it, and gives back its home.
    pub fn into_home(mut self) -> TempDir {
        self.signal(Signal::TERM);
        self.wait();
        std::mem::replace(&mut self.home, tempfile::tempdir().unwrap())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub const fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(self.url(path)).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.http.post(self.url(path)).json(&body).send().await.unwrap()).await
    }

    /// A greedy Ollama chat of one question, not streamed.
    pub async fn ask(&self, question: &str, max_tokens: u32) -> (u16, Value) {
        self.post("/api/chat", chat(question, max_tokens, false)).await
    }

    /// Opens a streamed chat; each item is one NDJSON line.
    pub async fn stream(&self, question: &str, max_tokens: u32) -> Lines {
        self.lines("/api/chat", &chat(question, max_tokens, true)).await
    }

    /// The same with these options.
    pub async fn stream_with(&self, question: &str, options: Value) -> Lines {
        let mut body = chat(question, 0, true);
        body["options"] = options;
        self.lines("/api/chat", &body).await
    }

    async fn lines(&self, path: &str, body: &Value) -> Lines {
        let response = self.http.post(self.url(path)).json(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Lines { response, buffer: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Process ids of the server's runners.
    pub fn runners(&self) -> Vec<u32> {
        children(self.pid())
    }

    /// The one runner, once there is one.
    pub async fn runner(&self) -> u32 {
        eventually("a runner", async || self.runners().first().copied()).await
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the server said: {}", self.printed("stderr"));
        }
    }
}

/// A streamed answer, line by line.
pub struct Lines {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Lines {
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.buffer.extend_from_slice(&self.response.chunk().await.ok()??);
        }
    }

    pub async fn collect(mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        lines
    }
}

pub async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(chunk)) = stream.next().await {
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
}

/// A greedy Ollama chat request of one question.
pub fn chat(question: &str, max_tokens: u32, stream: bool) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "stream": stream,
        "options": {"temperature": 0, "num_predict": max_tokens},
    })
}

/// Sends a signal to a process that a test started.
pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// Whether a process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Process ids of a process's children.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let of_thread =
        |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let texts: Vec<String> = threads.flatten().map(of_thread).collect();
    texts.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}
