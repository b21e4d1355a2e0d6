//! `firepot pull`: models from hubs into the store, with bars.

use std::time::Duration;

use firepot_fetch::{Phase, PullState, Puller};
use firepot_store::{Home, Model, ModelName, ModelRef, StoreError};
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

/// Pulls one model after the other. A server need not run, and may: both use the same files.
pub async fn pull(settings: &Settings, args: &Pull) -> anyhow::Result<()> {
    if args.name.is_some() && args.models.len() > 1 {
        return Err(Failure::new(Exit::Failed, "--name is for one model")
            .hint("pull them one by one")
            .into());
    }
    let name = args.name.as_deref().map(str::parse::<ModelName>).transpose()?;
    let models = args.models.iter().map(|text| text.parse()).collect::<Result<Vec<ModelRef>, _>>()?;
    let home = settings.open_home()?;
    let puller = hub::puller(settings, &home, false)?;
    let bars = Bars::new(models.len());
    for (text, what) in args.models.iter().zip(&models) {
        bars.begin(text);
        let model = tokio::select! {
            outcome = with_bars(&puller, what, name.clone(), args.insecure, &bars) => outcome?,
            _ = tokio::signal::ctrl_c() => {
                bars.clear();
                return Err(Failure::new(Exit::Interrupted, format!("the pull of {text} was interrupted"))
                    .hint("what was downloaded stays: pull again to go on")
                    .into());
            }
        };
        bars.done(&model);
    }
    bars.clear();
    Ok(())
}

/// The model that a command names, pulled when it is not there. A name that looks like that of a model in the store is
/// rather taken for a slip.
pub async fn find_or_pull(settings: &Settings, home: &Home, name: &str) -> anyhow::Result<Model> {
    let what: ModelRef = name.parse()?;
    let found = home.models().find(&what.name()?);
    match (&what, found) {
        (ModelRef::Name(_), Err(StoreError::UnknownModel { nearest, .. })) if nearest.is_empty() => {}
        (ModelRef::Name(_), found) => return Ok(found?),
        (ModelRef::Url(url), Ok(model))
            if home.sums(&model.digest).is_some_and(|sums| sums.source == *url) =>
        {
            return Ok(model);
        }
        _ => {}
    }
    eprintln!("{name} is not in the store: pulling it");
    let puller = hub::puller(settings, home, false)?;
    let bars = Bars::new(1);
    let model = with_bars(&puller, &what, None, false, &bars).await?;
    bars.done(&model);
    bars.clear();
    Ok(model)
}

async fn with_bars(
    puller: &Puller,
    what: &ModelRef,
    name: Option<ModelName>,
    insecure: bool,
    bars: &Bars,
) -> anyhow::Result<Model> {
    let (state, changes) = watch::channel(PullState::default());
    let pull = puller.pull(what, name, insecure, &state);
    tokio::pin!(pull);
    let mut draw = tokio::time::interval(DRAW_EVERY);
    loop {
        tokio::select! {
            outcome = &mut pull => {
                if outcome.is_err() {
                    bars.clear();
                }
                return Ok(outcome?);
            }
            _ = draw.tick() => bars.draw(&changes.borrow()),
        }
    }
}

/// A bar for the model on its way and, with several, one for all of them.
struct Bars {
    all: MultiProgress,
    overall: Option<ProgressBar>,
    current: ProgressBar,
}

impl Bars {
    fn new(models: usize) -> Self {
        let all = MultiProgress::new();
        let overall = (models > 1).then(|| {
            let bar = all.add(ProgressBar::new(models as u64).with_message("models"));
            styled(bar, "{msg:24} {bar:30} {pos}/{len}")
        });
        let current = all.add(ProgressBar::new(0));
        let template = "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        Self { current: styled(current, template), all, overall }
    }

    fn begin(&self, model: &str) {
        self.current.reset();
        self.current.set_message(model.to_owned());
    }

    fn draw(&self, state: &PullState) {
        if state.phase == Phase::Manifest {
            return self.current.tick();
        }
        self.current.set_length(state.files.iter().map(|file| file.total_bytes).sum());
        self.current.set_position(state.files.iter().map(|file| file.done_bytes).sum());
    }

    fn done(&self, model: &Model) {
        if let Some(overall) = &self.overall {
            overall.inc(1);
        }
        let line = format!("{} is in the store ({})", model.name, table::bytes(model.size_bytes));
        self.all.suspend(|| eprintln!("{line}"));
    }

    fn clear(&self) {
        self.current.finish_and_clear();
        if let Some(overall) = &self.overall {
            overall.finish_and_clear();
        }
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
