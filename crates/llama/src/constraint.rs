//! Constraints by llama.cpp's grammar sampler.

use std::{ffi::CString, ptr::NonNull, sync::Arc, thread};

use firepot_chat::{Format, TokenId};
use firepot_engine::{Constraint, ConstraintError};
use llama_cpp_sys_2::{
    llama_rs_sampler_accept, llama_rs_sampler_init_grammar, llama_sampler, llama_sampler_free,
    llama_token_data,
};
use serde_json::json;

use crate::{
    log,
    model::Model,
    schema,
    shim::{self, OwnedText, STATUS_OK},
};

/// Longest grammar, given or made from a schema.
pub const GRAMMAR_BYTES_MAX: usize = 256 << 10;

/// llama.cpp parses groups and looks for left recursion by recursion: under 1 KiB of stack for each byte of grammar.
const BUILD_STACK_BYTES: usize = 1024 * GRAMMAR_BYTES_MAX;

/// Name of the rule where a grammar begins.
const ROOT: &std::ffi::CStr = c"root";

/// The constraint of a format; `None` for free text.
pub fn build(model: &Arc<Model>, format: &Format) -> Result<Option<Box<dyn Constraint>>, ConstraintError> {
    if matches!(format, Format::Free) {
        return Ok(None);
    }
    let build = || Grammar::new(Arc::clone(model), &grammar_text(format)?);
    // The caller's stack may be small, and an overflow would end the process. Only touched pages are really used.
    let grammar = thread::scope(|scope| {
        let builder = thread::Builder::new().name("grammar".to_owned()).stack_size(BUILD_STACK_BYTES);
        let running = builder.spawn_scoped(scope, build).map_err(|error| refused(error.to_string()))?;
        running.join().unwrap_or_else(|_| Err(refused("the grammar could not be built")))
    })?;
    Ok(Some(Box::new(grammar)))
}

fn grammar_text(format: &Format) -> Result<String, ConstraintError> {
    match format {
        Format::Free => Ok(String::new()),
        Format::Json => schema::to_grammar(&json!({"type": "object"})),
        Format::Schema(schema) => schema::to_grammar(schema),
        Format::Gbnf(grammar) => Ok(grammar.clone()),
    }
}

/// A grammar and how far an answer has come in it.
struct Grammar {
    sampler: NonNull<llama_sampler>,
    model: Arc<Model>,
    /// Kept between masks: as long as the vocabulary.
    candidates: Vec<llama_token_data>,
}

// SAFETY: a sampler belongs to no thread and is used through `&mut self` only; cloning reads it through `&self`, and
// `Grammar` is not `Sync`.
unsafe impl Send for Grammar {}

impl Grammar {
    fn new(model: Arc<Model>, grammar: &str) -> Result<Self, ConstraintError> {
        let text = checked_text(&model, grammar)?;
        log::forget_errors();
        // SAFETY: both texts are NUL-terminated, and the vocabulary lives as long as `model`.
        let sampler = unsafe { llama_rs_sampler_init_grammar(model.vocab(), text.as_ptr(), ROOT.as_ptr()) };
        let Some(sampler) = NonNull::new(sampler) else {
            return Err(refused(log::recent_errors().join("; ")));
        };
        Ok(Self { sampler, model, candidates: Vec::new() })
    }

    /// Sets the logits of forbidden candidates to negative infinity; all of them when llama.cpp fails.
    fn apply(&mut self, candidates: &mut [llama_token_data]) {
        let (data, count) = (candidates.as_mut_ptr(), candidates.len());
        // SAFETY: the sampler is alive and `data` has `count` elements, whose ids the callers have checked.
        let status = unsafe { shim::firepot_grammar_apply(self.sampler.as_ptr(), data, count) };
        if status != STATUS_OK {
            for candidate in candidates {
                candidate.logit = f32::NEG_INFINITY;
            }
        }
    }
}

impl Constraint for Grammar {
    fn mask(&mut self, logits: &mut [f32]) {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let ids = 0..self.model.vocab_size() as TokenId;
        let allowed = ids.zip(logits.iter()).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        candidates.extend(allowed.map(|(id, logit)| llama_token_data { id, logit: *logit, p: 0.0 }));
        self.apply(&mut candidates);
        for candidate in &candidates {
            logits[candidate.id as usize] = candidate.logit;
        }
        self.candidates = candidates;
    }

    fn allows(&mut self, token: TokenId) -> bool {
        if u32::try_from(token).is_ok_and(|token| token < self.model.vocab_size()) {
            let mut candidate = [llama_token_data { id: token, logit: 0.0, p: 0.0 }];
            self.apply(&mut candidate);
            return candidate[0].logit > f32::NEG_INFINITY;
        }
        false
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        // Asked first, because llama.cpp ends the process on an end token that is not allowed.
        if !self.allows(token) {
            return Err(refused(format!("token {token} is not allowed here")));
        }
        // SAFETY: the sampler is alive and the token is in the vocabulary.
        match unsafe { llama_rs_sampler_accept(self.sampler.as_ptr(), token) } {
            STATUS_OK => Ok(()),
            _ => Err(refused(format!("token {token} was not accepted"))),
        }
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        // SAFETY: the sampler is alive; a clone shares only the vocabulary.
        let sampler = NonNull::new(unsafe { shim::firepot_grammar_clone(self.sampler.as_ptr()) });
        let sampler = sampler.expect("memory for a copy of a grammar");
        Box::new(Self { sampler, model: Arc::clone(&self.model), candidates: Vec::new() })
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        // SAFETY: the sampler is ours alone and is freed once.
        unsafe { llama_sampler_free(self.sampler.as_ptr()) }
    }
}

/// The grammar for llama.cpp, after a parse that returns its reason.
fn checked_text(model: &Model, grammar: &str) -> Result<CString, ConstraintError> {
    if grammar.len() > GRAMMAR_BYTES_MAX {
        let bytes = grammar.len();
        return Err(refused(format!("a grammar of {bytes} bytes is longer than {GRAMMAR_BYTES_MAX}")));
    }
    let text = CString::new(grammar).map_err(|_| refused("a grammar cannot contain a NUL byte"))?;
    let mut error = OwnedText::empty();
    // SAFETY: `text` is NUL-terminated, the vocabulary is alive, and the slot takes one text.
    let status = unsafe { shim::firepot_grammar_check(model.vocab(), text.as_ptr(), error.slot()) };
    if status != STATUS_OK {
        return Err(refused(first_line(&error.to_text().unwrap_or_default())));
    }
    Ok(text)
}

/// llama.cpp ends its reasons with all the grammar that follows.
fn first_line(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    format!("the grammar cannot be read: {line}")
}

fn refused(message: impl Into<String>) -> ConstraintError {
    ConstraintError { message: message.into() }
}
