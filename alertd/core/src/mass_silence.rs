//! Silent agents: one by one, or many together as one alert (`rules/mass.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Core,
    own_alerts::{OWN, OwnAlert, SILENT},
};
use crate::rules::{
    agent::Agent,
    alert::{AlertKey, Ending},
    mass::{self, CALM, TOGETHER},
    matcher::Labels,
    moment::{between, later},
    reason::Reason,
};
use dogwatch_wire::State;

/// Hosts that the alert names; others are only counted.
const NAMES_MAX: usize = 20;

/// What is known of many silent hosts.
#[derive(Debug, Default)]
pub(super) struct MassSilence {
    /// Ids of silent agents without an alert of their own.
    members: BTreeSet<String>,
    since: Option<Timestamp>,
    /// Since when few are left.
    few_since: Option<Timestamp>,
    /// The members changed after the alert got its text.
    is_news: bool,
    /// Agents that became silent one by one lately.
    lone: BTreeMap<String, Timestamp>,
}

impl MassSilence {
    /// The clock jumped forward. Nobody could come back in the skipped time.
    pub(super) fn put_off(&mut self, leap: Duration) {
        let times = self.few_since.iter_mut().chain(self.lone.values_mut());
        times.for_each(|at| *at = later(*at, leap));
    }

    pub(super) fn next_wakeup(&self) -> Option<Timestamp> {
        self.few_since.map(|since| later(since, CALM))
    }
}

fn key() -> AlertKey {
    AlertKey::new(OWN, "@mass-silence")
}

impl Core {
    /// Continues a mass silence from the store.
    pub(super) fn restore_mass_silence(&mut self) {
        let members = self.agents.iter().filter(|(_, agent)| agent.silent && agent.in_mass);
        self.mass.members = members.map(|(id, _)| id.clone()).collect();
        let alert = self.alerts.get(&key()).filter(|alert| alert.resolved_at.is_none());
        if alert.is_some() || !self.mass.members.is_empty() {
            self.mass.since = Some(alert.map_or(self.started_at, |alert| alert.since));
            self.mass.is_news = true;
        }
    }

    /// The agent is back, or gone.
    pub(super) fn leave_mass(&mut self, id: &str) {
        self.mass.lone.remove(id);
        if self.mass.members.remove(id) {
            self.mass.is_news = true;
            if let Some(agent) = self.agents.get_mut(id) {
                agent.in_mass = false;
            }
        }
    }

    pub(super) fn find_silent_agents(&mut self, now: Timestamp) {
        let mut due = Vec::new();
        while let Some((at, id)) = self.quiet.first().cloned()
            && at <= now
        {
            self.quiet.pop_first();
            if !self.is_replaced(&id, now) && self.agents.contains_key(&id) {
                due.push(id);
            }
        }
        if !due.is_empty() {
            self.mass.lone.retain(|_, at| between(*at, now) < TOGETHER);
            if self.mass.since.is_none() {
                self.begin_mass(&mut due, now);
            }
            for id in due {
                if self.mass.since.is_some() { self.join_mass(id) } else { self.silent_alone(&id, now) }
            }
        }
        self.turn_mass(now);
    }

    /// Checks whether this is the first sign of many, and adds the others that are late.
    fn begin_mass(&mut self, due: &mut Vec<String>, now: Timestamp) {
        let late = |(at, id): &&(Timestamp, String)| {
            self.agents.get(id).is_some_and(|agent| mass::is_late(agent, *at, now))
        };
        // Nobody is late whose time is further away than the longest interval.
        let horizon = later(now, Agent::INTERVAL_MAX);
        let late: Vec<_> =
            self.quiet.iter().take_while(|(at, _)| *at <= horizon).filter(late).cloned().collect();
        let alone = self.mass.lone.keys().filter(|id| !due.contains(id)).count();
        if due.len() + late.len() + alone < self.rules.mass.least(self.agents.len()) {
            return;
        }
        for entry in late {
            self.quiet.remove(&entry);
            due.push(entry.1);
        }
        let heard = due.iter().filter_map(|id| self.agents.get(id)).map(|agent| agent.last_heard_at);
        self.mass.since = Some(heard.min().unwrap_or(now));
        self.mass.lone.clear();
    }

    fn join_mass(&mut self, id: String) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        (agent.silent, agent.in_mass) = (true, true);
        self.touch_services_of(&id);
        self.dirty.agents.insert(id.clone());
        self.mass.members.insert(id);
        self.mass.is_news = true;
    }

    /// Updates the alert, and ends it when few are left: those are named one by one.
    fn turn_mass(&mut self, now: Timestamp) {
        let Some(since) = self.mass.since else { return };
        let (silent, all) = (self.mass.members.len(), self.agents.len());
        if !self.rules.mass.is_few(silent, all) {
            self.mass.few_since = None;
        } else if silent == 0 || between(*self.mass.few_since.get_or_insert(now), now) >= CALM {
            self.end_mass(now);
            return;
        }
        if !std::mem::take(&mut self.mass.is_news) {
            return;
        }
        let fired_before = self.alerts.get(&key()).is_some_and(|alert| alert.resolved_at.is_none());
        let own = OwnAlert {
            key: key(),
            summary: mass::words(silent, all, since),
            host: self.rules.host.clone(),
            service: "agents",
            labels: Labels::new(),
            since,
            reason: Reason::AgentSilent,
        };
        let detail = self.name_members();
        self.raise_as(own, State::Critical, detail, now);
        if !fired_before {
            self.flush_now(&key(), now);
        }
    }

    fn name_members(&self) -> String {
        let members = &self.mass.members;
        let named = members.iter().take(NAMES_MAX).filter_map(|id| self.agents.get(id));
        let named: Vec<_> = named.map(|agent| agent.host.as_str()).collect();
        match members.len().saturating_sub(NAMES_MAX) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }

    fn end_mass(&mut self, now: Timestamp) {
        (self.mass.since, self.mass.few_since, self.mass.is_news) = (None, None, false);
        let change = self.alerts.resolve(&key(), Ending::Well("the agents send heartbeats again"), now);
        self.on_move(&key(), change, Reason::AgentBack, now);
        for id in std::mem::take(&mut self.mass.members) {
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.in_mass = false;
                self.silent_alone(&id, now);
            }
        }
    }

    fn silent_alone(&mut self, id: &str, now: Timestamp) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        agent.silent = true;
        let (host, quiet_for) = (agent.host.clone(), between(agent.last_heard_at, now).as_secs());
        let since = agent.last_heard_at;
        self.mass.lone.insert(id.to_owned(), now);
        self.dirty.agents.insert(id.to_owned());
        self.touch_services_of(id);
        let key = AlertKey::new(id, SILENT);
        let own = OwnAlert {
            key: key.clone(),
            summary: format!("no heartbeat from the agent on {host} for {quiet_for}s"),
            host,
            service: "agent",
            labels: Labels::new(),
            since,
            reason: Reason::AgentSilent,
        };
        self.raise(own, now);
        self.flush_now(&key, now);
    }

    /// A silent agent is worse than its services' states and does not wait for `group_interval`.
    fn flush_now(&mut self, key: &AlertKey, now: Timestamp) {
        for number in self.numbers_of(key) {
            if self.incidents.get_mut(&number).is_some_and(|incident| incident.plan_flush(true, now)) {
                self.dirty.incidents.insert(number);
            }
        }
    }
}
