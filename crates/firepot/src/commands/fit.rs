//! `firepot fit`: whether models fit, how, and what limits them.

use std::path::{Path, PathBuf};

use firepot_gguf::Layout;
use firepot_server::pool::Wishes;
use firepot_store::{Home, ModelName, split_of};
use serde_json::json;

use crate::{
    cli,
    exit::{Exit, Failure},
    fit::{Fit, THIS_MACHINE},
    planner::{read_files, read_layout, reasons},
    settings::Settings,
    table,
};

/// Plans models and prints how they fit; nothing is loaded.
pub fn fit(settings: &Settings, args: &cli::Fit) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    let names = if args.models.is_empty() { stored(&home)? } else { args.models.clone() };
    let planner = settings.planner();
    let machine = planner.probe();
    let wishes = Wishes { ctx: args.ctx, parallel: args.parallel, ..Wishes::default() };
    let want = planner.want(&wishes, &[]);
    let mut fits = Vec::with_capacity(names.len());
    for name in names {
        let layout = layout(&home, &name)?;
        fits.push(Fit::of(name, &layout, THIS_MACHINE, &machine, &want));
    }
    if args.json {
        println!("{}", json!({ "models": fits }));
    } else {
        print(&fits, args.explain);
    }
    // The answer is complete; the code is for scripts.
    match fits.iter().filter(|fit| !fit.fits).count() {
        0 => Ok(()),
        count => Err(Failure::new(Exit::Load, format!("{count} of {} do not fit", fits.len())).into()),
    }
}

fn stored(home: &Home) -> anyhow::Result<Vec<String>> {
    let models = home.models().list()?.models;
    if models.is_empty() {
        return Err(Failure::new(Exit::NoModel, "the store has no model yet")
            .hint("name a GGUF file, or fetch a model: firepot pull NAME")
            .into());
    }
    Ok(models.into_iter().map(|model| model.name.to_string()).collect())
}

/// Of a GGUF file, or of a model in the store.
fn layout(home: &Home, name: &str) -> anyhow::Result<Layout> {
    let failure = |exit, message: String, hint: Option<String>| Failure { exit, message, hint };
    if is_file(name) {
        let files = files(Path::new(name));
        let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let read = read_files(&paths);
        return read.map_err(|(message, _)| failure(Exit::Failed, format!("{name}: {message}"), None).into());
    }
    let model = home.models().find(&name.parse::<ModelName>()?)?;
    read_layout(&model).map_err(|refused| failure(Exit::Load, refused.message, refused.hint).into())
}

/// A name with this end or a path is no name of the store.
fn is_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
        || Path::new(name).is_file()
}

/// The file, and the others of a split model.
fn files(path: &Path) -> Vec<PathBuf> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match split_of(&stem) {
        Some((whole, 1, count)) => {
            let part = |number| path.with_file_name(format!("{whole}-{number:05}-of-{count:05}.gguf"));
            (1..=count).map(part).collect()
        }
        _ => vec![path.to_owned()],
    }
}

fn print(fits: &[Fit], explain: bool) {
    let header = ["MODEL", "FITS", "CONTEXT", "ANSWERS", "KV CACHE", "MEMORY (PREDICTED)"];
    print!("{}", table::render(&header, &fits.iter().map(row).collect::<Vec<_>>()));
    for fit in fits {
        if let Some(refused) = &fit.refused {
            println!("{}: {}", fit.model, refused.message);
            if let Some(hint) = &refused.hint {
                println!("  hint: {hint}");
            }
        }
        if let (true, Some(plan)) = (explain, &fit.plan) {
            println!("\n{} on {}:", fit.model, fit.machine);
            for reason in reasons(plan) {
                println!("  {reason}");
            }
        }
        if let (true, Some(explanation)) = (explain || fits.len() == 1, &fit.explanation) {
            println!("limit: {}", explanation.binds);
            for change in &explanation.changes {
                println!("with {}: {}; {}", change.change, change.buys, change.costs);
            }
        }
    }
}

fn row(fit: &Fit) -> Vec<String> {
    let Some(plan) = &fit.plan else {
        return vec![fit.model.clone(), "no".into(), "-".into(), "-".into(), "-".into(), "-".into()];
    };
    vec![
        fit.model.clone(),
        fit.place.clone().unwrap_or_default(),
        plan.ctx_per_answer.to_string(),
        plan.parallel.to_string(),
        plan.kv_type_k.name().to_owned(),
        table::bytes(plan.predicted.total_bytes()),
    ]
}
