//! The shipped binary on the real small model: real processes, real sockets, real signals.

mod access;
mod api;
mod bad_input;
mod cli;
mod death;
mod home;
mod hub;
mod lifecycle;
mod open_webui;
mod pulls;
mod snapshots;
mod split;
mod sshd;
mod stack;
mod tunnels;
mod verify;
