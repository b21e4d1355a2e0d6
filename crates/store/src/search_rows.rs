//! The SQL of the search. The index tables come first in every join: a query is run once, not for each row.

use rusqlite::{Connection, Row, params};

use crate::{
    Chat, MessageId,
    chat_rows::{CHAT_COLUMNS, chat_of},
    db::Failure,
    search::{SearchHit, snippet_of},
};

/// Stands before a hit in a marked text. The texts of the index have none of their own.
pub const HIT_BEGINS: char = '\u{1}';

/// Stands after a hit in a marked text.
pub const HIT_ENDS: char = '\u{2}';

/// Words of a snippet.
const SNIPPET_WORDS: u32 = 24;

/// Chats by their titles, best first.
pub fn select_title_hits(db: &Connection, expression: &str, limit: usize) -> Result<Vec<SearchHit>, Failure> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {CHAT_COLUMNS}, highlight(title_words, 0, char(1), char(2)) AS marked
         FROM title_words CROSS JOIN chats ON chats.seq = title_words.rowid
         WHERE title_words MATCH ?1 AND chats.deleted_at_us IS NULL
         ORDER BY title_words.rank, chats.updated_at_us DESC, chats.seq DESC LIMIT ?2"
    ))?;
    let hit = |row: &Row<'_>| {
        let marked: String = row.get("marked")?;
        Ok(SearchHit { chat: chat_of(row)?, message_id: None, snippet: snippet_of(&marked) })
    };
    let hits = statement.query_map(params![expression, limit as i64], hit)?.collect::<Result<_, _>>()?;
    Ok(hits)
}

/// The best message of each chat whose title does not fit, best first.
pub fn select_message_hits(
    db: &Connection,
    expression: &str,
    limit: usize,
) -> Result<Vec<SearchHit>, Failure> {
    let found = select_best_messages(db, expression, limit)?;
    let hit = |(chat, message_id, seq)| {
        let snippet = snippet_of(&select_marked(db, expression, seq)?);
        Ok(SearchHit { chat, message_id: Some(message_id), snippet })
    };
    found.into_iter().map(hit).collect()
}

type Found = (Chat, MessageId, i64);

fn select_best_messages(db: &Connection, expression: &str, limit: usize) -> Result<Vec<Found>, Failure> {
    let mut statement = db.prepare_cached(&format!(
        "WITH found AS MATERIALIZED (
             SELECT rowid AS seq, rank AS score FROM message_words WHERE message_words MATCH ?1
         ),
         ranked AS (
             SELECT messages.seq, messages.id, messages.chat_id, messages.created_at_us, found.score,
                    row_number() OVER (
                        PARTITION BY messages.chat_id
                        ORDER BY found.score, messages.created_at_us DESC, messages.seq DESC
                    ) AS place
             FROM found CROSS JOIN messages ON messages.seq = found.seq
         )
         SELECT {CHAT_COLUMNS}, ranked.id AS message_id, ranked.seq AS message_seq
         FROM ranked CROSS JOIN chats ON chats.id = ranked.chat_id
         WHERE ranked.place = 1 AND chats.deleted_at_us IS NULL
           AND chats.seq NOT IN (SELECT rowid FROM title_words WHERE title_words MATCH ?1)
         ORDER BY ranked.score, ranked.created_at_us DESC, ranked.seq DESC LIMIT ?2"
    ))?;
    let found = |row: &Row<'_>| Ok((chat_of(row)?, row.get("message_id")?, row.get("message_seq")?));
    let found = statement.query_map(params![expression, limit as i64], found)?.collect::<Result<_, _>>()?;
    Ok(found)
}

fn select_marked(db: &Connection, expression: &str, seq: i64) -> Result<String, Failure> {
    let marked = db
        .prepare_cached(
            "SELECT snippet(message_words, 0, char(1), char(2), '…', ?3) FROM message_words
             WHERE message_words MATCH ?1 AND rowid = ?2",
        )?
        .query_row(params![expression, seq, SNIPPET_WORDS], |row| row.get(0))?;
    Ok(marked)
}
