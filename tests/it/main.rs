//! The shipped binary on the real small model: real processes, real sockets, real signals.

mod api;
mod bad_input;
mod cli;
mod death;
mod home;
mod hub;
mod open_webui;
mod pulls;
mod split;
mod stack;
mod verify;
