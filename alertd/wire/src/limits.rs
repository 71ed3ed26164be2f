//! Size limits of messages. Both sides enforce them, so neither has to trust the other.

/// Bytes of one request body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Events in one [`crate::Batch`].
pub const EVENTS_MAX: usize = 500;
/// Services in one state report. An agent with more sends them in parts.
pub const STATES_MAX: usize = 2_000;
/// Services of one agent.
pub const SERVICES_MAX: usize = 10_000;
/// Bytes of a summary line. Longer ones are truncated at a character boundary and end with `…`.
pub const SUMMARY_BYTES_MAX: usize = 1_024;
/// Bytes of long output, and of performance data.
pub const DETAIL_BYTES_MAX: usize = 8 * 1_024;
/// Labels on one event.
pub const LABELS_MAX: usize = 32;
/// Changes of a host in one [`crate::Heartbeat`]; others are ignored.
pub const CHANGES_MAX: usize = 5;
/// Bytes of one such change; longer ones are truncated.
pub const CHANGE_BYTES_MAX: usize = 256;
/// Alerts in one route test.
pub const ROUTED_MAX: usize = 500;
