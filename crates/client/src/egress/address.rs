//! What kind of place an address is, in every form that an IPv4 address can take inside an IPv6 one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The internet.
    Public,
    /// This machine.
    Loopback,
    /// A private network, or an address that no host on the internet has.
    Private,
    /// Link-local, or a cloud's metadata service: opened by its exact address only.
    Guarded,
}

/// Tells what kind of place an address is.
pub(super) fn place(ip: IpAddr) -> Place {
    match unmapped(ip) {
        IpAddr::V4(ip) => place_v4(ip),
        IpAddr::V6(ip) => place_v6(ip),
    }
}

/// The IPv4 address of a v4-mapped one (`::ffff:a.b.c.d`): the operating system connects to just that.
pub(super) fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// A name without its trailing dot, in lower case.
pub(super) fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a name can only be one of a private network: a single label, or a suffix that the public DNS does not have.
pub(super) fn is_local_name(name: &str) -> bool {
    let name = plain(name);
    !name.contains('.') || LOCAL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a name is that of a cloud's metadata service; behind a proxy it may resolve there and not here.
pub(super) fn is_metadata_name(name: &str) -> bool {
    METADATA_NAMES.contains(&plain(name).as_str())
}

fn place_v4(ip: Ipv4Addr) -> Place {
    if ip.is_link_local() || METADATA_V4.contains(&ip) {
        Place::Guarded
    } else if ip.is_loopback() {
        Place::Loopback
    } else if PRIVATE_V4
        .iter()
        .any(|(net, bits)| shares_prefix(&ip.octets(), &net.octets(), *bits))
    {
        Place::Private
    } else {
        Place::Public
    }
}

fn place_v6(ip: Ipv6Addr) -> Place {
    if within(ip, LINK_LOCAL) || METADATA_V6.contains(&ip) {
        return Place::Guarded;
    }
    if ip.is_loopback() {
        return Place::Loopback;
    }
    let inside: Vec<Place> = embedded(ip).into_iter().map(place_v4).collect();
    if inside.contains(&Place::Guarded) {
        return Place::Guarded;
    }
    // The translator of the well-known prefix is where DNS64 networks reach the public internet (RFC 6052).
    if within(ip, NAT64) && inside == [Place::Public] {
        return Place::Public;
    }
    let tunnel_to_private = is_isatap(ip) && inside != [Place::Public];
    if !within(ip, GLOBAL_UNICAST)
        || PRIVATE_V6.iter().any(|range| within(ip, *range))
        || tunnel_to_private
    {
        return Place::Private;
    }
    Place::Public
}

/// The IPv4 addresses that a translator or tunnel may find in an IPv6 one.
fn embedded(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let o = ip.octets();
    let last = Ipv4Addr::new(o[12], o[13], o[14], o[15]);
    if within(ip, COMPATIBLE) || within(ip, TRANSLATED) || within(ip, NAT64) || is_isatap(ip) {
        vec![last]
    } else if within(ip, LOCAL_NAT64) {
        // RFC 6052 section 2.2: where the address stands depends on the length of the prefix in use.
        vec![
            last,
            Ipv4Addr::new(o[6], o[7], o[9], o[10]),
            Ipv4Addr::new(o[7], o[9], o[10], o[11]),
            Ipv4Addr::new(o[9], o[10], o[11], o[12]),
        ]
    } else if within(ip, SIX_TO_FOUR) {
        vec![Ipv4Addr::new(o[2], o[3], o[4], o[5])]
    } else if within(ip, TEREDO) {
        vec![
            Ipv4Addr::new(o[4], o[5], o[6], o[7]),
            Ipv4Addr::new(!o[12], !o[13], !o[14], !o[15]),
        ]
    } else {
        Vec::new()
    }
}

fn is_isatap(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    matches!(segments[4], 0 | 0x0200) && segments[5] == 0x5efe
}

fn within(ip: Ipv6Addr, (net, bits): (Ipv6Addr, u32)) -> bool {
    shares_prefix(&ip.octets(), &net.octets(), bits)
}

/// Whether two addresses of one family agree in their first `bits` bits.
pub(super) fn shares_prefix(a: &[u8], b: &[u8], bits: u32) -> bool {
    let mut left = bits;
    a.iter().zip(b).all(|(a, b)| {
        let here = left.min(8);
        left -= here;
        (u16::from(*a ^ *b) >> (8 - here)) == 0
    })
}

const fn v6(a: u16, b: u16, c: u16, d: u16, h: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, h)
}

const LINK_LOCAL: (Ipv6Addr, u32) = (v6(0xfe80, 0, 0, 0, 0), 10);
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (v6(0x2000, 0, 0, 0, 0), 3);
const COMPATIBLE: (Ipv6Addr, u32) = (v6(0, 0, 0, 0, 0), 96);
const TRANSLATED: (Ipv6Addr, u32) = (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96);
const NAT64: (Ipv6Addr, u32) = (v6(0x64, 0xff9b, 0, 0, 0), 96);
const LOCAL_NAT64: (Ipv6Addr, u32) = (v6(0x64, 0xff9b, 1, 0, 0), 48);
const SIX_TO_FOUR: (Ipv6Addr, u32) = (v6(0x2002, 0, 0, 0, 0), 16);
const TEREDO: (Ipv6Addr, u32) = (v6(0x2001, 0, 0, 0, 0), 32);

/// Inside 2000::/3 and yet not the internet (IANA special-purpose registry); outside it nothing is.
const PRIVATE_V6: [(Ipv6Addr, u32); 4] = [
    (v6(0x2001, 0, 0, 0, 0), 23),
    (v6(0x2001, 0xdb8, 0, 0, 0), 32),
    SIX_TO_FOUR,
    (v6(0x3fff, 0, 0, 0, 0), 20),
];

const PRIVATE_V4: [(Ipv4Addr, u32); 13] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Metadata services outside 169.254.0.0/16: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Metadata services outside fe80::/10: Amazon (instance, DNS, time, container), Google, Oracle's and Scaleway's.
const METADATA_V6: [Ipv6Addr; 7] = [
    v6(0xfd00, 0xec2, 0, 0, 0x254),
    v6(0xfd00, 0xec2, 0, 0, 0x253),
    v6(0xfd00, 0xec2, 0, 0, 0x123),
    v6(0xfd00, 0xec2, 0, 0, 0x23),
    v6(0xfd20, 0xce, 0, 0, 0x254),
    v6(0xfd00, 0xc1, 0, 0, 0xa9fe),
    v6(0xfd00, 0x42, 0, 0, 0x42),
];

const METADATA_NAMES: [&str; 7] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
    "instance-data",
    "instance-data.ec2.internal",
];

const LOCAL_SUFFIXES: [&str; 9] = [
    ".local",
    ".internal",
    ".lan",
    ".home",
    ".home.arpa",
    ".corp",
    ".intranet",
    ".private",
    ".test",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// T-11: each special range is what it is, at its first and last address and one beyond.
    #[test]
    fn ranges_end_where_they_end() {
        for (text, want) in [
            ("9.255.255.255", Place::Public),
            ("10.0.0.0", Place::Private),
            ("10.255.255.255", Place::Private),
            ("11.0.0.0", Place::Public),
            ("100.63.255.255", Place::Public),
            ("100.64.0.0", Place::Private),
            ("100.127.255.255", Place::Private),
            ("100.128.0.0", Place::Public),
            ("126.255.255.255", Place::Public),
            ("127.0.0.0", Place::Loopback),
            ("127.255.255.255", Place::Loopback),
            ("128.0.0.0", Place::Public),
            ("169.253.255.255", Place::Public),
            ("169.254.0.0", Place::Guarded),
            ("169.255.0.0", Place::Public),
            ("172.15.255.255", Place::Public),
            ("172.31.255.255", Place::Private),
            ("172.32.0.0", Place::Public),
            ("198.17.255.255", Place::Public),
            ("198.19.255.255", Place::Private),
            ("198.20.0.0", Place::Public),
            ("223.255.255.255", Place::Public),
            ("224.0.0.0", Place::Private),
            ("255.255.255.255", Place::Private),
            ("1fff:ffff::", Place::Private),
            ("2000::", Place::Public),
            ("2001:1ff:ffff::1", Place::Private),
            ("2001:200::1", Place::Public),
            ("2606:4700::1111", Place::Public),
            ("4000::", Place::Private),
            ("fbff::1", Place::Private),
            ("fd12::1", Place::Private),
            ("fe7f::1", Place::Private),
            ("fe80::1", Place::Guarded),
            ("febf::1", Place::Guarded),
            ("fec0::1", Place::Private),
            ("64:ff9b::8.8.8.8", Place::Public),
            ("64:ff9b::10.0.0.1", Place::Private),
            ("64:ff9b::127.0.0.1", Place::Private),
            ("64:ff9b::169.254.169.254", Place::Guarded),
            ("64:ff9b:1::8.8.8.8", Place::Private),
            ("64:ff9b:1:a9fe:a9:fe00::", Place::Guarded),
            ("::ffff:8.8.8.8", Place::Public),
            ("::ffff:127.0.0.1", Place::Loopback),
            ("::ffff:0:8.8.8.8", Place::Private),
            ("::8.8.8.8", Place::Private),
            ("::169.254.169.254", Place::Guarded),
            ("2002:808:808::1", Place::Private),
            ("2002:a9fe:a9fe::1", Place::Guarded),
            ("2001:0:a9fe:a9fe::1", Place::Guarded),
            ("2001::5601:5601", Place::Guarded),
            ("2606:4700::5efe:10.0.0.1", Place::Private),
            ("2606:4700::5efe:8.8.8.8", Place::Public),
            ("2606:4700::200:5efe:169.254.169.254", Place::Guarded),
        ] {
            assert_eq!(place(text.parse().unwrap()), want, "{text}");
        }
    }
}
