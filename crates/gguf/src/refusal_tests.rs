//! Files that lie, file by file and field by field: each is refused by what is wrong.

use std::{cell::Cell, io};

use crate::{ByteSource, Gguf, TensorType, write::Builder};

fn fails(bytes: &[u8], expected: &str) {
    let error = Gguf::read(bytes).unwrap_err().to_string();
    assert!(error.contains(expected), "{expected:?} is not in {error:?}");
}

/// A file of a split model: which one it says it is, of how many, and its tensors beside the small model's.
fn shard(number: Option<u32>, count: u32, tensor: &str) -> Vec<u8> {
    let file = if number == Some(0) { Builder::llama() } else { Builder::new() };
    let file = number.into_iter().fold(file, |file, number| file.u32("split.no", number));
    file.u32("split.count", count).tensor(tensor, &[32, 2], 2, 36).build()
}

#[test]
fn the_files_of_a_split_model_are_one_model() {
    let whole = Gguf::read_split(&[shard(Some(0), 2, "a"), shard(Some(1), 2, "b")]).unwrap();
    let names: Vec<&str> = whole.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["token_embd.weight", "a", "b"]);
    assert!(Gguf::read_split(&[Builder::llama().build()]).is_ok());
}

#[test]
fn files_that_do_not_belong_together_are_refused_by_name() {
    let refused = |files: &[Vec<u8>], words: &str| {
        let error = Gguf::read_split(files).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
    };
    let (first, second, third) = (shard(Some(0), 3, "a"), shard(Some(1), 3, "b"), shard(Some(2), 3, "c"));
    refused(&[first.clone(), second.clone()], "split into 3 files, and there are 2");
    refused(
        &[first.clone(), third.clone(), second.clone()],
        "file 2 of the split model says that it is file 3",
    );
    refused(
        &[first.clone(), second.clone(), second.clone()],
        "file 3 of the split model says that it is file 2",
    );
    refused(&[first.clone(), second.clone(), shard(None, 3, "c")], "does not say which of them it is");
    refused(&[first.clone(), second, shard(Some(2), 3, "a")], "the tensor a is in two files");
    let late = Builder::llama().u32("split.no", 1).u32("split.count", 2).build();
    refused(&[late, shard(Some(1), 2, "b")], "file 1 of the split model says that it is file 2");
    refused(&[], "empty");
}

#[test]
fn a_type_that_was_removed_is_said_to_be_older_and_not_newer() {
    for (id, name) in
        [(4, "Q4_2"), (31, "Q4_0_4_4"), (33, "Q4_0_8_8"), (36, "IQ4_NL_4_4"), (38, "IQ4_NL_8_8")]
    {
        let file = Builder::new().tensor("blk.0.attn_q.weight", &[32], id, 18).build();
        fails(
            &file,
            &format!("the tensor blk.0.attn_q.weight is stored as {name}, which was removed from GGUF"),
        );
        assert_eq!(TensorType::by_id(id), None);
    }
    fails(&Builder::new().tensor("t", &[32], 43, 18).build(), "type 43 is unknown; the file may be newer");
}

/// The place behind a text that stands once in a file.
fn behind(file: &[u8], text: &str) -> usize {
    let mut places = file.windows(text.len()).enumerate().filter(|(_, bytes)| *bytes == text.as_bytes());
    let (at, _) = places.next().unwrap();
    assert!(places.next().is_none(), "{text:?} is there twice");
    at + text.len()
}

#[test]
fn numbers_that_lie_are_refused_by_what_they_are_of() {
    const HUGE: [u8; 8] = (1_u64 << 63).to_le_bytes();
    let sound = Builder::llama().build();
    let edited = |at: usize, bytes: &[u8]| {
        let mut file = sound.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    fails(&edited(8, &HUGE), "the number of tensors is 9223372036854775808, more than");
    fails(&edited(16, &HUGE), "the number of metadata entries is 9223372036854775808, more than");
    fails(&edited(24, &HUGE), "a key is 9223372036854775808, more than");
    let architecture = behind(&sound, "general.architecture");
    fails(&edited(architecture + 4, &HUGE), "a string is 9223372036854775808, more than");
    let tokens = behind(&sound, "tokenizer.ggml.tokens");
    fails(&edited(tokens + 8, &HUGE), "the length of an array is 9223372036854775808, more than");
    let tensor = behind(&sound, "token_embd.weight");
    fails(&edited(tensor - 17 - 8, &HUGE), "a tensor's name is 9223372036854775808, more than");
    fails(&edited(tensor + 4, &HUGE), "impossible dimensions [9223372036854775808, 3]");
    // Behind the name: number of dimensions, two of them, the type, and the offset.
    fails(&edited(tensor + 24, &HUGE), "the file is cut off: it needs 922337203685477");
    let end = (sound.len() as u64).next_multiple_of(32);
    fails(&edited(tensor + 24, &end.to_le_bytes()), "the file is cut off");
    fails(&edited(tensor + 24, &16_u64.to_le_bytes()), "tensor token_embd.weight is not aligned");
    fails(&edited(tensor, &0_u32.to_le_bytes()), "tensor token_embd.weight has 0 dimensions");
    fails(&edited(tensor, &5_u32.to_le_bytes()), "tensor token_embd.weight has 5 dimensions");
}

#[test]
fn a_key_or_a_name_that_is_no_text_is_refused_as_such() {
    let sound = Builder::llama().build();
    let edited = |text: &str| {
        let mut file = sound.clone();
        file[behind(&sound, text) - 1] = 0xff;
        file
    };
    fails(&edited("general.file_type"), "a key is not valid UTF-8");
    fails(&edited("token_embd.weight"), "a tensor's name is not valid UTF-8");
}

/// Bytes that come as they are asked for, never more than that.
struct Sparing<'a> {
    bytes: &'a [u8],
    asked: Cell<u64>,
    left_out: Cell<u64>,
}

impl ByteSource for Sparing<'_> {
    fn size_bytes(&self) -> io::Result<u64> {
        self.bytes.size_bytes()
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_window(&self, offset: u64, least: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let skipped = offset.checked_sub(self.asked.get()).ok_or(io::ErrorKind::NotSeekable)?;
        self.left_out.set(self.left_out.get() + skipped);
        self.asked.set(offset + least as u64);
        self.bytes.read_at(offset, &mut buffer[..least])?;
        Ok(least)
    }
}

#[test]
fn a_header_is_read_forwards_and_long_arrays_of_numbers_are_left_out() {
    let file = Builder::llama().u32s("numbers", &vec![1; 5000]).texts("texts", &vec!["text"; 2000]);
    let bytes = file.text("last", "x").build();
    let source = Sparing { bytes: &bytes, asked: Cell::new(0), left_out: Cell::new(0) };
    let sparing = Gguf::read(&source).unwrap();
    assert_eq!(sparing, Gguf::read(&bytes).unwrap());
    assert_eq!(source.left_out.get(), 5000 * 4 + 2000 * 4);
}
