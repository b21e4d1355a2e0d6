//! The typed, versioned message stream between server and runner, over any byte stream.
//!
//! Both directions carry frames: a 4-byte little-endian length, then one message in `MessagePack` with named fields.
//! The first frame of each side is a `Hello`; a different [`PROTOCOL`] ends the link. The crate opens no sockets
//! and spawns nothing: [`FrameReader`] eats bytes from wherever they come.

mod frame;
mod message;

pub use frame::{FrameError, FrameReader, MAX_FRAME_BYTES, encode};
pub use message::{
    GenerationId, Heartbeat, LoadFailure, LoadFailureKind, Loaded, PROTOCOL, Resume, RunnerStats,
    SnapshotFolder, ToRunner, ToServer,
};
