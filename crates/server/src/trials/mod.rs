//! Trials that pages begin and open: `firepot verify` as a child process, so that what is measured and what measures do not
//! share one; the bundles lie below `trials/` in the home. What a trial is, is not known here: the child tells how far it is in lines.

mod view;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use firepot_wire::{ApiError, ErrorCode};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use self::view::Known;
pub use self::view::TrialView;
use crate::{limits, settings::RunnerCommand};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// At most a minute.
    Smoke,
    /// At most 8 minutes.
    Standard,
    /// At most 45 minutes.
    Full,
}

impl Suite {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Standard => "standard",
            Self::Full => "full",
        }
    }
}

/// The trials of a home.
#[derive(Clone, Debug)]
pub struct Trials {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The program with what stands before its subcommand; without it no trial can be begun.
    program: Option<RunnerCommand>,
    dir: PathBuf,
    state: Mutex<State>,
    changes: watch::Sender<()>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    /// Why trials that pages began have ended, by id; until the server ends.
    failed: BTreeMap<String, String>,
    closed: bool,
}

/// The trial that runs.
#[derive(Clone, Debug)]
struct Running {
    id: String,
    pid: Option<u32>,
    progress: Option<Value>,
}

impl Trials {
    /// The trials whose bundles lie in `dir`.
    #[must_use]
    pub fn new(program: Option<RunnerCommand>, dir: PathBuf) -> Self {
        let inner = Inner {
            program,
            dir,
            state: Mutex::default(),
            changes: watch::Sender::new(()),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Begins a trial of a model. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// When one runs already, or the child cannot be started.
    pub fn begin(&self, model: &str, suite: Suite) -> Result<String, ApiError> {
        if model.is_empty() || model.starts_with('-') {
            return Err(ApiError::invalid("model", "must be a model's name"));
        }
        let id = format!("{}-{}", moment(), safe(model));
        let dir = self.inner.dir.join(&id);
        let args: Vec<OsString> = vec![
            "verify".into(),
            model.into(),
            "--suite".into(),
            suite.as_str().into(),
            "--out".into(),
            dir.into(),
        ];
        self.run(id, args)
    }

    /// Goes on with a trial that was interrupted.
    ///
    /// # Errors
    /// As [`Self::begin`], and when there is none.
    pub fn resume(&self, id: &str) -> Result<String, ApiError> {
        let dir = self.bundle(id)?;
        self.run(id.to_owned(), vec!["verify".into(), "--resume".into(), dir.into()])
    }

    /// Asks a trial that runs to end; it can be taken up again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self, id: &str) -> Result<(), ApiError> {
        let running = self.inner.state().running.clone().filter(|running| running.id == id);
        let running = running.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "no such trial runs"))?;
        running.interrupt();
        Ok(())
    }

    /// The id of the trial that runs.
    #[must_use]
    pub fn under_way(&self) -> Option<String> {
        self.inner.state().running.as_ref().map(|running| running.id.clone())
    }

    /// The trial that runs, as pages see it.
    #[must_use]
    pub fn running(&self) -> Option<TrialView> {
        let running = self.inner.state().running.clone()?;
        Some(view::of(&self.inner.dir, &running.id, Known::Runs(running.progress)))
    }

    /// All trials, the newest first. Blocks: it reads small files.
    #[must_use]
    pub fn list(&self) -> Vec<TrialView> {
        let (running, failed) = {
            let state = self.inner.state();
            (state.running.clone(), state.failed.clone())
        };
        let names = std::fs::read_dir(&self.inner.dir).into_iter().flatten().flatten();
        let mut ids: Vec<String> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_id(name))
            .collect();
        ids.sort_unstable_by(|one, other| other.cmp(one));
        ids.truncate(limits::MAX_TRIALS_LISTED);
        let view = |id: &String| {
            let known = match running.as_ref().filter(|running| running.id == *id) {
                Some(running) => Known::Runs(running.progress.clone()),
                None => Known::Rests(failed.get(id).cloned()),
            };
            view::of(&self.inner.dir, id, known)
        };
        ids.iter().map(view).collect()
    }

    /// Changes whenever the trial that runs does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// A finished trial's report as HTML.
    ///
    /// # Errors
    /// When there is none, or it cannot be made.
    pub async fn report(&self, id: &str) -> Result<Vec<u8>, ApiError> {
        let dir = self.bundle(id)?;
        let mut command = self.command(&["report".into(), "--format".into(), "html".into(), dir.into()])?;
        let failed =
            |why: String| ApiError::new(ErrorCode::Internal, "the report cannot be made").with_detail(why);
        let output = timeout(limits::REPORT_WAIT, command.output()).await;
        let output = output
            .map_err(|_| failed("it takes too long".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() && output.stdout.len() <= limits::MAX_REPORT_BYTES {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        match said.lines().find_map(|line| line.strip_prefix("error: ")) {
            Some(error) => Err(ApiError::new(ErrorCode::Conflict, error.to_owned())),
            None => Err(failed(said.into_owned())),
        }
    }

    /// Ends the trial that runs, so that it can be taken up again, and lets none begin.
    pub async fn close(&self) {
        let running = {
            let mut state = self.inner.state();
            state.closed = true;
            state.running.clone()
        };
        if let Some(running) = running {
            running.interrupt();
        }
        self.inner.tasks.close();
        if timeout(limits::TRIAL_END_WAIT, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("the running trial did not end in time");
        }
    }

    fn bundle(&self, id: &str) -> Result<PathBuf, ApiError> {
        let dir = self.inner.dir.join(id);
        let there = is_id(id) && dir.join("trial.json").is_file();
        there.then_some(dir).ok_or_else(|| ApiError::new(ErrorCode::NotFound, "there is no such trial"))
    }

    fn command(&self, args: &[OsString]) -> Result<Command, ApiError> {
        let Some(program) = &self.inner.program else {
            return Err(ApiError::new(ErrorCode::NotImplemented, "this server cannot run trials"));
        };
        let mut command = Command::new(&program.program);
        command.args(&program.args).args(args).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    fn run(&self, id: String, mut args: Vec<OsString>) -> Result<String, ApiError> {
        args.push("--progress-json".into());
        let mut command = self.command(&args)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut state = self.inner.state();
        if state.closed {
            return Err(ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down"));
        }
        if let Some(running) = &state.running {
            let message = format!("the trial {} runs already, and two would disturb each other", running.id);
            return Err(ApiError::new(ErrorCode::Conflict, message).with_hint("wait for it, or stop it"));
        }
        let child = command.spawn().map_err(|error| {
            ApiError::new(ErrorCode::Internal, "the trial cannot be started").with_detail(error.to_string())
        })?;
        state.failed.remove(&id);
        state.running = Some(Running { id: id.clone(), pid: child.id(), progress: None });
        drop(state);
        self.inner.changes.send_replace(());
        self.inner.tasks.spawn(Arc::clone(&self.inner).follow(id.clone(), child));
        Ok(id)
    }
}

impl Running {
    fn interrupt(&self) {
        let pid = self.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // One that has ended by itself needs no signal.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the child tells, to its end.
    async fn follow(self: Arc<Self>, id: String, mut child: Child) {
        let (told, complained) = (child.stdout.take(), child.stderr.take());
        let lines = async {
            let Some(told) = told else { return };
            let mut lines = BufReader::new(told.take(limits::MAX_TRIAL_TOLD_BYTES)).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
                if line["case"].is_string()
                    && let Some(running) = &mut self.state().running
                {
                    running.progress = Some(line);
                }
                self.changes.send_replace(());
            }
        };
        let (error, ()) = tokio::join!(last_error(complained), lines);
        let status = child.wait().await;
        let mut state = self.state();
        state.running = None;
        if !status.is_ok_and(|status| status.success()) {
            let why = error.unwrap_or_else(|| "it ended without a word".to_owned());
            tracing::warn!(id, why, "a trial ended");
            state.failed.insert(id, why);
            while state.failed.len() > limits::MAX_FAILED_TRIALS {
                state.failed.pop_first();
            }
        }
        drop(state);
        self.changes.send_replace(());
    }
}

/// What the child says last of what went wrong.
async fn last_error(from: Option<impl AsyncRead + Unpin>) -> Option<String> {
    let mut lines = BufReader::new(from?.take(limits::MAX_TRIAL_TOLD_BYTES)).lines();
    let mut error = None;
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(said) = line.strip_prefix("error: ") {
            error = Some(said.to_owned());
        }
    }
    error
}

/// Whether a name from outside names a trial and nothing else.
fn is_id(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty()
        && name.len() <= limits::MAX_TRIAL_ID_BYTES
        && !name.starts_with('.')
        && name.chars().all(plain)
}

fn moment() -> String {
    let now = Timestamp::now().to_string();
    now.chars().take_while(|c| *c != '.').filter(char::is_ascii_alphanumeric).collect()
}

fn safe(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().map(plain).take(limits::MAX_TRIAL_ID_BYTES / 2).collect()
}

/// A small file of a bundle.
fn small(dir: &Path, name: &str) -> Option<Value> {
    let path = dir.join(name);
    let small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= limits::MAX_TRIAL_FILE_BYTES);
    serde_json::from_slice(&small.then(|| std::fs::read(path).ok())??).ok()
}
