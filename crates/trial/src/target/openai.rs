//! Servers with OpenAI's API: vLLM, llama-server, LM Studio and many more. They reveal the least.

use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};

use super::{
    Answering, Ask, End, Fact, Http, Piece, Target,
    answering::{self, Dialect, Read},
    turns,
};
use crate::{clock::Clock, error::TargetError};

const COLD: &str = "OpenAI's API cannot unload a model";

/// A server with `chat/completions`.
#[derive(Debug)]
pub struct OpenAi {
    http: Http,
}

impl OpenAi {
    /// The server at an address that ends with `/v1`.
    #[must_use]
    pub const fn new(http: Http) -> Self {
        Self { http }
    }
}

impl Target for OpenAi {
    fn kind(&self) -> &'static str {
        "openai"
    }

    fn address(&self) -> String {
        self.http.address()
    }

    fn version(&self) -> BoxFuture<'_, Result<String, TargetError>> {
        async {
            let models = self.http.get("models").await?;
            let owner = models["data"][0]["owned_by"].as_str().unwrap_or("somebody");
            Ok(format!("OpenAI's API of {owner}"))
        }
        .boxed()
    }

    fn withholds(&self, fact: Fact) -> Option<&'static str> {
        match fact {
            Fact::ServerStamps => Some("OpenAI's API has no stamps of tokens"),
            Fact::TokenIds => Some("OpenAI's API does not show token ids"),
            Fact::PromptTimes => Some("OpenAI's API does not say how long a prompt took"),
            Fact::Processes => Some("the server's processes are not known: it was not started here"),
            Fact::ColdStart => Some(COLD),
            Fact::Strict => Some("OpenAI's API has no strict mode"),
            Fact::Schema => None,
        }
    }

    fn load<'a>(&'a self, _model: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        async { Ok(()) }.boxed()
    }

    fn unload<'a>(&'a self, _model: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        async { Err(TargetError::Withheld(COLD)) }.boxed()
    }

    fn generate<'a>(&'a self, ask: &'a Ask, clock: Clock) -> BoxFuture<'a, Result<Answering, TargetError>> {
        let mut body = json!({
            "model": ask.model, "messages": turns(&ask.turns), "stream": true, "temperature": 0, "seed": 0,
            "max_tokens": ask.max_tokens, "stream_options": {"include_usage": true},
        });
        if let Some(schema) = &ask.schema {
            body["response_format"] =
                json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
        }
        let tokens = ask.max_tokens;
        async move { self.http.stream("chat/completions", &body, Dialect::OpenAi, tokens, clock).await }
            .boxed()
    }
}

/// A line of an answer. The reason of the end and the counts come apart, or together, or only one of them.
pub(super) fn read(line: &str, tokens: usize) -> Result<Read, TargetError> {
    let Some(data) = line.strip_prefix("data:").map(str::trim) else {
        // Comments, names of events, empty lines; a bare object is an error of a server that does not stream.
        return if line.starts_with('{') {
            answering::json(line, tokens).map(|_| Read::Nothing)
        } else {
            Ok(Read::Nothing)
        };
    };
    if data == "[DONE]" {
        return Ok(Read::Over);
    }
    let value = answering::json(data, tokens)?;
    let delta = &value["choices"][0]["delta"];
    let text = |names: [&str; 2]| {
        let said = names.iter().find_map(|name| delta[name].as_str());
        said.unwrap_or_default().to_owned()
    };
    let piece = Piece {
        // Servers differ in the name of the first.
        thinking: text(["reasoning_content", "reasoning"]),
        content: text(["content", "content"]),
        end: end(&value),
        ..Piece::default()
    };
    let empty = piece.thinking.is_empty() && piece.content.is_empty() && piece.end.is_none();
    Ok(if empty { Read::Nothing } else { Read::Piece(Box::new(piece)) })
}

fn end(value: &Value) -> Option<End> {
    let reason = value["choices"][0]["finish_reason"].as_str().map(str::to_owned);
    let usage = value.get("usage").filter(|usage| usage.is_object());
    let count = |at: &str| usage?.pointer(at)?.as_u64();
    (reason.is_some() || usage.is_some()).then(|| End {
        prompt_tokens: count("/prompt_tokens"),
        cached_tokens: count("/prompt_tokens_details/cached_tokens"),
        completion_tokens: count("/completion_tokens"),
        reason,
        ..End::default()
    })
}
