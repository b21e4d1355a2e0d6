//! `firepot up` and `firepot serve`: the server in this process, and a model in it.

use std::{io::Write as _, sync::Arc};

use anyhow::Context as _;
use firepot_server::{LoadedRecord, Reload, RunnerCommand, Server, ServerSettings};
use firepot_store::{Home, Model, ModelName};
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    attach,
    best::best,
    cli::{Admit, Load, Serve, Session, Up},
    client::Client,
    commands::{
        calibrate::{self, Stored},
        detach::detach,
        explain::explain,
        pull,
    },
    exit::{Exit, Failure},
    fit::Place,
    gpu::{self, Verdict},
    hub::{self, HubFetcher},
    planner::LocalPlanner,
    reach::{Public, Reach, show_first_key},
    session,
    settings::Settings,
    snapshots,
};

/// Of the test model, which says little.
const TRIAL_MODEL: &str = "smollm2:135m";

/// Has glibc ask for large pages for a runner's large buffers, where the kernel gives them to who asks. llama.cpp clears a KV cache when
/// it makes it, and a fault for each 4 KiB of it is half of a small model's load.
const LARGE_PAGES: &str = "glibc.malloc.hugetlb=1";

/// Serves without loading anything.
pub async fn serve(settings: &Settings, args: &Serve) -> anyhow::Result<()> {
    args.reach.obey(settings)?;
    let home = settings.open_home()?;
    let mirror = session::mirror(&home, &args.session)?;
    let planner = settings.planner();
    let unused = check_gpu(&planner, true)?;
    let Serve { load, admit, session, reach, until_eof } = args;
    let asked = Serving { load, admit, session, reach, loads: Vec::new(), planner, unused };
    let server = bind(settings, &home, asked).await?.with_mirror(mirror);
    show_first_key(&server.door(), &args.reach, settings).await?;
    println!("Firepot serves at {}", base(&server, &args.reach));
    std::io::stdout().flush()?;
    let mut public = Public::open(&server, &args.reach);
    let mut failed = None;
    let cut = server
        .serve(async {
            tokio::select! {
                () = stopped() => {}
                () = ended(), if *until_eof => {}
                error = public.failed() => failed = Some(error),
            }
        })
        .await;
    farewell(cut);
    failed.map_or(Ok(()), Err)
}

fn base(server: &Server, reach: &Reach) -> String {
    let scheme = if reach.tls_cert.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", server.address())
}

/// Serves with a model loaded; joins a server that already runs.
pub async fn up(settings: &Settings, args: &Up) -> anyhow::Result<()> {
    args.reach.obey(settings)?;
    let home = settings.open_home()?;
    // Before a model is chosen: the state knows which one was in use.
    let stays = !args.detach && home.server_record()?.is_none();
    let mirror = if stays { session::mirror(&home, &args.session)? } else { None };
    let planner = settings.planner();
    let models = choose(settings, &planner, &home, args).await?;
    let unused = check_gpu(&planner, args.allow_cpu)?;
    if args.explain {
        for model in &models {
            print!("{}", explain(settings, &home, model, &args.load)?);
        }
    }
    if let Some(client) = attach::own(settings).await? {
        let asked = [
            ("--deadline", args.session.deadline.is_some()),
            ("--state", args.session.state.is_some()),
            ("--parallel", args.load.parallel.is_some()),
            ("--kv-type", args.load.kv_type.is_some()),
            ("--memory", args.load.memory.is_some()),
        ];
        for (option, _) in asked.iter().filter(|(_, asked)| *asked) {
            eprintln!("warning: a server runs already; {option} is what it was started with");
        }
        for model in &models {
            load(&client, model, &args.load).await?;
            println!("{} is loaded in the server at {}", model.name, client.base());
        }
        return Ok(());
    }
    if args.detach {
        return detach(settings, &home, &models, args).await;
    }
    if !args.no_calibration {
        for model in &models {
            tokio::task::block_in_place(|| calibrate::before_load(settings, model, Stored::Compared));
        }
    }
    let asked = Serving {
        load: &args.load,
        admit: &args.admit,
        session: &args.session,
        reach: &args.reach,
        loads: models.iter().map(|model| model.name.clone()).collect(),
        planner,
        unused,
    };
    let server = bind(settings, &home, asked).await?.with_mirror(mirror);
    show_first_key(&server.door(), &args.reach, settings).await?;
    let base = base(&server, &args.reach);
    let mut public = Public::open(&server, &args.reach);
    let (stop, stop_asked) = tokio::sync::oneshot::channel::<()>();
    let mut serving = tokio::spawn(server.serve(async {
        tokio::select! { () = stopped() => {}, _ = stop_asked => {} }
    }));
    let client = attach::own(settings).await?.context("the server does not answer")?;
    for model in &models {
        if let Err(error) = load(&client, model, &args.load).await {
            let _ = stop.send(());
            serving.await?;
            return Err(error);
        }
    }
    welcome(&base, &models, &client).await?;
    tokio::select! {
        ended = &mut serving => {
            farewell(ended?);
            Ok(())
        }
        // Taken only now: a sender that is gone would stop the server.
        error = public.failed() => {
            let _ = stop.send(());
            serving.await?;
            Err(error)
        }
    }
}

/// The models that were named; else the one that was in use last when the last server ended; else the one of the store that came last; for an empty store, the best of the catalogue that
/// this machine can use, which is pulled.
async fn choose(
    settings: &Settings,
    planner: &LocalPlanner,
    home: &Home,
    args: &Up,
) -> anyhow::Result<Vec<Model>> {
    if args.models.is_empty() {
        Ok(vec![choose_one(settings, planner, home, &args.load).await?])
    } else {
        pull::find_or_pull_all(settings, home, &args.models).await
    }
}

async fn choose_one(
    settings: &Settings,
    planner: &LocalPlanner,
    home: &Home,
    load: &Load,
) -> anyhow::Result<Model> {
    if let Some(model) =
        LoadedRecord::read(home).models.first().and_then(|last| home.models().find(&last.name).ok())
    {
        return Ok(model);
    }
    let stored = home.models().list()?.models;
    let want = planner.want(&settings.wishes(load), &[]);
    let best = best(&Place::here(planner), &want);
    let name = best.as_ref().and_then(|best| best.model.pull_name());
    match (stored.into_iter().next(), best.zip(name)) {
        (Some(model), Some((best, name))) if home.models().find(&name.parse()?).is_err() => {
            eprintln!("this machine could run {}: firepot up {name}", best.told());
            Ok(model)
        }
        (Some(model), _) => Ok(model),
        (None, Some((best, name))) => {
            eprintln!(
                "the store is empty, and the best of the catalogue for this machine is {}",
                best.told()
            );
            pull::find_or_pull(settings, home, &name).await.map_err(|error| no_model(&error))
        }
        (None, None) => {
            Err(no_model(&anyhow::anyhow!("no model of the catalogue is usable on this machine")))
        }
    }
}

fn no_model(error: &anyhow::Error) -> anyhow::Error {
    Failure::new(Exit::NoModel, format!("the store has no model yet: {error}"))
        .hint("fetch one: firepot pull NAME, or copy one into it: firepot import FILE.gguf NAME")
        .into()
}

/// A GPU that stays unused is an error, unless going on without it is allowed; then it is said wherever memory and speed are.
fn check_gpu(planner: &LocalPlanner, allowed: bool) -> anyhow::Result<Option<String>> {
    let unused = without(gpu::judge_here(planner), allowed)?;
    if let Some(reason) = &unused {
        eprintln!("warning: {reason}; going on without it");
    }
    Ok(unused)
}

/// Why a GPU stays unused, where that is allowed.
fn without(verdict: Verdict, allowed: bool) -> Result<Option<String>, Failure> {
    match verdict {
        Verdict::None | Verdict::Usable => Ok(None),
        Verdict::Unused { reason, .. } if allowed => Ok(Some(reason)),
        Verdict::Unused { reason, hint } => {
            Err(Failure::new(Exit::GpuUnused, reason).hint(format!("{hint}, or go on with --allow-cpu")))
        }
    }
}

/// How the server is to serve.
struct Serving<'a> {
    load: &'a Load,
    admit: &'a Admit,
    session: &'a Session,
    reach: &'a Reach,
    /// The models that are about to be loaded by the caller.
    loads: Vec<ModelName>,
    planner: LocalPlanner,
    /// Why a GPU stays unused.
    unused: Option<String>,
}

async fn bind(settings: &Settings, home: &Home, asked: Serving<'_>) -> anyhow::Result<Server> {
    let Serving { load, admit, session, reach, loads, planner, unused } = asked;
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let deaths = settings.die_by.iter().flat_map(|file| ["--die-by".into(), file.into()]);
    let args = ["--log".into(), "info".into(), "runner".into()].into_iter().chain(deaths).collect();
    let tunables = settings.environment.libc_tunables.clone().unwrap_or_else(|| LARGE_PAGES.to_owned());
    let runner = RunnerCommand { program, args, libc_tunables: Some(tunables) };
    let mut server = ServerSettings::new(settings.address, runner, home.logs_dir());
    server.load = settings.wishes(load);
    server.allowed_hosts.clone_from(&admit.hosts);
    server.allowed_origins.clone_from(&admit.origins);
    server.gpu_unused = unused;
    server.deadline = session::deadline(settings, session)?;
    server.journal = !session.no_journal;
    server.reload = Reload { enabled: !session.no_reload, except: loads };
    server.snapshots = snapshots::settings(home, load.snapshot_bytes);
    reach.apply(&mut server)?;
    let others = server.asks_for_keys() && !reach.allow_private_pulls;
    server.verify = Some(trials(settings)?);
    let fetcher = Arc::new(HubFetcher(hub::puller(settings, home, others)?));
    Ok(Server::bind(server, home.clone(), Arc::new(planner), fetcher).await?)
}

/// This program, as it runs trials of this home.
fn trials(settings: &Settings) -> anyhow::Result<RunnerCommand> {
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let args = settings.home_args().into_iter().chain(["--log".into(), "error".into()]).collect();
    Ok(RunnerCommand { program, args, libc_tunables: None })
}

/// Until somebody asks this process to end.
async fn stopped() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    println!("stopping: answers that run have a few seconds more, and what was said is kept");
}

/// Until standard input ends. A thread reads it: one of the runtime's would hold up its end.
async fn ended() {
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let read = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = end.send(read);
    });
    let _ = ended.await;
}

/// Says what is left when the server has ended.
fn farewell(cut: usize) {
    match cut {
        0 => println!("stopped; no answer was cut off"),
        1 => println!("stopped; an answer was cut off, and can go on when Firepot is started again"),
        _ => println!("stopped; {cut} answers were cut off, and can go on when Firepot is started again"),
    }
}

/// Loads a model and keeps it loaded, with a bar.
async fn load(client: &Client, model: &Model, wish: &Load) -> anyhow::Result<()> {
    let mut options = serde_json::Map::new();
    options.extend(wish.ctx.map(|ctx| ("num_ctx".to_owned(), ctx.into())));
    options.extend(wish.threads.map(|threads| ("num_thread".to_owned(), threads.into())));
    let body = json!({"model": model.name.to_string(), "keep_alive": -1, "options": options});
    let bar = load_bar(model);
    let lines = client.post_lines("/firepot/v1/models/load", &body).await.map_err(cannot_load)?;
    let mut lines = std::pin::pin!(lines);
    while let Some(line) = lines.next().await {
        let line = line.map_err(cannot_load)?;
        bar.set_position(line["permille"].as_u64().unwrap_or_default());
    }
    bar.finish_and_clear();
    Ok(())
}

/// A server that could not load the model ends `up` with its own exit code.
fn cannot_load(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) if failure.exit == Exit::Failed => Failure { exit: Exit::Load, ..failure }.into(),
        Ok(failure) => failure.into(),
        Err(error) => error,
    }
}

fn load_bar(model: &Model) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {percent}%");
    let bar = ProgressBar::new(1000).with_message(format!("loading {}", model.name));
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

async fn welcome(base: &str, models: &[Model], client: &Client) -> anyhow::Result<()> {
    let ps: Value = client.get("/api/ps").await?;
    let loaded = ps["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    println!("Firepot is up.");
    println!("  page and API   {base}");
    for model in models {
        let name = model.name.to_string();
        let Some(entry) = loaded.iter().find(|entry| entry["name"] == name) else {
            println!("  model          {name} (not loaded any more: it made room for another)");
            continue;
        };
        let context = entry["context_length"].as_u64().unwrap_or_default();
        let place = if entry["size_vram"].as_u64().unwrap_or_default() > 0 { "GPU" } else { "CPU" };
        println!(
            "  model          {name} ({}, {place}, context {context} tokens)",
            model.summary.quantization
        );
    }
    println!("  home           {}", models.first().map(client_home).unwrap_or_default());
    if models.iter().any(|model| model.name.to_string() == TRIAL_MODEL) {
        println!("  This small model is only for trying the stack: it says little, and often wrongly.");
    }
    println!("Ctrl-C or `firepot down` stops it.");
    std::io::stdout().flush()?;
    Ok(())
}

/// The home, as the model's file shows it.
fn client_home(model: &Model) -> String {
    model.blob_path.ancestors().nth(2).map(|home| home.display().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_stays_unused_is_an_error_or_is_told() {
        let unused = || Verdict::Unused { reason: "a T4 is not used".to_owned(), hint: "look at it" };
        assert_eq!(without(unused(), true).unwrap().as_deref(), Some("a T4 is not used"));
        let stopped = without(unused(), false).unwrap_err();
        assert_eq!((stopped.exit, stopped.message.as_str()), (Exit::GpuUnused, "a T4 is not used"));
        assert_eq!(stopped.hint.as_deref(), Some("look at it, or go on with --allow-cpu"));
        assert_eq!(without(Verdict::Usable, false).unwrap(), None);
    }
}
