//! A model's sizes → the tensors of its GGUF file.
//!
//! After `load_arch_tensors` in `models/*.cpp` of the llama.cpp that `firepot-llama` pins; `cargo xtask check-planner` has
//! llama.cpp read a header of each shape.

use firepot_gguf::{GgufError, Layout, write::Builder};
use serde::Deserialize;

use crate::{Quant, Storage};

/// What differs between architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Llama and Mistral.
    Llama,
    /// Biases on queries, keys and values.
    Qwen2,
    /// Norms on queries and keys.
    Qwen3,
    /// A mixture of Qwen3's experts.
    Qwen3Moe,
    /// Norms around both halves of a layer, and windows.
    Gemma3,
    /// Queries, keys and values in one matrix; gate and way up in another.
    Phi3,
    /// A mixture with biases and attention sinks, and windows.
    GptOss,
    /// A mixture whose activations are scaled.
    GraniteMoe,
}

/// Sizes of a model, from its `config.json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Architecture.
    pub family: Family,
    /// Number of ids in the vocabulary.
    pub vocab: u64,
    /// Layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub embedding: u64,
    /// Width of the feed-forward network; of a mixture, of one expert.
    pub feed_forward: u64,
    /// Query heads.
    pub heads: u64,
    /// KV heads.
    pub kv_heads: u64,
    /// Length of a head.
    pub head: u64,
    /// Context that the model was trained with, in tokens.
    pub ctx: u32,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Added to the variance in norms.
    pub epsilon: f32,
    /// The output matrix is the embedding's.
    #[serde(default)]
    pub tied: bool,
    /// Elements of a head that are rotated, where they are not all.
    pub rotated: Option<u64>,
    /// The file has factors of the rotary embedding.
    #[serde(default)]
    pub rope_factors: bool,
    /// Width of the window of layers that have one, in tokens.
    pub window: Option<u32>,
    /// Experts of a mixture.
    #[serde(default)]
    pub experts: u64,
    /// Those that work on one token.
    #[serde(default)]
    pub experts_used: u32,
    /// Granite's scales.
    pub scales: Option<Scales>,
}

/// Granite's scales of activations.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scales {
    /// Of the embedding.
    pub embedding: f32,
    /// Of what a layer adds.
    pub residual: f32,
    /// Of attention scores.
    pub attention: f32,
    /// Of logits, which are divided by it.
    pub logits: f32,
}

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// Weights.
    Random,
    /// The same everywhere.
    All(f32),
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Fastest first.
    pub dimensions: Vec<u64>,
    /// How it is stored.
    pub storage: Storage,
    /// What it holds.
    pub values: Values,
}

impl TensorSpec {
    /// Number of its elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }

    /// Length of its data.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let (elements, bytes) = self.storage.block();
        self.elements() / elements * bytes
    }
}

impl Shape {
    /// llama.cpp's name of the architecture.
    #[must_use]
    pub const fn architecture(&self) -> &'static str {
        match self.family {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Qwen3Moe => "qwen3moe",
            Family::Gemma3 => "gemma3",
            Family::Phi3 => "phi3",
            Family::GptOss => "gpt-oss",
            Family::GraniteMoe => "granitemoe",
        }
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors(Quant::F16).iter().map(TensorSpec::elements).sum()
    }

    /// What the model takes.
    ///
    /// # Errors
    /// When the sizes contradict each other.
    pub fn layout(&self, quant: Quant) -> Result<Layout, GgufError> {
        let mut builder = self.metadata(Builder::new().text("general.architecture", self.architecture()));
        for tensor in self.tensors(quant) {
            builder = builder.tensor(&tensor.name, &tensor.dimensions, tensor.storage.id(), tensor.bytes());
        }
        firepot_gguf::Gguf::read(&builder.described())?.layout()
    }

    /// Adds the keys of the architecture.
    #[must_use]
    pub fn metadata(&self, builder: Builder) -> Builder {
        let key = |name: &str| format!("{}.{name}", self.architecture());
        let mut builder = builder
            .u32(&key("block_count"), self.layers as u32)
            .u32(&key("context_length"), self.ctx)
            .u32(&key("embedding_length"), self.embedding as u32)
            .u32(&key("feed_forward_length"), self.feed_forward as u32)
            .u32(&key("attention.head_count"), self.heads as u32)
            .u32(&key("attention.head_count_kv"), self.kv_heads as u32)
            .u32(&key("attention.key_length"), self.head as u32)
            .u32(&key("attention.value_length"), self.head as u32)
            .u32(&key("rope.dimension_count"), self.rotated.unwrap_or(self.head) as u32)
            .u32(&key("vocab_size"), self.vocab as u32)
            .f32(&key("rope.freq_base"), self.rope_base)
            .f32(&key("attention.layer_norm_rms_epsilon"), self.epsilon);
        if let Some(window) = self.window {
            builder = builder.u32(&key("attention.sliding_window"), window);
        }
        if self.experts > 0 {
            builder = builder
                .u32(&key("expert_count"), self.experts as u32)
                .u32(&key("expert_used_count"), self.experts_used)
                .u32(&key("expert_feed_forward_length"), self.feed_forward as u32);
        }
        if let Some(scales) = self.scales {
            builder = builder
                .f32(&key("embedding_scale"), scales.embedding)
                .f32(&key("residual_scale"), scales.residual)
                .f32(&key("attention.scale"), scales.attention)
                .f32(&key("logit_scale"), scales.logits);
        }
        builder
    }

    /// All tensors, in the order in which they stand in the file.
    #[must_use]
    pub fn tensors(&self, quant: Quant) -> Vec<TensorSpec> {
        let (base, better) = quant.pair();
        let vocabulary = [self.embedding, self.vocab];
        let mut tensors =
            vec![matrix("token_embd.weight", &vocabulary, if self.tied { better } else { base })];
        if !self.tied {
            tensors.push(matrix("output.weight", &vocabulary, better));
        }
        tensors.push(vector("output_norm.weight", self.embedding, 1.0));
        let rotated = self.rotated.unwrap_or(self.head);
        match self.family {
            Family::Llama if self.rope_factors => tensors.push(vector("rope_freqs.weight", rotated / 2, 1.0)),
            Family::Phi3 if self.rope_factors => {
                tensors.push(vector("rope_factors_long.weight", rotated / 2, 1.0));
                tensors.push(vector("rope_factors_short.weight", rotated / 2, 1.0));
            }
            _ => {}
        }
        for index in 0..self.layers {
            let layer = LayerTensors { shape: self, quant, index };
            layer.attention(&mut tensors);
            layer.feed_forward(&mut tensors);
        }
        tensors
    }
}

/// The tensors of one layer.
struct LayerTensors<'a> {
    shape: &'a Shape,
    quant: Quant,
    index: u64,
}

impl LayerTensors<'_> {
    fn name(&self, part: &str) -> String {
        format!("blk.{}.{part}", self.index)
    }

    fn norm(&self, part: &str, length: u64) -> TensorSpec {
        vector(&self.name(part), length, 1.0)
    }

    fn bias(&self, part: &str, length: u64) -> TensorSpec {
        vector(&self.name(part), length, 0.0)
    }

    fn matrix(&self, part: &str, dimensions: &[u64], storage: Storage) -> TensorSpec {
        matrix(&self.name(part), dimensions, storage)
    }

    fn attention(&self, out: &mut Vec<TensorSpec>) {
        let Shape { embedding, head, .. } = *self.shape;
        let (base, family) = (self.quant.pair().0, self.shape.family);
        let (queries, keys) = (self.shape.heads * head, self.shape.kv_heads * head);
        out.push(self.norm("attn_norm.weight", embedding));
        if family == Family::Phi3 {
            out.push(self.matrix("attn_qkv.weight", &[embedding, queries + 2 * keys], self.quant.joined()));
        } else {
            for (part, rows, storage) in
                [("attn_q", queries, base), ("attn_k", keys, base), ("attn_v", keys, self.value_storage())]
            {
                out.push(self.matrix(&format!("{part}.weight"), &[embedding, rows], storage));
                if matches!(family, Family::Qwen2 | Family::GptOss) {
                    out.push(self.bias(&format!("{part}.bias"), rows));
                }
            }
        }
        out.push(self.matrix("attn_output.weight", &[queries, embedding], self.quant.attention_output()));
        match family {
            Family::Qwen3 | Family::Qwen3Moe | Family::Gemma3 => {
                out.push(self.norm("attn_q_norm.weight", head));
                out.push(self.norm("attn_k_norm.weight", head));
            }
            Family::GptOss => {
                out.push(self.bias("attn_output.bias", embedding));
                out.push(self.bias("attn_sinks.weight", self.shape.heads));
            }
            _ => {}
        }
        let after = match family {
            Family::Gemma3 => &["post_attention_norm.weight", "post_ffw_norm.weight", "ffn_norm.weight"][..],
            Family::GptOss => &["post_attention_norm.weight"],
            _ => &["ffn_norm.weight"],
        };
        out.extend(after.iter().map(|part| self.norm(part, embedding)));
    }

    /// A model of 80 layers gets more bits for its values, which eight query heads share (`LLM_TYPE_70B`).
    fn value_storage(&self) -> Storage {
        match self.quant.values(self.index, self.shape.layers) {
            Storage::Q3K | Storage::Q4K if self.shape.family == Family::Llama && self.shape.layers == 80 => {
                Storage::Q5K
            }
            usual => usual,
        }
    }

    fn feed_forward(&self, out: &mut Vec<TensorSpec>) {
        let Shape { embedding, feed_forward, experts, .. } = *self.shape;
        let base = self.quant.pair().0;
        let down_storage = self.quant.down(self.index, self.shape.layers);
        let (up, down) = ([embedding, feed_forward], [feed_forward, embedding]);
        if experts == 0 {
            if self.shape.family == Family::Phi3 {
                out.push(self.matrix("ffn_up.weight", &[embedding, 2 * feed_forward], base));
            } else {
                out.push(self.matrix("ffn_gate.weight", &up, base));
                out.push(self.matrix("ffn_up.weight", &up, base));
            }
            out.push(self.matrix("ffn_down.weight", &down, down_storage));
            return;
        }
        out.push(self.matrix("ffn_gate_inp.weight", &[embedding, experts], Storage::F32));
        let biased = self.shape.family == Family::GptOss;
        if biased {
            out.push(self.bias("ffn_gate_inp.bias", experts));
        }
        for (part, [inputs, outputs], storage) in
            [("ffn_gate_exps", up, base), ("ffn_up_exps", up, base), ("ffn_down_exps", down, down_storage)]
        {
            let storage = self.quant.experts(storage);
            out.push(self.matrix(&format!("{part}.weight"), &[inputs, outputs, experts], storage));
            if biased {
                let mut bias = self.bias(&format!("{part}.bias"), outputs);
                bias.dimensions.push(experts);
                out.push(bias);
            }
        }
    }
}

fn matrix(name: &str, dimensions: &[u64], storage: Storage) -> TensorSpec {
    let storage = storage.for_rows_of(dimensions[0]);
    TensorSpec { name: name.to_owned(), dimensions: dimensions.to_vec(), storage, values: Values::Random }
}

fn vector(name: &str, length: u64, value: f32) -> TensorSpec {
    let (dimensions, values) = (vec![length], Values::All(value));
    TensorSpec { name: name.to_owned(), dimensions, storage: Storage::F32, values }
}
