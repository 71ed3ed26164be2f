//! One attempt to tell one receiver: its content, and the receiver's answer.
//!
//! The core decides a [`Notification`], the outbox keeps it as JSON, and only then is it sent. It is complete: a receiver
//! renders it without asking anyone, so a retry after a crash carries the same text under the same id.

use std::{collections::BTreeMap, time::Duration};

use dogwatch_wire::{State, ctl::AckInfo};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::rules::{lately::Happened, storm::Group};

/// What is told to one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Idempotency key: the same on every retry and after every crash. Becomes the `Message-ID`, the webhook id.
    pub id: String,
    /// The incident's number; 0 for a test or a digest over several.
    pub incident: u64,
    /// The same for all notifications of one incident: mail thread, PagerDuty `dedup_key`.
    pub dedup_key: String,
    /// Name of the receiver in the config.
    pub receiver: String,
    pub kind: Kind,
    /// Why this was decided: the reason's name in logs, metrics and `alertctl why`.
    pub reason: String,
    pub created_at: Timestamp,
    /// Labels the alerts were grouped by.
    pub group: BTreeMap<String, String>,
    pub firing: Vec<NotifiedAlert>,
    /// Resolved since this receiver was last told.
    pub resolved: Vec<NotifiedAlert>,
    /// For [`Kind::Digest`]: what was held back by a rate, one line an incident; the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<DigestLine>,
    /// For [`Kind::Digest`]: all that was held back, in figures. A digest of an older alertd has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Box<Digest>>,
    /// Who acknowledged, if somebody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckInfo>,
    /// A sentence about why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What else changed on the host lately, the newest first; of alerts of one host only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lately: Vec<Happened>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// First word of an incident to this receiver.
    Problem,
    /// More or other alerts in an incident it was told of.
    Update,
    /// Still so after `repeat_interval`.
    Reminder,
    /// Everything is OK again.
    Recovery,
    /// Somebody acknowledged.
    Acknowledged,
    /// What the rate limit held back, in one message.
    Digest,
    Test,
}

impl Kind {
    /// Its name in the history and in the API.
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

/// What a digest speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    pub problems: usize,
    pub recoveries: usize,
    pub acks: usize,
    /// What they have in common, the largest first.
    pub groups: Vec<Group>,
    /// So many are left out.
    pub more_groups: usize,
    /// Which rate held them back, for people.
    pub held_by: String,
}

impl Digest {
    /// All notifications that it speaks for.
    pub fn held(&self) -> usize {
        self.problems + self.recoveries + self.acks
    }
}

/// One held-back notification in a digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DigestLine {
    pub incident: u64,
    pub kind: Kind,
    pub title: String,
    pub at: Timestamp,
}

/// The receiver took it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Nobody passes it on further: it is in the mailbox, in the channel, with the program.
    pub delivered: bool,
    /// What the receiver called it, if it said: an SMTP queue id, a PagerDuty dedup key.
    pub provider_id: Option<String>,
    /// Its own words could not be said; the built-in ones were.
    pub template_failed: Option<String>,
}

impl Accepted {
    /// Taken by whom it was for.
    pub fn delivered() -> Self {
        Self { delivered: true, ..Self::default() }
    }
}

/// Why a receiver did not take a notification, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Try again: a timeout, 429, 4xx of SMTP, 5xx of HTTP. `after` is what the receiver asked for.
    #[error("{reason}")]
    Retry { after: Option<Duration>, reason: String },
    /// Will fail the same way every time: tell the operator, use the fallback receiver.
    #[error("{reason}")]
    Rejected { reason: String },
}
