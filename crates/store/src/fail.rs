//! Planned failure at each durable step.
//!
//! In the crate's own tests a child process is told at which step it shall die; everywhere else a step costs
//! nothing. See `crash_tests`.

/// A place between two writes where a process may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Step {
    /// An empty temporary file exists.
    TempCreated,
    /// All bytes are written to it, not yet synced.
    TempWritten,
    /// The temporary file is synced, not yet renamed.
    TempSynced,
    /// The file has its name, the directory is not yet synced.
    Renamed,
    /// The weights are stored, nothing points to them yet.
    WeightsStored,
    /// The config is stored too, the manifest is not.
    ConfigStored,
    /// The file has its second name in the store, the directory is not yet synced.
    Linked,
    /// What a pull needs is recorded.
    PullBegun,
    /// The manifest of a new model stands, what it replaces is still there.
    ManifestWritten,
    /// The model is there, the record of its pull too.
    PullInstalled,
    /// The manifest is gone, its blobs are still there.
    ManifestRemoved,
    /// One of several blobs is gone.
    BlobRemoved,
    /// The backup of an old database is made, the migration not begun.
    BackedUp,
    /// The migration has run, its transaction is not committed.
    Migrated,
    /// The rows are written, the transaction is not committed.
    RowsWritten,
    /// The transaction is committed.
    Committed,
    /// The database is copied for a state, its file not begun.
    StateCopied,
    /// The file of a state is written.
    StateWritten,
    /// A state is unpacked and whole, nothing is taken in yet.
    StateStaged,
    /// A trial or single file of a state is in the home.
    StateMoved,
    /// All rows of a state are in the home.
    StateTaken,
}

/// Passes a step.
#[cfg(not(test))]
pub const fn step(_: Step) {}

/// Passes a step, or dies at it as by SIGKILL: no destructor runs.
#[cfg(test)]
pub fn step(step: Step) {
    if armed::is(step) {
        std::process::abort();
    }
}

#[cfg(test)]
pub mod armed {
    //! Which passing of which step is the last.

    use std::cell::Cell;

    use super::Step;

    thread_local! {
        static ARMED: Cell<Option<(Step, u32)>> = const { Cell::new(None) };
    }

    /// This thread dies when it passes `step` for the `nth` time, counted from 0.
    pub fn arm(step: Step, nth: u32) {
        ARMED.set(Some((step, nth)));
    }

    pub(super) fn is(step: Step) -> bool {
        match ARMED.get() {
            Some((armed, 0)) => armed == step,
            Some((armed, left)) if armed == step => {
                ARMED.set(Some((armed, left - 1)));
                false
            }
            _ => false,
        }
    }
}
