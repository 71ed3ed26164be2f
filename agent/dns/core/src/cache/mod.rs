//! What upstreams said, as they said it, and how long it may be used.
//!
//! Promises: an entry stays when its TTL runs out: it is then the *last known good* answer, to be served stale until
//! `max_stale`. The bytes of all entries together stay below a cap; the victim is one that nobody asked for lately, never
//! one because it is stale: in an outage the stale ones are all there is. What is asked for once does not push out what is
//! in use (`queues.rs`). Pinned entries are never evicted, and take half of the cap at most.
//! Only answers get in (positive, NXDOMAIN, NODATA); errors never do, so no error can displace an answer.
//!
//! One writer, many readers: [`Cache`] is the writer's, and not shared; threads that answer hold its [`Table`].

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
    /// Nobody wants to wait longer for a correction.
    pub ttl_max: Duration,
    /// The same for answers that say no.
    pub negative_ttl_max: Duration,
    pub bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ttl_max: Duration::from_hours(24),
            // A name that did not exist is often one that is about to: keep the error short-lived.
            negative_ttl_max: Duration::from_mins(15),
            bytes_max: 32 << 20,
        }
    }
}

/// The writer's side.
pub struct Cache {
    bounds: Bounds,
    table: Arc<Table>,
    queues: Queues,
    len: usize,
    bytes: usize,
    pinned_bytes: usize,
    pub evicted: u64,
    /// Where the bytes of a new entry are put together.
    block: Vec<u8>,
}

impl Cache {
    /// An empty cache. Nobody may guess the hash keys, or clients could choose names that collide.
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

    /// What readers in other threads hold.
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

    /// The entry, held: let go of it before the cache is changed (the borrow checker sees to that).
    pub fn get(&self, slot: Slot) -> Option<EntryRef<'_>> {
        self.table.get(slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, EntryRef<'_>)> {
        self.iter_from(0)
    }

    /// From this place on: for who lists the cache in parts. Changes between the parts may be missed or seen.
    pub fn iter_from(&self, from: Slot) -> impl Iterator<Item = (Slot, EntryRef<'_>)> {
        self.table.iter_from(from)
    }

    /// Shows every entry, for who wants to count them: several times as fast as [`Self::iter`].
    pub(crate) fn visit(&self, see: impl FnMut(Entry<'_>)) {
        self.table.visit(see);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of all entries, with what the allocator adds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Keeps an answer learned at `learned`, in place of what was there. `None` if it may not be kept or is too big.
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

    /// Keeps what a snapshot remembers; an answer that is there and was learned later stays.
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

    /// `held` is where an older answer is, `hash` the table's of the key.
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

    /// Makes room for so many more answers, as far as the cap lets them in.
    fn reserve(&mut self, more: usize) {
        self.table.reserve(more.min(self.bounds.bytes_max / COST_MIN));
    }

    /// Changes what an entry knows of itself; its block stays.
    pub(crate) fn edit(&mut self, slot: Slot, change: impl FnOnce(&mut Facts)) {
        self.table.edit(slot, change);
    }

    /// [`Facts::pass_unseen`] for all.
    pub(crate) fn pass_unseen(&mut self, unseen: Duration, now: Moment) {
        let all: Vec<Slot> = self.iter().map(|(slot, _)| slot).collect();
        for slot in all {
            self.edit(slot, |entry| entry.pass_unseen(unseen, now));
        }
    }

    /// Takes an answer out. False if it is not there.
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

    /// Keeps an entry out of eviction's way, or lets it go again. False if pinned entries take half of the cap already.
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

    /// Drops entries until no more than the cap is kept, but never `spare`.
    fn evict(&mut self, spare: Option<Slot>) {
        while self.bytes > self.bounds.bytes_max
            && let Some(victim) = self.victim(spare)
        {
            self.remove(victim);
            self.evicted += 1;
        }
    }

    fn victim(&mut self, spare: Option<Slot>) -> Option<Slot> {
        // Four times round takes all visits off; readers that come again meanwhile must not keep us here.
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
                // All else is pinned, or nothing is left but the spare one.
                return None;
            }
        }
    }
}

/// Entries on probation may take a tenth of the cap before they are the ones to go (S3-FIFO's share).
const PROBATION_SHARE: usize = 10;
/// The least that an entry takes.
const COST_MIN: usize = 80;
