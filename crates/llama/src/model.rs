//! A loaded model: weights and vocabulary, never changed after loading.

use std::{
    ffi::{c_char, c_void},
    path::{Path, PathBuf},
    ptr::{self, NonNull},
};

use firepot_engine::PrefixCut;
use llama_cpp_sys_2::{
    llama_model, llama_model_chat_template, llama_model_desc, llama_model_free, llama_model_get_vocab,
    llama_model_has_encoder, llama_model_is_diffusion, llama_model_is_hybrid, llama_model_is_recurrent,
    llama_model_load_from_splits, llama_model_meta_val_str, llama_model_n_ctx_train, llama_model_n_swa,
    llama_vocab, llama_vocab_n_tokens,
};

use crate::{LoadError, backend, backend::to_text, error, file, log, params::ModelParams};

/// A model in memory.
pub struct Model {
    raw: NonNull<llama_model>,
    path: PathBuf,
}

// SAFETY: llama.cpp does not change a model after loading, except for `n_ctx_train` while a context with custom
// YaRN scaling is made, which this crate never asks for. No part of it belongs to the thread that loaded it.
unsafe impl Send for Model {}
// SAFETY: as above; all methods only read.
unsafe impl Sync for Model {}

impl Model {
    /// Loads the file, and the further ones of a split model. `progress` gets the share that is loaded, 0 to 1, and cancels with `false`.
    pub fn load(
        path: &Path,
        shards: &[PathBuf],
        params: &ModelParams,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Self, LoadError> {
        backend::init();
        let mut files = vec![file::checked_path(path)?];
        for shard in shards {
            files.push(file::checked_path(shard)?);
        }
        let mut names: Vec<*const c_char> = files.iter().map(|file| file.as_ptr()).collect();
        log::forget_errors();
        let mut watch = Watch { progress, cancelled: false };
        let mut raw = params.raw;
        raw.progress_callback = Some(on_progress);
        raw.progress_callback_user_data = (&raw mut watch).cast();
        // SAFETY: the paths are NUL-terminated and outlive the call as their list does; the lists in `raw` live in
        // `params`, and so does `watch`, after which llama.cpp does not report any more.
        let model = unsafe { llama_model_load_from_splits(names.as_mut_ptr(), names.len(), raw) };
        match NonNull::new(model) {
            Some(raw) => Ok(Self { raw, path: path.to_owned() }),
            None if watch.cancelled => Err(LoadError::Cancelled),
            None => Err(error::from_model(path, &log::recent_errors())),
        }
    }

    /// For calls into llama.cpp; valid while `self` lives.
    pub fn as_ptr(&self) -> *mut llama_model {
        self.raw.as_ptr()
    }

    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The vocabulary; valid while `self` lives.
    pub fn vocab(&self) -> *const llama_vocab {
        // SAFETY: `raw` is a loaded model.
        unsafe { llama_model_get_vocab(self.as_ptr()) }
    }

    /// Number of ids in the vocabulary.
    pub fn vocab_size(&self) -> u32 {
        // SAFETY: the vocabulary belongs to the loaded model.
        unsafe { llama_vocab_n_tokens(self.vocab()) as u32 }
    }

    /// Architecture name from the file.
    pub fn architecture(&self) -> String {
        text(|buffer, capacity| {
            // SAFETY: the key is NUL-terminated and `buffer` has `capacity` bytes.
            unsafe {
                llama_model_meta_val_str(self.as_ptr(), c"general.architecture".as_ptr(), buffer, capacity)
            }
        })
    }

    /// llama.cpp's one-line description.
    pub fn description(&self) -> String {
        // SAFETY: `buffer` has `capacity` bytes.
        text(|buffer, capacity| unsafe { llama_model_desc(self.as_ptr(), buffer, capacity) })
    }

    /// Context that the model was trained with, in tokens.
    pub fn ctx_train(&self) -> u32 {
        // SAFETY: `raw` is a loaded model.
        unsafe { llama_model_n_ctx_train(self.as_ptr()) as u32 }
    }

    /// The model's own Jinja chat template.
    pub fn chat_template(&self) -> Option<String> {
        // SAFETY: a null name asks for the default template; the text belongs to the model.
        let template = unsafe { to_text(llama_model_chat_template(self.as_ptr(), ptr::null())) };
        (!template.is_empty()).then_some(template)
    }

    /// Where a sequence of this model may be cut.
    pub fn prefix_cut(&self) -> PrefixCut {
        // SAFETY: `raw` is a loaded model.
        let (recurrent, hybrid, window) = unsafe {
            (
                llama_model_is_recurrent(self.as_ptr()),
                llama_model_is_hybrid(self.as_ptr()),
                llama_model_n_swa(self.as_ptr()),
            )
        };
        match window {
            _ if recurrent || hybrid => PrefixCut::Nowhere,
            1.. => PrefixCut::Window { tokens: window as u32 },
            _ => PrefixCut::Anywhere,
        }
    }

    /// Whether it decodes without an encoder and from left to right.
    pub fn is_causal_decoder(&self) -> bool {
        // SAFETY: `raw` is a loaded model.
        unsafe { !llama_model_has_encoder(self.as_ptr()) && !llama_model_is_diffusion(self.as_ptr()) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts, vocabularies and samplers of this model hold an `Arc` of it, so none is left.
        unsafe { llama_model_free(self.as_ptr()) }
    }
}

/// Calls a function in the manner of `snprintf` until its text fits; empty when there is none.
fn text(write: impl Fn(*mut c_char, usize) -> i32) -> String {
    let mut buffer = vec![0_u8; 128];
    loop {
        let length = write(buffer.as_mut_ptr().cast(), buffer.len());
        match usize::try_from(length) {
            Err(_) => return String::new(),
            Ok(length) if length < buffer.len() => {
                return String::from_utf8_lossy(&buffer[..length]).into_owned();
            }
            Ok(length) => buffer.resize(length + 1, 0),
        }
    }
}

struct Watch<'a> {
    progress: &'a mut dyn FnMut(f32) -> bool,
    cancelled: bool,
}

unsafe extern "C" fn on_progress(share: f32, user_data: *mut c_void) -> bool {
    // SAFETY: `Model::load` passes its `Watch`, which nothing else uses during the call.
    let watch = unsafe { &mut *user_data.cast::<Watch>() };
    watch.cancelled |= !(watch.progress)(share);
    !watch.cancelled
}
