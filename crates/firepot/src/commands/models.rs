//! The commands about models: `list`, `ps`, `show`, `stop`, `rm`, `import`.

use std::{path::Path, time::Duration};

use firepot_server::words;
use firepot_store::{ModelName, Placement};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{
    attach,
    cli::{Cp, Import, ManyModels, OneModel, Output, Show},
    settings::Settings,
    table,
};

/// Lists what is in the store; no server is needed.
pub fn list(settings: &Settings, output: &Output) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    let listing = home.models().list()?;
    if output.json {
        println!("{}", serde_json::to_string(&listing.models)?);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = listing
        .models
        .iter()
        .map(|model| {
            vec![
                model.name.to_string(),
                table::bytes(model.size_bytes),
                model.summary.parameter_size.clone(),
                model.summary.quantization.clone(),
                model.modified_at.to_string(),
            ]
        })
        .collect();
    print!("{}", table::render(&["NAME", "SIZE", "PARAMETERS", "QUANTIZATION", "MODIFIED"], &rows));
    if rows.is_empty() {
        eprintln!("hint: the store is empty; copy a model into it with: firepot import FILE.gguf NAME");
    }
    for broken in &listing.unreadable {
        eprintln!("warning: {broken}");
    }
    Ok(())
}

/// Lists what is loaded.
pub async fn ps(settings: &Settings, output: &Output) -> anyhow::Result<()> {
    let answer: Value = attach::require(settings).await?.get("/api/ps").await?;
    let models = answer["models"].as_array().cloned().unwrap_or_default();
    if output.json {
        println!("{}", serde_json::to_string(&models)?);
        return Ok(());
    }
    if let (Some(left_s), Some(source)) =
        (answer["session"]["left_s"].as_u64(), answer["session"]["source"].as_str())
    {
        eprintln!("the session ends in {} ({source})", words(Duration::from_secs(left_s)));
    }
    for warning in warnings(&answer) {
        eprintln!("warning: {warning}");
    }
    let rows: Vec<Vec<String>> = models.iter().map(ps_row).collect();
    print!("{}", table::render(&["NAME", "MEMORY", "PROCESSOR", "CONTEXT", "UNTIL"], &rows));
    Ok(())
}

/// What the server says is not as it should be, such as a GPU that is not used.
fn warnings(ps: &Value) -> impl Iterator<Item = &str> {
    ps["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn ps_row(model: &Value) -> Vec<String> {
    let text = |name: &str| model[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| model[name].as_u64().unwrap_or_default();
    let (size, on_gpu) = (number("size"), number("size_vram"));
    let processor = match on_gpu {
        0 => "CPU".to_owned(),
        _ if on_gpu >= size => "GPU".to_owned(),
        _ => format!("{} % GPU", on_gpu * 100 / size.max(1)),
    };
    vec![
        text("name"),
        table::bytes(size),
        processor,
        number("context_length").to_string(),
        text("expires_at"),
    ]
}

/// Shows what a model is.
pub fn show(settings: &Settings, args: &Show) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    let model = home.models().find(&args.model.parse::<ModelName>()?)?;
    let gguf = firepot_gguf::Gguf::read(&std::fs::File::open(&model.blob_path)?)?;
    let meta = firepot_gguf::ModelMeta::from_gguf(&gguf)?;
    if args.json {
        println!("{}", json!({"model": model, "model_info": meta.metadata}));
        return Ok(());
    }
    let rows = [
        ("name", model.name.to_string()),
        ("architecture", meta.architecture.clone()),
        ("parameters", meta.parameter_size_label()),
        ("quantization", model.summary.quantization.clone()),
        ("trained context", format!("{} tokens", meta.ctx_train)),
        ("embedding length", meta.embedding_length.to_string()),
        ("layers", meta.n_layers.to_string()),
        ("size", table::bytes(model.size_bytes)),
        ("digest", model.digest.to_string()),
        ("file", model.blob_path.display().to_string()),
    ];
    for (name, value) in rows {
        println!("{name:<17} {value}");
    }
    Ok(())
}

/// Unloads a model.
pub async fn stop(settings: &Settings, args: &OneModel) -> anyhow::Result<()> {
    let client = attach::require(settings).await?;
    let body = json!({"model": args.model, "keep_alive": 0, "stream": false});
    let _: Value = client.post("/api/generate", &body).await?;
    eprintln!("unloaded {}", args.model);
    Ok(())
}

/// Removes models from the store. A model that is loaded goes on until it is unloaded: its file stays open.
pub fn rm(settings: &Settings, args: &ManyModels) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    for model in &args.models {
        home.models().remove(&model.parse()?)?;
        eprintln!("removed {model}");
    }
    Ok(())
}

/// Gives a model a second name; its files are not copied.
pub fn cp(settings: &Settings, args: &Cp) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    let copied = home.models().copy(&args.from.parse()?, &args.to.parse()?)?;
    eprintln!("copied {} to {}", args.from, copied.name);
    Ok(())
}

/// Copies a file into the store, hashing it on the way.
pub fn import(settings: &Settings, args: &Import) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    let name: ModelName = args.name.parse()?;
    let bar = copy_bar(&args.file);
    let placement = if args.copy { Placement::Copy } else { Placement::LinkOrCopy };
    let imported = home.models().import_with(&args.file, &name, placement, &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    })?;
    bar.finish_and_clear();
    eprintln!(
        "imported {} ({}, {}, {}) as {name}",
        args.file.display(),
        table::bytes(imported.model.size_bytes),
        imported.model.summary.architecture,
        imported.model.summary.quantization,
    );
    Ok(())
}

fn copy_bar(file: &Path) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    let bar = ProgressBar::new(0).with_message(format!("importing {}", file.display()));
    bar.enable_steady_tick(Duration::from_millis(100));
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_warns_of_is_told() {
        let told = |ps: Value| warnings(&ps).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(told(json!({"models": [], "warnings": ["a T4 is not used"]})), ["a T4 is not used"]);
        // Ollama has none.
        assert_eq!(told(json!({"models": []})), [""; 0]);
    }
}
