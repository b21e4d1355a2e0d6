//! A model's chat template: Jinja, as Hugging Face's `transformers` runs it.
//!
//! Templates come with model files and are not trusted: steps, depth and output are bounded, and they can reach nothing but
//! their arguments. The crate reads no clock, so the date is an argument too.

use minijinja::{
    Environment, ErrorKind as JinjaKind, UndefinedBehavior, Value as Jinja, context, syntax::SyntaxConfig,
    value::Serde,
};
use serde_json::{Value, json};

use crate::{
    Effort, Message, Role, ThinkMode, Tool,
    json_text::{compact, indented},
};

/// Steps that a template may take; real ones need a few hundred for each message.
const FUEL: u64 = 20_000_000;
/// Longest text that a template may render.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Longest template.
const SOURCE_BYTES_MAX: usize = 1 << 20;

const NAME: &str = "chat";

/// Used for a model without a template.
const PLAIN: &str = "\
{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n\
{% elif m.role == 'user' %}User: {{ m.content }}\n\
{% elif m.role == 'tool' %}Tool: {{ m.content }}\n\
{% else %}Assistant: {{ m.content }}\n{% endif %}{% endfor %}\
{% if add_generation_prompt %}Assistant:{% endif %}";

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    abilities: Abilities,
    markers: Option<ThinkMarkers>,
    bos: String,
    eos: String,
}

/// What a template has a place for, found by looking at it and trying it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent abilities")]
pub struct Abilities {
    /// Tools reach the model.
    pub tools: bool,
    /// The model thinks before it answers.
    pub thinking: bool,
    /// Thinking can be switched off (`enable_thinking`).
    pub thinking_toggle: bool,
    /// It knows a reasoning effort.
    pub effort: bool,
    /// System messages are accepted.
    pub system: bool,
}

/// The text around a thinking block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinkMarkers {
    /// Opens the block.
    pub open: &'static str,
    /// Closes it.
    pub close: &'static str,
}

/// What is rendered.
#[derive(Clone, Copy, Debug)]
pub struct RenderInput<'a> {
    /// Turns, oldest first.
    pub messages: &'a [Message],
    /// Functions that the model may call.
    pub tools: &'a [Tool],
    /// Whether the model is asked to think.
    pub thinking: ThinkMode,
    /// How hard.
    pub effort: Option<Effort>,
    /// Today, for templates that ask: days since 1970-01-01.
    pub today: i64,
}

/// A template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is not valid Jinja.
    #[error("the chat template is not valid: {reason}")]
    Invalid {
        /// Where and why.
        reason: String,
    },
    /// It refuses this conversation (`raise_exception`).
    #[error("the chat template refuses this conversation: {reason}")]
    Refused {
        /// Its own words.
        reason: String,
    },
    /// It failed or took too long.
    #[error("the chat template failed: {reason}")]
    Failed {
        /// Where and why.
        reason: String,
    },
}

impl ChatTemplate {
    /// Compiles a model's template.
    ///
    /// # Errors
    /// [`TemplateError::Invalid`].
    pub fn compile(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            let reason = format!("it is longer than {SOURCE_BYTES_MAX} bytes");
            return Err(TemplateError::Invalid { reason });
        }
        let mut environment = environment();
        environment
            .add_template_owned(NAME, without_generation_blocks(source))
            .map_err(|error| TemplateError::Invalid { reason: describe(&error) })?;
        let (bos, eos) = (bos.to_owned(), eos.to_owned());
        let mut template =
            Self { environment, abilities: Abilities::default(), markers: markers(source), bos, eos };
        template.abilities = template.probe(source);
        Ok(template)
    }

    /// The template for a model that has none: turns with names before them.
    #[must_use]
    pub fn plain() -> Self {
        Self::compile(PLAIN, "", "")
            .unwrap_or_else(|error| unreachable!("the plain template is valid: {error}"))
    }

    /// What it has a place for.
    #[must_use]
    pub const fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// The text around a thinking block, for a model that thinks.
    #[must_use]
    pub const fn think_markers(&self) -> Option<ThinkMarkers> {
        self.markers
    }

    /// Renders a conversation up to where the answer begins. When the last message is the assistant's, its text stands there
    /// already and the answer continues it.
    ///
    /// # Errors
    /// When the template refuses or fails.
    pub fn render(&self, input: &RenderInput<'_>) -> Result<String, TemplateError> {
        let (begun, messages) = match input.messages.split_last() {
            Some((last, before)) if last.role == Role::Assistant && last.tool_calls.is_empty() => {
                (last.content.as_str(), before)
            }
            _ => ("", input.messages),
        };
        let folded = if self.abilities.system { None } else { fold_system(messages) };
        let mut text = self.run(folded.as_deref().unwrap_or(messages), input)?;
        text.push_str(begun);
        if text.len() > OUTPUT_BYTES_MAX {
            return Err(TemplateError::Failed {
                reason: format!("it renders more than {OUTPUT_BYTES_MAX} bytes"),
            });
        }
        Ok(text)
    }

    fn run(&self, messages: &[Message], input: &RenderInput<'_>) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|error| failure(&error))?;
        let messages: Vec<Value> = messages.iter().map(message_json).collect();
        let tools: Vec<Value> = input.tools.iter().map(tool_json).collect();
        let optional = |value: Option<Jinja>| value.unwrap_or(Jinja::UNDEFINED);
        let enable = match input.thinking {
            ThinkMode::Auto => None,
            ThinkMode::On => Some(Jinja::from(true)),
            ThinkMode::Off => Some(Jinja::from(false)),
        };
        let arguments = context! {
            messages => Jinja::from(Serde(&messages)),
            tools => if tools.is_empty() { Jinja::from(()) } else { Jinja::from(Serde(&tools)) },
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            enable_thinking => optional(enable),
            reasoning_effort => optional(input.effort.map(|effort| Jinja::from(effort.as_str()))),
            firepot_today => input.today,
        };
        template.render(arguments).map_err(|error| failure(&error))
    }

    fn probe(&self, source: &str) -> Abilities {
        const SENTINEL: &str = "firepot_sentinel";
        let user = Message::text(Role::User, "hi");
        let tool = Tool {
            name: SENTINEL.into(),
            description: Some("d".into()),
            parameters: json!({"type": "object"}),
        };
        let input =
            RenderInput { messages: &[], tools: &[], thinking: ThinkMode::Auto, effort: None, today: 0 };
        let shows = |messages: &[Message], tools: &[Tool]| {
            self.run(messages, &RenderInput { tools, ..input }).is_ok_and(|text| text.contains(SENTINEL))
        };
        let system = Message::text(Role::System, SENTINEL);
        Abilities {
            tools: shows(std::slice::from_ref(&user), std::slice::from_ref(&tool)),
            thinking: self.markers.is_some(),
            thinking_toggle: source.contains("enable_thinking"),
            effort: source.contains("reasoning_effort"),
            system: shows(&[system, user.clone()], &[]),
        }
    }
}

/// The text around thinking blocks, if the template knows of them.
fn markers(source: &str) -> Option<ThinkMarkers> {
    let known = [("<think>", "</think>"), ("<thinking>", "</thinking>")];
    let found = known.into_iter().find(|(_, close)| source.contains(close));
    found.map(|(open, close)| ThinkMarkers { open, close })
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Jinja, minijinja::Error> {
        Err(minijinja::Error::new(JinjaKind::InvalidOperation, format!("{RAISED}{message}")))
    });
    environment.add_function("strftime_now", |state: &minijinja::State<'_, '_>, format: String| {
        let today =
            state.lookup("firepot_today").and_then(|days| i64::try_from(days).ok()).unwrap_or_default();
        crate::date::format(today, &format)
    });
    environment
}

/// Marks an error that the template raised itself.
const RAISED: &str = "raised: ";

/// `json.dumps` as templates expect it: spaces after separators, no escapes for letters beyond ASCII.
#[expect(clippy::needless_pass_by_value, reason = "the shape of a minijinja filter")]
fn to_json(value: Jinja, options: minijinja::value::Kwargs) -> Result<Jinja, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Jinja> = options.get(ignored)?;
    }
    options.assert_all_used()?;
    let value = serde_json::to_value(&value)
        .map_err(|error| minijinja::Error::new(JinjaKind::BadSerialization, error.to_string()))?;
    Ok(Jinja::from_safe_string(match indent {
        Some(width) => indented(&value, width.min(16)),
        None => compact(&value),
    }))
}

fn failure(error: &minijinja::Error) -> TemplateError {
    let detail = error.detail().unwrap_or_default();
    match detail.strip_prefix(RAISED) {
        Some(reason) => TemplateError::Refused { reason: reason.to_owned() },
        None => TemplateError::Failed { reason: describe(error) },
    }
}

fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    format!("{}{line}", error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
}

/// `transformers` marks the assistant's text with `{% generation %}` blocks for training; they mean nothing here.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start..start + length + 2];
        let word = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        out.push_str(&rest[..start]);
        if !matches!(word, "generation" | "endgeneration") {
            out.push_str(tag);
        }
        rest = &rest[start + tag.len()..];
    }
    out.push_str(rest);
    out
}

/// For templates without a system role: its text stands before the first question.
fn fold_system(messages: &[Message]) -> Option<Vec<Message>> {
    let (system, mut rest): (Vec<Message>, Vec<Message>) =
        messages.iter().cloned().partition(|message| message.role == Role::System);
    if system.is_empty() {
        return None;
    }
    let text = system.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n");
    match rest.iter_mut().find(|message| message.role == Role::User) {
        Some(first) => first.content = format!("{text}\n\n{}", first.content),
        None => rest.insert(0, Message::text(Role::User, text)),
    }
    Some(rest)
}

fn message_json(message: &Message) -> Value {
    let mut out = json!({"role": message.role.as_str(), "content": message.content});
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            out[key] = value;
        }
    };
    set("reasoning_content", message.thinking.as_ref().map(|text| json!(text)));
    set("tool_call_id", message.tool_call_id.as_ref().map(|id| json!(id)));
    set("name", message.tool_name.as_ref().map(|name| json!(name)));
    if !message.tool_calls.is_empty() {
        let call = |call: &crate::ToolCall| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        };
        set("tool_calls", Some(message.tool_calls.iter().map(call).collect()));
    }
    out
}

fn tool_json(tool: &Tool) -> Value {
    let description = tool.description.as_deref().unwrap_or_default();
    let function = json!({"name": tool.name, "description": description, "parameters": tool.parameters});
    json!({"type": "function", "function": function})
}

/// Whether a template is written in Go's language and not in Jinja: it has an action that begins as only Go's do, and
/// none of Jinja's statements.
#[must_use]
pub fn is_go_template(text: &str) -> bool {
    const WORDS: [&str; 14] = [
        "if", "range", "end", "else", "with", "template", "define", "block", "break", "continue", "eq",
        "slice", "json", "len",
    ];
    if text.contains("{%") {
        return false;
    }
    text.split("{{").skip(1).any(|action| {
        let action = action.strip_prefix('-').unwrap_or(action).trim_start();
        let word = action.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let ends = action[word.len()..].starts_with([' ', '}', '-', '\n', '\t']);
        action.starts_with(['.', '$']) || action.starts_with("/*") || (ends && WORDS.contains(&word))
    })
}
