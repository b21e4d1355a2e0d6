//! A runner at the other end of a socket pair, with the fake decoder.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use firepot_chat::{
    Delta, ErrorKind, FinishReason, Format, GenerateEvent, GenerateRequest, Message, Overflow, Part, Prompt,
    PromptReport, Role, Sampling, ThinkMode, Tool, ToolCall, ToolChoice,
};
use firepot_engine::LoadSpec;
use firepot_link::{
    FrameReader, GenerationId, LoadFailureKind, PROTOCOL, Resume, ToRunner, ToServer, encode,
};
use serde_json::json;

use crate::{AtEnd, FakeLoader, ServeError, serve};

pub(super) fn spec(path: &str) -> LoadSpec {
    LoadSpec::small(PathBuf::from(format!("fake:{path}")))
}

/// The server's end of a link.
pub(super) struct Client {
    pub(super) link: UnixStream,
    frames: FrameReader,
}

impl Client {
    /// A runner in a thread, whose outcome the handle gives.
    pub(super) fn start() -> (Self, thread::JoinHandle<Result<(), ServeError>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let runner = thread::spawn(move || serve(theirs, &mut FakeLoader, AtEnd::Return));
        (Self { link: ours, frames: FrameReader::new() }, runner)
    }

    /// A runner with a loaded model.
    pub(super) fn loaded(path: &str) -> Self {
        let (mut client, _) = Self::start();
        client.send(&ToRunner::Hello { protocol: PROTOCOL });
        client.send(&ToRunner::Load { spec: spec(path), snapshots: None });
        loop {
            if let ToServer::Loaded(loaded) = client.next() {
                assert_eq!(loaded.info.architecture, "fake");
                return client;
            }
        }
    }

    pub(super) fn send(&mut self, message: &ToRunner) {
        self.link.write_all(&encode(message).unwrap()).unwrap();
    }

    /// The next message that is no heartbeat.
    pub(super) fn next(&mut self) -> ToServer {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < end, "nothing but heartbeats comes");
            let message = self.next_of_all();
            if !matches!(message, ToServer::Heartbeat(_)) {
                return message;
            }
        }
    }

    /// The next message.
    pub(super) fn next_of_all(&mut self) -> ToServer {
        loop {
            if let Some(message) = self.frames.next().unwrap() {
                return message;
            }
            let mut buffer = [0; 4096];
            let length = self.link.read(&mut buffer).unwrap();
            assert!(length > 0, "the runner closed the link");
            self.frames.push(&buffer[..length]);
        }
    }

    pub(super) fn generate(&mut self, id: u64, request: GenerateRequest, resume: Option<Resume>) {
        self.send(&ToRunner::Generate {
            id: GenerationId(id),
            request: Box::new(request),
            client: 0,
            resume,
        });
    }

    /// Everything that comes until these many generations have ended.
    pub(super) fn collect(&mut self, count: usize) -> HashMap<u64, Answer> {
        self.go_on(HashMap::new(), count)
    }

    /// Collects into what was seen before, until so many answers have ended.
    pub(super) fn go_on(&mut self, mut answers: HashMap<u64, Answer>, count: usize) -> HashMap<u64, Answer> {
        while answers.values().filter(|answer| answer.end.is_some()).count() < count {
            if let ToServer::Event { id, event } = self.next() {
                answers.entry(id.0).or_default().note(event);
            }
        }
        answers
    }

    pub(super) fn ask(&mut self, request: GenerateRequest) -> Answer {
        self.generate(1, request, None);
        self.collect(1).remove(&1).unwrap()
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) prompt: Option<PromptReport>,
    pub(super) cached_tokens: Option<u32>,
    ids: Vec<i32>,
    parts: Vec<Part>,
    /// How many parts there were after each token.
    parts_by_token: Vec<usize>,
    pub(super) end: Option<Result<FinishReason, ErrorKind>>,
    message: String,
}

impl Answer {
    pub(super) fn note(&mut self, event: GenerateEvent) {
        assert!(self.end.is_none(), "an event after the end: {event:?}");
        match event {
            GenerateEvent::Prompt(report) => self.prompt = Some(report),
            GenerateEvent::Started { cached_tokens } => {
                assert!(
                    self.prompt.is_some() && self.cached_tokens.is_none(),
                    "it starts once, after the prompt"
                );
                self.cached_tokens = Some(cached_tokens);
            }
            GenerateEvent::Delta(Delta { ids, parts, .. }) => {
                assert!(self.cached_tokens.is_some(), "a token before the start");
                let is_token = !ids.is_empty();
                self.ids.extend(ids);
                self.parts.extend(parts);
                if is_token {
                    self.parts_by_token.push(self.parts.len());
                }
            }
            GenerateEvent::Finished { reason, .. } => self.end = Some(Ok(reason)),
            GenerateEvent::Failed(error) => {
                self.end = Some(Err(error.kind));
                self.message = error.message;
            }
        }
    }

    /// What a client has of it that saw so many tokens, and no more.
    fn cut(&self, tokens: usize) -> Self {
        let parts = tokens.checked_sub(1).map_or(0, |last| self.parts_by_token[last]);
        Self { ids: self.ids[..tokens].to_vec(), parts: self.parts[..parts].to_vec(), ..Self::default() }
    }

    /// The calls of tools in it.
    fn calls(&self) -> Vec<ToolCall> {
        let call = |part: &Part| if let Part::ToolCall(call) = part { Some(call.clone()) } else { None };
        self.parts.iter().filter_map(call).collect()
    }

    pub(super) fn text(&self) -> String {
        let content = |part: &Part| if let Part::Content(text) = part { text.clone() } else { String::new() };
        self.parts.iter().map(content).collect()
    }

    fn thinking(&self) -> String {
        let thinking =
            |part: &Part| if let Part::Thinking(text) = part { text.clone() } else { String::new() };
        self.parts.iter().map(thinking).collect()
    }
}

pub(super) fn chat(messages: Vec<Message>) -> GenerateRequest {
    let mut request = GenerateRequest::new(Prompt::Chat {
        messages,
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        context: Vec::new(),
        template: None,
    });
    request.sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    request.limits.max_tokens = Some(40);
    request
}

fn question(text: &str) -> GenerateRequest {
    chat(vec![Message::text(Role::User, text)])
}

/// The same by a template that knows thoughts.
fn thinking(mut request: GenerateRequest) -> GenerateRequest {
    let Prompt::Chat { template, .. } = &mut request.prompt else { unreachable!() };
    let thinks = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|answer|>{# <think></think> #}";
    *template = Some(thinks.to_owned());
    request
}

fn with_tool(mut request: GenerateRequest, template: &str) -> GenerateRequest {
    let Prompt::Chat { tools, template: own, .. } = &mut request.prompt else { unreachable!() };
    tools.push(Tool { name: "f".into(), description: None, parameters: json!({"type": "object"}) });
    *own = Some(template.to_owned());
    request
}

/// A template with a place for tools, in the fake vocabulary.
const TOOLS: &str = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|answer|>";

#[test]
fn an_answer_comes_after_its_prompt_and_ends_once() {
    let answer = Client::loaded("reply=echo").ask(question("hello there"));
    assert_eq!((answer.text().as_str(), answer.end), ("hello there", Some(Ok(FinishReason::Stop))));
    let prompt = answer.prompt.unwrap();
    assert_eq!((prompt.ids.len(), prompt.max_tokens, prompt.dropped_messages), (13, 40, 0));
}

#[test]
fn an_answer_says_at_its_start_what_the_cache_held() {
    let mut client = Client::loaded("reply=echo");
    let first = client.ask(question("hello there"));
    client.generate(2, question("hello there"), None);
    let second = client.collect(1).remove(&2).unwrap();
    assert_eq!((first.cached_tokens, second.cached_tokens), (Some(0), Some(12)));
}

#[test]
fn a_load_is_reported_and_its_failure_ends_the_runner() {
    let (mut client, runner) = Client::start();
    client.send(&ToRunner::Hello { protocol: PROTOCOL });
    client.send(&ToRunner::Load { spec: spec("load_fail=no such weights"), snapshots: None });
    let mut permille = Vec::new();
    let failure = loop {
        match client.next() {
            ToServer::LoadProgress { permille: done } => permille.push(done),
            ToServer::LoadFailed(failure) => break failure,
            _ => {}
        }
    };
    assert_eq!(permille.last(), Some(&1000));
    assert_eq!((failure.kind, failure.message.as_str()), (LoadFailureKind::BadModel, "no such weights"));
    assert!(matches!(runner.join().unwrap(), Err(ServeError::Load(_))));
}

#[test]
fn another_version_of_the_link_is_refused() {
    let (mut client, runner) = Client::start();
    client.send(&ToRunner::Hello { protocol: PROTOCOL + 1 });
    assert!(matches!(runner.join().unwrap(), Err(ServeError::Protocol { .. })));
}

#[test]
fn thinking_and_content_are_told_apart() {
    let mut client = Client::loaded("reply=<think>let me see</think>yes");
    let ask = |client: &mut Client, change: &dyn Fn(&mut GenerateRequest)| {
        let mut request = thinking(question("well?"));
        change(&mut request);
        client.ask(request)
    };
    let answer = ask(&mut client, &|_| {});
    assert_eq!((answer.thinking().as_str(), answer.text().as_str()), ("let me see", "yes"));
    let short = ask(&mut client, &|request| request.thinking.budget_tokens = Some(4));
    assert!(short.thinking().starts_with("let") && short.thinking().len() < 10, "{short:?}");
    let mut plain = question("well?");
    plain.thinking.mode = ThinkMode::On;
    assert_eq!(client.ask(plain).end, Some(Err(ErrorKind::Unsupported)));
}

#[test]
fn tools_reach_a_template_that_knows_them_and_calls_come_back() {
    let mut client =
        Client::loaded("reply=<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>");
    let mut request = with_tool(question("call"), TOOLS);
    request.limits.max_tokens = Some(200);
    let answer = client.ask(request);
    assert_eq!(answer.end, Some(Ok(FinishReason::ToolCalls)));
    let [Part::ToolCall(call)] = answer.parts.as_slice() else { panic!("{:?}", answer.parts) };
    assert_eq!((call.name.as_str(), &call.arguments), ("f", &json!({"a": 1})));
    let ignored = client.ask(with_tool(question("call"), firepot_engine::fake::TEMPLATE));
    assert!(ignored.prompt.unwrap().tools_ignored);
}

#[test]
fn old_turns_are_dropped_or_the_prompt_is_refused() {
    let turns = || {
        let mut messages = vec![Message::text(Role::System, "S")];
        for _ in 0..6 {
            messages.push(Message::text(Role::User, "u".repeat(50)));
            messages.push(Message::text(Role::Assistant, "a".repeat(20)));
        }
        messages.push(Message::text(Role::User, "last"));
        chat(messages)
    };
    let mut client = Client::loaded("reply=echo");
    let mut request = turns();
    request.overflow = Overflow::DropOldest;
    let answer = client.ask(request);
    assert_eq!(answer.text(), "last");
    let report = answer.prompt.unwrap();
    assert!(report.dropped_messages > 0 && report.ids.len() < 256);
    let refused = client.ask(turns());
    assert_eq!(refused.end, Some(Err(ErrorKind::ContextOverflow)));
    assert!(refused.message.contains("256"), "{}", refused.message);
}

#[test]
fn an_answer_that_ignores_its_end_has_all_its_tokens() {
    let mut client = Client::loaded("reply=echo");
    let mut request = question("short");
    request.limits.max_tokens = Some(40);
    assert_eq!(client.ask(request.clone()).end, Some(Ok(FinishReason::Stop)));
    request.limits.ignore_eos = true;
    let answer = client.ask(request);
    assert_eq!((answer.ids.len(), answer.end), (40, Some(Ok(FinishReason::Length))));
}

#[test]
fn what_cannot_be_asked_is_refused_before_the_engine() {
    let mut client = Client::loaded("reply=echo");
    let mut unknown_token = question("a");
    unknown_token.sampling.logit_bias = vec![(5000, 1.0)];
    let mut endless_form = question("a");
    endless_form.format = Format::Json;
    endless_form.limits.ignore_eos = true;
    let mut no_schema = question("a");
    no_schema.format = Format::Schema(json!(7));
    let tokens = GenerateRequest::new(Prompt::Tokens(vec![-1]));
    let mut broken_template = question("a");
    let Prompt::Chat { template, .. } = &mut broken_template.prompt else { unreachable!() };
    *template = Some("{% if %}".to_owned());
    for request in [unknown_token, endless_form, no_schema, tokens, broken_template] {
        assert_eq!(client.ask(request.clone()).end, Some(Err(ErrorKind::InvalidRequest)), "{request:?}");
    }
    assert_eq!(client.ask(question("fine")).text(), "fine");
}

#[test]
fn a_continued_answer_is_the_undisturbed_one() {
    let whole = Client::loaded("").ask(question("go on"));
    let report = whole.prompt.clone().unwrap();
    let mut client = Client::loaded("");
    let resume = Resume { report, emitted: whole.ids[..15].to_vec() };
    client.generate(1, question("ignored: raw ids are continued"), Some(resume));
    let rest = client.collect(1).remove(&1).unwrap();
    assert_eq!(rest.ids, whole.ids[15..]);
}

/// Cuts an answer after each of its tokens, and has another runner go on from there.
fn goes_on_from_anywhere(path: &str, request: &GenerateRequest) -> Answer {
    let whole = Client::loaded(path).ask(request.clone());
    let report = whole.prompt.clone().unwrap();
    for tokens in 0..=whole.ids.len() {
        let mut got = whole.cut(tokens);
        let resume = Resume { report: report.clone(), emitted: got.ids.clone() };
        let mut client = Client::loaded(path);
        client.generate(1, request.clone(), Some(resume));
        let rest = client.collect(1).remove(&1).unwrap();
        got.ids.extend(&rest.ids);
        got.parts.extend(rest.parts);
        assert_eq!(got.ids, whole.ids, "after {tokens} tokens");
        assert_eq!((got.thinking(), got.text()), (whole.thinking(), whole.text()), "after {tokens} tokens");
        assert_eq!(got.calls(), whole.calls(), "after {tokens} tokens");
        assert_eq!(rest.end, whole.end, "after {tokens} tokens");
    }
    whole
}

#[test]
fn an_answer_that_is_cut_anywhere_goes_on_without_a_word_lost_or_twice() {
    // Thoughts, characters of several bytes, what begins like a stop string, and a stop string.
    let mut request = thinking(question("go on"));
    request.limits.max_tokens = Some(100);
    request.limits.stop = vec!["stop it".to_owned(), "\u{1f426}\u{1f426}".to_owned()];
    let reply = "reply=<think>hm, Gr\u{f6}\u{df}e</think>f\u{fc}r \u{1f426}: st stop stop it and more";
    let whole = goes_on_from_anywhere(reply, &request);
    assert_eq!(whole.thinking(), "hm, Gr\u{f6}\u{df}e");
    assert_eq!(whole.text(), "f\u{fc}r \u{1f426}: st stop ");
    // One that ends by its limit in the middle of a character.
    request.limits.max_tokens = Some(7);
    request.limits.stop.clear();
    goes_on_from_anywhere("reply=caf\u{e9} \u{1f426}", &request);
}

#[test]
fn a_call_of_a_tool_that_is_cut_anywhere_is_made_once() {
    let mut request = with_tool(question("look"), TOOLS);
    request.limits.max_tokens = Some(200);
    let call = r#"reply=I look.<tool_call>{"name": "f", "arguments": {"at": "sky"}}</tool_call>"#;
    let whole = goes_on_from_anywhere(call, &request);
    assert_eq!(whole.calls().len(), 1, "{whole:?}");
}

#[test]
fn a_cancelled_answer_ends_wherever_it_is() {
    let mut client = Client::loaded("token_us=2000");
    let mut long = question("long");
    long.limits.max_tokens = Some(200);
    for id in 1..=8 {
        client.generate(id, long.clone(), None);
    }
    for id in 1..=8 {
        client.send(&ToRunner::Cancel { id: GenerationId(id) });
    }
    client.send(&ToRunner::Cancel { id: GenerationId(99) });
    let answers = client.collect(8);
    assert!(answers.values().all(|answer| answer.end == Some(Ok(FinishReason::Cancelled))), "{answers:?}");
}

#[test]
fn a_cancelled_prompt_does_not_compute_its_chunk_to_the_end() {
    let mut client = Client::loaded("token_us=1000000");
    client.generate(1, question(&"long ".repeat(40)), None);
    while !matches!(client.next(), ToServer::Event { event: GenerateEvent::Prompt(_), .. }) {}
    thread::sleep(Duration::from_millis(500));
    client.send(&ToRunner::Cancel { id: GenerationId(1) });
    let end = loop {
        if let ToServer::Event { event: GenerateEvent::Finished { reason, .. }, .. } = client.next() {
            break reason;
        }
    };
    // The chunk would take 200 s, longer than `next` waits.
    assert_eq!(end, FinishReason::Cancelled);
}

#[test]
fn many_answers_at_once_each_end_once_and_do_not_mix() {
    let mut client = Client::loaded("reply=echo");
    for id in 0..40 {
        client.generate(id, question(&format!("question {id}")), None);
    }
    for (id, answer) in client.collect(40) {
        assert_eq!(answer.text(), format!("question {id}"));
    }
}

#[test]
fn shutdown_fails_what_runs() {
    let mut client = Client::loaded("token_us=3000");
    let mut long = question("long");
    long.limits.max_tokens = Some(200);
    client.generate(1, long, None);
    while !matches!(client.next(), ToServer::Event { event: GenerateEvent::Delta(_), .. }) {}
    client.send(&ToRunner::Shutdown);
    let end = loop {
        if let ToServer::Event { event: GenerateEvent::Failed(error), .. } = client.next() {
            break error;
        }
    };
    assert_eq!(end.kind, ErrorKind::ShuttingDown);
}

#[test]
fn a_seed_is_drawn_and_told() {
    let mut client = Client::loaded("");
    let mut request = question("a");
    request.sampling.temperature = 1.0;
    let (first, second) = (client.ask(request.clone()), client.ask(request.clone()));
    let seed = first.prompt.unwrap().seed;
    assert_ne!(seed, second.prompt.unwrap().seed);
    request.sampling.seed = Some(seed);
    assert_eq!(client.ask(request).ids, first.ids);
}
