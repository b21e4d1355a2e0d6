//! The probe: small models are written, loaded and timed.

use std::{
    io,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use firepot_engine::{Batch, BatchItem, DecodeError, Decoder, LoadSpec, SeqId};
use firepot_gguf::{Gguf, TensorType};
use firepot_measure::{quantile, read_bandwidth};

use crate::{
    Attention, Calibration, KindRates, KindWork, Rates, Stamp, Work,
    model::{Sizes, bytes_of},
};

/// The probe begins no type that nobody asked for after so long; a type takes about two seconds.
const PROBE_TIME: Duration = Duration::from_secs(6);
/// Numbers of the types that models have, the most usual first: `Q4_K`, `Q6_K`, `Q8_0`, `Q4_0`, `Q5_K`, `F16`.
pub const USUAL_KINDS: [u32; 6] = [12, 14, 8, 2, 13, 1];
/// The type of the narrow model.
const SMALL_KIND: u32 = 8;
/// Wide models, and a narrow one that tokens alone are timed of, have at least so much, which few caches hold.
const LARGE_BYTES: u64 = 72 << 20;
/// Layers of a narrow model that prompts are timed of.
const NARROW_LAYERS: u64 = 4;
/// Tokens of a timed prompt.
const PROMPT: u32 = 96;
/// A wide model is timed for so long, tokens and prompts in turn: what a shared machine does changes from one tenth of a second
/// to the next.
const WIDE_TIME: Duration = Duration::from_millis(600);
/// Tokens of the long prompt of a narrow model, and of the parts in which it is computed; so many are timed.
const LONG: u32 = 768;
const PART: u32 = 256;
const LONG_PROMPTS: u32 = 3;
/// Timed tokens in each turn of a wide model, of the deep one, and of narrow ones, which take a tenth of the time.
const WIDE_DECODES: u32 = 8;
const DEEP_DECODES: u32 = 16;
const NARROW_DECODES: u32 = 64;

/// Loads a model.
pub type Load<'a> = dyn FnMut(&LoadSpec) -> Result<Box<dyn Decoder>, String> + 'a;

/// The machine could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// A probe's model could not be written.
    #[error("a model for the probe cannot be written: {0}")]
    Write(#[from] io::Error),
    /// A probe's model could not be loaded.
    #[error("a model for the probe cannot be loaded: {0}")]
    Load(String),
    /// It could not be computed.
    #[error("the probe cannot be computed: {0}")]
    Decode(#[from] DecodeError),
    /// The times contradict each other.
    #[error("the probe's times contradict each other, as those of a machine do that is very busy")]
    Unusable,
}

/// Measures this machine with `asked` types in any case, and of `more` as many as there is time for. Models are written to
/// `dir`, about 130 MB at a time, and removed. `known` are rates of the same machine at about the same time.
///
/// # Errors
/// [`CalibrateError`].
pub fn measure(
    stamp: Stamp,
    asked: &[TensorType],
    more: &[TensorType],
    known: Option<Calibration>,
    dir: &Path,
    load: &mut Load<'_>,
) -> Result<Calibration, CalibrateError> {
    let started = Instant::now();
    let threads = stamp.threads;
    let mut probe = Probe { dir, threads, load };
    let small = TensorType::by_id(SMALL_KIND).ok_or(CalibrateError::Unusable)?;
    let (mut found, mut wide_small) = if let Some(known) = known {
        (known, None)
    } else {
        let bandwidth = read_bandwidth(threads as usize);
        let plain = [probe.narrow(small, 64, false)?, probe.narrow(small, 128, false)?];
        let flash = [probe.narrow(small, 64, true)?, probe.narrow(small, 128, true)?];
        let wide = probe.wide(small, false)?;
        let attention = attention(&plain)?;
        let layer_s = layer_s(&probe.deep(small)?, &wide, attention, small)?;
        let element_s = element_s(&plain[0], &wide, attention, small)?;
        let found = Calibration {
            stamp,
            taken_at_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            bandwidth,
            kinds: Vec::new(),
            layer_s,
            element_s,
            plain: attention,
            flash: self::attention(&flash)?,
            disk: None,
            took_s: 0.0,
        };
        (found, Some(wide))
    };
    for &kind in asked.iter().chain(more) {
        if found.kind(kind.name).is_some() {
            continue;
        }
        if !asked.contains(&kind) && started.elapsed() > PROBE_TIME {
            break;
        }
        // Half of the base's own type is timed already.
        let plain = match wide_small.take_if(|_| kind == small) {
            Some(timed) => timed,
            None => probe.wide(kind, false)?,
        };
        let repacked = probe.wide(kind, true)?;
        let rates = told_apart(kind, rates(&plain, &found, kind)?, rates(&repacked, &found, kind)?);
        found.kinds.push(rates);
    }
    found.took_s = started.elapsed().as_secs_f64();
    Ok(found)
}

/// Times of a wide model, in seconds.
struct Wide {
    work: Work,
    token_s: f64,
    prompt_s: f64,
}

/// Time of a token of a model of many narrow layers, in seconds.
struct Deep {
    work: Work,
    token_s: f64,
}

/// Times of a narrow model, in seconds.
struct Narrow {
    work: Work,
    /// A token at an empty cache, and after the long prompt.
    token_s: f64,
    late_token_s: f64,
    /// The first part of the long prompt, and how much longer its last takes.
    part_s: f64,
    later_s: f64,
}

/// Differences between early and late are attention alone; models with heads of two lengths tell scores and multiplications apart.
/// What the cache of so small a model holds need not come from main memory.
fn attention(models: &[Narrow; 2]) -> Result<Attention, CalibrateError> {
    let looked = |model: &Narrow| model.work.attention(LONG - PART);
    let [short, long] = models;
    let longer_s: f64 = models.iter().map(|model| model.late_token_s - model.token_s).sum();
    let multiplications: f64 = models.iter().map(|model| looked(model).macs).sum();
    let decode_s = longer_s.max(0.0) / multiplications;
    let per_score = |model: &Narrow| model.later_s.max(0.0) / f64::from(PART) / looked(model).scores;
    let per_head = |model: &Narrow| looked(model).macs / looked(model).scores;
    let slope = (per_score(long) - per_score(short)) / (per_head(long) - per_head(short));
    let mac_s = slope.max(0.0).min(per_score(short) / per_head(short));
    let score_s = per_score(short) - mac_s * per_head(short);
    let found = Attention { decode_s, score_s, mac_s };
    usable(found, |found| found.decode_s.is_finite() && found.score_s.is_finite() && found.mac_s.is_finite())
}

/// b of two equations (matrices · a + the rest · b = time).
fn second((m1, r1, t1): (f64, f64, f64), (m2, r2, t2): (f64, f64, f64)) -> Result<f64, CalibrateError> {
    let found = (t1 * m2 - t2 * m1) / (r1 * m2 - r2 * m1);
    usable(found.max(0.0), |found| found.is_finite())
}

/// A token reads as much of the deep model as of the wide one, in many more layers.
fn layer_s(deep: &Deep, wide: &Wide, attention: Attention, kind: TensorType) -> Result<f64, CalibrateError> {
    let token = |work: &Work, time: f64| {
        let matrices = matrices(work, kind)?.decode_bytes;
        Ok::<_, CalibrateError>((matrices, work.layers, time - attention.decode(work.attention(PART))))
    };
    second(token(&deep.work, deep.token_s)?, token(&wide.work, wide.token_s)?)
}

/// A prompt's token does more in the narrow model beside its matrices, and less in the wide one.
fn element_s(
    narrow: &Narrow,
    wide: &Wide,
    attention: Attention,
    kind: TensorType,
) -> Result<f64, CalibrateError> {
    let prompt = |work: &Work, tokens: u32, time: f64| {
        let each = time / f64::from(tokens) - attention.prefill(work.attention(PART));
        Ok::<_, CalibrateError>((matrices(work, kind)?.prefill_macs, work.elements, each))
    };
    second(prompt(&narrow.work, PART, narrow.part_s)?, prompt(&wide.work, PROMPT, wide.prompt_s)?)
}

/// What a token reads and computes of matrices of this type.
fn matrices(work: &Work, kind: TensorType) -> Result<&KindWork, CalibrateError> {
    work.kinds.iter().find(|known| known.kind == kind.name).ok_or(CalibrateError::Unusable)
}

/// Share of a wide model's time that matrices take at least; what is subtracted from it is noisy.
const MATRICES_MIN: f64 = 0.75;

/// Rates of a type from a wide model's times.
fn rates(wide: &Wide, found: &Calibration, kind: TensorType) -> Result<Rates, CalibrateError> {
    let work = &wide.work;
    let (matrices, looked) = (matrices(work, kind)?, work.attention(PART));
    let beside_s = work.layers * found.layer_s + found.plain.decode(looked);
    let token_s = (wide.token_s - beside_s).max(wide.token_s * MATRICES_MIN);
    let each_s = wide.prompt_s / f64::from(PROMPT);
    let beside_s = work.elements * found.element_s + found.plain.prefill(looked);
    let prompt_s = (each_s - beside_s).max(each_s * MATRICES_MIN);
    let decode_bytes = matrices.decode_bytes / token_s;
    let prefill_macs = matrices.prefill_macs / prompt_s;
    usable(Rates { decode_bytes, prefill_macs }, |rates| rates.decode_bytes > 0.0 && rates.prefill_macs > 0.0)
}

/// Times of one second differ by as much from those of the next on a shared machine.
const NOISE: f64 = 1.25;

/// What differs no more than noise was measured twice.
fn told_apart(kind: TensorType, plain: Rates, repacked: Rates) -> KindRates {
    let pair = |plain: f64, repacked: f64| {
        let told = !(1.0 / NOISE..=NOISE).contains(&(repacked / plain));
        let both = (plain * repacked).sqrt();
        if told { (plain, repacked) } else { (both, both) }
    };
    let decode = pair(plain.decode_bytes, repacked.decode_bytes);
    let prefill = pair(plain.prefill_macs, repacked.prefill_macs);
    KindRates {
        kind: kind.name.to_owned(),
        plain: Rates { decode_bytes: decode.0, prefill_macs: prefill.0 },
        repacked: Rates { decode_bytes: decode.1, prefill_macs: prefill.1 },
    }
}

fn usable<T>(found: T, is: impl Fn(&T) -> bool) -> Result<T, CalibrateError> {
    if is(&found) { Ok(found) } else { Err(CalibrateError::Unusable) }
}

struct Probe<'a, 'b> {
    dir: &'a Path,
    threads: u32,
    load: &'a mut Load<'b>,
}

impl Probe<'_, '_> {
    fn wide(&mut self, kind: TensorType, repack: bool) -> Result<Wide, CalibrateError> {
        let sizes = Sizes::wide(layers(Sizes::wide(1), kind));
        self.with(sizes, kind, Switches { flash: false, repack }, |timed, work| {
            // The first prompt reads the file into memory and makes the threads wake.
            timed.prompt(0, 8)?;
            let started = Instant::now();
            let (mut tokens, mut prompts) = (Vec::new(), Vec::new());
            while started.elapsed() < WIDE_TIME {
                timed.cut(8);
                tokens.extend(timed.tokens(WIDE_DECODES)?);
                timed.cut(0);
                prompts.push(timed.prompt(0, PROMPT)?);
            }
            Ok(Wide { work, token_s: median(&tokens), prompt_s: median(&prompts) })
        })
    }

    fn deep(&mut self, kind: TensorType) -> Result<Deep, CalibrateError> {
        let sizes = Sizes::narrow(layers(Sizes::narrow(1, 64), kind), 64);
        self.with(sizes, kind, Switches { flash: false, repack: false }, |timed, work| {
            timed.prompt(0, 8)?;
            Ok(Deep { work, token_s: median(&timed.tokens(DEEP_DECODES)?) })
        })
    }

    fn narrow(&mut self, kind: TensorType, head: u64, flash: bool) -> Result<Narrow, CalibrateError> {
        let sizes = Sizes::narrow(NARROW_LAYERS, head);
        self.with(sizes, kind, Switches { flash, repack: false }, |timed, work| {
            timed.prompt(0, 8)?;
            let (mut first, mut later) = (Vec::new(), Vec::new());
            for _ in 0..LONG_PROMPTS {
                timed.cut(0);
                let times: Vec<f64> =
                    (0..LONG / PART).map(|part| timed.prompt(part * PART, PART)).collect::<Result<_, _>>()?;
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
        let file = tempfile::Builder::new().prefix("probe-").suffix(".gguf").tempfile_in(self.dir)?;
        sizes.write(kind, file.path())?;
        let layout = Gguf::read(file.as_file()).and_then(|model| model.layout());
        let work = Work::of(&layout.map_err(|error| CalibrateError::Load(error.to_string()))?);
        let spec = spec(file.path(), self.threads, switches);
        let mut decoder = (self.load)(&spec).map_err(CalibrateError::Load)?;
        Ok(time(&mut Timed { decoder: &mut *decoder, next: 0 }, work)?)
    }
}

/// Layers that are large together, of which this is one.
fn layers(one: Sizes, kind: TensorType) -> u64 {
    LARGE_BYTES.div_ceil(bytes_of(one.matrix_elements(), kind))
}

#[derive(Clone, Copy)]
struct Switches {
    flash: bool,
    repack: bool,
}

/// A loaded model and the position of its only sequence.
struct Timed<'a> {
    decoder: &'a mut dyn Decoder,
    next: u32,
}

const SEQUENCE: SeqId = SeqId(0);

impl Timed<'_> {
    /// Seconds of a prompt from this position on.
    fn prompt(&mut self, from: u32, tokens: u32) -> Result<f64, DecodeError> {
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
    fn tokens(&mut self, count: u32) -> Result<Vec<f64>, DecodeError> {
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
    fn cut(&mut self, left: u32) {
        self.decoder.remove(SEQUENCE, left, None);
        self.next = left;
    }
}

fn median(seconds: &[f64]) -> f64 {
    quantile(seconds, 0.5).unwrap_or_default()
}

fn spec(path: &Path, threads: u32, switches: Switches) -> LoadSpec {
    LoadSpec {
        ctx_per_answer: LONG + PART,
        kv_cells: LONG + PART,
        parallel: 1,
        sequences: 1,
        batch_tokens: 512,
        ubatch_tokens: 512,
        threads,
        threads_batch: threads,
        flash_attention: switches.flash,
        repack: switches.repack,
        ..LoadSpec::small(path.to_owned())
    }
}
