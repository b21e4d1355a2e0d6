//! Plans for known machines and models, and what holds for all of them.

use firepot_gguf::{Gguf, ModelMeta, testing::Builder};
use firepot_machine::{Gpu, GpuVendor, Gpus, Machine, Memory, PciGpu, Reading};
use proptest::prelude::*;

use crate::{
    CELLS_STEP, CTX_FLOOR, CTX_GPU_MIN, GPU_MARGIN_BYTES, GpuUse, HOST_MARGIN_BYTES, KvType, Plan, PlanError,
    Predicted, Taken, Want, plan,
};

const GIB: u64 = 1 << 30;

fn tiny() -> ModelMeta {
    Gguf::read(&Builder::llama().build()).unwrap().meta().unwrap()
}

/// DeepSeek-R1-Distill-Qwen-7B `Q4_K_M`.
fn qwen_7b() -> ModelMeta {
    ModelMeta {
        weights_bytes: 4_677_120_000,
        n_layers: 28,
        ctx_train: 131_072,
        embedding_length: 3584,
        feed_forward_length: Some(18_944),
        kv_heads: vec![4; 28],
        query_heads: 28,
        key_length: 128,
        value_length: 128,
        vocab_size: Some(152_064),
        ..tiny()
    }
}

/// SmolLM2-135M-Instruct `Q4_1`.
fn smol() -> ModelMeta {
    ModelMeta {
        weights_bytes: 96_576_768,
        n_layers: 30,
        ctx_train: 8192,
        embedding_length: 576,
        feed_forward_length: Some(1536),
        kv_heads: vec![3; 30],
        query_heads: 9,
        key_length: 64,
        value_length: 64,
        vocab_size: Some(49_152),
        ..tiny()
    }
}

fn cpu_machine(available_bytes: u64) -> Machine {
    let mut machine = Machine::unread("not looked at");
    machine.memory = Memory::of(available_bytes, available_bytes);
    machine.cpu.cores_allowed = Reading::Known(4);
    machine.cpu.cores_physical = Reading::Known(2);
    machine
}

fn gpu_machine(available_bytes: u64, gpu_bytes: &[u64]) -> Machine {
    let gpu = |&free_bytes| Gpu {
        name: "Tesla T4".to_owned(),
        compute_capability: Reading::Known((7, 5)),
        total_bytes: Reading::Known(free_bytes),
        free_bytes: Reading::Known(free_bytes),
    };
    let devices = gpu_bytes.iter().map(gpu).collect();
    Machine { gpus: Gpus { devices, absent: None, ..Gpus::none("") }, ..cpu_machine(available_bytes) }
}

fn why<'a>(plan: &'a Plan, parameter: &str) -> &'a str {
    &plan.reasons.iter().find(|reason| reason.parameter == parameter).unwrap().why
}

fn shape(plan: &Plan) -> (u32, u32, u32) {
    (plan.ctx_per_answer, plan.kv_cells, plan.parallel)
}

fn shape_on(meta: &ModelMeta, machine: &Machine, want: Want) -> (u32, u32, u32) {
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
    batch_tokens = 2048: llama.cpp's default
    ubatch_tokens = 512: llama.cpp's default, within the batch
    threads = 2: physical cores below the 4 logical ones that may be used
    threads_batch = 2: as for decode
    flash_attention = false: on a 2-core Zen 4 its absence raised decode from 47 to 79 tokens/s (SmolLM2, depth 2,560) and from 5.3 to 6.7 (7B Q4_K_M, depth 1,536), and prefill in batches of 64 from 177 to 250 and from 34 to 43; elsewhere not measured
    kv_type_k = f16: exact; a quantized cache is for when memory is short and its loss was measured
    kv_type_v = f16: exact; a quantized cache is for when memory is short and its loss was measured
    gpu_layers = 0: no usable GPU: not looked at
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
            .filter(|(name, _)| !["predicted", "reasons"].contains(&name.as_str()));
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
fn predicted_weights_and_kv_are_what_llama_cpp_allocates() {
    // From llama.cpp itself, both models with 32,768 cells; compute buffers in MiB with flash attention, and without it
    // with the f16 copy of the scores, which is in its work buffer.
    let predicted = |meta: &ModelMeta, available_bytes, ctx, parallel| {
        let want = Want { ctx: Some(ctx), parallel: Some(parallel), ..Want::default() };
        let plan = plan(meta, &cpu_machine(available_bytes), &want).unwrap();
        (plan.flash_attention, plan.predicted)
    };
    let compute_mib = |predicted: &Predicted| predicted.compute_bytes.known().unwrap() >> 20;
    let (flash, small) = predicted(&smol(), 5 * GIB / 2, 8192, 4);
    assert!(flash && (47..77).contains(&compute_mib(&small)), "{small:?}");
    let (flash, large) = predicted(&qwen_7b(), 9 * GIB, 32_768, 1);
    assert!(flash && (191..249).contains(&compute_mib(&large)), "{large:?}");
    let (flash, small) = predicted(&smol(), 100 * GIB, 8192, 4);
    assert!(!flash && (648 + 288..1000).contains(&compute_mib(&small)), "{small:?}");
    let (flash, large) = predicted(&qwen_7b(), 100 * GIB, 32_768, 1);
    assert!(!flash && (1900 + 896..2950).contains(&compute_mib(&large)), "{large:?}");
    assert_eq!((small.weights_bytes, small.kv_bytes), (96_576_768, 754_974_720));
    assert_eq!((large.weights_bytes, large.kv_bytes), (4_677_120_000, 1_879_048_192));
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
fn a_t4_takes_a_7b_model_with_the_largest_default_context() {
    let plan = plan(&qwen_7b(), &gpu_machine(29 * GIB, &[15 * GIB, 14 * GIB]), &Want::default()).unwrap();
    assert_eq!((plan.gpu_layers, shape(&plan)), (-1, (32_768, 131_072, 4)));
    assert_eq!(plan.predicted.gpu_bytes, plan.predicted.total_bytes());
    assert_eq!(plan.predicted.mapped_bytes, 0);
    assert_eq!(why(&plan, "gpu_layers"), "Tesla T4 has 14918 MiB for the model, which holds all of it");
}

#[test]
fn a_gpu_that_cannot_hold_the_model_is_not_used_and_the_plan_says_so() {
    let plan = plan(&qwen_7b(), &gpu_machine(29 * GIB, &[4 * GIB]), &Want::default()).unwrap();
    assert_eq!(plan.gpu_layers, 0);
    insta::assert_snapshot!(why(&plan, "gpu_layers"), @"Tesla T4 has 3654 MiB for the model, which needs 5095 MiB with a useful context");
    assert_eq!((plan.predicted.gpu_bytes, plan.predicted.mapped_bytes), (0, qwen_7b().weights_bytes));
}

#[test]
fn a_gpu_that_holds_one_useful_context_gives_it() {
    let machine = gpu_machine(29 * GIB, &[5200 * (1 << 20) + GPU_MARGIN_BYTES]);
    let plan = plan(&qwen_7b(), &machine, &Want::default()).unwrap();
    assert_eq!((plan.gpu_layers, plan.ctx_per_answer, plan.parallel), (-1, CTX_GPU_MIN, 4));
    assert!(plan.kv_cells >= CTX_GPU_MIN && plan.kv_cells < 4 * CTX_GPU_MIN);
    insta::assert_snapshot!(why(&plan, "kv_cells"), @"4 full answers need 32768, and the GPU memory that the weights leave holds 9984; answers wait for free cells");
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
fn some_layers_on_a_gpu_are_honoured_where_they_fit() {
    let want = Want { gpu_layers: Some(14), ..Want::default() };
    let split = plan(&qwen_7b(), &gpu_machine(29 * GIB, &[8 * GIB]), &want).unwrap();
    assert_eq!(split.gpu_layers, 14);
    let predicted = &split.predicted;
    assert_eq!(predicted.gpu_bytes, predicted.total_bytes() / 2);
    assert_eq!(predicted.mapped_bytes, predicted.weights_bytes / 2);
    let refused = plan(&qwen_7b(), &gpu_machine(29 * GIB, &[3 * GIB]), &want).unwrap();
    assert_eq!(refused.gpu_layers, 0);
    assert!(why(&refused, "gpu_layers").starts_with("14 were asked for"));
    let all = Want { gpu_layers: Some(999), ..Want::default() };
    assert_eq!(plan(&qwen_7b(), &gpu_machine(29 * GIB, &[15 * GIB]), &all).unwrap().gpu_layers, -1);
}

#[test]
fn the_default_context_shrinks_with_the_memory() {
    let on = |gib: u64| shape_on(&qwen_7b(), &cpu_machine(gib * GIB), Want::default());
    assert_eq!(on(64), (32_768, 32_768, 4));
    assert_eq!(on(8), (16_384, 16_384, 4));
    assert_eq!(on(6), (8192, 11_008, 4));
    // 5530 MiB are 5274 after the margin, 4638 MiB of them fixed: half of the rest is 5709 cells of 58,368 bytes.
    let tight = shape_on(&qwen_7b(), &cpu_machine(5530 << 20), Want::default());
    assert_eq!(tight, (4096, 5632, 2));
}

#[test]
fn when_memory_is_very_short_what_fits_is_taken() {
    let least = plan(&qwen_7b(), &cpu_machine(4995 << 20), &Want::default()).unwrap();
    assert!(least.ctx_per_answer < CTX_FLOOR && least.parallel == 1, "{:?}", shape(&least));
    assert_eq!(least.kv_cells, least.ctx_per_answer);
    assert_eq!(why(&least, "ctx_per_answer"), "memory is short: this is all that fits beside the weights");
}

fn refused(meta: &ModelMeta, machine: &Machine, want: Want) -> (String, String) {
    let error = plan(meta, machine, &want).unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn what_cannot_fit_is_refused_with_numbers_and_the_nearest_that_does() {
    let (error, hint) = refused(&qwen_7b(), &cpu_machine(4 * GIB), Want::default());
    insta::assert_snapshot!(error, @"the model needs 4653 MiB with the smallest context, 4461 MiB of them weights, and 3840 MiB are available");
    insta::assert_snapshot!(hint, @"a file of about 3647 MiB would fit; else free some memory");
    let want = Want { ctx: Some(65_536), ..Want::default() };
    let (error, hint) = refused(&qwen_7b(), &cpu_machine(6 * GIB), want);
    insta::assert_snapshot!(error, @"a context of 65536 tokens needs 8287 MiB with the model, and 5888 MiB are available");
    insta::assert_snapshot!(hint, @"a context of 22272 tokens fits");
    let fits = Want { ctx: Some(22_272), ..Want::default() };
    assert_eq!(shape_on(&qwen_7b(), &cpu_machine(6 * GIB), fits), (22_272, 22_272, 4));
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
    assert_eq!(plan.unwrap().gpu_layers, 0);
}

#[test]
fn a_machine_that_says_nothing_gets_careful_defaults() {
    let plan = plan(&qwen_7b(), &Machine::unread("it is far away"), &Want::default()).unwrap();
    assert_eq!(shape(&plan), (2048, 8192, 4));
    assert_eq!(why(&plan, "ctx_per_answer"), "the machine's memory is not known; a careful default");
    assert_eq!((plan.threads, why(&plan, "threads")), (2, "the cores cannot be counted; a careful default"));
}

#[test]
fn what_the_header_does_not_say_is_not_predicted() {
    let meta = ModelMeta { feed_forward_length: None, ..smol() };
    let plan = plan(&meta, &cpu_machine(23 * GIB), &Want::default()).unwrap();
    assert_eq!(plan.predicted.compute_bytes.reason(), Some("the header gives no feed-forward width"));
    assert_eq!(plan.predicted.total_bytes(), plan.predicted.weights_bytes + plan.predicted.kv_bytes);
}

#[test]
fn a_sliding_window_is_counted_in_full_and_said_so() {
    let meta = ModelMeta { sliding_window: Some(512), ..smol() };
    let plan = plan(&meta, &cpu_machine(23 * GIB), &Want::default()).unwrap();
    assert!(why(&plan, "kv_cells").ends_with("layers with a sliding window are counted as full attention"));
}

#[test]
fn kv_types_have_ggml_s_sizes() {
    assert_eq!(KvType::F16.bytes(128), 256);
    assert_eq!(KvType::Q8_0.bytes(128), 136);
    assert_eq!(KvType::Q4_0.bytes(128), 72);
    assert_eq!(KvType::Q8_0.bytes(33), 68);
}

#[test]
fn a_layer_without_attention_takes_no_cache() {
    let mut half = smol();
    half.kv_heads.iter_mut().step_by(2).for_each(|heads| *heads = 0);
    let kv_bytes =
        |meta: &ModelMeta| plan(meta, &cpu_machine(23 * GIB), &Want::default()).unwrap().predicted.kv_bytes;
    assert_eq!(kv_bytes(&half) * 2, kv_bytes(&smol()));
}

fn any_meta() -> impl Strategy<Value = ModelMeta> {
    let size = || prop_oneof![0_u32..200_000, any::<u32>()];
    let heads = proptest::collection::vec(size(), 0..40);
    let width = proptest::option::of(size());
    let vocab = proptest::option::of(any::<u64>());
    (any::<u64>(), size(), size(), heads, size(), width, vocab).prop_map(
        |(weights_bytes, ctx_train, length, kv_heads, n_layers, feed_forward_length, vocab_size)| ModelMeta {
            weights_bytes,
            ctx_train,
            key_length: length,
            value_length: length,
            embedding_length: length,
            kv_heads,
            n_layers,
            feed_forward_length,
            vocab_size,
            ..tiny()
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

/// Models of any proportions that could be met, so that many have a plan, which [`any_meta`] hardly ever has.
fn likely_meta() -> impl Strategy<Value = ModelMeta> {
    let heads = proptest::collection::vec(0_u32..16, 1..80);
    let width = proptest::option::of(1_u32..40_000);
    (0..30 * GIB, 1_u32..300_000, 1_u32..300, 1_u32..9000, heads, width, 1_u64..300_000).prop_map(
        |(weights_bytes, ctx_train, length, embedding_length, kv_heads, feed_forward_length, vocab_size)| {
            ModelMeta {
                weights_bytes,
                ctx_train,
                key_length: length,
                value_length: length,
                embedding_length,
                n_layers: kv_heads.len() as u32,
                kv_heads,
                feed_forward_length,
                vocab_size: Some(vocab_size),
                ..tiny()
            }
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

/// Two cases in three could be met; the third may be anything.
fn some_case() -> impl Strategy<Value = (ModelMeta, Want, u64, Option<u64>)> {
    let likely = (likely_meta(), likely_want(), 0..80 * GIB, proptest::option::of(0..80 * GIB));
    prop_oneof![2 => likely, 1 => (any_meta(), any_want(), any::<u64>(), any::<Option<u64>>())]
}

/// Models and wishes as they are met, so that most have a plan.
fn usual() -> impl Strategy<Value = (ModelMeta, Want)> {
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

fn sum(predicted: &Predicted) -> u128 {
    let compute_bytes = predicted.compute_bytes.known().copied().unwrap_or(0);
    [predicted.weights_bytes, predicted.kv_bytes, compute_bytes].into_iter().map(u128::from).sum()
}

proptest! {
    #[test]
    fn nothing_panics_and_a_plan_is_always_sound((meta, want, memory, gpu_memory) in some_case()) {
        let gpus: Vec<u64> = gpu_memory.into_iter().collect();
        let machine = gpu_machine(memory, &gpus);
        let Ok(plan) = plan(&meta, &machine, &want) else { return Ok(()) };
        prop_assert!(plan.ctx_per_answer >= 1 && plan.ctx_per_answer <= meta.ctx_train.max(1));
        prop_assert!(plan.kv_cells >= plan.ctx_per_answer && plan.kv_cells.is_multiple_of(CELLS_STEP));
        prop_assert!((1..=64).contains(&plan.parallel) && (1..=512).contains(&plan.threads));
        prop_assert!(plan.ubatch_tokens <= plan.batch_tokens);
        let available = if plan.gpu_layers < 0 {
            gpus[0] - GPU_MARGIN_BYTES - want.taken.gpu_bytes
        } else {
            memory - HOST_MARGIN_BYTES - want.taken.host_bytes
        };
        prop_assert!(sum(&plan.predicted) <= u128::from(available));
        prop_assert!(u128::from(plan.predicted.gpu_bytes) <= sum(&plan.predicted));
        prop_assert!(plan.predicted.mapped_bytes <= plan.predicted.weights_bytes);
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
        meta in likely_meta(), want in likely_want(), less in 0..80 * GIB, more in 0..80 * GIB,
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
    fn a_refused_context_names_one_that_fits(bytes in 5 * GIB..8 * GIB, ctx in 1_u32..=131_072) {
        let want = |ctx| Want { ctx: Some(ctx), ..Want::default() };
        let machine = cpu_machine(bytes);
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
