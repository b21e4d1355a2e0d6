//! Machine, calibration, plan and program, as the bundle keeps them.

use std::{fs, io};

use firepot_calibrate::{Rate, Work};
use firepot_gguf::Layout;
use firepot_machine::{Machine, Reading};
use firepot_measure::bundle::{
    CalibrationRecord, Case, CaseKind, Gpu, MachineRecord, PlanRecord, Predicted, Tool,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    calibrated,
    fit::{Fit, Place},
    planner::LocalPlanner,
};

/// This machine.
pub fn machine(machine: &Machine) -> MachineRecord {
    let gpu = |gpu: &firepot_machine::Gpu| Gpu {
        name: gpu.name.clone(),
        memory_bytes: gpu.total_bytes.known().copied().unwrap_or(0),
        driver: machine.gpus.driver_version.clone(),
    };
    MachineRecord {
        cpu: machine.cpu.model.clone(),
        cores: machine.cpu.cores_allowed.clone(),
        memory_bytes: machine.memory.effective_total_bytes.clone(),
        gpus: Reading::Known(machine.gpus.devices.iter().map(gpu).collect()),
        platform: Reading::Known(format!("{:?}", machine.platform.kind).to_lowercase()),
        details: serde_json::to_value(machine).unwrap_or_default(),
    }
}

/// Why nothing is said of a machine that is not this one.
pub const ELSEWHERE: &str = "the server is on another machine, which does not tell it";

/// A machine that is not this one.
pub fn elsewhere() -> MachineRecord {
    MachineRecord {
        cpu: Reading::absent(ELSEWHERE),
        cores: Reading::absent(ELSEWHERE),
        memory_bytes: Reading::absent(ELSEWHERE),
        gpus: Reading::absent(ELSEWHERE),
        platform: Reading::absent(ELSEWHERE),
        details: Value::Null,
    }
}

/// Its calibration.
pub fn calibration(planner: &LocalPlanner, machine: &Machine) -> Reading<CalibrationRecord> {
    let found = calibrated::read(&planner.home, machine);
    let Some((found, main)) = found.as_ref().and_then(|found| Some((found, found.main()?))) else {
        return Reading::absent("this machine was not measured: firepot calibrate");
    };
    Reading::Known(CalibrationRecord {
        taken_unix_s: main.taken_at_s,
        bandwidth_bytes_per_s: main.bandwidth,
        details: serde_json::to_value(found).unwrap_or_default(),
    })
}

/// What is predicted of a model, before it is measured.
pub fn plan(
    planner: &LocalPlanner,
    name: &str,
    layout: &Layout,
    cases: &[Case],
    now_unix_s: u64,
) -> Reading<PlanRecord> {
    let place = Place::here(planner);
    let want = planner.want(&firepot_server::pool::Wishes::default(), &[]);
    let fit = Fit::of(name.to_owned(), layout, &place, &want);
    let Some(plan) = &fit.plan else {
        let why = fit.refused.map_or_else(|| "it cannot be planned".to_owned(), |refused| refused.message);
        return Reading::absent(why);
    };
    let loaded_bytes = plan.predicted.total_bytes();
    let mut predicted = vec![Predicted {
        metric: "peak_memory_bytes".to_owned(),
        case: None,
        value: loaded_bytes as f64,
        low: Some(loaded_bytes as f64),
        // What a trial asks before fills the place for parked prefixes.
        high: Some((loaded_bytes + plan.parked_bytes) as f64),
    }];
    for case in cases.iter().filter(|case| matches!(case.kind, CaseKind::Warm | CaseKind::Depth)) {
        let tokens = case.prompt_tokens + case.depth_tokens;
        let Ok(speeds) = place.speeds(layout, plan, tokens) else { continue };
        let mut add = |metric: &str, rate: Rate, unit: f64| {
            predicted.push(Predicted {
                metric: metric.to_owned(),
                case: Some(case.id.clone()),
                value: rate.predicted * unit,
                low: Some(rate.low * unit),
                high: Some(rate.high * unit),
            });
        };
        add("decode_tokens_per_s", speeds.decode, 1.0);
        if case.kind == CaseKind::Warm {
            add("prefill_tokens_per_s", speeds.prefill, 1.0);
            add("ttft_warm_ms", speeds.ttft, 1e3);
        }
    }
    let details = json!({
        "plan": plan, "speeds_absent": fit.speeds_absent, "calibration": fit.calibration,
        "correction": fit.correction, "work": Work::of(layout).key(),
    });
    Reading::Known(PlanRecord { made_unix_s: now_unix_s, predicted, details })
}

/// This program.
pub fn tool() -> Tool {
    let unknown = "it was not built from a checkout with Git";
    let dirty = option_env!("FIREPOT_DIRTY").map(|dirty| dirty == "true");
    let binary = fs::File::open("/proc/self/exe").and_then(hash).map_err(|error| error.to_string());
    let flags = [
        ("target", env!("FIREPOT_BUILD_TARGET")),
        ("profile", env!("FIREPOT_BUILD_PROFILE")),
        ("features", env!("FIREPOT_BUILD_FEATURES")),
    ];
    let mut build_flags: Vec<String> = flags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    build_flags.push(format!("llama.cpp={}", firepot_llama::build_info()));
    Tool {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("FIREPOT_COMMIT")
            .map_or_else(|| Reading::absent(unknown), |commit| Reading::Known(commit.to_owned())),
        dirty: dirty.map_or_else(|| Reading::absent(unknown), Reading::Known),
        binary_sha256: binary.into(),
        build_flags,
    }
}

/// SHA-256 of all that is there to be read, as hex digits.
pub fn hash(mut source: impl io::Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
