//! Notifications: their content, and the result from the receiver.
//!
//! The core creates a [`Notification`], the outbox stores it as JSON, and only then is it sent. It is
//! complete: a receiver renders it without other data, so a retry after a crash has the same text and id.

use std::{collections::BTreeMap, time::Duration};

use dogwatch_wire::{State, ctl::AckInfo};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::rules::{lately::Happened, storm::Group};

/// One notification to one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Idempotency key: the same for every retry, even after a crash. Used as `Message-ID` and webhook id.
    pub id: String,
    /// Number of the incident; 0 for a test or a digest of several incidents.
    pub incident: u64,
    /// The same for all notifications of one incident: email thread, PagerDuty `dedup_key`.
    pub dedup_key: String,
    /// Name of the receiver in the config.
    pub receiver: String,
    pub kind: Kind,
    /// The reason of the decision, as in logs, metrics and `alertctl why`.
    pub reason: String,
    pub created_at: Timestamp,
    /// Labels that the alerts are grouped by.
    pub group: BTreeMap<String, String>,
    pub firing: Vec<NotifiedAlert>,
    /// Alerts resolved since the last notification to this receiver.
    pub resolved: Vec<NotifiedAlert>,
    /// For [`Kind::Digest`]: the first delayed notifications, one line per incident.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<DigestLine>,
    /// For [`Kind::Digest`]: numbers of everything that was delayed. Missing in digests of an older alertd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Box<Digest>>,
    /// The ack, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckInfo>,
    /// A sentence about the reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Other recent changes on the host, newest first; only if all alerts are from one host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lately: Vec<Happened>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The first notification of an incident to this receiver.
    Problem,
    /// New or changed alerts in an incident that the receiver knows.
    Update,
    /// The problem still exists after `repeat_interval`.
    Reminder,
    /// Everything is OK again.
    Recovery,
    /// Somebody acknowledged.
    Acknowledged,
    /// Notifications delayed by a rate limit, in one message.
    Digest,
    Test,
}

impl Kind {
    /// The name in the history and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Update => "update",
            Self::Reminder => "reminder",
            Self::Recovery => "recovery",
            Self::Acknowledged => "acknowledged",
            Self::Digest => "digest",
            Self::Test => "test",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotifiedAlert {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub state: State,
    pub flapping: bool,
    pub summary: String,
    pub detail: String,
    pub perfdata: String,
    pub since: Timestamp,
    pub resolved_at: Option<Timestamp>,
}

/// The notifications that a digest replaces, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    pub problems: usize,
    pub recoveries: usize,
    pub acks: usize,
    /// Groups with something in common, largest first.
    pub groups: Vec<Group>,
    /// Number of groups left out.
    pub more_groups: usize,
    /// The rate limit that delayed them, for people.
    pub held_by: String,
}

impl Digest {
    /// Number of notifications that it replaces.
    pub fn held(&self) -> usize {
        self.problems + self.recoveries + self.acks
    }
}

/// One delayed notification in a digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DigestLine {
    pub incident: u64,
    pub kind: Kind,
    pub title: String,
    pub at: Timestamp,
}

/// The receiver accepted the notification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// It reached its destination: the mailbox, the channel or the program.
    pub delivered: bool,
    /// The receiver's id for it, if any: an SMTP queue id, a PagerDuty dedup key.
    pub provider_id: Option<String>,
    /// The template failed, so the built-in text was sent.
    pub template_failed: Option<String>,
}

impl Accepted {
    /// The result for a notification that reached its destination.
    pub fn delivered() -> Self {
        Self { delivered: true, ..Self::default() }
    }
}

/// Why a receiver did not accept a notification, by how to handle it.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Try again: a timeout, HTTP 429 or 5xx, SMTP 4xx. `after` is the delay the receiver asked for.
    #[error("{reason}")]
    Retry { after: Option<Duration>, reason: String },
    /// It will always fail the same way: notify the operator and use the fallback receiver.
    #[error("{reason}")]
    Rejected { reason: String },
}
