//! `firepot pull`: models from hubs into the store, with bars.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use firepot_fetch::{FetchError, Phase, PullError, PullState, Puller};
use firepot_machine::Gives;
use firepot_store::{Home, Model, ModelName, ModelRef, StoreError};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::{
    cli::Pull,
    exit::{Exit, Failure},
    hub,
    settings::Settings,
    table,
};

/// How often the bars are drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// How often it is told where no bar can be drawn.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Pulls models, all at the same time. A server need not run, and may: both use the same files.
pub async fn pull(settings: &Settings, args: &Pull) -> anyhow::Result<()> {
    if args.name.is_some() && args.models.len() > 1 {
        return Err(Failure::new(Exit::Failed, "--name is for one model")
            .hint("pull them one by one")
            .into());
    }
    let name = args.name.as_deref().map(str::parse::<ModelName>).transpose()?;
    let models = args.models.iter().map(|text| text.parse()).collect::<Result<Vec<ModelRef>, _>>()?;
    let home = settings.open_home()?;
    let wanted = args.models.iter().map(String::as_str).zip(&models).collect();
    pull_all(settings, &home, wanted, name.as_ref(), args.insecure).await.map(drop)
}

/// The models that a command names, in that order; what is not there is pulled. A name that looks like that of a model in the store is
/// rather taken for a slip.
pub async fn find_or_pull_all(
    settings: &Settings,
    home: &Home,
    names: &[String],
) -> anyhow::Result<Vec<Model>> {
    let whats = names.iter().map(|name| name.parse()).collect::<Result<Vec<ModelRef>, _>>()?;
    let stored = whats.iter().map(|what| find(home, what)).collect::<anyhow::Result<Vec<_>>>()?;
    let wanted = names.iter().map(String::as_str).zip(&whats);
    let missing: Vec<_> =
        wanted.zip(&stored).filter(|(_, found)| found.is_none()).map(|(wanted, _)| wanted).collect();
    for (name, _) in &missing {
        eprintln!("{name} is not in the store: pulling it");
    }
    let mut pulled = pull_all(settings, home, missing, None, false).await?.into_iter();
    Ok(stored.into_iter().filter_map(|found| found.or_else(|| pulled.next())).collect())
}

/// The same for one model.
pub async fn find_or_pull(settings: &Settings, home: &Home, name: &str) -> anyhow::Result<Model> {
    let mut models = find_or_pull_all(settings, home, &[name.to_owned()]).await?;
    models.pop().context("nothing was pulled")
}

/// A model of the store; `None` when it is to be pulled.
fn find(home: &Home, what: &ModelRef) -> anyhow::Result<Option<Model>> {
    match (what, home.models().find(&what.name()?)) {
        (ModelRef::Name(_), Err(StoreError::UnknownModel { nearest, .. })) if nearest.is_empty() => Ok(None),
        (ModelRef::Name(_), found) => Ok(found.map(Some)?),
        (ModelRef::Url(url), Ok(model)) => {
            let same = home.sums(&model.digest).is_some_and(|sums| sums.source == *url);
            Ok(same.then_some(model))
        }
        _ => Ok(None),
    }
}

/// Pulls models at the same time. One that fails does not end the others; the first failure is the command's.
async fn pull_all(
    settings: &Settings,
    home: &Home,
    wanted: Vec<(&str, &ModelRef)>,
    name: Option<&ModelName>,
    insecure: bool,
) -> anyhow::Result<Vec<Model>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let puller = hub::puller(settings, home, false)?;
    let bars = MultiProgress::new();
    let pulls = wanted.iter().enumerate().map(|(place, &(text, what))| {
        let (bar, puller) = (Bar::new(&bars, text), &puller);
        async move { (place, text, with_bar(puller, what, name.cloned(), insecure, &bar).await) }
    });
    let mut pulls: FuturesUnordered<_> = pulls.collect();
    let mut models = Vec::new();
    let mut failed: Option<anyhow::Error> = None;
    loop {
        let ended = tokio::select! {
            ended = pulls.next() => ended,
            _ = tokio::signal::ctrl_c() => {
                let names: Vec<&str> = wanted.iter().map(|(text, _)| *text).collect();
                return Err(Failure::new(Exit::Interrupted, format!("the pull of {} was interrupted", names.join(", ")))
                    .hint("what was downloaded stays: pull again to go on")
                    .into());
            }
        };
        match ended {
            None => break,
            Some((place, _, Ok(model))) => {
                let line = format!("{} is in the store ({})", model.name, table::bytes(model.size_bytes));
                bars.suspend(|| eprintln!("{line}"));
                models.push((place, model));
            }
            Some((_, text, Err(error))) if failed.is_some() => {
                bars.suspend(|| eprintln!("{text}: {error:#}"));
            }
            Some((_, _, Err(error))) => failed = Some(with_switch(error, settings)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    models.sort_by_key(|(place, _)| *place);
    Ok(models.into_iter().map(|(_, model)| model).collect())
}

/// On a platform where the internet must be switched on by hand, that is the likely reason when no hub is reached.
fn with_switch(error: anyhow::Error, settings: &Settings) -> anyhow::Error {
    let offline = |error: &PullError| {
        matches!(error, PullError::Fetch(FetchError::Offline { .. } | FetchError::Connect { .. }))
    };
    let Some(cause) = error.downcast_ref::<PullError>().filter(|error| offline(error)) else { return error };
    match settings.terms().way_to(Gives::Internet) {
        Some(way) => Failure::new(Exit::Failed, cause).hint(way).into(),
        None => error,
    }
}

async fn with_bar(
    puller: &Puller,
    what: &ModelRef,
    name: Option<ModelName>,
    insecure: bool,
    bar: &Bar,
) -> anyhow::Result<Model> {
    let (state, changes) = watch::channel(PullState::default());
    let pull = puller.pull(what, name, insecure, &state);
    tokio::pin!(pull);
    let mut draw = tokio::time::interval(DRAW_EVERY);
    let mut tell = tokio::time::interval_at((Instant::now() + TELL_EVERY).into(), TELL_EVERY);
    loop {
        tokio::select! {
            outcome = &mut pull => return Ok(outcome?),
            _ = draw.tick() => bar.draw(&changes.borrow()),
            _ = tell.tick() => bar.tell(),
        }
    }
}

/// How far one model is: a bar, or a line now and then where there is no terminal. It goes when it is dropped.
struct Bar(ProgressBar);

impl Bar {
    fn new(all: &MultiProgress, model: &str) -> Self {
        let bar = all.add(ProgressBar::new(0)).with_message(model.to_owned());
        let bar = match ProgressStyle::with_template(
            "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self(bar)
    }

    fn draw(&self, state: &PullState) {
        if state.phase == Phase::Manifest {
            return self.0.tick();
        }
        self.0.set_length(state.files.iter().map(|file| file.total_bytes).sum());
        self.0.set_position(state.files.iter().map(|file| file.done_bytes).sum());
    }

    fn tell(&self) {
        let (done, total) = (self.0.position(), self.0.length().unwrap_or(0));
        if !std::io::stderr().is_terminal() && total > 0 {
            let rate = table::bytes(self.0.per_sec() as u64);
            eprintln!("{}: {} of {}, {rate}/s", self.0.message(), table::bytes(done), table::bytes(total));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
