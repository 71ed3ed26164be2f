//! The state of one agent: its last accepted event and its last heartbeat.
//!
//! Each event counts once: events up to `last_seq` of the current epoch are old. A gap in the
//! numbers means that the agent's spool dropped events; alertd then asks for all its states. A
//! heartbeat without events is not written to the store, so every agent gets a full grace period
//! after a restart.

use std::{collections::BTreeSet, time::Duration};

use dogwatch_wire::HostChange;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{lately::Lately, moment::later, process::Process, sender::Sender};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, stored by these names")]
pub struct Agent {
    pub host: String,
    pub version: String,
    pub services: u32,
    pub epoch: String,
    /// Every event up to this number was accepted.
    pub last_seq: u64,
    pub next_within_s: u32,
    /// The store contains the value of the last write, not of the last heartbeat.
    pub last_heard_at: Timestamp,
    pub silent: bool,
    /// It is silent together with many others, which have one alert.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_mass: bool,
    /// When it sent a heartbeat again after it was silent.
    #[serde(default)]
    pub back_at: Option<Timestamp>,
    /// Recent changes on its host.
    #[serde(default, skip_serializing_if = "Lately::is_empty")]
    pub lately: Lately,
    /// Changes to its host from its last heartbeat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<HostChange>,
    /// Who sent its first batch, and pays for it.
    #[serde(default)]
    pub sender: Sender,
    /// The process that sends.
    #[serde(default)]
    pub process: Process,
    /// The address from which it reports, if not over the unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// It shares its id with another host, or has done so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares_id: bool,
    /// Its spool may be a copy of another host's, so it must start a new epoch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub epoch_is_copied: bool,
    /// The agent that this may be, with a new name or state: they have one id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maybe: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
}

/// The process before this one may still run, on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// Before that, the states of this process are not asked for: they would replace those of the
    /// other host.
    pub until: Timestamp,
    /// Services that the new process has reported.
    pub reported: BTreeSet<String>,
}

/// How to treat an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOrder {
    /// Accepted before.
    Old,
    Next,
    /// An event before it was lost.
    AfterGap,
}

impl Agent {
    pub fn new(host: &str, epoch: &str, sender: Sender, now: Timestamp) -> Self {
        Self {
            host: host.into(),
            version: String::new(),
            services: 0,
            epoch: epoch.into(),
            last_seq: 0,
            next_within_s: HEARTBEAT_DEFAULT_S,
            last_heard_at: now,
            silent: false,
            in_mass: false,
            back_at: None,
            lately: Lately::default(),
            changes: Vec::new(),
            sender,
            process: Process::default(),
            address: None,
            shares_id: false,
            epoch_is_copied: false,
            maybe: None,
            doubt: None,
        }
    }

    /// Starts the numbers of a new spool. Returns true if the epoch is new.
    pub fn begin_epoch(&mut self, epoch: &str) -> bool {
        if self.epoch == epoch {
            return false;
        }
        epoch.clone_into(&mut self.epoch);
        self.last_seq = 0;
        self.epoch_is_copied = false;
        true
    }

    /// Records the number of an event.
    pub fn take(&mut self, seq: u64) -> EventOrder {
        if seq <= self.last_seq {
            return EventOrder::Old;
        }
        let next = seq == self.last_seq + 1;
        self.last_seq = seq;
        if next { EventOrder::Next } else { EventOrder::AfterGap }
    }

    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.silent || self.silent_at() <= now
    }

    /// When it counts as silent: after two announced intervals, plus some seconds for a busy host.
    pub fn silent_at(&self) -> Timestamp {
        later(self.last_heard_at, 2 * self.interval() + GRACE)
    }

    /// The longest time between two heartbeats.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.next_within_s.clamp(HEARTBEAT_MIN_S, HEARTBEAT_MAX_S).into())
    }

    /// The largest value of [`Self::interval`].
    pub const INTERVAL_MAX: Duration = Duration::from_secs(HEARTBEAT_MAX_S as u64);
}

const GRACE: Duration = Duration::from_secs(5);
/// Used until the first heartbeat announces an interval.
const HEARTBEAT_DEFAULT_S: u32 = 60;
/// Bounds for the announced interval, so that an agent can neither avoid being monitored nor
/// overload alertd.
const HEARTBEAT_MIN_S: u32 = 1;
const HEARTBEAT_MAX_S: u32 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_counts_once_and_a_gap_is_noticed() {
        let mut agent = Agent::new("web1", "e1", Sender::default(), Timestamp::UNIX_EPOCH);
        let seqs = [1, 2, 2, 1, 3, 5, 4, 6];
        let took = seqs.map(|seq| match agent.take(seq) {
            EventOrder::Old => '-',
            EventOrder::Next => 'n',
            EventOrder::AfterGap => 'g',
        });
        assert_eq!(String::from_iter(took), "nn--ng-n");
        assert!(!agent.begin_epoch("e1"));
        assert!(agent.begin_epoch("e2"));
        assert_eq!(agent.take(1), EventOrder::Next);
    }
}
