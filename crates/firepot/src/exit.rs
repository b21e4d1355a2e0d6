//! Exit codes, and errors that carry one.

use std::{fmt, process::ExitCode};

use firepot_fetch::{FetchError, PullError};
use firepot_measure::bundle::BundleError;
use firepot_server::StartError;
use firepot_store::{ImportError, StoreError, state::StateError};
use firepot_trial::{TargetError, TrialError};

/// Shown below `--help`.
pub const HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 no such model, 4 no server is running, \
5 the port is taken, 6 the home cannot be used, 7 the model cannot be loaded, 8 a GPU is there but cannot be used, \
130 interrupted.";

/// How the program ends when it does not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something failed that has no code of its own.
    Failed = 1,
    /// The store has no such model.
    NoModel = 3,
    /// No server is running, or it does not answer.
    NoServer = 4,
    /// Another program listens on the port.
    PortTaken = 5,
    /// The home is read-only, locked by another server, or full.
    Home = 6,
    /// The model cannot be loaded.
    Load = 7,
    /// A GPU is present but not usable, and `--allow-cpu` was not given.
    GpuUnused = 8,
    /// The user interrupted.
    Interrupted = 130,
}

impl Exit {
    /// The exit of a Firepot process that ended with this code.
    pub fn from_code(code: i32) -> Option<Self> {
        const ALL: [Exit; 8] = [
            Exit::Failed,
            Exit::NoModel,
            Exit::NoServer,
            Exit::PortTaken,
            Exit::Home,
            Exit::Load,
            Exit::GpuUnused,
            Exit::Interrupted,
        ];
        ALL.into_iter().find(|exit| *exit as i32 == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error for the user: what happened, what to do about it, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints an error as `error:` and, on a line of its own, `hint:`.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        eprintln!("error: {failure}");
        if let Some(hint) = &failure.hint {
            eprintln!("hint: {hint}");
        }
        return failure.exit.into();
    }
    let (exit, hint) = classify(error);
    eprintln!("error: {}", told_once(error));
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    exit.into()
}

/// An error and its causes; a cause that the error before it has in its own text is not repeated.
fn told_once(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told.push_str(": ");
            told.push_str(&cause);
        }
    }
    told
}

/// Exit code and hint of the errors that the crates beside this one give.
fn classify(error: &anyhow::Error) -> (Exit, Option<String>) {
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return (store_exit(error), error.hint());
    }
    if let Some(error) = error.downcast_ref::<ImportError>() {
        return (Exit::Failed, error.hint());
    }
    if let Some(error) = error.downcast_ref::<StateError>() {
        let exit = match error {
            StateError::Store(error) => store_exit(error),
            StateError::Damaged { .. } | StateError::Newer { .. } => Exit::Failed,
            StateError::NotEmpty { .. } | StateError::InUse { .. } | StateError::OtherState { .. } => {
                Exit::Home
            }
        };
        return (exit, error.hint());
    }
    if let Some(error) = error.downcast_ref::<PullError>() {
        let exit = match error {
            PullError::NotFound { .. } => Exit::NoModel,
            PullError::Store(error) | PullError::Fetch(FetchError::Store(error)) => store_exit(error),
            _ => Exit::Failed,
        };
        return (exit, error.hint());
    }
    if let Some(error) = error.downcast_ref::<TrialError>() {
        return (Exit::Failed, error.hint());
    }
    if let Some(error) = error.downcast_ref::<TargetError>() {
        let exit = if matches!(error, TargetError::Down { .. }) { Exit::NoServer } else { Exit::Failed };
        return (exit, error.hint().map(str::to_owned));
    }
    if let Some(error) = error.downcast_ref::<BundleError>() {
        return (Exit::Failed, error.hint());
    }
    match error.downcast_ref::<StartError>() {
        Some(StartError::Home(store)) => (store_exit(store), store.hint()),
        Some(start @ StartError::AddressInUse { .. }) => (Exit::PortTaken, start.hint()),
        Some(start) => (Exit::Failed, start.hint()),
        None => (Exit::Failed, None),
    }
}

const fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::UnknownModel { .. } => Exit::NoModel,
        _ => Exit::Home,
    }
}
