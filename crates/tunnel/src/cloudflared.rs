//! A quick tunnel of Cloudflare's program: a new name each time, no account. It holds back what a `GET` streams, so the page uses `POST`.

use tokio::process::Command;

use crate::{
    said::{Said, Trouble},
    via::Target,
};

pub fn arguments(command: &mut Command, target: Target) {
    let url = format!("{}://{}", target.scheme(), target.reachable());
    command.args(["tunnel", "--no-autoupdate", "--url", &url]);
    if target.tls {
        // The certificate is for the name by which others come, and this is the same machine.
        command.arg("--no-tls-verify");
    }
}

pub fn read(line: &str) -> Option<Said> {
    let named = line.split_whitespace().find(|word| is_tunnel(word));
    if let Some(url) = named {
        return Some(Said::Open(url.to_owned()));
    }
    let is_error = line.split_whitespace().any(|word| word == "ERR" || word == "FTL")
        || line.starts_with("failed to")
        || line.starts_with("error ");
    is_error.then(|| Said::Reason(Trouble::passing(line)))
}

fn is_tunnel(word: &str) -> bool {
    let host = word.strip_prefix("https://").and_then(|rest| rest.strip_suffix(".trycloudflare.com"));
    host.is_some_and(|name| {
        name != "api" && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_log_and_errors_are_reasons() {
        let line =
            "2026-01-02T03:04:05Z INF |  https://quiet-fox-sings.trycloudflare.com                    |";
        assert_eq!(read(line), Some(Said::Open("https://quiet-fox-sings.trycloudflare.com".into())));
        for line in [
            "2026-01-02T03:04:05Z INF Requesting new quick Tunnel on trycloudflare.com...",
            "2026-01-02T03:04:05Z INF see https://api.trycloudflare.com for more",
            "2026-01-02T03:04:05Z INF https://evil.example/.trycloudflare.com",
            "",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
        let failed = "2026-01-02T03:04:05Z ERR Error unmarshaling QuickTunnel response: status_code=\"429 Too Many Requests\"";
        assert!(matches!(read(failed), Some(Said::Reason(trouble)) if trouble.message.contains("429")));
    }
}
