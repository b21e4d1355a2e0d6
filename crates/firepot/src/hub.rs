//! Model hubs: what the server and the commands ask them through.

use firepot_fetch::{FetchError, FileState, Http, Hubs, Phase, PullError, PullState, Puller};
use firepot_server::{Fetcher, PullFile, PullPhase, PullProgress};
use firepot_store::{Home, ModelRef};
use firepot_wire::{ApiError, ErrorCode};
use futures_util::future::BoxFuture;
use reqwest::Url;
use tokio::sync::watch;

use crate::{
    exit::{Exit, Failure},
    settings::Settings,
};

const OLLAMA_REGISTRY: &str = "https://registry.ollama.ai/";
const HUGGING_FACE: &str = "https://huggingface.co/";

/// Longest token of Hugging Face that is read from a file, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

/// A puller into this home. Nothing is asked of anybody before something is pulled. One for `others` goes into no private
/// network, but for the hubs that the user set.
pub fn puller(settings: &Settings, home: &Home, others: bool) -> anyhow::Result<Puller> {
    let [registry, hugging_face] = addresses(settings)?;
    let token = settings.hugging_face_token(TOKEN_BYTES_MAX);
    let hubs = Hubs { registry, hugging_face, hugging_face_token: token };
    let http = Http::new()?;
    let own = [hubs.registry.clone(), hubs.hugging_face.clone()];
    let http = if others { http.keep_out_of_private_networks(&own) } else { http };
    Ok(Puller::new(home.clone(), http, hubs))
}

/// Where the hubs are.
pub fn addresses(settings: &Settings) -> anyhow::Result<[Url; 2]> {
    let environment = &settings.environment;
    Ok([
        base("FIREPOT_REGISTRY", environment.registry.as_deref(), OLLAMA_REGISTRY)?,
        base("HF_ENDPOINT", environment.hf_endpoint.as_deref(), HUGGING_FACE)?,
    ])
}

fn base(variable: &str, value: Option<&str>, default: &str) -> anyhow::Result<Url> {
    let text = value.filter(|value| !value.is_empty()).unwrap_or(default);
    let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    let wrong = || {
        Failure::new(Exit::Failed, format!("{variable} is '{text}', which is no address"))
            .hint("write it as https://host/")
    };
    Ok(url.ok_or_else(wrong)?)
}

/// The server's way to the hubs.
#[derive(Debug)]
pub struct HubFetcher(pub Puller);

impl Fetcher for HubFetcher {
    fn pull(
        &self,
        model: String,
        insecure: bool,
        progress: watch::Sender<PullProgress>,
    ) -> BoxFuture<'static, Result<(), ApiError>> {
        let puller = self.0.clone();
        Box::pin(async move {
            let what = ModelRef::remote(&model)
                .map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.to_string()))?;
            let (state, mut changes) = watch::channel(PullState::default());
            let pull = puller.pull(&what, None, insecure, &state);
            tokio::pin!(pull);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut pull => return outcome.map(drop).map_err(|error| api_error(&error)),
                    Ok(()) = changes.changed() => {
                        progress.send_replace(told(&changes.borrow_and_update()));
                    }
                }
            }
        })
    }
}

fn told(state: &PullState) -> PullProgress {
    let phase = match state.phase {
        Phase::Manifest => PullPhase::Manifest,
        Phase::Files => PullPhase::Files,
        Phase::Writing => PullPhase::Writing,
    };
    let file = |file: &FileState| PullFile {
        digest: file.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        label: file.label.clone(),
        total_bytes: file.total_bytes,
        done_bytes: file.done_bytes,
    };
    PullProgress { phase, files: state.files.iter().map(file).collect() }
}

fn api_error(error: &PullError) -> ApiError {
    let code = match error {
        PullError::NotFound { .. } => ErrorCode::ModelNotFound,
        PullError::Invalid { .. } | PullError::Unusable(_) => ErrorCode::InvalidRequest,
        PullError::Store(error) | PullError::Fetch(FetchError::Store(error)) if error.is_lack_of_room() => {
            ErrorCode::StorageFull
        }
        PullError::Refused { .. } | PullError::Fetch(_) | PullError::Header(_) => ErrorCode::PullFailed,
        PullError::Store(_) => ErrorCode::Internal,
    };
    let detail = std::error::Error::source(error).map(ToString::to_string);
    ApiError { hint: error.hint(), detail, ..ApiError::new(code, error.to_string()) }
}
