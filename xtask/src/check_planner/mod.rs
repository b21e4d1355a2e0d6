//! The planner's bytes beside llama.cpp's own count of the same loads (`firepot dry-run`).

mod limits;
mod published;
mod resident;
mod sketches;
mod times;

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use firepot_catalogue::Quant;
use firepot_engine::{DeviceMemory, KvType, LoadSpec};
use firepot_gguf::{Gguf, Layout};
use firepot_plan::{DeviceBytes, Params, host_bytes, sequences};
use serde_json::Value;

use crate::synth;

/// Arguments of `check-planner`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Further GGUF files to check; the data may be missing.
    pub files: Vec<PathBuf>,
    /// The test model.
    #[arg(long, value_name = "FILE", default_value = "target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf")]
    model: PathBuf,
    /// The program that is asked.
    #[arg(long, value_name = "FILE", default_value = "target/release/firepot")]
    firepot: PathBuf,
    /// Only models whose names contain this are compared.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Also run the test model under memory limits, which takes minutes and wants a machine that does nothing else.
    #[arg(long)]
    limits: bool,
    /// Also load models for real and fill their contexts, which takes minutes.
    #[arg(long)]
    resident: bool,
    /// Where the report is written.
    #[arg(long, value_name = "FILE", default_value = "docs/planner.md")]
    out: PathBuf,
}

/// Models of the catalogue whose shapes are compared: one of each family, and those whose heads together are not as wide as
/// the residual stream.
const SHAPES: [&str; 9] = [
    "r1-distill-qwen-7b",
    "llama-3.1-8b",
    "qwen3-8b",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "granite-3.1-1b-a400m",
    "gemma-3-4b",
    "phi-4-mini",
    "gpt-oss-20b",
];
/// Context sizes that are compared, in cells.
const CELLS: [u32; 6] = [512, 2048, 4096, 8192, 16_384, 32_768];
/// Ubatches: llama.cpp's default, and one that is no multiple of the sequences.
const UBATCHES: [u32; 2] = [512, 100];
const KV_TYPES: [KvType; 3] = [KvType::F16, KvType::Q8_0, KvType::Q4_0];
const PARALLEL: [u32; 2] = [1, 4];

/// Compares every model and writes the report.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.model.exists(), "{} is not there: `make up` gets it", args.model.display());
    let mut oracle = Oracle::start(&args.firepot)?;
    let mut rows = Vec::new();
    let sparse = Path::new("target/bench/sparse.gguf");
    let mut compare = |name: &str, file: &Path, write: &dyn Fn(&Path) -> anyhow::Result<()>| {
        if name.contains(&args.only) {
            write(file)?;
            rows.push(check(&mut oracle, name, file)?);
        }
        anyhow::Ok(())
    };
    compare("SmolLM2-135M Q4_1 (the test model)", &args.model, &|_| Ok(()))?;
    for name in SHAPES {
        let shape = synth::model(name).map_err(anyhow::Error::msg)?;
        let mixes = if shape.mxfp4 { vec![Quant::Mxfp4] } else { vec![Quant::Q4KM, Quant::Q8_0, Quant::F16] };
        for quant in mixes {
            compare(&format!("{name} {}", quant.name()), sparse, &|file| {
                synth::write_sparse(shape, quant, &args.model, file)
            })?;
        }
    }
    for name in sketches::ALL {
        compare(name, sparse, &|file| sketches::write(name, &args.model, file))?;
    }
    for file in &args.files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        compare(&name, file, &|_| Ok(()))?;
    }
    if sparse.exists() {
        fs::remove_file(sparse)?;
    }
    let firepot = args.firepot.canonicalize()?;
    let resident = args.resident.then(|| resident::check(&firepot, &args.model)).transpose()?;
    let limits = if args.limits { limits::check(&firepot, &args.model)? } else { None };
    let timed = args.files.first().unwrap_or(&args.model);
    let mut text = report(&rows, resident.as_deref(), limits.as_deref())?;
    text.push_str(&published::table(&firepot)?);
    text.push_str(&times::report(&firepot, timed)?);
    File::create(&args.out)?.write_all(text.as_bytes())?;
    println!("{}", args.out.display());
    Ok(())
}

/// How far the plan was from llama.cpp's count, over all loads of one model.
#[derive(Debug)]
struct Row {
    name: String,
    loads: usize,
    /// Loads at which llama.cpp ended its process.
    aborted: usize,
    weights_off: u64,
    kv_off: u64,
    compute: Vec<Compared>,
}

/// A compute buffer, in bytes.
#[derive(Clone, Copy, Debug)]
struct Compared {
    planned: u64,
    counted: u64,
}

impl Compared {
    fn off(self) -> u64 {
        self.planned.abs_diff(self.counted)
    }

    /// Within 5 % or 16 MiB.
    fn near(self) -> bool {
        self.off() * 20 <= self.counted || self.off() <= 16 << 20
    }
}

fn check(oracle: &mut Oracle, name: &str, file: &Path) -> anyhow::Result<Row> {
    eprintln!("{name}");
    let layout = Gguf::read(&File::open(file)?)?.layout()?;
    let mut row =
        Row { name: name.to_owned(), loads: 0, aborted: 0, weights_off: 0, kv_off: 0, compute: Vec::new() };
    for (cells, kv_type, flash_attention) in loads() {
        for (parallel, ubatch_tokens) in PARALLEL.into_iter().zip(UBATCHES.into_iter().rev()) {
            let params = Params { parallel, ubatch_tokens, kv_types: planned(kv_type), flash_attention };
            row.loads += 1;
            let Some(counted) = oracle.ask(&spec(file, &layout, params, kv_type, cells))? else {
                row.aborted += 1;
                continue;
            };
            let counted = sum(&counted);
            let said = host_bytes(&layout, params, cells.into());
            row.weights_off = row.weights_off.max(said.weights_bytes.abs_diff(counted.weights_bytes));
            row.kv_off = row.kv_off.max(said.kv_bytes.abs_diff(counted.kv_bytes));
            let compared = Compared { planned: said.compute_bytes, counted: counted.compute_bytes };
            if !compared.near() {
                eprintln!(
                    "  {cells} cells of {kv_type:?}, flash attention {flash_attention}, {parallel} answers: {compared:?}"
                );
            }
            row.compute.push(compared);
        }
    }
    Ok(row)
}

/// Cells, type of the cache, flash attention: a quantized cache needs it.
fn loads() -> impl Iterator<Item = (u32, KvType, bool)> {
    CELLS.into_iter().flat_map(|cells| {
        let quantized = KV_TYPES.into_iter().map(move |kind| (cells, kind, true));
        quantized.chain([(cells, KvType::F16, false)])
    })
}

const fn planned(kind: KvType) -> (firepot_plan::KvType, firepot_plan::KvType) {
    let kind = match kind {
        KvType::F16 => firepot_plan::KvType::F16,
        KvType::Q8_0 => firepot_plan::KvType::Q8_0,
        KvType::Q4_0 => firepot_plan::KvType::Q4_0,
    };
    (kind, kind)
}

fn spec(file: &Path, layout: &Layout, params: Params, kv_type: KvType, cells: u32) -> LoadSpec {
    LoadSpec {
        ctx_per_answer: cells.min(layout.ctx_train),
        kv_cells: cells,
        parallel: params.parallel,
        sequences: sequences(layout, params.parallel).min(cells.into()) as u32,
        batch_tokens: 2048,
        ubatch_tokens: params.ubatch_tokens,
        threads: 2,
        threads_batch: 2,
        flash_attention: params.flash_attention,
        kv_type_k: kv_type,
        kv_type_v: kv_type,
        ..LoadSpec::small(file.to_owned())
    }
}

fn sum(devices: &[DeviceMemory]) -> DeviceBytes {
    devices.iter().fold(DeviceBytes::default(), |sum, device| DeviceBytes {
        weights_bytes: sum.weights_bytes + device.weights_bytes,
        kv_bytes: sum.kv_bytes + device.kv_bytes,
        compute_bytes: sum.compute_bytes + device.compute_bytes,
    })
}

fn report(
    rows: &[Row],
    resident: Option<&[resident::Row]>,
    limits: Option<&[limits::Row]>,
) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    for row in rows {
        let far = row.compute.iter().filter(|compared| !compared.near()).count();
        let worst = row.compute.iter().max_by_key(|compared| compared.off()).context("no loads")?;
        let (planned, counted) = (mib(worst.planned), mib(worst.counted));
        let Row { name, loads, aborted, weights_off, kv_off, .. } = row;
        writeln!(
            text,
            "| {name} | {loads} | {aborted} | {weights_off} | {kv_off} | {far} | {planned:.1} beside {counted:.1} |"
        )?;
    }
    text.push_str(RESIDENT);
    match resident {
        Some(rows) => {
            text.push_str(resident::Row::HEAD);
            text.extend(rows.iter().map(resident::Row::line));
        }
        None => text.push_str("Not taken: it was not asked for (`--resident`).\n"),
    }
    text.push_str(LIMITS);
    match limits {
        Some(rows) => {
            text.push_str(limits::Row::HEAD);
            text.extend(rows.iter().map(limits::Row::line));
        }
        None => text.push_str(
            "Not taken: it was not asked for (`--limits`), or this machine lets no control group be made.\n",
        ),
    }
    Ok(text)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

const RESIDENT: &str = "\n## Peak resident memory of runners\n\nThe model is loaded by a server with a context of so many tokens for so many answers, a strict \
    answer fills that context in whole ubatches, and the runner's `VmHWM`, the mapped file with it, stands beside the plan of the same load: llama.cpp's buffers and what the runner takes \
    beside them. Asked for: within 5 % or 24 MiB.\n\n";

const LIMITS: &str = "\n## Under memory limits\n\nThe test model answers one question that fills the context, server and runner together in a control group of the kernel, \
    under limits from 70 to 160 % of what they take without one (the group's own peak, the mapped file with it). A run thrashes when \
    it takes three times as long as without a limit and met it: flash attention and a quantized KV cache, by which it fits, are slow as well. A refusal is needless when the limit is above what was taken.\n\n";

const HEAD: &str = "# The planner beside llama.cpp's own count\n\n`cargo xtask check-planner` wrote this: what the planner says that a load takes in main memory, \
    beside what llama.cpp computes for it without taking it (`firepot dry-run`). Synthetic shapes are headers alone. Each model \
    with 512 to 32,768 cells, a KV cache in f16, q8_0 and q4_0, with flash attention and (f16) without, for one answer with ubatches of \
    100 tokens and for four with 512. Weights and KV cache are to be exact, compute buffers within 5 % or 16 MiB.\n\n\
    | model | loads | llama.cpp ends the process | weights: most bytes off | KV cache: most bytes off | compute buffers off by more | the one farthest off, MiB |\n|---|---|---|---|---|---|---|\n";

/// `firepot dry-run`, asked a line at a time.
struct Oracle {
    firepot: PathBuf,
    process: Asked,
}

struct Asked {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Oracle {
    fn start(firepot: &Path) -> anyhow::Result<Self> {
        Ok(Self { firepot: firepot.to_owned(), process: Asked::start(firepot)? })
    }

    /// `None` when llama.cpp ends the process, as it does where a graph has more nodes than it made room for.
    fn ask(&mut self, spec: &LoadSpec) -> anyhow::Result<Option<Vec<DeviceMemory>>> {
        let Some(answer) = self.process.ask(spec)? else {
            self.process = Asked::start(&self.firepot)?;
            return Ok(None);
        };
        if let Some(error) = answer["error"].as_str() {
            anyhow::bail!("{}: {error}", spec.path.display());
        }
        Ok(Some(serde_json::from_value(answer["devices"].clone())?))
    }
}

impl Asked {
    fn start(firepot: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(firepot);
        command.args(["--log", "off", "dry-run"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // llama.cpp would start a debugger to print where it ended.
        command.env("GGML_NO_BACKTRACE", "1").stderr(Stdio::null());
        let mut child =
            command.spawn().with_context(|| format!("{}: `make build` builds it", firepot.display()))?;
        let to = child.stdin.take().context("no standard input")?;
        let from = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, to, from })
    }

    /// `None` when it ends before it answers.
    fn ask(&mut self, spec: &LoadSpec) -> anyhow::Result<Option<Value>> {
        writeln!(self.to, "{}", serde_json::to_string(spec)?)?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        if line.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&line)?)) }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
