//! A GGUF file made two, as `llama-gguf-split` does it: all metadata is in the first, the tensors are in both.

use std::{fs, path::Path};

const ALIGNMENT: usize = 32;

struct Reader<'a>(&'a [u8], usize);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        self.1 += bytes;
        &self.0[self.1 - bytes..self.1]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn skip_string(&mut self) {
        let length = self.u64() as usize;
        self.take(length);
    }

    fn skip_value(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => drop(self.take(1)),
            2 | 3 => drop(self.take(2)),
            4..=6 => drop(self.take(4)),
            10..=12 => drop(self.take(8)),
            8 => self.skip_string(),
            9 => {
                let (item, count) = (self.u32(), self.u64());
                (0..count).for_each(|_| self.skip_value(item));
            }
            _ => panic!("a value of kind {kind}"),
        }
    }
}

struct Tensor<'a> {
    /// Name, dimensions and type; the offset follows.
    head: &'a [u8],
    offset: usize,
    data: &'a [u8],
}

/// Writes the two files.
pub fn split(source: &Path, [first, second]: [&Path; 2]) {
    let bytes = fs::read(source).unwrap();
    let mut reader = Reader(&bytes, 8);
    let (tensor_count, kv_count) = (reader.u64() as usize, reader.u64());
    let begin = reader.1;
    for _ in 0..kv_count {
        reader.skip_string();
        let kind = reader.u32();
        reader.skip_value(kind);
    }
    let metadata = &bytes[begin..reader.1];
    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        let begin = reader.1;
        reader.skip_string();
        let dimensions = reader.u32();
        reader.take(8 * dimensions as usize);
        reader.u32();
        let head = &bytes[begin..reader.1];
        tensors.push(Tensor { head, offset: reader.u64() as usize, data: &[] });
    }
    let data = &bytes[reader.1.next_multiple_of(ALIGNMENT)..];
    tensors.sort_by_key(|tensor| tensor.offset);
    let ends = tensors.iter().skip(1).map(|tensor| tensor.offset).chain([data.len()]).collect::<Vec<_>>();
    for (tensor, end) in tensors.iter_mut().zip(ends) {
        tensor.data = &data[tensor.offset..end];
    }
    let (head, tail) = tensors.split_at(tensor_count / 2);
    write(first, metadata, kv_count, head, 0, tensor_count);
    write(second, &[], 0, tail, 1, tensor_count);
}

fn write(
    path: &Path,
    metadata: &[u8],
    kv_count: u64,
    tensors: &[Tensor<'_>],
    number: u16,
    all_tensors: usize,
) {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((kv_count + 3).to_le_bytes());
    file.extend(metadata);
    let mut add = |key: &str, kind: u32, value: &[u8]| {
        file.extend((key.len() as u64).to_le_bytes());
        file.extend(key.as_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(value);
    };
    add("split.no", 2, &number.to_le_bytes());
    add("split.count", 2, &2_u16.to_le_bytes());
    add("split.tensors.count", 5, &(all_tensors as u32).to_le_bytes());
    let mut offset = 0_u64;
    for tensor in tensors {
        file.extend(tensor.head);
        file.extend(offset.to_le_bytes());
        offset += tensor.data.len().next_multiple_of(ALIGNMENT) as u64;
    }
    for tensor in tensors {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(tensor.data);
    }
    crate::hub::put(path, file);
}
