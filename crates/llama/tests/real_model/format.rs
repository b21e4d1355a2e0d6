//! Constraints on what is generated.

use firepot_chat::Format;
use firepot_engine::{Constraint, Decoder, SeqId, Tokenizer};
use firepot_llama::{GRAMMAR_BYTES_MAX, LlamaDecoder};
use serde_json::{Value, json};

use crate::support::{QUESTION, batch, best, decoder};

fn gbnf(grammar: &str) -> Format {
    Format::Gbnf(grammar.to_owned())
}

fn constraint(tokenizer: &dyn Tokenizer, grammar: &str) -> Box<dyn Constraint> {
    tokenizer.constraint(&gbnf(grammar)).unwrap().unwrap()
}

fn refusal(format: &Format) -> String {
    match decoder().tokenizer().constraint(format) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.message,
    }
}

/// Greedy text under a constraint, until it ends.
fn constrained(decoder: &mut LlamaDecoder, format: &Format, count: usize) -> String {
    let tokenizer = decoder.tokenizer();
    let mut constraint = tokenizer.constraint(format).unwrap().unwrap();
    decoder.remove(SeqId(0), 0, None);
    let mut next = tokenizer.tokenize(QUESTION, true, true).unwrap();
    let (mut position, mut bytes) = (0, Vec::new());
    for _ in 0..count {
        decoder.decode(&batch(0, position, &next)).unwrap();
        position += next.len() as u32;
        let mut logits = decoder.logits(next.len() - 1).to_vec();
        constraint.mask(&mut logits);
        let token = best(&logits);
        assert!(constraint.allows(token));
        if tokenizer.is_end(token) {
            break;
        }
        constraint.accept(token).unwrap();
        tokenizer.piece(token, false, &mut bytes);
        next = vec![token];
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_schema_is_kept() {
    let schema = json!({
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}, "known": {"type": "boolean"}},
        "required": ["capital", "known"],
    });
    let text = constrained(&mut decoder(), &Format::Schema(schema), 64);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(value["capital"].is_string() && value["known"].is_boolean(), "{text}");
}

#[test]
fn json_is_an_object() {
    let mut decoder = decoder();
    let text = constrained(&mut decoder, &Format::Json, 8);
    assert!(text.starts_with('{'), "{text}");
    let tokenizer = decoder.tokenizer();
    let mut constraint = tokenizer.constraint(&Format::Json).unwrap().unwrap();
    for token in tokenizer.tokenize("{\"a\": [1, null, \"b\"]}", false, false).unwrap() {
        constraint.accept(token).unwrap();
    }
    let end = tokenizer.tokenize("<|im_end|>", false, true).unwrap()[0];
    constraint.accept(end).unwrap();
}

#[test]
fn a_grammar_is_kept() {
    let text = constrained(&mut decoder(), &gbnf("root ::= \"yes\" | \"no\""), 8);
    assert!(["yes", "no"].contains(&text.as_str()), "{text}");
}

#[test]
fn a_mask_leaves_what_is_allowed_and_forbids_all_else() {
    let tokenizer = decoder().tokenizer();
    let mut constraint = constraint(tokenizer.as_ref(), "root ::= [ab]");
    let id = |text: &str| tokenizer.tokenize(text, false, false).unwrap()[0] as usize;
    let mut logits = vec![1.5; 49_152];
    logits[id("b")] = f32::NEG_INFINITY;
    constraint.mask(&mut logits);
    let left: Vec<usize> = (0..logits.len()).filter(|&token| logits[token] > f32::NEG_INFINITY).collect();
    assert_eq!(left, [id("a")]);
    assert!((logits[id("a")] - 1.5).abs() < f32::EPSILON);
}

#[test]
fn a_token_that_is_not_allowed_is_not_accepted() {
    let tokenizer = decoder().tokenizer();
    let mut constraint = constraint(tokenizer.as_ref(), "root ::= \"ab\"");
    let end = tokenizer.tokenize("<|im_end|>", false, true).unwrap()[0];
    for token in [end, -1, 49_152, tokenizer.tokenize("x", false, false).unwrap()[0]] {
        assert!(!constraint.allows(token));
        assert!(constraint.accept(token).is_err());
    }
    for token in tokenizer.tokenize("ab", false, false).unwrap() {
        constraint.accept(token).unwrap();
    }
    constraint.accept(end).unwrap();
}

#[test]
fn a_constraint_copied_midway_goes_its_own_way() {
    let tokenizer = decoder().tokenizer();
    let mut first = constraint(tokenizer.as_ref(), "root ::= \"a\" (\"b\" | \"c\")");
    let id = |text: &str| tokenizer.tokenize(text, false, false).unwrap()[0];
    first.accept(id("a")).unwrap();
    let mut second = first.boxed_clone();
    first.accept(id("b")).unwrap();
    drop(first);
    assert!(second.allows(id("b")) && second.allows(id("c")) && !second.allows(id("a")));
    second.accept(id("c")).unwrap();
    assert!(!second.allows(id("b")));
}

#[test]
fn free_text_has_no_constraint() {
    assert!(decoder().tokenizer().constraint(&Format::Free).unwrap().is_none());
}

#[test]
fn a_schema_without_a_grammar_is_refused() {
    insta::assert_snapshot!(refusal(&Format::Schema(json!("json"))), @"a JSON Schema must be an object");
    insta::assert_snapshot!(
        refusal(&Format::Schema(json!({"type": "string", "pattern": "(?=lookahead)"}))),
        @r#"the pattern "(?=lookahead)" has no grammar"#
    );
}

#[test]
fn a_grammar_that_cannot_be_read_is_refused_with_the_reason() {
    insta::assert_snapshot!(refusal(&gbnf("")), @"the grammar cannot be read: there is no rule 'root'");
    insta::assert_snapshot!(refusal(&gbnf("other ::= \"a\"")), @"the grammar cannot be read: there is no rule 'root'");
    insta::assert_snapshot!(refusal(&gbnf("root ::= (")), @"the grammar cannot be read: expecting ')' at");
    insta::assert_snapshot!(refusal(&gbnf("root : \"a\"")), @r#"the grammar cannot be read: expecting ::= at : "a""#);
    insta::assert_snapshot!(refusal(&gbnf("root ::= missing")), @"the grammar cannot be read: undefined rule 'missing'");
    insta::assert_snapshot!(refusal(&gbnf("root ::= root \"a\" | \"b\"")), @"unsupported grammar, left recursion detected for nonterminal at index 0");
    insta::assert_snapshot!(refusal(&gbnf("root ::= \"a\"{9999}")), @"the grammar cannot be read: number of repetitions exceeds sane defaults, please reduce the number of repetitions");
    insta::assert_snapshot!(refusal(&gbnf("root ::= \"\0\"")), @"a grammar cannot contain a NUL byte");
}

#[test]
fn a_grammar_made_to_exhaust_the_stack_is_refused_or_built() {
    let deep = format!("root ::= {}", "(".repeat(GRAMMAR_BYTES_MAX - 9));
    assert!(refusal(&gbnf(&deep)).starts_with("the grammar cannot be read"));
    let long = format!("root ::= \"{}\"", "a".repeat(GRAMMAR_BYTES_MAX));
    insta::assert_snapshot!(refusal(&gbnf(&long)), @"a grammar of 262155 bytes is longer than 262144");
    let rules: Vec<String> = (0..10_000).map(|rule| format!("r{rule} ::= r{} \"x\"\n", rule + 1)).collect();
    let mut chain = rules.concat();
    chain.push_str("r10000 ::= \"x\"\nroot ::= r0\n");
    assert_eq!(refusal(&gbnf(&chain)), "accepted");
}
