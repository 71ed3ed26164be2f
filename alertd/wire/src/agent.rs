//! The messages of an agent: transitions, heartbeats, all states. `POST /v1/agent/batch`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::State;

/// A request from an agent: the events that are not acknowledged yet, and a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// [`crate::PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Stable id of the agent: 32 hex digits, derived from the machine id.
    pub agent: String,
    /// Host name in alerts.
    pub host: String,
    /// The epoch of the numbers: 16 hex digits. A new spool has a new epoch.
    pub epoch: String,
    pub sent_at: Timestamp,
    /// In sequence; may be empty.
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub heartbeat: Option<Heartbeat>,
    /// All hard states, sent if alertd asked for them. They replace alertd's states of this agent.
    #[serde(default)]
    pub states: Option<Vec<ServiceState>>,
}

/// What alertd has committed, and whether it needs the states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReply {
    pub protocol: u32,
    /// All events up to this number are committed and may leave the spool.
    pub acked_seq: u64,
    /// The digest differs or events are missing: send [`Batch::states`] next.
    #[serde(default)]
    pub want_states: bool,
}

/// An event and its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Starts at 1 in each epoch, grows by one.
    pub seq: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A service changed its hard state, or started or stopped flapping.
    Transition(Transition),
    /// A check was removed from the config. Its alert ends, without a recovery.
    Removed { service: String },
}

/// A hard change of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The previous hard state.
    pub from: State,
    #[serde(flatten)]
    pub now: ServiceState,
}

/// The state of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Name of the check, unique on its host.
    pub service: String,
    /// Hard state.
    pub state: State,
    /// When this hard state began.
    pub since: Timestamp,
    #[serde(default)]
    pub flapping: bool,
    /// First line of the result that led to this state.
    pub summary: String,
    /// Further lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Performance data as printed by the plugin.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub perfdata: String,
    /// Labels from the config. alertd adds `host` and `service`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Information for people: `runbook` (a URL), `note`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A sign of life, with a digest of all states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// [`crate::digest()`] of all hard states after the last event of this batch.
    pub digest: String,
    /// The next heartbeat is sent within this many seconds. If it is well overdue, alertd raises an
    /// alert.
    pub next_within_s: u32,
    /// `dogwatch` version.
    pub version: String,
    /// Number of services.
    pub services: u32,
    /// Changes of the host in the last day, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<HostChange>,
}

/// A change of a host: a boot, or upgraded packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostChange {
    pub at: Timestamp,
    /// For example `booted`.
    pub what: String,
}
