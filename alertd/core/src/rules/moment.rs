//! Arithmetic with times and durations that neither overflows nor becomes negative.
//!
//! Timers outlive the process, so the core uses UTC ([`Timestamp`]). `clock.rs` guarantees that it
//! never goes backwards while the process runs.

use std::time::Duration;

use jiff::Timestamp;

/// `at` plus `by`, or the latest time that can be represented.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The time between `from` and `to`, or zero if `to` is earlier.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}
