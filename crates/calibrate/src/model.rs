//! Models that are made to be measured: no vocabulary, weights that all are the same small number.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use firepot_gguf::{
    TensorType,
    write::{ALIGNMENT, Builder},
};

/// Sizes of a model of llama's architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub layers: u64,
    pub embedding: u64,
    pub feed_forward: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head: u64,
}

/// Ids; few, so that the output costs nothing.
const VOCAB: u64 = 256;
/// Context that it says it was trained with.
const CTX: u32 = 4096;
/// A byte that gives every type a small, normal number: scales, quants and 16-bit floats of 0x1111 alike.
const FILL: u8 = 0x11;
const F32: u32 = 0;

impl Sizes {
    /// Wide layers, as those of a model of some billions of parameters: `layers` of them.
    pub const fn wide(layers: u64) -> Self {
        Self { layers, embedding: 2048, feed_forward: 8192, heads: 16, kv_heads: 4, head: 128 }
    }

    /// Narrow layers with heads of this length, two for each of keys and values: more is spent on calls and attention than on weights.
    pub const fn narrow(layers: u64, head: u64) -> Self {
        Self { layers, embedding: 256, feed_forward: 512, heads: 8, kv_heads: 4, head }
    }

    /// Elements of the matrices of one layer.
    pub const fn matrix_elements(&self) -> u64 {
        let attention = (self.heads + self.kv_heads) * 2 * self.head * self.embedding;
        attention + 3 * self.embedding * self.feed_forward
    }

    fn tensors(&self, kind: TensorType) -> Vec<(String, Vec<u64>, TensorType)> {
        let float = TensorType::by_id(F32).unwrap_or(kind);
        let (wide, queries, keys) = (self.embedding, self.heads * self.head, self.kv_heads * self.head);
        let mut tensors = vec![
            ("token_embd.weight".to_owned(), vec![wide, VOCAB], kind),
            ("output_norm.weight".to_owned(), vec![wide], float),
        ];
        for layer in 0..self.layers {
            let mut add = |part: &str, dimensions: &[u64], kind| {
                tensors.push((format!("blk.{layer}.{part}.weight"), dimensions.to_vec(), kind));
            };
            add("attn_norm", &[wide], float);
            add("attn_q", &[wide, queries], kind);
            add("attn_k", &[wide, keys], kind);
            add("attn_v", &[wide, keys], kind);
            add("attn_output", &[queries, wide], kind);
            add("ffn_norm", &[wide], float);
            add("ffn_gate", &[wide, self.feed_forward], kind);
            add("ffn_up", &[wide, self.feed_forward], kind);
            add("ffn_down", &[self.feed_forward, wide], kind);
        }
        tensors
    }

    /// Writes such a model with matrices of this type.
    pub fn write(&self, kind: TensorType, path: &Path) -> io::Result<()> {
        let number = |value: u64| value as u32;
        let mut builder = Builder::new()
            .text("general.architecture", "llama")
            .text("general.name", "probe")
            .u32("llama.block_count", number(self.layers))
            .u32("llama.context_length", CTX)
            .u32("llama.embedding_length", number(self.embedding))
            .u32("llama.feed_forward_length", number(self.feed_forward))
            .u32("llama.attention.head_count", number(self.heads))
            .u32("llama.attention.head_count_kv", number(self.kv_heads))
            .u32("llama.attention.key_length", number(self.head))
            .u32("llama.attention.value_length", number(self.head))
            .u32("llama.rope.dimension_count", number(self.head))
            .u32("llama.vocab_size", number(VOCAB))
            .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
            .text("tokenizer.ggml.model", "no_vocab");
        let tensors = self.tensors(kind);
        for (name, dimensions, kind) in &tensors {
            builder = builder.tensor(name, dimensions, kind.id, bytes(dimensions, *kind));
        }
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&builder.header())?;
        let mut written = 0_u64;
        let block = vec![FILL; 1 << 20];
        for (_, dimensions, kind) in &tensors {
            let (length, padding) = (bytes(dimensions, *kind), written.next_multiple_of(ALIGNMENT) - written);
            file.write_all(&vec![0; padding as usize])?;
            if kind.id == F32 {
                for _ in 0..length / 4 {
                    file.write_all(&1.0_f32.to_le_bytes())?;
                }
            } else {
                let mut left = length as usize;
                while left > 0 {
                    let part = left.min(block.len());
                    file.write_all(&block[..part])?;
                    left -= part;
                }
            }
            written += padding + length;
        }
        file.flush()
    }
}

/// Bytes of a tensor.
pub fn bytes(dimensions: &[u64], kind: TensorType) -> u64 {
    bytes_of(dimensions.iter().product(), kind)
}

/// Bytes of so many elements.
pub const fn bytes_of(elements: u64, kind: TensorType) -> u64 {
    elements / kind.block_elements as u64 * kind.block_bytes as u64
}

#[cfg(test)]
mod tests {
    use firepot_gguf::Gguf;

    use super::*;

    #[test]
    fn a_written_model_has_the_layout_that_its_sizes_say() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let kind = TensorType::by_id(12).unwrap();
        let sizes = Sizes::narrow(2, 64);
        sizes.write(kind, file.path()).unwrap();
        let layout = Gguf::read(file.as_file()).unwrap().layout().unwrap();
        assert_eq!(layout.layers.len(), 2);
        let matrices = layout.layers[0].dense.parts().iter().find(|part| part.0 == kind).unwrap();
        assert_eq!(matrices.1, bytes_of(sizes.matrix_elements(), kind));
        let length = file.as_file().metadata().unwrap().len();
        assert!(length > layout.weights_bytes() && length < layout.weights_bytes() + 8192);
    }
}
