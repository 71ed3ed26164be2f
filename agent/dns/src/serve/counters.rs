//! What a thread counts while it answers from the cache without the core.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dogwatch_dns_core::{policy::StaleReason, resolver::Tally};

/// The counters of one thread. Only that thread writes them, so a plain load and store is enough.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) hits_fresh: AtomicU64,
    pub(super) hits_stale: [AtomicU64; StaleReason::ALL.len()],
    pub(super) unreadable: AtomicU64,
    pub(super) refused_clients: AtomicU64,
    pub(super) dropped: AtomicU64,
}

pub(super) fn add_one(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

impl Counters {
    pub(super) fn add_to(&self, tally: &mut Tally) {
        tally.hits_fresh += self.hits_fresh.load(Relaxed);
        for (sum, counter) in tally.hits_stale.iter_mut().zip(&self.hits_stale) {
            *sum += counter.load(Relaxed);
        }
        tally.unreadable += self.unreadable.load(Relaxed);
        tally.refused_clients += self.refused_clients.load(Relaxed);
        tally.dropped += self.dropped.load(Relaxed);
    }
}
