//! What the tests of several modules need: small GGUF files, homes, and a child process that can be killed or
//! confined.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{Access, ChatId, Home, ImportError, ImportedModel, ModelName, fail::Step};

/// Schema version 2, as some later Firepot might have it.
pub const NEXT_SCHEMA: &[&str] = &[crate::db::SCHEMA[0], "ALTER TABLE chats ADD COLUMN colour TEXT"];

/// A home, and beside it a place for other files; both are removed at the end.
pub struct TestHome {
    pub dir: TempDir,
    pub home: Home,
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

/// Builds GGUF files, version 3, by hand: the reader is not tested against a writer of its own kin.
pub struct GgufBuilder {
    metadata: Vec<u8>,
    entries: u64,
}

impl GgufBuilder {
    pub const fn empty() -> Self {
        Self { metadata: Vec::new(), entries: 0 }
    }

    /// A small model of the architecture `llama`.
    pub fn llama(ctx_train: u32) -> Self {
        Self::empty()
            .text("general.architecture", "llama")
            .text("general.license", "apache-2.0")
            .number("general.file_type", 0)
            .number("llama.context_length", ctx_train)
            .number("llama.embedding_length", 64)
            .number("llama.block_count", 1)
            .number("llama.feed_forward_length", 128)
            .number("llama.attention.head_count", 4)
            .number("llama.attention.head_count_kv", 2)
            .number("llama.vocab_size", 1000)
            .text("tokenizer.ggml.model", "gpt2")
            .text("tokenizer.chat_template", "{{ messages }}")
    }

    pub fn text(self, key: &str, value: &str) -> Self {
        let mut bytes = 8_u32.to_le_bytes().to_vec();
        push_text(&mut bytes, value);
        self.entry(key, &bytes)
    }

    pub fn number(self, key: &str, value: u32) -> Self {
        let bytes = [4_u32.to_le_bytes(), value.to_le_bytes()].concat();
        self.entry(key, &bytes)
    }

    fn entry(mut self, key: &str, typed_value: &[u8]) -> Self {
        push_text(&mut self.metadata, key);
        self.metadata.extend_from_slice(typed_value);
        self.entries += 1;
        self
    }

    /// The file, with one tensor of 64 × 1000 floats whose every byte is `fill`.
    pub fn build(self, fill: u8) -> Vec<u8> {
        let (width, height) = (64_u64, 1000_u64);
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(self.metadata);
        push_text(&mut bytes, "token_embd.weight");
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.resize(bytes.len() + (4 * width * height) as usize, fill);
        bytes
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// A small model file; another `fill` makes it another file of the same size and the same summary.
pub fn gguf(fill: u8) -> Vec<u8> {
    GgufBuilder::llama(2048).build(fill)
}

/// A model file that has not even its summary in common with [`gguf`]'s.
pub fn other_gguf() -> Vec<u8> {
    GgufBuilder::llama(4096).build(0)
}

/// What the child process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Action {
    OpenHome,
    Import { file: PathBuf, name: ModelName },
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
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(order).unwrap()).unwrap();
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
