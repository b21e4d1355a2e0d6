//! llama.cpp's process-wide state: started once, described on demand.

use std::{
    ffi::{CStr, CString, c_char},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::{Mutex, Once, PoisonError},
};

use llama_cpp_sys_2::{
    ggml_backend_load_all_from_path, ggml_backend_reg_by_name, ggml_backend_reg_get_proc_address,
    ggml_threadpool, ggml_threadpool_params, ggml_version, llama_backend_init, llama_print_system_info,
    llama_version,
};

use crate::log;

/// Version of the bindings, which fixes the llama.cpp source; equal to the pin in `Cargo.toml`.
const BINDINGS_VERSION: &str = "0.1.161";

/// Starts llama.cpp's backends and sends its log to `tracing`; further calls do nothing. Every other function of
/// this crate calls it first.
pub fn init() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        log::install();
        load_libraries();
        // SAFETY: called once, before any other llama.cpp function that needs a backend.
        unsafe { llama_backend_init() }
    });
}

/// Where a portable build has llama.cpp's libraries: `lib/firepot` beside the folder of the program, as a wheel puts them. `None` for
/// a build that has llama.cpp inside.
#[must_use]
pub fn library_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok().filter(|_| cfg!(feature = "portable"))?;
    Some(program.parent()?.parent()?.join("lib/firepot"))
}

/// Loads the CPU's library for the highest level that this CPU has, and those of GPUs whose drivers are here.
fn load_libraries() {
    let Some(path) = library_dir().and_then(|dir| CString::new(dir.as_os_str().as_bytes()).ok()) else {
        return;
    };
    // SAFETY: called once, before any function that needs a backend; the path is NUL-terminated and not kept.
    unsafe { ggml_backend_load_all_from_path(path.as_ptr()) }
}

/// Starts a pool of threads.
pub type ThreadpoolNew = unsafe extern "C" fn(*mut ggml_threadpool_params) -> *mut ggml_threadpool;
/// Ends one.
pub type ThreadpoolFree = unsafe extern "C" fn(*mut ggml_threadpool);

/// What makes and ends pools of threads.
#[derive(Clone, Copy)]
pub struct ThreadpoolCalls {
    pub new: ThreadpoolNew,
    pub free: ThreadpoolFree,
}

/// The CPU backend's calls for pools of threads, which are part of whatever library was loaded for it; `None` when none was.
pub fn threadpool_calls() -> Option<ThreadpoolCalls> {
    init();
    // SAFETY: a NUL-terminated name; backends are registered by `init`.
    let cpu = unsafe { ggml_backend_reg_by_name(c"CPU".as_ptr()) };
    if cpu.is_null() {
        return None;
    }
    // SAFETY: `cpu` is a registered backend, and the names are NUL-terminated.
    let [new, free] = [c"ggml_threadpool_new", c"ggml_threadpool_free"]
        .map(|name| unsafe { ggml_backend_reg_get_proc_address(cpu, name.as_ptr()) });
    if new.is_null() || free.is_null() {
        return None;
    }
    // SAFETY: the CPU backend answers these names with its functions of these types (`ggml-cpu.h`), and is never unloaded.
    unsafe {
        Some(ThreadpoolCalls {
            new: std::mem::transmute::<*mut std::ffi::c_void, ThreadpoolNew>(new),
            free: std::mem::transmute::<*mut std::ffi::c_void, ThreadpoolFree>(free),
        })
    }
}

/// llama.cpp's version and the package that it came from, for records.
#[must_use]
pub fn build_info() -> String {
    // SAFETY: both return a literal of the library.
    let (llama, ggml) = unsafe { (to_text(llama_version()), to_text(ggml_version())) };
    format!("llama.cpp {llama}, ggml {ggml} (llama-cpp-sys-2 {BINDINGS_VERSION})")
}

/// The instruction sets and features that each backend was built with, in llama.cpp's own form.
#[must_use]
pub fn system_info() -> String {
    // llama.cpp builds this text in one static buffer.
    static BUFFER: Mutex<()> = Mutex::new(());
    init();
    let _guard = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the text stays as it is until the next call, which the lock delays until it has been copied.
    let text = unsafe { to_text(llama_print_system_info()) };
    text.trim_end_matches(" | ").to_owned()
}

/// A copy of a C text; empty for null.
///
/// # Safety
/// `text` is null or NUL-terminated and valid during the call.
pub unsafe fn to_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_records_is_the_pinned_one() {
        let manifest = include_str!("../Cargo.toml");
        assert!(manifest.contains(&format!("version = \"={BINDINGS_VERSION}\"")));
        assert!(build_info().starts_with("llama.cpp "));
    }

    #[test]
    fn the_cpu_backend_describes_itself() {
        assert!(system_info().starts_with("CPU : "), "{}", system_info());
    }
}
