//! Alerts in the format of Alertmanager's API v2.

use jiff::Timestamp;
use serde::Serialize;

use crate::rules::{alert::AlertKey, matcher::Labels};

/// A page of firing alerts.
pub struct AlertsPage {
    pub alerts: Vec<GettableAlert>,
    /// If there are more alerts, where the next page starts.
    pub more_after: Option<AlertKey>,
}

/// A firing alert.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GettableAlert {
    pub labels: Labels,
    pub annotations: Labels,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
    pub fingerprint: String,
    pub receivers: Vec<Named>,
    pub status: AlertStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Named {
    pub name: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertStatus {
    /// `active` or `suppressed`.
    pub state: &'static str,
    pub silenced_by: Vec<String>,
    pub inhibited_by: Vec<String>,
    pub muted_by: Vec<String>,
}
