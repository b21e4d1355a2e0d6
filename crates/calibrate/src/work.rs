//! What a token of a model costs, in the units that the probe measures.

use firepot_gguf::{Attention, Layer, Layout, TensorType, Weights};

/// What one token reads and computes of matrices stored in one type.
#[derive(Clone, Debug, PartialEq)]
pub struct KindWork {
    /// Its name in llama.cpp.
    pub kind: &'static str,
    /// Bytes that a decoded token reads, the output matrix among them.
    pub decode_bytes: f64,
    /// Multiplications that a prompt's token takes, but for what is computed for its last one only.
    pub prefill_macs: f64,
    /// Elements that every chunk of a prompt passes over, those of all experts among them.
    pub pass_elements: f64,
    /// Bytes that a prompt's last token reads alone: the output, and the last layer's feed-forward network.
    pub last_bytes: f64,
}

impl KindWork {
    const fn none(kind: TensorType) -> Self {
        Self { kind: kind.name, decode_bytes: 0.0, prefill_macs: 0.0, pass_elements: 0.0, last_bytes: 0.0 }
    }
}

/// What one token costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// By type.
    pub kinds: Vec<KindWork>,
    /// Layers that are computed.
    pub layers: f64,
    /// Numbers that norms, activations and sums of all layers touch.
    pub elements: f64,
    /// Of each layer with attention.
    attention: Vec<PerCell>,
}

impl Work {
    /// Of a model whose layers are all in main memory.
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        let mut work = Self::default();
        let mut layers = layout.layers.iter().filter(|layer| layer.computed).peekable();
        while let Some(layer) = layers.next() {
            let last = layers.peek().is_none();
            let (dense, experts) = if last { before_feed_forward(layout, layer) } else { (1.0, 1.0) };
            work.add(&layer.dense, 1.0, dense);
            let share = f64::from(layer.experts_used) / f64::from(layer.experts_count.max(1));
            work.add(&layer.experts, share.min(1.0), experts);
            work.layers += 1.0;
            work.elements += touched(layout, layer, last);
            work.attention.extend(layer.attention.map(PerCell::of));
        }
        work.add(&layout.output, 1.0, 0.0);
        if layout.tied {
            work.add(&layout.input, 1.0, 0.0);
        }
        work
    }

    /// Of the weights a token reads `share`, and of these a prompt's token is multiplied with `prefill`.
    fn add(&mut self, weights: &Weights, share: f64, prefill: f64) {
        for &(kind, bytes) in weights.parts() {
            let read = bytes as f64 * share;
            let pass = prefill * elements(kind, bytes);
            let at = self.kinds.iter().position(|known| known.kind == kind.name).unwrap_or_else(|| {
                self.kinds.push(KindWork::none(kind));
                self.kinds.len() - 1
            });
            let known = &mut self.kinds[at];
            known.decode_bytes += read;
            known.prefill_macs += pass * share;
            known.pass_elements += pass;
            known.last_bytes += read * (1.0 - prefill);
        }
    }

    /// What attention costs one token that looks at so many cells, in all layers.
    #[must_use]
    pub fn attention(&self, cells: u32) -> Looked {
        let mut looked = Looked::default();
        for layer in &self.attention {
            let seen = layer.window.map_or(cells, |window| self::cells(window).min(cells));
            looked.scores += layer.heads * f64::from(seen);
            looked.macs += layer.macs * f64::from(seen);
            looked.bytes += layer.bytes * f64::from(seen);
        }
        looked
    }

    /// The same for models that cost the same, to be kept in files.
    #[must_use]
    pub fn key(&self) -> String {
        let kinds: Vec<String> =
            self.kinds.iter().map(|kind| format!("{} {:.0}", kind.kind, kind.decode_bytes)).collect();
        let looked = self.attention(CELLS_STEP);
        format!(
            "{}; {} layers, {} numbers, {} scores, {} multiplications",
            kinds.join(", "),
            self.layers,
            self.elements,
            looked.scores,
            looked.macs
        )
    }

    /// Types that hold enough of the model to matter, by what is read of them, most first.
    #[must_use]
    pub fn kinds_that_matter(layout: &Layout) -> Vec<TensorType> {
        let mut found: Vec<(f64, TensorType)> = Vec::new();
        let work = Self::of(layout);
        let all: f64 = work.kinds.iter().map(|kind| kind.decode_bytes).sum();
        for kind in &work.kinds {
            let known = (0..64).filter_map(TensorType::by_id).find(|known| known.name == kind.kind);
            found.extend(
                known
                    .filter(|_| kind.decode_bytes > all * LEAST_SHARE)
                    .map(|known| (kind.decode_bytes, known)),
            );
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.into_iter().map(|found| found.1).collect()
    }
}

/// llama.cpp looks at whole steps of cells (`llama_kv_cache::get_n_kv`).
pub const CELLS_STEP: u32 = 256;

/// Cells that are looked at for so many tokens.
pub fn cells(tokens: u32) -> u32 {
    tokens.checked_next_multiple_of(CELLS_STEP).unwrap_or(u32::MAX)
}

/// A type that holds less of what a token reads is taken for one of the others.
pub const LEAST_SHARE: f64 = 0.03;

const F16_BYTES: f64 = 2.0;

/// What attention costs for the cells that are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Looked {
    /// Products of a query and a key.
    pub scores: f64,
    /// Multiplications.
    pub macs: f64,
    /// Bytes of the cache, in f16.
    pub bytes: f64,
}

/// The same for one cell of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PerCell {
    heads: f64,
    macs: f64,
    bytes: f64,
    window: Option<u32>,
}

impl PerCell {
    fn of(attention: Attention) -> Self {
        // In floating point: a header may claim any product of these.
        let [queries, heads, key, value] =
            [attention.query_heads, attention.kv_heads, attention.key_length, attention.value_length]
                .map(f64::from);
        // Values that are a part of the keys are multiplied all the same.
        let multiplied = if attention.value_length == 0 { key } else { value };
        Self {
            heads: queries,
            macs: queries * (key + multiplied),
            bytes: F16_BYTES * heads * (key + value),
            window: attention.window,
        }
    }
}

/// Elements of so many bytes.
fn elements(kind: TensorType, bytes: u64) -> f64 {
    bytes as f64 / f64::from(kind.block_bytes) * f64::from(kind.block_elements)
}

/// Shares of the last layer's weights, dense ones and experts, that every token of a prompt is multiplied with. Where only the
/// last token's logits are wanted, llama.cpp leaves the others out of its feed-forward network (`inp_out_ids`).
fn before_feed_forward(layout: &Layout, layer: &Layer) -> (f64, f64) {
    if layer.experts_count > 0 {
        return (1.0, 0.0);
    }
    let all: f64 = layer.dense.parts().iter().map(|&(kind, bytes)| elements(kind, bytes)).sum();
    let network = 3.0 * f64::from(layout.embedding_length) * f64::from(layer.feed_forward_length);
    (1.0 - (network / all.max(1.0)).min(1.0), 1.0)
}

/// Two norms and two sums over the residual stream, rotated queries and keys; gate and activation, but in the last layer.
fn touched(layout: &Layout, layer: &Layer, last: bool) -> f64 {
    let heads = layer.attention.map_or(0.0, |attention| {
        (f64::from(attention.query_heads) + 2.0 * f64::from(attention.kv_heads))
            * f64::from(attention.key_length)
    });
    let feed_forward = if last { 0.0 } else { 2.0 * f64::from(layer.feed_forward_length) };
    4.0 * f64::from(layout.embedding_length) + heads + feed_forward
}
