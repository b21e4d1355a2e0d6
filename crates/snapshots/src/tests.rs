//! Whatever happens to the files, what is loaded is what was put, or nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use firepot_chat::TokenId;
use firepot_engine::{
    DecoderInfo, KvType, LoadSpec, Prefix, PrefixCut,
    fake::{FakeConfig, FakeDecoder},
};
use proptest::prelude::*;

use crate::{Counts, Found, Key, PutError, Refusal, Shelf, ShelfConfig, limits::KEEP_MIN_TOKENS, usage};

static HURRY: AtomicBool = AtomicBool::new(true);
const AGES: Duration = Duration::from_secs(1000);

fn spec() -> LoadSpec {
    LoadSpec { flash_attention: false, ..LoadSpec::small("fake:".into()) }
}

fn info() -> DecoderInfo {
    use firepot_engine::Decoder as _;
    FakeDecoder::new(FakeConfig::default()).info().clone()
}

fn key() -> Key {
    Key::new("sha256:one", &spec(), &info())
}

fn config(dir: &Path, bytes_max: u64) -> ShelfConfig {
    ShelfConfig { dir: dir.to_owned(), bytes_max, state_bytes_max: 1 << 20, cut: PrefixCut::Anywhere }
}

fn shelf(dir: &Path) -> Shelf {
    Shelf::open(key(), config(dir, 1 << 20))
}

/// A conversation by its number and length.
fn prefix(number: i32, tokens: usize) -> Prefix {
    let tokens: Vec<TokenId> = (0..tokens as i32).map(|at| number * 10_000 + at).collect();
    let state = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    Prefix { tokens, state, pos_min: 0 }
}

/// A prompt that goes on after it.
fn prompt(prefix: &Prefix) -> Vec<TokenId> {
    [prefix.tokens.as_slice(), &[-1, -2]].concat()
}

fn put(shelf: &Shelf, prefix: &Prefix) {
    shelf.put(prefix, &HURRY).unwrap();
}

/// What a shelf gives for a prompt that goes on after `prefix`.
fn get(shelf: &Shelf, prefix: &Prefix) -> Option<Result<Prefix, Refusal>> {
    shelf.find(&prompt(prefix)).map(|found| shelf.load(&found))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir).map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    files.sort();
    files
}

fn overwrite(path: &Path, bytes: &[u8]) {
    firepot_store::write_atomic(path, bytes).unwrap();
}

#[test]
fn what_was_put_is_found_by_another_process_and_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (below, conversation) = (dir.path().join("snapshots"), prefix(1, 200));
    put(&shelf(&below), &conversation);
    let later = shelf(&below);
    assert_eq!(get(&later, &conversation).unwrap().unwrap(), conversation);
    assert_eq!(later.counts(), Counts { read: 1, ..Counts::default() });
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&below), mode(&files(&below)[0])), (0o700, 0o600));
    // Only what both begin with, and never a prompt's last token.
    let mut branch = prompt(&conversation);
    branch[150] = 7;
    assert_eq!(later.find(&branch).unwrap().tokens, 150);
    assert_eq!(later.find(&conversation.tokens).unwrap().tokens, 199);
    assert_eq!(later.find(&prefix(2, 50).tokens), None);
}

#[test]
fn each_flipped_byte_is_refused_and_the_file_removed() {
    let dir = tempfile::tempdir().unwrap();
    let conversation = prefix(1, 130);
    put(&shelf(dir.path()), &conversation);
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        overwrite(&path, &bytes);
        let shelf = shelf(dir.path());
        assert!(get(&shelf, &conversation).is_none_or(|got| got.is_err()), "byte {at}");
        assert_eq!((shelf.counts().refused, files(dir.path()).len()), (1, 0), "byte {at}");
    }
}

#[test]
fn a_file_of_another_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let conversation = prefix(1, 130);
    put(&shelf(dir.path()), &conversation);
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7) {
        overwrite(&path, &whole[..length]);
        assert!(get(&shelf(dir.path()), &conversation).is_none(), "{length} bytes");
    }
    overwrite(&path, &[whole.as_slice(), b"x"].concat());
    assert!(get(&shelf(dir.path()), &conversation).is_none());
}

#[test]
fn a_file_that_is_damaged_after_it_was_found_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, conversation) = (shelf(dir.path()), prefix(1, 130));
    put(&shelf, &conversation);
    let found = shelf.find(&prompt(&conversation)).unwrap();
    let path = files(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 0x40;
    overwrite(&path, &bytes);
    assert!(matches!(shelf.load(&found), Err(Refusal::Damaged { part: "state" })));
    assert!(matches!(shelf.load(&found), Err(Refusal::Gone)));
    assert_eq!((shelf.counts().refused, shelf.find(&prompt(&conversation))), (1, None));
}

#[test]
fn another_model_build_or_kind_of_cache_finds_nothing_and_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let conversation = prefix(1, 130);
    put(&shelf(dir.path()), &conversation);
    let others = [
        Key::new("sha256:two", &spec(), &info()),
        Key::new("sha256:one", &LoadSpec { kv_type_k: KvType::Q8_0, ..spec() }, &info()),
        Key::new("sha256:one", &LoadSpec { kv_type_v: KvType::Q8_0, ..spec() }, &info()),
        Key::new("sha256:one", &LoadSpec { flash_attention: true, ..spec() }, &info()),
        Key::new("sha256:one", &spec(), &DecoderInfo { build: "newer".into(), ..info() }),
    ];
    for other in others {
        let shelf = Shelf::open(other, config(dir.path(), 1 << 20));
        assert!(shelf.find(&prompt(&conversation)).is_none());
        assert_eq!(shelf.counts(), Counts::default());
    }
    let threads = Key::new("sha256:one", &LoadSpec { threads: 7, kv_cells: 99, ..spec() }, &info());
    assert!(get(&Shelf::open(threads, config(dir.path(), 1 << 20)), &conversation).unwrap().is_ok());
}

#[test]
fn a_file_under_the_name_of_another_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = Shelf::open(Key::new("sha256:two", &spec(), &info()), config(dir.path(), 1 << 20));
    let conversation = prefix(1, 130);
    put(&other, &conversation);
    let path = files(dir.path()).remove(0);
    fs::rename(&path, dir.path().join(key().file_name(&conversation.tokens))).unwrap();
    let shelf = shelf(dir.path());
    assert!(shelf.find(&prompt(&conversation)).is_none());
    assert_eq!(shelf.counts().refused, 1);
}

#[test]
fn a_longer_one_replaces_its_own_beginning_and_a_branch_stays() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(dir.path());
    let (short, long) = (prefix(1, 200), prefix(1, 400));
    let mut branch = prefix(1, 300);
    branch.tokens[250] = 7;
    for prefix in [&short, &branch, &long] {
        put(&shelf, prefix);
    }
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(get(&shelf, &long).unwrap().unwrap(), long);
    assert_eq!(get(&shelf, &short).unwrap().unwrap(), branch, "the smaller of two that have it");
    assert_eq!(shelf.find(&prompt(&branch)).unwrap().tokens, 300);
}

#[test]
fn where_a_sequence_cannot_be_cut_only_a_whole_one_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let config = ShelfConfig { cut: PrefixCut::Nowhere, ..config(dir.path(), 1 << 20) };
    let shelf = Shelf::open(key(), config);
    put(&shelf, &prefix(1, 200));
    put(&shelf, &prefix(1, 300));
    assert_eq!(shelf.find(&prefix(1, 250).tokens).unwrap().tokens, 200);
    assert_eq!(shelf.find(&prefix(1, 150).tokens), None);
    let window = ShelfConfig { cut: PrefixCut::Window { tokens: 50 }, ..self::config(dir.path(), 1 << 20) };
    let shelf = Shelf::open(Key::new("sha256:window", &spec(), &info()), window);
    put(&shelf, &Prefix { pos_min: 240, ..prefix(1, 300) });
    assert_eq!(shelf.find(&prefix(1, 280).tokens), None, "its window would begin at 229");
    assert_eq!(shelf.find(&prompt(&prefix(1, 300))).unwrap().tokens, 300);
}

#[test]
fn short_ones_known_ones_and_quickly_computed_ones_are_not_worth_it() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, conversation) = (shelf(dir.path()), prefix(1, 200));
    let is_worth =
        |prefix: &Prefix, prefill| shelf.is_worth(&prefix.tokens, prefix.state.len() as u64, prefill);
    assert!(is_worth(&conversation, AGES));
    assert!(!is_worth(&prefix(1, KEEP_MIN_TOKENS - 1), AGES));
    assert!(!is_worth(&conversation, Duration::from_nanos(10)), "reading takes longer");
    assert!(!shelf.is_worth(&conversation.tokens, 2 << 20, AGES), "nobody would have room for it");
    put(&shelf, &conversation);
    assert!(!is_worth(&conversation, AGES));
    assert!(!is_worth(&prefix(1, 230), AGES), "a short turn more");
    assert!(is_worth(&prefix(1, 300), AGES));
    assert!(is_worth(&prefix(2, 200), AGES));
}

/// Makes a conversation's file as old as that.
fn age(shelf: &Shelf, dir: &Path, prefix: &Prefix, seconds: u64) {
    let Found { name, .. } = shelf.find(&prompt(prefix)).unwrap();
    let file = fs::File::options().write(true).open(dir.join(name)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[test]
fn what_was_not_used_for_longest_goes_first_whoever_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let one = prefix(4, 200);
    put(&shelf(dir.path()), &one);
    let bytes = usage(dir.path()).unwrap().bytes;
    // Room for three, of two models.
    let bytes_max = bytes * 7 / 2;
    let ours = Shelf::open(key(), config(dir.path(), bytes_max));
    let theirs = Shelf::open(Key::new("sha256:two", &spec(), &info()), config(dir.path(), bytes_max));
    put(&theirs, &prefix(1, 200));
    put(&ours, &prefix(2, 200));
    age(&ours, dir.path(), &one, 300);
    age(&theirs, dir.path(), &prefix(1, 200), 200);
    age(&ours, dir.path(), &prefix(2, 200), 100);
    // It is used, and so no longer the oldest.
    assert!(get(&ours, &one).unwrap().is_ok());
    put(&ours, &prefix(3, 200));
    assert!(theirs.find(&prompt(&prefix(1, 200))).is_none());
    assert!([4, 2, 3].iter().all(|&number| ours.find(&prompt(&prefix(number, 200))).is_some()));
    assert!(usage(dir.path()).unwrap().bytes <= bytes_max);
}

#[test]
fn what_is_larger_than_everything_may_be_drives_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(key(), config(dir.path(), 4000));
    put(&shelf, &prefix(1, 200));
    let error = shelf.put(&prefix(2, 2000), &HURRY).unwrap_err();
    assert!(matches!(error, PutError::TooLarge { bytes_max: 4000, .. }), "{error}");
    assert_eq!((shelf.counts().failed, files(dir.path()).len()), (1, 1));
}

#[test]
fn a_directory_that_cannot_be_made_fails_a_write_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let occupied = dir.path().join("file");
    overwrite(&occupied, b"");
    let shelf = shelf(&occupied);
    assert_eq!(shelf.find(&prefix(1, 200).tokens), None);
    assert!(shelf.put(&prefix(1, 200), &HURRY).is_err());
    assert_eq!(shelf.counts(), Counts { failed: 1, ..Counts::default() });
}

#[test]
fn what_another_process_wrote_or_removed_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (shelf(dir.path()), shelf(dir.path()));
    put(&one, &prefix(1, 200));
    assert!(get(&other, &prefix(1, 200)).unwrap().is_ok());
    crate::clear(dir.path()).unwrap();
    assert!(one.find(&prompt(&prefix(1, 200))).is_none());
    assert_eq!(one.counts().refused + other.counts().refused, 0);
}

#[derive(Clone, Debug)]
enum Action {
    Put { number: i32, tokens: usize },
    Get { number: i32, tokens: usize },
    Flip { file: usize, at: usize, bit: u8 },
    Cut { file: usize, at: usize },
    Remove { file: usize },
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1_i32..4, 1_usize..300).prop_map(|(number, tokens)| Action::Put { number, tokens }),
        4 => (1_i32..4, 1_usize..300).prop_map(|(number, tokens)| Action::Get { number, tokens }),
        2 => (0_usize..4, any::<usize>(), 0_u8..8).prop_map(|(file, at, bit)| Action::Flip { file, at, bit }),
        1 => (0_usize..4, any::<usize>()).prop_map(|(file, at)| Action::Cut { file, at }),
        1 => (0_usize..4).prop_map(|file| Action::Remove { file }),
        1 => Just(Action::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_put_flipped_cut_and_evicted_what_is_loaded_is_what_was_put(
        actions in proptest::collection::vec(action(), 1..40),
        bytes_max in 1500_u64..8000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let open = || Shelf::open(key(), config(dir.path(), bytes_max));
        let mut shelf = open();
        for action in actions {
            let nth = |file: usize| files(dir.path()).get(file).cloned();
            match action {
                Action::Put { number, tokens } => drop(shelf.put(&prefix(number, tokens), &HURRY)),
                Action::Get { number, tokens } => {
                    let asked = prefix(number, tokens);
                    if let Some(found) = shelf.find(&prompt(&asked))
                        && let Ok(got) = shelf.load(&found)
                    {
                        prop_assert_eq!(&got, &prefix(number, got.tokens.len()));
                        prop_assert_eq!(found.tokens, got.tokens.len().min(tokens));
                    }
                }
                Action::Flip { file, at, bit } => if let Some(path) = nth(file) {
                    let mut bytes = fs::read(&path).unwrap();
                    let at = at % bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << bit;
                    }
                    overwrite(&path, &bytes);
                },
                Action::Cut { file, at } => if let Some(path) = nth(file) {
                    let bytes = fs::read(&path).unwrap();
                    overwrite(&path, &bytes[..at % bytes.len().max(1)]);
                },
                Action::Remove { file } => if let Some(path) = nth(file) {
                    fs::remove_file(path).unwrap();
                },
                Action::Reopen => shelf = open(),
            }
            prop_assert!(usage(dir.path()).unwrap().bytes <= bytes_max);
        }
    }
}
