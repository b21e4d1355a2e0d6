//! What people read of bundles: pages, tables, and lists, each a pure function of what the bundles say, so that the same bundles
//! give the same bytes.

mod beside;
mod build;
mod csv;
mod document;
mod html;
mod llama_bench;
mod markdown;
mod meanwhile;
mod number;
mod plots;
mod readme;
mod sections;
mod svg;

pub use csv::csv;
pub use llama_bench::llama_bench;
pub use number::number;
pub use readme::{BEGIN, END, readme, replaced};

use crate::{bundle::Bundle, claims::Claims, summary::Summary};

/// What a report is about.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Bundles, one for each session, with what follows from them.
    pub sessions: &'a [(Bundle, Summary)],
    /// Claims to be answered.
    pub claims: &'a [Claims],
}

impl<'a> Input<'a> {
    pub(super) fn pairs(&self) -> Vec<(&'a Bundle, &'a Summary)> {
        self.sessions.iter().map(|(bundle, summary)| (bundle, summary)).collect()
    }
}

/// One HTML file without script, which asks nothing of any network.
#[must_use]
pub fn html(input: &Input<'_>) -> String {
    html::render(&build::document(input))
}

/// The same in Markdown, without plots.
#[must_use]
pub fn markdown(input: &Input<'_>) -> String {
    markdown::render(&build::document(input))
}

/// A comparison in Markdown.
#[must_use]
pub fn comparison(comparison: &crate::compare::Comparison) -> String {
    let blocks: Vec<_> =
        beside::unequal(comparison).into_iter().chain(beside::comparison_table(comparison)).collect();
    markdown::render(&blocks)
}
