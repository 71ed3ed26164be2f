//! Event counters: totals for the metrics, and the last minute for the check results.

use std::time::Duration;

use crate::{moment::Moment, policy::StaleReason};

/// Totals since the process started.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub queries: u64,
    /// Packets answered with FORMERR, NOTIMP, REFUSED or BADVERS, or dropped.
    pub unreadable: u64,
    pub hits_fresh: u64,
    /// Answers for local names.
    pub hits_local: u64,
    /// By [`StaleReason`].
    pub hits_stale: [u64; StaleReason::ALL.len()],
    pub misses: u64,
    /// Misses that joined an upstream query already in flight.
    pub coalesced: u64,
    /// Clients that got a failure.
    pub failures: u64,
    /// Clients refused because too many were waiting, or that gave way to others.
    pub overloads: u64,
    /// Queries dropped because the core was too busy to take them from an answering thread.
    pub dropped: u64,
    pub refreshes_started: u64,
    pub refreshes_done: u64,
    pub refreshes_failed: u64,
    /// Refreshes whose answer was held instead of accepted.
    pub refreshes_held: u64,
    /// Refreshes of hot names shortly before they expired.
    pub warm_refreshes: u64,
    /// Hot names that were not kept warm because the budget was used up.
    pub warm_over_budget: u64,
    /// Refreshes of pinned names.
    pub pinned_refreshes: u64,
    pub probes: u64,
    /// Tries that failed on this host: no socket, no memory.
    pub local_failures: u64,
    /// Times this daemon noticed that it had not run for a while.
    pub pauses: u64,
    /// Changes of a zone's health.
    pub transitions: u64,
}

/// What the answering threads counted without the core since the last read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub hits_fresh: u64,
    pub hits_stale: [u64; StaleReason::ALL.len()],
    pub unreadable: u64,
    pub refused_clients: u64,
    /// Dropped because the core's queue was full.
    pub dropped: u64,
}

impl Tally {
    #[must_use]
    pub fn less(&self, before: &Self) -> Self {
        let mut hits_stale = self.hits_stale;
        for (sum, before) in hits_stale.iter_mut().zip(before.hits_stale) {
            *sum -= before;
        }
        Self {
            hits_fresh: self.hits_fresh - before.hits_fresh,
            hits_stale,
            unreadable: self.unreadable - before.unreadable,
            refused_clients: self.refused_clients - before.refused_clients,
            dropped: self.dropped - before.dropped,
        }
    }

    fn stale(&self) -> u64 {
        self.hits_stale.iter().sum()
    }
}

impl Counts {
    /// Adds the counts of the answering threads.
    pub(in crate::resolver) fn add(&mut self, tally: &Tally) {
        self.queries += tally.hits_fresh + tally.stale() + tally.unreadable + tally.dropped;
        self.unreadable += tally.unreadable;
        self.hits_fresh += tally.hits_fresh;
        for (sum, more) in self.hits_stale.iter_mut().zip(tally.hits_stale) {
            *sum += more;
        }
        self.dropped += tally.dropped;
    }
}

const SECONDS: usize = 60;

/// Answers in the last minute, by second.
#[derive(Debug, Default)]
pub(in crate::resolver) struct LastMinute {
    answers: Seconds,
    stale: Seconds,
    second: u64,
}

#[derive(Debug)]
struct Seconds([u32; SECONDS]);

impl Default for Seconds {
    fn default() -> Self {
        Self([0; SECONDS])
    }
}

impl LastMinute {
    pub(in crate::resolver) fn on_answer(&mut self, stale: bool, now: Moment) {
        let place = self.turn(now);
        self.answers.0[place] += 1;
        self.stale.0[place] += u32::from(stale);
    }

    pub(in crate::resolver) fn on_tally(&mut self, tally: &Tally, now: Moment) {
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let place = self.turn(now);
        self.answers.0[place] = self.answers.0[place].saturating_add(small(tally.hits_fresh + tally.stale()));
        self.stale.0[place] = self.stale.0[place].saturating_add(small(tally.stale()));
    }

    /// All answers, and how many of them were stale.
    pub(in crate::resolver) fn totals(&mut self, now: Moment) -> (u32, u32) {
        self.turn(now);
        (self.answers.0.iter().sum(), self.stale.0.iter().sum())
    }

    fn turn(&mut self, now: Moment) -> usize {
        let second = now.since(Moment::START - Duration::from_hours(1)).as_secs();
        let passed = second.saturating_sub(self.second).min(SECONDS as u64);
        for back in 0..passed {
            let place = place_of(second - back);
            (self.answers.0[place], self.stale.0[place]) = (0, 0);
        }
        self.second = self.second.max(second);
        place_of(self.second)
    }
}

fn place_of(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or(0)
}
