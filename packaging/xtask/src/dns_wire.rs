//! The few bytes of DNS (RFC 1035 §4) that the demo's upstream and the demo's client need: pure, and on purpose not the
//! product's own code, so that the one checks the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
/// RFC 8914: the EDNS option that says why.
const OPTION_EDE: u16 = 15;

pub(crate) const RCODE_REFUSED: u8 = 5;
pub(crate) const RCODE_SERVFAIL: u8 = 2;

/// The first question of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: u16,
    /// Where the bytes after it start.
    pub(crate) end: usize,
}

/// What a reply says, as far as the demo shows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: u16,
    pub(crate) rcode: u8,
    pub(crate) ttl: Option<u32>,
    pub(crate) values: Vec<String>,
    /// Extended DNS error: code and text.
    pub(crate) ede: Option<(u16, String)>,
}

/// Reads the question; `None` for anything that is not a query with exactly one.
pub(crate) fn question(message: &[u8]) -> Option<Question> {
    if u16_at(message, 4)? != 1 {
        return None;
    }
    let (name, at) = name_at(message, 12)?;
    Some(Question { name, kind: u16_at(message, at)?, end: at + 4 })
}

/// A query for `name`, with an OPT record so that the answer may carry an EDE.
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(name.len() + 32);
    put(&mut message, &[id, 0x0100, 1, 0, 0, 1]);
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend_from_slice(label);
    }
    message.push(0);
    put(&mut message, &[kind, 1]);
    message.push(0);
    put(&mut message, &[TYPE_OPT, 1232, 0, 0, 0]);
    message
}

/// The query turned into a reply: one A record, or none if `address` is `None`, with the SOA that lets caches keep that
/// there is none (RFC 2308 §5).
pub(crate) fn reply(query: &[u8], question: &Question, address: Option<Ipv4Addr>, ttl: u32) -> Vec<u8> {
    let mut message = header(query, question, 0, u16::from(address.is_some()));
    if let Some(address) = address {
        put(&mut message, &[0xC00C, TYPE_A, 1]);
        message.extend_from_slice(&ttl.to_be_bytes());
        put(&mut message, &[4]);
        message.extend_from_slice(&address.octets());
        return message;
    }
    message[9] = 1;
    put(&mut message, &[0xC00C, TYPE_SOA, 1]);
    message.extend_from_slice(&ttl.to_be_bytes());
    // Both names are the root; serial, refresh, retry, expire, minimum.
    put(&mut message, &[22, 0]);
    for number in [1, 3_600, 600, 86_400, ttl] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message
}

/// The query turned into a reply that only says `rcode`.
pub(crate) fn refusal(query: &[u8], question: &Question, rcode: u8) -> Vec<u8> {
    header(query, question, rcode, 0)
}

fn header(query: &[u8], question: &Question, rcode: u8, answers: u16) -> Vec<u8> {
    let mut message = query[..2].to_vec();
    let recursion_desired = u16::from(query[2] & 1) << 8;
    put(&mut message, &[0x8080 | recursion_desired | u16::from(rcode), 1, answers, 0, 0]);
    message.extend_from_slice(&query[12..question.end.min(query.len())]);
    message
}

/// Reads a reply. `None` if it is cut short or not a reply.
pub(crate) fn parse_reply(message: &[u8]) -> Option<Reply> {
    let flags = u16_at(message, 2)?;
    if flags & 0x8000 == 0 {
        return None;
    }
    let mut reply =
        Reply { id: u16_at(message, 0)?, rcode: u8::try_from(flags & 0xF).ok()?, ..Reply::default() };
    let mut at = 12;
    for _ in 0..u16_at(message, 4)? {
        at = name_at(message, at)?.1 + 4;
    }
    let answers = u16_at(message, 6)?;
    let rest = u16_at(message, 8)?.checked_add(u16_at(message, 10)?)?;
    for number in 0..answers.checked_add(rest)? {
        let start = name_at(message, at)?.1;
        let kind = u16_at(message, start)?;
        let ttl = u32::from(u16_at(message, start + 4)?) << 16 | u32::from(u16_at(message, start + 6)?);
        let length = usize::from(u16_at(message, start + 8)?);
        let data = message.get(start + 10..start + 10 + length)?;
        if number < answers {
            reply.ttl = Some(reply.ttl.map_or(ttl, |least| least.min(ttl)));
            reply.values.push(value(message, kind, start + 10, data));
        } else if kind == TYPE_OPT {
            reply.ede = ede(data);
        }
        at = start + 10 + length;
    }
    Some(reply)
}

fn value(message: &[u8], kind: u16, at: usize, data: &[u8]) -> String {
    match (kind, data.len()) {
        (TYPE_A, 4) => <[u8; 4]>::try_from(data).map(|octets| IpAddr::from(octets).to_string()),
        (TYPE_AAAA, 16) => <[u8; 16]>::try_from(data).map(|octets| Ipv6Addr::from(octets).to_string()),
        (TYPE_CNAME, _) => return name_at(message, at).map_or_else(|| "?".into(), |(name, _)| name),
        _ => return format!("type {kind}, {} bytes", data.len()),
    }
    .unwrap_or_default()
}

fn ede(mut options: &[u8]) -> Option<(u16, String)> {
    loop {
        let (code, length) = (u16_at(options, 0)?, usize::from(u16_at(options, 2)?));
        let data = options.get(4..4 + length)?;
        if code == OPTION_EDE {
            return Some((u16_at(data, 0)?, String::from_utf8_lossy(&data[2..]).into_owned()));
        }
        options = &options[4 + length..];
    }
}

/// The name at `at`, lower case, and where the bytes after it start. Follows at most 16 compression pointers.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut end, mut jumps) = (String::new(), None, 0);
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=63 => {
                if !name.is_empty() {
                    name.push('.');
                }
                let label = message.get(at + 1..at + 1 + length)?;
                name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
                at += 1 + length;
            }
            192..=255 if jumps < 16 => {
                jumps += 1;
                end = end.or(Some(at + 2));
                at = usize::from(u16_at(message, at)? & 0x3FFF);
            }
            _ => return None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn put(to: &mut Vec<u8>, words: &[u16]) {
    for word in words {
        to.extend_from_slice(&word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_demo_upstream_answers_the_demo_client_reads() {
        let asked = query(7, "WWW.demo.test", TYPE_A);
        let question = question(&asked).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("www.demo.test", TYPE_A));
        let reply = parse_reply(&reply(&asked, &question, Some([192, 0, 2, 1].into()), 5)).unwrap();
        assert_eq!(
            reply,
            Reply { id: 7, rcode: 0, ttl: Some(5), values: vec!["192.0.2.1".into()], ede: None }
        );
    }

    #[test]
    fn a_stale_answer_shows_its_extended_error() {
        let asked = query(7, "www.demo.test", TYPE_A);
        let mut bytes = refusal(&asked, &question(&asked).unwrap(), 0);
        bytes[11] = 1;
        bytes.push(0);
        put(&mut bytes, &[TYPE_OPT, 1232, 0, 0, 4 + 2 + 4, OPTION_EDE, 2 + 4, 3]);
        bytes.extend_from_slice(b"down");
        assert_eq!(parse_reply(&bytes).unwrap().ede, Some((3, "down".into())));
    }

    #[test]
    fn bytes_cut_short_or_pointing_at_themselves_are_refused() {
        let asked = query(7, "www.demo.test", TYPE_A);
        let whole = reply(&asked, &question(&asked).unwrap(), Some([192, 0, 2, 1].into()), 5);
        for length in 0..whole.len() {
            assert_eq!(parse_reply(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(name_at(&[0xC0, 0], 0), None);
    }
}
