//! The last answers for known names, used to detect that many vanish or move together.
//!
//! The threshold is five names among the last 25 answers within a minute (a fifth). It needs no
//! rates, so it works on a host that makes one query a minute and on one that makes a thousand a
//! second, and one real deletion long ago does not blur it.

use std::{collections::VecDeque, hash::Hasher as _, net::IpAddr, time::Duration};

use fnv::FnvHasher;

use crate::{
    message::name::{self, name_of},
    moment::Moment,
};

/// Fewer names than this are not a mass event.
pub(super) const NAMES: usize = 5;
const LAST: usize = 25;
pub(super) const WINDOW: Duration = Duration::from_mins(1);
/// Names per domain that count towards a zone-wide event: a single domain may be taken down
/// legitimately.
const OF_ONE_DOMAIN: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) at: Moment,
    /// Hash of the name: its A and AAAA answers count as one name.
    name: u64,
    pub(super) domain: Box<[u8]>,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Still,
    Gone,
    Moved(IpAddr),
}

impl Item {
    pub(super) fn new(at: Moment, key: &[u8], what: What) -> Self {
        Self { at, name: hash(name_of(key)), domain: name::zone_of(key).into(), what }
    }
}

/// At most [`LAST`] answers, none older than [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Evidence(VecDeque<Item>);

impl Evidence {
    pub(super) fn push(&mut self, item: Item) {
        while self.0.len() >= LAST || self.0.front().is_some_and(|old| item.at.since(old.at) >= WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back(item);
    }

    /// Whether anything other than [`What::Still`] happened recently. If not, there is nothing to
    /// count.
    pub(super) fn watches(&self, now: Moment) -> bool {
        self.0.iter().any(|item| item.what != What::Still && now.since(item.at) < WINDOW)
    }

    pub(super) fn gone(&self) -> usize {
        self.count(|item| item.what == What::Gone, usize::MAX)
    }

    pub(super) fn gone_in_several_domains(&self) -> usize {
        self.count(|item| item.what == What::Gone, OF_ONE_DOMAIN)
    }

    pub(super) fn moved_to(&self, address: IpAddr) -> usize {
        self.count(|item| item.what == What::Moved(address), usize::MAX)
    }

    /// Number of distinct names, counting at most `of_one_domain` per domain.
    fn count(&self, counts: impl Fn(&Item) -> bool, of_one_domain: usize) -> usize {
        let mut seen: Vec<&Item> = Vec::with_capacity(LAST);
        for item in self.0.iter().filter(|item| counts(item)) {
            let neighbours = seen.iter().filter(|other| other.domain == item.domain).count();
            if neighbours < of_one_domain && seen.iter().all(|other| other.name != item.name) {
                seen.push(item);
            }
        }
        seen.len()
    }
}

/// FNV-1a. An attacker who makes two names collide only makes one of them count less.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = FnvHasher::default();
    hash.write(bytes);
    hash.finish()
}
