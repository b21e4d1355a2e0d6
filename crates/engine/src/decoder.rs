//! The joint between engine and inference library.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use firepot_chat::{Format, TokenId};
use serde::{Deserialize, Serialize};

/// A sequence of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u32);

/// How a model is loaded: the planner's decision, each field but the last a llama.cpp parameter.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of llama.cpp's own")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// GGUF file; the first one of a split model.
    pub path: PathBuf,
    /// The further files of a split model, in order.
    pub shards: Vec<PathBuf>,
    /// Context of one answer, in tokens.
    pub ctx_per_answer: u32,
    /// KV cells shared by all sequences (`n_ctx`, unified).
    pub kv_cells: u32,
    /// Answers that run at the same time.
    pub parallel: u32,
    /// Sequences: of running answers and of cached prefixes (`n_seq_max`).
    pub sequences: u32,
    /// Most tokens in one decode call (`n_batch`).
    pub batch_tokens: u32,
    /// Most tokens computed at once (`n_ubatch`).
    pub ubatch_tokens: u32,
    /// Threads for decode (single tokens).
    pub threads: u32,
    /// Threads for prefill.
    pub threads_batch: u32,
    /// Flash attention.
    pub flash_attention: bool,
    /// Type of the K cache.
    pub kv_type_k: KvType,
    /// Type of the V cache; other than f16 only with flash attention.
    pub kv_type_v: KvType,
    /// Layers placed on GPUs, the output counted as one; 0 none, -1 all.
    pub gpu_layers: i32,
    /// The experts of so many of the first layers stay in main memory, wherever the layers are.
    pub host_experts: u32,
    /// ggml device names to use (`CUDA0`, `Vulkan0`); empty: every GPU when `gpu_layers` is not 0.
    pub devices: Vec<String>,
    /// Share of the model on each of `devices`; empty: llama.cpp's own choice.
    pub tensor_split: Vec<f32>,
    /// Map the file instead of reading it.
    pub mmap: bool,
    /// Lock the mapped file in memory.
    pub mlock: bool,
    /// Repack weights for the CPU (`use_extra_bufts`).
    pub repack: bool,
    /// Check every tensor's data while loading.
    pub check_tensors: bool,
    /// Run an empty batch after loading.
    pub warmup: bool,
    /// Most main memory for prefixes of ended answers, in bytes.
    pub parked_bytes_max: u64,
    /// What devices have for the model, where it is close to what the load is predicted to take: the inference library
    /// then counts before it loads, and a load that would take more is refused. Empty: there is room enough.
    pub limits: Vec<DeviceLimit>,
}

impl LoadSpec {
    /// Parameters of a small context on the CPU, with nothing that costs time or memory: what tests and tools begin with.
    #[must_use]
    pub const fn small(path: PathBuf) -> Self {
        Self {
            path,
            shards: Vec::new(),
            ctx_per_answer: 256,
            kv_cells: 1024,
            parallel: 4,
            sequences: 8,
            batch_tokens: 512,
            ubatch_tokens: 512,
            threads: 1,
            threads_batch: 1,
            flash_attention: true,
            kv_type_k: KvType::F16,
            kv_type_v: KvType::F16,
            gpu_layers: 0,
            host_experts: 0,
            devices: Vec::new(),
            tensor_split: Vec::new(),
            mmap: true,
            mlock: false,
            repack: false,
            check_tensors: false,
            warmup: false,
            parked_bytes_max: 0,
            limits: Vec::new(),
        }
    }
}

/// Memory that a model may take on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLimit {
    /// Device name (`CPU`, `CUDA0`).
    pub device: String,
    /// In bytes.
    pub bytes: u64,
}

/// Type of a KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// 16-bit floats, 2 bytes an element.
    #[default]
    F16,
    /// 8-bit blocks, 34 bytes for 32 elements.
    Q8_0,
    /// 4-bit blocks, 18 bytes for 32 elements.
    Q4_0,
}

/// What a loaded model is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderInfo {
    /// Architecture name from the file (`llama`, `qwen2`).
    pub architecture: String,
    /// llama.cpp's one-line description.
    pub description: String,
    /// Number of ids in the vocabulary.
    pub vocab_size: u32,
    /// Context that the model was trained with, in tokens.
    pub ctx_train: u32,
    /// Context of one answer, in tokens.
    pub ctx_per_answer: u32,
    /// KV cells shared by all sequences.
    pub kv_cells: u32,
    /// Sequences that exist, running and cached together.
    pub max_sequences: u32,
    /// Answers that run at the same time.
    pub parallel: u32,
    /// Most tokens in one decode call.
    pub batch_tokens: u32,
    /// The model's own Jinja chat template, if it has one.
    pub chat_template: Option<String>,
    /// Text of the beginning-of-sequence token, for templates (`bos_token`).
    pub bos_text: String,
    /// Text of the end-of-sequence token, for templates (`eos_token`).
    pub eos_text: String,
    /// Where a cached sequence may be cut.
    pub prefix_cut: PrefixCut,
    /// Bytes by device: weights, KV cache, compute buffers.
    pub memory: Vec<DeviceMemory>,
    /// The library and its version, for records.
    pub build: String,
}

/// Bytes that a loaded model uses on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// Buffer type or device name (`CPU`, `CUDA0`).
    pub device: String,
    /// Weights.
    pub weights_bytes: u64,
    /// KV cache and recurrent state.
    pub kv_bytes: u64,
    /// Compute buffers.
    pub compute_bytes: u64,
}

impl DeviceMemory {
    /// All of it.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.compute_bytes)
    }
}

/// Where a cached sequence may be cut and continued with other tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrefixCut {
    /// At any position (full attention).
    Anywhere,
    /// Only where the state still reaches (sliding window): ask [`Decoder::pos_min`].
    Window {
        /// Width of the window in tokens.
        tokens: u32,
    },
    /// Nowhere: only a whole sequence can be continued (recurrent state).
    Nowhere,
}

/// Turns text into token ids and back. Shared by threads: it reads the vocabulary and nothing else.
pub trait Tokenizer: Send + Sync {
    /// The ids of `text`. `add_special` adds the model's own beginning-of-sequence token where its vocabulary
    /// asks for one; `parse_special` reads control tokens written as text.
    ///
    /// # Errors
    /// When the text is longer than the library can count.
    fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<TokenId>, TokenizeError>;

    /// Appends the bytes of `token` to `out`; not always valid UTF-8 by itself. Control tokens are written out
    /// only when `special`.
    fn piece(&self, token: TokenId, special: bool, out: &mut Vec<u8>);

    /// Whether `token` ends a generation.
    fn is_end(&self, token: TokenId) -> bool;

    /// Builds the constraint for a format; `None` for [`Format::Free`].
    ///
    /// # Errors
    /// When the schema or grammar cannot be expressed.
    fn constraint(&self, format: &Format) -> Result<Option<Box<dyn Constraint>>, ConstraintError>;
}

/// What a generation may still say. Held by one generation; cloned when it is replayed.
pub trait Constraint: Send {
    /// Sets the logits of forbidden tokens to negative infinity. `logits[i]` belongs to token `i`.
    fn mask(&mut self, logits: &mut [f32]);

    /// Whether `token` is allowed next; cheaper than a mask.
    fn allows(&mut self, token: TokenId) -> bool;

    /// Moves past `token`.
    ///
    /// # Errors
    /// When the token is not allowed.
    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError>;

    /// An independent copy in the same state.
    fn boxed_clone(&self) -> Box<dyn Constraint>;
}

/// Tokens for one decode call, of one or many sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order; within a sequence by rising position.
    pub items: Vec<BatchItem>,
}

/// One token of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchItem {
    /// The token.
    pub token: TokenId,
    /// Its position in the sequence, from 0.
    pub position: u32,
    /// The sequence.
    pub sequence: SeqId,
    /// Whether logits are wanted after it.
    pub logits: bool,
}

/// Stops a decode call of one decoder; can be cloned and sent to other threads.
#[derive(Clone, Debug, Default)]
pub struct AbortHandle(Arc<AtomicBool>);

impl AbortHandle {
    /// Ends the decode call that runs now, or else the next one, with [`DecodeError::Aborted`]. One call ends for any
    /// number of requests made before it does.
    pub fn abort(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether an abort was asked for and has not happened yet.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The same; forgets it. For decoders.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What the engine drives: one loaded model with one context. One thread owns it.
pub trait Decoder {
    /// What was loaded.
    fn info(&self) -> &DecoderInfo;

    /// The vocabulary.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// A counter that rises with every graph node computed; read by the runner's heartbeat to tell a long batch
    /// from a hang.
    fn progress(&self) -> Arc<AtomicU64>;

    /// For stopping a decode call from another thread.
    fn abort_handle(&self) -> AbortHandle;

    /// Computes the batch and returns how long it took. After an error or an abort the sequences keep some valid
    /// prefix: [`Decoder::pos_max`] says which.
    ///
    /// # Errors
    /// No free cells, an abort, or a failure inside the library.
    fn decode(&mut self, batch: &Batch) -> Result<Duration, DecodeError>;

    /// Logits after the batch item with this index, which must have asked for them; as many as the vocabulary.
    fn logits(&mut self, item: usize) -> &[f32];

    /// Removes positions `from..to` (`None`: to the end); `false` when the state cannot be cut there.
    fn remove(&mut self, sequence: SeqId, from: u32, to: Option<u32>) -> bool;

    /// Makes `to` share positions `0..until` of `from`; no cells are used. `to` must be empty.
    fn share(&mut self, from: SeqId, to: SeqId, until: u32);

    /// Smallest position held by a sequence; `None` when it is empty.
    fn pos_min(&self, sequence: SeqId) -> Option<u32>;

    /// Largest position held by a sequence; `None` when it is empty.
    fn pos_max(&self, sequence: SeqId) -> Option<u32>;

    /// How many bytes [`Decoder::snapshot`] would give; cheap, nothing is copied. 0 when it would refuse.
    fn state_bytes(&mut self, sequence: SeqId) -> u64;

    /// The sequence's state as bytes, to be given to [`Decoder::restore`] of the same build and model.
    ///
    /// # Errors
    /// When the library refuses.
    fn snapshot(&mut self, sequence: SeqId) -> Result<Vec<u8>, StateError>;

    /// Puts a state into an empty sequence. The caller has verified its checksum.
    ///
    /// # Errors
    /// When the bytes are not a state of this model and context.
    fn restore(&mut self, sequence: SeqId, state: &[u8]) -> Result<(), StateError>;
}

/// Text could not be tokenized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the text of {bytes} bytes cannot be tokenized")]
pub struct TokenizeError {
    /// Length of the text.
    pub bytes: usize,
}

/// A decode call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No place in the KV cache for this batch; nothing was computed.
    #[error("no free KV cells for a batch of {tokens} tokens")]
    NoCells {
        /// Size of the batch.
        tokens: usize,
    },
    /// Aborted by request; a prefix of the batch may have been computed.
    #[error("decode was aborted")]
    Aborted,
    /// The library failed.
    #[error("decode failed with code {code}")]
    Failed {
        /// llama.cpp's return value.
        code: i32,
    },
}

/// A format could not be turned into a constraint, or was violated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConstraintError {
    /// For the client.
    pub message: String,
}

/// A sequence state could not be read or set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sequence state could not be {action}")]
pub struct StateError {
    /// `"read"` or `"set"`.
    pub action: &'static str,
}

impl fmt::Display for SeqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
