//! Answers from upstreams, kept byte for byte, and how long each may be used.
//!
//! Promises:
//!
//! - An entry stays when its TTL runs out. It is then the *last known good* answer, which may be
//!   served stale until `max_stale`.
//! - The bytes of all entries stay below a cap. The entry evicted is one that was not used lately,
//!   never one because it is stale: in an outage, stale entries are all there is. Names asked for
//!   only once do not push out names in use (`queues.rs`).
//! - Pinned entries are never evicted, and take at most half of the cap.
//! - Only answers are cached (positive, NXDOMAIN, NODATA), never errors, so no error can displace
//!   an answer.
//!
//! One writer, many readers: the writer owns [`Cache`]; the answering threads share its [`Table`].

mod blocks;
mod entry;
mod fill;
mod prefetch;
mod queues;
mod slab;
mod table;
#[cfg(test)]
mod tests;

use std::{hash::RandomState, sync::Arc, time::Duration};

pub(crate) use self::fill::Draft;
use self::queues::{QueueKind, Queues};
pub use self::{
    entry::{Entry, Facts},
    table::{Busy, EntryRef, Slot, Table},
};
use crate::{message::wire::Answer, moment::Moment};

/// Bounds on lifetimes (RFC 8767 §5, RFC 2308 §5).
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Limits how long a wrong answer can stay.
    pub ttl_max: Duration,
    /// The same for negative answers.
    pub negative_ttl_max: Duration,
    pub bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ttl_max: Duration::from_hours(24),
            // A name that did not exist is often about to be created, so keep the error
            // short-lived.
            negative_ttl_max: Duration::from_mins(15),
            bytes_max: 32 << 20,
        }
    }
}

/// The cache as its one writer uses it.
pub struct Cache {
    bounds: Bounds,
    table: Arc<Table>,
    queues: Queues,
    len: usize,
    bytes: usize,
    pinned_bytes: usize,
    pub evicted: u64,
    /// Buffer in which the bytes of a new entry are assembled.
    block: Vec<u8>,
}

impl Cache {
    /// Creates an empty cache. The hash keys must be secret, or clients could choose names that
    /// collide.
    pub fn new(bounds: Bounds, hash_keys: RandomState) -> Self {
        Self {
            bounds,
            table: Arc::new(Table::new(hash_keys)),
            queues: Queues::new(),
            len: 0,
            bytes: 0,
            pinned_bytes: 0,
            evicted: 0,
            block: Vec::new(),
        }
    }

    /// The part shared with reader threads.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.evict(None);
    }

    pub fn find(&self, key: &[u8]) -> Option<Slot> {
        self.table.find(self.table.hash_key(key), key)
    }

    /// Returns the entry and locks its shard: drop it before changing the cache (the borrow checker
    /// enforces this).
    pub fn get(&self, slot: Slot) -> Option<EntryRef<'_>> {
        self.table.get(slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, EntryRef<'_>)> {
        self.iter_from(0)
    }

    /// From this slot on, for listing the cache in parts. Changes made between the parts may be
    /// missed.
    pub fn iter_from(&self, from: Slot) -> impl Iterator<Item = (Slot, EntryRef<'_>)> {
        self.table.iter_from(from)
    }

    /// Visits every entry; several times as fast as [`Self::iter`].
    pub(crate) fn visit(&self, see: impl FnMut(Entry<'_>)) {
        self.table.visit(see);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of all entries, including allocator overhead.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Caches an answer received at `learned`, replacing any older one. `None` if it may not be
    /// cached or is too big.
    pub fn insert(&mut self, key: &[u8], message: &[u8], answer: &Answer, learned: Moment) -> Option<Slot> {
        let ttl_s = self.bounds.lifetime_s(answer.verdict, answer.ttl_s?);
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        let slot = Facts::new(&mut block, key, message, answer, ttl_s, learned).and_then(|mut facts| {
            let hash = self.table.hash_key(key);
            let held = self.table.find(hash, key);
            if let Some(old) = held.and_then(|slot| self.get(slot)) {
                facts.follow(&old);
            }
            self.put(hash, held, facts, &block)
        });
        self.block = block;
        slot
    }

    /// Caches an answer from a snapshot, unless the cache has a newer one.
    pub(crate) fn insert_draft(
        &mut self,
        draft: &Draft<'_>,
        change: impl FnOnce(&mut Facts),
    ) -> Option<Slot> {
        let mut block = std::mem::take(&mut self.block);
        let slot = draft.facts(&self.bounds, &mut block).and_then(|mut facts| {
            change(&mut facts);
            let hash = self.table.hash_key(draft.key);
            let held = self.table.find(hash, draft.key);
            if let Some(old) = held.and_then(|slot| self.get(slot)) {
                if old.learned() > facts.learned() {
                    return None;
                }
                facts.stand_in(&old);
            }
            self.put(hash, held, facts, &block)
        });
        self.block = block;
        slot
    }

    /// `held` is the slot of an older answer; `hash` is the table's hash of the key.
    fn put(&mut self, hash: u64, held: Option<Slot>, facts: Facts, block: &[u8]) -> Option<Slot> {
        let cost = facts.cost();
        if cost > self.bounds.bytes_max / 4 {
            return None;
        }
        let slot = if let Some(slot) = held {
            self.replace(slot, facts, block);
            slot
        } else {
            let slot = self.table.add(hash, facts, block, |shard| self.queues.take_free(shard));
            self.queues.link_newest(slot, QueueKind::Probation, cost);
            self.len += 1;
            self.bytes += cost;
            slot
        };
        self.evict(Some(slot));
        Some(slot)
    }

    /// Reserves room for `more` answers, as far as the cap allows.
    fn reserve(&mut self, more: usize) {
        self.table.reserve(more.min(self.bounds.bytes_max / COST_MIN));
    }

    /// Changes an entry's bookkeeping; its block stays.
    pub(crate) fn edit(&mut self, slot: Slot, change: impl FnOnce(&mut Facts)) {
        self.table.edit(slot, change);
    }

    /// Applies [`Facts::pass_unseen`] to all entries.
    pub(crate) fn pass_unseen(&mut self, unseen: Duration, now: Moment) {
        let all: Vec<Slot> = self.iter().map(|(slot, _)| slot).collect();
        for slot in all {
            self.edit(slot, |entry| entry.pass_unseen(unseen, now));
        }
    }

    /// Removes an entry. False if there is none.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let Some(facts) = self.table.remove(slot) else { return false };
        let cost = facts.cost();
        if facts.pinned() {
            self.pinned_bytes -= cost;
        } else {
            self.queues.unlink(slot, cost);
        }
        self.queues.give_back(slot);
        self.len -= 1;
        self.bytes -= cost;
        true
    }

    /// Pins an entry, or unpins it. False if pinned entries already take half of the cap.
    pub fn pin(&mut self, slot: Slot, pinned: bool) -> bool {
        let Some((was, cost)) = self.get(slot).map(|entry| (entry.pinned(), entry.cost())) else {
            return false;
        };
        if was == pinned {
            return true;
        }
        if pinned {
            if self.pinned_bytes + cost > self.bounds.bytes_max / 2 {
                return false;
            }
            self.queues.unlink(slot, cost);
            self.pinned_bytes += cost;
        } else {
            self.queues.link_newest(slot, QueueKind::Probation, cost);
            self.pinned_bytes -= cost;
        }
        if let Some(entry) = self.get(slot) {
            entry.set_pinned(pinned);
        }
        true
    }

    /// A refreshed entry keeps its place in its queue.
    fn replace(&mut self, slot: Slot, facts: Facts, block: &[u8]) {
        let before = self.get(slot).map_or(0, |old| old.cost());
        let (pinned, after) = (facts.pinned(), facts.cost());
        self.table.replace(slot, facts, block);
        if pinned {
            self.pinned_bytes = self.pinned_bytes - before + after;
        } else {
            self.queues.resize(slot, before, after);
        }
        self.bytes = self.bytes - before + after;
    }

    /// Evicts entries until the rest fit the cap, but never evicts `spare`.
    fn evict(&mut self, spare: Option<Slot>) {
        while self.bytes > self.bounds.bytes_max
            && let Some(victim) = self.victim(spare)
        {
            self.remove(victim);
            self.evicted += 1;
        }
    }

    fn victim(&mut self, spare: Option<Slot>) -> Option<Slot> {
        // Four passes clear all visits. The limit stops readers that keep adding visits from
        // holding us here.
        let mut rounds = 5 * self.len + 2;
        loop {
            rounds = rounds.checked_sub(1)?;
            let crowded = self.queues.bytes(QueueKind::Probation) > self.bounds.bytes_max / PROBATION_SHARE;
            let main_is_empty = self.queues.oldest(QueueKind::Main).is_none();
            let on_probation =
                self.queues.oldest_but(spare, QueueKind::Probation).filter(|_| crowded || main_is_empty);
            if let Some(slot) = on_probation {
                let (asked_again, cost) = self.get(slot).map(|entry| (entry.asked_again(), entry.cost()))?;
                if !asked_again {
                    return Some(slot);
                }
                self.queues.unlink(slot, cost);
                self.queues.link_newest(slot, QueueKind::Main, cost);
            } else if let Some(slot) = self.queues.turn() {
                if Some(slot) != spare && !self.get(slot)?.take_visit() {
                    return Some(slot);
                }
            } else {
                // Everything else is pinned, or only `spare` is left.
                return None;
            }
        }
    }
}

/// Share of the cap that entries on probation may take before they are evicted first (as in
/// S3-FIFO).
const PROBATION_SHARE: usize = 10;
/// The least memory an entry can take.
const COST_MIN: usize = 80;
