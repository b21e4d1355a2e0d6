//! What a model brings besides its weights: the layers of a manifest that say how it wants to be used.
//!
//! They are read and written here and used elsewhere. A template may be written in Jinja, which is used, or in Go's
//! language, which is kept and shown; the media type is the same, so its text tells.

use firepot_chat::is_go_template;
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
    /// What a Modelfile or a request says; a message is its role and what is said.
    #[must_use]
    pub fn new(
        parameters: Map<String, Value>,
        system: Option<String>,
        template: Option<String>,
        messages: impl IntoIterator<Item = (String, String)>,
        license: Vec<String>,
    ) -> Self {
        let message = |(role, content)| DefaultMessage { role, content };
        let messages = messages.into_iter().map(message).collect();
        let mut defaults = Self { parameters, system, messages, license, ..Self::default() };
        if let Some(template) = template {
            defaults.set_template(template);
        }
        defaults
    }

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

#[cfg(test)]
mod tests {
    use super::*;

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
