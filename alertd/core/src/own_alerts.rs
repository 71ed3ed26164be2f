//! Internal alerts: what alertd finds wrong with itself or with what it watches over, and their keys.
//!
//! Their keys start with `@`, which no agent can use.

use jiff::Timestamp;

use crate::rules::{alert::AlertKey, matcher::Labels, reason::Reason};

/// In the place of an agent: what alertd finds in itself.
pub(super) const OWN: &str = "@alertd";

/// The key under which alertd keeps its own alert that an agent is silent.
pub(super) const SILENT: &str = "@silent";

/// Something that alertd itself found.
pub(super) struct OwnAlert {
    pub(super) key: AlertKey,
    pub(super) host: String,
    pub(super) service: &'static str,
    pub(super) labels: Labels,
    pub(super) summary: String,
    pub(super) since: Timestamp,
    pub(super) reason: Reason,
}

/// Is this alert the complaint that `receiver` fails?
pub(super) fn is_about(key: &AlertKey, receiver: &str) -> bool {
    key.agent == OWN && *key == own_key(receiver)
}

pub(super) fn template_key(receiver: &str) -> AlertKey {
    AlertKey::new(OWN, format!("@template {receiver}"))
}

pub(super) fn own_key(receiver: &str) -> AlertKey {
    AlertKey::new(OWN, format!("@receiver {receiver}"))
}
