//! Every limit that a request is held to, in one place. What is over a limit is refused with the limit in the
//! message; nothing is cut. How many requests wait or run is not decided here but by the server and the
//! engine.

use std::ops::RangeInclusive;

/// Largest request body. Open WebUI's first turn with 36 tools is 25 kB; the rest is room for long documents.
pub const MAX_BODY_BYTES: usize = 32 << 20;

/// Length of a model's name; Ollama's registry allows about 600.
pub const MAX_MODEL_NAME_BYTES: usize = 1024;

/// Longest Modelfile; licences are its longest part.
pub const MAX_MODELFILE_BYTES: usize = 4 << 20;

/// Files of one model: the parts of a split one and a projector.
pub const MAX_MODEL_FILES: usize = 1000;

/// Licences of one model.
pub const MAX_LICENSES: usize = 64;

/// Characters of a client's text that an error or a warning repeats; the rest is an ellipsis.
pub const MAX_QUOTED_CHARS: usize = 80;

/// Unknown fields that are reported by name, in each object.
pub const MAX_WARNED_FIELDS: usize = 16;

/// Turns of one conversation.
pub const MAX_MESSAGES: usize = 8192;

/// Tools in one request. OpenAI's own limit is 128.
pub const MAX_TOOLS: usize = 256;

/// Tool calls in one assistant turn.
pub const MAX_TOOL_CALLS: usize = 256;

/// Text parts in one message.
pub const MAX_PARTS: usize = 1024;

/// Stop strings. OpenAI allows 4; Ollama has no limit, and some models' parameters list a dozen.
pub const MAX_STOPS: usize = 32;

/// Length of one stop string: each is compared at every token, and this much output is held back.
pub const MAX_STOP_BYTES: usize = 1024;

/// Answers to one prompt (`n`).
pub const MAX_CHOICES: usize = 8;

/// Prompts in one `/v1/completions` request.
pub const MAX_PROMPTS: usize = 32;

/// Generations of one request: prompts times choices.
pub const MAX_GENERATIONS: usize = 32;

/// Entries of `logit_bias`.
pub const MAX_LOGIT_BIAS: usize = 1024;

/// Token ids given in a request: `context`, or a prompt of ids.
pub const MAX_PROMPT_IDS: usize = 1 << 20;

/// Rivals reported for each token (`top_logprobs`), as at OpenAI and Ollama.
pub const MAX_TOP_LOGPROBS: i64 = 20;

/// The same for `/v1/completions` (`logprobs`), as at OpenAI.
pub const MAX_COMPLETION_LOGPROBS: i64 = 5;

/// Tokens of an answer or of its thinking block.
pub const MAX_TOKENS: i64 = i32::MAX as i64;

/// Largest integer that every client's JSON keeps exactly, 2^53 - 1.
pub const MAX_EXACT_INT: i64 = (1 << 53) - 1;

/// Tokens of a context (`num_ctx`); no model known reaches it.
pub const MAX_CTX: i64 = 1 << 24;

/// Tokens of a batch (`num_batch`).
pub const MAX_BATCH: i64 = 1 << 16;

/// Layers on a GPU (`num_gpu`). Clients send 999 and 99999 to say "all".
pub const MAX_GPU_LAYERS: i64 = 1_000_000;

/// Index of a GPU (`main_gpu`).
pub const MAX_GPU_INDEX: i64 = 255;

/// Threads (`num_thread`).
pub const MAX_THREADS: i64 = 1024;

/// Longest `keep_alive`: a century. Longer is an error; forever is any negative value.
pub const MAX_KEEP_ALIVE_SECS: f64 = 3_155_760_000.0;

/// Ollama's `temperature`; wider than OpenAI's because Ollama itself has no bound.
pub const TEMPERATURE: RangeInclusive<f64> = 0.0..=10.0;

/// OpenAI's `temperature`.
pub const OPENAI_TEMPERATURE: RangeInclusive<f64> = 0.0..=2.0;

/// `top_k`; 0 and -1 keep all, as vLLM and llama.cpp have it.
pub const TOP_K: RangeInclusive<i64> = -1..=1_000_000;

/// `top_p`, `min_p` and `typical_p`.
pub const PROBABILITY: RangeInclusive<f64> = 0.0..=1.0;

/// `repeat_penalty`; a divisor, so never 0.
pub const REPEAT_PENALTY: RangeInclusive<f64> = 0.01..=10.0;

/// `repeat_last_n`; 0 none, -1 all.
pub const REPEAT_LAST_N: RangeInclusive<i64> = -1..=MAX_CTX;

/// `presence_penalty` and `frequency_penalty`, as at OpenAI.
pub const ADDITIVE_PENALTY: RangeInclusive<f64> = -2.0..=2.0;

/// Values of `logit_bias`, as at OpenAI.
pub const LOGIT_BIAS: RangeInclusive<f64> = -100.0..=100.0;

/// Seconds after which a client may try again when the queue was full.
pub const RETRY_AFTER_QUEUE_SECS: u32 = 2;

/// Seconds after which a client may try again when the runner died; its first restart is immediate.
pub const RETRY_AFTER_RUNNER_SECS: u32 = 1;

/// Seconds after which a client may try again when the server is shutting down.
pub const RETRY_AFTER_SHUTDOWN_SECS: u32 = 5;

/// Seconds after which a client may try again that sent too many requests.
pub const RETRY_AFTER_TOO_MANY_SECS: u32 = 1;
