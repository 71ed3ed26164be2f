use proptest::prelude::*;

use super::*;
use crate::message::{
    name::from_text,
    reply::{Extended, Kept, Transport, Ttl, write_error, write_kept, write_refusal},
};

fn packet(dnssec_ok: bool) -> Vec<u8> {
    let name = from_text("www.eXample.com").unwrap();
    let mut out = Vec::new();
    write_query(&mut out, 7, &Question { name: &name, kind: 1, class: 1 }, dnssec_ok, false);
    out
}

/// An answer to [`packet`]: `code`, A records with these TTLs, a SOA with TTL and minimum, an OPT
/// record.
fn answer(code: u8, ttls: &[u32], soa: Option<(u32, u32)>) -> Vec<u8> {
    let query = packet(false);
    let (_, end) = read_question(&query).unwrap();
    let mut out = query[..end].to_vec();
    out[2] = 0x81;
    out[3] = 0x80 | code;
    out[7] = u8::try_from(ttls.len()).unwrap();
    out[9] = u8::from(soa.is_some());
    out[11] = 1;
    for ttl in ttls {
        out.extend([0xc0, 12, 0, 1, 0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend([0, 4, 192, 0, 2, 1]);
    }
    if let Some((ttl, minimum)) = soa {
        out.extend([0xc0, 12, 0, 6, 0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend([0, 24, 0xc0, 12, 0xc0, 12]);
        out.extend([0; 16]);
        out.extend(minimum.to_be_bytes());
    }
    write_opt(&mut out, 0, false, None);
    out
}

fn read(message: &[u8]) -> Result<Answer, NoAnswer> {
    read_answer(message, &read_query(&packet(false)).unwrap().question)
}

#[test]
fn trailing_bytes_are_not_kept() {
    let mut message = answer(0, &[60], None);
    let kept = read(&message).unwrap().len;
    message.extend([0; 9]);
    assert_eq!(read(&message).unwrap().len, kept);
}

#[test]
fn an_answers_lifetime_is_its_shortest_ttl_or_that_of_its_soa() {
    let ttl = |message: &[u8]| read(message).map(|answer| (answer.verdict, answer.ttl_s)).unwrap();
    assert_eq!(ttl(&answer(0, &[300, 20, 60], None)), (Verdict::Positive, Some(20)));
    assert_eq!(ttl(&answer(3, &[], Some((3_600, 30)))), (Verdict::NxDomain, Some(30)));
    assert_eq!(ttl(&answer(0, &[], Some((20, 30)))), (Verdict::NoData, Some(20)));
    assert_eq!(ttl(&answer(0, &[], None)), (Verdict::NoData, None), "RFC 2308 §5");
    assert_eq!(ttl(&answer(0, &[0x8000_0000], None)).1, Some(0), "RFC 2181 §8");
    assert_eq!(ttl(&answer(0, &[99_999_999], None)).1, Some(TTL_MAX_S));
}

#[test]
fn errors_and_truncation_are_distinguished() {
    assert_eq!(read(&answer(2, &[], None)), Err(NoAnswer::Rcode(2)));
    assert_eq!(read(&answer(5, &[], None)), Err(NoAnswer::Rcode(5)));
    let mut truncated = answer(0, &[60], None);
    truncated[2] |= 0x02;
    assert_eq!(read(&truncated), Err(NoAnswer::Truncated));
    let mut other = answer(0, &[60], None);
    other[14] = b'x';
    assert_eq!(read(&other), Err(NoAnswer::Malformed), "an answer to another question");
}

#[test]
fn packets_that_are_not_queries_are_refused_as_the_rfcs_require() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = packet(false);
        change(&mut changed);
        let why = read_query(&changed).unwrap_err();
        let mut out = Vec::new();
        write_refusal(&mut out, &changed, why);
        (why, out.get(3).map(|flags| flags & 0x0f))
    };
    assert_eq!(refused(&|p| p[2] |= 0x80), (Unreadable::Drop, None), "a response");
    assert_eq!(refused(&|p| p.truncate(5)), (Unreadable::Drop, None));
    assert_eq!(refused(&|p| p[2] |= 0x28), (Unreadable::NotImp, Some(rcode::NOTIMP)), "an update");
    assert_eq!(refused(&|p| p[5] = 2), (Unreadable::FormErr, Some(rcode::FORMERR)), "two questions");
    assert_eq!(refused(&|p| p.truncate(30)), (Unreadable::FormErr, Some(rcode::FORMERR)));
    let version_at = packet(false).len() - 5;
    assert_eq!(
        refused(&|p| p[version_at] = 1),
        (Unreadable::BadVers, Some(0)),
        "the high bits of 16 are in OPT"
    );
    let kind_at = packet(false).len() - 11 - 3;
    assert_eq!(refused(&|p| p[kind_at] = 252), (Unreadable::NotImp, Some(rcode::NOTIMP)), "AXFR");
    assert_eq!(refused(&|p| p[kind_at + 2] = 3), (Unreadable::Refused, Some(rcode::REFUSED)), "CHAOS");
}

/// What a client gets for this packet from an empty cache: a refusal, or nothing.
fn refusal(packet: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write_refusal(&mut out, packet, read_query(packet).err()?);
    Some(out)
}

#[test]
fn a_packet_cut_in_the_header_or_the_question_is_refused() {
    for length in 0..12 {
        assert!(refusal(&packet(false)[..length]).unwrap().is_empty(), "{length} bytes");
    }
    for length in 12..packet(false).len() {
        let answer = refusal(&packet(false)[..length]).unwrap();
        assert_eq!((answer.len(), answer[3] & 15), (12, rcode::FORMERR), "{length} bytes");
    }
    let mut pointer = packet(false)[..12].to_vec();
    pointer.extend([0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(refusal(&pointer).unwrap()[3] & 15, rcode::FORMERR, "a pointer in a question");
    let mut garbage = packet(true);
    garbage.extend([1, 2, 3]);
    assert_eq!(read_query(&garbage), read_query(&packet(true)), "trailing bytes are ignored");
}

#[test]
fn a_refusal_keeps_id_opcode_rd_and_cd_and_uses_edns_if_the_query_did() {
    for (kind, code) in [(0, 1), (41, 1), (249, 4), (250, 4), (251, 4), (252, 4)] {
        let mut asked = packet(true);
        let kind_at = asked.len() - 11 - 4;
        asked[kind_at..kind_at + 2].copy_from_slice(&u16::to_be_bytes(kind));
        asked[3] = 0x10;
        let answer = refusal(&asked).unwrap();
        assert_eq!((&answer[..2], answer[2], answer[3]), (&asked[..2], 0x81, 0x90 | code), "type {kind}");
        assert_eq!(has_opt(&answer), code != 1, "type {kind}");
    }
    let mut notify = packet(false);
    notify[2] = 0x20;
    let answer = refusal(&notify).unwrap();
    assert_eq!((answer[2], answer[3]), (0xa0, 0x84));
    let mut version = packet(true);
    let version_at = version.len() - 5;
    version[version_at] = 1;
    let answer = refusal(&version).unwrap();
    assert_eq!((answer[3] & 15, answer[answer.len() - 6], answer[11]), (0, 1, 1), "BADVERS is 16");
}

/// An A answer that is `length` bytes long without OPT, as cached.
fn kept_of(length: usize) -> (Vec<u8>, Vec<u8>) {
    let mut message = answer(0, &[60], None);
    message.truncate(message.len() - 11);
    let data = length - message.len() + 4;
    let at = message.len() - 6;
    message[at..at + 2].copy_from_slice(&u16::try_from(data).unwrap().to_be_bytes());
    message[11] = 0;
    message.resize(length, 7);
    (message, u16::try_from(at - 4).unwrap().to_le_bytes().to_vec())
}

#[test]
fn a_clients_size_limit_is_exact_and_a_reason_never_truncates() {
    // The payload size the client advertises; the most it gets, including OPT.
    for (payload, limit) in
        [(None, 512), (Some(100), 512), (Some(512), 512), (Some(900), 900), (Some(4_096), 1_232)]
    {
        let mut asked = packet(true);
        if let Some(payload) = payload {
            let at = asked.len() - 8;
            asked[at..at + 2].copy_from_slice(&u16::to_be_bytes(payload));
        } else {
            asked.truncate(asked.len() - 11);
            asked[11] = 0;
        }
        let query = read_query(&asked).unwrap();
        let opt = usize::from(payload.is_some()) * 11;
        let mut out = Vec::new();
        for (length, truncated) in [(limit - opt - 20, false), (limit - opt, false), (limit - opt + 1, true)]
        {
            let (message, ttl_offsets) = kept_of(length);
            let kept = Kept { message: &message, ttl_offsets: &ttl_offsets };
            let reason = Some((Extended::StaleAnswer, "a reason that is longer than what is left"));
            write_kept(&mut out, &query, Transport::Udp, kept, Ttl::Aged(1), reason);
            assert!(out.len() <= limit, "{payload:?} {length}");
            assert_eq!(out[2] & 0x02 != 0, truncated, "{payload:?} {length}");
            assert_eq!(has_opt(&out), payload.is_some());
            write_kept(&mut out, &query, Transport::Tcp, kept, Ttl::Aged(1), reason);
            assert!(out[2] & 0x02 == 0 && out.len() >= length + opt);
        }
    }
}

#[test]
fn large_answers_are_truncated_over_udp_but_complete_over_tcp() {
    let message = answer(0, &[60; 100], None);
    let read = read(&message).unwrap();
    let offsets: Vec<u8> = read.ttl_offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let kept = Kept { message: &message[..read.len], ttl_offsets: &offsets };
    let packet = packet(true);
    let query = read_query(&packet).unwrap();
    let mut out = Vec::new();
    write_kept(&mut out, &query, Transport::Udp, kept, Ttl::Aged(1), None);
    assert!(out.len() <= usize::from(UDP_PAYLOAD) && out[2] & 0x02 != 0 && out[7] == 0);
    write_kept(&mut out, &query, Transport::Tcp, kept, Ttl::Aged(1), None);
    assert!(out.len() > usize::from(UDP_PAYLOAD) && out[2] & 0x02 == 0 && out[7] == 100);
}

#[test]
fn a_stale_ttl_is_at_most_thirty_and_the_original_and_never_zero() {
    let message = answer(0, &[300, 20, 0], None);
    let read_back = |ttl| {
        let measured = read(&message).unwrap();
        let offsets: Vec<u8> = measured.ttl_offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let kept = Kept { message: &message[..measured.len], ttl_offsets: &offsets };
        let packet = packet(false);
        let mut out = Vec::new();
        let extended = Some((Extended::StaleAnswer, "why"));
        write_kept(&mut out, &read_query(&packet).unwrap(), Transport::Udp, kept, ttl, extended);
        assert!(out.ends_with(b"why"));
        let again = read(&out).unwrap();
        let ttl_at = |&at: &u16| u32::from_be_bytes(out[usize::from(at)..][..4].try_into().unwrap());
        again.ttl_offsets.iter().map(ttl_at).collect::<Vec<_>>()
    };
    assert_eq!(read_back(Ttl::Stale(30)), [30, 20, 1]);
    assert_eq!(read_back(Ttl::Aged(15)), [285, 5, 0]);
}

/// Bytes close to a real message: some changed, possibly cut.
fn nearly(message: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = message.len();
    (proptest::collection::vec((0..len, any::<u8>()), 0..6), 0..=len).prop_map(move |(changes, cut)| {
        let mut bytes = message.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        bytes
    })
}

proptest! {
    #[test]
    fn no_packet_panics(bytes in prop_oneof![any::<Vec<u8>>(), nearly(packet(true)), nearly(packet(false))]) {
        let mut out = Vec::new();
        match read_query(&bytes) {
            Ok(query) => {
                write_error(&mut out, &query, rcode::SERVFAIL, Some((Extended::NetworkError, "why")));
                prop_assert!(read_question(&out).is_some());
            }
            Err(why) => write_refusal(&mut out, &bytes, why),
        }
    }

    #[test]
    fn no_answer_panics_and_cached_answers_parse_again(
        bytes in prop_oneof![
            any::<Vec<u8>>(),
            nearly(answer(0, &[60, 30], None)),
            nearly(answer(3, &[], Some((60, 30)))),
        ],
        age in any::<u32>(),
    ) {
        if let Ok(read) = read(&bytes) {
            let offsets: Vec<u8> = read.ttl_offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            let mut message = bytes[..read.len].to_vec();
            message[10..12].copy_from_slice(&read.additionals.to_be_bytes());
            let packet = packet(false);
            let query = read_query(&packet).unwrap();
            let mut out = Vec::new();
            let kept = Kept { message: &message, ttl_offsets: &offsets };
            write_kept(&mut out, &query, Transport::Tcp, kept, Ttl::Aged(age), None);
            let again = read_answer(&out, &query.question).unwrap();
            prop_assert_eq!((again.verdict, again.ttl_offsets), (read.verdict, read.ttl_offsets));
        }
        let _ = answers(&bytes).count();
    }
}
