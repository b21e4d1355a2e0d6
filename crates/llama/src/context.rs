//! A context: the KV cache and compute buffers of one model.

use std::{
    ffi::c_void,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use firepot_engine::{KvType, LoadSpec};
use llama_cpp_sys_2 as sys;

use crate::{error::LoadError, log::take_complaints, model::Model};

/// Sequences for cached prefixes, beside those of running answers. Each costs a bit in llama.cpp's cell masks and
/// nothing else in a unified cache.
const CACHED_SEQUENCES: u32 = 48;

/// Owns a `llama_context` and keeps its model alive.
#[derive(Debug)]
pub struct Context {
    raw: NonNull<sys::llama_context>,
    pub model: Arc<Model>,
    /// Read by the abort callback, which llama.cpp calls between graph nodes on the CPU.
    pub signals: Arc<Signals>,
}

/// Shared with other threads while a call computes.
#[derive(Debug, Default)]
pub struct Signals {
    /// Rises with every graph node.
    pub progress: Arc<AtomicU64>,
    /// Ends the current call.
    pub abort: AtomicBool,
}

// SAFETY: a llama_context may be used from any one thread at a time; Context has no method on &self that writes, and is not
// Sync.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by llama_init_from_model and freed once, before its model and its signals.
        unsafe { sys::llama_free(self.raw.as_ptr()) }
    }
}

impl Context {
    /// A context as the spec says.
    pub fn new(model: Arc<Model>, spec: &LoadSpec) -> Result<Self, LoadError> {
        check(spec)?;
        let signals = Arc::new(Signals::default());
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = spec.kv_cells;
        params.n_batch = spec.batch_tokens;
        params.n_ubatch = spec.ubatch_tokens.min(spec.batch_tokens);
        params.n_seq_max = max_sequences(spec);
        params.n_outputs_max = max_sequences(spec);
        params.n_threads = spec.threads.max(1) as i32;
        params.n_threads_batch = spec.threads_batch.max(1) as i32;
        params.flash_attn_type = if spec.flash_attention {
            sys::LLAMA_FLASH_ATTN_TYPE_ENABLED
        } else {
            sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
        };
        params.type_k = kv_type(spec.kv_type_k);
        params.type_v = kv_type(spec.kv_type_v);
        // A partial llama_memory_seq_cp aborts without it.
        params.kv_unified = true;
        params.no_perf = true;
        params.abort_callback = Some(on_node);
        params.abort_callback_data = Arc::as_ptr(&signals).cast_mut().cast::<c_void>();
        take_complaints();
        // SAFETY: the model is loaded and kept alive by the Arc; the signals live as long as the context.
        let raw = unsafe { sys::llama_init_from_model(model.raw(), params) };
        let raw = NonNull::new(raw).ok_or_else(|| LoadError::from_log(&take_complaints()))?;
        Ok(Self { raw, model, signals })
    }

    pub const fn raw(&self) -> *mut sys::llama_context {
        self.raw.as_ptr()
    }

    pub fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is alive.
        unsafe { sys::llama_get_memory(self.raw()) }
    }

    /// KV cells that there really are; llama.cpp may round up.
    pub fn cells(&self) -> u32 {
        // SAFETY: the context is alive.
        unsafe { sys::llama_n_ctx(self.raw()) }
    }
}

/// Answers and cached prefixes together.
pub fn max_sequences(spec: &LoadSpec) -> u32 {
    // SAFETY: returns a constant.
    let most = unsafe { sys::llama_max_parallel_sequences() } as u32;
    (spec.parallel + CACHED_SEQUENCES).min(most)
}

fn check(spec: &LoadSpec) -> Result<(), LoadError> {
    let bad = |message: &str| Err(LoadError::BadParameters { message: message.to_owned() });
    if spec.kv_cells == 0 || spec.ctx_per_answer == 0 || spec.batch_tokens == 0 {
        return bad("context, cells and batch must not be zero");
    }
    if spec.kv_cells < spec.ctx_per_answer {
        return bad("there are fewer KV cells than one answer may use");
    }
    if spec.kv_type_v != KvType::F16 && !spec.flash_attention {
        return bad("a quantized V cache needs flash attention");
    }
    Ok(())
}

const fn kv_type(kind: KvType) -> sys::ggml_type {
    match kind {
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
    }
}

unsafe extern "C" fn on_node(data: *mut c_void) -> bool {
    // SAFETY: the pointer is the one given in the parameters; the Arc in Context outlives the llama_context.
    let signals = unsafe { &*data.cast::<Signals>() };
    signals.progress.fetch_add(1, Ordering::Relaxed);
    signals.abort.load(Ordering::Relaxed)
}
