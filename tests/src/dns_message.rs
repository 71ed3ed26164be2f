//! The parts of DNS messages (RFC 1035, 6891, 8914) that clients and fake upstreams of the tests,
//! the benchmarks, the fuzzer and the demo need.
//!
//! Written apart from `dogwatch-dns` on purpose: a mistake there must not hide behind the same
//! mistake here. Functions that return an `Option` accept any bytes. The others are for tests: they
//! panic on a malformed message, and the test fails.

pub const A: u16 = 1;
pub const SOA: u16 = 6;
pub const TXT: u16 = 16;
pub const OPT: u16 = 41;
/// RFC 8914: the EDNS option that says why an answer is stale or missing.
const EXTENDED_ERROR: u16 = 15;

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
        Self::read(bytes).unwrap_or_else(|| panic!("not an answer: {bytes:?}"))
    }

    /// Parses a whole message; `None` if it is not an answer to one question with nothing behind
    /// its last record.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let flags = be16(bytes, 2)?;
        if flags & 0x8000 == 0 || be16(bytes, 4)? != 1 {
            return None;
        }
        let (name, mut at) = name_at(bytes, 12)?;
        let kind = be16(bytes, at)?;
        at += 4;
        let mut reply = Self {
            id: be16(bytes, 0)?,
            rcode: u8::try_from(flags & 15).ok()?,
            truncated: flags & 0x200 != 0,
            flags,
            name,
            kind,
            answers: Vec::new(),
            authorities: Vec::new(),
            edns: None,
            extended_error: None,
        };
        let [answers, authorities, others] = [6, 8, 10].map(|at| be16(bytes, at).map(u32::from));
        let (answers, authorities) = (answers?, answers? + authorities?);
        for number in 0..authorities + others? {
            let (owner, fixed) = name_at(bytes, at)?;
            let (kind, length) = (be16(bytes, fixed)?, usize::from(be16(bytes, fixed + 8)?));
            let data = bytes.get(fixed + 10..fixed + 10 + length)?.to_vec();
            let record = Record { owner, kind, ttl: be32(bytes, fixed + 4)?, data };
            at = fixed + 10 + length;
            if number < answers {
                reply.answers.push(record);
            } else if number < authorities {
                reply.authorities.push(record);
            } else if kind == OPT {
                let flags = record.ttl;
                if reply.edns.replace(flags & 0x8000 != 0).is_some() {
                    return None;
                }
                let error = extended_error(&record.data);
                reply.extended_error =
                    error.map(|(code, text)| (code, String::from_utf8_lossy(text).into_owned()));
            }
        }
        (at == bytes.len()).then_some(reply)
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
    /// Reads a whole message as [`Reply::parse`] does; the question must be that of `query`.
    ///
    /// # Panics
    /// If it is not a well-formed answer to `query`, or has more than sixteen addresses.
    pub fn at(bytes: &[u8], query: &[u8]) -> Self {
        assert!(bytes.len() >= 12 && bytes[2] & 0x80 != 0, "not an answer: {bytes:?}");
        assert_eq!(be16(bytes, 4), Some(1), "one question");
        let at = after_name(bytes, 12).unwrap_or(bytes.len()) + 4;
        assert_eq!((&bytes[..2], &bytes[12..at]), (&query[..2], &query[12..at]), "another question's answer");
        Self::records(bytes, at).unwrap_or_else(|| panic!("not a well-formed answer: {bytes:?}"))
    }

    fn records(bytes: &[u8], mut at: usize) -> Option<Self> {
        let mut glance = Self {
            rcode: bytes[3] & 15,
            truncated: bytes[2] & 2 != 0,
            extended_error: None,
            ttl_s: 0,
            addresses: [[0; 4]; GLANCED_MAX],
            address_count: 0,
        };
        let (answers, others) = (be16(bytes, 6)?, be16(bytes, 8)? + be16(bytes, 10)?);
        for number in 0..answers + others {
            let fixed = after_name(bytes, at)?;
            let (kind, length) = (be16(bytes, fixed)?, usize::from(be16(bytes, fixed + 8)?));
            let data = bytes.get(fixed + 10..fixed + 10 + length)?;
            at = fixed + 10 + length;
            if number < answers {
                glance.ttl_s = glance.ttl_s.max(be32(bytes, fixed + 4)?);
                if let (A, Ok(address)) = (kind, data.try_into()) {
                    glance.addresses[glance.address_count] = address;
                    glance.address_count += 1;
                }
            } else if kind == OPT {
                glance.extended_error = extended_error(data).map(|(code, _)| code);
            }
        }
        glance.addresses[..glance.address_count].sort_unstable();
        (at == bytes.len()).then_some(glance)
    }

    /// The addresses it gives, sorted.
    pub fn addresses(&self) -> &[[u8; 4]] {
        &self.addresses[..self.address_count]
    }
}

pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The place after the name at `at`.
pub fn after_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

/// The name at `at` with dots, case kept, and the place after it. Follows at most 16 compression
/// pointers.
pub fn name_at(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut after, mut jumps) = (String::new(), None, 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((name, after.unwrap_or(at + 1))),
            1..=63 => {
                name.push_str(&String::from_utf8_lossy(bytes.get(at + 1..=at + length)?));
                name.push('.');
                at += length + 1;
            }
            192..=255 if jumps < 16 => {
                jumps += 1;
                after = after.or(Some(at + 2));
                at = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            }
            _ => return None,
        }
    }
}

/// [`name_at`], for a message that is known to be well-formed.
///
/// # Panics
/// If it is not.
pub fn read_name(bytes: &[u8], at: usize) -> (String, usize) {
    name_at(bytes, at).unwrap_or_else(|| panic!("no name at {at} of {bytes:?}"))
}

fn extended_error(options: &[u8]) -> Option<(u16, &[u8])> {
    let mut rest = options;
    loop {
        let (code, length) = (be16(rest, 0)?, usize::from(be16(rest, 2)?));
        let data = rest.get(4..4 + length)?;
        if code == EXTENDED_ERROR {
            return Some((be16(data, 0)?, &data[2..]));
        }
        rest = &rest[4 + length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_cut_short_or_pointing_at_themselves_are_refused() {
        let mut whole = query(7, "www.demo.test", A, false);
        whole[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        whole.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, 1]);
        assert_eq!(Reply::read(&whole).unwrap().addresses(), [[192, 0, 2, 1]]);
        for length in 0..whole.len() {
            assert_eq!(Reply::read(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(name_at(&[0xc0, 0], 0), None);
    }
}
