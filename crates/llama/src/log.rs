//! llama.cpp's log → `tracing`, and its last complaints for error messages.

use std::{
    collections::VecDeque,
    ffi::{CStr, c_char, c_void},
    sync::{Mutex, Once, PoisonError},
};

use llama_cpp_sys_2 as sys;

/// Complaints that are remembered.
const COMPLAINTS_MAX: usize = 6;

struct State {
    /// Level and text of a line that has not ended yet.
    open: (sys::ggml_log_level, String),
    complaints: VecDeque<String>,
}

static STATE: Mutex<State> = Mutex::new(State { open: (0, String::new()), complaints: VecDeque::new() });
static INSTALL: Once = Once::new();

/// Sends llama.cpp's log to `tracing` (target `llama.cpp`) from now on, and initializes its backends once.
pub fn bridge_logs() {
    INSTALL.call_once(|| {
        // SAFETY: the callback is a function of this crate without user data; both calls happen once, before any other.
        unsafe {
            sys::llama_log_set(Some(on_log), std::ptr::null_mut());
            sys::llama_backend_init();
        }
    });
}

/// The last errors and warnings, and forgets them.
pub fn take_complaints() -> Vec<String> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner).complaints.drain(..).collect()
}

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: llama.cpp passes a NUL-terminated string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    STATE.lock().unwrap_or_else(PoisonError::into_inner).push(level, &text);
}

impl State {
    /// Joins continuations (`GGML_LOG_LEVEL_CONT`) and unfinished lines.
    fn push(&mut self, level: sys::ggml_log_level, text: &str) {
        if level != sys::GGML_LOG_LEVEL_CONT {
            self.open.0 = level;
        }
        self.open.1.push_str(text);
        while let Some(end) = self.open.1.find('\n') {
            let line: String = self.open.1.drain(..=end).collect();
            self.line(line.trim_end());
        }
    }

    fn line(&mut self, line: &str) {
        if line.trim_matches('.').is_empty() {
            return;
        }
        match self.open.0 {
            sys::GGML_LOG_LEVEL_ERROR => tracing::error!(target: "llama.cpp", "{line}"),
            sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{line}"),
            sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama.cpp", "{line}"),
            _ => tracing::trace!(target: "llama.cpp", "{line}"),
        }
        if self.open.0 == sys::GGML_LOG_LEVEL_ERROR {
            if self.complaints.len() == COMPLAINTS_MAX {
                self.complaints.pop_front();
            }
            self.complaints.push_back(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_errors_remembered() {
        let mut state = State { open: (0, String::new()), complaints: VecDeque::new() };
        state.push(sys::GGML_LOG_LEVEL_INFO, "loading ");
        state.push(sys::GGML_LOG_LEVEL_CONT, ".....\n");
        state.push(sys::GGML_LOG_LEVEL_ERROR, "it ");
        state.push(sys::GGML_LOG_LEVEL_CONT, "broke\n");
        for n in 0..COMPLAINTS_MAX {
            state.push(sys::GGML_LOG_LEVEL_ERROR, &format!("error {n}\n"));
        }
        assert_eq!(state.complaints.len(), COMPLAINTS_MAX);
        assert_eq!(state.complaints[0], "error 0");
    }
}
