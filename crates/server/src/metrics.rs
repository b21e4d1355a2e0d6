//! What `/metrics` tells, in the text format of `OpenMetrics`.
//!
//! Counters and histograms are fed as things happen; what can be asked (answers in flight, runners' memory)
//! is asked when somebody looks.

use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use firepot_chat::{FinishReason, Timings, Usage};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::pool::{Death, PhaseView, Pool};

/// Value of the `Content-Type` header of [`Metrics::render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    dialect: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SnapshotLabels {
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    model: String,
    reason: &'static str,
}

type ByModel<M> = Family<ModelLabel, M>;
type Histograms = Family<ModelLabel, Histogram, fn() -> Histogram>;

/// All series. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    series: Arc<Series>,
}

#[derive(Debug)]
struct Series {
    /// Locked while somebody looks, so that what is asked is consistent.
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    generations: Family<ReasonLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    ttft: Histograms,
    tpot: Histograms,
    load: Histograms,
    restarts: Family<ReasonLabels, Counter>,
    in_flight: Gauge,
    queued: Gauge,
    rss: ByModel<Gauge<i64, AtomicI64>>,
    parked: ByModel<Gauge<i64, AtomicI64>>,
    snapshots: Family<SnapshotLabels, Gauge<i64, AtomicI64>>,
    kv_cells_used: ByModel<Gauge>,
    kv_cells: ByModel<Gauge>,
    running: ByModel<Gauge>,
    busy_seconds: ByModel<Gauge<f64, AtomicU64>>,
}

/// What a finished answer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnswerCounts {
    /// Prompt tokens that were computed.
    pub prefill_tokens: u32,
    /// Prompt tokens that were taken from the cache.
    pub cached_tokens: u32,
    /// Emitted tokens.
    pub decode_tokens: u32,
    /// From the request's arrival to the first token.
    pub ttft: Option<Duration>,
    /// Time for one token after the first.
    pub tpot: Option<Duration>,
}

impl AnswerCounts {
    /// Of an answer with these counts and times by the runner's clock.
    #[must_use]
    pub fn new(usage: &Usage, timings: &Timings, ttft: Option<Duration>) -> Self {
        Self {
            prefill_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            cached_tokens: usage.cached_tokens,
            decode_tokens: usage.completion_tokens,
            ttft,
            tpot: tpot(usage, timings),
        }
    }
}

/// (time of last token − time of first token) / (tokens − 1).
pub fn tpot(usage: &Usage, timings: &Timings) -> Option<Duration> {
    let gaps = usage.completion_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
    Some(Duration::from_micros(timings.decode_us / u64::from(gaps)))
}

/// The label of an answer that ended so.
pub const fn reason_label(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::Cancelled => "cancelled",
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let series = Series {
            registry: Mutex::new(Registry::with_prefix("firepot")),
            requests: Family::default(),
            generations: Family::default(),
            tokens: Family::default(),
            ttft: Family::new_with_constructor(ttft_buckets),
            tpot: Family::new_with_constructor(tpot_buckets),
            load: Family::new_with_constructor(ttft_buckets),
            restarts: Family::default(),
            in_flight: Gauge::default(),
            queued: Gauge::default(),
            rss: Family::default(),
            parked: Family::default(),
            snapshots: Family::default(),
            kv_cells_used: Family::default(),
            kv_cells: Family::default(),
            running: Family::default(),
            busy_seconds: Family::default(),
        };
        series.register();
        Self { series: Arc::new(series) }
    }
}

/// 1 ms to about 9 minutes: a prefix hit of a small model, a cold 7B model on a CPU.
fn ttft_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 20))
}

/// 0.1 ms to about 13 s a token.
fn tpot_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

impl Metrics {
    /// A request was answered, with its head at least.
    pub fn request(&self, route: &str, dialect: &'static str, status: u16) {
        let labels = RequestLabels { route: route.to_owned(), dialect, status };
        self.series.requests.get_or_create(&labels).inc();
    }

    /// A generation ended.
    pub fn generation(&self, model: &str, reason: &'static str, counts: &AnswerCounts) {
        let series = &self.series;
        series.generations.get_or_create(&ReasonLabels { model: model.to_owned(), reason }).inc();
        for (kind, tokens) in [
            ("prefill", counts.prefill_tokens),
            ("cached", counts.cached_tokens),
            ("decode", counts.decode_tokens),
        ] {
            let labels = TokenLabels { model: model.to_owned(), kind };
            series.tokens.get_or_create(&labels).inc_by(u64::from(tokens));
        }
        observe(&series.ttft, model, counts.ttft);
        observe(&series.tpot, model, counts.tpot);
    }

    /// A model was loaded.
    pub fn loaded(&self, model: &str, load_us: u64) {
        observe(&self.series.load, model, Some(Duration::from_micros(load_us)));
    }

    /// A runner was started. Its series begin at zero, so that the first death is an increase.
    pub fn runner_started(&self, model: &str) {
        for reason in Death::LABELS {
            drop(self.series.restarts.get_or_create(&ReasonLabels { model: model.to_owned(), reason }));
        }
    }

    /// A runner ended; counted unless it was asked to.
    pub fn runner_ended(&self, model: &str, death: &Death) {
        if !matches!(death, Death::Stopped) {
            let labels = ReasonLabels { model: model.to_owned(), reason: death.label() };
            self.series.restarts.get_or_create(&labels).inc();
        }
    }

    /// The text of all series, with what `pool` says now.
    #[must_use]
    pub fn render(&self, pool: &Pool) -> String {
        let registry = self.series.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.series.ask(pool);
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}

impl Series {
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let r = &mut *registry;
        r.register("requests", "HTTP requests by route, dialect and status", self.requests.clone());
        r.register("generations", "Answers by how they ended", self.generations.clone());
        r.register("tokens", "Tokens: prefill (computed), cached, decode (emitted)", self.tokens.clone());
        r.register("ttft_seconds", "From a request's arrival to its first token", self.ttft.clone());
        r.register("tpot_seconds", "Time for one token after the first", self.tpot.clone());
        r.register("load_seconds", "Loading a model", self.load.clone());
        r.register("runner_restarts", "Runners that ended without being asked to", self.restarts.clone());
        r.register("requests_in_flight", "Answers that wait or run", self.in_flight.clone());
        r.register("requests_queued", "Answers that wait for a model or a place", self.queued.clone());
        r.register("runner_rss_bytes", "Resident memory of a runner", self.rss.clone());
        r.register(
            "runner_parked_bytes",
            "Main memory of prefixes that left the KV cache; part of the resident memory",
            self.parked.clone(),
        );
        r.register(
            "runner_snapshots",
            "KV snapshots since the runner started: written, read (and used), refused, failed (to be written)",
            self.snapshots.clone(),
        );
        r.register(
            "runner_kv_cells_used",
            "KV cells in use, cached prefixes included",
            self.kv_cells_used.clone(),
        );
        r.register("runner_kv_cells", "KV cells that there are", self.kv_cells.clone());
        r.register("runner_running", "Answers that a runner computes", self.running.clone());
        r.register(
            "runner_busy_seconds",
            "Time that a runner spent in decode calls",
            self.busy_seconds.clone(),
        );
    }

    fn ask(&self, pool: &Pool) {
        self.rss.clear();
        self.parked.clear();
        self.snapshots.clear();
        self.kv_cells_used.clear();
        self.kv_cells.clear();
        self.running.clear();
        self.busy_seconds.clear();
        let mut queued = 0;
        for slot in pool.overview() {
            queued += slot.waiting as i64;
            let PhaseView::Ready { runner, loaded, .. } = &slot.phase else { continue };
            let Some(heartbeat) = pool.heartbeat(*runner) else { continue };
            let stats = heartbeat.stats;
            queued += i64::from(stats.queued);
            let model = ModelLabel { model: slot.model.name.to_string() };
            if stats.rss_bytes > 0 {
                self.rss.get_or_create(&model).inc_by(stats.rss_bytes as i64);
            }
            self.parked.get_or_create(&model).inc_by(stats.parked_bytes as i64);
            for (outcome, count) in [
                ("written", stats.snapshots_written),
                ("read", stats.snapshots_read),
                ("refused", stats.snapshots_refused),
                ("failed", stats.snapshots_failed),
            ] {
                let labels = SnapshotLabels { model: model.model.clone(), outcome };
                self.snapshots.get_or_create(&labels).inc_by(count as i64);
            }
            self.kv_cells_used.get_or_create(&model).inc_by(stats.kv_cells_used.into());
            self.kv_cells.get_or_create(&model).inc_by(loaded.info.kv_cells.into());
            self.running.get_or_create(&model).inc_by(stats.running.into());
            self.busy_seconds.get_or_create(&model).inc_by(stats.decode_busy_us as f64 / 1e6);
        }
        self.queued.set(queued);
        self.in_flight.set(pool.in_flight() as i64);
    }
}

fn observe(histograms: &Histograms, model: &str, duration: Option<Duration>) {
    if let Some(duration) = duration {
        let label = ModelLabel { model: model.to_owned() };
        histograms.get_or_create(&label).observe(duration.as_secs_f64());
    }
}
