//! The only module of alertd that reads clocks.
//!
//! Timers survive restarts, so they are kept in UTC. But UTC can be set back, and an escalation
//! must not wait an hour longer because of that. [`Clock::now`] therefore follows the wall clock
//! forwards, and the monotonic clock while the wall clock stands still or goes back, so it never
//! goes backwards. If the wall clock was set back by more than a moment ([`Clock::is_ahead`]),
//! alertd starts again with the new time. A jump forwards (the clock was set, or the machine slept)
//! is reported, and so is a time in which alertd did not run (SIGSTOP, a paused virtual machine,
//! overload): agents whose heartbeats it could not take in this time are not silent.

use std::time::{Duration, Instant};

use dogwatch_alertd_core::rules::moment::{between, later};
use jiff::Timestamp;

pub struct Clock {
    last: Timestamp,
    last_read: Instant,
}

/// A jump forwards of at least this much is reported.
const STEP_LEAST: Duration = Duration::from_secs(5);
/// The loop reads the clock every two seconds. After a pause of at least this much, it did not run.
const ABSENCE_LEAST: Duration = Duration::from_secs(10);

/// Timers may be so far ahead of the wall clock.
const AHEAD_MAX: Duration = Duration::from_mins(1);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { last: Timestamp::now(), last_read: Instant::now() }
    }

    /// The time, and how much of it alertd has missed, if it has.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&mut self) -> (Timestamp, Option<Duration>) {
        self.advance(Instant::now(), Timestamp::now())
    }

    /// How far [`Self::now`] is ahead of the wall clock, if it is too far to wait for it.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn is_ahead(&self) -> Option<Duration> {
        Some(between(Timestamp::now(), self.last)).filter(|ahead| *ahead >= AHEAD_MAX)
    }

    fn advance(&mut self, read: Instant, wall: Timestamp) -> (Timestamp, Option<Duration>) {
        let elapsed = read.saturating_duration_since(self.last_read);
        let steady = later(self.last, elapsed);
        let leap = between(steady, wall);
        self.last = steady.max(wall);
        self.last_read = read;
        let counted =
            |missed: Duration, least: Duration| if missed >= least { missed } else { Duration::ZERO };
        let missed = counted(leap, STEP_LEAST) + counted(elapsed, ABSENCE_LEAST);
        (self.last, (!missed.is_zero()).then_some(missed))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// S11, and its siblings: a suspended machine, a clock that is set forwards or back.
    #[test]
    fn time_in_which_alertd_did_not_run_is_missed() {
        let secs = Duration::from_secs;
        let mut clock = Clock::start();
        let (start, noon) = (clock.last_read, clock.last);
        let mut at = |monotonic: u64, wall: i64| {
            let (now, missed) =
                clock.advance(start + secs(monotonic), noon + jiff::SignedDuration::from_secs(wall));
            (between(noon, now), missed)
        };
        assert_eq!(at(2, 2), (secs(2), None));
        assert_eq!(at(62, 62), (secs(62), Some(secs(60))), "SIGSTOP");
        assert_eq!(at(64, 124), (secs(124), Some(secs(60))), "suspended, or set forwards");
        assert_eq!(at(66, 0), (secs(126), None), "set back");
        assert_eq!(at(126, 0), (secs(186), Some(secs(60))), "set back, and SIGSTOP");
        assert_eq!(at(130, 4), (secs(190), None), "busy for a moment");
    }
}
