//! The header: metadata and tensor table.

use std::collections::HashSet;

use crate::{
    ByteSource, GgufError, Layout, ModelMeta, TensorType, Value,
    cursor::Cursor,
    limits::{ALIGNMENT_MAX, DIMENSIONS_MAX, ENTRIES_MAX, KEY_BYTES_MAX, TENSORS_MAX},
    types::removed_type,
};

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;

/// A header that was read and checked: every tensor lies inside the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Keys and values, in the file's order; no key twice.
    pub entries: Vec<(String, Value)>,
    /// The tensor table, in the file's order.
    pub tensors: Vec<Tensor>,
    /// Where the tensors' data begins.
    pub data_offset: u64,
    /// Length of the whole file.
    pub file_bytes: u64,
}

/// One row of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions, fastest first, as ggml counts them.
    pub dimensions: Vec<u64>,
    /// How the elements are stored.
    pub kind: TensorType,
    /// Where its data begins, from the start of the data section.
    pub offset: u64,
    /// Length of its data.
    pub bytes: u64,
}

impl Tensor {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

impl Gguf {
    /// Reads and checks a header.
    ///
    /// # Errors
    /// When the bytes are not a whole GGUF file of a known version; see [`GgufError`].
    pub fn read(source: &(impl ByteSource + ?Sized)) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(source)?;
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.bounded("the number of tensors", TENSORS_MAX)?;
        let entry_count = cursor.bounded("the number of metadata entries", ENTRIES_MAX)?;
        let entries = read_entries(&mut cursor, entry_count)?;
        let tensors = read_tensors(&mut cursor, tensor_count)?;
        let alignment = alignment(&entries)?;
        let data_offset = cursor.position().next_multiple_of(alignment);
        let gguf = Self { version, entries, tensors, data_offset, file_bytes: cursor.size_bytes() };
        gguf.check_tensors(alignment)?;
        Ok(gguf)
    }

    /// Reads the files of a split model, in their order, as one.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`join`](Self::join).
    pub fn read_split<S: ByteSource>(files: &[S]) -> Result<Self, GgufError> {
        Self::join(files.iter().map(Self::read).collect::<Result<_, _>>()?)
    }

    /// The headers of a split model's files, in their order, as one: the first one's metadata and all tensors. Offsets and
    /// lengths of the file are those of the first.
    ///
    /// # Errors
    /// When there are not as many files as the first one says, one says that it is another one of them (llama.cpp refuses them
    /// then), or a tensor is in two of them.
    pub fn join(files: Vec<Self>) -> Result<Self, GgufError> {
        let found = files.len() as u64;
        let mut files = files.into_iter();
        let mut whole = files.next().ok_or(GgufError::Empty)?;
        let expected = whole.get("split.count").and_then(Value::as_u64).unwrap_or(1).max(1);
        if found != expected {
            return Err(GgufError::Split { found, expected });
        }
        if found > 1 {
            whole.check_place(1)?;
        }
        let mut seen: HashSet<String> = whole.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        for (place, file) in (2..).zip(files) {
            file.check_place(place)?;
            if let Some(twice) = file.tensors.iter().find(|tensor| !seen.insert(tensor.name.clone())) {
                return Err(GgufError::Damaged(format!("the tensor {} is in two files", twice.name)));
            }
            whole.tensors.extend(file.tensors);
        }
        Ok(whole)
    }

    /// `split.no` counts from 0.
    fn check_place(&self, place: u64) -> Result<(), GgufError> {
        let number = self.get("split.no").and_then(Value::as_u64).map(|number| number.saturating_add(1));
        if number == Some(place) { Ok(()) } else { Err(GgufError::SplitOrder { place, number }) }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// What the header says of the model.
    ///
    /// # Errors
    /// [`GgufError::Missing`] when it does not describe a language model.
    pub fn meta(&self) -> Result<ModelMeta, GgufError> {
        ModelMeta::from_gguf(self)
    }

    /// What the planner wants to know of the model.
    ///
    /// # Errors
    /// [`GgufError::Architecture`] and others, when it is not a language model whose memory is known.
    pub fn layout(&self) -> Result<Layout, GgufError> {
        Layout::of(self)
    }

    fn check_tensors(&self, alignment: u64) -> Result<(), GgufError> {
        for tensor in &self.tensors {
            if !tensor.offset.is_multiple_of(alignment) {
                return Err(GgufError::Damaged(format!("tensor {} is not aligned", tensor.name)));
            }
            let needs_bytes = self.data_offset.saturating_add(tensor.offset).saturating_add(tensor.bytes);
            if needs_bytes > self.file_bytes {
                return Err(GgufError::Truncated { needs_bytes, has_bytes: self.file_bytes });
            }
        }
        self.check_overlaps()
    }

    fn check_overlaps(&self) -> Result<(), GgufError> {
        let mut tensors: Vec<&Tensor> = self.tensors.iter().filter(|tensor| tensor.bytes > 0).collect();
        tensors.sort_unstable_by_key(|tensor| tensor.offset);
        let overlap =
            tensors.windows(2).find(|pair| pair[0].offset.saturating_add(pair[0].bytes) > pair[1].offset);
        overlap.map_or(Ok(()), |pair| {
            let (one, other) = (&pair[0].name, &pair[1].name);
            Err(GgufError::Damaged(format!("tensors {one} and {other} overlap")))
        })
    }
}

fn read_version<S: ByteSource + ?Sized>(cursor: &mut Cursor<'_, S>) -> Result<u32, GgufError> {
    if cursor.size_bytes() == 0 {
        return Err(GgufError::Empty);
    }
    let found = cursor.array()?;
    if found != MAGIC {
        return Err(GgufError::NotGguf { found });
    }
    match cursor.u32()? {
        version @ 2..=3 => Ok(version),
        version if matches!(version.swap_bytes(), 1..=3) => Err(GgufError::BigEndian),
        version => Err(GgufError::Version { version }),
    }
}

fn read_entries<S: ByteSource + ?Sized>(
    cursor: &mut Cursor<'_, S>,
    count: u64,
) -> Result<Vec<(String, Value)>, GgufError> {
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for _ in 0..count {
        let key = cursor.string("a key", KEY_BYTES_MAX)?;
        if !seen.insert(key.clone()) {
            return Err(GgufError::Damaged(format!("the key {key} is there twice")));
        }
        let kind = cursor.u32()?;
        entries.push((key, Value::read(cursor, kind)?));
    }
    Ok(entries)
}

fn read_tensors<S: ByteSource + ?Sized>(
    cursor: &mut Cursor<'_, S>,
    count: u64,
) -> Result<Vec<Tensor>, GgufError> {
    let mut seen = HashSet::new();
    let mut tensors = Vec::new();
    for _ in 0..count {
        let tensor = read_tensor(cursor)?;
        if !seen.insert(tensor.name.clone()) {
            return Err(GgufError::Damaged(format!("the tensor {} is there twice", tensor.name)));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn read_tensor<S: ByteSource + ?Sized>(cursor: &mut Cursor<'_, S>) -> Result<Tensor, GgufError> {
    let name = cursor.string("a tensor's name", KEY_BYTES_MAX)?;
    let rank = cursor.u32()?;
    if rank == 0 || rank > DIMENSIONS_MAX {
        return Err(GgufError::Damaged(format!("tensor {name} has {rank} dimensions")));
    }
    let dimensions = (0..rank).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
    let found = cursor.u32()?;
    let kind = TensorType::by_id(found).ok_or_else(|| match removed_type(found) {
        Some(kind) => GgufError::RemovedType { tensor: name.clone(), kind },
        None => GgufError::UnknownType { what: "tensor", found },
    })?;
    let offset = cursor.u64()?;
    let bytes = data_bytes(&dimensions, kind).ok_or_else(|| {
        GgufError::Damaged(format!("tensor {name} has impossible dimensions {dimensions:?}"))
    })?;
    Ok(Tensor { name, dimensions, kind, offset, bytes })
}

/// Rows are whole blocks of their type.
fn data_bytes(dimensions: &[u64], kind: TensorType) -> Option<u64> {
    let elements = dimensions.iter().try_fold(1_u64, |product, &size| product.checked_mul(size))?;
    let block = u64::from(kind.block_elements);
    let whole = elements > 0 && dimensions[0].is_multiple_of(block);
    whole.then(|| (elements / block).checked_mul(kind.block_bytes.into())).flatten()
}

fn alignment(entries: &[(String, Value)]) -> Result<u64, GgufError> {
    let Some((_, value)) = entries.iter().find(|(key, _)| key == "general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match value.as_u64() {
        Some(alignment) if alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX => Ok(alignment),
        _ => Err(GgufError::Damaged("general.alignment is not a power of two".to_owned())),
    }
}
