//! Text and token ids.

use std::{ffi::c_char, sync::Arc};

use firepot_chat::{Format, TokenId};
use firepot_engine::{Constraint, ConstraintError, TokenizeError, Tokenizer};
use llama_cpp_sys_2 as sys;

use crate::{constraint, model::Model};

/// The vocabulary of a loaded model.
#[derive(Clone, Debug)]
pub struct Vocab {
    model: Arc<Model>,
}

impl Vocab {
    /// The model's vocabulary.
    pub const fn new(model: Arc<Model>) -> Self {
        Self { model }
    }

    /// Number of ids.
    pub fn size(&self) -> u32 {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_n_tokens(self.model.vocab()) }.max(0) as u32
    }

    /// Text of the beginning-of-sequence token; empty when there is none.
    pub fn bos_text(&self) -> String {
        // SAFETY: the vocabulary lives as long as the model.
        self.token_text(unsafe { sys::llama_vocab_bos(self.model.vocab()) })
    }

    /// Text of the end-of-sequence token; empty when there is none.
    pub fn eos_text(&self) -> String {
        // SAFETY: the vocabulary lives as long as the model.
        self.token_text(unsafe { sys::llama_vocab_eos(self.model.vocab()) })
    }

    fn token_text(&self, token: TokenId) -> String {
        let mut bytes = Vec::new();
        if self.contains(token) {
            self.piece(token, true, &mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn contains(&self, token: TokenId) -> bool {
        u32::try_from(token).is_ok_and(|token| token < self.size())
    }
}

impl Tokenizer for Vocab {
    fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<TokenId>, TokenizeError> {
        let failed = || TokenizeError { bytes: text.len() };
        let length = i32::try_from(text.len()).map_err(|_| failed())?;
        let mut ids: Vec<TokenId> = vec![0; text.len() / 3 + 16];
        loop {
            // SAFETY: text and ids are as long as said; the vocabulary lives as long as the model.
            let count = unsafe {
                sys::llama_tokenize(
                    self.model.vocab(),
                    text.as_ptr().cast::<c_char>(),
                    length,
                    ids.as_mut_ptr(),
                    ids.len() as i32,
                    add_special,
                    parse_special,
                )
            };
            // A negative count is the length that is needed; i32::MIN is an overflow.
            match usize::try_from(count) {
                Ok(count) => {
                    ids.truncate(count);
                    return Ok(ids);
                }
                Err(_) => ids.resize(count.checked_neg().ok_or_else(failed)? as usize, 0),
            }
        }
    }

    fn piece(&self, token: TokenId, special: bool, out: &mut Vec<u8>) {
        if !self.contains(token) {
            return;
        }
        let start = out.len();
        let mut room = 32;
        loop {
            out.resize(start + room, 0);
            // SAFETY: `room` bytes from `start` are there; the token is in the vocabulary.
            let length = unsafe {
                let buffer = out.as_mut_ptr().add(start).cast::<c_char>();
                sys::llama_token_to_piece(self.model.vocab(), token, buffer, room as i32, 0, special)
            };
            match usize::try_from(length) {
                Ok(length) => return out.truncate(start + length),
                Err(_) => room = length.unsigned_abs() as usize,
            }
        }
    }

    fn is_end(&self, token: TokenId) -> bool {
        // SAFETY: the vocabulary lives as long as the model; unknown ids are not looked up.
        self.contains(token) && unsafe { sys::llama_vocab_is_eog(self.model.vocab(), token) }
    }

    fn constraint(&self, format: &Format) -> Result<Option<Box<dyn Constraint>>, ConstraintError> {
        constraint::build(&self.model, self.size(), format)
    }
}
