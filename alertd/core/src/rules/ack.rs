//! "I am on it." Stops the escalation and mutes repeats; never hides a recovery; never is a silence.
//!
//! Nagios' rules: a *normal* ack ends with any change of state, a *sticky* one only when all is OK; either may expire.
//! Before one that expires ends, its author is reminded, so that nobody else is woken by an ack that was forgotten.
//! In a group, a change of state is a problem that is new or different. That one of several problems goes away is no reason
//! to wake people again, so it ends no ack.

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
    /// Its end was announced.
    #[serde(default)]
    pub reminded: bool,
}

/// How long before an ack ends its author is reminded.
const REMINDER: Duration = Duration::from_mins(10);

impl Ack {
    /// Why this move of one of the incident's alerts ends it; `None` if it does not.
    pub fn ended_by(&self, change: Move) -> Option<Reason> {
        match change {
            Move::Fired | Move::Worsened | Move::Eased if !self.sticky => Some(Reason::AckOutdated),
            _ => None,
        }
    }

    /// When to say that it ends soon; one that is short needs no word.
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
