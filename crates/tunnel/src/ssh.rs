//! A port at the other end of an SSH connection, by OpenSSH's client. Nothing is trusted that was not trusted before: an unknown or
//! changed host key ends it, and nothing is asked for on a terminal.

use tokio::process::Command;

use crate::{
    limits::{SSH_ALIVE_INTERVAL_SECS, SSH_ALIVE_MISSING, SSH_CONNECT_SECS},
    said::{Ends, Said, Trouble},
    via::{SshOptions, Target},
};

pub fn arguments(
    command: &mut Command,
    destination: &str,
    server_port: Option<u16>,
    target: Target,
    options: &SshOptions,
    port: u16,
) {
    // `-v` is how ssh tells that a forwarding works.
    command.args(["-N", "-T", "-v"]);
    for option in [
        "ExitOnForwardFailure=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "BatchMode=yes".to_owned(),
        // Nothing of this machine is for the other end but the one port.
        "ForwardAgent=no".to_owned(),
        "ForwardX11=no".to_owned(),
        "ClearAllForwardings=no".to_owned(),
        format!("ServerAliveInterval={SSH_ALIVE_INTERVAL_SECS}"),
        format!("ServerAliveCountMax={SSH_ALIVE_MISSING}"),
        format!("ConnectTimeout={SSH_CONNECT_SECS}"),
    ] {
        command.arg("-o").arg(option);
    }
    if let Some(config) = &options.config {
        command.arg("-F").arg(config);
    }
    if let Some(port) = server_port {
        command.arg("-p").arg(port.to_string());
    }
    let address = options.bind.as_ref().and_then(|bind| bind.address.as_deref());
    let listen = address.map_or_else(|| port.to_string(), |address| format!("{address}:{port}"));
    command.arg("-R").arg(format!("{listen}:{}", target.reachable())).arg("--").arg(destination);
}

pub fn read(line: &str, destination: &str, target: Target, options: &SshOptions) -> Option<Said> {
    if let Some(port) = opened_port(line) {
        let url = options.url.clone();
        return Some(Said::Open(url.unwrap_or_else(|| url_of(destination, target, options, port))));
    }
    trouble(line, destination).map(Said::Reason)
}

/// The port at the other end, of a line that says that its forwarding works.
pub fn opened_port(line: &str) -> Option<u16> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    if let Some(rest) = line.strip_prefix("Allocated port ") {
        return number(rest);
    }
    let rest = line.strip_prefix("debug1: remote forward success for: listen ")?;
    let listen = rest.split(", connect").next()?;
    // Of port 0 the number comes in a line of its own.
    number(listen.rsplit(':').next()?).filter(|port| *port != 0)
}

fn url_of(destination: &str, target: Target, options: &SshOptions, port: u16) -> String {
    let everywhere = options.bind.as_ref().is_some_and(|bind| bind.address.is_some());
    let host = destination.rsplit('@').next().unwrap_or(destination);
    format!("{}://{}:{port}", target.scheme(), if everywhere { host } else { "127.0.0.1" })
}

/// How lines begin with which ssh says why it ends, when it may well work the next time.
const PASSING: [&str; 7] = [
    "ssh: ",
    "Connection ",
    "Timeout, server",
    "kex_exchange_identification",
    "client_loop",
    "Received disconnect",
    "Error",
];

fn trouble(line: &str, destination: &str) -> Option<Trouble> {
    if line.starts_with("debug1:") {
        return None;
    }
    let passing = || PASSING.iter().any(|start| line.starts_with(start)).then(|| Trouble::passing(line));
    host_key_trouble(line, destination).or_else(|| refusal(line, destination)).or_else(passing)
}

fn host_key_trouble(line: &str, destination: &str) -> Option<Trouble> {
    if line.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return Some(Trouble::of(
            format!("the host key of {destination} is not the one that is known: somebody may be in between"),
            "if the server was set up anew, remove its old key with ssh-keygen -R HOST, and look at the new one",
            Ends::Always,
        ));
    }
    let unknown = line.contains("Host key verification failed") || line.contains("host key is known for");
    unknown.then(|| {
        Trouble::of(
            format!("the host key of {destination} is not known"),
            format!("connect once by hand and compare its key: ssh {destination}"),
            Ends::Always,
        )
    })
}

/// What the server or the configuration does not allow.
fn refusal(line: &str, destination: &str) -> Option<Trouble> {
    let line = line.trim();
    let (message, hint, ends) = if line.contains("Permission denied") {
        let hint = "a key without a passphrase, or one that ssh-agent holds, is needed";
        (format!("{destination} does not let us in: {line}"), hint, Ends::First)
    } else if line.contains("remote port forwarding failed") {
        let hint = "its port may be taken, or AllowTcpForwarding off";
        (format!("{destination} does not give the port: {line}"), hint, Ends::First)
    } else if ["Bad configuration option", "Bad owner or permissions", "Can't open user config"]
        .iter()
        .any(|fault| line.contains(fault))
    {
        (line.to_owned(), "mend the configuration of ssh", Ends::Always)
    } else {
        return None;
    };
    Some(Trouble::of(message, hint, ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target {
        address: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 11434),
        tls: false,
    };

    fn open(line: &str, options: &SshOptions) -> Option<String> {
        match read(line, "ada@vps.example", TARGET, options) {
            Some(Said::Open(url)) => Some(url),
            _ => None,
        }
    }

    #[test]
    fn a_forwarding_that_works_says_its_port() {
        let none = SshOptions::default();
        let allocated = "Allocated port 41234 for remote forward to 127.0.0.1:11434";
        assert_eq!(open(allocated, &none).unwrap(), "http://127.0.0.1:41234");
        let fixed = "debug1: remote forward success for: listen 8080, connect 127.0.0.1:11434";
        assert_eq!(open(fixed, &none).unwrap(), "http://127.0.0.1:8080");
        let everywhere = SshOptions { bind: Some("*:8080".parse().unwrap()), ..SshOptions::default() };
        let fixed = "debug1: remote forward success for: listen *:8080, connect 127.0.0.1:11434";
        assert_eq!(open(fixed, &everywhere).unwrap(), "http://vps.example:8080");
        let proxied = SshOptions { url: Some("https://chat.example".into()), ..SshOptions::default() };
        assert_eq!(open(allocated, &proxied).unwrap(), "https://chat.example");
        assert_eq!(
            open("debug1: remote forward success for: listen 0, connect 127.0.0.1:11434", &none),
            None
        );
        assert_eq!(
            open("debug1: Remote connections from LOCALHOST:0 forwarded to local address", &none),
            None
        );
    }

    #[test]
    fn what_the_user_must_see_to_is_final_and_what_passes_is_not() {
        for (line, ends) in [
            ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @", Ends::Always),
            ("Host key verification failed.", Ends::Always),
            (
                "No ED25519 host key is known for [127.0.0.1]:22 and you have requested strict checking.",
                Ends::Always,
            ),
            ("ada@vps.example: Permission denied (publickey).", Ends::First),
            ("Error: remote port forwarding failed for listen port 80", Ends::First),
            ("ssh: connect to host vps.example port 22: Connection refused", Ends::Never),
            ("Timeout, server vps.example not responding.", Ends::Never),
        ] {
            assert_eq!(trouble(line, "ada@vps.example").unwrap().ends, ends, "{line}");
        }
        assert_eq!(trouble("debug1: Authentication succeeded (publickey).", "x"), None);
        assert_eq!(trouble("Welcome to vps!", "x"), None);
    }
}
