//! `/api/pull`, `/api/create`, `/api/copy`, `/api/delete`: models come, are made, and go.

use std::sync::Arc;

use axum::{
    extract::State,
    response::Response,
    routing::{delete, post},
};
use firepot_wire::{
    ApiError, ErrorCode,
    ollama::{self, CreateRequest, status_line},
};

use super::{
    Body, Routes,
    lines::{Teller, follow, respond},
    read,
    reply::Dialect,
};
use crate::app::App;

pub fn routes() -> Routes {
    Routes::new()
        .route("/api/pull", post(pull))
        .route("/api/create", post(create))
        .route("/api/copy", post(copy))
        .route("/api/delete", delete(remove))
}

async fn pull(State(app): State<Arc<App>>, body: Body) -> Response {
    let begun = async {
        let request = ollama::pull_request(&read(body)?)?;
        Ok((app.pulls.join(&request.model, request.insecure)?, request.mode))
    };
    match begun.await {
        Ok((ticket, mode)) => respond(mode, |teller| async move { follow(ticket, &teller).await }).await,
        Err(error) => Dialect::Ollama.error(&error),
    }
}

async fn create(State(app): State<Arc<App>>, body: Body) -> Response {
    let read = async { ollama::create_request(&read(body)?) };
    match read.await {
        Ok(request) => respond(request.mode, |teller| make(app, request, teller)).await,
        Err(error) => Dialect::Ollama.error(&error),
    }
}

/// Makes a model. One that it is to be made from is pulled when it is not here.
async fn make(app: Arc<App>, request: CreateRequest, teller: Teller) -> Result<(), ApiError> {
    for warning in &request.warnings {
        teller.tell(status_line(&format!("warning: {warning}"))).await?;
    }
    if let Some(from) = &request.from {
        match app.model(from).await {
            Err(error) if error.code == ErrorCode::ModelNotFound => {
                follow(app.pulls.join(from, false)?, &teller).await?;
            }
            found => drop(found?),
        }
    }
    for (_, digest) in &request.files {
        teller.tell(status_line(&format!("using existing layer {digest}"))).await?;
    }
    teller.tell(status_line("writing manifest")).await?;
    app.create_model(request).await
}

async fn copy(State(app): State<Arc<App>>, body: Body) -> Response {
    let copied = async {
        let request = ollama::copy_request(&read(body)?)?;
        app.copy_model(&request.source, &request.destination).await?;
        Ok(Response::default())
    };
    Dialect::Ollama.respond(copied.await)
}

async fn remove(State(app): State<Arc<App>>, body: Body) -> Response {
    let removed = async {
        let request = ollama::model_request(&read(body)?)?;
        let model = app.model(&request.model).await?;
        app.remove_model(&request.model).await?;
        app.pool.unload(&model.name).await;
        Ok(Response::default())
    };
    Dialect::Ollama.respond(removed.await)
}
