//! What a model brings besides its weights: the layers of a manifest that say how it wants to be used.
//!
//! They are read and written here and used elsewhere. A template may be written in Jinja, which is used, or in Go's
//! language, which is kept and shown; the media type is the same, so its text tells.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a model wants to be used, where a request does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Defaults {
    /// Options by the names that requests have for them (`temperature`, `stop`, `num_ctx`).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// The system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Messages that stand before those of a conversation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<DefaultMessage>,
    /// A Jinja template in place of the model file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// A template in Go's language: shown, not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_template: Option<String>,
    /// Texts of licences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub license: Vec<String>,
}

/// A message that a model brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultMessage {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Defaults {
    /// Sets the template: in Go's language it is kept beside what is used.
    pub fn set_template(&mut self, text: String) {
        let place = if is_go_template(&text) { &mut self.go_template } else { &mut self.template };
        *place = Some(text);
    }

    /// Whether a model says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_gos_or_jinja_by_its_actions() {
        let check = |text: &str, go: bool| assert_eq!(is_go_template(text), go, "{text}");
        check("{{ .System }}\n{{ .Prompt }}", true);
        check("{{- if .Messages }}{{- range $i, $_ := .Messages }}x{{ end }}{{ end }}", true);
        check("{{- $last := len .Messages }}", true);
        check("{{/* a comment */}}", true);
        check("{% for m in messages %}{{ m.content }}{% endfor %}", false);
        check("{{ messages[0].content }}", false);
        check("{{- bos_token }}{{ messages|length }}", false);
        check("{{ endings }}", false);
        check("no actions", false);
        check("{{", false);
    }

    #[test]
    fn a_template_is_kept_in_its_own_place() {
        let mut defaults = Defaults::default();
        assert!(defaults.is_empty());
        defaults.set_template("{{ .Prompt }}".into());
        defaults.set_template("{{ messages }}".into());
        assert_eq!(defaults.go_template.as_deref(), Some("{{ .Prompt }}"));
        assert_eq!(defaults.template.as_deref(), Some("{{ messages }}"));
    }
}
