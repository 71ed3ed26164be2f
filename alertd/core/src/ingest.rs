//! Reports from agents, and silent agents.

use std::{net::IpAddr, time::Duration};

use dogwatch_wire::{
    Batch, BatchReply, Event, EventKind, Heartbeat, HostChange, PROTOCOL, PROTOCOL_PARTS, ServiceState,
    State, StatesPart, ctl, limits,
};
use jiff::Timestamp;

use super::{
    Core,
    own_alerts::{OWN, OwnAlert, SILENT},
    quotas,
    shared_ids::{MARK, id_of},
    view::view_alert,
};
use crate::rules::{
    agent::EventOrder,
    alert::{Alert, AlertKey, Claim, Ending, Move, NAME_BYTES_MAX, cut},
    incident::{GroupKey, Incident},
    matcher::Labels,
    moment::later,
    quota::{Holder, Over},
    reason::{Cause, Reason},
    route::RouteMatch,
    sender::Sender,
};

/// Why a batch is rejected. Sending it again will not help.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadBatch {
    #[error(
        "protocol {theirs} is newer than {PROTOCOL_PARTS}, the newest that this alertd supports; upgrade alertd"
    )]
    Version { theirs: u32 },
    #[error("{what} has {count} entries, but the maximum is {most}; send fewer at a time")]
    TooMany { what: &'static str, count: usize, most: usize },
    #[error("{what} {value:?} is not valid: {why}")]
    Name { what: &'static str, value: String, why: &'static str },
    /// The rest of the batch was applied; the agent's next full report has what is missing.
    #[error("{0}")]
    OverQuota(String),
}

impl Core {
    /// Applies a batch. The reply may be sent after the changes are committed.
    pub fn on_batch(
        &mut self,
        batch: &Batch,
        sender: &Sender,
        now: Timestamp,
    ) -> Result<BatchReply, BadBatch> {
        check(batch)?;
        let nothing = BatchReply { protocol: PROTOCOL, acked_seq: 0, want_states: false, start_epoch: false };
        let recognized = self.recognize(batch, sender, now);
        let recognized =
            recognized.map_err(|over| BadBatch::OverQuota(quotas::words(over, &self.rules.quotas)))?;
        let Some(id) = recognized else { return Ok(nothing) };
        let id = id.as_str();
        let address = self.origin.as_ref().filter(|from| from.parse::<IpAddr>().is_ok()).cloned();
        let Some(agent) = self.agents.get_mut(id) else { return Ok(nothing) };
        let holder = Holder::of_agent(&agent.sender, id);
        let mut over = None;
        let renamed = agent.host != batch.host || agent.address != address;
        let mut news = renamed;
        batch.host.clone_into(&mut agent.host);
        agent.address = address;
        // A known agent has a new spool, so unsent events of the old one are lost.
        let new_epoch = agent.begin_epoch(&batch.epoch);
        news |= new_epoch;
        let mut want_states = new_epoch;
        let doubtful = agent.doubt.is_some();
        if renamed && agent.shares_id {
            self.share_id(id_of(id), now);
        }

        for event in &batch.events {
            let place = self.agents.get_mut(id).map_or(EventOrder::Old, |agent| agent.take(event.seq));
            if place == EventOrder::Old {
                continue;
            }
            want_states |= place == EventOrder::AfterGap;
            news = true;
            self.note_doubtful(id, event);
            over = self.on_event(id, &batch.host, event, &holder, now).err().or(over);
        }
        if let Some(states) = &batch.states {
            let part = batch.states_part.as_ref();
            over = self.on_states(id, &batch.host, states, part, &holder, now).err().or(over);
            want_states = false;
        }
        if let Some(heartbeat) = &batch.heartbeat {
            news |= self.on_heartbeat(id, heartbeat);
            want_states |= batch.states.is_none() && heartbeat.digest != self.alerts.digest(id);
        }
        self.on_heard(id, now);
        let more_follows = batch.states_part.as_ref().is_some_and(|part| !part.is_last());
        if !want_states && !more_follows {
            self.on_spoken(id);
        }
        if news {
            self.dirty.agents.insert(id.to_owned());
        }
        if let Some(over) = over {
            return Err(BadBatch::OverQuota(quotas::words(over, &self.rules.quotas)));
        }
        let Some(agent) = self.agents.get(id) else { return Ok(nothing) };
        Ok(BatchReply {
            protocol: PROTOCOL,
            acked_seq: agent.last_seq,
            want_states: want_states && !doubtful,
            start_epoch: agent.epoch_is_copied,
        })
    }

    fn on_event(
        &mut self,
        agent: &str,
        host: &str,
        event: &Event,
        holder: &Holder,
        now: Timestamp,
    ) -> Result<(), Over> {
        match &event.kind {
            EventKind::Transition(transition) => self.on_report(agent, host, &transition.now, holder, now),
            EventKind::Removed { service } => {
                self.on_removed(agent, service, now);
                Ok(())
            }
        }
    }

    /// The full state report of the agent, or a part of it, replaces what is known.
    fn on_states(
        &mut self,
        agent: &str,
        host: &str,
        states: &[ServiceState],
        part: Option<&StatesPart>,
        holder: &Holder,
        now: Timestamp,
    ) -> Result<(), Over> {
        let unsaid: Vec<_> = self
            .alerts
            .of_agent(agent)
            .filter(|(key, alert)| alert.resolved_at.is_none() && !key.service.starts_with('@'))
            .map(|(key, _)| key.service.clone())
            .filter(|service| part.is_none_or(|part| part.has(service)))
            .filter(|service| !states.iter().any(|state| state.service == *service))
            .collect();
        // First what ends, which makes room.
        for service in unsaid {
            self.on_removed(agent, &service, now);
        }
        let ends = |state: &&ServiceState| state.state == State::Ok && !state.flapping;
        let (ended, firing): (Vec<_>, Vec<_>) = states.iter().partition(ends);
        // All are applied, whatever becomes of the others.
        let mut outcome = Ok(());
        for state in ended.into_iter().chain(firing) {
            outcome = outcome.and(self.on_report(agent, host, state, holder, now));
        }
        outcome
    }

    fn on_report(
        &mut self,
        agent: &str,
        host: &str,
        report: &ServiceState,
        holder: &Holder,
        now: Timestamp,
    ) -> Result<(), Over> {
        let key = AlertKey::new(agent, report.service.clone());
        let was = self.firing_state(&key);
        let change = self.apply_charged(&key, host, report.clone(), holder, now)?;
        self.on_move_from(&key, was, change, Reason::Reported, now);
        Ok(())
    }

    fn firing_state(&self, key: &AlertKey) -> Option<State> {
        self.alerts.get(key).and_then(Alert::claim).map(Claim::as_state)
    }

    fn on_removed(&mut self, agent: &str, service: &str, now: Timestamp) {
        let key = AlertKey::new(agent, service);
        let was = self.firing_state(&key);
        let change = self.alerts.resolve(&key, Ending::Unwatched, now);
        self.on_move_from(&key, was, change, Reason::Removed, now);
    }

    fn on_heartbeat(&mut self, id: &str, heartbeat: &Heartbeat) -> bool {
        let Some(agent) = self.agents.get_mut(id) else { return false };
        let before = (agent.version.clone(), agent.services, agent.next_within_s);
        heartbeat.version.clone_into(&mut agent.version);
        agent.services = heartbeat.services;
        let quiet = (agent.silent_at(), id.to_owned());
        agent.next_within_s = heartbeat.next_within_s;
        if self.quiet.remove(&quiet) {
            self.quiet.insert((agent.silent_at(), id.to_owned()));
        }
        let changes = heartbeat.changes.iter().take(limits::CHANGES_MAX);
        let cut = |change: &HostChange| HostChange {
            what: cut(change.what.clone(), limits::CHANGE_BYTES_MAX),
            ..*change
        };
        let changes: Vec<_> = changes.map(cut).collect();
        let done_to_host = agent.changes != changes;
        agent.changes = changes;
        done_to_host || before != (agent.version.clone(), agent.services, agent.next_within_s)
    }

    fn on_heard(&mut self, id: &str, now: Timestamp) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        self.quiet.remove(&(agent.silent_at(), id.to_owned()));
        agent.last_heard_at = now;
        self.quiet.insert((agent.silent_at(), id.to_owned()));
        if std::mem::take(&mut agent.silent) {
            agent.back_at = Some(now);
            self.leave_mass(id);
            self.dirty.agents.insert(id.to_owned());
            self.touch_services_of(id);
            let key = AlertKey::new(id, SILENT);
            let change = self.alerts.resolve(&key, Ending::Well("the agent sends heartbeats again"), now);
            self.on_move(&key, change, Reason::AgentBack, now);
        }
    }

    /// For a replay: agents do not become silent by themselves.
    pub fn expect_no_heartbeats(&mut self) {
        self.quiet.clear();
    }

    /// For a replay: the heartbeat of this agent is overdue now.
    pub fn pretend_silent(&mut self, id: &str, now: Timestamp) {
        self.quiet.insert((now, id.to_owned()));
    }

    /// The clock jumped forward. No agent could send heartbeats in the skipped time.
    pub fn on_leap(&mut self, leap: Duration) {
        self.put_off_expiries(leap);
        self.mass.put_off(leap);
        let quiet = std::mem::take(&mut self.quiet);
        for (_, id) in quiet {
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.last_heard_at = later(agent.last_heard_at, leap);
                self.quiet.insert((agent.silent_at(), id));
            }
        }
    }

    /// Raises an internal alert.
    pub(super) fn raise(&mut self, own: OwnAlert, now: Timestamp) {
        self.raise_as(own, State::Critical, String::new(), now);
    }

    /// Raises an internal alert that can wait.
    pub(super) fn warn(&mut self, own: OwnAlert, detail: String, now: Timestamp) {
        self.raise_as(own, State::Warning, detail, now);
    }

    pub(super) fn raise_as(&mut self, own: OwnAlert, state: State, detail: String, now: Timestamp) {
        let report = ServiceState {
            service: own.service.into(),
            state,
            since: own.since,
            flapping: false,
            summary: own.summary,
            detail,
            perfdata: String::new(),
            labels: own.labels,
            annotations: Labels::new(),
        };
        let change = self.alerts.apply(&own.key, &own.host, report, now);
        self.on_move(&own.key, change, own.reason, now);
    }

    /// Updates the incidents of an alert after a change.
    pub(super) fn on_move(&mut self, key: &AlertKey, change: Move, reason: Reason, now: Timestamp) {
        self.on_move_from(key, None, change, reason, now);
    }

    /// `was` is its state before, if it was firing.
    fn on_move_from(
        &mut self,
        key: &AlertKey,
        was: Option<State>,
        change: Move,
        reason: Reason,
        now: Timestamp,
    ) {
        if change == Move::Unchanged {
            return;
        }
        self.dirty_alerts.insert(key.clone());
        if change != Move::Reworded {
            self.remember(key, now);
        }
        self.update_inhibitor(key);
        self.begin_flexible(key, now);
        let numbers = if change == Move::Fired { self.join(key, now) } else { self.numbers_of(key) };
        let text = self.alerts.get(key).map(Alert::line).unwrap_or_default();
        for &number in &numbers {
            if change != Move::Reworded {
                self.note(now, Some(number), "transition", reason, &text);
                if let Some(alert) = self.alerts.get(key).filter(|_| key.agent != OWN) {
                    // Long output affects no decision and would fill the history.
                    let (detail, perfdata) = (String::new(), String::new());
                    let alert = ctl::Alert { detail, perfdata, ..view_alert(alert) };
                    self.detail(ctl::Detail { alert: Some(alert), was, ack: None });
                }
            }
            self.on_member_moved(number, key, change, now);
        }
        if numbers.is_empty() {
            self.forget(key);
        }
    }

    /// Deletes an alert that is no longer needed.
    pub(super) fn forget(&mut self, key: &AlertKey) {
        self.dirty_alerts.remove(key);
        if let Some(gone) = self.alerts.forget(key) {
            self.ledger.pay_back(&gone.charge);
            self.dirty.gone_alerts.push(gone.row);
        }
    }

    /// Records the change for notifications about other services of the host.
    fn remember(&mut self, key: &AlertKey, now: Timestamp) {
        let Some(agent) = self.agents.get_mut(&key.agent) else { return };
        let Some(alert) = self.alerts.get(key) else { return };
        agent.lately.note(alert.to_happened(now));
        self.dirty.agents.insert(key.agent.clone());
    }

    fn on_member_moved(&mut self, number: u64, key: &AlertKey, change: Move, now: Timestamp) {
        if change == Move::Fired && self.is_told_later(number, key, now) {
            return;
        }
        let Some(incident) = self.incidents.get_mut(&number) else { return };
        self.touched.insert(number);
        let planned = match change {
            Move::Reworded | Move::Unchanged => return,
            Move::Fired | Move::Eased | Move::Resolved => incident.plan_flush(false, now),
            Move::Worsened => incident.plan_flush(true, now),
        };
        if planned {
            self.dirty.incidents.insert(number);
        }
        let ended = incident.ack.as_ref().and_then(|ack| ack.ended_by(change));
        if ended.is_some()
            && let Some(ack) = incident.end_ack(Cause::AckOutdated, now)
        {
            self.dirty.incidents.insert(number);
            let text = format!("the ack of {} ended because a state changed", ack.author);
            self.note(now, Some(number), "unacked", Reason::AckOutdated, &text);
        }
    }

    /// Whether one more alert needs no review: its incident waits for its first notification, which
    /// will include the alert. In an alert storm, groups grow by many alerts in that time, and a
    /// review checks each of them.
    fn is_told_later(&self, number: u64, key: &AlertKey, now: Timestamp) -> bool {
        let Some(incident) = self.incidents.get(&number).filter(|one| one.is_gathering(now)) else {
            return false;
        };
        let may_be_told =
            |alert: &Alert| alert.claim().is_some() && self.suppression(incident, key, alert, now).is_none();
        let later = self.woken_at.contains_key(&number) && self.alerts.get(key).is_some_and(may_be_told);
        #[cfg(test)]
        if later && !self.touched.contains(&number) {
            self.assert_a_review_says_the_same(incident, key, now);
        }
        later
    }

    #[cfg(test)]
    fn assert_a_review_says_the_same(&self, incident: &Incident, key: &AlertKey, now: Timestamp) {
        let truth = self.truth(incident, now);
        assert!(truth.visible.contains_key(key) && truth.withheld == incident.withheld);
    }

    pub(super) fn numbers_of(&self, key: &AlertKey) -> Vec<u64> {
        self.alerts.get(key).map(|alert| alert.incidents.iter().copied().collect()).unwrap_or_default()
    }

    /// Finds or opens the incidents of a firing alert.
    pub(super) fn join(&mut self, key: &AlertKey, now: Timestamp) -> Vec<u64> {
        let Some(alert) = self.alerts.get(key) else { return Vec::new() };
        let still_open: Vec<_> = alert.incidents.iter().copied().filter(|n| self.is_open(*n)).collect();
        if !still_open.is_empty() {
            return still_open;
        }
        let mut ways = self.rules.routes.matches_for(&alert.labels);
        if key.agent == OWN {
            // A failing receiver gets its own incident, and never joins one that is acknowledged.
            for way in &mut ways {
                way.group.extend(alert.labels.clone());
            }
        }
        let numbers: Vec<_> = ways.into_iter().map(|way| self.find_or_open(way, now)).collect();
        for number in &numbers {
            if let Some(incident) = self.incidents.get_mut(number) {
                incident.members.insert(key.clone());
            }
        }
        if let Some(alert) = self.alerts.get_mut(key) {
            alert.incidents.extend(&numbers);
        }
        numbers
    }

    pub(super) fn is_open(&self, number: u64) -> bool {
        self.incidents.get(&number).is_some_and(|incident| incident.resolved_at.is_none())
    }

    fn find_or_open(&mut self, way: RouteMatch, now: Timestamp) -> u64 {
        let group = GroupKey { route: way.path, labels: way.group };
        if let Some(&number) = self.groups.get(&group) {
            return number;
        }
        let number = self.counters.incident;
        self.counters.incident += 1;
        self.dirty.counters = true;
        let policy = self.policy(&way.policy);
        let text = format!("by route {}", group.route.join(" > "));
        self.incidents
            .insert(number, Incident::open(number, group.clone(), way.timing, way.hours, policy, now));
        self.groups.insert(group, number);
        self.dirty.incidents.insert(number);
        self.note(now, Some(number), "opened", Reason::Reported, &text);
        number
    }
}

fn check(batch: &Batch) -> Result<(), BadBatch> {
    if batch.protocol > PROTOCOL_PARTS {
        return Err(BadBatch::Version { theirs: batch.protocol });
    }
    let too_many =
        |what, count, most| if count > most { Err(BadBatch::TooMany { what, count, most }) } else { Ok(()) };
    too_many("events", batch.events.len(), limits::EVENTS_MAX)?;
    too_many("states", batch.states.as_ref().map_or(0, Vec::len), limits::STATES_MAX)?;
    check_name("agent", &batch.agent)?;
    if batch.agent.contains(MARK) {
        let value = batch.agent.chars().take(64).collect();
        return Err(BadBatch::Name { what: "agent", value, why: "it has a ~" });
    }
    for (what, value) in [("run", &batch.run), ("boot", &batch.boot)] {
        if !value.is_empty() {
            check_name(what, value)?;
        }
    }
    check_name("host", &batch.host)?;
    check_name("epoch", &batch.epoch)?;
    let events = batch.events.iter().map(|event| match &event.kind {
        EventKind::Transition(transition) => &transition.now.service,
        EventKind::Removed { service } => service,
    });
    let states = batch.states.iter().flatten().map(|state| &state.service);
    events.chain(states).try_for_each(|service| check_name("service", service))
}

fn check_name(what: &'static str, value: &str) -> Result<(), BadBatch> {
    let wrong = |why| {
        let shown = value.chars().take(64).collect();
        Err(BadBatch::Name { what, value: shown, why })
    };
    match value {
        "" => wrong("it is empty"),
        _ if value.len() > NAME_BYTES_MAX => wrong("it is longer than 256 bytes"),
        _ if value.starts_with('@') => wrong("names that start with @ are reserved for alertd"),
        _ if value.contains(char::is_control) => wrong("it has control characters"),
        _ => Ok(()),
    }
}
