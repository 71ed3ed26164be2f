//! Fills an empty cache from several threads. Each thread owns some of the shards, so none waits
//! for another and no data passes between them. The eviction order is rebuilt afterwards, from the
//! order of the input.

use parking_lot::RwLockWriteGuard;

use super::{
    Bounds, Cache, Facts,
    entry::{Entry, cost_of},
    queues::Place,
    table::{SHARDS, Shard, Slot, Table, shard_of, slot},
};
use crate::{
    message::wire::{Answer, Verdict},
    moment::Moment,
    workers::Workers,
};

/// An answer read from a snapshot, in the form in which it will be cached.
pub(crate) struct Draft<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) message: &'a [u8],
    pub(crate) answer: &'a Answer,
    pub(crate) learned: Moment,
}

impl Draft<'_> {
    /// Builds the facts and appends the bytes to `block`. `None` if the answer may not be cached.
    pub(super) fn facts(&self, bounds: &Bounds, block: &mut Vec<u8>) -> Option<Facts> {
        let ttl_s = bounds.lifetime_s(self.answer.verdict, self.answer.ttl_s?);
        block.clear();
        Facts::new(block, self.key, self.message, self.answer, ttl_s, self.learned)
    }
}

/// One thread's share of the cache.
pub(crate) struct Filler<'a> {
    table: &'a Table,
    bounds: &'a Bounds,
    /// The shards with the numbers `first`, `first + step`, …
    shards: Vec<RwLockWriteGuard<'a, Shard>>,
    first: usize,
    step: usize,
    block: Vec<u8>,
    placed: Vec<Placed>,
}

/// The outcome for one answer, kept small because there is one for each answer.
struct Placed {
    /// Its position in the input.
    order: u32,
    slot: Slot,
    /// Bytes of the entry that it replaced; zero if the slot is new.
    before: u32,
    after: u32,
}

impl Filler<'_> {
    pub(crate) fn owns(&self, hash: u64) -> bool {
        shard_of(hash) % self.step == self.first
    }

    /// Caches an answer whose hash this filler [owns](Self::owns), unless the cache has a newer
    /// one. Call it in ascending `order`. Returns whether the answer was cached.
    pub(crate) fn put(
        &mut self,
        order: usize,
        hash: u64,
        draft: &Draft<'_>,
        change: impl FnOnce(&mut Facts),
    ) -> bool {
        let Some(mut facts) = draft.facts(self.bounds, &mut self.block) else { return false };
        change(&mut facts);
        let after = facts.cost();
        let number = shard_of(hash);
        let Some(shard) = self.shards.get_mut(number / self.step) else { return false };
        if after > self.bounds.bytes_max / 4 {
            return false;
        }
        let entry = Entry::new(&facts, &self.block);
        let (place, before) = match shard.find_where(hash, |other| other.is_same(entry)) {
            Some(place) => {
                let old = &shard.entries[place];
                if old.learned() > facts.learned() {
                    return false;
                }
                facts.stand_in(old);
                let before = old.cost();
                shard.replace(place, facts, &self.block);
                (place, before)
            }
            None => (shard.add(self.table, hash, None, facts, &self.block), 0),
        };
        // Lossless: a message length and a slot number both fit 32 bits.
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (order, before, after) = (small(order), small(before), small(after));
        self.placed.push(Placed { order, slot: slot(number, place), before, after });
        true
    }
}

impl Cache {
    /// Whether the cache is empty and can hold answers of this total [cost](Cache::cost_at_most)
    /// without evicting any.
    pub(crate) fn can_be_filled_with(&self, bytes: usize) -> bool {
        self.is_empty() && bytes <= self.bounds.bytes_max
    }

    /// Upper bound on the memory for an answer, from its length and record count.
    pub(crate) fn cost_at_most(message_len: usize, records: usize) -> usize {
        cost_of(message_len + 2 * records)
    }

    /// Has `workers` run `work` for each share of the cache. `count` is the number of answers to
    /// come, all of which must fit ([`Self::can_be_filled_with`]).
    pub(crate) fn fill<T: Send>(
        &mut self,
        count: usize,
        shares: usize,
        workers: &impl Workers,
        work: impl Fn(&mut Filler<'_>) -> T + Sync,
    ) -> Vec<T> {
        self.reserve(count);
        let step = shares.clamp(1, SHARDS);
        let mut shares: Vec<_> = (0..step).map(|first| (first, None)).collect();
        workers.each(step, &mut shares, |(first, done)| {
            let mut filler = Filler {
                table: &self.table,
                bounds: &self.bounds,
                shards: self.table.hold(*first, step),
                first: *first,
                step,
                block: Vec::new(),
                placed: Vec::with_capacity(count / step + count / 64),
            };
            *done = Some((work(&mut filler), filler.placed));
        });
        let (results, placed): (Vec<_>, Vec<_>) = shares.into_iter().filter_map(|(_, done)| done).unzip();
        self.link(placed);
        results
    }

    /// Queues what the threads placed (each list is in order) in the order of the input.
    fn link(&mut self, placed: Vec<Vec<Placed>>) {
        let mut shares: Vec<_> = placed.into_iter().map(Vec::into_iter).collect();
        let next =
            |share: &std::vec::IntoIter<Placed>| share.as_slice().first().map_or(u32::MAX, |one| one.order);
        while let Some(Placed { slot, before, after, .. }) =
            shares.iter_mut().min_by_key(|share| next(share)).and_then(Iterator::next)
        {
            let (before, after) = (before as usize, after as usize);
            if before == 0 {
                self.queues.link_newest(slot, Place::Probation, after);
                self.len += 1;
            } else {
                self.queues.resize(slot, before, after);
            }
            self.bytes = self.bytes - before + after;
        }
    }
}

impl Bounds {
    pub(super) fn lifetime_s(&self, verdict: Verdict, ttl_s: u32) -> u32 {
        let most = match verdict {
            Verdict::Positive => self.ttl_max,
            Verdict::NoData | Verdict::NxDomain => self.negative_ttl_max,
        };
        u32::try_from(most.as_secs()).unwrap_or(u32::MAX).min(ttl_s)
    }
}
