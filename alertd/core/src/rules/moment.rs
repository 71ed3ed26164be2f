//! Sums of wall-clock times and spans that neither overflow nor turn negative.
//!
//! Timers outlive the process, so the cores reckon in UTC ([`Timestamp`]); `clock.rs` sees to it that it never runs
//! backwards while the process lives.

use std::time::Duration;

use jiff::Timestamp;

/// `at` and `by`; the end of time if that is past it.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// From `from` until `to`; zero if `to` is earlier.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}
