//! A second model beside a first that has all of a GPU.

use std::{path::PathBuf, sync::Arc};

use firepot_gguf::{Attention, Layer, TensorType, Weights};
use firepot_machine::{Gpu, Gpus, Memory, Reading};
use firepot_server::pool::RunnerId;
use firepot_store::{Defaults, Digest, ModelSummary, Origin};

use super::*;

const GIB: u64 = 1 << 30;

/// The shape of a 7B model with 4-bit weights.
fn layout() -> Layout {
    let kind = TensorType::by_id(12).unwrap();
    let attention = Attention {
        query_heads: 28,
        kv_heads: 4,
        key_length: 128,
        value_length: 128,
        window: None,
        cached: true,
    };
    let layer = Layer {
        dense: Weights::of([(kind, 160 << 20)]),
        feed_forward_length: 18_944,
        attention: Some(attention),
        computed: true,
        ..Layer::default()
    };
    Layout {
        architecture: "qwen2".to_owned(),
        ctx_train: 131_072,
        embedding_length: 3584,
        vocab_size: 152_064,
        layers: vec![layer; 28],
        input: Weights::of([(kind, 160 << 20)]),
        output: Weights::default(),
        tied: false,
    }
}

fn model() -> Model {
    let summary = ModelSummary {
        architecture: "qwen2".into(),
        title: None,
        parameters: 7_000_000_000,
        parameter_size: "7B".into(),
        quantization: "Q4_K_M".into(),
        ctx_train: 131_072,
        embedding_length: 3584,
        template: None,
        license: None,
    };
    Model {
        name: "first".parse().unwrap(),
        digest: Digest::of(b""),
        manifest_digest: Digest::of(b""),
        size_bytes: 1,
        modified_at: jiff::Timestamp::UNIX_EPOCH,
        blob_path: "/model".into(),
        shards: Vec::new(),
        projector: None,
        summary,
        defaults: Defaults::default(),
        origin: Origin::Store,
    }
}

/// A T4 that has so much free, and plenty of main memory.
fn look(free_bytes: u64) -> Look {
    let mut t4 = Gpu::of("Tesla T4", (7, 5), 15 * GIB, free_bytes);
    t4.used_bytes = Reading::Known(15 * GIB - free_bytes);
    let machine = Machine {
        gpus: Gpus::of(vec![t4]),
        memory: Memory::of(31 * GIB, 29 * GIB),
        ..Machine::unread("a test")
    };
    Look { layout: layout(), machine, names: DeviceNames::default(), fastest: None }
}

fn planner() -> LocalPlanner {
    LocalPlanner {
        home: PathBuf::from("/nowhere"),
        environment: Environment::default(),
        gpu: GpuUse::Auto,
        asked: Answers::default(),
        observed_at: Mutex::default(),
    }
}

#[test]
fn a_second_model_takes_the_gpu_of_an_idle_one_and_says_why_it_is_in_main_memory_beside_a_busy_one() {
    let (planner, model, wishes) = (planner(), model(), Wishes::default());
    let alone = look(15 * GIB).decide(&planner, &model, &wishes, &Held::default());
    let first = alone.plan.unwrap();
    assert_eq!(first.placement, Placement::Whole);
    let [(0, taken_bytes)] = first.on_gpus[..] else { panic!("{:?}", first.on_gpus) };
    let (runner, name) = (RunnerId::default(), model.name.clone());
    let holder = Holder { runner, model: name, plan: Arc::new(first), resident_bytes: None };
    let full = look(15 * GIB - taken_bytes);
    let held = Held { holders: vec![holder], idle: vec![vec![runner]] };
    let idle = full.decide(&planner, &model, &wishes, &held);
    assert_eq!(idle.unload, [runner]);
    let busy = full.decide(&planner, &model, &wishes, &Held { idle: Vec::new(), ..held });
    assert!(busy.unload.is_empty());
    let plan = busy.plan.unwrap();
    assert!(plan.placement < Placement::Whole, "{:?}", plan.placement);
    assert!(
        plan.reasons.iter().any(|why| why.starts_with("beside = first:latest: in use")),
        "{:?}",
        plan.reasons
    );
}
