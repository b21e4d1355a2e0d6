//! What models can do, told by their chat templates: the same reading of them as the runner's.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use firepot_chat::{Abilities, ChatTemplate, Message, RenderInput, Role, ThinkMarkers, Thinking};
use firepot_store::{Digest, Model};

use crate::limits;

/// What was found out. Trying a template takes milliseconds, and lists are asked for often.
#[derive(Debug, Default)]
pub struct Capabilities {
    known: Mutex<HashMap<Digest, Abilities>>,
}

/// Where a prompt leaves its answer, relative to a thinking block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Before it: the answer itself may open one.
    Before(ThinkMarkers),
    /// In it: the prompt has opened one.
    Inside(ThinkMarkers),
    /// Past it: the prompt has closed one, or the model knows of none.
    Past,
}

impl Capabilities {
    /// What a model's template has a place for. One that cannot be compiled has none.
    pub fn abilities(&self, model: &Model) -> Abilities {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::MAX_KNOWN_MODELS {
            known.clear();
        }
        *known.entry(model.manifest_digest).or_insert_with(|| try_out(model))
    }

    /// The same in Ollama's words.
    pub fn names(&self, model: &Model) -> Vec<String> {
        let abilities = self.abilities(model);
        let names = [("completion", true), ("tools", abilities.tools), ("thinking", abilities.thinking)];
        names.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
    }
}

/// Where the prompts of a model leave their answers when it is asked to think like that.
#[must_use]
pub fn opening(model: &Model, thinking: Thinking) -> Opening {
    let Some(source) = template(model) else { return Opening::Past };
    let Ok(template) = ChatTemplate::compile(source, "", "") else { return Opening::Past };
    let Some(markers) = template.think_markers() else { return Opening::Past };
    let question = [Message::text(Role::User, "hi")];
    let input = RenderInput {
        messages: &question,
        tools: &[],
        thinking: thinking.mode,
        effort: thinking.effort,
        today: 0,
    };
    let text = template.render(&input).unwrap_or_default();
    let end = text.trim_end();
    if end.ends_with(markers.open) {
        Opening::Inside(markers)
    } else if end.ends_with(markers.close) {
        Opening::Past
    } else {
        Opening::Before(markers)
    }
}

/// The template that renders a model's prompts: the one that it was given, else the file's.
#[must_use]
pub fn template(model: &Model) -> Option<&str> {
    model.defaults.template.as_deref().or(model.summary.template.as_deref())
}

fn try_out(model: &Model) -> Abilities {
    let Some(template) = template(model) else { return ChatTemplate::plain().abilities() };
    match ChatTemplate::compile(template, "", "") {
        Ok(template) => template.abilities(),
        Err(error) => {
            tracing::warn!(model = %model.name, %error, "unusable chat template");
            Abilities::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use firepot_chat::ThinkMode;

    use super::*;
    use crate::testing::TestHome;

    #[test]
    fn a_prompt_leaves_its_answer_before_in_or_past_a_thinking_block() {
        let home = TestHome::new();
        let markers = ThinkMarkers { open: "<think>", close: "</think>" };
        let turns = "{% for m in messages %}{{ m.content }}{% endfor %}";
        let switch = "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}";
        for (name, end, mode, expected) in [
            ("plain", "", ThinkMode::Auto, Opening::Past),
            ("always", "{# </think> #}<think>\n", ThinkMode::Off, Opening::Inside(markers)),
            ("switched", switch, ThinkMode::Auto, Opening::Before(markers)),
            ("switched", switch, ThinkMode::Off, Opening::Past),
        ] {
            let model = home.add(name, &format!("{turns}{end}"));
            let thinking = Thinking { mode, ..Thinking::default() };
            assert_eq!(opening(&model, thinking), expected, "{name} {mode:?}");
        }
    }

    #[test]
    fn abilities_are_those_of_the_template() {
        let home = TestHome::new();
        let capabilities = Capabilities::default();
        let thinks = "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<think>{% else %}</think>{% endif %}";
        for (name, template, expected) in [
            ("plain", "{% for m in messages %}{{ m.content }}{% endfor %}", &["completion"][..]),
            ("tools", "{{ tools }}", &["completion", "tools"]),
            ("thinks", thinks, &["completion", "thinking"]),
            ("broken", "{% if %}", &["completion"]),
        ] {
            let model = home.add(name, template);
            assert_eq!(capabilities.names(&model), expected, "{name}");
            assert_eq!(capabilities.names(&model), expected, "{name}, from memory");
        }
    }
}
