//! A decoder without a model: exact, fast, and made to go wrong on request.
//!
//! Its logits are a pure function of a sequence's content, so every fault in positions, sharing or chunking shows as
//! different text. It counts KV cells exactly and refuses a batch that does not fit. It never stands in for a claim
//! about a real model.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use firepot_chat::{Format, TokenId};

use crate::{
    AbortHandle, Batch, Constraint, ConstraintError, DecodeError, Decoder, DecoderInfo, DeviceMemory,
    PrefixCut, SeqId, StateError, TokenizeError, Tokenizer,
};

/// Ends an answer.
pub const END: TokenId = 256;
/// Written `<think>`.
pub const THINK: TokenId = 257;
/// Written `</think>`.
pub const END_THINK: TokenId = 258;
/// Written `<|user|>`; a question begins.
pub const USER: TokenId = 259;
/// Written `<|answer|>`; the answer begins.
pub const ANSWER: TokenId = 260;
/// Bytes and specials.
pub const VOCAB: usize = 261;

const SPECIALS: [(TokenId, &str); 5] = [
    (END, "<|end|>"),
    (THINK, "<think>"),
    (END_THINK, "</think>"),
    (USER, "<|user|>"),
    (ANSWER, "<|answer|>"),
];

/// A chat template in the fake vocabulary.
pub const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}\
{% elif m.role == 'assistant' %}<|answer|>{{ m.content }}<|end|>{% else %}{{ m.content }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|answer|>{% endif %}";

/// What greedy decoding says.
#[derive(Clone, Debug, Default)]
pub enum Reply {
    /// Letters that depend on everything before them; never ends by itself.
    #[default]
    Hash,
    /// This text (specials parsed), then the end.
    Text(String),
    /// The last question again, then the end.
    Echo,
}

/// Called before each decode call with its number, from 1; may sleep, abort the process, or fail the call.
pub type DecodeHook = Box<dyn FnMut(u64) -> Result<(), DecodeError> + Send>;

/// How a fake decoder behaves.
pub struct FakeConfig {
    /// What greedy decoding says.
    pub reply: Reply,
    /// Context of one answer.
    pub ctx_per_answer: u32,
    /// KV cells in all.
    pub kv_cells: u32,
    /// Answers at the same time.
    pub parallel: u32,
    /// Sequences in all.
    pub max_sequences: u32,
    /// Most tokens in one call.
    pub batch_tokens: u32,
    /// Where sequences may be cut.
    pub prefix_cut: PrefixCut,
    /// Reported time for each call.
    pub call_time: Duration,
    /// Reported time for each token of a call.
    pub token_time: Duration,
    /// Whether the reported time is really spent.
    pub sleep: bool,
    /// Chat template; `None` for a model without one.
    pub template: Option<String>,
    /// Called before each decode call.
    pub hook: Option<DecodeHook>,
}

impl Default for FakeConfig {
    fn default() -> Self {
        Self {
            reply: Reply::default(),
            ctx_per_answer: 512,
            kv_cells: 2048,
            parallel: 4,
            max_sequences: 16,
            batch_tokens: 512,
            prefix_cut: PrefixCut::Anywhere,
            call_time: Duration::from_millis(1),
            token_time: Duration::from_micros(100),
            sleep: false,
            template: Some(TEMPLATE.to_owned()),
            hook: None,
        }
    }
}

/// The fake vocabulary: bytes, and a few specials written as in their constants.
#[derive(Clone, Copy, Debug)]
pub struct FakeTokenizer;

impl Tokenizer for FakeTokenizer {
    fn tokenize(&self, text: &str, _: bool, parse_special: bool) -> Result<Vec<TokenId>, TokenizeError> {
        let mut ids = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(&byte) = rest.as_bytes().first() {
            let special = SPECIALS.iter().find(|(_, name)| parse_special && rest.starts_with(name));
            if let Some((id, name)) = special {
                ids.push(*id);
                rest = &rest[name.len()..];
            } else {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                ids.extend(rest.as_bytes()[..length].iter().map(|&byte| TokenId::from(byte)));
                debug_assert_eq!(ids[ids.len() - length], TokenId::from(byte));
                rest = &rest[length..];
            }
        }
        Ok(ids)
    }

    fn piece(&self, token: TokenId, special: bool, out: &mut Vec<u8>) {
        match (u8::try_from(token), SPECIALS.iter().find(|(id, _)| *id == token)) {
            (Ok(byte), _) => out.push(byte),
            (_, Some((_, name))) if special => out.extend_from_slice(name.as_bytes()),
            _ => {}
        }
    }

    fn is_end(&self, token: TokenId) -> bool {
        token == END
    }

    fn constraint(&self, format: &Format) -> Result<Option<Box<dyn Constraint>>, ConstraintError> {
        match format {
            Format::Free => Ok(None),
            Format::Json | Format::Schema(serde_json::Value::Object(_)) => {
                Ok(Some(Box::new(Exactly::new("{\"a\": 1}"))))
            }
            Format::Gbnf(text) => Ok(Some(Box::new(Exactly::new(text)))),
            Format::Schema(other) => Err(ConstraintError { message: format!("{other} is not a schema") }),
        }
    }
}

/// A constraint that one text, then the end, fulfils.
#[derive(Clone)]
struct Exactly {
    ids: Vec<TokenId>,
    at: usize,
}

impl Exactly {
    fn new(text: &str) -> Self {
        let mut ids: Vec<TokenId> = text.bytes().map(TokenId::from).collect();
        ids.push(END);
        Self { ids, at: 0 }
    }
}

impl Constraint for Exactly {
    fn mask(&mut self, logits: &mut [f32]) {
        for (id, logit) in logits.iter_mut().enumerate() {
            if self.ids.get(self.at) != Some(&(id as TokenId)) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn allows(&mut self, token: TokenId) -> bool {
        self.ids.get(self.at) == Some(&token)
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        if !self.allows(token) {
            return Err(ConstraintError { message: format!("token {token} is not allowed") });
        }
        self.at += 1;
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// A cell: one token at one position, held by one or more sequences.
type Cell = Arc<TokenId>;

/// See the module's description.
pub struct FakeDecoder {
    config: FakeConfig,
    info: DecoderInfo,
    sequences: HashMap<SeqId, BTreeMap<u32, Cell>>,
    rows: HashMap<usize, Vec<f32>>,
    calls: u64,
    progress: Arc<AtomicU64>,
    abort: AbortHandle,
    /// Largest number of cells that were ever in use.
    pub cells_peak: u32,
}

impl FakeDecoder {
    /// A decoder that behaves like this.
    #[must_use]
    pub fn new(config: FakeConfig) -> Self {
        let info = DecoderInfo {
            architecture: "fake".into(),
            description: "fake decoder".into(),
            vocab_size: VOCAB as u32,
            ctx_train: config.ctx_per_answer,
            ctx_per_answer: config.ctx_per_answer,
            kv_cells: config.kv_cells,
            max_sequences: config.max_sequences,
            parallel: config.parallel,
            batch_tokens: config.batch_tokens,
            chat_template: config.template.clone(),
            bos_text: String::new(),
            eos_text: "<|end|>".into(),
            prefix_cut: config.prefix_cut,
            memory: vec![DeviceMemory {
                device: "CPU".into(),
                weights_bytes: 1,
                kv_bytes: 1,
                compute_bytes: 1,
            }],
            build: "fake".into(),
        };
        Self {
            config,
            info,
            sequences: HashMap::new(),
            rows: HashMap::new(),
            calls: 0,
            progress: Arc::default(),
            abort: AbortHandle::default(),
            cells_peak: 0,
        }
    }

    /// Cells in use now.
    #[must_use]
    pub fn cells_used(&self) -> u32 {
        let mut cells: Vec<*const TokenId> =
            self.sequences.values().flat_map(|s| s.values().map(Arc::as_ptr)).collect();
        cells.sort_unstable();
        cells.dedup();
        cells.len() as u32
    }

    /// The tokens that a sequence holds.
    #[must_use]
    pub fn content(&self, sequence: SeqId) -> Vec<TokenId> {
        self.sequences
            .get(&sequence)
            .into_iter()
            .flat_map(|cells| cells.values().map(|cell| **cell))
            .collect()
    }

    fn check(&self, batch: &Batch) -> Result<(), DecodeError> {
        let tokens = batch.items.len();
        if tokens > self.config.batch_tokens as usize || tokens == 0 {
            return Err(DecodeError::Failed { code: -1 });
        }
        if self.cells_used() as usize + tokens > self.config.kv_cells as usize {
            return Err(DecodeError::NoCells { tokens });
        }
        Ok(())
    }

    fn logits_of(&self, content: &[TokenId]) -> Vec<f32> {
        let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &token| {
            (hash ^ token as u64).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let noise = |id: usize| {
            let bits = hash.wrapping_add(id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (bits >> 40) as f32 / (1_u64 << 24) as f32
        };
        let mut logits: Vec<f32> = (0..VOCAB).map(noise).collect();
        logits[self.next(content, hash) as usize] = 9.0;
        logits
    }

    /// Passes this time, unless it is aborted.
    fn spend(&self, time: Duration) -> Result<(), DecodeError> {
        const STEP: Duration = Duration::from_millis(1);
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if self.abort.take() {
                return Err(DecodeError::Aborted);
            }
            std::thread::sleep(left.min(STEP));
        }
        Ok(())
    }

    /// The token that greedy decoding takes.
    fn next(&self, content: &[TokenId], hash: u64) -> TokenId {
        let start = content.iter().rposition(|&token| token == ANSWER).map(|at| at + 1);
        let said =
            |ids: &[TokenId]| ids.get(content.len() - start.unwrap_or_default()).copied().unwrap_or(END);
        match (&self.config.reply, start) {
            (Reply::Text(text), Some(_)) => {
                said(&FakeTokenizer.tokenize(text, false, true).unwrap_or_default())
            }
            (Reply::Echo, Some(start)) => {
                let from = content[..start].iter().rposition(|&token| token == USER).map_or(0, |at| at + 1);
                said(&content[from..start - 1])
            }
            _ => TokenId::from(b'a' + (hash % 26) as u8),
        }
    }
}

impl Decoder for FakeDecoder {
    fn info(&self) -> &DecoderInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::new(FakeTokenizer)
    }

    fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress)
    }

    fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    fn decode(&mut self, batch: &Batch) -> Result<Duration, DecodeError> {
        self.calls += 1;
        if let Some(hook) = &mut self.config.hook {
            hook(self.calls)?;
        }
        self.check(batch)?;
        let elapsed = self.config.call_time + self.config.token_time * batch.items.len() as u32;
        if self.config.sleep {
            self.spend(elapsed)?;
        }
        self.rows.clear();
        for (index, item) in batch.items.iter().enumerate() {
            let cells = self.sequences.entry(item.sequence).or_default();
            let expected = cells.last_key_value().map_or(0, |(position, _)| position + 1);
            if item.position != expected {
                return Err(DecodeError::Failed { code: -2 });
            }
            cells.insert(item.position, Arc::new(item.token));
            if item.logits {
                let content = self.content(item.sequence);
                self.rows.insert(index, self.logits_of(&content));
            }
        }
        self.cells_peak = self.cells_peak.max(self.cells_used());
        self.progress.fetch_add(1, Ordering::Relaxed);
        Ok(elapsed)
    }

    fn logits(&mut self, item: usize) -> &[f32] {
        self.rows.get(&item).map_or(&[], Vec::as_slice)
    }

    fn remove(&mut self, sequence: SeqId, from: u32, to: Option<u32>) -> bool {
        let Some(cells) = self.sequences.get_mut(&sequence) else { return true };
        let whole = from == 0 && to.is_none();
        let at_end = cells.last_key_value().is_none_or(|(last, _)| from > *last);
        if self.config.prefix_cut == PrefixCut::Nowhere && !whole && !at_end {
            return false;
        }
        cells.retain(|&position, _| position < from || to.is_some_and(|to| position >= to));
        true
    }

    fn share(&mut self, from: SeqId, to: SeqId, until: u32) {
        let cells = self.sequences.get(&from).cloned().unwrap_or_default();
        let kept = cells.into_iter().filter(|(position, _)| *position < until).collect();
        self.sequences.insert(to, kept);
    }

    fn pos_min(&self, sequence: SeqId) -> Option<u32> {
        self.sequences.get(&sequence)?.first_key_value().map(|(position, _)| *position)
    }

    fn pos_max(&self, sequence: SeqId) -> Option<u32> {
        self.sequences.get(&sequence)?.last_key_value().map(|(position, _)| *position)
    }

    fn state_bytes(&mut self, sequence: SeqId) -> u64 {
        self.sequences.get(&sequence).map_or(0, |cells| cells.len() as u64 * 4)
    }

    fn snapshot(&mut self, sequence: SeqId) -> Result<Vec<u8>, StateError> {
        Ok(self.content(sequence).iter().flat_map(|token| token.to_le_bytes()).collect())
    }

    fn restore(&mut self, sequence: SeqId, state: &[u8]) -> Result<(), StateError> {
        let (tokens, rest) = state.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(StateError { action: "set" });
        }
        let cells = tokens
            .iter()
            .enumerate()
            .map(|(at, bytes)| (at as u32, Arc::new(TokenId::from_le_bytes(*bytes))));
        self.sequences.insert(sequence, cells.collect());
        Ok(())
    }
}
