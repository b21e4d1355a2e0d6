//! Tests of importing, listing, finding and removing models, on real files.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use firepot_gguf::write::Builder;

use crate::{
    Access, Digest, Home, ImportError, ModelName, Phase, Placement, Progress, StoreError, Stored,
    home::make_dir,
    limits::COPY_CHUNK_BYTES,
    testing::{TestHome, gguf},
    write_atomic,
};

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

fn manifest_of(test: &TestHome, path: &str) -> PathBuf {
    test.home.path().join("manifests").join(path)
}

#[test]
fn an_imported_model_lies_in_ollamas_layout() {
    let test = TestHome::new();
    let content = gguf(1);
    let imported = test.import(&test.file("model.gguf", &content), "smollm2:135m").unwrap();
    assert_ne!(imported.stored, Stored::Already);
    let model = imported.model;
    assert_eq!(model.digest, Digest::of(&content));
    assert_eq!(model.blob_path, test.home.path().join("blobs").join(Digest::of(&content).file_name()));
    assert_eq!(fs::read(&model.blob_path).unwrap(), content);

    let manifest = fs::read(manifest_of(&test, "registry.ollama.ai/library/smollm2/135m")).unwrap();
    assert_eq!(model.manifest_digest, Digest::of(&manifest));
    let blobs_bytes: u64 =
        test.blobs().iter().map(|blob| fs::metadata(test.home.blobs_dir().join(blob)).unwrap().len()).sum();
    assert_eq!(model.size_bytes, blobs_bytes);
}

#[test]
fn a_listed_model_is_the_imported_one() {
    let test = TestHome::new();
    let imported = test.import(&test.file("model.gguf", &gguf(1)), "smollm2:135m").unwrap();
    let home = Home::open(test.home.path(), Access::ReadOnly).unwrap();
    let listing = home.models().list().unwrap();
    assert_eq!(listing.models, std::slice::from_ref(&imported.model));
    assert!(listing.unreadable.is_empty());
    assert_eq!(home.models().find(&name("SMOLLM2:135M")).unwrap(), imported.model);
}

#[test]
fn a_home_without_models_lists_none() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path(), Access::ReadOnly).unwrap();
    assert!(home.models().list().unwrap().models.is_empty());
}

#[test]
fn progress_rises_to_the_size_of_the_file_and_ends_with_the_sync() {
    let test = TestHome::new();
    let mut content = gguf(1);
    // More than one chunk; what follows the tensors does no harm.
    content.resize(COPY_CHUNK_BYTES * 2 + 5, 0);
    let file = test.file("model.gguf", &content);
    let mut seen: Vec<Progress> = Vec::new();
    test.home.models().import_with(&file, &name("m"), Placement::Copy, &mut |p| seen.push(p)).unwrap();
    let total_bytes = content.len() as u64;
    let expected = [
        (Phase::Copying, COPY_CHUNK_BYTES as u64),
        (Phase::Copying, 2 * COPY_CHUNK_BYTES as u64),
        (Phase::Copying, total_bytes),
        (Phase::Syncing, 0),
        (Phase::Syncing, total_bytes),
    ];
    assert_eq!(seen, expected.map(|(phase, done_bytes)| Progress { phase, done_bytes, total_bytes }));
}

#[test]
fn importing_the_same_file_again_copies_nothing_and_changes_nothing() {
    let test = TestHome::new();
    let file = test.file("model.gguf", &gguf(1));
    let first = test.import(&file, "m").unwrap();
    let blobs = test.blobs();
    let mut phases = Vec::new();
    let again = test.home.models().import(&file, &name("m"), &mut |p| phases.push(p.phase)).unwrap();
    assert!(again.stored == Stored::Already);
    assert_eq!(again.model, first.model);
    assert_eq!(test.blobs(), blobs);
    assert!(phases.iter().all(|&phase| phase == Phase::Comparing));
}

#[test]
fn one_file_under_two_names_is_stored_once_and_stays_until_both_are_gone() {
    let test = TestHome::new();
    let file = test.file("model.gguf", &gguf(1));
    test.import(&file, "a").unwrap();
    let second = test.import(&file, "b").unwrap();
    assert!(second.stored == Stored::Already);
    assert_eq!(test.blobs().len(), 2);

    assert_eq!(test.home.models().remove(&name("a")).unwrap().freed_bytes, 0);
    assert_eq!(test.names(), ["b:latest"]);
    let removed = test.home.models().remove(&name("B")).unwrap();
    assert_eq!((removed.name, removed.freed_bytes), (name("b"), second.model.size_bytes));
    assert_eq!(test.blobs(), [""; 0]);
    assert_eq!(fs::read_dir(manifest_of(&test, "")).unwrap().count(), 0);
}

#[test]
fn a_file_of_the_same_size_is_not_taken_for_the_same() {
    let test = TestHome::new();
    test.import(&test.file("a.gguf", &gguf(1)), "a").unwrap();
    let other = test.import(&test.file("b.gguf", &gguf(2)), "b").unwrap();
    assert_ne!(other.stored, Stored::Already);
    assert_eq!(other.model.digest, Digest::of(&gguf(2)));
}

#[test]
fn a_name_that_exists_in_another_case_gets_the_new_file_and_keeps_its_spelling() {
    let test = TestHome::new();
    test.import(&test.file("a.gguf", &gguf(1)), "SmolLM2:135M").unwrap();
    let new = test.import(&test.file("b.gguf", &gguf(2)), "smollm2:135m").unwrap();
    assert_eq!(new.model.name.to_string(), "SmolLM2:135M");
    assert_eq!(test.names(), ["SmolLM2:135M"]);
    let old_blob = Digest::of(&gguf(1)).file_name();
    assert!(!test.blobs().contains(&old_blob), "the replaced file is gone");
}

#[test]
fn a_file_that_cannot_be_imported_is_refused_and_the_store_is_unchanged() {
    let whole = gguf(1);
    let check = |content: &[u8], expected: &str| {
        let test = TestHome::new();
        let file = test.file("f", content);
        let error = test.import(&file, "m").unwrap_err();
        let message = error.to_string().replace(&file.display().to_string(), "FILE");
        assert_eq!(message, expected);
        assert_eq!(test.blobs(), [""; 0]);
        assert_eq!(test.names(), [""; 0]);
    };
    check(b"", "FILE is empty");
    check(b"PK\x03\x04 a zip archive", "FILE is not a GGUF file");
    check(b"GG", "FILE is truncated: it has 2 bytes of at least 4");
    let size = whole.len();
    let truncated = |has| format!("FILE is truncated: it has {has} bytes of at least {size}");
    check(&whole[..size - 1], &truncated(size - 1));
    check(&whole[..size - 4096], &truncated(size - 4096));
    check(&whole[..40], "FILE is truncated: it has 40 bytes of at least 52");
    check(
        b"GGUF\x01\x00\x00\x00",
        "FILE cannot be used: GGUF version 1 is not supported; versions 2 and 3 are",
    );
    check(
        &Builder::new().build(),
        "FILE cannot be used: the file has no general.architecture; it may hold something else than a language model",
    );
    check(
        &Builder::new().text("general.architecture", "clip").build(),
        "FILE cannot be used: the file has no clip.block_count; it may hold something else than a language model",
    );
}

#[test]
fn a_path_that_is_no_file_is_named_as_what_it_is() {
    let test = TestHome::new();
    let check = |path: &Path, expected: &str| {
        let message = test.import(path, "m").unwrap_err().to_string();
        assert_eq!(message.replace(&path.display().to_string(), "PATH"), expected);
    };
    check(&test.dir.path().join("none"), "there is no file PATH");
    check(test.dir.path(), "PATH is a directory, not a GGUF file");
    check(Path::new("/dev/null"), "PATH is not a regular file");
    let dangling = test.dir.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    check(&dangling, "there is no file PATH");
}

#[test]
fn a_link_is_followed() {
    let test = TestHome::new();
    let link = test.dir.path().join("link.gguf");
    symlink(test.file("model.gguf", &gguf(1)), &link).unwrap();
    let model = test.import(&link, "m").unwrap().model;
    assert!(model.blob_path.symlink_metadata().unwrap().is_file());
}

#[test]
fn a_file_that_changes_while_it_is_copied_is_refused() {
    let check = |new_length: u64| {
        let test = TestHome::new();
        let mut content = gguf(1);
        content.resize(COPY_CHUNK_BYTES * 3, 0);
        let path = test.file("model.gguf", &content);
        let file = fs::File::options().write(true).open(&path).unwrap();
        let error = test
            .home
            .models()
            .import(&path, &name("m"), &mut |_| file.set_len(new_length).unwrap())
            .unwrap_err();
        assert!(matches!(error, ImportError::Changed { .. }), "{error}");
        assert_eq!(test.blobs(), [""; 0]);
    };
    check(COPY_CHUNK_BYTES as u64 * 2);
    check(COPY_CHUNK_BYTES as u64 * 4);
}

#[test]
fn threads_that_import_the_same_file_at_once_share_one_copy() {
    let test = TestHome::new();
    let file = test.file("model.gguf", &gguf(1));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (test, file) = (&test, &file);
            scope.spawn(move || test.import(file, &format!("m:{}", number % 4)).unwrap());
        }
    });
    assert_eq!(test.names(), ["m:0", "m:1", "m:2", "m:3"]);
    assert_eq!(test.blobs().len(), 2);
}

#[test]
fn imports_beside_removals_and_sweeps_never_lose_a_file_that_is_named() {
    let test = TestHome::new();
    let file = test.file("model.gguf", &gguf(1));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..30).for_each(|_| drop(test.import(&file, "kept").unwrap())));
        scope.spawn(|| {
            for _ in 0..30 {
                test.import(&file, "passing").unwrap();
                test.home.models().remove(&name("passing")).unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..60 {
                test.home.sweep().unwrap();
                let listing = test.home.models().list().unwrap();
                assert!(listing.models.len() <= 2);
            }
        });
    });
    assert_eq!(test.names(), ["kept:latest"]);
    assert_eq!(test.blobs().len(), 2);
}

#[test]
fn an_unknown_model_is_named_with_its_neighbours() {
    let test = TestHome::new();
    test.import(&test.file("model.gguf", &gguf(1)), "smollm2:135m").unwrap();
    for error in [
        test.home.models().find(&name("smolm2")).unwrap_err(),
        test.home.models().remove(&name("smolm2")).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "model 'smolm2:latest' not found");
        assert_eq!(error.hint().unwrap(), "did you mean smollm2:135m?");
    }
}

#[test]
fn models_are_listed_newest_first() {
    let test = TestHome::new();
    let file = test.file("model.gguf", &gguf(1));
    for (name, age) in [("old", 300), ("new", 100), ("middle", 200)] {
        test.import(&file, name).unwrap();
        let path = manifest_of(&test, &format!("registry.ollama.ai/library/{name}/latest"));
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    let listed: Vec<_> =
        test.home.models().list().unwrap().models.iter().map(|model| model.name.model().to_owned()).collect();
    assert_eq!(listed, ["new", "middle", "old"]);
}

#[test]
fn what_cannot_be_used_is_reported_beside_what_can() {
    let test = TestHome::new();
    test.import(&test.file("good.gguf", &gguf(1)), "good").unwrap();
    let put = |path: &str, content: &[u8]| {
        let path = manifest_of(&test, path);
        make_dir(path.parent().unwrap()).unwrap();
        write_atomic(&path, content).unwrap();
    };
    put("registry.ollama.ai/library/broken/latest", b"{");
    put("registry.ollama.ai/library/bad name/latest", b"{}");
    put("stray", b"");
    let import =
        |name: &str, fill: u32| test.import(&test.file("f", &gguf(fill)), name).unwrap().model.blob_path;
    fs::remove_file(import("weights:missing", 2)).unwrap();
    let short = fs::File::options().write(true).open(import("weights:short", 3)).unwrap();
    short.set_len(10).unwrap();

    let listing = test.home.models().list().unwrap();
    assert_eq!(
        listing.models.iter().map(|model| model.name.to_string()).collect::<Vec<_>>(),
        ["good:latest"]
    );
    let root = test.home.manifests_dir();
    let shown = |problem: &StoreError| {
        let StoreError::BadManifest { path, reason } = problem else { panic!("{problem}") };
        format!("MANIFESTS/{}: {reason}", path.strip_prefix(&root).unwrap().display())
    };
    let problems: Vec<_> = listing.unreadable.iter().map(shown).collect();
    insta::assert_snapshot!(problems.join("\n"), @"
    MANIFESTS/registry.ollama.ai/library/bad name/latest: its place is not that of a model's name
    MANIFESTS/registry.ollama.ai/library/broken/latest: EOF while parsing an object at line 1 column 1
    MANIFESTS/registry.ollama.ai/library/weights/missing: its model file is missing
    MANIFESTS/registry.ollama.ai/library/weights/short: its model file has another size
    MANIFESTS/stray: its place is not that of a model's name
    ");
}

#[test]
fn while_a_manifest_cannot_be_read_no_blob_is_removed() {
    let test = TestHome::new();
    let whole = gguf(1);
    test.import(&test.file("model.gguf", &whole), "a").unwrap();
    let broken = manifest_of(&test, "registry.ollama.ai/library/broken/latest");
    make_dir(broken.parent().unwrap()).unwrap();
    write_atomic(&broken, b"{").unwrap();

    assert_eq!(test.home.models().remove(&name("a")).unwrap().freed_bytes, 0);
    assert_eq!(test.sweep_all(), 0);
    assert_eq!(test.blobs().len(), 2);

    test.home.models().remove(&name("broken")).unwrap();
    assert!(test.sweep_all() > whole.len() as u64);
    assert_eq!(test.blobs(), [""; 0]);
}

#[test]
fn a_broken_file_in_the_store_is_replaced_by_importing_again() {
    let test = TestHome::new();
    let file = test.file("model.gguf", &gguf(1));
    let model = test.import_copy(&file, "m").unwrap().model;
    fs::File::options().write(true).open(&model.blob_path).unwrap().set_len(100).unwrap();
    assert!(matches!(test.home.models().find(&name("m")).unwrap_err(), StoreError::BadManifest { .. }));
    test.import(&file, "m").unwrap();
    assert_eq!(fs::read(test.home.models().find(&name("m")).unwrap().blob_path).unwrap(), gguf(1));
}
