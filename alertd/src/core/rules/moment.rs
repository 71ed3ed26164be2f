//! Arithmetic with wall-clock times and durations that neither overflows nor goes negative.
//!
//! Timers outlive the process, so the cores use UTC ([`Timestamp`]). `clock.rs` ensures that it
//! never goes backwards while the process runs.

use std::time::Duration;

use jiff::Timestamp;

/// `at` plus `by`, or the end of time if that is exceeded.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// From `from` to `to`; zero if `to` is earlier.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}
