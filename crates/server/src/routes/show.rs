//! `/api/show`: what a model is.

use std::sync::Arc;

use axum::{extract::State, response::Response, routing::post};
use firepot_store::Model;
use firepot_wire::ollama::{
    self, Modelfile, ModelfileMessage, ShowResponse, ShownMessage, TensorEntry, parameter_lines, timestamp,
};

use super::{
    Body, Routes,
    ollama::details,
    read,
    reply::{Dialect, json},
};
use crate::{app::App, capabilities::template};

pub fn routes() -> Routes {
    Routes::new().route("/api/show", post(show))
}

async fn show(State(app): State<Arc<App>>, body: Body) -> Response {
    let shown = async {
        let request = ollama::model_request(&read(body)?)?;
        let model = app.model(&request.model).await?;
        let header = app.header(&model).await?;
        let tensors = request.verbose.then(|| header.tensors.iter().map(tensor).collect());
        let info = header.entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect();
        json(&ShowResponse { model_info: info, tensors, ..response(&app, &model) })
    };
    Dialect::Ollama.respond(shown.await)
}

fn response(app: &App, model: &Model) -> ShowResponse {
    let (summary, defaults) = (&model.summary, &model.defaults);
    let message = |message: &firepot_store::DefaultMessage| ShownMessage {
        role: message.role.clone(),
        content: message.content.clone(),
    };
    let shown = template(model).or(defaults.go_template.as_deref());
    ShowResponse {
        license: license(model),
        modelfile: modelfile(model).to_string(),
        parameters: parameter_lines(&defaults.parameters),
        template: shown.unwrap_or_default().to_owned(),
        system: defaults.system.clone().unwrap_or_default(),
        messages: defaults.messages.iter().map(message).collect(),
        details: details(summary),
        capabilities: app.capabilities.names(model),
        notes: notes(app, model),
        modified_at: timestamp(model.modified_at),
        ..ShowResponse::default()
    }
}

/// That of the manifest, else what the file says.
fn license(model: &Model) -> String {
    match model.defaults.license.as_slice() {
        [] => model.summary.license.clone().unwrap_or_default(),
        texts => texts.join("\n"),
    }
}

/// What the model could be made from again.
fn modelfile(model: &Model) -> Modelfile {
    let defaults = &model.defaults;
    let message = |message: &firepot_store::DefaultMessage| ModelfileMessage {
        role: message.role.clone(),
        content: message.content.clone(),
    };
    Modelfile {
        from: vec![model.name.to_string()],
        parameters: defaults.parameters.clone(),
        template: defaults.template.clone(),
        system: defaults.system.clone(),
        license: defaults.license.clone(),
        messages: defaults.messages.iter().map(message).collect(),
        warnings: Vec::new(),
    }
}

fn notes(app: &App, model: &Model) -> Vec<String> {
    let mut notes = Vec::new();
    if !app.capabilities.abilities(model).tools {
        notes.push("tools are ignored: the model's chat template has no place for them".to_owned());
    }
    if template(model).is_none() {
        notes.push("the file has no chat template: a plain one is used".to_owned());
    }
    if model.defaults.go_template.is_some() {
        notes.push("the model's template in Go's language is not used: Jinja is".to_owned());
    }
    if model.origin.is_elsewhere() {
        notes.push(format!("the files lie in {} and are read there", model.origin));
    }
    notes
}

fn tensor(tensor: &firepot_gguf::Tensor) -> TensorEntry {
    TensorEntry {
        name: tensor.name.clone(),
        kind: tensor.kind.name.to_owned(),
        shape: tensor.dimensions.clone(),
    }
}
