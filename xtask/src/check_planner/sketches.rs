//! Headers of models whose layers cache something else than keys and values of every token, by llama.cpp's own lists of their
//! tensors (`src/models`): latent attention with a mixture, states of layers, and both kinds of layers in one model. They have
//! the sizes of public models, and no data.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use anyhow::Context as _;
use firepot_gguf::{
    ByteSource as _,
    write::{Builder, raw_entries},
};

/// Numbers of ggml's types.
const F32: u32 = 0;
const F16: u32 = 1;

/// Names of the models.
pub const ALL: [&str; 4] =
    ["deepseek-v2-lite F16", "mamba2-130m F16", "granite-4.0-h-350m F16", "lfm2-1.2b F16"];

/// Writes one of [`ALL`] with the test model's tokenizer; where its data would be, the file is a hole.
///
/// # Errors
/// When the tokenizer cannot be read or the file not be written.
pub fn write(name: &str, tokenizer: &Path, out: &Path) -> anyhow::Result<()> {
    let source = File::open(tokenizer).with_context(|| tokenizer.display().to_string())?;
    let entries = raw_entries(&source)?;
    let vocab = firepot_gguf::Gguf::read(&source)?.layout()?.vocab_size;
    let mut sketch = match name {
        "deepseek-v2-lite F16" => deepseek2(vocab),
        "mamba2-130m F16" => mamba2(vocab),
        "granite-4.0-h-350m F16" => granite_hybrid(vocab),
        _ => lfm2(vocab),
    };
    for (key, value) in entries.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        sketch.builder = sketch.builder.raw(&key, value.kind, &value.bytes);
    }
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = File::create(out)?;
    file.write_all(&sketch.builder.header())?;
    file.set_len(sketch.builder.described().size_bytes()?)?;
    Ok(())
}

/// A header in the making.
struct Sketch {
    builder: Builder,
    architecture: &'static str,
}

impl Sketch {
    fn new(architecture: &'static str, [layers, embedding, ctx]: [u32; 3]) -> Self {
        let builder = Builder::new()
            .text("general.architecture", architecture)
            .f32(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5);
        Self { builder, architecture }
            .number("block_count", layers)
            .number("embedding_length", embedding)
            .number("context_length", ctx)
    }

    fn number(mut self, key: &str, value: u32) -> Self {
        self.builder = self.builder.u32(&format!("{}.{key}", self.architecture), value);
        self
    }

    fn numbers(mut self, values: &[(&str, u32)]) -> Self {
        for (key, value) in values {
            self = self.number(key, *value);
        }
        self
    }

    /// The layers that attend have so many heads of keys and values, the others none.
    fn kv_heads(mut self, layers: u32, attending: &[u32], heads: u32) -> Self {
        let of_layer = |layer: u32| if attending.contains(&layer) { heads } else { 0 };
        let all: Vec<u32> = (0..layers).map(of_layer).collect();
        self.builder = self.builder.u32s(&format!("{}.attention.head_count_kv", self.architecture), &all);
        self
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32) -> Self {
        let item_bytes = if kind == F32 { 4 } else { 2 };
        let bytes = dimensions.iter().product::<u64>() * item_bytes;
        self.builder = self.builder.tensor(name, dimensions, kind, bytes);
        self
    }

    /// Matrices of a layer.
    fn matrices(mut self, layer: u32, tensors: &[(&str, &[u64])]) -> Self {
        for (name, dimensions) in tensors {
            self = self.tensor(&format!("blk.{layer}.{name}.weight"), dimensions, F16);
        }
        self
    }

    /// What llama.cpp keeps in F32, by whole names.
    fn small(mut self, layer: u32, tensors: &[(&str, &[u64])]) -> Self {
        for (name, dimensions) in tensors {
            self = self.tensor(&format!("blk.{layer}.{name}"), dimensions, F32);
        }
        self
    }

    fn feed_forward(self, layer: u32, embedding: u64, inner: u64) -> Self {
        self.small(layer, &[("ffn_norm.weight", &[embedding])]).matrices(
            layer,
            &[
                ("ffn_gate", &[embedding, inner]),
                ("ffn_down", &[inner, embedding]),
                ("ffn_up", &[embedding, inner]),
            ],
        )
    }

    /// Queries as wide as the residual stream, keys and values of `cached` elements.
    fn attention(self, layer: u32, embedding: u64, cached: u64) -> Self {
        self.matrices(
            layer,
            &[
                ("attn_q", &[embedding, embedding]),
                ("attn_k", &[embedding, cached]),
                ("attn_v", &[embedding, cached]),
                ("attn_output", &[embedding, embedding]),
            ],
        )
    }

    /// A Mamba-2 mixer with one group.
    fn mixer(self, layer: u32, embedding: u64, [inner, state, heads]: [u64; 3]) -> Self {
        let rolling = inner + 2 * state;
        self.matrices(
            layer,
            &[("ssm_in", &[embedding, inner + rolling + heads]), ("ssm_out", &[inner, embedding])],
        )
        .small(
            layer,
            &[
                ("ssm_conv1d.weight", &[4, rolling]),
                ("ssm_conv1d.bias", &[rolling]),
                ("ssm_dt.bias", &[heads]),
                ("ssm_a", &[1, heads]),
                ("ssm_d", &[1, heads]),
                ("ssm_norm.weight", &[inner, 1]),
            ],
        )
    }
}

/// DeepSeek-V2-Lite: latent attention, a mixture behind one dense layer.
fn deepseek2(vocab: u64) -> Sketch {
    const LAYERS: u32 = 27;
    let mut sketch = Sketch::new("deepseek2", [LAYERS, 2048, 163_840])
        .numbers(&[
            ("attention.head_count", 16),
            ("attention.head_count_kv", 1),
            ("attention.key_length", 576),
            ("attention.value_length", 512),
            ("attention.key_length_mla", 192),
            ("attention.value_length_mla", 128),
            ("attention.kv_lora_rank", 512),
            ("rope.dimension_count", 64),
            ("feed_forward_length", 10_944),
            ("expert_feed_forward_length", 1408),
            ("expert_count", 64),
            ("expert_used_count", 6),
            ("expert_shared_count", 2),
            ("leading_dense_block_count", 1),
        ])
        .tensor("token_embd.weight", &[2048, vocab], F16)
        .tensor("output_norm.weight", &[2048], F32)
        .tensor("output.weight", &[2048, vocab], F16);
    for layer in 0..LAYERS {
        sketch = sketch
            .small(layer, &[("attn_norm.weight", &[2048]), ("attn_kv_a_norm.weight", &[512])])
            .matrices(
                layer,
                &[
                    ("attn_q", &[2048, 16 * 192]),
                    ("attn_kv_a_mqa", &[2048, 512 + 64]),
                    ("attn_k_b", &[128, 512, 16]),
                    ("attn_v_b", &[512, 128, 16]),
                    ("attn_output", &[16 * 128, 2048]),
                ],
            );
        sketch = if layer == 0 {
            sketch.feed_forward(layer, 2048, 10_944)
        } else {
            sketch
                .small(layer, &[("ffn_norm.weight", &[2048]), ("ffn_gate_inp.weight", &[2048, 64])])
                .matrices(
                    layer,
                    &[
                        ("ffn_down_exps", &[1408, 2048, 64]),
                        ("ffn_gate_exps", &[2048, 1408, 64]),
                        ("ffn_up_exps", &[2048, 1408, 64]),
                        ("ffn_gate_shexp", &[2048, 2816]),
                        ("ffn_down_shexp", &[2816, 2048]),
                        ("ffn_up_shexp", &[2048, 2816]),
                    ],
                )
        };
    }
    sketch
}

/// Mamba-2 with 130 million parameters: states alone.
fn mamba2(vocab: u64) -> Sketch {
    const LAYERS: u32 = 24;
    let mut sketch = Sketch::new("mamba2", [LAYERS, 768, 1_048_576])
        .numbers(&[
            ("attention.head_count", 0),
            ("feed_forward_length", 0),
            ("ssm.conv_kernel", 4),
            ("ssm.inner_size", 1536),
            ("ssm.state_size", 128),
            ("ssm.time_step_rank", 24),
            ("ssm.group_count", 1),
        ])
        .tensor("token_embd.weight", &[768, vocab], F16)
        .tensor("output_norm.weight", &[768], F32);
    for layer in 0..LAYERS {
        sketch = sketch.small(layer, &[("attn_norm.weight", &[768])]).mixer(layer, 768, [1536, 128, 24]);
    }
    sketch
}

/// Granite 4.0 H 350M: states, and attention in four of its layers.
fn granite_hybrid(vocab: u64) -> Sketch {
    const LAYERS: u32 = 32;
    const ATTENTION: [u32; 4] = [10, 13, 17, 27];
    let mut sketch = Sketch::new("granitehybrid", [LAYERS, 768, 32_768])
        .numbers(&[
            ("attention.head_count", 12),
            ("rope.dimension_count", 64),
            ("feed_forward_length", 2048),
            ("ssm.conv_kernel", 4),
            ("ssm.inner_size", 1536),
            ("ssm.state_size", 128),
            ("ssm.time_step_rank", 48),
            ("ssm.group_count", 1),
        ])
        .kv_heads(LAYERS, &ATTENTION, 4)
        .tensor("token_embd.weight", &[768, vocab], F16)
        .tensor("output_norm.weight", &[768], F32);
    for layer in 0..LAYERS {
        sketch = sketch.small(layer, &[("attn_norm.weight", &[768])]);
        sketch = if ATTENTION.contains(&layer) {
            sketch.attention(layer, 768, 256)
        } else {
            sketch.mixer(layer, 768, [1536, 128, 48])
        };
        sketch = sketch.feed_forward(layer, 768, 2048);
    }
    sketch
}

/// LFM2 1.2B: short convolutions, and attention in six of its layers.
fn lfm2(vocab: u64) -> Sketch {
    const LAYERS: u32 = 16;
    const ATTENTION: [u32; 6] = [2, 5, 8, 10, 12, 14];
    let mut sketch = Sketch::new("lfm2", [LAYERS, 2048, 128_000])
        .numbers(&[("attention.head_count", 32), ("feed_forward_length", 8192), ("shortconv.l_cache", 3)])
        .kv_heads(LAYERS, &ATTENTION, 8)
        .tensor("token_embd.weight", &[2048, vocab], F16)
        .tensor("token_embd_norm.weight", &[2048], F32);
    for layer in 0..LAYERS {
        sketch = sketch.small(layer, &[("attn_norm.weight", &[2048])]);
        sketch = if ATTENTION.contains(&layer) {
            sketch
                .small(layer, &[("attn_q_norm.weight", &[64]), ("attn_k_norm.weight", &[64])])
                .attention(layer, 2048, 512)
        } else {
            sketch.small(layer, &[("shortconv.conv.weight", &[3, 2048])]).matrices(
                layer,
                &[("shortconv.in_proj", &[2048, 3 * 2048]), ("shortconv.out_proj", &[2048, 2048])],
            )
        };
        sketch = sketch.feed_forward(layer, 2048, 8192);
    }
    sketch
}
