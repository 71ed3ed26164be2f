//! Uses the case of a name's letters as a second query id (draft-vixie-dnsext-dns0x20), which an
//! off-path attacker would have to guess.
//!
//! The case of the letters is chosen by 64 bits, one per letter, starting over after 64. Zero is
//! all lower case, the form in which names are cached: [`neutral`] removes from an answer the case
//! that the upstream copied from our question.

use std::borrow::Cow;

use super::{Header, NAME_LEN_MAX, Record, name_end, read_question, u16_at};

/// How an upstream's message repeats the question's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    Same,
    /// The same name in different case.
    OtherCase,
    /// No question, or a different one.
    None,
}

/// Applies the case in `letters` to a lower-case name.
pub fn mix(name: &mut [u8], letters: u64) {
    // A label's length byte is at most 63, below any letter.
    let places = name.iter_mut().filter(|byte| byte.is_ascii_lowercase());
    for (place, byte) in places.enumerate() {
        if letters.rotate_right(u32::try_from(place % 64).unwrap_or(0)) & 1 == 1 {
            byte.make_ascii_uppercase();
        }
    }
}

/// Clears the bits for which this name has no letter: zero if the name stays in lower case.
pub fn fitting(name: &[u8], letters: u64) -> u64 {
    let count = name.iter().filter(|byte| byte.is_ascii_lowercase()).count();
    let mask =
        u32::try_from(count).ok().and_then(|count| 1_u64.checked_shl(count)).map_or(u64::MAX, |end| end - 1);
    letters & mask
}

/// How `message` repeats `name` (lower case), which was sent with this case.
pub fn echo(message: &[u8], name: &[u8], letters: u64) -> Echo {
    if u16_at(message, 4) != Some(1) {
        return Echo::None;
    }
    let Some((theirs, _)) = read_question(message) else { return Echo::None };
    let mut buffer = [0; NAME_LEN_MAX];
    let asked = sent(&mut buffer, name, letters);
    if theirs.name == asked {
        Echo::Same
    } else if theirs.name.eq_ignore_ascii_case(asked) {
        Echo::OtherCase
    } else {
        Echo::None
    }
}

/// Returns the message as if the question for `name` had been sent in lower case: labels that the
/// upstream copied from our question without compressing them are lowered. Labels in any other case
/// are the upstream's own.
///
/// Inside record data, only names of types that DNSSEC signs in lower case are changed (RFC 4034
/// §6.2), so that no signature breaks.
pub fn neutral<'a>(message: &'a [u8], name: &[u8], letters: u64) -> Cow<'a, [u8]> {
    let mut buffer = [0; NAME_LEN_MAX];
    let sent = sent(&mut buffer, name, letters);
    let mut neutral = Cow::Borrowed(message);
    let (Some(header), Some((_, mut at))) = (Header::read(message), read_question(message)) else {
        return neutral;
    };
    for _ in 0..header.records() {
        let Some(record) = Record::read(message, at) else { break };
        lower(&mut neutral, at, record.ttl_at, sent);
        let first = match record.kind {
            TYPE_NS | TYPE_CNAME | super::TYPE_SOA | TYPE_PTR | TYPE_DNAME => Some(record.data_at),
            TYPE_MX => Some(record.data_at + 2),
            TYPE_SRV => Some(record.data_at + 6),
            _ => None,
        };
        if let Some(first) = first {
            lower(&mut neutral, first, record.end, sent);
            if record.kind == super::TYPE_SOA
                && let Some(second) = name_end(message, first)
            {
                lower(&mut neutral, second, record.end, sent);
            }
        }
        at = record.end;
    }
    neutral
}

const TYPE_NS: u16 = 2;
const TYPE_CNAME: u16 = 5;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_SRV: u16 = 33;
const TYPE_DNAME: u16 = 39;

/// The name as it was sent.
fn sent<'a>(buffer: &'a mut [u8; NAME_LEN_MAX], name: &[u8], letters: u64) -> &'a [u8] {
    let len = name.len().min(NAME_LEN_MAX);
    let sent = &mut buffer[..len];
    sent.copy_from_slice(&name[..len]);
    mix(sent, letters);
    sent
}

/// Lowers those labels of the name at `at` (ending before `end`) that equal a label of `sent` byte
/// for byte.
fn lower(message: &mut Cow<'_, [u8]>, mut at: usize, end: usize, sent: &[u8]) {
    while let Some(&len) = message.get(at).filter(|&&len| len > 0 && len <= 63) {
        let label = at..at + 1 + usize::from(len);
        if label.end > end {
            return;
        }
        let Some(own) = message.get(label.clone()) else { return };
        if own.iter().any(u8::is_ascii_uppercase) && labels(sent).any(|asked| asked == own) {
            message.to_mut()[label.clone()].make_ascii_lowercase();
        }
        at = label.end;
    }
}

/// A name's labels, including length bytes.
fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let len = usize::from(*rest.first()?);
        let (label, tail) = rest.split_at_checked(1 + len).filter(|_| len > 0)?;
        rest = tail;
        Some(label)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{
        name::{from_text, to_text},
        wire::{HEADER_LEN, Question, write_query},
    };

    const LETTERS: u64 = 0b_0101_0011_0101;

    fn asked(name: &[u8]) -> Vec<u8> {
        let mut query = Vec::new();
        write_query(&mut query, 7, &Question { name, kind: 1, class: 1 }, false, false);
        mix(&mut query[HEADER_LEN..HEADER_LEN + name.len()], LETTERS);
        query.truncate(HEADER_LEN + name.len() + 4);
        query[2] |= 0x80;
        query[10..12].copy_from_slice(&[0, 0]);
        query
    }

    fn push(message: &mut Vec<u8>, owner: &[u8], kind: u16, data: &[u8]) {
        message[7] += 1;
        message.extend(owner);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60]);
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
    }

    #[test]
    fn bits_select_the_case_of_letters_and_nothing_else_changes() {
        let name = from_text("a1-b.example").unwrap();
        let mut mixed = name.clone();
        mix(&mut mixed, 0b101);
        assert_eq!(to_text(&mixed), "A1-b.Example");
        mix(&mut mixed, 0);
        mixed.make_ascii_lowercase();
        assert_eq!(mixed, name, "length bytes and digits stay");
        assert_eq!((fitting(&name, u64::MAX), fitting(&[0], u64::MAX)), (0b1_1111_1111, 0));
        let long = from_text(&["a".repeat(60), "b".repeat(60)].join(".")).unwrap();
        assert_eq!(fitting(&long, 1 << 63), 1 << 63);
        let mut mixed = long.clone();
        mix(&mut mixed, 1);
        assert_eq!(mixed.iter().filter(|byte| byte.is_ascii_uppercase()).count(), 2, "letters 0 and 64");
    }

    #[test]
    fn an_echo_in_different_case_is_recognised() {
        let name = from_text("www.example").unwrap();
        let mut message = asked(&name);
        assert_eq!(echo(&message, &name, LETTERS), Echo::Same);
        assert_eq!(echo(&message, &name, LETTERS ^ 1), Echo::OtherCase);
        assert_eq!(echo(&message, &from_text("www.exampel").unwrap(), LETTERS), Echo::None);
        message[5] = 0;
        assert_eq!(echo(&message, &name, LETTERS), Echo::None);
        assert_eq!(echo(&[], &name, LETTERS), Echo::None);
    }

    #[test]
    fn labels_copied_from_our_question_are_lowered_and_the_upstreams_own_are_not() {
        let name = from_text("www.example").unwrap();
        let (mut message, question) = (asked(&name), asked(&name));
        let owner = &question[HEADER_LEN..HEADER_LEN + name.len()];
        // A DNAME rewrite keeps the first labels of the question.
        let mut target = owner[..4].to_vec();
        target.extend(from_text("Other.TEST").unwrap());
        push(&mut message, owner, TYPE_CNAME, &target);
        push(&mut message, &[0xc0, 12], 1, &[192, 0, 2, 1]);
        let mut soa = from_text("NS.Example").unwrap();
        soa.extend(owner);
        soa.extend([0; 20]);
        push(&mut message, &from_text("EXAMPLE").unwrap(), super::super::TYPE_SOA, &soa);
        // TXT data is opaque, and the next name of an NSEC is signed in its original case (RFC 6840
        // §5.1).
        push(&mut message, &[0], 16, owner);
        push(&mut message, &[0], 47, owner);
        let neutral = neutral(&message, &name, LETTERS);
        let text = |from: &[u8]| String::from_utf8_lossy(from).into_owned();
        let mixed = text(&owner[1..4]);
        assert_ne!(mixed, "www");
        let all = text(&neutral);
        assert_eq!(all.matches("\x03www\x07example").count(), 2, "owner, and the SOA's mailbox: {all:?}");
        assert_eq!(all.matches("\x03www\x05Other\x04TEST").count(), 1);
        assert_eq!(all.matches(&mixed).count(), 3, "question, TXT, NSEC: {all:?}");
        assert!(all.contains("\x02NS\x07Example") && all.contains("\x07EXAMPLE"));
        assert_eq!(neutral.len(), message.len());
    }

    #[test]
    fn an_answer_whose_names_are_compressed_is_not_even_copied() {
        let name = from_text("www.example").unwrap();
        let mut message = asked(&name);
        push(&mut message, &[0xc0, 12], 1, &[192, 0, 2, 1]);
        assert!(matches!(neutral(&message, &name, LETTERS), Cow::Borrowed(_)));
        for len in 0..message.len() {
            // Truncated anywhere, it must not panic.
            let _ = neutral(&message[..len], &name, LETTERS);
            let _ = echo(&message[..len], &name, LETTERS);
        }
    }
}
