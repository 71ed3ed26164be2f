//! Rebinding: a public name that leads into the private network. A web page on such a name reaches
//! the router, a database or a port on this host through the browser, past the firewall.
//!
//! Off by default, because names of a company often have private addresses on purpose (split
//! horizon). As dnsmasq's `stop-dns-rebind`: an answer with a single private address is no answer.
//!
//! Exempt: forward zones (their upstreams were chosen for that), names that nobody can register
//! (`home.arpa`, `internal`, `lan`, `local`, `localdomain` and single labels), what
//! `rebinding_allow` lists, and 127.0.0.2 and up for a reversed address, which is how block lists
//! answer (RFC 5782 §2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::is_below;
use crate::message::wire;

/// The settings of one zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebinding {
    pub on: bool,
    /// Suffixes below which private addresses are fine. Wire format, lower case.
    pub allow: Vec<Box<[u8]>>,
}

impl Rebinding {
    /// The private address because of which this answer must not be used. `name`: wire format,
    /// lower case.
    pub fn blocks(&self, name: &[u8], message: &[u8]) -> Option<IpAddr> {
        if !self.on || is_local(name) || self.allow.iter().any(|suffix| is_below(name, suffix)) {
            return None;
        }
        let listed = is_reversed_address(name);
        let of_block_list = |address: &IpAddr| match address {
            IpAddr::V4(address) => listed && address.is_loopback() && *address != Ipv4Addr::LOCALHOST,
            IpAddr::V6(_) => false,
        };
        let all = wire::answers(message).flat_map(|(kind, data)| addresses(kind, data));
        all.into_iter().find(|address| is_private(*address) && !of_block_list(address))
    }
}

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
/// RFC 9460 §14.3.2.
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;
const LOCAL: [&[u8]; 5] =
    [b"\x04home\x04arpa\0", b"\x08internal\0", b"\x03lan\0", b"\x05local\0", b"\x0blocaldomain\0"];

fn is_local(name: &[u8]) -> bool {
    labels(name).count() <= 1 || LOCAL.iter().any(|suffix| is_below(name, suffix))
}

fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (&len, tail) = rest.split_first()?;
        let label = tail.get(..usize::from(len)).filter(|label| !label.is_empty())?;
        rest = &tail[label.len()..];
        Some(label)
    })
}

/// `2.0.0.127.list.example`, or 32 hexadecimal digits for IPv6.
fn is_reversed_address(name: &[u8]) -> bool {
    let octet = |label: &[u8]| std::str::from_utf8(label).is_ok_and(|text| text.parse::<u8>().is_ok());
    let digit = |label: &[u8]| matches!(label, [digit] if digit.is_ascii_hexdigit());
    let count = labels(name).count();
    (count > 4 && labels(name).take(4).all(octet)) || (count > 32 && labels(name).take(32).all(digit))
}

/// The addresses that a record leads to.
fn addresses(kind: u16, data: &[u8]) -> Vec<IpAddr> {
    let v4 = |data: &[u8]| <[u8; 4]>::try_from(data).ok().map(IpAddr::from);
    let v6 = |data: &[u8]| <[u8; 16]>::try_from(data).ok().map(IpAddr::from);
    match kind {
        TYPE_A => v4(data).into_iter().collect(),
        TYPE_AAAA => v6(data).into_iter().collect(),
        TYPE_SVCB | TYPE_HTTPS => {
            let hints = |(key, value): (u16, &[u8])| -> Vec<IpAddr> {
                match key {
                    IPV4_HINT => value.chunks(4).filter_map(v4).collect(),
                    IPV6_HINT => value.chunks(16).filter_map(v6).collect(),
                    _ => Vec::new(),
                }
            };
            service_parameters(data).flat_map(hints).collect()
        }
        _ => Vec::new(),
    }
}

/// Keys and values of an SVCB or HTTPS record: after the priority and the target's name (RFC 9460
/// §2.2).
fn service_parameters(data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let target = data.get(2..).unwrap_or_default();
    let len = labels(target).map(|label| label.len() + 1).sum::<usize>() + 1;
    let mut rest = target.get(len..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&[a, b, c, d], tail) = rest.split_first_chunk()?;
        let value = tail.get(..usize::from(u16::from_be_bytes([c, d])))?;
        rest = &tail[value.len()..];
        Some((u16::from_be_bytes([a, b]), value))
    })
}

/// An address that the public Internet does not route, in any notation.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => embedded(address).map_or_else(
            || {
                address.is_unspecified()
                    || address.is_loopback()
                    || address.is_unicast_link_local()
                    || address.is_unique_local()
                    // Site-local: deprecated (RFC 3879), and still routed by some.
                    || address.segments()[0] & 0xffc0 == 0xfec0
            },
            is_private_v4,
        ),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        // Shared by a provider's customers (RFC 6598).
        || (a == 100 && b & 0xc0 == 64)
}

/// The IPv4 address in one that is mapped, compatible, translated (RFC 6052, RFC 8215) or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = || {
        let [.., a, b, c, d] = address.octets();
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..]
        | [0x64, 0xff9b, 1, ..] => Some(last()),
        [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::name::from_text;

    fn on(allow: &[&str]) -> Rebinding {
        let allow = allow.iter().map(|name| from_text(name).unwrap().into()).collect();
        Rebinding { on: true, allow }
    }

    /// An answer for `name` with these addresses.
    fn answer(name: &str, all: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let name = from_text(name).unwrap();
        let count = u8::try_from(all.len()).unwrap();
        let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
        message.extend(&name);
        message.extend([0, 1, 0, 1]);
        for text in all {
            let (kind, data) = match text.parse().unwrap() {
                IpAddr::V4(address) => (1, address.octets().to_vec()),
                IpAddr::V6(address) => (28, address.octets().to_vec()),
            };
            message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()]);
            message.extend(data);
        }
        (name, message)
    }

    fn blocked(settings: &Rebinding, name: &str, all: &[&str]) -> bool {
        let (name, message) = answer(name, all);
        settings.blocks(&name, &message).is_some()
    }

    #[test]
    fn s13_a_public_name_with_a_private_address_is_blocked_in_every_notation() {
        let guard = on(&[]);
        for address in [
            "192.168.1.1",
            "127.0.0.1",
            "127.0.0.2",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.255",
            "100.64.0.1",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "fec0::1",
            "::ffff:192.168.1.1",
            "::192.168.1.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::192.168.1.1",
            "64:ff9b:1::10.0.0.1",
            "2002:c0a8:101::1",
        ] {
            assert!(blocked(&guard, "www.evil.example", &[address]), "{address}");
            assert!(blocked(&guard, "www.evil.example", &["203.0.113.1", address]), "one of two: {address}");
            assert!(!blocked(&Rebinding::default(), "www.evil.example", &[address]), "off by default");
        }
    }

    #[test]
    fn s13_public_addresses_pass() {
        let guard = on(&[]);
        for address in [
            "203.0.113.1",
            "172.32.0.1",
            "100.128.0.1",
            "11.0.0.1",
            "2001:db8::1",
            "64:ff9b::203.0.113.1",
            "2002:cb00:7101::1",
            "::ffff:203.0.113.1",
        ] {
            assert!(!blocked(&guard, "www.example", &[address]), "{address}");
        }
        assert!(!blocked(&guard, "www.example", &[]));
    }

    #[test]
    fn s13_exceptions_block_lists_and_names_that_nobody_can_register() {
        let guard = on(&["plex.direct", "dbl.list.example"]);
        for (name, address) in [
            ("a.plex.direct", "192.168.1.1"),
            ("spam.example.dbl.list.example", "127.0.1.2"),
            ("printer", "192.168.1.9"),
            ("nas.home.arpa", "192.168.1.9"),
            ("db.corp.internal", "10.1.2.3"),
            ("2.0.0.127.zen.list.example", "127.0.0.4"),
        ] {
            assert!(!blocked(&guard, name, &[address]), "{name}");
        }
        let nibbles = "2.".repeat(32) + "list.example";
        assert!(!blocked(&guard, &nibbles, &["127.0.0.2"]));
        for (name, address) in [
            ("plex.direct.evil.example", "192.168.1.1"),
            ("notplex.direct", "192.168.1.1"),
            ("2.0.0.127.evil.example", "127.0.0.1"),
            ("2.0.0.127.evil.example", "192.168.1.1"),
            ("2.0.0.evil.example", "127.0.0.2"),
            ("home.arpa.evil.example", "192.168.1.9"),
        ] {
            assert!(blocked(&guard, name, &[address]), "{name}");
        }
    }

    #[test]
    fn s13_the_hints_of_https_records_count_and_damage_does_not_panic() {
        let hints = [
            0, 1, 3, b'w', b'w', b'w', 0, 0, 1, 0, 3, 2, b'h', b'2', 0, 4, 0, 8, 203, 0, 113, 1, 192, 168, 1,
            1,
        ];
        assert_eq!(
            addresses(TYPE_HTTPS, &hints),
            [IpAddr::from([203, 0, 113, 1]), IpAddr::from([192, 168, 1, 1])]
        );
        for end in 0..hints.len() {
            let _ = addresses(TYPE_HTTPS, &hints[..end]);
            let _ = addresses(TYPE_A, &hints[..end]);
        }
    }
}
