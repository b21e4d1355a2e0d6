//! Tests of making models of blobs: as a registry says, of files, of other models; and of removing what is not needed.

use std::{fs, path::PathBuf, time::Duration};

use firepot_gguf::write::Builder;
use serde_json::json;

use crate::{
    Blob, BlobWriter, CreateSpec, DefaultMessage, Defaults, Digest, From, GcOptions, ImportError, Model,
    ModelName, Placement, StoreError, Stored,
    testing::{TestHome, gguf, other_gguf, registry_model},
};

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

fn put(test: &TestHome, content: &[u8]) -> Blob {
    let mut writer = BlobWriter::create(&test.home.blobs_dir()).unwrap();
    writer.write(content).unwrap();
    writer.commit(None).unwrap()
}

/// A model as a registry brings it.
fn installed(test: &TestHome, model: &str, weights: &[u8]) -> (Model, Vec<u8>) {
    let (manifest, blobs) = registry_model(weights, "be brief");
    for blob in &blobs {
        put(test, blob);
    }
    (test.home.models().install(&name(model), &manifest).unwrap(), manifest)
}

fn overriding(from: From, defaults: Defaults) -> CreateSpec {
    CreateSpec { from, defaults }
}

#[test]
fn a_registrys_manifest_is_kept_byte_for_byte_and_its_layers_are_read() {
    let test = TestHome::new();
    let (model, manifest) = installed(&test, "m", &gguf(1));
    assert_eq!(model.manifest_digest, Digest::of(&manifest));
    assert_eq!(model.digest, Digest::of(&gguf(1)));
    assert_eq!(model.defaults.system.as_deref(), Some("be brief"));
    assert_eq!(
        serde_json::Value::Object(model.defaults.parameters.clone()),
        json!({"temperature": 0.5, "stop": ["<end>"]})
    );
    assert_eq!(test.home.models().find(&name("M")).unwrap(), model);
}

#[test]
fn a_manifest_whose_blobs_are_not_there_or_cannot_be_used_changes_nothing() {
    let check = |change: &dyn Fn(&TestHome, &str) -> String, expected: &str| {
        let test = TestHome::new();
        installed(&test, "m", &gguf(1));
        let before = test.home.models().find(&name("m")).unwrap();
        let (manifest, _) = registry_model(&gguf(1), "be brief");
        let manifest = change(&test, &String::from_utf8(manifest).unwrap());
        let error = test.home.models().install(&name("m"), manifest.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(test.home.models().find(&name("m")).unwrap(), before);
    };
    check(
        &|_, m| m.replace("vnd.ollama.image.params", "vnd.ollama.image.adapter"),
        "adapters are not supported yet",
    );
    check(
        &|_, m| m.replace("distribution.manifest.v2", "distribution.manifest.list.v2"),
        "it is of the type",
    );
    check(&|_, m| m.replace("image.model", "image.other"), "it names no model file");
    check(&|_, _| "<html>".to_owned(), "expected value");
    check(
        &|_, m| m.replace(&Digest::of(&gguf(1)).hex(), &Digest::of(b"gone").hex()),
        "the store has no file",
    );
    check(
        &|test, m| {
            let other = vec![b'x'; gguf(1).len()];
            put(test, &other);
            m.replace(&Digest::of(&gguf(1)).hex(), &Digest::of(&other).hex())
        },
        "is not a GGUF file",
    );
}

#[test]
fn the_files_of_a_split_model_and_its_projector_become_one_model() {
    let test = TestHome::new();
    let part = |number: u32| {
        let file = if number == 0 { Builder::llama() } else { Builder::new() };
        file.u32("split.count", 2).u32("split.no", number).build()
    };
    let projector = Builder::new().text("general.architecture", "clip").build();
    let blobs = [put(&test, &part(0)), put(&test, &part(1)), put(&test, &projector)];
    let model = test.home.models().install_files(&name("m"), &blobs, &Defaults::default()).unwrap();
    assert_eq!(model.blob_path, blobs[0].path);
    assert_eq!(model.shards, [blobs[1].path.clone()]);
    assert_eq!(model.projector.as_ref(), Some(&blobs[2].path));

    let error =
        test.home.models().install_files(&name("half"), &blobs[..1], &Defaults::default()).unwrap_err();
    assert!(error.to_string().contains("split into 2 files, and there are 1"), "{error}");
}

#[test]
fn a_model_made_of_another_keeps_its_files_and_what_is_not_said_anew() {
    let test = TestHome::new();
    let (base, _) = installed(&test, "base", &gguf(1));
    let messages = vec![DefaultMessage { role: "user".into(), content: "hi".into() }];
    let parameters = json!({"temperature": 1, "num_ctx": 512}).as_object().unwrap().clone();
    let defaults = Defaults { parameters, messages, license: vec!["MIT".into()], ..Defaults::default() };
    let spec = overriding(From::Model(name("base")), defaults);
    let made = test.home.models().create(&name("made"), &spec).unwrap();
    assert_eq!((made.digest, &made.blob_path), (base.digest, &base.blob_path));
    insta::assert_json_snapshot!(made.defaults, @r#"
    {
      "parameters": {
        "temperature": 1,
        "stop": [
          "<end>"
        ],
        "num_ctx": 512
      },
      "system": "be brief",
      "messages": [
        {
          "role": "user",
          "content": "hi"
        }
      ],
      "license": [
        "MIT"
      ]
    }
    "#);
    assert_eq!(test.home.models().find(&name("base")).unwrap(), base);

    let jinja = Defaults { template: Some("{{ messages }}".into()), ..Defaults::default() };
    let again =
        test.home.models().create(&name("made"), &overriding(From::Model(name("made")), jinja)).unwrap();
    assert_eq!(again.defaults.template.as_deref(), Some("{{ messages }}"));
    assert_eq!(again.defaults.license, ["MIT"]);
}

#[test]
fn a_model_is_made_of_blobs_that_were_uploaded() {
    let test = TestHome::new();
    let blob = put(&test, &gguf(1));
    assert!(test.home.has_blob(&blob.digest));
    let spec = overriding(
        From::Blobs(vec![blob.digest]),
        Defaults { system: Some("s".into()), ..Defaults::default() },
    );
    let model = test.home.models().create(&name("m"), &spec).unwrap();
    assert_eq!((model.digest, model.defaults.system.as_deref()), (blob.digest, Some("s")));

    let gone = overriding(From::Blobs(vec![Digest::of(b"gone")]), Defaults::default());
    let error = test.home.models().create(&name("n"), &gone).unwrap_err();
    assert!(matches!(error, ImportError::Store(StoreError::UnknownBlob { .. })));
    let unknown = overriding(From::Model(name("mm")), Defaults::default());
    let error = test.home.models().create(&name("n"), &unknown).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("did you mean m:latest?"));
}

#[test]
fn a_copy_is_the_same_model_and_stays_when_the_other_goes() {
    let test = TestHome::new();
    let (model, _) = installed(&test, "a", &gguf(1));
    let copied = test.home.models().copy(&name("A"), &name("b")).unwrap();
    assert_eq!(copied.manifest_digest, model.manifest_digest);
    assert_eq!(test.home.models().copy(&name("b"), &name("B")).unwrap().name, name("b"));
    test.home.models().remove(&name("a")).unwrap();
    assert_eq!(fs::read(&copied.blob_path).unwrap(), gguf(1));
    assert_eq!(test.home.models().find(&name("b")).unwrap().defaults, model.defaults);
    assert!(test.home.models().copy(&name("a"), &name("c")).is_err());
}

#[test]
fn what_nobody_names_is_spared_for_an_hour_and_what_a_pull_needs_until_it_ends() {
    let test = TestHome::new();
    let upload = put(&test, b"upload");
    let needed = put(&test, b"needed");
    let pull = test.home.begin_pull(&name("m"), &[needed.digest]).unwrap();
    assert_eq!(test.home.models().gc(GcOptions::default()).unwrap().freed_bytes(), 0);
    assert_eq!(test.home.sweep().unwrap(), 0);

    let dry = GcOptions { dry_run: true, ..GcOptions::default() };
    let report = test.home.models().collect(dry, Duration::ZERO).unwrap();
    assert_eq!((&*report.blobs, report.blob_bytes), (&[upload.digest][..], 6));
    assert_eq!(test.blobs().len(), 2);
    assert_eq!(test.sweep_all(), 6);
    assert!(test.home.has_blob(&needed.digest));

    // Its process is killed: only who asks for partial downloads too gives it up.
    let all = GcOptions { partials: true, ..GcOptions::default() };
    assert_eq!(test.home.models().collect(all, Duration::ZERO).unwrap().freed_bytes(), 0, "it goes on");
    drop(pull);
    assert_eq!(test.sweep_all(), 0);
    assert_eq!(test.home.models().collect(all, Duration::ZERO).unwrap().blobs, [needed.digest]);
    assert!(test.home.pending_pulls().unwrap().is_empty());
}

#[test]
fn removing_a_model_leaves_what_a_pull_needs() {
    let test = TestHome::new();
    let (model, _) = installed(&test, "a", &gguf(1));
    let _pull = test.home.begin_pull(&name("b"), &[model.digest]).unwrap();
    test.home.models().remove(&name("a")).unwrap();
    assert_eq!(test.blobs(), [model.digest.file_name()]);
}

#[test]
fn removals_and_sweeps_that_race_with_pulls_take_nothing_from_them() {
    let test = TestHome::new();
    let pull = |model: &str| {
        let (manifest, blobs) = registry_model(&gguf(1), "be brief");
        let digests: Vec<_> = blobs.iter().map(|blob| Digest::of(blob)).collect();
        let pull = test.home.begin_pull(&name(model), &digests).unwrap();
        for blob in &blobs {
            put(&test, blob);
        }
        let model = test.home.models().install(&name(model), &manifest).unwrap();
        assert_eq!(fs::read(&model.blob_path).unwrap(), gguf(1));
        pull.done().unwrap();
    };
    std::thread::scope(|scope| {
        let pullers: Vec<_> =
            ["a", "b"].map(|model| scope.spawn(move || (0..15).for_each(|_| pull(model)))).into();
        while !pullers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let _ = test.home.models().remove(&name("a"));
            test.sweep_all();
        }
    });
    assert_eq!(test.home.models().find(&name("b")).unwrap().digest, Digest::of(&gguf(1)));
    assert!(test.home.pending_pulls().unwrap().is_empty());
}

#[test]
fn a_file_of_ours_on_the_same_disk_is_linked_and_a_copy_is_one_when_asked_for() {
    let test = TestHome::new();
    let file = test.file("a.gguf", &gguf(1));
    let linked = test.import(&file, "a").unwrap();
    assert!(matches!(linked.stored, Stored::Reflinked | Stored::HardLinked), "{:?}", linked.stored);
    let other = test.file("b.gguf", &other_gguf());
    let copied = test.home.models().import_with(&other, &name("b"), Placement::Copy, &mut |_| {}).unwrap();
    assert_eq!(copied.stored, Stored::Copied);
    // Removing the model leaves the file, and removing the file the model.
    test.home.models().remove(&name("a")).unwrap();
    assert_eq!(fs::read(&file).unwrap(), gguf(1));
    let again = test.import(&file, "a").unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(fs::read(&again.model.blob_path).unwrap(), gguf(1));
}

#[test]
fn a_link_to_a_file_is_followed() {
    let test = TestHome::new();
    let file = test.file("a.gguf", &gguf(1));
    let link: PathBuf = test.dir.path().join("link.gguf");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let model = test.import(&link, "a").unwrap().model;
    assert!(fs::symlink_metadata(model.blob_path).unwrap().is_file());
}
