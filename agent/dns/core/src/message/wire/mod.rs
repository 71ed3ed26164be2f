//! Reads DNS messages (RFC 1035, 2181, 2308, 6891) as byte slices: clients' queries and upstreams'
//! answers.
//!
//! Promises: no input panics, every loop ends, and reading a query allocates nothing. This is not a
//! general parser: it walks records for their type, TTL and position and leaves them untouched.
//! Compression pointers are skipped, never followed, so pointer loops are harmless.

/// Bytes of a message header.
pub const HEADER_LEN: usize = 12;
/// Longest name on the wire, root byte included (RFC 1035 §2.3.4).
pub const NAME_LEN_MAX: usize = 255;
/// The UDP size we advertise; avoids fragmentation on any sane path (DNS flag day 2020).
pub const UDP_PAYLOAD: u16 = 1232;
/// Datagram limit for a client without EDNS (RFC 1035 §2.3.4).
pub const UDP_PAYLOAD_PLAIN: u16 = 512;
/// TTLs above a week are assumed to be mistakes (RFC 8767 §4).
pub const TTL_MAX_S: u32 = 7 * 86_400;

pub mod rcode {
    pub const NOERROR: u8 = 0;
    pub const FORMERR: u8 = 1;
    pub const SERVFAIL: u8 = 2;
    pub const NXDOMAIN: u8 = 3;
    pub const NOTIMP: u8 = 4;
    pub const REFUSED: u8 = 5;
}

pub mod letters;

const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const TYPE_TKEY: u16 = 249;
const TYPE_TSIG: u16 = 250;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

const FLAG_QR: u16 = 0x8000;
const FLAG_TC: u16 = 0x0200;
const FLAG_RD: u16 = 0x0100;
const FLAG_AD: u16 = 0x0020;
const FLAG_CD: u16 = 0x0010;
const EDNS_DO: u32 = 0x8000;

/// A question. `name` is in uncompressed wire format with its root byte, in the client's case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    pub name: &'a [u8],
    pub kind: u16,
    pub class: u16,
}

/// The contents of a client's OPT record (RFC 6891 §6.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    pub udp_payload: u16,
    pub dnssec_ok: bool,
}

/// One client's question, with everything the answer must reflect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    pub id: u16,
    pub recursion_desired: bool,
    pub authentic_data: bool,
    pub checking_disabled: bool,
    pub question: Question<'a>,
    pub edns: Option<Edns>,
}

impl Query<'_> {
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
}

/// Why a packet is not a query we can look up, by how to respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Too short for a header, or a response: replying could cause loops.
    Drop,
    FormErr,
    NotImp,
    Refused,
    /// An unsupported EDNS version (RFC 6891 §6.1.3).
    BadVers,
}

/// Parses a client's packet.
pub fn read_query(packet: &[u8]) -> Result<Query<'_>, Unreadable> {
    let header = Header::read(packet).ok_or(Unreadable::Drop)?;
    if header.flags & FLAG_QR != 0 {
        return Err(Unreadable::Drop);
    }
    if header.opcode() != 0 {
        return Err(Unreadable::NotImp);
    }
    if header.questions != 1 {
        return Err(Unreadable::FormErr);
    }
    let (question, mut at) = read_question(packet).ok_or(Unreadable::FormErr)?;
    let mut edns = None;
    let mut version = 0;
    for _ in 0..header.records() {
        let record = Record::read(packet, at).ok_or(Unreadable::FormErr)?;
        if record.kind == TYPE_OPT {
            // Two OPT records are a format error (RFC 6891 §6.1.1).
            if edns.is_some() || packet.get(at) != Some(&0) {
                return Err(Unreadable::FormErr);
            }
            version = record.ttl.to_be_bytes()[1];
            edns = Some(Edns { udp_payload: record.class, dnssec_ok: record.ttl & EDNS_DO != 0 });
        }
        at = record.end;
    }
    if version != 0 {
        return Err(Unreadable::BadVers);
    }
    match question.kind {
        // Pseudo-records cannot be queried.
        0 | TYPE_OPT => return Err(Unreadable::FormErr),
        // Zone transfers and transaction signatures are for servers (RFC 5936, RFC 8945, RFC 2930).
        TYPE_TKEY | TYPE_TSIG | TYPE_IXFR | TYPE_AXFR => return Err(Unreadable::NotImp),
        _ => {}
    }
    if question.class != CLASS_IN {
        return Err(Unreadable::Refused);
    }
    Ok(Query {
        id: header.id,
        recursion_desired: header.flags & FLAG_RD != 0,
        authentic_data: header.flags & FLAG_AD != 0,
        checking_disabled: header.flags & FLAG_CD != 0,
        question,
        edns,
    })
}

/// The first question of a message with at least one, and the offset behind it.
pub fn read_question(message: &[u8]) -> Option<(Question<'_>, usize)> {
    let name_end = uncompressed_name_end(message, HEADER_LEN)?;
    let fixed = message.get(name_end..name_end + 4)?;
    let question =
        Question { name: &message[HEADER_LEN..name_end], kind: u16_at(fixed, 0)?, class: u16_at(fixed, 2)? };
    Some((question, name_end + 4))
}

/// The kind of an upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Records of the requested type, or a chain to them.
    Positive,
    /// The name exists, but has nothing of this type (RFC 2308 §2.2).
    NoData,
    /// The name does not exist (RFC 2308 §2.1).
    NxDomain,
}

/// A cacheable answer and its measurements.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    /// Seconds that this answer may be used; `None` if it must not be cached (negative without SOA,
    /// RFC 2308 §5).
    pub ttl_s: Option<u32>,
    /// Length of the message without the upstream's OPT record, which is hop-by-hop (RFC 6891
    /// §6.1.1).
    pub len: usize,
    /// Additional records within `len`.
    pub additionals: u16,
    /// Offsets of the TTLs.
    pub ttl_offsets: Vec<u16>,
}

/// Why an upstream's message does not answer our question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// Truncated: ask again over TCP (RFC 7766 §5).
    Truncated,
    /// An error code from the upstream.
    Rcode(u8),
    /// Not a well-formed answer to this question.
    Malformed,
}

/// Reads and measures an upstream's message as an answer to `question`.
pub fn read_answer(message: &[u8], question: &Question<'_>) -> Result<Answer, NoAnswer> {
    read_answer_if(message, |asked| {
        asked.kind == question.kind
            && asked.class == question.class
            && asked.name.eq_ignore_ascii_case(question.name)
    })
    .map(|(_, answer)| answer)
}

/// The same for any question, for cached messages, which were validated when they arrived.
pub(crate) fn read_kept_answer(message: &[u8]) -> Result<(Question<'_>, Answer), NoAnswer> {
    read_answer_if(message, |_| true)
}

fn read_answer_if(
    message: &[u8],
    is_asked: impl FnOnce(&Question<'_>) -> bool,
) -> Result<(Question<'_>, Answer), NoAnswer> {
    let header = Header::read(message).ok_or(NoAnswer::Malformed)?;
    if header.flags & FLAG_QR == 0 || header.opcode() != 0 || message.len() > usize::from(u16::MAX) {
        return Err(NoAnswer::Malformed);
    }
    let code = (header.flags & 0x000f) as u8;
    // An error may lack its question (RFC 1035 says little; BIND and others do this on FORMERR).
    if !matches!(code, rcode::NOERROR | rcode::NXDOMAIN) {
        return Err(NoAnswer::Rcode(code));
    }
    if header.questions != 1 {
        return Err(NoAnswer::Malformed);
    }
    let (question, mut at) = read_question(message).ok_or(NoAnswer::Malformed)?;
    if !is_asked(&question) {
        return Err(NoAnswer::Malformed);
    }
    if header.flags & FLAG_TC != 0 {
        return Err(NoAnswer::Truncated);
    }
    let mut answer = Answer {
        verdict: Verdict::NoData,
        ttl_s: None,
        // Trailing bytes are dropped; an OPT appended after them would be unreadable.
        len: at,
        additionals: 0,
        ttl_offsets: Vec::with_capacity(header.records().min(64) as usize),
    };
    let mut ttl_min = TTL_MAX_S;
    let mut found = false;
    let mut negative_ttl = None;
    for number in 0..header.records() {
        let record = Record::read(message, at).ok_or(NoAnswer::Malformed)?;
        let additional = number >= u32::from(header.answers) + u32::from(header.authorities);
        if additional && record.kind == TYPE_OPT {
            if record.ttl >> 24 != 0 {
                // The upper eight bits of the code: BADVERS, BADCOOKIE (RFC 6891 §6.1.3).
                return Err(NoAnswer::Malformed);
            }
            // Records after OPT are optional; dropping them keeps all earlier pointers valid.
            break;
        }
        if additional {
            answer.additionals += 1;
        }
        let ttl = sane_ttl(record.ttl);
        if number < u32::from(header.answers) {
            found |= record.kind == question.kind || question.kind == TYPE_ANY;
            ttl_min = ttl_min.min(ttl);
        } else if !additional {
            // RRSIGs and NSECs beside a positive answer limit it too; the SOA limits a negative
            // one.
            ttl_min = ttl_min.min(ttl);
            if record.kind == TYPE_SOA {
                let minimum = soa_minimum(message, &record).ok_or(NoAnswer::Malformed)?;
                negative_ttl = Some(ttl.min(sane_ttl(minimum)));
            }
        }
        answer.ttl_offsets.push(u16::try_from(record.ttl_at).map_err(|_| NoAnswer::Malformed)?);
        at = record.end;
        answer.len = at;
    }
    (answer.verdict, answer.ttl_s) = match (code, found) {
        (rcode::NXDOMAIN, _) => (Verdict::NxDomain, negative_ttl.map(|ttl| ttl.min(ttl_min))),
        (_, true) => (Verdict::Positive, Some(ttl_min)),
        (_, false) => (Verdict::NoData, negative_ttl.map(|ttl| ttl.min(ttl_min))),
    };
    Ok((question, answer))
}

/// The query we send: our own id, RD set, one question, our OPT. Client options are not forwarded
/// (RFC 6891 §6.1.1).
pub fn write_query(
    out: &mut Vec<u8>,
    id: u16,
    question: &Question<'_>,
    dnssec_ok: bool,
    checking_disabled: bool,
) {
    let flags = FLAG_RD | if checking_disabled { FLAG_CD } else { 0 };
    for field in [id, flags, 1, 0, 0, 1] {
        out.extend(field.to_be_bytes());
    }
    out.extend(question.name);
    out.extend(question.kind.to_be_bytes());
    out.extend(question.class.to_be_bytes());
    write_opt(out, 0, dnssec_ok, None);
}

/// Appends an OPT record, with an Extended DNS Error (RFC 8914) if there is one.
pub(crate) fn write_opt(out: &mut Vec<u8>, rcode_high: u8, dnssec_ok: bool, error: Option<(u16, &str)>) {
    out.push(0);
    out.extend(TYPE_OPT.to_be_bytes());
    out.extend(UDP_PAYLOAD.to_be_bytes());
    out.extend([rcode_high, 0]);
    out.extend(if dnssec_ok { [0x80, 0] } else { [0, 0] });
    let Some((code, text)) = error else {
        out.extend([0, 0]);
        return;
    };
    let text = &text.as_bytes()[..text.len().min(EDE_TEXT_MAX)];
    let option_len = 2 + u16::try_from(text.len()).unwrap_or(0);
    out.extend((option_len + 4).to_be_bytes());
    out.extend(OPTION_EDE.to_be_bytes());
    out.extend(option_len.to_be_bytes());
    out.extend(code.to_be_bytes());
    out.extend(text);
}

/// Bytes that [`write_opt`] writes without an Extended DNS Error.
pub(crate) const OPT_LEN: usize = 11;

pub(crate) fn ede_len(text: &str) -> usize {
    6 + text.len().min(EDE_TEXT_MAX)
}

/// Whether a packet that is well formed up to that point has an OPT record.
pub(crate) fn has_opt(packet: &[u8]) -> bool {
    let (Some(header), Some((_, mut at))) = (Header::read(packet), read_question(packet)) else {
        return false;
    };
    (0..header.records())
        .map_while(|_| Record::read(packet, at).inspect(|record| at = record.end))
        .any(|record| record.kind == TYPE_OPT)
}

const OPTION_EDE: u16 = 15;
/// Extra text is only for people using `dig`; it must never cause truncation.
const EDE_TEXT_MAX: usize = 120;

/// The header fields.
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    questions: u16,
    pub(crate) answers: u16,
    pub(crate) authorities: u16,
    additionals: u16,
}

impl Header {
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        Some(Self {
            id: u16_at(message, 0)?,
            flags: u16_at(message, 2)?,
            questions: u16_at(message, 4)?,
            answers: u16_at(message, 6)?,
            authorities: u16_at(message, 8)?,
            additionals: u16_at(message, 10)?,
        })
    }

    pub(crate) fn opcode(&self) -> u16 {
        (self.flags >> 11) & 0xf
    }

    pub(crate) fn records(&self) -> u32 {
        u32::from(self.answers) + u32::from(self.authorities) + u32::from(self.additionals)
    }
}

/// The fixed part of a resource record.
pub(crate) struct Record {
    pub(crate) kind: u16,
    class: u16,
    ttl: u32,
    ttl_at: usize,
    pub(crate) data_at: usize,
    pub(crate) end: usize,
}

impl Record {
    pub(crate) fn read(message: &[u8], at: usize) -> Option<Self> {
        let fixed_at = name_end(message, at)?;
        let fixed = message.get(fixed_at..fixed_at + 10)?;
        let ttl = u32::from_be_bytes(fixed[4..8].try_into().ok()?);
        let data_at = fixed_at + 10;
        let end = data_at + usize::from(u16_at(fixed, 8)?);
        if end > message.len() {
            return None;
        }
        Some(Self {
            kind: u16_at(fixed, 0)?,
            class: u16_at(fixed, 2)?,
            ttl,
            ttl_at: fixed_at + 4,
            data_at,
            end,
        })
    }
}

/// Sets the same TTL on every record.
pub(crate) fn set_ttls(message: &mut [u8], ttl_s: u32) {
    let (Some(header), Some((_, mut at))) = (Header::read(message), read_question(message)) else { return };
    for _ in 0..header.records() {
        let Some(record) = Record::read(message, at) else { return };
        message[record.ttl_at..record.ttl_at + 4].copy_from_slice(&ttl_s.to_be_bytes());
        at = record.end;
    }
}

/// Where the name at `at` ends: after its root byte or its first pointer (RFC 1035 §4.1.4).
pub(crate) fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        let len = *message.get(at)?;
        match len >> 6 {
            0 if len == 0 => return Some(at + 1),
            0 => at += 1 + usize::from(len),
            3 => {
                // A valid pointer points backwards.
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                return (target < at && target >= HEADER_LEN).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start >= NAME_LEN_MAX {
            return None;
        }
    }
}

fn uncompressed_name_end(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        let len = *message.get(at)?;
        if len > 63 {
            return None;
        }
        at += 1 + usize::from(len);
        if at - start > NAME_LEN_MAX {
            return None;
        }
        if len == 0 {
            return Some(at);
        }
    }
}

/// The last field of a SOA: the TTL for negative answers (RFC 2308 §4).
fn soa_minimum(message: &[u8], soa: &Record) -> Option<u32> {
    let names_end = name_end(message, name_end(message, soa.data_at)?)?;
    let minimum_at = names_end + 16;
    if minimum_at + 4 > soa.end {
        return None;
    }
    Some(u32::from_be_bytes(message[minimum_at..minimum_at + 4].try_into().ok()?))
}

/// A TTL with the top bit set is zero (RFC 2181 §8); one above a week is a week.
fn sane_ttl(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl.min(TTL_MAX_S) }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The records of the answer section, type and data. Stops at the first malformed one.
pub fn answers(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let count = Header::read(message).map_or(0, |header| header.answers);
    let mut at = read_question(message).map_or(message.len(), |(_, end)| end);
    (0..count).map_while(move |_| {
        let record = Record::read(message, at)?;
        at = record.end;
        Some((record.kind, &message[record.data_at..record.end]))
    })
}

#[cfg(test)]
mod tests;
