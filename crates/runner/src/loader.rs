//! How a runner comes by its decoder.

use std::sync::atomic::{AtomicU16, Ordering};

use firepot_engine::{Decoder, LoadSpec};
use firepot_fail::Point;
use firepot_link::{LoadFailure, ToServer};

use crate::shared::Shared;

/// Loads models: llama.cpp in the shipped program, a fake in tests.
pub trait Loader {
    /// Inference library and version.
    fn build(&self) -> String;

    /// Loads a model.
    ///
    /// # Errors
    /// A failure to be shown to the user.
    fn load(&mut self, spec: &LoadSpec, progress: &LoadProgress<'_>)
    -> Result<Box<dyn Decoder>, LoadFailure>;
}

/// Where a load reports how far it is.
pub struct LoadProgress<'a> {
    shared: &'a Shared,
    last_permille: AtomicU16,
}

impl<'a> LoadProgress<'a> {
    pub(crate) const fn new(shared: &'a Shared) -> Self {
        Self { shared, last_permille: AtomicU16::new(0) }
    }

    /// `fraction` of the load is done. Cheap enough to be called for each tensor.
    pub fn report(&self, fraction: f32) {
        firepot_fail::pass(Point::Loading);
        self.shared.progress();
        let permille = (fraction.clamp(0.0, 1.0) * 1000.0) as u16;
        if self.last_permille.swap(permille, Ordering::Relaxed) != permille {
            self.shared.send(&ToServer::LoadProgress { permille });
        }
    }
}
