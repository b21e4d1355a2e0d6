//! `firepot report`, `compare` and `check`: what bundles say. They read files and nothing else.

use std::{fs, path::Path};

use anyhow::Context as _;
use firepot_measure::{
    bundle::Bundle,
    claims::{Claims, ClaimsError},
    compare::{Gate, compare as compare_bundles},
    report::{self, Input},
    share,
    summary::{Summary, summarize},
};
use firepot_store::write_atomic;

use crate::{
    cli::{self, Format},
    exit::{Exit, Failure},
    settings::Settings,
};

/// Largest file of claims, and largest README, that is read.
const TEXT_BYTES: u64 = 4 << 20;

/// Writes a report of some bundles.
pub fn report(args: &cli::Report) -> anyhow::Result<()> {
    let sessions = args.bundles.iter().map(|path| session(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let claims = args.claims.iter().map(|path| claims(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let input = Input { sessions: &sessions, claims: &claims };
    let text = match args.format {
        Format::Html => report::html(&input),
        Format::Md => report::markdown(&input),
        Format::Csv => report::csv(&input),
        Format::LlamaBench => report::llama_bench(&input),
        Format::Readme => report::readme(&input),
    };
    if let Some(path) = &args.check {
        let (old, new) = between_marks(path, &text)?;
        if old != new {
            return Err(Failure::new(Exit::Failed, format!("{} is stale", path.display()))
                .hint("write it anew with --out in place of --check")
                .into());
        }
        return Ok(());
    }
    match &args.out {
        None => print!("{text}"),
        Some(path) if args.format == Format::Readme && path.exists() => {
            write_atomic(path, between_marks(path, &text)?.1.as_bytes())?;
        }
        Some(path) => write_atomic(path, text.as_bytes())?,
    }
    Ok(())
}

/// A file's text, and the same with new lists between its marks.
fn between_marks(path: &Path, lists: &str) -> anyhow::Result<(String, String)> {
    let old = read_text(path)?;
    let Some(new) = report::replaced(&old, lists) else {
        let hint = format!("put these lines where the lists belong:\n{}\n{}", report::BEGIN, report::END);
        return Err(Failure::new(Exit::Failed, format!("{} has no place for the lists", path.display()))
            .hint(hint)
            .into());
    };
    Ok((old, new))
}

/// Compares two bundles; with `--fail-on`, a found difference of so many percent to the worse is a failure.
pub fn compare(args: &cli::Compare) -> anyhow::Result<()> {
    let (first, second) = (session(&args.first)?, session(&args.second)?);
    let comparison = compare_bundles((&first.0, &first.1), (&second.0, &second.1));
    print!("{}", report::comparison(&comparison));
    let failure = match comparison.gate(args.fail_on.unwrap_or(f64::INFINITY)) {
        Gate::Nothing => Failure::new(Exit::Failed, "the bundles have no case in common"),
        _ if args.fail_on.is_none() => return Ok(()),
        Gate::Passed => return Ok(()),
        Gate::Unequal(what) => {
            Failure::new(Exit::Failed, format!("what is not equal cannot be judged: {}", what.join("; ")))
                .hint("leave --fail-on out to see the differences alone")
        }
        Gate::Worse(what) => Failure::new(Exit::Failed, format!("the second is worse: {}", what.join(", "))),
    };
    Err(failure.into())
}

/// Hashes a bundle's files and computes its figures again; then packs it, if that was asked for.
pub fn check(settings: &Settings, args: &cli::Check) -> anyhow::Result<()> {
    let checked = firepot_measure::check(&args.bundle)?;
    for difference in &checked.differences {
        println!("{difference}");
    }
    if !checked.differences.is_empty() {
        let message = format!("the bundle is not what it says: {} difference(s)", checked.differences.len());
        return Err(Failure::new(Exit::Failed, message).hint("it is not evidence any more").into());
    }
    println!(
        "trial {}: {} files, {} bytes, {} figures: all as they should be\nmanifest sha256:{}",
        checked.trial, checked.files, checked.bytes, checked.figures, checked.manifest_sha256
    );
    if let Some(out) = &args.share {
        share(&args.bundle, out, &settings.identity())?;
        println!("packed into {}", out.display());
    }
    Ok(())
}

/// A finished bundle and what follows from it.
pub fn session(path: &Path) -> anyhow::Result<(Bundle, Summary)> {
    let bundle = Bundle::open(path)?;
    let summary = summarize(&bundle);
    Ok((bundle, summary))
}

/// Reads a file of claims.
pub fn claims(path: &Path) -> anyhow::Result<Claims> {
    let text = read_text(path)?;
    let told = |error: ClaimsError| {
        let failure = Failure::new(Exit::Failed, format!("{}: {error}", path.display()));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    };
    Ok(Claims::parse(&text).map_err(told)?)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let size = fs::metadata(path).with_context(|| format!("could not read {shown}"))?.len();
    if size > TEXT_BYTES {
        return Err(Failure::new(Exit::Failed, format!("{shown} is larger than {TEXT_BYTES} bytes")).into());
    }
    fs::read_to_string(path).with_context(|| format!("could not read {shown}"))
}
