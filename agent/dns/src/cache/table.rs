//! The entries, where several threads can read them: 64 shards, each with its index, each behind its lock.
//!
//! Readers never wait: [`Table::try_find`] gives up at once if the writer is in that shard. The writer waits for readers,
//! who hold a shard for as long as it takes to copy one answer.

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::{HashTable, hash_table};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use super::{entry::Entry, slab::Slab};
use crate::prefetch::prefetch;

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
        let is_for = |&place: &u32| self.entry(place).is_some_and(|entry| entry.is_for(key));
        self.index.find(hash, is_for).copied()
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
        self.try_find_hashed(key, self.hash_key(key))
    }

    /// The same for a key whose [`Self::hash_key`] is known.
    pub(crate) fn try_find_hashed(&self, key: &[u8], hash: u64) -> Result<Option<Held<'_>>, Busy> {
        let shard = self.shards[shard_of(hash)].try_read().ok_or(Busy)?;
        let Some(place) = shard.find(hash, key) else { return Ok(None) };
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

    pub(super) fn find(&self, key: &[u8]) -> Option<Slot> {
        let hash = self.hash_key(key);
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

    /// Puts a new entry at a free place; returns where. `free` is a place that was used, of that shard.
    pub(super) fn add(&self, entry: Entry, mut free: impl FnMut(usize) -> Option<u32>) -> Slot {
        let hash = self.hash_entry(&entry);
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

    pub(crate) fn hash_key(&self, key: &[u8]) -> u64 {
        key.split_last().map_or(0, |(&flags, question)| self.hash(question, flags))
    }

    fn hash_entry(&self, entry: &Entry) -> u64 {
        self.hash(entry.question(), entry.key_flags())
    }

    fn hash(&self, question: &[u8], flags: u8) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(question);
        hasher.write_u8(flags);
        hasher.finish()
    }
}

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
