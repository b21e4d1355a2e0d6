//! Servers that speak Ollama's dialect: Ollama itself, and ours, which reveals more.

use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Answering, Ask, End, Fact, Http, Piece, Target,
    answering::{self, Dialect, Read},
    turns,
};
use crate::{clock::Clock, error::TargetError, limits};

/// A server with `/api/chat`.
#[derive(Debug)]
pub struct Ollama {
    http: Http,
    /// Ours: it shows token ids and stamps, and has a strict mode.
    ours: bool,
    pid: Option<u32>,
}

impl Ollama {
    /// A Firepot server; with its process's id where it is of this machine.
    #[must_use]
    pub const fn firepot(http: Http, pid: Option<u32>) -> Self {
        Self { http, ours: true, pid }
    }

    /// Any other.
    #[must_use]
    pub const fn foreign(http: Http) -> Self {
        Self { http, ours: false, pid: None }
    }

    fn body(&self, ask: &Ask) -> Value {
        let mut options = json!({"temperature": 0, "seed": 0, "num_predict": ask.max_tokens});
        if self.ours {
            options["strict"] = ask.strict.into();
            options["cache_prompt"] = (!ask.uncached).into();
            options["ignore_eos"] = ask.ignore_eos.into();
        } else {
            // Its default is short, and what is longer is cut without a word.
            options["num_ctx"] = ask.ctx.into();
        }
        let mut body = json!({
            "model": ask.model, "messages": turns(&ask.turns), "stream": true, "options": options,
        });
        if let Some(schema) = &ask.schema {
            body["format"] = schema.clone();
        }
        if self.ours {
            body["firepot"] = json!({"stamps": true});
            body["truncate"] = false.into();
        }
        body
    }
}

impl Target for Ollama {
    fn kind(&self) -> &'static str {
        if self.ours { "firepot" } else { "ollama" }
    }

    fn address(&self) -> String {
        self.http.address()
    }

    fn version(&self) -> BoxFuture<'_, Result<String, TargetError>> {
        async {
            let said = self.http.get("api/version").await?;
            Ok(format!("{} {}", self.kind(), said["version"].as_str().unwrap_or("of no version")))
        }
        .boxed()
    }

    fn withholds(&self, fact: Fact) -> Option<&'static str> {
        match fact {
            Fact::TokenIds if !self.ours => Some("an Ollama server does not show token ids"),
            Fact::Strict if !self.ours => Some("an Ollama server has no strict mode"),
            Fact::Processes if self.pid.is_none() => {
                Some("the server's processes are not known: it was not started here")
            }
            _ => None,
        }
    }

    fn load<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        let body = json!({"model": model, "stream": false});
        async move { self.http.post("api/generate", &body, limits::LOAD_MAX).await.map(drop) }.boxed()
    }

    fn unload<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        let body = json!({"model": model, "stream": false, "keep_alive": 0});
        async move {
            self.http.post("api/generate", &body, limits::LOAD_MAX).await?;
            // Ollama answers before the model is gone.
            let until = tokio::time::Instant::now() + limits::RUNNER_MAX;
            while tokio::time::Instant::now() < until {
                let loaded = self.http.get("api/ps").await?;
                if loaded["models"]
                    .as_array()
                    .is_none_or(|models| !models.iter().any(|entry| is(&entry["name"], model)))
                {
                    return Ok(());
                }
                tokio::time::sleep(limits::RUNNER_POLL * 10).await;
            }
            Err(TargetError::Withheld("the server does not unload the model"))
        }
        .boxed()
    }

    fn generate<'a>(&'a self, ask: &'a Ask, clock: Clock) -> BoxFuture<'a, Result<Answering, TargetError>> {
        let body = self.body(ask);
        async move { self.http.stream("api/chat", &body, Dialect::Ollama, ask.max_tokens, clock).await }
            .boxed()
    }

    fn server_pid(&self) -> Option<u32> {
        self.pid
    }

    fn thinks<'a>(&'a self, model: &'a str) -> BoxFuture<'a, bool> {
        let body = json!({"model": model});
        async move {
            let said = self.http.post("api/show", &body, limits::QUESTION_MAX).await.unwrap_or_default();
            said["capabilities"].as_array().is_some_and(|can| can.iter().any(|can| can == "thinking"))
        }
        .boxed()
    }

    fn runner_of<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Option<u32>> {
        async move {
            self.pid?;
            let said = self.http.get("firepot/v1/runners").await.ok()?;
            runner_of(&said, model)
        }
        .boxed()
    }
}

/// The process that answers with a model, by the server's list of runners.
fn runner_of(said: &Value, model: &str) -> Option<u32> {
    let entries = said["runners"].as_array()?.iter();
    let of_model = entries.filter(|entry| is(&entry["model"], model) && entry["pid"].is_u64());
    let busiest = of_model.max_by_key(|entry| entry["in_use"].as_u64())?;
    busiest["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

/// Whether an entry's name means a model; one without a tag means `latest`.
fn is(name: &Value, model: &str) -> bool {
    let name = name.as_str().unwrap_or_default();
    name == model || name.strip_suffix(":latest") == Some(model)
}

/// A line of an answer.
pub(super) fn read(line: &str, tokens: usize) -> Result<Read, TargetError> {
    if line.is_empty() {
        return Ok(Read::Nothing);
    }
    let value = answering::json(line, tokens)?;
    let text = |field: &str| value["message"][field].as_str().unwrap_or_default().to_owned();
    let server_unix_ns = value["created_at"].as_str().and_then(unix_ns);
    let ids = value["firepot"]["ids"]
        .as_array()
        .map(|ids| ids.iter().filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect());
    Ok(Read::Piece(Box::new(Piece {
        at_ns: 0,
        server_unix_ns,
        ids,
        position: value["firepot"]["position"].as_u64(),
        thinking: text("thinking"),
        content: text("content"),
        end: (value["done"] == true).then(|| end(&value)),
    })))
}

fn unix_ns(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().and_then(|moment| i64::try_from(moment.as_nanosecond()).ok())
}

fn end(value: &Value) -> End {
    let number = |field: &str| value[field].as_u64();
    End {
        reason: value["done_reason"].as_str().map(str::to_owned),
        prompt_tokens: number("prompt_eval_count"),
        cached_tokens: number("prompt_eval_cached_count"),
        completion_tokens: number("eval_count"),
        prefill_ns: number("prompt_eval_duration"),
        decode_ns: number("eval_duration"),
        load_ns: number("load_duration"),
        queue_ns: number("queue_duration"),
        ttft_ns: number("ttft"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_that_answers_is_told_from_those_of_other_models_and_from_idle_replicas() {
        let said = json!({"runners": [
            {"model": "other:latest", "pid": 1, "in_use": 3},
            {"model": "small:latest", "pid": 2, "in_use": 0},
            {"model": "small:latest", "pid": 3, "in_use": 1},
            {"model": "loading:latest", "in_use": 0},
        ]});
        assert_eq!(runner_of(&said, "small"), Some(3));
        assert_eq!(runner_of(&said, "other:latest"), Some(1));
        assert_eq!(runner_of(&said, "loading"), None);
        assert_eq!(runner_of(&json!({}), "small"), None);
    }
}
