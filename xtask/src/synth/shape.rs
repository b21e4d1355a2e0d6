//! Shapes of public models: what their `config.json` and converted headers say.

use firepot_gguf::testing::Builder;

use super::{Quant, weights::Storage};

/// A public model whose shape is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// DeepSeek-R1-Distill-Qwen-7B: Qwen2, 28 layers, grouped-query attention 28:4.
    #[value(name = "r1-distill-qwen-7b")]
    R1DistillQwen7B,
    /// Llama-3.1-8B: 32 layers, 32:8.
    #[value(name = "llama-3.1-8b")]
    Llama31With8B,
    /// Qwen3-8B: 36 layers, 32:8, norms on queries and keys.
    #[value(name = "qwen3-8b")]
    Qwen3With8B,
    /// Granite-3.1-1B-A400M: a mixture of 32 experts, 8 used.
    #[value(name = "granite-3.1-1b-a400m")]
    GraniteMoe1B,
    /// Gemma-3-1B: 5 of 6 layers see a window of 512 tokens.
    #[value(name = "gemma-3-1b")]
    Gemma3With1B,
}

/// What differs between architectures.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3 { window: u32 },
    GraniteMoe { experts: u64, used: u32, embedding: f32, residual: f32, attention: f32, logits: f32 },
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dims {
    pub name: &'static str,
    pub architecture: &'static str,
    /// Number of ids in the vocabulary.
    pub vocab: u64,
    family: Family,
    layers: u64,
    embedding: u64,
    feed_forward: u64,
    heads: u64,
    kv_heads: u64,
    head: u64,
    ctx: u32,
    rope_base: f32,
    epsilon: f32,
}

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    Random,
    All(f32),
}

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    pub name: String,
    /// Fastest first.
    pub dimensions: Vec<u64>,
    pub storage: Storage,
    pub values: Values,
}

impl TensorSpec {
    /// Length of its data.
    pub fn bytes(&self) -> u64 {
        let (elements, bytes) = self.storage.block();
        self.dimensions.iter().product::<u64>() / elements * bytes
    }
}

impl Shape {
    pub const fn dims(self) -> Dims {
        match self {
            Self::R1DistillQwen7B => Dims {
                name: "r1-distill-qwen-7b",
                architecture: "qwen2",
                vocab: 152_064,
                family: Family::Qwen2,
                layers: 28,
                embedding: 3584,
                feed_forward: 18_944,
                heads: 28,
                kv_heads: 4,
                head: 128,
                ctx: 131_072,
                rope_base: 10_000.0,
                epsilon: 1e-6,
            },
            Self::Llama31With8B => Dims {
                name: "llama-3.1-8b",
                architecture: "llama",
                vocab: 128_256,
                family: Family::Llama,
                layers: 32,
                embedding: 4096,
                feed_forward: 14_336,
                heads: 32,
                kv_heads: 8,
                head: 128,
                ctx: 131_072,
                rope_base: 500_000.0,
                epsilon: 1e-5,
            },
            Self::Qwen3With8B => Dims {
                name: "qwen3-8b",
                architecture: "qwen3",
                vocab: 151_936,
                family: Family::Qwen3,
                layers: 36,
                embedding: 4096,
                feed_forward: 12_288,
                heads: 32,
                kv_heads: 8,
                head: 128,
                ctx: 40_960,
                rope_base: 1_000_000.0,
                epsilon: 1e-6,
            },
            Self::GraniteMoe1B => Dims {
                name: "granite-3.1-1b-a400m",
                architecture: "granitemoe",
                vocab: 49_155,
                family: Family::GraniteMoe {
                    experts: 32,
                    used: 8,
                    embedding: 12.0,
                    residual: 0.22,
                    attention: 0.015_625,
                    logits: 6.0,
                },
                layers: 24,
                embedding: 1024,
                feed_forward: 512,
                heads: 16,
                kv_heads: 8,
                head: 64,
                ctx: 131_072,
                rope_base: 5_000_000.0,
                epsilon: 1e-6,
            },
            Self::Gemma3With1B => Dims {
                name: "gemma-3-1b",
                architecture: "gemma3",
                vocab: 262_144,
                family: Family::Gemma3 { window: 512 },
                layers: 26,
                embedding: 1152,
                feed_forward: 6912,
                heads: 4,
                kv_heads: 1,
                head: 256,
                ctx: 32_768,
                rope_base: 1_000_000.0,
                epsilon: 1e-6,
            },
        }
    }
}

impl Dims {
    /// The keys of the architecture.
    pub fn metadata(&self, builder: Builder) -> Builder {
        let key = |name: &str| format!("{}.{name}", self.architecture);
        let builder = builder
            .u32(&key("block_count"), self.layers as u32)
            .u32(&key("context_length"), self.ctx)
            .u32(&key("embedding_length"), self.embedding as u32)
            .u32(&key("feed_forward_length"), self.feed_forward as u32)
            .u32(&key("attention.head_count"), self.heads as u32)
            .u32(&key("attention.head_count_kv"), self.kv_heads as u32)
            .u32(&key("attention.key_length"), self.head as u32)
            .u32(&key("attention.value_length"), self.head as u32)
            .u32(&key("rope.dimension_count"), self.head as u32)
            .u32(&key("vocab_size"), self.vocab as u32)
            .f32(&key("rope.freq_base"), self.rope_base)
            .f32(&key("attention.layer_norm_rms_epsilon"), self.epsilon);
        match self.family {
            Family::Gemma3 { window } => builder.u32(&key("attention.sliding_window"), window),
            Family::GraniteMoe { experts, used, embedding, residual, attention, logits } => builder
                .u32(&key("expert_count"), experts as u32)
                .u32(&key("expert_used_count"), used)
                .f32(&key("embedding_scale"), embedding)
                .f32(&key("residual_scale"), residual)
                .f32(&key("attention.scale"), attention)
                .f32(&key("logit_scale"), logits),
            Family::Llama | Family::Qwen2 | Family::Qwen3 => builder,
        }
    }

    /// All tensors, in the order in which they stand in the file.
    pub fn tensors(&self, quant: Quant) -> Vec<TensorSpec> {
        let (base, better) = match quant {
            Quant::Q4KM => (Storage::Q4K, Storage::Q6K),
            Quant::Q8_0 => (Storage::Q8_0, Storage::Q8_0),
            Quant::Q4_0 => (Storage::Q4_0, Storage::Q6K),
            Quant::F16 => (Storage::F16, Storage::F16),
        };
        let tied = matches!(self.family, Family::Gemma3 { .. } | Family::GraniteMoe { .. });
        let vocabulary = [self.embedding, self.vocab];
        let mut tensors = vec![matrix("token_embd.weight", &vocabulary, if tied { better } else { base })];
        if !tied {
            tensors.push(matrix("output.weight", &vocabulary, better));
        }
        tensors.push(vector("output_norm.weight", self.embedding, 1.0));
        if self.family == Family::Llama {
            tensors.push(vector("rope_freqs.weight", self.head / 2, 1.0));
        }
        for layer in 0..self.layers {
            // llama.cpp's quantizer gives only Q4_K_M more bits in some layers (`use_more_bits`).
            let more = quant == Quant::Q4KM && more_bits(layer, self.layers);
            self.layer(layer, base, if more { better } else { base }, &mut tensors);
        }
        tensors
    }

    fn layer(&self, layer: u64, base: Storage, better: Storage, out: &mut Vec<TensorSpec>) {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (queries, keys) = (self.heads * self.head, self.kv_heads * self.head);
        out.push(vector(&name("attn_norm.weight"), self.embedding, 1.0));
        for (part, rows, storage) in
            [("attn_q", queries, base), ("attn_k", keys, base), ("attn_v", keys, better)]
        {
            out.push(matrix(&name(&format!("{part}.weight")), &[self.embedding, rows], storage));
            if self.family == Family::Qwen2 {
                out.push(vector(&name(&format!("{part}.bias")), rows, 0.0));
            }
        }
        out.push(matrix(&name("attn_output.weight"), &[queries, self.embedding], base));
        if matches!(self.family, Family::Qwen3 | Family::Gemma3 { .. }) {
            out.push(vector(&name("attn_q_norm.weight"), self.head, 1.0));
            out.push(vector(&name("attn_k_norm.weight"), self.head, 1.0));
        }
        if matches!(self.family, Family::Gemma3 { .. }) {
            out.push(vector(&name("post_attention_norm.weight"), self.embedding, 1.0));
            out.push(vector(&name("post_ffw_norm.weight"), self.embedding, 1.0));
        }
        out.push(vector(&name("ffn_norm.weight"), self.embedding, 1.0));
        let (up, down) = ([self.embedding, self.feed_forward], [self.feed_forward, self.embedding]);
        if let Family::GraniteMoe { experts, .. } = self.family {
            out.push(matrix(&name("ffn_gate_inp.weight"), &[self.embedding, experts], Storage::F32));
            let of_experts = |[inputs, outputs]: [u64; 2]| [inputs, outputs, experts];
            out.push(matrix(&name("ffn_gate_exps.weight"), &of_experts(up), base));
            out.push(matrix(&name("ffn_up_exps.weight"), &of_experts(up), base));
            out.push(matrix(&name("ffn_down_exps.weight"), &of_experts(down), better));
        } else {
            out.push(matrix(&name("ffn_gate.weight"), &up, base));
            out.push(matrix(&name("ffn_up.weight"), &up, base));
            out.push(matrix(&name("ffn_down.weight"), &down, better));
        }
    }
}

const fn more_bits(layer: u64, layers: u64) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

fn matrix(name: &str, dimensions: &[u64], storage: Storage) -> TensorSpec {
    let storage = storage.for_rows_of(dimensions[0]);
    TensorSpec { name: name.to_owned(), dimensions: dimensions.to_vec(), storage, values: Values::Random }
}

fn vector(name: &str, length: u64, value: f32) -> TensorSpec {
    let (dimensions, values) = (vec![length], Values::All(value));
    TensorSpec { name: name.to_owned(), dimensions, storage: Storage::F32, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(shape: Shape) -> u64 {
        let tensors = shape.dims().tensors(Quant::Q4KM);
        tensors.iter().map(|tensor| tensor.dimensions.iter().product::<u64>()).sum()
    }

    /// The numbers of parameters that the models' own pages give, in tens of millions.
    #[test]
    fn shapes_have_the_parameters_of_their_models() {
        let rounded = |shape| (parameters(shape) + 5_000_000) / 10_000_000;
        assert_eq!(rounded(Shape::R1DistillQwen7B), 762);
        assert_eq!(rounded(Shape::Llama31With8B), 803);
        assert_eq!(rounded(Shape::Qwen3With8B), 819);
        assert_eq!(rounded(Shape::GraniteMoe1B), 133);
        assert_eq!(rounded(Shape::Gemma3With1B), 100);
    }

    /// The published `Q4_K_M` files of this model have 4.68 GB.
    #[test]
    fn a_seven_billion_model_is_as_large_as_its_published_file() {
        let tensors = Shape::R1DistillQwen7B.dims().tensors(Quant::Q4KM);
        let bytes: u64 = tensors.iter().map(TensorSpec::bytes).sum();
        assert_eq!((bytes + 5_000_000) / 10_000_000, 468);
    }
}
