//! Results of sending notifications.
//!
//! - Accepted: the receiver now knows the content.
//! - Temporary failure: retry later, with jitter. If that takes too long, the policy continues and
//!   the fallback takes over.
//! - Rejected: the policy continues and the fallback takes over immediately.
//!
//! A failing receiver raises an internal alert, which is sent through another receiver.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Core, Failing,
    own_alerts::{OWN, OwnAlert, own_key, template_key},
};
use crate::rules::{
    alert::Ending,
    escalation::Policy,
    incident::Incident,
    moment::{between, later},
    notification::{Accepted, DeliveryError, Kind, Notification},
    outbox::{Row, RowState, Send, backoff},
    reason::Reason,
    told::{Claims, Told},
};

/// How long to retry before the fallback takes over; without a fallback, before the policy
/// continues and alertd raises an internal alert.
const PATIENCE: Duration = Duration::from_mins(2);
/// The age after which a notification is no longer useful.
const AGE_MAX: Duration = Duration::from_hours(24);

/// A notification to send after the commit.
#[derive(Debug, Clone)]
pub struct Lease {
    pub seq: u64,
    pub notification: Notification,
}

impl Core {
    /// Leases at most `most` notifications that can be sent now.
    pub fn poll_send(&mut self, most: usize, now: Timestamp) -> Vec<Lease> {
        let mut leases = Vec::new();
        while leases.len() < most {
            let seq = match self.outbox.poll_send(now) {
                None => break,
                Some(Send::One(seq)) => seq,
                Some(Send::Digest(receiver, rows, by)) => self.make_digest(&receiver, &rows, &by, now),
            };
            self.dirty.outbox.insert(seq);
            if let Some(row) = self.outbox.get(seq) {
                leases.push(Lease { seq, notification: row.notification.clone() });
            }
        }
        leases
    }

    /// Applies the result of one attempt. `random` is the jitter for the next one.
    pub fn on_delivery(
        &mut self,
        seq: u64,
        outcome: Result<Accepted, DeliveryError>,
        random: u64,
        now: Timestamp,
    ) {
        match outcome {
            Ok(accepted) => self.on_accepted(seq, accepted, now),
            Err(DeliveryError::Rejected { reason }) => self.on_failed(seq, Reason::Rejected, &reason, now),
            Err(DeliveryError::Retry { after, reason }) => self.on_retry(seq, after, reason, random, now),
        }
    }

    fn on_accepted(&mut self, seq: u64, accepted: Accepted, now: Timestamp) {
        let state = if accepted.delivered { RowState::Delivered } else { RowState::Accepted };
        let Some(mut row) = self.outbox.settle(seq, state, now) else { return };
        self.last_accepted_at = Some(now);
        row.provider_id = accepted.provider_id;
        self.on_template(&row, accepted.template_failed, now);
        row.last_error = None;
        self.on_receiver_works(&row.notification.receiver.clone(), now);
        let text = format!("{} by {}", row.notification.id, row.notification.receiver);
        self.note(now, number_of(&row), state.name(), Reason::Accepted, &text);
        for said in self.outbox.take_digested(seq) {
            if let Some(said) = self.outbox.settle(said, RowState::Digested { into: seq }, now) {
                self.enter_ledger(&said, now);
                self.record(said);
            }
        }
        self.enter_ledger(&row, now);
        self.record(row);
    }

    fn record(&mut self, settled: Row) {
        self.touched.insert(settled.notification.incident);
        self.dirty.outbox.remove(&settled.seq);
        self.dirty.settled.push(settled);
    }

    /// The receiver now knows the content of the row.
    fn enter_ledger(&mut self, row: &Row, now: Timestamp) {
        let Notification { incident: number, receiver, kind, .. } = &row.notification;
        let Some(incident) = self.incidents.get_mut(number) else { return };
        if *kind == Kind::Acknowledged {
            return;
        }
        if !incident.heard.contains(receiver) {
            incident.heard.push(receiver.clone());
            self.dirty.incidents.insert(*number);
        }
        let old = incident.told.remove(receiver);
        let first_at = old.as_ref().map_or(now, |told| told.first_at);
        let alone = old.as_ref().is_some_and(|told| told.alone) || !row.is_digested();
        let mut knows: Claims = old.into_iter().flat_map(|told| told.knows).collect();
        row.says.add_to(&mut knows);
        if !knows.is_empty() {
            let knows = knows.into_iter().collect();
            incident.told.insert(receiver.clone(), Told { knows, first_at, last_at: now, alone });
        }
        self.dirty.told.insert((*number, receiver.clone()));
    }

    fn on_retry(&mut self, seq: u64, after: Option<Duration>, error: String, random: u64, now: Timestamp) {
        let Some(row) = self.outbox.get(seq) else { return };
        let receiver = row.notification.receiver.clone();
        let age = between(row.notification.created_at, now);
        let attempts = row.attempts;
        if row.notification.kind == Kind::Test {
            // Somebody waits for the result.
            return self.on_failed(seq, Reason::Rejected, &error, now);
        }
        let has_fallback = self.rules.receivers.get(&receiver).is_some_and(|rules| rules.fallback.is_some());
        if age >= AGE_MAX || (has_fallback && age >= PATIENCE) {
            return self.on_failed(seq, Reason::TooOld, &error, now);
        }
        if age >= PATIENCE && !row.escalated {
            let number = row.notification.incident;
            let digested = self.digested_incidents(seq);
            self.outbox.mark_escalated(seq);
            for number in digested.into_iter().chain([number]) {
                self.hasten(number, &receiver, now);
            }
        }
        self.on_receiver_fails(&receiver, &error, false, now);
        let number = self.outbox.get(seq).and_then(number_of);
        let wait = backoff(attempts, after, random);
        let text = format!(
            "attempt {attempts} to notify {receiver} failed, trying again in {}s: {error}",
            wait.as_secs()
        );
        self.note(now, number, "retrying", Reason::Retrying, &text);
        self.outbox.retry(seq, later(now, wait), error);
        self.dirty.outbox.insert(seq);
    }

    fn digested_incidents(&self, digest: u64) -> Vec<u64> {
        let into = RowState::Digested { into: digest };
        self.outbox.iter().filter(|row| row.state == into).map(|row| row.notification.incident).collect()
    }

    /// `receiver` cannot be reached: runs the next rule of the user it belongs to, or the next step
    /// of the policy.
    fn hasten(&mut self, number: u64, receiver: &str, now: Timestamp) {
        if let Some(incident) = self.incidents.get_mut(&number)
            && incident.resolved_at.is_none()
        {
            let mut by_rule = false;
            for page in incident.pages.iter_mut().filter(|page| page.is_by(receiver)) {
                page.hastened |= page.run.hasten(now);
                by_rule |= page.hastened;
            }
            if by_rule {
                self.dirty.incidents.insert(number);
            } else if incident.escalation.hasten(now) {
                incident.hastened = true;
                self.dirty.incidents.insert(number);
            }
            self.touched.insert(number);
        }
    }

    /// The row will never be accepted.
    fn on_failed(&mut self, seq: u64, why: Reason, error: &str, now: Timestamp) {
        let Some(mut row) = self.outbox.settle(seq, RowState::Failed, now) else { return };
        row.last_error = Some(error.to_owned());
        self.failed += 1;
        let receiver = row.notification.receiver.clone();
        let text = format!("{} to {receiver}: {error}", row.notification.id);
        self.note(now, number_of(&row), "failed", why, &text);
        self.on_receiver_fails(&receiver, error, true, now);
        // An earlier attempt may have been accepted without a response, so a recovery will be
        // needed.
        let may_know = why == Reason::TooOld || row.attempts > 1;
        for said in self.outbox.take_digested(seq) {
            if let Some(mut said) = self.outbox.settle(said, RowState::Failed, now) {
                said.last_error = Some(error.to_owned());
                self.failed += 1;
                self.make_up_for(&said, may_know, now);
                self.record(said);
            }
        }
        self.make_up_for(&row, may_know, now);
        self.record(row);
    }

    /// Sends an undelivered notification through the fallback.
    fn make_up_for(&mut self, row: &Row, may_know: bool, now: Timestamp) {
        let Notification { incident: number, receiver, kind, .. } = &row.notification;
        if matches!(kind, Kind::Test | Kind::Digest | Kind::Acknowledged) {
            return;
        }
        if may_know {
            self.enter_ledger(row, now);
        }
        let fallback = self.rules.receivers.get(receiver).and_then(|rules| rules.fallback.clone());
        let Some(mut incident) = self.incidents.remove(number) else { return };
        if *kind == Kind::Recovery {
            incident.told.remove(receiver);
            self.dirty.told.insert((*number, receiver.clone()));
            self.recover_through(fallback.as_deref(), &incident, row, now);
        } else if incident.resolved_at.is_some() {
            self.drop_unowed_recovery(&incident, receiver, now);
        } else {
            let truth = self.truth(&incident, now);
            if let Some(fallback) = fallback.filter(|_| !truth.visible.is_empty() && incident.ack.is_none()) {
                let knows = self.expected(&incident, &fallback);
                if crate::rules::told::news(&knows, &truth.visible, &truth.firing).is_some() {
                    self.tell(&mut incident, &fallback, Reason::Fallback, &truth, now);
                }
            }
        }
        self.incidents.insert(*number, incident);
        if *kind != Kind::Recovery {
            self.hasten(*number, receiver, now);
        }
    }

    /// Sends a recovery to the fallback if its receiver cannot be reached, unless the fallback gets
    /// it anyway.
    fn recover_through(&mut self, fallback: Option<&str>, incident: &Incident, row: &Row, now: Timestamp) {
        let Some(fallback) = fallback else { return };
        let hears_anyway = incident.heard.iter().any(|name| name == fallback)
            || self.outbox.lane(incident.number, fallback).next().is_some();
        if hears_anyway {
            return;
        }
        let seq = self.next_outbox_seq();
        let notification = Notification {
            id: self.notification_id(seq),
            receiver: fallback.into(),
            reason: Reason::Fallback.name().into(),
            created_at: now,
            ..row.notification.clone()
        };
        let text = format!("{} {} to {fallback}", notification.id, Kind::Recovery.name());
        self.note(now, Some(incident.number), "notified", Reason::Fallback, &text);
        self.outbox.insert(Row::new(seq, notification, row.says.clone()));
        self.dirty.outbox.insert(seq);
    }

    /// Drops the recovery of a problem that never arrived.
    fn drop_unowed_recovery(&mut self, incident: &Incident, receiver: &str, now: Timestamp) {
        if !incident.told.contains_key(receiver) {
            self.supersede_untried(incident.number, receiver, Reason::NeverTold, now);
        }
    }

    /// The template of the receiver failed, or works again.
    fn on_template(&mut self, row: &Row, failed: Option<String>, now: Timestamp) {
        let receiver = &row.notification.receiver;
        let key = template_key(receiver);
        // A notification about the template itself does not prove that the template works.
        if row.says.firing.iter().any(|(said, _)| *said == key) || row.says.resolved.contains(&key) {
            return;
        }
        let firing = self.alerts.get(&key).is_some_and(|alert| alert.resolved_at.is_none());
        match failed {
            Some(words) if !firing => {
                let own = OwnAlert {
                    key,
                    host: self.rules.host.clone(),
                    service: "template",
                    labels: [("receiver".to_owned(), receiver.clone())].into(),
                    summary: format!(
                        "receiver {receiver} uses the built-in text, because its template failed: {words}"
                    ),
                    since: now,
                    reason: Reason::TemplateFailed,
                };
                self.raise(own, now);
            }
            None if firing => {
                let ending = Ending::Well("the template works again");
                let change = self.alerts.resolve(&key, ending, now);
                self.on_move(&key, change, Reason::Accepted, now);
            }
            _ => {}
        }
    }

    fn on_receiver_works(&mut self, receiver: &str, now: Timestamp) {
        if self.failing.remove(receiver).is_some_and(|failing| failing.raised) {
            let key = own_key(receiver);
            let change =
                self.alerts.resolve(&key, Ending::Well("the receiver accepts notifications again"), now);
            self.on_move(&key, change, Reason::Accepted, now);
        }
    }

    fn on_receiver_fails(&mut self, receiver: &str, error: &str, for_good: bool, now: Timestamp) {
        let new = || Failing { since: now, error: String::new(), raised: false };
        let failing = self.failing.entry(receiver.to_owned()).or_insert_with(new);
        error.clone_into(&mut failing.error);
        if failing.raised || !(for_good || between(failing.since, now) >= PATIENCE) {
            return;
        }
        failing.raised = true;
        let own = OwnAlert {
            key: own_key(receiver),
            host: self.rules.host.clone(),
            service: "receiver",
            labels: [("receiver".to_owned(), receiver.to_owned())].into(),
            summary: format!("receiver {receiver} accepts no notifications: {error}"),
            since: failing.since,
            reason: if for_good { Reason::Rejected } else { Reason::Retrying },
        };
        self.raise(own, now);
    }

    pub(super) fn restore_failing(&mut self, now: Timestamp) {
        let own = self.alerts.of_agent(OWN).filter(|(_, alert)| alert.resolved_at.is_none());
        let failing = own.filter_map(|(key, alert)| {
            let receiver = key.service.strip_prefix("@receiver ")?.to_owned();
            let error = alert.summary.clone();
            Some((receiver, Failing { since: alert.since.min(now), error, raised: true }))
        });
        self.failing = failing.collect();
    }

    /// A receiver to notify that `receiver` fails: its fallback, another target of the policy, or
    /// any working receiver.
    pub(super) fn other_than(&self, receiver: &str, policy: &Policy, now: Timestamp) -> Option<String> {
        let works = |name: &String| name != receiver && !self.failing.contains_key(name);
        let fallback = self.rules.receivers.get(receiver).and_then(|rules| rules.fallback.as_ref());
        let targets = policy.steps.iter().flat_map(|step| &step.notify);
        let named = targets.flat_map(|target| self.receivers_of_target(target, now));
        let anyone = self.rules.receivers.keys().cloned();
        fallback.cloned().into_iter().chain(named).chain(anyone).find(works)
    }
}

fn number_of(row: &Row) -> Option<u64> {
    Some(row.notification.incident).filter(|&number| number != 0)
}
