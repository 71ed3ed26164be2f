//! What upstreams said, as they said it, and how long it may be used.
//!
//! Promises: an entry stays when its TTL runs out: it is then the *last known good* answer, to be served stale until
//! `max_stale`. The bytes of all entries together stay below a cap; the victim is the entry nobody asked for lately
//! (SIEVE: Zhang et al., NSDI 2024), never one because it is stale: in an outage the stale ones are all there is.
//! Only answers get in (positive, NXDOMAIN, NODATA); errors never do, so no error can displace an answer.
//!
//! One allocation an entry: key, message, TTL offsets in one block; the index is 32-bit slot numbers.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use hashbrown::HashTable;

use crate::{
    moment::Moment,
    reply::Kept,
    wire::{Answer, Verdict},
};

/// Place of an entry. Good until the next [`Cache::insert`] or [`Cache::remove`].
pub type Slot = u32;

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

/// One answer.
pub struct Entry {
    /// Key, message, TTL offsets (16-bit little-endian).
    block: Box<[u8]>,
    key_len: u16,
    message_len: u16,
    pub verdict: Verdict,
    /// When it came from upstream.
    pub learned: Moment,
    ttl_s: u32,
    /// A failed refresh is not tried again before (RFC 8767 §5, failure recheck timer).
    pub recheck_at: Moment,
    pub last_used: Moment,
    /// Answers given from this entry since it was learned.
    pub uses: u16,
    /// Answers given from its predecessors; halves with each refresh.
    pub past_uses: u16,
    /// Waits in the refresh queue.
    pub queued: bool,
    visited: bool,
    older: Slot,
    newer: Slot,
}

const NONE: Slot = Slot::MAX;
/// What an entry costs beyond its block: itself, its slot in the index, the allocator's header.
const ENTRY_OVERHEAD: usize = size_of::<Option<Entry>>() + 8 + 16;

impl Entry {
    pub fn key(&self) -> &[u8] {
        &self.block[..usize::from(self.key_len)]
    }

    pub fn kept(&self) -> Kept<'_> {
        let (message, ttl_offsets) =
            self.block[usize::from(self.key_len)..].split_at(usize::from(self.message_len));
        Kept { message, ttl_offsets }
    }

    pub fn ttl(&self) -> Duration {
        Duration::from_secs(u64::from(self.ttl_s))
    }

    pub fn expires(&self) -> Moment {
        self.learned + self.ttl()
    }

    /// How far past its TTL; `None` while fresh.
    pub fn stale_for(&self, now: Moment) -> Option<Duration> {
        (now >= self.expires()).then(|| now.since(self.expires()))
    }

    /// How much it is asked for, over more than one lifetime.
    pub fn popularity(&self) -> u32 {
        u32::from(self.uses) + u32::from(self.past_uses)
    }

    /// Notes that it answered somebody.
    pub fn touch(&mut self, now: Moment) {
        self.visited = true;
        self.uses = self.uses.saturating_add(1);
        self.last_used = now;
    }

    fn cost(&self) -> usize {
        self.block.len() + ENTRY_OVERHEAD
    }
}

pub struct Cache {
    bounds: Bounds,
    // Seeded at random against crafted collisions; nothing that a test can see depends on the order it gives.
    hasher: RandomState,
    index: HashTable<Slot>,
    slots: Vec<Option<Entry>>,
    free: Vec<Slot>,
    newest: Slot,
    oldest: Slot,
    /// Where SIEVE looks next for a victim.
    hand: Slot,
    bytes: usize,
    pub evicted: u64,
}

impl Cache {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            hasher: RandomState::new(),
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
            bytes: 0,
            evicted: 0,
        }
    }

    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.evict_to(self.bounds.bytes_max, NONE);
    }

    pub fn find(&self, key: &[u8]) -> Option<Slot> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |&slot| self.get(slot).is_some_and(|entry| entry.key() == key)).copied()
    }

    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        (0..).zip(&self.slots).filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps an answer learned at `learned`, in place of what was there. `None` if it may not be kept or is too big.
    pub fn insert(&mut self, key: &[u8], message: &[u8], answer: &Answer, learned: Moment) -> Option<Slot> {
        let ttl_s = self.lifetime_s(answer.verdict, answer.ttl_s?);
        let message = message.get(..answer.len)?;
        let mut block = Vec::with_capacity(key.len() + message.len() + 2 * answer.ttl_offsets.len());
        block.extend_from_slice(key);
        block.extend_from_slice(message);
        block.extend(answer.ttl_offsets.iter().flat_map(|offset| offset.to_le_bytes()));
        // The count in the header must not promise the OPT record that was cut off.
        block.get_mut(key.len() + 10..key.len() + 12)?.copy_from_slice(&answer.additionals.to_be_bytes());
        let entry = Entry {
            block: block.into_boxed_slice(),
            key_len: u16::try_from(key.len()).ok()?,
            message_len: u16::try_from(message.len()).ok()?,
            verdict: answer.verdict,
            learned,
            ttl_s,
            recheck_at: learned,
            last_used: learned,
            uses: 0,
            past_uses: 0,
            queued: false,
            visited: false,
            older: NONE,
            newer: NONE,
        };
        if entry.cost() > self.bounds.bytes_max / 4 {
            return None;
        }
        let slot = match self.find(key) {
            Some(slot) => self.replace(slot, entry),
            None => self.add(entry),
        };
        self.evict_to(self.bounds.bytes_max, slot);
        Some(slot)
    }

    pub fn remove(&mut self, slot: Slot) -> Option<Entry> {
        let hash = self.hasher.hash_one(self.get(slot)?.key());
        if let Ok(found) = self.index.find_entry(hash, |&other| other == slot) {
            found.remove();
        }
        self.unlink(slot);
        let entry = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.bytes -= entry.cost();
        Some(entry)
    }

    fn lifetime_s(&self, verdict: Verdict, ttl_s: u32) -> u32 {
        let most = match verdict {
            Verdict::Positive => self.bounds.ttl_max,
            Verdict::NoData | Verdict::NxDomain => self.bounds.negative_ttl_max,
        };
        u32::try_from(most.as_secs()).unwrap_or(u32::MAX).min(ttl_s)
    }

    /// A refreshed entry keeps its place in the queue and its popularity.
    fn replace(&mut self, slot: Slot, mut entry: Entry) -> Slot {
        let Some(place) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return slot };
        entry.past_uses = place.past_uses / 2 + place.uses.min(u16::MAX / 2);
        entry.last_used = place.last_used;
        (entry.visited, entry.older, entry.newer) = (place.visited, place.older, place.newer);
        self.bytes = self.bytes + entry.cost() - place.cost();
        *place = entry;
        slot
    }

    fn add(&mut self, entry: Entry) -> Slot {
        self.bytes += entry.cost();
        let hash = self.hasher.hash_one(entry.key());
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(entry);
            slot
        } else {
            self.slots.push(Some(entry));
            Slot::try_from(self.slots.len() - 1).expect("the byte cap holds far fewer than 2^32 entries")
        };
        let (hasher, slots) = (&self.hasher, &self.slots);
        self.index.insert_unique(hash, slot, |&other| {
            slots[other as usize].as_ref().map_or(0, |entry| hasher.hash_one(entry.key()))
        });
        let newest = self.newest;
        self.link(slot, newest, NONE);
        slot
    }

    /// Drops entries until `limit` bytes are kept: from the oldest on, the first not asked for since the hand came by.
    fn evict_to(&mut self, limit: usize, spare: Slot) {
        while self.bytes > limit && self.len() > 1 {
            let slot = if self.hand == NONE { self.oldest } else { self.hand };
            let Some(entry) = self.get_mut(slot) else { return };
            self.hand = entry.newer;
            let Some(entry) = self.get_mut(slot) else { return };
            if slot == spare {
                continue;
            }
            if entry.visited {
                entry.visited = false;
                continue;
            }
            self.remove(slot);
            self.evicted += 1;
        }
    }

    fn link(&mut self, slot: Slot, older: Slot, newer: Slot) {
        if let Some(entry) = self.get_mut(slot) {
            (entry.older, entry.newer) = (older, newer);
        }
        match self.get_mut(older) {
            Some(entry) => entry.newer = slot,
            None => self.oldest = slot,
        }
        match self.get_mut(newer) {
            Some(entry) => entry.older = slot,
            None => self.newest = slot,
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let Some((older, newer)) = self.get(slot).map(|entry| (entry.older, entry.newer)) else { return };
        if self.hand == slot {
            self.hand = newer;
        }
        match self.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn answer(ttl_s: u32) -> Answer {
        Answer {
            verdict: Verdict::Positive,
            ttl_s: Some(ttl_s),
            len: 40,
            additionals: 0,
            ttl_offsets: vec![20],
        }
    }

    fn cache(bytes_max: usize) -> Cache {
        Cache::new(Bounds { bytes_max, ..Bounds::default() })
    }

    fn insert(cache: &mut Cache, key: &[u8]) -> Option<Slot> {
        cache.insert(key, &[0; 40], &answer(60), Moment::START)
    }

    #[test]
    fn lifetimes_are_bounded_and_what_may_not_be_kept_is_not() {
        let mut cache = cache(1 << 20);
        let slot = cache.insert(b"long", &[0; 40], &answer(7 * 86_400), Moment::START).unwrap();
        assert_eq!(cache.get(slot).unwrap().ttl(), Duration::from_hours(24));
        let negative = Answer { verdict: Verdict::NxDomain, ..answer(86_400) };
        let slot = cache.insert(b"no", &[0; 40], &negative, Moment::START).unwrap();
        assert_eq!(cache.get(slot).unwrap().ttl(), Duration::from_mins(15));
        let unkept = Answer { ttl_s: None, ..answer(0) };
        assert_eq!(cache.insert(b"none", &[0; 40], &unkept, Moment::START), None);
    }

    #[test]
    fn a_flood_of_names_asked_once_does_not_push_out_what_is_in_use() {
        let mut cache = cache(100 * 400);
        let used: Vec<[u8; 4]> = (0..50_u32).map(u32::to_be_bytes).collect();
        for key in &used {
            insert(&mut cache, key);
        }
        for number in 1_000..20_000_u32 {
            if number % 10 == 0 {
                for key in &used {
                    let slot = cache.find(key).expect("still there");
                    cache.get_mut(slot).unwrap().touch(Moment::START);
                }
            }
            insert(&mut cache, &number.to_be_bytes());
        }
        assert!(used.iter().all(|key| cache.find(key).is_some()));
        assert!(cache.evicted > 18_000 && cache.bytes() <= 100 * 400);
    }

    proptest! {
        /// Whatever is put in, taken out and touched: what is found is what was put in last, and bytes add up.
        #[test]
        fn it_agrees_with_a_plain_map(steps in proptest::collection::vec((0..4_u8, 0..30_u8, 1..60_u32), 0..300)) {
            let mut cache = cache(6_000);
            let mut model: HashMap<u8, u32> = HashMap::new();
            for (step, key, ttl) in steps {
                match step {
                    0 | 1 => {
                        prop_assert!(cache.insert(&[key], &[0; 40], &answer(ttl), Moment::START).is_some());
                        model.insert(key, ttl);
                    }
                    2 => {
                        if let Some(slot) = cache.find(&[key]) {
                            cache.remove(slot);
                        }
                        model.remove(&key);
                    }
                    _ => {
                        if let Some(entry) = cache.find(&[key]).and_then(|slot| cache.get_mut(slot)) {
                            entry.touch(Moment::START);
                        }
                    }
                }
                for (_, entry) in cache.iter() {
                    let expected = model.get(&entry.key()[0]).map(|&ttl| Duration::from_secs(u64::from(ttl)));
                    prop_assert_eq!(Some(entry.ttl()), expected);
                }
                prop_assert_eq!(cache.bytes(), cache.iter().map(|(_, entry)| entry.cost()).sum::<usize>());
                prop_assert_eq!(cache.len(), cache.iter().count());
                prop_assert!(cache.bytes() <= 6_000);
            }
        }
    }
}
