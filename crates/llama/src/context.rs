//! A context of a model: KV cache, compute buffers and threads.
//!
//! Positions and sequence ids are checked here, because llama.cpp asserts on bad ones and so ends the process.

use std::{ptr::NonNull, sync::Arc};

use firepot_engine::{LoadSpec, PrefixCut, SeqId};
use llama_cpp_sys_2::{
    ggml_threadpool, ggml_threadpool_params_default, llama_attach_threadpool, llama_batch, llama_context,
    llama_free, llama_get_logits_ith, llama_get_memory, llama_init_from_model, llama_memory_seq_cp,
    llama_memory_seq_pos_max, llama_memory_seq_pos_min, llama_memory_seq_rm, llama_memory_t, llama_n_batch,
    llama_n_ctx, llama_n_seq_max, llama_pos, llama_state_seq_get_data_ext, llama_state_seq_get_size_ext,
    llama_state_seq_set_data_ext, llama_synchronize,
};

use crate::{
    LoadError,
    abort::{Signals, on_node},
    backend::{self, ThreadpoolCalls, ThreadpoolFree},
    error, log,
    model::Model,
    params, shim,
};

/// Whole state of a sequence, in host memory.
const STATE_FLAGS: u32 = 0;

/// End of a range that has none.
const TO_THE_END: llama_pos = -1;

/// A context. It is freed before its model and its threads, which it holds.
pub struct Context {
    raw: NonNull<llama_context>,
    memory: llama_memory_t,
    signals: Box<Signals>,
    model: Arc<Model>,
    threads: Vec<Threads>,
}

// SAFETY: a context belongs to no thread; llama.cpp wants only that it is used by one at a time, which `&mut self`
// and the lack of `Sync` ensure. The callback's data is atomic.
unsafe impl Send for Context {}

impl Context {
    /// Makes the context that `spec` asks for.
    pub fn new(model: Arc<Model>, spec: &LoadSpec) -> Result<Self, LoadError> {
        let signals = Box::new(Signals::default());
        let sequences = params::max_sequences(spec);
        let mut params = params::context_params(spec, sequences);
        params.abort_callback = Some(on_node);
        params.abort_callback_data = signals.as_user_data();
        log::forget_errors();
        // SAFETY: the model is loaded; the callback's data is boxed and outlives the context.
        let raw = unsafe { llama_init_from_model(model.as_ptr(), params) };
        let raw =
            NonNull::new(raw).ok_or_else(|| error::from_context(model.path(), &log::recent_errors()))?;
        // SAFETY: `raw` is a context; the memory belongs to it.
        let memory = unsafe { llama_get_memory(raw.as_ptr()) };
        let mut context = Self { raw, memory, signals, model, threads: Vec::new() };
        if memory.is_null() {
            let path = context.model.path().to_owned();
            return Err(LoadError::NotGenerative { path, architecture: context.model.architecture() });
        }
        context.attach_threads(spec.threads, spec.threads_batch);
        Ok(context)
    }

    /// Keeps threads between calls: llama.cpp otherwise starts and ends them for every graph.
    fn attach_threads(&mut self, decode: u32, prefill: u32) {
        let Some(decode_threads) = Threads::new(decode) else { return };
        let prefill_threads = if prefill == decode { None } else { Threads::new(prefill) };
        let prefill_pool = prefill_threads.as_ref().map_or(decode_threads.pool, |threads| threads.pool);
        // SAFETY: both pools are kept in `threads` and so outlive the context.
        unsafe {
            llama_attach_threadpool(self.as_ptr(), decode_threads.pool.as_ptr(), prefill_pool.as_ptr());
        }
        self.threads = [Some(decode_threads), prefill_threads].into_iter().flatten().collect();
    }

    /// For calls into llama.cpp; valid while `self` lives.
    pub fn as_ptr(&self) -> *mut llama_context {
        self.raw.as_ptr()
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Cells that there really are: llama.cpp rounds up.
    pub fn kv_cells(&self) -> u32 {
        // SAFETY: `raw` is a context.
        unsafe { llama_n_ctx(self.as_ptr()) }
    }

    pub fn max_sequences(&self) -> u32 {
        // SAFETY: `raw` is a context.
        unsafe { llama_n_seq_max(self.as_ptr()) }
    }

    /// Most tokens in one batch.
    pub fn batch_tokens(&self) -> u32 {
        // SAFETY: `raw` is a context.
        unsafe { llama_n_batch(self.as_ptr()) }
    }

    /// Computes a batch and waits for the result; llama.cpp's return value, or the shim's for an exception.
    ///
    /// # Safety
    /// The arrays of `batch` have `n_tokens` elements, there are at most [`Context::batch_tokens`] of them, at most
    /// [`Context::max_sequences`] ask for logits, and sequence ids and tokens are in range.
    pub unsafe fn decode(&mut self, batch: llama_batch) -> i32 {
        // SAFETY: the caller vouches for the batch; llama.cpp copies it.
        let code = unsafe { shim::firepot_decode(self.as_ptr(), batch) };
        // SAFETY: `raw` is a context. A GPU may still be computing.
        unsafe { llama_synchronize(self.as_ptr()) };
        code
    }

    /// Logits after the batch item with this index; `None` when it has none.
    pub fn logits(&mut self, item: usize) -> Option<&[f32]> {
        let item = i32::try_from(item).ok()?;
        // SAFETY: `raw` is a context; an index without logits gives null.
        let logits = unsafe { llama_get_logits_ith(self.as_ptr(), item) };
        let length = self.model.vocab_size() as usize;
        // SAFETY: not null, so it is a row of as many logits as the vocabulary, unchanged until the next decode,
        // which needs `&mut self`.
        (!logits.is_null()).then(|| unsafe { std::slice::from_raw_parts(logits, length) })
    }

    /// Removes positions `from..to`; `false` when the state cannot be cut there or the arguments are out of range.
    pub fn remove(&mut self, sequence: SeqId, from: u32, to: Option<u32>) -> bool {
        let Some(id) = self.checked(sequence) else { return false };
        if to.is_none() && !self.reaches_back(sequence, from) {
            return false;
        }
        let to = to.map_or(TO_THE_END, position);
        // SAFETY: `memory` belongs to the context and the sequence is in range.
        unsafe { llama_memory_seq_rm(self.memory, id, position(from), to) }
    }

    fn reaches_back(&self, sequence: SeqId, from: u32) -> bool {
        match (self.model.prefix_cut(), self.pos_min(sequence), self.pos_max(sequence)) {
            (PrefixCut::Window { tokens }, Some(min), Some(max)) => {
                window_reaches_back(tokens, min, max, from)
            }
            _ => true,
        }
    }

    /// Makes `to` share positions `0..until` of `from`; nothing happens when an id is out of range.
    pub fn share(&mut self, from: SeqId, to: SeqId, until: u32) {
        if let (Some(from), Some(to)) = (self.checked(from), self.checked(to)) {
            // SAFETY: `memory` belongs to the context and both sequences are in range.
            unsafe { llama_memory_seq_cp(self.memory, from, to, 0, position(until)) }
        }
    }

    pub fn pos_min(&self, sequence: SeqId) -> Option<u32> {
        let id = self.checked(sequence)?;
        // SAFETY: `memory` belongs to the context and the sequence is in range.
        u32::try_from(unsafe { llama_memory_seq_pos_min(self.memory, id) }).ok()
    }

    pub fn pos_max(&self, sequence: SeqId) -> Option<u32> {
        let id = self.checked(sequence)?;
        // SAFETY: `memory` belongs to the context and the sequence is in range.
        u32::try_from(unsafe { llama_memory_seq_pos_max(self.memory, id) }).ok()
    }

    /// Bytes that [`Context::state`] needs; 0 for a sequence out of range.
    pub fn state_bytes(&mut self, sequence: SeqId) -> usize {
        let Some(id) = self.checked(sequence) else { return 0 };
        // SAFETY: `raw` is a context and the sequence is in range.
        unsafe { llama_state_seq_get_size_ext(self.as_ptr(), id, STATE_FLAGS) }
    }

    /// The state of a sequence as bytes; `None` when llama.cpp refuses.
    pub fn state(&mut self, sequence: SeqId) -> Option<Vec<u8>> {
        let id = self.checked(sequence)?;
        let size = self.state_bytes(sequence);
        let mut state = vec![0_u8; size];
        let written = {
            let (context, out) = (self.as_ptr(), state.as_mut_ptr());
            // SAFETY: `out` has `size` bytes.
            unsafe { llama_state_seq_get_data_ext(context, out, size, id, STATE_FLAGS) }
        };
        state.truncate(written);
        (written > 0).then_some(state)
    }

    /// Sets the state of a sequence; `false` when the bytes are no state of this context, and then it is empty.
    pub fn set_state(&mut self, sequence: SeqId, state: &[u8]) -> bool {
        let Some(id) = self.checked(sequence) else { return false };
        let context = self.as_ptr();
        // SAFETY: `state` is readable for its length, which llama.cpp checks against what it wants to read.
        let read =
            unsafe { llama_state_seq_set_data_ext(context, state.as_ptr(), state.len(), id, STATE_FLAGS) };
        let complete = read > 0 && read == state.len();
        if !complete {
            self.remove(sequence, 0, None);
        }
        complete
    }

    fn checked(&self, sequence: SeqId) -> Option<i32> {
        (sequence.0 < self.max_sequences()).then_some(sequence.0 as i32)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is used by nobody else; model, threads and signals are dropped after this.
        unsafe { llama_free(self.as_ptr()) }
    }
}

/// Whether, after a cut at `from`, a sequence that holds `min..=max` still has all that the next token attends to:
/// the `window - 1` positions before it. llama.cpp cuts a sliding-window cache anywhere, even where the cells before
/// the cut are gone.
const fn window_reaches_back(window: u32, min: u32, max: u32, from: u32) -> bool {
    let cuts_inside = 0 < from && from <= max;
    !cuts_inside || min <= (from + 1).saturating_sub(window)
}

/// A position for llama.cpp; beyond its range the last one.
fn position(position: u32) -> llama_pos {
    llama_pos::try_from(position).unwrap_or(llama_pos::MAX)
}

/// Threads that wait for graphs to compute.
struct Threads {
    pool: NonNull<ggml_threadpool>,
    free: ThreadpoolFree,
}

impl Threads {
    /// `None` when they cannot be started; llama.cpp then starts its own for every graph.
    fn new(count: u32) -> Option<Self> {
        let ThreadpoolCalls { new, free } = backend::threadpool_calls()?;
        // SAFETY: plain value in, plain value out.
        let mut params = unsafe { ggml_threadpool_params_default(count as i32) };
        // SAFETY: `params` is initialized and copied.
        NonNull::new(unsafe { new(&raw mut params) }).map(|pool| Self { pool, free })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: the context that used the pool has been freed.
        unsafe { (self.free)(self.pool.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_cut_only_where_its_cells_are_left() {
        // Nothing has been dropped yet: any cut is good.
        assert!(window_reaches_back(512, 0, 300, 200));
        // Positions 500..=1000 are left of a window of 512: the token at 900 wants 389 and up.
        assert!(!window_reaches_back(512, 500, 1000, 900));
        assert!(window_reaches_back(512, 389, 1000, 900));
        assert!(!window_reaches_back(512, 390, 1000, 900));
        // A cut to nothing and a cut of nothing need no window.
        assert!(window_reaches_back(512, 500, 1000, 0));
        assert!(window_reaches_back(512, 500, 1000, 1001));
    }

    #[test]
    fn positions_beyond_the_range_become_the_last() {
        assert_eq!(position(7), 7);
        assert_eq!(position(u32::MAX), llama_pos::MAX);
    }
}
