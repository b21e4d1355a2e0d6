//! What every model's runner does, for pages and the command line.

use std::time::Instant;

use firepot_link::Heartbeat;
use serde::Serialize;
use serde_json::Value;

use crate::{
    app::{App, blocking},
    deadline::SessionView,
    memory::{self, Comparison},
    pool::{PhaseView, SlotView},
    settings::SnapshotSettings,
};

/// All runners.
#[derive(Debug, Serialize)]
pub struct Overview {
    runners: Vec<Entry>,
    /// What is not as it should be.
    warnings: Vec<String>,
    /// Why a GPU that is there is not used, for records; one of the warnings.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_unused: Option<String>,
    /// What is left of the session.
    session: SessionView,
    /// Answers that wait or run.
    in_flight: usize,
    /// How many may.
    max_in_flight: usize,
    /// KV caches of conversations on disk; absent when none are kept, and from pages' events.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshots: Option<Snapshots>,
}

/// What the directory of snapshots takes, of all models together.
#[derive(Debug, Serialize)]
struct Snapshots {
    files: u64,
    bytes: u64,
    bytes_max: u64,
}

/// Where a model stands.
#[derive(Debug, Serialize)]
struct Entry {
    model: String,
    /// 0 for the model's first runner; those on further GPUs count from 1.
    replica: u32,
    state: &'static str,
    /// Of the load, in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    permille: Option<u16>,
    /// Its process, where it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// Requests that wait for it.
    waiting: usize,
    /// Requests that use it.
    in_use: usize,
    /// How often its runner ended without being asked to.
    restarts: u32,
    /// How it did so last.
    last_death: Option<LastDeath>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Tokens that prompt and answer can have together.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_cells: Option<u32>,
    /// Predicted by the planner, in bytes; the measured memory is in `/metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_memory_bytes: Option<u64>,
    /// By device: what the planner predicted, and what the inference library counts of the load.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memory: Vec<Comparison>,
    /// Each decision of the planner with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plan: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Value>,
}

#[derive(Debug, Serialize)]
struct LastDeath {
    reason: String,
    ago_ms: u64,
}

/// All runners, as they are now.
#[must_use]
pub fn overview(app: &App) -> Overview {
    Overview {
        runners: app.pool.overview().iter().map(|slot| entry(app, slot)).collect(),
        warnings: warnings(app),
        gpu_unused: app.settings.gpu_unused.clone(),
        session: app.deadline.view(),
        in_flight: app.pool.in_flight(),
        max_in_flight: app.settings.max_in_flight,
        snapshots: None,
    }
}

/// What is not as it should be, the most urgent first.
#[must_use]
pub fn warnings(app: &App) -> Vec<String> {
    let mirror = app.mirror.borrow().as_ref().and_then(|status| {
        let error = status.error.as_ref()?;
        Some(format!("the state is not mirrored to {}: {error}", status.dir))
    });
    app.deadline.warning().into_iter().chain(mirror).chain(app.settings.gpu_unused.clone()).collect()
}

/// The same overview, with what the disk has.
pub async fn overview_with_disk(app: &App) -> Overview {
    let snapshots = match app.settings.snapshots.clone() {
        Some(settings) => blocking(move || snapshots(&settings)).await.ok(),
        None => None,
    };
    Overview { snapshots, ..overview(app) }
}

fn snapshots(settings: &SnapshotSettings) -> Snapshots {
    let taken = firepot_snapshots::usage(&settings.dir).unwrap_or_default();
    Snapshots { files: taken.files, bytes: taken.bytes, bytes_max: settings.bytes_max }
}

fn entry(app: &App, slot: &SlotView) -> Entry {
    let mut entry = Entry {
        model: slot.model.name.to_string(),
        replica: slot.replica,
        state: slot.word(),
        permille: None,
        pid: None,
        waiting: slot.waiting,
        in_use: 0,
        restarts: slot.restarts,
        last_death: slot
            .last_death
            .as_ref()
            .map(|(death, at)| LastDeath { reason: death.to_string(), ago_ms: ms_since(*at) }),
        error: None,
        context_length: None,
        kv_cells: None,
        predicted_memory_bytes: None,
        memory: Vec::new(),
        plan: Vec::new(),
        stats: None,
    };
    match &slot.phase {
        PhaseView::Loading { permille, .. } => entry.permille = Some(*permille),
        PhaseView::Failed(error) => entry.error = Some(error.to_string()),
        PhaseView::Ready { runner, plan, loaded, leases, .. } => {
            (entry.pid, entry.in_use) = (app.pool.pid(*runner), *leases);
            entry.context_length = Some(loaded.info.ctx_per_answer);
            entry.kv_cells = Some(loaded.info.kv_cells);
            entry.predicted_memory_bytes = Some(plan.memory_bytes);
            entry.memory = memory::compare(&plan.memory, &loaded.info.memory);
            entry.plan.clone_from(&plan.reasons);
            entry.stats = app.pool.heartbeat(*runner).as_ref().map(stats);
        }
        _ => {}
    }
    entry
}

fn stats(heartbeat: &Heartbeat) -> Value {
    serde_json::to_value(heartbeat.stats).unwrap_or_default()
}

fn ms_since(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
}
