//! Wishes that nothing can meet, or that contradict each other: refused with the reason and the way out.

use std::{fs, io::Write as _};

use firepot_gguf::Layout;
use firepot_machine::{Environment, Gpus, Machine};

use super::{
    KvType, PlanError, Want, plan,
    tests::{cpu_machine, mixture, qwen_7b, smol, why},
};

const GIB: u64 = 1 << 30;

fn refused(layout: &Layout, machine: &Machine, want: Want) -> (String, String) {
    let error = plan(layout, machine, &want).unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn a_context_without_room_for_the_thinking_that_was_asked_for_is_refused() {
    let machine = cpu_machine(64 * GIB);
    let want = |ctx, think| Want { ctx: Some(ctx), think_tokens: Some(think), ..Want::default() };
    let (error, hint) = refused(&qwen_7b(), &machine, want(4096, 8192));
    assert_eq!(
        error,
        "a context of 4096 tokens was asked for, and 8192 tokens of thinking beside question and answer take 12288"
    );
    assert_eq!(hint, "ask for a context of 12288 tokens or more, or leave it to the planner");
    assert_eq!(plan(&qwen_7b(), &machine, &want(12_288, 8192)).unwrap().ctx_per_answer, 12_288);
    let both = Want { ctx: Some(4096), ctx_min: Some(5000), ..Want::default() };
    let (error, _) = refused(&qwen_7b(), &machine, both);
    assert_eq!(error, "a context of 4096 tokens was asked for, and one of at least 5000 too");
    let more = Want { ctx_min: Some(20_000), ..want(16_384, 8192) };
    assert!(refused(&qwen_7b(), &machine, more).0.ends_with("at least 20000 too"));
}

#[test]
fn the_type_of_the_cache_that_was_asked_for_is_taken_with_flash_attention() {
    for kind in [KvType::Q8_0, KvType::Q4_0] {
        let want = Want { kv_type: Some(kind), parallel: Some(1), ..Want::default() };
        let plan = plan(&qwen_7b(), &cpu_machine(64 * GIB), &want).unwrap();
        assert_eq!((plan.kv_type_k, plan.kv_type_v, plan.flash_attention), (kind, kind, true));
        assert_eq!(why(&plan, "flash_attention"), "a quantized V cache needs it");
        assert_eq!(why(&plan, "kv_type_v"), "asked for");
    }
}

#[test]
fn a_cache_in_blocks_that_the_heads_do_not_fill_is_refused_by_name() {
    let mut layout = smol();
    for layer in &mut layout.layers {
        let heads = layer.attention.as_mut().unwrap();
        (heads.key_length, heads.value_length) = (80, 80);
    }
    let machine = cpu_machine(64 * GIB);
    let want = |kind| Want { kv_type: Some(kind), ..Want::default() };
    let (error, hint) = refused(&layout, &machine, want(KvType::Q8_0));
    assert_eq!(error, "a KV cache in q8_0 is made of blocks of 32 elements, and a head of this model has 80");
    assert!(hint.contains("f16"), "{hint}");
    assert!(plan(&layout, &machine, &want(KvType::F16)).is_ok());
}

#[test]
fn a_mixture_gets_a_quantized_cache_when_it_is_asked_for_with_a_warning() {
    let want = Want { kv_type: Some(KvType::Q8_0), ..Want::default() };
    let plan = plan(&mixture(), &cpu_machine(128 * GIB), &want).unwrap();
    assert_eq!(plan.kv_type_v, KvType::Q8_0);
    assert!(why(&plan, "kv_type_v").contains("some mixtures"), "{}", why(&plan, "kv_type_v"));
}

#[test]
fn a_ceiling_that_nothing_fits_under_is_named() {
    let want = |mib: u64| Want { memory_bytes: Some(mib << 20), ..Want::default() };
    let (error, hint) = refused(&qwen_7b(), &cpu_machine(64 * GIB), want(1));
    assert!(error.starts_with("the model needs ") && error.contains(", and 1 MiB are available"), "{error}");
    assert!(error.ends_with(": 1 MiB is the most that it was allowed"), "{error}");
    assert_eq!(hint, "allow it more memory");
    let long = Want { ctx: Some(131_072), ..want(5500) };
    let (error, hint) = refused(&qwen_7b(), &cpu_machine(64 * GIB), long);
    assert!(error.contains("a context of 131072 tokens needs ") && error.contains("5500 MiB"), "{error}");
    assert!(hint.starts_with("a context of "), "{hint}");
    // Where the machine itself has less, the ceiling is not what keeps the model out.
    let (error, hint) = refused(&qwen_7b(), &cpu_machine(GIB), want(5000));
    assert!(!error.contains("allowed") && hint.ends_with("free some memory"), "{error}: {hint}");
}

/// Files as Linux shows them to a container on a machine with 23 GiB, of which a limit leaves less.
fn in_a_container(limit_bytes: &str) -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    file(
        "proc/meminfo",
        "MemTotal:       24684092 kB\nMemFree:        23256548 kB\nMemAvailable:   24221816 kB\n",
    );
    file("proc/self/cgroup", "0::/\n");
    file("sys/fs/cgroup/memory.max", limit_bytes);
    file("sys/fs/cgroup/memory.current", "104857600\n");
    file("sys/fs/cgroup/memory.stat", "inactive_file 0\nactive_file 0\n");
    let machine = Machine::recorded(dir.path(), &Environment::default());
    Machine { gpus: Gpus::none("it has none"), ..machine }
}

#[test]
fn a_control_group_s_limit_below_the_weights_is_named() {
    let machine = in_a_container("2147483648\n");
    let (error, hint) = refused(&qwen_7b(), &machine, Want::default());
    assert!(error.starts_with("the model needs ") && error.contains("4461 MiB of them weights"), "{error}");
    assert!(error.ends_with(": the limit of a control group is 2048 MiB"), "{error}");
    assert!(hint.contains("would fit; else give the container or control group more memory"), "{hint}");
    assert!(plan(&qwen_7b(), &in_a_container("max\n"), &Want::default()).is_ok());
    let small = plan(&smol(), &machine, &Want::default()).unwrap();
    assert!(small.predicted.total_bytes() <= 2 * GIB - (100 << 20), "{:?}", small.predicted);
    assert!(
        matches!(plan(&qwen_7b(), &machine, &Want::default()), Err(error @ PlanError::Limited { .. }) if error.is_memory())
    );
}
