//! What people and tools ask of alertd, and what it answers. JSON over HTTP, on the same socket or over TLS; `alertctl` is one
//! client.
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
//! | `POST /v1/route-test` | [`AskRoute`] | `Vec<`[`Routed`]`>`, in the order asked |
//! | `GET /v1/replay?since=…&after=…` | – | [`Recorded`], a page of it |
//! | `GET /v1/downtimes` | – | `Vec<`[`Downtime`]`>` |
//! | `POST /v1/downtimes` | [`NewDowntime`] | [`Downtime`] |
//! | `DELETE /v1/downtimes/{number}` | – | [`Downtime`], cancelled |
//! | `POST /v1/test-notify` | [`TestNotify`] | [`TestResult`] |
//! | `GET /v1/audit?since=…&limit=…` | – | `Vec<`[`HistoryEntry`]`>` that somebody did, newest first |
//! | `POST /v1/backup` | [`NewBackup`] | the file; [`Backup`] in the header [`BACKUP_HEADER`] |
//! | `GET /v1/tokens` | – | `Vec<`[`Token`]`>` |
//! | `POST /v1/tokens` | [`NewToken`] | [`TokenMade`] |
//! | `DELETE /v1/tokens/{name}` | – | [`Token`], revoked |
//!
//! Who asks is never in the body: alertd takes the caller's login name from the socket's peer credentials, or knows the token.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::State;
pub use crate::{
    backup::{BACKUP_HEADER, Backup, NewBackup},
    token::{NewToken, Token, TokenMade},
};

/// What came of alerts that were posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Numbers of the open incidents that they belong to.
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
    /// Those that are not over.
    #[serde(default)]
    pub downtimes: Vec<Downtime>,
    /// What is wrong with alertd itself (store on fire, receiver failing), each a sentence.
    pub warnings: Vec<String>,
}

/// Whether alertd itself is well, for `alertctl health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub version: String,
    pub at: Timestamp,
    /// The worst of its checks; never UNKNOWN.
    pub state: State,
    pub checks: Vec<HealthCheck>,
}

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `store`, `loop`, `outbox`, `receivers`, `auditor`, `agents`, `on call`, `disk`, `dead-man`, `notice`.
    pub name: String,
    pub state: State,
    pub text: String,
    /// While it is so no ping goes to the dead-man.
    pub stops_ping: bool,
}

/// What alertd knows of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    pub agent: String,
    pub host: String,
    pub version: String,
    pub services: u32,
    pub last_heard_at: Timestamp,
    /// No heartbeat when one was due.
    pub silent: bool,
}

/// How many notifications are in which state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutboxStatus {
    pub queued: u64,
    pub leased: u64,
    pub failed: u64,
    /// Creation time of the oldest that is neither accepted nor settled otherwise.
    pub oldest_at: Option<Timestamp>,
    /// Of the queued: those that wait for a rate limit.
    #[serde(default)]
    pub held: u64,
}

/// A group of alerts that people work on under one number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub number: u64,
    /// Worst state of the firing alerts; OK once all are resolved.
    pub state: State,
    /// Labels the alerts were grouped by.
    pub group: BTreeMap<String, String>,
    pub route: String,
    /// One line: what a person sees first.
    pub title: String,
    pub opened_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    pub alerts: Vec<Alert>,
    pub ack: Option<AckInfo>,
    /// Who was told of the problem (receiver names), in order.
    pub told: Vec<String>,
    /// The next escalation step and when, if nobody acks before.
    pub next_step: Option<NextStep>,
    /// Numbers of the silences that mute all of it now.
    pub silenced_by: Vec<u64>,
    /// Alerts that fire and are told to nobody now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
}

/// Why an alert that fires is told to nobody now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Withheld {
    /// `web1/disk`.
    pub alert: String,
    /// `host_down`, `dependency_down`, `inhibited`, `silenced`, `settling`, …
    pub reason: String,
    /// What withholds it, for people.
    pub by: String,
    /// `None`: until that is over.
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
    /// When it resolved; `None` while it fires.
    pub resolved_at: Option<Timestamp>,
}

/// "I am on it": stops the escalation, mutes repeats. Never a silence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    #[serde(default)]
    pub comment: String,
    /// Holds until everything is OK; otherwise any change of state removes it (Nagios' normal ack).
    #[serde(default)]
    pub sticky: bool,
    /// Removes itself after this many seconds.
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

/// How an incident came to be where it is: every decision with its reason, every notification with its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub incident: Incident,
    /// Matchers on the way down the route tree, outermost first.
    pub route_path: Vec<String>,
    pub decisions: Vec<HistoryEntry>,
    pub notifications: Vec<NotificationInfo>,
}

/// One attempt to tell one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotificationInfo {
    /// The idempotency key, the same on every retry.
    pub id: String,
    pub receiver: String,
    pub kind: String,
    pub reason: String,
    /// `queued`, `leased`, `accepted` (by who passes it on), `delivered`, `failed`, `superseded` or `digested`.
    pub state: String,
    pub created_at: Timestamp,
    pub attempts: u32,
    pub last_error: Option<String>,
    /// What the receiver called it (SMTP queue id, PagerDuty dedup key).
    pub provider_id: Option<String>,
    pub settled_at: Option<Timestamp>,
    /// Of a digested one: the number of the digest, the last part of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_digest: Option<u64>,
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub at: Timestamp,
    /// `None` for what concerns no incident.
    pub incident: Option<u64>,
    /// `transition`, `opened`, `notified`, `escalated`, `acked`, `resolved`, `silenced`, …
    pub kind: String,
    /// The decision's reason, as in the log and the metric.
    pub reason: String,
    /// Who did it: a login name, `token:NAME`, …
    pub author: Option<String>,
    /// Where they came from: `uid 1000`, an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub text: String,
    /// Only where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
}

/// `name=value`, `!=`, `=~`, `!~`, as in Alertmanager.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewSilence {
    /// Matchers as text: `host=web1`, `service=~"disk.*"`. All must match; at least one must not match the empty string.
    pub matchers: Vec<String>,
    /// From its start; not needed with `ends_at`.
    #[serde(default)]
    pub duration_s: u64,
    #[serde(default)]
    pub comment: String,
    /// Say what it would match, create nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Now, if not given or past.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    /// A period of the config: active only while that is inside.
    #[serde(default)]
    pub period: Option<String>,
    /// Yes, that much.
    #[serde(default)]
    pub broad: bool,
}

/// Moves the end of a silence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExtendSilence {
    /// From now, or from its start if that is to come; not needed with `ends_at`.
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
    /// How many firing alerts it matches now.
    pub matches: u64,
    /// Hosts of those, and all hosts that it mutes whole.
    #[serde(default)]
    pub hosts: u64,
    /// The firing alerts that it matches now, a line each; the first 50.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// Why it needs `broad`, if it does.
    #[serde(default)]
    pub broad: Option<String>,
}

/// Announces work on a host, or on one service there.
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
    /// Flexible: begins with the first problem between start and end, and lasts this long.
    #[serde(default)]
    pub flexible_s: Option<u64>,
    /// A period of the config: in effect only while that is inside.
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
    /// When a flexible one met its first problem.
    pub began_at: Option<Timestamp>,
    pub period: Option<String>,
    /// `pending`, `active`, `waiting` for a problem or its period, `over`.
    pub state: String,
    /// While it is active.
    pub until: Option<Timestamp>,
    /// Firing alerts of its place now.
    pub covers: u64,
}

/// Sends one marked test message to a receiver, past routes, limits and silences, and waits for its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestNotify {
    pub receiver: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    pub notification: NotificationInfo,
}

/// Puts somebody else on call for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewOverride {
    pub schedule: String,
    /// A user's name, or `nobody`.
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
    /// `None`: written in the config.
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

/// Who is on call at a time, and what comes after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnCall {
    pub at: Timestamp,
    /// Shifts and gaps are listed until then.
    pub until: Timestamp,
    pub schedules: Vec<OnCallSchedule>,
    /// Who is told when nobody is on call.
    pub catch_all: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnCallSchedule {
    pub name: String,
    /// IANA name.
    pub time_zone: String,
    /// `None`: nobody.
    pub user: Option<String>,
    /// By which this user is told, in order.
    pub receivers: Vec<String>,
    /// By an override, not by the rotation.
    pub overridden: bool,
    /// When this changes; `None`: not in the next 7 days.
    pub until: Option<Timestamp>,
    /// What it changes to.
    pub next: Option<Shift>,
    /// From `at`, without a hole, the first cut to it.
    pub shifts: Vec<Shift>,
    /// When nobody is on call and nobody said that this is meant so.
    pub gaps: Vec<Shift>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Where alerts with these labels would go now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AskRoute {
    /// At most [`crate::limits::ROUTED_MAX`].
    pub alerts: Vec<AskedAlert>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AskedAlert {
    pub labels: BTreeMap<String, String>,
    /// People may have other rules for it.
    #[serde(default)]
    pub critical: bool,
}

/// How one alert goes through the tree, and who would be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    pub labels: BTreeMap<String, String>,
    /// Every node that was looked at, in order.
    pub tree: Vec<RouteNode>,
    /// An incident each; there is always one.
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
    /// It is the last of a way: the alert goes by its policy.
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
    /// Periods in which it says nothing, and those outside of which it does not.
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
    /// As the policy names it.
    pub name: String,
    /// Who is meant now: a user, or the catch-all if nobody is on call.
    pub user: Option<String>,
    pub nobody_on_call: bool,
    /// One for a receiver; for a user their own, counted from the step.
    pub rules: Vec<RouteRule>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRule {
    pub after_ms: u64,
    pub receivers: Vec<String>,
}

/// What a decision was about, for those who reckon it again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// A transition: the alert after it, without its long output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// And its state before; `None`: it did not fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckInfo>,
}

/// A page of what happened, for `alertctl replay`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Transitions, acks and unacks with their details, oldest first.
    pub entries: Vec<HistoryEntry>,
    /// Ask again with `after` = this for the rest.
    pub more_after: Option<u64>,
    /// What was sent and taken, oldest first; with the first page.
    pub sent: Vec<Sent>,
    /// JSON of the silences, downtimes and overrides by hand that were not over at the beginning, as the store has them; with the
    /// first page.
    pub silences: Vec<String>,
    #[serde(default)]
    pub downtimes: Vec<String>,
    pub overrides: Vec<String>,
}

/// One notification, really or by another config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub at: Timestamp,
    pub receiver: String,
    pub kind: String,
    pub reason: String,
    pub title: String,
}
