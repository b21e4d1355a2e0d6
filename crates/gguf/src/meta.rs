//! What planner, store and API want to know of a model.

use serde_json::Map;

use crate::{Gguf, GgufError, Value, limits::LAYERS_MAX, types::file_type_name};

/// What a model is, from its header.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelMeta {
    /// Architecture name (`llama`, `qwen2`).
    pub architecture: String,
    /// The model's own name.
    pub name: Option<String>,
    /// The name without size and version (`SmolLM2`).
    pub basename: Option<String>,
    /// The size as its maker calls it (`135M`).
    pub size_label: Option<String>,
    /// How most tensors are quantized (`Q4_K_M`).
    pub quantization: String,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub weights_bytes: u64,
    /// Layers (`block_count`).
    pub n_layers: u32,
    /// Context that the model was trained with, in tokens.
    pub ctx_train: u32,
    /// Width of the residual stream.
    pub embedding_length: u32,
    /// Number of experts; 0 for a dense model.
    pub experts: u32,
    /// Experts that work on one token; 0 for a dense model.
    pub experts_used: u32,
    /// Number of ids in the vocabulary, when the file has one.
    pub vocab_size: Option<u64>,
    /// The Jinja chat template.
    pub chat_template: Option<String>,
    /// Text or name of the licence.
    pub license: Option<String>,
    /// The metadata as `/api/show` gives it; long arrays are null.
    pub metadata: Map<String, serde_json::Value>,
}

impl ModelMeta {
    /// What the header says.
    ///
    /// # Errors
    /// [`GgufError::Missing`] when it does not describe a language model.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, GgufError> {
        let fields = Fields::of(gguf)?;
        let n_layers = fields.n_layers()?;
        let embedding_length = fields.required("embedding_length")?;
        Ok(Self {
            name: fields.text("general.name"),
            basename: fields.text("general.basename"),
            size_label: fields.text("general.size_label"),
            quantization: quantization(gguf),
            parameters: gguf.tensors.iter().map(crate::Tensor::elements).fold(0, u64::saturating_add),
            weights_bytes: gguf.tensors.iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add),
            n_layers,
            ctx_train: fields.required("context_length")?,
            embedding_length,
            experts: fields.optional("expert_count").unwrap_or(0),
            experts_used: fields.optional("expert_used_count").unwrap_or(0),
            vocab_size: vocab_size(gguf),
            chat_template: fields.text("tokenizer.chat_template"),
            license: fields.text("general.license"),
            metadata: gguf.entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
            architecture: fields.architecture,
        })
    }

    /// The number of parameters as Ollama prints it: `134.52M`, `7.6B`, `8B` (`HumanNumber` in its
    /// `format/format.go`).
    #[must_use]
    pub fn parameter_size_label(&self) -> String {
        let (unit, suffix, decimals) = match self.parameters {
            0..1_000 => (1, "", 0),
            1_000..1_000_000 => (1_000, "K", 0),
            1_000_000..1_000_000_000 => (1_000_000, "M", 2),
            _ => (1_000_000_000, "B", 1),
        };
        let decimals = if self.parameters.is_multiple_of(unit) { 0 } else { decimals };
        format!("{:.decimals$}{suffix}", self.parameters as f64 / unit as f64)
    }
}

/// The architecture's keys.
pub struct Fields<'a> {
    gguf: &'a Gguf,
    pub architecture: String,
}

impl<'a> Fields<'a> {
    pub fn of(gguf: &'a Gguf) -> Result<Self, GgufError> {
        let key = "general.architecture";
        let architecture = gguf
            .get(key)
            .and_then(Value::as_str)
            .ok_or_else(|| GgufError::Missing { key: key.to_owned() })?;
        Ok(Self { gguf, architecture: architecture.to_owned() })
    }

    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.gguf.get(&format!("{}.{name}", self.architecture))
    }

    /// A number; of a list, the largest.
    pub fn optional(&self, name: &str) -> Option<u32> {
        let value = self.value(name)?;
        let largest = |items: &[Value]| items.iter().filter_map(Value::as_u64).max();
        let number = if let Value::Array(items) = value { largest(items) } else { value.as_u64() };
        number.and_then(|number| u32::try_from(number).ok())
    }

    /// A number that stands for all layers, or this layer's of a list.
    pub fn layer(&self, name: &str, index: u32) -> Result<Option<u32>, GgufError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let damaged =
            || GgufError::Damaged(format!("{}.{name} gives layer {index} no count", self.architecture));
        let item = match value {
            Value::Array(items) => items.get(index as usize).ok_or_else(damaged)?,
            single => single,
        };
        let number = match item {
            Value::Bool(set) => Some(u64::from(*set)),
            other => other.as_u64(),
        };
        number.and_then(|number| u32::try_from(number).ok()).map(Some).ok_or_else(damaged)
    }

    pub fn required(&self, name: &str) -> Result<u32, GgufError> {
        let missing = || GgufError::Missing { key: format!("{}.{name}", self.architecture) };
        self.optional(name).filter(|&number| number > 0).ok_or_else(missing)
    }

    pub fn n_layers(&self) -> Result<u32, GgufError> {
        let n_layers = self.required("block_count")?;
        if n_layers > LAYERS_MAX {
            let (found, limit) = (n_layers.into(), LAYERS_MAX.into());
            return Err(GgufError::TooLarge { what: "the number of layers", found, limit });
        }
        Ok(n_layers)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.gguf.get(key).and_then(Value::as_str).map(str::to_owned)
    }
}

pub fn vocab_size(gguf: &Gguf) -> Option<u64> {
    match gguf.get("tokenizer.ggml.tokens")? {
        Value::Array(items) => Some(items.len() as u64),
        Value::LongArray { items, .. } => Some(*items),
        _ => None,
    }
}

/// The file type's name; without one, the type that holds the most bytes.
fn quantization(gguf: &Gguf) -> String {
    let named = gguf.get("general.file_type").and_then(Value::as_u64).and_then(file_type_name);
    let largest = || gguf.tensors.iter().max_by_key(|tensor| tensor.bytes).map(|tensor| tensor.kind.name);
    named.or_else(largest).unwrap_or("unknown").to_owned()
}
