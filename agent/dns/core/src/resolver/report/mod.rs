//! What the resolver reports: check results, counters, listings.

pub(super) mod counts;
pub(super) mod guard_sensor;
pub(super) mod inspect;
pub(super) mod sensors;
pub(super) mod words;
