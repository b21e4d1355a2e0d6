//! Lines of `events.jsonl` and `restarts.jsonl`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of `events.jsonl`: something that explains samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, in microseconds from the beginning of the trial.
    pub at_us: u64,
    /// The process of the trial that noticed it.
    pub part: u32,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A further process went on with the trial.
    Resumed {
        /// How long nobody measured, by the wall clock, in microseconds.
        paused_us: u64,
    },
    /// A case began.
    Began {
        /// Which.
        case: String,
    },
    /// A case was found to be steady after so many requests.
    Steady {
        /// Which.
        case: String,
        /// Of which target.
        target: String,
        /// Requests before it was.
        after: u32,
    },
    /// A case ended because its interval was narrow enough.
    StoppedEarly {
        /// Which.
        case: String,
        /// Samples until then.
        samples: u32,
    },
    /// A case ended with its fewest samples or more, and its interval is wider than was wanted.
    Cap {
        /// Which.
        case: String,
        /// Samples until then.
        samples: u32,
        /// Whether its time was over; else it had as many samples as it may have.
        #[serde(default)]
        time_over: bool,
    },
    /// A case was left out, or ended before it had its samples.
    Skipped {
        /// Which.
        case: String,
        /// Why.
        reason: String,
    },
    /// A fault was injected.
    Fault {
        /// Which.
        fault: Fault,
        /// Of which case.
        case: String,
    },
    /// The target's process ended or went away without being asked.
    TargetLost {
        /// Which.
        target: String,
        /// As it was noticed.
        reason: String,
    },
    /// Wall clock and monotonic clock moved apart.
    ClockJump {
        /// How far the wall clock went ahead of the monotonic one, in microseconds.
        by_us: i64,
    },
    /// The user or the deadline of the session ended the trial.
    Interrupted {
        /// Why.
        reason: String,
    },
    /// Anything else that a reader should know.
    Note {
        /// What.
        text: String,
    },
}

/// A fault that is injected: the process of the runner gets SIGKILL at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// While it loads.
    KillLoading,
    /// While it computes a prompt.
    KillPrefilling,
    /// While it answers.
    KillDecoding,
}

/// A line of `restarts.jsonl`: a runner was killed, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restart {
    /// The case ([`crate::bundle::Case::id`]).
    pub case: String,
    /// The target.
    pub target: String,
    /// The process of the trial that did it.
    pub part: u32,
    /// Its number within the case, counted from 0.
    pub index: u32,
    /// When in its work it was killed.
    pub fault: Fault,
    /// When it was killed, in microseconds from the beginning of the trial.
    pub killed_us: u64,
    /// When a model was loaded again; none when that was not so within the time waited.
    pub ready_us: Option<u64>,
    /// When the next token of the answer was at the client.
    pub next_token_us: Option<u64>,
    /// Tokens that the client had before.
    pub tokens_before: u32,
    /// Positions that never reached the client.
    pub tokens_lost: Option<u32>,
    /// Positions that reached it twice.
    pub tokens_repeated: Option<u32>,
    /// Whether the answer came to its end.
    pub completed: bool,
    /// In strict mode: whether the ids were those of an undisturbed answer.
    pub ids_equal: Option<bool>,
    /// What went wrong.
    pub error: Option<String>,
}
