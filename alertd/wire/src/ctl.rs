//! The API for people and tools: JSON over HTTP, on the unix socket or over TLS. `alertctl` is one
//! client.
//!
//! | method and path | body | response |
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
//! | `GET /v1/replay?since=…&after=…` | – | one page of [`Recorded`] |
//! | `GET /v1/downtimes` | – | `Vec<`[`Downtime`]`>` |
//! | `POST /v1/downtimes` | [`NewDowntime`] | [`Downtime`] |
//! | `DELETE /v1/downtimes/{number}` | – | [`Downtime`], cancelled |
//! | `POST /v1/test-notify` | [`TestNotify`] | [`TestResult`] |
//! | `GET /v1/audit?since=…&limit=…` | – | `Vec<`[`HistoryEntry`]`>` with an author, newest first |
//! | `POST /v1/backup` | [`NewBackup`] | the file; [`Backup`] in the header [`BACKUP_HEADER`] |
//! | `GET /v1/tokens` | – | `Vec<`[`Token`]`>` |
//! | `POST /v1/tokens` | [`NewToken`] | [`TokenMade`] |
//! | `DELETE /v1/tokens/{name}` | – | [`Token`], revoked |
//!
//! The body never names the caller. alertd takes the login name from the peer credentials of the
//! socket, or the name from the token.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::State;
pub use crate::{
    backup::{BACKUP_HEADER, Backup, NewBackup},
    token::{NewToken, Token, TokenMade},
};

/// The result of posting alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Numbers of the open incidents that the alerts belong to.
    pub incidents: Vec<u64>,
}

/// Everything open, for `alertctl status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub started_at: Timestamp,
    /// Open incidents, worst first, then oldest first.
    pub incidents: Vec<Incident>,
    pub agents: Vec<AgentStatus>,
    pub outbox: OutboxStatus,
    /// Current and future ones.
    #[serde(default)]
    pub downtimes: Vec<Downtime>,
    /// How many silences are in effect.
    #[serde(default)]
    pub silences: usize,
    /// Problems of alertd itself, one sentence each, for example a failing receiver.
    pub warnings: Vec<String>,
}

/// The health of alertd itself, for `alertctl health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub version: String,
    pub at: Timestamp,
    /// The worst state of all checks; never UNKNOWN.
    pub state: State,
    pub checks: Vec<HealthCheck>,
}

/// One health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `store`, `loop`, `outbox`, `receivers`, `auditor`, `agents`, `on call`, `disk`, `dead-man`,
    /// `notice`.
    pub name: String,
    pub state: State,
    pub text: String,
    /// Whether this stops the pings to the dead man's switch.
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

/// Number of notifications by state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutboxStatus {
    pub queued: u64,
    pub leased: u64,
    pub failed: u64,
    /// Creation time of the oldest pending notification.
    pub oldest_at: Option<Timestamp>,
    /// Queued notifications that wait for a rate limit.
    #[serde(default)]
    pub held: u64,
}

/// A group of alerts with a number, which people work on together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub number: u64,
    /// Worst state of the firing alerts; OK when all are resolved.
    pub state: State,
    /// Labels that the alerts are grouped by.
    pub group: BTreeMap<String, String>,
    pub route: String,
    /// One line that describes the incident.
    pub title: String,
    pub opened_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    pub alerts: Vec<Alert>,
    pub ack: Option<AckInfo>,
    /// Receivers that were notified of the problem, in order.
    pub told: Vec<String>,
    /// The next escalation step, unless somebody acknowledges before.
    pub next_step: Option<NextStep>,
    /// Numbers of the silences, if they now suppress all alerts of the incident.
    pub silenced_by: Vec<u64>,
    /// Firing alerts that are suppressed now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
}

/// Why a firing alert is suppressed now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Withheld {
    /// `web1/disk`.
    pub alert: String,
    /// `host_down`, `dependency_down`, `inhibited`, `silenced`, `settling`, …
    pub reason: String,
    /// What suppresses it, for people.
    pub by: String,
    /// When this ends, or `None` if that is not known.
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextStep {
    /// Counted from 1.
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
    /// When it was resolved, or `None` while it fires.
    pub resolved_at: Option<Timestamp>,
}

/// Acknowledges an incident: stops its escalation and reminders.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    #[serde(default)]
    pub comment: String,
    /// The ack lasts until the incident is resolved. Otherwise any change of state ends it, like a
    /// normal ack in Nagios.
    #[serde(default)]
    pub sticky: bool,
    /// The ack ends after this many seconds.
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

/// Everything that explains an incident: decisions with their reasons, notifications with their
/// states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub incident: Incident,
    /// The matchers of the routes that took the incident, outermost first.
    pub route_path: Vec<String>,
    pub decisions: Vec<HistoryEntry>,
    pub notifications: Vec<NotificationInfo>,
}

/// One notification to one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotificationInfo {
    /// The idempotency key, the same on every retry.
    pub id: String,
    pub receiver: String,
    pub kind: String,
    pub reason: String,
    /// `queued`, `leased`, `accepted` (by a service that passes it on), `delivered`, `failed`,
    /// `superseded` or `digested`.
    pub state: String,
    pub created_at: Timestamp,
    pub attempts: u32,
    pub last_error: Option<String>,
    /// The receiver's own id for it, such as an SMTP queue id or a PagerDuty dedup key.
    pub provider_id: Option<String>,
    pub settled_at: Option<Timestamp>,
    /// For a digested notification: the number of the digest, which is the last part of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_digest: Option<u64>,
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub at: Timestamp,
    /// `None` if the entry does not belong to an incident.
    pub incident: Option<u64>,
    /// `transition`, `opened`, `notified`, `escalated`, `acked`, `resolved`, `silenced`, …
    pub kind: String,
    /// The reason of the decision, as in the log and the metric.
    pub reason: String,
    /// The author: a login name, `token:NAME`, …
    pub author: Option<String>,
    /// Where the request came from: `uid 1000`, or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub text: String,
    /// Present only if the request asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
}

/// Creates a silence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewSilence {
    /// Matchers as in Alertmanager: `host=web1`, `service=~"disk.*"`, `!=`, `!~`. All must match.
    pub matchers: Vec<String>,
    /// Counted from the start; not needed with `ends_at`.
    #[serde(default)]
    pub duration_s: u64,
    #[serde(default)]
    pub comment: String,
    /// Report what the silence would match, but create nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Default: now. A time in the past means now.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    /// A period of the config. The silence is active only while the period is in effect.
    #[serde(default)]
    pub period: Option<String>,
    /// Allow a silence that matches many hosts or alerts.
    #[serde(default)]
    pub broad: bool,
}

/// Changes the end of a silence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExtendSilence {
    /// Counted from now, or from the start if that is in the future; not needed with `ends_at`.
    #[serde(default)]
    pub duration_s: u64,
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// 0 for a dry run.
    pub number: u64,
    pub matchers: Vec<String>,
    pub author: String,
    pub comment: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub active: bool,
    /// `pending`, `active`, `waiting` (for its period) or `over`.
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub period: Option<String>,
    /// Number of firing alerts that it matches now.
    pub matches: u64,
    /// Number of hosts of these alerts, including hosts that it matches as a whole.
    #[serde(default)]
    pub hosts: u64,
    /// The first 50 firing alerts that it matches now, one line each.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// Why it needs `broad`, or `None` if it does not.
    #[serde(default)]
    pub broad: Option<String>,
}

/// Schedules a downtime of a host or of one service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewDowntime {
    pub host: String,
    #[serde(default)]
    pub service: Option<String>,
    #[serde(default)]
    pub comment: String,
    /// Default: now. A time in the past means now.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    /// Counted from the start; not needed with `ends_at`.
    #[serde(default)]
    pub duration_s: u64,
    /// Flexible downtime: starts with the first problem between start and end, and lasts this long.
    #[serde(default)]
    pub flexible_s: Option<u64>,
    /// Recurring downtime: in effect only while this period of the config is.
    #[serde(default)]
    pub period: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Downtime {
    pub number: u64,
    pub host: String,
    /// `None` for the host and all its services.
    pub service: Option<String>,
    pub author: String,
    pub comment: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub flexible_s: Option<u64>,
    /// When a flexible downtime started.
    pub began_at: Option<Timestamp>,
    pub period: Option<String>,
    /// `pending`, `active`, `waiting` (for a problem or its period) or `over`.
    pub state: String,
    /// When it ends, while it is active.
    pub until: Option<Timestamp>,
    /// Number of firing alerts that it covers now.
    pub covers: u64,
}

/// Sends a test notification to a receiver, regardless of routes, limits and silences, and waits
/// for the result.
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
    /// Name of a user, or `nobody`.
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
    /// `None` for an override in the config.
    pub number: Option<u64>,
    pub schedule: String,
    /// `None` for nobody, on purpose.
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Who is on call at a time, and the shifts after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnCall {
    pub at: Timestamp,
    /// Shifts and gaps are listed up to this time.
    pub until: Timestamp,
    pub schedules: Vec<OnCallSchedule>,
    /// Who is notified when nobody is on call.
    pub catch_all: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnCallSchedule {
    pub name: String,
    /// IANA name.
    pub time_zone: String,
    /// `None` for nobody.
    pub user: Option<String>,
    /// The receivers that notify this user, in order.
    pub receivers: Vec<String>,
    /// Whether an override put this user on call, not the rotation.
    pub overridden: bool,
    /// When this changes, or `None` if not in the next 7 days.
    pub until: Option<Timestamp>,
    /// The shift after that.
    pub next: Option<Shift>,
    /// All shifts from `at`, without holes. The first one starts at `at`.
    pub shifts: Vec<Shift>,
    /// Times when nobody is on call and the config does not say that this is intended.
    pub gaps: Vec<Shift>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Asks how alerts with these labels would be routed now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AskRoute {
    /// At most [`crate::limits::ROUTED_MAX`].
    pub alerts: Vec<AskedAlert>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AskedAlert {
    pub labels: BTreeMap<String, String>,
    /// Users can have other rules for CRITICAL.
    #[serde(default)]
    pub critical: bool,
}

/// How one alert is routed, and who would be notified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    pub labels: BTreeMap<String, String>,
    /// Every route that was tried, in order.
    pub tree: Vec<RouteNode>,
    /// One for each incident that the alert would join; at least one.
    pub ways: Vec<RouteWay>,
    /// Numbers of the silences that match now.
    pub silenced_by: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteNode {
    /// 0 for the root.
    pub depth: u32,
    pub matchers: String,
    pub matched: bool,
    /// This route takes the alert: its policy applies.
    pub takes: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteWay {
    /// Matchers from the root downwards.
    pub path: Vec<String>,
    pub group: BTreeMap<String, String>,
    /// In milliseconds.
    pub group_wait_ms: u64,
    pub group_interval_ms: u64,
    pub repeat_interval_ms: u64,
    /// Periods in which the route is muted, and the only periods in which it is not.
    pub mute_during: Vec<String>,
    pub active_during: Vec<String>,
    pub policy: String,
    pub repeat: u32,
    pub steps: Vec<RouteStep>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteStep {
    /// Counted from the first notification.
    pub after_ms: u64,
    pub targets: Vec<RouteTarget>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The name in the policy.
    pub name: String,
    /// The user it stands for now, or the catch-all if nobody is on call.
    pub user: Option<String>,
    pub nobody_on_call: bool,
    /// One rule for a receiver; the user's own rules, counted from the step, for a user.
    pub rules: Vec<RouteRule>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRule {
    pub after_ms: u64,
    pub receivers: Vec<String>,
}

/// The data of a decision, so that a replay can repeat it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// For a transition: the alert after it, without its long output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// For a transition: the state before, or `None` if the alert did not fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckInfo>,
}

/// One page of the recorded history, for `alertctl replay`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Transitions, acks and their removal, with details, oldest first.
    pub entries: Vec<HistoryEntry>,
    /// For the next page, ask again with this value as `after`.
    pub more_after: Option<u64>,
    /// Notifications that were sent and accepted, oldest first; only on the first page.
    pub sent: Vec<Sent>,
    /// The stored JSON of silences, downtimes and overrides (not from the config) that had not
    /// ended at the start; only on the first page.
    pub silences: Vec<String>,
    #[serde(default)]
    pub downtimes: Vec<String>,
    pub overrides: Vec<String>,
}

/// One notification that was sent, or that another config would have sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub at: Timestamp,
    pub receiver: String,
    pub kind: String,
    pub reason: String,
    pub title: String,
}
