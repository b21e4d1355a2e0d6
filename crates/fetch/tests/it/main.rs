//! Files and answers from servers that are slow, broken, hostile or simply gone.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail like tests")]

mod headers;
mod hub;
mod pulls;
mod redirects;
mod small;
mod transfers;
