//! What a snapshot depends on beside its tokens.

use firepot_engine::{DecoderInfo, KvType, LoadSpec};
use firepot_store::Digest;

use crate::file;

/// Everything that decides whether a state is valid for a context. Two that differ anywhere never share a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    text: String,
    name: String,
}

impl Key {
    /// The key of a model, named by the digest of its files, as it was loaded.
    ///
    /// Threads, batch sizes and devices are not in it: they change how a state is computed and not what it is. What this
    /// program always sets the same way is in it all the same, so that a change of it needs no new thought.
    #[must_use]
    pub fn new(model: &str, spec: &LoadSpec, info: &DecoderInfo) -> Self {
        let version = file::VERSION;
        let DecoderInfo { build, architecture, .. } = info;
        let (k, v, flash) = (kv_name(spec.kv_type_k), kv_name(spec.kv_type_v), spec.flash_attention);
        let text = format!(
            "format {version}\nmodel {model}\narchitecture {architecture}\nbuild {build}\nk {k}\nv {v}\nflash {flash}\n\
             cache unified\nwindow narrow\nrope model\nadapters none\n"
        );
        let name = Digest::of(text.as_bytes()).hex()[..NAME_DIGITS].to_owned();
        Self { text, name }
    }

    /// All of it, as it stands in each file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name of a snapshot of these tokens: the key's own name, then that of the tokens.
    pub(crate) fn file_name(&self, tokens: &[firepot_chat::TokenId]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let tokens = Digest::of(&bytes).hex();
        format!("{}-{}.{}", self.name, &tokens[..NAME_DIGITS], file::EXTENSION)
    }

    /// Whether a file of this name is said to be of this key.
    pub(crate) fn is_of(&self, file_name: &str) -> bool {
        file_name.starts_with(&self.name)
    }
}

/// Hexadecimal digits of a digest in a file name: 64 bits tell a few thousand files apart, and the head decides.
const NAME_DIGITS: usize = 16;

const fn kv_name(kind: KvType) -> &'static str {
    match kind {
        KvType::F16 => "f16",
        KvType::Q8_0 => "q8_0",
        KvType::Q4_0 => "q4_0",
    }
}
