//! Headers that are right, wrong, hostile and cut.

use proptest::prelude::*;

use crate::{Gguf, GgufError, ModelMeta, Value, testing::Builder};

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
    assert_eq!((meta.layers, meta.ctx_train, meta.key_length), (2, 4096, 8));
    assert_eq!(meta.kv_heads, [2, 2]);
    assert_eq!((meta.parameters, meta.weights_bytes), (96, 54));
    assert_eq!(meta.quantization, "Q4_0");
    assert_eq!(meta.vocab_size, Some(3));
    assert_eq!(meta.chat_template.as_deref(), Some("{{ x }}"));
    assert_eq!(meta.metadata["llama.block_count"], 2);
}

#[test]
fn kv_heads_can_differ_by_layer() {
    let file = Builder::new()
        .text("general.architecture", "x")
        .u32("x.block_count", 3)
        .u32("x.context_length", 10)
        .u32("x.embedding_length", 64)
        .u32("x.attention.head_count", 4)
        .u32s("x.attention.head_count_kv", &[4, 0, 1]);
    assert_eq!(meta(&file).unwrap().kv_heads, [4, 0, 1]);
}

#[test]
fn a_long_array_is_counted_and_not_kept() {
    let tokens = vec!["token"; 5000];
    let file = Builder::llama().texts("other.tokens", &tokens).u32("after", 7);
    let gguf = Gguf::read(&file.build()).unwrap();
    assert_eq!(gguf.get("other.tokens"), Some(&Value::LongArray { items: 5000 }));
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
    fails(&Builder::new().raw("a", 99, &[]).build(), "type 99");
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
    for (parameters, label) in [(96, "96"), (134_515_008, "134.52M"), (7_615_616_512, "7.6B")] {
        meta.parameters = parameters;
        assert_eq!(meta.parameter_size_label(), label);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(tail: Vec<u8>) {
        let _ = Gguf::read(&[b"GGUF\x03\0\0\0".as_slice(), &tail].concat());
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0_usize..400, bits in 1_u8..) {
        let mut bytes = Builder::llama().build();
        let at = at % bytes.len();
        bytes[at] ^= bits;
        if let Ok(gguf) = Gguf::read(&bytes) {
            let _ = ModelMeta::from_gguf(&gguf);
        }
    }
}
