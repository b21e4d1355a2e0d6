//! The decisions.

use firepot_gguf::ModelMeta;
use firepot_machine::{Cpu, Machine};

use crate::{
    KvType, Plan, PlanError, Predicted, Reason, Want,
    budget::trained,
    cost::Cost,
    error::in_range,
    extras::Extras,
    limits::{
        BATCH_TOKENS_DEFAULT, BATCH_TOKENS_MAX, PARALLEL_DEFAULT, PARALLEL_MAX, THREADS_MAX, THREADS_UNKNOWN,
        UBATCH_TOKENS,
    },
    placement::{Placed, layer_share, place},
};

/// Decides how a model is loaded on a machine.
///
/// More available main memory never gives a smaller context or fewer cells on the CPU, nor does more GPU memory for
/// a model that is on the GPU; a model that comes to fit a GPU moves there, where it is faster, with the context
/// that fits.
///
/// # Errors
/// When a wish is out of range, the context is beyond the model's training, or memory does not suffice.
pub fn plan(meta: &ModelMeta, machine: &Machine, want: &Want) -> Result<Plan, PlanError> {
    let parallel = in_range("parallel", want.parallel.unwrap_or(PARALLEL_DEFAULT), 1, PARALLEL_MAX)?;
    let batch_tokens =
        in_range("batch_tokens", want.batch_tokens.unwrap_or(BATCH_TOKENS_DEFAULT), 1, BATCH_TOKENS_MAX)?;
    let threads = want.threads.map(|threads| in_range("threads", threads, 1, THREADS_MAX)).transpose()?;
    check_ctx(meta, want)?;
    let ubatch_tokens = UBATCH_TOKENS.min(batch_tokens);
    let cost = Cost::of(meta, parallel, ubatch_tokens, KvType::F16);
    let placed = place(meta, machine, want, parallel, &cost)?;
    let extras = Extras::of(meta, machine, want, &cost, &placed, ubatch_tokens);
    let (threads, threads_why) = threads.map_or_else(|| cores(&machine.cpu), |n| (n, "asked for".to_owned()));
    let mut plan = Plan {
        ctx_per_answer: placed.shape.ctx,
        parallel: placed.shape.parallel,
        kv_cells: placed.shape.cells,
        batch_tokens,
        ubatch_tokens,
        threads,
        threads_batch: threads,
        flash_attention: extras.flash_attention,
        kv_type_k: KvType::F16,
        kv_type_v: KvType::F16,
        gpu_layers: placed.gpu_layers,
        mmap: want.mmap.unwrap_or(true),
        mlock: want.mlock.unwrap_or(false),
        repack: false,
        check_tensors: false,
        warmup: false,
        fit: false,
        parked_bytes: extras.parked_bytes,
        predicted: predict(meta, &cost, &placed, &extras, want),
        reasons: Vec::new(),
    };
    plan.reasons = reasons(meta, want, &plan, placed, extras, threads_why);
    Ok(plan)
}

fn check_ctx(meta: &ModelMeta, want: &Want) -> Result<(), PlanError> {
    let trained = trained(meta);
    match want.ctx {
        Some(0) => in_range("ctx", 0, 1, trained).map(drop),
        Some(wanted) if wanted > trained => Err(PlanError::CtxBeyondTraining { wanted, trained }),
        _ => Ok(()),
    }
}

/// One thread for each core that may be used. Two on one physical core compete for its vector units.
fn cores(cpu: &Cpu) -> (u32, String) {
    let allowed = cpu.cores_allowed.known().or(cpu.cores_logical.known()).copied();
    let physical = cpu.cores_physical.known().copied();
    match (allowed, physical) {
        (Some(allowed), Some(physical)) if physical < allowed => {
            (at_most(physical), format!("physical cores below the {allowed} logical ones that may be used"))
        }
        (Some(allowed), _) => (at_most(allowed), "cores that this process may use".to_owned()),
        (None, _) => (THREADS_UNKNOWN, "the cores cannot be counted; a careful default".to_owned()),
    }
}

fn at_most(cores: u32) -> u32 {
    cores.clamp(1, THREADS_MAX)
}

fn predict(meta: &ModelMeta, cost: &Cost, placed: &Placed, extras: &Extras, want: &Want) -> Predicted {
    let cells = u64::from(placed.shape.cells);
    let attention_bytes = cost.mask_cell_bytes.saturating_mul(cells).saturating_add(extras.scores_bytes);
    let mut predicted = Predicted {
        weights_bytes: cost.weights_bytes,
        kv_bytes: cost.kv_cell_bytes.saturating_mul(cells),
        compute_bytes: cost.compute_bytes.clone().map(|bytes| bytes.saturating_add(attention_bytes)),
        gpu_bytes: 0,
        mapped_bytes: 0,
    };
    let on_gpu = |bytes| match placed.gpu_layers {
        ..0 => bytes,
        layers => layer_share(bytes, layers as u32, meta.n_layers),
    };
    predicted.gpu_bytes = on_gpu(predicted.total_bytes());
    let on_host_bytes = cost.weights_bytes - on_gpu(cost.weights_bytes);
    predicted.mapped_bytes = if want.mmap.unwrap_or(true) { on_host_bytes } else { 0 };
    predicted
}

// Where the figures of the fixed decisions were measured: `reference/measured.md`.
const REPACK: &str = "elsewhere (2-core Zen 4, 7B Q4_K_M) repacking halved the prefill rate (11 to 15 tokens/s \
    instead of 25 to 27), took 8.1 GB instead of 5.1 GB and most of the cold start; not measured here yet";
const WARMUP: &str =
    "elsewhere (7B, 2 cores) it took 14 of 25 s of a start, and the first prompt warms up as well";
const FIT: &str = "this plan decides; elsewhere (7B, 2 cores) it took 2 s of a start";
const KV_TYPE: &str = "exact; a quantized cache is for when memory is short and its loss was measured";

fn reasons(
    meta: &ModelMeta,
    want: &Want,
    plan: &Plan,
    placed: Placed,
    extras: Extras,
    threads_why: String,
) -> Vec<Reason> {
    let asked = |wished: bool, default: &str| if wished { "asked for" } else { default }.to_owned();
    let shape = placed.shape;
    let reason =
        |parameter, value: &dyn ToString, why: String| Reason { parameter, value: value.to_string(), why };
    vec![
        reason("ctx_per_answer", &plan.ctx_per_answer, shape.ctx_why),
        reason("parallel", &plan.parallel, shape.parallel_why),
        reason("kv_cells", &plan.kv_cells, shape.cells_why + window_note(meta)),
        reason("batch_tokens", &plan.batch_tokens, asked(want.batch_tokens.is_some(), "llama.cpp's default")),
        reason("ubatch_tokens", &plan.ubatch_tokens, "llama.cpp's default, within the batch".to_owned()),
        reason("threads", &plan.threads, threads_why),
        reason("threads_batch", &plan.threads_batch, "as for decode".to_owned()),
        reason("flash_attention", &plan.flash_attention, extras.flash_attention_why),
        reason("kv_type_k", &plan.kv_type_k.name(), KV_TYPE.to_owned()),
        reason("kv_type_v", &plan.kv_type_v.name(), KV_TYPE.to_owned()),
        reason("gpu_layers", &plan.gpu_layers, placed.gpu_why),
        reason(
            "mmap",
            &plan.mmap,
            asked(want.mmap.is_some(), "the page cache holds the file for the next start"),
        ),
        reason("mlock", &plan.mlock, asked(want.mlock.is_some(), "other programs may need the memory more")),
        reason("repack", &plan.repack, REPACK.to_owned()),
        reason(
            "check_tensors",
            &plan.check_tensors,
            "it reads the whole file before the first token".to_owned(),
        ),
        reason("warmup", &plan.warmup, WARMUP.to_owned()),
        reason("fit", &plan.fit, FIT.to_owned()),
        reason("parked_bytes", &plan.parked_bytes, extras.parked_why),
    ]
}

/// A sliding window needs fewer cells than this counts.
fn window_note(meta: &ModelMeta) -> &'static str {
    if meta.sliding_window.is_some() {
        "; layers with a sliding window are counted as full attention"
    } else {
        ""
    }
}
