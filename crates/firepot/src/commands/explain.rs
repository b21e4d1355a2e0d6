//! `firepot up --explain`: what will happen, before it does.

use firepot_store::{Home, Model};

use crate::{
    cli::Load,
    exit::{Exit, Failure},
    planner::reasons,
    settings::Settings,
};

/// Every download, file, process, port and llama.cpp parameter, with its reason, a line each. What the plan says is
/// logged by whoever carries it out; the rest is logged here.
pub fn explain(settings: &Settings, home: &Home, model: &Model, load: &Load) -> anyhow::Result<String> {
    let (plan, _) = settings
        .planner()
        .plan_model(model, &settings.wishes(load), &[])
        .map_err(|failure| Failure { exit: Exit::Load, message: failure.message, hint: failure.hint })?;
    let mut lines = vec![
        "downloads: none: the model is in the store, and nothing is fetched unless you ask".to_owned(),
        format!("file read: {}: the model", model.blob_path.display()),
        format!(
            "files written: {}: logs; database; the server's record while it runs",
            home.path().display()
        ),
        "process: this one: the server; it contains no llama.cpp".to_owned(),
        format!(
            "process: one runner: holds {} in llama.cpp, so that its death is not the server's",
            model.name
        ),
        format!(
            "port: {}: page and API; reachable from this machine unless --host says otherwise",
            settings.address
        ),
    ];
    for line in &lines {
        tracing::info!("{line}");
    }
    lines.extend(reasons(&plan));
    Ok(lines.join("\n") + "\n")
}
