//! A point in time that cores take as `now`. Not a wall-clock time: it never goes back and counts time spent suspended.
//!
//! `std::time::Instant` will not do: it stands still while the machine sleeps, and then a cache believes that yesterday's
//! answers are fresh. It also cannot be made up, which a loaded snapshot (answers from before the start) and a drill in
//! virtual time need.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Milliseconds since thirty days before the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// When a clock starts. The thirty days before it hold what a snapshot remembers.
    pub const START: Self = Self(30 * 24 * 3_600 * 1_000);

    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if that is still to come.
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
