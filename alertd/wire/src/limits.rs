//! What one message may weigh. Both sides keep to these, so neither has to trust the other.

/// Bytes of one request body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Events in one [`crate::Batch`].
pub const EVENTS_MAX: usize = 500;
/// Services in one state report: what one agent may watch.
pub const STATES_MAX: usize = 2_000;
/// Bytes of a summary line; longer ones are cut at a character boundary with `…`.
pub const SUMMARY_BYTES_MAX: usize = 1_024;
/// Bytes of long output and of perfdata, each.
pub const DETAIL_BYTES_MAX: usize = 8 * 1_024;
/// Labels on one event.
pub const LABELS_MAX: usize = 32;
/// Changes of a host in one [`crate::Heartbeat`]; more are not looked at.
pub const CHANGES_MAX: usize = 5;
/// Bytes of one of them; longer ones are cut.
pub const CHANGE_BYTES_MAX: usize = 256;
/// Alerts that may be asked about at once: where they would go.
pub const ROUTED_MAX: usize = 500;
