//! Messages from agents: state transitions, heartbeats, full state reports. `POST /v1/agent/batch`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::State;

/// One request of an agent: the events since the last acknowledged batch, and a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// [`crate::PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Stable identity of the agent: 32 hex digits derived from the machine id.
    pub agent: String,
    /// Host name.
    pub host: String,
    /// The spool that the sequence numbers belong to: 16 hex digits, new whenever the agent starts
    /// with an empty spool.
    pub epoch: String,
    /// The process that sends: 16 hex digits, new at each start. Two processes that take turns
    /// are two hosts with the same `agent`. Empty: the sender is older than this field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Boot id of the kernel, or empty if it is not known. With `host` and `epoch`, it tells a host
    /// that was restarted from a copy of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    pub sent_at: Timestamp,
    /// In order of their sequence numbers; may be empty.
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub heartbeat: Option<Heartbeat>,
    /// All hard states, sent when alertd asked for them. They replace what alertd knew of this
    /// agent, or of the services in `states_part`.
    #[serde(default)]
    pub states: Option<Vec<ServiceState>>,
    /// The services that `states` is about, if one body cannot hold them all. The other parts
    /// follow in the next batches. A batch with it is of [`crate::PROTOCOL_PARTS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub states_part: Option<StatesPart>,
}

/// The services whose names come after one name and not after another, in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatesPart {
    /// Empty in the first part.
    pub after: String,
    /// `None` in the last part.
    #[serde(default)]
    pub through: Option<String>,
}

impl StatesPart {
    pub fn has(&self, service: &str) -> bool {
        service > self.after.as_str() && self.through.as_deref().is_none_or(|through| service <= through)
    }

    pub fn is_last(&self) -> bool {
        self.through.is_none()
    }
}

/// Which events are durable, and whether alertd needs the full state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReply {
    pub protocol: u32,
    /// Every event up to this number is committed and can be removed from the spool.
    pub acked_seq: u64,
    /// The digest differs or events are missing: send [`Batch::states`] next.
    #[serde(default)]
    pub want_states: bool,
    /// Another host with the same `agent` has the same epoch, because its spool was copied: start a
    /// new epoch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start_epoch: bool,
}

/// One event with its sequence number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Starts at 1 in each epoch and increases by one.
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
    /// A service is no longer monitored, because it was removed from the config. Its alert ends,
    /// but nobody claims that the service is OK.
    Removed { service: String },
}

/// A change of the hard state of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The hard state before.
    pub from: State,
    #[serde(flatten)]
    pub now: ServiceState,
}

/// The state of one service, as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Name of the check; unique on its host.
    pub service: String,
    /// Hard state.
    pub state: State,
    /// When this hard state began.
    pub since: Timestamp,
    #[serde(default)]
    pub flapping: bool,
    /// First output line of the result that decided the state.
    pub summary: String,
    /// The other output lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Performance data as the plugin printed it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub perfdata: String,
    /// Labels from the config, without `host` and `service`, which alertd adds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Information for people: `runbook` (a URL), `note`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The agent is alive and reports a digest of its states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// [`crate::digest`] of all hard states after the last event of this batch.
    pub digest: String,
    /// The next heartbeat comes within this many seconds. If it is well overdue, alertd raises an
    /// alert for the silent agent.
    pub next_within_s: u32,
    /// Version of `dogwatch`.
    pub version: String,
    /// Number of monitored services.
    pub services: u32,
    /// Changes to the host in the last day, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<HostChange>,
}

/// A change to a host, for example a boot or a package upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostChange {
    pub at: Timestamp,
    /// For example `booted`.
    pub what: String,
}
