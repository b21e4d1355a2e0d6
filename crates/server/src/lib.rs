//! The server.

mod limits;
mod metrics;
mod pool;
mod settings;
