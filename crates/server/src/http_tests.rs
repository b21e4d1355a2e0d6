//! The routes over scripted runners, as clients see them.

mod answers;
mod chats;
mod journal;
mod life;
mod models;
mod page;
mod pulls;
mod refusals;
mod talks;
mod tree;
mod watching;
