//! `firepot doctor`: what this machine is, what works, what does not, and why.

use firepot_machine::{Machine, Reading};
use firepot_store::{Access, Home};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cli::Output,
    gpu::{self, Verdict},
    settings::Settings,
    snapshots, table,
};

#[derive(Serialize)]
struct Check {
    name: &'static str,
    works: bool,
    detail: String,
}

/// Looks at everything and changes nothing.
pub fn doctor(settings: &Settings, output: &Output) -> anyhow::Result<()> {
    let machine = settings.planner().probe_whole();
    let checks = vec![check_home(settings), check_llama(), check_gpu(&machine)];
    if output.json {
        let report = json!({"version": env!("CARGO_PKG_VERSION"), "machine": machine, "checks": checks});
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    print!("{}", describe(&machine));
    for check in &checks {
        println!("{} {:<10} {}", if check.works { "ok   " } else { "fails" }, check.name, check.detail);
    }
    Ok(())
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

fn check_llama() -> Check {
    let name = "llama.cpp";
    match llama_report() {
        Ok(report) => {
            let devices = report["devices"].as_array().cloned().unwrap_or_default();
            let names: Vec<&str> = devices.iter().filter_map(|device| device["name"].as_str()).collect();
            let detail =
                format!("{}; devices: {}", report["build"].as_str().unwrap_or("?"), names.join(", "));
            Check { name, works: true, detail }
        }
        Err(error) => Check { name, works: false, detail: error.to_string() },
    }
}

fn llama_report() -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&gpu::ask_llama()?)?)
}

fn check_gpu(machine: &Machine) -> Check {
    let (works, detail) = match gpu::judge(machine) {
        Verdict::None => {
            let why = machine.gpus.absent.clone().unwrap_or_else(|| "none was found".to_owned());
            (true, format!("the CPU is used ({why})"))
        }
        Verdict::Usable => (true, "used".to_owned()),
        Verdict::Unused { reason, hint } => (false, format!("{reason}; {hint}")),
    };
    Check { name: "GPU", works, detail }
}

fn describe(machine: &Machine) -> String {
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
    rows.extend(
        machine.gpus.devices.iter().map(|gpu| ("GPU", format!("{}, {}", gpu.name, bytes(&gpu.total_bytes)))),
    );
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
