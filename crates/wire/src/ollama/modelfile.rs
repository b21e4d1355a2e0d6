//! Modelfiles: what a model is made from, as text (`reference/ollama-api.md` 2.1).
//!
//! An instruction stands at the beginning of a line, its value behind it: to the end of the line, or between
//! `"""` and `"""` over several lines, or between `"` and `"`. Lines that begin with `#` are comments. Reading
//! files that `FROM` names is not done here.

use std::fmt;

use firepot_chat::is_go_template;
use serde_json::{Map, Value};

use super::{
    parameter::{each, nearest, parameter},
    request::go_template,
};
use crate::{fields::quoted, limits};

/// What a model is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Modelfile {
    /// `FROM`: a model's name, or files; at least one.
    pub from: Vec<String>,
    /// `PARAMETER`, typed; `stop` is a list.
    pub parameters: Map<String, Value>,
    /// `TEMPLATE`, in Jinja.
    pub template: Option<String>,
    /// `SYSTEM`.
    pub system: Option<String>,
    /// `LICENSE`.
    pub license: Vec<String>,
    /// `MESSAGE`.
    pub messages: Vec<ModelfileMessage>,
    /// What it says to no effect, in sentences.
    pub warnings: Vec<String>,
}

/// A message that stands before each conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelfileMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What it says.
    pub content: String,
}

/// Why a Modelfile cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ModelfileError {
    /// The line of the instruction, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

/// What can be written.
const INSTRUCTIONS: [&str; 6] = ["FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "LICENSE", "MESSAGE"];

/// What Ollama knows and this does not do yet.
const REFUSED: [(&str, &str); 5] = [
    ("ADAPTER", "adapters are not supported yet"),
    ("REQUIRES", "versions of Ollama are not known here"),
    ("RENDERER", "prompts are rendered by the model's Jinja template"),
    ("PARSER", "answers are parsed by the model's own markers"),
    ("DRAFT", "draft models are not supported yet"),
];

const ROLES: [&str; 3] = ["system", "user", "assistant"];

const LONG_QUOTE: &str = "\"\"\"";

/// What is wrong, and what the user can do about it.
type Problem = (String, Option<String>);

impl Modelfile {
    /// Reads a Modelfile.
    ///
    /// # Errors
    /// The first line that cannot be used.
    pub fn parse(text: &str) -> Result<Self, ModelfileError> {
        let mut modelfile = Self::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.len() > limits::MAX_MODELFILE_BYTES {
            let problem = format!("the Modelfile is longer than {} bytes", limits::MAX_MODELFILE_BYTES);
            return Err(ModelfileError { line: 1, problem, hint: None });
        }
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let failed = |(problem, hint)| ModelfileError { line: index + 1, problem, hint };
            let (word, rest) = split_word(line);
            let instruction = instruction(word).map_err(failed)?;
            let (name, rest) = match instruction {
                "PARAMETER" | "MESSAGE" => split_word(rest),
                _ => ("", rest),
            };
            let value = value(rest, &mut lines.by_ref().map(|(_, line)| line)).map_err(failed)?;
            modelfile.add(instruction, name, value).map_err(failed)?;
        }
        if modelfile.from.is_empty() {
            let hint = Some("begin with FROM and a model's name or a GGUF file".to_owned());
            let line = text.lines().count().max(1);
            return Err(ModelfileError { line, problem: "there is no FROM".to_owned(), hint });
        }
        Ok(modelfile)
    }

    fn add(&mut self, instruction: &str, name: &str, value: String) -> Result<(), Problem> {
        // An empty template or system prompt takes the inherited one away.
        if value.is_empty() && !matches!(instruction, "TEMPLATE" | "SYSTEM") {
            return Err((format!("{instruction} needs a value"), None));
        }
        match instruction {
            "FROM" => self.from.push(value),
            "PARAMETER" => {
                let used = parameter(&mut self.parameters, name, &value);
                if !used.map_err(|error| (error.to_string(), error.hint()))? {
                    self.warnings.push(format!("the parameter {} has no effect", quoted(name)));
                }
            }
            "TEMPLATE" => {
                self.warnings.extend(is_go_template(&value).then(|| go_template("TEMPLATE")));
                self.template = Some(value);
            }
            "SYSTEM" => self.system = Some(value),
            "LICENSE" => self.license.push(value),
            _ => self.messages.push(ModelfileMessage { role: role(name)?, content: value }),
        }
        Ok(())
    }
}

/// The first word and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

fn instruction(word: &str) -> Result<&'static str, Problem> {
    let upper = word.to_ascii_uppercase();
    if let Some(known) = INSTRUCTIONS.into_iter().find(|known| *known == upper) {
        return Ok(known);
    }
    if let Some((name, reason)) = REFUSED.into_iter().find(|(name, _)| *name == upper) {
        return Err((format!("{name} is not supported: {reason}"), None));
    }
    let hint = match nearest(&upper, &INSTRUCTIONS) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => format!("known are {}", INSTRUCTIONS.join(", ")),
    };
    Err((format!("{} is not an instruction", quoted(word)), Some(hint)))
}

fn role(name: &str) -> Result<String, Problem> {
    let lower = name.to_ascii_lowercase();
    if ROLES.contains(&lower.as_str()) {
        return Ok(lower);
    }
    Err((format!("the role of a MESSAGE must be system, user or assistant, got {}", quoted(name)), None))
}

/// The value that begins with `first` and may go on over the following lines.
fn value<'a>(first: &'a str, more: &mut dyn Iterator<Item = &'a str>) -> Result<String, Problem> {
    let quote = match first {
        _ if first.starts_with(LONG_QUOTE) => LONG_QUOTE,
        _ if first.starts_with('"') => "\"",
        _ => return Ok(first.trim_end().to_owned()),
    };
    let mut text = String::new();
    let mut line = first.strip_prefix(quote).unwrap_or(first);
    loop {
        if let Some(last) = line.trim_end().strip_suffix(quote) {
            text.push_str(last);
            return Ok(text);
        }
        text.push_str(line);
        text.push('\n');
        line = more.next().ok_or_else(|| (format!("the text that {quote} opens is never closed"), None))?;
    }
}

/// A Modelfile that is read as the same again, unless a line of its texts ends with `"""`.
impl fmt::Display for Modelfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for from in &self.from {
            writeln!(f, "FROM {}", Quoted(from))?;
        }
        for (name, text) in [("TEMPLATE", &self.template), ("SYSTEM", &self.system)] {
            if let Some(text) = text {
                writeln!(f, "{name} {}", Quoted(text))?;
            }
        }
        for (name, value) in &self.parameters {
            for value in each(value) {
                match value {
                    Value::String(text) => writeln!(f, "PARAMETER {name} {}", Quoted(text))?,
                    other => writeln!(f, "PARAMETER {name} {other}")?,
                }
            }
        }
        for ModelfileMessage { role, content } in &self.messages {
            writeln!(f, "MESSAGE {role} {}", Quoted(content))?;
        }
        self.license.iter().try_for_each(|text| writeln!(f, "LICENSE {}", Quoted(text)))
    }
}

/// A value, in quotes where it needs them.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let is_plain = !text.is_empty() && text.trim() == text && !text.contains(['\n', '\r', '"']);
        if is_plain { f.write_str(text) } else { write!(f, "{LONG_QUOTE}{text}{LONG_QUOTE}") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refused(text: &str) -> (String, Option<String>) {
        let error = Modelfile::parse(text).unwrap_err();
        (error.to_string(), error.hint)
    }

    #[test]
    fn every_instruction_has_its_place() {
        let text = r#"
# A comment.
from ./model.gguf
  PARAMETER temperature 0.5
PARAMETER stop "<|end|>"
PARAMETER stop User:
TEMPLATE """{% for m in messages %}
{{ m.content }}{% endfor %}"""
SYSTEM "You are
brief."
LICENSE """
MIT
"""
MESSAGE user Hello there, # not a comment
MESSAGE assistant """Hi "you"!"""
"#;
        let message =
            |role: &str, content: &str| ModelfileMessage { role: role.into(), content: content.into() };
        let Value::Object(parameters) = json!({ "temperature": 0.5, "stop": ["<|end|>", "User:"] }) else {
            panic!()
        };
        let expected = Modelfile {
            from: vec!["./model.gguf".into()],
            parameters,
            template: Some("{% for m in messages %}\n{{ m.content }}{% endfor %}".into()),
            system: Some("You are\nbrief.".into()),
            license: vec!["\nMIT\n".into()],
            messages: vec![
                message("user", "Hello there, # not a comment"),
                message("assistant", "Hi \"you\"!"),
            ],
            warnings: Vec::new(),
        };
        assert_eq!(Modelfile::parse(text), Ok(expected));
    }

    #[test]
    fn lines_of_windows_and_a_byte_order_mark_are_read() {
        let modelfile = Modelfile::parse("\u{feff}FROM a\r\nSYSTEM \"\"\"x\r\ny\"\"\"\r\n").unwrap();
        assert_eq!((modelfile.from, modelfile.system.as_deref()), (vec!["a".to_owned()], Some("x\ny")));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        for (text, problem, hint) in [
            ("FROM a\nFORM b", "line 2: \"FORM\" is not an instruction", Some("did you mean FROM?")),
            ("FROM a\n\nSYSTM b", "line 3: \"SYSTM\" is not an instruction", Some("did you mean SYSTEM?")),
            ("FROM a\nADAPTER x", "line 2: ADAPTER is not supported: adapters are not supported yet", None),
            ("FROM a\nSYSTEM \"\"\"x\ny", "line 2: the text that \"\"\" opens is never closed", None),
            ("FROM", "line 1: FROM needs a value", None),
            ("FROM a\nPARAMETER top_k", "line 2: PARAMETER needs a value", None),
            (
                "FROM a\nPARAMETER top_k x",
                "line 2: the parameter top_k must be a whole number, got \"x\"",
                None,
            ),
            (
                "FROM a\nPARAMETER topk 1",
                "line 2: the parameter \"topk\" is not known",
                Some("did you mean top_k?"),
            ),
            (
                "FROM a\nMESSAGE tool x",
                "line 2: the role of a MESSAGE must be system, user or assistant, got \"tool\"",
                None,
            ),
            (
                "SYSTEM x",
                "line 1: there is no FROM",
                Some("begin with FROM and a model's name or a GGUF file"),
            ),
            ("", "line 1: there is no FROM", Some("begin with FROM and a model's name or a GGUF file")),
        ] {
            assert_eq!(refused(text), (problem.to_owned(), hint.map(str::to_owned)), "{text:?}");
        }
        let (problem, hint) = refused("FROM a\nRUN x");
        assert_eq!(problem, "line 2: \"RUN\" is not an instruction");
        assert_eq!(hint.unwrap(), "known are FROM, PARAMETER, TEMPLATE, SYSTEM, LICENSE, MESSAGE");
    }

    #[test]
    fn a_template_in_gos_language_is_kept_with_a_warning() {
        let modelfile = Modelfile::parse("FROM a\nTEMPLATE {{ .Prompt }}").unwrap();
        assert_eq!(modelfile.template.as_deref(), Some("{{ .Prompt }}"));
        assert_eq!(
            modelfile.warnings,
            ["TEMPLATE is written in Go's template language: it is kept, and the model file's own is used"]
        );
    }

    #[test]
    fn a_parameter_of_old_is_a_warning() {
        let modelfile = Modelfile::parse("FROM a\nPARAMETER num_gqa 8").unwrap();
        assert_eq!(modelfile.warnings, ["the parameter \"num_gqa\" has no effect"]);
    }

    #[test]
    fn a_modelfile_is_printed_as_it_can_be_read() {
        let text =
            "FROM a\nSYSTEM \"\"\"x\ny\"\"\"\nPARAMETER stop \"a\nb\"\nPARAMETER top_p 0.5\nLICENSE MIT\n";
        let modelfile = Modelfile::parse(text).unwrap();
        insta::assert_snapshot!(modelfile.to_string(), @r#"
        FROM a
        SYSTEM """x
        y"""
        PARAMETER stop """a
        b"""
        PARAMETER top_p 0.5
        LICENSE MIT
        "#);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(
            system in "[ -~\n\u{e4}]{0,40}", license in "[ -~\n]{1,40}", stop in "[ -~]{1,9}", message in "[ -~\n\t]{1,30}",
        ) {
            prop_assume!([&system, &license, &stop, &message].iter().all(|text| !text.contains("\"\"\"")));
            // A text that ends in a quotation mark is closed by four of them, of which the last three count.
            let mut parameters = Map::new();
            parameter(&mut parameters, "stop", &stop).unwrap();
            let modelfile = Modelfile {
                from: vec!["a b".into()],
                parameters,
                system: Some(system),
                license: vec![license],
                messages: vec![ModelfileMessage { role: "user".into(), content: message }],
                ..Modelfile::default()
            };
            prop_assert_eq!(Modelfile::parse(&modelfile.to_string()), Ok(modelfile));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(?s).{0,200}") {
            let _ = Modelfile::parse(&text);
            let _ = Modelfile::parse(&format!("FROM a\nPARAMETER {text}"));
        }
    }
}
