//! Formats as llama.cpp grammars.

use std::{
    ffi::{CString, c_char},
    ptr::NonNull,
    sync::Arc,
};

use firepot_chat::{Format, TokenId};
use firepot_engine::{Constraint, ConstraintError};
use llama_cpp_sys_2 as sys;
use serde_json::{Value, json};

use crate::{devices::text, log::take_complaints, model::Model};

/// Longest schema, as JSON.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Longest grammar.
const GRAMMAR_BYTES_MAX: usize = 1 << 20;
/// Deepest schema: llama.cpp converts it by recursion.
const SCHEMA_DEPTH_MAX: usize = 64;

unsafe extern "C" {
    fn firepot_sampler_apply(
        sampler: *mut sys::llama_sampler,
        candidates: *mut sys::llama_token_data_array,
    ) -> bool;
    fn firepot_sampler_clone(sampler: *const sys::llama_sampler) -> *mut sys::llama_sampler;
}

/// The constraint for a format; `None` for a free one.
pub fn build(
    model: &Arc<Model>,
    vocab_size: u32,
    format: &Format,
) -> Result<Option<Box<dyn Constraint>>, ConstraintError> {
    let grammar = match format {
        Format::Free => return Ok(None),
        Format::Json => grammar_of(&json!({"type": "object"}))?,
        Format::Schema(schema) => grammar_of(schema)?,
        Format::Gbnf(grammar) => grammar.clone(),
    };
    Ok(Some(Box::new(Grammar::new(model, vocab_size, &grammar)?)))
}

/// llama.cpp's translation of a JSON schema to GBNF.
fn grammar_of(schema: &Value) -> Result<String, ConstraintError> {
    let text_of = schema.to_string();
    if text_of.len() > SCHEMA_BYTES_MAX || depth(schema) > SCHEMA_DEPTH_MAX {
        return refuse(format!(
            "the schema is longer than {SCHEMA_BYTES_MAX} bytes or deeper than {SCHEMA_DEPTH_MAX} levels"
        ));
    }
    let json = CString::new(text_of).map_err(|_| error("the schema holds a NUL character"))?;
    let mut out: *mut c_char = std::ptr::null_mut();
    // SAFETY: the schema is NUL-terminated; on success `out` is a string that llama_rs_string_free frees.
    unsafe {
        if sys::llama_rs_json_schema_to_grammar(json.as_ptr(), false, &raw mut out) != sys::LLAMA_RS_STATUS_OK
        {
            return refuse(
                "the schema cannot be expressed as a grammar; see the types and keywords that it uses",
            );
        }
        let grammar = text(out);
        sys::llama_rs_string_free(out);
        Ok(grammar)
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn error(message: impl Into<String>) -> ConstraintError {
    ConstraintError { message: message.into() }
}

fn refuse<T>(message: impl Into<String>) -> Result<T, ConstraintError> {
    Err(error(message))
}

/// A grammar in some state.
struct Grammar {
    sampler: NonNull<sys::llama_sampler>,
    /// The grammar's sampler points into the vocabulary.
    model: Arc<Model>,
    candidates: Vec<sys::llama_token_data>,
    vocab_size: u32,
}

// SAFETY: a sampler is used by one generation on one thread at a time; nothing in it is tied to a thread.
unsafe impl Send for Grammar {}

impl Drop for Grammar {
    fn drop(&mut self) {
        // SAFETY: made by llama.cpp and freed once.
        unsafe { sys::llama_sampler_free(self.sampler.as_ptr()) }
    }
}

impl Grammar {
    fn new(model: &Arc<Model>, vocab_size: u32, grammar: &str) -> Result<Self, ConstraintError> {
        // llama.cpp takes an empty grammar for none at all.
        if grammar.trim().is_empty() {
            return refuse("the grammar is empty");
        }
        if grammar.len() > GRAMMAR_BYTES_MAX {
            return refuse(format!("the grammar is longer than {GRAMMAR_BYTES_MAX} bytes"));
        }
        let text = CString::new(grammar).map_err(|_| error("the grammar holds a NUL character"))?;
        take_complaints();
        // SAFETY: both strings are NUL-terminated; the vocabulary is kept alive by the Arc.
        let raw =
            unsafe { sys::llama_rs_sampler_init_grammar(model.vocab(), text.as_ptr(), c"root".as_ptr()) };
        let sampler = NonNull::new(raw).ok_or_else(|| {
            let reason = take_complaints().join("; ");
            error(format!("the grammar is not valid GBNF with a rule `root`: {reason}"))
        })?;
        Ok(Self { sampler, model: Arc::clone(model), candidates: Vec::new(), vocab_size })
    }

    /// Lets llama.cpp strike out candidates. A grammar that fails inside llama.cpp allows nothing.
    fn apply(&mut self) {
        let data = self.candidates.as_mut_ptr();
        let mut array =
            sys::llama_token_data_array { data, size: self.candidates.len(), selected: -1, sorted: false };
        // SAFETY: the array is as long as said; the grammar sampler changes logits in place.
        let applied = unsafe { firepot_sampler_apply(self.sampler.as_ptr(), &raw mut array) };
        if !applied {
            self.candidates.iter_mut().for_each(|candidate| candidate.logit = f32::NEG_INFINITY);
        }
    }

    fn in_vocabulary(&self, token: TokenId) -> bool {
        u32::try_from(token).is_ok_and(|token| token < self.vocab_size)
    }
}

impl Constraint for Grammar {
    fn mask(&mut self, logits: &mut [f32]) {
        self.candidates.clear();
        let candidate =
            |(id, &logit): (usize, &f32)| sys::llama_token_data { id: id as TokenId, logit, p: 0.0 };
        self.candidates.extend(logits.iter().enumerate().take(self.vocab_size as usize).map(candidate));
        self.apply();
        for candidate in &self.candidates {
            logits[candidate.id as usize] = candidate.logit;
        }
    }

    fn allows(&mut self, token: TokenId) -> bool {
        if !self.in_vocabulary(token) {
            return false;
        }
        self.candidates.clear();
        self.candidates.push(sys::llama_token_data { id: token, logit: 0.0, p: 0.0 });
        self.apply();
        self.candidates[0].logit > f32::NEG_INFINITY
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        if !self.allows(token) {
            return refuse(format!("token {token} does not fit the format"));
        }
        // SAFETY: the sampler is alive and the token is in the vocabulary; the wrapper catches exceptions.
        let status = unsafe { sys::llama_rs_sampler_accept(self.sampler.as_ptr(), token) };
        if status == sys::LLAMA_RS_STATUS_OK {
            Ok(())
        } else {
            refuse(format!("token {token} ends the format early"))
        }
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        // SAFETY: the sampler is alive; the shim catches exceptions.
        let raw = unsafe { firepot_sampler_clone(self.sampler.as_ptr()) };
        // Only an allocation failure gives null, which no caller could survive either.
        let sampler = NonNull::new(raw).expect("llama.cpp cannot copy a grammar");
        Box::new(Self {
            sampler,
            model: Arc::clone(&self.model),
            candidates: Vec::new(),
            vocab_size: self.vocab_size,
        })
    }
}
