//! Acknowledgements: someone is working on the incident. An ack stops the escalation and mutes
//! repeats. It never hides a recovery, and it is not a silence.
//!
//! As in Nagios, a *normal* ack ends with any change of state, a *sticky* one only when all is OK;
//! either may expire. Before an ack expires its author is reminded, so that a forgotten ack does
//! not get other people paged. In a group, a change of state means a problem that is new or
//! different. One of several problems going away is no reason to notify people again, so it ends no
//! ack.

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
    /// A reminder that it will end was sent.
    #[serde(default)]
    pub reminded: bool,
}

/// When the author is reminded, before the ack expires.
const REMINDER: Duration = Duration::from_mins(10);

impl Ack {
    /// Why this change of one of the incident's alerts ends the ack; `None` if it does not.
    pub fn ended_by(&self, change: Move) -> Option<Reason> {
        match change {
            Move::Fired | Move::Worsened | Move::Eased if !self.sticky => Some(Reason::AckOutdated),
            _ => None,
        }
    }

    /// When to announce that it will end soon; a short ack is not announced.
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
