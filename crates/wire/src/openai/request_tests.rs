//! Bodies as the official Python client (3.54.0) sends them, and bodies as nobody should.

use firepot_chat::{Effort, Format, GenerateRequest, Overflow, Prompt, Role, ThinkMode, ToolChoice};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{ApiError, ErrorCode, Mode, testing::any_json};

fn extended(mut body: Value, more: Value) -> Vec<u8> {
    let Value::Object(more) = more else { panic!("not an object") };
    body.as_object_mut().unwrap().extend(more);
    body.to_string().into_bytes()
}

/// A chat with one turn and these further fields.
fn chat(more: Value) -> Result<Parsed, ApiError> {
    chat_from_wire(&extended(json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}), more))
}

/// A completion of "hi" with these further fields.
fn completion(more: Value) -> Result<Parsed, ApiError> {
    completion_from_wire(&extended(json!({"model": "m", "prompt": "hi"}), more))
}

fn request(more: Value) -> GenerateRequest {
    chat(more).unwrap().requests.remove(0)
}

fn check(parsed: Result<Parsed, ApiError>, code: ErrorCode, message: &str) {
    let error = parsed.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (code, message));
}

fn invalid(more: Value, message: &str) {
    check(chat(more), ErrorCode::InvalidRequest, message);
}

fn unsupported(more: Value, message: &str) {
    check(chat(more), ErrorCode::Unsupported, message);
}

#[test]
fn the_shortest_chat_has_openais_defaults() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let parsed = chat_from_wire(body).unwrap();
    let layout = parsed.layout;
    assert_eq!((layout.shape, layout.mode, layout.include_usage), (Shape::Chat, Mode::Whole, false));
    assert_eq!((layout.prompts, layout.choices_per_prompt), (1, 1));
    insta::assert_compact_json_snapshot!(parsed.requests, @r#"
    [
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
          "temperature": 1.0,
          "top_k": 0,
          "top_p": 1.0,
          "min_p": 0.0,
          "typical_p": 1.0,
          "repeat_penalty": 1.0,
          "repeat_last_n": -1,
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
        "overflow": "Refuse",
        "logprobs": null,
        "strict": false,
        "uncached": false
      }
    ]
    "#);
}

#[test]
fn the_fullest_chat_is_read_field_by_field() {
    let body = br#"{"model":"m","stream":true,"messages":[{"role":"developer","content":"d"},{"role":"user",
        "content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],"logit_bias":{"5":-100},
        "logprobs":true,"max_completion_tokens":5,"max_tokens":9,"n":2,"reasoning_effort":"low","seed":-3,
        "stop":"x","stream_options":{"include_usage":true},"top_logprobs":1,"top_k":5,"user":"me"}"#;
    let parsed = chat_from_wire(body).unwrap();
    assert_eq!(parsed.warnings, [""; 0]);
    assert!(parsed.layout.include_usage);
    assert_eq!((parsed.layout.mode, parsed.layout.generations()), (Mode::Stream, 2));
    let [first, second] = &parsed.requests[..] else { panic!("not two") };
    assert_eq!((first.sampling.choice, second.sampling.choice), (0, 1));
    assert_eq!(first.overflow, Overflow::Refuse);
    insta::assert_compact_json_snapshot!(second, @r#"
    {
      "prompt": {
        "Chat": {
          "messages": [
            {
              "role": "system",
              "content": "d",
              "thinking": null,
              "tool_calls": [],
              "tool_call_id": null,
              "tool_name": null
            },
            {
              "role": "user",
              "content": "a\nb",
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
        "temperature": 1.0,
        "top_k": 5,
        "top_p": 1.0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_penalty": 1.0,
        "repeat_last_n": -1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 18446744073709551613,
        "choice": 1,
        "logit_bias": [
          [
            5,
            -100.0
          ]
        ]
      },
      "limits": {
        "max_tokens": 5,
        "stop": [
          "x"
        ],
        "ignore_eos": false
      },
      "format": "Free",
      "thinking": {
        "mode": "On",
        "effort": "low",
        "budget_tokens": null
      },
      "overflow": "Refuse",
      "logprobs": 1,
      "strict": false,
      "uncached": false
    }
    "#);
}

#[test]
fn a_structured_answer_and_a_forced_tool_of_the_python_client_are_read() {
    let schema = br#"{"model":"m","stream":false,"messages":[{"role":"user","content":"hi"}],"response_format":
        {"type":"json_schema","json_schema":{"schema":{"type":"object","additionalProperties":false},"name":"P",
        "strict":true}}}"#;
    let request = chat_from_wire(schema).unwrap().requests.remove(0);
    assert_eq!(request.format, Format::Schema(json!({"type": "object", "additionalProperties": false})));
    let tool = br#"{"model":"m","stream":false,"messages":[{"role":"user","content":"hi"}],
        "parallel_tool_calls":false,"tool_choice":"required","tools":[{"type":"function","function":{"name":"P",
        "strict":true,"parameters":{"type":"object"}}}]}"#;
    let mut parsed = chat_from_wire(tool).unwrap();
    assert_eq!(parsed.warnings, ["parallel_tool_calls is not enforced"]);
    let Prompt::Chat { tools, tool_choice, .. } = parsed.requests.remove(0).prompt else { panic!() };
    assert_eq!((tools.len(), tool_choice), (1, ToolChoice::Required));
}

#[test]
fn earlier_turns_keep_their_reasoning_and_tool_calls() {
    let messages = json!([
        {"role": "assistant", "content": null, "reasoning_content": "hm", "refusal": null,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
        {"role": "assistant", "content": "yes", "reasoning": "so"},
        {"role": "user", "content": "and?", "name": "Ann"}
    ]);
    let Prompt::Chat { messages, .. } = request(json!({ "messages": messages })).prompt else { panic!() };
    assert_eq!(messages[0].thinking.as_deref(), Some("hm"));
    assert_eq!(messages[0].tool_calls[0].arguments, json!({"a": 1}));
    assert_eq!((messages[1].role, messages[1].tool_name.as_deref()), (Role::Tool, Some("f")));
    assert_eq!(messages[2].thinking.as_deref(), Some("so"));
    assert_eq!(messages[3].tool_name, None);
}

#[test]
fn reasoning_effort_is_a_switch_and_a_level() {
    let thinking = |more| {
        let thinking = request(more).thinking;
        (thinking.mode, thinking.effort, thinking.budget_tokens)
    };
    let effort = |name: &str| thinking(json!({ "reasoning_effort": name }));
    assert_eq!(thinking(json!({})), (ThinkMode::Auto, None, None));
    assert_eq!(effort("none"), (ThinkMode::Off, None, None));
    assert_eq!(effort("minimal"), (ThinkMode::On, Some(Effort::Low), None));
    assert_eq!(effort("medium"), (ThinkMode::On, Some(Effort::Medium), None));
    assert_eq!(effort("high"), (ThinkMode::On, Some(Effort::High), None));
    assert_eq!(effort("xhigh"), (ThinkMode::On, Some(Effort::Max), None));
    assert_eq!(thinking(json!({"reasoning": {"effort": "max"}})), (ThinkMode::On, Some(Effort::Max), None));
    let qwen =
        |on| thinking(json!({"chat_template_kwargs": {"enable_thinking": on}, "thinking_budget": null}));
    assert_eq!(qwen(true), (ThinkMode::On, None, None));
    assert_eq!(qwen(false), (ThinkMode::Off, None, None));
    assert_eq!(thinking(json!({"thinking_budget": 7})), (ThinkMode::Auto, None, Some(7)));
    invalid(
        json!({"reasoning_effort": "ultra"}),
        "reasoning_effort must be one of none, minimal, low, medium, high, xhigh, max, got \"ultra\"",
    );
    invalid(
        json!({"chat_template_kwargs": {"enable_thinking": "yes"}}),
        "chat_template_kwargs.enable_thinking must be a boolean, got string",
    );
}

#[test]
fn formats_and_tool_choices_are_told_apart() {
    let format = |value: Value| request(json!({ "response_format": value })).format;
    assert_eq!(format(json!({"type": "text"})), Format::Free);
    assert_eq!(format(json!({"type": "json_object"})), Format::Json);
    assert_eq!(request(json!({"grammar": "root ::= \"a\""})).format, Format::Gbnf("root ::= \"a\"".into()));
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let choice = |choice: Value| match request(json!({"tools": tools, "tool_choice": choice})).prompt {
        Prompt::Chat { tool_choice, .. } => tool_choice,
        other => panic!("not a chat: {other:?}"),
    };
    assert_eq!(choice(Value::Null), ToolChoice::Auto);
    assert_eq!(choice(json!("none")), ToolChoice::None);
    let named = json!({"type": "function", "function": {"name": "f"}});
    assert_eq!(choice(named), ToolChoice::Named("f".into()));
    let forced =
        json!({"tools": tools, "tool_choice": "required", "response_format": {"type": "json_object"}});
    invalid(forced, "response_format cannot be used while tool_choice forces a tool call");
}

#[test]
fn wrong_types_and_values_name_the_field() {
    invalid(json!({"messages": null}), "messages is required");
    invalid(json!({"messages": []}), "messages must not be empty");
    invalid(
        json!({"messages": [{"role": "bot"}]}),
        "messages[0].role must be one of system, developer, user, assistant, tool, got \"bot\"",
    );
    invalid(json!({"messages": [{"role": "user"}]}), "messages[0].content is required");
    invalid(
        json!({"messages": [{"role": "user", "content": 5}]}),
        "messages[0].content must be a string or an array of parts, got number",
    );
    invalid(
        json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        "messages[0].content[0].text is required",
    );
    invalid(json!({"temperature": "hot"}), "temperature must be a number, got string");
    invalid(json!({"temperature": 2.5}), "temperature must be between 0 and 2, got 2.5");
    invalid(json!({"max_tokens": 0}), "max_tokens must be between 1 and 2147483647, got 0");
    invalid(
        json!({"max_completion_tokens": -1}),
        "max_completion_tokens must be between 1 and 2147483647, got -1",
    );
    invalid(json!({"n": 9}), "n must be between 1 and 8, got 9");
    invalid(json!({"n": "2"}), "n must be an integer, got string");
    invalid(json!({"logit_bias": [1]}), "logit_bias must be an object, got array");
    invalid(json!({"logit_bias": {"a": 1}}), "logit_bias has the key \"a\", which is not a token id");
    invalid(json!({"logit_bias": {"-1": 1}}), "logit_bias has the key \"-1\", which is not a token id");
    invalid(json!({"logit_bias": {"1": 101}}), "logit_bias.1 must be between -100 and 100, got 101");
    invalid(json!({"top_logprobs": 3}), "top_logprobs needs logprobs to be true");
    invalid(json!({"logprobs": 3}), "logprobs must be a boolean, got number");
    invalid(json!({"stream_options": true}), "stream_options must be an object, got boolean");
    invalid(
        json!({"response_format": {"type": "xml"}}),
        "response_format.type must be text, json_object or json_schema, got \"xml\"",
    );
    invalid(json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema is required");
    invalid(
        json!({"response_format": {"type": "json_schema", "json_schema": {"schema": []}}}),
        "response_format.json_schema.schema must be an object, got array",
    );
    invalid(
        json!({"response_format": {"type": "json_object"}, "grammar": "root ::= \"a\""}),
        "grammar cannot be used with response_format",
    );
    invalid(
        json!({"tool_choice": "maybe"}),
        "tool_choice must be auto, none, required or a function, got \"maybe\"",
    );
    invalid(json!({"tool_choice": "required"}), "tool_choice is required, but there are no tools");
    invalid(
        json!({"tool_choice": {"type": "function", "function": {"name": "g"}}}),
        "tool_choice names \"g\", which is not among the tools",
    );
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    unsupported(json!({"functions": []}), "functions is no longer supported");
    unsupported(json!({"function_call": "auto"}), "function_call is no longer supported");
    unsupported(
        json!({"messages": [{"role": "function"}]}),
        "messages[0].role \"function\" is no longer supported",
    );
    let part = |kind| json!({"messages": [{"role": "user", "content": [{"type": kind}]}]});
    unsupported(
        part("image_url"),
        "messages[0].content[0].type \"image_url\" is not supported: no model here has the vision capability",
    );
    unsupported(
        part("input_audio"),
        "messages[0].content[0].type \"input_audio\" is not supported: no model here has the audio capability",
    );
    unsupported(part("file"), "messages[0].content[0].type \"file\" is not supported");
    unsupported(json!({"tool_choice": {"type": "custom"}}), "tool_choice.type \"custom\" is not supported");
    let hint = chat(json!({"functions": []})).unwrap_err().hint;
    assert_eq!(hint.as_deref(), Some("use tools"));
}

#[test]
fn all_the_tools_that_open_webui_sends_are_read() {
    let tools: Vec<_> = (0..36).map(|i| json!({"function": {"name": format!("f{i}")}})).collect();
    let Prompt::Chat { tools, .. } = request(json!({ "tools": tools })).prompt else { panic!("not a chat") };
    assert_eq!((tools.len(), tools[35].name.as_str()), (36, "f35"));
}

#[test]
fn unknown_fields_are_reported_and_bookkeeping_ones_are_not() {
    let parsed =
        chat(json!({"options": {"num_ctx": 9}, "metadata": {}, "store": true, "service_tier": "auto"}));
    assert_eq!(parsed.unwrap().warnings, [r#""options" is not known and was ignored"#]);
}

#[test]
fn prompts_are_text_lists_of_text_and_token_ids() {
    let prompts = |prompt: Value| -> Vec<Prompt> {
        let parsed = completion(json!({ "prompt": prompt })).unwrap();
        parsed.requests.into_iter().map(|request| request.prompt).collect()
    };
    let text = |text: &str| Prompt::Text(text.into());
    assert_eq!(prompts(json!("a")), [text("a")]);
    assert_eq!(prompts(json!("")), [text("")]);
    assert_eq!(prompts(json!(["a", "b"])), [text("a"), text("b")]);
    assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
    assert_eq!(prompts(json!([[1], [2, 3]])), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]);
}

#[test]
fn choices_come_prompt_by_prompt_and_their_number_is_limited() {
    let parsed = completion(json!({"prompt": ["a", "b"], "n": 2})).unwrap();
    let order: Vec<_> = parsed.requests.iter().map(|r| (&r.prompt, r.sampling.choice)).collect();
    let (a, b) = (Prompt::Text("a".into()), Prompt::Text("b".into()));
    assert_eq!(order, [(&a, 0), (&a, 1), (&b, 0), (&b, 1)]);
    let too_many = completion(json!({"prompt": vec!["a"; 5], "n": 8}));
    check(
        too_many,
        ErrorCode::InvalidRequest,
        "n of 8 for 5 prompts makes 40 answers, at most 32 are allowed",
    );
}

#[test]
fn bad_completions_name_the_field() {
    let invalid = |more, message| check(completion(more), ErrorCode::InvalidRequest, message);
    let unsupported = |more, message| check(completion(more), ErrorCode::Unsupported, message);
    invalid(json!({"prompt": null}), "prompt is required");
    invalid(json!({"prompt": []}), "prompt must not be empty");
    invalid(json!({"prompt": [[]]}), "prompt[0] must not be empty");
    invalid(json!({"prompt": {}}), "prompt must be a string or an array, got object");
    invalid(json!({"prompt": ["a", 1]}), "prompt[1] must be a string or an array of token ids, got number");
    invalid(json!({"prompt": [1, "a"]}), "prompt[1] must be an integer, got string");
    invalid(json!({"prompt": [-1]}), "prompt[0] must be between 0 and 2147483647, got -1");
    invalid(json!({"prompt": vec!["a"; 33]}), "prompt has 33 items, at most 32 are allowed");
    invalid(json!({"logprobs": 6}), "logprobs must be between 0 and 5, got 6");
    unsupported(json!({"suffix": "}"}), "suffix is not supported: no model here has the insert capability");
    unsupported(json!({"best_of": 2}), "best_of is not supported unless it equals n");
    unsupported(json!({"prompt": [1], "echo": true}), "echo is not supported for a prompt of token ids");
    unsupported(
        json!({"echo": true, "logprobs": 0}),
        "echo with logprobs is not supported: a prompt has none",
    );
}

/// Every name that a request can have, so that arbitrary bodies get past the first field.
const NAMES: &str = "\
    model messages role content user assistant tool type text tool_calls function name arguments {} \
    parameters tools tool_choice required response_format json_schema schema grammar temperature stop seed \
    n max_tokens reasoning_effort high reasoning effort chat_template_kwargs enable_thinking \
    thinking_budget prompt echo suffix best_of logprobs top_logprobs logit_bias 5 stream stream_options \
    include_usage";

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body: Vec<u8>) {
        let _ = (chat_from_wire(&body), completion_from_wire(&body));
    }

    #[test]
    fn arbitrary_json_never_panics_and_errors_name_a_field(body in any_json(NAMES)) {
        let body = body.to_string();
        for parsed in [chat_from_wire(body.as_bytes()), completion_from_wire(body.as_bytes())] {
            if let Err(error) = parsed {
                prop_assert!(error.param.is_some_and(|param| error.message.starts_with(&param)));
            }
        }
    }

    #[test]
    fn arbitrary_fields_beside_a_message_never_panic(more in any_json(NAMES)) {
        if more.is_object() {
            let _ = (chat(more.clone()), completion(more));
        }
    }
}
