//! Keeps a home's state in a mounted folder for as long as the server lives. What a state is, and when it is worth writing, is
//! in `firepot_store::state`.

use std::sync::Arc;

use firepot_store::state::{Mirror, Mirrored, StateError};
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    select,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, blocking},
    limits,
};

/// How the mirrored state stands, for pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MirrorStatus {
    /// The folder.
    pub dir: String,
    /// When the newest state was written; absent before the first.
    pub mirrored_at: Option<String>,
    /// Length of its file.
    pub size_bytes: Option<u64>,
    /// How long it took.
    pub took_ms: Option<u64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// The task that mirrors.
#[derive(Debug)]
pub struct Mirroring {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Mirroring {
    /// Begins. To be called within a Tokio runtime.
    #[must_use]
    pub fn start(app: &Arc<App>, mirror: Mirror) -> Self {
        let stop = CancellationToken::new();
        let status = MirrorStatus { dir: mirror.dir().display().to_string(), ..MirrorStatus::default() };
        app.mirror.send_replace(Some(status));
        let task = tokio::spawn(run(Arc::clone(app), mirror, stop.clone()));
        Self { stop, task }
    }

    /// Mirrors the last state, within a bound, and gives the folder back.
    pub async fn stop(self) {
        self.stop.cancel();
        if timeout(limits::MIRROR_END_WAIT, self.task).await.is_err() {
            tracing::warn!("the last state was not mirrored in time; the one before it is in the folder");
        }
    }
}

async fn run(app: Arc<App>, mut mirror: Mirror, stop: CancellationToken) {
    loop {
        let last = stop.is_cancelled();
        let mirrored = blocking(move || {
            let result = mirror.step(last);
            (mirror, result)
        });
        let Ok((back, result)) = mirrored.await else { return };
        mirror = back;
        let taken_over = matches!(result, Err(StateError::InUse { .. }));
        tell(&app, result);
        if last || taken_over {
            return;
        }
        select! { () = stop.cancelled() => {}, () = sleep(firepot_store::limits::MIRROR_INTERVAL) => {} }
    }
}

fn tell(app: &App, result: Result<Option<Mirrored>, StateError>) {
    app.mirror.send_if_modified(|status| {
        let Some(status) = status else { return false };
        match result {
            Ok(None) => return false,
            Ok(Some(mirrored)) => {
                tracing::debug!(generation = mirrored.generation, "mirrored the state");
                status.mirrored_at = Some(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
                status.size_bytes = Some(mirrored.size_bytes);
                status.took_ms = u64::try_from(mirrored.took.as_millis()).ok();
                status.error = None;
            }
            Err(error) => {
                let told = Some(error.to_string());
                if status.error != told {
                    tracing::warn!(dir = status.dir, %error, "the state is not mirrored");
                }
                status.error = told;
            }
        }
        true
    });
}
