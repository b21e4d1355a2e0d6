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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recurrent, write::Builder};

    fn model(architecture: &str, layers: u32) -> Builder {
        Builder::new()
            .text("general.architecture", architecture)
            .u32(&format!("{architecture}.block_count"), layers)
            .u32(&format!("{architecture}.context_length"), 4096)
            .u32(&format!("{architecture}.embedding_length"), 64)
            .u32(&format!("{architecture}.attention.head_count"), 4)
            .texts("tokenizer.ggml.tokens", &["a", "b", "c"])
    }

    fn layout(file: &Builder) -> Result<Layout, GgufError> {
        Gguf::read(&file.build())?.layout()
    }

    fn windows(file: &Builder) -> Vec<Option<u32>> {
        let layers = layout(file).unwrap().layers;
        layers.iter().map(|layer| layer.attention.unwrap().window).collect()
    }

    #[test]
    fn tensors_are_counted_where_they_go() {
        let file = model("llama", 2)
            .u32("llama.expert_used_count", 2)
            .tensor("token_embd.weight", &[32, 3], 2, 54)
            .tensor("blk.0.attn_q.weight", &[32, 2], 2, 36)
            .tensor("blk.1.ffn_up_exps.weight", &[32, 4], 2, 72)
            .tensor("output_norm.weight", &[64], 0, 256);
        let layout = layout(&file).unwrap();
        let bytes = |weights: &Weights| weights.bytes();
        // Each tensor is padded to 32 bytes.
        assert_eq!((bytes(&layout.input), bytes(&layout.output)), (64, 256));
        assert_eq!((bytes(&layout.layers[0].dense), bytes(&layout.layers[1].experts)), (64, 96));
        assert_eq!((layout.layers[0].experts_used, layout.layers[1].experts_used), (0, 2));
        assert_eq!(layout.weights_bytes(), 64 + 256 + 64 + 96);
        assert!(layout.tied);
    }

    #[test]
    fn heads_may_differ_by_layer_and_a_layer_may_have_none() {
        let file = model("llama", 3).u32s("llama.attention.head_count_kv", &[4, 0, 1]);
        let layers = layout(&file).unwrap().layers;
        let heads: Vec<Option<u32>> =
            layers.iter().map(|layer| layer.attention.map(|attention| attention.kv_heads)).collect();
        assert_eq!(heads, [Some(4), None, Some(1)]);
    }

    #[test]
    fn windows_follow_the_architecture_or_the_file() {
        let gemma = model("gemma3", 6).u32("gemma3.attention.sliding_window", 512);
        assert_eq!(windows(&gemma), [Some(512), Some(512), Some(512), Some(512), Some(512), None]);
        assert_eq!(windows(&model("gemma3", 2)), [None, None]);
        let period = gemma.clone().u32("gemma3.attention.sliding_window_pattern", 2);
        assert_eq!(windows(&period)[..2], [Some(512), None]);
        let first = model("laguna", 4).u32("laguna.attention.sliding_window", 128);
        assert_eq!(windows(&first), [None, Some(128), Some(128), Some(128)]);
        let listed = model("mimo2", 2).u32("mimo2.attention.sliding_window", 128);
        assert!(matches!(layout(&listed), Err(GgufError::Missing { .. })));
        let listed = listed.u32s("mimo2.attention.sliding_window_pattern", &[0, 1]);
        assert_eq!(windows(&listed), [None, Some(128)]);
        // llama.cpp has no windows for Phi-3, whatever the file says.
        assert_eq!(windows(&model("phi3", 1).u32("phi3.attention.sliding_window", 2047)), [None]);
    }

    #[test]
    fn latent_attention_caches_keys_only() {
        let file = model("deepseek2", 1)
            .u32("deepseek2.attention.head_count_kv", 1)
            .u32("deepseek2.attention.key_length", 576)
            .u32("deepseek2.attention.value_length", 512)
            .u32("deepseek2.attention.key_length_mla", 192)
            .u32("deepseek2.attention.value_length_mla", 128);
        let attention = layout(&file).unwrap().layers[0].attention.unwrap();
        assert_eq!((attention.kv_heads, attention.key_length, attention.value_length), (1, 576, 0));
    }

    #[test]
    fn layers_keep_a_state_or_attend_or_both() {
        let state = |builder: Builder, architecture: &str| {
            builder
                .u32(&format!("{architecture}.ssm.conv_kernel"), 4)
                .u32(&format!("{architecture}.ssm.inner_size"), 128)
                .u32(&format!("{architecture}.ssm.state_size"), 16)
                .u32(&format!("{architecture}.ssm.group_count"), 1)
        };
        let kinds = |file: &Builder| -> Vec<(bool, bool)> {
            let layers = layout(file).unwrap().layers;
            layers.iter().map(|layer| (layer.attention.is_some(), layer.recurrent.is_some())).collect()
        };
        let next = state(model("qwen3next", 4), "qwen3next");
        assert_eq!(kinds(&next), [(false, true), (false, true), (false, true), (true, false)]);
        let convolved = 128 + 2 * 16;
        let expected = Recurrent { rolling: 3 * convolved, state: 16 * 128, width: 4 * 128 + 3 * convolved };
        assert_eq!(layout(&next).unwrap().layers[0].recurrent, Some(expected));
        assert_eq!(kinds(&state(model("falcon-h1", 1), "falcon-h1")), [(true, true)]);
        assert_eq!(kinds(&state(model("mamba2", 1), "mamba2")), [(false, true)]);
        let hybrid = state(model("granitehybrid", 2), "granitehybrid");
        let hybrid = hybrid.u32s("granitehybrid.attention.head_count_kv", &[0, 4]);
        assert_eq!(kinds(&hybrid), [(false, true), (true, false)]);
    }

    #[test]
    fn layers_that_predict_further_tokens_are_not_loaded() {
        let file = model("glm4moe", 2)
            .u32("glm4moe.nextn_predict_layers", 1)
            .tensor("blk.0.attn_q.weight", &[32, 2], 2, 36)
            .tensor("blk.1.attn_q.weight", &[32, 2], 2, 36);
        let layout = layout(&file).unwrap();
        assert_eq!((layout.layers[0].computed, layout.layers[1].computed), (true, false));
        assert_eq!(layout.weights_bytes(), 64);
    }

    #[test]
    fn layers_that_share_a_cache_have_none_of_their_own() {
        let file = model("gemma3n", 22).u32("gemma3n.attention.sliding_window", 512);
        let layers = layout(&file).unwrap().layers;
        assert!(layers[19].attention.unwrap().cached && !layers[20].attention.unwrap().cached);
    }

    #[test]
    fn an_architecture_that_cannot_be_planned_is_refused_by_name() {
        for name in ["deepseek32", "bert", "newer-than-this"] {
            let error = layout(&model(name, 1)).unwrap_err().to_string();
            assert!(error.contains(&format!("architecture {name:?} ")), "{error}");
        }
    }
}
