//! Tests of models that lie in place of other programs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use firepot_gguf::write::Builder;

use crate::{
    Access, CreateSpec, Defaults, Digest, From, Home, ModelName, Origin, Sources, StoreError,
    home::make_dir,
    testing::{TestHome, gguf, other_gguf, registry_model},
    write_atomic,
};

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

/// A home that looks into an Ollama store and a hub cache, which lie beside it.
fn test() -> TestHome {
    let mut test = TestHome::new();
    let (ollama, hugging_face) = (vec![test.dir.path().join("none"), ollama(&test)], vec![hub(&test)]);
    test.home = test.home.with_sources(Sources { ollama, hugging_face });
    test
}

fn ollama(test: &TestHome) -> PathBuf {
    test.dir.path().join("ollama")
}

fn hub(test: &TestHome) -> PathBuf {
    test.dir.path().join("hub")
}

fn put(path: &Path, content: &[u8]) {
    make_dir(path.parent().unwrap()).unwrap();
    write_atomic(path, content).unwrap();
}

fn put_ollama(test: &TestHome, place: &str, weights: &[u8]) {
    let (manifest, blobs) = registry_model(weights, "be brief");
    for blob in blobs {
        put(&ollama(test).join("blobs").join(Digest::of(&blob).file_name()), &blob);
    }
    put(&ollama(test).join("manifests").join(place), &manifest);
}

fn put_hub(test: &TestHome, repository: &str, revision: &str, file: &str, content: &[u8]) -> PathBuf {
    let root = hub(test).join(repository);
    let blob = root.join("blobs").join(Digest::of(content).hex());
    put(&blob, content);
    let path = root.join("snapshots").join(revision).join(file);
    make_dir(path.parent().unwrap()).unwrap();
    symlink(blob, &path).unwrap();
    path
}

/// Every file below `dir` with its content.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(contents(&entry.path()));
        } else {
            found.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn models_of_an_ollama_store_are_used_where_they_lie() {
    let test = test();
    put_ollama(&test, "registry.ollama.ai/library/Theirs/1b", &gguf(1));
    let before = contents(&ollama(&test));
    let model = test.home.models().find(&name("theirs:1B")).unwrap();
    assert_eq!(model.origin, Origin::Ollama);
    assert_eq!(model.name, name("Theirs:1b"));
    assert!(model.blob_path.starts_with(ollama(&test)));
    assert_eq!(model.defaults.system.as_deref(), Some("be brief"));
    assert_eq!(test.home.models().list().unwrap().models, [model]);
    assert_eq!(test.blobs(), [""; 0]);
    assert_eq!(contents(&ollama(&test)), before);
}

#[test]
fn ours_wins_over_theirs_in_whatever_case() {
    let test = test();
    put_ollama(&test, "registry.ollama.ai/library/same/latest", &gguf(1));
    test.import(&test.file("f", &gguf(2)), "SAME").unwrap();
    assert_eq!(test.names(), ["SAME:latest"]);
    assert_eq!(test.home.models().find(&name("same")).unwrap().origin, Origin::Store);
}

#[test]
fn what_lies_elsewhere_is_not_removed() {
    let test = test();
    put_ollama(&test, "registry.ollama.ai/library/theirs/1b", &gguf(1));
    let error = test.home.models().remove(&name("theirs:1b")).unwrap_err();
    assert!(matches!(&error, StoreError::InPlace { origin: Origin::Ollama, .. }));
    assert_eq!(error.to_string(), "'theirs:1b' lies in Ollama's store, which Firepot only reads");
    assert_eq!(error.hint().as_deref(), Some("`ollama rm theirs:1b` removes it there"));
    let unknown = test.home.models().remove(&name("theirs:2b")).unwrap_err();
    assert_eq!(unknown.hint().as_deref(), Some("did you mean theirs:1b?"));
}

#[test]
fn what_is_made_of_a_model_elsewhere_lies_in_our_store() {
    let test = test();
    put_ollama(&test, "registry.ollama.ai/library/theirs/1b", &gguf(1));
    put_hub(&test, "models--me--m-GGUF", "abc", "m-Q4_K_M.gguf", &gguf(2));
    let before = (contents(&ollama(&test)), contents(&hub(&test)));
    let copy = test.home.models().copy(&name("theirs:1b"), &name("mine")).unwrap();
    let spec = CreateSpec {
        from: From::Model(name("hf.co/me/m-gguf:q4_k_m")),
        defaults: Defaults { system: Some("s".into()), ..Defaults::default() },
    };
    let made = test.home.models().create(&name("made"), &spec).unwrap();
    for model in [&copy, &made] {
        assert!(model.blob_path.starts_with(test.home.path()), "{}", model.blob_path.display());
        assert_eq!(model.origin, Origin::Store);
    }
    assert_eq!((contents(&ollama(&test)), contents(&hub(&test))), before);
    fs::remove_dir_all(ollama(&test)).unwrap();
    fs::remove_dir_all(hub(&test)).unwrap();
    assert_eq!(fs::read(&copy.blob_path).unwrap(), gguf(1));
    assert_eq!(copy.defaults.system.as_deref(), Some("be brief"));
    assert_eq!(fs::read(&made.blob_path).unwrap(), gguf(2));
    assert!(test.home.pending_pulls().unwrap().is_empty());
}

#[test]
fn an_empty_text_of_a_model_elsewhere_is_taken_along() {
    let test = test();
    let (manifest, blobs) = registry_model(&gguf(1), "");
    for blob in blobs {
        put(&ollama(&test).join("blobs").join(Digest::of(&blob).file_name()), &blob);
    }
    put(&ollama(&test).join("manifests/registry.ollama.ai/library/theirs/1b"), &manifest);
    let copy = test.home.models().copy(&name("theirs:1b"), &name("mine")).unwrap();
    assert_eq!(copy.defaults.system.as_deref(), Some(""));
}

#[test]
fn a_file_elsewhere_that_is_not_what_its_name_says_is_not_taken() {
    let test = test();
    put_ollama(&test, "registry.ollama.ai/library/theirs/1b", &gguf(1));
    let blob = ollama(&test).join("blobs").join(Digest::of(&gguf(1)).file_name());
    write_atomic(&blob, &gguf(2)).unwrap();
    let error = test.home.models().copy(&name("theirs:1b"), &name("mine")).unwrap_err();
    assert!(error.to_string().contains("the content has the digest"), "{error}");
    assert!(test.home.models().find(&name("mine")).is_err());
}

#[test]
fn a_hub_cache_has_a_model_for_each_quantization_of_its_main_revision() {
    let test = test();
    let repository = "models--me--m-GGUF";
    put_hub(&test, repository, "0ld", "m-F16.gguf", &other_gguf());
    put_hub(&test, repository, "abc", "m-Q4_K_M.gguf", &gguf(1));
    let part = |number: u32| {
        let file = if number == 0 { Builder::llama() } else { Builder::new() };
        file.u32("split.count", 2).u32("split.no", number).build()
    };
    put_hub(&test, repository, "abc", "Q8_0/m-Q8_0-00002-of-00002.gguf", &part(1));
    put_hub(&test, repository, "abc", "Q8_0/m-Q8_0-00001-of-00002.gguf", &part(0));
    put_hub(&test, repository, "abc", "BF16/m-BF16-00001-of-00002.gguf", &part(0));
    let projector = put_hub(&test, repository, "abc", "mmproj-m-F16.gguf", b"projector");
    put_hub(&test, "models--me--no-model", "abc", "config.gguf", b"no model");
    put(&hub(&test).join(repository).join("refs/main"), b"abc\n");

    assert_eq!(test.names(), ["hf.co/me/m-GGUF:Q4_K_M", "hf.co/me/m-GGUF:Q8_0"]);
    let find = |text: &str| test.home.models().find(&name(text));
    let single = find("huggingface.co/ME/m-gguf").unwrap();
    assert_eq!(single.name, name("hf.co/me/m-GGUF:Q4_K_M"));
    assert_eq!((single.digest, single.origin), (Digest::of(&gguf(1)), Origin::HuggingFaceCache));
    assert_eq!(single.projector, Some(projector));
    let split = find("hf.co/me/m-GGUF:q8_0").unwrap();
    assert!(split.blob_path.ends_with("Q8_0/m-Q8_0-00001-of-00002.gguf"));
    assert_eq!(split.shards.len(), 1);
    assert!(find("hf.co/me/m-GGUF:F16").is_err());
    assert!(find("me/m-GGUF:Q4_K_M").is_err(), "another host is another model");
}

#[test]
fn a_cache_without_a_main_revision_has_its_youngest_and_a_ref_cannot_lead_out() {
    let test = test();
    let outside = test.dir.path().join("outside");
    put(&outside.join("m-Q2_K.gguf"), &gguf(1));
    put_hub(&test, "models--me--m", "abc", "m-Q4_0.gguf", &gguf(1));
    put(&hub(&test).join("models--me--m/refs/main"), b"../../../outside");
    assert_eq!(test.names(), ["hf.co/me/m:Q4_0"]);
}

#[test]
fn two_hundred_models_elsewhere_are_listed_without_reading_a_header_again() {
    let test = test();
    put_ollama(&test, "registry.ollama.ai/library/m/0", &gguf(1));
    for tag in 1..200 {
        let (manifest, _) = registry_model(&gguf(1), "be brief");
        put(&ollama(&test).join(format!("manifests/registry.ollama.ai/library/m/{tag}")), &manifest);
    }
    assert_eq!(test.home.models().list().unwrap().models.len(), 200);
    // The header is gone and the length is the same: a list that read it would lose the models.
    let blob = ollama(&test).join("blobs").join(Digest::of(&gguf(1)).file_name());
    write_atomic(&blob, &vec![0; gguf(1).len()]).unwrap();
    let home = Home::open(test.home.path(), Access::ReadOnly).unwrap();
    let home = home.with_sources(test.home.sources().clone());
    assert_eq!(home.models().list().unwrap().models.len(), 200);
}
