//! `firepot store`: checking and tidying what is kept.

use std::time::Duration;

use firepot_store::{BlobState, CheckedBlob, GcOptions, Home};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::Store,
    exit::{Exit, Failure},
    hub,
    settings::Settings,
    snapshots, table,
};

/// Checks or tidies.
pub async fn store(settings: &Settings, what: &Store) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    match *what {
        Store::Check { repair } => check(settings, &home, repair).await,
        Store::Gc { partial, snapshots, dry_run } => {
            gc(&home, GcOptions { partials: partial, dry_run }, snapshots)
        }
    }
}

async fn check(settings: &Settings, home: &Home, repair: bool) -> anyhow::Result<()> {
    let bad = damaged(home)?;
    if bad.is_empty() {
        return Ok(());
    }
    if !repair {
        return Err(Failure::new(Exit::Failed, format!("{} files are damaged", bad.len()))
            .hint("fetch what is damaged again with: firepot store check --repair")
            .into());
    }
    let puller = hub::puller(settings, home, false)?;
    for blob in &bad {
        let Some(source) = &blob.source else {
            eprintln!("{}: it is not known where it came from", blob.digest);
            continue;
        };
        home.models().set_aside(blob)?;
        eprintln!("repairing {} from {source}", blob.digest);
        puller.refetch(blob.digest, blob.size_bytes, source).await?;
    }
    let left = damaged(home)?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{} files are still damaged", left.len()))
        .hint("remove their models with `firepot rm` and pull or import them again")
        .into())
}

/// Reads everything, tells what is wrong, and returns it.
fn damaged(home: &Home) -> anyhow::Result<Vec<CheckedBlob>> {
    let bar = ProgressBar::new(0).with_message("checking");
    bar.enable_steady_tick(Duration::from_millis(100));
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    let bar = style.map(|style| bar.clone().with_style(style)).unwrap_or(bar);
    let checked = home.models().check(&mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    })?;
    bar.finish_and_clear();
    let total = checked.len();
    let bad: Vec<CheckedBlob> = checked.into_iter().filter(|blob| blob.state != BlobState::Good).collect();
    for blob in &bad {
        let models: Vec<String> = blob.models.iter().map(ToString::to_string).collect();
        println!("{} {} ({})", blob.digest, told(&blob.state), models.join(", "));
    }
    eprintln!("{} of {total} files are as they should be", total - bad.len());
    Ok(bad)
}

fn told(state: &BlobState) -> String {
    match state {
        BlobState::Good => "is good".to_owned(),
        BlobState::Missing => "is missing".to_owned(),
        BlobState::Damaged { bad } => {
            let bytes = bad.iter().map(|range| range.end - range.start).sum();
            format!("is damaged: {} of it", table::bytes(bytes))
        }
    }
}

fn gc(home: &Home, options: GcOptions, with_snapshots: bool) -> anyhow::Result<()> {
    let report = home.models().gc(options)?;
    for digest in report.blobs.iter().chain(&report.partials) {
        println!("{digest}");
    }
    let verb = if options.dry_run { "would free" } else { "freed" };
    let snapshots = if with_snapshots { snapshots::remove(home, options.dry_run)? } else { 0 };
    eprintln!("{verb} {}", table::bytes(report.freed_bytes() + snapshots));
    Ok(())
}
