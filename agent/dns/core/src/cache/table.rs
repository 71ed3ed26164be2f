//! The entries, shared between threads: 64 shards, each with an index and a lock.
//!
//! Readers never wait: [`Table::try_find`] gives up at once if the writer is in that shard. The
//! writer waits for readers, which hold a shard only as long as it takes to copy one answer.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    ops::Deref,
};

use hashbrown::{HashTable, hash_table};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{
    blocks::Blocks,
    entry::{Entry, Facts},
    slab::Slab,
};
use crate::{
    cache::prefetch::prefetch,
    message::{
        name::{self, Key, key_flags},
        reply::Kept,
        wire::{self, Query},
    },
};

/// Identifies an entry: shard in the low bits, place in the shard above. Valid until the entry is
/// removed.
pub type Slot = u32;

pub(super) const SHARDS: usize = 64;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();

/// An entry, with its shard locked for reading.
pub struct Held<'a> {
    shard: RwLockReadGuard<'a, Shard>,
    place: u32,
}

impl<'a> Held<'a> {
    fn new(shard: RwLockReadGuard<'a, Shard>, place: u32) -> Option<Self> {
        shard.entry(place).is_some().then_some(Self { shard, place })
    }

    pub fn entry(&self) -> Entry<'_> {
        let facts = &**self;
        Entry::new(facts, self.shard.blocks.get(facts.block, facts.block_len()))
    }

    pub fn key(&self) -> Key {
        self.entry().key()
    }

    pub fn kept(&self) -> Kept<'_> {
        self.entry().kept()
    }
}

impl Deref for Held<'_> {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.shard.entries[self.place]
    }
}

/// The writer is using the shard where the entry would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

#[derive(Default)]
pub(super) struct Shard {
    index: HashTable<u32>,
    pub(super) entries: Slab<Facts>,
    blocks: Blocks,
}

impl Shard {
    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.find_where(hash, |entry| entry.is_for(key))
    }

    pub(super) fn find_where(&self, hash: u64, is_it: impl Fn(Entry<'_>) -> bool) -> Option<u32> {
        self.index.find(hash, |&place| self.entry(place).is_some_and(&is_it)).copied()
    }

    fn facts(&self, place: u32) -> Option<&Facts> {
        self.entries.get(place).filter(|facts| !facts.is_none())
    }

    fn entry(&self, place: u32) -> Option<Entry<'_>> {
        let facts = self.facts(place)?;
        Some(Entry::new(facts, self.blocks.get(facts.block, facts.block_len())))
    }

    /// Adds an entry at `free`, a place used before, or at a new one. Returns the place.
    pub(super) fn add(
        &mut self,
        table: &Table,
        hash: u64,
        free: Option<u32>,
        mut facts: Facts,
        block: &[u8],
    ) -> u32 {
        let place = free.unwrap_or_else(|| self.entries.grow());
        facts.block = self.blocks.add(block);
        self.entries[place] = facts;
        let Self { index, entries, blocks } = self;
        index.insert_unique(hash, place, |&place| {
            let facts = &entries[place];
            table.hash_entry(Entry::new(facts, blocks.get(facts.block, facts.block_len())))
        });
        place
    }

    /// Replaces an older answer to the same question.
    pub(super) fn replace(&mut self, place: u32, mut facts: Facts, block: &[u8]) {
        facts.block = self.blocks.replace(self.entries[place].block, block);
        self.entries[place] = facts;
    }
}

pub struct Table {
    // With secret keys, against crafted collisions. No test depends on the order that results.
    hasher: RandomState,
    shards: Box<[RwLock<Shard>]>,
}

impl Table {
    pub(super) fn new(hasher: RandomState) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { hasher, shards }
    }

    /// Callable from any thread. Do not block while holding the result.
    pub fn try_find(&self, key: &[u8]) -> Result<Option<Held<'_>>, Busy> {
        self.try_find_where(self.hash_key(key), |entry| entry.is_for(key))
    }

    /// The same for a query with a known [`Self::hash_query`].
    pub(crate) fn try_find_for(&self, query: &Query<'_>, hash: u64) -> Result<Option<Held<'_>>, Busy> {
        self.try_find_where(hash, |entry| entry.is_for_query(query))
    }

    fn try_find_where(&self, hash: u64, is_it: impl Fn(Entry<'_>) -> bool) -> Result<Option<Held<'_>>, Busy> {
        let shard = self.shards[shard_of(hash)].try_read().ok_or(Busy)?;
        let Some(place) = shard.find_where(hash, is_it) else { return Ok(None) };
        Ok(Held::new(shard, place))
    }

    /// Prefetches the entries for these hashes into the CPU cache: first all entries, then all
    /// their messages. It is only a hint, so busy shards are skipped.
    pub(crate) fn prefetch(&self, hashes: &(impl Iterator<Item = u64> + Clone)) {
        let each = |see: fn(&Shard, u32)| {
            for hash in hashes.clone() {
                let Some(shard) = self.shards[shard_of(hash)].try_read() else { continue };
                shard.index.iter_hash(hash).for_each(|&place| see(&shard, place));
            }
        };
        each(|shard, place| shard.facts(place).into_iter().for_each(prefetch));
        each(|shard, place| shard.entry(place).iter().for_each(Entry::prefetch_message));
    }

    /// `hash` is [`Self::hash_key`] of the key.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let shard = shard_of(hash);
        Some(slot(shard, self.shards[shard].read().find(hash, key)?))
    }

    pub(super) fn get(&self, at: Slot) -> Option<Held<'_>> {
        let (shard, place) = parts(at);
        Held::new(self.shards[shard].read(), place)
    }

    /// From this slot on, in an order that is stable as long as no entry is added or removed.
    pub(super) fn iter_from(&self, from: Slot) -> impl Iterator<Item = (Slot, Held<'_>)> {
        let (first, start) = parts(from);
        (first..SHARDS).flat_map(move |shard| {
            let places = self.shards[shard].read().entries.len();
            let start = if shard == first { start } else { 0 };
            (start..places).filter_map(move |place| Some((slot(shard, place), self.get(slot(shard, place))?)))
        })
    }

    /// Visits every entry, taking each shard's lock once. Readers can continue; only the writer
    /// calls this.
    pub(super) fn visit(&self, mut see: impl FnMut(Entry<'_>)) {
        for shard in &self.shards {
            let shard = shard.read();
            (0..shard.entries.len()).filter_map(|place| shard.entry(place)).for_each(&mut see);
        }
    }

    /// Adds an entry and returns its slot. `free` returns a free place of the given shard; `hash`
    /// is [`Self::hash_key`] of the entry's key.
    pub(super) fn add(
        &self,
        hash: u64,
        facts: Facts,
        block: &[u8],
        mut free: impl FnMut(usize) -> Option<u32>,
    ) -> Slot {
        let number = shard_of(hash);
        slot(number, self.shards[number].write().add(self, hash, free(number), facts, block))
    }

    /// Locks the shards with the numbers `first`, `first + step`, … for writing.
    pub(super) fn hold(&self, first: usize, step: usize) -> Vec<RwLockWriteGuard<'_, Shard>> {
        self.shards.iter().skip(first).step_by(step).map(RwLock::write).collect()
    }

    /// Makes room in the indexes for `more` entries.
    pub(super) fn reserve(&self, more: usize) {
        for shard in &self.shards {
            let shard = &mut *shard.write();
            // Shards fill unevenly: allow a few standard deviations above the mean.
            let each = more / SHARDS;
            let Shard { index, entries, blocks } = shard;
            index.reserve(each + 4 * each.isqrt(), |&place| {
                let facts = &entries[place];
                self.hash_entry(Entry::new(facts, blocks.get(facts.block, facts.block_len())))
            });
        }
    }

    /// Replaces an older answer to the same question.
    pub(super) fn replace(&self, at: Slot, facts: Facts, block: &[u8]) {
        let (shard, place) = parts(at);
        self.shards[shard].write().replace(place, facts, block);
    }

    pub(super) fn edit(&self, at: Slot, change: impl FnOnce(&mut Facts)) {
        let (shard, place) = parts(at);
        let shard = &mut *self.shards[shard].write();
        if shard.facts(place).is_some() {
            change(&mut shard.entries[place]);
        }
    }

    /// Removes an entry and frees its bytes; returns its facts.
    pub(super) fn remove(&self, at: Slot) -> Option<Facts> {
        let (number, place) = parts(at);
        let shard = &mut *self.shards[number].write();
        let hash = self.hash_entry(shard.entry(place)?);
        if let Ok(found) = shard.index.find_entry(hash, |&other| other == place) {
            hash_table::OccupiedEntry::remove(found);
        }
        let facts = std::mem::take(&mut shard.entries[place]);
        shard.blocks.give_back(facts.block);
        Some(facts)
    }

    /// Locks the entry's shard for writing.
    #[cfg(test)]
    pub(super) fn hold_shard_of(&self, at: Slot) -> impl Drop + '_ {
        struct Hold<'a>(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'a, Shard>);
        impl Drop for Hold<'_> {
            fn drop(&mut self) {}
        }
        Hold(self.shards[parts(at).0].write())
    }

    pub(super) fn hash_key(&self, key: &[u8]) -> u64 {
        key.split_last_chunk().map_or(0, |(name, tail)| self.hash(name, *tail))
    }

    fn hash_entry(&self, entry: Entry<'_>) -> u64 {
        let Some((name, &[k0, k1, c0, c1])) = entry.question().split_last_chunk() else { return 0 };
        self.hash(name, [k0, k1, c0, c1, entry.key_flags()])
    }

    /// The hash of the query's key.
    pub(crate) fn hash_query(&self, query: &Query<'_>) -> u64 {
        let ([k0, k1], [c0, c1]) = (query.question.kind.to_be_bytes(), query.question.class.to_be_bytes());
        self.hash(query.question.name, [k0, k1, c0, c1, key_flags(query)])
    }

    /// The hash of the key of a message's question; 0 if it has none.
    pub(crate) fn hash_message(&self, message: &[u8], dnssec_ok: bool, checking_disabled: bool) -> u64 {
        let Some((question, _)) = wire::read_question(message) else { return 0 };
        let ([k0, k1], [c0, c1]) = (question.kind.to_be_bytes(), question.class.to_be_bytes());
        self.hash(question.name, [k0, k1, c0, c1, name::flags(dnssec_ok, checking_disabled)])
    }

    /// Hashes a name regardless of case, plus type, class and flags.
    fn hash(&self, name: &[u8], tail: [u8; 5]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for piece in name.chunks(PIECE) {
            let mut lower = [0; PIECE];
            lower[..piece.len()].copy_from_slice(piece);
            // A length byte is at most 63, so below 'A'. Lowering the whole fixed-size array lets
            // the compiler vectorise.
            lower.make_ascii_lowercase();
            hasher.write(&lower[..piece.len()]);
        }
        hasher.write(&tail);
        hasher.finish()
    }
}

/// Names are rarely longer.
const PIECE: usize = 64;

/// hashbrown uses the hash's lowest and highest bits, so the shard comes from the middle.
pub(super) fn shard_of(hash: u64) -> usize {
    usize::try_from((hash >> 32) % SHARDS as u64).unwrap_or(0)
}

pub(super) fn slot(shard: usize, place: u32) -> Slot {
    place << SHARD_BITS | u32::try_from(shard).unwrap_or(0)
}

pub(super) fn parts(slot: Slot) -> (usize, u32) {
    ((slot % (1 << SHARD_BITS)) as usize, slot >> SHARD_BITS)
}
