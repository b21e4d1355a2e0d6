//! How fast this machine computes: measured once by llama.cpp itself on small models made for it, and what follows for the
//! speed of any model.
//!
//! [`measure`] runs the probe over whatever loads models, so this crate does not link llama.cpp. [`Calibration`] is what it
//! found, [`Work`] what a token of a model costs, [`Calibration::predict`] puts them together. What is predicted is never
//! shown as measured.

mod calibration;
mod model;
mod observed;
mod predict;
mod probe;
mod reckon;
#[cfg(test)]
mod tests;
mod threads;
mod timed;
mod work;

pub use calibration::{Attention, Calibration, DeviceRates, KindRates, RECKONING, Rates, Stamp, Threads};
pub use observed::{Answer, Correction, Observed};
pub use predict::{On, Rate, Speeds, Way};
pub use probe::{Asked, CalibrateError, Gpu, USUAL_KINDS, measure};
pub use timed::Load;
pub use work::{KindWork, Looked, Work};
