//! A client that does not give up: it sends its request again, from behind the last piece it has, until the answer is whole.

use std::{
    io::{BufRead as _, BufReader},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

use super::answer::{Answer, Kind, MODEL};

/// Pause before a request is sent again.
const PAUSE: Duration = Duration::from_millis(20);

/// A piece of a stream.
#[derive(Debug)]
pub struct Piece {
    /// When it came.
    pub at: Instant,
    /// What it says.
    pub text: String,
}

/// What a client was told.
#[derive(Debug, Default)]
pub struct Told {
    /// In order.
    pub pieces: Vec<Piece>,
    /// How many pieces there were at each end of a connection.
    pub cuts: Vec<usize>,
    /// Pieces that did not come.
    pub lost: u32,
    /// Pieces that came twice.
    pub twice: u32,
    /// The answer's name in the journal.
    pub generation: Option<String>,
    /// The answer ended so.
    pub error: Option<String>,
    done: bool,
}

/// What the journal has of an answer.
#[derive(Debug, Default)]
pub struct Journalled {
    /// All that it says.
    pub text: String,
    /// Its tokens.
    pub tokens: u32,
    /// Positions that are not there.
    pub lost: u32,
    /// Positions that are there twice.
    pub twice: u32,
}

impl Told {
    /// All that was said.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// What had been said at the end of each connection.
    pub fn beginnings(&self) -> Vec<String> {
        let said = |cut: &usize| self.pieces[..*cut].iter().map(|piece| piece.text.as_str()).collect();
        self.cuts.iter().map(said).collect()
    }

    fn push(&mut self, text: String) {
        self.pieces.push(Piece { at: Instant::now(), text });
    }
}

fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().timeout(None).pool_max_idle_per_host(0).build()?)
}

/// Reads an answer to its end.
pub fn read(url: &str, answer: &Answer, patience: Duration) -> anyhow::Result<Told> {
    let end = Instant::now() + patience;
    let client = client()?;
    if answer.kind() == Kind::Chat {
        return read_chat(&client, url, answer, end);
    }
    let mut told = Told::default();
    while !told.done {
        anyhow::ensure!(Instant::now() < end, "{} does not end: {told:?}", answer.name());
        let mut request = client.post(format!("{url}{}", answer.path())).json(&answer.body());
        request = request.header("Idempotency-Key", answer.name());
        if !told.pieces.is_empty() {
            request = request.header("Last-Event-ID", told.pieces.len().to_string());
        }
        match request.send() {
            Ok(response) if response.status() == 200 => follow(response, answer, &mut told)?,
            Ok(response) if response.status() == 503 => {}
            Ok(response) => bail!("{}: {} {}", answer.name(), response.status(), response.text()?),
            Err(_) => {}
        }
        if !told.done {
            told.cuts.push(told.pieces.len());
            thread::sleep(PAUSE);
        }
    }
    Ok(told)
}

/// Reads until the answer or the connection ends.
fn follow(response: Response, answer: &Answer, told: &mut Told) -> anyhow::Result<()> {
    let generation = response.headers().get("x-firepot-generation");
    told.generation = generation.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let sse = answer.path().starts_with("/v1/");
    let mut id = None;
    for line in BufReader::new(response).lines() {
        let Ok(line) = line else { return Ok(()) };
        if !sse {
            // A line that was cut is no JSON.
            let Ok(value) = serde_json::from_str::<Value>(&line) else { return Ok(()) };
            note_line(&value, told);
        } else if let Some(number) = line.strip_prefix("id: ") {
            id = Some(number.parse::<usize>().context("an id that is no number")?);
        } else if let Some(data) = line.strip_prefix("data: ") {
            if let Some(id) = id.take() {
                let next = told.pieces.len() + 1;
                told.lost += u32::from(id > next);
                told.twice += u32::from(id < next);
            }
            note_event(data, told);
        }
        if told.done {
            return Ok(());
        }
    }
    Ok(())
}

fn note_event(data: &str, told: &mut Told) {
    if data == "[DONE]" {
        told.push(String::new());
        told.done = true;
        return;
    }
    let Ok(chunk) = serde_json::from_str::<Value>(data) else { return };
    if let Some(message) = chunk["error"]["message"].as_str() {
        // Said once and not a piece of the answer.
        note_error(message, chunk["error"]["code"].as_str() == Some("shutting_down"), told);
        return;
    }
    let choice = &chunk["choices"][0];
    told.push(choice["delta"]["content"].as_str().unwrap_or_default().to_owned());
}

fn note_line(line: &Value, told: &mut Told) {
    if let Some(message) = line["error"].as_str() {
        note_error(message, false, told);
        return;
    }
    let said = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let texts =
        [&line["thinking"], &line["response"], &line["message"]["thinking"], &line["message"]["content"]];
    told.push(texts.map(said).concat());
    told.done = line["done"] == true;
}

fn note_error(message: &str, later: bool, told: &mut Told) {
    if !later {
        told.error = Some(message.to_owned());
        told.done = true;
    }
}

/// Asks in a chat of its own and looks at it until the answer is there.
fn read_chat(client: &Client, url: &str, answer: &Answer, end: Instant) -> anyhow::Result<Told> {
    let retry = |what: &dyn Fn() -> anyhow::Result<Value>| loop {
        match what() {
            Ok(value) => return Ok(value),
            Err(error) => anyhow::ensure!(Instant::now() < end, "a chat cannot be reached: {error}"),
        }
        thread::sleep(PAUSE);
    };
    let list = retry(&|| get(client, url, "/firepot/v1/chats"))?;
    let known =
        list["chats"].as_array().and_then(|chats| chats.iter().find(|chat| chat["title"] == answer.name()));
    let mut told = Told::default();
    let chat = if let Some(chat) = known {
        chat["id"].clone()
    } else {
        let made = json!({ "model": MODEL, "title": answer.name(), "settings": { "max_tokens": 48 } });
        retry(&|| post(client, url, "/firepot/v1/chats", &made))?["id"].clone()
    };
    let path = format!("/firepot/v1/chats/{}", chat.as_str().context("a chat without id")?);
    let mut said = String::new();
    loop {
        anyhow::ensure!(Instant::now() < end, "{} does not end", answer.name());
        let Ok(now) = get(client, url, &path) else {
            told.cuts.push(told.pieces.len());
            thread::sleep(PAUSE);
            continue;
        };
        let message = &now["messages"][1];
        if message.is_null() {
            let question = json!({ "kind": "send", "content": answer.question() });
            let _ = post(client, url, &format!("{path}/answer"), &question);
            continue;
        }
        let content = message["content"].as_str().unwrap_or_default();
        match content.strip_prefix(said.as_str()) {
            Some("") => {}
            Some(more) => {
                told.push(more.to_owned());
                content.clone_into(&mut said);
            }
            None => {
                told.lost += 1;
                told.error = Some(format!("{said:?} became {content:?}"));
                return Ok(told);
            }
        }
        if !message["stats"].is_null() {
            if message["state"] == "failed" {
                told.error = Some(message["stats"]["error"].to_string());
            }
            return Ok(told);
        }
        thread::sleep(PAUSE);
    }
}

fn get(client: &Client, url: &str, path: &str) -> anyhow::Result<Value> {
    Ok(client.get(format!("{url}{path}")).send()?.error_for_status()?.json()?)
}

fn post(client: &Client, url: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    Ok(client.post(format!("{url}{path}")).json(body).send()?.error_for_status()?.json()?)
}

/// What the journal has of an answer that is over.
pub fn journal(url: &str, id: &str) -> anyhow::Result<Journalled> {
    let response =
        client()?.get(format!("{url}/firepot/v1/generations/{id}/events")).send()?.error_for_status()?;
    let mut journalled = Journalled::default();
    for line in BufReader::new(response).lines() {
        let line = line?;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data)?;
        if event["kind"] != "delta" {
            continue;
        }
        let position = event["position"].as_u64().unwrap_or(0) as u32;
        journalled.lost += u32::from(position > journalled.tokens);
        journalled.twice += u32::from(position < journalled.tokens);
        journalled.tokens += event["ids"].as_array().map_or(0, Vec::len) as u32;
        for part in ["thinking", "content"] {
            journalled.text.push_str(event[part].as_str().unwrap_or_default());
        }
    }
    Ok(journalled)
}
