//! One module for each subcommand.

pub mod detach;
pub mod doctor;
pub mod down;
pub mod explain;
pub mod models;
pub mod run;
pub mod runner;
pub mod up;
