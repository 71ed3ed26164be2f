use std::collections::BTreeMap;

use super::*;
use crate::message::name::{from_text, to_text};

/// A message about `name`'s A records with these records in its answer section, followed by
/// `authorities`.
fn message(name: &str, answers: &[Vec<u8>], authorities: &[Vec<u8>]) -> Vec<u8> {
    let count = |records: &[Vec<u8>]| u8::try_from(records.len()).unwrap();
    let mut message = vec![0, 0, 0x81, 0xa3, 0, 1, 0, count(answers), 0, count(authorities), 0, 0];
    message.extend(from_text(name).unwrap());
    message.extend([0, 1, 0, 1]);
    message.extend(answers.concat());
    message.extend(authorities.concat());
    message
}

/// Owner and data in wire format, including any pointers.
fn record(owner: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let fixed = [0, kind, 0, 1, 0, 0, 1, 0, 0, u8::try_from(data.len()).unwrap()];
    [owner, &fixed, data].concat()
}

fn wire(name: &str) -> Vec<u8> {
    from_text(name).unwrap()
}

fn alias(owner: &str, target: &str) -> Vec<u8> {
    record(&wire(owner), 5, &wire(target))
}

fn address(owner: &str, last: u8) -> Vec<u8> {
    record(&wire(owner), 1, &[192, 0, 2, last])
}

fn signature(owner: &str, of: u8) -> Vec<u8> {
    record(&wire(owner), 46, &[0, of, 13, 2])
}

/// Every record of an answer as `owner TYPE data`, names in full: read independently of the code
/// that wrote it.
fn shown(message: &[u8]) -> Vec<String> {
    let header = Header::read(message).unwrap();
    let mut at = read_question(message).unwrap().1;
    let mut all = Vec::new();
    let name = |at| to_text(Name::read(message, at).unwrap().as_ref());
    for _ in 0..header.answers {
        let record = Record::read(message, at).unwrap();
        let data = match record.kind {
            1 => format!("A {}", message[record.end - 1]),
            5 => format!("CNAME {}", name(record.data_at)),
            15 => format!("MX {} {}", message[record.data_at + 1], name(record.data_at + 2)),
            46 => format!("RRSIG {}", message[record.data_at + 1]),
            kind => format!("TYPE{kind} {:?}", &message[record.data_at..record.end]),
        };
        all.push(format!("{} {data}", name(at)));
        at = record.end;
    }
    assert_eq!(at, message.len(), "nothing follows the answers");
    all
}

/// The result for a chain when these answers are newer, each newer than the one before it.
fn assembled(chain: &[u8], younger: &[(&str, Vec<u8>)]) -> Option<Vec<String>> {
    let mut younger: BTreeMap<String, Vec<u8>> =
        younger.iter().map(|(name, message)| ((*name).to_owned(), message.clone())).collect();
    let mut out = vec![0xee; 3];
    assemble(&mut out, chain, |target| younger.remove(&to_text(target).to_ascii_lowercase()))?;
    assert_eq!((out[3] & 0x0f, &out[4..6], &out[8..12]), (0, &[0, 1][..], &[0; 4][..]));
    Some(shown(&out))
}

/// `www → edge → A 1`, compressed as servers do.
fn compressed() -> Vec<u8> {
    // "www.shop.test" is at offset 12, "shop.test" at 16, the alias's data at 43.
    let chain = [record(&[0xc0, 12], 5, b"\x04edge\xc0\x10"), record(&[0xc0, 43], 1, &[192, 0, 2, 1])];
    message("www.shop.test", &chain, &[])
}

#[test]
fn a_newer_target_replaces_the_old_one() {
    let chain = compressed();
    assert_eq!(shown(&chain), ["www.shop.test CNAME edge.shop.test", "edge.shop.test A 1"]);
    assert_eq!(assembled(&chain, &[]), None);
    // Its own message has the name at another offset, and two addresses.
    let own = record(&[0xc0, 12], 1, &[192, 0, 2, 2]);
    let edge = message("edge.shop.test", &[own, record(&[0xc0, 12], 1, &[192, 0, 2, 3])], &[]);
    assert_eq!(
        assembled(&chain, &[("edge.shop.test", edge.clone())]).unwrap(),
        ["www.shop.test CNAME edge.shop.test", "edge.shop.test A 2", "edge.shop.test A 3"]
    );
    // The owner's name is still a pointer, so the message is not larger than needed.
    let mut out = Vec::new();
    assemble(&mut out, &chain, |_| Some(edge.clone())).unwrap();
    assert_eq!(out.len(), chain.len() + 16);
}

#[test]
fn the_target_may_now_be_a_chain_with_newer_links_of_its_own() {
    let chain = message("a.test", &[alias("a.test", "b.test"), address("b.test", 1)], &[]);
    // "b.test" is at offset 12; the alias's data at 36, "test" in it at 38; the next record at 51.
    let b = message(
        "b.test",
        &[
            record(&[0xc0, 12], 5, b"\x01c\xc0\x0e"),
            record(&[0xc0, 36], 5, b"\x01d\xc0\x26"),
            record(&[0xc0, 52], 1, &[192, 0, 2, 2]),
        ],
        &[],
    );
    assert_eq!(shown(&b), ["b.test CNAME c.test", "c.test CNAME d.test", "d.test A 2"]);
    let links = ["a.test CNAME b.test", "b.test CNAME c.test", "c.test CNAME d.test"];
    let with = |last: &str| [links[0], links[1], links[2], last].map(str::to_owned).to_vec();
    assert_eq!(assembled(&chain, &[("b.test", b.clone())]).unwrap(), with("d.test A 2"));
    let d = message("d.test", &[address("d.test", 3)], &[]);
    assert_eq!(assembled(&chain, &[("b.test", b.clone()), ("d.test", d)]).unwrap(), with("d.test A 3"));
    let c = message("c.test", &[address("c.test", 4)], &[]);
    assert_eq!(
        assembled(&chain, &[("b.test", b), ("c.test", c)]).unwrap(),
        ["a.test CNAME b.test", "b.test CNAME c.test", "c.test A 4"]
    );
}

#[test]
fn pointers_in_data_are_written_out_and_case_is_kept() {
    let chain = message("a.test", &[alias("a.test", "Mail.Test"), address("mail.test", 1)], &[]);
    // "mail.test" at 12, "test" at 17.
    let mail = message("mail.test", &[record(&[0xc0, 12], 15, b"\x00\x0a\x02MX\xc0\x11")], &[]);
    assert_eq!(
        assembled(&chain, &[("mail.test", mail)]).unwrap(),
        ["a.test CNAME Mail.Test", "Mail.Test MX 10 MX.test"]
    );
}

#[test]
fn a_chain_without_records_gets_the_records_that_exist_now() {
    let soa = record(&wire("test"), 6, &[0; 22]);
    let mut chain = message("a.test", &[alias("a.test", "b.test")], &[soa]);
    chain[3] |= 3;
    let b = message("b.test", &[address("b.test", 1)], &[]);
    assert_eq!(assembled(&chain, &[("b.test", b)]).unwrap(), ["a.test CNAME b.test", "b.test A 1"]);
}

#[test]
fn no_name_repeats_and_no_chain_is_endless() {
    let chain = message("a.test", &[alias("a.test", "b.test"), address("b.test", 1)], &[]);
    let back = message("b.test", &[alias("b.test", "A.test"), address("a.test", 2)], &[]);
    assert_eq!(assembled(&chain, &[("b.test", back)]), None);
    let itself = message("a.test", &[alias("a.test", "a.test"), address("a.test", 1)], &[]);
    let a = message("a.test", &[address("a.test", 2)], &[]);
    assert_eq!(assembled(&itself, &[("a.test", a)]), None);
    // n0 → n1 → …, each a separate answer, without end.
    let endless: Vec<(String, Vec<u8>)> = (0..30)
        .map(|number| {
            let (own, next) = (format!("n{number}.test"), format!("n{}.test", number + 1));
            (own.clone(), message(&own, &[alias(&own, &next), address(&next, 1)], &[]))
        })
        .collect();
    let younger: Vec<(&str, Vec<u8>)> =
        endless.iter().map(|(name, message)| (name.as_str(), message.clone())).collect();
    assert_eq!(assembled(&endless[0].1, &younger[1..]), None);
    let links = |count: usize| assembled(&endless[0].1, &younger[1..count]).map(|all| all.len());
    assert_eq!((links(LINKS_MAX), links(LINKS_MAX + 1)), (Some(LINKS_MAX + 1), None));
}

#[test]
fn signatures_stay_with_their_links_or_the_chain_is_left_alone() {
    let b = message("b.test", &[address("b.test", 2), signature("b.test", 1)], &[]);
    let younger = [("b.test", b)];
    let chain = |records: &[Vec<u8>]| message("a.test", records, &[]);
    let (link, of_link) = (alias("a.test", "b.test"), signature("a.test", 5));
    let old = [address("b.test", 1), signature("b.test", 1)].concat();
    let in_order = [link.clone(), of_link.clone(), address("b.test", 1), signature("b.test", 1)];
    assert_eq!(
        assembled(&chain(&in_order), &younger).unwrap(),
        ["a.test CNAME b.test", "a.test RRSIG 5", "b.test A 2", "b.test RRSIG 1"]
    );
    let late = [link.clone(), address("b.test", 1), signature("b.test", 1), of_link];
    assert_eq!(assembled(&chain(&late), &younger), None);
    // The proof of the wildcard would be lost.
    let proof = record(&wire("x.test"), 47, &[0, 0, 0]);
    let wild = message("a.test", &[link, old[..20].to_vec()], &[proof]);
    assert_eq!(assembled(&wild, &younger), None);
}

#[test]
fn answers_that_do_not_fit_together_are_left_alone() {
    let b = message("b.test", &[address("b.test", 2)], &[]);
    let younger = [("b.test", b.clone())];
    let (link, old) = (alias("a.test", "b.test"), address("b.test", 1));
    let whole = message("a.test", &[link.clone(), old.clone()], &[]);
    assert!(assembled(&whole, &younger).is_some());
    // An alias of another name; the address first; no alias at all.
    for records in [
        vec![alias("x.test", "b.test"), old.clone()],
        vec![old.clone(), link.clone()],
        vec![old.clone()],
        vec![],
    ] {
        assert_eq!(assembled(&message("a.test", &records, &[]), &younger), None);
    }
    // The newer answer is about another name, or has aliases out of order.
    for odd in [vec![address("c.test", 2)], vec![address("b.test", 2), alias("b.test", "c.test")]] {
        assert_eq!(assembled(&whole, &[("b.test", message("b.test", &odd, &[]))]), None);
    }
    // Cut anywhere, or with any byte changed, it does not panic and the result can be parsed.
    for message in [compressed(), whole] {
        for at in 0..message.len() {
            let mut out = Vec::new();
            let _ = assemble(&mut out, &message[..at], |_| Some(b.clone()));
            for changed in 0..=255 {
                let mut odd = message.clone();
                odd[at] = changed;
                if assemble(&mut out, &odd, |_| Some(b.clone())).is_some() {
                    shown(&out);
                }
                if assemble(&mut out, &message, |_| Some(odd.clone())).is_some() {
                    shown(&out);
                }
            }
        }
    }
}

#[test]
fn a_query_for_the_alias_itself_is_answered_as_it_is() {
    let records = [alias("a.test", "b.test"), address("b.test", 1)];
    let mut chain = message("a.test", &records, &[]);
    assert!(begins(&chain));
    let kind_at = 12 + wire("a.test").len() + 1;
    for kind in [5, 39, 46, 255] {
        chain[kind_at] = kind;
        assert!(!begins(&chain));
    }
    assert!(!begins(&message("a.test", &records[1..], &[])) && !begins(&message("a.test", &[], &records)));
    assert!(!begins(&chain[..20]) && !begins(&[]));
}
