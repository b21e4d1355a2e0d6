//! Stopping a decode call from another thread, and telling that one is alive.
//!
//! llama.cpp asks before each graph node on the CPU. A graph on a GPU is not interrupted: there an abort takes effect
//! between decode calls, and the counter rises with calls, not nodes.

use std::{
    ffi::c_void,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use firepot_engine::AbortHandle;

/// What llama.cpp's abort callback reads and writes.
#[derive(Default)]
pub struct Signals {
    pub abort: AbortHandle,
    pub progress: Arc<AtomicU64>,
}

impl Signals {
    /// Pointer for [`on_node`]; valid while `self` is where it is.
    pub fn as_user_data(&self) -> *mut c_void {
        (&raw const *self).cast_mut().cast()
    }

    /// Counts one step.
    pub fn step(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// llama.cpp's abort callback: counts the node; `true` ends the computation.
///
/// # Safety
/// `user_data` comes from [`Signals::as_user_data`] and is still valid.
pub unsafe extern "C" fn on_node(user_data: *mut c_void) -> bool {
    // SAFETY: the caller vouches for it; both fields are atomics, so shared access from any thread is sound.
    let signals = unsafe { &*user_data.cast::<Signals>() };
    signals.step();
    signals.abort.is_asked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_counted_and_sees_the_abort() {
        let signals = Signals::default();
        // SAFETY: `signals` lives until the end of the test.
        assert!(!unsafe { on_node(signals.as_user_data()) });
        signals.abort.abort();
        // SAFETY: as above.
        assert!(unsafe { on_node(signals.as_user_data()) });
        assert_eq!(signals.progress.load(Ordering::Relaxed), 2);
    }
}
