//! Headers that are right, wrong, hostile and cut.

use std::{cell::Cell, fs::File, io};

use proptest::prelude::*;

use crate::{ByteSource, Gguf, GgufError, ModelMeta, TensorType, Value, file_type_name, write::Builder};

fn meta(file: &Builder) -> Result<ModelMeta, GgufError> {
    ModelMeta::from_gguf(&Gguf::read(&file.build())?)
}

fn fails(bytes: &[u8], expected: &str) {
    let error = Gguf::read(bytes).unwrap_err().to_string();
    assert!(error.contains(expected), "{expected:?} is not in {error:?}");
}

#[test]
fn a_model_is_described() {
    let meta = meta(&Builder::llama().text("tokenizer.chat_template", "{{ x }}")).unwrap();
    assert_eq!(meta.architecture, "llama");
    assert_eq!((meta.n_layers, meta.ctx_train), (2, 4096));
    assert_eq!((meta.parameters, meta.weights_bytes), (96, 54));
    assert_eq!(meta.quantization, "Q4_0");
    assert_eq!(meta.vocab_size, Some(3));
    assert_eq!(meta.chat_template.as_deref(), Some("{{ x }}"));
    assert_eq!(meta.metadata["llama.block_count"], 2);
}

#[test]
fn a_long_array_is_counted_and_not_kept() {
    let tokens = vec!["token"; 5000];
    let file = Builder::llama().texts("other.tokens", &tokens).u32("after", 7);
    let gguf = Gguf::read(&file.build()).unwrap();
    assert_eq!(gguf.get("other.tokens"), Some(&Value::LongArray { kind: 8, items: 5000 }));
    assert_eq!(gguf.get("after").unwrap().as_u64(), Some(7));
}

#[test]
fn what_is_not_a_model_is_named() {
    fails(b"", "empty");
    fails(b"PK\x03\x04....", "not GGUF");
    fails(b"GGUF\x01\0\0\0", "version 1");
    fails(b"GGUF\0\0\0\x03", "big-endian");
    fails(b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "the number of tensors");
    let no_architecture = Builder::new().u32("a", 1);
    assert!(matches!(meta(&no_architecture), Err(GgufError::Missing { .. })));
}

#[test]
fn damaged_headers_are_refused_by_what_is_wrong() {
    fails(&Builder::new().u32("a", 1).u32("a", 2).build(), "twice");
    let tensor = |file: Builder| file.tensor("t", &[32], 2, 18);
    fails(&tensor(tensor(Builder::new())).build(), "tensor t is there twice");
    fails(&Builder::new().raw("a", 99, &[]).build(), "type 99");
    fails(
        &Builder::new().raw("a", 9, &[&[99, 0, 0, 0], &2000_u64.to_le_bytes()[..]].concat()).build(),
        "type 99",
    );
    fails(&Builder::new().raw("a", 8, &u64::MAX.to_le_bytes()).build(), "a string");
    fails(&Builder::new().raw("a", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]).build(), "UTF-8");
    fails(&Builder::new().tensor("t", &[33, 1], 2, 18).build(), "impossible dimensions");
    fails(&Builder::new().tensor("t", &[0], 0, 0).build(), "impossible dimensions");
    fails(&Builder::new().tensor("t", &[u64::MAX, 32], 0, 4).build(), "impossible dimensions");
    fails(&Builder::new().tensor("t", &[32], 77, 18).build(), "type 77");
    fails(&Builder::new().u32("general.alignment", 3).build(), "alignment");
    let nested: Vec<u8> = (0..9).flat_map(|_| [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).collect();
    fails(&Builder::new().raw("a", 9, &nested).build(), "depth");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let whole = Builder::llama().build();
    for length in 0..whole.len() {
        assert!(Gguf::read(&whole[..length]).is_err(), "cut at {length}");
    }
    assert!(Gguf::read(&whole).is_ok());
}

#[test]
fn parameter_counts_read_as_people_say_them() {
    let mut meta = meta(&Builder::llama()).unwrap();
    let labels = [
        (0, "0"),
        (96, "96"),
        (98_304, "98K"),
        (134_515_008, "134.52M"),
        (135_000_000, "135M"),
        (7_615_616_512, "7.6B"),
        (8_000_000_000, "8B"),
    ];
    for (parameters, label) in labels {
        meta.parameters = parameters;
        assert_eq!(meta.parameter_size_label(), label);
    }
}

#[test]
fn every_type_of_value_is_read() {
    let check = |kind: u32, bytes: &[u8], expected: &Value| {
        let gguf = Gguf::read(&Builder::new().raw("a", kind, bytes).u32("after", 7).build()).unwrap();
        assert_eq!(gguf.get("a"), Some(expected), "type {kind}");
        assert_eq!(gguf.get("after"), Some(&Value::Unsigned(7)), "after type {kind}");
    };
    check(0, &[200], &Value::Unsigned(200));
    check(1, &[200], &Value::Signed(-56));
    check(2, &[1, 2], &Value::Unsigned(513));
    check(3, &[0xff, 0xff], &Value::Signed(-1));
    check(4, &[1, 0, 0, 0x80], &Value::Unsigned(0x8000_0001));
    check(5, &[0xfe, 0xff, 0xff, 0xff], &Value::Signed(-2));
    check(6, &1.5_f32.to_le_bytes(), &Value::Float(1.5));
    check(7, &[1], &Value::Bool(true));
    check(8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0xa9], &Value::Text("é".to_owned()));
    check(10, &u64::MAX.to_le_bytes(), &Value::Unsigned(u64::MAX));
    check(11, &i64::MIN.to_le_bytes(), &Value::Signed(i64::MIN));
    check(12, &(-0.25_f64).to_le_bytes(), &Value::Float(-0.25));
    let nested =
        [&[9, 0, 0, 0][..], &1_u64.to_le_bytes(), &[0, 0, 0, 0], &2_u64.to_le_bytes(), &[5, 6]].concat();
    let inner = Value::Array(vec![Value::Unsigned(5), Value::Unsigned(6)]);
    check(9, &nested, &Value::Array(vec![inner]));
}

#[test]
fn a_directory_is_named_as_one() {
    let directory = File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
    assert!(matches!(Gguf::read(&directory), Err(GgufError::Directory)));
}

#[test]
fn a_source_that_fails_is_not_a_damaged_file() {
    struct Failing;
    impl ByteSource for Failing {
        fn size_bytes(&self) -> io::Result<u64> {
            Ok(1000)
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
    assert!(
        matches!(Gguf::read(&Failing), Err(GgufError::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
    );
}

/// Counts what is read of it.
struct Counting<'a> {
    bytes: &'a [u8],
    reads: Cell<u32>,
    total_bytes: Cell<usize>,
}

impl ByteSource for Counting<'_> {
    fn size_bytes(&self) -> io::Result<u64> {
        self.bytes.size_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.total_bytes.set(self.total_bytes.get() + buffer.len());
        self.bytes.read_at(offset, buffer)
    }
}

#[test]
fn a_large_vocabulary_is_read_in_few_windows_and_the_weights_not_at_all() {
    let tokens: Vec<String> = (0..150_000).map(|id| format!("token {id}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let file = Builder::llama().texts("other.tokens", &tokens).tensor("big", &[1 << 20, 4], 0, 16 << 20);
    let bytes = file.build();
    let source = Counting { bytes: &bytes, reads: Cell::new(0), total_bytes: Cell::new(0) };
    let gguf = Gguf::read(&source).unwrap();
    assert_eq!(gguf.get("other.tokens"), Some(&Value::LongArray { kind: 8, items: 150_000 }));
    let header_bytes = usize::try_from(gguf.data_offset).unwrap();
    assert!(source.reads.get() <= 20, "{} reads", source.reads.get());
    assert!(source.total_bytes.get() < header_bytes + (1 << 20), "{} bytes read", source.total_bytes.get());
}

#[test]
fn many_small_arrays_are_not_all_kept() {
    let array = [&[0, 0, 0, 0][..], &1024_u64.to_le_bytes(), &[7; 1024]].concat();
    let file = (0..1030).fold(Builder::new(), |file, index| file.raw(&index.to_string(), 9, &array));
    let gguf = Gguf::read(&file.build()).unwrap();
    let kept = gguf.entries.iter().filter(|(_, value)| matches!(value, Value::Array(_))).count();
    assert_eq!(kept, 1024);
    assert_eq!(gguf.get("1029"), Some(&Value::LongArray { kind: 0, items: 1024 }));
}

#[test]
fn long_arrays_are_null_in_the_metadata() {
    let numbers = vec![1; 2000];
    let meta = meta(&Builder::llama().u32s("big", &numbers).u32s("small", &[1, 2])).unwrap();
    assert!(meta.metadata["big"].is_null());
    assert_eq!(meta.metadata["small"], serde_json::json!([1, 2]));
}

#[test]
fn quantization_is_the_file_type_or_else_the_type_of_most_bytes() {
    assert_eq!(file_type_name(15), Some("Q4_K_M"));
    assert_eq!(file_type_name(1024 + 3), Some("Q4_1"));
    assert_eq!(file_type_name(4), None);
    let file = Builder::new()
        .text("general.architecture", "x")
        .u32("x.block_count", 1)
        .u32("x.context_length", 10)
        .u32("x.embedding_length", 64)
        .tensor("small", &[1], 0, 4)
        .tensor("big", &[256], 12, 144);
    assert_eq!(meta(&file).unwrap().quantization, "Q4_K");
}

#[test]
fn sizes_of_blocks_give_the_known_bits_per_weight() {
    let bits = |id: u32| {
        let kind = TensorType::by_id(id).unwrap();
        f64::from(kind.block_bytes * 8) / f64::from(kind.block_elements)
    };
    // Figures that llama.cpp's `quantize` prints for these types.
    for (id, expected) in
        [(0, 32.0), (2, 4.5), (3, 5.0), (8, 8.5), (12, 4.5), (14, 6.5625), (16, 2.0625), (41, 1.125)]
    {
        assert!((bits(id) - expected).abs() < 1e-9, "type {id}: {}", bits(id));
    }
    assert_eq!(TensorType::by_id(4), None);
}

#[test]
fn a_model_says_what_it_is_a_variant_of() {
    let file = Builder::llama()
        .u32("llama.expert_count", 8)
        .u32("llama.expert_used_count", 2)
        .text("general.basename", "Tiny")
        .text("general.size_label", "8x1B");
    let meta = meta(&file).unwrap();
    assert_eq!((meta.experts, meta.experts_used), (8, 2));
    assert_eq!((meta.basename.as_deref(), meta.size_label.as_deref()), (Some("Tiny"), Some("8x1B")));
}

#[test]
fn a_model_with_absurdly_many_layers_is_refused() {
    let file = Builder::new().text("general.architecture", "x").u32("x.block_count", u32::MAX);
    let file = file.u32("x.context_length", 10).u32("x.embedding_length", 64);
    assert!(matches!(meta(&file), Err(GgufError::TooLarge { what: "the number of layers", .. })));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(tail: Vec<u8>) {
        let _ = Gguf::read(&[b"GGUF\x03\0\0\0".as_slice(), &tail].concat());
    }

    #[test]
    fn a_header_mutated_and_cut_never_panics(
        edits in proptest::collection::vec((0_usize..1 << 16, any::<u8>()), 1..8),
        keep in 0_usize..1 << 16,
    ) {
        let mut bytes = Builder::llama().u32s("more", &[1, 2, 3]).tensor("t", &[256, 2], 12, 288).build();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(keep % (bytes.len() + 1));
        if let Ok(gguf) = Gguf::read(&bytes) {
            let _ = gguf.meta().map(|meta| meta.parameter_size_label());
            let _ = gguf.layout().map(|layout| layout.weights_bytes());
            for tensor in &gguf.tensors {
                prop_assert!(gguf.data_offset + tensor.offset + tensor.bytes <= bytes.len() as u64);
            }
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0_usize..400, bits in 1_u8..) {
        let mut bytes = Builder::llama().build();
        let at = at % bytes.len();
        bytes[at] ^= bits;
        if let Ok(gguf) = Gguf::read(&bytes) {
            let _ = (ModelMeta::from_gguf(&gguf), gguf.layout());
        }
    }
}

#[test]
fn tensors_that_overlap_are_refused_by_name() {
    let mut file = Builder::llama().tensor("blk.0.attn_q.weight", &[32, 2], 2, 36).build();
    let name = b"blk.0.attn_q.weight";
    let at = file.windows(name.len()).position(|bytes| bytes == name).unwrap();
    // Behind the name: number of dimensions, two of them, the type, and the offset.
    let offset = at + name.len() + 4 + 16 + 4;
    assert_eq!(file[offset..][..8], 64_u64.to_le_bytes());
    file[offset..][..8].copy_from_slice(&32_u64.to_le_bytes());
    let error = Gguf::read(&file).unwrap_err().to_string();
    assert!(error.contains("token_embd.weight and blk.0.attn_q.weight overlap"), "{error}");
}

/// What the fuzzer begins with (`fuzz/`): the sound ones are read to the end, the others are refused.
#[test]
fn the_corpus_of_the_fuzzer_is_read_or_refused() {
    const SOUND: [&str; 6] = ["deepseek2", "gemma3", "heads-per-layer", "llama", "mamba2", "mixture"];
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/header");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let read = Gguf::read(&*std::fs::read(&path).unwrap()).and_then(|gguf| gguf.layout());
        assert_eq!(read.is_ok(), SOUND.contains(&name.as_str()), "{name}: {read:?}");
        seen += 1;
    }
    assert_eq!(seen, 20);
}
