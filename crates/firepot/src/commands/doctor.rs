//! `firepot doctor`: what this machine is, what works, what does not, and why.

use std::time::Duration;

use anyhow::Context as _;
use firepot_machine::{Gives, Machine, Reading, Terms};
use firepot_measure::without_traces;
use firepot_store::{Access, Home, write_atomic};
use serde::Serialize;
use serde_json::json;

use crate::{
    cli::Doctor,
    gpu::{self, Asked, Verdict},
    hub,
    program::{self, Said},
    settings::Settings,
    snapshots, table,
};

/// How long a hub may take to answer.
const HUB_LIMIT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Check {
    name: &'static str,
    works: bool,
    detail: String,
}

/// Looks at everything and changes nothing.
pub async fn doctor(settings: &Settings, args: &Doctor) -> anyhow::Result<()> {
    let asked = tokio::task::block_in_place(Asked::now);
    let machine = asked.on(settings.planner().probe());
    let terms = Terms::of(machine.platform.kind);
    let mut checks = vec![check_home(settings), check_llama(&machine), check_gpu(&asked, &machine, &terms)];
    if args.network {
        checks.push(check_network(settings, &terms).await?);
    }
    let report =
        json!({"version": env!("CARGO_PKG_VERSION"), "machine": machine, "terms": terms, "checks": checks});
    if let Some(file) = &args.share {
        let found = serde_json::to_string_pretty(&report)?;
        write_atomic(file, &pack(settings, &found).await?)?;
        eprintln!("{} says what was found, without names, paths and addresses", file.display());
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    print!("{}", describe(&machine, &terms));
    for check in &checks {
        println!("{} {:<10} {}", if check.works { "ok   " } else { "fails" }, check.name, check.detail);
    }
    Ok(())
}

/// What was found, beside what the driver and llama.cpp themselves say.
async fn pack(settings: &Settings, found: &str) -> anyhow::Result<Vec<u8>> {
    let this = std::env::current_exe().context("the path of this program is not known")?;
    let cuda = gpu::cuda_library().map(|path| path.to_string_lossy().into_owned());
    let libraries = async {
        let cuda = cuda.as_deref().context("llama.cpp is inside this build")?;
        // What it needs, and what of it is found here.
        program::run("ldd", &[cuda]).await
    };
    let said = [
        ("nvidia-smi.txt", program::run("nvidia-smi", &[]).await),
        ("nvidia-smi-q.txt", program::run("nvidia-smi", &["-q"]).await),
        ("devices.txt", program::run(&this.to_string_lossy(), &["--log", "debug", "devices"]).await),
        ("libraries.txt", libraries.await),
    ];
    let text = |said: Said| {
        [said.remarked, said.printed].map(|part| String::from_utf8_lossy(&part).into_owned()).concat()
    };
    let texts =
        said.into_iter().map(|(name, said)| (name, said.map_or_else(|error| format!("{error:#}\n"), text)));
    let clean = |(name, text): (&'static str, String)| (name, without_traces(&text, &settings.identity()));
    let files: Vec<_> = [("doctor.json", found.to_owned())].into_iter().chain(texts).map(clean).collect();
    Ok(firepot_measure::pack("doctor", files.iter().map(|(name, text)| (*name, text.as_bytes())))?)
}

/// `firepot devices`: what llama.cpp finds; a process of its own, since a driver may end it.
pub fn devices() {
    let report = json!({
        "build": firepot_llama::build_info(),
        "system": firepot_llama::system_info(),
        "devices": firepot_llama::devices(),
    });
    println!("{report}");
}

async fn check_network(settings: &Settings, terms: &Terms) -> anyhow::Result<Check> {
    let client = reqwest::Client::builder().timeout(HUB_LIMIT).build()?;
    let mut unreachable = Vec::new();
    for hub in hub::addresses(settings)? {
        if let Err(error) = client.head(hub.clone()).send().await {
            unreachable.push(format!("{} ({})", hub.host_str().unwrap_or_default(), without_url(error)));
        }
    }
    let works = unreachable.is_empty();
    let way_out = terms.way_to(Gives::Internet).map(|way| format!("; {way}"));
    let detail = if works {
        "the model hubs can be reached".to_owned()
    } else {
        format!("cannot be reached: {}{}", unreachable.join(", "), way_out.unwrap_or_default())
    };
    Ok(Check { name: "network", works, detail })
}

fn without_url(error: reqwest::Error) -> String {
    let error = anyhow::Error::from(error.without_url());
    error.root_cause().to_string()
}

fn check_home(settings: &Settings) -> Check {
    let (works, detail) =
        match Home::open(&settings.home, Access::ReadWrite).and_then(|home| home.models().list()) {
            Ok(listing) => {
                let (home, models) = (settings.home.display(), listing.models.len());
                (true, format!("{home} with {models} models; {}", snapshots::told(&settings.home)))
            }
            Err(error) => (false, error.to_string()),
        };
    Check { name: "home", works, detail }
}

fn check_llama(machine: &Machine) -> Check {
    let name = "llama.cpp";
    match &machine.compute {
        Reading::Known(devices) => {
            let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
            let detail = format!("{}; devices: {}", firepot_llama::build_info(), names.join(", "));
            Check { name, works: !names.is_empty(), detail }
        }
        Reading::Absent { reason } => Check { name, works: false, detail: reason.clone() },
    }
}

fn check_gpu(asked: &Asked, machine: &Machine, terms: &Terms) -> Check {
    let (works, detail) = match gpu::judge(asked, machine.clone()) {
        Verdict::None => {
            let why = machine.gpus.absent.clone().unwrap_or_else(|| "none was found".to_owned());
            let way_out = terms.way_to(Gives::Gpu).map(|way| format!("; {way}"));
            (true, format!("the CPU is used ({why}){}", way_out.unwrap_or_default()))
        }
        Verdict::Usable => (true, "used".to_owned()),
        Verdict::Unused { reason, hint } => (false, format!("{reason}; {hint}")),
    };
    Check { name: "GPU", works, detail }
}

fn describe(machine: &Machine, terms: &Terms) -> String {
    let bytes = |reading: &Reading<u64>| show(reading, |&bytes| table::bytes(bytes));
    let mut rows = vec![
        ("CPU", show(&machine.cpu.model, Clone::clone)),
        (
            "cores",
            format!(
                "{} allowed of {}",
                number(&machine.cpu.cores_allowed),
                number(&machine.cpu.cores_logical)
            ),
        ),
        ("features", machine.cpu.features.join(" ")),
        (
            "memory",
            format!(
                "{} available of {}",
                bytes(&machine.memory.effective_available_bytes),
                bytes(&machine.memory.effective_total_bytes)
            ),
        ),
        ("disk", show(&machine.disk, |disk| format!("{} free", table::bytes(disk.free_bytes)))),
        ("platform", format!("{:?} ({})", machine.platform.kind, machine.platform.evidence)),
    ];
    let further = machine.further_gpus();
    let gpus = machine.gpus.devices.iter().chain(further.iter().map(|(_, gpu)| gpu));
    rows.extend(gpus.map(|gpu| ("GPU", format!("{}, {}", gpu.name, bytes(&gpu.total_bytes)))));
    rows.extend(terms.saved.map(|saved| ("saved", format!("{}: {}", saved.path, saved.fact.says))));
    rows.extend(terms.quota.map(|quota| ("quota", quota.fact.says.to_owned())));
    rows.extend(terms.public.map(|rule| {
        let word = if rule.forbids { "forbids" } else { "frowns upon" };
        (
            "rules",
            format!("{} {word} tunnels and web pages: {}; {}", terms.name, rule.fact.says, rule.instead),
        )
    }));
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<10} {value}")).collect();
    lines.join("\n") + "\n"
}

fn number(reading: &Reading<u32>) -> String {
    show(reading, ToString::to_string)
}

fn show<T>(reading: &Reading<T>, known: impl Fn(&T) -> String) -> String {
    match reading {
        Reading::Known(value) => known(value),
        Reading::Absent { reason } => format!("not known ({reason})"),
    }
}
