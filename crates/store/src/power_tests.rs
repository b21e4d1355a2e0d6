//! Copies of a database, taken while chats are written, as a killed machine or a power cut would leave it: each opens and is
//! whole.
//!
//! A plain copy of two files is of two moments, so it is fair only in this order: the database, then its log, which has every
//! page that a checkpoint may just be writing; and only if the log did not begin anew in between, which its first bytes say.
//! What a power cut takes is the end of the log, of which nobody waited for the disk: cut, or full of zeros.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::{
    ChatId, Database, NewChat,
    testing::{TestHome, user},
    write_atomic,
};

/// Length of the header of SQLite's log, with the salts that change when it begins anew.
const LOG_HEADER_BYTES: usize = 32;

/// As many turns as one chat may have, and some room.
const TURNS_MAX: usize = 4_900;

/// Numbers without a pattern, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

fn log_of(database: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", database.display()))
}

fn chat(database: &Database) -> ChatId {
    database.chats().create(&NewChat::default()).unwrap().id
}

/// A question and its answer, stored together.
fn turn(database: &Database, chat: ChatId, number: usize) {
    let filler = "word ".repeat(number % 700);
    let pair = [user(&format!("q{number}")), user(&format!("a{number} {filler}"))];
    database.chats().append(chat, &pair).unwrap();
}

/// Copies database and log, as of one moment.
fn copy(from: &Path, to: &Path) {
    let log = |path: &Path| fs::read(log_of(path)).unwrap_or_default();
    let header = |log: &[u8]| log[..log.len().min(LOG_HEADER_BYTES)].to_vec();
    loop {
        let before = header(&log(from));
        let database = fs::read(from).unwrap();
        let frames = log(from);
        if header(&frames) == before {
            write_atomic(to, &database).unwrap();
            write_atomic(&log_of(to), &frames).unwrap();
            return;
        }
    }
}

/// Opens a copy and says how many turns it has: they are the first ones, each whole.
fn turns(path: &Path, chat: ChatId) -> usize {
    let database = Database::open(path).unwrap();
    let check =
        |pragma: &str| database.connection().query_row(pragma, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(check("PRAGMA integrity_check(1)"), "ok");
    let Ok(stored) = database.chats().get(chat) else { return 0 };
    let texts: Vec<_> = stored.messages.iter().map(|message| message.body.content.as_str()).collect();
    for (number, pair) in texts.chunks(2).enumerate() {
        assert_eq!(pair[0], format!("q{number}"));
        assert!(pair[1].starts_with(&format!("a{number} ")), "{}", pair[1]);
    }
    let found = database.chats().search("a0", 5).unwrap().len();
    assert_eq!(found, usize::from(!texts.is_empty()), "the search index is of the same moment");
    texts.len() / 2
}

#[test]
fn a_copy_taken_at_any_moment_has_every_turn_that_was_stored_before_it() {
    let test = TestHome::new();
    let path = test.home.database_path();
    let database = test.home.database().unwrap();
    let chat = chat(&database);
    let (stored, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && stored.load(Ordering::SeqCst) < TURNS_MAX {
                turn(&database, chat, stored.load(Ordering::SeqCst));
                stored.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(1));
            }
        });
        for number in 0..40 {
            thread::sleep(Duration::from_micros(dice.below(15_000)));
            let before = stored.load(Ordering::SeqCst);
            let to = test.dir.path().join(format!("copy{number}"));
            copy(&path, &to);
            let found = turns(&to, chat);
            let after = stored.load(Ordering::SeqCst);
            assert!((before..=after + 1).contains(&found), "{before} ≤ {found} ≤ {after}");
            fs::remove_file(to).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(stored.load(Ordering::SeqCst) > 40);
}

#[test]
fn a_log_whose_end_was_lost_leaves_the_turns_before_it() {
    let test = TestHome::new();
    let path = test.home.database_path();
    let database = test.home.database().unwrap();
    let chat = chat(&database);
    // As many as stay below SQLite's first checkpoint: what one has written into the database has been synced in the log before.
    (0..40).for_each(|number| turn(&database, chat, number));
    let (base, log) = (fs::read(&path).unwrap(), fs::read(log_of(&path)).unwrap());
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut seen = Vec::new();
    for number in 0..60 {
        let to = test.dir.path().join(format!("cut{number}"));
        let at = dice.below(log.len() as u64) as usize;
        let mut left = log[..at].to_vec();
        if number % 2 == 0 {
            // The file has its length already, and not yet its content.
            left.resize(log.len(), 0);
        }
        write_atomic(&to, &base).unwrap();
        write_atomic(&log_of(&to), &left).unwrap();
        seen.push(turns(&to, chat));
    }
    assert!(seen.iter().any(|&turns| turns > 0) && seen.iter().all(|&turns| turns <= 40), "{seen:?}");
}
