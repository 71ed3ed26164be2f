//! Acknowledgements (acks). An ack stops escalation and reminders of an incident. It never hides a
//! recovery, and it is not a silence.
//!
//! The rules are Nagios': a *normal* ack ends with any change of state, a *sticky* ack only when
//! the incident is resolved; both may expire. The author is reminded before an ack expires, so that
//! a forgotten ack does not wake somebody else. In a group, a change of state is a new or different
//! problem. If one of several problems is resolved, the ack stays, because nobody needs to be
//! woken.

use std::time::Duration;

use dogwatch_wire::ctl::AckInfo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{alert::Move, moment::between, reason::Reason};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub author: String,
    pub comment: String,
    pub at: Timestamp,
    pub sticky: bool,
    pub expires_at: Option<Timestamp>,
    /// The reminder before its end was sent.
    #[serde(default)]
    pub reminded: bool,
}

/// When the author is reminded, before the ack expires.
const REMINDER: Duration = Duration::from_mins(10);

impl Ack {
    /// Why this change of an alert of the incident ends the ack, or `None` if it does not.
    pub fn ended_by(&self, change: Move) -> Option<Reason> {
        match change {
            Move::Fired | Move::Worsened | Move::Eased if !self.sticky => Some(Reason::AckOutdated),
            _ => None,
        }
    }

    /// When to send the reminder; a short ack has none.
    pub fn remind_at(&self) -> Option<Timestamp> {
        let expires_at = self.expires_at.filter(|_| !self.reminded)?;
        let long = between(self.at, expires_at) >= 2 * REMINDER;
        long.then(|| expires_at.saturating_sub(REMINDER).unwrap_or(Timestamp::MIN))
    }

    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    pub fn to_info(&self) -> AckInfo {
        AckInfo {
            author: self.author.clone(),
            comment: self.comment.clone(),
            at: self.at,
            sticky: self.sticky,
            expires_at: self.expires_at,
        }
    }
}
