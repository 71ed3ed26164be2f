//! The limits of a message. Both sides enforce them, so neither has to trust the other.

/// Bytes of one request body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Events in one [`crate::Batch`].
pub const EVENTS_MAX: usize = 500;
/// Services in one state report, so also the checks of one agent.
pub const STATES_MAX: usize = 2_000;
/// Bytes of a summary line; longer ones are cut at a character boundary with `…`.
pub const SUMMARY_BYTES_MAX: usize = 1_024;
/// Bytes of the long output, and bytes of the perfdata.
pub const DETAIL_BYTES_MAX: usize = 8 * 1_024;
/// Labels on one event.
pub const LABELS_MAX: usize = 32;
/// Changes of a host in one [`crate::Heartbeat`]. More are ignored.
pub const CHANGES_MAX: usize = 5;
/// Bytes of one such change. Longer ones are cut.
pub const CHANGE_BYTES_MAX: usize = 256;
/// Alerts in one route test.
pub const ROUTED_MAX: usize = 500;
