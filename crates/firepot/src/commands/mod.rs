//! One module for each subcommand, or for several that do alike.

pub mod calibrate;
pub mod create;
pub mod detach;
pub mod doctor;
pub mod down;
pub mod dry_run;
pub mod explain;
pub mod fit;
pub mod key;
pub mod models;
pub mod perplexity;
pub mod pull;
pub mod report;
pub mod run;
pub mod runner;
pub mod state;
pub mod store;
pub mod up;
pub mod verify;
