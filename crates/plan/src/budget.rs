//! How many KV cells a memory has room for.

use firepot_gguf::ModelMeta;
use firepot_machine::Machine;

use crate::{
    Want,
    cost::Cost,
    error::cells_for,
    limits::{
        CELLS_SHARED_MAX, CELLS_STEP, CTX_FLOOR, CTX_GPU_MIN, GPU_MARGIN_BYTES, HOST_MARGIN_BYTES,
        KV_CELLS_MAX,
    },
};

/// Room for KV cells beside a model's weights and compute buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What is available for the whole model; `None` when the machine does not say.
    pub available_bytes: Option<u64>,
    /// Cells for which there is room at all.
    pub cells_max: u64,
    /// Cells that are taken when nobody asks for more.
    pub cells_default: u64,
    /// Cells that are enough for answers that share them; `None` on a GPU and where the memory is not known, where unused memory serves nobody.
    pub cells_shared: Option<u64>,
    /// Which part of the memory these are, for reasons.
    pub part: &'static str,
    /// The smallest context that is chosen while there is room for it.
    pub ctx_floor: u32,
}

impl Room {
    /// Room in main memory. Half of what the weights leave stays with the page cache and other programs. Where the
    /// memory is not known, everything is believed to fit, and the default is careful.
    pub fn on_host(machine: &Machine, want: &Want, meta: &ModelMeta, cost: &Cost, parallel: u32) -> Self {
        let part = "half of the memory that the weights leave";
        let ctx_floor = CTX_FLOOR.min(trained(meta));
        let Some(available_bytes) = host_bytes(machine, want) else {
            let cells_default = cells_for(u64::from(ctx_floor) * u64::from(parallel));
            let cells_max = KV_CELLS_MAX.into();
            return Self {
                available_bytes: None,
                cells_max,
                cells_default,
                cells_shared: None,
                part,
                ctx_floor,
            };
        };
        let left_bytes = available_bytes.saturating_sub(cost.fixed_bytes());
        Self {
            available_bytes: Some(available_bytes),
            cells_max: cells_in(left_bytes, cost),
            cells_default: cells_in(left_bytes / 2, cost),
            cells_shared: Some(CELLS_SHARED_MAX.into()),
            part,
            ctx_floor,
        }
    }

    /// Room in a GPU's memory, all of which is the model's.
    pub fn on_gpu(available_bytes: u64, meta: &ModelMeta, cost: &Cost) -> Self {
        let cells = cells_in(available_bytes.saturating_sub(cost.fixed_bytes()), cost);
        Self {
            available_bytes: Some(available_bytes),
            cells_max: cells,
            cells_default: cells,
            cells_shared: None,
            part: "the GPU memory that the weights leave",
            ctx_floor: CTX_GPU_MIN.min(trained(meta)),
        }
    }
}

/// Context that the model was trained with, in tokens; never 0.
pub fn trained(meta: &ModelMeta) -> u32 {
    meta.ctx_train.max(1)
}

/// The GPU with the most free memory: its name and what a model may take of it.
pub fn gpu_bytes<'a>(machine: &'a Machine, want: &Want) -> Option<(&'a str, u64)> {
    let free =
        machine.gpus.devices.iter().filter_map(|gpu| Some((gpu.name.as_str(), *gpu.free_bytes.known()?)));
    let (name, free_bytes) = free.max_by_key(|(_, free_bytes)| *free_bytes)?;
    Some((name, free_bytes.saturating_sub(want.taken.gpu_bytes).saturating_sub(GPU_MARGIN_BYTES)))
}

/// Main memory for a model: what is effectively available, less what is promised and a margin.
pub fn host_bytes(machine: &Machine, want: &Want) -> Option<u64> {
    let available_bytes = *machine.memory.effective_available_bytes.known()?;
    Some(available_bytes.saturating_sub(want.taken.host_bytes).saturating_sub(HOST_MARGIN_BYTES))
}

/// Whole steps of cells in so many bytes.
fn cells_in(bytes: u64, cost: &Cost) -> u64 {
    let cells = (bytes / cost.cell_bytes().max(1)).min(KV_CELLS_MAX.into());
    cells - cells % u64::from(CELLS_STEP)
}
