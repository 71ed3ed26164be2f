//! Filling an empty cache from several threads: each has shards of its own, so that none waits for another and nothing goes
//! from hand to hand. In which order the entries may be evicted is found out afterwards, from their order in what they
//! were made from.

use parking_lot::RwLockWriteGuard;

use super::{
    Bounds, Cache, Facts,
    entry::{Entry, cost_of},
    queues::QueueKind,
    table::{SHARDS, Shard, Slot, Table, shard_of, slot},
};
use crate::{
    message::wire::{Answer, Verdict},
    moment::Moment,
    workers::Workers,
};

/// An answer that a snapshot remembers, as it will be kept.
pub(crate) struct Draft<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) message: &'a [u8],
    pub(crate) answer: &'a Answer,
    pub(crate) learned: Moment,
}

impl Draft<'_> {
    /// What is known of it; its bytes come to `block`. `None` if it may not be kept.
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
    /// Those with the numbers `first`, `first + step`, …
    shards: Vec<RwLockWriteGuard<'a, Shard>>,
    first: usize,
    step: usize,
    block: Vec<u8>,
    placed: Vec<Placed>,
}

/// What became of an answer, in few bytes: there are as many of these as answers.
struct Placed {
    /// Its place among all that there are.
    order: u32,
    slot: Slot,
    /// Bytes of the entry that it stands in for; none if the slot is new.
    before: u32,
    after: u32,
}

impl Filler<'_> {
    pub(crate) fn owns(&self, hash: u64) -> bool {
        shard_of(hash) % self.step == self.first
    }

    /// Keeps an answer whose hash is one of [`Self::owns`]; one that is there and was learned later stays. To be called in
    /// the order of `order`. False if it is not kept.
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
        // No length is longer than a message's, and no table has more places.
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (order, before, after) = (small(order), small(before), small(after));
        self.placed.push(Placed { order, slot: slot(number, place), before, after });
        true
    }
}

impl Cache {
    /// Whether an empty cache holds so many answers of these costs ([`Cache::cost_at_most`]) without letting any go.
    pub(crate) fn can_be_filled_with(&self, bytes: usize) -> bool {
        self.is_empty() && bytes <= self.bounds.bytes_max
    }

    /// Memory that an answer takes, from its length and its number of records.
    pub(crate) fn cost_at_most(message_len: usize, records: usize) -> usize {
        cost_of(message_len + 2 * records)
    }

    /// Has `work` run for each of so many shares of the cache, by `workers`; `count` is how many answers there will be, all
    /// of which must fit ([`Self::can_be_filled_with`]).
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

    /// Puts into their queue what several threads placed, each in order, in the order of all.
    fn link(&mut self, placed: Vec<Vec<Placed>>) {
        let mut shares: Vec<_> = placed.into_iter().map(Vec::into_iter).collect();
        let next =
            |share: &std::vec::IntoIter<Placed>| share.as_slice().first().map_or(u32::MAX, |one| one.order);
        while let Some(Placed { slot, before, after, .. }) =
            shares.iter_mut().min_by_key(|share| next(share)).and_then(Iterator::next)
        {
            let (before, after) = (before as usize, after as usize);
            if before == 0 {
                self.queues.link_newest(slot, QueueKind::Probation, after);
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
