//! The model's file, as exactly as it can be told.

use std::{fs::File, io::Read as _};

use firepot_gguf::Gguf;
use firepot_machine::Reading;
use firepot_measure::bundle::Model as Record;
use firepot_store::Model;

use super::evidence::hash;

/// A model of the store.
pub fn own(target: &str, model: &Model, context_tokens: Reading<u32>) -> Record {
    let header = header(model);
    Record {
        target: target.to_owned(),
        name: model.name.to_string(),
        revision: Reading::Known(format!("manifest sha256:{}", model.manifest_digest.hex())),
        size_bytes: std::fs::metadata(&model.blob_path)
            .map(|file| file.len())
            .map_err(|error| error.to_string())
            .into(),
        sha256: Reading::Known(model.digest.hex()),
        header_sha256: header.clone().map(|header| header.0),
        tokenizer_sha256: header.map(|header| header.1),
        template_sha256: match &model.summary.template {
            Some(template) => hash(template.as_bytes()).map_err(|error| error.to_string()).into(),
            None => Reading::absent("the model has no chat template"),
        },
        parameters: Reading::Known(model.summary.parameters),
        quantization: Reading::Known(model.summary.quantization.clone()),
        context_tokens,
    }
}

/// SHA-256 of the header: all before the weights; and of what of it concerns the tokenizer.
fn header(model: &Model) -> Reading<(String, String)> {
    let read = || -> Result<(String, String), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let file = File::open(&model.blob_path).map_err(|error| told(&error))?;
        let gguf = Gguf::read(&file).map_err(|error| told(&error))?;
        let file = File::open(&model.blob_path).map_err(|error| told(&error))?;
        let mut bytes = Vec::new();
        file.take(gguf.data_offset).read_to_end(&mut bytes).map_err(|error| told(&error))?;
        let tokenizer = tokenizer(&gguf, &bytes);
        Ok((hash(&*bytes).map_err(|error| told(&error))?, hash(&*tokenizer).map_err(|error| told(&error))?))
    };
    read().into()
}

/// The entries whose keys begin with `tokenizer.`, from the first of them to the next other one: tools write them together.
fn tokenizer(gguf: &Gguf, bytes: &[u8]) -> Vec<u8> {
    let place = |key: &str| {
        let length = (key.len() as u64).to_le_bytes();
        let wanted = [length.as_slice(), key.as_bytes()].concat();
        bytes.windows(wanted.len()).position(|window| window == wanted)
    };
    let mut parts = Vec::new();
    for (index, (key, _)) in gguf.entries.iter().enumerate() {
        if !key.starts_with("tokenizer.") || key == "tokenizer.chat_template" {
            continue;
        }
        let next = gguf
            .entries
            .get(index + 1)
            .and_then(|(key, _)| place(key))
            .or_else(|| place(&gguf.tensors.first()?.name));
        if let (Some(from), Some(to)) = (place(key), next)
            && from < to
        {
            parts.extend_from_slice(&bytes[from..to]);
        }
    }
    parts
}

/// A model of a server that shows no more than its name.
pub fn foreign(target: &str, name: &str) -> Record {
    fn absent<T>() -> Reading<T> {
        Reading::absent("the server does not show it")
    }
    Record {
        target: target.to_owned(),
        name: name.to_owned(),
        revision: absent(),
        size_bytes: absent(),
        sha256: absent(),
        header_sha256: absent(),
        tokenizer_sha256: absent(),
        template_sha256: absent(),
        parameters: absent(),
        quantization: absent(),
        context_tokens: absent(),
    }
}
