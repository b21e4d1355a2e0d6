//! Plans for models and machines of all sizes.

use firepot_gguf::{Gguf, ModelMeta, testing::Builder};
use firepot_machine::{Gpu, Machine, Reading};
use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

/// 2 layers, 2 KV heads of 8: 128 bytes a cell.
fn small() -> ModelMeta {
    ModelMeta::from_gguf(&Gguf::read(&Builder::llama().build()).unwrap()).unwrap()
}

/// The shape of DeepSeek-R1-Distill-Qwen-7B Q4_K_M: 57,344 bytes a cell.
fn seven_b() -> ModelMeta {
    ModelMeta {
        weights_bytes: 4_680_000_000,
        ctx_train: 131_072,
        kv_heads: vec![4; 28],
        key_length: 128,
        value_length: 128,
        ..small()
    }
}

fn machine(available_bytes: u64) -> Machine {
    let mut machine = Machine::unread("a test");
    machine.memory.effective_available_bytes = Reading::Known(available_bytes);
    machine.cpu.cores_allowed = Reading::Known(4);
    machine
}

fn planned(meta: &ModelMeta, available_bytes: u64) -> Plan {
    plan(meta, &machine(available_bytes), &Want::default()).unwrap()
}

#[test]
fn a_small_model_gets_all_of_its_context_for_every_answer() {
    let plan = planned(&small(), 8 * GIB);
    assert_eq!((plan.ctx_per_answer, plan.parallel, plan.kv_cells), (4096, 4, 16_384));
    assert_eq!(plan.predicted.kv_bytes, 16_384 * 128);
    assert_eq!((plan.threads, plan.gpu_layers), (4, 0));
    assert!(plan.flash_attention && plan.mmap && !plan.repack && !plan.warmup);
}

#[test]
fn a_large_model_gets_what_fits() {
    let plan = planned(&seven_b(), 24 * GIB);
    assert_eq!((plan.ctx_per_answer, plan.kv_cells), (32_768, 131_072));
    let plan = planned(&seven_b(), 8 * GIB);
    assert_eq!(plan.ctx_per_answer, 16_384);
    assert!((16_384..4 * 16_384).contains(&plan.kv_cells), "{}", plan.kv_cells);
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let error = plan(&seven_b(), &machine(4 * GIB), &Want::default()).unwrap_err();
    assert!(matches!(error, PlanError::DoesNotFit { fits_ctx: None, .. }), "{error}");
    let want = Want { ctx: Some(131_072), ..Want::default() };
    let error = plan(&seven_b(), &machine(8 * GIB), &want).unwrap_err();
    let PlanError::DoesNotFit { fits_ctx: Some(ctx), .. } = error else { panic!("{error}") };
    assert!(plan(&seven_b(), &machine(8 * GIB), &Want { ctx: Some(ctx), ..want }).is_ok());
    assert!(error.hint().unwrap().contains(&ctx.to_string()));
}

#[test]
fn wishes_are_met_or_refused_by_name() {
    let with = |want: Want| plan(&small(), &machine(8 * GIB), &want);
    let plan =
        with(Want { ctx: Some(1000), parallel: Some(2), threads: Some(3), ..Want::default() }).unwrap();
    assert_eq!((plan.ctx_per_answer, plan.parallel, plan.kv_cells, plan.threads), (1000, 2, 2048, 3));
    for (want, word) in [
        (Want { ctx: Some(0), ..Want::default() }, "context is 0"),
        (Want { ctx: Some(5000), ..Want::default() }, "4096"),
        (Want { parallel: Some(65), ..Want::default() }, "64"),
        (Want { parallel: Some(0), ..Want::default() }, "parallel"),
        (Want { threads: Some(0), ..Want::default() }, "threads"),
    ] {
        let error = with(want).unwrap_err().to_string();
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn a_gpu_is_used_only_with_a_backend_and_room() {
    let mut machine = machine(8 * GIB);
    machine.gpus.devices.push(Gpu {
        name: "Tesla T4".into(),
        compute_capability: Reading::Known((7, 5)),
        total_bytes: Reading::Known(16 * GIB),
        free_bytes: Reading::Known(15 * GIB),
    });
    let layers = |machine: &Machine, gpu_usable| {
        let plan = plan(&seven_b(), machine, &Want { gpu_usable, ..Want::default() }).unwrap();
        let reason = plan.reasons.iter().find(|reason| reason.parameter == "gpu_layers").unwrap().why.clone();
        (plan.gpu_layers, reason)
    };
    assert_eq!(layers(&machine, true).0, -1);
    assert!(layers(&machine, false).1.contains("no backend"));
    machine.gpus.devices[0].free_bytes = Reading::Known(2 * GIB);
    assert_eq!(layers(&machine, true).0, 0);
}

#[test]
fn every_parameter_has_one_reason() {
    let plan = planned(&small(), GIB);
    let json = serde_json::to_value(&plan).unwrap();
    let mut parameters: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    parameters.retain(|name| !["predicted", "reasons"].contains(name));
    let mut reasons: Vec<&str> = plan.reasons.iter().map(|reason| reason.parameter).collect();
    parameters.sort_unstable();
    reasons.sort_unstable();
    assert_eq!(reasons, parameters);
}

#[test]
fn unknown_memory_is_not_taken_for_none() {
    let plan = plan(&seven_b(), &Machine::unread("a test"), &Want::default()).unwrap();
    assert_eq!((plan.ctx_per_answer, plan.threads), (32_768, 1));
}

prop_compose! {
    fn any_meta()(
        weights_bytes: u64, ctx_train in 1_u32.., kv_heads in proptest::collection::vec(0_u32..200, 0..90),
        key_length in 0_u32..1000, value_length in 0_u32..1000,
    ) -> ModelMeta {
        ModelMeta { weights_bytes: weights_bytes >> 20, ctx_train, kv_heads, key_length, value_length, ..small() }
    }
}

proptest! {
    #[test]
    fn a_plan_never_takes_more_than_there_is(meta in any_meta(), available in 0_u64..1 << 42, ctx: Option<u32>, parallel: Option<u32>) {
        let want = Want { ctx, parallel, ..Want::default() };
        if let Ok(plan) = plan(&meta, &machine(available), &want) {
            prop_assert!(plan.predicted.weights_bytes <= available);
            prop_assert!(plan.ctx_per_answer <= meta.ctx_train);
            prop_assert!(plan.kv_cells >= plan.ctx_per_answer);
            // Cells come in steps, so a plan may exceed by less than one step.
            let step = memory::kv_bytes(&meta, limits::CELL_STEP);
            let whole = plan.predicted.weights_bytes.saturating_add(plan.predicted.kv_bytes);
            prop_assert!(whole <= available.saturating_add(step));
        }
    }

    #[test]
    fn more_memory_never_gives_a_worse_plan(meta in any_meta(), less in 0_u64..1 << 41, more in 0_u64..1 << 41) {
        let (before, after) = (plan(&meta, &machine(less), &Want::default()), plan(&meta, &machine(less + more), &Want::default()));
        if let Ok(before) = before {
            let after = after.unwrap();
            prop_assert!(after.ctx_per_answer >= before.ctx_per_answer);
            prop_assert!(after.kv_cells >= before.kv_cells);
        }
    }
}
