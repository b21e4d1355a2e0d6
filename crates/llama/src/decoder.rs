//! The decoder.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use firepot_chat::TokenId;
use firepot_engine::{
    Batch, BatchItem, DecodeError, Decoder, DecoderInfo, LoadSpec, PrefixCut, SeqId, StateError, Tokenizer,
};
use llama_cpp_sys_2 as sys;

use crate::{
    context::{Context, Signals, max_sequences},
    devices::build_info,
    error::LoadError,
    memory,
    model::Model,
    vocab::Vocab,
};

/// What a load tells while it goes on.
pub struct LoadControl<'a> {
    /// Called with the fraction that is loaded; `false` cancels.
    pub progress: &'a mut dyn FnMut(f32) -> bool,
}

/// A loaded model with its context.
#[derive(Debug)]
pub struct LlamaDecoder {
    context: Context,
    info: DecoderInfo,
    vocab: Arc<Vocab>,
    batch: BatchBuffers,
}

/// Ends the decode call that is under way, from another thread. Works on the CPU only.
#[derive(Clone, Debug)]
pub struct AbortHandle(Arc<Signals>);

impl AbortHandle {
    /// The current call, or the next one, returns [`DecodeError::Aborted`].
    pub fn abort(&self) {
        self.0.abort.store(true, Ordering::Relaxed);
    }
}

impl LlamaDecoder {
    /// Loads weights and makes a context.
    ///
    /// # Errors
    /// See [`LoadError`]. llama.cpp may also abort the process.
    pub fn load(spec: &LoadSpec, control: &mut LoadControl<'_>) -> Result<Self, LoadError> {
        let model = Arc::new(Model::load(spec, false, control.progress)?);
        check_context(spec, &model)?;
        let context = Context::new(Arc::clone(&model), spec)?;
        let vocab = Arc::new(Vocab::new(model));
        let info = describe(spec, &context, &vocab);
        let mut decoder = Self { context, info, vocab, batch: BatchBuffers::default() };
        if spec.warmup {
            decoder.warm_up();
        }
        Ok(decoder)
    }

    /// Ends calls from another thread.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle(Arc::clone(&self.context.signals))
    }

    /// Computes one token and forgets it, so that weights are in memory before the first request.
    fn warm_up(&mut self) {
        let item = BatchItem { token: 0, position: 0, sequence: SeqId(0), logits: true };
        let _ = self.decode(&Batch { items: vec![item] });
        self.remove(SeqId(0), 0, None);
    }
}

fn check_context(spec: &LoadSpec, model: &Model) -> Result<(), LoadError> {
    let (asked, trained) = (spec.ctx_per_answer, model.ctx_train());
    if trained > 0 && asked > trained {
        let message =
            format!("a context of {asked} tokens was asked for and the model was trained with {trained}");
        return Err(LoadError::BadParameters { message });
    }
    Ok(())
}

fn describe(spec: &LoadSpec, context: &Context, vocab: &Vocab) -> DecoderInfo {
    let model = &context.model;
    DecoderInfo {
        architecture: model.meta("general.architecture").unwrap_or_default(),
        description: model.description(),
        vocab_size: vocab.size(),
        ctx_train: model.ctx_train(),
        ctx_per_answer: spec.ctx_per_answer,
        kv_cells: context.cells(),
        max_sequences: max_sequences(spec),
        parallel: spec.parallel,
        batch_tokens: spec.batch_tokens,
        chat_template: model.chat_template(),
        bos_text: vocab.bos_text(),
        eos_text: vocab.eos_text(),
        prefix_cut: prefix_cut(model),
        memory: memory::breakdown(context),
        build: build_info(),
    }
}

fn prefix_cut(model: &Model) -> PrefixCut {
    match model.sliding_window() {
        _ if model.is_recurrent() => PrefixCut::Nowhere,
        0 => PrefixCut::Anywhere,
        tokens => PrefixCut::Window { tokens },
    }
}

impl Decoder for LlamaDecoder {
    fn info(&self) -> &DecoderInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.vocab) as Arc<dyn Tokenizer>
    }

    fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.context.signals.progress)
    }

    fn decode(&mut self, batch: &Batch) -> Result<Duration, DecodeError> {
        let tokens = batch.items.len();
        if tokens == 0 || tokens > self.info.batch_tokens as usize {
            return Err(DecodeError::Failed { code: -1 });
        }
        let raw = self.batch.fill(&batch.items);
        let start = Instant::now();
        // SAFETY: the batch points into buffers of `tokens` entries that are not touched during the call.
        let code = unsafe { sys::llama_decode(self.context.raw(), raw) };
        self.context.signals.abort.store(false, Ordering::Relaxed);
        // Computation is asynchronous on some backends; the time must cover it.
        // SAFETY: the context is alive.
        unsafe { sys::llama_synchronize(self.context.raw()) };
        match code {
            0 => Ok(start.elapsed()),
            1 => Err(DecodeError::NoCells { tokens }),
            2 => Err(DecodeError::Aborted),
            code => Err(DecodeError::Failed { code }),
        }
    }

    fn logits(&mut self, item: usize) -> &[f32] {
        // SAFETY: null when the item has no logits; otherwise as many floats as the vocabulary has ids, valid until the
        // next decode call, which needs &mut self.
        unsafe {
            let row = sys::llama_get_logits_ith(self.context.raw(), item as i32);
            if row.is_null() { &[] } else { std::slice::from_raw_parts(row, self.info.vocab_size as usize) }
        }
    }

    fn remove(&mut self, sequence: SeqId, from: u32, to: Option<u32>) -> bool {
        let to = to.map_or(-1, |to| to as i32);
        // SAFETY: the memory lives as long as the context; the id is below n_seq_max.
        unsafe { sys::llama_memory_seq_rm(self.context.memory(), sequence.0 as i32, from as i32, to) }
    }

    fn share(&mut self, from: SeqId, to: SeqId, until: u32) {
        // SAFETY: as in `remove`; the cache is unified, so a part can be shared.
        unsafe {
            sys::llama_memory_seq_cp(self.context.memory(), from.0 as i32, to.0 as i32, 0, until as i32)
        }
    }

    fn pos_min(&self, sequence: SeqId) -> Option<u32> {
        // SAFETY: as in `remove`; -1 means empty.
        u32::try_from(unsafe { sys::llama_memory_seq_pos_min(self.context.memory(), sequence.0 as i32) }).ok()
    }

    fn pos_max(&self, sequence: SeqId) -> Option<u32> {
        // SAFETY: as in `remove`; -1 means empty.
        u32::try_from(unsafe { sys::llama_memory_seq_pos_max(self.context.memory(), sequence.0 as i32) }).ok()
    }

    fn snapshot(&mut self, sequence: SeqId) -> Result<Vec<u8>, StateError> {
        let (ctx, id) = (self.context.raw(), sequence.0 as i32);
        // SAFETY: the context is alive; the buffer is as long as said.
        let (state, written) = unsafe {
            let mut state = vec![0_u8; sys::llama_state_seq_get_size_ext(ctx, id, 0)];
            let written = sys::llama_state_seq_get_data_ext(ctx, state.as_mut_ptr(), state.len(), id, 0);
            (state, written)
        };
        if written == 0 || written != state.len() { Err(StateError { action: "read" }) } else { Ok(state) }
    }

    fn restore(&mut self, sequence: SeqId, state: &[u8]) -> Result<(), StateError> {
        let (ctx, id) = (self.context.raw(), sequence.0 as i32);
        // SAFETY: the context is alive; the buffer is as long as said. llama.cpp checks lengths and shapes.
        let read = unsafe { sys::llama_state_seq_set_data_ext(ctx, state.as_ptr(), state.len(), id, 0) };
        if read == state.len() {
            return Ok(());
        }
        self.remove(sequence, 0, None);
        Err(StateError { action: "set" })
    }
}

/// Arrays of a `llama_batch`, kept between calls.
#[derive(Debug, Default)]
struct BatchBuffers {
    tokens: Vec<TokenId>,
    positions: Vec<sys::llama_pos>,
    sequence_counts: Vec<i32>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_pointers: Vec<*mut sys::llama_seq_id>,
    logits: Vec<i8>,
}

// SAFETY: the pointers point into the struct's own vectors and are set anew before each use.
unsafe impl Send for BatchBuffers {}

impl BatchBuffers {
    fn fill(&mut self, items: &[BatchItem]) -> sys::llama_batch {
        self.tokens.clear();
        self.tokens.extend(items.iter().map(|item| item.token));
        self.positions.clear();
        self.positions.extend(items.iter().map(|item| item.position as sys::llama_pos));
        self.sequence_counts.clear();
        self.sequence_counts.resize(items.len(), 1);
        self.sequences.clear();
        self.sequences.extend(items.iter().map(|item| item.sequence.0 as sys::llama_seq_id));
        self.sequence_pointers.clear();
        self.sequence_pointers.extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        self.logits.clear();
        self.logits.extend(items.iter().map(|item| i8::from(item.logits)));
        sys::llama_batch {
            n_tokens: items.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.logits.as_mut_ptr(),
        }
    }
}
