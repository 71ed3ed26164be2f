//! The entries, where several threads can read them: 64 shards, each with its index, each behind its lock.
//!
//! Readers never wait: [`Table::try_find`] gives up at once if the writer is in that shard. The writer waits for readers,
//! who hold a shard for as long as it takes to copy one answer.

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::{HashTable, hash_table};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use super::{entry::Entry, slab::Slab};
use crate::{name::key_flags, prefetch::prefetch, wire::Query};

/// Place of an entry: shard in the low bits, place in the shard above. Good until the entry is removed.
pub type Slot = u32;

pub(super) const SHARDS: usize = 64;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();

/// An entry, held so that it stays.
pub type Held<'a> = MappedRwLockReadGuard<'a, Entry>;

/// The writer is at work where the entry would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

#[derive(Default)]
struct Shard {
    index: HashTable<u32>,
    entries: Slab<Option<Entry>>,
}

impl Shard {
    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.find_where(hash, |entry| entry.is_for(key))
    }

    fn find_where(&self, hash: u64, is_it: impl Fn(&Entry) -> bool) -> Option<u32> {
        self.index.find(hash, |&place| self.entry(place).is_some_and(&is_it)).copied()
    }

    fn entry(&self, place: u32) -> Option<&Entry> {
        self.entries.get(place)?.as_ref()
    }
}

pub struct Table {
    // Seeded at random against crafted collisions; nothing that a test can see depends on the order it gives.
    hasher: RandomState,
    shards: Box<[RwLock<Shard>]>,
}

impl Table {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { hasher: RandomState::new(), shards }
    }

    /// For any thread. Do not wait for anything while holding what it returns.
    pub fn try_find(&self, key: &[u8]) -> Result<Option<Held<'_>>, Busy> {
        self.try_find_where(self.hash_key(key), |entry| entry.is_for(key))
    }

    /// The same for a query whose [`Self::hash_query`] is known.
    pub(crate) fn try_find_for(&self, query: &Query<'_>, hash: u64) -> Result<Option<Held<'_>>, Busy> {
        self.try_find_where(hash, |entry| entry.is_for_query(query))
    }

    fn try_find_where(&self, hash: u64, is_it: impl Fn(&Entry) -> bool) -> Result<Option<Held<'_>>, Busy> {
        let shard = self.shards[shard_of(hash)].try_read().ok_or(Busy)?;
        let Some(place) = shard.find_where(hash, is_it) else { return Ok(None) };
        Ok(RwLockReadGuard::try_map(shard, |shard| shard.entry(place)).ok())
    }

    /// Has what these hashes lead to come from memory: first all entries, then all their messages. Leads to nothing more
    /// than a hint, so a shard that is busy is left out.
    pub(crate) fn prefetch(&self, hashes: &(impl Iterator<Item = u64> + Clone)) {
        let each = |seen: fn(&Entry)| {
            for hash in hashes.clone() {
                let Some(shard) = self.shards[shard_of(hash)].try_read() else { continue };
                shard.index.iter_hash(hash).filter_map(|&place| shard.entry(place)).for_each(seen);
            }
        };
        each(prefetch::<Entry>);
        each(Entry::prefetch_message);
    }

    /// `hash` is [`Self::hash_key`] of the key.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let shard = shard_of(hash);
        Some(slot(shard, self.shards[shard].read().find(hash, key)?))
    }

    pub(super) fn get(&self, at: Slot) -> Option<Held<'_>> {
        let (shard, place) = parts(at);
        RwLockReadGuard::try_map(self.shards[shard].read(), |shard| shard.entry(place)).ok()
    }

    /// From this place on, in an order that lasts as long as the places.
    pub(super) fn iter_from(&self, from: Slot) -> impl Iterator<Item = (Slot, Held<'_>)> {
        let (first, start) = parts(from);
        (first..SHARDS).flat_map(move |shard| {
            let places = self.shards[shard].read().entries.len();
            let start = if shard == first { start } else { 0 };
            (start..places).filter_map(move |place| Some((slot(shard, place), self.get(slot(shard, place))?)))
        })
    }

    /// Shows every entry, each shard under one lock: readers go on meanwhile, and this is called by the writer.
    pub(super) fn visit(&self, mut see: impl FnMut(&Entry)) {
        for shard in &self.shards {
            shard.read().entries.iter().flatten().for_each(&mut see);
        }
    }

    /// Puts a new entry at a free place; returns where. `free` is a place that was used, of that shard; `hash` is
    /// [`Self::hash_key`] of the entry's key.
    pub(super) fn add(&self, hash: u64, entry: Entry, mut free: impl FnMut(usize) -> Option<u32>) -> Slot {
        let number = shard_of(hash);
        let shard = &mut *self.shards[number].write();
        let place = free(number).unwrap_or_else(|| shard.entries.grow());
        if let Some(empty) = shard.entries.get_mut(place) {
            *empty = Some(entry);
        }
        let Shard { index, entries } = shard;
        let hash_of = |&place: &u32| {
            entries.get(place).and_then(Option::as_ref).map_or(0, |entry| self.hash_entry(entry))
        };
        index.insert_unique(hash, place, hash_of);
        slot(number, place)
    }

    /// Puts `entry` in the place of an older answer to the same question, which is returned.
    pub(super) fn replace(&self, at: Slot, entry: Entry) -> Option<Entry> {
        let (shard, place) = parts(at);
        self.shards[shard].write().entries.get_mut(place)?.replace(entry)
    }

    pub(super) fn edit(&self, at: Slot, change: impl FnOnce(&mut Entry)) {
        let (shard, place) = parts(at);
        if let Some(entry) = self.shards[shard].write().entries.get_mut(place).and_then(Option::as_mut) {
            change(entry);
        }
    }

    pub(super) fn remove(&self, at: Slot) -> Option<Entry> {
        let (number, place) = parts(at);
        let shard = &mut *self.shards[number].write();
        let entry = shard.entries.get_mut(place)?.take()?;
        let hash = self.hash_entry(&entry);
        if let Ok(found) = shard.index.find_entry(hash, |&other| other == place) {
            hash_table::OccupiedEntry::remove(found);
        }
        Some(entry)
    }

    /// Holds the shard of an entry as the writer does.
    #[cfg(test)]
    pub(super) fn hold(&self, at: Slot) -> impl Drop + '_ {
        struct Hold<'a>(#[expect(dead_code, reason = "held")] parking_lot::RwLockWriteGuard<'a, Shard>);
        impl Drop for Hold<'_> {
            fn drop(&mut self) {}
        }
        Hold(self.shards[parts(at).0].write())
    }

    pub(super) fn hash_key(&self, key: &[u8]) -> u64 {
        key.split_last_chunk().map_or(0, |(name, tail)| self.hash(name, *tail))
    }

    fn hash_entry(&self, entry: &Entry) -> u64 {
        let Some((name, &[k0, k1, c0, c1])) = entry.question().split_last_chunk() else { return 0 };
        self.hash(name, [k0, k1, c0, c1, entry.key_flags()])
    }

    /// That of the query's key.
    pub(crate) fn hash_query(&self, query: &Query<'_>) -> u64 {
        let ([k0, k1], [c0, c1]) = (query.question.kind.to_be_bytes(), query.question.class.to_be_bytes());
        self.hash(query.question.name, [k0, k1, c0, c1, key_flags(query)])
    }

    /// Of a name in any case, and type, class and flags.
    fn hash(&self, name: &[u8], tail: [u8; 5]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for piece in name.chunks(PIECE) {
            let mut lower = [0; PIECE];
            lower[..piece.len()].copy_from_slice(piece);
            // A length byte is at most 63, below 'A'. All of it at once: of a fixed length the compiler makes few instructions.
            lower.make_ascii_lowercase();
            hasher.write(&lower[..piece.len()]);
        }
        hasher.write(&tail);
        hasher.finish()
    }
}

/// Names are seldom longer.
const PIECE: usize = 64;

/// hashbrown uses the hash's lowest and highest bits, so the shard comes from the middle.
fn shard_of(hash: u64) -> usize {
    usize::try_from((hash >> 32) % SHARDS as u64).unwrap_or(0)
}

pub(super) fn slot(shard: usize, place: u32) -> Slot {
    place << SHARD_BITS | u32::try_from(shard).unwrap_or(0)
}

pub(super) fn parts(slot: Slot) -> (usize, u32) {
    ((slot % (1 << SHARD_BITS)) as usize, slot >> SHARD_BITS)
}
