//! The model, a specification to load it, and greedy generation.

use std::path::PathBuf;

use firepot_chat::TokenId;
use firepot_engine::{Batch, BatchItem, Decoder, LoadSpec, SeqId};
use firepot_llama::{LlamaDecoder, LoadControl, LoadError};

/// A question in the model's own template.
pub const QUESTION: &str =
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";

pub fn model_file() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.is_file(), "the test model is missing at {}; run: make test-model", path.display());
    path
}

pub fn spec() -> LoadSpec {
    LoadSpec {
        ctx_per_answer: 1024,
        kv_cells: 2048,
        parallel: 4,
        sequences: 64,
        batch_tokens: 512,
        ubatch_tokens: 512,
        threads: 2,
        threads_batch: 2,
        ..LoadSpec::small(model_file())
    }
}

pub fn load(spec: &LoadSpec) -> Result<LlamaDecoder, LoadError> {
    LlamaDecoder::load(spec, &mut LoadControl { progress: &mut |_| true })
}

pub fn decoder() -> LlamaDecoder {
    load(&spec()).unwrap()
}

/// The error of a load that must fail.
pub fn refusal(spec: &LoadSpec) -> LoadError {
    match load(spec) {
        Ok(_) => panic!("{} was loaded", spec.path.display()),
        Err(error) => error,
    }
}

/// A batch of one sequence from a position, with logits after the last token.
pub fn batch(sequence: u32, from: u32, tokens: &[TokenId]) -> Batch {
    let item = |(offset, &token): (usize, &TokenId)| BatchItem {
        token,
        position: from + offset as u32,
        sequence: SeqId(sequence),
        logits: offset + 1 == tokens.len(),
    };
    Batch { items: tokens.iter().enumerate().map(item).collect() }
}

pub fn best(logits: &[f32]) -> TokenId {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as TokenId
}

/// Greedy text after tokens that the sequence does not hold yet.
pub fn generate(
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
