//! llama.cpp's log as `tracing` events, and its last errors for our own error messages.
//!
//! Lines and errors are kept for each thread: llama.cpp reports a failed load from the thread that asked for it, so
//! two loads at once do not mix their reasons.

use std::{
    cell::RefCell,
    collections::VecDeque,
    ffi::{CStr, c_char, c_void},
    mem,
};

use llama_cpp_sys_2::{
    GGML_LOG_LEVEL_CONT, GGML_LOG_LEVEL_DEBUG, GGML_LOG_LEVEL_ERROR, GGML_LOG_LEVEL_WARN, ggml_log_level,
    llama_log_set,
};

/// Target of the events, for filters.
pub const TARGET: &str = "llama.cpp";

/// Errors kept for a thread.
const RECENT_ERRORS_MAX: usize = 8;

/// Longest line passed on; llama.cpp prints whole grammars and templates.
const LINE_BYTES_MAX: usize = 4096;

thread_local! {
    static LINES: RefCell<Lines> = const { RefCell::new(Lines::new()) };
    static ERRORS: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// Joins fragments to lines: llama.cpp ends a message where it likes and continues it with another level.
struct Lines {
    level: ggml_log_level,
    pending: String,
}

impl Lines {
    const fn new() -> Self {
        Self { level: GGML_LOG_LEVEL_DEBUG, pending: String::new() }
    }

    /// Adds a fragment and returns the lines that are complete now.
    fn push(&mut self, level: ggml_log_level, text: &str) -> Vec<(ggml_log_level, String)> {
        let mut complete = Vec::new();
        if level != GGML_LOG_LEVEL_CONT {
            self.finish(&mut complete);
            self.level = level;
        }
        for part in text.split_inclusive('\n') {
            self.pending.push_str(part.trim_end_matches('\n'));
            if part.ends_with('\n') || self.pending.len() > LINE_BYTES_MAX {
                self.finish(&mut complete);
            }
        }
        complete
    }

    fn finish(&mut self, complete: &mut Vec<(ggml_log_level, String)>) {
        let mut line = mem::take(&mut self.pending);
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        if !line.trim().is_empty() {
            complete.push((self.level, line));
        }
    }
}

/// Sends llama.cpp's log to `tracing` from now on.
pub fn install() {
    // SAFETY: `on_log` takes no user data and lives as long as the program.
    unsafe { llama_log_set(Some(on_log), std::ptr::null_mut()) }
}

/// Forgets the errors of this thread.
pub fn forget_errors() {
    ERRORS.with_borrow_mut(VecDeque::clear);
}

/// The errors that llama.cpp logged on this thread since [`forget_errors`], oldest first, at most
/// [`RECENT_ERRORS_MAX`].
pub fn recent_errors() -> Vec<String> {
    // An error whose line was left open is still an error.
    let mut open = Vec::new();
    LINES.with_borrow_mut(|lines| lines.finish(&mut open));
    deliver(open);
    ERRORS.with_borrow(|errors| errors.iter().cloned().collect())
}

unsafe extern "C" fn on_log(level: ggml_log_level, text: *const c_char, _user_data: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated text that is valid during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // The borrow ends before an event is sent: a subscriber may run any code.
    deliver(LINES.with_borrow_mut(|lines| lines.push(level, &text)));
}

fn deliver(lines: Vec<(ggml_log_level, String)>) {
    for (level, line) in lines {
        emit(level, &line);
        if level == GGML_LOG_LEVEL_ERROR {
            remember(line);
        }
    }
}

fn remember(line: String) {
    ERRORS.with_borrow_mut(|errors| {
        if errors.len() == RECENT_ERRORS_MAX {
            errors.pop_front();
        }
        errors.push_back(line);
    });
}

fn emit(level: ggml_log_level, line: &str) {
    match level {
        GGML_LOG_LEVEL_ERROR => tracing::error!(target: TARGET, "{line}"),
        GGML_LOG_LEVEL_WARN => tracing::warn!(target: TARGET, "{line}"),
        GGML_LOG_LEVEL_DEBUG => tracing::debug!(target: TARGET, "{line}"),
        _ => tracing::info!(target: TARGET, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use llama_cpp_sys_2::GGML_LOG_LEVEL_INFO;

    use super::*;

    fn check(fragments: &[(ggml_log_level, &str)], expected: &[(ggml_log_level, &str)]) {
        let mut lines = Lines::new();
        let mut complete: Vec<_> =
            fragments.iter().flat_map(|(level, text)| lines.push(*level, text)).collect();
        lines.finish(&mut complete);
        let complete: Vec<_> = complete.iter().map(|(level, line)| (*level, line.as_str())).collect();
        assert_eq!(complete, expected);
    }

    #[test]
    fn fragments_are_joined_to_lines() {
        check(&[(GGML_LOG_LEVEL_INFO, "one line\n")], &[(GGML_LOG_LEVEL_INFO, "one line")]);
        check(
            &[(GGML_LOG_LEVEL_INFO, "a"), (GGML_LOG_LEVEL_CONT, "b"), (GGML_LOG_LEVEL_CONT, "c\n")],
            &[(GGML_LOG_LEVEL_INFO, "abc")],
        );
        check(
            &[(GGML_LOG_LEVEL_WARN, "first\nsecond\n")],
            &[(GGML_LOG_LEVEL_WARN, "first"), (GGML_LOG_LEVEL_WARN, "second")],
        );
    }

    #[test]
    fn an_open_line_ends_where_another_message_begins() {
        check(
            &[(GGML_LOG_LEVEL_ERROR, "no newline"), (GGML_LOG_LEVEL_INFO, "next\n")],
            &[(GGML_LOG_LEVEL_ERROR, "no newline"), (GGML_LOG_LEVEL_INFO, "next")],
        );
    }

    #[test]
    fn empty_lines_are_dropped_and_long_ones_cut_at_a_character() {
        check(&[(GGML_LOG_LEVEL_INFO, "\n \n")], &[]);
        let long = format!("{}\n", "é".repeat(LINE_BYTES_MAX));
        let mut lines = Lines::new();
        let complete = lines.push(GGML_LOG_LEVEL_INFO, &long);
        assert_eq!(complete[0].1.len(), LINE_BYTES_MAX);
    }

    #[test]
    fn only_the_last_errors_are_kept() {
        forget_errors();
        for number in 0..RECENT_ERRORS_MAX + 2 {
            deliver(vec![(GGML_LOG_LEVEL_ERROR, format!("error {number}"))]);
        }
        deliver(vec![(GGML_LOG_LEVEL_WARN, "a warning".to_owned())]);
        let errors = recent_errors();
        assert_eq!(errors.len(), RECENT_ERRORS_MAX);
        assert_eq!(errors[0], "error 2");
        forget_errors();
        assert!(recent_errors().is_empty());
    }
}
