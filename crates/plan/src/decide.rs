//! The decisions.

use firepot_gguf::Layout;
use firepot_machine::Machine;

use crate::{
    KvType, MemoryLimit, Plan, PlanError, Predicted, Reason, Want,
    budget::{Budget, trained},
    error::in_range,
    extras::Extras,
    footprint::{Device, Footprint, Params, sequences},
    limits::{BATCH_TOKENS_DEFAULT, BATCH_TOKENS_MAX, PARALLEL_DEFAULT, PARALLEL_MAX, UBATCH_TOKENS},
    placement::{Placed, Search},
    runner::runner_bytes,
    threads::Threads,
};

/// Decides how a model is loaded on a machine.
///
/// More available main memory never gives a smaller context or fewer cells on the CPU, nor does more GPU memory for
/// a model that is on the GPU; a model that comes to fit a GPU moves there, where it is faster, with the context
/// that fits.
///
/// # Errors
/// When a wish is out of range, the context is beyond the model's training, or memory does not suffice.
pub fn plan(layout: &Layout, machine: &Machine, want: &Want) -> Result<Plan, PlanError> {
    decide(layout, machine, want).map_err(|error| match limit(machine, want) {
        Some(limit) if error.is_memory() => PlanError::Limited { limit, error: Box::new(error) },
        _ => error,
    })
}

/// What leaves a model less memory than the machine has.
fn limit(machine: &Machine, want: &Want) -> Option<MemoryLimit> {
    let unbounded = Want { memory_bytes: None, ..*want };
    if let Some(bytes) = want.memory_bytes
        && Budget::of(machine, want) != Budget::of(machine, &unbounded)
    {
        return Some(MemoryLimit::Ceiling(bytes));
    }
    let memory = &machine.memory;
    let limit_bytes = memory.cgroup_limit_bytes.known().copied();
    limit_bytes
        .filter(|_| memory.effective_available_bytes != memory.available_bytes)
        .map(MemoryLimit::ControlGroup)
}

fn decide(layout: &Layout, machine: &Machine, want: &Want) -> Result<Plan, PlanError> {
    let parallel = in_range("parallel", want.parallel.unwrap_or(PARALLEL_DEFAULT), 1, PARALLEL_MAX)?;
    let batch_tokens =
        in_range("batch_tokens", want.batch_tokens.unwrap_or(BATCH_TOKENS_DEFAULT), 1, BATCH_TOKENS_MAX)?;
    let threads = Threads::of(&machine.cpu, want)?;
    check_ctx(layout, want)?;
    check_kv_type(layout, want)?;
    let ubatch_tokens = UBATCH_TOKENS.min(batch_tokens);
    let kv_types = want.kv_type.map_or((KvType::F16, KvType::F16), |kind| (kind, kind));
    let params = Params { parallel, ubatch_tokens, kv_types, flash_attention: true };
    let search = Search { layout, machine, want, params };
    let placed = search.place().or_else(|error| with_smaller_cache(&search, error))?;
    let extras = Extras::of(&search, &placed);
    let mut plan = Plan {
        ctx_per_answer: placed.shape.ctx,
        parallel: placed.shape.parallel,
        kv_cells: placed.shape.cells,
        sequences: sequences(layout, parallel).min(placed.shape.cells.into()) as u32,
        batch_tokens,
        ubatch_tokens,
        threads: threads.decode,
        threads_batch: threads.prefill,
        flash_attention: extras.flash_attention,
        kv_type_k: placed.params.kv_types.0,
        kv_type_v: placed.params.kv_types.1,
        gpu_layers: placed.placing.gpu_layers(),
        gpus: placed.gpus.iter().map(|gpu| gpu.0).collect(),
        gpu_shares: placed.gpus.iter().map(|gpu| gpu.1).collect(),
        replicas: placed.replicas,
        host_experts: placed.placing.host_experts,
        mmap: want.mmap.unwrap_or(true),
        mlock: want.mlock.unwrap_or(false),
        repack: extras.repack,
        check_tensors: false,
        warmup: false,
        fit: false,
        parked_bytes: extras.parked_bytes,
        available: available(&Budget::of(machine, want), &placed),
        predicted: predict(layout, &placed, &extras, want),
        reasons: Vec::new(),
    };
    plan.reasons = reasons(layout, want, &plan, placed, extras, threads);
    Ok(plan)
}

/// A context that was asked for and does not fit is tried again with a cache of 8-bit blocks, unless its type was asked
/// for too; the error then tells of the smaller cache.
fn with_smaller_cache(search: &Search<'_>, error: PlanError) -> Result<Placed, PlanError> {
    let asked = search.want.kv_type.is_none() && matches!(error, PlanError::CtxTooLarge { .. });
    if !asked || is_mixture(search.layout) || undividable(search.layout).is_some() {
        return Err(error);
    }
    let params = Params { kv_types: (KvType::Q8_0, KvType::Q8_0), ..search.params };
    Search { params, ..*search }.place()
}

/// This llama.cpp ends its process at a quantized cache of some mixtures: their graphs have more nodes than it makes room for
/// (docs/planner.md). So none gets one unasked.
pub fn is_mixture(layout: &Layout) -> bool {
    layout.layers.iter().any(|layer| layer.experts_used > 0)
}

/// Length of a head's keys or values that are no whole blocks of the quantized types; llama.cpp refuses these then.
fn undividable(layout: &Layout) -> Option<u32> {
    let heads = layout.layers.iter().filter_map(|layer| layer.attention);
    heads
        .flat_map(|heads| [heads.key_length, heads.value_length])
        .find(|length| !length.is_multiple_of(KvType::BLOCK_ELEMENTS))
}

fn check_kv_type(layout: &Layout, want: &Want) -> Result<(), PlanError> {
    match (want.kv_type, undividable(layout)) {
        (Some(kv_type @ (KvType::Q8_0 | KvType::Q4_0)), Some(head_elements)) => {
            Err(PlanError::KvTypeUnfit { kv_type, head_elements })
        }
        _ => Ok(()),
    }
}

fn check_ctx(layout: &Layout, want: &Want) -> Result<(), PlanError> {
    let trained = trained(layout);
    if let Some(ctx) = want.ctx.filter(|&ctx| ctx > 0)
        && let Some(least) = want.least_ctx().filter(|&least| ctx < least)
    {
        let think_tokens = want.think_tokens.filter(|_| want.thinking_ctx() == Some(least));
        return Err(PlanError::CtxBelowWishes { wanted: ctx, least, think_tokens });
    }
    match want.least_ctx() {
        Some(0) => in_range("ctx", 0, 1, trained).map(drop),
        Some(wanted) if wanted > trained => Err(PlanError::CtxBeyondTraining { wanted, trained }),
        _ => Ok(()),
    }
}

fn available(budget: &Budget, placed: &Placed) -> Vec<(Option<usize>, u64)> {
    let devices = placed.placing.devices().into_iter();
    let number = |device| match device {
        Device::Host => None,
        Device::Gpu(gpu) => Some(gpu),
    };
    devices.filter_map(|device| Some((number(device), budget.on(device)?))).collect()
}

fn predict(layout: &Layout, placed: &Placed, extras: &Extras, want: &Want) -> Predicted {
    let params = Params { flash_attention: extras.flash_attention, ..placed.params };
    let footprint = Footprint { layout, placing: &placed.placing, params };
    let cells = placed.shape.cells.into();
    let devices = placed.placing.devices().into_iter().map(|device| (device, footprint.on(device, cells)));
    // Repacked weights are a copy.
    let runner_bytes = runner_bytes(&footprint, cells);
    Predicted::of(
        devices.collect(),
        runner_bytes,
        placed.replicas,
        want.mmap.unwrap_or(true) && !extras.repack,
    )
}

// Where the figures of the fixed decisions were measured: `reference/measured.md`.
const WARMUP: &str =
    "elsewhere (7B, 2 cores) it took 14 of 25 s of a start, and the first prompt warms up as well";
const FIT: &str = "this plan decides; elsewhere (7B, 2 cores) it took 2 s of a start";
const KV_TYPE: &str = "exact; a quantized cache is for when memory is short";
const KV_MIXTURE: &str =
    "asked for; this llama.cpp ends its process at a quantized cache of some mixtures of experts";
const KV_SMALL: &str =
    "the context that was asked for does not fit otherwise; answers differ a little from exact ones";

fn reasons(
    layout: &Layout,
    want: &Want,
    plan: &Plan,
    placed: Placed,
    extras: Extras,
    threads: Threads,
) -> Vec<Reason> {
    let asked = |wished: bool, default: &str| if wished { "asked for" } else { default }.to_owned();
    let shape = placed.shape;
    let kv_why = match plan.kv_type_k {
        KvType::F16 => asked(want.kv_type.is_some(), KV_TYPE),
        _ if is_mixture(layout) => KV_MIXTURE.to_owned(),
        _ => asked(want.kv_type.is_some(), KV_SMALL),
    };
    let of_gpus = |why: &str| if plan.gpus.is_empty() { "there is none to use" } else { why }.to_owned();
    let reason =
        |parameter, value: &dyn ToString, why: String| Reason { parameter, value: value.to_string(), why };
    vec![
        reason("ctx_per_answer", &plan.ctx_per_answer, shape.ctx_why),
        reason("parallel", &plan.parallel, shape.parallel_why),
        reason("kv_cells", &plan.kv_cells, shape.cells_why),
        reason("sequences", &plan.sequences, sequences_why(layout)),
        reason("batch_tokens", &plan.batch_tokens, asked(want.batch_tokens.is_some(), "llama.cpp's default")),
        reason("ubatch_tokens", &plan.ubatch_tokens, "llama.cpp's default, within the batch".to_owned()),
        reason("threads", &plan.threads, threads.decode_why),
        reason("threads_batch", &plan.threads_batch, threads.prefill_why),
        reason("flash_attention", &plan.flash_attention, extras.flash_attention_why),
        reason("kv_type_k", &plan.kv_type_k.name(), kv_why.clone()),
        reason("kv_type_v", &plan.kv_type_v.name(), kv_why),
        reason("gpu_layers", &plan.gpu_layers, placed.gpu_why),
        reason("gpus", &list(&plan.gpus), of_gpus("those that hold the model, or a part of it")),
        reason("gpu_shares", &list(&plan.gpu_shares), of_gpus("what each has free, in bytes")),
        reason("replicas", &plan.replicas, placed.replicas_why.to_owned()),
        reason("host_experts", &plan.host_experts, experts_why(plan.host_experts)),
        reason(
            "mmap",
            &plan.mmap,
            asked(want.mmap.is_some(), "the page cache holds the file for the next start"),
        ),
        reason("mlock", &plan.mlock, asked(want.mlock.is_some(), "other programs may need the memory more")),
        reason("repack", &plan.repack, extras.repack_why),
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

fn sequences_why(layout: &Layout) -> String {
    let why = if layout.has_windows() || layout.has_states() {
        "of running answers and of a few cached prefixes: each has cells or a state of its own"
    } else {
        "of running answers and of cached prefixes: each costs a row of logits"
    };
    why.to_owned()
}

fn experts_why(layers: u32) -> String {
    let apart = "layers whose experts the GPUs have no room for: a token reads few of them";
    if layers > 0 { apart } else { "no layer's experts are apart from it" }.to_owned()
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(","))
}
