//! A report before it has a form.

/// A part of a report.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Block {
    /// A heading; 1 is the title.
    Heading(u8, String),
    /// A paragraph.
    Text(String),
    /// Sentences with a mark each.
    Verdicts(Vec<Verdict>),
    /// A table.
    Table(Table),
    /// A drawing, left out where there can be none.
    Plot {
        /// What it shows.
        title: String,
        /// The drawing.
        svg: String,
    },
}

/// A sentence with a mark.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    /// Whether it is good (yes), bad (no) or open.
    pub mark: Mark,
    /// The mark in words.
    pub word: &'static str,
    /// The sentence.
    pub says: String,
    /// Figures and reasons.
    pub because: Vec<String>,
}

/// How a verdict is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// It is not known.
    Open,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<&'static str>,
    /// Cells, as many in each row as there are names.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn block(caption: &str, head: &[&'static str], rows: Vec<Vec<String>>) -> Option<Block> {
        let table = Self { caption: caption.to_owned(), head: head.to_vec(), rows };
        (!table.rows.is_empty()).then_some(Block::Table(table))
    }
}
