//! A loaded model: weights and vocabulary.

use std::{
    ffi::{CString, c_char, c_void},
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr::NonNull,
};

use firepot_engine::LoadSpec;
use llama_cpp_sys_2 as sys;

use crate::{
    devices::{self, devices, text},
    error::LoadError,
    log::{bridge_logs, take_complaints},
};

/// Owns a `llama_model`.
#[derive(Debug)]
pub struct Model {
    raw: NonNull<sys::llama_model>,
}

// SAFETY: a llama_model is not tied to a thread, and after loading it is only read: every function called on it here takes
// it as const. llama.cpp itself shares a model between contexts of several threads.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: loaded by llama_model_load_from_file and freed once; contexts keep the model alive through an Arc.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}

/// Called with the fraction that is loaded; `false` cancels.
pub type OnProgress<'a> = dyn FnMut(f32) -> bool + 'a;

impl Model {
    /// Loads the weights; with `no_alloc` only sizes are computed.
    pub fn load(spec: &LoadSpec, no_alloc: bool, progress: &mut OnProgress<'_>) -> Result<Self, LoadError> {
        bridge_logs();
        check_file(&spec.path)?;
        let mut devices = device_list(&spec.devices)?;
        let split = tensor_split(spec)?;
        let path = CString::new(spec.path.as_os_str().as_bytes())
            .map_err(|_| LoadError::BadParameters { message: "the path holds a NUL byte".to_owned() })?;
        let mut state = ProgressState { report: progress, cancelled: false };
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = spec.gpu_layers;
        params.load_mode = load_mode(spec);
        params.use_extra_bufts = spec.repack;
        params.check_tensors = spec.check_tensors;
        params.no_alloc = no_alloc;
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = (&raw mut state).cast::<c_void>();
        if !devices.is_empty() {
            params.devices = devices.as_mut_ptr();
        }
        if !split.is_empty() {
            params.tensor_split = split.as_ptr();
        }
        take_complaints();
        // SAFETY: path, devices, split and state outlive the call; the device list ends with null.
        let raw = unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw }),
            None if state.cancelled => Err(LoadError::Cancelled),
            None => Err(LoadError::from_log(&take_complaints())),
        }
    }

    pub const fn raw(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    pub fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded; the vocabulary lives as long as it.
        unsafe { sys::llama_model_get_vocab(self.raw()) }
    }

    /// A metadata value as text.
    pub fn meta(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buffer: Vec<u8> = vec![0; 256];
        // SAFETY: key is NUL-terminated, the buffer is as long as said.
        let length = unsafe {
            sys::llama_model_meta_val_str(
                self.raw(),
                key.as_ptr(),
                buffer.as_mut_ptr().cast::<c_char>(),
                buffer.len(),
            )
        };
        buffer.truncate(usize::try_from(length).ok()?);
        String::from_utf8(buffer).ok()
    }

    pub fn description(&self) -> String {
        let mut buffer: Vec<u8> = vec![0; 128];
        // SAFETY: the buffer is as long as said; the text is NUL-terminated.
        unsafe {
            let start = buffer.as_mut_ptr().cast::<c_char>();
            sys::llama_model_desc(self.raw(), start, buffer.len());
            text(start)
        }
    }

    pub fn chat_template(&self) -> Option<String> {
        // SAFETY: a null name asks for the default template; the result is null or lives as long as the model.
        let template = unsafe { text(sys::llama_model_chat_template(self.raw(), std::ptr::null())) };
        (!template.is_empty()).then_some(template)
    }

    pub fn ctx_train(&self) -> u32 {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_n_ctx_train(self.raw()) }.max(0) as u32
    }

    pub fn sliding_window(&self) -> u32 {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_n_swa(self.raw()) }.max(0) as u32
    }

    /// Whether some of its state cannot be cut back.
    pub fn is_recurrent(&self) -> bool {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_is_recurrent(self.raw()) || sys::llama_model_is_hybrid(self.raw()) }
    }
}

struct ProgressState<'a, 'b> {
    report: &'a mut OnProgress<'b>,
    cancelled: bool,
}

unsafe extern "C" fn on_progress(fraction: f32, data: *mut c_void) -> bool {
    // SAFETY: llama.cpp hands back the pointer given in the parameters, during the load call only and from its thread.
    let state = unsafe { &mut *data.cast::<ProgressState<'_, '_>>() };
    let go_on = (state.report)(fraction);
    state.cancelled |= !go_on;
    go_on
}

/// llama.cpp's own messages for these are hard to read.
fn check_file(path: &Path) -> Result<(), LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let metadata = File::open(path).and_then(|file| file.metadata()).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(LoadError::Directory { path: path.to_owned() });
    }
    if metadata.len() == 0 {
        return Err(LoadError::BadModel { reason: "the file is empty".to_owned() });
    }
    Ok(())
}

/// Null-terminated, as llama.cpp wants it; empty for llama.cpp's own choice.
fn device_list(names: &[String]) -> Result<Vec<sys::ggml_backend_dev_t>, LoadError> {
    let mut list = Vec::new();
    for name in names {
        let device = devices::find(name).ok_or_else(|| {
            let known: Vec<String> = devices().into_iter().map(|device| device.name).collect();
            LoadError::BadParameters {
                message: format!("there is no device {name}; there are: {}", known.join(", ")),
            }
        })?;
        list.push(device);
    }
    if !list.is_empty() {
        list.push(std::ptr::null_mut());
    }
    Ok(list)
}

/// Padded with zeros to the length that llama.cpp reads.
fn tensor_split(spec: &LoadSpec) -> Result<Vec<f32>, LoadError> {
    // SAFETY: returns a constant.
    let max = unsafe { sys::llama_max_devices() };
    if spec.tensor_split.len() > max {
        return Err(LoadError::BadParameters {
            message: format!("a model can be split over {max} devices at most"),
        });
    }
    let mut split = spec.tensor_split.clone();
    if !split.is_empty() {
        split.resize(max, 0.0);
    }
    Ok(split)
}

const fn load_mode(spec: &LoadSpec) -> sys::llama_load_mode {
    match (spec.mmap, spec.mlock) {
        (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
        (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
        (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
        (false, false) => sys::LLAMA_LOAD_MODE_NONE,
    }
}
