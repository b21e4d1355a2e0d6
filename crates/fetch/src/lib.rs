//! Models from other machines: HTTP that trusts nobody further than it must, files that arrive in parts and are
//! never fetched twice.

mod answer;
mod error;
mod head;
mod header;
mod http;
mod hub;
pub mod limits;
mod part;
mod piece;
mod puller;
mod redirect;
mod registry;
mod resolve;
mod retry;
mod transfer;

pub use error::FetchError;
pub use header::{HeaderError, fetch_header};
pub use http::{Http, Small, provide_tls};
pub use puller::{FileState, Hubs, Phase, PullError, PullState, Puller};
pub use reqwest::{StatusCode, Url};
pub use retry::Patience;
pub use transfer::{FileSpec, fetch_file};
