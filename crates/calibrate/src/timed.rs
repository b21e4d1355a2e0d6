//! Small models are written, loaded and timed.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use firepot_engine::{Batch, BatchItem, DecodeError, Decoder, LoadSpec, SeqId};
use firepot_gguf::{Gguf, TensorType};
use firepot_measure::quantile;
use tempfile::NamedTempFile;

use crate::{
    CalibrateError, Threads, Work,
    model::{Sizes, bytes_of},
};

/// A narrow model that tokens alone are timed of has at least so much, which few caches hold.
const DEEP_BYTES: u64 = 72 << 20;
/// Layers of a narrow model that prompts are timed of.
const NARROW_LAYERS: u64 = 4;
const LONG_PROMPTS: u32 = 3;
/// Timed tokens in each turn of a wide model, of the deep one, and of narrow ones, which take a tenth of the time.
const WIDE_DECODES: u32 = 8;
const DEEP_DECODES: u32 = 16;
const NARROW_DECODES: u32 = 64;

/// How the files of models are called.
const PREFIX: &str = "probe-";
const SUFFIX: &str = ".gguf";
/// No model is timed for so long.
const LEFT_BEHIND: Duration = Duration::from_mins(5);

/// Removes the models of earlier probes whose processes were killed.
pub fn remove_left_behind(dir: &Path) {
    let old = |file: &fs::DirEntry| {
        let written = file.metadata().and_then(|found| found.modified()).ok();
        written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > LEFT_BEHIND)
    };
    for file in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = file.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if ours && old(&file) {
            // One that cannot be removed now is there for the next probe.
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Loads a model.
pub type Load<'a> = dyn FnMut(&LoadSpec) -> Result<Box<dyn Decoder>, String> + 'a;

/// How large models and prompts must be to be timed on a kind of device.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Wide models have at least so much.
    pub wide_bytes: u64,
    /// Tokens of a wide model's short and long prompt.
    pub prompts: [u32; 2],
    /// A wide model is timed for so long, tokens and prompts in turn: what a shared machine does changes from one tenth of a second
    /// to the next.
    pub wide_time: Duration,
    /// Tokens of the long prompt of a narrow model, and of the parts in which it is computed; so many are timed.
    pub long: u32,
    pub part: u32,
}

impl Scale {
    pub const CPU: Self = Self {
        wide_bytes: 72 << 20,
        prompts: [32, 160],
        wide_time: Duration::from_millis(450),
        long: 768,
        part: 256,
    };
    /// Caches of GPUs hold up to 128 MiB, and prompts are computed in steps of 512 tokens; attention over few cells is not told from
    /// the start of a kernel.
    pub const GPU: Self = Self {
        wide_bytes: 384 << 20,
        prompts: [64, 512],
        wide_time: Duration::from_millis(250),
        long: 4096,
        part: 512,
    };
}

/// Times of a wide model, in seconds.
pub struct Wide {
    pub work: Work,
    pub token_s: f64,
    pub short_s: f64,
    pub long_s: f64,
}

/// Time of a token of a model of many narrow layers, in seconds.
pub struct Deep {
    pub work: Work,
    pub token_s: f64,
}

/// Times of a narrow model, in seconds.
pub struct Narrow {
    pub work: Work,
    /// A token at an empty cache, and after the long prompt.
    pub token_s: f64,
    pub late_token_s: f64,
    /// The first part of the long prompt, and how much longer its last takes.
    pub part_s: f64,
    pub later_s: f64,
}

/// Times models on one device.
pub struct Probe<'a, 'b> {
    pub dir: &'a Path,
    pub threads: Threads,
    /// llama.cpp's name of a GPU; main memory without.
    pub gpu: Option<String>,
    pub scale: Scale,
    pub load: &'a mut Load<'b>,
}

impl Probe<'_, '_> {
    pub fn wide(&mut self, kind: TensorType, repack: bool) -> Result<Wide, CalibrateError> {
        let Scale { wide_bytes, prompts: [short, long], wide_time, .. } = self.scale;
        let sizes = Sizes::wide(layers(Sizes::wide(1), kind, wide_bytes));
        self.with(sizes, kind, Switches { flash: self.gpu.is_some(), repack }, |timed, work| {
            // The first prompt reads the file into memory and makes the threads wake.
            timed.prompt(0, 8)?;
            let started = Instant::now();
            let [mut tokens, mut shorts, mut longs] = [const { Vec::new() }; 3];
            while started.elapsed() < wide_time {
                timed.cut(8);
                tokens.extend(timed.tokens(WIDE_DECODES)?);
                for (tokens, times) in [(short, &mut shorts), (long, &mut longs)] {
                    timed.cut(0);
                    times.push(timed.prompt(0, tokens)?);
                }
            }
            Ok(Wide { work, token_s: median(&tokens), short_s: median(&shorts), long_s: median(&longs) })
        })
    }

    pub fn deep(&mut self, kind: TensorType) -> Result<Deep, CalibrateError> {
        let sizes = Sizes::narrow(layers(Sizes::narrow(1, 64), kind, DEEP_BYTES), 64);
        self.with(sizes, kind, Switches { flash: self.gpu.is_some(), repack: false }, |timed, work| {
            timed.prompt(0, 8)?;
            Ok(Deep { work, token_s: median(&timed.tokens(DEEP_DECODES)?) })
        })
    }

    pub fn narrow(&mut self, kind: TensorType, head: u64, flash: bool) -> Result<Narrow, CalibrateError> {
        let Scale { long, part: step, .. } = self.scale;
        let sizes = Sizes::narrow(NARROW_LAYERS, head);
        self.with(sizes, kind, Switches { flash, repack: false }, |timed, work| {
            timed.prompt(0, 8)?;
            let (mut first, mut later) = (Vec::new(), Vec::new());
            for _ in 0..LONG_PROMPTS {
                timed.cut(0);
                let times: Vec<f64> =
                    (0..long / step).map(|part| timed.prompt(part * step, step)).collect::<Result<_, _>>()?;
                first.push(times[0]);
                later.push(times[times.len() - 1] - times[0]);
            }
            // One right after the other: the machine may be another one a second later.
            let late_token_s = timed.tokens_within(NARROW_DECODES)?;
            timed.cut(8);
            let token_s = median(&timed.tokens(NARROW_DECODES)?);
            Ok(Narrow { work, token_s, late_token_s, part_s: median(&first), later_s: median(&later) })
        })
    }

    fn with<T>(
        &mut self,
        sizes: Sizes,
        kind: TensorType,
        switches: Switches,
        time: impl FnOnce(&mut Timed<'_>, Work) -> Result<T, DecodeError>,
    ) -> Result<T, CalibrateError> {
        let file = self.write(sizes, kind)?;
        let layout = Gguf::read(file.as_file()).and_then(|model| model.layout());
        let work = Work::of(&layout.map_err(|error| CalibrateError::Load(error.to_string()))?);
        self.loaded(file.path(), self.threads, switches, |timed| time(timed, work))
    }

    /// A model in a file that goes when it is dropped.
    pub fn write(&self, sizes: Sizes, kind: TensorType) -> Result<NamedTempFile, CalibrateError> {
        let file = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(self.dir)?;
        sizes.write(kind, file.path())?;
        Ok(file)
    }

    /// Loads a file for as long as it is timed.
    pub fn loaded<T>(
        &mut self,
        path: &Path,
        threads: Threads,
        switches: Switches,
        time: impl FnOnce(&mut Timed<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, CalibrateError> {
        let spec = self.spec(path, threads, switches);
        let mut decoder = (self.load)(&spec).map_err(CalibrateError::Load)?;
        Ok(time(&mut Timed { decoder: &mut *decoder, next: 0 })?)
    }

    fn spec(&self, path: &Path, threads: Threads, switches: Switches) -> LoadSpec {
        let cells = self.scale.long + self.scale.part;
        LoadSpec {
            ctx_per_answer: cells,
            kv_cells: cells,
            parallel: 1,
            sequences: 1,
            batch_tokens: 512,
            ubatch_tokens: 512,
            threads: threads.decode,
            threads_batch: threads.prefill,
            flash_attention: switches.flash,
            repack: switches.repack,
            gpu_layers: if self.gpu.is_some() { -1 } else { 0 },
            devices: self.gpu.iter().cloned().collect(),
            ..LoadSpec::small(path.to_owned())
        }
    }
}

/// Layers that have so many bytes together, of which this is one.
pub fn layers(one: Sizes, kind: TensorType, bytes: u64) -> u64 {
    bytes.div_ceil(bytes_of(one.matrix_elements(), kind))
}

#[derive(Clone, Copy)]
pub struct Switches {
    pub flash: bool,
    pub repack: bool,
}

/// A loaded model and the position of its only sequence.
pub struct Timed<'a> {
    decoder: &'a mut dyn Decoder,
    next: u32,
}

const SEQUENCE: SeqId = SeqId(0);

impl Timed<'_> {
    /// Seconds of a prompt from this position on.
    pub fn prompt(&mut self, from: u32, tokens: u32) -> Result<f64, DecodeError> {
        let item = |position| BatchItem {
            token: 1,
            position,
            sequence: SEQUENCE,
            logits: position + 1 == from + tokens,
        };
        let took = self.decoder.decode(&Batch { items: (from..from + tokens).map(item).collect() })?;
        self.next = from + tokens;
        Ok(took.as_secs_f64())
    }

    /// Seconds of each of so many tokens.
    pub fn tokens(&mut self, count: u32) -> Result<Vec<f64>, DecodeError> {
        (0..count).map(|_| self.prompt(self.next, 1)).collect()
    }

    /// Their median without reaching into the next step of cells: the last position is computed again and again.
    fn tokens_within(&mut self, count: u32) -> Result<f64, DecodeError> {
        let last = self.next - 1;
        let mut times = Vec::new();
        for _ in 0..count {
            self.decoder.remove(SEQUENCE, last, None);
            times.push(self.prompt(last, 1)?);
        }
        Ok(median(&times))
    }

    /// Forgets all but so many tokens.
    pub fn cut(&mut self, left: u32) {
        self.decoder.remove(SEQUENCE, left, None);
        self.next = left;
    }
}

pub fn median(seconds: &[f64]) -> f64 {
    quantile(seconds, 0.5).unwrap_or_default()
}
