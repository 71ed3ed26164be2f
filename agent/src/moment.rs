//! A point in time: the time since the host booted, including time spent suspended. Reads no clock.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Time since boot, including suspend (`CLOCK_BOOTTIME`). It never jumps, whatever happens to the
/// wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// When the host booted.
    pub const BOOT: Self = Self(Duration::ZERO);

    /// The time since `earlier`; zero if that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

/// Both clocks, read at the same time: one to compute with, one for people to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub moment: Moment,
    pub wall: jiff::Timestamp,
}
