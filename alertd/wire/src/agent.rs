//! What an agent says: state transitions, heartbeats, whole states. `POST /v1/agent/batch`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::State;

/// One request of an agent: what happened since the last one that was acknowledged, and that it is alive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// [`crate::PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Stable identity of the agent (32 hex digits, made from the machine id), not its name.
    pub agent: String,
    /// Host name, as people know it.
    pub host: String,
    /// Which spool the numbers belong to: 16 hex digits, new whenever the agent had to start an empty spool.
    pub epoch: String,
    pub sent_at: Timestamp,
    /// In sequence; may be empty.
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub heartbeat: Option<Heartbeat>,
    /// All hard states, sent when alertd asked for them. Replaces what alertd believed of this agent.
    #[serde(default)]
    pub states: Option<Vec<ServiceState>>,
}

/// What alertd has made durable, and what it wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReply {
    pub protocol: u32,
    /// Every event up to this number is committed and may leave the spool.
    pub acked_seq: u64,
    /// The digest differed or events were missing: send [`Batch::states`] next.
    #[serde(default)]
    pub want_states: bool,
}

/// Something that happened, with its place in the order.
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
    /// A service changed its hard state, or began or stopped flapping.
    Transition(Transition),
    /// A service is no longer watched (removed from the config). Its alert resolves without a recovery's claim.
    Removed { service: String },
}

/// A hard change of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// What was believed before.
    pub from: State,
    #[serde(flatten)]
    pub now: ServiceState,
}

/// What an agent believes of one service.
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
    /// First line of the result that decided it.
    pub summary: String,
    /// Further lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Perfdata as the plugin printed it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub perfdata: String,
    /// Labels from the config, besides `host` and `service`, which alertd adds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Things for people: `runbook` (a URL), `note`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The agent is alive, and this is what it believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// [`crate::digest`] over all hard states after the last event of this batch.
    pub digest: String,
    /// The next heartbeat comes within this many seconds; well past that the agent is silent, and that is an alert.
    pub next_within_s: u32,
    /// `dogwatch` version.
    pub version: String,
    /// Number of services watched.
    pub services: u32,
    /// What was done to the host in the last day, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<HostChange>,
}

/// Something that was done to a host: it booted, packages were upgraded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostChange {
    pub at: Timestamp,
    /// A few words: `booted`.
    pub what: String,
}
