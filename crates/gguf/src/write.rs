//! A GGUF writer: for headers of models that are described and not there, for tests and developer tools, also of files
//! that are wrong on purpose.

use std::io;

use crate::{
    ByteSource, GgufError, Value,
    cursor::Cursor,
    limits::{ENTRIES_MAX, KEY_BYTES_MAX, TENSORS_MAX},
};

/// A metadata value as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawValue {
    /// The number of its type.
    pub kind: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All metadata of a file, to be copied into another one.
///
/// # Errors
/// As [`crate::Gguf::read`].
pub fn raw_entries(source: &impl ByteSource) -> Result<Vec<(String, RawValue)>, GgufError> {
    let mut cursor = Cursor::new(source)?;
    cursor.skip(8)?;
    cursor.bounded("the number of tensors", TENSORS_MAX)?;
    let count = cursor.bounded("the number of metadata entries", ENTRIES_MAX)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let key = cursor.string("a key", KEY_BYTES_MAX)?;
        let (kind, start) = (cursor.u32()?, cursor.position());
        Value::read(&mut cursor, kind)?;
        let mut bytes = vec![0; (cursor.position() - start) as usize];
        source.read_at(start, &mut bytes)?;
        entries.push((key, RawValue { kind, bytes }));
    }
    Ok(entries)
}

/// Where data begins: the format's default.
pub const ALIGNMENT: u64 = 32;

/// A GGUF file whose data is all zeros and takes no room.
#[derive(Clone, Debug)]
pub struct Described {
    header: Vec<u8>,
    size_bytes: u64,
}

impl ByteSource for Described {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.size_bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.size_bytes);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        let rest =
            usize::try_from(offset).ok().and_then(|start| self.header.get(start..)).unwrap_or_default();
        let there = rest.len().min(buffer.len());
        buffer[..there].copy_from_slice(&rest[..there]);
        Ok(())
    }
}

/// Builds a GGUF file byte by byte.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    entries: Vec<u8>,
    entry_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data_bytes: u64,
}

impl Builder {
    /// An empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A small but whole `llama` model: 2 layers, 4 heads of 8, 2 KV heads, 3 tokens.
    #[must_use]
    pub fn llama() -> Self {
        Self::new()
            .text("general.architecture", "llama")
            .u32("llama.block_count", 2)
            .u32("llama.context_length", 4096)
            .u32("llama.embedding_length", 32)
            .u32("llama.attention.head_count", 4)
            .u32("llama.attention.head_count_kv", 2)
            .u32("general.file_type", 2)
            .texts("tokenizer.ggml.tokens", &["a", "b", "c"])
            .tensor("token_embd.weight", &[32, 3], 2, 3 * 18)
    }

    /// Adds a 32-bit number.
    #[must_use]
    pub fn u32(mut self, key: &str, value: u32) -> Self {
        self.key(key, 4);
        self.entries.extend(value.to_le_bytes());
        self
    }

    /// Adds a 32-bit float.
    #[must_use]
    pub fn f32(mut self, key: &str, value: f32) -> Self {
        self.key(key, 6);
        self.entries.extend(value.to_le_bytes());
        self
    }

    /// Adds text.
    #[must_use]
    pub fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key, 8);
        push_text(&mut self.entries, value);
        self
    }

    /// Adds an array of texts.
    #[must_use]
    pub fn texts(mut self, key: &str, values: &[&str]) -> Self {
        self.array_header(key, 8, values.len() as u64);
        for value in values {
            push_text(&mut self.entries, value);
        }
        self
    }

    /// Adds an array of 32-bit numbers.
    #[must_use]
    pub fn u32s(mut self, key: &str, values: &[u32]) -> Self {
        self.array_header(key, 4, values.len() as u64);
        self.entries.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }

    /// Adds a value of any type from its bytes.
    #[must_use]
    pub fn raw(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.key(key, kind);
        self.entries.extend(bytes);
        self
    }

    /// Adds a tensor of this size.
    #[must_use]
    pub fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, bytes: u64) -> Self {
        self.data_bytes = self.data_bytes.next_multiple_of(ALIGNMENT);
        push_text(&mut self.tensors, name);
        self.tensors.extend((dimensions.len() as u32).to_le_bytes());
        self.tensors.extend(dimensions.iter().flat_map(|size| size.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(self.data_bytes.to_le_bytes());
        self.tensor_count += 1;
        self.data_bytes += bytes;
        self
    }

    /// The file, with zeros for data.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut file = self.header();
        file.resize(file.len() + self.data_bytes as usize, 0);
        file
    }

    /// The file up to its data. Each tensor's data follows in order, from a multiple of [`ALIGNMENT`].
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\x00\x00\x00".to_vec();
        out.extend(self.tensor_count.to_le_bytes());
        out.extend(self.entry_count.to_le_bytes());
        out.extend(&self.entries);
        out.extend(&self.tensors);
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        out
    }

    /// The header as a file of which the data is not there, but counts.
    #[must_use]
    pub fn described(&self) -> Described {
        let header = self.header();
        let size_bytes = (header.len() as u64).saturating_add(self.data_bytes);
        Described { header, size_bytes }
    }

    fn key(&mut self, key: &str, kind: u32) {
        push_text(&mut self.entries, key);
        self.entries.extend(kind.to_le_bytes());
        self.entry_count += 1;
    }

    fn array_header(&mut self, key: &str, kind: u32, items: u64) {
        self.key(key, 9);
        self.entries.extend(kind.to_le_bytes());
        self.entries.extend(items.to_le_bytes());
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
