//! `firepot fit`: whether models fit, how, and what limits them.

use std::path::{Path, PathBuf};

use firepot_calibrate::{Correction, Rate, Speeds};
use firepot_catalogue::{Found, find};
use firepot_gguf::Layout;
use firepot_plan::Want;
use firepot_server::pool::{FitQuestion, PlanFailure, Wishes};
use firepot_store::{Home, ModelRef, StoreError, split_of};
use serde_json::json;

use crate::{
    basis::Basis,
    best::{USABLE_TOKENS_PER_S, rank},
    cli,
    exit::{Exit, Failure},
    fit::{Fit, Place},
    hub,
    planner::{read_files, read_layout, reasons},
    settings::Settings,
    table,
};

/// Plans models and prints how they fit; nothing is loaded.
pub async fn fit(settings: &Settings, args: &cli::Fit) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    let planner = settings.planner();
    let question = question(args);
    let place = Place::of(&planner, args.on.as_deref())
        .map_err(|unknown| Failure::new(Exit::Failed, &unknown).hint(unknown.hint()))?;
    let want = place.want(&planner.want(&question.wishes, &[]), &question);
    if args.models.is_empty() {
        print_ranking(&place, &want, &question, args.json);
        return Ok(());
    }
    let mut fits = Vec::with_capacity(args.models.len());
    for name in &args.models {
        let layout = layout(settings, &home, name).await?;
        fits.push(Fit::of(name.clone(), &layout, &place, &want).within(&question, &layout, &place));
    }
    if args.json {
        println!("{}", json!({ "models": fits }));
    } else {
        print(&fits, args.explain);
    }
    // The answer is complete; the code is for scripts.
    match fits.iter().filter(|fit| !fit.fits).count() {
        0 => Ok(()),
        count => {
            Err(Failure::new(Exit::Load, format!("{count} of {} {}", fits.len(), cannot(&question))).into())
        }
    }
}

fn question(args: &cli::Fit) -> FitQuestion {
    let wishes = Wishes {
        ctx: args.ctx,
        parallel: args.parallel,
        kv_type: args.kv_type.map(Into::into),
        memory_bytes: args.memory.map(|mib| mib << 20),
        ..Wishes::default()
    };
    FitQuestion {
        wishes,
        ctx_min: args.ctx_min,
        think_tokens: args.think,
        on: args.on.clone(),
        ttft_s: args.ttft,
        prompt_tokens: args.prompt,
    }
}

/// The catalogue, the best first.
fn print_ranking(place: &Place, want: &Want, question: &FitQuestion, as_json: bool) {
    let ranked = rank(place, want, question);
    if as_json {
        let models: Vec<_> = ranked
            .iter()
            .map(|ranked| {
                let model = ranked.model;
                json!({ "id": model.id, "title": model.title, "kind": model.kind, "licence": model.licence,
                    "quantization": model.usual_quant().name(), "ollama": model.ollama,
                    "hugging_face": model.hugging_face, "usable": ranked.usable(), "fit": ranked.fit })
            })
            .collect();
        println!("{}", json!({ "models": models }));
        return;
    }
    let fitting: Vec<Vec<String>> = ranked
        .iter()
        .filter(|ranked| ranked.fit.fits)
        .map(|ranked| {
            let kind = format!("{:?}", ranked.model.kind).to_lowercase();
            let mut row = row(&ranked.fit);
            row.splice(1..1, [ranked.model.usual_quant().name().to_owned(), kind]);
            row.push(ranked.model.pull_name().unwrap_or_default());
            row
        })
        .collect();
    let header = [
        "MODEL",
        "QUANT",
        "KIND",
        "FITS",
        "CONTEXT",
        "ANSWERS",
        "KV CACHE",
        "MEMORY",
        "TOKENS/S",
        "FIRST TOKEN",
        "NAME",
    ];
    print!("{}", table::render(&header, &fitting));
    let rest: Vec<&str> =
        ranked.iter().filter(|ranked| !ranked.fit.fits).map(|ranked| ranked.model.id.as_str()).collect();
    if !rest.is_empty() {
        println!("{}: {}", cannot(question), rest.join(", "));
    }
    println!("Memory is predicted. {}", bound(&ranked.iter().map(|ranked| &ranked.fit).collect::<Vec<_>>()));
    println!(
        "The best first: those that surely reach {USABLE_TOKENS_PER_S} tokens/s (half of the bound), then by kind, size and age."
    );
}

const fn cannot(question: &FitQuestion) -> &'static str {
    if question.ttft_s.is_some() { "do not fit, or not in time" } else { "do not fit" }
}

/// What the column of tokens per second says.
fn bound(fits: &[&Fit]) -> String {
    let known = fits
        .iter()
        .filter_map(|fit| fit.decode.as_ref())
        .find(|decode| decode.tokens_per_s_at_most.is_some());
    let by = known
        .or_else(|| fits.iter().find_map(|fit| fit.decode.as_ref()))
        .map_or("", |decode| decode.by.as_str());
    if fits.iter().any(|fit| fit.usual_speeds().is_some()) {
        let age = fits.iter().find_map(|fit| fit.calibration.as_ref()).map(Basis::told).unwrap_or_default();
        return format!(
            "Tokens per second of one answer and seconds to its first token, after a prompt of 512 tokens, are predicted from this machine's \
            calibration: nine of ten are to lie between the two; after ≤ stands a bound by memory's bandwidth.\n{age}"
        );
    }
    let absent = fits.iter().find_map(|fit| fit.speeds_absent.as_deref()).unwrap_or_default();
    match known {
        Some(_) => {
            format!("Tokens per second of one answer are a bound by {by}, not a prediction: {absent}.")
        }
        None => format!("No tokens per second: {by}."),
    }
}

/// Of a GGUF file, of a model in the store, of one in the catalogue, or of one at a hub, of which only the header is
/// fetched.
pub async fn layout(settings: &Settings, home: &Home, name: &str) -> anyhow::Result<Layout> {
    if is_file(name) {
        let files = files(Path::new(name));
        let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let read = read_files(&paths);
        return read.map_err(|(message, _)| Failure::new(Exit::Failed, format!("{name}: {message}")).into());
    }
    let what: ModelRef = name.parse()?;
    match home.models().find(&what.name()?) {
        Ok(model) => {
            let failure = |failed: PlanFailure| Failure {
                exit: Exit::Load,
                message: failed.message,
                hint: failed.hint,
            };
            return read_layout(&model).map_err(|refused| failure(refused).into());
        }
        Err(StoreError::UnknownModel { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(Found { model, quant }) = find(name) {
        return Ok(model.layout(quant)?);
    }
    eprintln!("{name} is neither in the store nor in the catalogue: asking the hub for its header");
    let header = hub::puller(settings, home, false)?.header(&what, false).await?;
    header.layout().map_err(|error| Failure::new(Exit::Load, format!("{name}: {error}")).into())
}

/// A name with this end or a path is no name of the store.
fn is_file(name: &str) -> bool {
    let path = Path::new(name);
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) || path.is_file()
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
    let header = ["MODEL", "FITS", "CONTEXT", "ANSWERS", "KV CACHE", "MEMORY", "TOKENS/S", "FIRST TOKEN"];
    print!("{}", table::render(&header, &fits.iter().map(row).collect::<Vec<_>>()));
    if fits.iter().any(|fit| fit.fits) {
        println!("Memory is predicted. {}", bound(&fits.iter().collect::<Vec<_>>()));
    }
    for fit in fits {
        if let Some(refused) = &fit.refused {
            println!("{}: {}", fit.model, refused.message);
            if let Some(hint) = &refused.hint {
                println!("  hint: {hint}");
            }
        }
        if let (true, Some(speeds)) = (explain, &fit.speeds) {
            println!("\npredicted for {}:", fit.model);
            let cells = |speeds: &Speeds| {
                let prompt = speeds.prompt_tokens.to_string();
                vec![prompt, between(&speeds.ttft), between(&speeds.prefill), between(&speeds.decode)]
            };
            let header = ["PROMPT", "FIRST TOKEN, S", "PROMPT TOKENS/S", "TOKENS/S"];
            print!("{}", table::render(&header, &speeds.iter().map(cells).collect::<Vec<_>>()));
            if let Some(Correction { decode, prefill, answers }) = fit.correction {
                println!(
                    "corrected by what {answers} answers took: prompt tokens/s × {prefill:.2}, tokens/s × {decode:.2}"
                );
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

fn rate(fit: &Fit) -> String {
    let bound = || fit.at_most().map_or_else(|| "?".to_owned(), |rate| format!("≤ {rate:.1}"));
    fit.usual_speeds().map_or_else(bound, |speeds| between(&speeds.decode))
}

fn first_token(fit: &Fit) -> String {
    fit.usual_speeds().map_or_else(|| "?".to_owned(), |speeds| format!("{} s", between(&speeds.ttft)))
}

/// The interval in which nine of ten are to lie.
fn between(rate: &Rate) -> String {
    let digits = usize::from(rate.high < 10.0);
    format!("{:.digits$}-{:.digits$}", rate.low, rate.high)
}

fn row(fit: &Fit) -> Vec<String> {
    let Some(plan) = fit.plan.as_ref().filter(|_| fit.fits) else {
        let none = || "-".to_owned();
        return vec![fit.model.clone(), "no".to_owned(), none(), none(), none(), none(), none(), none()];
    };
    vec![
        fit.model.clone(),
        fit.place.clone().unwrap_or_default(),
        plan.ctx_per_answer.to_string(),
        plan.parallel.to_string(),
        plan.kv_type_k.name().to_owned(),
        table::bytes(plan.predicted.total_bytes()),
        rate(fit),
        first_token(fit),
    ]
}
