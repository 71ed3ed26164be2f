//! Writes replies to clients: a cached answer patched for this client, or an error.
//!
//! A cached answer is copied and patched in place: id, flags, the question in the client's own case
//! (as 0x20 clients require), every TTL. No record is decoded or encoded. Answers too long for a
//! datagram become TC (RFC 2181 §9).

use crate::message::wire::{
    self, HEADER_LEN, Header, Query, UDP_PAYLOAD, UDP_PAYLOAD_PLAIN, Unreadable, rcode,
};

/// How the client asked, which limits the answer's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A cached answer: the message without OPT, and the offsets of its TTLs (16-bit little-endian
/// each).
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    pub message: &'a [u8],
    pub ttl_offsets: &'a [u8],
}

/// How to set the TTLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// The remaining TTL on arrival, less the answer's age in seconds.
    Aged(u32),
    /// For a stale record: at most this, never above the original, never 0, which would make
    /// clients spin (RFC 8767 §4).
    Stale(u32),
}

/// The Extended DNS Errors we send (RFC 8914 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    StaleAnswer,
    CachedError,
    Blocked,
    StaleNxDomain,
    NoReachableAuthority,
    NetworkError,
}

impl Extended {
    fn code(self) -> u16 {
        match self {
            Self::StaleAnswer => 3,
            Self::CachedError => 13,
            Self::Blocked => 15,
            Self::StaleNxDomain => 19,
            Self::NoReachableAuthority => 22,
            Self::NetworkError => 23,
        }
    }
}

/// Writes a cached answer to this query into `out`, which is cleared first.
pub fn write_kept(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    transport: Transport,
    kept: Kept<'_>,
    ttl: Ttl,
    extended: Option<(Extended, &str)>,
) {
    out.clear();
    let limit = limit(query, transport);
    let bare = kept.message.len() + query.edns.map_or(0, |_| wire::OPT_LEN);
    if bare > limit {
        truncate(out, query, kept.message, extended);
        return;
    }
    // The extra text must not cause truncation.
    let extended = extended.filter(|(_, text)| bare + wire::ede_len(text) <= limit);
    out.extend_from_slice(kept.message);
    patch_header(out, query);
    // Signatures may have expired since, so a stale answer is not marked as validated (RFC 4035
    // §3.2.3).
    if let (Ttl::Stale(_), Some(flags)) = (ttl, out.get_mut(3)) {
        *flags &= !0x20;
    }
    write_question_name(out, query);
    for offset in kept.ttl_offsets.as_chunks::<2>().0 {
        let at = usize::from(u16::from_le_bytes(*offset));
        let Some(field) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) else { continue };
        let original = u32::from_be_bytes(*field);
        let now = match ttl {
            Ttl::Aged(age) => original.saturating_sub(age),
            Ttl::Stale(most) => original.min(most).max(1),
        };
        *field = now.to_be_bytes();
    }
    append_opt(out, query, extended);
}

/// Turns the message in `out`, which has this query's question and only stale records, into an
/// answer to this query.
pub(crate) fn write_assembled(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    transport: Transport,
    ttl_s: u32,
    extended: Option<(Extended, &str)>,
) {
    let limit = limit(query, transport);
    let bare = out.len() + query.edns.map_or(0, |_| wire::OPT_LEN);
    if bare > limit {
        out.clear();
        truncate(out, query, &[], extended);
        return;
    }
    let extended = extended.filter(|(_, text)| bare + wire::ede_len(text) <= limit);
    patch_header(out, query);
    // The combination as a whole was never validated.
    out[3] &= !0x20;
    write_question_name(out, query);
    wire::set_ttls(out, ttl_s);
    append_opt(out, query, extended);
}

/// Writes an error reply to a readable query.
pub fn write_error(out: &mut Vec<u8>, query: &Query<'_>, code: u8, extended: Option<(Extended, &str)>) {
    out.clear();
    question_only(out, query, u16::from(code & 0xf));
    append_opt(out, query, extended);
}

/// Writes the refusal of an unreadable packet; leaves `out` empty if nothing should be sent.
pub fn write_refusal(out: &mut Vec<u8>, packet: &[u8], why: Unreadable) {
    out.clear();
    let Some(header) = Header::read(packet) else { return };
    let code = match why {
        Unreadable::Drop => return,
        Unreadable::FormErr => rcode::FORMERR,
        Unreadable::NotImp => rcode::NOTIMP,
        Unreadable::Refused => rcode::REFUSED,
        // BADVERS is 16: zero in the header, one in the OPT record.
        Unreadable::BadVers => rcode::NOERROR,
    };
    let question = match why {
        Unreadable::FormErr => None,
        _ => wire::read_question(packet).map(|(_, end)| &packet[HEADER_LEN..end]),
    };
    let flags = 0x8000 | (header.flags & 0x7910) | 0x0080 | u16::from(code);
    // Clients using EDNS get EDNS replies (RFC 6891 §6.1.1).
    let edns = why == Unreadable::BadVers || (why != Unreadable::FormErr && wire::has_opt(packet));
    let additionals = u16::from(edns);
    for field in [header.id, flags, u16::from(question.is_some()), 0, 0, additionals] {
        out.extend(field.to_be_bytes());
    }
    out.extend(question.unwrap_or_default());
    if edns {
        wire::write_opt(out, u8::from(why == Unreadable::BadVers), false, None);
    }
}

/// The most bytes this client accepts: over UDP, at most what passes any path unfragmented; over
/// TCP, the limit of the length field.
fn limit(query: &Query<'_>, transport: Transport) -> usize {
    let asked = query.edns.map_or(UDP_PAYLOAD_PLAIN, |edns| edns.udp_payload);
    usize::from(match transport {
        Transport::Udp => asked.clamp(UDP_PAYLOAD_PLAIN, UDP_PAYLOAD),
        Transport::Tcp => u16::MAX,
    })
}

/// Sets QR and RA, clears AA and TC, copies RD and CD, sets AD only if the client asked for it (RFC
/// 6840 §5.8), keeps opcode and rcode.
fn patch_header(out: &mut [u8], query: &Query<'_>) {
    let Some(header) = out.first_chunk_mut::<HEADER_LEN>() else { return };
    header[..2].copy_from_slice(&query.id.to_be_bytes());
    header[2] = 0x80 | u8::from(query.recursion_desired);
    let wants_ad = query.authentic_data || query.dnssec_ok();
    header[3] = 0x80
        | if wants_ad { header[3] & 0x20 } else { 0 }
        | if query.checking_disabled { 0x10 } else { 0 }
        | (header[3] & 0x0f);
}

/// In the client's own case.
fn write_question_name(out: &mut [u8], query: &Query<'_>) {
    let name_end = HEADER_LEN + query.question.name.len();
    if let Some(question) = out.get_mut(HEADER_LEN..name_end) {
        question.copy_from_slice(query.question.name);
    }
}

fn append_opt(out: &mut Vec<u8>, query: &Query<'_>, extended: Option<(Extended, &str)>) {
    let Some(edns) = query.edns else { return };
    wire::write_opt(out, 0, edns.dnssec_ok, extended.map(|(error, text)| (error.code(), text)));
    if let Some(count) = out.get_mut(10..12) {
        let additionals = u16::from_be_bytes([count[0], count[1]]).saturating_add(1);
        count.copy_from_slice(&additionals.to_be_bytes());
    }
}

fn truncate(out: &mut Vec<u8>, query: &Query<'_>, message: &[u8], extended: Option<(Extended, &str)>) {
    question_only(out, query, message.get(3).map_or(0, |flags| u16::from(flags & 0x0f)));
    out[2] |= 0x02;
    append_opt(out, query, extended);
}

fn question_only(out: &mut Vec<u8>, query: &Query<'_>, code: u16) {
    for field in [query.id, code, 1, 0, 0, 0] {
        out.extend(field.to_be_bytes());
    }
    out.extend(query.question.name);
    out.extend(query.question.kind.to_be_bytes());
    out.extend(query.question.class.to_be_bytes());
    patch_header(out, query);
}
