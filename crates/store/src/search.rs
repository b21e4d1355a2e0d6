//! The search in titles and in what users and models said. What the model thought is not searched.
//!
//! A query is words, never an expression: every word must be found in the same title or message, the last one may be
//! the beginning of a word. Letters count without their case and accents. A word is what the index takes for one: in
//! scripts without spaces that is a whole run of letters, of which only the beginning is found.

use serde::Serialize;

use crate::{
    Chat, Chats, MessageId, StoreError,
    checks::check_limit,
    limits::{SEARCH_HITS_MAX, SEARCH_QUERY_CHARS_MAX, SNIPPET_PART_CHARS_MAX},
    search_rows as rows,
};

/// A chat in which something was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SearchHit {
    /// The chat.
    pub chat: Chat,
    /// The best message; `None` when it was found in the title.
    pub message_id: Option<MessageId>,
    /// The title, or what stands around the first hits in the message.
    pub snippet: Vec<SnippetPart>,
}

/// A piece of a snippet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnippetPart {
    /// Its text.
    pub text: String,
    /// Whether it is what was looked for.
    pub hit: bool,
}

impl Chats<'_> {
    /// The chats in which every word of the query is found, each once: those found by their title first, then by how
    /// well the message fits, of equals the newer first. None for a query without words.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for more than [`SEARCH_HITS_MAX`] hits or a query of more than
    /// [`SEARCH_QUERY_CHARS_MAX`] characters; a failure of the database.
    pub fn search(self, query: &str, limit: usize) -> Result<Vec<SearchHit>, StoreError> {
        check_limit("the number of hits", limit, SEARCH_HITS_MAX)?;
        let length = query.chars().count();
        check_limit("the query's length in characters", length, SEARCH_QUERY_CHARS_MAX)?;
        let Some(expression) = expression(query) else { return Ok(Vec::new()) };
        self.database.read(|db| {
            let tx = db.unchecked_transaction()?;
            let mut hits = rows::select_title_hits(&tx, &expression, limit)?;
            hits.extend(rows::select_message_hits(&tx, &expression, limit - hits.len())?);
            Ok(hits)
        })
    }
}

/// The query in the index's language: every word in quotes, so that nothing in it is an operator.
fn expression(query: &str) -> Option<String> {
    let words = query.split(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    let quoted: Vec<_> =
        words.filter(|word| word.contains(char::is_alphanumeric)).map(|word| format!("\"{word}\"")).collect();
    (!quoted.is_empty()).then(|| format!("{}*", quoted.join(" ")))
}

/// A text whose hits stand between [`rows::HIT_BEGINS`] and [`rows::HIT_ENDS`], in its parts.
pub fn snippet_of(marked: &str) -> Vec<SnippetPart> {
    let pieces = marked.split([rows::HIT_BEGINS, rows::HIT_ENDS]).enumerate();
    let parts = pieces.map(|(place, text)| SnippetPart { text: shortened(text), hit: place % 2 == 1 });
    parts.filter(|part| !part.text.is_empty()).collect()
}

/// Without the middle of what is too long: what is next to a hit stays.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= SNIPPET_PART_CHARS_MAX {
        return text.to_owned();
    }
    let side = SNIPPET_PART_CHARS_MAX / 2;
    let begin = text.chars().take(side);
    begin.chain(['…']).chain(text.chars().skip(count - side + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_query_is_quoted_and_the_last_one_is_a_beginning() {
        let check = |query: &str, expected: Option<&str>| assert_eq!(expression(query).as_deref(), expected);
        check("", None);
        check(" \n\t", None);
        check("-- * ( 🔥 \" \u{0}", None);
        check("fire", Some("\"fire\"*"));
        check("  two\u{0}words ", Some("\"two\" \"words\"*"));
        check("a AND NOT title:b*", Some("\"a\" \"AND\" \"NOT\" \"title:b*\"*"));
        check("say \"hi\" {there}", Some("\"say\" \"hi\" \"{there}\"*"));
    }

    #[test]
    fn a_marked_text_is_split_at_its_marks() {
        let part = |text: &str, hit| SnippetPart { text: text.into(), hit };
        assert_eq!(snippet_of("no mark"), [part("no mark", false)]);
        assert_eq!(snippet_of("\u{1}all\u{2}"), [part("all", true)]);
        let expected =
            [part("a ", false), part("b", true), part(" ", false), part("c", true), part("d", false)];
        assert_eq!(snippet_of("a \u{1}b\u{2} \u{1}c\u{2}d"), expected);
    }

    #[test]
    fn a_part_that_is_too_long_keeps_both_ends() {
        let parts = snippet_of(&format!("begin{}end\u{1}x\u{2}", "é".repeat(1000)));
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].text.chars().count(), SNIPPET_PART_CHARS_MAX);
        assert!(parts[0].text.starts_with("beginé") && parts[0].text.ends_with("éend"), "{parts:?}");
        assert!(parts[0].text.contains("é…é"));
    }
}
