//! A store in memory, which survives when a test ends one core and starts another.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Store, StoreError};
use crate::core::{
    Change, Counters, Loaded, OverrideByHand,
    rules::{
        agent::Agent,
        alert::{Alert, AlertKey},
        downtime::Downtime,
        incident::Incident,
        outbox::{Row, RowState},
        silence::Silence,
        token::Token,
        told::Told,
    },
};

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) counters: Counters,
    pub(crate) agents: BTreeMap<String, Agent>,
    pub(crate) alerts: BTreeMap<u64, (AlertKey, Alert)>,
    pub(crate) incidents: BTreeMap<u64, Incident>,
    pub(crate) told: BTreeMap<(u64, String), Told>,
    pub(crate) silences: BTreeMap<u64, Silence>,
    pub(crate) overrides: BTreeMap<u64, OverrideByHand>,
    pub(crate) downtimes: BTreeMap<u64, Downtime>,
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) outbox: BTreeMap<u64, Row>,
}

impl Store for Memory {
    fn load(&mut self, now: Timestamp) -> Result<Loaded, StoreError> {
        let mut spent: Vec<_> = self
            .outbox
            .values()
            .filter_map(|row| Some((row.notification.receiver.clone(), row.first_try_at?)))
            .collect();
        spent.sort_by_key(|(_, at)| *at);
        Ok(Loaded {
            agents: self.agents.clone().into_iter().collect(),
            alerts: self.alerts.values().cloned().collect(),
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
        })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            match change.clone() {
                Change::Counters(counters) => self.counters = counters,
                Change::Agent(id, agent) => drop(self.agents.insert(id, agent)),
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
        Ok(())
    }

    fn prune(&mut self, _before: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
}
