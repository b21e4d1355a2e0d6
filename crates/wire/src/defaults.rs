//! What a model brings along: options, a system prompt and first messages for requests that do not say
//! otherwise.
//!
//! A client's own value always wins, and so does one that the client sends to ask for the automatic choice
//! (`"num_ctx": 0`). What a foreign model says that cannot be used is left out and reported once, when the
//! defaults are made: a request must not fail for what its client did not write.

use firepot_chat::{GenerateRequest, Message, Prompt, Role, ThinkMode};
use serde_json::{Map, Value};

use crate::{
    fields::Fields,
    ollama::{
        LoadOptions,
        options::{NAMES, Options},
    },
};

/// The options that a request says itself, by the names that models' parameters have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(Vec<&'static str>);

impl Said {
    /// Those of an object's fields that are options and not `null`.
    pub(crate) fn of(map: &Map<String, Value>) -> Self {
        let there = |name: &&str| map.get(*name).is_some_and(|value| !value.is_null());
        Self(NAMES.into_iter().filter(there).collect())
    }

    /// These as well.
    pub(crate) fn and(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.0.extend(names);
        self
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

/// What a model brings along.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelDefaults {
    options: Options,
    /// The options that it sets.
    names: Vec<&'static str>,
    system: Option<String>,
    messages: Vec<Message>,
    template: Option<String>,
}

impl ModelDefaults {
    /// Defaults with these options (`{"temperature": 0.6, "stop": ["…"]}`), and a sentence for each one that
    /// cannot be used.
    #[must_use]
    pub fn new(parameters: &Map<String, Value>) -> (Self, Vec<String>) {
        let (mut usable, mut problems) = (Map::new(), Vec::new());
        for (name, value) in parameters.iter().filter(|(_, value)| !value.is_null()) {
            let one = Map::from_iter([(name.clone(), value.clone())]);
            match Options::read(&Fields::root(&one)) {
                Ok(read) if read.warnings.is_empty() => usable.extend(one),
                Ok(read) => problems.extend(read.warnings),
                Err(error) => problems.push(error.message),
            }
        }
        let names = Said::of(&usable).0;
        // Each of them was read alone, so that all together can be.
        let options = Options::read(&Fields::root(&usable)).unwrap_or_default();
        (Self { options, names, ..Self::default() }, problems)
    }

    /// With a system prompt; an empty one is none.
    #[must_use]
    pub fn with_system(mut self, system: Option<String>) -> Self {
        self.system = system.filter(|text| !text.trim().is_empty());
        self
    }

    /// With a message that stands before each conversation. One of another role than system, user or assistant
    /// is left out.
    #[must_use]
    pub fn with_message(mut self, role: &str, content: &str) -> Self {
        let role = match role {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => return self,
        };
        self.messages.push(Message::text(role, content));
        self
    }

    /// With a Jinja chat template in place of the file's own.
    #[must_use]
    pub fn with_template(mut self, template: Option<String>) -> Self {
        self.template = template.filter(|text| !text.is_empty());
        self
    }

    /// Puts the defaults into what the request does not say.
    pub fn apply(&self, said: &Said, request: &mut GenerateRequest) {
        for name in self.names.iter().filter(|name| !said.has(name)) {
            self.set(name, request);
        }
        self.begin(&mut request.prompt);
    }

    /// The wishes for loading, with the defaults in what the request does not say.
    #[must_use]
    pub fn load(&self, said: &Said, load: LoadOptions) -> LoadOptions {
        let own = &self.options.load;
        let free = |name: &str| !said.has(name);
        LoadOptions {
            num_ctx: load.num_ctx.or(own.num_ctx.filter(|_| free("num_ctx"))),
            num_batch: load.num_batch.or(own.num_batch.filter(|_| free("num_batch"))),
            num_gpu: load.num_gpu.or(own.num_gpu.filter(|_| free("num_gpu"))),
            main_gpu: load.main_gpu.or(own.main_gpu.filter(|_| free("main_gpu"))),
            num_thread: load.num_thread.or(own.num_thread.filter(|_| free("num_thread"))),
            use_mmap: load.use_mmap.or(own.use_mmap.filter(|_| free("use_mmap"))),
            use_mlock: load.use_mlock.or(own.use_mlock.filter(|_| free("use_mlock"))),
        }
    }

    fn set(&self, name: &str, request: &mut GenerateRequest) {
        let (own, sampling) = (&self.options.sampling, &mut request.sampling);
        match name {
            "temperature" => sampling.temperature = own.temperature,
            "top_k" => sampling.top_k = own.top_k,
            "top_p" => sampling.top_p = own.top_p,
            "min_p" => sampling.min_p = own.min_p,
            "typical_p" => sampling.typical_p = own.typical_p,
            "repeat_penalty" => sampling.repeat_penalty = own.repeat_penalty,
            "repeat_last_n" => sampling.repeat_last_n = own.repeat_last_n,
            "presence_penalty" => sampling.presence_penalty = own.presence_penalty,
            "frequency_penalty" => sampling.frequency_penalty = own.frequency_penalty,
            "seed" => sampling.seed = own.seed,
            "num_predict" => request.limits.max_tokens = self.options.limits.max_tokens,
            "stop" => request.limits.stop.clone_from(&self.options.limits.stop),
            "ignore_eos" => request.limits.ignore_eos = self.options.limits.ignore_eos,
            "strict" => request.strict = self.options.strict,
            "cache_prompt" => request.uncached = self.options.uncached,
            "thinking_budget" if request.thinking.mode != ThinkMode::Off => {
                request.thinking.budget_tokens = self.options.thinking_budget;
            }
            // The rest concerns loading.
            _ => {}
        }
    }

    /// Puts system prompt and messages before a conversation. One that goes on from a `context` has them in it
    /// already.
    fn begin(&self, prompt: &mut Prompt) {
        let Prompt::Chat { messages, context, template, .. } = prompt else { return };
        if template.is_none() {
            template.clone_from(&self.template);
        }
        if !context.is_empty() {
            return;
        }
        let has_system = messages.first().is_some_and(|first| first.role == Role::System);
        let system = self.system.as_deref().filter(|_| !has_system);
        let first = system.map(|text| Message::text(Role::System, text));
        let at = usize::from(has_system);
        messages.splice(at..at, first.into_iter().chain(self.messages.iter().cloned()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        ChatSettings, ollama,
        ollama::options::{KINDS, Kind},
        openai,
    };

    fn defaults(parameters: Value) -> ModelDefaults {
        let Value::Object(map) = parameters else { panic!() };
        let (defaults, problems) = ModelDefaults::new(&map);
        assert_eq!(problems, Vec::<String>::new());
        defaults
    }

    fn chat(body: &Value) -> (GenerateRequest, Said, LoadOptions) {
        let parsed = ollama::chat_from_wire(body.to_string().as_bytes()).unwrap();
        let ollama::Action::Generate(request) = parsed.action else { panic!() };
        (*request, parsed.said, parsed.load)
    }

    fn hi(options: &Value) -> Value {
        json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }], "options": options })
    }

    #[test]
    fn a_default_fills_what_the_request_leaves_open_and_nothing_else() {
        let defaults = defaults(json!({ "temperature": 0.25, "top_k": 7, "stop": ["END"], "num_predict": 9,
            "num_ctx": 2048, "num_thread": 3, "seed": 5 }));
        let (mut request, said, load) =
            chat(&hi(&json!({ "temperature": 1.5, "num_ctx": 0, "seed": -1, "top_p": null })));
        defaults.apply(&said, &mut request);
        let sampling = &request.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (1.5, 7, 0.9));
        assert_eq!(sampling.seed, None, "the client asked for a random one");
        assert_eq!((request.limits.max_tokens, &request.limits.stop[..]), (Some(9), &["END".to_owned()][..]));
        let load = defaults.load(&said, load);
        assert_eq!((load.num_ctx, load.num_thread), (None, Some(3)), "0 asks for the automatic context");
    }

    #[test]
    fn openai_s_names_and_those_of_chats_count_as_said() {
        let defaults = defaults(json!({ "num_predict": 9, "temperature": 0.25, "num_ctx": 2048 }));
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }],
            "max_completion_tokens": 4 });
        let mut parsed = openai::chat_from_wire(body.to_string().as_bytes()).unwrap();
        defaults.apply(&parsed.said, &mut parsed.requests[0]);
        let request = &parsed.requests[0];
        assert_eq!((request.limits.max_tokens, request.sampling.temperature), (Some(4), 0.25));
        let settings = ChatSettings::from_value("", &json!({ "max_tokens": 3, "ctx": 512 })).unwrap();
        let (mut request, ..) = chat(&hi(&json!({})));
        request.limits = settings.limits.clone();
        defaults.apply(&settings.said, &mut request);
        assert_eq!((request.limits.max_tokens, request.sampling.temperature), (Some(3), 0.25));
        assert_eq!(defaults.load(&settings.said, LoadOptions::default()).num_ctx, None);
    }

    #[test]
    fn a_system_prompt_stands_first_unless_the_conversation_has_one_and_messages_after_it() {
        let defaults = ModelDefaults::default()
            .with_system(Some("Be brief.".into()))
            .with_message("user", "1?")
            .with_message("assistant", "One.")
            .with_message("tool", "no");
        let said = |turns: Value| {
            let (mut request, said, _) = chat(&json!({ "model": "m", "messages": turns }));
            defaults.apply(&said, &mut request);
            let Prompt::Chat { messages, .. } = request.prompt else { panic!() };
            messages.into_iter().map(|message| message.content).collect::<Vec<_>>()
        };
        let user = json!({ "role": "user", "content": "hi" });
        assert_eq!(said(json!([user])), ["Be brief.", "1?", "One.", "hi"]);
        let system = json!({ "role": "system", "content": "Be kind." });
        assert_eq!(said(json!([system, user])), ["Be kind.", "1?", "One.", "hi"]);
    }

    #[test]
    fn a_conversation_that_goes_on_from_a_context_and_raw_text_are_left_alone() {
        let defaults = ModelDefaults::default().with_system(Some("Be brief.".into()));
        for body in [
            json!({ "model": "m", "prompt": "hi", "context": [1, 2] }),
            json!({ "model": "m", "prompt": "hi", "raw": true }),
        ] {
            let parsed = ollama::generate_from_wire(body.to_string().as_bytes()).unwrap();
            let ollama::Action::Generate(mut request) = parsed.action else { panic!() };
            let before = request.prompt.clone();
            defaults.apply(&parsed.said, &mut request);
            assert_eq!(request.prompt, before);
        }
    }

    #[test]
    fn a_template_holds_unless_the_request_has_its_own() {
        let defaults = ModelDefaults::default().with_template(Some("{{ messages }}".into()));
        for (own, expected) in [("", "{{ messages }}"), ("{{ own }}", "{{ own }}")] {
            let body = json!({ "model": "m", "prompt": "hi", "template": own });
            let parsed = ollama::generate_from_wire(body.to_string().as_bytes()).unwrap();
            let ollama::Action::Generate(mut request) = parsed.action else { panic!() };
            defaults.apply(&parsed.said, &mut request);
            let Prompt::Chat { template, .. } = request.prompt else { panic!() };
            assert_eq!(template.as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_a_model_says_that_cannot_be_used_is_left_out_and_reported() {
        let Value::Object(map) = json!({ "temperature": "hot", "top_k": 3, "low_vram": true, "num_keep": 4 })
        else {
            panic!()
        };
        let (defaults, problems) = ModelDefaults::new(&map);
        assert_eq!(defaults.names, ["top_k"]);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn a_thinking_budget_says_nothing_where_thinking_is_off() {
        let defaults = defaults(json!({ "thinking_budget": 64 }));
        for (think, expected) in [(json!(false), None), (json!(true), Some(64))] {
            let mut body = hi(&json!({}));
            body["think"] = think;
            let (mut request, said, _) = chat(&body);
            defaults.apply(&said, &mut request);
            assert_eq!(request.thinking.budget_tokens, expected);
        }
    }

    #[test]
    fn every_option_that_can_be_a_default_is_set() {
        for (name, kind) in KINDS {
            let values = match kind {
                Kind::Integer => vec![json!(3)],
                Kind::Number => vec![json!(0.5)],
                Kind::Boolean => vec![json!(true), json!(false)],
                Kind::Texts => vec![json!(["x"])],
            };
            let has_effect = |value: &Value| {
                let defaults = defaults(json!({ name: value }));
                let (mut request, said, load) = chat(&hi(&json!({})));
                let before = request.clone();
                defaults.apply(&said, &mut request);
                request != before || defaults.load(&said, load) != load
            };
            assert!(values.iter().any(has_effect), "{name} has no effect");
        }
    }
}
