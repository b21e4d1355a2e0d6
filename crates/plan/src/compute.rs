//! Compute buffers: what llama.cpp's graph allocator reserves for the largest ubatch and a full cache.
//!
//! ggml gives tensors of a graph the same memory once they are no longer read (`ggml-alloc.c`), so what counts is the phase
//! in which the most is alive at once: attention, the feed-forward network, or the output. The inputs of the graph live
//! throughout. The numbers of tensors in each phase were read off dry runs of SmolLM2-135M and DeepSeek-R1-Distill-Qwen-7B
//! with ubatches of 64 and 512 tokens, 4 to 64 sequences, 1,024 to 32,768 cells, with and without flash attention.

use firepot_gguf::{Attention, Layer};

use crate::footprint::{Device, F32_BYTES, Footprint};

/// `GGML_SCHED_MAX_COPIES`.
const PIPELINE_COPIES: u64 = 4;

/// Bytes of the compute buffer on a device.
pub fn compute_bytes(footprint: &Footprint<'_>, device: Device, cells: u64) -> u64 {
    let computed = footprint.layout.layers.iter().zip(&footprint.placing.layers);
    let here: Vec<&Layer> =
        computed.filter(|(layer, on)| layer.computed && **on == device).map(|(layer, _)| layer).collect();
    let sequences = footprint.sequences(cells).max(1);
    // `graph_reserve` wants as many tokens for each sequence.
    let tokens = u64::from(footprint.params.ubatch_tokens).min(cells).next_multiple_of(sequences);
    let graph = Graph { footprint, cells, tokens };
    let phases = here
        .iter()
        .map(|layer| graph.attention(layer).max(graph.feed_forward(layer)).max(graph.recurrence(layer)));
    let output = if footprint.placing.output == device { graph.output() } else { 0 };
    let inputs = graph.inputs(&here);
    let embedding = if device == Device::Host && here.is_empty() { graph.residual() } else { 0 };
    let copies = match device {
        Device::Gpu(_) if footprint.placing.is_pipelined() => graph.copies(inputs),
        _ => 0,
    };
    let layers = inputs.saturating_add(phases.max().unwrap_or(0));
    // Logits that are smaller than the inputs come to lie where those were.
    let output = output.saturating_add(output.min(inputs));
    layers.max(output).saturating_add(embedding).saturating_add(copies)
}

struct Graph<'a> {
    footprint: &'a Footprint<'a>,
    cells: u64,
    tokens: u64,
}

impl Graph<'_> {
    fn floats(&self, elements_each: u64) -> u64 {
        self.tokens.saturating_mul(elements_each).saturating_mul(F32_BYTES)
    }

    /// The residual stream.
    fn residual(&self) -> u64 {
        self.floats(self.footprint.layout.embedding_length.into())
    }

    /// Masks and the places of new cells, one set for full attention and one for windows (`build_attn_inp_kv`).
    fn inputs(&self, here: &[&Layer]) -> u64 {
        let attentions = || here.iter().filter_map(|layer| layer.attention.as_ref());
        let full = attentions().find(|attention| attention.window.is_none());
        let windowed = attentions().find(|attention| attention.window.is_some());
        [full, windowed]
            .into_iter()
            .flatten()
            .map(|attention| self.input(attention))
            .fold(0, u64::saturating_add)
    }

    /// A model whose layers are all on several GPUs is computed like a pipeline (`llama_context`, `pipeline_parallel`): what
    /// goes into a GPU's part has four copies.
    fn copies(&self, inputs: u64) -> u64 {
        inputs
            .saturating_mul(PIPELINE_COPIES - 1)
            .saturating_add(self.residual().saturating_mul(PIPELINE_COPIES))
    }

    fn input(&self, attention: &Attention) -> u64 {
        let flash = self.footprint.params.flash_attention;
        let element_bytes = if flash { 2 } else { F32_BYTES };
        let mask = self.tokens.saturating_mul(self.cells_of(attention)).saturating_mul(element_bytes);
        // Without flash attention values are stored by element, and so are their places.
        let places = if flash {
            1
        } else {
            u64::from(attention.kv_heads).saturating_mul(attention.value_length.into())
        };
        mask.saturating_add(self.tokens.saturating_mul(places.saturating_add(1)).saturating_mul(8))
    }

    fn cells_of(&self, attention: &Attention) -> u64 {
        self.footprint.window_cells(attention, self.cells)
    }

    /// The scores of all heads, without flash attention; residual, queries, and what they come from.
    fn attention(&self, layer: &Layer) -> u64 {
        let Some(attention) = &layer.attention else { return 0 };
        let heads = u64::from(attention.query_heads);
        let queries = self.floats(heads.saturating_mul(attention.key_length.into()));
        let flash = self.footprint.params.flash_attention;
        let scores = if flash { 0 } else { self.floats(heads.saturating_mul(self.cells_of(attention))) };
        let others = self.residual().saturating_add(queries).saturating_mul(3);
        scores.saturating_add(self.latent_values(attention)).saturating_add(others)
    }

    /// Latent attention has its values in its keys; without flash attention they are copied from there, in 16 bits.
    fn latent_values(&self, attention: &Attention) -> u64 {
        if self.footprint.params.flash_attention || attention.value_length > 0 {
            return 0;
        }
        self.cells_of(attention).saturating_mul(attention.key_length.into()).saturating_mul(2)
    }

    /// The gate, the way up, and the larger of their product and what the experts in use give, each apart; residual, norm, and what attention leaves between them.
    fn feed_forward(&self, layer: &Layer) -> u64 {
        let width = self.floats(layer.feed_forward_length.into());
        let experts = u64::from(layer.experts_used);
        let given = self.floats(experts.saturating_mul(self.footprint.layout.embedding_length.into()));
        let wide = width.saturating_mul(2).saturating_add(width.max(given));
        wide.saturating_add(self.residual().saturating_mul(5))
    }

    /// The state of each sequence, before and behind the ubatch, and what of a ubatch goes through it. Read off dry runs of
    /// Mamba-2, Granite 4.0 H and LFM2.
    fn recurrence(&self, layer: &Layer) -> u64 {
        let Some(state) = layer.recurrent else { return 0 };
        let sequences = self.footprint.sequences(self.cells);
        let of_one = state.state.saturating_mul(2).saturating_add(state.rolling);
        let states = of_one.saturating_mul(sequences).saturating_mul(F32_BYTES);
        let inside = self.floats(state.width).max(self.residual().saturating_mul(3));
        states.saturating_add(inside).saturating_add(self.residual())
    }

    /// A row of logits for each sequence.
    fn output(&self) -> u64 {
        let rows = self.footprint.sequences(self.cells).min(self.tokens);
        let logits = rows.saturating_mul(self.footprint.layout.vocab_size).saturating_mul(F32_BYTES);
        logits.saturating_add(self.residual().saturating_mul(5))
    }
}
