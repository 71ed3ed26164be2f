//! A point in time, passed to cores as `now`. It is not wall-clock time: it never goes back, and it
//! includes time spent suspended.
//!
//! `std::time::Instant` does not fit. It stops while the machine sleeps, so a cache would take
//! yesterday's answers for fresh ones. It also cannot be constructed, which loading a snapshot
//! (answers from before the start) and drills in virtual time need.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Milliseconds since thirty days before the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Where a clock starts. The thirty days before it are for answers from a snapshot.
    pub const START: Self = Self(30 * 24 * 3_600 * 1_000);

    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Time left until `later`; zero if that has passed.
    pub fn until(self, later: Self) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}
