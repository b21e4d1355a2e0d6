//! Declarations of `shim.cpp`. All of these are `noexcept`; texts that they return are freed by [`OwnedText`].

use std::ffi::{CStr, c_char};

use llama_cpp_sys_2::{
    llama_batch, llama_context, llama_rs_string_free, llama_sampler, llama_token_data, llama_vocab,
};

/// Status of a shim function that did its work.
pub const STATUS_OK: i32 = 0;

/// Bytes of one buffer type of a context.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffer {
    /// Name of the device, NUL-terminated; `CPU` for all host memory.
    pub device: [c_char; 64],
    /// Weights.
    pub model_bytes: u64,
    /// KV cache and recurrent state.
    pub context_bytes: u64,
    /// Compute buffers.
    pub compute_bytes: u64,
}

impl Buffer {
    /// All zero.
    pub const EMPTY: Self = Self { device: [0; 64], model_bytes: 0, context_bytes: 0, compute_bytes: 0 };
}

unsafe extern "C" {
    pub fn firepot_memory_breakdown(
        ctx: *const llama_context,
        out: *mut Buffer,
        capacity: usize,
        count: *mut usize,
    ) -> i32;
    pub fn firepot_decode(ctx: *mut llama_context, batch: llama_batch) -> i32;
    pub fn firepot_tokenize(
        vocab: *const llama_vocab,
        text: *const c_char,
        bytes: i32,
        out: *mut i32,
        capacity: i32,
        add_special: bool,
        parse_special: bool,
        count: *mut i32,
    ) -> i32;
    pub fn firepot_schema_to_grammar(
        schema: *const c_char,
        grammar: *mut *mut c_char,
        error: *mut *mut c_char,
    ) -> i32;
    pub fn firepot_grammar_check(
        vocab: *const llama_vocab,
        grammar: *const c_char,
        error: *mut *mut c_char,
    ) -> i32;
    pub fn firepot_grammar_apply(
        sampler: *mut llama_sampler,
        tokens: *mut llama_token_data,
        count: usize,
    ) -> i32;
    pub fn firepot_grammar_clone(sampler: *const llama_sampler) -> *mut llama_sampler;
}

/// A text allocated by the shim; null when it had none to give.
pub struct OwnedText(*mut c_char);

impl OwnedText {
    /// No text yet; [`OwnedText::slot`] is where the shim puts one.
    pub const fn empty() -> Self {
        Self(std::ptr::null_mut())
    }

    /// For the shim to write to, once.
    pub fn slot(&mut self) -> *mut *mut c_char {
        &raw mut self.0
    }

    /// A copy, with invalid UTF-8 replaced.
    pub fn to_text(&self) -> Option<String> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: not null, so the shim wrote a NUL-terminated text that lives until `drop`.
        let text = unsafe { CStr::from_ptr(self.0) };
        Some(text.to_string_lossy().into_owned())
    }
}

impl Drop for OwnedText {
    fn drop(&mut self) {
        // SAFETY: null, which is allowed, or a text from the shim's `malloc` that nothing else frees.
        unsafe { llama_rs_string_free(self.0) }
    }
}
