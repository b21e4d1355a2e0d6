//! Main memory or GPU.

use firepot_gguf::ModelMeta;
use firepot_machine::Machine;

use crate::{
    GpuUse, PlanError, Want,
    budget::{Room, gpu_bytes, trained},
    cost::Cost,
    error::{cells_for, mib, mib_up},
    limits::CTX_GPU_MIN,
    shape::Shape,
};

/// Where the model goes, and its shape there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub shape: Shape,
    /// As llama.cpp counts: 0 none, -1 all.
    pub gpu_layers: i32,
    pub gpu_why: String,
}

/// A GPU that holds the whole model is used; else main memory.
pub fn place(
    meta: &ModelMeta,
    machine: &Machine,
    want: &Want,
    parallel: u32,
    cost: &Cost,
) -> Result<Placed, PlanError> {
    let on_host =
        || Shape::fit(meta, want, parallel, cost, &Room::on_host(machine, want, meta, cost, parallel));
    let (gpu, available_bytes) = match usable_gpu(machine, want) {
        Ok(gpu) => gpu,
        Err(gpu_why) => return Ok(Placed { shape: on_host()?, gpu_layers: 0, gpu_why }),
    };
    if let Some(layers) = want.gpu_layers.filter(|&layers| layers <= meta.n_layers) {
        return Ok(split_over(meta, cost, on_host()?, layers, gpu, available_bytes));
    }
    let needs_bytes = gpu_needs_bytes(meta, want, cost);
    let (needs, available) = (mib_up(needs_bytes), mib(available_bytes));
    if needs_bytes <= available_bytes {
        let shape = Shape::fit(meta, want, parallel, cost, &Room::on_gpu(available_bytes, meta, cost))?;
        let gpu_why = format!("{gpu} has {available} MiB for the model, which holds all of it");
        return Ok(Placed { shape, gpu_layers: -1, gpu_why });
    }
    let gpu_why =
        format!("{gpu} has {available} MiB for the model, which needs {needs} MiB with a useful context");
    Ok(Placed { shape: on_host()?, gpu_layers: 0, gpu_why })
}

/// The GPU to use and its memory, or why there is none.
fn usable_gpu<'a>(machine: &'a Machine, want: &Want) -> Result<(&'a str, u64), String> {
    match want.gpu {
        GpuUse::Never => return Err("no GPU: asked for".to_owned()),
        GpuUse::NoBackend => return Err(without_backend(machine)),
        GpuUse::Auto if want.gpu_layers == Some(0) => return Err("no layers on a GPU: asked for".to_owned()),
        GpuUse::Auto => {}
    }
    gpu_bytes(machine, want).ok_or_else(|| without_gpu(machine))
}

fn without_backend(machine: &Machine) -> String {
    match machine.gpus.devices.first() {
        Some(gpu) => format!("{} is there, but this program was built without a GPU backend", gpu.name),
        None => "this program was built without a GPU backend".to_owned(),
    }
}

fn without_gpu(machine: &Machine) -> String {
    let gpus = &machine.gpus;
    if let Some(gpu) = gpus.unusable().first() {
        return format!("{} cannot be used: {}", gpu.name, gpu.reason);
    }
    let listed = "the GPU's free memory cannot be read".to_owned();
    gpus.absent.as_ref().map_or(listed, |absent| format!("no usable GPU: {absent}"))
}

/// What the GPU must hold: the model with the context that was asked for, or with a useful one.
fn gpu_needs_bytes(meta: &ModelMeta, want: &Want, cost: &Cost) -> u64 {
    let ctx = want.ctx.unwrap_or_else(|| CTX_GPU_MIN.min(trained(meta)));
    cost.total_bytes(cells_for(ctx.into()))
}

/// The whole model is sized for main memory, as if the GPU took nothing of it: an upper bound.
fn split_over(
    meta: &ModelMeta,
    cost: &Cost,
    shape: Shape,
    layers: u32,
    gpu: &str,
    available_bytes: u64,
) -> Placed {
    let share_bytes = layer_share(cost.total_bytes(shape.cells.into()), layers, meta.n_layers);
    let (part, available) = (mib_up(share_bytes), mib(available_bytes));
    if share_bytes <= available_bytes {
        let gpu_why = format!("asked for; about {part} MiB of {gpu}");
        return Placed { shape, gpu_layers: layers as i32, gpu_why };
    }
    let gpu_why =
        format!("{layers} were asked for, and need about {part} MiB of {gpu}, which has {available}");
    Placed { shape, gpu_layers: 0, gpu_why }
}

/// The part of `bytes` in so many of the model's layers.
pub fn layer_share(bytes: u64, layers: u32, n_layers: u32) -> u64 {
    let share = u128::from(bytes) * u128::from(layers) / u128::from(n_layers.max(1));
    share.min(bytes.into()) as u64
}
