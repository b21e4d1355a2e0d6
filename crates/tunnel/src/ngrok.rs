//! ngrok's program, which says in JSON what it does. Its errors can quote the token, so only their code is told.

use serde_json::Value;
use tokio::process::Command;

use crate::{
    said::{Ends, Said, Trouble},
    via::Target,
};

/// What is wrong with the token, by ngrok's list of errors: none, malformed, of nobody, revoked.
const TOKEN_ERRORS: [&str; 4] = ["ERR_NGROK_4018", "ERR_NGROK_105", "ERR_NGROK_107", "ERR_NGROK_106"];

pub fn arguments(command: &mut Command, target: Target) {
    let url = format!("{}://{}", target.scheme(), target.reachable());
    command.args(["http", &url, "--log", "stdout", "--log-format", "json", "--log-level", "info"]);
}

pub fn read(line: &str) -> Option<Said> {
    if let Some(code) = code(line) {
        return Some(Said::Reason(trouble(&code)));
    }
    let said: Value = serde_json::from_str(line).ok()?;
    match (said["msg"].as_str(), said["url"].as_str()) {
        (Some("started tunnel"), Some(url)) => Some(Said::Open(url.to_owned())),
        _ => None,
    }
}

/// `ERR_NGROK_` with its number.
fn code(line: &str) -> Option<String> {
    const START: &str = "ERR_NGROK_";
    let at = line.find(START)?;
    let number: String = line[at + START.len()..].chars().take_while(char::is_ascii_digit).take(8).collect();
    (!number.is_empty()).then(|| format!("{START}{number}"))
}

fn trouble(code: &str) -> Trouble {
    if TOKEN_ERRORS.contains(&code) {
        return Trouble::of(
            format!("ngrok does not take the token ({code})"),
            "set NGROK_AUTHTOKEN, or run: ngrok config add-authtoken TOKEN",
            Ends::Always,
        );
    }
    let page = code.to_ascii_lowercase();
    Trouble::of(
        format!("ngrok gives no tunnel ({code})"),
        format!("what it means is at https://ngrok.com/docs/errors/{page}"),
        Ends::First,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_log() {
        let line = r#"{"addr":"http://127.0.0.1:11434","lvl":"info","msg":"started tunnel","name":"command_line","obj":"tunnels","t":"2026-01-02T03:04:05Z","url":"https://fox.ngrok-free.app"}"#;
        assert_eq!(read(line), Some(Said::Open("https://fox.ngrok-free.app".into())));
        for line in [r#"{"lvl":"info","msg":"client session established"}"#, "not json", "", "{}"] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn a_wrong_token_is_final_and_never_quoted() {
        let line = r#"{"err":"authentication failed: The authtoken you specified is invalid.\nYour authtoken: 2hush\nERR_NGROK_107","lvl":"eror","msg":"session closing"}"#;
        let Some(Said::Reason(trouble)) = read(line) else { panic!("no reason") };
        assert_eq!(
            (trouble.ends, trouble.message.as_str()),
            (Ends::Always, "ngrok does not take the token (ERR_NGROK_107)")
        );
        assert!(!format!("{trouble:?}").contains("2hush"));
        let Some(Said::Reason(trouble)) = read("ERROR:  ERR_NGROK_108") else { panic!("no reason") };
        assert_eq!(trouble.ends, Ends::First);
    }
}
