//! Chats as files: `/firepot/v1/chats/{id}/export`, `/firepot/v1/chats/export`, `/firepot/v1/chats/import`.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    extract::{DefaultBodyLimit, Path, Query, State, rejection::QueryRejection},
    http::{HeaderValue, header},
    response::Response,
    routing::{get, post},
};
use firepot_store::{
    ChatWithMessages, Chats, Page, StoreError,
    limits::{IMPORT_BYTES_MAX, PAGE_CHATS_MAX},
    transfer::{ParsedChats, Skipped, TransferError, markdown, parse_chats},
};
use firepot_wire::{ApiError, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Body, Routes,
    chats::{chat_id, checked_settings, queried},
    read_within,
    reply::{self, Dialect, json},
};
use crate::{
    app::{App, blocking},
    limits,
};

pub fn routes() -> Routes {
    Routes::new()
        .route("/firepot/v1/chats/export", get(export_all))
        .route("/firepot/v1/chats/import", post(import).layer(DefaultBodyLimit::max(IMPORT_BYTES_MAX)))
        .route("/firepot/v1/chats/{chat}/export", get(export))
}

#[derive(Deserialize)]
struct ExportQuery {
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Markdown,
}

/// A file of chats.
#[derive(Serialize)]
struct File<'a> {
    firepot: &'static str,
    version: u32,
    chats: &'a [ChatWithMessages],
}

impl<'a> File<'a> {
    const fn new(chats: &'a [ChatWithMessages]) -> Self {
        Self { firepot: "chats", version: 1, chats }
    }
}

async fn export(
    State(app): State<Arc<App>>,
    Path(chat): Path<String>,
    query: Result<Query<ExportQuery>, QueryRejection>,
) -> Response {
    let file = async {
        let (id, format) = (chat_id(&chat)?, queried(query)?.format);
        let chat = app.with_chats(move |chats| chats.get(id)).await?;
        let title = chat.chat.title.as_str();
        Ok(match format {
            Format::Json => download(json(&File::new(std::slice::from_ref(&chat)))?, title, "json"),
            Format::Markdown => {
                download(reply::bytes("text/markdown; charset=utf-8", markdown(&chat)), title, "md")
            }
        })
    };
    Dialect::Own.respond(file.await)
}

async fn export_all(State(app): State<Arc<App>>) -> Response {
    let file = async {
        let chats = app.with_chats(all).await?;
        Ok(download(json(&File::new(&chats))?, "firepot chats", "json"))
    };
    Dialect::Own.respond(file.await)
}

fn all(chats: Chats<'_>) -> Result<Vec<ChatWithMessages>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = chats.list(Page { limit: Some(PAGE_CHATS_MAX), after })?;
        for chat in &page.chats {
            match chats.get(chat.id) {
                Ok(chat) => all.push(chat),
                // It was removed since the page was read.
                Err(StoreError::UnknownChat { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match page.next {
            None => return Ok(all),
            next => after = next,
        }
    }
}

async fn import(State(app): State<Arc<App>>, body: Body) -> Response {
    let imported = async {
        let bytes = read_within(IMPORT_BYTES_MAX, body)?;
        let parsed = blocking(move || parse_chats(&bytes)).await?.map_err(|error| unreadable(&error))?;
        let ParsedChats { mut chats, mut skipped } = parsed;
        for chat in &mut chats {
            match checked_settings("settings", chat.settings.take()) {
                Ok(settings) => chat.settings = settings,
                Err(error) => {
                    chat.settings = json!({});
                    let reason = format!("it was imported without its settings: {error}");
                    skipped.push(Skipped { title: chat.title.clone(), reason });
                }
            }
        }
        let store = move |all: Chats<'_>| all.import(&chats);
        let chats =
            app.change_chats(store, |turn, chats| chats.iter().for_each(|chat| turn.tell_chat(chat))).await?;
        json(&json!({ "chats": chats, "skipped": skipped }))
    };
    Dialect::Own.respond(imported.await)
}

fn unreadable(error: &TransferError) -> ApiError {
    ApiError { hint: error.hint(), ..ApiError::new(ErrorCode::InvalidRequest, error.to_string()) }
}

/// Has browsers keep a response as a file.
fn download(mut response: Response, title: &str, extension: &str) -> Response {
    let disposition = disposition(title, extension);
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

/// Value of `Content-Disposition`: a name that every system takes, and the full one as RFC 5987 writes it.
fn disposition(title: &str, extension: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || "._- ".contains(*c);
    let plain: String = title.chars().filter(plain).take(limits::MAX_FILE_NAME_CHARS).collect();
    let plain = or_chat(plain.trim_matches([' ', '.']));
    let full = title.replace(['/', '\\'], "_");
    let full = encoded(or_chat(full.trim_matches([' ', '.'])));
    format!("attachment; filename=\"{plain}.{extension}\"; filename*=UTF-8''{full}.{extension}")
}

fn or_chat(name: &str) -> &str {
    if name.is_empty() { "chat" } else { name }
}

/// Percent-encoded but for what RFC 5987 calls `attr-char`.
fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            text.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_name_that_every_system_takes_and_the_full_one_beside_it() {
        for (title, expected) in [
            ("My chat", "filename=\"My chat.md\"; filename*=UTF-8''My%20chat.md"),
            ("Grüße; \"x\"", "filename=\"Gre x.md\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%3B%20%22x%22.md"),
            ("../etc/passwd", "filename=\"etcpasswd.md\"; filename*=UTF-8''_etc_passwd.md"),
            ("", "filename=\"chat.md\"; filename*=UTF-8''chat.md"),
            ("日本", "filename=\"chat.md\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.md"),
            (".bashrc", "filename=\"bashrc.md\"; filename*=UTF-8''bashrc.md"),
        ] {
            assert_eq!(disposition(title, "md"), format!("attachment; {expected}"));
        }
        let long = disposition(&"a".repeat(100), "md");
        assert!(long.contains(&format!("\"{}.md\"", "a".repeat(limits::MAX_FILE_NAME_CHARS))));
    }
}
