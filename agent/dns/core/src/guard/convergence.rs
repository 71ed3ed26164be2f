//! Names that move to a new address: which addresses were seen before, which moves were recent, and
//! which answers they displaced.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use super::{Known, evidence};
use crate::moment::Moment;

/// An answer that was replaced, kept so that it can be restored if the new one was false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displaced {
    pub key: Box<[u8]>,
    /// The bytes as the cache had them.
    pub message: Box<[u8]>,
    pub learned: Moment,
}

/// One name's move to an address that was never seen before.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) at: Moment,
    pub(super) to: IpAddr,
    pub(super) from: IpAddr,
    pub(super) known: Known,
    pub(super) displaced: Displaced,
}

#[derive(Debug, Default)]
pub(super) struct Moves {
    seen: Sightings,
    lately: VecDeque<Move>,
}

/// Moves remembered, each with the answer it displaced.
const MOVES_MAX: usize = 64;
/// Names that shared an address move together when it changes; names from three different addresses
/// do not.
const PLACES: usize = 3;

impl Moves {
    /// When each of these addresses was first seen in an answer; `now` for a new one.
    pub(super) fn first_seen(&mut self, addresses: &[IpAddr], now: Moment) -> Vec<(IpAddr, Moment)> {
        addresses.iter().map(|&address| (address, self.seen.first(address, now))).collect()
    }

    pub(super) fn note(&mut self, addresses: &[IpAddr], now: Moment) {
        for &address in addresses {
            self.seen.first(address, now);
        }
    }

    /// Settles a suspected address. After a false answer the address counts as new again; after a
    /// true one it does not.
    pub(super) fn judge(&mut self, address: IpAddr, a_lie: bool, now: Moment) {
        self.seen.young.remove(&address);
        self.seen.old.remove(&address);
        if !a_lie {
            self.seen.young.insert(address, now - evidence::WINDOW);
        }
    }

    pub(super) fn push(&mut self, moved: Move) {
        self.lately.retain(|old| {
            moved.at.since(old.at) < evidence::WINDOW && old.displaced.key != moved.displaced.key
        });
        if self.lately.len() >= MOVES_MAX {
            self.lately.pop_front();
        }
        self.lately.push_back(moved);
    }

    pub(super) fn many_places(&self, address: IpAddr, now: Moment) -> bool {
        let mut places: Vec<IpAddr> = self
            .lately
            .iter()
            .filter(|moved| moved.to == address && now.since(moved.at) < evidence::WINDOW)
            .map(|moved| moved.from)
            .collect();
        places.sort_unstable();
        places.dedup();
        places.len() >= PLACES
    }

    /// Removes and returns the moves to `address`.
    pub(super) fn take(&mut self, address: IpAddr) -> Vec<Move> {
        let (there, elsewhere) =
            std::mem::take(&mut self.lately).into_iter().partition(|moved| moved.to == address);
        self.lately = elsewhere;
        let there: VecDeque<Move> = there;
        there.into()
    }

    pub(super) fn forget(&mut self) {
        self.lately.clear();
    }
}

/// Addresses seen in answers, in two generations: the older is dropped when the younger is full.
#[derive(Debug, Default)]
struct Sightings {
    young: BTreeMap<IpAddr, Moment>,
    old: BTreeMap<IpAddr, Moment>,
}

const GENERATION: usize = 4_096;

impl Sightings {
    fn first(&mut self, address: IpAddr, now: Moment) -> Moment {
        if let Some(&at) = self.young.get(&address) {
            return at;
        }
        let at = self.old.get(&address).copied().unwrap_or(now);
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(address, at);
        at
    }
}

/// Whether an address is useless as a server address: unspecified, loopback, link-local, broadcast.
pub fn leads_nowhere(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.octets()[0] == 0
                || address.is_loopback()
                || address.is_link_local()
                || address.is_broadcast()
        }
        IpAddr::V6(address) => {
            address.is_unspecified() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}

/// Whether a name has lost at least four fifths of its records (and had at least five).
pub fn shrunk(before: usize, after: usize) -> bool {
    before >= 5 && after * 5 <= before
}
