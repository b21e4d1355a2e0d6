//! Tunnels: ways for others to reach a port of this machine, by way of a program that somebody else wrote.
//!
//! Each kind ([`Via`]) is a child process: what it prints says where the tunnel leads from, and why there is none. [`keep`]
//! starts it, watches it, and starts it again when it dies. Who may come through a tunnel is not decided here, and
//! nothing of what goes through is seen.
//!
//! ngrok is a child process too, although there is a crate of its makers: it would bring some thirty further crates into the program
//! for a way that cannot be tested without an account, and the program that users have does the same.

mod cloudflared;
mod keep;
mod limits;
mod ngrok;
mod said;
mod ssh;
mod tether;
mod via;

#[cfg(test)]
mod tests;

pub use keep::{Event, Pauses, Tunnel, keep};
pub use said::Trouble;
pub use tether::tether;
pub use via::{Bind, BindError, SshOptions, Via, ViaError};
