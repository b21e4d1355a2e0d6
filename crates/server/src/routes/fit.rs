//! `/firepot/v1/fit`: whether models fit, before anything is loaded. No hub is asked: a model is one of the store or of the
//! catalogue.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use firepot_engine::KvType;
use firepot_store::Model;
use firepot_wire::{ApiError, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    chats::queried,
    reply::{self, Dialect},
};
use crate::{
    app::{App, blocking},
    pool::{FitFailure, FitModel, FitQuestion, Wishes},
};

/// What is asked. The same as `firepot fit` takes, under the same names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitQuery {
    /// Without it, all models of the store.
    model: Option<String>,
    /// A described machine in place of this one.
    on: Option<String>,
    ctx: Option<u32>,
    ctx_min: Option<u32>,
    parallel: Option<u32>,
    /// Tokens.
    think: Option<u32>,
    /// MiB on each device.
    memory: Option<u64>,
    kv_type: Option<KvType>,
    /// Seconds.
    ttft: Option<f64>,
    /// Tokens.
    prompt: Option<u32>,
}

/// Most MiB that a ceiling may name: 16 TiB.
const MEMORY_MIB_MAX: u64 = 16 << 20;

impl FitQuery {
    fn question(&self) -> Result<FitQuestion, ApiError> {
        if self.ctx.is_some() && self.ctx_min.is_some() {
            return Err(ApiError::invalid("ctx_min", "cannot be asked for together with ctx"));
        }
        if self.prompt.is_some() && self.ttft.is_none() {
            return Err(ApiError::invalid("prompt", "says nothing without ttft"));
        }
        if self.ttft.is_some_and(|seconds| !seconds.is_finite() || seconds <= 0.0) {
            return Err(ApiError::invalid("ttft", "must be a number of seconds above 0"));
        }
        if self.memory.is_some_and(|mib| !(1..=MEMORY_MIB_MAX).contains(&mib)) {
            let rest = format!("must be a number of MiB from 1 to {MEMORY_MIB_MAX}");
            return Err(ApiError::invalid("memory", rest));
        }
        let wishes = Wishes {
            ctx: self.ctx,
            parallel: self.parallel,
            memory_bytes: self.memory.map(|mib| mib << 20),
            kv_type: self.kv_type,
            ..Wishes::default()
        };
        Ok(FitQuestion {
            wishes,
            ctx_min: self.ctx_min,
            think_tokens: self.think,
            on: self.on.clone(),
            ttft_s: self.ttft,
            prompt_tokens: self.prompt,
        })
    }
}

/// Models that are asked about.
enum Asked {
    Stored(Vec<Arc<Model>>),
    /// It is not in the store, which is the error when it is in no catalogue either.
    Named(String, ApiError),
}

impl Asked {
    async fn of(app: &App, name: Option<&str>) -> Result<Self, ApiError> {
        let Some(name) = name else {
            return Ok(Self::Stored(app.models().await?.models.into_iter().map(Arc::new).collect()));
        };
        match app.model(name).await {
            Ok(model) => Ok(Self::Stored(vec![model])),
            Err(error) if error.code == ErrorCode::ModelNotFound => Ok(Self::Named(name.to_owned(), error)),
            Err(error) => Err(error),
        }
    }
}

/// Whether and how models fit this machine, beside those that are loaded, or one that is described.
pub async fn fit(State(app): State<Arc<App>>, query: Result<Query<FitQuery>, QueryRejection>) -> Response {
    let fits = async {
        let query = queried(query)?;
        let question = query.question()?;
        let asked = Asked::of(&app, query.model.as_deref()).await?;
        let (planner, pool) = (Arc::clone(&app.planner), app.pool.clone());
        let fits = move || {
            let fit = |model: FitModel<'_>, unknown: &dyn Fn() -> ApiError| {
                let others = match model {
                    FitModel::Stored(model) => pool.holders(Some(&model.name)),
                    FitModel::Named(_) => pool.holders(None),
                };
                planner.fit(model, &question, &others).map_err(|failure| refused(failure, unknown))
            };
            match asked {
                Asked::Stored(models) => {
                    let gone = || ApiError::new(ErrorCode::ModelNotFound, "the model is no longer there");
                    models.iter().map(|model| fit(FitModel::Stored(model), &gone)).collect()
                }
                Asked::Named(name, error) => {
                    Ok(vec![fit(FitModel::Named(&name), &|| not_listed(error.clone()))?])
                }
            }
        };
        let fits: Result<Vec<Value>, ApiError> = blocking(fits).await?;
        reply::json(&json!({ "models": fits? }))
    };
    Dialect::Own.respond(fits.await)
}

fn refused(failure: FitFailure, unknown: &dyn Fn() -> ApiError) -> ApiError {
    match failure {
        FitFailure::UnknownModel => unknown(),
        FitFailure::UnknownMachine { message, hint } => ApiError {
            param: Some("on".to_owned()),
            ..ApiError::new(ErrorCode::InvalidRequest, message).with_hint(hint)
        },
    }
}

fn not_listed(error: ApiError) -> ApiError {
    let message =
        format!("{}; the catalogue does not list it, and the server asks no hub for this", error.message);
    let hint =
        "`firepot fit MODEL` on the command line asks the hub for the header of a model that is not here";
    ApiError { message, ..error }.with_hint(hint)
}
