//! The joint between pool and planner: what a request wishes, and what is decided.

use std::{fmt, time::Duration};

use firepot_chat::{Timings, Usage};
use firepot_engine::{DeviceMemory, KvType, LoadSpec};
use firepot_link::LoadFailureKind;
use firepot_store::Model;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    fitting::{FitFailure, FitModel, FitQuestion},
    room::{Decision, Held, Holder},
};

/// Wishes for loading a model; `None` is left to the planner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// Context of one answer, in tokens.
    pub ctx: Option<u32>,
    /// Answers computed at the same time.
    pub parallel: Option<u32>,
    /// Threads for decode and prefill.
    pub threads: Option<u32>,
    /// Most tokens in one decode call.
    pub batch_tokens: Option<u32>,
    /// Layers on GPUs; 0 none.
    pub gpu_layers: Option<u32>,
    /// Map the file instead of reading it.
    pub mmap: Option<bool>,
    /// Lock the file in memory.
    pub mlock: Option<bool>,
    /// Type of the KV cache.
    pub kv_type: Option<KvType>,
    /// Most memory that the model may take on each device, in bytes.
    pub memory_bytes: Option<u64>,
}

impl Wishes {
    /// These wishes where there are some, else those of `defaults`.
    #[must_use]
    pub fn or(self, defaults: Self) -> Self {
        Self {
            ctx: self.ctx.or(defaults.ctx),
            parallel: self.parallel.or(defaults.parallel),
            threads: self.threads.or(defaults.threads),
            batch_tokens: self.batch_tokens.or(defaults.batch_tokens),
            gpu_layers: self.gpu_layers.or(defaults.gpu_layers),
            mmap: self.mmap.or(defaults.mmap),
            mlock: self.mlock.or(defaults.mlock),
            kv_type: self.kv_type.or(defaults.kv_type),
            memory_bytes: self.memory_bytes.or(defaults.memory_bytes),
        }
    }

    /// Whether a model that was loaded by the wishes `loaded` as `spec` serves these wishes too. A shorter
    /// context is served by a longer one, so that clients with different wishes do not reload the model in
    /// turns.
    #[must_use]
    pub fn served_by(&self, loaded: &Self, spec: &LoadSpec) -> bool {
        // The planner may have decided otherwise than was wished; wishing the same again would not change
        // that.
        fn same<T: PartialEq + Copy>(wish: Option<T>, loaded: Option<T>, decided: T) -> bool {
            wish.is_none_or(|wish| loaded == Some(wish) || decided == wish)
        }
        let longest_ctx = spec.ctx_per_answer.max(loaded.ctx.unwrap_or(0));
        self.ctx.is_none_or(|ctx| ctx <= longest_ctx)
            && same(self.threads, loaded.threads, spec.threads)
            && same(self.batch_tokens, loaded.batch_tokens, spec.batch_tokens)
            && same(self.gpu_layers.map(i64::from), loaded.gpu_layers.map(i64::from), spec.gpu_layers.into())
            && same(self.mmap, loaded.mmap, spec.mmap)
            && same(self.mlock, loaded.mlock, spec.mlock)
            && same(self.kv_type, loaded.kv_type, spec.kv_type_k)
            && self.memory_bytes.is_none_or(|bytes| loaded.memory_bytes == Some(bytes))
    }

    /// These wishes for a model that was loaded with `loaded`: its context does not shrink.
    #[must_use]
    pub fn after(self, loaded: &Self) -> Self {
        Self { ctx: self.ctx.max(loaded.ctx), ..self }.or(*loaded)
    }
}

/// How well a model is placed, the worst first. For a better place idle models are unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// In main memory, with a context that is of little use.
    Cramped,
    /// In main memory.
    Host,
    /// In part on GPUs.
    Partly,
    /// On GPUs.
    Whole,
}

/// What was decided for a load.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The parameters.
    pub spec: LoadSpec,
    /// How well it is placed.
    pub placement: Placement,
    /// Predicted memory in all, in bytes.
    pub memory_bytes: u64,
    /// The part of it on GPUs, in bytes.
    pub gpu_bytes: u64,
    /// The part of it that is the mapped model file, which the system does not count as used, in bytes.
    pub mapped_bytes: u64,
    /// Main memory that this one runner may come to use for itself, in bytes: all but the mapped file, and the most that
    /// prefixes of ended answers may take.
    pub own_bytes: u64,
    /// What this one runner takes of GPUs, by their numbers among the machine's, in bytes.
    pub on_gpus: Vec<(usize, u64)>,
    /// What it is predicted to take on each device, under the names by which a runner reports what it took.
    pub memory: Vec<DeviceMemory>,
    /// Predicted time from one token of an answer to the next; `None` where nothing was measured to predict it from.
    pub predicted_tpot: Option<Duration>,
    /// Each decision with its reason, for the log.
    pub reasons: Vec<String>,
    /// The same for each further GPU that is to have a runner of its own. What all take together is above.
    pub replicas: Vec<Planned>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PlanFailure {
    /// What kind of failure. [`LoadFailureKind::OutOfMemory`] may pass when other models are unloaded.
    pub kind: LoadFailureKind,
    /// For the user.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

/// Knows the machine and decides how a model is loaded. Called on a thread that may block.
pub trait Planner: fmt::Debug + Send + Sync + 'static {
    /// The plan for `model` beside what is loaded, and who is to make room for it, by [`decide`](super::decide).
    fn plan(&self, model: &Model, wishes: &Wishes, held: &Held) -> Decision;

    /// Whether there is room now for a further runner by `plan`, which was made earlier.
    ///
    /// # Errors
    /// When there is none.
    fn has_room(&self, plan: &Planned, held: &Held) -> Result<(), PlanFailure>;

    /// Whether and how `model` fits the machine that the question names, as JSON for clients; this one beside `others`.
    ///
    /// # Errors
    /// When the question names a model or a machine that is not known.
    fn fit(
        &self,
        model: FitModel<'_>,
        question: &FitQuestion,
        others: &[Holder],
    ) -> Result<Value, FitFailure>;

    /// An answer of `model`, loaded by `plan`, ended that had the whole server for itself: what it took may correct
    /// later predictions.
    fn observe(&self, model: &Model, plan: &Planned, usage: &Usage, timings: &Timings) {
        let _ = (model, plan, usage, timings);
    }

    /// What this machine is, as JSON for clients.
    fn machine(&self) -> Value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_of_another_type_or_another_ceiling_is_another_load() {
        let spec = LoadSpec { kv_type_k: KvType::Q8_0, ..LoadSpec::small("model".into()) };
        let wishes = |kv_type, memory_bytes| Wishes { kv_type, memory_bytes, ..Wishes::default() };
        let loaded = wishes(None, Some(100));
        for (wishes, served) in [
            (wishes(None, None), true),
            (wishes(Some(KvType::Q8_0), Some(100)), true),
            (wishes(Some(KvType::F16), None), false),
            (wishes(None, Some(99)), false),
        ] {
            assert_eq!(wishes.served_by(&loaded, &spec), served, "{wishes:?}");
        }
        assert_eq!(wishes(None, None).or(loaded), loaded);
    }
}
