//! Text to tokens and back.

use std::thread;

use firepot_engine::{Decoder, Tokenizer};

use crate::support::decoder;

fn round_trip(tokenizer: &dyn Tokenizer, text: &str) -> String {
    let mut bytes = Vec::new();
    for token in tokenizer.tokenize(text, false, false).unwrap() {
        tokenizer.piece(token, true, &mut bytes);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn text_survives_the_round_trip() {
    let tokenizer = decoder().tokenizer();
    let long = "long ".repeat(500);
    for text in ["", "Hello, world!", "żółć 🔥🔥 \t\n  <|im_end|>", "👩‍👩‍👧‍👦\0end", &long]
    {
        assert_eq!(round_trip(tokenizer.as_ref(), text), text);
    }
}

#[test]
fn control_tokens_are_read_and_written_only_on_request() {
    let tokenizer = decoder().tokenizer();
    let as_text = tokenizer.tokenize("<|im_end|>", false, false).unwrap();
    let as_token = tokenizer.tokenize("<|im_end|>", false, true).unwrap();
    assert!(as_text.len() > 1);
    let [token] = as_token[..] else { panic!("one token, not {as_token:?}") };
    assert!(tokenizer.is_end(token));

    let mut bytes = b"kept ".to_vec();
    tokenizer.piece(token, false, &mut bytes);
    assert_eq!(bytes, b"kept ");
    tokenizer.piece(token, true, &mut bytes);
    assert_eq!(bytes, b"kept <|im_end|>");
}

#[test]
fn ids_outside_the_vocabulary_are_no_text() {
    let tokenizer = decoder().tokenizer();
    for token in [-1, 49_152, i32::MAX, i32::MIN] {
        let mut bytes = Vec::new();
        tokenizer.piece(token, true, &mut bytes);
        assert!(bytes.is_empty() && !tokenizer.is_end(token));
    }
}

#[test]
fn a_megabyte_of_one_character_is_tokenized() {
    let tokenizer = decoder().tokenizer();
    for character in ["a", " ", "\n", "🔥"] {
        let text = character.repeat((1 << 20) / character.len());
        assert_eq!(round_trip(tokenizer.as_ref(), &text), text, "{character:?}");
    }
}

#[test]
fn a_tokenizer_is_shared_by_threads_and_outlives_its_decoder() {
    let tokenizer = decoder().tokenizer();
    thread::scope(|scope| {
        for number in 0..4 {
            let tokenizer = &tokenizer;
            scope.spawn(move || {
                let text = format!("thread {number} ").repeat(200);
                assert_eq!(round_trip(tokenizer.as_ref(), &text), text);
            });
        }
    });
}
