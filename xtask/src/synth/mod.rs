//! GGUF files with the shape of public models, random weights of sane scale, and a real tokenizer: for measuring speed
//! and memory without downloading gigabytes. What such a model says means nothing.

mod weights;

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use firepot_catalogue::{Model, Quant, TensorSpec};
use firepot_gguf::write::{ALIGNMENT, Builder, RawValue, raw_entries};

/// A model of the catalogue, for arguments.
///
/// # Errors
/// When there is none of this name.
pub fn model(name: &str) -> Result<&'static Model, String> {
    let names =
        || firepot_catalogue::models().iter().map(|model| model.id.as_str()).collect::<Vec<_>>().join(", ");
    firepot_catalogue::find(name).map(|found| found.model).ok_or_else(|| format!("there are {}", names()))
}

/// Where a model is written by default.
pub fn default_path(model: &Model, quant: Quant) -> PathBuf {
    Path::new("target/synth").join(format!("{}-{}.gguf", model.id, quant.name()))
}

/// Writes a model's header alone; where its data would be, the file is a hole. llama.cpp can count what it would take, and
/// not compute with it.
pub fn write_sparse(model: &Model, quant: Quant, tokenizer: &Path, out: &Path) -> anyhow::Result<()> {
    let tensors = model.shape.tensors(quant);
    let header = header(model, quant, tokenizer, &tensors)?;
    let data_bytes =
        tensors.iter().fold(0, |end: u64, tensor| end.next_multiple_of(ALIGNMENT) + tensor.bytes());
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = File::create(out)?;
    file.write_all(&header)?;
    file.set_len(header.len() as u64 + data_bytes)?;
    Ok(())
}

/// Writes a model, or nothing: the file gets its name when it is whole.
pub fn write_model(
    model: &Model,
    quant: Quant,
    seed: u64,
    tokenizer: &Path,
    out: &Path,
) -> anyhow::Result<()> {
    let tensors = model.shape.tensors(quant);
    let header = header(model, quant, tokenizer, &tensors)?;
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir)?;
    }
    let part = out.with_extension("part");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&part)?);
    file.write_all(&header)?;
    let mut rng = Rng::with_seed(seed);
    let mut written = 0_u64;
    for tensor in &tensors {
        let padding = written.next_multiple_of(ALIGNMENT) - written;
        file.write_all(&vec![0; padding as usize])?;
        weights::write(&mut file, tensor, &mut rng)?;
        written += padding + tensor.bytes();
    }
    file.into_inner()?.sync_all()?;
    fs::rename(&part, out)?;
    Ok(())
}

/// The same at its default place, where it is written once.
pub fn write_missing(model: &Model, quant: Quant, tokenizer: &Path) -> anyhow::Result<PathBuf> {
    let out = default_path(model, quant);
    if !out.exists() {
        write_model(model, quant, 1, tokenizer, &out)?;
    }
    Ok(out)
}

fn header(model: &Model, quant: Quant, tokenizer: &Path, tensors: &[TensorSpec]) -> anyhow::Result<Vec<u8>> {
    let source = File::open(tokenizer)
        .with_context(|| format!("no tokenizer at {}; run: make test-model", tokenizer.display()))?;
    let mut builder = Builder::new()
        .text("general.architecture", model.shape.architecture())
        .text("general.name", &format!("synthetic {} with random weights", model.id))
        .u32("general.file_type", quant.file_type());
    builder = model.shape.metadata(builder);
    for (key, value) in raw_entries(&source)?.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        let value = fill_vocabulary(&key, value, model.shape.vocab)
            .with_context(|| format!("{key} of {}", tokenizer.display()))?;
        builder = builder.raw(&key, value.kind, &value.bytes);
    }
    for tensor in tensors {
        builder = builder.tensor(&tensor.name, &tensor.dimensions, tensor.storage.id(), tensor.bytes());
    }
    Ok(builder.header())
}

/// An array's type, its elements' type, and their number stand before its elements.
const ARRAY_HEADER: usize = 4 + 8;
/// `LLAMA_TOKEN_TYPE_UNUSED`.
const UNUSED: i32 = 5;

/// Lengthens the lists of tokens and of their types to the shape's vocabulary, with tokens that stand for nothing.
fn fill_vocabulary(key: &str, mut value: RawValue, vocab: u64) -> anyhow::Result<RawValue> {
    if !matches!(key, "tokenizer.ggml.tokens" | "tokenizer.ggml.token_type") {
        return Ok(value);
    }
    ensure!(value.bytes.len() >= ARRAY_HEADER, "it is no array");
    let mut count = [0; 8];
    count.copy_from_slice(&value.bytes[4..ARRAY_HEADER]);
    let count = u64::from_le_bytes(count);
    ensure!(count <= vocab, "it has {count} tokens, and the shape has only {vocab}");
    for token in count..vocab {
        if key == "tokenizer.ggml.tokens" {
            let text = format!("<unused {token}>");
            value.bytes.extend((text.len() as u64).to_le_bytes());
            value.bytes.extend(text.as_bytes());
        } else {
            value.bytes.extend(UNUSED.to_le_bytes());
        }
    }
    value.bytes[4..ARRAY_HEADER].copy_from_slice(&vocab.to_le_bytes());
    Ok(value)
}

#[cfg(test)]
mod tests {
    use firepot_gguf::Gguf;

    use super::*;

    /// One of each architecture, with a tokenizer of two tokens that is filled up.
    #[test]
    fn a_written_header_has_the_layout_that_the_catalogue_says() {
        let dir = tempfile::tempdir().unwrap();
        let (tokenizer, out) = (dir.path().join("tokenizer.gguf"), dir.path().join("model.gguf"));
        let tokens = Builder::new().texts("tokenizer.ggml.tokens", &["a", "b"]);
        File::create(&tokenizer).unwrap().write_all(&tokens.header()).unwrap();
        let names = [
            "smollm2-135m",
            "r1-distill-qwen-7b",
            "qwen3-8b",
            "qwen3-30b-a3b",
            "gemma-3-1b",
            "phi-4-mini",
            "gpt-oss-20b",
            "granite-3.1-1b-a400m",
        ];
        for name in names {
            let model = model(name).unwrap();
            for quant in [model.usual_quant(), Quant::Q3KM] {
                write_sparse(model, quant, &tokenizer, &out).unwrap();
                let read = Gguf::read(&File::open(&out).unwrap()).unwrap().layout().unwrap();
                assert_eq!(read, model.layout(quant).unwrap(), "{name} {}", quant.name());
            }
        }
    }
}
