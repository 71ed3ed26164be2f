//! Names answered locally, never by an upstream: those in a hosts(5) file, `localhost` and
//! `invalid`.
//!
//! A local name is local for all types: if the file has only an IPv4 address for it, it has no IPv6
//! address, rather than one from upstream. Local and upstream data therefore never mix in one
//! answer (pi-hole/FTL#2913). Reverse lookups work too and return the first name on the line.

use std::{collections::BTreeMap, net::IpAddr};

use crate::message::{
    name,
    wire::{HEADER_LEN, Question, rcode},
};

/// The local names and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalNames {
    addresses: BTreeMap<Box<[u8]>, Vec<IpAddr>>,
    /// By reverse name, `1.2.0.192.in-addr.arpa`.
    backwards: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

/// Short, so that an operator who edits the file and reloads does not wait.
const TTL_S: u32 = 10;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;

impl LocalNames {
    /// Parses a hosts(5) file. On failure returns every problem with its line number, from 1.
    pub fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let mut names = Self::default();
        let mut problems = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next() else { continue };
            match address.parse() {
                Ok(address) => {
                    if let Err(problem) = names.add(address, words) {
                        problems.push((number, problem));
                    }
                }
                Err(_) => problems.push((number, format!("{address:?} is not an address"))),
            }
        }
        if problems.is_empty() { Ok(names) } else { Err(problems) }
    }

    fn add<'a>(&mut self, address: IpAddr, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
        for text in names {
            let name = name::from_text(text).ok_or_else(|| format!("{text:?} is not a domain name"))?;
            let name = name.to_ascii_lowercase().into_boxed_slice();
            self.backwards.entry(backwards(address)).or_insert_with(|| name.clone());
            let known = self.addresses.entry(name).or_default();
            if !known.contains(&address) {
                known.push(address);
            }
        }
        Ok(())
    }

    /// The complete answer to a local question (the caller sets id and flags), or `None` if
    /// upstreams should be asked. `name` is the question's name in lower case.
    pub fn answer(&self, name: &[u8], question: &Question<'_>) -> Option<Vec<u8>> {
        if let Some(addresses) = self.addresses.get(name) {
            return Some(with_addresses(question, addresses));
        }
        if let Some(found) = self.backwards.get(name) {
            let records =
                if question.kind == TYPE_PTR { vec![(TYPE_PTR, found.to_vec())] } else { Vec::new() };
            return Some(message(question, rcode::NOERROR, &records));
        }
        // RFC 6761 §6.3 and §6.4, including all names below.
        if name.ends_with(b"\x09localhost\0") {
            return Some(with_addresses(
                question,
                &[[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
            ));
        }
        name.ends_with(b"\x07invalid\0").then(|| message(question, rcode::NXDOMAIN, &[]))
    }
}

fn with_addresses(question: &Question<'_>, addresses: &[IpAddr]) -> Vec<u8> {
    let of_kind = addresses.iter().filter_map(|address| match (address, question.kind) {
        (IpAddr::V4(address), TYPE_A) => Some((TYPE_A, address.octets().to_vec())),
        (IpAddr::V6(address), TYPE_AAAA) => Some((TYPE_AAAA, address.octets().to_vec())),
        _ => None,
    });
    message(question, rcode::NOERROR, &of_kind.collect::<Vec<_>>())
}

/// A message with these records, all owned by the question's name.
fn message(question: &Question<'_>, code: u8, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(HEADER_LEN + question.name.len() + 4 + 32 * records.len());
    for field in [0, 0x8180 | u16::from(code), 1, count, 0, 0] {
        out.extend(field.to_be_bytes());
    }
    out.extend(question.name);
    out.extend(question.kind.to_be_bytes());
    out.extend(question.class.to_be_bytes());
    for (kind, data) in records.iter().take(usize::from(count)) {
        // Compression pointer to the question's name.
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend(question.class.to_be_bytes());
        out.extend(TTL_S.to_be_bytes());
        out.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        out.extend(data);
    }
    out
}

/// The reverse name of an address (RFC 1035 §3.5, RFC 3596 §2.5).
fn backwards(address: IpAddr) -> Box<[u8]> {
    let text = match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 0xf, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<Vec<_>>().concat() + "ip6.arpa"
        }
    };
    name::from_text(&text).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::wire;

    const HOSTS: &str =
        "# ours\n192.0.2.7 db.corp.example db # the old one\n2001:db8::7\tdb.corp.example\n\n192.0.2.8 db\n";

    /// Response code and record data of a local answer.
    fn ask(names: &LocalNames, text: &str, kind: u16) -> Option<(u8, Vec<Vec<u8>>)> {
        let name = name::from_text(text).unwrap();
        let question = Question { name: &name, kind, class: 1 };
        let message = names.answer(&name.to_ascii_lowercase(), &question)?;
        let records = wire::answers(&message).map(|(_, data)| data.to_vec()).collect();
        Some((message[3] & 0xf, records))
    }

    #[test]
    fn a_hosts_file_answers_for_all_types_of_its_names_and_for_no_other() {
        let names = LocalNames::parse(HOSTS).unwrap();
        assert_eq!(ask(&names, "DB.corp.example", 1), Some((0, vec![vec![192, 0, 2, 7]])));
        assert_eq!(ask(&names, "db", 1), Some((0, vec![vec![192, 0, 2, 7], vec![192, 0, 2, 8]])));
        assert_eq!(ask(&names, "db.corp.example", 28).unwrap().1[0][..4], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(ask(&names, "db", 28), Some((0, vec![])), "not mixed with upstream data");
        assert_eq!(ask(&names, "db.corp.example", 15), Some((0, vec![])));
        assert_eq!(ask(&names, "www.corp.example", 1), None);
        assert_eq!(ask(&names, "corp.example", 1), None);
        let canonical = name::from_text("db.corp.example").unwrap();
        assert_eq!(ask(&names, "7.2.0.192.in-addr.arpa", 12), Some((0, vec![canonical.clone()])));
        let six = format!("7.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23));
        assert_eq!(ask(&names, &six, 12), Some((0, vec![canonical])));
        assert_eq!(ask(&names, "9.2.0.192.in-addr.arpa", 12), None);
    }

    #[test]
    fn localhost_and_invalid_are_answered_without_a_file() {
        let names = LocalNames::default();
        assert_eq!(ask(&names, "localhost", 1), Some((0, vec![vec![127, 0, 0, 1]])));
        assert_eq!(ask(&names, "app.LocalHost", 28).unwrap().1[0][15], 1);
        assert_eq!(ask(&names, "localhost", 15), Some((0, vec![])));
        assert_eq!(ask(&names, "x.invalid", 1), Some((rcode::NXDOMAIN, vec![])));
        assert_eq!(ask(&names, "notlocalhost", 1), None);
    }

    #[test]
    fn every_bad_line_is_named() {
        let problems = LocalNames::parse("192.0.2.1 a\nhost 192.0.2.2\n192.0.2.3 a..b\n").unwrap_err();
        assert_eq!(problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3]);
    }
}
