//! Pulling, making and copying models: requests of `/api/pull`, `/api/create` and `/api/copy`, and the lines
//! that tell how far they are.

use firepot_chat::is_go_template;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{ModelfileMessage, options::Options, request::go_template};
use crate::{
    ApiError, Mode, common,
    encoder::to_json,
    fields::{Field, Fields, parse_object},
    limits,
};

/// A request of `/api/pull`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// What is wanted: a model's name, or an address.
    pub model: String,
    /// Whether a registry may be asked without encryption.
    pub insecure: bool,
    /// Whether progress is told; the default.
    pub mode: Mode,
}

/// A request of `/api/create`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateRequest {
    /// The new model's name.
    pub model: String,
    /// The model that it is made from.
    pub from: Option<String>,
    /// Or the blobs, by the names of their files and in the order of these.
    pub files: Vec<(String, String)>,
    /// Jinja; an empty text takes the inherited one away.
    pub template: Option<String>,
    /// An empty text takes the inherited one away.
    pub system: Option<String>,
    /// Licences; none keeps those inherited.
    pub license: Vec<String>,
    /// Options for requests that have none of their own.
    pub parameters: Map<String, Value>,
    /// Messages that stand before each conversation; none keeps those inherited.
    pub messages: Vec<ModelfileMessage>,
    /// Whether progress is told; the default.
    pub mode: Mode,
    /// What the request says to no effect.
    pub warnings: Vec<String>,
}

/// A request of `/api/copy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRequest {
    /// The model's name.
    pub source: String,
    /// Its second name.
    pub destination: String,
}

/// Reads a request of `/api/pull`.
///
/// # Errors
/// The first field that cannot be used, by name.
pub fn pull_request(body: &[u8]) -> Result<PullRequest, ApiError> {
    let map = parse_object(body)?;
    let body = Fields::root(&map);
    let model = named(&body)?;
    let insecure = body.bool("insecure")?.unwrap_or(false);
    Ok(PullRequest { model, insecure, mode: mode(&body)? })
}

/// Reads a request of `/api/create`.
///
/// # Errors
/// The first field that cannot be used, or asks for what is not done here, by name.
pub fn create_request(body: &[u8]) -> Result<CreateRequest, ApiError> {
    let map = parse_object(body)?;
    let body = Fields::root(&map);
    refuse_unsupported(&body)?;
    let request = CreateRequest {
        model: named(&body)?,
        from: body.owned_string("from")?,
        files: files(&body)?,
        template: body.string("template")?.map(str::to_owned),
        system: body.string("system")?.map(str::to_owned),
        license: license(&body)?,
        parameters: parameters(&body)?,
        messages: messages(&body)?,
        mode: mode(&body)?,
        warnings: Vec::new(),
    };
    match (&request.from, request.files.is_empty()) {
        (None, true) => {
            let error = ApiError::invalid("from", "or files is required");
            Err(error.with_hint("name a model, or send files to /api/blobs and name their digests"))
        }
        (Some(_), false) => Err(ApiError::invalid("from", "cannot be used together with files")),
        _ => {
            let mut warnings = common::unknown_fields(&body);
            let go = request.template.as_deref().is_some_and(is_go_template);
            warnings.extend(go.then(|| go_template("template")));
            Ok(CreateRequest { warnings, ..request })
        }
    }
}

/// Reads a request of `/api/copy`.
///
/// # Errors
/// The first field that cannot be used, by name.
pub fn copy_request(body: &[u8]) -> Result<CopyRequest, ApiError> {
    let map = parse_object(body)?;
    let body = Fields::root(&map);
    let name = |field: &'static str| -> Result<String, ApiError> {
        common::model(body.get(field)).map_err(|error| ApiError {
            message: error.message.replacen("model", field, 1),
            param: Some(field.to_owned()),
            ..error
        })
    };
    Ok(CopyRequest { source: name("source")?, destination: name("destination")? })
}

/// A line that tells what is done.
#[must_use]
pub fn status_line(status: &str) -> Vec<u8> {
    line(&Line { status, digest: None, total: None, completed: None })
}

/// A line that tells how much of a file has come, in bytes. Without a digest the file goes by its label.
#[must_use]
pub fn transfer_line(digest: &str, label: &str, total: u64, completed: u64) -> Vec<u8> {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    let name = if hex.is_empty() { label } else { hex.get(..12).unwrap_or(hex) };
    let digest = (!digest.is_empty()).then_some(digest);
    line(&Line { status: &format!("pulling {name}"), digest, total: Some(total), completed: Some(completed) })
}

#[derive(Serialize)]
struct Line<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
}

fn line(line: &Line<'_>) -> Vec<u8> {
    let mut bytes = to_json(line);
    bytes.push(b'\n');
    bytes
}

fn mode(body: &Fields<'_>) -> Result<Mode, ApiError> {
    Ok(Mode::from_stream(body.bool("stream")?.unwrap_or(true)))
}

/// `model`, or `name` as older clients have it.
fn named(body: &Fields<'_>) -> Result<String, ApiError> {
    let old = body.get("name");
    common::model(body.get("model").filter(|field| *field.value != "").or(old))
}

fn files(body: &Fields<'_>) -> Result<Vec<(String, String)>, ApiError> {
    let Some(field) = body.get("files") else { return Ok(Vec::new()) };
    let Value::Object(map) = field.value else { return Err(field.must_be("an object")) };
    if map.len() > limits::MAX_MODEL_FILES {
        let rest = format!("has {} files, at most {} are allowed", map.len(), limits::MAX_MODEL_FILES);
        return Err(ApiError::invalid("files", rest));
    }
    let file = |(name, digest): (&String, &Value)| {
        let field = Field { path: format!("files.{name:?}"), value: digest };
        Ok((name.clone(), field.string()?.to_owned()))
    };
    let mut files = map.iter().map(file).collect::<Result<Vec<_>, ApiError>>()?;
    files.sort();
    Ok(files)
}

fn license(body: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let Some(field) = body.get("license") else { return Ok(Vec::new()) };
    let texts = match field.value {
        Value::Array(_) => field.array(limits::MAX_LICENSES)?,
        Value::String(_) => vec![field],
        _ => return Err(field.must_be("a string or an array of strings")),
    };
    let texts = texts.iter().map(Field::string).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.into_iter().filter(|text| !text.is_empty()).map(str::to_owned).collect())
}

fn parameters(body: &Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let Some(field) = body.get("parameters") else { return Ok(Map::new()) };
    Options::read(&field.object()?)?;
    let map = field.value.as_object().cloned().unwrap_or_default();
    Ok(map.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

fn messages(body: &Fields<'_>) -> Result<Vec<ModelfileMessage>, ApiError> {
    let items = body.array("messages", limits::MAX_MESSAGES)?;
    items.iter().map(message).collect()
}

fn message(item: &Field<'_>) -> Result<ModelfileMessage, ApiError> {
    let message = item.object()?;
    let role = message.required("role")?;
    let lower = role.string()?.to_lowercase();
    if !["system", "user", "assistant"].contains(&lower.as_str()) {
        return Err(role.must_say("one of system, user, assistant"));
    }
    Ok(ModelfileMessage { role: lower, content: message.string("content")?.unwrap_or_default().to_owned() })
}

/// What Ollama can do and this cannot must not be passed over: the model would be another one.
fn refuse_unsupported(body: &Fields<'_>) -> Result<(), ApiError> {
    for (name, reason) in [
        ("adapters", "is not supported yet: a model with an adapter cannot be run"),
        ("quantize", "is not supported yet: a model keeps the types of its file"),
        ("quantization", "is not supported yet: a model keeps the types of its file"),
        ("draft_files", "is not supported yet: there are no draft models"),
        ("draft_quantize", "is not supported yet: there are no draft models"),
        ("renderer", "is not supported: prompts are rendered by the model's Jinja template"),
        ("parser", "is not supported: answers are parsed by the model's own markers"),
        ("requires", "is not supported: versions of Ollama are not known here"),
        ("remote_host", "is not supported: models run on this machine"),
        ("modelfile", "is not supported, as in today's Ollama: send its parts as fields"),
        ("path", "is not supported, as in today's Ollama: send the file to /api/blobs"),
    ] {
        let Some(field) = body.get(name) else { continue };
        let is_empty = match field.value {
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_empty {
            return Err(ApiError::unsupported(name, reason));
        }
    }
    body.ignore(&["info"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::any_json;

    fn create(body: &Value) -> Result<CreateRequest, String> {
        create_request(body.to_string().as_bytes()).map_err(|error| error.message)
    }

    #[test]
    fn a_pull_is_named_by_either_field_and_streams_unless_told_otherwise() {
        let read = |body: &str| pull_request(body.as_bytes()).map_err(|error| error.message);
        let pull = |insecure, mode| Ok(PullRequest { model: "m".into(), insecure, mode });
        assert_eq!(read(r#"{"model":"m"}"#), pull(false, Mode::Stream));
        assert_eq!(read(r#"{"name":"m","insecure":true,"stream":false}"#), pull(true, Mode::Whole));
        assert_eq!(read(r#"{"stream":true}"#), Err("model is required".into()));
        assert_eq!(
            read(r#"{"model":"m","insecure":1}"#),
            Err("insecure must be a boolean, got number".into())
        );
    }

    #[test]
    fn every_field_of_a_new_model_has_its_place() {
        let request = create(&json!({ "model": "new", "from": "old", "template": "{{ messages }}",
            "license": ["a", "", "b"], "system": "", "parameters": { "top_k": 3, "stop": "x", "seed": null },
            "messages": [{ "role": "User", "content": "hi" }], "stream": false, "quantize": "", "what": 1 }));
        let Value::Object(parameters) = json!({ "top_k": 3, "stop": "x" }) else { panic!() };
        let expected = CreateRequest {
            model: "new".into(),
            from: Some("old".into()),
            files: Vec::new(),
            template: Some("{{ messages }}".into()),
            system: Some(String::new()),
            license: vec!["a".into(), "b".into()],
            parameters,
            messages: vec![ModelfileMessage { role: "user".into(), content: "hi".into() }],
            mode: Mode::Whole,
            warnings: vec!["\"what\" is not known and was ignored".into()],
        };
        assert_eq!(request, Ok(expected));
    }

    #[test]
    fn files_come_in_the_order_of_their_names() {
        let files = json!({ "m-00002-of-00002.gguf": "sha256:b", "m-00001-of-00002.gguf": "sha256:a" });
        let read = create(&json!({ "model": "new", "files": files })).unwrap();
        let digests: Vec<_> = read.files.iter().map(|(_, digest)| digest.as_str()).collect();
        assert_eq!(digests, ["sha256:a", "sha256:b"]);
    }

    #[test]
    fn a_model_that_cannot_be_made_says_which_field_is_at_fault() {
        for (rest, expected) in [
            (json!({}), "from or files is required"),
            (json!({ "from": "a", "files": { "x": "y" } }), "from cannot be used together with files"),
            (json!({ "from": "a", "files": { "x": 1 } }), "files.\"x\" must be a string, got number"),
            (
                json!({ "from": "a", "parameters": { "top_k": "x" } }),
                "parameters.top_k must be an integer, got string",
            ),
            (
                json!({ "from": "a", "license": 1 }),
                "license must be a string or an array of strings, got number",
            ),
            (
                json!({ "from": "a", "adapters": { "x": "y" } }),
                "adapters is not supported yet: a model with an adapter cannot be run",
            ),
            (
                json!({ "from": "a", "quantize": "q4_K_M" }),
                "quantize is not supported yet: a model keeps the types of its file",
            ),
            (
                json!({ "from": "a", "messages": [{ "role": "tool" }] }),
                "messages[0].role must be one of system, user, assistant, got \"tool\"",
            ),
        ] {
            let mut body = json!({ "model": "new" });
            body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            assert_eq!(create(&body), Err(expected.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_copy_has_two_names() {
        let read = |body: &str| copy_request(body.as_bytes()).map_err(|error| error.message);
        let both = CopyRequest { source: "a".into(), destination: "b".into() };
        assert_eq!(read(r#"{"source":"a","destination":"b"}"#), Ok(both));
        assert_eq!(read(r#"{"source":"a"}"#), Err("destination is required".into()));
        assert_eq!(
            read(r#"{"source":7,"destination":"b"}"#),
            Err("source must be a string, got number".into())
        );
    }

    #[test]
    fn progress_is_told_as_clients_read_it() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(text(status_line("pulling manifest")), "{\"status\":\"pulling manifest\"}\n");
        let digest = "sha256:0123456789abcdef";
        insta::assert_snapshot!(
            text(transfer_line(digest, "weights", 10, 4)),
            @r#"{"status":"pulling 0123456789ab","digest":"sha256:0123456789abcdef","total":10,"completed":4}"#
        );
        insta::assert_snapshot!(
            text(transfer_line("", "model.gguf", 10, 0)),
            @r#"{"status":"pulling model.gguf","total":10,"completed":0}"#
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(
            body in any_json("model name from files parameters license messages role content stream source destination"),
        ) {
            let bytes = body.to_string();
            let _ = (pull_request(bytes.as_bytes()), create_request(bytes.as_bytes()), copy_request(bytes.as_bytes()));
        }
    }
}
