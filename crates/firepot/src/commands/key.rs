//! `firepot key`: makes, lists and revokes keys, and makes login links. A server that runs is asked, so that what it holds in
//! memory changes at once; else the home's database is changed, under the lock that keeps a server from starting meanwhile.

use std::io::IsTerminal as _;

use firepot_store::{Credential, CredentialId, CredentialKind, Home, Scopes, Secret, Token};
use serde_json::{Value, json};

use crate::{
    attach,
    cli::{Key, NewKey},
    client::Client,
    exit::{Exit, Failure},
    reach::print_link,
    settings::Settings,
    table,
};

/// Does what was asked.
pub async fn key(settings: &Settings, command: Key) -> anyhow::Result<()> {
    match command {
        Key::Create(new) => create(settings, &new).await,
        Key::List(output) => list(settings, output.json).await,
        Key::Revoke { key } => revoke(settings, &key).await,
        Key::Link(new) => link(settings, &new).await,
    }
}

async fn create(settings: &Settings, new: &NewKey) -> anyhow::Result<()> {
    let key = match attach::own(settings).await? {
        Some(client) => {
            let made: Value = client.post("/firepot/v1/keys", &body(new)).await?;
            Secret::from(made["key"].as_str().unwrap_or_default().to_owned())
        }
        None => create_in(&settings.open_home()?, &new.name, new.scopes)?,
    };
    // The key alone on standard output, for scripts; what it is beside it.
    if std::io::stdout().is_terminal() {
        eprintln!("The key '{}' ({}), shown this once:", new.name, new.scopes);
    }
    println!("{}", key.reveal());
    Ok(())
}

/// Makes a key in a home that no server holds.
fn create_in(home: &Home, name: &str, scopes: Scopes) -> anyhow::Result<Secret> {
    let _lock = home.lock_server()?;
    let token = Token::new(CredentialKind::Key)?;
    home.database()?.credentials().change(&[], Some(&Credential::new(&token, name, scopes)?))?;
    Ok(token.text())
}

/// Makes a home's first key before its server starts in the background, whose output goes to a file.
pub fn first_key(home: &Home) -> anyhow::Result<Option<Secret>> {
    let known = home.database()?.credentials().load(jiff::Timestamp::now())?;
    let has_key = known.iter().any(|credential| credential.kind == CredentialKind::Key);
    if has_key { Ok(None) } else { create_in(home, "first", Scopes::ADMIN).map(Some) }
}

/// Keys and sessions, as the API tells them.
async fn all(settings: &Settings) -> anyhow::Result<Vec<Value>> {
    if let Some(client) = attach::own(settings).await? {
        let told: Value = client.get("/firepot/v1/keys").await?;
        let of = |name: &str| told[name].as_array().cloned().unwrap_or_default();
        return Ok([of("keys"), of("sessions")].concat());
    }
    let home = settings.open_home()?;
    let stored = home.database()?.credentials().load(jiff::Timestamp::now())?;
    let shown = stored.into_iter().filter(|credential| credential.kind != CredentialKind::Login);
    Ok(shown.map(serde_json::to_value).collect::<Result<_, _>>()?)
}

async fn list(settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    let all = all(settings).await?;
    if as_json {
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let row = |one: &Value| {
        let words = one["scopes"].as_array().cloned().unwrap_or_default();
        let scopes: Vec<String> = words.iter().map(text).collect();
        let times = ["created_at", "last_used_at", "expires_at"].map(|name| text(&one[name]));
        [vec![text(&one["id"]), text(&one["kind"]), text(&one["name"]), scopes.join(",")], times.to_vec()]
            .concat()
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    print!("{}", table::render(&["ID", "KIND", "NAME", "SCOPES", "CREATED", "LAST USED", "ENDS"], &rows));
    Ok(())
}

async fn revoke(settings: &Settings, key: &str) -> anyhow::Result<()> {
    let id = find(&all(settings).await?, key)?;
    if let Some(client) = attach::own(settings).await? {
        client.delete(&format!("/firepot/v1/keys/{id}")).await?;
    } else {
        let home = settings.open_home()?;
        let _lock = home.lock_server()?;
        home.database()?.credentials().change(&[id], None)?;
    }
    eprintln!("revoked {id}");
    Ok(())
}

/// The one of this id or name.
fn find(all: &[Value], key: &str) -> anyhow::Result<CredentialId> {
    let named: Vec<CredentialId> = all
        .iter()
        .filter(|one| one["id"] == key || one["name"] == key)
        .filter_map(|one| one["id"].as_str()?.parse().ok())
        .collect();
    match named[..] {
        [id] => Ok(id),
        [] => Err(Failure::new(Exit::Failed, format!("there is no key '{key}'"))
            .hint("see: firepot key list")
            .into()),
        _ => Err(Failure::new(Exit::Failed, format!("{} keys are called '{key}'", named.len()))
            .hint("give the id: firepot key list")
            .into()),
    }
}

async fn link(settings: &Settings, new: &NewKey) -> anyhow::Result<()> {
    let client = attach::own(settings).await?.ok_or_else(|| {
        Failure::new(Exit::NoServer, "no server is running, and a link lives for minutes")
            .hint("start one: firepot up")
    })?;
    show_link(&client, &body(new)).await
}

/// Makes a link in a server and shows it, with the tunnel's address when one is open.
pub async fn show_link(client: &Client, body: &Value) -> anyhow::Result<()> {
    let made: Value = client.post("/firepot/v1/logins", body).await?;
    let access: Value = client.get("/firepot/v1/access").await?;
    let base = access["public_url"].as_str().unwrap_or_else(|| client.base());
    print_link(base, made["path"].as_str().unwrap_or_default());
    Ok(())
}

fn body(new: &NewKey) -> Value {
    json!({ "name": new.name, "scopes": new.scopes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_meant_by_its_id_or_by_a_name_that_no_other_has() {
        let ids = ["00000000000000aa", "00000000000000bb", "00000000000000cc"];
        let all = [
            json!({"id": ids[0], "name": "phone"}),
            json!({"id": ids[1], "name": "tab"}),
            json!({"id": ids[2], "name": "tab"}),
        ];
        assert_eq!(find(&all, "phone").unwrap().to_string(), ids[0]);
        assert_eq!(find(&all, ids[2]).unwrap().to_string(), ids[2]);
        assert!(find(&all, "tab").unwrap_err().to_string().contains("2 keys"));
        assert!(find(&all, "none").is_err());
    }
}
