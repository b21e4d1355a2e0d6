//! Responses of `/api/tags`, `/api/ps`, `/api/show` and `/api/version` (`reference/ollama-api.md` 1.7), and
//! the requests that name a model.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    ApiError, common,
    fields::{Fields, parse_object},
};

/// A request that names a model: `POST /api/show`, `DELETE /api/delete`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRequest {
    /// The model as the client wrote it.
    pub model: String,
    /// Whether `/api/show` is to list the tensors.
    pub verbose: bool,
}

/// Reads a request that names a model by `model`, or by `name` as older clients do.
///
/// # Errors
/// When neither is there, or a field has the wrong type.
pub fn model_request(body: &[u8]) -> Result<ModelRequest, ApiError> {
    let map = parse_object(body)?;
    let body = Fields::root(&map);
    let old = body.get("name");
    let model = common::model(body.get("model").filter(|field| *field.value != "").or(old))?;
    Ok(ModelRequest { model, verbose: body.bool("verbose")?.unwrap_or(false) })
}

/// Response of `/api/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionResponse {
    /// Clients compare it with versions of Ollama to find out what they may send.
    pub version: String,
}

/// Response of `/api/tags`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TagList {
    /// Models in the store.
    pub models: Vec<ModelEntry>,
}

/// One model of `/api/tags`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelEntry {
    /// Name with tag.
    pub name: String,
    /// The same; Open WebUI reads this one.
    pub model: String,
    /// RFC 3339, by [`super::timestamp`].
    pub modified_at: String,
    /// Size of the files in bytes.
    pub size: u64,
    /// SHA-256 of the manifest or file, in hex.
    pub digest: String,
    /// What kind of model it is.
    pub details: ModelDetails,
    /// `completion`, `tools`, `thinking`.
    pub capabilities: Vec<String>,
    /// Whose files they are when the model lies in another program's store; our own extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// What kind of model it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelDetails {
    /// Empty unless the model was made from another one.
    pub parent_model: String,
    /// `gguf`.
    pub format: String,
    /// Architecture (`llama`, `qwen2`).
    pub family: String,
    /// The same, as a list.
    pub families: Vec<String>,
    /// `135M`, `7.6B`.
    pub parameter_size: String,
    /// `Q4_K_M`.
    pub quantization_level: String,
    /// Context that the model was trained with, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// Width of its embeddings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_length: Option<u64>,
}

/// Response of `/api/ps`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProcessList {
    /// Loaded models.
    pub models: Vec<ProcessEntry>,
}

/// One loaded model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessEntry {
    /// Name with tag.
    pub name: String,
    /// The same.
    pub model: String,
    /// Bytes that it occupies in all.
    pub size: u64,
    /// SHA-256 of the manifest or file, in hex.
    pub digest: String,
    /// What kind of model it is.
    pub details: ModelDetails,
    /// When it will be unloaded, RFC 3339 by [`super::timestamp`]; clients parse it, so forever is a date far
    /// off.
    pub expires_at: String,
    /// The part of `size` that is on GPUs.
    pub size_vram: u64,
    /// Context of one answer, in tokens.
    pub context_length: u32,
}

/// Response of `/api/show`. Empty texts are sent as such: clients index them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ShowResponse {
    /// The model's licence.
    pub license: String,
    /// What `ollama show --modelfile` prints.
    pub modelfile: String,
    /// Default options, one `name value` a line.
    pub parameters: String,
    /// The model's Jinja chat template.
    pub template: String,
    /// Default system prompt.
    pub system: String,
    /// Messages that stand before each conversation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<ShownMessage>,
    /// What kind of model it is.
    pub details: ModelDetails,
    /// The GGUF file's metadata.
    pub model_info: Map<String, Value>,
    /// Names, types and shapes; only when verbose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<TensorEntry>>,
    /// `completion`, `tools`, `thinking`.
    pub capabilities: Vec<String>,
    /// What the model was asked for and cannot do, in words; our own extension.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// RFC 3339, by [`super::timestamp`].
    pub modified_at: String,
}

/// One message of `/api/show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What it says.
    pub content: String,
}

/// One tensor of `/api/show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorEntry {
    /// `blk.0.attn_q.weight`.
    pub name: String,
    /// `Q4_K`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Elements by dimension.
    pub shape: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_by_either_field() {
        let read = |body: &str| model_request(body.as_bytes()).map_err(|e| e.message);
        let named = |model: &str, verbose| Ok(ModelRequest { model: model.into(), verbose });
        assert_eq!(read(r#"{"model":"m"}"#), named("m", false));
        assert_eq!(read(r#"{"name":"m","verbose":true}"#), named("m", true));
        assert_eq!(read(r#"{"model":"","name":"m"}"#), named("m", false));
        assert_eq!(read("{}"), Err("model is required".into()));
        assert_eq!(read(r#"{"model":["m"]}"#), Err("model must be a string, got array".into()));
    }

    #[test]
    fn a_loaded_model_has_the_fields_that_open_webui_reads() {
        let details = ModelDetails {
            format: "gguf".into(),
            family: "llama".into(),
            families: vec!["llama".into()],
            parameter_size: "135M".into(),
            quantization_level: "Q4_1".into(),
            ..ModelDetails::default()
        };
        let entry = ProcessEntry {
            name: "smollm2:135m".into(),
            model: "smollm2:135m".into(),
            size: 3,
            digest: "ab".into(),
            details,
            expires_at: "2026-01-02T03:04:05.000000006Z".into(),
            size_vram: 0,
            context_length: 4096,
        };
        insta::assert_json_snapshot!(ProcessList { models: vec![entry] }, @r#"
        {
          "models": [
            {
              "name": "smollm2:135m",
              "model": "smollm2:135m",
              "size": 3,
              "digest": "ab",
              "details": {
                "parent_model": "",
                "format": "gguf",
                "family": "llama",
                "families": [
                  "llama"
                ],
                "parameter_size": "135M",
                "quantization_level": "Q4_1"
              },
              "expires_at": "2026-01-02T03:04:05.000000006Z",
              "size_vram": 0,
              "context_length": 4096
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_listed_model_has_both_names_and_its_capabilities() {
        let entry = ModelEntry {
            name: "m:latest".into(),
            model: "m:latest".into(),
            modified_at: super::super::timestamp(crate::testing::now()),
            size: 3,
            digest: "ab".into(),
            details: ModelDetails { context_length: Some(8192), ..ModelDetails::default() },
            capabilities: vec!["completion".into()],
            origin: None,
        };
        insta::assert_json_snapshot!(TagList { models: vec![entry] }, @r#"
        {
          "models": [
            {
              "name": "m:latest",
              "model": "m:latest",
              "modified_at": "2026-01-02T03:04:05.000000006Z",
              "size": 3,
              "digest": "ab",
              "details": {
                "parent_model": "",
                "format": "",
                "family": "",
                "families": [],
                "parameter_size": "",
                "quantization_level": "",
                "context_length": 8192
              },
              "capabilities": [
                "completion"
              ]
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_verbose_answer_lists_its_tensors() {
        let tensor =
            TensorEntry { name: "output.weight".into(), kind: "Q6_K".into(), shape: vec![576, 49152] };
        let show = ShowResponse { tensors: Some(vec![tensor]), ..ShowResponse::default() };
        insta::assert_compact_json_snapshot!(
            serde_json::to_value(show).unwrap()["tensors"],
            @r#"[{"name": "output.weight", "type": "Q6_K", "shape": [576, 49152]}]"#
        );
    }

    #[test]
    fn show_sends_empty_texts_and_leaves_tensors_out_unless_asked() {
        insta::assert_json_snapshot!(ShowResponse::default(), @r#"
        {
          "license": "",
          "modelfile": "",
          "parameters": "",
          "template": "",
          "system": "",
          "details": {
            "parent_model": "",
            "format": "",
            "family": "",
            "families": [],
            "parameter_size": "",
            "quantization_level": ""
          },
          "model_info": {},
          "capabilities": [],
          "modified_at": ""
        }
        "#);
    }
}
