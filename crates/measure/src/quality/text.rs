//! The text that perplexity is measured on.

use firepot_store::Digest;

/// Where the text is from.
pub const TEXT_SOURCE: &str = "The Declaration of Independence of the United States, 4 July 1776, in the spelling of the National Archives' transcription; public domain";

/// Preamble and list of grievances: English prose that every larger model has seen, so that its perplexity is low and rises at once when weights,
/// tokenizer or KV cache are damaged.
pub const TEXT: &str = include_str!("declaration.txt");

/// SHA-256 of [`TEXT`], 64 hex digits.
#[must_use]
pub fn text_sha256() -> String {
    Digest::of(TEXT.as_bytes()).hex()
}
