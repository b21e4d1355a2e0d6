//! The routes over scripted runners, as clients see them.

mod access;
mod answers;
mod chats;
mod fits;
mod journal;
mod life;
mod models;
mod page;
mod pulls;
mod refusals;
mod restarts;
mod security_md;
mod talks;
mod tree;
mod trials;
mod watching;
