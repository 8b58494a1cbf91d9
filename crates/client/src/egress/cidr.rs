//! A range of addresses, as `--allow-private` takes it.

use std::{fmt, net::IpAddr, str::FromStr};

use pilotlight_core::{Error, resource::clean};

use super::address::shares_prefix;

/// A range of IP addresses (RFC 4632): `10.1.0.0/16`, `fd12::/16`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: IpAddr,
    bits: u32,
}

impl Cidr {
    /// Whether an address of the same family is in the range.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                shares_prefix(&ip.octets(), &net.octets(), self.bits)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                shares_prefix(&ip.octets(), &net.octets(), self.bits)
            }
            _ => false,
        }
    }

    /// Whether the range is one address.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.bits == width(self.first)
    }

    /// The address as it was written.
    pub(super) fn first(&self) -> IpAddr {
        self.first
    }
}

impl FromStr for Cidr {
    type Err = Error;

    /// Reads `ADDRESS/BITS`, or an address alone.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::ConfigValue {
            what: format!("address range {}", clean(text)),
            why: why.into(),
        };
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.trim(), None),
        };
        let first: IpAddr = address
            .parse()
            .map_err(|_| bad("it is not an IP address with an optional /LENGTH"))?;
        let bits = match bits {
            None => width(first),
            Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= width(first))
                .ok_or_else(|| bad("the length is too large"))?,
            Some(_) => return Err(bad("the length is not a number")),
        };
        Ok(Self { first, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

fn width(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range holds its addresses, an address alone is a range of one, and nonsense says so.
    #[test]
    fn ranges_are_read_and_hold_their_addresses() {
        let range: Cidr = "10.1.0.0/16".parse().unwrap();
        assert!(
            range.contains("10.1.255.255".parse().unwrap())
                && !range.contains("10.2.0.0".parse().unwrap())
        );
        assert!(!range.contains("::ffff:10.1.0.1".parse().unwrap()));
        let one: Cidr = "fd00::1".parse().unwrap();
        assert!(one.is_single() && one.to_string() == "fd00::1/128");
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0/8",
            "::/129",
            "localhost",
            "1.2.3.4/8/8",
        ] {
            assert!(
                matches!(bad.parse::<Cidr>(), Err(Error::ConfigValue { .. })),
                "{bad}"
            );
        }
    }
}
