//! What llama.cpp makes of each architecture: which layers attend, over how many tokens, and what they cache.
//!
//! After `load_hparams` in `llama-model.cpp`, `load_arch_hparams` in `models/*.cpp` and `create_memory`, in the
//! llama.cpp that `firepot-llama` pins. Architectures whose cache is of a kind that is not described here are refused by
//! name.

use crate::{Attention, GgufError, Layer, Recurrent, Value, meta::Fields};

/// Which layers look at a window only, when the file does not list them.
#[derive(Clone, Copy)]
enum Windows {
    /// Layers of each period, but its last one.
    AllButLast(u32),
    /// Layers of each period, but its first one.
    AllButFirst(u32),
    /// The file must list them.
    Listed,
    /// All layers that attend.
    All,
}

/// Architectures with sliding windows: their layers, and the width that holds where the file gives none.
const WINDOWED: &[(&str, Windows, Option<u32>)] = &[
    ("afmoe", Windows::AllButLast(4), None),
    ("cohere2", Windows::AllButLast(4), None),
    ("cohere2moe", Windows::AllButFirst(4), None),
    ("exaone-moe", Windows::AllButLast(4), Some(128)),
    ("exaone4", Windows::AllButLast(4), Some(4096)),
    ("gemma2", Windows::AllButLast(2), Some(4096)),
    ("gemma3", Windows::AllButLast(6), None),
    ("gemma3n", Windows::AllButLast(5), None),
    ("gemma4", Windows::Listed, None),
    ("gpt-oss", Windows::AllButLast(2), None),
    ("granite_swa", Windows::Listed, None),
    ("laguna", Windows::AllButFirst(4), None),
    ("lfm2", Windows::All, None),
    ("llama4", Windows::AllButLast(4), Some(8192)),
    ("maple", Windows::Listed, None),
    ("mellum", Windows::AllButLast(4), None),
    ("mimo2", Windows::Listed, None),
    ("muse-glimmer", Windows::AllButLast(4), None),
    ("olmo2", Windows::AllButLast(4), None),
    ("plamo3", Windows::AllButLast(8), None),
    ("smallthinker", Windows::AllButFirst(4), None),
    ("spark2_5", Windows::Listed, None),
    ("step35", Windows::Listed, None),
];

/// Architectures that look back over everything in every layer.
const FULL: &[&str] = &[
    "apertus",
    "arcee",
    "arctic",
    "baichuan",
    "bailingmoe",
    "bailingmoe2",
    "bitnet",
    "bloom",
    "chameleon",
    "chatglm",
    "codeshell",
    "cogvlm",
    "command-r",
    "dbrx",
    "deci",
    "deepseek",
    "deepseek2",
    "deepseek2-ocr",
    "dots1",
    "ernie4_5",
    "ernie4_5-moe",
    "exaone",
    "falcon",
    "gemma",
    "glm4",
    "glm4moe",
    "gpt2",
    "gptj",
    "gptneox",
    "granite",
    "granitemoe",
    "grok",
    "grovemoe",
    "hunyuan-dense",
    "hunyuan-moe",
    "hunyuan_vl",
    "hy_v3",
    "internlm2",
    "jais",
    "jais2",
    "llama",
    "maincoder",
    "minicpm",
    "minicpm3",
    "minimax-m2",
    "mistral3",
    "mistral4",
    "mpt",
    "nemotron",
    "olmo",
    "olmoe",
    "openelm",
    "orion",
    "paddleocr",
    "pangu-embedded",
    "phi2",
    "phi3",
    "phimoe",
    "plamo",
    "plm",
    "qwen",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "qwen3vl",
    "qwen3vlmoe",
    "refact",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder",
    "starcoder2",
    "talkie",
    "xverse",
];

/// How a layer that keeps a recurrent state is told from one that attends.
#[derive(Clone, Copy)]
enum Recurrence {
    /// Every layer keeps a state, and none attends.
    Only,
    /// Every layer does both.
    Both,
    /// A layer without KV heads keeps a state.
    WithoutHeads,
    /// The same, but a layer with a feed-forward network does neither (Nemotron-H).
    WithoutHeadsOrFeedForward,
    /// All but each n-th layer keep a state.
    Interval(u32),
}

const RECURRENT: &[(&str, Recurrence)] = &[
    ("arwkv7", Recurrence::Only),
    ("bailingmoe3", Recurrence::WithoutHeads),
    ("falcon-h1", Recurrence::Both),
    ("granitehybrid", Recurrence::WithoutHeads),
    ("jamba", Recurrence::WithoutHeads),
    ("kimi-linear", Recurrence::WithoutHeads),
    ("lfm2", Recurrence::WithoutHeads),
    ("lfm2moe", Recurrence::WithoutHeads),
    ("mamba", Recurrence::Only),
    ("mamba2", Recurrence::Only),
    ("minimax-01", Recurrence::Interval(8)),
    ("nemotron_h", Recurrence::WithoutHeadsOrFeedForward),
    ("nemotron_h_moe", Recurrence::WithoutHeadsOrFeedForward),
    ("plamo2", Recurrence::WithoutHeads),
    ("qwen35", Recurrence::Interval(4)),
    ("qwen35moe", Recurrence::Interval(4)),
    ("qwen3next", Recurrence::Interval(4)),
    ("rwkv6", Recurrence::Only),
    ("rwkv6qwen2", Recurrence::Only),
    ("rwkv7", Recurrence::Only),
];

/// The architecture's rules over one header.
pub struct Architecture<'a> {
    fields: &'a Fields<'a>,
    windows: Option<(Windows, u32)>,
    recurrence: Option<Recurrence>,
    /// Layers that a forward pass goes through; those that only predict further tokens follow.
    computed: u32,
}

impl<'a> Architecture<'a> {
    /// # Errors
    /// [`GgufError::Architecture`] when its cache is not one of the kinds that are known here.
    pub fn of(fields: &'a Fields<'a>, n_layers: u32) -> Result<Self, GgufError> {
        let name = fields.architecture.as_str();
        let windowed = WINDOWED.iter().find(|row| row.0 == name);
        let recurrence = RECURRENT.iter().find(|row| row.0 == name).map(|row| row.1);
        if windowed.is_none() && recurrence.is_none() && !FULL.contains(&name) {
            return Err(GgufError::Architecture { name: name.to_owned() });
        }
        let said = fields.optional("attention.sliding_window");
        let windows = windowed.and_then(|&(_, windows, default)| {
            // llama.cpp takes these two widths whatever the file says, unless that is 0.
            let fixed = matches!(name, "llama4" | "smallthinker") && said != Some(0);
            let default = if name == "smallthinker" { Some(4096) } else { default };
            let width = if fixed { default } else { said.or(default) };
            // Only the largest of Exaone 4 has windows.
            let none = name == "exaone4" && n_layers != 64;
            Some((windows, width.filter(|&width| width > 0 && !none)?))
        });
        let predicting = fields.optional("nextn_predict_layers").unwrap_or(0);
        Ok(Self { fields, windows, recurrence, computed: n_layers.saturating_sub(predicting) })
    }

    /// Completes a layer of which the tensors are known.
    pub fn complete(&self, index: u32, layer: &mut Layer) -> Result<(), GgufError> {
        let fields = self.fields;
        layer.computed = index < self.computed;
        let used = fields.layer("expert_used_count", index)?.unwrap_or(0);
        let count = fields.layer("expert_count", index)?.unwrap_or(0);
        let mixture = layer.experts.bytes() > 0;
        (layer.experts_used, layer.experts_count) = if mixture { (used, count) } else { (0, 0) };
        layer.feed_forward_length = self.feed_forward_length(index, layer)?;
        if layer.computed {
            let heads = fields.layer("attention.head_count", index)?.unwrap_or(0);
            let kv_heads = fields.layer("attention.head_count_kv", index)?.unwrap_or(heads);
            let keeps_state = self.keeps_state(index, kv_heads)?;
            let attends = match self.recurrence {
                None | Some(Recurrence::Both) => kv_heads > 0,
                Some(Recurrence::WithoutHeadsOrFeedForward) => {
                    kv_heads > 0 && fields.layer("feed_forward_length", index)?.unwrap_or(0) == 0
                }
                Some(_) => !keeps_state,
            };
            layer.attention = if attends { Some(self.attention(index, heads, kv_heads)?) } else { None };
            layer.recurrent = if keeps_state { Some(self.state(heads)?) } else { None };
        }
        Ok(())
    }

    fn feed_forward_length(&self, index: u32, layer: &Layer) -> Result<u32, GgufError> {
        let fields = self.fields;
        let dense = fields.layer("feed_forward_length", index)?.unwrap_or(0);
        if layer.experts_used == 0 {
            return Ok(dense);
        }
        let each = fields.layer("expert_feed_forward_length", index)?.unwrap_or(dense);
        let shared = fields.optional("expert_shared_feed_forward_length");
        let shared = shared
            .unwrap_or_else(|| fields.optional("expert_shared_count").unwrap_or(0).saturating_mul(each));
        Ok(each.saturating_mul(layer.experts_used).saturating_add(shared))
    }

    fn attention(&self, index: u32, query_heads: u32, kv_heads: u32) -> Result<Attention, GgufError> {
        let fields = self.fields;
        let window = self.window(index)?;
        let embedding = fields.required("embedding_length")?;
        let default = embedding / query_heads.max(1);
        let length = |name: &str| -> Result<u32, GgufError> {
            let full = fields.layer(&format!("attention.{name}"), index)?.unwrap_or(default);
            let windowed = fields.layer(&format!("attention.{name}_swa"), index)?;
            Ok(windowed.filter(|_| window.is_some()).unwrap_or(full))
        };
        let latent = fields.optional("attention.key_length_mla").is_some_and(|length| length > 0);
        let shared = fields.optional("attention.shared_kv_layers").unwrap_or(0);
        let first_shared = match fields.architecture.as_str() {
            // `n_layer_kv_from_start` in `models/gemma3n.cpp`.
            "gemma3n" => 20,
            _ => fields.required("block_count")?.saturating_sub(shared),
        };
        Ok(Attention {
            query_heads,
            kv_heads,
            key_length: length("key_length")?,
            value_length: if latent { 0 } else { length("value_length")? },
            window,
            cached: index < first_shared,
        })
    }

    fn window(&self, index: u32) -> Result<Option<u32>, GgufError> {
        let Some((windows, width)) = self.windows else { return Ok(None) };
        let pattern = self.fields.value("attention.sliding_window_pattern");
        if let Some(Value::Array(items)) = pattern {
            let listed = items.get(index as usize).is_some_and(|item| match item {
                Value::Bool(windowed) => *windowed,
                other => other.as_u64().is_some_and(|number| number != 0),
            });
            return Ok(listed.then_some(width));
        }
        let period = |default: u32| {
            pattern.and_then(Value::as_u64).map_or(default, |period| period.min(u32::MAX.into()) as u32)
        };
        let windowed = match windows {
            Windows::All => true,
            Windows::Listed => {
                let key = format!("{}.attention.sliding_window_pattern", self.fields.architecture);
                return Err(GgufError::Missing { key });
            }
            Windows::AllButLast(default) => match period(default) {
                0 => true,
                period => index % period < period - 1,
            },
            Windows::AllButFirst(default) => match period(default) {
                0 => true,
                period => !index.is_multiple_of(period),
            },
        };
        Ok(windowed.then_some(width))
    }

    fn keeps_state(&self, index: u32, kv_heads: u32) -> Result<bool, GgufError> {
        let fields = self.fields;
        Ok(match self.recurrence {
            None => false,
            Some(Recurrence::Only | Recurrence::Both) => true,
            Some(Recurrence::WithoutHeads) => kv_heads == 0,
            Some(Recurrence::WithoutHeadsOrFeedForward) => {
                kv_heads == 0 && fields.layer("feed_forward_length", index)?.unwrap_or(0) == 0
            }
            Some(Recurrence::Interval(default)) => {
                if let Some(recurrent) = fields.layer("attention.recurrent_layers", index)? {
                    return Ok(recurrent != 0);
                }
                let interval = fields.optional("full_attention_interval").unwrap_or(default).max(1);
                !(index + 1).is_multiple_of(interval)
            }
        })
    }

    /// `n_embd_r` and `n_embd_s` in `llama-hparams.cpp`.
    fn state(&self, heads: u32) -> Result<Recurrent, GgufError> {
        let number = |name: &str| u64::from(self.fields.optional(name).unwrap_or(0));
        let embedding = u64::from(self.fields.required("embedding_length")?);
        let heads = u64::from(heads);
        let kernel = number("ssm.conv_kernel");
        let (head_size, kernel_short, delta) =
            (number("wkv.head_size"), number("shortconv.l_cache"), number("kda.head_dim"));
        Ok(if head_size > 0 {
            let shifts = match number("token_shift_count") {
                0 => 2,
                count => count,
            };
            Recurrent {
                rolling: shifts.saturating_mul(embedding),
                state: embedding.saturating_mul(head_size),
                width: 0,
            }
        } else if kernel_short > 0 {
            Recurrent { rolling: embedding.saturating_mul(kernel_short - 1), state: 0, width: 0 }
        } else if delta > 0 {
            let before = if kernel > 0 { kernel - 1 } else { 3 };
            Recurrent {
                rolling: before.saturating_mul(3).saturating_mul(heads.saturating_mul(delta)),
                state: delta.saturating_mul(delta).saturating_mul(heads),
                width: 0,
            }
        } else {
            let (inner, states) = (number("ssm.inner_size"), number("ssm.state_size"));
            let groups = number("ssm.group_count").saturating_mul(2).saturating_mul(states);
            let convolved = inner.saturating_add(groups);
            let linear =
                if self.fields.architecture == "minimax-01" { number("attention.key_length") } else { 0 };
            Recurrent {
                rolling: kernel.saturating_sub(1).saturating_mul(convolved),
                state: if linear > 0 {
                    linear.saturating_mul(linear).saturating_mul(heads)
                } else {
                    states.saturating_mul(inner)
                },
                // `build_mamba2_layer`: gate and what is convolved; that beside the state before it and behind it; what the state
                // gives, the copy of the gate, and their product.
                width: inner.saturating_mul(4).saturating_add(convolved.saturating_mul(3)),
            }
        })
    }
}
