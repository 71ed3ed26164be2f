//! The requests of people and tools to alertd, and its answers. JSON over HTTP, on the same socket
//! or over TLS. `alertctl` is one client.
//!
//! | method and path | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | – | [`Status`] |
//! | `GET /v1/health` | – | [`Health`] |
//! | `POST /v1/alerts` | list of Alertmanager's `postableAlert` | [`Posted`] |
//! | `POST /v1/incidents/{number}/ack` | [`Ack`] | [`Incident`] |
//! | `POST /v1/incidents/{number}/unack` | [`Unack`] | [`Incident`] |
//! | `GET /v1/incidents/{number}/why` | – | [`Why`] |
//! | `GET /v1/history?since=…&limit=…` | – | `Vec<`[`HistoryEntry`]`>`, newest first |
//! | `GET /v1/silences` | – | `Vec<`[`Silence`]`>` |
//! | `POST /v1/silences` | [`NewSilence`] | [`Silence`] |
//! | `DELETE /v1/silences/{number}` | – | [`Silence`], ended |
//! | `POST /v1/silences/{number}/extend` | [`ExtendSilence`] | [`Silence`] |
//! | `GET /v1/oncall?at=…&until=…` | – | [`OnCall`]; at most 35 days |
//! | `GET /v1/overrides` | – | `Vec<`[`Override`]`>` |
//! | `POST /v1/overrides` | [`NewOverride`] | [`Override`] |
//! | `DELETE /v1/overrides/{number}` | – | [`Override`], ended |
//! | `POST /v1/route-test` | [`AskRoute`] | `Vec<`[`Routed`]`>`, in the order of the request |
//! | `GET /v1/replay?since=…&after=…` | – | [`Recorded`], one page |
//! | `GET /v1/downtimes` | – | `Vec<`[`Downtime`]`>` |
//! | `POST /v1/downtimes` | [`NewDowntime`] | [`Downtime`] |
//! | `DELETE /v1/downtimes/{number}` | – | [`Downtime`], cancelled |
//! | `POST /v1/test-notify` | [`TestNotify`] | [`TestResult`] |
//! | `GET /v1/audit?since=…&limit=…` | – | `Vec<`[`HistoryEntry`]`>` of what people did, newest first |
//! | `POST /v1/backup` | [`NewBackup`] | the file; [`Backup`] in the header [`BACKUP_HEADER`] |
//! | `GET /v1/tokens` | – | `Vec<`[`Token`]`>` |
//! | `POST /v1/tokens` | [`NewToken`] | [`TokenMade`] |
//! | `DELETE /v1/tokens/{name}` | – | [`Token`], revoked |
//!
//! The caller is never in the body: alertd knows it from the socket's peer credentials or from the
//! token.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::State;
pub use crate::{
    backup::{BACKUP_HEADER, Backup, NewBackup},
    token::{NewToken, Token, TokenMade},
};

/// The outcome of posted alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Numbers of the open incidents to which they belong.
    pub incidents: Vec<u64>,
}

/// Everything open, for `alertctl status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub started_at: Timestamp,
    /// Open incidents, worst and oldest first.
    pub incidents: Vec<Incident>,
    pub agents: Vec<AgentStatus>,
    pub outbox: OutboxStatus,
    /// Silences that are not over.
    #[serde(default)]
    pub downtimes: Vec<Downtime>,
    /// Problems of alertd itself (the store or a receiver fails), one sentence each.
    pub warnings: Vec<String>,
}

/// The health of alertd itself, for `alertctl health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub version: String,
    pub at: Timestamp,
    /// The worst state of the checks; never UNKNOWN.
    pub state: State,
    pub checks: Vec<HealthCheck>,
}

/// One check of alertd's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `store`, `loop`, `outbox`, `receivers`, `auditor`, `agents`, `on call`, `disk`, `dead-man`,
    /// `notice`.
    pub name: String,
    pub state: State,
    pub text: String,
    /// While this is the case, the dead-man ping is not sent.
    pub stops_ping: bool,
}

/// What alertd knows about one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    pub agent: String,
    pub host: String,
    pub version: String,
    pub services: u32,
    pub last_heard_at: Timestamp,
    /// Its heartbeat is overdue.
    pub silent: bool,
}

/// The number of notifications in each state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutboxStatus {
    pub queued: u64,
    pub leased: u64,
    pub failed: u64,
    /// Creation time of the oldest one that has no outcome yet.
    pub oldest_at: Option<Timestamp>,
    /// Queued notifications that wait for a rate limit.
    #[serde(default)]
    pub held: u64,
}

/// A group of alerts with a number, for people to work on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub number: u64,
    /// Worst state of the firing alerts; OK once all are resolved.
    pub state: State,
    /// The labels by which the alerts are grouped.
    pub group: BTreeMap<String, String>,
    pub route: String,
    /// One line: the first thing that people see.
    pub title: String,
    pub opened_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    pub alerts: Vec<Alert>,
    pub ack: Option<AckInfo>,
    /// Receivers that were notified of the problem, in order.
    pub told: Vec<String>,
    /// The next escalation step and its time, unless somebody acknowledges before.
    pub next_step: Option<NextStep>,
    /// Numbers of the silences that suppress all of it now.
    pub silenced_by: Vec<u64>,
    /// Firing alerts whose notifications are suppressed now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
}

/// Why the notifications of a firing alert are suppressed now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Withheld {
    /// `web1/disk`.
    pub alert: String,
    /// `host_down`, `dependency_down`, `inhibited`, `silenced`, `settling`, …
    pub reason: String,
    /// What suppresses it, for people.
    pub by: String,
    /// `None`: until the reason ends.
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextStep {
    /// From 1.
    pub step: u32,
    pub targets: Vec<String>,
    pub at: Timestamp,
}

/// One alert of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub state: State,
    pub flapping: bool,
    pub summary: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub perfdata: String,
    pub since: Timestamp,
    /// When it resolved; `None` while it is firing.
    pub resolved_at: Option<Timestamp>,
}

/// Acknowledges an incident: stops its escalation and its repeats. Does not silence anything else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    #[serde(default)]
    pub comment: String,
    /// Stays until everything is OK. Otherwise any change of state removes it, as in Nagios.
    #[serde(default)]
    pub sticky: bool,
    /// Expires after this many seconds.
    #[serde(default)]
    pub expire_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AckInfo {
    pub author: String,
    pub comment: String,
    pub at: Timestamp,
    pub sticky: bool,
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Unack {
    #[serde(default)]
    pub comment: String,
}

/// The history of an incident: all decisions with their reasons, all notifications with their
/// states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub incident: Incident,
    /// Matchers along the path through the route tree, outermost first.
    pub route_path: Vec<String>,
    pub decisions: Vec<HistoryEntry>,
    pub notifications: Vec<NotificationInfo>,
}

/// One attempt to notify one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotificationInfo {
    /// The idempotency key, the same on every retry.
    pub id: String,
    pub receiver: String,
    pub kind: String,
    pub reason: String,
    /// `queued`, `leased`, `accepted` (by a server that passes it on), `delivered`, `failed`,
    /// `superseded` or `digested`.
    pub state: String,
    pub created_at: Timestamp,
    pub attempts: u32,
    pub last_error: Option<String>,
    /// The receiver's id for it (SMTP queue id, PagerDuty dedup key).
    pub provider_id: Option<String>,
    pub settled_at: Option<Timestamp>,
    /// If it is part of a digest: the number of the digest, which is the last part of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_digest: Option<u64>,
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub at: Timestamp,
    /// `None` if it concerns no incident.
    pub incident: Option<u64>,
    /// `transition`, `opened`, `notified`, `escalated`, `acked`, `resolved`, `silenced`, …
    pub kind: String,
    /// The reason of the decision, as in the log and the metric.
    pub reason: String,
    /// Who did it: a user name, `token:NAME`, …
    pub author: Option<String>,
    /// Where the request came from: `uid 1000`, an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub text: String,
    /// Only on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
}

/// `name=value`, `!=`, `=~`, `!~`, as in Alertmanager.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewSilence {
    /// Matchers as text: `host=web1`, `service=~"disk.*"`. All must match; at least one must not
    /// match the empty string.
    pub matchers: Vec<String>,
    /// From its start; not needed with `ends_at`.
    #[serde(default)]
    pub duration_s: u64,
    #[serde(default)]
    pub comment: String,
    /// Only report what it would match.
    #[serde(default)]
    pub dry_run: bool,
    /// Now, if not given or past.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    /// A period in the config: the silence is active only during this period.
    #[serde(default)]
    pub period: Option<String>,
    /// Confirms a silence that matches very much.
    #[serde(default)]
    pub broad: bool,
}

/// Moves the end of a silence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExtendSilence {
    /// From now, or from its start if that is in the future; not needed with `ends_at`.
    #[serde(default)]
    pub duration_s: u64,
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// 0 on a dry run.
    pub number: u64,
    pub matchers: Vec<String>,
    pub author: String,
    pub comment: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub active: bool,
    /// `pending`, `active`, `waiting` for its period, `over`.
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub period: Option<String>,
    /// Number of firing alerts that it matches now.
    pub matches: u64,
    /// Hosts of those alerts, and all hosts that it silences completely.
    #[serde(default)]
    pub hosts: u64,
    /// The firing alerts that it matches now, one line each; the first 50.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// Why it needs `broad`, if it does.
    #[serde(default)]
    pub broad: Option<String>,
}

/// Announces maintenance of a host, or of one of its services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewDowntime {
    pub host: String,
    #[serde(default)]
    pub service: Option<String>,
    #[serde(default)]
    pub comment: String,
    /// Now, if not given or past.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    /// From its start; not needed with `ends_at`.
    #[serde(default)]
    pub duration_s: u64,
    /// Flexible: starts with the first problem between start and end, and lasts this long.
    #[serde(default)]
    pub flexible_s: Option<u64>,
    /// A period in the config: the downtime is in effect only during this period.
    #[serde(default)]
    pub period: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Downtime {
    pub number: u64,
    pub host: String,
    /// `None`: the host and all its services.
    pub service: Option<String>,
    pub author: String,
    pub comment: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub flexible_s: Option<u64>,
    /// When the first problem started a flexible downtime.
    pub began_at: Option<Timestamp>,
    pub period: Option<String>,
    /// `pending`, `active`, `waiting` for a problem or its period, `over`.
    pub state: String,
    /// Whether it is in effect now.
    pub until: Option<Timestamp>,
    /// Number of firing alerts of its host or service now.
    pub covers: u64,
}

/// Sends a test message to a receiver and waits for the outcome. Routes, limits and silences do not
/// apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestNotify {
    pub receiver: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    pub notification: NotificationInfo,
}

/// Puts somebody else on call for some time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewOverride {
    pub schedule: String,
    /// A user name, or `nobody`.
    pub user: String,
    /// Default: now.
    #[serde(default)]
    pub from: Option<Timestamp>,
    pub until: Timestamp,
    #[serde(default)]
    pub comment: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// `None`: from the config.
    pub number: Option<u64>,
    pub schedule: String,
    /// `None`: nobody, on purpose.
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Who is on call at a given time, and afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnCall {
    pub at: Timestamp,
    /// Shifts and gaps are listed until then.
    pub until: Timestamp,
    pub schedules: Vec<OnCallSchedule>,
    /// Who is notified if nobody is on call.
    pub catch_all: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnCallSchedule {
    pub name: String,
    /// IANA name.
    pub time_zone: String,
    /// `None`: nobody.
    pub user: Option<String>,
    /// The receivers of this user, in order.
    pub receivers: Vec<String>,
    /// By an override instead of the rotation.
    pub overridden: bool,
    /// When this changes; `None`: not in the next 7 days.
    pub until: Option<Timestamp>,
    /// Who is on call then.
    pub next: Option<Shift>,
    /// From `at` on, without gaps. The first one starts at `at`.
    pub shifts: Vec<Shift>,
    /// When nobody is on call without an override that says so.
    pub gaps: Vec<Shift>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Asks where alerts with these labels would go now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AskRoute {
    /// At most [`crate::limits::ROUTED_MAX`].
    pub alerts: Vec<AskedAlert>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AskedAlert {
    pub labels: BTreeMap<String, String>,
    /// Users can have their own rules for it.
    #[serde(default)]
    pub critical: bool,
}

/// The path of one alert through the route tree, and who would be notified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    pub labels: BTreeMap<String, String>,
    /// Every node that was looked at, in order.
    pub tree: Vec<RouteNode>,
    /// One per incident; never empty.
    pub ways: Vec<RouteWay>,
    /// Numbers of the silences that match now.
    pub silenced_by: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteNode {
    /// 0 is the root.
    pub depth: u32,
    pub matchers: String,
    pub matched: bool,
    /// The path ends here: the policy of this node applies.
    pub takes: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteWay {
    /// Matchers from the root down.
    pub path: Vec<String>,
    pub group: BTreeMap<String, String>,
    /// Milliseconds.
    pub group_wait_ms: u64,
    pub group_interval_ms: u64,
    pub repeat_interval_ms: u64,
    /// Periods during which it does not notify, and periods outside of which it does not.
    pub mute_during: Vec<String>,
    pub active_during: Vec<String>,
    pub policy: String,
    pub repeat: u32,
    pub steps: Vec<RouteStep>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteStep {
    /// From the first notification.
    pub after_ms: u64,
    pub targets: Vec<RouteTarget>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The name in the policy.
    pub name: String,
    /// The user on call now, or the catch-all if nobody is.
    pub user: Option<String>,
    pub nobody_on_call: bool,
    /// One for a receiver. For a user, the user's own rules, relative to the step.
    pub rules: Vec<RouteRule>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRule {
    pub after_ms: u64,
    pub receivers: Vec<String>,
}

/// The input of a decision, so that it can be repeated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// For a transition: the alert after it, without its long output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// The state of the alert before; `None` if it was not firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckInfo>,
}

/// A page of recorded events, for `alertctl replay`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Transitions, acks and unacks, with details, oldest first.
    pub entries: Vec<HistoryEntry>,
    /// Pass this as `after` to get the next page.
    pub more_after: Option<u64>,
    /// Notifications that were sent and accepted, oldest first. Only on the first page.
    pub sent: Vec<Sent>,
    /// JSON of the silences, downtimes and manual overrides that were not over at the start, as
    /// stored. Only on the first page.
    pub silences: Vec<String>,
    #[serde(default)]
    pub downtimes: Vec<String>,
    pub overrides: Vec<String>,
}

/// A notification that was sent, or that would be sent with another config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub at: Timestamp,
    pub receiver: String,
    pub kind: String,
    pub reason: String,
    pub title: String,
}
