//! Real processes that die at each durable step, or run where they may not write. Afterwards the store is opened
//! again and looked at.

use std::{fs, io::Read as _, os::unix::process::ExitStatusExt as _, path::Path};

use crate::{
    Access, BlobWriter, Database, Digest, Home, ModelName, NewChat, NewMessage, Placement, StoreError,
    fail::{Step, armed},
    testing::{
        Action, NEXT_SCHEMA, OUTCOME, Order, TestHome, gguf, other_gguf, outcome, registry_model, run_child,
        user,
    },
    write_atomic,
};

const SIGABRT: i32 = 6;

/// Steps of writing one file.
const FILE_STEPS: [Step; 4] = [Step::TempCreated, Step::TempWritten, Step::TempSynced, Step::Renamed];

#[test]
#[ignore = "the child process of the tests below; does nothing by itself"]
fn child() {
    let mut json = String::new();
    std::io::stdin().read_to_string(&mut json).unwrap();
    let Ok(order) = serde_json::from_str::<Order>(&json) else { return };
    if let Some((step, nth)) = order.die_at {
        armed::arm(step, nth);
    }
    let outcome = act(&order).unwrap_or_else(|error| error);
    println!("{OUTCOME}{outcome}");
}

fn act(order: &Order) -> Result<String, String> {
    let home = Home::open(&order.home, Access::ReadWrite).map_err(|error| error.to_string())?;
    let done: Result<(), StoreError> = match &order.action {
        Action::OpenHome => Ok(()),
        Action::Import { file, name } => {
            let imported = home.models().import_with(file, name, Placement::Copy, &mut |_| {});
            imported.map_err(|error| error.to_string())?;
            Ok(())
        }
        Action::ImportLinked { file, name } => {
            home.models().import(file, name, &mut |_| {}).map_err(|error| error.to_string())?;
            Ok(())
        }
        Action::Pull { weights, name } => pull(&home, weights, name),
        Action::Remove { name } => home.models().remove(name).map(drop),
        Action::WriteAtomic { file, content } => write_atomic(file, content.as_bytes()),
        Action::Append { chat, texts } => {
            let messages: Vec<NewMessage> = texts.iter().map(|text| user(text)).collect();
            home.database().and_then(|database| database.chats().append(*chat, &messages).map(drop))
        }
        Action::FillChat { chat } => {
            let text = "x".repeat(100_000);
            home.database().and_then(|database| {
                (0..1000).try_for_each(|_| database.chats().append(*chat, &[user(&text)]).map(drop))
            })
        }
        Action::Migrate => Database::open_with(&home.database_path(), NEXT_SCHEMA).map(drop),
    };
    done.map(|()| "done".to_owned()).map_err(|error| error.to_string())
}

/// What a pull does, but for fetching: its file is written from another.
fn pull(home: &Home, weights: &Path, name: &ModelName) -> Result<(), StoreError> {
    let content = fs::read(weights).unwrap();
    let (bytes, blobs) = registry_model(&content, "be brief");
    let digests: Vec<_> = blobs.iter().map(|blob| Digest::of(blob)).collect();
    let pull = home.begin_pull(name, &digests)?;
    for blob in blobs {
        let mut writer = BlobWriter::create(&home.blobs_dir())?;
        writer.write(&blob)?;
        writer.commit(None)?;
    }
    home.models().install(name, &bytes).unwrap();
    pull.done()
}

/// Lets a child die; the step is then known to lie on the action's way.
fn kill(home: &Home, action: &Action, die_at: (Step, u32)) {
    let order = Order { home: home.path().to_owned(), action: action.clone(), die_at: Some(die_at) };
    let output = run_child(&[], &order).unwrap();
    assert_eq!(output.status.signal(), Some(SIGABRT), "{die_at:?} was not reached: {output:?}");
}

/// Every model that is listed has its file, whole.
fn check_models(test: &TestHome) {
    let listing = test.home.models().list().unwrap();
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
    for model in listing.models {
        assert_eq!(Digest::of(&fs::read(&model.blob_path).unwrap()), model.digest);
    }
}

/// After a sweep nothing is left but what the models need.
fn check_swept(test: &TestHome) {
    test.sweep_all();
    let listing = test.home.models().list().unwrap();
    // A model has two blobs, its weights and its config; the models here share none.
    assert_eq!(test.blobs().len(), 2 * listing.models.len(), "{:?}", test.blobs());
    assert!(!has_temporary_file(test.home.path()));
}

fn has_temporary_file(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let temporary = entry.file_name().to_string_lossy().starts_with(".tmp-");
        temporary || (entry.path().is_dir() && has_temporary_file(&entry.path()))
    })
}

#[test]
fn an_import_killed_at_any_step_leaves_a_whole_model_or_none() {
    let files = FILE_STEPS.iter().flat_map(|&step| (0..3).map(move |nth| (step, nth)));
    for die_at in files.chain([(Step::WeightsStored, 0), (Step::ConfigStored, 0)]) {
        let test = TestHome::new();
        test.import(&test.file("other.gguf", &gguf(1)), "other").unwrap();
        let file = test.file("new.gguf", &other_gguf());

        kill(&test.home, &Action::Import { file: file.clone(), name: "new".parse().unwrap() }, die_at);
        check_models(&test);
        let manifest_renamed = die_at == (Step::Renamed, 2);
        let expected: &[&str] =
            if manifest_renamed { &["new:latest", "other:latest"] } else { &["other:latest"] };
        assert_eq!(test.names(), expected, "{die_at:?}");
        check_swept(&test);

        test.import(&file, "new").unwrap();
        check_models(&test);
        assert_eq!(test.names(), ["new:latest", "other:latest"], "{die_at:?}");
    }
}

#[test]
fn a_linked_import_killed_at_any_step_leaves_a_whole_model_or_none() {
    // Steps of config and manifest; the file itself is linked in one.
    let files = FILE_STEPS.iter().flat_map(|&step| (0..2).map(move |nth| (step, nth)));
    for die_at in files.chain([(Step::Linked, 0), (Step::WeightsStored, 0), (Step::ManifestWritten, 0)]) {
        let test = TestHome::new();
        let file = test.file("new.gguf", &gguf(1));
        kill(&test.home, &Action::ImportLinked { file: file.clone(), name: "new".parse().unwrap() }, die_at);
        check_models(&test);
        check_swept(&test);
        assert_eq!(fs::read(&file).unwrap(), gguf(1), "{die_at:?}");
        test.import(&file, "new").unwrap();
        check_models(&test);
    }
}

#[test]
fn a_pull_killed_at_any_step_keeps_what_it_fetched_and_can_be_done_again() {
    // The record of the pull, four blobs, the manifest.
    let files = [
        (Step::Renamed, 0),
        (Step::Renamed, 1),
        (Step::TempSynced, 3),
        (Step::Renamed, 4),
        (Step::Renamed, 5),
    ];
    let others = [(Step::PullBegun, 0), (Step::ManifestWritten, 0), (Step::PullInstalled, 0)];
    for die_at in files.into_iter().chain(others) {
        let test = TestHome::new();
        let (weights, name) = (test.file("weights", &gguf(1)), "m".parse::<ModelName>().unwrap());
        let action = Action::Pull { weights: weights.clone(), name: name.clone() };
        kill(&test.home, &action, die_at);
        check_models(&test);
        let fetched = test.blobs().into_iter().filter(|blob| !blob.starts_with(".tmp-")).collect::<Vec<_>>();
        test.sweep_all();
        assert_eq!(test.blobs(), fetched, "nothing that the pull needs is swept: {die_at:?}");
        pull(&test.home, &weights, &name).unwrap();
        assert_eq!(test.home.models().find(&name).unwrap().defaults.system.as_deref(), Some("be brief"));
        assert!(test.home.pending_pulls().unwrap().is_empty(), "{die_at:?}");
    }
}

#[test]
fn a_removal_killed_at_any_step_leaves_no_model_without_its_file() {
    for die_at in [(Step::ManifestRemoved, 0), (Step::BlobRemoved, 0), (Step::BlobRemoved, 1)] {
        let test = TestHome::new();
        test.import(&test.file("a.gguf", &gguf(1)), "a").unwrap();
        test.import(&test.file("b.gguf", &other_gguf()), "b").unwrap();

        kill(&test.home, &Action::Remove { name: "a".parse().unwrap() }, die_at);
        check_models(&test);
        assert_eq!(test.names(), ["b:latest"], "{die_at:?}");
        check_swept(&test);
    }
}

#[test]
fn a_file_replaced_by_a_killed_process_has_its_old_or_its_new_content() {
    for step in FILE_STEPS {
        let test = TestHome::new();
        let file = test.file("file", b"old content");
        let action = Action::WriteAtomic { file: file.clone(), content: "new".to_owned() };
        kill(&test.home, &action, (step, 0));
        let expected = if step == Step::Renamed { "new" } else { "old content" };
        assert_eq!(fs::read_to_string(&file).unwrap(), expected, "{step:?}");
    }
}

#[test]
fn messages_of_a_killed_process_are_stored_all_or_none() {
    for (step, expected) in [(Step::RowsWritten, 1), (Step::Committed, 3)] {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let chat = database.chats().create(&NewChat::default()).unwrap().id;
        database.chats().append(chat, &[user("first")]).unwrap();
        drop(database);

        let texts = vec!["second".to_owned(), "third".to_owned()];
        kill(&test.home, &Action::Append { chat, texts }, (step, 0));
        let stored = test.home.database().unwrap().chats().get(chat).unwrap();
        assert_eq!(stored.messages.len(), expected, "{step:?}");
        assert_eq!(stored.chat.message_count as usize, expected);
    }
}

#[test]
fn a_migration_killed_at_any_step_can_be_done_again() {
    let backup_steps = FILE_STEPS.iter().filter(|&&step| step == Step::TempSynced || step == Step::Renamed);
    for &step in backup_steps.chain(&[Step::BackedUp, Step::Migrated]) {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let chat = database
            .chats()
            .create(&NewChat { title: Some("kept".into()), ..NewChat::default() })
            .unwrap()
            .id;
        drop(database);

        kill(&test.home, &Action::Migrate, (step, 0));
        let old = test.home.database().unwrap();
        assert_eq!(old.chats().get(chat).unwrap().chat.title, "kept", "{step:?}");
        drop(old);
        test.sweep_all();
        assert!(!has_temporary_file(test.home.path()), "{step:?}");

        let new = Database::open_with(&test.home.database_path(), NEXT_SCHEMA).unwrap();
        assert_eq!(new.chats().get(chat).unwrap().chat.title, "kept", "{step:?}");
    }
}

/// What a child says that runs below `wrapper`; `None`, with a line on standard error, where this machine does not
/// let such a child be made.
fn confined(wrapper: &[&str], home: &Path, action: Action) -> Option<String> {
    let order = Order { home: home.to_owned(), action, die_at: None };
    match run_child(wrapper, &order) {
        Ok(output) if output.status.success() => return Some(outcome(&output)),
        Ok(output) => eprintln!("skipped, {wrapper:?} failed: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("skipped, {wrapper:?} cannot be run: {error}"),
    }
    None
}

/// Runs the rest of its words after a mount that nobody else sees.
fn mounted(mount: &str) -> Vec<&str> {
    vec!["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"]
}

#[test]
fn a_read_only_home_is_a_clear_error() {
    let test = TestHome::new();
    let path = test.home.path();
    let mount =
        format!("mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}' && exec \"$@\"", path.display());
    let said = confined(&mounted(&mount), path, Action::OpenHome);
    assert!(said.is_none_or(|said| said == format!("{} is read-only", path.display())));
}

#[test]
fn a_full_disk_refuses_a_model_and_names_the_numbers() {
    let test = TestHome::new();
    let (path, file) = (test.home.path(), test.file("model.gguf", &gguf(1)));
    let mount = format!("mount -t tmpfs -o size=1m none '{}' && exec \"$@\"", path.display());
    let action = Action::Import { file, name: "model".parse().unwrap() };
    let Some(said) = confined(&mounted(&mount), path, action) else { return };
    // A page of the disk has the layout's version.
    assert!(said.ends_with(" bytes and 1044480 are free"), "{said}");
    assert!(said.starts_with(&format!("{} needs ", path.join("blobs").display())), "{said}");
}

#[test]
fn a_disk_that_fills_up_while_chats_are_stored_is_named_as_full() {
    let test = TestHome::new();
    let database = test.home.database().unwrap();
    let chat = database.chats().create(&NewChat::default()).unwrap().id;
    drop(database);
    let (home, copy) = (test.home.path().display(), test.dir.path().join("copy"));
    fs::create_dir(&copy).unwrap();
    let copy = copy.display();
    let mount = format!(
        "cp -a '{home}/.' '{copy}' && mount -t tmpfs -o size=2m none '{home}' && cp -a '{copy}/.' '{home}' && exec \"$@\""
    );
    let said = confined(&mounted(&mount), test.home.path(), Action::FillChat { chat });
    let expected = format!("no space left on the disk of {}", test.home.database_path().display());
    assert!(said.as_ref().is_none_or(|said| *said == expected), "{said:?}");
}

#[test]
fn a_home_of_somebody_else_is_a_clear_error() {
    let test = TestHome::new();
    let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let said = confined(&wrapper, test.home.path(), Action::OpenHome);
    let expected = format!("no permission to write to {}", test.home.path().display());
    assert!(said.as_ref().is_none_or(|said| *said == expected), "{said:?}");
}

#[test]
fn a_file_without_permission_is_a_clear_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = TestHome::new();
    let file = test.file("model.gguf", &gguf(1));
    for (path, mode) in [(test.dir.path(), 0o777), (&*file, 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let home = test.dir.path().join("theirs");
    let action = Action::Import { file: file.clone(), name: "model".parse().unwrap() };
    let said = confined(&wrapper, &home, action);
    let expected = format!("no permission to read {}", file.display());
    assert!(said.as_ref().is_none_or(|said| *said == expected), "{said:?}");
}
