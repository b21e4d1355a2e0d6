//! `firepot calibrate`: how fast this machine computes, measured and kept.

use std::process::{Command, Stdio};

use firepot_calibrate::{
    Asked, Attention, Calibration, DeviceRates, Gpu, KindRates, Rates, Stamp, USUAL_KINDS, Work, measure,
};
use firepot_engine::{Decoder, LoadSpec};
use firepot_gguf::{Layout, TensorType};
use firepot_llama::{LlamaDecoder, LoadControl};
use firepot_machine::{DeviceNames, Machine, READ_TIME_MAX, read_speed};
use firepot_measure::read_bandwidth;
use firepot_plan::{Want, plan};
use firepot_server::pool::Wishes;
use firepot_store::{Home, Model, write_atomic};

use crate::{calibrated, cli, commands::fit::layout, planner::read_layout, settings::Settings, table};

/// Bytes of a file that are read to know the disk.
const DISK_BYTES: u64 = 256 << 20;

/// Measures what is not known yet, or everything anew, and keeps it.
pub async fn calibrate(settings: &Settings, args: &cli::Calibrate) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    let planner = settings.planner();
    let (machine, names) = planner.for_plans();
    let stamp = calibrated::stamp(&machine);
    let want = planner.want(&Wishes::default(), &[]);
    let mut asked = Asked::default();
    for name in &args.models {
        add(&mut asked, asked_for(&layout(settings, &home, name).await?, (&machine, &names), &want, &stamp));
    }
    if !asked.cpu && asked.gpus.is_empty() {
        add(&mut asked, calibrated::asked_usually(&machine, &names, &stamp));
    }
    let stored = calibrated::read(&settings.home, &machine);
    let known = stored.map(|stored| still_true(stored, &asked, args.again));
    let fresh = known.as_ref().is_none_or(|known| devices(known, &asked).any(|device| device.is_none()));
    if fresh || args.models.is_empty() {
        asked.more = USUAL_KINDS.into_iter().filter_map(TensorType::by_id).collect();
    }
    let mut found = measure(stamp, &asked, known, settings.home.as_path(), &mut load)?;
    found.disk = found.disk.or_else(|| disk(&home));
    write_atomic(&calibrated::path(&settings.home), serde_json::to_string_pretty(&found)?.as_bytes())?;
    if args.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print!("{}", told(&found));
    }
    Ok(())
}

/// What a model needs to have measured, where it would be loaded.
fn asked_for(
    layout: &Layout,
    (machine, names): (&Machine, &DeviceNames),
    want: &Want,
    stamp: &Stamp,
) -> Asked {
    let kinds = Work::kinds_that_matter(layout);
    let where_it_goes =
        plan(layout, machine, want).map(|plan| calibrated::asked_by(&plan, machine, names, stamp));
    Asked { kinds, ..where_it_goes.unwrap_or_default() }
}

fn add(asked: &mut Asked, other: Asked) {
    asked.cpu |= other.cpu;
    if asked.threads.is_empty() {
        asked.threads = other.threads;
    }
    let gpus: Vec<Gpu> = other.gpus.into_iter().filter(|gpu| !asked.gpus.contains(gpu)).collect();
    asked.gpus.extend(gpus);
    asked.kinds.extend(other.kinds);
}

/// What is stored of the devices that are asked for; `None` for one that was not measured.
fn devices<'a>(stored: &'a Calibration, asked: &'a Asked) -> impl Iterator<Item = Option<&'a DeviceRates>> {
    let cpu = asked.cpu.then_some(stored.cpu.as_ref());
    cpu.into_iter().chain(asked.gpus.iter().map(|gpu| stored.gpus.get(&gpu.name)))
}

/// The same without what is to be measured again: all that is asked for, or main memory when its bandwidth has moved.
fn still_true(mut stored: Calibration, asked: &Asked, again: bool) -> Calibration {
    let threads = stored.stamp.threads as usize;
    let moved = |cpu: &DeviceRates| again || !cpu.holds(read_bandwidth(threads));
    if asked.cpu && stored.cpu.as_ref().is_some_and(moved) {
        stored.cpu = None;
    }
    stored.gpus.retain(|name, _| !again || asked.gpus.iter().all(|gpu| gpu.name != *name));
    stored
}

/// How far what is stored is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// While memory's bandwidth has not moved, which takes some tenths of a second to know.
    Compared,
    /// However old it is.
    Believed,
}

/// Measures in a process of its own, since llama.cpp may end the one it runs in, what this machine's calibration lacks for a
/// model, where that would be loaded. A failure leaves speeds unknown and nothing else.
pub fn before_load(settings: &Settings, model: &Model, stored: Stored) {
    let planner = settings.planner();
    let (machine, names) = planner.for_plans();
    let Ok(layout) = read_layout(model) else { return };
    let stamp = calibrated::stamp(&machine);
    let asked = asked_for(&layout, (&machine, &names), &planner.want(&Wishes::default(), &[]), &stamp);
    if !asked.cpu && asked.gpus.is_empty() {
        return;
    }
    let found = calibrated::read(&settings.home, &machine);
    if found.as_ref().is_some_and(|found| is_whole(found, &asked, stored)) {
        return;
    }
    let known = found.is_some_and(|found| devices(&found, &asked).all(|device| device.is_some()));
    eprintln!("measuring this machine, once: about {} s", if known { 3 } else { 7 });
    let run = || -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--home").arg(&settings.home).args(["--log", "off", "calibrate", "--json"]);
        command.arg(model.name.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status()?;
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(())
    };
    if let Err(error) = run() {
        eprintln!("warning: this machine could not be measured: {error}; speeds are not predicted");
    }
}

/// Whether nothing that is asked for lacks.
fn is_whole(found: &Calibration, asked: &Asked, stored: Stored) -> bool {
    let has_kinds = |device: Option<&DeviceRates>| {
        device.is_some_and(|device| asked.kinds.iter().all(|kind| device.kind(kind.name).is_some()))
    };
    let holds = |cpu: &DeviceRates| cpu.holds(read_bandwidth(found.stamp.threads as usize));
    devices(found, asked).all(has_kinds)
        && (stored == Stored::Believed || !asked.cpu || found.cpu.as_ref().is_some_and(holds))
}

fn load(spec: &LoadSpec) -> Result<Box<dyn Decoder>, String> {
    let mut control = LoadControl { progress: &mut |_| true };
    LlamaDecoder::load(spec, &mut control)
        .map(|decoder| Box::new(decoder) as Box<dyn Decoder>)
        .map_err(|error| error.to_string())
}

/// The speed at which the store's newest model is read, around the page cache.
fn disk(home: &Home) -> Option<f64> {
    let model = home.models().list().ok()?.models.into_iter().next()?;
    let speed = read_speed(&model.blob_path, DISK_BYTES, READ_TIME_MAX / 2);
    speed.known().map(|speed| speed.bytes_per_s as f64)
}

fn told(found: &Calibration) -> String {
    let cpu = found.cpu.as_ref().map(|cpu| ("main memory", cpu));
    let gpus = found.gpus.iter().map(|(name, gpu)| (name.as_str(), gpu));
    let devices: String = cpu.into_iter().chain(gpus).map(|(name, device)| told_of(name, device)).collect();
    let disk = found.disk.map_or_else(|| "not known".to_owned(), |rate| format!("{} GB/s", giga(rate)));
    format!("{devices}disk {disk}\nmeasured in {:.1} s\n", found.took_s)
}

fn giga(rate: f64) -> String {
    format!("{:.1}", rate / 1e9)
}

fn told_of(name: &str, device: &DeviceRates) -> String {
    let row = |name: String, rates: Rates| {
        vec![name, giga(rates.decode_bytes), giga(rates.prefill_macs), format!("{:.0}", rates.pass_tokens)]
    };
    let rows: Vec<Vec<String>> = device
        .kinds
        .iter()
        .flat_map(|KindRates { kind, plain, repacked }| {
            let apart = (plain != repacked).then(|| row(format!("{kind} repacked"), *repacked));
            std::iter::once(row(kind.clone(), *plain)).chain(apart)
        })
        .collect();
    let header = ["TYPE", "DECODE GB/S", "PREFILL GMAC/S", "TOKENS A PASS"];
    let attention = |name: &str, found: &Attention| {
        let Attention { decode_s, score_s, mac_s } = found;
        let nanos = |seconds: f64| format!("{:.2}", seconds * 1e9);
        format!(
            "attention {name}: {} ns a hundred multiplications in decode; {} ns a score and {} ns a hundred multiplications in prefill\n",
            nanos(decode_s * 100.0),
            nanos(*score_s),
            nanos(mac_s * 100.0)
        )
    };
    format!(
        "{}{}{}{name} {} GB/s with {} threads, prompts with {}; {:.0} µs a layer\n",
        table::render(&header, &rows),
        attention("without flash attention", &device.plain),
        attention("with it", &device.flash),
        giga(device.bandwidth),
        device.threads.decode,
        device.threads.prefill,
        device.layer_s * 1e6,
    )
}
