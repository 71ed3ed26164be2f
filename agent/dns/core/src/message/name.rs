//! Names and cache keys, and their conversion between wire format and text.

use std::fmt::Write as _;

use crate::message::wire::{NAME_LEN_MAX, Query, Question};

/// The cache key of an answer: name in lower case, type, class, and the two flags that change an
/// upstream's answer. Answers are never shared between different DO or CD bits (RFC 4035 §4.6, RFC
/// 6840 §5.9).
///
/// Bytes: name (wire, lower case), type, class (big-endian), flags (1 = DO, 2 = CD).
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; KEY_LEN_MAX],
    len: u16,
}

const KEY_LEN_MAX: usize = NAME_LEN_MAX + 5;
const FLAG_DO: u8 = 1;
const FLAG_CD: u8 = 2;

impl Key {
    pub fn of(query: &Query<'_>) -> Self {
        Self::new(&query.question, query.dnssec_ok(), query.checking_disabled)
    }

    pub fn new(question: &Question<'_>, dnssec_ok: bool, checking_disabled: bool) -> Self {
        let mut bytes = [0; KEY_LEN_MAX];
        let name_len = question.name.len().min(NAME_LEN_MAX);
        bytes[..name_len].copy_from_slice(&question.name[..name_len]);
        // A length byte is at most 63, below 'A'.
        bytes[..name_len].make_ascii_lowercase();
        bytes[name_len..name_len + 2].copy_from_slice(&question.kind.to_be_bytes());
        bytes[name_len + 2..name_len + 4].copy_from_slice(&question.class.to_be_bytes());
        bytes[name_len + 4] = flags(dnssec_ok, checking_disabled);
        #[expect(clippy::cast_possible_truncation, reason = "at most KEY_LEN_MAX")]
        let len = (name_len + 5) as u16;
        Self { bytes, len }
    }

    /// From a question's bytes in a message (name in lower case, type, class), and the flags byte.
    pub(crate) fn from_parts(question: &[u8], flags: u8) -> Self {
        let mut bytes = [0; KEY_LEN_MAX];
        let len = question.len().min(KEY_LEN_MAX - 1);
        bytes[..len].copy_from_slice(&question[..len]);
        bytes[len] = flags;
        #[expect(clippy::cast_possible_truncation, reason = "at most KEY_LEN_MAX")]
        let len = (len + 1) as u16;
        Self { bytes, len }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The flags, which are the last byte of a key.
pub(crate) fn flags(dnssec_ok: bool, checking_disabled: bool) -> u8 {
    (u8::from(dnssec_ok) * FLAG_DO) | (u8::from(checking_disabled) * FLAG_CD)
}

/// The flags of a query's key.
pub(crate) fn key_flags(query: &Query<'_>) -> u8 {
    flags(query.dnssec_ok(), query.checking_disabled)
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Splits a key into question, DO and CD. `None` if the bytes are not a key.
pub fn read_key(key: &[u8]) -> Option<(Question<'_>, bool, bool)> {
    let (name, rest) = key.split_at_checked(key.len().checked_sub(5)?)?;
    if !is_name(name) {
        return None;
    }
    let question = Question {
        name,
        kind: u16::from_be_bytes([rest[0], rest[1]]),
        class: u16::from_be_bytes([rest[2], rest[3]]),
    };
    Some((question, rest[4] & FLAG_DO != 0, rest[4] & FLAG_CD != 0))
}

/// A key's name.
pub fn name_of(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(5)]
}

/// The last two labels of a key's name: roughly the unit that fails together.
pub fn zone_of(key: &[u8]) -> &[u8] {
    let name = name_of(key);
    // The offset of the last two labels, not counting the root byte.
    let (mut at, mut last, mut zone) = (0, 0, 0);
    while let Some(&len) = name.get(at).filter(|&&len| len > 0) {
        (zone, last) = (last, at);
        at += 1 + usize::from(len);
    }
    &name[zone.min(name.len())..]
}

/// Whether `name` is `zone` or below it. Both in wire format; `zone` in lower case.
pub fn is_below(name: &[u8], zone: &[u8]) -> bool {
    let Some(mut over) = name.len().checked_sub(zone.len()) else { return false };
    // Compared by label: `xcorp.example` is not below `corp.example`.
    let mut at = 0;
    while over > 0 {
        let Some(step) = name.get(at).map(|&len| 1 + usize::from(len)).filter(|&step| step <= over) else {
            return false;
        };
        (at, over) = (at + step, over - step);
    }
    name.get(at..).is_some_and(|rest| rest.eq_ignore_ascii_case(zone))
}

fn is_name(wire: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&len) = wire.get(at) {
        if len == 0 {
            return at + 1 == wire.len() && wire.len() <= NAME_LEN_MAX;
        }
        if len > 63 {
            return false;
        }
        at += 1 + usize::from(len);
    }
    false
}

/// A name as text: no trailing dot except for the root; unusual bytes as `\DDD` (RFC 1035 §5.1).
pub fn to_text(wire: &[u8]) -> String {
    let mut text = String::with_capacity(wire.len());
    let mut rest = wire;
    while let Some((&len, tail)) = rest.split_first() {
        let Some((label, tail)) = tail.split_at_checked(usize::from(len)) else { break };
        if len == 0 {
            break;
        }
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(byte)]),
                0x21..=0x7e => text.push(char::from(byte)),
                // Writing to a string cannot fail.
                _ => drop(write!(text, "\\{byte:03}")),
            }
        }
        rest = tail;
    }
    if text.is_empty() { ".".into() } else { text }
}

/// Parses a name from text, with or without the trailing dot. `None` if it is not a valid name.
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.strip_suffix('.').unwrap_or(text).split('.') {
        if label.is_empty() && text != "." {
            return None;
        }
        if label.len() > 63 {
            return None;
        }
        if !label.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "at most 63")]
            wire.push(label.len() as u8);
            wire.extend(label.as_bytes());
        }
    }
    wire.push(0);
    (wire.len() <= NAME_LEN_MAX).then_some(wire)
}

const TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("DS", 43),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("TLSA", 52),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("ANY", 255),
    ("CAA", 257),
];

/// `A`, `AAAA`, … or `TYPE1234` (RFC 3597 §5).
pub fn type_to_text(kind: u16) -> String {
    let known = TYPES.iter().find(|(_, number)| *number == kind);
    known.map_or_else(|| format!("TYPE{kind}"), |(name, _)| (*name).to_owned())
}

pub fn type_from_text(text: &str) -> Option<u16> {
    let upper = text.to_ascii_uppercase();
    match TYPES.iter().find(|(name, _)| *name == upper) {
        Some((_, number)) => Some(*number),
        None => upper.strip_prefix("TYPE")?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_conversion_to_wire_format_and_back() {
        for name in ["example.com", "a.b.c.d", "_sip._tcp.example.org", "."] {
            assert_eq!(to_text(&from_text(name).unwrap()), name);
        }
        assert_eq!(from_text("example.com."), from_text("example.com"));
        assert_eq!((from_text("a..b"), from_text(&"x".repeat(64))), (None, None));
        // Empty text comes from an unset shell variable, and must not mean the root.
        assert_eq!(from_text(""), None);
        assert_eq!(to_text(&[3, b'a', b'.', 7, 0]), "a\\.\\007");
        assert_eq!((type_from_text("https"), type_from_text("type999")), (Some(65), Some(999)));
    }

    #[test]
    fn a_zone_is_the_last_two_labels() {
        let zone = |text: &str| {
            let name = from_text(text).unwrap();
            to_text(zone_of(Key::new(&Question { name: &name, kind: 1, class: 1 }, false, false).as_bytes()))
        };
        assert_eq!(
            ["a.b.example.com", "Example.com", "com", "."].map(zone),
            ["example.com", "example.com", "com", "."]
        );
        assert_eq!(zone_of(&[9, 9, 0, 1, 0, 1, 0]), [9, 9]);
    }

    #[test]
    fn below_a_zone_compares_whole_labels() {
        let below = |name, zone| is_below(&from_text(name).unwrap(), &from_text(zone).unwrap());
        assert!(below("a.Corp.example", "corp.example") && below("corp.example", "corp.example"));
        assert!(below("anything", ".") && below(".", "."));
        assert!(!below("xcorp.example", "corp.example") && !below("example", "corp.example"));
    }

    #[test]
    fn a_key_ignores_case_but_never_mixes_do_and_cd() {
        let (lower, upper) = (from_text("www.example").unwrap(), from_text("WWW.eXample").unwrap());
        let question = |name| Question { name, kind: 1, class: 1 };
        let key = |name, d, c| Key::new(&question(name), d, c).as_bytes().to_vec();
        assert_eq!(key(&lower, false, false), key(&upper, false, false));
        assert_ne!(key(&lower, true, false), key(&lower, false, false));
        assert_ne!(key(&lower, true, false), key(&lower, false, true));
        let (back, dnssec_ok, checking_disabled) =
            read_key(&key(&upper, true, false)).map(|(q, d, c)| (q.name.to_vec(), d, c)).unwrap();
        assert_eq!((back, dnssec_ok, checking_disabled), (lower, true, false));
    }
}
