//! Text to token ids and back.

use std::sync::Arc;

use firepot_chat::{Format, TokenId};
use firepot_engine::{Constraint, ConstraintError, TokenizeError, Tokenizer};
use llama_cpp_sys_2::{
    llama_token_to_piece, llama_vocab_bos, llama_vocab_eos, llama_vocab_get_text, llama_vocab_is_eog,
};

use crate::{
    backend::to_text,
    constraint,
    model::Model,
    shim::{self, STATUS_OK},
};

/// Room for the tokens that a vocabulary adds by itself: beginning, end, separators, a leading space.
const ADDED_TOKENS: usize = 16;

/// Bytes of a token that need no second try.
const PIECE_BYTES: usize = 128;

/// The vocabulary of a model, which it keeps in memory.
pub struct Vocab {
    model: Arc<Model>,
}

impl Vocab {
    pub fn new(model: Arc<Model>) -> Self {
        Self { model }
    }

    /// Text of the beginning-of-sequence token; empty when there is none.
    pub fn bos_text(&self) -> String {
        // SAFETY: the vocabulary belongs to the model that `self` holds.
        self.token_text(unsafe { llama_vocab_bos(self.model.vocab()) })
    }

    /// Text of the end-of-sequence token; empty when there is none.
    pub fn eos_text(&self) -> String {
        // SAFETY: the vocabulary belongs to the model that `self` holds.
        self.token_text(unsafe { llama_vocab_eos(self.model.vocab()) })
    }

    /// A token to start with where any will do.
    pub fn any_token(&self) -> TokenId {
        // SAFETY: the vocabulary belongs to the model that `self` holds.
        let bos = unsafe { llama_vocab_bos(self.model.vocab()) };
        if self.contains(bos) { bos } else { 0 }
    }

    /// llama.cpp ends the process on an id that it does not know.
    pub fn contains(&self, token: TokenId) -> bool {
        u32::try_from(token).is_ok_and(|token| token < self.model.vocab_size())
    }

    fn token_text(&self, token: TokenId) -> String {
        if !self.contains(token) {
            return String::new();
        }
        // SAFETY: the token is in the vocabulary, to which its text belongs.
        unsafe { to_text(llama_vocab_get_text(self.model.vocab(), token)) }
    }

    /// Writes the tokens to `out` and returns llama.cpp's count: negative is the room that it needs.
    fn tokenize_into(&self, text: &str, out: &mut Vec<TokenId>, add: bool, parse: bool) -> Option<i32> {
        let bytes = i32::try_from(text.len()).ok()?;
        let capacity = i32::try_from(out.capacity()).unwrap_or(i32::MAX);
        let (vocab, text, mut count) = (self.model.vocab(), text.as_ptr().cast(), 0);
        let (out, count_out) = (out.as_mut_ptr(), &raw mut count);
        // SAFETY: `text` has `bytes` bytes, `out` room for `capacity` tokens, and the vocabulary is alive.
        let status =
            unsafe { shim::firepot_tokenize(vocab, text, bytes, out, capacity, add, parse, count_out) };
        (status == STATUS_OK && count != i32::MIN).then_some(count)
    }
}

impl Tokenizer for Vocab {
    fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<TokenId>, TokenizeError> {
        let error = TokenizeError { bytes: text.len() };
        let mut tokens = Vec::with_capacity(text.len() / 2 + ADDED_TOKENS);
        loop {
            let count = self.tokenize_into(text, &mut tokens, add_special, parse_special);
            let count = count.ok_or_else(|| error.clone())?;
            match usize::try_from(count) {
                Ok(count) => {
                    // SAFETY: llama.cpp wrote `count` tokens, no more than there was room for.
                    unsafe { tokens.set_len(count) };
                    return Ok(tokens);
                }
                Err(_) => tokens.reserve_exact(count.unsigned_abs() as usize),
            }
        }
    }

    fn piece(&self, token: TokenId, special: bool, out: &mut Vec<u8>) {
        if !self.contains(token) {
            return;
        }
        let start = out.len();
        let mut room = PIECE_BYTES;
        loop {
            out.resize(start + room, 0);
            let (to, length) = (out[start..].as_mut_ptr().cast(), room as i32);
            // SAFETY: the token is in the vocabulary and `to` has `length` bytes.
            let written = unsafe { llama_token_to_piece(self.model.vocab(), token, to, length, 0, special) };
            match usize::try_from(written) {
                Ok(written) => return out.truncate(start + written),
                Err(_) => room = written.unsigned_abs() as usize,
            }
        }
    }

    fn is_end(&self, token: TokenId) -> bool {
        // SAFETY: the vocabulary is alive; llama.cpp looks the id up in a set.
        unsafe { llama_vocab_is_eog(self.model.vocab(), token) }
    }

    fn constraint(&self, format: &Format) -> Result<Option<Box<dyn Constraint>>, ConstraintError> {
        constraint::build(&self.model, format)
    }
}
