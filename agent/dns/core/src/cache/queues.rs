//! The order in which entries may be evicted. Used by the writer only.
//!
//! A new entry is *on probation*: it is evicted first unless it is asked for again. Then it moves
//! to *main*, where a hand goes round, removes one visit from each entry (of at most three) and
//! evicts an entry without visits. A flood of names that are asked for once therefore passes
//! through a tenth of the cache and leaves the rest alone. This is the hand of SIEVE (Zhang et al.,
//! NSDI 2024: survivors stay where they are) behind the small queue of S3-FIFO (Yang et al., SOSP
//! 2023), without its ghost queue.

use super::{
    slab::Slab,
    table::{SHARDS, Slot, parts},
};

/// The queue that an entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Probation,
    Main,
}

#[derive(Clone, Copy)]
struct Link {
    older: Slot,
    newer: Slot,
}

/// Links take eight bytes per entry. The top bit of `older` says which queue; a free place links to
/// the next free one.
const MAIN: Slot = 1 << 31;

impl Default for Link {
    fn default() -> Self {
        Self { older: END, newer: END }
    }
}

/// The end of a queue, in 31 bits.
const END: Slot = MAIN - 1;

#[derive(Debug, Clone, Copy)]
struct Queue {
    oldest: Slot,
    newest: Slot,
    bytes: usize,
}

pub(super) struct Queues {
    links: Box<[Slab<Link>]>,
    free: Box<[u32]>,
    both: [Queue; 2],
    /// The entry in main that SIEVE's hand looks at next.
    hand: Slot,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self {
            links: (0..SHARDS).map(|_| Slab::default()).collect(),
            free: vec![END; SHARDS].into(),
            both: [Queue { oldest: END, newest: END, bytes: 0 }; 2],
            hand: END,
        }
    }

    pub(super) fn bytes(&self, place: Place) -> usize {
        self.both[place as usize].bytes
    }

    pub(super) fn oldest(&self, place: Place) -> Option<Slot> {
        Some(self.both[place as usize].oldest).filter(|&slot| slot != END)
    }

    /// The oldest entry other than `spare`. A refreshed entry keeps its place, so `spare` may be
    /// the oldest.
    pub(super) fn oldest_but(&self, spare: Option<Slot>, place: Place) -> Option<Slot> {
        let oldest = self.oldest(place)?;
        if Some(oldest) != spare {
            return Some(oldest);
        }
        Some(self.link(oldest)?.newer).filter(|&slot| slot != END)
    }

    pub(super) fn place(&self, at: Slot) -> Place {
        self.link(at).map_or(Place::Probation, |link| {
            if link.older & MAIN != 0 { Place::Main } else { Place::Probation }
        })
    }

    /// Returns the entry under the hand and moves the hand on.
    pub(super) fn turn(&mut self) -> Option<Slot> {
        let at = if self.hand == END { self.both[Place::Main as usize].oldest } else { self.hand };
        self.hand = self.link(at)?.newer;
        Some(at)
    }

    /// Takes a free place of `shard`, if there is one.
    pub(super) fn take_free(&mut self, shard: usize) -> Option<u32> {
        let place = self.free[shard];
        let next = self.links[shard].get(place)?.newer;
        self.free[shard] = next;
        Some(place)
    }

    /// Marks a place as free; call [`Self::unlink`] first.
    pub(super) fn give_back(&mut self, at: Slot) {
        let (shard, place) = parts(at);
        let next = std::mem::replace(&mut self.free[shard], place);
        if let Some(link) = self.links[shard].get_mut(place) {
            link.newer = next;
        }
    }

    /// Adds an entry as the newest of a queue.
    pub(super) fn link_newest(&mut self, at: Slot, place: Place, bytes: usize) {
        let (shard, number) = parts(at);
        while self.links[shard].len() <= number {
            self.links[shard].grow();
        }
        let mark = if place == Place::Main { MAIN } else { 0 };
        let queue = &mut self.both[place as usize];
        queue.bytes += bytes;
        let older = std::mem::replace(&mut queue.newest, at);
        if queue.oldest == END {
            queue.oldest = at;
        }
        if let Some(link) = self.links[shard].get_mut(number) {
            *link = Link { older: older | mark, newer: END };
        }
        if let Some(link) = self.link_mut(older) {
            link.newer = at;
        }
    }

    pub(super) fn unlink(&mut self, at: Slot, bytes: usize) {
        let place = self.place(at);
        let Some(link) = self.link(at) else { return };
        let (older, newer) = (link.older & !MAIN, link.newer);
        if self.hand == at {
            self.hand = newer;
        }
        if let Some(link) = self.link_mut(older) {
            link.newer = newer;
        }
        if let Some(link) = self.link_mut(newer) {
            link.older = link.older & MAIN | older;
        }
        let queue = &mut self.both[place as usize];
        queue.bytes -= bytes;
        if queue.oldest == at {
            queue.oldest = newer;
        }
        if queue.newest == at {
            queue.newest = older;
        }
    }

    /// Updates the byte count after an entry changed size.
    pub(super) fn resize(&mut self, at: Slot, before: usize, after: usize) {
        let queue = &mut self.both[self.place(at) as usize];
        queue.bytes = queue.bytes - before + after;
    }

    fn link(&self, at: Slot) -> Option<Link> {
        let (shard, place) = parts(at);
        if at == END { None } else { self.links[shard].get(place).copied() }
    }

    fn link_mut(&mut self, at: Slot) -> Option<&mut Link> {
        let (shard, place) = parts(at);
        if at == END { None } else { self.links[shard].get_mut(place) }
    }
}
