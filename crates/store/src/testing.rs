//! What the tests of several modules need: small GGUF files, homes, and a child process that can be killed or
//! confined.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use firepot_gguf::write::Builder;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{
    Access, ChatId, Database, Digest, GcOptions, Home, ImportError, ImportedModel, MessageBody, MessageRole,
    ModelName, NewMessage, Placement, fail::Step,
};

/// The next version of the schema, as some later Firepot might have it.
pub const NEXT_SCHEMA: &[&str] = {
    const SCHEMA: &[&str] = crate::db::SCHEMA;
    const NEXT: usize = SCHEMA.len() + 1;
    const STEPS: [&str; NEXT] = {
        let mut steps = ["ALTER TABLE chats ADD COLUMN colour TEXT"; NEXT];
        let mut version = 0;
        while version < SCHEMA.len() {
            steps[version] = SCHEMA[version];
            version += 1;
        }
        steps
    };
    &STEPS
};

/// A home, and beside it a place for other files; both are removed at the end.
pub struct TestHome {
    pub dir: TempDir,
    pub home: Home,
}

/// A database in a home of its own.
pub fn database() -> (TestHome, Database) {
    let test = TestHome::new();
    let database = test.home.database().unwrap();
    (test, database)
}

/// A user's message.
pub fn user(text: &str) -> NewMessage {
    MessageBody::text(MessageRole::User, text).into()
}

impl TestHome {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("home"), Access::ReadWrite).unwrap();
        Self { dir, home }
    }

    /// Puts a file beside the home.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(content).unwrap();
        path
    }

    pub fn import(&self, path: &Path, name: &str) -> Result<ImportedModel, ImportError> {
        self.home.models().import(path, &name.parse().unwrap(), &mut |_| {})
    }

    /// Imports by copying, whatever the file system can.
    pub fn import_copy(&self, path: &Path, name: &str) -> Result<ImportedModel, ImportError> {
        self.home.models().import_with(path, &name.parse().unwrap(), Placement::Copy, &mut |_| {})
    }

    /// Removes what nobody needs, however young.
    pub fn sweep_all(&self) -> u64 {
        self.home.models().collect(GcOptions::default(), Duration::ZERO).unwrap().freed_bytes()
    }

    pub fn blobs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.home.blobs_dir()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn names(&self) -> Vec<String> {
        let listing = self.home.models().list().unwrap();
        assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
        let mut names: Vec<_> = listing.models.iter().map(|model| model.name.to_string()).collect();
        names.sort();
        names
    }
}

/// A small model file; another `fill` makes it another file of the same size and the same summary.
pub fn gguf(fill: u32) -> Vec<u8> {
    Builder::llama()
        .u32("general.alignment", 32)
        .u32("fill", fill)
        .tensor("blk.0.attn_q.weight", &[32, 32], 0, 4096)
        .build()
}

/// A model file that has not even its summary in common with [`gguf`]'s.
pub fn other_gguf() -> Vec<u8> {
    Builder::llama().text("general.license", "mit").build()
}

/// A model as a registry has it: its manifest, and the blobs that this names.
pub fn registry_model(weights: &[u8], system: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
    let config = br#"{"model_format":"gguf","model_family":"llama","rootfs":{}}"#.to_vec();
    let params = br#"{"temperature":0.5,"stop":["<end>"]}"#.to_vec();
    let layer = |kind: &str, content: &[u8]| {
        let media_type = format!("application/vnd.ollama.image.{kind}");
        serde_json::json!({
            "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len()
        })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": Digest::of(&config).to_string(), "size": config.len(),
        },
        "layers": [layer("model", weights), layer("system", system.as_bytes()), layer("params", &params)],
    });
    let blobs = vec![config, weights.to_vec(), system.as_bytes().to_vec(), params];
    // As servers write it, which is not as we would.
    (format!(" {manifest}\n").into_bytes(), blobs)
}

/// What the child process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Action {
    OpenHome,
    Import { file: PathBuf, name: ModelName },
    ImportLinked { file: PathBuf, name: ModelName },
    Pull { weights: PathBuf, name: ModelName },
    Remove { name: ModelName },
    WriteAtomic { file: PathBuf, content: String },
    Append { chat: ChatId, texts: Vec<String> },
    FillChat { chat: ChatId },
    Migrate,
}

/// An action, where, and how far it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub home: PathBuf,
    pub action: Action,
    pub die_at: Option<(Step, u32)>,
}

/// Runs this test binary again with nothing but the child's test, below the command `wrapper`.
pub fn run_child(wrapper: &[&str], order: &Order) -> io::Result<Output> {
    let exe = std::env::current_exe().unwrap();
    let words = wrapper.iter().map(Into::into).chain([exe.into_os_string()]);
    let mut words =
        words.chain(["--exact", "crash_tests::child", "--ignored", "--nocapture"].map(Into::into));
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // A wrapper that fails closes the pipe unread; its status says more.
    let _ = child.stdin.take().unwrap().write_all(&serde_json::to_vec(order).unwrap());
    child.wait_with_output()
}

/// What the child said at its end.
pub fn outcome(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.split(OUTCOME).nth(1).and_then(|rest| rest.lines().next());
    line.unwrap_or_else(|| panic!("the child said nothing: {output:?}")).to_owned()
}

/// Stands before what the child says at its end.
pub const OUTCOME: &str = "outcome: ";
