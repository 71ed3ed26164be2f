//! The few bytes of DNS (RFC 1035, 6891, 8914) that a test's client and fake upstream need.
//!
//! Written apart from `dogwatch-dns` on purpose: a mistake there must not hide behind the same mistake here. It reads
//! only what comes from our own tests and panics on nonsense, which makes the test fail.

pub const A: u16 = 1;
pub const SOA: u16 = 6;
pub const TXT: u16 = 16;
pub const OPT: u16 = 41;

pub const NOERROR: u8 = 0;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const REFUSED: u8 = 5;

/// A question with RD set, and an EDNS OPT of 1232 bytes if asked.
pub fn query(id: u16, name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    message.extend(id.to_be_bytes());
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    push_name(&mut message, name);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    if edns {
        message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    message
}

/// Appends a name in wire form, uncompressed.
///
/// # Panics
/// If a label is longer than 63 bytes.
pub fn push_name(message: &mut Vec<u8>, name: &str) {
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).expect("a label has at most 63 bytes"));
        message.extend(label.as_bytes());
    }
    message.push(0);
}

/// What a test wants to know of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub id: u16,
    pub rcode: u8,
    pub truncated: bool,
    /// All 16 bits, the rcode's four included.
    pub flags: u16,
    /// The question's name as it came back, case kept.
    pub name: String,
    /// The question's type.
    pub kind: u16,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    /// Whether it has an OPT record, and DO in it.
    pub edns: Option<bool>,
    /// Extended DNS error (RFC 8914): code and text.
    pub extended_error: Option<(u16, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// With dots, case kept.
    pub owner: String,
    pub kind: u16,
    pub ttl: u32,
    pub data: Vec<u8>,
}

impl Reply {
    /// Parses a whole message.
    ///
    /// # Panics
    /// If it is not a well-formed answer.
    pub fn parse(bytes: &[u8]) -> Self {
        let be16 = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert!(bytes.len() >= 12 && bytes[2] & 0x80 != 0, "not an answer: {bytes:?}");
        assert_eq!(be16(4), 1, "one question");
        let (name, mut at) = read_name(bytes, 12);
        let kind = be16(at);
        at += 4;
        let (mut answers, mut authorities) = (Vec::new(), Vec::new());
        let (mut extended_error, mut edns) = (None, None);
        let (answer_count, authority_count, rest_count) = (be16(6), be16(8), be16(10));
        for number in 0..answer_count + authority_count + rest_count {
            let (owner, after) = read_name(bytes, at);
            let (record_kind, length) = (be16(after), usize::from(be16(after + 8)));
            let ttl = u32::from(be16(after + 4)) << 16 | u32::from(be16(after + 6));
            let data = bytes[after + 10..after + 10 + length].to_vec();
            at = after + 10 + length;
            let record = Record { owner, kind: record_kind, ttl, data };
            if number < answer_count {
                answers.push(record);
            } else if number < answer_count + authority_count {
                authorities.push(record);
            } else if record_kind == OPT {
                assert_eq!(edns, None, "one OPT record");
                edns = Some(ttl & 0x8000 != 0);
                extended_error = read_extended_error(&record.data);
            }
        }
        assert_eq!(at, bytes.len(), "nothing follows the last record");
        Self {
            id: be16(0),
            rcode: bytes[3] & 15,
            truncated: bytes[2] & 2 != 0,
            flags: be16(2),
            name,
            kind,
            answers,
            authorities,
            edns,
            extended_error,
        }
    }

    /// The addresses it gives.
    pub fn addresses(&self) -> Vec<[u8; 4]> {
        let a_records = self.answers.iter().filter(|record| record.kind == A);
        a_records.filter_map(|record| record.data.clone().try_into().ok()).collect()
    }
}

/// What a drill wants to know of an answer, millions of times: read without taking memory.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    pub rcode: u8,
    pub truncated: bool,
    /// The code of the extended DNS error.
    pub extended_error: Option<u16>,
    /// The longest of the answer section, in seconds.
    pub ttl_s: u32,
    addresses: [[u8; 4]; GLANCED_MAX],
    address_count: usize,
}

const GLANCED_MAX: usize = 16;

impl Glance {
    /// Reads a whole message; what [`Reply::parse`] holds against it, this does too, and the question must be `query`'s.
    ///
    /// # Panics
    /// If it is not a well-formed answer to `query`, or has more than sixteen addresses.
    pub fn at(bytes: &[u8], query: &[u8]) -> Self {
        let be16 = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert!(bytes.len() >= 12 && bytes[2] & 0x80 != 0, "not an answer: {bytes:?}");
        assert_eq!(be16(4), 1, "one question");
        let mut at = after_name(bytes, 12) + 4;
        assert_eq!((&bytes[..2], &bytes[12..at]), (&query[..2], &query[12..at]), "another question's answer");
        let mut glance = Self {
            rcode: bytes[3] & 15,
            truncated: bytes[2] & 2 != 0,
            extended_error: None,
            ttl_s: 0,
            addresses: [[0; 4]; GLANCED_MAX],
            address_count: 0,
        };
        let (answer_count, rest_count) = (be16(6), be16(8) + be16(10));
        for number in 0..answer_count + rest_count {
            let after = after_name(bytes, at);
            let (kind, length) = (be16(after), usize::from(be16(after + 8)));
            let data = &bytes[after + 10..after + 10 + length];
            at = after + 10 + length;
            if number < answer_count {
                glance.ttl_s =
                    glance.ttl_s.max(u32::from(be16(after + 4)) << 16 | u32::from(be16(after + 6)));
                if let (A, Ok(address)) = (kind, data.try_into()) {
                    glance.addresses[glance.address_count] = address;
                    glance.address_count += 1;
                }
            } else if kind == OPT {
                glance.extended_error = extended_error(data).map(|(code, _)| code);
            }
        }
        assert_eq!(at, bytes.len(), "nothing follows the last record");
        glance.addresses[..glance.address_count].sort_unstable();
        glance
    }

    /// The addresses it gives, sorted.
    pub fn addresses(&self) -> &[[u8; 4]] {
        &self.addresses[..self.address_count]
    }
}

fn after_name(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            pointer if pointer & 0xc0 == 0xc0 => return at + 2,
            length => at += 1 + usize::from(length),
        }
    }
}

/// Reads a name at `at`; returns it with dots and the place after it.
pub fn read_name(bytes: &[u8], mut at: usize) -> (String, usize) {
    let mut name = String::new();
    let mut after = None;
    loop {
        let length = usize::from(bytes[at]);
        if length == 0 {
            return (name, after.unwrap_or(at + 1));
        }
        if length & 0xc0 == 0xc0 {
            after = after.or(Some(at + 2));
            at = (length & 0x3f) << 8 | usize::from(bytes[at + 1]);
            continue;
        }
        name.push_str(&String::from_utf8_lossy(&bytes[at + 1..=at + length]));
        name.push('.');
        at += length + 1;
    }
}

fn read_extended_error(options: &[u8]) -> Option<(u16, String)> {
    extended_error(options).map(|(code, text)| (code, String::from_utf8_lossy(text).into_owned()))
}

fn extended_error(options: &[u8]) -> Option<(u16, &[u8])> {
    let mut rest = options;
    while let [code_high, code_low, length_high, length_low, tail @ ..] = rest {
        let (code, length) =
            (u16::from_be_bytes([*code_high, *code_low]), u16::from_be_bytes([*length_high, *length_low]));
        let (data, next) = tail.split_at(usize::from(length));
        if code == 15 {
            let info = u16::from_be_bytes([data[0], data[1]]);
            return Some((info, &data[2..]));
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::{Act, Behaviour, Data, Fact, Mood};

    #[test]
    fn a_glance_sees_what_a_whole_parse_sees() {
        let mut data = Data::default();
        let addresses = vec![[192, 0, 2, 9], [192, 0, 2, 1]];
        data.set("db.test.", Fact::Addresses { ttl_s: 70_000, addresses });
        data.set("www.test.", Fact::Alias { ttl_s: 90_000, target: "db.test.".into() });
        for name in ["n7.t30.test.", "www.test.", "unknown.test."] {
            for mood in [Mood::Right, Mood::Bogus, Mood::NoData, Mood::Truncated] {
                let question = query(4711, name, A, true);
                let mut upstream = Behaviour::default();
                upstream.set(mood);
                let mut random = fastrand::Rng::with_seed(1);
                let act = upstream.act(&question, false, &data, Duration::ZERO, &mut random);
                let Act::Reply(message) = act else { panic!("{act:?}") };
                let (glance, reply) = (Glance::at(&message, &question), Reply::parse(&message));
                let mut addresses = reply.addresses();
                addresses.sort_unstable();
                assert_eq!(
                    (glance.rcode, glance.truncated),
                    (reply.rcode, reply.truncated),
                    "{name} {mood:?}"
                );
                assert_eq!(glance.addresses(), addresses, "{name} {mood:?}");
                assert_eq!(glance.extended_error, reply.extended_error.map(|(code, _)| code));
                assert_eq!(glance.ttl_s, reply.answers.iter().map(|record| record.ttl).max().unwrap_or(0));
            }
        }
    }

    #[test]
    #[should_panic(expected = "another question's answer")]
    fn an_answer_to_another_question_is_none() {
        let (asked, other) = (query(1, "n1.t5.test.", A, true), query(1, "n2.t5.test.", A, true));
        let message = crate::authority::reply(&other, Mood::Right).unwrap();
        Glance::at(&message, &asked);
    }
}
