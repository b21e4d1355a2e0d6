//! By which program a tunnel goes, as the user writes it.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use tokio::process::Command;

use crate::{cloudflared, ngrok, said::Said, ssh};

/// By which program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// `ngrok`: the program of that name, with the token that it knows or that `NGROK_AUTHTOKEN` has.
    Ngrok,
    /// `cloudflared`: a quick tunnel of the program of that name; no account.
    Cloudflared,
    /// `ssh:[USER@]HOST[:PORT]`: a port of that machine, by OpenSSH.
    Ssh {
        /// `[USER@]HOST`, for ssh.
        destination: String,
        /// The SSH server's port, where ssh's own configuration does not say it.
        port: Option<u16>,
    },
}

/// Text that names no tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no tunnel; write ngrok, cloudflared or ssh:[USER@]HOST[:PORT]")]
pub struct ViaError {
    text: String,
}

impl FromStr for Via {
    type Err = ViaError;

    fn from_str(text: &str) -> Result<Self, ViaError> {
        let unknown = || ViaError { text: text.to_owned() };
        match text {
            "ngrok" => Ok(Self::Ngrok),
            "cloudflared" => Ok(Self::Cloudflared),
            _ => {
                let to = text.strip_prefix("ssh:").ok_or_else(unknown)?;
                let (destination, port) = match to.rsplit_once(':') {
                    Some((host, port)) => (host, Some(port.parse().map_err(|_| unknown())?)),
                    None => (to, None),
                };
                // What begins with a dash would be an option.
                let host = destination.rsplit('@').next().unwrap_or_default();
                let plain = |c: char| c.is_ascii_alphanumeric() || "@._-".contains(c);
                let usable = !destination.starts_with('-') && !host.starts_with('-') && !host.is_empty();
                if !usable || !destination.chars().all(plain) {
                    return Err(unknown());
                }
                Ok(Self::Ssh { destination: destination.to_owned(), port })
            }
        }
    }
}

/// What else can be said of an SSH tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshOptions {
    /// Where to listen at the other end; by default any port of its loopback.
    pub bind: Option<Bind>,
    /// A configuration in place of the user's.
    pub config: Option<PathBuf>,
    /// Where the tunnel leads from, when that is not the port: a reverse proxy at the other end.
    pub url: Option<String>,
}

/// Where to listen at the other end of an SSH tunnel: `PORT` of its loopback, or `ADDRESS:PORT`, `*` for all addresses, which its
/// server must allow (`GatewayPorts`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The address.
    pub address: Option<String>,
    /// The port; 0 is any.
    pub port: u16,
}

/// Text that is no `[ADDRESS:]PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no PORT or ADDRESS:PORT")]
pub struct BindError {
    text: String,
}

impl FromStr for Bind {
    type Err = BindError;

    fn from_str(text: &str) -> Result<Self, BindError> {
        let wrong = || BindError { text: text.to_owned() };
        let (address, port) = match text.rsplit_once(':') {
            Some((address, port)) => (Some(address.to_owned()), port),
            None => (None, text),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "*.-[]:".contains(c);
        if address.as_deref().is_some_and(|address| address.is_empty() || !address.chars().all(plain)) {
            return Err(wrong());
        }
        Ok(Self { address, port: port.parse().map_err(|_| wrong())? })
    }
}

/// The port that is served, for a tunnel's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is served.
    pub address: SocketAddr,
    /// It speaks TLS.
    pub tls: bool,
}

impl Target {
    /// An address that reaches it from this machine.
    pub fn reachable(self) -> SocketAddr {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        address
    }

    pub const fn scheme(self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

impl Via {
    /// The program's name.
    #[must_use]
    pub const fn program(&self) -> &'static str {
        match self {
            Self::Ngrok => "ngrok",
            Self::Cloudflared => "cloudflared",
            Self::Ssh { .. } => "ssh",
        }
    }

    /// How the program is got.
    pub(crate) const fn install_hint(&self) -> &'static str {
        match self {
            Self::Ngrok => "get it from https://ngrok.com/download",
            Self::Cloudflared => "get it from https://github.com/cloudflare/cloudflared/releases",
            Self::Ssh { .. } => "install OpenSSH's client",
        }
    }

    /// Adds the arguments. `port` is the one at the other end of an SSH tunnel.
    pub(crate) fn arguments(&self, command: &mut Command, target: Target, options: &SshOptions, port: u16) {
        match self {
            Self::Ngrok => ngrok::arguments(command, target),
            Self::Cloudflared => cloudflared::arguments(command, target),
            Self::Ssh { destination, port: server_port } => {
                ssh::arguments(command, destination, *server_port, target, options, port);
            }
        }
    }

    /// What a line of the program means.
    pub(crate) fn read(&self, line: &str, target: Target, options: &SshOptions) -> Option<Said> {
        match self {
            Self::Ngrok => ngrok::read(line),
            Self::Cloudflared => cloudflared::read(line),
            Self::Ssh { destination, .. } => ssh::read(line, destination, target, options),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_named_by_program_and_host() {
        let ssh = |destination: &str, port| Via::Ssh { destination: destination.into(), port };
        for (text, expected) in [
            ("ngrok", Via::Ngrok),
            ("cloudflared", Via::Cloudflared),
            ("ssh:vps.example", ssh("vps.example", None)),
            ("ssh:ada@vps.example:2222", ssh("ada@vps.example", Some(2222))),
            ("ssh:my-alias", ssh("my-alias", None)),
        ] {
            assert_eq!(text.parse::<Via>().unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "ssh",
            "ssh:",
            "ssh:-oProxyCommand=id",
            "ssh:a@-oProxyCommand=id",
            "ssh:host;id",
            "ssh:host:x",
            "ssh:a b",
            "tor",
        ] {
            assert!(text.parse::<Via>().is_err(), "{text}");
        }
    }

    #[test]
    fn where_to_listen_is_a_port_or_an_address_with_one() {
        let bind = |text: &str| text.parse::<Bind>().map(|bind| (bind.address, bind.port));
        assert_eq!(bind("8080").unwrap(), (None, 8080));
        assert_eq!(bind("*:80").unwrap(), (Some("*".into()), 80));
        assert_eq!(bind("[::1]:80").unwrap(), (Some("[::1]".into()), 80));
        for text in ["", "x", ":80", "a b:80", "host:99999"] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_on_all_addresses_is_reached_on_loopback() {
        let reach =
            |address: &str| Target { address: address.parse().unwrap(), tls: false }.reachable().to_string();
        assert_eq!(reach("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(reach("[::]:1"), "[::1]:1");
        assert_eq!(reach("10.0.0.1:1"), "10.0.0.1:1");
    }
}
