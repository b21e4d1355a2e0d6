//! A simulated machine of known speed: the probe must find its rates, and predictions must be its times.

mod gpu;
mod reckoning;

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use firepot_engine::{
    AbortHandle, Batch, DecodeError, Decoder, DecoderInfo, LoadSpec, SeqId, StateError, Tokenizer,
    fake::{FakeConfig, FakeDecoder},
};
use firepot_gguf::{Gguf, Layout, TensorType};
use firepot_machine::{Cpu, Machine, Memory};
use firepot_plan::{Fastest, Gains, Want, plan};
use proptest::prelude::*;

use crate::{
    Answer, Asked, Attention, CalibrateError, Calibration, Correction, DeviceRates, KindRates, Observed, On,
    RECKONING, Rates, Stamp, Threads, Way, Work, measure,
    model::Sizes,
    threads::fastest,
    timed::{Probe, Scale},
    work::cells,
};

fn kind(id: u32) -> TensorType {
    TensorType::by_id(id).unwrap()
}

fn truth() -> Calibration {
    let rates = |name: &str, decode: f64, prefill: f64| KindRates {
        kind: name.to_owned(),
        plain: Rates { decode_bytes: decode * 1e9, prefill_macs: prefill * 1e9, pass_tokens: 12.0 },
        repacked: Rates { decode_bytes: decode * 1.5e9, prefill_macs: prefill * 0.5e9, pass_tokens: 3.0 },
    };
    Calibration {
        stamp: Stamp {
            cpu: "simulated".to_owned(),
            threads: 2,
            gpus: Vec::new(),
            build: "test".to_owned(),
            reckoning: RECKONING,
        },
        cpu: Some(DeviceRates {
            taken_at_s: 0,
            threads: Threads::both(2),
            bandwidth: 20e9,
            kinds: vec![rates("Q8_0", 15.0, 100.0), rates("Q4_K", 12.0, 300.0), rates("F32", 15.0, 100.0)],
            layer_s: 40e-6,
            element_s: 1e-9,
            plain: Attention { decode_s: 0.16e-9, score_s: 2e-9, mac_s: 0.02e-9 },
            flash: Attention { decode_s: 0.5e-9, score_s: 1e-9, mac_s: 0.02e-9 },
        }),
        gpus: BTreeMap::new(),
        disk: None,
        took_s: 0.0,
    }
}

fn on_cpu() -> DeviceRates {
    truth().cpu.unwrap()
}

/// How the plans of [`machine`] are loaded.
const USUAL: Way = Way { on: On::Cpu(Threads::both(2)), flash: false, repack: false };

/// Computes nothing and says how long `truth` would take.
struct Simulated {
    inner: FakeDecoder,
    work: Work,
    truth: DeviceRates,
    spec: LoadSpec,
    /// How many times as fast so many threads are.
    speedup: fn(u32) -> f64,
}

impl Simulated {
    fn load(truth: &DeviceRates, spec: &LoadSpec) -> Self {
        let layout = Gguf::read(&File::open(&spec.path).unwrap()).unwrap().layout().unwrap();
        let config =
            FakeConfig { ctx_per_answer: spec.kv_cells, kv_cells: spec.kv_cells, ..FakeConfig::default() };
        Self {
            inner: FakeDecoder::new(config),
            work: Work::of(&layout),
            truth: truth.clone(),
            spec: spec.clone(),
            speedup: |_| 1.0,
        }
    }

    fn seconds(&self, batch: &Batch) -> f64 {
        let tokens = batch.items.len() as f64;
        let cells = cells(batch.items.last().unwrap().position + 1);
        let (looked, attention) =
            (self.work.attention(cells), self.truth.attention(self.spec.flash_attention));
        let rates = |name| {
            let found = self.truth.kind(name).unwrap();
            if self.spec.repack { found.repacked } else { found.plain }
        };
        let over = |of: &dyn Fn(&crate::KindWork, Rates) -> f64| -> f64 {
            self.work.kinds.iter().map(|kind| of(kind, rates(kind.kind))).sum()
        };
        if batch.items.len() == 1 {
            let matrices = over(&|kind, rates| kind.decode_bytes / rates.decode_bytes);
            return matrices + self.work.layers * self.truth.layer_s + attention.decode(looked);
        }
        let matrices = over(&|kind, rates| {
            (tokens * kind.prefill_macs + rates.pass_tokens * kind.pass_elements) / rates.prefill_macs
        });
        let last = over(&|kind, rates| kind.last_bytes / rates.decode_bytes);
        let each = self.work.elements * self.truth.element_s + attention.prefill(looked);
        matrices + last + tokens * each + self.work.layers * self.truth.layer_s
    }
}

impl Decoder for Simulated {
    fn info(&self) -> &DecoderInfo {
        self.inner.info()
    }
    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.inner.tokenizer()
    }
    fn progress(&self) -> Arc<AtomicU64> {
        self.inner.progress()
    }
    fn abort_handle(&self) -> AbortHandle {
        self.inner.abort_handle()
    }
    fn decode(&mut self, batch: &Batch) -> Result<Duration, DecodeError> {
        self.inner.decode(batch)?;
        let threads = if batch.items.len() == 1 { self.spec.threads } else { self.spec.threads_batch };
        Ok(Duration::from_secs_f64(self.seconds(batch) / (self.speedup)(threads)))
    }
    fn logits(&mut self, item: usize) -> &[f32] {
        self.inner.logits(item)
    }
    fn remove(&mut self, sequence: SeqId, from: u32, to: Option<u32>) -> bool {
        self.inner.remove(sequence, from, to)
    }
    fn share(&mut self, from: SeqId, to: SeqId, until: u32) {
        self.inner.share(from, to, until);
    }
    fn pos_min(&self, sequence: SeqId) -> Option<u32> {
        self.inner.pos_min(sequence)
    }
    fn pos_max(&self, sequence: SeqId) -> Option<u32> {
        self.inner.pos_max(sequence)
    }
    fn state_bytes(&mut self, sequence: SeqId) -> u64 {
        self.inner.state_bytes(sequence)
    }
    fn snapshot(&mut self, sequence: SeqId) -> Result<Vec<u8>, StateError> {
        self.inner.snapshot(sequence)
    }
    fn restore(&mut self, sequence: SeqId, state: &[u8]) -> Result<(), StateError> {
        self.inner.restore(sequence, state)
    }
}

fn near(found: f64, truth: f64, percent: f64) -> bool {
    (found / truth - 1.0).abs() * 100.0 <= percent
}

fn machine() -> Machine {
    Machine { cpu: Cpu::of(2, &[]), memory: Memory::of(16 << 30, 14 << 30), ..Machine::unread("simulated") }
}

fn layout(sizes: Sizes) -> Layout {
    let file = tempfile::NamedTempFile::new().unwrap();
    sizes.write(kind(12), file.path()).unwrap();
    Gguf::read(file.as_file()).unwrap().layout().unwrap()
}

fn asked(kinds: &[u32], more: &[u32]) -> Asked {
    let types = |ids: &[u32]| ids.iter().copied().map(kind).collect();
    Asked { cpu: true, kinds: types(kinds), more: types(more), ..Asked::default() }
}

#[test]
fn the_probe_finds_the_rates_of_a_simulated_machine_and_leaves_no_file() {
    let (truth, dir) = (truth(), tempfile::tempdir().unwrap());
    let loads = AtomicU32::new(0);
    let mut load = |spec: &LoadSpec| {
        loads.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Simulated::load(&on_cpu(), spec)) as Box<dyn Decoder>)
    };
    let all = measure(truth.stamp.clone(), &asked(&[12, 8], &[]), None, dir.path(), &mut load).unwrap();
    let (found, truth) = (all.cpu.clone().unwrap(), on_cpu());
    for name in ["Q8_0", "Q4_K"] {
        let (found, truth) = (found.kind(name).unwrap(), truth.kind(name).unwrap());
        assert!(near(found.plain.decode_bytes, truth.plain.decode_bytes, 3.0), "{found:?}");
        assert!(near(found.plain.prefill_macs, truth.plain.prefill_macs, 3.0), "{found:?}");
        assert!(near(found.plain.pass_tokens, truth.plain.pass_tokens, 10.0), "{found:?}");
        assert!(near(found.repacked.decode_bytes, truth.repacked.decode_bytes, 4.0), "{found:?}");
        assert!(near(found.repacked.prefill_macs, truth.repacked.prefill_macs, 3.0), "{found:?}");
    }
    assert!(near(found.layer_s, truth.layer_s, 5.0), "{}", found.layer_s);
    assert!(near(found.plain.decode_s, truth.plain.decode_s, 1.0), "{:?}", found.plain);
    assert!(near(found.flash.score_s, truth.flash.score_s, 5.0), "{:?}", found.flash);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(all.took_s > 0.0);

    // What is known is not measured again.
    let before = loads.load(Ordering::Relaxed);
    let again =
        measure(all.stamp.clone(), &asked(&[12], &[]), Some(all.clone()), dir.path(), &mut load).unwrap();
    assert_eq!((again.cpu, loads.load(Ordering::Relaxed)), (all.cpu, before));
}

#[test]
fn models_that_a_killed_probe_left_are_removed_and_those_of_one_that_runs_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, age_s| {
        let file = File::create(dir.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age_s)).unwrap();
    };
    put("probe-left.gguf", 3600);
    put("probe-now.gguf", 5);
    put("mine.gguf", 3600);
    let mut load = |spec: &LoadSpec| Ok(Box::new(Simulated::load(&on_cpu(), spec)) as Box<dyn Decoder>);
    measure(truth().stamp, &asked(&[8], &[]), None, dir.path(), &mut load).unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["mine.gguf", "probe-now.gguf"]);
}

#[test]
fn the_probe_takes_the_numbers_of_threads_that_are_clearly_faster_and_measures_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let loads = |speedup: fn(u32) -> f64| {
        move |spec: &LoadSpec| {
            let simulated = Simulated { speedup, ..Simulated::load(&on_cpu(), spec) };
            Ok(Box::new(simulated) as Box<dyn Decoder>)
        }
    };
    let found = |speedup| {
        let (threads, scale) = (Threads::both(2), Scale::CPU);
        let mut probe = Probe { dir: dir.path(), threads, gpu: None, scale, load: &mut loads(speedup) };
        fastest(&mut probe, &[4, 1], kind(8)).unwrap()
    };
    assert_eq!(found(|_| 1.0), Threads::both(2));
    assert_eq!(found(|threads| if threads == 2 { 1.0 } else { 1.03 }), Threads::both(2));
    let one_is_faster = |threads| if threads == 1 { 1.5 } else { 1.0 };
    assert_eq!(found(one_is_faster), Threads::both(1));
    let asked = Asked { threads: vec![1], ..asked(&[8], &[]) };
    let measured = measure(truth().stamp, &asked, None, dir.path(), &mut loads(one_is_faster)).unwrap();
    let cpu = measured.cpu.unwrap();
    let (rate, usual) = (cpu.kind("Q8_0").unwrap().plain, on_cpu().kind("Q8_0").unwrap().plain);
    assert_eq!(cpu.threads, Threads::both(1));
    assert!(near(rate.prefill_macs, usual.prefill_macs * 1.5, 4.0), "{rate:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_probe_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut load = |_: &LoadSpec| Err("no memory".to_owned());
    let error = measure(truth().stamp, &asked(&[], &[]), None, dir.path(), &mut load).unwrap_err();
    assert!(matches!(error, CalibrateError::Load(reason) if reason == "no memory"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_not_measured_has_no_prediction_but_a_reason() {
    let layout = layout(Sizes::narrow(2, 64));
    let work = Work::of(&layout);
    let planned = |want| plan(&layout, &machine(), &want).unwrap();
    let reason = |known: &Calibration, plan: &firepot_plan::Plan| {
        known.predict(&work, plan, 128, Correction::default()).unwrap_err()
    };
    let mut known = truth();
    known.cpu.as_mut().unwrap().kinds.retain(|kind| kind.kind != "Q4_K");
    assert_eq!(reason(&known, &planned(Want::default())), "Q4_K was not measured");
    assert_eq!(known.fastest(&work).unwrap().gains, None);
    let other = planned(Want { threads: Some(1), ..Want::default() });
    assert_eq!(
        reason(&truth(), &other),
        "this machine was measured with 2 threads for tokens and 2 for prompts"
    );
    let none = Calibration { cpu: None, ..truth() };
    assert_eq!(
        reason(&none, &planned(Want::default())),
        "models in main memory were not measured yet: firepot calibrate MODEL"
    );
    assert_eq!(none.fastest(&work), None);
}

#[test]
fn what_is_fastest_follows_from_the_rates_and_the_plan_from_what_is_fastest() {
    let layout = layout(Sizes::wide(2));
    let Fastest { threads, threads_batch, gains } = truth().fastest(&Work::of(&layout)).unwrap();
    let gains = gains.unwrap();
    // Decoding gains half, prefill loses half, and the answer is longer than the prompt takes.
    assert!(gains.flash_percent < 0 && gains.repack_percent > 10, "{gains:?}");
    assert_eq!((threads, threads_batch), (2, 2));
    let fastest = |flash_percent, repack_percent| {
        Some(Fastest { threads, threads_batch, gains: Some(Gains { flash_percent, repack_percent }) })
    };
    let planned = |fastest| plan(&layout, &machine(), &Want { fastest, ..Want::default() }).unwrap();
    let measured = planned(fastest(5, 20));
    assert!(measured.flash_attention && measured.repack);
    assert_eq!(measured.predicted.mapped_bytes, 0);
    let slower = planned(fastest(-5, 9));
    assert!(!slower.flash_attention && !slower.repack);
    assert!(slower.predicted.mapped_bytes > 0);
    let small = Machine { memory: Memory::of(1 << 30, 300 << 20), ..machine() };
    let want = Want { fastest: fastest(-5, 50), ..Want::default() };
    assert!(!plan(&layout, &small, &want).unwrap().repack);
}

#[test]
fn a_calibration_holds_while_the_bandwidth_has_not_moved() {
    let known = on_cpu();
    assert!(known.holds(21e9) && known.holds(18e9));
    assert!(!known.holds(24e9) && !known.holds(16e9));
    let json = serde_json::to_string(&truth()).unwrap();
    assert_eq!(serde_json::from_str::<Calibration>(&json).unwrap(), truth());
}

proptest! {
    #[test]
    fn longer_prompts_never_come_sooner_and_intervals_hold_their_prediction(tokens in 1_u32..4000) {
        let layout = layout(Sizes::narrow(2, 64));
        let plan = plan(&layout, &machine(), &Want::default()).unwrap();
        let at = |tokens| truth().predict(&Work::of(&layout), &plan, tokens, Correction::default()).unwrap();
        let (short, long) = (at(tokens), at(tokens + 64));
        prop_assert!(long.ttft.predicted > short.ttft.predicted);
        prop_assert!(long.decode.predicted <= short.decode.predicted);
        for rate in [short.ttft, short.decode, short.prefill] {
            prop_assert!(rate.low < rate.predicted && rate.predicted < rate.high);
        }
    }
}

/// An answer that took `slower` times what is predicted for it.
fn answer(work: &Work, way: Way, slower: f64) -> Answer {
    let (prompt_tokens, emitted_tokens) = (512, 64);
    let prefill = truth().rates(work, way, prompt_tokens).unwrap().prefill;
    let decode = truth().rates(work, way, prompt_tokens + emitted_tokens / 2).unwrap().decode;
    Answer {
        prompt_tokens,
        cached_tokens: 0,
        emitted_tokens,
        prefill_s: f64::from(prompt_tokens) / prefill * slower,
        decode_s: f64::from(emitted_tokens - 1) / decode * slower,
    }
}

#[test]
fn answers_correct_later_predictions_of_what_costs_the_same() {
    let wide = Work::of(&layout(Sizes::wide(2)));
    let other = Work::of(&layout(Sizes::wide(3)));
    let way = USUAL;
    let mut observed = Observed::new(truth().stamp);
    assert_eq!(observed.correction(&wide), Correction::default());
    // One answer moves it halfway, in ratios; many bring it near; one odd answer among them changes nothing.
    assert!(observed.note(&truth(), &wide, way, &answer(&wide, way, 1.44)));
    assert!((observed.correction(&wide).decode - 1.0 / 1.2).abs() < 1e-3);
    for slower in [1.44, 1.44, 0.5, 1.44, 1.44, 1.44, 1.44, 1.44] {
        assert!(observed.note(&truth(), &wide, way, &answer(&wide, way, slower)));
    }
    let correction = observed.correction(&wide);
    assert_eq!(correction.answers, 8);
    assert!((correction.prefill - 1.44_f64.powf(-8.0 / 9.0)).abs() < 1e-3, "{correction:?}");
    assert_eq!(observed.correction(&other), Correction::default());
    let kept: Observed = serde_json::from_str(&serde_json::to_string(&observed).unwrap()).unwrap();
    let kept = kept.correction(&wide);
    assert!((kept.decode - correction.decode).abs() < 1e-9 && kept.answers == 8, "{kept:?}");
}

#[test]
fn answers_that_say_nothing_are_not_kept() {
    let work = Work::of(&layout(Sizes::wide(2)));
    let way = USUAL;
    let good = answer(&work, way, 1.0);
    let mut observed = Observed::new(truth().stamp);
    let short = Answer { prompt_tokens: 20, emitted_tokens: 3, ..good };
    let cached = Answer { cached_tokens: 500, emitted_tokens: 3, ..good };
    let zero = Answer { prefill_s: 0.0, decode_s: 0.0, ..good };
    let stalled = answer(&work, way, 50.0);
    for answer in [short, cached, zero, stalled] {
        assert!(!observed.note(&truth(), &work, way, &answer), "{answer:?}");
    }
    // Nothing is predicted of other threads.
    let other = Way { on: On::Cpu(Threads::both(1)), ..way };
    assert!(!observed.note(&truth(), &work, other, &good));
    assert_eq!(observed.correction(&work), Correction::default());
}
