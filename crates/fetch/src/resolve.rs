//! Names to addresses, and which addresses a public server may send us to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use url::Host;

/// A name that leads into a private network.
#[derive(Debug, thiserror::Error)]
#[error("{host} is an address of a private network")]
pub struct PrivateAddress {
    pub host: String,
}

/// A name that could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("the name {host} could not be resolved")]
pub struct UnknownHost {
    host: String,
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct Resolver {
    /// Addresses of private networks are withheld.
    pub public_only: bool,
}

impl Resolver {
    pub fn shared(public_only: bool) -> Arc<Self> {
        Arc::new(Self { public_only })
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let public_only = self.public_only;
        Box::pin(async move {
            let host = name.as_str();
            let mut addresses = lookup(host).await?;
            if public_only {
                addresses.retain(|address| is_public(address.ip()));
                if addresses.is_empty() {
                    return Err(PrivateAddress { host: host.to_owned() }.into());
                }
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether a server is one of the public network. One whose name cannot be resolved here counts as such: a proxy
/// resolves it.
pub async fn is_public_server(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => is_public_v4(ip),
        Some(Host::Ipv6(ip)) => is_public_v6(ip),
        Some(Host::Domain(host)) => match lookup(host).await {
            Ok(addresses) => addresses.iter().all(|address| is_public(address.ip())),
            Err(_) => true,
        },
        None => true,
    }
}

/// Whether a URL names an address of a private network by its number.
pub fn is_private_literal(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => !is_public_v4(ip),
        Some(Host::Ipv6(ip)) => !is_public_v6(ip),
        // By RFC 6761 always this machine, whatever a resolver says; a proxy would take it for its own.
        Some(Host::Domain(host)) => host == "localhost" || host.ends_with(".localhost"),
        None => false,
    }
}

async fn lookup(host: &str) -> Result<Vec<SocketAddr>, UnknownHost> {
    let unknown = || UnknownHost { host: host.to_owned() };
    let addresses: Vec<_> = tokio::net::lookup_host((host, 0)).await.map_err(|_| unknown())?.collect();
    if addresses.is_empty() { Err(unknown()) } else { Ok(addresses) }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// Not one of IANA's special-purpose blocks that lead elsewhere than to the public network.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let shared = a == 100 && b & 0b1100_0000 == 64;
    let benchmark = a == 198 && b & 0xfe == 18;
    !(a == 0
        || a >= 224
        || shared
        || benchmark
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.octets().starts_with(&[192, 0, 0]))
}

/// An address that carries one of version 4 is what that one is.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let [.., high, low] = segments;
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(v4(high, low)),
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // 2000::/3 is all that is given out so far.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_networks_are_told_from_public_ones() {
        let check = |address: &str, public: bool| {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        };
        for address in
            ["1.1.1.1", "18.164.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "::ffff:1.1.1.1"]
        {
            check(address, true);
        }
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
        ] {
            check(address, false);
        }
    }

    #[test]
    fn private_addresses_are_seen_in_urls_however_they_are_written() {
        for url in [
            "http://127.1/",
            "http://0x7f000001/",
            "http://[::1]:8/",
            "http://localhost/",
            "http://2130706433/",
        ] {
            assert!(is_private_literal(&url.parse().unwrap()), "{url}");
        }
        assert!(!is_private_literal(&"https://hub.example/".parse().unwrap()));
    }
}
