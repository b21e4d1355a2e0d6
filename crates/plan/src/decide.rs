//! The decisions.

use firepot_gguf::ModelMeta;
use firepot_machine::Machine;

use crate::{
    KvType, Plan, PlanError, Predicted, Reason, Want,
    limits::{
        BATCH_TOKENS, CELL_STEP, CTX_DEFAULT_MAX, CTX_DEFAULT_MIN, KV_SHARE, MARGIN_BYTES, PARALLEL_DEFAULT,
        PARALLEL_MAX, THREADS_MAX, UBATCH_TOKENS,
    },
    memory::{cells_in, kv_bytes},
};

/// Decides how a model is loaded on a machine.
///
/// # Errors
/// When a wish cannot be met, or memory does not suffice.
pub fn plan(meta: &ModelMeta, machine: &Machine, want: &Want) -> Result<Plan, PlanError> {
    let mut reasons = Reasons::default();
    let gpu_layers = gpu_layers(meta, machine, want, &mut reasons);
    let budget = Budget::of(meta, machine, gpu_layers != 0);
    let ctx_per_answer = context(meta, want, budget, &mut reasons)?;
    let (parallel, kv_cells) = cells(meta, want, budget, ctx_per_answer, &mut reasons)?;
    let threads = threads(machine, want, &mut reasons)?;
    let predicted = Predicted {
        weights_bytes: meta.weights_bytes,
        kv_bytes: kv_bytes(meta, kv_cells),
        compute_bytes: None,
    };
    reasons.add(
        "batch_tokens",
        BATCH_TOKENS,
        "llama.cpp's default; the scheduler sizes its batches by time below this",
    );
    reasons.add("ubatch_tokens", UBATCH_TOKENS, "llama.cpp's default");
    reasons.add("threads_batch", threads, "as many as for decode");
    reasons.add("flash_attention", true, "faster prefill on every CPU measured so far, and less memory");
    reasons.add("kv_type_k", "f16", "exact; a smaller type is not needed to fit");
    reasons.add("kv_type_v", "f16", "exact; a smaller type is not needed to fit");
    reasons.add("mmap", true, "the file is shared with the page cache, so that a second start reads nothing");
    reasons.add("mlock", false, "the system may take back memory that it needs");
    reasons.add(
        "repack",
        false,
        "costs most of the start, twice the memory and, where measured, half the prefill rate",
    );
    reasons.add("warmup", false, "the first request warms up; an empty batch would only delay it");
    reasons.add("check_tensors", false, "the file's SHA-256 was verified when it was imported");
    Ok(Plan {
        ctx_per_answer,
        parallel,
        kv_cells,
        batch_tokens: BATCH_TOKENS,
        ubatch_tokens: UBATCH_TOKENS,
        threads,
        threads_batch: threads,
        flash_attention: true,
        kv_type_k: KvType::F16,
        kv_type_v: KvType::F16,
        gpu_layers,
        mmap: true,
        mlock: false,
        repack: false,
        warmup: false,
        check_tensors: false,
        predicted,
        reasons: reasons.0,
    })
}

#[derive(Default)]
struct Reasons(Vec<Reason>);

impl Reasons {
    fn add(&mut self, parameter: &'static str, value: impl ToString, why: impl Into<String>) {
        self.0.push(Reason { parameter, value: value.to_string(), why: why.into() });
    }
}

/// Memory, as far as it is known.
#[derive(Clone, Copy)]
struct Budget {
    available_bytes: Option<u64>,
    /// What is left for the KV cache after weights and margin.
    left_bytes: u64,
}

impl Budget {
    fn of(meta: &ModelMeta, machine: &Machine, on_gpu: bool) -> Self {
        let main = machine.memory.effective_available_bytes.known().copied();
        let gpu = || machine.gpus.devices.iter().filter_map(|gpu| gpu.free_bytes.known()).max().copied();
        let available_bytes = if on_gpu { gpu() } else { main };
        let left = |bytes: u64| bytes.saturating_sub(meta.weights_bytes).saturating_sub(MARGIN_BYTES);
        Self { available_bytes, left_bytes: available_bytes.map_or(u64::MAX, left) }
    }

    /// What the cache may take without crowding out everything else.
    const fn comfortable_bytes(self) -> u64 {
        self.left_bytes / KV_SHARE
    }
}

fn gpu_layers(meta: &ModelMeta, machine: &Machine, want: &Want, reasons: &mut Reasons) -> i32 {
    if let Some(layers) = want.gpu_layers {
        reasons.add("gpu_layers", layers, "asked for");
        return layers;
    }
    let Some(gpu) = machine.gpus.devices.first() else {
        reasons.add("gpu_layers", 0, "no GPU was found");
        return 0;
    };
    if !want.gpu_usable {
        reasons.add("gpu_layers", 0, format!("{} is here, but this build has no backend for it", gpu.name));
        return 0;
    }
    let needs =
        meta.weights_bytes.saturating_add(kv_bytes(meta, CTX_DEFAULT_MIN)).saturating_add(MARGIN_BYTES);
    let free = gpu.free_bytes.known().copied().unwrap_or(u64::MAX);
    if needs <= free {
        reasons.add("gpu_layers", -1, format!("all: {} has room for weights and cache", gpu.name));
        return -1;
    }
    reasons.add("gpu_layers", 0, format!("{} has {free} bytes free and {needs} are needed", gpu.name));
    0
}

fn context(meta: &ModelMeta, want: &Want, budget: Budget, reasons: &mut Reasons) -> Result<u32, PlanError> {
    let trained = meta.ctx_train;
    if let Some(wanted) = want.ctx {
        if wanted == 0 {
            return Err(PlanError::OutOfRange { parameter: "context", value: 0, min: 1, max: trained });
        }
        if wanted > trained {
            return Err(PlanError::BeyondTraining { wanted, trained });
        }
        reasons.add("ctx_per_answer", wanted, "asked for");
        return fits(meta, budget, wanted).map(|()| wanted);
    }
    let steps =
        std::iter::successors(Some(CTX_DEFAULT_MAX), |step| (*step > CTX_DEFAULT_MIN).then(|| step / 2));
    let mut candidates =
        std::iter::once(trained.min(CTX_DEFAULT_MAX)).chain(steps.filter(|step| *step < trained));
    let smallest = trained.min(CTX_DEFAULT_MIN);
    let comfortable = |ctx: &u32| kv_bytes(meta, *ctx) <= budget.comfortable_bytes();
    let ctx = candidates.find(comfortable).unwrap_or(smallest);
    let why = if ctx == trained {
        "all that the model was trained with".to_owned()
    } else if ctx == CTX_DEFAULT_MAX {
        format!("the largest that is taken without being asked for; the model knows {trained}")
    } else {
        format!(
            "the largest whose cache fits half of the memory left after the weights; the model knows {trained}"
        )
    };
    reasons.add("ctx_per_answer", ctx, why);
    fits(meta, budget, ctx).map(|()| ctx)
}

fn fits(meta: &ModelMeta, budget: Budget, ctx: u32) -> Result<(), PlanError> {
    let kv = kv_bytes(meta, ctx);
    let Some(available_bytes) = budget.available_bytes else { return Ok(()) };
    let needs_bytes = meta.weights_bytes.saturating_add(MARGIN_BYTES).saturating_add(kv);
    if needs_bytes <= available_bytes {
        return Ok(());
    }
    let largest = cells_in(meta, budget.left_bytes) / CELL_STEP * CELL_STEP;
    let fits_ctx = (largest > 0 && budget.left_bytes > 0).then(|| largest.min(meta.ctx_train));
    Err(PlanError::DoesNotFit { needs_bytes, available_bytes, ctx, fits_ctx })
}

fn cells(
    meta: &ModelMeta,
    want: &Want,
    budget: Budget,
    ctx: u32,
    reasons: &mut Reasons,
) -> Result<(u32, u32), PlanError> {
    let parallel = want.parallel.unwrap_or(PARALLEL_DEFAULT);
    if parallel == 0 || parallel > PARALLEL_MAX {
        return Err(PlanError::OutOfRange {
            parameter: "parallel",
            value: parallel,
            min: 1,
            max: PARALLEL_MAX,
        });
    }
    let asked = if want.parallel.is_some() { "asked for" } else { "a few chats at the same time" };
    reasons.add("parallel", parallel, asked);
    let smallest = ctx.next_multiple_of(CELL_STEP);
    let all = u64::from(smallest) * u64::from(parallel);
    let comfortable = cells_in(meta, budget.comfortable_bytes()) / CELL_STEP * CELL_STEP;
    let cells = u32::try_from(all).unwrap_or(u32::MAX).min(comfortable).max(smallest);
    let why = if u64::from(cells) == all {
        "a whole context for each answer"
    } else {
        "what fits half of the memory left after the weights; answers that do not fit wait"
    };
    reasons.add("kv_cells", cells, why);
    Ok((parallel, cells))
}

fn threads(machine: &Machine, want: &Want, reasons: &mut Reasons) -> Result<u32, PlanError> {
    if let Some(threads) = want.threads {
        if threads == 0 || threads > THREADS_MAX {
            return Err(PlanError::OutOfRange {
                parameter: "threads",
                value: threads,
                min: 1,
                max: THREADS_MAX,
            });
        }
        reasons.add("threads", threads, "asked for");
        return Ok(threads);
    }
    let allowed = machine.cpu.cores_allowed.known().copied().unwrap_or(1).max(1);
    let physical = machine.cpu.cores_physical.known().copied().filter(|&cores| cores > 0);
    let threads = physical.map_or(allowed, |physical| physical.min(allowed)).min(THREADS_MAX);
    let why =
        if threads < allowed { "one for each physical core" } else { "one for each core that may be used" };
    reasons.add("threads", threads, why);
    Ok(threads)
}
