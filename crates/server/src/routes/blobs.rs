//! `/api/blobs/{digest}`: files that a model is made from later, by `/api/create`.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::head,
};
use firepot_store::Digest;
use firepot_wire::{ApiError, ErrorCode};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::{Routes, reply::Dialect};
use crate::{app::App, library::Piece, limits};

pub fn routes() -> Routes {
    Routes::new().route("/api/blobs/{digest}", head(exists).post(upload))
}

async fn exists(State(app): State<Arc<App>>, Path(digest): Path<String>) -> Response {
    let found = async { if app.has_blob(parse(&digest)?).await? { Ok(()) } else { Err(absent(&digest)) } };
    Dialect::Ollama.respond(found.await.map(|()| Response::default()))
}

/// Its length is limited by the disk alone. A client that goes away leaves nothing behind.
async fn upload(State(app): State<Arc<App>>, Path(digest): Path<String>, body: Body) -> Response {
    let stored = async {
        let digest = parse(&digest)?;
        if app.has_blob(digest).await? {
            return Ok(StatusCode::OK);
        }
        let _place = app.uploads.try_acquire().map_err(|_| {
            let message = format!("{} files are being received already", limits::MAX_UPLOADS);
            ApiError::new(ErrorCode::QueueFull, message)
        })?;
        receive(&app, digest, body).await.map(|()| StatusCode::CREATED)
    };
    Dialect::Ollama.respond(stored.await.map(|status| {
        let mut response = Response::default();
        *response.status_mut() = status;
        response
    }))
}

/// Writes the body on a thread made for what blocks, which it reaches in pieces.
async fn receive(app: &App, digest: Digest, body: Body) -> Result<(), ApiError> {
    let (pieces, written) = mpsc::channel(limits::MAX_WAITING_PIECES);
    let pass_on = async move {
        let mut stream = body.into_data_stream();
        while let Some(piece) = stream.next().await {
            let piece: Bytes = piece.map_err(|error| {
                ApiError::new(ErrorCode::InvalidRequest, "the body could not be read")
                    .with_detail(error.to_string())
            })?;
            // Whoever writes has failed, and says why.
            if pieces.send(Piece::Bytes(piece)).await.is_err() {
                return Ok(());
            }
        }
        let _ = pieces.send(Piece::End).await;
        Ok(())
    };
    let (sent, stored) = tokio::join!(pass_on, app.store_blob(digest, written));
    stored?;
    sent
}

fn parse(digest: &str) -> Result<Digest, ApiError> {
    let colon = digest.replacen("sha256-", "sha256:", 1);
    colon.parse().map_err(|error: firepot_store::DigestError| ApiError::invalid("digest", error))
}

fn absent(digest: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no blob {digest}"))
}
