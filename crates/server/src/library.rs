//! What the server does with the store's models: making and copying them, receiving their files, and what they
//! bring along for requests.

use axum::body::Bytes;
use firepot_store::{BlobWriter, CreateSpec, Defaults, Digest, From as MadeOf, ImportError, Model};
use firepot_wire::{
    ApiError, ErrorCode, ModelDefaults,
    ollama::{CreateRequest, LoadOptions},
};
use tokio::sync::mpsc;

use crate::{
    app::{App, api_error, blocking, model_name},
    pool::Wishes,
};

/// A piece of a file that is being received.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// There are no more. A file without this end is not kept.
    End,
}

/// What a load is asked to be, in the pool's words.
#[must_use]
pub fn wishes(options: LoadOptions) -> Wishes {
    Wishes {
        ctx: options.num_ctx,
        threads: options.num_thread,
        batch_tokens: options.num_batch,
        gpu_layers: options.num_gpu,
        mmap: options.use_mmap,
        mlock: options.use_mlock,
        ..Wishes::default()
    }
}

/// What a model brings along for requests. What it says to no use is told in the log.
#[must_use]
pub fn defaults(model: &Model) -> ModelDefaults {
    let own = &model.defaults;
    let (defaults, problems) = ModelDefaults::new(&own.parameters);
    for problem in problems {
        tracing::debug!(model = %model.name, "the model's own {problem}");
    }
    let defaults = defaults.with_system(own.system.clone()).with_template(own.template.clone());
    own.messages
        .iter()
        .fold(defaults, |defaults, message| defaults.with_message(&message.role, &message.content))
}

impl App {
    /// Makes a model, which is then told to all who watch.
    ///
    /// # Errors
    /// When what it is made of is not there or cannot be used.
    pub async fn create_model(&self, request: CreateRequest) -> Result<(), ApiError> {
        let name = model_name(&request.model)?;
        let from = match &request.from {
            Some(model) => MadeOf::Model(model_name(model)?),
            None => MadeOf::Blobs(digests(&request.files)?),
        };
        let spec = CreateSpec { from, defaults: own_defaults(request) };
        self.change_models(move |home| home.models().create(&name, &spec).map(drop)).await
    }

    /// Gives a model a second name.
    ///
    /// # Errors
    /// When there is no such model, or the name cannot be used.
    pub async fn copy_model(&self, source: &str, destination: &str) -> Result<(), ApiError> {
        let (from, to) = (model_name(source)?, model_name(destination)?);
        self.change_models(move |home| home.models().copy(&from, &to).map(drop)).await
    }

    /// Whether a file of this content is in the store.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn has_blob(&self, digest: Digest) -> Result<bool, ApiError> {
        self.with_home(move |home| Ok(home.has_blob(&digest))).await
    }

    /// Stores a file that comes in pieces. One that does not come to its end leaves nothing behind.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`] when the content is not what the digest says; a failure of the disk.
    pub async fn store_blob(
        &self,
        digest: Digest,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<(), ApiError> {
        self.with_home(move |home| {
            let mut writer = BlobWriter::create(&home.blobs_dir())?;
            while let Some(piece) = pieces.blocking_recv() {
                match piece {
                    Piece::Bytes(bytes) => writer.write(&bytes)?,
                    Piece::End => return writer.commit(Some(&digest)).map(drop),
                }
            }
            Ok(())
        })
        .await
    }

    async fn change_models(
        &self,
        change: impl FnOnce(&firepot_store::Home) -> Result<(), ImportError> + Send + 'static,
    ) -> Result<(), ApiError> {
        let home = self.home().clone();
        blocking(move || change(&home)).await?.map_err(|error| import_error(&error))?;
        self.models_changed.send_replace(());
        Ok(())
    }
}

fn digests(files: &[(String, String)]) -> Result<Vec<Digest>, ApiError> {
    let digest = |(name, digest): &(String, String)| {
        digest.parse().map_err(|error: firepot_store::DigestError| {
            ApiError::invalid(format!("files.{name:?}"), format_args!("is no digest: {error}"))
        })
    };
    files.iter().map(digest).collect()
}

fn own_defaults(request: CreateRequest) -> Defaults {
    let CreateRequest { parameters, system, template, messages, license, .. } = request;
    let messages = messages.into_iter().map(|message| (message.role, message.content));
    Defaults::new(parameters, system, template, messages, license)
}

fn import_error(error: &ImportError) -> ApiError {
    match error {
        ImportError::Store(error) => api_error(error),
        // Whoever made the model named files that cannot be one.
        unusable => {
            let message = unusable.to_string();
            ApiError { hint: unusable.hint(), ..ApiError::new(ErrorCode::InvalidRequest, message) }
        }
    }
}
