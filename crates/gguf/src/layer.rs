//! What one layer of a model keeps and computes, as far as memory and speed depend on it.

use crate::TensorType;

/// Bytes of some tensors by how they are stored. Each tensor counts as the buffers of llama.cpp align it
/// ([`TENSOR_ALIGNMENT`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    parts: Vec<(TensorType, u64)>,
}

/// `TENSOR_ALIGNMENT` in `ggml-backend.cpp`.
pub const TENSOR_ALIGNMENT: u64 = 32;

impl Weights {
    /// Weights of these types and sizes.
    #[must_use]
    pub fn of(parts: impl IntoIterator<Item = (TensorType, u64)>) -> Self {
        let mut weights = Self::default();
        for (kind, bytes) in parts {
            weights.add(kind, bytes);
        }
        weights
    }

    /// Counts one more tensor.
    pub fn add(&mut self, kind: TensorType, bytes: u64) {
        let bytes = bytes.checked_next_multiple_of(TENSOR_ALIGNMENT).unwrap_or(bytes);
        match self.parts.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, sum)) => *sum = sum.saturating_add(bytes),
            None => self.parts.push((kind, bytes)),
        }
    }

    /// Bytes by type, in the order in which the types came.
    #[must_use]
    pub fn parts(&self) -> &[(TensorType, u64)] {
        &self.parts
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// One layer (`blk.N`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// All tensors but the experts'.
    pub dense: Weights,
    /// The routed experts' tensors (`*_exps`), all experts together.
    pub experts: Weights,
    /// Experts that work on one token.
    pub experts_used: u32,
    /// Experts that there are.
    pub experts_count: u32,
    /// Width of the feed-forward network that one token goes through; of a mixture, all experts in use together.
    pub feed_forward_length: u32,
    /// Attention, where the layer has any.
    pub attention: Option<Attention>,
    /// A recurrent state, where the layer keeps one. Some layers keep both.
    pub recurrent: Option<Recurrent>,
    /// Whether a forward pass goes through it. Layers that only predict further tokens (MTP) are loaded and not computed.
    pub computed: bool,
}

/// The attention of a layer, as llama.cpp caches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Heads of queries.
    pub query_heads: u32,
    /// Heads of keys and values in the cache; 1 for latent attention (MLA).
    pub kv_heads: u32,
    /// Length of a cached key of one head.
    pub key_length: u32,
    /// Length of a cached value of one head; 0 where values are a part of the key (MLA).
    pub value_length: u32,
    /// Width of the sliding window, in tokens.
    pub window: Option<u32>,
    /// Whether the layer has cells of its own; layers that read another layer's cache have none.
    pub cached: bool,
}

/// The recurrent state of a layer: 32-bit floats for each sequence, however long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurrent {
    /// Elements of the rolling state (convolution, token shift).
    pub rolling: u64,
    /// Elements of the state proper.
    pub state: u64,
    /// Elements that each token has inside a Mamba layer at once: its projections, what is convolved of them, and what the state
    /// gives. 0 for layers of other kinds.
    pub width: u64,
}
