//! How much memory there is, and how many KV cells it has room for.

use firepot_gguf::Layout;
use firepot_machine::{Machine, Reading};

use crate::{
    Want,
    footprint::{Device, Footprint},
    limits::{
        CELLS_SHARED_MAX, CELLS_STEP, CTX_DEFAULT_MAX, CTX_FLOOR, CTX_GPU_MIN, GPU_CONTEXT_BYTES,
        GPU_MARGIN_BYTES, HOST_MARGIN_BYTES, HOST_MARGIN_MIN_BYTES, KV_CELLS_MAX,
    },
};

/// Memory that a model may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of main memory; `None` when the machine does not say.
    pub host_bytes: Option<u64>,
    /// Of each GPU, in the machine's order; `None` for one that does not say.
    pub gpu_bytes: Vec<Option<u64>>,
}

impl Budget {
    /// What is available, less what is promised and a margin, and never more than the ceiling that was asked for.
    pub fn of(machine: &Machine, want: &Want) -> Self {
        let under = |bytes: u64| want.memory_bytes.map_or(bytes, |ceiling| bytes.min(ceiling));
        let available_bytes = machine.memory.effective_available_bytes.known().copied();
        let taken = |index: usize| if index == 0 { want.taken.gpu_bytes } else { 0 };
        let gpus = machine.gpus.devices.iter().enumerate().map(|(index, gpu)| {
            let free_bytes = *gpu.free_bytes.known()?;
            Some(under(free_bytes.saturating_sub(taken(index)).saturating_sub(GPU_MARGIN_BYTES)))
        });
        let host_bytes = available_bytes
            .map(|bytes| bytes.saturating_sub(want.taken.host_bytes))
            .map(|bytes| bytes.saturating_sub(host_margin(bytes)));
        Self { host_bytes: host_bytes.map(under).or(want.memory_bytes), gpu_bytes: gpus.collect() }
    }

    /// What a device has; `None` when it is not known.
    pub fn on(&self, device: Device) -> Option<u64> {
        match device {
            Device::Host => self.host_bytes,
            Device::Gpu(index) => self.gpu_bytes.get(index).copied().flatten(),
        }
    }
}

/// What a model may take of a GPU, or without one of main memory, in bytes; `None` when the machine does not say.
#[must_use]
pub fn available_bytes(machine: &Machine, want: &Want, gpu: Option<usize>) -> Option<u64> {
    Budget::of(machine, want).on(gpu.map_or(Device::Host, Device::Gpu))
}

/// The machine as it is when so much main memory, and so much of GPUs, is given back. On each of those GPUs a driver's
/// context goes with it.
#[must_use]
pub fn with_freed(machine: &Machine, host_bytes: u64, gpu_bytes: &[(usize, u64)]) -> Machine {
    let mut machine = machine.clone();
    add(&mut machine.memory.effective_available_bytes, host_bytes);
    for &(gpu, bytes) in gpu_bytes {
        let Some(gpu) = machine.gpus.devices.get_mut(gpu) else { continue };
        let used_bytes = gpu.used_bytes.known().copied().unwrap_or(u64::MAX);
        let freed_bytes = bytes.saturating_add(GPU_CONTEXT_BYTES).min(used_bytes);
        add(&mut gpu.free_bytes, freed_bytes);
        gpu.used_bytes = gpu.used_bytes.clone().map(|used| used.saturating_sub(freed_bytes));
    }
    machine
}

fn add(reading: &mut Reading<u64>, bytes: u64) {
    *reading = reading.clone().map(|read| read.saturating_add(bytes));
}

/// A sixteenth of what is available, within bounds: more memory never leaves less for the model.
pub fn host_margin(available_bytes: u64) -> u64 {
    (available_bytes / 16).clamp(HOST_MARGIN_MIN_BYTES, HOST_MARGIN_BYTES)
}

/// Room for KV cells beside a model's weights and compute buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What is available for the whole model; `None` when the machine does not say.
    pub available_bytes: Option<u64>,
    /// Cells for which there is room at all.
    pub cells_max: u64,
    /// Cells that are taken when nobody asks for more.
    pub cells_default: u64,
    /// Cells that are enough for answers that share them; `None` on a GPU, where unused memory serves nobody, and where
    /// the memory is not known.
    pub cells_shared: Option<u64>,
    /// Which part of the memory these are, for reasons.
    pub part: &'static str,
    /// The smallest context that is chosen while there is room for it.
    pub ctx_floor: u32,
    /// The largest context that is chosen unasked.
    pub ctx_cap: u32,
}

impl Room {
    /// Room for a placed model. Half of what it leaves of main memory stays with the page cache and other programs.
    /// Where main memory is not known, everything is believed to fit, and the default is careful.
    pub fn of(footprint: &Footprint<'_>, budget: &Budget) -> Self {
        let devices = footprint.placing.devices();
        let on_host = footprint.placing.layers.contains(&Device::Host);
        let trained = trained(footprint.layout);
        let (floor, cap) = if on_host { (CTX_FLOOR, CTX_DEFAULT_MAX) } else { (CTX_GPU_MIN, u32::MAX) };
        let (ctx_floor, ctx_cap) = (floor.min(trained), cap.min(trained));
        let known = devices.iter().all(|&device| budget.on(device).is_some());
        let cells_max = largest(|cells| fits(footprint, budget, cells));
        if !known {
            let cells_default = u64::from(ctx_floor) * u64::from(footprint.params.parallel);
            let cells_default = crate::error::cells_for(cells_default).min(cells_max);
            let part = "memory that is not known";
            return Self {
                available_bytes: None,
                cells_max,
                cells_default,
                cells_shared: None,
                part,
                ctx_floor,
                ctx_cap,
            };
        }
        let available = devices.iter().filter_map(|&device| budget.on(device)).fold(0, u64::saturating_add);
        let half = Budget {
            host_bytes: budget.host_bytes.map(|bytes| half_of_rest(footprint, bytes)),
            ..budget.clone()
        };
        Self {
            available_bytes: Some(available),
            cells_max,
            cells_default: if on_host { largest(|cells| fits(footprint, &half, cells)) } else { cells_max },
            cells_shared: on_host.then_some(CELLS_SHARED_MAX.into()),
            part: if on_host {
                "half of the memory that the weights leave"
            } else {
                "the GPU memory that the weights leave"
            },
            ctx_floor,
            ctx_cap,
        }
    }
}

/// What the model takes of main memory with the cells of one ubatch, and half of the rest.
fn half_of_rest(footprint: &Footprint<'_>, bytes: u64) -> u64 {
    let fixed_bytes = footprint.taken(Device::Host, footprint.params.ubatch_tokens.into()).min(bytes);
    fixed_bytes + (bytes - fixed_bytes) / 2
}

/// Whether every device has room; one that does not say has.
pub fn fits(footprint: &Footprint<'_>, budget: &Budget, cells: u64) -> bool {
    let devices = footprint.placing.devices().into_iter();
    devices
        .filter_map(|device| Some((device, budget.on(device)?)))
        .all(|(device, bytes)| footprint.taken(device, cells) <= bytes)
}

/// The most cells that fit, in whole steps: more cells never take less.
fn largest(fits: impl Fn(u64) -> bool) -> u64 {
    let step = u64::from(CELLS_STEP);
    let (mut enough, mut too_many) = (0, u64::from(KV_CELLS_MAX) / step + 1);
    while too_many - enough > 1 {
        let middle = u64::midpoint(enough, too_many);
        if fits(middle * step) { enough = middle } else { too_many = middle }
    }
    enough * step
}

/// Context that the model was trained with, in tokens; never 0.
pub fn trained(layout: &Layout) -> u32 {
    layout.ctx_train.max(1)
}
