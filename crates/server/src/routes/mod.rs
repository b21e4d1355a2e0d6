//! The routes. Each dialect has its module; here they are put together with what holds for all: the guard,
//! the body limit, counting, and answers for what does not exist.
//!
//! What a client's disconnect does:
//!
//! | route | then |
//! |---|---|
//! | answers (`/api/chat`, `/api/generate`, `/v1/chat/completions`, `/v1/completions`) | the generation is cancelled; with an `Idempotency-Key` it goes on, and the same request follows it again |
//! | `/firepot/v1/generations/{id}/events` | the generation goes on, unless its own client was the last one that followed |
//! | `/firepot/v1/chats/{id}/answer` | the answer goes on: it belongs to the server, `/stop` ends it |
//! | `/firepot/v1/events` | nothing: whoever watched has gone |
//! | `/firepot/v1/models/load` and loads by `/api/generate` | the load goes on, for whoever comes next |
//! | `/api/pull`, and `/api/create` while it pulls | the pull ends when nobody else waits for it; what was downloaded stays |
//! | `/firepot/v1/pulls` | the pull goes on: it belongs to the server, `DELETE` ends it |
//! | `/firepot/v1/trials` | the trial goes on: it belongs to the server, `DELETE` ends it |
//! | `/api/blobs/{digest}` | what came of the file is removed |
//! | everything else that stores or removes | it is carried out |

mod answers;
mod blobs;
mod chats;
mod events;
mod fit;
mod generations;
mod keys;
mod lines;
mod models;
mod ollama;
mod openai;
mod own;
pub mod page;
mod presets;
mod pulls;
pub mod reply;
mod show;
mod table;
mod transfer;
mod trials;

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, MatchedPath, Request, State, rejection::BytesRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use firepot_wire::{ApiError, ErrorCode, limits::MAX_BODY_BYTES};

use self::reply::Dialect;
pub use self::table::Routes;
use crate::{
    access::{Asked, Need, Pass, Refused, allow, need, preflight},
    app::App,
    arrived::Arrived,
    journal::Resend,
};

/// Value of the `Server` header.
const SERVER: HeaderValue = HeaderValue::from_static(concat!("firepot/", env!("CARGO_PKG_VERSION")));

/// A request's body, or why it could not be read.
type Body = Result<Bytes, BytesRejection>;

/// Who sends a request, and whether it was sent before.
struct Sender {
    arrived: Arrived,
    resend: Resend,
    uri: Uri,
}

impl<S: Sync> FromRequestParts<S> for Sender {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Arrived>().copied();
        Ok(Self {
            arrived: known.unwrap_or_else(|| Arrived::of(parts)),
            resend: Resend::of(&parts.headers),
            uri: parts.uri.clone(),
        })
    }
}

/// No answer is a page, but for the page, which has a policy of its own.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");

/// All routes.
pub fn routes() -> Routes {
    Routes::new()
        .merge(page::routes())
        .merge(ollama::routes())
        .merge(show::routes())
        .merge(models::routes())
        .merge(blobs::routes())
        .merge(openai::routes())
        .merge(own::routes())
        .merge(chats::routes())
        .merge(answers::routes())
        .merge(generations::routes())
        .merge(transfer::routes())
        .merge(presets::routes())
        .merge(pulls::routes())
        .merge(trials::routes())
        .merge(events::routes())
        .merge(keys::routes())
}

/// All routes behind what holds for all.
pub fn router(app: Arc<App>) -> Router {
    routes()
        .into_router()
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&app), watch))
        .with_state(app)
}

/// Lets a request in, or says why not. Nothing gets past this to a route.
async fn admit(app: &Arc<App>, asked: Asked<'_>, route: Option<&str>) -> Result<Pass, Refused> {
    app.guard.check(asked.uri, asked.headers).map_err(ApiError::from)?;
    let is_page = route.is_some_and(|route| page::is_page(asked.method, route, asked.headers));
    let need = if is_page { Need::Open } else { need(asked.method, route) };
    app.access.admit(app, asked, need).await
}

/// Checks, stamps and counts every request.
async fn watch(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    // Only routes that exist are told apart, so that nobody can fill the metrics with paths.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (parts, body) = request.into_parts();
    let arrived = Arrived::of(&parts);
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(arrived);
    let foreign = app.guard.named_origin(request.headers());
    let asked = foreign.as_ref().and_then(|_| preflight(request.method(), request.headers()));
    let mut response = match (admit(&app, Asked::of(&request), route.as_deref()).await, asked) {
        // A browser asks without the key whether it may send it.
        (Err(refused), Some(preflight)) if !refused.is_forbidden() => preflight,
        (Err(refused), _) => refused.response(dialect),
        (Ok(_), Some(preflight)) => preflight,
        (Ok(pass), None) => {
            request.extensions_mut().insert(pass.principal.clone());
            pass.around(next.run(request).await)
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::SERVER, SERVER);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(POLICY);
    if let Some(origin) = foreign {
        allow(origin, headers);
    }
    let route = route.unwrap_or_else(|| "unknown".to_owned());
    app.metrics.request(&route, dialect.as_str(), response.status().as_u16());
    response
}

async fn unknown_route(uri: Uri) -> Response {
    let error = ApiError::new(ErrorCode::NotFound, format!("there is no route {}", uri.path()));
    Dialect::of(uri.path()).error(&error)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} cannot be used with the method {method}", uri.path());
    Dialect::of(uri.path()).error(&ApiError::new(ErrorCode::MethodNotAllowed, message))
}

/// The body's bytes.
fn read(body: Body) -> Result<Bytes, ApiError> {
    read_within(MAX_BODY_BYTES, body)
}

/// The same for a route with another limit, which its layer enforces.
fn read_within(limit: usize, body: Body) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body is longer than {limit} bytes");
            ApiError::new(ErrorCode::BodyTooLarge, message)
        }
        _ => ApiError::new(ErrorCode::InvalidRequest, "the body could not be read")
            .with_detail(rejection.body_text()),
    })
}
