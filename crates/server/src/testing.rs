//! What the tests of several modules need: a runner that follows a script, a planner with a budget, a home
//! with models.
//!
//! The scripted runner is a thread that speaks the real link. What it answers is decided by the last thing it
//! is asked: see [`Talk`].

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode},
};
use firepot_chat::{
    Delta, ErrorKind, FinishReason, GenerateError, GenerateEvent, GenerateRequest, Logprob, Part, Prompt,
    PromptReport, Timings, TokenLogprob, ToolCall, Usage,
};
use firepot_engine::{DecoderInfo, DeviceMemory, LoadSpec, PrefixCut};
use firepot_gguf::write::Builder;
use firepot_link::{
    FrameReader, GenerationId, Heartbeat, LoadFailure, LoadFailureKind, Loaded, PROTOCOL, Resume,
    RunnerStats, ToRunner, ToServer, encode,
};
use firepot_store::{Access, Home, Model, ModelName};
use firepot_wire::ApiError;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tower::ServiceExt as _;

use crate::{
    app::App,
    pool::{
        Decision, FitFailure, FitModel, FitQuestion, Held, Holder, Launched, Launcher, Placement,
        PlanFailure, Planned, Planner, Wishes, decide,
    },
    pulls::{Fetcher, PullProgress},
    routes::router,
    settings::{RunnerCommand, ServerSettings},
};

/// Bound of every wait; far beyond what a healthy test needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(2);

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited too long for: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Plans within a budget; each model takes 100 bytes of it.
#[derive(Debug)]
pub struct BudgetPlanner {
    pub budget_bytes: Mutex<u64>,
}

impl Default for BudgetPlanner {
    fn default() -> Self {
        Self { budget_bytes: Mutex::new(1000) }
    }
}

impl BudgetPlanner {
    fn room(&self, others: usize) -> Result<(), PlanFailure> {
        if (others as u64 + 1) * 100 > *self.budget_bytes.lock().unwrap() {
            let (kind, message) = (LoadFailureKind::OutOfMemory, "memory does not suffice".to_owned());
            return Err(PlanFailure { kind, message, hint: Some("take a smaller one".to_owned()) });
        }
        Ok(())
    }
}

impl Planner for BudgetPlanner {
    fn plan(&self, model: &Model, wishes: &Wishes, held: &Held) -> Decision {
        decide(held, |beside| {
            self.room(beside.stay.len())?;
            let reasons = vec![format!("{} takes 100 bytes", model.name)];
            Ok(Planned { reasons, ..planned(spec(model.blob_path.as_path(), wishes)) })
        })
    }

    fn has_room(&self, _plan: &Planned, held: &Held) -> Result<(), PlanFailure> {
        self.room(held.holders.len())
    }

    /// Knows a model and a machine that are not here, both called `listed`.
    fn fit(
        &self,
        model: FitModel<'_>,
        question: &FitQuestion,
        others: &[Holder],
    ) -> Result<Value, FitFailure> {
        let (name, fits) = match model {
            FitModel::Stored(model) => (model.name.to_string(), self.room(others.len()).is_ok()),
            FitModel::Named("listed") => ("listed".to_owned(), true),
            FitModel::Named(_) => return Err(FitFailure::UnknownModel),
        };
        if question.on.as_deref().is_some_and(|name| name != "listed") {
            let (message, hint) = ("there is no such machine".to_owned(), "there is listed".to_owned());
            return Err(FitFailure::UnknownMachine { message, hint });
        }
        Ok(
            json!({ "model": name, "fits": fits, "question": format!("{question:?}"), "beside": others.len() }),
        )
    }

    fn machine(&self) -> Value {
        json!({ "cpu": { "cores": 2 } })
    }
}

/// A load in main memory that takes 100 bytes.
pub fn planned(spec: LoadSpec) -> Planned {
    Planned {
        spec,
        placement: Placement::Host,
        memory_bytes: 100,
        gpu_bytes: 0,
        mapped_bytes: 0,
        own_bytes: 100,
        on_gpus: Vec::new(),
        memory: Vec::new(),
        predicted_tpot: None,
        reasons: Vec::new(),
        replicas: Vec::new(),
    }
}

/// Load parameters by these wishes.
pub fn spec(path: &Path, wishes: &Wishes) -> LoadSpec {
    LoadSpec {
        ctx_per_answer: wishes.ctx.unwrap_or(1024),
        kv_cells: 4096,
        parallel: wishes.parallel.unwrap_or(4),
        sequences: 8,
        batch_tokens: wishes.batch_tokens.unwrap_or(512),
        ubatch_tokens: 512,
        threads: wishes.threads.unwrap_or(2),
        threads_batch: 2,
        gpu_layers: wishes.gpu_layers.map_or(0, |layers| layers as i32),
        ..LoadSpec::small(path.to_owned())
    }
}

/// What the runner's decoder says of itself.
pub fn loaded(spec: &LoadSpec) -> Loaded {
    let memory = DeviceMemory { device: "CPU".into(), weights_bytes: 60, kv_bytes: 30, compute_bytes: 10 };
    let info = DecoderInfo {
        architecture: "llama".into(),
        description: "scripted".into(),
        vocab_size: 3,
        ctx_train: 4096,
        ctx_per_answer: spec.ctx_per_answer,
        kv_cells: spec.kv_cells,
        max_sequences: 8,
        parallel: spec.parallel,
        batch_tokens: spec.batch_tokens,
        chat_template: None,
        bos_text: String::new(),
        eos_text: String::new(),
        prefix_cut: PrefixCut::Anywhere,
        memory: vec![memory],
        build: "scripted".into(),
    };
    Loaded { info, load_us: 1500 }
}

/// How runners load.
#[derive(Clone, Debug, Default)]
pub enum LoadScript {
    /// At once.
    #[default]
    Works,
    /// Not, with this message.
    Fails(LoadFailureKind),
    /// The runner dies.
    Dies,
    /// It takes until the script changes.
    Takes,
    /// It greets with another protocol.
    Foreign,
}

/// What is observed of, and told to, all scripted runners.
#[derive(Debug, Default)]
pub struct Script {
    pub load: Mutex<LoadScript>,
    /// Runners send no heartbeat.
    pub mute: Mutex<bool>,
    /// Runners do not answer a cancel.
    pub stubborn: Mutex<bool>,
    pub specs: Mutex<Vec<LoadSpec>>,
    pub requests: Mutex<Vec<GenerateRequest>>,
    pub resumes: Mutex<Vec<Resume>>,
    pub cancelled: Mutex<Vec<GenerationId>>,
    links: Mutex<Vec<UnixStream>>,
}

impl Script {
    /// How many runners were started.
    pub fn launches(&self) -> usize {
        self.links.lock().unwrap().len()
    }

    /// Kills the runner that was started last.
    pub fn kill(&self) {
        self.links.lock().unwrap().last().unwrap().shutdown(Shutdown::Both).unwrap();
    }

    pub fn set_load(&self, load: LoadScript) {
        *self.load.lock().unwrap() = load;
    }
}

/// Starts scripted runners.
#[derive(Clone, Debug, Default)]
pub struct ScriptLauncher {
    pub script: Arc<Script>,
}

impl Launcher for ScriptLauncher {
    fn launch(&self, _model: &ModelName) -> io::Result<Launched> {
        let (ours, theirs) = UnixStream::pair()?;
        let script = Arc::clone(&self.script);
        script.links.lock().unwrap().push(theirs.try_clone()?);
        thread::spawn(move || ScriptedRunner::new(script, theirs).run());
        Ok(Launched { link: ours, process: None })
    }
}

/// What a runner does when it is asked. `Hello` is any other text.
#[derive(Clone, Debug, PartialEq)]
enum Talk {
    /// "Hello", " world", end.
    Hello,
    /// `long`: goes on until it is cancelled.
    Long,
    /// `flood`: sends as fast as it can.
    Flood,
    /// `hold`: the prompt, and nothing more.
    Hold,
    /// `hold two`: two tokens, and nothing more.
    HoldTwo,
    /// `silent`: not even the prompt.
    Silent,
    /// `die`: two tokens, then the runner dies.
    Die,
    /// `doom`: two tokens, then the runner dies, and so does each that goes on.
    Doom,
    /// `overflow`: refused.
    Overflow,
    /// `break`: one token, then the decoder fails.
    Break,
    /// `think`: thinks first.
    Think,
    /// `ponder`: thinks until it is cancelled.
    Ponder,
    /// `short`: one token, then its limit.
    Short,
    /// `tool`: calls a tool.
    Tool,
}

impl Talk {
    fn of(request: &GenerateRequest) -> Self {
        let text = match &request.prompt {
            Prompt::Chat { messages, .. } => messages.last().map_or("", |message| message.content.as_str()),
            Prompt::Text(text) => text,
            Prompt::Tokens(_) => "",
        };
        match text {
            "long" => Self::Long,
            "flood" => Self::Flood,
            "hold" => Self::Hold,
            "hold two" => Self::HoldTwo,
            "silent" => Self::Silent,
            "die" => Self::Die,
            "doom" => Self::Doom,
            "overflow" => Self::Overflow,
            "break" => Self::Break,
            "think" => Self::Think,
            "ponder" => Self::Ponder,
            "short" => Self::Short,
            "tool" => Self::Tool,
            _ => Self::Hello,
        }
    }
}

struct ScriptedRunner {
    script: Arc<Script>,
    link: UnixStream,
    messages: mpsc::Receiver<ToRunner>,
    /// Endless answers with their next position, and whether they think.
    long: HashMap<GenerationId, (u32, bool)>,
    stats: RunnerStats,
    greeted: bool,
}

/// The link is closed, or the script says to die.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl ScriptedRunner {
    fn new(script: Arc<Script>, link: UnixStream) -> Self {
        let (sender, messages) = mpsc::sync_channel(1024);
        let mut reading = link.try_clone().unwrap();
        thread::spawn(move || {
            let (mut frames, mut buffer) = (FrameReader::new(), vec![0; 4096]);
            while let Ok(bytes @ 1..) = reading.read(&mut buffer) {
                frames.push(&buffer[..bytes]);
                while let Some(message) = frames.next().unwrap() {
                    let _ = sender.send(message);
                }
            }
        });
        Self { script, link, messages, long: HashMap::new(), stats: RunnerStats::default(), greeted: false }
    }

    fn run(mut self) {
        while self.step().is_ok() {}
        let _ = self.link.shutdown(Shutdown::Both);
    }

    fn step(&mut self) -> Result<(), Over> {
        match self.messages.recv_timeout(PAUSE) {
            Ok(message) => self.handle(message)?,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Over),
        }
        let long: Vec<_> = self.long.keys().copied().collect();
        for id in long {
            self.word(id)?;
        }
        if self.greeted && !*self.script.mute.lock().unwrap() {
            self.stats.rss_bytes = 4096;
            self.stats.running = self.long.len() as u32;
            self.send(&ToServer::Heartbeat(Heartbeat { stats: self.stats, ..Heartbeat::default() }))?;
        }
        Ok(())
    }

    fn handle(&mut self, message: ToRunner) -> Result<(), Over> {
        match message {
            ToRunner::Hello { protocol } => {
                assert_eq!(protocol, PROTOCOL);
                self.greeted = true;
                let foreign = matches!(*self.script.load.lock().unwrap(), LoadScript::Foreign);
                let protocol = if foreign { 999 } else { PROTOCOL };
                self.send(&ToServer::Hello { protocol, build: "scripted".into() })
            }
            ToRunner::Load { spec, .. } => self.load(&spec),
            ToRunner::Generate { id, request, client: _, resume } => {
                let talk = Talk::of(&request);
                self.script.requests.lock().unwrap().push(*request.clone());
                match resume {
                    Some(resume) => {
                        self.script.resumes.lock().unwrap().push(resume.clone());
                        self.go_on(id, &request, &talk, resume.emitted.len() as u32)
                    }
                    None => self.talk(id, &request, &talk),
                }
            }
            ToRunner::Cancel { id } => {
                self.script.cancelled.lock().unwrap().push(id);
                let emitted = self.long.remove(&id).map_or(1, |(position, _)| position);
                if *self.script.stubborn.lock().unwrap() {
                    return Ok(());
                }
                self.finish(id, FinishReason::Cancelled, emitted)
            }
            ToRunner::Shutdown => Err(Over),
        }
    }

    fn load(&mut self, spec: &LoadSpec) -> Result<(), Over> {
        self.script.specs.lock().unwrap().push(spec.clone());
        self.send(&ToServer::LoadProgress { permille: 500 })?;
        loop {
            let load = self.script.load.lock().unwrap().clone();
            match load {
                LoadScript::Works | LoadScript::Foreign => {
                    return self.send(&ToServer::Loaded(Box::new(loaded(spec))));
                }
                LoadScript::Fails(kind) => {
                    let (message, hint) =
                        ("tensor 'x' is cut off".to_owned(), Some("get the file again".to_owned()));
                    self.send(&ToServer::LoadFailed(LoadFailure { kind, message, hint }))?;
                    return Err(Over);
                }
                LoadScript::Dies => return Err(Over),
                LoadScript::Takes => match self.messages.recv_timeout(PAUSE) {
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        self.send(&ToServer::LoadProgress { permille: 750 })?;
                    }
                    _ => return Err(Over),
                },
            }
        }
    }

    fn go_on(
        &mut self,
        id: GenerationId,
        request: &GenerateRequest,
        talk: &Talk,
        at: u32,
    ) -> Result<(), Over> {
        self.prompt(id, request)?;
        match talk {
            Talk::Doom => Err(Over),
            Talk::Hold => Ok(()),
            Talk::Long => {
                self.long.insert(id, (at, false));
                Ok(())
            }
            _ => {
                self.delta(id, at, content("three"), None)?;
                self.finish(id, FinishReason::Stop, at + 1)
            }
        }
    }

    fn talk(&mut self, id: GenerationId, request: &GenerateRequest, talk: &Talk) -> Result<(), Over> {
        if *talk == Talk::Silent {
            return Ok(());
        }
        if *talk == Talk::Overflow {
            let message = "the prompt has 5000 tokens, the context 1024";
            let error = GenerateError::new(ErrorKind::ContextOverflow, message);
            return self.event(id, GenerateEvent::Failed(error));
        }
        self.prompt(id, request)?;
        match talk {
            Talk::Long | Talk::Ponder => {
                self.long.insert(id, (0, *talk == Talk::Ponder));
                Ok(())
            }
            Talk::Short => {
                self.delta(id, 0, content("cut"), None)?;
                self.finish(id, FinishReason::Length, 1)
            }
            Talk::Flood => (0..100_000).try_for_each(|position| self.delta(id, position, content("x"), None)),
            Talk::Die | Talk::Doom => {
                self.delta(id, 0, content("one "), None)?;
                self.delta(id, 1, content("two "), None)?;
                Err(Over)
            }
            Talk::HoldTwo => {
                self.delta(id, 0, content("one "), None)?;
                self.delta(id, 1, content("two "), None)
            }
            Talk::Break => {
                self.delta(id, 0, content("one "), None)?;
                let error = GenerateError::new(ErrorKind::Decode, "decode failed with code -3");
                self.event(id, GenerateEvent::Failed(error))
            }
            Talk::Think => {
                self.delta(id, 0, vec![Part::Thinking("hm".into())], None)?;
                self.delta(id, 1, content("yes"), None)?;
                self.finish(id, FinishReason::Stop, 2)
            }
            Talk::Tool => {
                let call =
                    ToolCall { id: "call_1".into(), name: "look".into(), arguments: json!({"at": "sky"}) };
                self.delta(id, 0, vec![Part::ToolCall(call)], None)?;
                self.finish(id, FinishReason::ToolCalls, 1)
            }
            Talk::Hello => {
                self.delta(id, 0, content("Hello"), request.logprobs)?;
                self.delta(id, 1, content(" world"), request.logprobs)?;
                self.finish(id, FinishReason::Stop, 2)
            }
            Talk::Hold | Talk::Silent | Talk::Overflow => Ok(()),
        }
    }

    fn prompt(&mut self, id: GenerationId, request: &GenerateRequest) -> Result<(), Over> {
        let (dropped, tools_ignored) = match &request.prompt {
            Prompt::Chat { messages, tools, .. } => (messages.len().saturating_sub(3), !tools.is_empty()),
            _ => (0, false),
        };
        let report = PromptReport {
            ids: vec![7, 8, 9],
            seed: request.sampling.seed.unwrap_or(42),
            dropped_messages: dropped as u32,
            tools_ignored,
            starts_thinking: false,
            max_tokens: 100,
        };
        self.event(id, GenerateEvent::Prompt(report))?;
        self.event(id, GenerateEvent::Started { cached_tokens: 1 })
    }

    fn word(&mut self, id: GenerationId) -> Result<(), Over> {
        let Some((position, thinks)) = self.long.get_mut(&id) else { return Ok(()) };
        *position += 1;
        let (position, word) = (*position - 1, "word ".to_owned());
        let part = if *thinks { Part::Thinking(word) } else { Part::Content(word) };
        self.delta(id, position, vec![part], None)
    }

    fn delta(
        &mut self,
        id: GenerationId,
        position: u32,
        parts: Vec<Part>,
        top: Option<u8>,
    ) -> Result<(), Over> {
        let chosen = Logprob { id: 1, bytes: b"Hello".to_vec(), logprob: -0.5 };
        let rivals = vec![chosen.clone(); top.unwrap_or(0).into()];
        let logprobs = top.map(|_| TokenLogprob { chosen, top: rivals }).into_iter().collect();
        self.event(id, GenerateEvent::Delta(Delta { position, ids: vec![1], parts, logprobs }))
    }

    fn finish(&mut self, id: GenerationId, reason: FinishReason, completion_tokens: u32) -> Result<(), Over> {
        let usage = Usage { prompt_tokens: 3, cached_tokens: 1, completion_tokens, thinking_tokens: 0 };
        let timings = Timings { queued_us: 10, prefill_us: 200, decode_us: 3000 };
        self.event(id, GenerateEvent::Finished { reason, usage, timings })
    }

    fn event(&mut self, id: GenerationId, event: GenerateEvent) -> Result<(), Over> {
        self.send(&ToServer::Event { id, event })
    }

    fn send(&mut self, message: &ToServer) -> Result<(), Over> {
        Ok(self.link.write_all(&encode(message).unwrap())?)
    }
}

fn content(text: &str) -> Vec<Part> {
    vec![Part::Content(text.into())]
}

/// Pulls as it is told to.
#[derive(Debug, Default)]
pub struct ScriptedFetcher {
    asked: Mutex<Vec<(String, bool)>>,
    running: Arc<Mutex<HashMap<String, Running>>>,
}

#[derive(Debug)]
struct Running {
    progress: watch::Sender<PullProgress>,
    end: oneshot::Sender<Result<(), ApiError>>,
}

/// A pull that is no more when this is dropped.
struct Gone(Arc<Mutex<HashMap<String, Running>>>, String);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.lock().unwrap().remove(&self.1);
    }
}

impl Fetcher for ScriptedFetcher {
    fn pull(
        &self,
        model: String,
        insecure: bool,
        progress: watch::Sender<PullProgress>,
    ) -> BoxFuture<'static, Result<(), ApiError>> {
        self.asked.lock().unwrap().push((model.clone(), insecure));
        let (end, ended) = oneshot::channel();
        self.running.lock().unwrap().insert(model.clone(), Running { progress, end });
        let gone = Gone(Arc::clone(&self.running), model);
        Box::pin(async move {
            let _gone = gone;
            ended.await.expect("the script broke it off")
        })
    }
}

impl ScriptedFetcher {
    /// What was asked for.
    pub fn asked(&self) -> Vec<(String, bool)> {
        self.asked.lock().unwrap().clone()
    }

    /// How many pulls run.
    pub fn running(&self) -> usize {
        self.running.lock().unwrap().len()
    }

    /// A pull gets so far.
    pub fn tell(&self, model: &str, progress: &PullProgress) {
        self.running.lock().unwrap()[model].progress.send_replace(progress.clone());
    }

    /// A pull ends.
    pub fn end(&self, model: &str, result: Result<(), ApiError>) {
        let running = self.running.lock().unwrap().remove(model).unwrap();
        running.end.send(result).unwrap();
    }

    /// A pull panics.
    pub fn break_off(&self, model: &str) {
        drop(self.running.lock().unwrap().remove(model));
    }
}

/// A home in a directory of its own.
pub struct TestHome {
    pub dir: TempDir,
    pub home: Home,
}

impl TestHome {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("home"), Access::ReadWrite).unwrap();
        Self { dir, home }
    }

    /// Imports a model file with a chat template.
    pub fn add(&self, name: &str, template: &str) -> Arc<Model> {
        let path = self.dir.path().join("file.gguf");
        let bytes = Builder::llama().text("tokenizer.chat_template", template).text("name", name).build();
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        let name: ModelName = name.parse().unwrap();
        self.home.models().import(&path, &name, &mut |_| {}).unwrap();
        // The store may have linked it: it is not to be written again.
        std::fs::remove_file(&path).unwrap();
        Arc::new(self.home.models().find(&name).unwrap())
    }
}

/// The routes over scripted runners, with a model `tiny`.
pub struct TestApp {
    pub home: TestHome,
    pub app: Arc<App>,
    pub router: Router,
    pub script: Arc<Script>,
    pub planner: Arc<BudgetPlanner>,
    pub fetcher: Arc<ScriptedFetcher>,
}

pub fn settings(dir: &Path) -> ServerSettings {
    let runner = RunnerCommand { program: "/bin/false".into(), args: Vec::new(), libc_tunables: None };
    ServerSettings::new("127.0.0.1:0".parse().unwrap(), runner, dir.to_owned())
}

impl TestApp {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ServerSettings)) -> Self {
        let home = TestHome::new();
        home.add("tiny", "{{ tools }} plain");
        Self::over(home, change)
    }

    /// The same over a home in which a server was before.
    pub fn over(home: TestHome, change: impl FnOnce(&mut ServerSettings)) -> Self {
        let mut settings = settings(home.dir.path());
        change(&mut settings);
        let planner = Arc::new(BudgetPlanner::default());
        let launcher = ScriptLauncher::default();
        let script = Arc::clone(&launcher.script);
        let fetcher = Arc::new(ScriptedFetcher::default());
        let launcher = Arc::new(launcher);
        let app = App::new(settings, home.home.clone(), planner.clone(), launcher, fetcher.clone());
        let app = Arc::new(app);
        Self { home, router: router(Arc::clone(&app)), app, script, planner, fetcher }
    }

    /// The app of a server that starts over the same home.
    pub fn reopened(&self) -> Arc<App> {
        let (settings, home) = (self.app.settings.clone(), self.home.home.clone());
        let launcher = Arc::new(ScriptLauncher::default());
        Arc::new(App::new(settings, home, self.planner.clone(), launcher, self.fetcher.clone()))
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.send(Request::get(path).body(Body::empty()).unwrap()).await).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        read(self.post_raw(path, body).await).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_string())).unwrap();
        read(self.send(request).await).await
    }

    /// Makes a chat; its path.
    pub async fn new_chat(&self) -> String {
        let (status, chat) = self.post("/firepot/v1/chats", json!({ "model": "tiny" })).await;
        assert_eq!(status, StatusCode::CREATED, "{chat}");
        format!("/firepot/v1/chats/{}", chat["id"].as_str().unwrap())
    }

    pub async fn post_raw(&self, path: &str, body: Value) -> Response<Body> {
        self.send(Request::post(path).body(body.to_string().into()).unwrap()).await
    }
}

/// Status and body, as JSON or as text.
pub async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let text = text(response).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The body's text.
pub async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A chat request of one question.
pub fn ask(question: &str, stream: bool) -> Value {
    json!({ "model": "tiny", "messages": [{ "role": "user", "content": question }], "stream": stream })
}
