//! The last answers for known names, to see whether many vanish or move together.
//!
//! The measure is "five names among the last 25 answers of a minute" (a fifth): it needs no rates, so it works on a host that
//! asks once in a while and on one that asks a thousand times a second, and one real deletion long ago does not blur it.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use crate::{
    message::name::{self, name_of},
    moment::Moment,
};

/// Fewer names than this are no mass.
pub(super) const NAMES: usize = 5;
const LAST: usize = 25;
pub(super) const WINDOW: Duration = Duration::from_mins(1);
/// Names of one domain that count towards a mass of all: a domain may be taken down by itself.
const OF_ONE_DOMAIN: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) at: Moment,
    /// Hash of the name: its A and AAAA are one.
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

    /// Whether anything but [`What::Still`] happened lately. Without that there is nothing to count.
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

    /// Distinct names, at most `of_one_domain` of each domain.
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

/// FNV-1a. Who makes two names collide has one of them not counted.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
