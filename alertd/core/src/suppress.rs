//! Which firing alerts are suppressed now: downtimes, silent agents, dependencies, inhibition,
//! silences and time periods.
//!
//! Each rule has its own module. This file applies them in order ([`Why`]), and finds the incidents
//! to review when the result of a rule changes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Core, own_alerts::SILENT, silences::silence_name};
use crate::rules::{
    alert::{Alert, AlertKey},
    downtime::{Downtime, Shape},
    incident::Incident,
    inhibit::Inhibitor,
    moment::later,
    route::Hours,
    suppression::{SuppressedBy, Suppression},
    text,
};

/// Agents that were known at the start and have not reported all states since. Until they have, or
/// the settle time is over, alerts wait if such an agent could report their cause.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    /// Agent id and host.
    agents: BTreeMap<String, String>,
    /// `None` when it is over.
    until: Option<Timestamp>,
    /// Incidents with a waiting alert.
    waiting: BTreeSet<u64>,
}

impl Unheard {
    /// Records that an alert of this incident waits.
    pub(super) fn is_awaited_by(&mut self, number: u64) {
        self.waiting.insert(number);
    }

    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        self.until
    }
}

impl Core {
    /// Why this firing alert is suppressed now, or `None` if it is not.
    pub(super) fn suppression(
        &self,
        incident: &Incident,
        key: &AlertKey,
        alert: &Alert,
        now: Timestamp,
    ) -> Option<Suppression> {
        let caused = self.in_downtime(alert, now).or_else(|| self.host_down(key, now));
        let caused = caused.or_else(|| self.inhibited(key));
        let caused = caused.or_else(|| self.silenced(alert, now)).or_else(|| self.muted(incident));
        let caused = caused.or_else(|| {
            let before = incident.withheld.get(key)?;
            before.after_its_reason(self.rules.settle, now)
        });
        caused.or_else(|| self.settling(incident, key, alert))
    }

    fn in_downtime(&self, alert: &Alert, now: Timestamp) -> Option<Suppression> {
        let (downtime, until) = self.downtimes.covering(&alert.labels, &self.periods, now)?;
        Some(Suppression::new(SuppressedBy::Downtime, downtime.name(), Some(until)))
    }

    fn host_down(&self, key: &AlertKey, now: Timestamp) -> Option<Suppression> {
        let agent = self.agents.get(&key.agent).filter(|_| key.service != SILENT)?;
        let by = || format!("silent agent on {}", agent.host);
        if agent.silent {
            return Some(Suppression::new(SuppressedBy::HostDown, by(), None));
        }
        // Its first reports may only show the effects of a reboot.
        let until = later(agent.back_at?, self.rules.settle);
        (until > now).then(|| Suppression {
            released: true,
            ..Suppression::new(SuppressedBy::HostDown, by(), Some(until))
        })
    }

    fn inhibited(&self, key: &AlertKey) -> Option<Suppression> {
        let (why, source) = self.inhibitor.muting(key)?;
        let by = self.alerts.get(source).map(|alert| text::name_of(&alert.labels)).unwrap_or_default();
        Some(Suppression::new(why, by, None))
    }

    fn silenced(&self, alert: &Alert, now: Timestamp) -> Option<Suppression> {
        let silence = self.silences.muting_last(&alert.labels, &self.periods, now)?;
        let until = silence.until(&self.periods);
        Some(Suppression::new(SuppressedBy::Silenced, silence_name(silence), Some(until)))
    }

    /// Whether the periods of the incident's route mute it.
    fn muted(&self, incident: &Incident) -> Option<Suppression> {
        let Hours { mute_during, active_during } = &incident.hours;
        let muting = mute_during.iter().filter(|name| self.periods.is_inside(name));
        if let Some(longest) = muting.max_by_key(|name| self.periods.until(name).unwrap_or(Timestamp::MAX)) {
            let by = format!("period {longest}");
            return Some(Suppression::new(SuppressedBy::Muted, by, self.periods.until(longest)));
        }
        // A period that a reload removed mutes nothing.
        let may_speak = |name: &String| self.periods.is_inside(name) || !self.periods.knows(name);
        if active_during.is_empty() || active_during.iter().any(may_speak) {
            return None;
        }
        let by = format!("outside period {}", active_during.join(", "));
        let until = active_during.iter().filter_map(|name| self.periods.until(name)).min();
        Some(Suppression::new(SuppressedBy::Muted, by, until))
    }

    /// Marks the incidents whose periods start or end.
    pub(super) fn turn_periods(&mut self, now: Timestamp) {
        if self.periods.turn(now) {
            let timed =
                |incident: &&Incident| incident.resolved_at.is_none() && incident.hours != Hours::default();
            self.touched.extend(self.incidents.values().filter(timed).map(|incident| incident.number));
            let comes_again = |downtime: &Downtime| matches!(downtime.shape, Shape::Recurring { .. });
            if self.silences.iter().any(|silence| silence.period.is_some())
                || self.downtimes.iter().any(comes_again)
            {
                self.touched.extend(self.groups.values());
            }
        }
    }

    /// An alert that people already know does not wait; its escalation continues.
    fn settling(&self, incident: &Incident, key: &AlertKey, alert: &Alert) -> Option<Suppression> {
        let until = self.unheard.until?;
        let is_known = incident.told.values().any(|told| told.knows.iter().any(|(known, _)| known == key));
        let hosts = self.unheard.agents.values().map(String::as_str);
        let waits = !is_known && self.inhibitor.awaits(key, &alert.labels, &hosts);
        waits.then(|| {
            Suppression::new(
                SuppressedBy::Settling,
                "agents that have not reported since the start",
                Some(until),
            )
        })
    }

    /// Rebuilds the index from the firing alerts, after a start or a reload.
    pub(super) fn rebuild_inhibitor(&mut self) {
        self.inhibitor = Inhibitor::new(self.rules.inhibit.clone());
        for (key, alert) in self.alerts.iter().filter(|(_, alert)| alert.resolved_at.is_none()) {
            self.inhibitor.update(key, Some(&alert.labels));
        }
    }

    /// Marks the incidents that a changed alert suppresses or releases.
    pub(super) fn update_inhibitor(&mut self, key: &AlertKey) {
        let labels =
            self.alerts.get(key).filter(|alert| alert.resolved_at.is_none()).map(|alert| &alert.labels);
        for affected in self.inhibitor.update(key, labels) {
            self.touch_alert(&affected);
        }
    }

    /// The alert gets another key.
    pub(super) fn update_inhibitor_without(&mut self, key: &AlertKey) {
        for affected in self.inhibitor.update(key, None) {
            self.touch_alert(&affected);
        }
    }

    fn touch_alert(&mut self, key: &AlertKey) {
        if let Some(alert) = self.alerts.get(key) {
            self.touched.extend(&alert.incidents);
        }
    }

    /// The agent became silent or is back.
    pub(super) fn touch_services_of(&mut self, agent: &str) {
        let numbers = self.alerts.of_agent(agent).flat_map(|(_, alert)| &alert.incidents);
        self.touched.extend(numbers);
    }

    pub(super) fn begin_settling(&mut self) {
        let expected = self.agents.iter().filter(|(_, agent)| !agent.silent);
        let agents = expected.map(|(id, agent)| (id.clone(), agent.host.clone())).collect();
        let ends_at = later(self.started_at, self.rules.settle);
        let matters = !self.rules.inhibit.is_empty() && ends_at > self.started_at;
        self.unheard = Unheard { agents, until: matters.then_some(ends_at), waiting: BTreeSet::new() };
    }

    /// The agent has reported all its states since the start.
    pub(super) fn on_spoken(&mut self, agent: &str) {
        if self.unheard.until.is_some() && self.unheard.agents.remove(agent).is_some() {
            self.touched.append(&mut self.unheard.waiting);
        }
    }

    pub(super) fn end_settling(&mut self, now: Timestamp) {
        if self.unheard.until.is_some_and(|until| until <= now) {
            let mut over = std::mem::take(&mut self.unheard);
            self.touched.append(&mut over.waiting);
        }
    }
}
