//! A state in a folder: what is mirrored, what is taken from there, and what is not overwritten.

use std::{fs, path::Path};

use super::{Begun, Mirror, Onto, StateError, import, mark::Mark, mirror::file};
use crate::{
    ChatId, Home, NewChat, Page,
    testing::{TestHome, user},
    write_atomic,
};

fn begin(home: &Home, dir: &Path) -> Result<(Mirror, Begun), StateError> {
    Mirror::begin(home, dir, "0.1.0")
}

fn add(home: &Home, title: &str) -> ChatId {
    let database = home.database().unwrap();
    let chat = database.chats().create(&NewChat { title: Some(title.into()), ..NewChat::default() }).unwrap();
    database.chats().append(chat.id, &[user("hi")]).unwrap();
    chat.id
}

fn chats(home: &Home) -> usize {
    home.database().unwrap().chats().list(Page::default()).unwrap().chats.len()
}

#[test]
fn a_folder_has_the_last_two_states_and_an_empty_home_takes_the_newest() {
    let (test, dir) = (TestHome::new(), tempfile::tempdir().unwrap());
    let (mut mirror, begun) = begin(&test.home, dir.path()).unwrap();
    assert_eq!(begun, Begun::New);
    for generation in 1..=3 {
        add(&test.home, "chat");
        assert_eq!(mirror.step(true).unwrap().unwrap().generation, generation);
        assert_eq!(mirror.step(true).unwrap(), None, "nothing has changed");
    }
    drop(mirror);
    let new = TestHome::new();
    let (mut mirror, begun) = begin(&new.home, dir.path()).unwrap();
    let Begun::TookIn(imported) = begun else { panic!("{begun:?}") };
    assert_eq!((imported.chats, imported.manifest.generation, chats(&new.home)), (3, 3, 3));
    add(&new.home, "more");
    assert_eq!(mirror.step(true).unwrap().unwrap().generation, 4);
    drop(mirror);

    // The first home is behind now, and does not overwrite what it does not have.
    let error = begin(&test.home, dir.path()).map(drop).unwrap_err();
    assert!(error.to_string().contains("holds a newer state of this home, of 2"), "{error}");
    assert!(error.hint().unwrap().contains("--merge"));
    assert!(!dir.path().join("lease.json").exists());
}

#[test]
fn a_home_goes_on_with_its_own_folder_also_after_a_kill_while_it_mirrored() {
    let (test, dir) = (TestHome::new(), tempfile::tempdir().unwrap());
    add(&test.home, "one");
    let (mut mirror, _) = begin(&test.home, dir.path()).unwrap();
    mirror.step(true).unwrap().unwrap();
    add(&test.home, "two");
    mirror.step(true).unwrap().unwrap();
    drop(mirror);
    // Killed after the mark was written, in the middle of the file.
    let mark = Mark::of(&test.home).unwrap();
    mark.clone().next().write(&test.home).unwrap();
    write_atomic(&dir.path().join(".tmp-half"), b"half").unwrap();
    let newest = file(dir.path(), mark.generation);
    let half = fs::read(&newest).unwrap();
    write_atomic(&newest, &half[..half.len() / 2]).unwrap();

    let (mut mirror, begun) = begin(&test.home, dir.path()).unwrap();
    assert_eq!(begun, Begun::GoesOn);
    assert!(!dir.path().join(".tmp-half").exists());
    assert_eq!(mirror.step(true).unwrap().unwrap().generation, mark.generation + 2);
    drop(mirror);
    let new = TestHome::new();
    begin(&new.home, dir.path()).unwrap();
    assert_eq!(chats(&new.home), 2);
}

#[test]
fn one_broken_state_of_two_costs_a_step_and_not_the_chats() {
    let (test, dir) = (TestHome::new(), tempfile::tempdir().unwrap());
    let (mut mirror, _) = begin(&test.home, dir.path()).unwrap();
    for title in ["one", "two"] {
        add(&test.home, title);
        mirror.step(true).unwrap();
    }
    drop(mirror);
    let newest = file(dir.path(), 2);
    let whole = fs::read(&newest).unwrap();
    write_atomic(&newest, &whole[..whole.len() - 9]).unwrap();
    let new = TestHome::new();
    begin(&new.home, dir.path()).unwrap();
    assert_eq!(chats(&new.home), 1);
}

#[test]
fn the_state_of_another_home_is_not_overwritten() {
    let (one, two, dir) = (TestHome::new(), TestHome::new(), tempfile::tempdir().unwrap());
    add(&one.home, "one");
    let (mut mirror, _) = begin(&one.home, dir.path()).unwrap();
    mirror.step(true).unwrap();
    let before = fs::read(file(dir.path(), 1)).unwrap();
    drop(mirror);
    add(&two.home, "two");
    let error = begin(&two.home, dir.path()).map(drop).unwrap_err();
    assert!(error.to_string().ends_with("holds the state of another home, with 1 chats"), "{error}");
    assert_eq!(fs::read(file(dir.path(), 1)).unwrap(), before);

    // Once its chats are here too, the folder is for both.
    import(&two.home, &file(dir.path(), 1), Onto::Merge).unwrap();
    let (mut mirror, begun) = begin(&two.home, dir.path()).unwrap();
    assert_eq!(begun, Begun::GoesOn);
    mirror.step(true).unwrap();
    drop(mirror);
    let new = TestHome::new();
    begin(&new.home, dir.path()).unwrap();
    assert_eq!(chats(&new.home), 2);
}

#[test]
fn a_large_or_slow_state_is_mirrored_less_often() {
    let (test, dir) = (TestHome::new(), tempfile::tempdir().unwrap());
    add(&test.home, "one");
    let (mut mirror, _) = begin(&test.home, dir.path()).unwrap();
    assert!(mirror.step(false).unwrap().is_some());
    add(&test.home, "two");
    assert_eq!(mirror.step(false).unwrap(), None, "it rests");
    assert!(mirror.step(true).unwrap().is_some(), "but not at the end");
}

#[test]
fn trials_and_what_is_loaded_are_mirrored_when_they_change() {
    let (test, dir) = (TestHome::new(), tempfile::tempdir().unwrap());
    let (mut mirror, _) = begin(&test.home, dir.path()).unwrap();
    mirror.step(true).unwrap();
    write_atomic(&test.home.path().join("run/loaded.json"), b"{}").unwrap();
    assert!(mirror.step(true).unwrap().is_some());
    crate::home::make_dir(&test.home.path().join("trials/t")).unwrap();
    assert_eq!(mirror.step(true).unwrap(), None);
    write_atomic(&test.home.path().join("trials/t/samples"), b"1").unwrap();
    assert!(mirror.step(true).unwrap().is_some());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let test = TestHome::new();
    let file = test.file("file", b"");
    let error = begin(&test.home, &file.join("below")).map(drop).unwrap_err();
    assert!(error.to_string().contains("is not a directory"), "{error}");
}
