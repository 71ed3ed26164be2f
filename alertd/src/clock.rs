//! The only reader of clocks here.
//!
//! Timers outlive the process, so they are kept in UTC; but UTC can be set back, and an escalation must not wait an hour
//! for that. [`Clock::now`] follows the wall clock forwards and the monotonic clock when the wall clock stands or turns
//! back, so it never runs backwards. A leap forwards (the clock was set, the machine slept) is reported, for agents that
//! could not be heard meanwhile are not silent.

use std::time::{Duration, Instant};

use dogwatch_alertd_core::rules::moment::{between, later};
use jiff::Timestamp;

pub struct Clock {
    last: Timestamp,
    last_read: Instant,
}

/// A leap forwards beyond this is a step, not drift.
const STEP_LEAST: Duration = Duration::from_secs(5);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { last: Timestamp::now(), last_read: Instant::now() }
    }

    /// The time, and how far it leapt if it did.
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

/// The steady clock, for what waits within this process.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// The wall clock, for what another host compares with its own.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> Timestamp {
    Timestamp::now()
}

/// Measures how long something takes, for the metrics.
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
