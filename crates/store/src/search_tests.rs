//! Tests of the search, on real database files.

use crate::{
    Chat, ChatId, Chats, Database, MessageBody, MessagePatch, MessageRole, NewChat, SearchHit, clock,
    limits::{SEARCH_HITS_MAX, SEARCH_QUERY_CHARS_MAX},
    testing::database,
};

fn chat(chats: Chats<'_>, title: &str) -> Chat {
    chats.create(&NewChat { title: Some(title.into()), ..NewChat::default() }).unwrap()
}

/// Makes a chat of this title in which these things are said, by the user and the model in turns.
fn said(chats: Chats<'_>, title: &str, texts: &[&str]) -> ChatId {
    let id = chat(chats, title).id;
    let roles = [MessageRole::User, MessageRole::Assistant].into_iter().cycle();
    let messages: Vec<_> =
        texts.iter().zip(roles).map(|(&t, role)| MessageBody::text(role, t).into()).collect();
    chats.append(id, &messages).unwrap();
    id
}

fn found(chats: Chats<'_>, query: &str) -> Vec<ChatId> {
    chats.search(query, SEARCH_HITS_MAX).unwrap().into_iter().map(|hit| hit.chat.id).collect()
}

/// A snippet with its hits in brackets.
fn shown(hit: &SearchHit) -> String {
    let parts = hit.snippet.iter();
    parts.map(|part| if part.hit { format!("[{}]", part.text) } else { part.text.clone() }).collect()
}

/// The index holds exactly what the tables hold.
fn check_index(database: &Database) {
    for table in ["title_words", "message_words"] {
        // With rank 1 the index is compared with the tables, too.
        let check = format!("INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)");
        database.connection().execute(&check, []).unwrap();
    }
}

#[test]
fn words_are_found_without_case_and_accents_the_last_one_from_its_beginning() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = said(chats, "t", &["Über die Feuer-Töpfe: naïve crème brûlée, 42 mal."]);
    for query in
        ["uber", "ÜBER", "feuer top", "topfe 42", "Brulee CREME", "naive c", "feuer-töpfe", "\"die feuer\""]
    {
        assert_eq!(found(chats, query), [chat], "{query}");
    }
    for query in ["feuerwehr", "to 42", "opfe", "creme nothing", "", " ", "?!", "\"", "42x"] {
        assert_eq!(found(chats, query), [], "{query}");
    }
}

#[test]
fn all_words_must_be_in_one_message() {
    let (_test, database) = database();
    let chats = database.chats();
    said(chats, "t", &["red apple", "green pear"]);
    let both = said(chats, "t", &["other", "a pear, and an apple"]);
    assert_eq!(found(chats, "apple pear"), [both]);
}

#[test]
fn nothing_in_a_query_is_an_operator() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = said(chats, "t", &["one or two, not near content: a* (b) ^c + d"]);
    let queries = [
        "one OR two",
        "NOT near",
        "content: a*",
        "(b)",
        "^c",
        "+ d",
        "one AND",
        "NEAR(one two)",
        "content:one",
        "a\u{0}b",
        "'one'",
        "\"one",
        "one\" OR \"x",
        "{content}",
        "-one",
        "a;b",
        "*",
        "\u{1}one\u{2}",
    ];
    for query in queries {
        let hits = found(chats, query);
        assert!(hits.is_empty() || hits == [chat], "{query}");
    }
    assert_eq!(found(chats, "one OR two"), [chat]);
    assert_eq!(found(chats, "one AND two"), [], "there is no such word");
    assert_eq!(found(chats, "nothing OR two"), []);
    assert_eq!(found(chats, &"d ".repeat(SEARCH_QUERY_CHARS_MAX / 2)), [chat]);
}

#[test]
fn a_chat_is_found_once_titles_first_then_what_fits_best() {
    let (_test, database) = database();
    let chats = database.chats();
    let often = said(chats, "a", &["ember ember ember", "ember"]);
    let once = said(chats, "b", &["a long message in which the word ember stands once among many others"]);
    let title = said(chats, "Ember", &["ember"]);
    let hits = chats.search("ember", 10).unwrap();
    assert_eq!(hits.iter().map(|hit| hit.chat.id).collect::<Vec<_>>(), [title, often, once]);
    assert_eq!(hits[0].message_id, None);
    assert_eq!(hits[1].message_id, Some(chats.get(often).unwrap().messages[0].id));
    assert_eq!(hits[0].chat, chats.get(title).unwrap().chat);
    let first: Vec<_> = chats.search("ember", 2).unwrap();
    assert_eq!(first, hits[..2]);
    assert_eq!(chats.search("ember", 0).unwrap(), []);
}

#[test]
fn of_equals_the_newer_is_first() {
    let (_test, database) = database();
    let chats = database.chats();
    let [a, b, c] = [(); 3].map(|()| said(chats, "t", &["same words", "same words"]));
    assert_eq!(found(chats, "same"), [c, b, a]);
    let hits = chats.search("same", 1).unwrap();
    assert_eq!(hits[0].message_id, chats.get(c).unwrap().leaf_id);
}

#[test]
fn a_snippet_shows_the_hits_in_their_surroundings() {
    let (_test, database) = database();
    let chats = database.chats();
    let filler = "word ".repeat(100);
    said(
        chats,
        "Of Fire and fires",
        &[&format!("{filler}before the spark\u{1} of\u{2} sparks after {filler}")],
    );
    let title = &chats.search("fire", 1).unwrap()[0];
    assert_eq!(shown(title), "Of [Fire] and [fires]");
    let message = &chats.search("spark", 1).unwrap()[0];
    let text = shown(message);
    assert!(text.contains("before the [spark]  of  [sparks] after"), "{text:?}");
    assert!(text.starts_with('…') && text.ends_with('…') && text.len() < 200, "{text:?}");
}

#[test]
fn what_the_model_thought_and_what_tools_and_systems_said_is_not_searched() {
    let (_test, database) = database();
    let chats = database.chats();
    let id = chat(chats, "t").id;
    let thought =
        MessageBody { thinking: Some("hidden".into()), ..MessageBody::text(MessageRole::Assistant, "seen") };
    let others =
        [MessageRole::System, MessageRole::Tool].map(|role| MessageBody::text(role, "hidden").into());
    chats.append(id, &[thought.into()]).unwrap();
    chats.append(id, &others).unwrap();
    assert_eq!(found(chats, "hidden"), []);
    assert_eq!(found(chats, "seen"), [id]);
    check_index(&database);
}

#[test]
fn the_index_follows_every_change() {
    let (_test, database) = database();
    let chats = database.chats();
    let id = said(chats, "first", &["question", "answer"]);
    let answer = chats.get(id).unwrap().messages[1].clone();
    let check = |query: &str, expected: bool| {
        assert_eq!(!found(chats, query).is_empty(), expected, "{query}");
        check_index(&database);
    };
    check("first", true);
    chats.rename(id, "second").unwrap();
    check("first", false);
    check("second", true);

    let patch = MessagePatch { content: Some("better".into()), ..MessagePatch::default() };
    chats.update_message(id, answer.id, patch).unwrap();
    check("answer", false);
    check("better", true);
    chats.replace_message(id, answer.id, &answer.body).unwrap();
    check("better", false);
    check("answer", true);

    chats.remove_message(id, answer.id).unwrap();
    check("answer", false);
    check("question", true);

    chats.delete(id).unwrap();
    check("question", false);
    check("second", false);
    chats.restore(id).unwrap();
    check("question", true);
    check("second", true);

    chats.delete(id).unwrap();
    chats.purge_deleted(clock::now() + std::time::Duration::from_secs(1)).unwrap();
    let words: u32 = database
        .connection()
        .query_row("SELECT count(*) FROM message_words WHERE message_words MATCH 'question'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(words, 0);
    check("question", false);
}

#[test]
fn a_search_over_a_limit_is_refused_with_the_numbers() {
    let (_test, database) = database();
    let chats = database.chats();
    let error = chats.search("x", SEARCH_HITS_MAX + 1).unwrap_err();
    assert_eq!(error.to_string(), "the number of hits is 51, the limit is 50");
    let error = chats.search(&"é".repeat(SEARCH_QUERY_CHARS_MAX + 1), 1).unwrap_err();
    assert_eq!(error.to_string(), "the query's length in characters is 257, the limit is 256");
    let most = SEARCH_HITS_MAX + 5;
    for _ in 0..most {
        said(chats, "t", &["many"]);
    }
    assert_eq!(found(chats, "many").len(), SEARCH_HITS_MAX);
}

#[test]
fn a_huge_message_of_one_word_has_a_small_snippet() {
    let (_test, database) = database();
    let chats = database.chats();
    said(chats, "t", &[&format!("needle {}", "x".repeat(1_000_000))]);
    let hit = &chats.search("needle", 1).unwrap()[0];
    assert!(shown(hit).starts_with("[needle] xxx"));
    assert!(shown(hit).chars().count() < 300);
}
