//! Which addresses an outbound fetch may reach. A name in the bundle belongs to someone else,
//! and whoever runs its DNS must not steer the broker to the inside of its own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Is this an address of the public internet? Everything reserved is not: loopback, private,
/// link-local, shared (RFC 6598), documentation, benchmarks, multicast, and each of these inside
/// an IPv6 address (mapped, NAT64). Tunnels that carry an IPv4 address (6to4, Teredo) are not.
// SECURITY: `t_050_a_private_address_inside_an_ipv6_address_is_not_public`
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// Where clouds hand out the machine's own credentials: link-local, and the address that AWS has in IPv6.
/// No table opens these.
// SECURITY: `t_049_what_is_link_local_is_never_reached`
pub(super) fn is_never_reached(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => {
            let [first, ..] = ip.segments();
            let carried = carried_v4(ip).is_some_and(|inner| inner.is_link_local());
            carried || first & 0xffc0 == 0xfe80 || ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// First address and prefix length of every block that is not the public internet
/// (IANA special-purpose registry).
const RESERVED_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// Only 2000::/3 is global unicast at all; these blocks inside it are not.
const RESERVED_V6: [([u16; 2], u32); 4] =
    [([0x2001, 0], 23), ([0x2001, 0x0db8], 32), ([0x2002, 0], 16), ([0x3fff, 0], 20)];

fn is_public_v4(ip: Ipv4Addr) -> bool {
    !RESERVED_V4.iter().any(|&(block, prefix)| same_prefix(ip.to_bits(), u32::from_be_bytes(block), prefix))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(inner) = carried_v4(ip) {
        return is_public_v4(inner);
    }
    let [first, second, ..] = ip.segments();
    let top = word(first, second);
    same_prefix(top, word(0x2000, 0), 3)
        && !RESERVED_V6.iter().any(|&([a, b], prefix)| same_prefix(top, word(a, b), prefix))
}

/// The IPv4 address that a mapped (`::ffff:0:0/96`) or NAT64 (`64:ff9b::/96`) address stands for.
fn carried_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = ip.segments();
    let carries = matches!([a, b, c, d, e, f], [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0]);
    carries.then(|| Ipv4Addr::from_bits(word(high, low)))
}

fn word(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

fn same_prefix(a: u32, b: u32, prefix: u32) -> bool {
    (a ^ b).leading_zeros() >= prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: [&str; 22] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.2",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ];
    const OUTSIDE: [&str; 8] = [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.0",
        "198.20.0.0",
        "223.255.255.255",
    ];

    fn public(text: &str) -> bool {
        is_public(text.parse().expect("an address"))
    }

    #[test]
    fn t_049_a_private_address_is_not_public() {
        for ip in INSIDE {
            assert!(!public(ip), "{ip}");
        }
        for ip in OUTSIDE {
            assert!(public(ip), "{ip}");
        }
    }

    #[test]
    fn t_049_what_is_link_local_is_never_reached() {
        let never = |text: &str| is_never_reached(text.parse().expect("an address"));
        for ip in [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(never(ip), "{ip}");
        }
        for ip in ["10.0.0.1", "127.0.0.1", "169.253.1.1", "fd00::1", "::1", "fec0::1", "1.1.1.1"] {
            assert!(!never(ip), "{ip}");
        }
    }

    #[test]
    fn t_050_a_private_address_inside_an_ipv6_address_is_not_public() {
        for ip in INSIDE {
            assert!(!public(&format!("::ffff:{ip}")), "mapped {ip}");
            assert!(!public(&format!("64:ff9b::{ip}")), "NAT64 {ip}");
            assert!(!public(&format!("64:ff9b:1::{ip}")), "local NAT64 {ip}");
            assert!(!public(&format!("::{ip}")), "compatible {ip}");
        }
        assert!(public("::ffff:1.1.1.1"));
        assert!(public("64:ff9b::1.1.1.1"));
    }

    #[test]
    fn t_049_a_reserved_ipv6_address_is_not_public() {
        let reserved = "::|::1|fe80::1|febf::1|fec0::1|fc00::1|fd00::1|fdff::1|ff02::1|100::1|2001::1|2001:2::1|\
                        2001:db8::1|2002:7f00:1::|2002:101:101::|3fff::1|5f00::1|4000::1";
        for ip in reserved.split('|') {
            assert!(!public(ip), "{ip}");
        }
        for ip in ["2606:4700:4700::1111", "2a00:1450:4001:800::200e", "2001:4860:4860::8888", "2400::1"] {
            assert!(public(ip), "{ip}");
        }
    }
}
