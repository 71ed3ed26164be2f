//! Internal alerts: alerts that alertd raises itself, and their keys. Their keys start with `@`,
//! which no agent can use.

use jiff::Timestamp;

use crate::rules::{alert::AlertKey, matcher::Labels, reason::Reason};

/// Used instead of an agent id for alerts about alertd itself.
pub(super) const OWN: &str = "@alertd";

/// Used instead of a service for the alert that an agent is silent.
pub(super) const SILENT: &str = "@silent";

/// One internal alert.
pub(super) struct OwnAlert {
    pub(super) key: AlertKey,
    pub(super) host: String,
    pub(super) service: &'static str,
    pub(super) labels: Labels,
    pub(super) summary: String,
    pub(super) since: Timestamp,
    pub(super) reason: Reason,
}

/// Whether this is the alert that `receiver` fails.
pub(super) fn is_about(key: &AlertKey, receiver: &str) -> bool {
    key.agent == OWN && *key == own_key(receiver)
}

pub(super) fn template_key(receiver: &str) -> AlertKey {
    AlertKey::new(OWN, format!("@template {receiver}"))
}

pub(super) fn own_key(receiver: &str) -> AlertKey {
    AlertKey::new(OWN, format!("@receiver {receiver}"))
}
