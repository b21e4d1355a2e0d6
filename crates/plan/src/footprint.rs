//! What a placed model takes on each device, in bytes, as a function of its KV cells.
//!
//! Weights and KV cache are exact; compute buffers are what llama.cpp's allocator needs for the largest of a graph's
//! phases. `cargo xtask check-planner` compares all three with llama.cpp's own dry run.

use firepot_gguf::{Attention, Layer, Layout};
use serde::Serialize;

use crate::{
    KvType,
    error::cells_for,
    limits::{OUTPUT_ROWS_BYTES, SEQUENCES_CACHED, SEQUENCES_CACHED_MIN, SEQUENCES_CACHED_WITH_STATE},
    runner::runner_bytes,
};

/// A memory that holds a part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// Main memory.
    Host,
    /// A GPU, by its number among the machine's.
    Gpu(usize),
}

/// What a model takes on one device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceBytes {
    /// Tensors.
    pub weights_bytes: u64,
    /// KV cache and recurrent states.
    pub kv_bytes: u64,
    /// Compute buffers.
    pub compute_bytes: u64,
}

impl DeviceBytes {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.compute_bytes)
    }
}

/// Parameters of a load that its size depends on, but for the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Answers at the same time.
    pub parallel: u32,
    /// Most tokens computed at once.
    pub ubatch_tokens: u32,
    /// Types of the K and the V cache.
    pub kv_types: (KvType, KvType),
    /// Flash attention.
    pub flash_attention: bool,
}

/// Which device holds what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placing {
    /// For each layer.
    pub layers: Vec<Device>,
    /// For the output matrix.
    pub output: Device,
    /// The experts of so many of the first layers are in main memory, wherever the layers are.
    pub host_experts: u32,
}

impl Placing {
    /// Everything in main memory.
    pub fn host(layout: &Layout) -> Self {
        Self { layers: vec![Device::Host; layout.layers.len()], output: Device::Host, host_experts: 0 }
    }

    /// The last `gpu_layers` of the layers and the output, which counts as one more, on `shares` of GPUs, as llama.cpp
    /// cuts them (`get_layer_buft_list` in `llama-model.cpp`).
    pub fn on_gpus(layout: &Layout, gpu_layers: u32, shares: &[(usize, u64)], host_experts: u32) -> Self {
        let all = layout.layers.len() as u32 + 1;
        let on_gpus = gpu_layers.min(all);
        let first = all - on_gpus;
        let sum: u128 = shares.iter().map(|share| u128::from(share.1)).sum();
        let device = |index: u32| {
            if index < first {
                return Device::Host;
            }
            let place = u128::from(index - first) * sum;
            let mut upto = 0;
            let holds = |&&(_, share): &&(usize, u64)| {
                upto += u128::from(share) * u128::from(on_gpus);
                place < upto
            };
            let found = shares.iter().find(holds).or(shares.last());
            found.map_or(Device::Host, |&(gpu, _)| Device::Gpu(gpu))
        };
        Self { layers: (0..all - 1).map(device).collect(), output: device(all - 1), host_experts }
    }

    /// All of it is on GPUs, on several: llama.cpp then computes the next ubatch's first part beside this one's last.
    pub fn is_pipelined(&self) -> bool {
        self.gpu_layers() == -1 && self.host_experts == 0 && self.layers.iter().any(|on| *on != self.output)
    }

    /// All devices that hold something; main memory always does.
    pub fn devices(&self) -> Vec<Device> {
        let mut devices: Vec<Device> =
            [Device::Host, self.output].into_iter().chain(self.layers.iter().copied()).collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// Layers on GPUs as llama.cpp counts them: -1 all, with the output; 0 none.
    pub fn gpu_layers(&self) -> i32 {
        let on_gpus = self.layers.iter().filter(|&&device| device != Device::Host).count();
        match self.output {
            Device::Host => 0,
            Device::Gpu(_) if on_gpus == self.layers.len() => -1,
            Device::Gpu(_) => on_gpus as i32 + 1,
        }
    }
}

/// A model, where it is placed, and how it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Footprint<'a> {
    pub layout: &'a Layout,
    pub placing: &'a Placing,
    pub params: Params,
}

impl Footprint<'_> {
    /// What is taken on `device` with so many cells.
    pub fn on(&self, device: Device, cells: u64) -> DeviceBytes {
        DeviceBytes {
            weights_bytes: self.weights_bytes(device),
            kv_bytes: self
                .layers_on(device)
                .map(|layer| self.kv_bytes(layer, cells))
                .fold(0, u64::saturating_add),
            compute_bytes: self.compute_bytes(device, cells),
        }
    }

    /// What a load takes of `device` in all: of main memory also what its runner takes beside llama.cpp's buffers.
    pub fn taken(&self, device: Device, cells: u64) -> u64 {
        let beside_bytes = if device == Device::Host { runner_bytes(self, cells) } else { 0 };
        self.on(device, cells).total().saturating_add(beside_bytes)
    }

    /// What it takes of all devices together.
    pub fn total(&self, cells: u64) -> u64 {
        let devices = self.placing.devices().into_iter();
        devices.map(|device| self.taken(device, cells)).fold(0, u64::saturating_add)
    }

    fn layers_on(&self, device: Device) -> impl Iterator<Item = &Layer> {
        let placed = self.layout.layers.iter().zip(&self.placing.layers);
        placed.filter(move |(layer, on)| layer.computed && **on == device).map(|(layer, _)| layer)
    }

    fn weights_bytes(&self, device: Device) -> u64 {
        let Self { layout, placing, .. } = *self;
        let mut bytes = 0_u64;
        let mut add = |more: u64| bytes = bytes.saturating_add(more);
        if device == Device::Host {
            add(layout.input.bytes());
        }
        if placing.output == device {
            add(layout.output.bytes());
            // The embedding is copied to where it is the output matrix.
            if layout.tied && device != Device::Host {
                add(layout.input.bytes());
            }
        }
        for (index, (layer, &on)) in layout.layers.iter().zip(&placing.layers).enumerate() {
            let experts_on = if (index as u32) < placing.host_experts { Device::Host } else { on };
            if layer.computed && on == device {
                add(layer.dense.bytes());
            }
            if layer.computed && experts_on == device {
                add(layer.experts.bytes());
            }
        }
        bytes
    }

    /// KV cache and state of a layer (`llama_kv_cache`, `llama_kv_cache_iswa`, `llama_memory_recurrent`).
    fn kv_bytes(&self, layer: &Layer, cells: u64) -> u64 {
        let (k, v) = self.params.kv_types;
        let attention = layer.attention.filter(|attention| attention.cached).map_or(0, |attention| {
            let row = |kind: KvType, length: u32| {
                kind.bytes(u64::from(attention.kv_heads).saturating_mul(length.into()))
            };
            let value_length = self.value_row(&attention);
            row(k, attention.key_length)
                .saturating_add(v.bytes(value_length))
                .saturating_mul(self.window_cells(&attention, cells))
        });
        let state = layer.recurrent.map_or(0, |state| {
            state
                .rolling
                .saturating_add(state.state)
                .saturating_mul(F32_BYTES)
                .saturating_mul(self.sequences(cells))
        });
        attention.saturating_add(state)
    }

    /// Elements of a cell's values. Without flash attention llama.cpp makes them equally long in all layers
    /// (`TAG_V_CACHE_VARIABLE`).
    fn value_row(&self, attention: &Attention) -> u64 {
        let elements = |attention: &Attention| {
            u64::from(attention.kv_heads).saturating_mul(attention.value_length.into())
        };
        if self.params.flash_attention || attention.value_length == 0 {
            return elements(attention);
        }
        let all = self.layout.layers.iter().filter_map(|layer| layer.attention.as_ref());
        all.map(elements).max().unwrap_or(0)
    }

    /// A window needs cells for each sequence and for one ubatch.
    pub fn window_cells(&self, attention: &Attention, cells: u64) -> u64 {
        attention.window.map_or(cells, |window| {
            let windows = u64::from(window).saturating_mul(self.sequences(cells));
            cells_for(cells.min(windows.saturating_add(self.params.ubatch_tokens.into())))
        })
    }

    /// Sequences of the context: those of the running answers and of cached prefixes.
    pub fn sequences(&self, cells: u64) -> u64 {
        sequences(self.layout, self.params.parallel).min(cells.max(1))
    }

    fn compute_bytes(&self, device: Device, cells: u64) -> u64 {
        crate::compute::compute_bytes(self, device, cells)
    }
}

/// What a model takes in main memory alone, loaded with these parameters.
#[must_use]
pub fn host_bytes(layout: &Layout, params: Params, cells: u64) -> DeviceBytes {
    let placing = Placing::host(layout);
    Footprint { layout, placing: &placing, params }.on(Device::Host, cells)
}

/// Bytes of a 32-bit float.
pub const F32_BYTES: u64 = 4;

/// Sequences for running answers and cached prefixes: many where a sequence costs nothing but a row of logits, few
/// where each has cells or a state of its own.
#[must_use]
pub fn sequences(layout: &Layout, parallel: u32) -> u64 {
    let parallel = u64::from(parallel);
    if layout.has_windows() || layout.has_states() {
        return parallel + SEQUENCES_CACHED_WITH_STATE;
    }
    let row_bytes = layout.vocab_size.max(1).saturating_mul(F32_BYTES);
    (OUTPUT_ROWS_BYTES / row_bytes).clamp(parallel + SEQUENCES_CACHED_MIN, parallel + SEQUENCES_CACHED)
}
