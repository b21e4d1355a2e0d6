//! A server of either side as a process of its own, and what its clients see of an answer.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use firepot_machine::{ProcessMemory, process_memory};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

/// Longest start: a 7B model that llama-server repacks and warms up on a slow day.
const START_MAX: Duration = Duration::from_mins(3);
/// Longest answer.
const ANSWER_MAX: Duration = Duration::from_mins(10);

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `firepot serve`.
    Firepot,
    /// `llama-server`.
    LlamaServer,
}

/// A server that was started for one sample, and ends with it.
#[derive(Debug)]
pub struct Service {
    program: Program,
    child: Child,
    base: String,
    model: String,
    client: Client,
    spawned: Instant,
}

/// How an answer came.
#[derive(Debug)]
pub struct Answer {
    /// When the request was sent.
    pub sent: Instant,
    /// When text, or a stamp, came; one entry may stand for more than one token.
    pub came: Vec<Instant>,
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub emitted_tokens: u64,
    /// Computing the prompt, as the server says; the dialect may not say it.
    pub prompt_computing: Option<Duration>,
    /// From the first token to the last, as the server says.
    pub decoding: Option<Duration>,
    /// What it says.
    pub text: String,
}

impl Answer {
    /// From the request to the first text.
    pub fn ttft(&self) -> Duration {
        self.came.first().map_or(Duration::MAX, |first| *first - self.sent)
    }

    /// When the last text came.
    pub fn ended(&self) -> Instant {
        self.came.last().copied().unwrap_or(self.sent)
    }

    /// Tokens per second after the first.
    pub fn decode_rate(&self) -> f64 {
        let first = self.sent + self.ttft();
        (self.emitted_tokens.saturating_sub(1)) as f64 / (self.ended() - first).as_secs_f64()
    }
}

impl Service {
    /// Starts `command` with a free port, and waits until it says that it is healthy.
    pub fn start(program: Program, command: &mut Command, model: &str, log: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log_file = File::create(log)?;
        command.args(["--port", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
        let spawned = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let client = Client::builder().timeout(ANSWER_MAX).pool_max_idle_per_host(0).build()?;
        let base = format!("http://127.0.0.1:{port}");
        let mut service = Self { program, child, base, model: model.to_owned(), client, spawned };
        service.wait_until_healthy().with_context(|| format!("{command:?}; see {}", log.display()))?;
        Ok(service)
    }

    fn wait_until_healthy(&mut self) -> anyhow::Result<()> {
        let path = if self.program == Program::Firepot { "healthz" } else { "health" };
        let url = format!("{}/{path}", self.base);
        while !self.client.get(&url).send().is_ok_and(|response| response.status().is_success()) {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            ensure!(self.spawned.elapsed() < START_MAX, "it is not healthy after {START_MAX:?}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// When the process was started.
    pub const fn spawned(&self) -> Instant {
        self.spawned
    }

    /// Continues a text by so many tokens, past those that end an answer, with temperature 0.
    pub fn complete(&self, prompt: &str, tokens: u32) -> anyhow::Result<Answer> {
        self.complete_with(prompt, tokens, |_| true)
    }

    /// As [`Self::complete`]; `goes_on` hears of each piece of text and may hang up.
    pub fn complete_with(
        &self,
        prompt: &str,
        tokens: u32,
        goes_on: impl FnMut(Instant) -> bool,
    ) -> anyhow::Result<Answer> {
        match self.program {
            Program::Firepot => self.stream("api/generate", &self.generate(prompt, tokens), goes_on),
            Program::LlamaServer => {
                let body = json!({
                    "prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": true, "stream": true,
                });
                self.stream("completion", &body, goes_on)
            }
        }
    }

    /// As [`Self::complete`], of our server, with a line for each token, as models of random weights choose some without
    /// text. In strict mode a prompt is computed in whole ubatches, however slow the machine is.
    pub fn complete_stamped(&self, prompt: &str, tokens: u32, strict: bool) -> anyhow::Result<Answer> {
        let mut body = self.generate(prompt, tokens);
        body["options"]["strict"] = strict.into();
        body["firepot"] = json!({"stamps": true});
        self.stream("api/generate", &body, |_| true)
    }

    fn generate(&self, prompt: &str, tokens: u32) -> Value {
        let options = json!({"num_predict": tokens, "temperature": 0, "ignore_eos": true});
        json!({"model": self.model, "prompt": prompt, "raw": true, "options": options})
    }

    /// Answers a chat, with temperature 0, through the OpenAI API that both have.
    pub fn chat(&self, messages: &Value, tokens: u32) -> anyhow::Result<Answer> {
        let body = json!({
            "model": self.model, "messages": messages, "max_tokens": tokens, "temperature": 0,
            "stream": true, "stream_options": {"include_usage": true},
        });
        self.stream("v1/chat/completions", &body, |_| true)
    }

    fn stream(
        &self,
        path: &str,
        body: &Value,
        mut goes_on: impl FnMut(Instant) -> bool,
    ) -> anyhow::Result<Answer> {
        let sent = Instant::now();
        let response = self.client.post(format!("{}/{path}", self.base)).json(body).send()?;
        let response = succeeded(response)?;
        let (came, text) = (Vec::new(), String::new());
        let mut answer = Answer {
            sent,
            came,
            prompt_tokens: 0,
            emitted_tokens: 0,
            prompt_computing: None,
            decoding: None,
            text,
        };
        for line in BufReader::new(response).lines() {
            let line = line?;
            let now = Instant::now();
            let Ok(event) = serde_json::from_str::<Value>(line.trim_start_matches("data: ")) else {
                continue;
            };
            if let Some(error) = event.get("error") {
                bail!("{path}: {error}");
            }
            answer.count(&event);
            let text = text_of(&event);
            if !text.is_empty() || event["firepot"]["ids"].is_array() {
                answer.came.push(now);
                answer.text.push_str(text);
                if !goes_on(now) {
                    return Ok(answer);
                }
            }
        }
        ensure!(!answer.came.is_empty(), "{path}: the answer is empty");
        Ok(answer)
    }

    /// Resident bytes of the process that holds the model.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.memory()?.resident_bytes)
    }

    /// Its memory.
    pub fn memory(&self) -> anyhow::Result<ProcessMemory> {
        let pid = match self.program {
            Program::Firepot => self.runner()?,
            Program::LlamaServer => self.child.id(),
        };
        Ok(process_memory(pid)?)
    }

    /// CPU seconds so far of our server, and of the runner's threads that are not the engine's.
    pub fn cpu_beside_engine(&self) -> anyhow::Result<f64> {
        const BESIDE: [&str; 3] = ["reader", "prepare", "heartbeat"];
        let mut ticks = cpu_ticks(&fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?)?;
        for task in fs::read_dir(format!("/proc/{}/task", self.runner()?))? {
            let task = task?.path();
            if BESIDE.contains(&fs::read_to_string(task.join("comm"))?.trim()) {
                ticks += cpu_ticks(&fs::read_to_string(task.join("stat"))?)?;
            }
        }
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// CPU seconds so far of our server's threads of this name.
    pub fn cpu_of_server(&self, name: &str) -> anyhow::Result<f64> {
        let mut ticks = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.trim() == name {
                ticks += cpu_ticks(&fs::read_to_string(task.join("stat"))?)?;
            }
        }
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    fn runner(&self) -> anyhow::Result<u32> {
        let pid = self.child.id();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = fs::read_to_string(task?.path().join("children"))?;
            if let Some(child) = children.split_whitespace().next() {
                return Ok(child.parse()?);
            }
        }
        bail!("the server has no runner")
    }

    /// What one of our routes answers.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(succeeded(self.client.get(format!("{}/{path}", self.base)).send()?)?.json()?)
    }

    /// The value of one of our metrics.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = succeeded(self.client.get(format!("{}/metrics", self.base)).send()?)?.text()?;
        let line = text.lines().find(|line| line.starts_with(name));
        let value =
            line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no metric {name}"))?;
        Ok(value.parse()?)
    }
}

impl Answer {
    /// Takes the token counts, wherever the dialect has them.
    fn count(&mut self, event: &Value) {
        let count = |pointers: [&str; 3]| pointers.iter().find_map(|at| event.pointer(at)?.as_u64());
        if let Some(tokens) = count(["/prompt_eval_count", "/tokens_evaluated", "/usage/prompt_tokens"]) {
            self.prompt_tokens = tokens;
        }
        if let Some(tokens) = count(["/eval_count", "/tokens_predicted", "/usage/completion_tokens"]) {
            self.emitted_tokens = tokens;
        }
        let nanos = |field: &str| event[field].as_u64().map(Duration::from_nanos);
        self.prompt_computing = nanos("prompt_eval_duration").or(self.prompt_computing);
        self.decoding = nanos("eval_duration").or(self.decoding);
    }
}

fn text_of(event: &Value) -> &str {
    let places = ["/response", "/content", "/choices/0/delta/content"];
    places.iter().find_map(|at| event.pointer(at)?.as_str()).unwrap_or_default()
}

fn succeeded(response: Response) -> anyhow::Result<Response> {
    let status = response.status();
    if status.is_success() { Ok(response) } else { bail!("{status}: {}", response.text()?) }
}

/// User and system time of a `/proc/…/stat`, in clock ticks.
fn cpu_ticks(stat: &str) -> anyhow::Result<u64> {
    let after_name = stat.rsplit_once(')').context("not a stat file")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    ensure!(fields.len() > 12, "a stat file with {} fields", fields.len());
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

impl Drop for Service {
    fn drop(&mut self) {
        // The runner ends with the server's end of the link.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
