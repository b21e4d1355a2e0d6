//! What every route can reach, and the store behind a door that does not block the runtime.

use std::{
    fs::File,
    sync::{Arc, OnceLock},
};

use axum::http::{HeaderMap, header};
use firepot_gguf::Gguf;
use firepot_store::{Chats, Database, Home, Listing, Model, ModelName, StoreError};
use firepot_wire::{ApiError, ErrorCode};
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};

use crate::{
    access::Access,
    capabilities::Capabilities,
    deadline::Deadline,
    guard::{Guard, PublicUrl},
    journal::Journal,
    limits,
    metrics::Metrics,
    mirror::MirrorStatus,
    pool::{Launcher, Planner, Pool, PoolParts, Wishes},
    pulls::{Fetcher, Pulls},
    settings::ServerSettings,
    talk::{Talks, Turn},
    trials::Trials,
};

/// What every route can reach.
#[derive(Debug)]
pub struct App {
    /// What the server was told.
    pub settings: ServerSettings,
    /// All runners.
    pub pool: Pool,
    /// All series.
    pub metrics: Metrics,
    /// Knows the machine.
    pub planner: Arc<dyn Planner>,
    /// What models can do.
    pub capabilities: Capabilities,
    /// Which names and pages may ask at all.
    pub guard: Guard,
    /// Who may come in.
    pub access: Access,
    /// Answers of stored chats, and who watches them.
    pub talks: Talks,
    /// Answers, as they are kept on the disk.
    pub journal: Journal,
    /// Models that are on their way.
    pub pulls: Pulls,
    /// When the session ends.
    pub deadline: Deadline,
    /// How the mirrored state stands; `None` without a folder.
    pub mirror: watch::Sender<Option<MirrorStatus>>,
    /// Trials of this home.
    pub trials: Trials,
    /// Told whenever there is another model, or one less.
    pub models_changed: watch::Sender<()>,
    /// A place for each file that is being received.
    pub uploads: Semaphore,
    home: Home,
    /// Opened when the first chat is asked for: a server that only answers needs none.
    database: Arc<OnceLock<Database>>,
}

impl App {
    /// An app over a home. To be called within a Tokio runtime.
    #[must_use]
    pub fn new(
        settings: ServerSettings,
        home: Home,
        planner: Arc<dyn Planner>,
        launcher: Arc<dyn Launcher>,
        fetcher: Arc<dyn Fetcher>,
    ) -> Self {
        let guard = Guard::new(settings.address.ip(), &settings.allowed_hosts, &settings.allowed_origins);
        let access = Access::new(settings.asks_for_keys());
        let metrics = Metrics::default();
        let pool = Pool::new(PoolParts {
            planner: Arc::clone(&planner),
            launcher,
            metrics: metrics.clone(),
            times: settings.times,
            keep_alive: settings.keep_alive,
            max_in_flight: settings.max_in_flight,
            snapshots: settings.snapshots.clone(),
        });
        let models_changed = watch::Sender::new(());
        let deadline = Deadline::new(settings.deadline.clone(), settings.times);
        Self {
            pool,
            metrics,
            planner,
            capabilities: Capabilities::default(),
            guard,
            access,
            talks: Talks::default(),
            journal: Journal::new(home.clone(), settings.journal),
            pulls: Pulls::new(fetcher, models_changed.clone()),
            deadline,
            mirror: watch::Sender::new(None),
            trials: Trials::new(settings.verify.clone(), home.path().join("trials")),
            settings,
            models_changed,
            uploads: Semaphore::new(limits::MAX_UPLOADS),
            home,
            database: Arc::default(),
        }
    }

    /// Where others reach this server through a tunnel.
    #[must_use]
    pub fn public_url(&self) -> Option<String> {
        self.guard.tunnel().map(|url| url.to_string())
    }

    /// Whether nobody on the way can read a request with these headers: TLS to here, or to the tunnel it came through.
    #[must_use]
    pub fn is_encrypted(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let through = |url: PublicUrl| url.is_encrypted && url.authority.as_str().eq_ignore_ascii_case(host);
        self.settings.tls.is_some() || self.guard.tunnel().is_some_and(through)
    }

    /// Wishes of a request that has none of its own.
    #[must_use]
    pub const fn default_wishes(&self) -> Wishes {
        self.settings.load
    }

    /// The model that a client named.
    ///
    /// # Errors
    /// [`ErrorCode::ModelNotFound`] with the names that look like it.
    pub async fn model(&self, name: &str) -> Result<Arc<Model>, ApiError> {
        let name = model_name(name)?;
        self.with_home(move |home| home.models().find(&name)).await.map(Arc::new)
    }

    /// Every model.
    pub async fn models(&self) -> Result<Listing, ApiError> {
        self.with_home(|home| home.models().list()).await
    }

    /// Removes the model that a client named.
    pub async fn remove_model(&self, name: &str) -> Result<(), ApiError> {
        let name = model_name(name)?;
        self.with_home(move |home| home.models().remove(&name)).await?;
        self.models_changed.send_replace(());
        Ok(())
    }

    /// The header of a model's file.
    pub async fn header(&self, model: &Model) -> Result<Gguf, ApiError> {
        let path = model.blob_path.clone();
        let read = move || {
            let file = File::open(&path).map_err(|error| error.to_string())?;
            Gguf::read(&file).map_err(|error| error.to_string())
        };
        blocking(read).await?.map_err(|problem| ApiError::new(ErrorCode::LoadFailed, problem))
    }

    /// Does something with the stored chats.
    pub async fn with_chats<T: Send + 'static>(
        &self,
        work: impl FnOnce(Chats<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.with_database(move |database| work(database.chats())).await
    }

    /// Changes stored chats and tells those who watch, even when the client does not wait for it.
    pub async fn change_chats<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(Chats<'_>) -> Result<T, StoreError> + Send + 'static,
        tell: impl FnOnce(&Turn<'_>, &T) + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = Arc::clone(self);
        let work = async move {
            let turn = app.talks.turn().await;
            let changed = app.with_chats(change).await?;
            tell(&turn, &changed);
            drop(turn);
            Ok(changed)
        };
        self.talks.carry_out(work).await
    }

    /// Does something with the database.
    pub async fn with_database<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let database = Arc::clone(&self.database);
        self.with_home(move |home| {
            if let Some(open) = database.get() {
                return work(open);
            }
            let opened = home.database()?;
            purge(opened.chats());
            work(database.get_or_init(|| opened))
        })
        .await
    }

    /// Where everything is stored.
    #[must_use]
    pub const fn home(&self) -> &Home {
        &self.home
    }

    /// Does something with the home.
    pub async fn with_home<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Home) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let home = self.home.clone();
        blocking(move || work(&home)).await?.map_err(|error| api_error(&error))
    }
}

/// Removes chats for good that were deleted too long ago to be restored.
pub fn purge(chats: Chats<'_>) {
    let purged = match Timestamp::now().checked_sub(limits::UNDO_DELETE_FOR) {
        Ok(before) => chats.purge_deleted(before),
        Err(_) => return,
    };
    match purged {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "deleted chats were removed"),
        Err(error) => tracing::warn!(%error, "deleted chats could not be removed"),
    }
}

/// Runs what blocks on a thread made for that.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        ApiError::new(ErrorCode::Internal, "something went wrong in the server")
            .with_detail(error.to_string())
    })
}

/// The name that a client wrote.
pub fn model_name(name: &str) -> Result<ModelName, ApiError> {
    let unusable = |error: firepot_store::NameError| ApiError {
        param: Some("model".to_owned()),
        ..ApiError::new(ErrorCode::ModelNotFound, error.to_string())
    };
    name.parse().map_err(unusable)
}

/// The store's failures, as clients see them.
pub fn api_error(error: &StoreError) -> ApiError {
    let code = match error {
        StoreError::UnknownModel { .. } => return unknown_model(error),
        StoreError::UnknownChat { .. }
        | StoreError::UnknownMessage { .. }
        | StoreError::UnknownPreset { .. }
        | StoreError::UnknownBlob { .. } => ErrorCode::NotFound,
        StoreError::InPlace { .. } => ErrorCode::Conflict,
        StoreError::TooLarge { .. } | StoreError::Invalid { .. } | StoreError::DigestMismatch { .. } => {
            ErrorCode::InvalidRequest
        }
        error if error.is_lack_of_room() => ErrorCode::StorageFull,
        StoreError::BadManifest { .. } => ErrorCode::LoadFailed,
        _ => ErrorCode::Internal,
    };
    let detail = std::error::Error::source(error).map(ToString::to_string);
    ApiError { hint: error.hint(), detail, ..ApiError::new(code, error.to_string()) }
}

/// The nearest names stand in the message itself: official clients show nothing else.
fn unknown_model(error: &StoreError) -> ApiError {
    let message = match error.hint() {
        Some(nearest) => format!("{error}; {nearest}"),
        None => error.to_string(),
    };
    let hint = "get a model with `firepot pull`, list those that are here with `firepot list`";
    ApiError { param: Some("model".to_owned()), ..ApiError::new(ErrorCode::ModelNotFound, message) }
        .with_hint(hint)
}
