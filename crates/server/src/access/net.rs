//! Addresses as limits count them.

use std::net::{IpAddr, Ipv6Addr};

/// An address of version 4, or the network of 64 bits that one customer has of version 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Net(IpAddr);

impl Net {
    /// Of an address; one of version 4 within version 6 is what it is within.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
            ip @ IpAddr::V4(_) => ip,
        })
    }

    /// Whether it is this machine, or a tunnel's end on it.
    pub const fn is_loopback(self) -> bool {
        match self.0 {
            IpAddr::V4(ip) => ip.is_loopback(),
            // All of `::/64` but this machine's own is used by nobody.
            IpAddr::V6(ip) => ip.to_bits() == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_customer_is_one_address() {
        let net = |text: &str| Net::of(text.parse().unwrap());
        assert_eq!(net("2001:db8:0:1::5"), net("2001:db8:0:1:ffff::6"));
        assert_ne!(net("2001:db8:0:1::5"), net("2001:db8:0:2::5"));
        assert_eq!(net("::ffff:10.0.0.1"), net("10.0.0.1"));
        assert_ne!(net("10.0.0.1"), net("10.0.0.2"));
        assert!(
            net("127.8.8.8").is_loopback()
                && net("::1").is_loopback()
                && net("::ffff:127.0.0.1").is_loopback()
        );
        assert!(!net("10.0.0.1").is_loopback() && !net("2001:db8::1").is_loopback());
    }
}
