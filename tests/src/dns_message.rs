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
    /// The question's name as it came back, case kept.
    pub name: String,
    pub answers: Vec<Record>,
    /// Extended DNS error (RFC 8914): code and text.
    pub extended_error: Option<(u16, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
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
        at += 4;
        let mut answers = Vec::new();
        let mut extended_error = None;
        let (answer_count, rest_count) = (be16(6), be16(8) + be16(10));
        for number in 0..answer_count + rest_count {
            let (_, after) = read_name(bytes, at);
            let (kind, length) = (be16(after), usize::from(be16(after + 8)));
            let ttl = u32::from(be16(after + 4)) << 16 | u32::from(be16(after + 6));
            let data = bytes[after + 10..after + 10 + length].to_vec();
            at = after + 10 + length;
            if number < answer_count {
                answers.push(Record { kind, ttl, data });
            } else if kind == OPT {
                extended_error = read_extended_error(&data);
            }
        }
        assert_eq!(at, bytes.len(), "nothing follows the last record");
        Self {
            id: be16(0),
            rcode: bytes[3] & 15,
            truncated: bytes[2] & 2 != 0,
            name,
            answers,
            extended_error,
        }
    }

    /// The addresses it gives.
    pub fn addresses(&self) -> Vec<[u8; 4]> {
        let a_records = self.answers.iter().filter(|record| record.kind == A);
        a_records.filter_map(|record| record.data.clone().try_into().ok()).collect()
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
    let mut rest = options;
    while let [code_high, code_low, length_high, length_low, tail @ ..] = rest {
        let (code, length) =
            (u16::from_be_bytes([*code_high, *code_low]), u16::from_be_bytes([*length_high, *length_low]));
        let (data, next) = tail.split_at(usize::from(length));
        if code == 15 {
            let info = u16::from_be_bytes([data[0], data[1]]);
            return Some((info, String::from_utf8_lossy(&data[2..]).into_owned()));
        }
        rest = next;
    }
    None
}
