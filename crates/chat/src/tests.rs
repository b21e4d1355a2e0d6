//! Real templates, and answers cut at any place.

use proptest::prelude::*;
use serde_json::json;

use crate::*;

const SMOLLM2: &str = include_str!("../tests/templates/smollm2.jinja");
const QWEN3: &str = include_str!("../tests/templates/qwen3.jinja");
const DEEPSEEK: &str = include_str!("../tests/templates/deepseek-r1-distill.jinja");
const NO_SYSTEM: &str = include_str!("../tests/templates/no-system.jinja");

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

fn assistant(text: &str) -> Message {
    Message::text(Role::Assistant, text)
}

fn system(text: &str) -> Message {
    Message::text(Role::System, text)
}

fn weather() -> Tool {
    let parameters = json!({"type": "object", "properties": {"ort": {"type": "string"}}});
    Tool { name: "weather".into(), description: Some("Wie ist das Wetter in Köln?".into()), parameters }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::compile(source, "<bos>", "<eos>").unwrap()
}

fn render_with(source: &str, messages: &[Message], tools: &[Tool], thinking: ThinkMode) -> String {
    let input = RenderInput { messages, tools, thinking, effort: None, today: 20_780 };
    template(source).render(&input).unwrap()
}

fn render(source: &str, messages: &[Message]) -> String {
    render_with(source, messages, &[], ThinkMode::Auto)
}

#[test]
fn smollm2_puts_its_own_system_prompt_first() {
    assert_eq!(
        render(SMOLLM2, &[user("Hi")]),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert!(render(SMOLLM2, &[system("Be brief."), user("Hi")]).starts_with("<|im_start|>system\nBe brief."));
    let expected = Abilities { system: true, ..Abilities::default() };
    assert_eq!(template(SMOLLM2).abilities(), expected);
}

#[test]
fn an_answer_that_was_begun_stays_open() {
    let text = render(SMOLLM2, &[user("Count."), assistant("1, 2,")]);
    assert!(text.ends_with("<|im_start|>assistant\n1, 2,"), "{text}");
}

#[test]
fn qwen3_shows_tools_and_switches_thinking_off() {
    let abilities = template(QWEN3).abilities();
    let all = Abilities { tools: true, thinking: true, thinking_toggle: true, effort: false, system: true };
    assert_eq!(abilities, all);
    let text = render_with(QWEN3, &[user("Hi")], &[weather()], ThinkMode::Off);
    let tool = r#"{"type": "function", "function": {"name": "weather", "description": "Wie ist das Wetter in Köln?", "parameters": {"type": "object", "properties": {"ort": {"type": "string"}}}}}"#;
    assert!(text.contains(tool), "{text}");
    assert!(text.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "{text}");
    assert!(render(QWEN3, &[user("Hi")]).ends_with("<|im_start|>assistant\n"));
}

#[test]
fn qwen3_shows_calls_and_results_of_earlier_turns() {
    let mut call = assistant("");
    call.tool_calls =
        vec![ToolCall { id: "call_1".into(), name: "weather".into(), arguments: json!({"ort": "Köln"}) }];
    let mut result = Message::text(Role::Tool, "rain");
    result.tool_call_id = Some("call_1".into());
    let text = render_with(QWEN3, &[user("Weather?"), call, result], &[weather()], ThinkMode::Auto);
    assert!(
        text.contains(
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"ort\": \"Köln\"}}\n</tool_call>"
        ),
        "{text}"
    );
    assert!(text.contains("<tool_response>\nrain\n</tool_response>"), "{text}");
}

#[test]
fn deepseek_opens_the_thinking_block_itself_and_drops_old_thoughts() {
    let text = render(DEEPSEEK, &[user("Hi"), assistant("<think>old</think>Hello"), user("Why?")]);
    assert_eq!(
        text,
        "<bos><｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜><｜User｜>Why?<｜Assistant｜><think>\n"
    );
    assert!(template(DEEPSEEK).abilities().thinking && !template(DEEPSEEK).abilities().tools);
}

#[test]
fn a_template_without_a_system_role_gets_it_in_the_first_question() {
    assert!(!template(NO_SYSTEM).abilities().system);
    let text = render(NO_SYSTEM, &[system("Be brief."), user("Hi")]);
    assert_eq!(text, "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n");
}

#[test]
fn a_template_that_refuses_says_why() {
    let input = RenderInput {
        messages: &[user("a"), user("b")],
        tools: &[],
        thinking: ThinkMode::Auto,
        effort: None,
        today: 0,
    };
    let error = template(NO_SYSTEM).render(&input).unwrap_err();
    assert_eq!(
        error,
        TemplateError::Refused { reason: "Conversation roles must alternate user/assistant".into() }
    );
}

#[test]
fn templates_are_not_trusted() {
    assert!(matches!(ChatTemplate::compile("{% if %}", "", ""), Err(TemplateError::Invalid { .. })));
    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}";
    let input =
        RenderInput { messages: &[user("a")], tools: &[], thinking: ThinkMode::Auto, effort: None, today: 0 };
    assert!(matches!(template(endless).render(&input), Err(TemplateError::Failed { .. })));
    assert!(template("{{ messages[7].content.upper() }}").render(&input).is_err());
}

#[test]
fn training_marks_dates_and_python_methods_are_understood() {
    let source = "{% for m in messages %}{%- generation -%}{{ m.content.strip().title() }}{% endgeneration %}{% endfor %}\
                  {{ strftime_now('%d %b %Y') }}";
    assert_eq!(render(source, &[user(" ada lovelace ")]), "Ada Lovelace23 Nov 2026");
}

#[test]
fn a_model_without_a_template_gets_names_before_turns() {
    let input = RenderInput {
        messages: &[system("S"), user("Q"), assistant("A"), user("R")],
        tools: &[],
        thinking: ThinkMode::Auto,
        effort: None,
        today: 0,
    };
    assert_eq!(
        ChatTemplate::plain().render(&input).unwrap(),
        "S\n\nUser: Q\nAssistant: A\nUser: R\nAssistant:"
    );
}

fn parse(config: OutputConfig, pieces: &[&str]) -> Vec<Part> {
    let mut parser = OutputParser::new(config);
    let mut parts: Vec<Part> = Vec::new();
    for more in
        pieces.iter().map(|piece| parser.push(piece)).collect::<Vec<_>>().into_iter().chain([parser.finish()])
    {
        for part in more {
            match (part, parts.last_mut()) {
                (Part::Content(text), Some(Part::Content(last)))
                | (Part::Thinking(text), Some(Part::Thinking(last))) => {
                    last.push_str(&text);
                }
                (part, _) => parts.push(part),
            }
        }
    }
    parts
}

const fn config(starts_thinking: bool, tool_style: Option<ToolStyle>) -> OutputConfig {
    let markers = Some(ThinkMarkers { open: "<think>", close: "</think>" });
    OutputConfig { markers, starts_thinking, tool_style, id_seed: 7 }
}

fn content(text: &str) -> Part {
    Part::Content(text.into())
}

fn thinking(text: &str) -> Part {
    Part::Thinking(text.into())
}

fn call(index: u32, name: &str, arguments: serde_json::Value) -> Part {
    Part::ToolCall(ToolCall { id: format!("call_000000000007{index:02x}"), name: name.into(), arguments })
}

#[test]
fn thinking_is_separated_from_the_answer() {
    let free = config(false, None);
    assert_eq!(
        parse(free, &["\n<think>\nhm\n</think>\n\nyes <think>"]),
        [thinking("hm\n"), content("yes <think>")]
    );
    assert_eq!(parse(free, &["no block"]), [content("no block")]);
    assert_eq!(parse(free, &["<thi"]), [content("<thi")]);
    assert_eq!(parse(free, &["<think>never closed"]), [thinking("never closed")]);
    let inside = config(true, None);
    assert_eq!(parse(inside, &["hm</think>yes"]), [thinking("hm"), content("yes")]);
    assert_eq!(parse(inside, &["<think>hm</think>yes"]), [thinking("hm"), content("yes")]);
}

#[test]
fn calls_are_found_in_each_style() {
    let hermes = "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"ort\": \"Köln\"}}\n</tool_call>\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    assert_eq!(
        parse(config(false, Some(ToolStyle::Hermes)), &[hermes]),
        [content("Let me look."), call(0, "weather", json!({"ort": "Köln"})), call(1, "f", json!({}))]
    );
    let llama = "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"g\", \"parameters\": {}}";
    let expected = [call(0, "f", json!({"a": 1})), call(1, "g", json!({}))];
    assert_eq!(parse(config(false, Some(ToolStyle::Llama3)), &[llama]), expected);
    assert_eq!(parse(config(false, Some(ToolStyle::Llama3)), &["<|python_tag|>", llama]), expected);
    let deepseek = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    assert_eq!(parse(config(false, Some(ToolStyle::DeepSeek)), &[deepseek]), expected[..1]);
}

#[test]
fn what_only_looks_like_a_call_is_content() {
    for (style, text) in [
        (ToolStyle::Hermes, "<tool_call>not json</tool_call>"),
        (ToolStyle::Hermes, "<tool_call>{\"name\": 1}</tool_call>"),
        (ToolStyle::Hermes, "<tool_call>{\"name\": \"f\""),
        (ToolStyle::Llama3, "{\"just\": \"json\"}"),
        (ToolStyle::DeepSeek, "<｜tool▁calls▁begin｜>nothing"),
    ] {
        assert_eq!(parse(config(false, Some(style)), &[text]), [content(text)]);
    }
}

#[test]
fn an_unclosed_but_complete_call_counts() {
    let text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}";
    assert_eq!(parse(config(false, Some(ToolStyle::Hermes)), &[text]), [call(0, "f", json!({"a": 1}))]);
}

fn pieces_of(text: &str, cuts: &[usize]) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (letters.len() + 1)).collect();
    ends.extend([0, letters.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| letters[pair[0]..pair[1]].iter().collect()).collect()
}

proptest! {
    #[test]
    fn an_answer_cut_anywhere_reads_the_same(
        words in proptest::collection::vec(prop_oneof![
            Just("<think>"), Just("</think>"), Just("<tool_call>"), Just("</tool_call>"), Just("\n"), Just("word "),
            Just("{\"name\": \"f\", \"arguments\": {}}"), Just("<|python_tag|>"), Just("é"), Just("<"), Just("</")
        ], 0..14),
        cuts: Vec<usize>,
        starts_inside: bool,
        style in prop_oneof![Just(None), Just(Some(ToolStyle::Hermes)), Just(Some(ToolStyle::Llama3)), Just(Some(ToolStyle::DeepSeek))],
    ) {
        let text = words.concat();
        let pieces = pieces_of(&text, &cuts);
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        prop_assert_eq!(parse(config(starts_inside, style), &pieces), parse(config(starts_inside, style), &[&text]));
    }
}

/// Counts a token for each letter.
#[expect(clippy::unnecessary_wraps, reason = "the shape that `fit` takes")]
fn letters(messages: &[Message]) -> Result<u32, GenerateError> {
    Ok(messages.iter().map(|message| message.content.len() as u32).sum())
}

#[test]
fn the_oldest_turns_go_first_and_the_system_prompt_stays() {
    let messages =
        [system("ss"), user("aaaa"), assistant("bbbb"), user("cccc"), assistant("dddd"), user("eeee")];
    let fitted = fit(&messages, Overflow::DropOldest, 15, 14, &mut letters).unwrap();
    assert_eq!((fitted.dropped, fitted.tokens), (2, 14));
    assert_eq!(fitted.messages[0].content, "ss");
    assert_eq!(fitted.messages[1].content, "cccc");
    let all = fit(&messages, Overflow::DropOldest, 23, 20, &mut letters).unwrap();
    assert_eq!((all.dropped, all.tokens), (0, 22));
}

#[test]
fn what_cannot_be_cut_is_refused_with_the_numbers() {
    let messages = [system("s"), user("aaaa"), assistant("bb"), user("eeeeeeee")];
    for (overflow, tokens) in [(Overflow::Refuse, 15), (Overflow::DropOldest, 9)] {
        let error = fit(&messages, overflow, 9, 8, &mut letters).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ContextOverflow);
        assert!(error.message.contains(&tokens.to_string()) && error.message.contains('9'), "{error}");
    }
}

#[test]
fn a_forced_call_has_a_form() {
    let forced =
        forced_call(ToolStyle::Hermes, &[weather()], &ToolChoice::Named("weather".into())).unwrap().unwrap();
    assert_eq!(forced.prefix, "<tool_call>\n");
    let Format::Schema(schema) = forced.format else { panic!("a schema") };
    assert_eq!(schema["anyOf"][0]["properties"]["name"]["const"], "weather");
    assert!(forced_call(ToolStyle::Hermes, &[weather()], &ToolChoice::Named("x".into())).is_err());
    assert_eq!(forced_call(ToolStyle::Hermes, &[weather()], &ToolChoice::Auto).unwrap(), None);
}

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
