//! Requests for downtimes, and notifications for people who know of a problem that a downtime
//! covers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dogwatch_wire::ctl;
use jiff::Timestamp;

use super::{
    Core, Refused, people::COMMENT_CHARS_MAX, review::Truth, rules::text::utc_time, silences::check_span,
};
use crate::rules::{
    alert::AlertKey,
    downtime::{Downtime, Shape},
    incident::Incident,
    moment::later,
    notification::Kind,
    reason::Reason,
    suppression::{SuppressedBy, Suppressions},
    told::{self, Says},
};

/// Maximum duration of a flexible downtime.
/// Current and future ones.
const DOWNTIMES_MAX: usize = 20_000;
const FLEXIBLE_MAX: Duration = Duration::from_hours(31 * 24);

impl Core {
    pub fn on_downtime(
        &mut self,
        ask: &ctl::NewDowntime,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Downtime, Refused> {
        self.check_host(&ask.host)?;
        let starts_at = ask.starts_at.unwrap_or(now).max(now);
        let ends_at = ask.ends_at.unwrap_or_else(|| later(starts_at, Duration::from_secs(ask.duration_s)));
        check_span(starts_at, ends_at, now).map_err(Refused::BadDowntime)?;
        if self.downtimes.iter().count() >= DOWNTIMES_MAX {
            let words = format!("there are already {DOWNTIMES_MAX} downtimes; cancel some first");
            return Err(Refused::BadDowntime(words));
        }
        self.check_period(ask.period.as_deref()).map_err(Refused::BadDowntime)?;
        let shape = match (ask.flexible_s, ask.period.clone()) {
            (Some(_), Some(_)) => {
                let words =
                    "a downtime can be flexible or recurring, not both; remove the duration or the period"
                        .into();
                return Err(Refused::BadDowntime(words));
            }
            (Some(seconds), None) => {
                let lasts = Duration::from_secs(seconds);
                if lasts.is_zero() || lasts > FLEXIBLE_MAX {
                    let words = "a flexible downtime lasts at least a second and at most 31 days".into();
                    return Err(Refused::BadDowntime(words));
                }
                Shape::Flexible { lasts, began_at: None }
            }
            (None, Some(period)) => Shape::Recurring { period },
            (None, None) => Shape::Fixed,
        };
        let number = self.counters.downtime;
        self.counters.downtime += 1;
        self.dirty.counters = true;
        let downtime = Downtime {
            number,
            host: ask.host.clone(),
            service: ask.service.clone(),
            author: author.into(),
            comment: ask.comment.chars().take(COMMENT_CHARS_MAX).collect(),
            starts_at,
            ends_at,
            shape,
        };
        self.note_by(now, None, "downtime", Reason::ByHand, Some(author), &downtime.name());
        self.dirty.downtimes.push(downtime.clone());
        self.downtimes.add(downtime);
        self.begin_flexible_of_what_fires(now);
        self.touched.extend(self.groups.values());
        let made = self.downtimes.iter().find(|made| made.number == number);
        made.map(|made| self.view_downtime(made, now)).ok_or(Refused::NoDowntime(number))
    }

    /// Rejects unknown hosts, because a typo would otherwise only be noticed when people are paged.
    fn check_host(&self, host: &str) -> Result<(), Refused> {
        let reported = self.alerts.iter().filter_map(|(_, alert)| alert.labels.get("host"));
        let hosts: BTreeSet<&str> =
            self.agents.values().map(|agent| &agent.host).chain(reported).map(String::as_str).collect();
        if hosts.contains(host) {
            return Ok(());
        }
        Err(Refused::NoHost(host.into(), hosts.into_iter().map(str::to_owned).collect()))
    }

    pub fn on_downtime_cancel(
        &mut self,
        number: u64,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Downtime, Refused> {
        let cancelled = self.downtimes.cancel(number, now).ok_or(Refused::NoDowntime(number))?;
        self.note_by(now, None, "downtime_cancelled", Reason::ByHand, Some(author), &cancelled.name());
        let view = self.view_downtime(&cancelled, now);
        self.dirty.downtimes.push(cancelled);
        self.touched.extend(self.groups.values());
        Ok(view)
    }

    /// Handles downtimes that start or end now.
    pub(super) fn turn_downtimes(&mut self, now: Timestamp) {
        let (started, over) = self.downtimes.turn(now);
        if started {
            self.begin_flexible_of_what_fires(now);
        }
        if started || !over.is_empty() {
            self.touched.extend(self.groups.values());
        }
        for downtime in over {
            self.note(now, None, "downtime_over", Reason::DowntimeEnded, &downtime.name());
        }
    }

    /// Starts flexible downtimes whose window has opened if a problem already exists.
    fn begin_flexible_of_what_fires(&mut self, now: Timestamp) {
        if !self.downtimes.iter().any(|downtime| downtime.waits_for_a_problem(now)) {
            return;
        }
        let firing = self.alerts.iter().filter(|(_, alert)| alert.resolved_at.is_none());
        let keys: Vec<_> = firing.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.begin_flexible(key, now);
        }
    }

    /// Starts the flexible downtimes that cover a new hard problem.
    pub(super) fn begin_flexible(&mut self, key: &AlertKey, now: Timestamp) {
        let Some(alert) = self.alerts.get(key).filter(|alert| alert.resolved_at.is_none()) else { return };
        let begun = self.downtimes.on_problem(&alert.labels, now);
        let line = if begun.is_empty() { String::new() } else { alert.line() };
        for begun in begun {
            let text = format!("{} starts: {line}", begun.name());
            self.note(now, None, "downtime_begun", Reason::Reported, &text);
            self.dirty.downtimes.push(begun);
            self.touched.extend(self.groups.values());
        }
    }

    /// Notifies people who know of a problem that a downtime starts or stops covering it.
    pub(super) fn tell_of_downtimes(
        &mut self,
        incident: &Incident,
        old: &Suppressions,
        truth: &Truth,
        now: Timestamp,
    ) {
        if incident.ack.is_some() {
            return;
        }
        let by = |all: &Suppressions, key: &AlertKey| {
            all.get(key)
                .filter(|withheld| withheld.why == SuppressedBy::Downtime)
                .map(|withheld| withheld.by.clone())
        };
        let mut started: BTreeMap<String, BTreeSet<AlertKey>> = BTreeMap::new();
        let mut ended = started.clone();
        for key in truth.firing.keys() {
            match (by(old, key), by(&truth.withheld, key)) {
                (None, Some(name)) => drop(started.entry(name).or_default().insert(key.clone())),
                (Some(name), None) => drop(ended.entry(name).or_default().insert(key.clone())),
                _ => {}
            }
        }
        for (name, keys) in started {
            let found = self.downtimes.iter().find(|downtime| downtime.name() == name);
            let Some((downtime, until)) =
                found.and_then(|found| Some((found, found.in_effect(&self.periods, now)?)))
            else {
                continue;
            };
            let colon = if downtime.comment.is_empty() { "" } else { ": " };
            let (author, comment) = (&downtime.author, &downtime.comment);
            let note = format!("{name} by {author} until {}{colon}{comment}", utc_time(until));
            self.tell_of_downtime(incident, Reason::DowntimeStarted, &note, &keys, truth, now);
        }
        for (name, keys) in ended {
            let note = format!("{name} has ended");
            self.tell_of_downtime(incident, Reason::DowntimeEnded, &note, &keys, truth, now);
        }
    }

    fn tell_of_downtime(
        &mut self,
        incident: &Incident,
        reason: Reason,
        note: &str,
        keys: &BTreeSet<AlertKey>,
        truth: &Truth,
        now: Timestamp,
    ) {
        for receiver in self.audience(incident) {
            let knows = self.expected(incident, &receiver);
            let claim = |key: &AlertKey| Some((key.clone(), *truth.firing.get(key)?));
            let firing: Vec<_> = knows.keys().filter(|key| keys.contains(key)).filter_map(claim).collect();
            // Skip receivers that are about to get a notification with a change anyway.
            let hears = reason == Reason::DowntimeEnded
                && told::news(&knows, &truth.visible, &truth.firing).is_some();
            if !firing.is_empty() && !hears {
                let says = Says { firing, resolved: BTreeSet::new() };
                self.push_noted(incident, &receiver, Kind::Reminder, reason.name(), says, Some(note), now);
            }
        }
    }

    pub fn downtimes(&self, now: Timestamp) -> Vec<ctl::Downtime> {
        self.downtimes.iter().map(|downtime| self.view_downtime(downtime, now)).collect()
    }

    fn view_downtime(&self, downtime: &Downtime, now: Timestamp) -> ctl::Downtime {
        let (flexible_s, began_at, period) = match &downtime.shape {
            Shape::Fixed => (None, None, None),
            Shape::Flexible { lasts, began_at } => (Some(lasts.as_secs()), *began_at, None),
            Shape::Recurring { period } => (None, None, Some(period.clone())),
        };
        let firing = self.alerts.iter().filter(|(_, alert)| alert.resolved_at.is_none());
        ctl::Downtime {
            number: downtime.number,
            host: downtime.host.clone(),
            service: downtime.service.clone(),
            author: downtime.author.clone(),
            comment: downtime.comment.clone(),
            starts_at: downtime.starts_at,
            ends_at: downtime.ends_at,
            flexible_s,
            began_at,
            period,
            state: downtime.state(&self.periods, now).into(),
            until: downtime.in_effect(&self.periods, now),
            covers: firing.filter(|(_, alert)| downtime.covers(&alert.labels)).count() as u64,
        }
    }
}
