//! `firepot calibrate`: how fast this machine computes, measured and kept.

use std::process::{Command, Stdio};

use firepot_calibrate::{Attention, Calibration, USUAL_KINDS, Work, measure};
use firepot_engine::{Decoder, LoadSpec};
use firepot_gguf::TensorType;
use firepot_llama::{LlamaDecoder, LoadControl};
use firepot_machine::{READ_TIME_MAX, read_speed};
use firepot_measure::read_bandwidth;
use firepot_store::{Home, Model, write_atomic};

use crate::{calibrated, cli, commands::fit::layout, planner::read_layout, settings::Settings, table};

/// Bytes of a file that are read to know the disk.
const DISK_BYTES: u64 = 256 << 20;

/// Measures what is not known yet, or everything anew, and keeps it.
pub async fn calibrate(settings: &Settings, args: &cli::Calibrate) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    let machine = settings.planner().probe();
    let stamp = calibrated::stamp(&machine);
    let mut asked = Vec::new();
    for name in &args.models {
        asked.extend(Work::kinds_that_matter(&layout(settings, &home, name).await?));
    }
    let bandwidth = read_bandwidth(stamp.threads as usize);
    let stored = calibrated::read(&settings.home, &machine);
    let known = stored.filter(|stored| !args.again && stored.holds(&stamp, bandwidth));
    let usual = known.is_none() || args.models.is_empty();
    let more = usual.then_some(USUAL_KINDS).into_iter().flatten();
    let more: Vec<TensorType> = more.filter_map(TensorType::by_id).collect();
    let mut found = measure(stamp, &asked, &more, known, settings.home.as_path(), &mut load)?;
    found.disk = found.disk.or_else(|| disk(&home));
    write_atomic(&calibrated::path(&settings.home), serde_json::to_string_pretty(&found)?.as_bytes())?;
    if args.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print!("{}", told(&found));
    }
    Ok(())
}

/// Measures in a process of its own, since llama.cpp may end the one it runs in, what this machine's calibration lacks for a
/// model. A failure leaves speeds unknown and nothing else.
pub fn before_load(settings: &Settings, model: &Model) {
    let machine = settings.planner().probe();
    let Ok(layout) = read_layout(model) else { return };
    let stamp = calibrated::stamp(&machine);
    let stored = calibrated::read(&settings.home, &machine);
    let whole = |stored: &Calibration| {
        let known = |kind: &TensorType| stored.kind(kind.name).is_some();
        Work::kinds_that_matter(&layout).iter().all(known)
            && stored.holds(&stamp, read_bandwidth(stamp.threads as usize))
    };
    if stored.as_ref().is_some_and(whole) {
        return;
    }
    eprintln!("measuring this machine, once: about {} s", if stored.is_some() { 3 } else { 7 });
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
    let giga = |rate: f64| format!("{:.1}", rate / 1e9);
    let rows: Vec<Vec<String>> = found
        .kinds
        .iter()
        .map(|kind| {
            let [plain, repacked] = [kind.plain, kind.repacked];
            [plain.decode_bytes, plain.prefill_macs, repacked.decode_bytes, repacked.prefill_macs]
                .map(giga)
                .into_iter()
                .fold(vec![kind.kind.clone()], |mut row, cell| {
                    row.push(cell);
                    row
                })
        })
        .collect();
    let header = ["TYPE", "DECODE GB/S", "PREFILL GMAC/S", "REPACKED DECODE GB/S", "REPACKED PREFILL GMAC/S"];
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
        "{}{}{}main memory {} GB/s with {} threads; {:.0} µs a layer; disk {}\nmeasured in {:.1} s\n",
        table::render(&header, &rows),
        attention("without flash attention", &found.plain),
        attention("with it", &found.flash),
        giga(found.bandwidth),
        found.stamp.threads,
        found.layer_s * 1e6,
        found.disk.map_or_else(|| "not known".to_owned(), |rate| format!("{} GB/s", giga(rate))),
        found.took_s,
    )
}
