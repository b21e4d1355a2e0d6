//! Bodies as the official Python client (0.6.3) and Open WebUI (0.12.4) send them, and bodies
//! as nobody should.

use firepot_chat::{Effort, Format, GenerateRequest, Overflow, Prompt, Role, ThinkMode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{ApiError, ErrorCode, Mode, testing::any_json};

fn chat(body: &Value) -> Result<Parsed, ApiError> {
    chat_from_wire(body.to_string().as_bytes())
}

fn generate(body: &Value) -> Result<Parsed, ApiError> {
    generate_from_wire(body.to_string().as_bytes())
}

fn request(parsed: Parsed) -> GenerateRequest {
    match parsed.action {
        Action::Generate(request) => *request,
        other => panic!("not a generation: {other:?}"),
    }
}

/// A chat with one turn and these further fields.
fn hi(more: Value) -> Result<Parsed, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let Value::Object(more) = more else { panic!("not an object") };
    body.as_object_mut().unwrap().extend(more);
    chat(&body)
}

/// The error for a chat with one turn and these further fields.
fn check(more: Value, code: ErrorCode, message: &str) {
    let error = hi(more).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (code, message));
}

fn invalid(more: Value, message: &str) {
    check(more, ErrorCode::InvalidRequest, message);
}

#[test]
fn the_python_clients_shortest_chat_streams_only_if_asked() {
    let body = br#"{"model":"m","stream":false,"messages":[{"role":"user","content":"hi"}],"tools":[]}"#;
    let parsed = chat_from_wire(body).unwrap();
    assert_eq!((parsed.mode, parsed.shape, parsed.keep_alive), (Mode::Whole, Shape::Chat, None));
    assert_eq!(parsed.warnings, [""; 0]);
    insta::assert_compact_json_snapshot!(request(parsed), @r#"
    {
      "prompt": {
        "Chat": {
          "messages": [
            {
              "role": "user",
              "content": "hi",
              "thinking": null,
              "tool_calls": [],
              "tool_call_id": null,
              "tool_name": null
            }
          ],
          "tools": [],
          "tool_choice": "Auto",
          "context": [],
          "template": null
        }
      },
      "sampling": {
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_penalty": 1.0,
        "repeat_last_n": 64,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": null,
        "choice": 0,
        "logit_bias": []
      },
      "limits": {
        "max_tokens": null,
        "stop": [],
        "ignore_eos": false
      },
      "format": "Free",
      "thinking": {
        "mode": "Auto",
        "effort": null,
        "budget_tokens": null
      },
      "overflow": "DropOldest",
      "logprobs": null,
      "strict": false,
      "uncached": false
    }
    "#);
    assert_eq!(hi(json!({})).unwrap().mode, Mode::Stream);
}

#[test]
fn the_python_clients_fullest_chat_is_read_field_by_field() {
    let body =
        br#"{"model":"m","stream":true,"options":{"num_ctx":2048,"seed":7,"temperature":0.0,"stop":["x"]},
        "format":{"properties":{"name":{"title":"Name","type":"string"}},"required":["name"],"type":"object"},
        "keep_alive":"5m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":
        {"name":"add","description":"Add two numbers","parameters":{"type":"object","required":["a"],
        "properties":{"a":{"type":"integer","description":"The first"}}}}}],"think":"high","logprobs":true,
        "top_logprobs":2}"#;
    let parsed = chat_from_wire(body).unwrap();
    assert_eq!(parsed.keep_alive, KeepAlive::parse("5m"));
    assert_eq!(parsed.load, LoadOptions { num_ctx: Some(2048), ..LoadOptions::default() });
    let request = request(parsed);
    assert_eq!((request.sampling.seed, request.sampling.temperature), (Some(7), 0.0));
    assert_eq!((request.limits.stop, request.logprobs), (vec!["x".to_owned()], Some(2)));
    assert_eq!((request.thinking.mode, request.thinking.effort), (ThinkMode::On, Some(Effort::High)));
    assert!(matches!(request.format, Format::Schema(schema) if schema["required"][0] == "name"));
    let Prompt::Chat { tools, .. } = request.prompt else { panic!("not a chat") };
    assert_eq!((tools[0].name.as_str(), tools[0].parameters["required"][0].as_str()), ("add", Some("a")));
}

#[test]
fn a_tool_conversation_of_the_python_client_is_linked_by_name() {
    let body =
        br#"{"model":"m","stream":false,"messages":[{"role":"user","content":"1+2"},{"role":"assistant",
        "tool_calls":[{"function":{"name":"add","arguments":{"a":1,"b":2}}}]},
        {"role":"tool","content":"3","tool_name":"add"}],"tools":[]}"#;
    let Prompt::Chat { messages, .. } = request(chat_from_wire(body).unwrap()).prompt else { panic!() };
    insta::assert_compact_json_snapshot!(messages[1..], @r#"
    [
      {
        "role": "assistant",
        "content": "",
        "thinking": null,
        "tool_calls": [
          {
            "id": "call_1_0",
            "name": "add",
            "arguments": {
              "a": 1,
              "b": 2
            }
          }
        ],
        "tool_call_id": null,
        "tool_name": null
      },
      {
        "role": "tool",
        "content": "3",
        "thinking": null,
        "tool_calls": [],
        "tool_call_id": "call_1_0",
        "tool_name": "add"
      }
    ]
    "#);
}

#[test]
fn open_webuis_history_keeps_thinking_and_tool_results() {
    let body = json!({"model": "m", "stream": true, "messages": [
        {"role": "System", "content": "be brief"},
        {"role": "assistant", "content": "", "thinking": "hm", "images": [],
            "tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "ok", "tool_call_id": "c1"}
    ]});
    let parsed = chat(&body).unwrap();
    assert_eq!(parsed.warnings, [""; 0]);
    let Prompt::Chat { messages, .. } = request(parsed).prompt else { panic!("not a chat") };
    assert_eq!(messages[0].role, Role::System);
    assert_eq!(messages[1].thinking.as_deref(), Some("hm"));
    assert_eq!(messages[2].tool_name.as_deref(), Some("f"));
}

#[test]
fn no_messages_and_no_prompt_load_or_unload_the_model() {
    let action = |parsed: Result<Parsed, ApiError>| parsed.unwrap().action;
    assert_eq!(action(chat(&json!({"model": "m"}))), Action::Load);
    assert_eq!(action(chat(&json!({"model": "m", "messages": [], "keep_alive": "10m"}))), Action::Load);
    assert_eq!(action(chat(&json!({"model": "m", "messages": [], "keep_alive": 0}))), Action::Unload);
    // What the Python client and Open WebUI send to unload.
    let client = br#"{"model":"m","stream":false,"keep_alive":0.0}"#;
    assert_eq!(action(generate_from_wire(client)), Action::Unload);
    assert_eq!(action(generate(&json!({"model": "m", "keep_alive": 0, "prompt": ""}))), Action::Unload);
    assert_eq!(action(generate(&json!({"model": "m", "raw": true, "keep_alive": -1}))), Action::Load);
}

#[test]
fn a_generate_request_becomes_a_conversation_unless_it_is_raw() {
    let client = br#"{"model":"m","stream":true,"prompt":"hi","system":"s","context":[1,2],"think":false}"#;
    let parsed = generate_from_wire(client).unwrap();
    assert_eq!(parsed.shape, Shape::Generate);
    let generated = request(parsed);
    assert_eq!(generated.thinking.mode, ThinkMode::Off);
    insta::assert_compact_json_snapshot!(generated.prompt, @r#"
    {
      "Chat": {
        "messages": [
          {
            "role": "system",
            "content": "s",
            "thinking": null,
            "tool_calls": [],
            "tool_call_id": null,
            "tool_name": null
          },
          {
            "role": "user",
            "content": "hi",
            "thinking": null,
            "tool_calls": [],
            "tool_call_id": null,
            "tool_name": null
          }
        ],
        "tools": [],
        "tool_choice": "Auto",
        "context": [
          1,
          2
        ],
        "template": null
      }
    }
    "#);
    let raw = br#"{"model":"m","stream":false,"options":{"num_predict":3},"prompt":"x","raw":true}"#;
    let parsed = generate_from_wire(raw).unwrap();
    assert_eq!(parsed.shape, Shape::Raw);
    let generated = request(parsed);
    assert_eq!((generated.prompt, generated.limits.max_tokens), (Prompt::Text("x".into()), Some(3)));
}

#[test]
fn what_generate_cannot_do_is_refused_by_name() {
    let error = |more: Value| {
        let mut body = json!({"model": "m", "prompt": "hi"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = generate(&body).unwrap_err();
        format!("{} {}", error.code.info().status, error.message)
    };
    let raw = "400 raw cannot be used with template, system or context";
    assert_eq!(error(json!({"raw": true, "system": "s"})), raw);
    assert_eq!(error(json!({"raw": true, "template": "t"})), raw);
    assert_eq!(error(json!({"raw": true, "context": [1]})), raw);
    assert_eq!(
        error(json!({"suffix": "}"})),
        "400 suffix is not supported: no model here has the insert capability"
    );
    assert_eq!(
        error(json!({"images": ["aGk="]})),
        "400 images is not supported: no model here has the vision capability"
    );
    assert_eq!(error(json!({"context": [-1]})), "400 context[0] must be between 0 and 2147483647, got -1");
    assert_eq!(error(json!({"prompt": 5})), "400 prompt must be a string, got number");
}

#[test]
fn go_templates_are_told_from_jinja() {
    let read = |template: &str| generate(&json!({"model": "m", "prompt": "hi", "template": template}));
    for template in
        ["{{ .Prompt }}", "{{- if .System }}x{{ end }}", "{{.Prompt}}", "a{{ range $i, $_ := .M }}"]
    {
        let error = read(template).unwrap_err();
        assert_eq!(error.message, "template is written in Go's template language", "{template}");
        assert!(error.hint.unwrap().contains("Jinja"));
    }
    for template in
        ["{{ messages[0].content }}", "{%- if x %}{{ iffy }}{% endif %}", "{{- bos_token }}", "plain"]
    {
        let Prompt::Chat { template: read, .. } = request(read(template).unwrap()).prompt else { panic!() };
        assert_eq!(read.as_deref(), Some(template));
    }
}

#[test]
fn format_is_nothing_json_or_a_schema() {
    let format = |value: Value| request(hi(json!({ "format": value })).unwrap()).format;
    assert_eq!(format(Value::Null), Format::Free);
    assert_eq!(format(json!("")), Format::Free);
    assert_eq!(format(json!("json")), Format::Json);
    assert_eq!(format(json!({"type": "object"})), Format::Schema(json!({"type": "object"})));
    invalid(json!({"format": "yaml"}), "format must be \"json\" or a JSON schema, got \"yaml\"");
    invalid(json!({"format": ["json"]}), "format must be \"json\" or a JSON schema, got array");
    invalid(json!({"format": true}), "format must be \"json\" or a JSON schema, got boolean");
}

#[test]
fn think_is_a_switch_or_an_effort_and_can_have_a_budget() {
    let thinking = |more| request(hi(more).unwrap()).thinking;
    assert_eq!(thinking(json!({})).mode, ThinkMode::Auto);
    assert_eq!(thinking(json!({"think": true})).mode, ThinkMode::On);
    assert_eq!(thinking(json!({"think": "max"})).effort, Some(Effort::Max));
    assert_eq!(thinking(json!({"think_budget": 64})).budget_tokens, Some(64));
    assert_eq!(thinking(json!({"options": {"thinking_budget": 32}})).budget_tokens, Some(32));
    let both = json!({"think_budget": 64, "options": {"thinking_budget": 32}});
    assert_eq!(thinking(both).budget_tokens, Some(64));
    let what = "think must be a boolean or one of \"low\", \"medium\", \"high\", \"max\"";
    invalid(json!({"think": "very"}), &format!("{what}, got \"very\""));
    invalid(json!({"think": 1}), &format!("{what}, got number"));
    invalid(json!({"think_budget": -1}), "think_budget must be between 0 and 2147483647, got -1");
    invalid(
        json!({"think": false, "think_budget": 5}),
        "think_budget cannot be used while thinking is switched off",
    );
}

#[test]
fn the_oldest_turns_are_dropped_unless_truncate_is_false() {
    let overflow = |more| request(hi(more).unwrap()).overflow;
    assert_eq!(overflow(json!({"shift": true})), Overflow::DropOldest);
    assert_eq!(overflow(json!({"truncate": true})), Overflow::DropOldest);
    assert_eq!(overflow(json!({"truncate": false})), Overflow::Refuse);
}

#[test]
fn wrong_types_and_values_name_the_field() {
    invalid(json!({"model": 5}), "model must be a string, got number");
    invalid(json!({"model": " "}), "model is required");
    invalid(json!({"model": null}), "model is required");
    invalid(json!({"messages": "hi"}), "messages must be an array, got string");
    invalid(json!({"messages": ["hi"]}), "messages[0] must be an object, got string");
    invalid(json!({"messages": [{}]}), "messages[0].role is required");
    invalid(json!({"messages": [{"role": 1}]}), "messages[0].role must be a string, got number");
    invalid(
        json!({"messages": [{"role": "bot"}]}),
        "messages[0].role must be one of system, user, assistant, tool, got \"bot\"",
    );
    invalid(
        json!({"messages": [{"role": "user", "content": ["hi"]}]}),
        "messages[0].content must be a string, got array",
    );
    invalid(json!({"messages": vec![0; 8193]}), "messages has 8193 items, at most 8192 are allowed");
    invalid(json!({"stream": "yes"}), "stream must be a boolean, got string");
    invalid(json!({"truncate": 1}), "truncate must be a boolean, got number");
    invalid(json!({"shift": 1}), "shift must be a boolean, got number");
    invalid(json!({"top_logprobs": 21}), "top_logprobs must be between 0 and 20, got 21");
    invalid(json!({"options": "fast"}), "options must be an object, got string");
    let unsupported = |more, message| check(more, ErrorCode::Unsupported, message);
    unsupported(json!({"_debug_render_only": true}), "_debug_render_only is not supported");
    unsupported(
        json!({"messages": [{"role": "user", "content": "?", "images": ["aGk="]}]}),
        "messages[0].images is not supported: no model here has the vision capability",
    );
}

#[test]
fn what_has_no_effect_is_reported() {
    let parsed = hi(json!({"max_tokens": 5, "options": {"tfs_z": 1}, "template": null})).unwrap();
    assert_eq!(
        parsed.warnings,
        [r#"options."tfs_z" is not known and was ignored"#, r#""max_tokens" is not known and was ignored"#]
    );
}

#[test]
fn unknown_fields_over_the_limit_are_counted() {
    let many: serde_json::Map<_, _> = (0..20).map(|i| (format!("x{i}\n"), json!(i))).collect();
    let warnings = hi(Value::Object(many)).unwrap().warnings;
    assert_eq!(warnings.len(), 17);
    assert_eq!(warnings[15], r#""x15\n" is not known and was ignored"#);
    assert_eq!(warnings[16], "4 more fields are not known and were ignored");
}

#[test]
fn a_megabyte_of_one_character_is_refused_in_a_short_message_or_read_whole() {
    let long = "x".repeat(1 << 20);
    for field in ["model", "format", "think", "keep_alive", "stream"] {
        let error = hi(json!({ field: long })).unwrap_err();
        assert!(error.message.len() < 300, "{field}");
    }
    let prompt = request(hi(json!({"messages": [{"role": "user", "content": long}]})).unwrap()).prompt;
    assert!(matches!(prompt, Prompt::Chat { messages, .. } if messages[0].content == long));
}

/// Every name that a request can have, so that arbitrary bodies get past the first field.
const NAMES: &str = "\
    model messages role content user assistant tool thinking images tool_calls function name arguments \
    parameters tools format json options temperature stop seed num_ctx num_predict keep_alive 5m think \
    high prompt context raw system template {{.X}} logprobs top_logprobs stream truncate suffix";

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body: Vec<u8>) {
        let _ = (chat_from_wire(&body), generate_from_wire(&body), model_request(&body));
    }

    #[test]
    fn arbitrary_json_never_panics_and_errors_name_a_field(body in any_json(NAMES)) {
        let body = body.to_string();
        for parsed in [chat_from_wire(body.as_bytes()), generate_from_wire(body.as_bytes())] {
            if let Err(error) = parsed {
                prop_assert!(error.param.is_some_and(|param| error.message.starts_with(&param)));
            }
        }
        let _ = model_request(body.as_bytes());
    }

    #[test]
    fn arbitrary_fields_beside_a_message_never_panic(more in any_json(NAMES)) {
        if more.is_object() {
            let _ = hi(more);
        }
    }
}
