//! Whole bundles of simulated trials, for tests: everything that a real one has, from a seed, written through [`BundleWriter`].

use std::{collections::BTreeMap, path::Path};

use firepot_machine::Reading;
use serde_json::{Value, json};

use crate::{
    bundle::{
        Absent, BundleError, BundleWriter, CalibrationRecord, Case, CaseKind, ClientStamps, Cost, Event,
        EventKind, Fault, Finish, Goodput, MachineRecord, Manifest, Model, Models, Perplexity, Phase,
        PlanRecord, Predicted, Probe, QualityKind, QualityLine, Question, Request, Restart, Rules, SCHEMA,
        ServerStamps, Session, Suite, Target, TargetKind, Telemetry, Tokens, Tool, Trial, Verdict, Workload,
        ids_sha256,
    },
    quality,
    stats::random::Random,
};

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// Of everything that is drawn.
    pub seed: u64,
    /// Everything takes so much longer; 0.05 is 5 %.
    pub slowdown: f64,
    /// The machine's memory bandwidth, in bytes per second.
    pub bandwidth_bytes_per_s: f64,
    /// Its compute rate, in multiply-adds per second.
    pub compute_macs_per_s: f64,
    /// Relative deviation of times.
    pub spread: f64,
    /// Processor time of other programs, in percent of the machine.
    pub others_percent: f64,
    /// Name of the model.
    pub model: String,
    /// Samples of each case.
    pub samples: u32,
    /// What kind of server it says it is.
    pub kind: TargetKind,
}

impl Default for Simulated {
    fn default() -> Self {
        Self {
            seed: 1,
            slowdown: 0.0,
            bandwidth_bytes_per_s: 4.0e10,
            compute_macs_per_s: 8.0e10,
            spread: 0.01,
            others_percent: 1.0,
            model: "smollm2:135m".to_owned(),
            samples: 20,
            kind: TargetKind::Fake,
        }
    }
}

/// When simulated trials begin, in seconds since 1970: 2026-11-01.
const BEGUN_UNIX_S: u64 = 1_793_491_200;
/// Prefill, in seconds per token, and decode, in microseconds per token, of what is simulated.
const PREFILL_US: f64 = 3600.0;
const DECODE_US: f64 = 11_000.0;

impl Simulated {
    /// Writes a finished bundle.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<Manifest, BundleError> {
        let writer = BundleWriter::create(dir, &self.trial())?;
        self.write_before(&writer)?;
        let mut clock = Clock { now_us: 1_000_000, random: Random::new(self.seed) };
        for case in cases(self.samples, self.seed) {
            self.write_case(&writer, &case, &mut clock)?;
        }
        self.write_questions(&writer, &mut clock)?;
        self.write_telemetry(&writer, clock.now_us)?;
        write_after(&writer, clock.now_us)?;
        writer.finish(&tool(), BEGUN_UNIX_S + clock.now_us / 1_000_000)
    }

    fn trial(&self) -> Trial {
        Trial {
            schema: SCHEMA,
            id: format!("simulated-{}", self.seed),
            created_unix_s: BEGUN_UNIX_S,
            tool: tool(),
        }
    }

    fn write_before(&self, writer: &BundleWriter) -> Result<(), BundleError> {
        writer.put(&MachineRecord {
            cpu: Reading::Known("Simulated CPU @ 2.80GHz".to_owned()),
            cores: Reading::Known(2),
            memory_bytes: Reading::Known(24 << 30),
            gpus: Reading::Known(Vec::new()),
            platform: Reading::Known("bare".to_owned()),
            details: json!({"home": "/home/somebody/.firepot"}),
        })?;
        writer.put(&Reading::Known(CalibrationRecord {
            taken_unix_s: BEGUN_UNIX_S - 60,
            bandwidth_bytes_per_s: self.bandwidth_bytes_per_s,
            details: Value::Null,
        }))?;
        writer.put(&Models { models: vec![self.model()] })?;
        let decode = 1e6 / DECODE_US;
        let predicted = |metric: &str, case: &str, value: f64| Predicted {
            metric: metric.to_owned(),
            case: Some(case.to_owned()),
            value,
            low: Some(value / 1.26),
            high: Some(value * 1.26),
        };
        writer.put(&Reading::Known(PlanRecord {
            made_unix_s: BEGUN_UNIX_S,
            predicted: vec![
                predicted("decode_tokens_per_s", "warm-512", decode * 1.04),
                predicted("decode_tokens_per_s", "depth-2048", decode * 0.8),
                predicted("ttft_warm_ms", "warm-512", 512.0 * PREFILL_US / 1000.0 * 0.9),
            ],
            details: Value::Null,
        }))?;
        writer.put(&Workload {
            suite: Suite::Standard,
            seed: self.seed,
            targets: vec![Target {
                id: "a".to_owned(),
                kind: self.kind,
                server: "simulated".to_owned(),
                on_this_machine: true,
            }],
            cases: cases(self.samples, self.seed),
            rules: Rules::default(),
            goodput: Goodput::default(),
        })
    }

    fn model(&self) -> Model {
        let hash = |text: &str| Reading::Known(firepot_store::Digest::of(text.as_bytes()).hex());
        Model {
            target: "a".to_owned(),
            name: self.model.clone(),
            revision: Reading::absent("imported from a file"),
            size_bytes: Reading::Known(98_362_432),
            sha256: hash(&self.model),
            header_sha256: hash("header"),
            tokenizer_sha256: hash("tokenizer"),
            template_sha256: hash("template"),
            parameters: Reading::Known(134_515_008),
            quantization: Reading::Known("Q4_1".to_owned()),
            context_tokens: Reading::Known(8192),
        }
    }

    fn write_case(&self, writer: &BundleWriter, case: &Case, clock: &mut Clock) -> Result<(), BundleError> {
        writer.append(&Event {
            at_us: clock.now_us,
            part: 0,
            kind: EventKind::Began { case: case.id.clone() },
        })?;
        if case.kind == CaseKind::Restart {
            return self.write_restarts(writer, case, clock);
        }
        for round in 0..case.max_samples {
            self.write_probe(writer, clock)?;
            let begun_us = clock.now_us;
            for stream in 0..case.concurrency {
                clock.now_us = begun_us;
                let request = self.request(case, round * case.concurrency + stream, stream, clock);
                writer.append(&request)?;
            }
        }
        let (case, samples) = (case.id.clone(), case.max_samples);
        writer.append(&Event {
            at_us: clock.now_us,
            part: 0,
            kind: EventKind::StoppedEarly { case, samples },
        })
    }

    fn write_probe(&self, writer: &BundleWriter, clock: &mut Clock) -> Result<(), BundleError> {
        clock.now_us += 50_000;
        let wander = (0.2 * self.spread * clock.random.normal()).exp();
        writer.append(&Probe {
            at_us: clock.now_us,
            part: 0,
            bandwidth_bytes_per_s: self.bandwidth_bytes_per_s * wander,
            compute_macs_per_s: self.compute_macs_per_s * wander,
            threads: 2,
        })
    }

    /// Time, as it varies: the first two of a case are slow.
    fn vary(&self, us: f64, index: u32, clock: &mut Clock) -> f64 {
        let cold = [1.5, 1.2].get(index as usize).copied().unwrap_or(1.0);
        us * (1.0 + self.slowdown) * cold * (self.spread * clock.random.normal()).exp()
    }

    fn request(&self, case: &Case, index: u32, stream: u32, clock: &mut Clock) -> Request {
        let cold = case.kind == CaseKind::ColdStart;
        let round = if cold { 9 } else { index / case.concurrency };
        let spawned_us = cold.then_some(clock.now_us);
        let load_us = if cold { self.vary(400_000.0, round, clock) as u64 } else { 0 };
        let sent_us = clock.now_us + load_us;
        let prefill_us = self.vary(
            f64::from(case.prompt_tokens) * PREFILL_US * f64::from(case.concurrency).sqrt(),
            round,
            clock,
        ) as u64;
        let depth = f64::from(case.depth_tokens + case.prompt_tokens);
        let slower = (1.0 + depth / 8000.0) * f64::from(case.concurrency).powf(0.7);
        let gap_us = self.vary(DECODE_US * slower, round, clock);
        let server_gaps: Vec<u32> =
            (1..case.max_tokens).map(|_| (gap_us * (0.05 * clock.random.normal()).exp()) as u32).collect();
        let decode_us: u64 = server_gaps.iter().map(|&us| u64::from(us)).sum();
        let first_us = sent_us + 800 + prefill_us;
        let last_us = first_us + decode_us;
        clock.now_us = last_us + 1500;
        let drawn = if case.strict { case.seed } else { case.seed + u64::from(index) };
        let ids: Vec<u32> =
            (0..case.max_tokens).map(|token| (drawn as u32).wrapping_mul(31) + token).collect();
        Request {
            case: case.id.clone(),
            target: "a".to_owned(),
            part: 0,
            index,
            stream,
            phase: Phase::Sample,
            spawned_us,
            ready_us: spawned_us.map(|us| us + load_us),
            reloaded: (case.kind == CaseKind::Determinism).then_some(index + 1 == case.max_samples),
            client: ClientStamps {
                sent_us,
                headers_us: Some(sent_us + 500),
                first_us: Some(first_us + 300),
                first_answer_us: Some(first_us + 300),
                last_us: Some(last_us + 300),
                end_us: clock.now_us,
                gaps_us: server_gaps.clone(),
            },
            server: ServerStamps {
                received_us: Some(sent_us + 200),
                first_us: Some(first_us),
                last_us: Some(last_us),
                queue_us: Some(100),
                prefill_us: Some(prefill_us),
                decode_us: Some(decode_us),
                load_us: None,
                gaps_us: server_gaps,
            },
            tokens: Tokens {
                prompt: Some(case.depth_tokens + case.prompt_tokens),
                cached: Some(case.depth_tokens),
                generated: Some(case.max_tokens),
                thinking: Some(0),
                answer: Some(case.max_tokens),
                chunks: case.max_tokens,
                ids_sha256: Some(ids_sha256(&ids)),
            },
            finish: Some(Finish::Length),
            error: None,
        }
    }

    fn write_restarts(
        &self,
        writer: &BundleWriter,
        case: &Case,
        clock: &mut Clock,
    ) -> Result<(), BundleError> {
        for (index, fault) in (0..).zip([Fault::KillLoading, Fault::KillPrefilling, Fault::KillDecoding]) {
            let killed_us = clock.now_us;
            let ready_us = killed_us + self.vary(500_000.0, 9, clock) as u64;
            clock.now_us = ready_us + self.vary(900_000.0, 9, clock) as u64;
            writer.append(&Event {
                at_us: killed_us,
                part: 0,
                kind: EventKind::Fault { fault, case: case.id.clone() },
            })?;
            writer.append(&Restart {
                case: case.id.clone(),
                target: "a".to_owned(),
                part: 0,
                index,
                fault,
                killed_us,
                ready_us: Some(ready_us),
                next_token_us: Some(clock.now_us),
                tokens_before: 20 * index,
                tokens_lost: Some(0),
                tokens_repeated: Some(0),
                completed: true,
                ids_equal: Some(true),
                error: None,
            })?;
        }
        Ok(())
    }

    fn write_questions(&self, writer: &BundleWriter, clock: &mut Clock) -> Result<(), BundleError> {
        let kinds = [
            QualityKind::Arithmetic,
            QualityKind::WordProblem,
            QualityKind::Logic,
            QualityKind::Needle,
            QualityKind::JsonSchema,
        ];
        for kind in kinds {
            for index in 0..10 {
                let task = quality::task(kind, self.seed, index, 1);
                let right = clock.random.below(10) < 6;
                clock.now_us += 300_000;
                let needle = kind == QualityKind::Needle;
                writer.append(&QualityLine::Question(Question {
                    target: "a".to_owned(),
                    kind,
                    index,
                    seed: self.seed,
                    level: 1,
                    length_tokens: needle.then_some(256),
                    depth_percent: needle.then_some(50),
                    constrained: (kind == QualityKind::JsonSchema).then_some(false),
                    expected: task.expected_text(),
                    answer: if right { task.expected_text() } else { "I do not know.".to_owned() },
                    verdict: if right { Verdict::Correct } else { Verdict::NoAnswer },
                    cut_in_thinking: false,
                    thinking_tokens: Some(0),
                    generated_tokens: Some(24),
                    ttft_answer_us: Some(60_000),
                    total_us: 300_000,
                }))?;
            }
        }
        let text_sha256 = quality::text_sha256();
        writer.append(&QualityLine::Perplexity(Perplexity {
            target: "a".to_owned(),
            text_sha256,
            tokens: 1000,
            nll: 2300.0,
        }))
    }

    fn write_telemetry(&self, writer: &BundleWriter, until_us: u64) -> Result<(), BundleError> {
        for at_us in (0..until_us).step_by(100_000) {
            let share = at_us as f64 / until_us as f64;
            writer.append(&Telemetry {
                at_us,
                target: "a".to_owned(),
                rss_bytes: Some((2.4e8 + 6e7 * share) as u64),
                anonymous_bytes: Some(1 << 27),
                cpu_percent: Some(196.0),
                machine_percent: Some(98.0 + self.others_percent),
                cpu_mhz: Some(2800.0),
                ..Telemetry::default()
            })?;
        }
        Ok(())
    }
}

fn write_after(writer: &BundleWriter, until_us: u64) -> Result<(), BundleError> {
    let reasons = [
        ("telemetry.cpu_celsius", "the machine shows no sensor"),
        ("telemetry.cpu_watts", "the machine shows no sensor"),
    ];
    writer.put(&Absent(reasons.map(|(field, why)| (field.to_owned(), why.to_owned())).into()))?;
    writer.put(&Session {
        measured_s: until_us as f64 / 1e6,
        left_s: Reading::absent("no limit of sessions is known of this platform"),
        quota: Reading::absent("no account"),
        cost: Reading::Known(Cost {
            amount: 0.0,
            currency: "EUR".to_owned(),
            source: "own machine".to_owned(),
        }),
        hosts_contacted: Reading::Known(Vec::new()),
        hosts_expected: Vec::new(),
        settings: BTreeMap::new(),
    })
}

struct Clock {
    now_us: u64,
    random: Random,
}

fn tool() -> Tool {
    Tool {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: Reading::Known("0123abcd".to_owned()),
        dirty: Reading::Known(false),
        binary_sha256: Reading::Known("00".repeat(32)),
        build_flags: vec!["release".to_owned(), "--out=/home/somebody/target".to_owned()],
    }
}

fn cases(samples: u32, seed: u64) -> Vec<Case> {
    let case = |id: &str, kind, prompt_tokens, depth_tokens, concurrency, max_samples| Case {
        id: id.to_owned(),
        kind,
        prompt_tokens,
        depth_tokens,
        concurrency,
        max_tokens: 32,
        strict: kind == CaseKind::Determinism,
        ignore_eos: kind != CaseKind::Quality,
        seed,
        min_samples: 10.min(max_samples),
        max_samples,
    };
    vec![
        case("cold-start", CaseKind::ColdStart, 32, 0, 1, samples.min(10)),
        case("warm-128", CaseKind::Warm, 128, 0, 1, samples),
        case("warm-512", CaseKind::Warm, 512, 0, 1, samples),
        case("prefix-512", CaseKind::PrefixHit, 32, 480, 1, samples),
        case("depth-2048", CaseKind::Depth, 32, 2016, 1, samples),
        case("concurrency-2", CaseKind::Concurrency, 64, 0, 2, samples.min(12)),
        case("concurrency-4", CaseKind::Concurrency, 64, 0, 4, samples.min(12)),
        case("determinism", CaseKind::Determinism, 64, 0, 1, 5),
        case("restart", CaseKind::Restart, 64, 0, 1, 3),
    ]
}
