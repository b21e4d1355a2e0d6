//! A pull from the name to the model in the store.

use std::sync::Arc;

use firepot_gguf::Gguf;
use firepot_store::{
    Blob, Defaults, Digest, Home, ImportError, Model, ModelName, ModelRef, PendingPull, StoreError,
};
use reqwest::{StatusCode, Url, header};
use tokio::sync::watch;

use crate::{
    FetchError, FileSpec, HeaderError, Http, Small, fetch_file, fetch_header,
    hub::{self, NoFile, Repository, RepositoryFile},
    limits::{MANIFEST_BYTES_MAX, TOKEN_BYTES_MAX},
    registry::{
        Challenge, MANIFEST_MEDIA_TYPE, RegistryLayer, RegistryManifest, TokenAnswer, looks_like_html,
    },
};

/// Where hubs are, and who asks them.
#[derive(Clone)]
pub struct Hubs {
    /// Stands for `registry.ollama.ai` in names.
    pub registry: Url,
    /// Stands for `hf.co` in names.
    pub hugging_face: Url,
    /// A Hugging Face token, for repositories that ask for one; sent to `hugging_face` only.
    pub hugging_face_token: Option<String>,
}

/// What a registry says of a model.
struct Found {
    repository: Url,
    /// Of the manifest.
    url: Url,
    answer: Small,
    authorization: Option<String>,
    manifest: RegistryManifest,
}

impl Found {
    fn specs(&self) -> Result<Vec<FileSpec>, PullError> {
        let spec = |blob: RegistryLayer| {
            Ok(FileSpec {
                url: join(&self.repository, &format!("blobs/{}", blob.digest))?,
                size_bytes: Some(blob.size),
                digest: Some(blob.digest),
                authorization: self.authorization.clone(),
                label: blob.kind().to_owned(),
            })
        };
        self.manifest.blobs().into_iter().map(spec).collect()
    }
}

/// Why a model was not pulled. What was downloaded stays and is used by the next try.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The hub has no such model.
    #[error("{message}")]
    NotFound {
        /// What was looked for and where.
        message: String,
        /// What may help.
        hint: Option<String>,
    },
    /// The hub wants to know who asks.
    #[error("{message}")]
    Refused {
        /// Who refused what.
        message: String,
        /// What may help.
        hint: Option<String>,
    },
    /// What the hub said, or what was asked for, cannot be used.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
    },
    /// A file could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The files are no model that can be used.
    #[error(transparent)]
    Unusable(#[from] ImportError),
    /// Its header could not be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PullError {
    /// What the user can do about it; a sentence fragment without full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { hint, .. } | Self::Refused { hint, .. } => hint.clone(),
            Self::Header(HeaderError::TooLong { .. }) => {
                Some("pull the model; of a file that is here, headers of any size are read".to_owned())
            }
            Self::Invalid { .. } | Self::Header(HeaderError::Gguf { .. }) => None,
            Self::Fetch(error) | Self::Header(HeaderError::Fetch(error)) => error.hint(),
            Self::Unusable(error) => error.hint(),
            Self::Store(error) => error.hint(),
        }
    }

    fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Fetch(error) if error.status() == Some(StatusCode::UNAUTHORIZED))
    }
}

/// What a pull is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Asking the hub what the model is made of.
    #[default]
    Manifest,
    /// Downloading.
    Files,
    /// Naming it in the store.
    Writing,
}

/// How far a pull is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullState {
    /// What it is doing.
    pub phase: Phase,
    /// Its files, known from [`Phase::Files`] on.
    pub files: Vec<FileState>,
}

impl PullState {
    fn done_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.done_bytes).sum()
    }
}

/// How far a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Of its content, where the hub tells.
    pub digest: Option<Digest>,
    /// What it is, in a word or its file name.
    pub label: String,
    /// Its length; 0 when the server does not tell before.
    pub total_bytes: u64,
    /// What is in the store of it.
    pub done_bytes: u64,
}

/// Pulls models into a home.
#[derive(Clone)]
pub struct Puller {
    home: Home,
    http: Http,
    hubs: Arc<Hubs>,
}

impl std::fmt::Debug for Puller {
    // The token stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Puller {
    /// A puller; nothing is asked of anybody yet.
    #[must_use]
    pub fn new(home: Home, http: Http, hubs: Hubs) -> Self {
        Self { home, http, hubs: Arc::new(hubs) }
    }

    /// Fetches a model and names it in the store. `name` is the name of what has none, as a URL. Dropping the future
    /// cancels; what was downloaded stays.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn pull(
        &self,
        what: &ModelRef,
        name: Option<ModelName>,
        insecure: bool,
        state: &watch::Sender<PullState>,
    ) -> Result<Model, PullError> {
        state.send_replace(PullState::default());
        let name = name.map_or_else(|| what.name(), Ok);
        let name = name.map_err(|error| PullError::Invalid { message: error.to_string() })?;
        match what {
            ModelRef::Name(model) if model.host() == "hf.co" => {
                self.pull_repository(model, name, state).await
            }
            ModelRef::Name(model) => self.pull_registry(model, name, insecure, state).await,
            ModelRef::Url(url) => self.pull_url(url, name, state).await,
            ModelRef::File(path) => Err(PullError::Invalid {
                message: format!("{} is a file: use `firepot import`", path.display()),
            }),
        }
    }

    /// What a model's header says, without its data: at most [`FILE_HEADER_REQUESTS_MAX`](crate::limits::FILE_HEADER_REQUESTS_MAX)
    /// requests for each file, of a few MiB.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn header(&self, what: &ModelRef, insecure: bool) -> Result<Gguf, PullError> {
        let files = match what {
            ModelRef::Name(model) if model.host() == "hf.co" => self.repository_files(model).await?,
            ModelRef::Name(model) => {
                let found = self.manifest(model, insecure).await?;
                found.specs()?.into_iter().filter(|spec| spec.label == "model").collect()
            }
            ModelRef::Url(url) => vec![self.url_file(url)?],
            ModelRef::File(path) => {
                return Err(PullError::Invalid { message: format!("{} is a file", path.display()) });
            }
        };
        Ok(fetch_header(&self.http, &files).await?)
    }

    /// Fetches a file that was set aside as damaged, from where it came, as far as it is missing.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn refetch(&self, digest: Digest, size_bytes: u64, source: &str) -> Result<(), PullError> {
        let url = Url::parse(source)
            .map_err(|error| PullError::Invalid { message: format!("'{source}' is no URL: {error}") })?;
        let authorization = self.hub_authorization(&url);
        let label = digest.to_string();
        let spec = FileSpec { url, size_bytes: Some(size_bytes), digest: Some(digest), authorization, label };
        fetch_file(&self.http, &self.home, spec, |_| {}).await?;
        Ok(())
    }

    async fn pull_registry(
        &self,
        model: &ModelName,
        name: ModelName,
        insecure: bool,
        state: &watch::Sender<PullState>,
    ) -> Result<Model, PullError> {
        let found = self.manifest(model, insecure).await?;
        let mut specs = found.specs()?;
        let pending = self.begin(&name, specs.iter().filter_map(|spec| spec.digest).collect()).await?;
        // Tokens run out, some before a large file has come.
        let mut renewed_at = None;
        while let Err(error) = self.fetch_all(specs.clone(), state).await {
            let done_bytes = state.borrow().done_bytes();
            if !error.is_unauthorized() || renewed_at.is_some_and(|before| done_bytes <= before) {
                return Err(error);
            }
            renewed_at = Some(done_bytes);
            let (_, authorization) = self.ask_registry(&found.url).await?;
            for spec in &mut specs {
                spec.authorization.clone_from(&authorization);
            }
        }
        let bytes = found.answer.body.to_vec();
        let install = move |home: &Home| {
            let model = home.models().install(&name, &bytes)?;
            pending.done()?;
            Ok::<_, PullError>(model)
        };
        self.with_home(install).await
    }

    /// Asks a registry what a model is made of.
    async fn manifest(&self, model: &ModelName, insecure: bool) -> Result<Found, PullError> {
        let base = self.registry_base(model, insecure)?;
        let repository = join(&base, &format!("v2/{}/{}/", model.namespace(), model.model()))?;
        let url = join(&repository, &format!("manifests/{}", model.tag()))?;
        let (answer, authorization) = self.ask_registry(&url).await?;
        check_found(&answer, model)?;
        let manifest =
            RegistryManifest::parse(&answer.body).map_err(|message| PullError::Invalid { message })?;
        Ok(Found { repository, url, answer, authorization, manifest })
    }

    async fn pull_repository(
        &self,
        model: &ModelName,
        name: ModelName,
        state: &watch::Sender<PullState>,
    ) -> Result<Model, PullError> {
        let specs = self.repository_files(model).await?;
        self.pull_files(name, specs, state).await
    }

    /// The files of a repository that are the model.
    async fn repository_files(&self, model: &ModelName) -> Result<Vec<FileSpec>, PullError> {
        let path = format!("{}/{}", model.namespace(), model.model());
        let base = &self.hubs.hugging_face;
        let mut url = join(base, &format!("api/models/{path}/revision/main"))?;
        url.set_query(Some("blobs=true"));
        let authorization = self.hub_authorization(&url);
        let answer = self.http.get(&url, None, authorization.as_deref(), MANIFEST_BYTES_MAX).await?;
        check_hub(&answer, &path, authorization.is_some())?;
        let repository: Repository = serde_json::from_slice(&answer.body).map_err(|error| {
            PullError::Invalid { message: format!("the hub's answer about {path} cannot be read: {error}") }
        })?;
        let files =
            hub::choose(&repository.siblings, model.tag()).map_err(|error| no_file(&path, model, error))?;
        let spec = |file: &RepositoryFile| {
            Ok::<_, PullError>(FileSpec {
                url: join(base, &format!("{path}/resolve/{}/{}", repository.sha, file.path))?,
                size_bytes: file.size_bytes(),
                digest: file.digest(),
                authorization: authorization.clone(),
                label: file.path.clone(),
            })
        };
        files.iter().map(spec).collect()
    }

    async fn pull_url(
        &self,
        url: &str,
        name: ModelName,
        state: &watch::Sender<PullState>,
    ) -> Result<Model, PullError> {
        let spec = self.url_file(url)?;
        self.pull_files(name, vec![spec], state).await
    }

    fn url_file(&self, url: &str) -> Result<FileSpec, PullError> {
        let url = Url::parse(url)
            .map_err(|error| PullError::Invalid { message: format!("'{url}' is no URL: {error}") })?;
        let file = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        let authorization = self.hub_authorization(&url);
        let label = file.to_owned();
        Ok(FileSpec { label, url, size_bytes: None, digest: None, authorization })
    }

    /// Fetches a model's files and writes a manifest for them.
    async fn pull_files(
        &self,
        name: ModelName,
        specs: Vec<FileSpec>,
        state: &watch::Sender<PullState>,
    ) -> Result<Model, PullError> {
        let pending = self.begin(&name, specs.iter().filter_map(|spec| spec.digest).collect()).await?;
        let blobs = self.fetch_all(specs, state).await?;
        let install = move |home: &Home| {
            let model = home.models().install_files(&name, &blobs, &Defaults::default())?;
            pending.done()?;
            Ok::<_, PullError>(model)
        };
        self.with_home(install).await
    }

    /// One file after the other, each in parallel parts.
    async fn fetch_all(
        &self,
        specs: Vec<FileSpec>,
        state: &watch::Sender<PullState>,
    ) -> Result<Vec<Blob>, PullError> {
        let file = |spec: &FileSpec| FileState {
            digest: spec.digest,
            label: spec.label.clone(),
            total_bytes: spec.size_bytes.unwrap_or_default(),
            done_bytes: 0,
        };
        let files = specs.iter().map(file).collect();
        state.send_replace(PullState { phase: Phase::Files, files });
        let mut blobs = Vec::new();
        for (index, spec) in specs.into_iter().enumerate() {
            let progress = |done_bytes| {
                state.send_modify(|state| {
                    let file = &mut state.files[index];
                    file.done_bytes = done_bytes;
                    file.total_bytes = file.total_bytes.max(done_bytes);
                });
            };
            let blob = fetch_file(&self.http, &self.home, spec, progress).await?;
            state.send_modify(|state| {
                let file = &mut state.files[index];
                (file.done_bytes, file.total_bytes) = (blob.size_bytes, blob.size_bytes);
            });
            blobs.push(blob);
        }
        state.send_modify(|state| state.phase = Phase::Writing);
        Ok(blobs)
    }

    /// The answer of a registry, and the authorization that it wanted for it.
    async fn ask_registry(&self, url: &Url) -> Result<(Small, Option<String>), PullError> {
        let accept = Some(MANIFEST_MEDIA_TYPE);
        let first = self.http.get(url, accept, None, MANIFEST_BYTES_MAX).await?;
        if first.status != StatusCode::UNAUTHORIZED {
            return Ok((first, None));
        }
        let header = first.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let challenge = Challenge::parse(header.unwrap_or_default(), url)
            .map_err(|message| PullError::Refused { message, hint: None })?;
        let answer = self.http.get(&challenge.url(), None, None, TOKEN_BYTES_MAX).await?;
        let token = serde_json::from_slice::<TokenAnswer>(&answer.body).ok().and_then(TokenAnswer::token);
        let Some(token) = token.filter(|_| answer.status.is_success()) else {
            let host = url.host_str().unwrap_or_default();
            let message = format!("the registry {host} refused a token: it answered {}", answer.status);
            return Err(PullError::Refused { message, hint: None });
        };
        let authorization = format!("Bearer {token}");
        let second = self.http.get(url, accept, Some(&authorization), MANIFEST_BYTES_MAX).await?;
        Ok((second, Some(authorization)))
    }

    /// The user's token, for Hugging Face alone.
    fn hub_authorization(&self, url: &Url) -> Option<String> {
        let hub = &self.hubs.hugging_face;
        let token = self.hubs.hugging_face_token.as_ref().filter(|_| url.origin() == hub.origin())?;
        Some(format!("Bearer {token}"))
    }

    /// Plain HTTP only where nobody listens in, or where the user allows it.
    fn registry_base(&self, model: &ModelName, insecure: bool) -> Result<Url, PullError> {
        if model.is_of_default_registry() {
            return Ok(self.hubs.registry.clone());
        }
        let host = model.host();
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        let scheme =
            if insecure || bare == "localhost" || bare.starts_with("127.") { "http" } else { "https" };
        Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|error| PullError::Invalid { message: format!("'{host}' is no host: {error}") })
    }

    async fn begin(&self, name: &ModelName, digests: Vec<Digest>) -> Result<PendingPull, StoreError> {
        let name = name.clone();
        self.with_home(move |home| home.begin_pull(&name, &digests)).await
    }

    async fn with_home<T: Send + 'static>(&self, work: impl FnOnce(&Home) -> T + Send + 'static) -> T {
        let home = self.home.clone();
        match tokio::task::spawn_blocking(move || work(&home)).await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

fn join(base: &Url, path: &str) -> Result<Url, PullError> {
    let mut base = base.clone();
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    base.join(path).map_err(|error| PullError::Invalid { message: format!("'{path}' is no path: {error}") })
}

fn check_found(answer: &Small, model: &ModelName) -> Result<(), PullError> {
    let host = model.host();
    match answer.status {
        status if status.is_success() => Ok(()),
        StatusCode::NOT_FOUND => Err(PullError::NotFound {
            message: format!("{host} has no model '{model}'"),
            hint: Some("check the name and its tag".to_owned()),
        }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(PullError::Refused {
            message: format!("{host} does not give '{model}' to everybody"),
            hint: None,
        }),
        status => Err(unexpected(host, status, &answer.body)),
    }
}

fn check_hub(answer: &Small, path: &str, with_token: bool) -> Result<(), PullError> {
    match answer.status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND if !with_token => {
            Err(PullError::NotFound {
                message: format!("Hugging Face has no repository '{path}' that everybody may read"),
                hint: Some("check the name; for a private or gated one set HF_TOKEN".to_owned()),
            })
        }
        StatusCode::NOT_FOUND => Err(PullError::NotFound {
            message: format!("Hugging Face has no repository '{path}'"),
            hint: Some("check the name".to_owned()),
        }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(PullError::Refused {
            message: format!("Hugging Face refused the token for '{path}'"),
            hint: Some("accept the model's terms on its page, or use another token".to_owned()),
        }),
        status => Err(unexpected("Hugging Face", status, &answer.body)),
    }
}

fn unexpected(who: &str, status: StatusCode, body: &[u8]) -> PullError {
    let page = if looks_like_html(body) { " with a web page" } else { "" };
    PullError::Invalid { message: format!("{who} answered {status}{page}") }
}

fn no_file(path: &str, model: &ModelName, error: NoFile) -> PullError {
    match error {
        NoFile::NoGguf => PullError::NotFound {
            message: format!("the repository '{path}' has no GGUF file"),
            hint: Some("look for one whose name ends in -GGUF".to_owned()),
        },
        NoFile::NoQuantization(there) => PullError::NotFound {
            message: format!("the repository '{path}' has no file for '{}'", model.tag()),
            hint: Some(format!("it has {}", there.join(", "))),
        },
        NoFile::Incomplete => {
            PullError::Invalid { message: format!("parts of the split model in '{path}' are missing") }
        }
    }
}
