//! A notification, and the outcome of an attempt to deliver it.
//!
//! The core decides a [`Notification`] and commits it to the outbox as JSON; only then is it sent.
//! It contains everything that a receiver needs, so a retry after a crash sends the same text under
//! the same id.

use std::{collections::BTreeMap, time::Duration};

use dogwatch_wire::{State, ctl::AckInfo};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{lately::Happened, storm::Group};

/// A message to one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Idempotency key: the same on every retry and after a crash. Becomes the `Message-ID` and the
    /// webhook's id.
    pub id: String,
    /// The incident's number; 0 for a test and for a digest of several incidents.
    pub incident: u64,
    /// The same for all notifications of one incident: email thread, PagerDuty `dedup_key`.
    pub dedup_key: String,
    /// Name of the receiver in the config.
    pub receiver: String,
    pub kind: Kind,
    /// Why it is sent: the name used in logs, metrics and `alertctl why`.
    pub reason: String,
    pub created_at: Timestamp,
    /// Labels that the alerts are grouped by.
    pub group: BTreeMap<String, String>,
    pub firing: Vec<NotifiedAlert>,
    /// Resolved since the last notification to this receiver.
    pub resolved: Vec<NotifiedAlert>,
    /// For [`Kind::Digest`]: the first notifications that exceeded a rate limit, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<DigestLine>,
    /// For [`Kind::Digest`]: counts of all these notifications. Digests of older versions have
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Box<Digest>>,
    /// The acknowledgement, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckInfo>,
    /// A sentence for people about why this is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Recent changes on the host, newest first; only if all alerts belong to one host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lately: Vec<Happened>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The first notification of an incident to this receiver.
    Problem,
    /// The alerts of the incident changed since the last notification.
    Update,
    /// Not resolved after `repeat_interval`.
    Reminder,
    /// All alerts are OK again.
    Recovery,
    /// Somebody acknowledged the incident.
    Acknowledged,
    /// One message for all notifications that exceeded a rate limit.
    Digest,
    Test,
}

impl Kind {
    /// The name in the history and in the API.
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
    /// In an update: the receiver hears of this alert for the first time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined: bool,
}

impl NotifiedAlert {
    /// Whether it ended without a claim that the service is OK.
    pub fn is_unwatched(&self) -> bool {
        self.resolved_at.is_some() && (self.flapping || self.state != State::Ok)
    }

    /// Its state for people: `CRITICAL`, `OK`, `no longer watched`.
    pub fn state_words(&self) -> &'static str {
        match self.resolved_at {
            None => self.state.name(),
            Some(_) if self.is_unwatched() => "no longer watched",
            Some(_) => "OK",
        }
    }
}

/// The notifications that a digest summarizes, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    pub problems: usize,
    pub recoveries: usize,
    pub acks: usize,
    /// Groups of similar alerts, the largest first.
    pub groups: Vec<Group>,
    /// Number of groups that are not in `groups`.
    pub more_groups: usize,
    /// The rate limit that they exceeded, for people.
    pub held_by: String,
}

impl Digest {
    /// Number of notifications in the digest.
    pub fn held(&self) -> usize {
        self.problems + self.recoveries + self.acks
    }
}

/// One notification in a digest.
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
    /// It reached its destination (mailbox, channel, program); otherwise somebody passes it on.
    pub delivered: bool,
    /// The receiver's own id, if it returned one: an SMTP queue id, a PagerDuty dedup key.
    pub provider_id: Option<String>,
    /// A template failed with this error, so the built-in text was sent.
    pub template_failed: Option<String>,
}

impl Accepted {
    /// Accepted by its final destination.
    pub fn delivered() -> Self {
        Self { delivered: true, ..Self::default() }
    }
}

/// Why a receiver did not accept a notification, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Try again: a timeout, SMTP 4xx, HTTP 429 or 5xx. `after` is the pause the receiver asked
    /// for.
    #[error("{reason}")]
    Retry { after: Option<Duration>, reason: String },
    /// Will fail the same way every time: notify the operator, use the fallback receiver.
    #[error("{reason}")]
    Rejected { reason: String },
}
