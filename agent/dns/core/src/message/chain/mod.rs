//! Stale alias chains, with each link taken from the newest cached answer that has it.
//!
//! An answer that is a chain (`www CNAME edge`, `edge A …`) is cached as one message, and all of it
//! is stale once its shortest TTL ends. By then the cache may hold a newer answer for one of the
//! targets, queried under its own name. The client then gets the chain up to that target, followed
//! by the newer answer, which may be a chain again.
//!
//! Promises: at most [`LINKS_MAX`] links, each name once. A message that is not exactly such a
//! chain (links in order, signatures right behind them, no wildcard proof) is left alone, and the
//! caller serves it unchanged. Nothing is allocated. The caller decides which answers may be used
//! and how long the result is valid.

use crate::message::wire::{HEADER_LEN, Header, NAME_LEN_MAX, Record, name_end, read_question, u16_at};

/// Most aliases in one answer, and most answers combined into one.
pub(crate) const LINKS_MAX: usize = 8;

/// Whether a cached message reaches its records through aliases.
pub(crate) fn begins(message: &[u8]) -> bool {
    let Some((question, at)) = read_question(message) else { return false };
    // A query for the alias itself, its signature or ANY already has its answer.
    let asks_for_links = matches!(question.kind, TYPE_CNAME | TYPE_DNAME | TYPE_RRSIG | TYPE_ANY);
    let some = Header::read(message).is_some_and(|header| header.answers > 0);
    let first = Record::read(message, at).filter(|_| some && !asks_for_links);
    first.is_some_and(|record| matches!(record.kind, TYPE_CNAME | TYPE_DNAME))
}

/// Writes a message with the chain's question, its links up to the first target for which `younger`
/// has an answer, and then that answer's records, in the same way. TTLs are kept; there are only
/// answer records. `younger` gets a name in wire format. `None`: nothing is newer, or the parts do
/// not fit together; `out` is then unusable.
pub(crate) fn assemble<M: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    chain: &[u8],
    mut younger: impl FnMut(&[u8]) -> Option<M>,
) -> Option<()> {
    let mut seen = Seen::default();
    let mut links = Links::of(chain)?;
    seen.add(links.owner.clone())?;
    let (mut source, target_at) = loop {
        let link = links.next(&mut seen)?;
        if let Some(found) = younger(links.owner.as_ref()) {
            links.leaves_nothing_behind(&seen)?;
            break (found, link);
        }
    };
    out.clear();
    // Copied unchanged: every pointer in it points backwards.
    out.extend_from_slice(chain.get(..links.at)?);
    let mut written = Written { out, count: links.taken, target_at };
    loop {
        let message = source.as_ref();
        let mut links = Links::of(message)?;
        let start = links.at;
        let mut next = None;
        while next.is_none() && links.next(&mut seen).is_some() {
            next = younger(links.owner.as_ref());
        }
        if links.broken {
            return None;
        }
        if next.is_some() {
            links.leaves_nothing_behind(&seen)?;
        } else {
            links.skip_rest()?;
        }
        written.copy(message, start, links.taken)?;
        match next {
            Some(found) => source = found,
            None => break,
        }
    }
    let count = written.count.to_be_bytes();
    let header = out.first_chunk_mut::<HEADER_LEN>()?;
    // No error, one question, and only answers.
    header[3] &= 0xf0;
    header[4..].copy_from_slice(&[0, 1, count[0], count[1], 0, 0, 0, 0]);
    Some(())
}

const TYPE_NS: u16 = 2;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_SRV: u16 = 33;
const TYPE_DNAME: u16 = 39;
const TYPE_RRSIG: u16 = 46;
const TYPE_NSEC: u16 = 47;
const TYPE_NSEC3: u16 = 50;
const TYPE_ANY: u16 = 255;

/// A name without pointers, in its original case.
#[derive(Clone)]
struct Name {
    bytes: [u8; NAME_LEN_MAX],
    len: u8,
}

impl Name {
    const ROOT: Self = Self { bytes: [0; NAME_LEN_MAX], len: 1 };

    fn read(message: &[u8], mut at: usize) -> Option<Self> {
        let mut name = Self { len: 0, ..Self::ROOT };
        loop {
            let len = *message.get(at)?;
            match len >> 6 {
                0 => {
                    let label = message.get(at..at + 1 + usize::from(len))?;
                    let start = usize::from(name.len);
                    name.bytes.get_mut(start..start + label.len())?.copy_from_slice(label);
                    name.len = u8::try_from(start + label.len()).ok()?;
                    at += label.len();
                    if len == 0 {
                        return Some(name);
                    }
                }
                3 => {
                    // Always backwards, so this ends.
                    let target = usize::from(u16_at(message, at)? & POINTER_MAX);
                    at = Some(target).filter(|&target| target < at && target >= HEADER_LEN)?;
                }
                _ => return None,
            }
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.as_ref().eq_ignore_ascii_case(other.as_ref())
    }
}

impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

const POINTER_MAX: u16 = 0x3fff;

/// The names on the chain so far: the question's and each target.
struct Seen {
    names: [Name; LINKS_MAX + 1],
    count: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { names: [Name::ROOT; LINKS_MAX + 1], count: 0 }
    }
}

impl Seen {
    /// `None` if the name is already included, or there are too many.
    fn add(&mut self, name: Name) -> Option<()> {
        if self.has(&name) {
            return None;
        }
        *self.names.get_mut(self.count)? = name;
        self.count += 1;
        Some(())
    }

    fn has(&self, name: &Name) -> bool {
        self.names[..self.count].iter().any(|known| known.is(name))
    }
}

/// Walks along a message's aliases.
struct Links<'a> {
    message: &'a [u8],
    /// The offset behind the last link.
    at: usize,
    /// Records before that offset.
    taken: u16,
    answers: u16,
    /// The target of the last link.
    owner: Name,
    /// The last link leads to a name seen before.
    broken: bool,
}

impl<'a> Links<'a> {
    /// `None` also if it contains a proof that would be lost (RFC 4035 §3.1.3.3: of a wildcard).
    fn of(message: &'a [u8]) -> Option<Self> {
        let (_, at) = read_question(message)?;
        let Header { answers, authorities, .. } = Header::read(message)?;
        let links =
            Self { message, at, taken: 0, answers, owner: Name::read(message, HEADER_LEN)?, broken: false };
        let mut end = at;
        for number in 0..u32::from(answers) + u32::from(authorities) {
            let record = Record::read(message, end)?;
            if number >= u32::from(answers) && matches!(record.kind, TYPE_NSEC | TYPE_NSEC3) {
                return None;
            }
            end = record.end;
        }
        Some(links)
    }

    /// The next link with its signatures; returns the offset of the target's name. `None` at the
    /// end or if the chain is broken.
    fn next(&mut self, seen: &mut Seen) -> Option<usize> {
        let (mut at, mut taken) = (self.at, self.taken);
        let mut target = None;
        while taken < self.answers {
            let record = Record::read(self.message, at)?;
            match record.kind {
                TYPE_CNAME if target.is_none() && Name::read(self.message, at)?.is(&self.owner) => {
                    target = Some((record.data_at, record.end));
                }
                // The DNAME that the alias was made from (RFC 6672 §3.1) comes first.
                TYPE_DNAME if target.is_none() => {}
                TYPE_RRSIG if signs_a_link(self.message, &record) => {}
                _ => break,
            }
            (at, taken) = (record.end, taken + 1);
        }
        let (target_at, end) = target?;
        let target = Name::read(self.message, target_at)
            .filter(|_| name_end(self.message, target_at) == Some(end))
            .filter(|target| seen.add(target.clone()).is_some());
        self.broken = target.is_none();
        self.owner = target?;
        (self.at, self.taken) = (at, taken);
        Some(target_at)
    }

    /// `None` if a signature of a copied link comes later in the message.
    fn leaves_nothing_behind(&self, seen: &Seen) -> Option<()> {
        let mut at = self.at;
        for _ in self.taken..self.answers {
            let record = Record::read(self.message, at)?;
            if record.kind == TYPE_RRSIG && signs_a_link(self.message, &record) {
                let owner = Name::read(self.message, at)?;
                let of_a_dname = u16_at(self.message, record.data_at) == Some(TYPE_DNAME);
                if of_a_dname || (seen.has(&owner) && !owner.is(&self.owner)) {
                    return None;
                }
            }
            at = record.end;
        }
        Some(())
    }

    /// Skips to the end of the answer section. `None` if it has records of anything but the last
    /// target.
    fn skip_rest(&mut self) -> Option<()> {
        while self.taken < self.answers {
            let record = Record::read(self.message, self.at)?;
            let of_the_target = Name::read(self.message, self.at)?.is(&self.owner);
            if !of_the_target || matches!(record.kind, TYPE_CNAME | TYPE_DNAME) {
                return None;
            }
            (self.at, self.taken) = (record.end, self.taken + 1);
        }
        Some(())
    }
}

/// An RRSIG's data begins with the type that it covers (RFC 4034 §3.1.1).
fn signs_a_link(message: &[u8], record: &Record) -> bool {
    matches!(u16_at(message, record.data_at), Some(TYPE_CNAME | TYPE_DNAME))
}

/// The answer being written.
struct Written<'a> {
    out: &'a mut Vec<u8>,
    count: u16,
    /// Offset of the last link's target: the records that follow can point to it.
    target_at: usize,
}

impl Written<'_> {
    /// Copies this many records from `at` on, writing names out in full.
    fn copy(&mut self, message: &[u8], mut at: usize, records: u16) -> Option<()> {
        for _ in 0..records {
            let record = Record::read(message, at)?;
            self.owner(&Name::read(message, at)?);
            let fixed_at = name_end(message, at)?;
            self.out.extend_from_slice(message.get(fixed_at..record.data_at)?);
            let data_at = self.out.len();
            self.data(message, &record)?;
            let len = u16::try_from(self.out.len() - data_at).ok()?;
            self.out.get_mut(data_at - 2..data_at)?.copy_from_slice(&len.to_be_bytes());
            if record.kind == TYPE_CNAME {
                self.target_at = data_at;
            }
            self.count = self.count.checked_add(1)?;
            at = record.end;
        }
        Some(())
    }

    fn owner(&mut self, name: &Name) {
        let pointer = u16::try_from(self.target_at).ok().filter(|&at| at <= POINTER_MAX);
        let there = Name::read(self.out, self.target_at).is_some_and(|target| target.is(name));
        match pointer.filter(|_| there) {
            Some(at) => self.out.extend((0xc000 | at).to_be_bytes()),
            None => self.out.extend_from_slice(name.as_ref()),
        }
    }

    /// The types that may have pointers in their data (RFC 3597 §4: those of RFC 1035, and some
    /// that old servers compress).
    fn data(&mut self, message: &[u8], record: &Record) -> Option<()> {
        let (skip, names) = match record.kind {
            TYPE_NS | TYPE_CNAME | TYPE_PTR | TYPE_DNAME | 3 | 4 | 7..=9 => (0, 1),
            // SOA, MINFO, RP.
            TYPE_SOA | 14 | 17 => (0, 2),
            // Also AFSDB, RT, KX.
            TYPE_MX | 18 | 21 | 36 => (2, 1),
            TYPE_SRV => (6, 1),
            // PX.
            26 => (2, 2),
            _ => (0, 0),
        };
        let mut at = record.data_at + skip;
        self.out.extend_from_slice(message.get(record.data_at..at)?);
        for _ in 0..names {
            self.out.extend_from_slice(Name::read(message, at)?.as_ref());
            at = name_end(message, at)?;
        }
        self.out.extend_from_slice(message.get(at..record.end)?);
        Some(())
    }
}

#[cfg(test)]
mod tests;
