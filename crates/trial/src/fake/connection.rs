//! One connection of the fake: requests in, scripted bytes out. HTTP is written by hand here, because a fake must be able
//! to break it.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};

use super::{Kind, Manner, Script, Shared, schedule, schedule::token};

/// Longest head and longest body of a request.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_hours(1);

struct Request {
    path: String,
    body: Value,
}

pub(super) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await? {
        let script = shared.script();
        if !answer(&mut stream, &request, &script, &shared).await? {
            break;
        }
    }
    Ok(())
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
            let length = text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            let end = head + 4 + length.unwrap_or(0);
            if buffer.len() >= end {
                let body = serde_json::from_slice(&buffer[head + 4..end]).unwrap_or_default();
                buffer.drain(..end);
                let path = text.split_whitespace().nth(1).unwrap_or("/").to_owned();
                return Ok(Some(Request { path, body }));
            }
        }
        if buffer.len() > REQUEST_BYTES_MAX || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Answers; `false` when the connection is to be closed.
async fn answer(
    stream: &mut TcpStream,
    request: &Request,
    script: &Script,
    shared: &Shared,
) -> io::Result<bool> {
    let generates = ["/api/chat", "/v1/chat/completions"].contains(&request.path.as_str());
    match script.manner {
        Manner::WebPage => return page(stream).await,
        Manner::Refuses(status) if generates => {
            let body = json!({"error": "it does not want to"}).to_string();
            whole(stream, status, "application/json", script, &body).await?;
            return Ok(true);
        }
        Manner::Silent if generates => sleep(FOR_EVER).await,
        _ => {}
    }
    if generates {
        shared.asked.fetch_add(1, Ordering::Relaxed);
        return generate(stream, request, script, shared).await;
    }
    let (status, body) = question(request, script, shared);
    whole(stream, status, "application/json", script, &body).await?;
    Ok(true)
}

async fn page(stream: &mut TcpStream) -> io::Result<bool> {
    let text = "<html><body>Log in to the hotel's network</body></html>";
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.write_all(format!("{head}{text}").as_bytes()).await?;
    Ok(true)
}

/// What is asked beside answers.
fn question(request: &Request, script: &Script, shared: &Shared) -> (u16, String) {
    let ollama = script.kind != Kind::OpenAi;
    let body = match request.path.as_str() {
        "/" if ollama => return (200, "Ollama is running".to_owned()),
        "/api/version" if ollama => json!({"version": "0.0.0-fake"}),
        "/api/ps" if ollama && shared.loaded.load(Ordering::Relaxed) => {
            json!({"models": [{"name": "fake:latest"}]})
        }
        "/api/ps" if ollama => json!({"models": []}),
        "/api/generate" if ollama => {
            shared.loaded.store(request.body["keep_alive"] != 0, Ordering::Relaxed);
            json!({"done": true})
        }
        "/v1/models" => json!({"data": [{"id": "fake", "owned_by": "fake"}]}),
        path => return (404, json!({"error": format!("there is no {path}")}).to_string()),
    };
    (200, body.to_string())
}

async fn whole(
    stream: &mut TcpStream,
    status: u16,
    kind: &str,
    script: &Script,
    body: &str,
) -> io::Result<()> {
    let head = head(status, kind, script);
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
}

fn head(status: u16, kind: &str, script: &Script) -> String {
    let server = match script.kind {
        Kind::Firepot => "Server: firepot/0.0.0-fake\r\n",
        Kind::Ollama | Kind::OpenAi => "",
    };
    format!("HTTP/1.1 {status} Scripted\r\nContent-Type: {kind}\r\n{server}")
}

async fn generate(
    stream: &mut TcpStream,
    request: &Request,
    script: &Script,
    shared: &Shared,
) -> io::Result<bool> {
    let mut asked = Instant::now();
    if !shared.loaded.swap(true, Ordering::Relaxed) {
        asked += script.load;
    }
    let kind = if script.kind == Kind::OpenAi { "text/event-stream" } else { "application/x-ndjson" };
    let head = head(200, kind, script);
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await?;
    let prompt = prompt(&request.body);
    let limit = request.body["options"]["num_predict"].as_u64().or(request.body["max_tokens"].as_u64());
    let times = schedule(script, &prompt, limit.unwrap_or(16) as usize);
    if script.manner == Manner::Garbage {
        chunk(stream, "this is not JSON\n").await?;
        return Ok(false);
    }
    let size =
        if script.manner == Manner::OnePiece { times.len().max(1) } else { script.tokens_per_piece.max(1) };
    let mut written = 0;
    while written < times.len() {
        let until = (written + size).min(times.len());
        sleep_until(asked + times[until - 1]).await;
        match script.manner {
            Manner::ClosesAfter(tokens) if until > tokens => return Ok(false),
            Manner::FailsAfter(tokens) if until > tokens => {
                let failure = json!({"error": {"message": "the fake has failed"}});
                chunk(stream, &line(script, &failure)).await?;
                return Ok(false);
            }
            Manner::StallsAfter(tokens) if until > tokens => sleep(FOR_EVER).await,
            _ => {}
        }
        chunk(stream, &piece(script, &prompt, written, until)).await?;
        written = until;
    }
    chunk(stream, &ending(script, &prompt, &times)).await?;
    stream.write_all(b"0\r\n\r\n").await?;
    Ok(true)
}

/// All that the model is told.
fn prompt(body: &Value) -> String {
    let turns = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    turns.iter().filter_map(|turn| turn["content"].as_str()).collect::<Vec<_>>().join("\n")
}

async fn chunk(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
}

fn line(script: &Script, value: &Value) -> String {
    if script.kind == Kind::OpenAi { format!("data: {value}\n\n") } else { format!("{value}\n") }
}

fn piece(script: &Script, prompt: &str, from: usize, until: usize) -> String {
    let tokens: Vec<(u32, String)> = (from..until).map(|index| token(prompt, index)).collect();
    let text: String = tokens.iter().map(|token| token.1.as_str()).collect();
    let thinks = script.manner == Manner::OnlyThinks || from < script.think_tokens;
    let (thinking, content) = if thinks { (text.as_str(), "") } else { ("", text.as_str()) };
    if script.kind == Kind::OpenAi {
        let delta = json!({"reasoning_content": thinking, "content": content});
        return line(script, &json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}));
    }
    let mut value = json!({
        "model": "fake", "created_at": format!("{:.9}", Timestamp::now()), "done": false,
        "message": {"role": "assistant", "content": content, "thinking": thinking},
    });
    if script.kind == Kind::Firepot {
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        value["firepot"] = json!({"position": from, "ids": ids});
    }
    line(script, &value)
}

fn ending(script: &Script, prompt: &str, times: &[Duration]) -> String {
    let prompt_tokens = prompt.split_whitespace().count();
    let span = |from: Option<&Duration>, to: Option<&Duration>| {
        to.zip(from).map_or(0, |(to, from)| to.saturating_sub(*from).as_nanos() as u64)
    };
    if script.kind == Kind::OpenAi {
        let mut value = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]});
        if script.usage {
            value["usage"] = json!({"prompt_tokens": prompt_tokens, "completion_tokens": times.len()});
        }
        return format!("{}data: [DONE]\n\n", line(script, &value));
    }
    let mut value = json!({
        "model": "fake", "created_at": format!("{:.9}", Timestamp::now()), "done": true, "done_reason": "length",
        "message": {"role": "assistant", "content": ""},
    });
    if script.usage {
        value["prompt_eval_count"] = prompt_tokens.into();
        value["prompt_eval_duration"] = span(Some(&Duration::ZERO), times.first()).into();
        value["eval_count"] = times.len().into();
        value["eval_duration"] = span(times.first(), times.last()).into();
    }
    line(script, &value)
}
