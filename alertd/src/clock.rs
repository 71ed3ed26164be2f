//! The only module of alertd that reads clocks.
//!
//! Timers survive restarts, so they are kept in UTC. But UTC can be set back, and an escalation
//! must not wait an hour longer because of that. [`Clock::now`] therefore follows the wall clock
//! forwards, and the monotonic clock while the wall clock stands still or goes back, so it never
//! goes backwards. A jump forwards (the clock was set, or the machine slept) is reported, because
//! agents that could not report during this time are not silent.

use std::time::{Duration, Instant};

use dogwatch_alertd_core::rules::moment::{between, later};
use jiff::Timestamp;

pub struct Clock {
    last: Timestamp,
    last_read: Instant,
}

/// A jump forwards of at least this much is reported.
const STEP_LEAST: Duration = Duration::from_secs(5);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { last: Timestamp::now(), last_read: Instant::now() }
    }

    /// The time, and how far it jumped ahead, if it did.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&mut self) -> (Timestamp, Option<Duration>) {
        let read = Instant::now();
        let steady = later(self.last, read.duration_since(self.last_read));
        let wall = Timestamp::now();
        let leap = between(steady, wall);
        self.last = steady.max(wall);
        self.last_read = read;
        (self.last, (leap >= STEP_LEAST).then_some(leap))
    }
}

/// The monotonic clock, for waiting within this process.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// The wall clock, for times that are compared with those of other hosts.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> Timestamp {
    Timestamp::now()
}

/// Measures durations for the metrics.
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
