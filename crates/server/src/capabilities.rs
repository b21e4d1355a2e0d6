//! What models can do, told by their chat templates: the same reading of them as the runner's.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use firepot_chat::{Abilities, ChatTemplate};
use firepot_store::{Digest, Model};

use crate::limits;

/// What was found out. Trying a template takes milliseconds, and lists are asked for often.
#[derive(Debug, Default)]
pub struct Capabilities {
    known: Mutex<HashMap<Digest, Abilities>>,
}

impl Capabilities {
    /// What a model's template has a place for. One that cannot be compiled has none.
    pub fn abilities(&self, model: &Model) -> Abilities {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::MAX_KNOWN_MODELS {
            known.clear();
        }
        *known.entry(model.digest).or_insert_with(|| try_out(model))
    }

    /// The same in Ollama's words.
    pub fn names(&self, model: &Model) -> Vec<String> {
        let abilities = self.abilities(model);
        let names = [("completion", true), ("tools", abilities.tools), ("thinking", abilities.thinking)];
        names.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
    }
}

fn try_out(model: &Model) -> Abilities {
    let Some(template) = &model.summary.template else { return ChatTemplate::plain().abilities() };
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
    use super::*;
    use crate::testing::TestHome;

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
