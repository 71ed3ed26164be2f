//! A store in memory, which survives when a test ends one core and starts another.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    Change, Counters, Loaded, Lost, OverrideByHand,
    rules::{
        agent::Agent,
        alert::{Alert, AlertKey},
        downtime::Downtime,
        incident::Incident,
        outbox::{Row, RowState},
        quota::Charge,
        silence::Silence,
        token::Token,
        told::Told,
    },
};

#[derive(Default)]
pub struct Memory {
    pub counters: Counters,
    pub agents: BTreeMap<String, Agent>,
    pub alerts: BTreeMap<u64, (AlertKey, Alert)>,
    pub incidents: BTreeMap<u64, Incident>,
    pub told: BTreeMap<(u64, String), Told>,
    pub silences: BTreeMap<u64, Silence>,
    pub overrides: BTreeMap<u64, OverrideByHand>,
    pub downtimes: BTreeMap<u64, Downtime>,
    pub tokens: BTreeMap<String, Token>,
    pub outbox: BTreeMap<u64, Row>,
}

impl Memory {
    /// Loads all current data.
    pub fn load(&self, now: Timestamp) -> Loaded {
        let mut spent: Vec<_> = self
            .outbox
            .values()
            .filter_map(|row| Some((row.notification.receiver.clone(), row.first_try_at?)))
            .collect();
        spent.sort_by_key(|(_, at)| *at);
        Loaded {
            agents: self.agents.clone().into_iter().collect(),
            alerts: self
                .alerts
                .values()
                // Not written to a store.
                .map(|(key, alert)| (key.clone(), Alert { charge: Charge::default(), ..alert.clone() }))
                .collect(),
            incidents: self.incidents.values().filter(|incident| !incident.left_memory).cloned().collect(),
            told: self
                .told
                .clone()
                .into_iter()
                .map(|((number, receiver), told)| (number, receiver, told))
                .collect(),
            silences: self.silences.values().filter(|silence| silence.ends_at > now).cloned().collect(),
            downtimes: self.downtimes.values().filter(|one| one.over_at() > now).cloned().collect(),
            overrides: self.overrides.values().filter(|one| one.until > now).cloned().collect(),
            tokens: self.tokens.values().cloned().collect(),
            outbox: self.outbox.values().filter(|row| row.settled_at.is_none()).cloned().collect(),
            instance: "test".into(),
            spent,
            failed: self.outbox.values().filter(|row| row.state == RowState::Failed).count() as u64,
            counters: self.counters,
            lost: Lost::default(),
        }
    }

    pub fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            match change.clone() {
                Change::Counters(counters) => self.counters = counters,
                Change::Agent(id, agent) => drop(self.agents.insert(id, *agent)),
                Change::AgentGone(id) => drop(self.agents.remove(&id)),
                Change::Alert(key, alert) => drop(self.alerts.insert(alert.row, (key, (*alert).clone()))),
                Change::AlertGone(row) => drop(self.alerts.remove(&row)),
                Change::Incident(incident) => drop(self.incidents.insert(incident.number, *incident)),
                Change::Told { incident, receiver, told: Some(told) } => {
                    self.told.insert((incident, receiver), told);
                }
                Change::Told { incident, receiver, told: None } => {
                    self.told.remove(&(incident, receiver));
                }
                Change::Silence(silence) => drop(self.silences.insert(silence.number, silence)),
                Change::Downtime(one) => drop(self.downtimes.insert(one.number, one)),
                Change::Override(one) => drop(self.overrides.insert(one.number, one)),
                Change::Token(name, Some(token)) => drop(self.tokens.insert(name, *token)),
                Change::Token(name, None) => drop(self.tokens.remove(&name)),
                Change::Outbox(row) => drop(self.outbox.insert(row.seq, *row)),
                Change::History(_) => {}
            }
        }
    }
}
