//! `firepot verify`: a trial of a model, its bundle, and what follows from it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use firepot_machine::{Machine, Reading};
use firepot_measure::{
    bundle::{
        Bundle, BundleWriter, Goodput, MachineRecord, Perplexity, QualityLine, Rules, SCHEMA, Suite,
        Trial as Record, Workload,
    },
    check,
    claims::Answer,
    share,
};
use firepot_store::Home;
use firepot_trial::{Begin, Clock, Hosts, Progress, Trial, TrialError, cases, time};
use jiff::Timestamp;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::Verify,
    commands::{perplexity::PIECE_TOKENS, report},
    exit::{self, Exit, Failure},
    planner::read_layout,
    settings::Settings,
    verify::{self, Bars, Keys, Lines, Sides, Wanted},
};

/// Pieces of the text that are scored; the bundled one has fewer.
const PIECES_MAX: usize = 64;

/// Measures each model, one after the other.
pub async fn verify(settings: &Settings, args: &Verify) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    if let Some(dir) = &args.resume {
        let wanted = Wanted::kept(dir)?;
        return Campaign { settings, args, home: &home, wanted }.run(dir, true).await;
    }
    if args.models.is_empty() {
        return Err(Failure::new(Exit::Failed, "no model was named")
            .hint("firepot verify MODEL, or --resume DIR")
            .into());
    }
    let single = args.models.len() == 1;
    if args.share.is_some() && !single {
        return Err(Failure::new(Exit::Failed, "--share packs one bundle, and several models were named")
            .hint("name one model, or pack each bundle afterwards: firepot check DIR --share FILE")
            .into());
    }
    let mut failed = 0;
    for model in &args.models {
        let dir = match &args.out {
            Some(out) if single => out.clone(),
            Some(out) => out.join(safe(model)),
            None => new_dir(&home, model),
        };
        let wanted = Wanted::of(args, model);
        let outcome = Campaign { settings, args, home: &home, wanted }.run(&dir, false).await;
        match outcome {
            Err(error) if !single && !is_interrupt(&error) => {
                exit::report(&error);
                failed += 1;
            }
            outcome => outcome?,
        }
    }
    match failed {
        0 => Ok(()),
        _ => {
            Err(Failure::new(Exit::Failed, format!("{failed} of {} models failed", args.models.len())).into())
        }
    }
}

fn is_interrupt(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.exit == Exit::Interrupted)
}

/// Where a trial is written when no place was named.
fn new_dir(home: &Home, model: &str) -> PathBuf {
    let now = Timestamp::now().to_string();
    let moment: String = now.chars().take_while(|c| *c != '.').filter(char::is_ascii_alphanumeric).collect();
    home.path().join("trials").join(format!("{moment}-{}", safe(model)))
}

fn safe(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

/// A trial of one model.
struct Campaign<'a> {
    settings: &'a Settings,
    args: &'a Verify,
    home: &'a Home,
    wanted: Wanted,
}

impl Campaign<'_> {
    async fn run(&self, dir: &Path, resumes: bool) -> anyhow::Result<()> {
        let keys = Keys { target: self.args.target_key.clone(), versus: self.args.versus_key.clone() };
        let sides = Sides::open(self.settings, self.home, &self.wanted, keys).await?;
        let measured = self.measure(dir, resumes, &sides).await;
        sides.close().await?;
        measured?;
        self.conclude(dir)
    }

    async fn measure(&self, dir: &Path, resumes: bool, sides: &Sides) -> anyhow::Result<()> {
        let machine = self.settings.planner().probe_whole();
        let hosts = Hosts::watch(sides.pids());
        let (begin, suite) = self.begin(dir, resumes, sides, &machine)?;
        let progress = Arc::clone(&begin.progress);
        let trial = Trial::begin(begin)?;
        if self.args.progress_json {
            Lines::write(&json!({ "dir": dir, "suite": suite }));
        }
        tokio::select! {
            outcome = self.take(&trial, suite, sides, &machine) => outcome.map_err(|error| resumable(&error, dir))?,
            () = interrupted() => {
                trial.interrupt("by a signal")?;
                return Err(Failure::new(Exit::Interrupted, "the trial was interrupted")
                    .hint(format!("go on with: firepot verify --resume {}", dir.display()))
                    .into());
            }
        }
        let mut told = BTreeMap::from([("suite".to_owned(), format!("{suite:?}").to_lowercase())]);
        told.insert("telemetry".to_owned(), self.wanted.telemetry.to_string());
        told.extend(sides.gpu_unused.iter().map(|why| ("gpu_unused".to_owned(), why.clone())));
        let ground = verify::ground(&machine, &hosts, sides.hosts(), told);
        trial.finish(&verify::tool(), ground).map_err(|error| resumable(&error.into(), dir))?;
        drop(progress);
        Wanted::forget(dir);
        Ok(())
    }

    async fn take(
        &self,
        trial: &Trial,
        suite: Suite,
        sides: &Sides,
        machine: &Machine,
    ) -> anyhow::Result<()> {
        trial.run().await?;
        verify::prove(trial, machine, sides.own(), &self.wanted.model, suite).await;
        self.perplexity(trial, suite, sides).await
    }

    /// Opens the bundle, or begins it with all that is known before the first sample.
    fn begin(
        &self,
        dir: &Path,
        resumes: bool,
        sides: &Sides,
        machine: &Machine,
    ) -> anyhow::Result<(Begin, Suite)> {
        let (writer, workload, clock, before) = if resumes {
            let (writer, bundle) = BundleWriter::resume(dir)?;
            self.check_ground(&bundle, sides, machine)?;
            let last_us = bundle.requests.iter().map(|request| request.client.end_us);
            let last_us = last_us.chain(bundle.events.iter().map(|event| event.at_us)).max().unwrap_or(0);
            let clock = Clock::resume(bundle.trial.created_unix_s, last_us);
            (writer, bundle.workload.clone(), clock, Some(bundle))
        } else {
            let workload = self.workload(sides);
            let (writer, clock) = self.create(dir, &workload, sides, machine)?;
            (writer, workload, clock, None)
        };
        let suite = workload.suite;
        let progress: Arc<dyn Progress> =
            if self.args.progress_json { Arc::new(Lines) } else { Arc::new(Bars::new(&self.wanted.model)) };
        let wanted = time(suite) * sides.all.len() as u32;
        let begin = Begin {
            writer,
            workload,
            sides: sides.all.clone(),
            clock,
            before,
            limit: wanted,
            session_left: verify::time_left(machine),
            probe_threads: machine.cpu.cores_allowed.known().copied().unwrap_or(1),
            telemetry: self.wanted.telemetry,
            progress,
        };
        Ok((begin, suite))
    }

    fn workload(&self, sides: &Sides) -> Workload {
        let suite = self.args.suite.into();
        // JSON readers other than ours take numbers for floats.
        let seed =
            self.args.seed.unwrap_or_else(|| u64::from(Timestamp::now().subsec_nanosecond().unsigned_abs()));
        Workload {
            suite,
            seed,
            targets: sides.targets(),
            cases: cases(suite, seed, sides.think),
            rules: Rules::default(),
            goodput: Goodput::default(),
        }
    }

    fn create(
        &self,
        dir: &Path,
        workload: &Workload,
        sides: &Sides,
        machine: &Machine,
    ) -> anyhow::Result<(BundleWriter, Clock)> {
        let clock = Clock::start();
        let created_unix_s = clock.wall_unix_s();
        let record = Record { schema: SCHEMA, id: trial_id(), created_unix_s, tool: verify::tool() };
        let writer = BundleWriter::create(dir, &record)?;
        self.wanted.keep(dir)?;
        let planner = self.settings.planner();
        writer.put(&machine_of(sides, machine))?;
        writer.put(&if sides.are_here() {
            verify::calibration(&planner, machine)
        } else {
            Reading::absent(verify::ELSEWHERE)
        })?;
        writer.put(&sides.models())?;
        let plan = match &sides.model {
            Some(model) => match read_layout(model) {
                Ok(layout) => {
                    verify::plan(&planner, &self.wanted.model, &layout, &workload.cases, created_unix_s)
                }
                Err(failure) => Reading::absent(failure.message),
            },
            None => Reading::absent("what another server does is not planned here"),
        };
        if let Some(why) = plan.known().and_then(|plan| plan.details["speeds_absent"].as_str()) {
            eprintln!("no speeds are predicted for this trial: {why}");
        }
        writer.put(&plan)?;
        writer.put(workload)?;
        Ok((writer, clock))
    }

    /// A trial goes on only where nothing has changed under it.
    fn check_ground(&self, before: &Bundle, sides: &Sides, machine: &Machine) -> anyhow::Result<()> {
        let machine = machine_of(sides, machine);
        let changed =
            verify::differences(before, &verify::tool(), &machine, &sides.models(), &sides.targets());
        if changed.is_empty() {
            return Ok(());
        }
        let what = changed.join(" and ");
        Err(Failure::new(
            Exit::Failed,
            format!("{what} changed since the trial began: its samples would not be of one thing"),
        )
        .hint(format!("begin a new one: firepot verify {}", self.wanted.model))
        .into())
    }

    /// Perplexity, where the model's file is here and time is left.
    async fn perplexity(&self, trial: &Trial, suite: Suite, sides: &Sides) -> anyhow::Result<()> {
        const FIELD: &str = "quality.perplexity";
        let Some(model) = &sides.model else {
            trial.absent(FIELD, "the server shows no log-probabilities of prompts, and its file is not here");
            return Ok(());
        };
        if suite == Suite::Smoke {
            trial.absent(FIELD, "it is no part of the smoke suite");
            return Ok(());
        }
        for side in &sides.all {
            // It is loaded once more, beside nothing.
            let _ = side.target.unload(&side.model).await;
        }
        let text = firepot_measure::quality::TEXT;
        let planner = self.settings.planner();
        let scoring = verify::perplexity(&planner, model, text, PIECES_MAX);
        let time = trial.time_left().max(Duration::from_secs(1));
        match tokio::time::timeout(time, scoring).await {
            Ok(Ok(scored)) => trial.quality(&QualityLine::Perplexity(Perplexity {
                target: "a".to_owned(),
                text_sha256: firepot_measure::quality::text_sha256(),
                tokens: scored.tokens,
                nll: scored.nll,
            }))?,
            Ok(Err(error)) => trial.absent(FIELD, &error.to_string()),
            Err(_) => {
                trial.absent(
                    FIELD,
                    &format!("its pieces of {PIECE_TOKENS} tokens took longer than the trial may"),
                );
            }
        }
        Ok(())
    }

    /// Checks the finished bundle, packs it if that was wanted, and says where it is.
    fn conclude(&self, dir: &Path) -> anyhow::Result<()> {
        let checked = check(dir)?;
        if let Some(difference) = checked.differences.first() {
            return Err(
                Failure::new(Exit::Failed, format!("the bundle is not what it says: {difference}")).into()
            );
        }
        if let Some(file) = &self.args.share {
            share(dir, file, &self.settings.identity())?;
        }
        if !self.args.progress_json {
            let dir = dir.display();
            println!(
                "The bundle is {dir}: {} figures. A report: firepot report {dir} --out report.html",
                checked.figures
            );
        }
        self.args.claims.as_deref().map_or(Ok(()), |file| answer(file, dir))
    }
}

/// The machine that the trial is of, as far as it is known.
fn machine_of(sides: &Sides, machine: &Machine) -> MachineRecord {
    if sides.are_here() { verify::machine(machine) } else { verify::elsewhere() }
}

/// Answers claims by a finished bundle; a refuted one is a failure.
fn answer(file: &Path, dir: &Path) -> anyhow::Result<()> {
    let claims = report::claims(file)?;
    let (bundle, summary) = report::session(dir)?;
    let answered = claims.answer(&[(&bundle, &summary)]);
    for one in &answered {
        println!("{}: {} ({})", one.answer.name(), one.says, one.because.join("; "));
    }
    match answered.iter().filter(|one| one.answer == Answer::Refuted).count() {
        0 => Ok(()),
        count => {
            Err(Failure::new(Exit::Failed, format!("{count} of {} claims are refuted", answered.len()))
                .into())
        }
    }
}

fn trial_id() -> String {
    let mut bytes = [0_u8; 16];
    match std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
    {
        Ok(()) => format!("{:032x}", u128::from_ne_bytes(bytes)),
        Err(_) => format!("{:032x}", Timestamp::now().as_nanosecond()),
    }
}

/// An error after which the trial can be taken up again says so.
fn resumable(error: &anyhow::Error, dir: &Path) -> anyhow::Error {
    let hint = error.downcast_ref::<TrialError>().and_then(TrialError::hint);
    let go_on = format!("then go on with: firepot verify --resume {}", dir.display());
    let hint = hint.map_or_else(|| go_on.clone(), |hint| format!("{hint}; {go_on}"));
    Failure::new(Exit::Failed, format!("the trial broke off: {error}")).hint(hint).into()
}

/// Until somebody asks this process to end.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
