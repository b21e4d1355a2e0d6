//! llama.cpp on the real small model.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, path::PathBuf, sync::atomic::Ordering, time::Duration};

use firepot_chat::{Format, TokenId};
use firepot_engine::{
    Batch, BatchItem, Constraint, DecodeError, Decoder, DeviceMemory, KvType, LoadSpec, SeqId,
};
use firepot_llama::{LlamaDecoder, LoadControl, LoadError, devices, dry_run};
use serde_json::json;

const QUESTION: &str = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";

fn model_file() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.is_file(), "the test model is missing; run: make test-model");
    path
}

fn spec() -> LoadSpec {
    LoadSpec {
        path: model_file(),
        ctx_per_answer: 1024,
        kv_cells: 2048,
        parallel: 4,
        batch_tokens: 512,
        ubatch_tokens: 512,
        threads: 2,
        threads_batch: 2,
        flash_attention: true,
        kv_type_k: KvType::F16,
        kv_type_v: KvType::F16,
        gpu_layers: 0,
        devices: Vec::new(),
        tensor_split: Vec::new(),
        mmap: true,
        mlock: false,
        repack: false,
        check_tensors: false,
        warmup: false,
    }
}

fn load(spec: &LoadSpec) -> Result<LlamaDecoder, LoadError> {
    LlamaDecoder::load(spec, &mut LoadControl { progress: &mut |_| true })
}

fn decoder() -> LlamaDecoder {
    load(&spec()).unwrap()
}

/// A batch of one sequence from a position, with logits after the last token.
fn batch(sequence: u32, from: u32, tokens: &[TokenId]) -> Batch {
    let item = |(offset, &token): (usize, &TokenId)| BatchItem {
        token,
        position: from + offset as u32,
        sequence: SeqId(sequence),
        logits: offset + 1 == tokens.len(),
    };
    Batch { items: tokens.iter().enumerate().map(item).collect() }
}

fn best(logits: &[f32]) -> TokenId {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as TokenId
}

/// Greedy text after tokens that the sequence does not hold yet.
fn generate(
    decoder: &mut LlamaDecoder,
    sequence: u32,
    from: u32,
    tokens: &[TokenId],
    count: usize,
) -> String {
    let tokenizer = decoder.tokenizer();
    let (mut next, mut position, mut bytes) = (tokens.to_vec(), from, Vec::new());
    for _ in 0..count {
        decoder.decode(&batch(sequence, position, &next)).unwrap();
        position += next.len() as u32;
        let token = best(decoder.logits(next.len() - 1));
        if tokenizer.is_end(token) {
            break;
        }
        tokenizer.piece(token, false, &mut bytes);
        next = vec![token];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn it_knows_the_capital_of_france() {
    let mut decoder = decoder();
    let prompt = decoder.tokenizer().tokenize(QUESTION, true, true).unwrap();
    assert!(generate(&mut decoder, 0, 0, &prompt, 16).contains("Paris"));
    assert!(decoder.progress().load(Ordering::Relaxed) > 100, "the abort callback counts graph nodes");
}

#[test]
fn it_says_what_was_loaded() {
    let decoder = decoder();
    let info = decoder.info();
    assert_eq!((info.architecture.as_str(), info.ctx_train, info.vocab_size), ("llama", 8192, 49_152));
    assert!(info.chat_template.as_ref().unwrap().contains("<|im_start|>"));
    assert_eq!(info.eos_text, "<|im_end|>");
    let weights: u64 = info.memory.iter().map(|device| device.weights_bytes).sum();
    assert!((90 << 20..110 << 20).contains(&weights), "{:?}", info.memory);
    // 30 layers, 3 KV heads of 64, two caches of f16.
    let kv: u64 = info.memory.iter().map(|device| device.kv_bytes).sum();
    assert_eq!(kv, 2048 * 30 * 3 * 64 * 2 * 2);
}

#[test]
fn text_survives_the_round_trip() {
    let tokenizer = decoder().tokenizer();
    for text in ["", "Hello, world!", "żółć 🔥🔥 \t\n  <|im_end|>", &"long ".repeat(500)] {
        let ids = tokenizer.tokenize(text, false, false).unwrap();
        let mut bytes = Vec::new();
        ids.iter().for_each(|&id| tokenizer.piece(id, true, &mut bytes));
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
    let control = tokenizer.tokenize("<|im_end|>", false, true).unwrap();
    assert!(control.len() == 1 && tokenizer.is_end(control[0]));
    assert!(!tokenizer.is_end(-1) && !tokenizer.is_end(1_000_000));
}

#[test]
fn sequences_in_one_batch_do_not_mix() {
    let mut decoder = decoder();
    let tokenizer = decoder.tokenizer();
    let prompts = ["The capital of France is", "The capital of Germany is", "2, 4, 6, 8,"];
    let ids: Vec<Vec<TokenId>> =
        prompts.iter().map(|text| tokenizer.tokenize(text, true, true).unwrap()).collect();
    let alone: Vec<TokenId> = ids
        .iter()
        .map(|ids| {
            decoder.decode(&batch(9, 0, ids)).unwrap();
            let token = best(decoder.logits(ids.len() - 1));
            decoder.remove(SeqId(9), 0, None);
            token
        })
        .collect();
    let mut items = Vec::new();
    let mut rows = Vec::new();
    for (sequence, ids) in ids.iter().enumerate() {
        items.extend(batch(sequence as u32, 0, ids).items);
        rows.push(items.len() - 1);
    }
    decoder.decode(&Batch { items }).unwrap();
    let together: Vec<TokenId> = rows.into_iter().map(|row| best(decoder.logits(row))).collect();
    assert_eq!(together, alone);
}

#[test]
fn a_shared_and_cut_prefix_continues_as_if_computed() {
    let mut decoder = decoder();
    let prompt = decoder.tokenizer().tokenize(QUESTION, true, true).unwrap();
    let undisturbed = generate(&mut decoder, 0, 0, &prompt, 8);
    let half = prompt.len() as u32 / 2;
    decoder.share(SeqId(0), SeqId(1), half);
    assert_eq!((decoder.pos_min(SeqId(1)), decoder.pos_max(SeqId(1))), (Some(0), Some(half - 1)));
    assert_eq!(generate(&mut decoder, 1, half, &prompt[half as usize..], 8), undisturbed);
    assert!(decoder.remove(SeqId(0), half, None));
    assert_eq!(decoder.pos_max(SeqId(0)), Some(half - 1));
    decoder.remove(SeqId(0), 0, None);
    assert_eq!(decoder.pos_max(SeqId(0)), None);
}

#[test]
fn a_state_restored_elsewhere_gives_the_same_logits() {
    let mut decoder = decoder();
    let ids = decoder.tokenizer().tokenize(QUESTION, true, true).unwrap();
    let (last, before) = ids.split_last().unwrap();
    decoder.decode(&batch(0, 0, before)).unwrap();
    let state = decoder.snapshot(SeqId(0)).unwrap();
    decoder.decode(&batch(0, before.len() as u32, &[*last])).unwrap();
    let expected = decoder.logits(0).to_vec();
    let mut other = self::decoder();
    other.restore(SeqId(3), &state).unwrap();
    other.decode(&batch(3, before.len() as u32, &[*last])).unwrap();
    assert_eq!(other.logits(0), expected);
    assert!(other.restore(SeqId(4), &state[..state.len() / 2]).is_err());
    assert_eq!(other.pos_max(SeqId(4)), None);
}

/// Greedy text under a constraint, until it ends.
fn constrained(decoder: &mut LlamaDecoder, format: &Format, count: usize) -> String {
    let tokenizer = decoder.tokenizer();
    let mut constraint = tokenizer.constraint(format).unwrap().unwrap();
    decoder.remove(SeqId(0), 0, None);
    let (mut next, mut position, mut bytes) =
        (tokenizer.tokenize(QUESTION, true, true).unwrap(), 0, Vec::new());
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
fn formats_are_kept() {
    let mut decoder = decoder();
    let schema = json!({
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}, "known": {"type": "boolean"}},
        "required": ["capital", "known"],
    });
    let text = constrained(&mut decoder, &Format::Schema(schema), 64);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(value["capital"].is_string() && value["known"].is_boolean(), "{text}");
    let grammar = Format::Gbnf("root ::= \"yes\" | \"no\"".into());
    assert!(["yes", "no"].contains(&constrained(&mut decoder, &grammar, 8).as_str()));
}

#[test]
fn a_constraint_copied_midway_goes_its_own_way() {
    let tokenizer = decoder().tokenizer();
    let mut first =
        tokenizer.constraint(&Format::Gbnf("root ::= \"a\" (\"b\" | \"c\")".into())).unwrap().unwrap();
    let id = |text: &str| tokenizer.tokenize(text, false, false).unwrap()[0];
    first.accept(id("a")).unwrap();
    let mut second: Box<dyn Constraint> = first.boxed_clone();
    first.accept(id("b")).unwrap();
    assert!(second.allows(id("c")) && !second.allows(id("a")) && !first.allows(id("c")));
    assert!(second.accept(id("x")).is_err());
    second.accept(id("c")).unwrap();
}

#[test]
fn formats_that_cannot_be_expressed_are_refused() {
    let tokenizer = decoder().tokenizer();
    let mut deep = json!({"type": "string"});
    for _ in 0..100 {
        deep = json!({"type": "array", "items": deep});
    }
    for format in [
        Format::Schema(json!({"type": "nonsense"})),
        Format::Schema(json!({"$ref": "#/nowhere"})),
        Format::Schema(deep),
        Format::Gbnf("root ::= (".into()),
        Format::Gbnf("other ::= \"a\"".into()),
        Format::Gbnf(String::new()),
    ] {
        assert!(tokenizer.constraint(&format).is_err(), "{format:?}");
    }
    assert!(tokenizer.constraint(&Format::Free).unwrap().is_none());
}

#[test]
fn a_call_is_aborted_from_another_thread_and_a_prefix_stays() {
    let mut decoder = decoder();
    let ids: Vec<TokenId> = vec![100; 500];
    let handle = decoder.abort_handle();
    let progress = decoder.progress();
    let aborter = std::thread::spawn(move || {
        while progress.load(Ordering::Relaxed) < 50 {
            std::thread::sleep(Duration::from_millis(1));
        }
        handle.abort();
    });
    let outcome = decoder.decode(&batch(0, 0, &ids));
    aborter.join().unwrap();
    assert_eq!(outcome, Err(DecodeError::Aborted));
    let held = decoder.pos_max(SeqId(0)).map_or(0, |last| last + 1);
    assert!(held < 500);
    decoder.decode(&batch(0, held, &ids[held as usize..])).unwrap();
}

#[test]
fn a_batch_without_cells_is_refused_and_changes_nothing() {
    let mut decoder = load(&LoadSpec { kv_cells: 256, ctx_per_answer: 256, ..spec() }).unwrap();
    let cells = decoder.info().kv_cells;
    decoder.decode(&batch(0, 0, &vec![100; 200])).unwrap();
    let outcome = decoder.decode(&batch(1, 0, &vec![100; cells as usize]));
    assert_eq!(outcome, Err(DecodeError::NoCells { tokens: cells as usize }));
    assert_eq!((decoder.pos_max(SeqId(0)), decoder.pos_max(SeqId(1))), (Some(199), None));
}

#[test]
fn files_that_are_no_model_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(model_file()).unwrap();
    let name = b"general.architecture";
    let at = whole.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 12;
    let mut alien = whole.clone();
    alien[at..at + 5].copy_from_slice(b"alien");
    let cases: [(&str, &[u8], &str); 6] = [
        ("empty", b"", "empty"),
        ("text", b"this is not a model, only text", ""),
        ("header", &whole[..24], ""),
        ("metadata", &whole[..200_000], ""),
        ("tensors", &whole[..60 << 20], ""),
        ("alien", &alien, "alien"),
    ];
    for (name, bytes, word) in cases {
        let path = dir.path().join(name);
        fs::File::create(&path).and_then(|mut file| std::io::Write::write_all(&mut file, bytes)).unwrap();
        let error = load(&LoadSpec { path, ..spec() }).unwrap_err();
        assert!(matches!(error, LoadError::BadModel { .. }), "{name}: {error}");
        assert!(error.to_string().contains(word), "{name}: {error}");
    }
    let directory = load(&LoadSpec { path: dir.path().into(), ..spec() }).unwrap_err();
    assert!(matches!(directory, LoadError::Directory { .. }));
    let missing = load(&LoadSpec { path: dir.path().join("missing"), ..spec() }).unwrap_err();
    assert!(matches!(missing, LoadError::Unreadable { .. }));
}

#[test]
fn parameters_that_cannot_be_met_are_refused() {
    for (spec, word) in [
        (LoadSpec { ctx_per_answer: 9000, kv_cells: 9000, ..spec() }, "8192"),
        (LoadSpec { kv_cells: 512, ..spec() }, "cells"),
        (LoadSpec { flash_attention: false, kv_type_v: KvType::Q8_0, ..spec() }, "flash attention"),
        (LoadSpec { devices: vec!["CUDA7".into()], ..spec() }, "CPU"),
    ] {
        let error = load(&spec).unwrap_err();
        assert!(
            matches!(error, LoadError::BadParameters { .. }) && error.to_string().contains(word),
            "{error}"
        );
    }
}

#[test]
fn a_load_reports_progress_and_can_be_cancelled() {
    let mut seen = Vec::new();
    let mut progress = |fraction| {
        seen.push(fraction);
        true
    };
    LlamaDecoder::load(&spec(), &mut LoadControl { progress: &mut progress }).unwrap();
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]));
    assert_eq!(seen.last(), Some(&1.0));
    let cancelled = LlamaDecoder::load(&spec(), &mut LoadControl { progress: &mut |_| false });
    assert!(matches!(cancelled, Err(LoadError::Cancelled)));
}

#[test]
fn a_dry_run_predicts_what_the_load_takes() {
    for kv_type in [KvType::F16, KvType::Q8_0] {
        let spec = LoadSpec { kv_type_k: kv_type, kv_type_v: kv_type, kv_cells: 4096, ..spec() };
        let sums = |memory: &[DeviceMemory]| {
            memory.iter().fold((0, 0, 0), |(weights, kv, compute), device| {
                (weights + device.weights_bytes, kv + device.kv_bytes, compute + device.compute_bytes)
            })
        };
        assert_eq!(sums(&dry_run(&spec).unwrap()), sums(&load(&spec).unwrap().info().memory));
    }
}

#[test]
fn the_processor_is_a_device_with_memory() {
    let cpu = devices().into_iter().find(|device| device.name == "CPU").unwrap();
    assert!(cpu.total_bytes > 1 << 30);
}
