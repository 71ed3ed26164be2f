//! Converts the core's state to API types, which is what people see.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dogwatch_wire::{State, ctl};
use jiff::Timestamp;

use super::{Core, Finding};
use crate::rules::{
    ack::Ack,
    alert::{Alert, AlertKey, Claim},
    downtime::Downtime,
    health::Vitals,
    incident::{Incident, counts},
    moment::between,
    notification::NotifiedAlert,
    outbox::{Row, RowState},
    suppression::{SuppressedBy, Suppression},
    text::{name_of, plural},
};

impl Core {
    /// `warnings` are the problems that the shell reports.
    pub fn status(&self, version: &str, mut warnings: Vec<String>, now: Timestamp) -> ctl::Status {
        let open = self.incidents.values().filter(|incident| incident.resolved_at.is_none());
        let mut incidents: Vec<_> = open.map(|incident| self.view_incident(incident, now)).collect();
        incidents.sort_by_key(|incident| (Reverse(incident.state), incident.opened_at));
        let agents = self.agents.iter().map(|(id, agent)| ctl::AgentStatus {
            agent: id.clone(),
            host: agent.host.clone(),
            version: agent.version.clone(),
            services: agent.services,
            last_heard_at: agent.last_heard_at,
            silent: agent.silent,
        });
        for (receiver, failing) in &self.failing {
            warnings.push(format!(
                "receiver {receiver} has failed since {}: {}; test it with `alertctl test-notify {receiver}`",
                failing.since.round(jiff::Unit::Second).unwrap_or(failing.since),
                failing.error
            ));
        }
        warnings.extend(self.outbox.holds().map(|(receiver, rows, hold)| {
            let until = hold.until.round(jiff::Unit::Second).unwrap_or(hold.until);
            let by = hold.by.words();
            format!(
                "{} to {receiver} delayed until {until} by {by}; they will be sent as one digest",
                plural(rows, "notification")
            )
        }));
        warnings.extend(self.gap_warnings());
        ctl::Status {
            version: version.into(),
            started_at: self.started_at,
            incidents,
            agents: agents.collect(),
            outbox: self.outbox_status(),
            downtimes: self.downtimes(now),
            silences: self.silences.iter().filter(|one| one.is_active(&self.periods, now)).count(),
            warnings,
        }
    }

    pub fn outbox_status(&self) -> ctl::OutboxStatus {
        let held = self.outbox.holds().map(|(_, rows, _)| rows as u64).sum();
        let mut status = ctl::OutboxStatus { failed: self.failed, held, ..ctl::OutboxStatus::default() };
        for row in self.outbox.iter() {
            match row.state {
                RowState::Leased { .. } => status.leased += 1,
                _ => status.queued += 1,
            }
            let at = row.notification.created_at;
            status.oldest_at = Some(status.oldest_at.map_or(at, |oldest| oldest.min(at)));
        }
        status
    }

    /// The health of alertd, as far as the core knows it.
    pub fn vitals(&self, now: Timestamp) -> Vitals {
        let held: usize = self.outbox.holds().map(|(_, rows, _)| rows).sum();
        let mut vitals = Vitals {
            late: self.next_wakeup().map_or(Duration::ZERO, |at| between(at, now)),
            held,
            accepted_at: self.last_accepted_at.unwrap_or(self.started_at),
            findings: self.findings().map(Finding::text).collect(),
            agents: self.agents.len(),
            silent: self
                .agents
                .values()
                .filter(|agent| agent.silent)
                .map(|agent| agent.host.clone())
                .collect(),
            gaps: self.gap_warnings().collect(),
            refused: self.refused_senders(),
            ..Vitals::default()
        };
        for row in self.outbox.iter() {
            vitals.waiting += 1;
            // Rows that wait for a rate limit or a digest do not count as waiting too long.
            let is_held = row.is_untried() && self.outbox.is_held(row);
            if !is_held && !matches!(row.state, RowState::Digested { .. }) {
                let at = row.notification.created_at;
                vitals.oldest = Some(vitals.oldest.map_or(at, |oldest| oldest.min(at)));
            }
        }
        for (receiver, failing) in self.failing.iter().filter(|(_, failing)| failing.raised) {
            vitals.failing.push((receiver.clone(), failing.since, failing.error.clone()));
        }
        vitals
    }

    /// The numbers for the metrics endpoint.
    pub fn sizes(&self, now: Timestamp) -> Sizes {
        let (mut incidents, mut acked, mut withheld) = (0, 0, SuppressedBy::ALL.map(|why| (why, 0)));
        for incident in self.incidents.values().filter(|incident| incident.resolved_at.is_none()) {
            incidents += 1;
            acked += usize::from(incident.ack.is_some());
            for one in incident.withheld.values() {
                withheld[one.why as usize].1 += 1;
            }
        }
        let working = |downtime: &&Downtime| downtime.in_effect(&self.periods, now).is_some();
        Sizes {
            firing: self.alerts.firing_count(),
            incidents,
            acked,
            withheld,
            downtimes: self.downtimes.iter().filter(working).count(),
            agents: self.agents.len(),
            silent: self.agents.values().filter(|agent| agent.silent).count(),
            silences: self.silences.iter().count(),
            failing: self.failing.len(),
        }
    }

    /// Open incidents that `receiver` was notified of: unacknowledged first, then worst, then
    /// oldest.
    pub fn told_open(&self, receiver: &str, now: Timestamp) -> ToldOpen {
        let worst_of = |incident: &Incident| {
            let members = incident.members.iter().filter_map(|key| self.alerts.get(key));
            members.filter_map(Alert::claim).max()
        };
        let open = self.incidents.values().filter(|incident| incident.resolved_at.is_none());
        let told = open.filter(|incident| incident.told.contains_key(receiver));
        let mut order: Vec<_> = told
            .map(|incident| {
                (incident.ack.is_some(), Reverse(worst_of(incident)), incident.opened_at, incident.number)
            })
            .collect();
        order.sort_unstable();
        let acked = order.iter().filter(|(acked, ..)| *acked).count();
        let shown = order.iter().take(ToldOpen::SHOWN_MAX);
        let shown = shown.filter_map(|(.., number)| self.incidents.get(number));
        let shown =
            shown.map(|incident| (self.view_incident(incident, now), incident.used_links.len())).collect();
        ToldOpen { open: order.len(), acked, shown }
    }

    /// An incident in memory: open, or resolved with recoveries still to send.
    pub fn incident(&self, number: u64, now: Timestamp) -> Option<(ctl::Incident, Vec<String>)> {
        let incident = self.incidents.get(&number)?;
        Some((self.view_incident(incident, now), incident.group.route.clone()))
    }

    pub(super) fn view_incident(&self, incident: &Incident, now: Timestamp) -> ctl::Incident {
        if let Some(closed) = &incident.closed {
            return ctl::Incident { told: incident.heard.clone(), ..closed.clone() };
        }
        let members: Vec<_> = incident.members.iter().filter_map(|key| self.alerts.get(key)).collect();
        ctl::Incident {
            number: incident.number,
            state: worst(members.iter().filter_map(|alert| alert.claim())),
            group: incident.group.labels.clone(),
            route: incident.route_text(),
            title: title(&members),
            opened_at: incident.opened_at,
            resolved_at: incident.resolved_at,
            alerts: members.iter().map(|alert| view_alert(alert)).collect(),
            ack: incident.ack.as_ref().map(Ack::to_info),
            told: incident.heard.clone(),
            next_step: self.next_step(incident, now),
            silenced_by: self.silenced_by(&members, now),
            withheld: self.view_suppressed(incident, now),
        }
    }

    fn view_suppressed(&self, incident: &Incident, now: Timestamp) -> Vec<ctl::Withheld> {
        let withheld = self.truth(incident, now).withheld.into_iter();
        let view = |(key, withheld): (AlertKey, Suppression)| ctl::Withheld {
            alert: self.alerts.get(&key).map(|alert| name_of(&alert.labels)).unwrap_or_default(),
            reason: withheld.why.reason().name().into(),
            by: withheld.by,
            until: withheld.until,
        };
        withheld.map(view).collect()
    }

    /// Numbers of the silences, if they suppress all firing alerts.
    fn silenced_by(&self, members: &[&Alert], now: Timestamp) -> Vec<u64> {
        let firing = members.iter().filter(|alert| alert.resolved_at.is_none());
        let muting: Vec<_> =
            firing.map(|alert| self.silences.muting(&alert.labels, &self.periods, now)).collect();
        if muting.iter().any(BTreeSet::is_empty) {
            return Vec::new();
        }
        let numbers: BTreeSet<u64> = muting.into_iter().flatten().collect();
        numbers.into_iter().collect()
    }
}

/// Open incidents that one receiver was notified of.
#[derive(Debug, Clone, PartialEq)]
pub struct ToldOpen {
    pub open: usize,
    /// How many of them are acknowledged.
    pub acked: usize,
    /// The first incidents, each with the number of links that acknowledged it.
    pub shown: Vec<(ctl::Incident, usize)>,
}

impl ToldOpen {
    pub const SHOWN_MAX: usize = 100;
}

/// The number of objects of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub firing: usize,
    pub incidents: usize,
    pub acked: usize,
    pub agents: usize,
    pub silent: usize,
    pub silences: usize,
    pub failing: usize,
    /// Downtimes in effect.
    pub downtimes: usize,
    /// Suppressed alerts by reason. An alert in two incidents counts twice.
    pub withheld: [(SuppressedBy, usize); SuppressedBy::ALL.len()],
}

pub fn notification_info(row: &Row) -> ctl::NotificationInfo {
    ctl::NotificationInfo {
        id: row.notification.id.clone(),
        receiver: row.notification.receiver.clone(),
        kind: row.notification.kind.name().into(),
        reason: row.notification.reason.clone(),
        state: row.state.name().into(),
        created_at: row.notification.created_at,
        attempts: row.attempts,
        last_error: row.last_error.clone(),
        provider_id: row.provider_id.clone(),
        settled_at: row.settled_at,
        in_digest: match row.state {
            RowState::Digested { into } => Some(into),
            _ => None,
        },
    }
}

pub(super) fn view_alert(alert: &Alert) -> ctl::Alert {
    ctl::Alert {
        labels: alert.labels.clone(),
        annotations: alert.annotations.clone(),
        state: alert.state,
        flapping: alert.flapping,
        summary: alert.summary.clone(),
        detail: alert.detail.clone(),
        perfdata: alert.perfdata.clone(),
        since: alert.since,
        resolved_at: alert.resolved_at,
    }
}

fn worst(claims: impl IntoIterator<Item = Claim>) -> State {
    claims.into_iter().max().map_or(State::Ok, Claim::as_state)
}

/// The title of an incident: its only alert, or how many alerts of which state and where.
fn title(members: &[&Alert]) -> String {
    let notified: Vec<_> = members.iter().map(|alert| alert.to_notified()).collect();
    let (firing, resolved): (Vec<_>, Vec<_>) =
        notified.into_iter().partition(|alert| alert.resolved_at.is_none());
    title_of(&firing, &resolved)
}

pub fn title_of(firing: &[NotifiedAlert], resolved: &[NotifiedAlert]) -> String {
    let shown = if firing.is_empty() { resolved } else { firing };
    let label = |alert: &NotifiedAlert, name| alert.labels.get(name).cloned().unwrap_or_default();
    if let [only] = shown {
        let state = match (firing.is_empty(), only.flapping) {
            (true, _) => "OK",
            (false, true) => "flapping",
            (false, false) => only.state.name(),
        };
        return format!("{state} {}/{}: {}", label(only, "host"), label(only, "service"), only.summary);
    }
    let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
    for alert in shown {
        *hosts.entry(label(alert, "host")).or_default() += 1;
    }
    let place = match hosts.len() {
        0 => String::new(),
        1..=3 => format!(" on {}", hosts.into_keys().collect::<Vec<_>>().join(", ")),
        more => format!(" on {more} hosts"),
    };
    if firing.is_empty() {
        return format!("OK: {} alerts{place} resolved", shown.len());
    }
    let claims = shown.iter().filter_map(|alert| Claim::of(alert.state, alert.flapping));
    format!("{}{place}", counts(claims))
}
