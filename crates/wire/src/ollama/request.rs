//! What `/api/chat` and `/api/generate` ask for.

use firepot_chat::{
    Effort, Format, GenerateRequest, Message, Overflow, Prompt, Role, ThinkMode, Thinking, TokenId,
    ToolChoice, is_go_template,
};
use serde_json::Value;

use super::{KeepAlive, LoadOptions, options::Options};
use crate::{
    ApiError, Mode, Said, common,
    fields::{Field, Fields, parse_object},
    limits, tools,
};

/// A request of `/api/chat` or `/api/generate`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The model as the client wrote it; answers repeat it.
    pub model: String,
    /// What is to be done with it.
    pub action: Action,
    /// Which response the client expects.
    pub shape: Shape,
    /// Whether it wants a stream; the default.
    pub mode: Mode,
    /// How long the model stays loaded afterwards; `None`: as set for the server.
    pub keep_alive: Option<KeepAlive>,
    /// Wishes for loading the model.
    pub load: LoadOptions,
    /// The options that it says itself: a model's own defaults do not touch them.
    pub said: Said,
    /// Whether it wants a line for each step, with token ids (`firepot.stamps`).
    pub stamps: bool,
    /// What the request says to no effect, for a header and the log.
    pub warnings: Vec<String>,
}

/// What is to be done with a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Load it and nothing else: there was no prompt.
    Load,
    /// Unload it: there was no prompt, and `keep_alive` is zero.
    Unload,
    /// Answer.
    Generate(Box<GenerateRequest>),
}

/// Which response a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `message`.
    Chat,
    /// `response`, and `context` at the end.
    Generate,
    /// `response`; `raw` leaves the context out.
    Raw,
}

/// Reads the body of `POST /api/chat`: `model`, `messages`, `tools`, and what [`generate_from_wire`] has in
/// common with it (`options`, `format`, `think`, `keep_alive`, `stream`, `truncate`, `shift`, `logprobs`,
/// `top_logprobs`, our own `firepot.stamps`).
///
/// `truncate` is true by default: the oldest turns are dropped when the context is too small, and the answer
/// says so. `shift` has no effect, because a running answer's context is never shifted.
///
/// # Errors
/// The first field that cannot be used, by name.
pub fn chat_from_wire(body: &[u8]) -> Result<Parsed, ApiError> {
    let map = parse_object(body)?;
    let body = Fields::root(&map);
    let model = common::model(body.get("model"))?;
    let prompt = Prompt::Chat {
        messages: messages(&body)?,
        tools: tools::tools(&body)?,
        tool_choice: ToolChoice::Auto,
        context: Vec::new(),
        template: None,
    };
    let empty = matches!(&prompt, Prompt::Chat { messages, .. } if messages.is_empty());
    finish(&body, model, Shape::Chat, (!empty).then_some(prompt))
}

/// Reads the body of `POST /api/generate`: `model`, `prompt`, `system`, `template`, `context`, `raw`,
/// `suffix`, `images`, and what [`chat_from_wire`] has in common with it.
///
/// # Errors
/// The first field that cannot be used, by name.
pub fn generate_from_wire(body: &[u8]) -> Result<Parsed, ApiError> {
    let map = parse_object(body)?;
    let body = Fields::root(&map);
    let model = common::model(body.get("model"))?;
    refuse_insert_and_vision(&body)?;
    let text = body.filled_string("prompt")?;
    let shape = if body.bool("raw")?.unwrap_or(false) { Shape::Raw } else { Shape::Generate };
    let prompt = match shape {
        Shape::Raw => raw_prompt(&body, text)?,
        _ => templated_prompt(&body, text)?,
    };
    finish(&body, model, shape, prompt)
}

/// Reads what both requests have in common. No prompt means that the model is only loaded or unloaded.
fn finish(
    body: &Fields<'_>,
    model: String,
    shape: Shape,
    prompt: Option<Prompt>,
) -> Result<Parsed, ApiError> {
    let mut options = Options::from_body(body)?;
    let keep_alive = body.get("keep_alive").map(|f| KeepAlive::from_field(&f)).transpose()?;
    let mode = Mode::from_stream(body.bool("stream")?.unwrap_or(true));
    let (load, mut warnings) = (options.load, std::mem::take(&mut options.warnings));
    // Without a prompt the other fields are checked all the same.
    let answers = prompt.is_some();
    let request = request(body, options, prompt.unwrap_or(Prompt::Text(String::new())))?;
    let action = if answers {
        Action::Generate(Box::new(request))
    } else if keep_alive.is_some_and(KeepAlive::is_zero) {
        Action::Unload
    } else {
        Action::Load
    };
    let stamps = stamps(body)?;
    warnings.extend(common::unknown_fields(body));
    Ok(Parsed { model, action, shape, mode, keep_alive, load, said: said(body), stamps, warnings })
}

/// `firepot`: our own extension.
fn stamps(body: &Fields<'_>) -> Result<bool, ApiError> {
    let ours = body.object("firepot")?;
    Ok(ours.map(|ours| ours.bool("stamps")).transpose()?.flatten().unwrap_or(false))
}

fn request(body: &Fields<'_>, options: Options, prompt: Prompt) -> Result<GenerateRequest, ApiError> {
    refuse_debug_render(body)?;
    // A running answer's context is never shifted, so there is nothing that `shift` could switch.
    body.bool("shift")?;
    let truncate = body.bool("truncate")?.unwrap_or(true);
    Ok(GenerateRequest {
        prompt,
        sampling: options.sampling,
        limits: options.limits,
        format: format(body)?,
        thinking: thinking(body, options.thinking_budget)?,
        overflow: if truncate { Overflow::DropOldest } else { Overflow::Refuse },
        logprobs: common::logprobs(body)?,
        strict: options.strict,
        uncached: options.uncached,
    })
}

/// What stands in `options`, and `think_budget` beside it.
fn said(body: &Fields<'_>) -> Said {
    let options = body.get("options").and_then(|field| field.value.as_object());
    let budget = body.get("think_budget").map(|_| "thinking_budget");
    options.map_or_else(Said::default, Said::of).and(budget)
}

fn messages(body: &Fields<'_>) -> Result<Vec<Message>, ApiError> {
    let items = body.array("messages", limits::MAX_MESSAGES)?;
    let mut messages: Vec<_> =
        items.iter().enumerate().map(|(i, item)| message(i, item)).collect::<Result<_, _>>()?;
    tools::link_results(&mut messages);
    Ok(messages)
}

fn message(index: usize, item: &Field<'_>) -> Result<Message, ApiError> {
    let message = item.object()?;
    refuse_images(&message)?;
    Ok(Message {
        role: role(&message.required("role")?)?,
        content: message.string("content")?.unwrap_or_default().to_owned(),
        thinking: message.owned_string("thinking")?,
        tool_calls: tools::tool_calls(&message, index)?,
        tool_call_id: message.owned_string("tool_call_id")?,
        tool_name: message.owned_string("tool_name")?,
    })
}

fn role(field: &Field<'_>) -> Result<Role, ApiError> {
    match field.string()?.to_lowercase().as_str() {
        "system" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        _ => Err(field.must_say("one of system, user, assistant, tool")),
    }
}

fn raw_prompt(body: &Fields<'_>, text: Option<&str>) -> Result<Option<Prompt>, ApiError> {
    let context = body.array("context", limits::MAX_PROMPT_IDS)?;
    let template = body.filled_string("template")?;
    if template.is_some() || body.filled_string("system")?.is_some() || !context.is_empty() {
        return Err(ApiError::invalid("raw", "cannot be used with template, system or context"));
    }
    Ok(text.map(|text| Prompt::Text(text.to_owned())))
}

fn templated_prompt(body: &Fields<'_>, text: Option<&str>) -> Result<Option<Prompt>, ApiError> {
    let system = body.filled_string("system")?;
    let (context, template) = (context(body)?, template(body)?);
    let Some(text) = text else { return Ok(None) };
    let turns = [(Role::System, system), (Role::User, Some(text))];
    let messages = turns.into_iter().filter_map(|(role, text)| Some(Message::text(role, text?))).collect();
    let tool_choice = ToolChoice::Auto;
    Ok(Some(Prompt::Chat { messages, tools: Vec::new(), tool_choice, context, template }))
}

fn context(body: &Fields<'_>) -> Result<Vec<TokenId>, ApiError> {
    let items = body.array("context", limits::MAX_PROMPT_IDS)?;
    items.iter().map(|item| item.int(0..=i64::from(TokenId::MAX)).map(|id| id as TokenId)).collect()
}

fn template(body: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(template) = body.filled_string("template")? else { return Ok(None) };
    if is_go_template(template) {
        let error = ApiError::unsupported("template", "is written in Go's template language");
        return Err(error.with_hint("write it in Jinja, as the model's own chat template is"));
    }
    Ok(Some(template.to_owned()))
}

/// The warning for a template of a model that is not used for what it is written in.
pub(crate) fn go_template(what: &str) -> String {
    format!("{what} is written in Go's template language: it is kept, and the model file's own is used")
}

/// `format`: nothing, `"json"`, or a schema.
fn format(body: &Fields<'_>) -> Result<Format, ApiError> {
    let Some(field) = body.get("format") else { return Ok(Format::Free) };
    match field.value {
        Value::Object(_) => Ok(Format::Schema(field.value.clone())),
        Value::String(text) => match text.as_str() {
            "" => Ok(Format::Free),
            "json" => Ok(Format::Json),
            _ => Err(field.must_say("\"json\" or a JSON schema")),
        },
        _ => Err(field.must_be("\"json\" or a JSON schema")),
    }
}

/// `think`, and our own extension `think_budget` (tokens), which `options.thinking_budget` can stand for.
fn thinking(body: &Fields<'_>, option: Option<u32>) -> Result<Thinking, ApiError> {
    let (mode, effort) = body.get("think").map_or(Ok((ThinkMode::Auto, None)), |f| think(&f))?;
    let budget_tokens = common::thinking_budget(body, "think_budget")?.or(option);
    common::check_thinking(Thinking { mode, effort, budget_tokens }, "think_budget")
}

fn think(field: &Field<'_>) -> Result<(ThinkMode, Option<Effort>), ApiError> {
    const WHAT: &str = "a boolean or one of \"low\", \"medium\", \"high\", \"max\"";
    let effort = match field.value {
        Value::Bool(true) => return Ok((ThinkMode::On, None)),
        Value::Bool(false) => return Ok((ThinkMode::Off, None)),
        Value::String(text) => match text.as_str() {
            "" => return Ok((ThinkMode::Auto, None)),
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            "high" => Effort::High,
            "max" => Effort::Max,
            _ => return Err(field.must_say(WHAT)),
        },
        _ => return Err(field.must_be(WHAT)),
    };
    Ok((ThinkMode::On, Some(effort)))
}

fn refuse_insert_and_vision(body: &Fields<'_>) -> Result<(), ApiError> {
    if body.filled_string("suffix")?.is_some() {
        return Err(ApiError::unsupported(
            "suffix",
            "is not supported: no model here has the insert capability",
        ));
    }
    refuse_images(body)
}

fn refuse_images(fields: &Fields<'_>) -> Result<(), ApiError> {
    match fields.array("images", usize::MAX)?.first() {
        Some(_) => Err(ApiError::unsupported(
            fields.path_of("images"),
            "is not supported: no model here has the vision capability",
        )),
        None => Ok(()),
    }
}

fn refuse_debug_render(body: &Fields<'_>) -> Result<(), ApiError> {
    if body.bool("_debug_render_only")?.unwrap_or(false) {
        return Err(ApiError::unsupported("_debug_render_only", "is not supported"));
    }
    Ok(())
}
