//! What limits a plan, and what the next cheaper change would buy.

use firepot_gguf::Layout;
use firepot_machine::Machine;
use serde::Serialize;

use crate::{
    GpuUse, KvType, Plan, Want,
    budget::{Budget, trained},
    decide::is_mixture,
    error::mib,
    footprint::Device,
    limits::{CELLS_SHARED_MAX, CTX_DEFAULT_MAX},
    plan,
};

/// What limits a plan, and what other wishes would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What keeps context, answers or speed from being larger.
    pub binds: String,
    /// Changes that buy something, the cheapest first.
    pub changes: Vec<Change>,
}

/// Another wish, and what it would buy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What is to be changed.
    pub change: String,
    /// What that buys.
    pub buys: String,
    /// What it costs.
    pub costs: &'static str,
}

/// Explains `made`, the plan for these wishes.
#[must_use]
pub fn explain(layout: &Layout, machine: &Machine, want: &Want, made: &Plan) -> Explanation {
    let changed = |(change, costs, want): (String, &'static str, Want)| {
        let buys = bought(made, &plan(layout, machine, &want).ok()?)?;
        Some(Change { change, buys, costs })
    };
    Explanation {
        binds: binds(layout, machine, want, made),
        changes: others(layout, want, made).filter_map(changed).collect(),
    }
}

fn binds(layout: &Layout, machine: &Machine, want: &Want, made: &Plan) -> String {
    let trained = trained(layout);
    let full = u64::from(made.ctx_per_answer) * u64::from(made.parallel) <= made.kv_cells.into();
    match made.ctx_per_answer {
        ctx if want.ctx == Some(ctx) && full => "nothing but the context that was asked for".to_owned(),
        ctx if ctx == trained && full => {
            format!("nothing: each answer can have the {trained} tokens that the model was trained with")
        }
        ctx if made.gpus.is_empty() && (ctx == CTX_DEFAULT_MAX || made.kv_cells >= CELLS_SHARED_MAX) => {
            "the time of a start: a longer cache is made when it is asked for".to_owned()
        }
        _ => tightest(machine, want, made),
    }
}

/// The device on which the least is left.
fn tightest(machine: &Machine, want: &Want, made: &Plan) -> String {
    let budget = Budget::of(machine, want);
    let gpus = made.predicted.gpus.iter().map(|&(gpu, bytes)| (Device::Gpu(gpu), bytes.total()));
    let host = (Device::Host, made.predicted.host_bytes());
    let left = gpus.chain([host]).filter_map(|(device, taken)| {
        let available = budget.on(device)?;
        Some((available.saturating_sub(taken), available, taken, device))
    });
    match left.min_by_key(|found| found.0) {
        Some((_, available, taken, device)) => {
            let name = match device {
                Device::Host => "main memory",
                Device::Gpu(gpu) => {
                    machine.gpus.devices.get(gpu).map_or("GPU memory", |gpu| gpu.name.as_str())
                }
            };
            format!("{name}: {} of {} MiB are taken", mib(taken), mib(available))
        }
        None => "memory that is not known: the plan is careful".to_owned(),
    }
}

/// Other wishes, the cheapest first: each leaves answers as good as they are, or nearly.
fn others<'a>(
    layout: &Layout,
    want: &'a Want,
    made: &'a Plan,
) -> impl Iterator<Item = (String, &'static str, Want)> + 'a {
    let kv = [
        (KvType::Q8_0, "answers differ a little from exact ones"),
        (KvType::Q4_0, "answers differ from exact ones, in long contexts visibly"),
    ];
    let mixture = is_mixture(layout);
    let smaller = kv.into_iter().filter(move |(kind, _)| {
        want.kv_type.is_none() && !mixture && kind.bytes(32) < made.kv_type_k.bytes(32)
    });
    let fewer = (made.parallel > 1)
        .then(|| ("one answer at a time".to_owned(), "others wait", Want { parallel: Some(1), ..*want }));
    let host = (want.gpu != GpuUse::Never && made.gpu_layers > 0).then(|| {
        ("main memory alone".to_owned(), "every token is slower", Want { gpu: GpuUse::Never, ..*want })
    });
    smaller
        .map(move |(kind, costs)| {
            (format!("a KV cache in {}", kind.name()), costs, Want { kv_type: Some(kind), ..*want })
        })
        .chain(fewer)
        .chain(host)
}

/// Layers on GPUs, so that more is better.
fn on_gpus(plan: &Plan) -> u32 {
    u32::try_from(plan.gpu_layers).unwrap_or(u32::MAX)
}

/// What `other` has more of, or needs less of; `None` when that is nothing.
fn bought(made: &Plan, other: &Plan) -> Option<String> {
    if on_gpus(other) > on_gpus(made) || (other.host_experts < made.host_experts) {
        return Some("more of the model on the GPU".to_owned());
    }
    if other.ctx_per_answer > made.ctx_per_answer {
        let (more, now) = (other.ctx_per_answer, made.ctx_per_answer);
        return Some(format!("a context of {more} tokens instead of {now}"));
    }
    let full = |plan: &Plan| plan.kv_cells / plan.ctx_per_answer.max(1);
    if other.ctx_per_answer == made.ctx_per_answer && full(other) > full(made) {
        return Some(format!("{} full answers at once instead of {}", full(other), full(made)));
    }
    let (now, then) = (made.predicted.total_bytes(), other.predicted.total_bytes());
    let saved = now.saturating_sub(then);
    (saved > now / 20 && other.ctx_per_answer == made.ctx_per_answer)
        .then(|| format!("{} MiB less memory", mib(saved)))
}
