//! Plans for known machines and models, and what holds for all of them.

use firepot_gguf::{Attention, Layer, Layout, Recurrent, TensorType, Weights};
use firepot_machine::{Gpu, GpuVendor, Gpus, Machine, Memory, PciGpu, Reading};
use proptest::prelude::*;

use crate::{
    CELLS_STEP, CTX_FLOOR, CTX_GPU_MIN, GPU_MARGIN_BYTES, GpuUse, HOST_MARGIN_BYTES, KvType, Plan, PlanError,
    Taken, Want, available_bytes,
    budget::host_margin,
    bytes_per_token, decode_at_most, explain,
    footprint::{Device, Footprint, Params, Placing},
    limits::{GPU_CONTEXT_BYTES, HOST_MARGIN_MIN_BYTES},
    plan, with_freed,
};

const GIB: u64 = 1 << 30;

/// Sizes of a model whose layers are alike.
#[derive(Clone, Debug)]
struct Sizes {
    weights_bytes: u64,
    ctx_train: u32,
    embedding_length: u32,
    feed_forward_length: u32,
    heads: u32,
    kv_heads: Vec<u32>,
    head_length: u32,
    vocab_size: u64,
}

impl Sizes {
    fn layout(&self) -> Layout {
        let kind = TensorType::by_id(12).unwrap();
        let count = self.kv_heads.len() as u64;
        let each = self.weights_bytes / (count + 1) / 32 * 32;
        let attention = |&kv_heads: &u32| Attention {
            query_heads: self.heads,
            kv_heads,
            key_length: self.head_length,
            value_length: self.head_length,
            window: None,
            cached: true,
        };
        let layer = |heads: &u32| Layer {
            dense: Weights::of([(kind, each)]),
            feed_forward_length: self.feed_forward_length,
            attention: (*heads > 0).then(|| attention(heads)),
            computed: true,
            ..Layer::default()
        };
        Layout {
            architecture: "qwen2".to_owned(),
            ctx_train: self.ctx_train,
            embedding_length: self.embedding_length,
            vocab_size: self.vocab_size,
            layers: self.kv_heads.iter().map(layer).collect(),
            input: Weights::of([(kind, self.weights_bytes - each * count)]),
            output: Weights::default(),
            tied: false,
        }
    }
}

/// DeepSeek-R1-Distill-Qwen-7B `Q4_K_M`.
pub fn qwen_7b() -> Layout {
    qwen_sizes().layout()
}

fn qwen_sizes() -> Sizes {
    Sizes {
        weights_bytes: 4_677_120_000,
        ctx_train: 131_072,
        embedding_length: 3584,
        feed_forward_length: 18_944,
        heads: 28,
        kv_heads: vec![4; 28],
        head_length: 128,
        vocab_size: 152_064,
    }
}

/// SmolLM2-135M-Instruct `Q4_1`.
pub fn smol() -> Layout {
    Sizes {
        weights_bytes: 96_576_768,
        ctx_train: 8192,
        embedding_length: 576,
        feed_forward_length: 1536,
        heads: 9,
        kv_heads: vec![3; 30],
        head_length: 64,
        vocab_size: 49_152,
    }
    .layout()
}

pub fn cpu_machine(available_bytes: u64) -> Machine {
    let mut machine = Machine::unread("not looked at");
    machine.memory = Memory::of(available_bytes, available_bytes);
    machine.cpu.cores_allowed = Reading::Known(4);
    machine.cpu.cores_physical = Reading::Known(2);
    machine
}

fn gpu_machine(available_bytes: u64, gpu_bytes: &[u64]) -> Machine {
    let gpu = |&free_bytes| Gpu::of("Tesla T4", (7, 5), free_bytes, free_bytes);
    let devices = gpu_bytes.iter().map(gpu).collect();
    Machine { gpus: Gpus::of(devices), ..cpu_machine(available_bytes) }
}

pub fn why<'a>(plan: &'a Plan, parameter: &str) -> &'a str {
    &plan.reasons.iter().find(|reason| reason.parameter == parameter).unwrap().why
}

fn shape(plan: &Plan) -> (u32, u32, u32) {
    (plan.ctx_per_answer, plan.kv_cells, plan.parallel)
}

fn shape_on(meta: &Layout, machine: &Machine, want: Want) -> (u32, u32, u32) {
    shape(&plan(meta, machine, &want).unwrap())
}

fn explained(plan: &Plan) -> String {
    let lines: Vec<String> = plan.reasons.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn a_small_model_on_a_cpu_is_explained() {
    let plan = plan(&smol(), &cpu_machine(23 * GIB), &Want::default()).unwrap();
    insta::assert_snapshot!(explained(&plan), @r"
    ctx_per_answer = 8192: all that the model was trained with
    parallel = 4: a default
    kv_cells = 16384: shared by 4 answers, of which few need 8192 tokens; --parallel N makes room for N
    sequences = 64: of running answers and of cached prefixes: each costs a row of logits
    batch_tokens = 2048: llama.cpp's default
    ubatch_tokens = 512: llama.cpp's default, within the batch
    threads = 2: physical cores below the 4 logical ones that may be used
    threads_batch = 2: as for decode
    flash_attention = false: on a 2-core Zen 4 its absence raised decode from 47 to 79 tokens/s (SmolLM2, depth 2,560) and from 5.3 to 6.7 (7B Q4_K_M, depth 1,536), and prefill in batches of 64 from 177 to 250 and from 34 to 43; elsewhere not measured
    kv_type_k = f16: exact; a quantized cache is for when memory is short
    kv_type_v = f16: exact; a quantized cache is for when memory is short
    gpu_layers = 0: no usable GPU: not looked at
    gpus = []: there is none to use
    gpu_shares = []: there is none to use
    replicas = 1: in main memory, one is enough
    host_experts = 0: no layer's experts are apart from it
    mmap = true: the page cache holds the file for the next start
    mlock = false: other programs may need the memory more
    repack = false: elsewhere (2-core Zen 4, 7B Q4_K_M) repacking halved the prefill rate (11 to 15 tokens/s instead of 25 to 27), took 8.1 GB instead of 5.1 GB and most of the cold start; not measured here yet
    check_tensors = false: it reads the whole file before the first token
    warmup = false: elsewhere (7B, 2 cores) it took 14 of 25 s of a start, and the first prompt warms up as well
    fit = false: this plan decides; elsewhere (7B, 2 cores) it took 2 s of a start
    parked_bytes = 2147483648: a quarter of the memory that is left, for prefixes of ended answers: in the KV cache they would slow the running ones
    ");
}

#[test]
fn every_parameter_has_one_reason_with_its_value() {
    for machine in [cpu_machine(6 * GIB), gpu_machine(30 * GIB, &[15 * GIB]), Machine::unread("far away")] {
        let plan = plan(&qwen_7b(), &machine, &Want::default()).unwrap();
        let json = serde_json::to_value(&plan).unwrap();
        let fields = json
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| !["available", "predicted", "reasons"].contains(&name.as_str()));
        let expected: Vec<(String, String)> = fields
            .map(|(name, value)| (name.clone(), value.as_str().map_or(value.to_string(), str::to_owned)))
            .collect();
        let found: Vec<(String, String)> =
            plan.reasons.iter().map(|reason| (reason.parameter.to_owned(), reason.value.clone())).collect();
        assert_eq!(found, expected);
        assert!(plan.reasons.iter().all(|reason| !reason.why.is_empty()));
    }
}

#[test]
fn flash_attention_is_off_only_on_a_cpu_with_few_answers_and_memory_to_spare() {
    let flash = |machine: &Machine, parallel| {
        let want = Want { parallel, ..Want::default() };
        plan(&smol(), machine, &want).unwrap().flash_attention
    };
    assert!(!flash(&cpu_machine(23 * GIB), None));
    assert!(flash(&cpu_machine(23 * GIB), Some(8)), "many answers");
    assert!(flash(&cpu_machine(GIB), None), "no memory to spare");
    assert!(flash(&Machine::unread("far away"), None), "memory not known");
    assert!(flash(&gpu_machine(23 * GIB, &[15 * GIB]), None), "a GPU");
}

#[test]
fn parked_prefixes_take_a_part_of_what_is_left_and_never_more_than_their_bound() {
    let parked = |bytes| plan(&smol(), &cpu_machine(bytes), &Want::default()).unwrap().parked_bytes;
    assert_eq!(parked(100 * GIB), 2 * GIB);
    assert!((1..GIB / 4).contains(&parked(GIB)));
}

#[test]
fn a_gpu_that_holds_one_useful_context_gives_it() {
    let machine = gpu_machine(29 * GIB, &[5200 * (1 << 20) + GPU_MARGIN_BYTES]);
    let plan = plan(&qwen_7b(), &machine, &Want::default()).unwrap();
    assert_eq!((plan.gpu_layers, plan.ctx_per_answer, plan.parallel), (-1, CTX_GPU_MIN, 4));
    assert!(plan.kv_cells >= CTX_GPU_MIN && plan.kv_cells < 4 * CTX_GPU_MIN);
    insta::assert_snapshot!(why(&plan, "kv_cells"), @"4 full answers need 32768, and the GPU memory that the weights leave holds 13056; answers wait for free cells");
}

#[test]
fn why_no_gpu_is_used_is_said() {
    let check = |machine: &Machine, want: Want, expected: &str| {
        let plan = plan(&smol(), machine, &want).unwrap();
        assert_eq!((plan.gpu_layers, why(&plan, "gpu_layers")), (0, expected));
    };
    let with_gpu = gpu_machine(29 * GIB, &[15 * GIB]);
    let never = Want { gpu: GpuUse::Never, ..Want::default() };
    let no_backend = Want { gpu: GpuUse::NoBackend, ..Want::default() };
    let no_layers = Want { gpu_layers: Some(0), ..Want::default() };
    check(&with_gpu, never, "no GPU: asked for");
    check(&with_gpu, no_layers, "no layers on a GPU: asked for");
    check(&with_gpu, no_backend, "Tesla T4 is there, but this program was built without a GPU backend");
    check(&cpu_machine(GIB), no_backend, "this program was built without a GPU backend");
    let mut unusable = cpu_machine(GIB);
    let (address, vendor) = ("0000:00:04.0".to_owned(), GpuVendor::Nvidia);
    unusable.gpus.pci = vec![PciGpu { address, vendor, device_id: 1, driver: None }];
    check(
        &unusable,
        Want::default(),
        "NVIDIA GPU at 0000:00:04.0 cannot be used: no kernel driver is bound to it",
    );
}

#[test]
fn the_default_context_shrinks_with_the_memory() {
    let on = |gib: u64| shape_on(&qwen_7b(), &cpu_machine(gib * GIB), Want::default());
    assert_eq!(on(64), (32_768, 32_768, 4));
    assert_eq!(on(8), (16_384, 16_384, 4));
    assert_eq!(on(6), (8192, 11_264, 4));
    // 5530 MiB are 5338 after the margin. With one ubatch's cells the load takes about 4700: half of the rest is 320 MiB, or
    // 5,400 more cells of 57,344 bytes, their masks and scores, in steps of 256.
    let tight = shape_on(&qwen_7b(), &cpu_machine(5530 << 20), Want::default());
    assert_eq!(tight, (4096, 5888, 2));
}

#[test]
fn when_memory_is_very_short_what_fits_is_taken() {
    let least = plan(&qwen_7b(), &cpu_machine(4830 << 20), &Want::default()).unwrap();
    assert!(least.ctx_per_answer < CTX_FLOOR && least.parallel == 1, "{:?}", shape(&least));
    assert_eq!(least.kv_cells, least.ctx_per_answer);
    assert_eq!(why(&least, "ctx_per_answer"), "memory is short: this is all that fits beside the weights");
}

fn refused(meta: &Layout, machine: &Machine, want: Want) -> (String, String) {
    let error = plan(meta, machine, &want).unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn what_cannot_fit_is_refused_with_numbers_and_the_nearest_that_does() {
    let (error, hint) = refused(&qwen_7b(), &cpu_machine(4 * GIB), Want::default());
    insta::assert_snapshot!(error, @"the model needs 4637 MiB with the smallest context, 4461 MiB of them weights, and 3904 MiB are available");
    insta::assert_snapshot!(hint, @"a file of about 3727 MiB would fit; else free some memory");
    let want = Want { ctx: Some(65_536), ..Want::default() };
    let (error, hint) = refused(&qwen_7b(), &cpu_machine(6 * GIB), want);
    insta::assert_snapshot!(error, @"a context of 65536 tokens needs 6674 MiB with the model and a KV cache in q8_0, and 5952 MiB are available");
    insta::assert_snapshot!(hint, @"a context of 41472 tokens fits, with a KV cache in q8_0");
    let fits = Want { ctx: Some(41_472), ..Want::default() };
    assert_eq!(shape_on(&qwen_7b(), &cpu_machine(6 * GIB), fits), (41_472, 41_472, 4));
    let (_, hint) = refused(&qwen_7b(), &cpu_machine(0), Want::default());
    assert_eq!(hint, "free some memory");
}

#[test]
fn wishes_out_of_range_are_refused() {
    let check = |want: Want, error: &str, hint: &str| {
        let found = refused(&smol(), &cpu_machine(GIB), want);
        assert_eq!((found.0.as_str(), found.1.as_str()), (error, hint));
    };
    let none = Want::default();
    check(
        Want { ctx: Some(0), ..none },
        "ctx is 0, and must be from 1 to 8192",
        "give ctx a value from 1 to 8192",
    );
    check(
        Want { ctx: Some(8193), ..none },
        "a context of 8193 tokens was asked for, and the model was trained with 8192",
        "ask for a context of at most 8192 tokens",
    );
    for (want, parameter) in [
        (Want { parallel: Some(0), ..none }, "parallel"),
        (Want { parallel: Some(65), ..none }, "parallel"),
        (Want { threads: Some(0), ..none }, "threads"),
        (Want { threads: Some(513), ..none }, "threads"),
        (Want { batch_tokens: Some(0), ..none }, "batch_tokens"),
    ] {
        let error = plan(&smol(), &cpu_machine(GIB), &want).unwrap_err();
        assert!(
            matches!(error, PlanError::OutOfRange { parameter: found, .. } if found == parameter),
            "{error}"
        );
        assert!(!error.is_memory());
    }
}

#[test]
fn wishes_are_honoured_and_named_as_such() {
    let want = Want {
        ctx: Some(1000),
        parallel: Some(3),
        threads: Some(7),
        batch_tokens: Some(256),
        mmap: Some(false),
        mlock: Some(true),
        ..Want::default()
    };
    let plan = plan(&smol(), &cpu_machine(23 * GIB), &want).unwrap();
    assert_eq!(shape(&plan), (1000, 3072, 3));
    assert_eq!((plan.threads, plan.threads_batch), (7, 7));
    assert_eq!((plan.batch_tokens, plan.ubatch_tokens), (256, 256));
    assert!(!plan.mmap && plan.mlock);
    assert_eq!(plan.predicted.mapped_bytes, 0);
    for parameter in ["ctx_per_answer", "parallel", "threads", "batch_tokens", "mmap", "mlock"] {
        assert_eq!(why(&plan, parameter), "asked for", "{parameter}");
    }
}

#[test]
fn memory_promised_to_others_is_not_given_twice() {
    let taken = Want { taken: Taken { host_bytes: 10 * GIB, gpu_bytes: 0 }, ..Want::default() };
    let beside = shape_on(&qwen_7b(), &cpu_machine(18 * GIB), taken);
    assert_eq!(beside, shape_on(&qwen_7b(), &cpu_machine(8 * GIB), Want::default()));
    let full = Taken { host_bytes: 0, gpu_bytes: 12 * GIB };
    let plan =
        plan(&qwen_7b(), &gpu_machine(29 * GIB, &[15 * GIB]), &Want { taken: full, ..Want::default() });
    assert!((0..28).contains(&plan.unwrap().gpu_layers));
}

#[test]
fn a_machine_that_says_nothing_gets_careful_defaults() {
    let plan = plan(&qwen_7b(), &Machine::unread("it is far away"), &Want::default()).unwrap();
    assert_eq!(shape(&plan), (2048, 8192, 4));
    assert_eq!(why(&plan, "ctx_per_answer"), "the machine's memory is not known; a careful default");
    assert_eq!((plan.threads, why(&plan, "threads")), (2, "the cores cannot be counted; a careful default"));
}

#[test]
fn kv_types_have_ggml_s_sizes() {
    assert_eq!(KvType::F16.bytes(128), 256);
    assert_eq!(KvType::Q8_0.bytes(128), 136);
    assert_eq!(KvType::Q4_0.bytes(128), 72);
    assert_eq!(KvType::Q8_0.bytes(33), 68);
}

fn any_layout() -> impl Strategy<Value = Layout> {
    let size = || prop_oneof![0_u32..200_000, any::<u32>()];
    let heads = proptest::collection::vec(size(), 0..40);
    (any::<u64>(), size(), size(), heads, size(), any::<u64>()).prop_map(
        |(weights_bytes, ctx_train, head_length, kv_heads, feed_forward_length, vocab_size)| {
            Sizes {
                weights_bytes,
                ctx_train,
                embedding_length: head_length,
                feed_forward_length,
                heads: head_length,
                kv_heads,
                head_length,
                vocab_size,
            }
            .layout()
        },
    )
}

fn any_want() -> impl Strategy<Value = Want> {
    let maybe = || proptest::option::of(prop_oneof![0_u32..70, 70_u32..200_000, any::<u32>()]);
    let gpu = prop_oneof![Just(GpuUse::Auto), Just(GpuUse::Never), Just(GpuUse::NoBackend)];
    (maybe(), maybe(), maybe(), maybe(), maybe(), gpu, any::<(u64, u64)>()).prop_map(
        |(ctx, parallel, threads, batch_tokens, gpu_layers, gpu, (host_bytes, gpu_bytes))| Want {
            ctx,
            parallel,
            threads,
            batch_tokens,
            gpu_layers,
            gpu,
            taken: Taken { host_bytes: host_bytes >> 32, gpu_bytes: gpu_bytes >> 32 },
            ..Want::default()
        },
    )
}

/// Models of any proportions that could be met, so that many have a plan, which [`any_layout`] hardly ever has.
fn likely_layout() -> impl Strategy<Value = Layout> {
    let heads = proptest::collection::vec(0_u32..16, 1..80);
    (0..30 * GIB, 1_u32..300_000, 1_u32..300, 1_u32..9000, heads, 1_u32..40_000, 1_u64..300_000).prop_map(
        |(
            weights_bytes,
            ctx_train,
            head_length,
            embedding_length,
            kv_heads,
            feed_forward_length,
            vocab_size,
        )| {
            Sizes {
                weights_bytes,
                ctx_train,
                embedding_length,
                feed_forward_length,
                heads: 16,
                kv_heads,
                head_length,
                vocab_size,
            }
            .layout()
        },
    )
}

fn likely_want() -> impl Strategy<Value = Want> {
    let ctx = proptest::option::weighted(0.3, 1_u32..20_000);
    let parallel = proptest::option::of(1_u32..=64);
    let gpu_layers = proptest::option::of(0_u32..100);
    let batch_tokens = proptest::option::of(1_u32..=8192);
    (ctx, parallel, gpu_layers, batch_tokens).prop_map(|(ctx, parallel, gpu_layers, batch_tokens)| Want {
        ctx,
        parallel,
        batch_tokens,
        gpu_layers,
        ..Want::default()
    })
}

/// Two cases in three could be met; the third may be anything. With memory, and that of equal GPUs.
fn some_case() -> impl Strategy<Value = (Layout, Want, u64, Vec<u64>)> {
    let equal = |bytes| (bytes, 0..4_usize).prop_map(|(bytes, count)| vec![bytes; count]);
    let likely = (likely_layout(), likely_want(), 0..80 * GIB, equal((0..80 * GIB).boxed()));
    prop_oneof![2 => likely, 1 => (any_layout(), any_want(), any::<u64>(), equal(any::<u64>().boxed()))]
}

/// Models and wishes as they are met, so that most have a plan.
fn usual() -> impl Strategy<Value = (Layout, Want)> {
    let meta = prop_oneof![Just(smol()), Just(qwen_7b())];
    let ctx = proptest::option::of(1_u32..9000);
    (meta, ctx, proptest::option::of(1_u32..=64)).prop_map(|(meta, ctx, parallel)| {
        (meta, Want { ctx: ctx.map(|ctx| ctx.min(8192)), parallel, ..Want::default() })
    })
}

fn no_worse(less: &Result<Plan, PlanError>, more: &Result<Plan, PlanError>) -> bool {
    match (less, more) {
        (Err(_), _) => true,
        (Ok(_), Err(_)) => false,
        (Ok(less), Ok(more)) => {
            more.ctx_per_answer >= less.ctx_per_answer
                && more.kv_cells >= less.kv_cells
                && more.parallel >= less.parallel
        }
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_a_plan_is_always_sound((meta, want, memory, gpus) in some_case()) {
        let machine = gpu_machine(memory, &gpus);
        let Ok(plan) = plan(&meta, &machine, &want) else { return Ok(()) };
        prop_assert!(plan.ctx_per_answer >= 1 && plan.ctx_per_answer <= meta.ctx_train.max(1));
        prop_assert!(plan.kv_cells >= plan.ctx_per_answer && plan.kv_cells.is_multiple_of(CELLS_STEP));
        prop_assert!((1..=64).contains(&plan.parallel) && (1..=512).contains(&plan.threads));
        prop_assert!(plan.ubatch_tokens <= plan.batch_tokens);
        let free_bytes = memory.saturating_sub(host_margin(memory)).saturating_sub(want.taken.host_bytes);
        prop_assert!(plan.predicted.host_bytes() <= free_bytes);
        for (gpu, bytes) in &plan.predicted.gpus {
            let taken_bytes = if *gpu == 0 { want.taken.gpu_bytes } else { 0 };
            prop_assert!(bytes.total() <= gpus[*gpu] - GPU_MARGIN_BYTES - taken_bytes);
        }
        prop_assert!(plan.predicted.mapped_bytes <= plan.predicted.host.total());
        prop_assert!(want.ctx.is_none_or(|ctx| ctx == plan.ctx_per_answer));
        prop_assert!(want.parallel.is_none_or(|parallel| plan.parallel <= parallel));
    }

    #[test]
    fn more_memory_never_gives_a_worse_plan((meta, want) in usual(), less in 0..40 * GIB, more in 0..40 * GIB) {
        let on = |bytes| plan(&meta, &cpu_machine(bytes), &want);
        prop_assert!(no_worse(&on(less.min(more)), &on(less.max(more))));
    }

    #[test]
    fn more_memory_never_gives_any_model_a_worse_plan(
        meta in likely_layout(), want in likely_want(), less in 0..80 * GIB, more in 0..80 * GIB,
    ) {
        let on = |bytes| plan(&meta, &cpu_machine(bytes), &want);
        prop_assert!(no_worse(&on(less.min(more)), &on(less.max(more))));
    }

    #[test]
    fn more_gpu_memory_never_gives_a_worse_plan_on_the_gpu(
        (meta, want) in usual(), less in 0..40 * GIB, more in 0..40 * GIB,
    ) {
        let on = |bytes| plan(&meta, &gpu_machine(40 * GIB, &[bytes]), &want);
        let (less, more) = (on(less.min(more)).unwrap(), on(less.max(more)).unwrap());
        if less.gpu_layers < 0 {
            prop_assert_eq!(more.gpu_layers, -1);
            prop_assert!(no_worse(&Ok(less), &Ok(more)));
        }
    }

    #[test]
    fn a_refused_context_names_one_that_fits(
        bytes in 5 * GIB..8 * GIB, gpus in proptest::collection::vec(GIB..6 * GIB, 0..3), ctx in 1_u32..=131_072,
    ) {
        let want = |ctx| Want { ctx: Some(ctx), ..Want::default() };
        let machine = gpu_machine(bytes, &gpus);
        if let Err(PlanError::CtxTooLarge { fits_ctx, .. }) = plan(&qwen_7b(), &machine, &want(ctx)) {
            prop_assert!(fits_ctx < ctx);
            prop_assert!(plan(&qwen_7b(), &machine, &want(fits_ctx)).is_ok());
            prop_assert!(plan(&qwen_7b(), &machine, &want(fits_ctx + CELLS_STEP)).is_err());
        }
    }
}

#[test]
fn layers_wished_on_a_gpu_that_is_not_there_do_not_skip_the_memory_check() {
    let want = Want { gpu_layers: Some(99), ..Want::default() };
    let error = plan(&qwen_7b(), &cpu_machine(2 * GIB), &want).unwrap_err();
    assert!(matches!(error, PlanError::ModelTooLarge { .. }), "{error}");
    assert_eq!(plan(&qwen_7b(), &cpu_machine(16 * GIB), &want).unwrap().gpu_layers, 0);
}

fn on_t4s(layout: &Layout, gpu_gib: &[u64], want: Want) -> Plan {
    let free: Vec<u64> = gpu_gib.iter().map(|gib| gib * GIB).collect();
    plan(layout, &gpu_machine(29 * GIB, &free), &want).unwrap()
}

#[test]
fn one_t4_takes_a_7b_model_with_all_that_it_was_trained_with() {
    let plan = on_t4s(&qwen_7b(), &[15], Want::default());
    assert_eq!((plan.gpu_layers, plan.ctx_per_answer, plan.replicas), (-1, 131_072, 1));
    assert_eq!(plan.predicted.host.kv_bytes, 0);
    assert_eq!(plan.predicted.gpus[0].1.kv_bytes, u64::from(plan.kv_cells) * 57_344);
    assert_eq!(why(&plan, "gpu_layers"), "Tesla T4 has 14918 MiB for the model, which holds all of it");
}

#[test]
fn two_equal_gpus_get_a_replica_each_of_what_fits_one() {
    let plan = on_t4s(&qwen_7b(), &[15, 15], Want::default());
    assert_eq!((plan.gpu_layers, plan.replicas, plan.gpus.as_slice()), (-1, 2, [0, 1].as_slice()));
    assert_eq!(plan.predicted.gpus.len(), 1, "what each takes");
    assert_eq!(plan.predicted.gpu_bytes(), 2 * plan.predicted.gpus[0].1.total());
    // Unequal ones do not: one is roomier.
    assert_eq!(on_t4s(&qwen_7b(), &[15, 12], Want::default()).replicas, 1);
}

#[test]
fn what_fits_no_single_gpu_is_split_and_then_left_in_main_memory_in_part() {
    let split = on_t4s(&qwen_7b(), &[4, 4], Want::default());
    assert_eq!((split.gpu_layers, split.replicas, split.gpus.len()), (-1, 1, 2));
    assert_eq!(split.predicted.gpus.len(), 2);
    // What goes into a part has four copies: the mask of half-precision floats and the residual stream.
    let (ubatch, cells) = (u64::from(split.ubatch_tokens), u64::from(split.kv_cells));
    let copies = 4 * (2 * ubatch * cells + 4 * ubatch * 3584);
    assert!(split.predicted.gpus.iter().all(|gpu| gpu.1.compute_bytes > copies), "{:?}", split.predicted);
    let part = on_t4s(&qwen_7b(), &[3], Want::default());
    assert!((1..28).contains(&part.gpu_layers), "{}", part.gpu_layers);
    assert!(part.predicted.host.kv_bytes > 0 && part.predicted.gpus[0].1.kv_bytes > 0);
    let weights_bytes = part.predicted.host.weights_bytes + part.predicted.gpus[0].1.weights_bytes;
    assert_eq!(weights_bytes, qwen_7b().weights_bytes());
}

#[test]
fn what_would_fit_is_told_by_the_roomiest_place_and_not_by_main_memory_alone() {
    let large = Sizes { weights_bytes: 40 * GIB, ctx_train: 131_072, ..qwen_sizes() };
    let sized = |weights_bytes| Sizes { weights_bytes, ..large.clone() }.layout();
    let t4 = gpu_machine(11 * GIB, &[15 * GIB]);
    let (error, hint) = refused(&large.layout(), &t4, Want::default());
    assert!(error.ends_with("and 11072 MiB of main memory and 14918 MiB on GPUs are available"), "{error}");
    let PlanError::ModelTooLarge { fits_bytes, .. } =
        plan(&large.layout(), &t4, &Want::default()).unwrap_err()
    else {
        panic!("{error}")
    };
    assert!(fits_bytes > 15 * GIB, "{hint}");
    assert!(plan(&sized(fits_bytes), &t4, &Want::default()).is_ok(), "{hint}");
    assert!(plan(&sized(fits_bytes + GIB), &t4, &Want::default()).is_err(), "{hint}");
    // The weights alone are more than main memory or the card has.
    let want = Want { ctx: Some(131_072), ..Want::default() };
    let (_, hint) = refused(&qwen_7b(), &gpu_machine(4 * GIB, &[4 * GIB]), want);
    insta::assert_snapshot!(hint, @"a context of 86272 tokens fits, with a KV cache in q8_0");
}

#[test]
fn each_replica_s_runner_has_its_room_in_main_memory() {
    let on = |host_bytes: u64| {
        let machine = gpu_machine(host_bytes, &[15 * GIB, 15 * GIB, 15 * GIB]);
        plan(&qwen_7b(), &machine, &Want::default()).unwrap()
    };
    let three = on(29 * GIB);
    assert_eq!((three.replicas, why(&three, "replicas")), (3, "one for each GPU"));
    let own_bytes = three.predicted.own_bytes();
    let for_two = three.predicted.mapped_bytes + 2 * own_bytes + HOST_MARGIN_MIN_BYTES;
    let two = on(for_two + own_bytes / 2);
    assert_eq!((two.replicas, two.gpus.as_slice()), (2, [0, 1].as_slice()));
    assert!(why(&two, "replicas").contains("main memory has no room"), "{}", why(&two, "replicas"));
    assert!(3 * three.parked_bytes <= 29 * GIB / 4, "what they park is a quarter of the rest, together");
}

#[test]
fn a_small_model_takes_no_more_of_a_gpu_than_its_answers_can_use_so_that_another_has_room() {
    let machine = gpu_machine(29 * GIB, &[15 * GIB]);
    let small = plan(&smol(), &machine, &Want::default()).unwrap();
    assert_eq!(shape(&small), (8192, 4 * 8192, 4), "four answers of all that it was trained with");
    let taken = Taken { host_bytes: 0, gpu_bytes: small.predicted.gpu_bytes() };
    let beside = plan(&qwen_7b(), &machine, &Want { taken, ..Want::default() }).unwrap();
    assert_eq!((beside.gpu_layers, beside.ctx_per_answer), (-1, 131_072));
}

#[test]
fn what_is_given_back_can_be_planned_with() {
    let full = gpu_machine(2 * GIB, &[200 << 20]);
    assert!(plan(&qwen_7b(), &full, &Want::default()).is_err());
    let host = plan(&qwen_7b(), &with_freed(&full, 6 * GIB, &[]), &Want::default()).unwrap();
    assert_eq!(host.gpu_layers, 0);
    let gpu = with_freed(&full, 0, &[(0, 6 * GIB), (7, GIB)]);
    assert_eq!(plan(&qwen_7b(), &gpu, &Want::default()).unwrap().gpu_layers, -1);
    let available_bytes = |machine: &Machine| available_bytes(machine, &Want::default(), Some(0)).unwrap();
    assert_eq!(available_bytes(&gpu), 6 * GIB + (200 << 20) + GPU_CONTEXT_BYTES - GPU_MARGIN_BYTES);
    // Never more than is in use.
    let mut known = full;
    known.gpus.devices[0].used_bytes = Reading::Known(GIB);
    assert_eq!(
        available_bytes(&with_freed(&known, 0, &[(0, 5 * GIB)])),
        GIB + (200 << 20) - GPU_MARGIN_BYTES
    );
}

pub fn mixture() -> Layout {
    let mut layout = qwen_7b();
    for layer in &mut layout.layers {
        layer.experts = Weights::of([(TensorType::by_id(12).unwrap(), 500 << 20)]);
        layer.experts_used = 8;
    }
    layout
}

#[test]
fn a_mixture_leaves_the_experts_of_as_few_layers_as_possible_in_main_memory() {
    let plan = on_t4s(&mixture(), &[15], Want::default());
    assert_eq!(plan.gpu_layers, -1);
    assert!((1..28).contains(&plan.host_experts), "{}", plan.host_experts);
    let experts_bytes = u64::from(plan.host_experts) * (500 << 20);
    assert_eq!(plan.predicted.host.weights_bytes, qwen_7b().input.bytes() + experts_bytes);
    let roomier = on_t4s(&mixture(), &[16], Want::default());
    assert!(roomier.host_experts < plan.host_experts);
}

#[test]
fn some_layers_on_a_gpu_are_honoured_where_they_fit() {
    let want = Want { gpu_layers: Some(14), ..Want::default() };
    let split = on_t4s(&qwen_7b(), &[8], want);
    assert_eq!(split.gpu_layers, 14);
    // Of llama.cpp's count the output is one.
    assert_eq!(split.predicted.gpus[0].1.kv_bytes * 15, split.predicted.host.kv_bytes * 13);
    let refused = on_t4s(&qwen_7b(), &[2], want);
    assert_eq!(refused.gpu_layers, 0);
    assert!(why(&refused, "gpu_layers").starts_with("14 were asked for"));
    assert_eq!(on_t4s(&qwen_7b(), &[15], Want { gpu_layers: Some(999), ..want }).gpu_layers, -1);
}

fn kv_bytes(layout: &Layout, want: Want) -> u64 {
    plan(layout, &cpu_machine(100 * GIB), &want).unwrap().predicted.host.kv_bytes
}

#[test]
fn a_layer_without_attention_takes_no_cache() {
    let mut half = smol();
    half.layers.iter_mut().step_by(2).for_each(|layer| layer.attention = None);
    assert_eq!(kv_bytes(&half, Want::default()) * 2, kv_bytes(&smol(), Want::default()));
}

#[test]
fn a_window_has_cells_for_each_sequence_and_a_state_for_each_too() {
    let mut windowed = smol();
    windowed.layers.iter_mut().for_each(|layer| layer.attention.as_mut().unwrap().window = Some(512));
    // 4 answers and 4 cached prefixes of 512 tokens and a ubatch, of 768 bytes in each of 30 layers.
    assert_eq!(kv_bytes(&windowed, Want::default()), (512 * 8 + 512) * 768 * 30);
    let mut recurrent = smol();
    for layer in &mut recurrent.layers {
        (layer.attention, layer.recurrent) = (None, Some(Recurrent { rolling: 10, state: 90, width: 0 }));
    }
    assert_eq!(kv_bytes(&recurrent, Want::default()), 30 * 100 * 4 * 8);
}

#[test]
fn layers_that_are_not_computed_take_nothing() {
    let mut layout = smol();
    let less_bytes = layout.layers[29].dense.bytes();
    layout.layers[29].computed = false;
    let predicted =
        |layout: &Layout| plan(layout, &cpu_machine(9 * GIB), &Want::default()).unwrap().predicted.host;
    assert_eq!(predicted(&layout).weights_bytes + less_bytes, predicted(&smol()).weights_bytes);
    assert_eq!(predicted(&layout).kv_bytes * 30, predicted(&smol()).kv_bytes * 29);
}

#[test]
fn a_context_that_fits_only_a_smaller_cache_gets_one_and_is_told() {
    let want = Want { ctx: Some(32_768), ..Want::default() };
    let plan = plan(&qwen_7b(), &cpu_machine(6400 << 20), &want).unwrap();
    assert_eq!((plan.kv_type_k, plan.kv_type_v, plan.flash_attention), (KvType::Q8_0, KvType::Q8_0, true));
    assert_eq!(plan.predicted.host.kv_bytes, u64::from(plan.kv_cells) * 30_464);
    assert!(why(&plan, "kv_type_k").contains("does not fit otherwise"));
    let exact = Want { kv_type: Some(KvType::F16), ..want };
    assert!(super::plan(&qwen_7b(), &cpu_machine(6400 << 20), &exact).is_err());
}

#[test]
fn the_least_context_is_kept_and_thinking_needs_room() {
    let machine = cpu_machine(6 * GIB);
    let least = |want: Want| plan(&qwen_7b(), &machine, &want).map(|plan| plan.ctx_per_answer);
    assert_eq!(least(Want::default()), Ok(8192));
    assert_eq!(least(Want { ctx_min: Some(12_000), ..Want::default() }), Ok(12_000));
    assert_eq!(least(Want { think_tokens: Some(10_000), ..Want::default() }), Ok(14_096));
    let never = least(Want { ctx_min: Some(100_000), ..Want::default() });
    assert!(matches!(never, Err(PlanError::CtxTooLarge { wanted: 100_000, .. })), "{never:?}");
    let beyond = least(Want { think_tokens: Some(1 << 20), ..Want::default() });
    assert!(matches!(beyond, Err(PlanError::CtxBeyondTraining { .. })), "{beyond:?}");
}

#[test]
fn a_ceiling_is_kept_whatever_the_machine_has() {
    let want = Want { memory_bytes: Some(6 * GIB - HOST_MARGIN_BYTES), ..Want::default() };
    let under = plan(&qwen_7b(), &cpu_machine(64 * GIB), &want).unwrap();
    assert_eq!(shape(&under), shape_on(&qwen_7b(), &cpu_machine(6 * GIB), Want::default()));
    assert!(under.predicted.host.total() <= 6 * GIB);
}

/// What `firepot dry-run` says of both models: cells, flash attention, bytes of the KV cache and of compute buffers.
const DRY_RUNS: [(bool, u64, bool, u64, u64); 12] = [
    (true, 1024, true, 23_592_960, 19_548_416),
    (true, 8192, true, 188_743_680, 26_888_448),
    (true, 32_768, true, 754_974_720, 48_908_544),
    (true, 1024, false, 23_592_960, 28_850_432),
    (true, 8192, false, 188_743_680, 175_651_072),
    (true, 32_768, false, 754_974_720, 678_967_552),
    (false, 1024, true, 58_720_256, 165_600_896),
    (false, 8192, true, 469_762_048, 173_485_696),
    (false, 32_768, true, 1_879_048_192, 200_519_296),
    (false, 1024, false, 58_720_256, 168_975_680),
    (false, 8192, false, 469_762_048, 572_226_880),
    (false, 32_768, false, 1_879_048_192, 2_140_175_680),
];

#[test]
fn sizes_are_those_of_llama_cpp_s_dry_run() {
    for (small, cells, flash_attention, kv_bytes, compute_bytes) in DRY_RUNS {
        let layout = if small { smol() } else { qwen_7b() };
        let kv_types = (KvType::F16, KvType::F16);
        let params = Params { parallel: 4, ubatch_tokens: 512, kv_types, flash_attention };
        let placing = Placing::host(&layout);
        let predicted = Footprint { layout: &layout, placing: &placing, params }.on(Device::Host, cells);
        assert_eq!(predicted.weights_bytes, if small { 96_576_768 } else { 4_677_120_000 });
        assert_eq!(predicted.kv_bytes, kv_bytes);
        let off = predicted.compute_bytes.abs_diff(compute_bytes);
        assert!(off * 100 <= compute_bytes * 2, "{predicted:?} and not {compute_bytes}");
    }
}

fn explained_on(layout: &Layout, machine: &Machine, want: Want) -> (String, Vec<String>) {
    let made = plan(layout, machine, &want).unwrap();
    let explanation = explain(layout, machine, &want, &made);
    let changes = explanation.changes.into_iter().map(|change| format!("{}: {}", change.change, change.buys));
    (explanation.binds, changes.collect())
}

#[test]
fn what_binds_is_named() {
    let binds = |layout: &Layout, machine: &Machine, want| explained_on(layout, machine, want).0;
    let four = Want { parallel: Some(4), ..Want::default() };
    assert!(binds(&smol(), &cpu_machine(64 * GIB), four).starts_with("nothing: each answer"));
    assert!(binds(&smol(), &cpu_machine(64 * GIB), Want::default()).starts_with("the time of a start"));
    assert!(binds(&qwen_7b(), &cpu_machine(64 * GIB), Want::default()).starts_with("the time of a start"));
    assert!(binds(&qwen_7b(), &cpu_machine(6 * GIB), Want::default()).starts_with("main memory: "));
    let t4 = binds(&qwen_7b(), &gpu_machine(32 * GIB, &[9 * GIB]), Want::default());
    assert!(t4.starts_with("Tesla T4: "), "{t4}");
    let asked = Want { ctx: Some(4096), parallel: Some(1), ..Want::default() };
    assert_eq!(
        binds(&qwen_7b(), &cpu_machine(64 * GIB), asked),
        "nothing but the context that was asked for"
    );
}

#[test]
fn a_smaller_cache_is_offered_where_it_buys_context_and_never_to_a_mixture() {
    let (_, changes) = explained_on(&qwen_7b(), &gpu_machine(32 * GIB, &[9 * GIB]), Want::default());
    assert!(changes[0].starts_with("a KV cache in q8_0: a context of "), "{changes:?}");
    let (_, changes) = explained_on(&mixture(), &gpu_machine(64 * GIB, &[9 * GIB]), Want::default());
    assert!(changes.iter().all(|change| !change.contains("q8_0")), "{changes:?}");
}

#[test]
fn nothing_is_offered_that_buys_nothing() {
    let want = Want { ctx: Some(2048), parallel: Some(1), kv_type: Some(KvType::F16), ..Want::default() };
    assert_eq!(explained_on(&qwen_7b(), &cpu_machine(64 * GIB), want).1, Vec::<String>::new());
}

#[test]
fn a_token_reads_what_is_computed_and_not_the_embedding() {
    let layout = qwen_7b();
    let host = plan(&layout, &cpu_machine(64 * GIB), &Want::default()).unwrap();
    let read = bytes_per_token(&layout, &host);
    assert_eq!(read, [(None, layout.weights_bytes() - layout.input.bytes())]);
    let tied = Layout { tied: true, output: Weights::default(), ..layout.clone() };
    assert_eq!(bytes_per_token(&tied, &host), [(None, tied.weights_bytes())]);
    let t4 = on_t4s(&layout, &[15], Want::default());
    assert_eq!(bytes_per_token(&layout, &t4), [(Some(0), layout.weights_bytes() - layout.input.bytes())]);
}

#[test]
fn a_token_reads_the_experts_in_use_only() {
    let mut layout = mixture();
    for layer in &mut layout.layers {
        (layer.experts_used, layer.experts_count) = (8, 128);
    }
    let host = plan(&layout, &cpu_machine(256 * GIB), &Want::default()).unwrap();
    let all: u64 = layout.layers.iter().map(|layer| layer.experts.bytes()).sum();
    let dense = layout.weights_bytes() - all - if layout.tied { 0 } else { layout.input.bytes() };
    let [(None, read)] = bytes_per_token(&layout, &host)[..] else { panic!("one device") };
    assert!(read.abs_diff(dense + all / 16) < 1000, "{read} of {dense} and {all}");
}

#[test]
fn devices_work_one_after_the_other() {
    let bytes = [(None, 10_000), (Some(0), 40_000)];
    let rate = |device: Option<usize>| Some(if device.is_some() { 1e6 } else { 1e5 });
    assert!((decode_at_most(&bytes, rate).unwrap() - 1.0 / 0.14).abs() < 1e-9);
    assert_eq!(decode_at_most(&bytes, |device| device.map(|_| 1e6)), None);
}

/// Figures of `firepot dry-run` over `xtask check-planner`'s sketches of Mamba-2 130M and DeepSeek-V2-Lite.
#[test]
fn states_and_latent_values_take_what_llama_cpp_counts() {
    let near = |layout: &Layout, (parallel, ubatch_tokens), cells, counted: u64| {
        let kv_types = (KvType::F16, KvType::F16);
        let params = Params { parallel, ubatch_tokens, kv_types, flash_attention: false };
        let planned = crate::host_bytes(layout, params, cells).compute_bytes;
        assert!(planned.abs_diff(counted) * 20 <= counted, "{planned} beside {counted}");
    };
    let mut states = smol();
    states.embedding_length = 768;
    let of_mamba = Recurrent { rolling: 5376, state: 196_608, width: 11_520 };
    for layer in &mut states.layers {
        (layer.attention, layer.recurrent, layer.feed_forward_length) = (None, Some(of_mamba), 0);
    }
    near(&states, (4, 512), 8192, 37_191_744);
    let mut latent = smol();
    latent.embedding_length = 2048;
    for attention in latent.layers.iter_mut().filter_map(|layer| layer.attention.as_mut()) {
        (attention.query_heads, attention.kv_heads) = (16, 1);
        (attention.key_length, attention.value_length) = (576, 0);
    }
    near(&latent, (1, 100), 32_768, 320_392_896);
}
