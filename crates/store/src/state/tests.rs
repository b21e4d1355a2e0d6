//! States that are written, cut, changed, taken in and killed on the way.

use std::{fs, path::PathBuf};

use super::{
    Onto, StateError,
    archive::{self, Writer},
    export, import,
    mark::Mark,
};
use crate::{
    Access, ChatId, Database, Home, NewChat, StoreError,
    db::SCHEMA,
    testing::{NEXT_SCHEMA, TestHome, gguf, user},
    write_atomic,
};

const VERSION: &str = "0.1.0";

fn chat(home: &Home, title: &str, texts: &[&str]) -> ChatId {
    let database = home.database().unwrap();
    let new = NewChat { title: Some(title.into()), model: Some("tiny".into()), ..NewChat::default() };
    let chat = database.chats().create(&new).unwrap();
    let messages: Vec<_> = texts.iter().map(|text| user(text)).collect();
    if !messages.is_empty() {
        database.chats().append(chat.id, &messages).unwrap();
    }
    chat.id
}

fn titles(home: &Home) -> Vec<String> {
    let database = home.database().unwrap();
    let page = database.chats().list(crate::Page::default()).unwrap();
    let mut titles: Vec<_> = page.chats.into_iter().map(|chat| chat.title).collect();
    titles.sort();
    titles
}

fn said(home: &Home, chat: ChatId) -> Vec<String> {
    let chat = home.database().unwrap().chats().get(chat).unwrap();
    chat.messages.into_iter().map(|message| message.body.content).collect()
}

fn hits(home: &Home, query: &str) -> usize {
    home.database().unwrap().chats().search(query, 10).unwrap().len()
}

/// A home with two chats, a preset, a trial and a model, and its state.
fn exported() -> (TestHome, PathBuf, ChatId) {
    let test = TestHome::new();
    let first = chat(&test.home, "rivers", &["Where does the Danube rise?", "In the Black Forest."]);
    chat(&test.home, "stars", &["Name one."]);
    let database = test.home.database().unwrap();
    database.presets().put("brief", &serde_json::json!({ "temperature": 0.1 })).unwrap();
    drop(database);
    let trial = test.home.path().join("trials/t1/samples");
    crate::home::make_dir(&trial).unwrap();
    write_atomic(&trial.join("one.json"), b"[1, 2, 3]").unwrap();
    write_atomic(
        &test.home.path().join("run/loaded.json"),
        br#"{"models":[{"name":"tiny"}],"pulls":[{"model":"x"}]}"#,
    )
    .unwrap();
    test.import(&test.file("m.gguf", &gguf(1)), "tiny").unwrap();
    let path = test.dir.path().join("state.tar.gz");
    let written = export(&test.home, &path, VERSION).unwrap();
    assert_eq!(
        (written.manifest.chats, written.manifest.files.len(), written.manifest.models.len()),
        (2, 3, 1)
    );
    (test, path, first)
}

#[test]
fn a_state_is_the_same_in_an_empty_home() {
    let (old, state, first) = exported();
    let new = TestHome::new();
    let imported = import(&new.home, &state, Onto::Empty).unwrap();
    assert_eq!((imported.chats, imported.kept, imported.trials), (2, 0, 1));
    assert_eq!(imported.missing[0].name.to_string(), "tiny:latest");
    assert_eq!(titles(&new.home), ["rivers", "stars"]);
    assert_eq!(said(&new.home, first), said(&old.home, first));
    assert_eq!((hits(&new.home, "danube"), hits(&new.home, "rivers")), (1, 1));
    let trial = new.home.path().join("trials/t1/samples/one.json");
    assert_eq!(fs::read(trial).unwrap(), b"[1, 2, 3]");
    let loaded = fs::read_to_string(new.home.path().join("run/loaded.json")).unwrap();
    assert_eq!(loaded, r#"{"models":[{"name":"tiny"}]}"#, "pulls were asked for elsewhere");
    assert_eq!(new.home.database().unwrap().presets().list().unwrap().len(), 1);
    assert_eq!(Mark::of(&new.home).unwrap().lineage, Mark::of(&old.home).unwrap().lineage);
    assert!(!new.home.path().join("run/state").exists());

    // It is a home like any other: chats can be added and taken along again.
    chat(&new.home, "third", &["more"]);
    let again = new.dir.path().join("again.tar.gz");
    export(&new.home, &again, VERSION).unwrap();
    let third = TestHome::new();
    assert_eq!(import(&third.home, &again, Onto::Empty).unwrap().chats, 3);
}

#[test]
fn nothing_of_the_home_is_left_over_by_an_export() {
    let (test, ..) = exported();
    let left: Vec<_> = fs::read_dir(test.home.path().join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("firepot.sqlite3") && name != "state.json")
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_state_is_of_one_moment_while_chats_are_written() {
    let test = TestHome::new();
    let busy = chat(&test.home, "busy", &[]);
    let path = test.dir.path().join("state.tar.gz");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let database = test.home.database().unwrap();
            let mut turn = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // A question and its answer are stored together.
                database
                    .chats()
                    .append(busy, &[user(&format!("q{turn}")), user(&format!("a{turn}"))])
                    .unwrap();
                turn += 1;
            }
        });
        for _ in 0..10 {
            export(&test.home, &path, VERSION).unwrap();
            let new = TestHome::new();
            import(&new.home, &path, Onto::Empty).unwrap();
            let texts = said(&new.home, busy);
            assert_eq!(texts.len() % 2, 0);
            for (turn, pair) in texts.chunks(2).enumerate() {
                assert_eq!(pair, [format!("q{turn}"), format!("a{turn}")]);
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn what_stays_behind_is_in_no_byte_of_a_state() {
    let (test, state, _) = exported();
    let secret = "hash-of-a-key-that-nobody-must-see";
    let database = Database::open(&test.home.database_path()).unwrap();
    {
        let connection = database.connection();
        connection
            .execute_batch("CREATE TABLE keys (id INTEGER PRIMARY KEY, hash TEXT NOT NULL) STRICT")
            .unwrap();
        for id in 0..100 {
            let row = rusqlite::params![id, format!("{secret}-{id}-{}", "x".repeat(500))];
            connection.execute("INSERT INTO keys VALUES (?1, ?2)", row).unwrap();
        }
    }
    drop(database);
    export(&test.home, &state, VERSION).unwrap();
    let unpacked = test.dir.path().join("unpacked");
    archive::extract(&state, &unpacked).unwrap();
    let bytes = fs::read(unpacked.join("db/firepot.sqlite3")).unwrap();
    assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    assert!(
        fs::read(test.home.database_path()).unwrap().windows(secret.len()).any(|w| w == secret.as_bytes())
    );
}

#[test]
fn an_import_leaves_alone_what_its_home_does_not_take_along() {
    let (_old, state, _) = exported();
    let new = TestHome::new();
    chat(&new.home, "theirs", &[]);
    let keys = "CREATE TABLE keys (hash TEXT NOT NULL) STRICT; INSERT INTO keys VALUES ('mine')";
    new.home.database().unwrap().connection().execute_batch(keys).unwrap();
    import(&new.home, &state, Onto::Replace).unwrap();
    let database = new.home.database().unwrap();
    let kept: String =
        database.connection().query_row("SELECT hash FROM keys", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, "mine");
    drop(database);
    assert_eq!(titles(&new.home), ["rivers", "stars"]);
}

#[test]
fn a_home_with_chats_is_refused_merged_or_replaced_as_the_user_says() {
    let (old, state, first) = exported();
    let new = TestHome::new();
    let own = chat(&new.home, "own", &["mine"]);
    let error = import(&new.home, &state, Onto::Empty).unwrap_err();
    assert!(matches!(error, StateError::NotEmpty { rows: 1, .. }), "{error}");
    assert!(error.hint().unwrap().contains("--merge") && error.hint().unwrap().contains("--replace"));
    assert_eq!(titles(&new.home), ["own"]);

    assert_eq!(import(&new.home, &state, Onto::Merge).unwrap().chats, 2);
    assert_eq!(titles(&new.home), ["own", "rivers", "stars"]);
    let mine = Mark::of(&new.home).unwrap();
    // Again: what is there stays as it is, also where it has grown.
    new.home.database().unwrap().chats().append(first, &[user("And where does it end?")]).unwrap();
    let again = import(&new.home, &state, Onto::Merge).unwrap();
    assert_eq!((again.chats, again.kept, again.trials), (0, 2, 0));
    assert_eq!(said(&new.home, first).len(), 3);
    assert_eq!(Mark::of(&new.home).unwrap(), mine);
    assert!(mine.has(&again.manifest));
    assert_ne!(mine.lineage, Mark::of(&old.home).unwrap().lineage);

    let replaced = import(&new.home, &state, Onto::Replace).unwrap();
    assert_eq!((titles(&new.home).len(), hits(&new.home, "mine"), hits(&new.home, "danube")), (2, 0, 1));
    let backup = Database::open(&replaced.backup.unwrap()).unwrap();
    assert_eq!(backup.chats().get(own).unwrap().chat.title, "own");
}

#[test]
fn a_state_cut_anywhere_or_changed_is_refused_before_anything_changes() {
    let (_old, state, _) = exported();
    let whole = fs::read(&state).unwrap();
    let new = TestHome::new();
    let refused = |bytes: &[u8], what: &str| {
        let path = new.file("bad.tar.gz", bytes);
        let error = import(&new.home, &path, Onto::Empty).expect_err(what);
        assert!(matches!(error, StateError::Damaged { .. }), "{what}: {error}");
        assert_eq!(titles(&new.home), [""; 0], "{what}");
        assert!(!new.home.path().join("trials").exists(), "{what}");
        fs::remove_file(path).unwrap();
    };
    for cut in (0..20).map(|part| whole.len() * part / 20).chain([whole.len() - 1, whole.len() - 8]) {
        refused(&whole[..cut], &format!("cut at {cut}"));
    }
    let manifest = archive::extract(&state, &new.dir.path().join("whole")).unwrap();
    for at in (10..whole.len()).step_by(whole.len() / 100) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        // A flipped bit may point the decompressor at other bytes of the same value: then nothing is changed.
        let unpacked =
            archive::extract(&new.file("flipped", &flipped), &new.dir.path().join(format!("{at}")));
        match unpacked {
            Ok(same) => assert_eq!(same, manifest, "flipped at {at}"),
            Err(StateError::Damaged { .. }) => refused(&flipped, &format!("flipped at {at}")),
            Err(error) => panic!("flipped at {at}: {error}"),
        }
    }
    import(&new.home, &state, Onto::Empty).unwrap();
}

/// A state with these files.
fn made(test: &TestHome, files: &[(&str, &[u8])]) -> PathBuf {
    let path = test.dir.path().join("made.tar.gz");
    let mut writer = Writer::create(&path).unwrap();
    for (name, content) in files {
        writer.add(name, &test.file("content", content)).unwrap();
    }
    let (_old, state, _) = exported();
    let manifest = archive::extract(&state, &test.dir.path().join("other")).unwrap();
    let _ = fs::remove_dir_all(test.dir.path().join("other"));
    writer.finish(manifest).unwrap();
    path
}

#[test]
fn files_that_do_not_belong_to_a_state_are_refused() {
    let test = TestHome::new();
    for name in ["lock", "blobs/sha256-00", "trials/", "db/other"] {
        let path = made(&test, &[(name, b"x")]);
        let error = import(&test.home, &path, Onto::Empty).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{name}: {error}");
    }
    let none = made(&test, &[]);
    let error = import(&test.home, &none, Onto::Empty).unwrap_err();
    assert!(error.to_string().ends_with("it has no database"), "{error}");
    let no_database =
        made(&test, &[("db/firepot.sqlite3", b"a text of some length that is no database at all")]);
    assert!(matches!(import(&test.home, &no_database, Onto::Empty), Err(StateError::Damaged { .. })));
}

#[test]
fn a_state_of_a_newer_firepot_is_refused() {
    let (test, ..) = exported();
    let newer = test.dir.path().join("newer.sqlite3");
    drop(Database::open_with(&newer, &NEXT_SCHEMA).unwrap());
    let path = made(&test, &[("db/firepot.sqlite3", &fs::read(&newer).unwrap())]);
    let new = TestHome::new();
    let error = import(&new.home, &path, Onto::Empty).unwrap_err();
    let told = format!("schema version {}, this one knows up to {}", SCHEMA.len() + 1, SCHEMA.len());
    assert!(error.to_string().ends_with(&told), "{error}");
    assert_eq!(titles(&new.home), [""; 0]);
}

#[test]
fn a_state_of_an_older_schema_is_migrated_on_the_way() {
    let test = TestHome::new();
    let older = test.dir.path().join("older.sqlite3");
    let old = rusqlite::Connection::open(&older).unwrap();
    old.execute_batch(SCHEMA[0]).unwrap();
    old.execute_batch(
        "INSERT INTO chats VALUES ('0198c0de-0000-7000-8000-000000000001', 'old', NULL, 1, 1); PRAGMA user_version = 1",
    )
    .unwrap();
    drop(old);
    let path = made(&test, &[("db/firepot.sqlite3", &fs::read(&older).unwrap())]);
    let new = TestHome::new();
    assert_eq!(import(&new.home, &path, Onto::Empty).unwrap().chats, 1);
    assert_eq!(titles(&new.home), ["old"]);
}

#[test]
fn a_home_with_a_server_is_not_touched() {
    let (_old, state, _) = exported();
    let new = TestHome::new();
    let _server = new.home.lock_server().unwrap();
    let error = import(&new.home, &state, Onto::Empty).unwrap_err();
    assert!(matches!(error, StateError::Store(StoreError::ServerRunning { .. })), "{error}");
    assert!(error.hint().unwrap().contains("firepot down"));
}

#[test]
fn a_home_opened_for_reading_takes_nothing_in() {
    let (_old, state, _) = exported();
    let new = TestHome::new();
    let read_only = Home::open(new.home.path(), Access::ReadOnly).unwrap();
    assert!(import(&read_only, &state, Onto::Empty).is_err());
}
