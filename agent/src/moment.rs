//! A point in time as the cores know it: since the host booted, time asleep included. Reads no clock.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Time since boot, suspend included (`CLOCK_BOOTTIME`): never jumps back, needs no NTP, goes on while the lid is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// The moment the host booted.
    pub const BOOT: Self = Self(Duration::ZERO);

    /// How long ago `earlier` was; zero if it is still to come.
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

/// Both clocks, read at once by the loop and handed to the cores: one to reckon with, one for people to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub moment: Moment,
    pub wall: jiff::Timestamp,
}
