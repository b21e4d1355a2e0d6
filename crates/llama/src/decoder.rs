//! [`Decoder`] over llama.cpp.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use firepot_chat::TokenId;
use firepot_engine::{
    AbortHandle, Batch, BatchItem, DecodeError, Decoder, DecoderInfo, LoadSpec, SeqId, StateError, Tokenizer,
};
use llama_cpp_sys_2::{llama_batch, llama_pos, llama_seq_id};

use crate::{
    LoadError, backend,
    context::Context,
    memory,
    model::Model,
    params::{self, Allocation, ModelParams},
    vocab::Vocab,
};

/// llama.cpp's code for a batch that it cannot take; also ours, for what it would abort on.
const INVALID_BATCH: i32 = -1;

/// What a load tells while it goes on, and whether it may go on.
pub struct LoadControl<'a> {
    /// Called on the loading thread with the share of the weights that is loaded, 0 to 1; `false` cancels. Making
    /// the context, which follows, is not reported.
    pub progress: &'a mut dyn FnMut(f32) -> bool,
}

/// A loaded model with one context. It can be sent to the thread that drives it.
pub struct LlamaDecoder {
    context: Context,
    vocab: Arc<Vocab>,
    info: DecoderInfo,
    staged: StagedBatch,
}

impl LlamaDecoder {
    /// Loads a model and makes its context.
    ///
    /// # Errors
    /// When the file is no model, a parameter cannot be honoured, memory is short, or `control` cancels. llama.cpp
    /// may also end the process.
    pub fn load(spec: &LoadSpec, control: &mut LoadControl<'_>) -> Result<Self, LoadError> {
        let params = ModelParams::new(spec, Allocation::Real)?;
        let model = Model::load(&spec.path, &spec.shards, &params, control.progress)?;
        if !model.is_causal_decoder() {
            let architecture = model.architecture();
            return Err(LoadError::NotGenerative { path: spec.path.clone(), architecture });
        }
        params::check_training(spec, model.ctx_train())?;
        let context = Context::new(Arc::new(model), spec)?;
        let vocab = Arc::new(Vocab::new(Arc::clone(context.model())));
        let info = describe(&context, &vocab, spec);
        let mut decoder = Self { context, vocab, info, staged: StagedBatch::default() };
        if spec.warmup {
            decoder.warm_up();
        }
        Ok(decoder)
    }

    /// Computes one token, so that weights are read and kernels compiled before the first request.
    fn warm_up(&mut self) {
        let (token, sequence) = (self.vocab.any_token(), SeqId(0));
        let item = BatchItem { token, position: 0, sequence, logits: true };
        if let Err(error) = self.decode(&Batch { items: vec![item] }) {
            tracing::warn!(%error, "warm-up failed");
        }
        self.remove(sequence, 0, None);
    }

    /// llama.cpp asserts on some of these.
    fn check(&self, batch: &Batch) -> Result<(), DecodeError> {
        let known = |item: &BatchItem| {
            item.sequence.0 < self.info.max_sequences
                && self.vocab.contains(item.token)
                && llama_pos::try_from(item.position).is_ok()
        };
        let outputs = batch.items.iter().filter(|item| item.logits).count();
        let valid = !batch.items.is_empty()
            && batch.items.len() <= self.info.batch_tokens as usize
            && outputs <= self.info.max_sequences as usize
            && batch.items.iter().all(known);
        if valid { Ok(()) } else { Err(DecodeError::Failed { code: INVALID_BATCH }) }
    }
}

impl Decoder for LlamaDecoder {
    fn info(&self) -> &DecoderInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.vocab) as _
    }

    fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.context.signals().progress)
    }

    fn abort_handle(&self) -> AbortHandle {
        self.context.signals().abort.clone()
    }

    fn decode(&mut self, batch: &Batch) -> Result<Duration, DecodeError> {
        self.staged.has_logits.clear();
        self.check(batch)?;
        if self.context.signals().abort.take() {
            return Err(DecodeError::Aborted);
        }
        let raw = self.staged.stage(batch);
        let started = Instant::now();
        // SAFETY: `check` and `stage` made the batch what `Context::decode` asks for.
        let code = unsafe { self.context.decode(raw) };
        let took = started.elapsed();
        self.context.signals().step();
        match code {
            0 => {
                self.staged.has_logits.extend(batch.items.iter().map(|item| item.logits));
                Ok(took)
            }
            1 => Err(DecodeError::NoCells { tokens: batch.items.len() }),
            2 => {
                let _ = self.context.signals().abort.take();
                Err(DecodeError::Aborted)
            }
            code => Err(DecodeError::Failed { code }),
        }
    }

    /// # Panics
    /// When the last decode call failed or `item` did not ask for logits.
    fn logits(&mut self, item: usize) -> &[f32] {
        let asked = self.staged.has_logits.get(item).copied().unwrap_or_default();
        assert!(asked, "batch item {item} has no logits");
        self.context.logits(item).expect("llama.cpp keeps the logits that were asked for")
    }

    fn remove(&mut self, sequence: SeqId, from: u32, to: Option<u32>) -> bool {
        self.context.remove(sequence, from, to)
    }

    fn share(&mut self, from: SeqId, to: SeqId, until: u32) {
        self.context.share(from, to, until);
    }

    fn pos_min(&self, sequence: SeqId) -> Option<u32> {
        self.context.pos_min(sequence)
    }

    fn pos_max(&self, sequence: SeqId) -> Option<u32> {
        self.context.pos_max(sequence)
    }

    fn state_bytes(&mut self, sequence: SeqId) -> u64 {
        self.context.state_bytes(sequence) as u64
    }

    fn snapshot(&mut self, sequence: SeqId) -> Result<Vec<u8>, StateError> {
        self.context.state(sequence).ok_or(StateError { action: "read" })
    }

    fn restore(&mut self, sequence: SeqId, state: &[u8]) -> Result<(), StateError> {
        if self.context.set_state(sequence, state) { Ok(()) } else { Err(StateError { action: "set" }) }
    }
}

fn describe(context: &Context, vocab: &Vocab, spec: &LoadSpec) -> DecoderInfo {
    let model = context.model();
    DecoderInfo {
        architecture: model.architecture(),
        description: model.description(),
        vocab_size: model.vocab_size(),
        ctx_train: model.ctx_train(),
        ctx_per_answer: spec.ctx_per_answer,
        kv_cells: context.kv_cells(),
        max_sequences: context.max_sequences(),
        parallel: spec.parallel,
        batch_tokens: context.batch_tokens(),
        chat_template: model.chat_template(),
        bos_text: vocab.bos_text(),
        eos_text: vocab.eos_text(),
        prefix_cut: model.prefix_cut(),
        memory: memory::breakdown(context),
        build: backend::build_info(),
    }
}

/// A batch as llama.cpp wants it, column by column; the columns are kept between calls.
#[derive(Default)]
struct StagedBatch {
    tokens: Vec<TokenId>,
    positions: Vec<llama_pos>,
    sequence_counts: Vec<i32>,
    sequences: Vec<llama_seq_id>,
    sequence_lists: Vec<*mut llama_seq_id>,
    wants_logits: Vec<i8>,
    /// Of the last successful call: which items have logits.
    has_logits: Vec<bool>,
}

// SAFETY: the pointers in `sequence_lists` point into `sequences`, which moves along, and are only read by llama.cpp
// during a call for which `stage` has set them anew.
unsafe impl Send for StagedBatch {}

impl StagedBatch {
    /// The columns of `batch`; valid until the next call or until `self` is dropped.
    fn stage(&mut self, batch: &Batch) -> llama_batch {
        let items = &batch.items;
        refill(&mut self.tokens, items.iter().map(|item| item.token));
        refill(&mut self.positions, items.iter().map(|item| item.position as llama_pos));
        refill(&mut self.sequence_counts, items.iter().map(|_| 1));
        refill(&mut self.sequences, items.iter().map(|item| item.sequence.0 as llama_seq_id));
        refill(&mut self.sequence_lists, self.sequences.iter_mut().map(|id| &raw mut *id));
        refill(&mut self.wants_logits, items.iter().map(|item| i8::from(item.logits)));
        llama_batch {
            n_tokens: items.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_lists.as_mut_ptr(),
            logits: self.wants_logits.as_mut_ptr(),
        }
    }
}

fn refill<T>(column: &mut Vec<T>, values: impl Iterator<Item = T>) {
    column.clear();
    column.extend(values);
}
