//! A request becomes token ids: template, context policy, tokenizer, constraint.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use firepot_chat::{
    ChatTemplate, ErrorKind, ForcedCall, GenerateError, GenerateRequest, Message, OutputConfig, OutputParser,
    Prompt, PromptReport, RenderInput, TemplateError, ThinkMarkers, ThinkMode, TokenId, Tool, ToolChoice,
    ToolStyle, fit, forced_call,
};
use firepot_engine::{Decoder, EngineRequest, Key, ThinkControl, Tokenizer, released};
use firepot_link::{GenerationId, Resume};

use crate::limits::{ANSWER_SHARE, LOGPROBS_MAX};

/// A request as it came over the link.
pub struct Job {
    pub id: GenerationId,
    pub request: GenerateRequest,
    pub client: u64,
    pub resume: Option<Resume>,
    pub since: Instant,
}

/// A request that the engine can run.
pub struct Prepared {
    pub id: GenerationId,
    pub request: EngineRequest,
    pub report: PromptReport,
    pub parser: OutputParser,
    pub since: Instant,
}

/// What stays the same for all requests to one model.
pub struct Preparer {
    tokenizer: Arc<dyn Tokenizer>,
    /// The model's template; an error when it has one that cannot be used.
    template: Result<ChatTemplate, TemplateError>,
    source: String,
    bos: String,
    eos: String,
    ctx: u32,
    vocab_size: u32,
    /// Tokens that end an answer.
    ends: Vec<TokenId>,
}

/// A prompt, and how its answer is read.
struct Rendered {
    ids: Vec<TokenId>,
    dropped_messages: u32,
    tools_ignored: bool,
    starts_thinking: bool,
    markers: Option<ThinkMarkers>,
    tool_style: Option<ToolStyle>,
    forced: Option<ForcedCall>,
}

impl Preparer {
    /// A preparer for the loaded model.
    pub fn new(decoder: &dyn Decoder) -> Self {
        let info = decoder.info();
        let tokenizer = decoder.tokenizer();
        let ends = (0..info.vocab_size as TokenId).filter(|&token| tokenizer.is_end(token)).collect();
        let source = info.chat_template.clone().unwrap_or_default();
        let template = match &info.chat_template {
            Some(source) => ChatTemplate::compile(source, &info.bos_text, &info.eos_text),
            None => Ok(ChatTemplate::plain()),
        };
        Self {
            tokenizer,
            template,
            source,
            bos: info.bos_text.clone(),
            eos: info.eos_text.clone(),
            ctx: info.ctx_per_answer,
            vocab_size: info.vocab_size,
            ends,
        }
    }

    /// Prepares a request.
    pub fn prepare(&self, job: Job) -> Result<Prepared, GenerateError> {
        let Job { id, mut request, client, resume, since } = job;
        self.check(&request)?;
        let (known, emitted) = resume.map_or((None, Vec::new()), |known| (Some(known.report), known.emitted));
        if let Some(report) = &known {
            request.sampling.seed = Some(report.seed);
            request.limits.max_tokens = Some(report.max_tokens);
        }
        let rendered = self.render(&request, known)?;
        let seed = *request.sampling.seed.get_or_insert_with(|| random(id));
        let room = self.ctx.saturating_sub(rendered.ids.len() as u32);
        if room == 0 {
            return Err(self.too_long(rendered.ids.len()));
        }
        let max_tokens = request.limits.max_tokens.unwrap_or(room).min(room);
        let format = rendered.forced.as_ref().map_or(&request.format, |forced| &forced.format);
        let constraint = self
            .tokenizer
            .constraint(format)
            .map_err(|error| GenerateError::new(ErrorKind::InvalidRequest, error.message))?;
        if request.limits.ignore_eos {
            if constraint.is_some() {
                let message =
                    "ignore_eos cannot be used with a format or a forced call, which end the answer";
                return Err(GenerateError::new(ErrorKind::InvalidRequest, message));
            }
            request.sampling.logit_bias.extend(self.ends.iter().map(|&end| (end, f32::NEG_INFINITY)));
        }
        let report = PromptReport {
            ids: rendered.ids.clone(),
            seed,
            dropped_messages: rendered.dropped_messages,
            tools_ignored: rendered.tools_ignored,
            starts_thinking: rendered.starts_thinking,
            max_tokens,
        };
        let parser = self.parser(&rendered, &emitted, &request.limits.stop, seed ^ id.0);
        let think = self.think_control(&rendered, request.thinking.budget_tokens)?;
        let request = EngineRequest {
            key: Key(id.0),
            prompt: rendered.ids,
            emitted,
            sampling: request.sampling,
            max_tokens,
            stop: request.limits.stop,
            constraint,
            think,
            logprobs: request.logprobs,
            print_special: rendered.markers.is_some() || rendered.tool_style.is_some(),
            strict: request.strict,
            uncached: request.uncached,
            client,
        };
        Ok(Prepared { id, request, report, parser, since })
    }

    fn check(&self, request: &GenerateRequest) -> Result<(), GenerateError> {
        let invalid = |message: String| Err(GenerateError::new(ErrorKind::InvalidRequest, message));
        let known = |id: &TokenId| u32::try_from(*id).is_ok_and(|id| id < self.vocab_size);
        let ids: &[TokenId] = match &request.prompt {
            Prompt::Tokens(ids) => ids,
            Prompt::Chat { context, .. } => context,
            Prompt::Text(_) => &[],
        };
        let bias = request.sampling.logit_bias.iter().map(|(id, _)| id);
        if let Some(id) = ids.iter().chain(bias).find(|id| !known(id)) {
            return invalid(format!("token {id} is not in the vocabulary of {} tokens", self.vocab_size));
        }
        if request.logprobs.is_some_and(|rivals| rivals > LOGPROBS_MAX) {
            return invalid(format!("at most {LOGPROBS_MAX} log-probabilities can be asked for"));
        }
        Ok(())
    }

    /// A prompt that is `known` is not tokenized again: only how its answer is read is found out.
    fn render(
        &self,
        request: &GenerateRequest,
        known: Option<PromptReport>,
    ) -> Result<Rendered, GenerateError> {
        let plain = |ids| Rendered {
            ids,
            dropped_messages: 0,
            tools_ignored: false,
            starts_thinking: false,
            markers: None,
            tool_style: None,
            forced: None,
        };
        match &request.prompt {
            Prompt::Tokens(_) | Prompt::Text(_) if let Some(report) = known => Ok(plain(report.ids)),
            Prompt::Tokens(ids) => Ok(plain(ids.clone())),
            Prompt::Text(text) => Ok(plain(self.tokenize(text)?)),
            Prompt::Chat { messages, tools, tool_choice, context, template } => {
                let own;
                let (template, source) = match template {
                    Some(source) => {
                        own = ChatTemplate::compile(source, &self.bos, &self.eos)
                            .map_err(|error| template_error(&error))?;
                        (&own, source.as_str())
                    }
                    None => (self.template.as_ref().map_err(template_error)?, self.source.as_str()),
                };
                let chat = Chat { preparer: self, request, template, source };
                chat.render(messages, tools, tool_choice, context, known)
            }
        }
    }

    /// Ids of a rendered prompt. Where the text begins with the beginning-of-sequence token, it is not added again.
    fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, GenerateError> {
        let add_special = self.bos.is_empty() || !text.starts_with(&self.bos);
        self.tokenizer
            .tokenize(text, add_special, true)
            .map_err(|error| GenerateError::new(ErrorKind::InvalidRequest, error.to_string()))
    }

    fn too_long(&self, tokens: usize) -> GenerateError {
        let message = format!("the prompt has {tokens} tokens and the context holds {}", self.ctx);
        GenerateError::new(ErrorKind::ContextOverflow, message)
    }

    fn think_control(
        &self,
        rendered: &Rendered,
        budget_tokens: Option<u32>,
    ) -> Result<Option<ThinkControl>, GenerateError> {
        let Some(markers) = rendered.markers else { return Ok(None) };
        let close_ids = self
            .tokenizer
            .tokenize(&format!("\n{}\n\n", markers.close), false, true)
            .map_err(|error| GenerateError::new(ErrorKind::InvalidRequest, error.to_string()))?;
        Ok(Some(ThinkControl {
            open: markers.open.to_owned(),
            close: markers.close.to_owned(),
            starts_inside: rendered.starts_thinking,
            budget_tokens,
            close_ids,
        }))
    }

    /// The parser, brought to where the prefix of a forced call and the emitted ids left it.
    fn parser(
        &self,
        rendered: &Rendered,
        emitted: &[TokenId],
        stop: &[String],
        id_seed: u64,
    ) -> OutputParser {
        let mut parser = OutputParser::new(OutputConfig {
            markers: rendered.markers,
            starts_thinking: rendered.starts_thinking,
            tool_style: rendered.tool_style,
            id_seed,
        });
        parser.push(rendered.forced.as_ref().map_or("", |forced| forced.prefix));
        let special = rendered.markers.is_some() || rendered.tool_style.is_some();
        let pieces = emitted.iter().map(|&token| {
            let mut bytes = Vec::new();
            self.tokenizer.piece(token, special, &mut bytes);
            bytes
        });
        // The engine gives what it holds back once more.
        parser.push(&released(stop, pieces));
        parser
    }
}

/// A conversation and the template that renders it.
struct Chat<'a> {
    preparer: &'a Preparer,
    request: &'a GenerateRequest,
    template: &'a ChatTemplate,
    source: &'a str,
}

impl Chat<'_> {
    fn render(
        &self,
        messages: &[Message],
        tools: &[Tool],
        choice: &ToolChoice,
        context: &[TokenId],
        known: Option<PromptReport>,
    ) -> Result<Rendered, GenerateError> {
        let abilities = self.template.abilities();
        let wanted = !tools.is_empty() && *choice != ToolChoice::None;
        let shown: &[Tool] = if wanted && abilities.tools { tools } else { &[] };
        let tool_style = (!shown.is_empty()).then(|| ToolStyle::detect(self.source));
        let forced = tool_style.map(|style| forced_call(style, shown, choice)).transpose()?.flatten();
        let mode = self.request.thinking.mode;
        if mode == ThinkMode::On && !abilities.thinking {
            return Err(GenerateError::new(ErrorKind::Unsupported, "the model does not support thinking"));
        }
        let (ids, starts_thinking, dropped_messages) = match known {
            Some(report) => (report.ids, report.starts_thinking, report.dropped_messages),
            None => self.fitted_ids(messages, shown, context, forced.as_ref())?,
        };
        Ok(Rendered {
            ids,
            dropped_messages,
            tools_ignored: wanted && !abilities.tools,
            starts_thinking,
            // A call that is forced leaves no room for thoughts.
            markers: self.template.think_markers().filter(|_| forced.is_none()),
            tool_style,
            forced,
        })
    }

    /// Ids of a conversation within the context, whether they end inside a thinking block, and how many turns were
    /// dropped.
    fn fitted_ids(
        &self,
        messages: &[Message],
        shown: &[Tool],
        context: &[TokenId],
        forced: Option<&ForcedCall>,
    ) -> Result<(Vec<TokenId>, bool, u32), GenerateError> {
        let ctx = self.preparer.ctx.saturating_sub(context.len() as u32);
        let budget = ctx - ctx / ANSWER_SHARE;
        let mut count = |messages: &[Message]| Ok(self.ids(messages, shown, forced)?.0.len() as u32);
        let fitted = fit(messages, self.request.overflow, ctx, budget, &mut count)?;
        let (ids, starts_thinking) = self.ids(&fitted.messages, shown, forced)?;
        Ok(([context, &ids].concat(), starts_thinking, fitted.dropped))
    }

    /// Ids of a conversation, and whether they end inside a thinking block.
    fn ids(
        &self,
        messages: &[Message],
        tools: &[Tool],
        forced: Option<&ForcedCall>,
    ) -> Result<(Vec<TokenId>, bool), GenerateError> {
        let thinking = self.request.thinking;
        let input =
            RenderInput { messages, tools, thinking: thinking.mode, effort: thinking.effort, today: today() };
        let mut text = self.template.render(&input).map_err(|error| template_error(&error))?;
        let mut starts_thinking = false;
        if let Some(markers) = self.template.think_markers() {
            starts_thinking = text.trim_end().ends_with(markers.open);
            // A template that always opens the block has no switch; the block is closed where it begins.
            if starts_thinking && (thinking.mode == ThinkMode::Off || forced.is_some()) {
                text.extend(["\n", markers.close, "\n\n"]);
                starts_thinking = false;
            }
        }
        text.push_str(forced.map_or("", |forced| forced.prefix));
        Ok((self.preparer.tokenize(&text)?, starts_thinking))
    }
}

fn template_error(error: &TemplateError) -> GenerateError {
    GenerateError::new(ErrorKind::InvalidRequest, error.to_string())
}

/// Days since 1970-01-01.
fn today() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| (time.as_secs() / 86_400) as i64)
}

/// A seed for a request without one, from the system's randomness by way of the hasher's keys. Below 2^53, so that every client's
/// JSON keeps it exactly.
fn random(id: GenerationId) -> u64 {
    RandomState::new().hash_one(id) >> 11
}
