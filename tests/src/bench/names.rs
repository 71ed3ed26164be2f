//! The names of the benchmarks, and whether an answer is correct.
//!
//! `n<NUMBER>.t<TTL>.bench.zz` has the A record `10.x.y.z` made of NUMBER with that TTL, so one
//! upstream serves all benchmarks and every client knows what is right without asking. (`zz` will
//! never be a country; `test`, as the tests' upstream has it, is a zone that Unbound answers by
//! itself.) Answers come from peers: what is malformed is wrong.

use crate::{
    dns_message::{A, after_name, be16, query},
    upstream::right_address,
};

/// What a glibc stub asks for name `number`: one question, RD, no EDNS.
pub fn question(id: u16, number: u32, ttl_s: u32) -> Vec<u8> {
    query(id, &name(number, ttl_s), A, false)
}

/// Name `number` with a TTL.
pub fn name(number: u32, ttl_s: u32) -> String {
    format!("n{number}.t{ttl_s}.bench.zz.")
}

/// Number and TTL of a name of ours, read from the question of `message`, and where the question
/// ends.
pub fn number_and_ttl(message: &[u8]) -> Option<(u32, u32)> {
    let mut at = 12;
    let mut label = || {
        let length = usize::from(*message.get(at)?);
        let text = message.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        Some(text)
    };
    let number = after_letter(label()?, b'n')?;
    let ttl_s = after_letter(label()?, b't')?;
    (label()?.eq_ignore_ascii_case(b"bench") && label()?.eq_ignore_ascii_case(b"zz") && label()?.is_empty())
        .then_some((number, ttl_s))
}

fn after_letter(label: &[u8], letter: u8) -> Option<u32> {
    let (first, digits) = label.split_first()?;
    first.eq_ignore_ascii_case(&letter).then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// What a client makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// RCODE 0 and the record of this name.
    Right,
    /// NOERROR without it.
    NoData,
    Rcode(u8),
    Malformed,
}

/// Judges `message` as the answer for name `number`.
pub fn judge(message: &[u8], number: u32) -> Verdict {
    match message.get(3).map(|byte| byte & 15) {
        Some(0) => {}
        Some(rcode) => return Verdict::Rcode(rcode),
        None => return Verdict::Malformed,
    }
    match has_address(message, right_address(number)) {
        Some(true) => Verdict::Right,
        Some(false) => Verdict::NoData,
        None => Verdict::Malformed,
    }
}

/// Whether an A record with `address` is among the answers; `None` if they cannot be read.
fn has_address(message: &[u8], address: [u8; 4]) -> Option<bool> {
    let mut at = after_name(message, 12)? + 4;
    for _ in 0..be16(message, 6)? {
        at = after_name(message, at)?;
        let (kind, length) = (be16(message, at)?, usize::from(be16(message, at + 8)?));
        let data = message.get(at + 10..at + 10 + length)?;
        if kind == A && data == address {
            return Some(true);
        }
        at += 10 + length;
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_number_and_ttl_in_any_case() {
        assert_eq!(number_and_ttl(&question(1, 70_000, 5)), Some((70_000, 5)));
        assert_eq!(number_and_ttl(&query(1, "N7.T3600.Bench.ZZ.", A, true)), Some((7, 3_600)));
        for other in
            ["bench.zz.", "n7.bench.zz.", "n7.t5.bench.zz.zz.", "x7.t5.bench.zz.", "n-1.t5.bench.zz.", "."]
        {
            assert_eq!(number_and_ttl(&query(1, other, A, false)), None, "{other}");
        }
    }

    #[test]
    fn only_the_record_of_the_name_is_right() {
        let mut answer = question(1, 258, 5);
        answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 1, 2]);
        assert_eq!(judge(&answer, 258), Verdict::Right);
        assert_eq!(judge(&answer, 259), Verdict::NoData);
        assert_eq!(judge(&answer[..answer.len() - 1], 258), Verdict::Malformed);
        answer[3] |= 3;
        assert_eq!(judge(&answer, 258), Verdict::Rcode(3));
        assert_eq!(judge(&[], 258), Verdict::Malformed);
    }
}
