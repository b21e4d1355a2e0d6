//! A model as planner and speed model see it: its layers and where its tensors go.

use crate::{
    Gguf, GgufError, Layer, Tensor, Weights,
    arch::Architecture,
    meta::{Fields, vocab_size},
};

/// The parts of a model that decide what it takes and how fast it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Architecture name (`llama`, `qwen2`).
    pub architecture: String,
    /// Context that the model was trained with, in tokens.
    pub ctx_train: u32,
    /// Width of the residual stream.
    pub embedding_length: u32,
    /// Number of ids in the vocabulary.
    pub vocab_size: u64,
    /// The layers, in order.
    pub layers: Vec<Layer>,
    /// Tensors that stay in main memory wherever the layers are: the token embedding.
    pub input: Weights,
    /// Tensors that go where the last layer is: the output's norm and matrix.
    pub output: Weights,
    /// The token embedding is the output matrix as well.
    pub tied: bool,
}

impl Layout {
    /// # Errors
    /// [`GgufError::Architecture`], [`GgufError::Missing`] and [`GgufError::Damaged`], when it does not describe a
    /// language model whose memory is known.
    pub(crate) fn of(gguf: &Gguf) -> Result<Self, GgufError> {
        let fields = Fields::of(gguf)?;
        let n_layers = fields.n_layers()?;
        let architecture = Architecture::of(&fields, n_layers)?;
        let vocab_size = vocab_size(gguf).or_else(|| fields.optional("vocab_size").map(u64::from));
        let missing = || GgufError::Missing { key: "tokenizer.ggml.tokens".to_owned() };
        let mut layout = Self {
            architecture: fields.architecture.clone(),
            ctx_train: fields.required("context_length")?,
            embedding_length: fields.required("embedding_length")?,
            vocab_size: vocab_size.ok_or_else(missing)?,
            layers: vec![Layer::default(); n_layers as usize],
            input: Weights::default(),
            output: Weights::default(),
            tied: !gguf.tensors.iter().any(|tensor| tensor.name == "output.weight"),
        };
        for tensor in &gguf.tensors {
            layout.place(tensor).add(tensor.kind, tensor.bytes);
        }
        for (index, layer) in layout.layers.iter_mut().enumerate() {
            architecture.complete(index as u32, layer)?;
        }
        Ok(layout)
    }

    /// Bytes of all tensors that are loaded. Layers that only predict further tokens are not (`load_mtp`).
    #[must_use]
    pub fn weights_bytes(&self) -> u64 {
        let layers = self.layers.iter().filter(|layer| layer.computed);
        let layers = layers.map(|layer| layer.dense.bytes().saturating_add(layer.experts.bytes()));
        [self.input.bytes(), self.output.bytes()].into_iter().chain(layers).fold(0, u64::saturating_add)
    }

    /// Whether some layer looks at a window only.
    #[must_use]
    pub fn has_windows(&self) -> bool {
        self.layers.iter().any(|layer| layer.attention.is_some_and(|attention| attention.window.is_some()))
    }

    /// Whether some layer keeps a recurrent state.
    #[must_use]
    pub fn has_states(&self) -> bool {
        self.layers.iter().any(|layer| layer.recurrent.is_some())
    }

    /// `LLM_TENSOR_INFOS` in `llama-arch.cpp`.
    fn place(&mut self, tensor: &Tensor) -> &mut Weights {
        let name = tensor.name.as_str();
        let in_layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let index = in_layer.and_then(|(index, _)| index.parse::<usize>().ok());
        match index.and_then(|index| self.layers.get_mut(index)) {
            Some(layer) if name.contains("_exps.") => &mut layer.experts,
            Some(layer) => &mut layer.dense,
            None if INPUT.iter().any(|input| name.starts_with(input)) => &mut self.input,
            None => &mut self.output,
        }
    }
}

/// Tensors of `LLM_TENSOR_LAYER_INPUT`.
const INPUT: [&str; 4] = ["token_embd", "position_embd", "token_types", "per_layer_token_embd"];
