//! The review of one incident: the actual state, what each receiver knows, who is notified now, and
//! when to review again.
//!
//! In this order, each with its own reason:
//!
//! 1. All alerts resolved: everybody who was notified gets the recovery, whatever else applies.
//! 2. Acknowledged: nobody is notified.
//! 3. All alerts suppressed (`suppress.rs`): nobody is notified, and the clock of the policy stops.
//! 4. Otherwise: due steps of the policy, updates for receivers that know of the incident, and
//!    reminders for those without a notification for `repeat_interval`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Core;
use crate::rules::{
    ack::Ack,
    alert::{Alert, AlertKey},
    incident::Incident,
    lately::Happened,
    moment::later,
    notification::{Kind, Notification, NotifiedAlert},
    outbox::{Row, RowState},
    reason::{Cause, Reason},
    suppression::{SuppressedBy, Suppressions},
    told::{self, Claims, Says},
};

/// The actual state of an incident.
pub(super) struct Truth {
    pub(super) firing: Claims,
    /// Firing and not suppressed.
    pub(super) visible: Claims,
    pub(super) withheld: Suppressions,
}

impl Core {
    pub(super) fn review(&mut self, number: u64, now: Timestamp) {
        // Removed, so that the rest of the core can be borrowed.
        let Some(mut incident) = self.incidents.remove(&number) else { return };
        if incident.resolved_at.is_none() {
            self.review_open(&mut incident, now);
        }
        if incident.resolved_at.is_some() && self.outbox.receivers_of(number).next().is_none() {
            self.close(incident);
        } else {
            self.incidents.insert(number, incident);
        }
    }

    fn review_open(&mut self, incident: &mut Incident, now: Timestamp) {
        let truth = self.truth(incident, now);
        if truth.firing.is_empty() {
            self.resolve(incident, now);
            return;
        }
        let released = self.note_withheld(incident, &truth, now);
        if incident.ack.as_ref().is_some_and(|ack| ack.expired(now))
            && let Some(ack) = incident.end_ack(Cause::AckExpired, now)
        {
            self.note(now, Some(incident.number), "unacked", Reason::AckExpired, &by(&ack));
            self.dirty.incidents.insert(incident.number);
        }
        if incident.ack.as_ref().and_then(Ack::remind_at).is_some_and(|at| at <= now) {
            self.remind_of_ack(incident, &truth, now);
        }
        if truth.visible.is_empty() {
            self.tell_recoveries_of_the_visible(incident, &truth, now);
        }
        if incident.ack.is_some() || truth.visible.is_empty() {
            let flush_at = self.tell_parts_that_are_over(incident, &truth, now);
            self.pause(incident, flush_at, now);
            return;
        }
        if std::mem::take(&mut incident.quiet) {
            incident.resume(now);
            self.dirty.incidents.insert(incident.number);
        }
        let flush_due = incident.flush_at.is_some_and(|at| at <= now);
        if !incident.escalation.has_begun() {
            if !flush_due {
                return;
            }
            incident.escalation.restart(now);
        }
        self.run_steps(incident, &truth, now);
        self.run_pages(incident, &truth, now);
        if flush_due {
            incident.flush_at = None;
            incident.last_flush = Some(now);
            self.dirty.incidents.insert(incident.number);
            self.tell_news(incident, &truth, released, now);
        }
        self.remind(incident, &truth, now);
    }

    pub(super) fn truth(&self, incident: &Incident, now: Timestamp) -> Truth {
        let firing: Vec<_> = incident
            .members
            .iter()
            .filter_map(|key| {
                let alert = self.alerts.get(key)?;
                Some((key, alert.claim()?, self.suppression(incident, key, alert, now)))
            })
            .collect();
        // Already sorted, so building a map only compares neighbours.
        let claims = |visible: bool| {
            let shown = firing.iter().filter(|(_, _, withheld)| !visible || withheld.is_none());
            shown.map(|(key, claim, _)| ((*key).clone(), *claim)).collect()
        };
        Truth {
            firing: claims(false),
            visible: claims(true),
            withheld: firing.iter().filter_map(|(key, _, by)| Some(((*key).clone(), by.clone()?))).collect(),
        }
    }

    /// Stores what is suppressed now. Returns why a firing alert was suppressed that no longer is.
    fn note_withheld(
        &mut self,
        incident: &mut Incident,
        truth: &Truth,
        now: Timestamp,
    ) -> Option<SuppressedBy> {
        incident.look_at = truth.withheld.values().filter_map(|withheld| withheld.until).min();
        if truth.withheld.values().any(|withheld| withheld.why == SuppressedBy::Settling) {
            self.unheard.is_awaited_by(incident.number);
        }
        if truth.withheld == incident.withheld {
            return None;
        }
        let old = std::mem::replace(&mut incident.withheld, truth.withheld.clone());
        self.dirty.incidents.insert(incident.number);
        let number = Some(incident.number);
        for (key, withheld) in &truth.withheld {
            if old.get(key).is_none_or(|old| old.why != withheld.why) {
                let line = self.alerts.get(key).map(Alert::line).unwrap_or_default();
                let text = format!("{line}; suppressed by {}", withheld.by);
                self.note(now, number, "withheld", withheld.why.reason(), &text);
            }
        }
        let released: BTreeMap<_, _> =
            old.iter().filter(|(key, _)| truth.visible.contains_key(key)).map(|(k, w)| (k, w.why)).collect();
        for (key, why) in &released {
            let line = self.alerts.get(key).map(Alert::line).unwrap_or_default();
            self.note(now, number, "released", why.ended().reason(), &line);
        }
        let why = released.into_values().min();
        self.tell_of_downtimes(incident, &old, truth, now);
        let why = why?;
        incident.flush_at = Some(now);
        if !incident.escalation.has_begun() {
            incident.cause = why.ended();
        }
        Some(why)
    }

    fn pause(&mut self, incident: &mut Incident, flush_at: Option<Timestamp>, now: Timestamp) {
        if !incident.quiet || incident.flush_at != flush_at {
            incident.pause(now);
            incident.flush_at = flush_at;
            incident.quiet = true;
            self.dirty.incidents.insert(incident.number);
        }
    }

    fn run_steps(&mut self, incident: &mut Incident, truth: &Truth, now: Timestamp) {
        while let Some(due) = incident.escalation.poll(now) {
            let hastened = std::mem::take(&mut incident.hastened);
            let reason = match (due.round, due.step) {
                _ if hastened => Reason::DeliveryFailed,
                (0, 0) => incident.cause.reason(),
                (0, _) => Reason::EscalationStep,
                _ => Reason::EscalationRepeat,
            };
            let policy = &incident.escalation.policy;
            let targets = policy.steps.get(due.step).map_or(Vec::new(), |step| step.notify.clone());
            let named: Vec<_> = targets.iter().map(|target| self.target_text(target, now)).collect();
            let text = format!("step {} of {:?}: {}", due.step + 1, policy.name, named.join(", "));
            self.note(now, Some(incident.number), "escalated", reason, &text);
            self.dirty.incidents.insert(incident.number);
            for target in targets {
                self.tell_target(incident, &target, reason, truth, now);
            }
        }
    }

    fn tell_news(
        &mut self,
        incident: &mut Incident,
        truth: &Truth,
        released: Option<SuppressedBy>,
        now: Timestamp,
    ) {
        for receiver in self.audience(incident) {
            let knows = self.expected(incident, &receiver);
            let Some(news) = told::news(&knows, &truth.visible, &truth.firing) else { continue };
            let reason = match (news.reason, released) {
                (Reason::NewAlerts, Some(why)) if why != SuppressedBy::Settling => why.ended().reason(),
                (reason, _) => reason,
            };
            self.tell(incident, &receiver, reason, truth, now);
        }
    }

    fn remind(&mut self, incident: &mut Incident, truth: &Truth, now: Timestamp) {
        let due = |last_at| later(last_at, incident.timing.repeat_interval) <= now;
        let late: Vec<_> = incident
            .told
            .iter()
            .filter(|(_, told)| due(told.last_at))
            .map(|(name, _)| name.clone())
            .collect();
        for receiver in late {
            // A pending notification has the same content; its acceptance restarts the clock.
            if self.outbox.lane(incident.number, &receiver).next().is_none() {
                self.tell(incident, &receiver, Reason::RepeatInterval, truth, now);
            }
        }
    }

    /// All receivers that know of the incident or are about to.
    pub(super) fn audience(&self, incident: &Incident) -> BTreeSet<String> {
        let about_to = self.outbox.receivers_of(incident.number).map(str::to_owned);
        incident.told.keys().cloned().chain(about_to).collect()
    }

    /// What a receiver will know when all pending notifications have arrived.
    pub(super) fn expected(&self, incident: &Incident, receiver: &str) -> Claims {
        let told = incident.told.get(receiver);
        let mut knows: Claims = told.into_iter().flat_map(|told| told.knows.iter().cloned()).collect();
        self.outbox.add_expected(incident.number, receiver, &mut knows);
        knows
    }

    /// Queues the actual state for one receiver, and replaces notifications that were never tried.
    pub(super) fn tell(
        &mut self,
        incident: &mut Incident,
        receiver: &str,
        reason: Reason,
        truth: &Truth,
        now: Timestamp,
    ) {
        let about_itself = truth.visible.keys().any(|key| super::own_alerts::is_about(key, receiver));
        if about_itself {
            if let Some(other) = self.other_than(receiver, &incident.escalation.policy, now) {
                self.tell(incident, &other, reason, truth, now);
            } else {
                let text = format!("no other receiver can be notified that {receiver} fails");
                self.note(now, Some(incident.number), "not_notified", Reason::NoOtherReceiver, &text);
            }
            return;
        }
        let replaced = self.supersede_untried(incident.number, receiver, Reason::Replaced, now);
        let reason =
            replaced.filter(|(kind, _)| *kind == Kind::Problem).map_or(reason.name().to_owned(), |(_, r)| r);
        let knows = self.expected(incident, receiver);
        let heard = !knows.is_empty();
        let (kind, resolved) = match told::news(&knows, &truth.visible, &truth.firing) {
            news if !heard => (Kind::Problem, news.map(|news| news.resolved)),
            Some(news) => (Kind::Update, Some(news.resolved)),
            None => (Kind::Reminder, None),
        };
        let resolved = resolved.unwrap_or_default();
        let says = Says { firing: truth.visible.clone().into_iter().collect(), resolved };
        self.push(incident, receiver, kind, &reason, says, now);
    }

    /// Settles queued notifications to a receiver that were never tried. Returns the kind and
    /// reason of the first.
    pub(super) fn supersede_untried(
        &mut self,
        number: u64,
        receiver: &str,
        why: Reason,
        now: Timestamp,
    ) -> Option<(Kind, String)> {
        let untried: Vec<_> =
            self.outbox.lane(number, receiver).filter(|row| row.is_untried()).map(|row| row.seq).collect();
        let mut first = None;
        for seq in untried {
            let Some(row) = self.outbox.settle(seq, RowState::Superseded, now) else { continue };
            let text = format!("{} to {receiver}", row.notification.id);
            self.note(now, Some(number), "superseded", why, &text);
            first.get_or_insert((row.notification.kind, row.notification.reason.clone()));
            self.dirty.outbox.remove(&seq);
            self.dirty.settled.push(row);
        }
        first
    }

    /// Queues a notification with the current text.
    pub(super) fn push(
        &mut self,
        incident: &Incident,
        receiver: &str,
        kind: Kind,
        reason: &str,
        says: Says,
        now: Timestamp,
    ) {
        self.push_noted(incident, receiver, kind, reason, says, None, now);
    }

    /// Other recent changes on the host, if all of `keys` are on one host.
    fn changed_beside<'a>(
        &self,
        keys: impl Iterator<Item = &'a AlertKey> + Clone,
        now: Timestamp,
    ) -> Vec<Happened> {
        let Some(first) = keys.clone().next() else { return Vec::new() };
        if keys.clone().any(|key| key.agent != first.agent) {
            return Vec::new();
        }
        let Some(agent) = self.agents.get(&first.agent) else { return Vec::new() };
        let services: BTreeSet<_> =
            keys.filter_map(|key| self.alerts.get(key)?.labels.get("service")).map(String::as_str).collect();
        agent.lately.beside(|service| services.contains(service), &agent.changes, now)
    }

    /// [`Self::push`] with an additional sentence.
    #[expect(clippy::too_many_arguments, reason = "one notification, each a part of it")]
    pub(super) fn push_noted(
        &mut self,
        incident: &Incident,
        receiver: &str,
        kind: Kind,
        reason: &str,
        says: Says,
        note: Option<&str>,
        now: Timestamp,
    ) {
        let words = |key: &AlertKey| self.alerts.get(key).map(Alert::to_notified);
        // An ack contains no new states, but lists the alerts.
        let known = (kind == Kind::Acknowledged).then(|| self.expected(incident, receiver));
        let named = known.unwrap_or_else(|| says.firing.iter().cloned().collect());
        let mut firing: Vec<(_, NotifiedAlert)> =
            named.iter().filter_map(|(key, claim)| Some((*claim, words(key)?))).collect();
        if kind == Kind::Update {
            let heard = self.expected(incident, receiver);
            let news = named.keys().filter(|key| !heard.contains_key(*key)).filter_map(words);
            let news: Vec<_> = news.map(|alert| alert.labels).collect();
            for (_, alert) in &mut firing {
                alert.joined = news.contains(&alert.labels);
            }
        }
        firing.sort_by_key(|(claim, alert)| (std::cmp::Reverse(*claim), alert.since));
        let firing = firing.into_iter().map(|(_, alert)| alert).collect();
        let resolved = says.resolved.iter().filter_map(words).collect();
        let lately = self.changed_beside(named.keys().chain(&says.resolved), now);
        let seq = self.next_outbox_seq();
        let notification = Notification {
            id: self.notification_id(seq),
            incident: incident.number,
            dedup_key: self.dedup_key(incident.number),
            receiver: receiver.into(),
            kind,
            reason: reason.into(),
            created_at: now,
            group: incident.group.labels.clone(),
            firing,
            resolved,
            digest: Vec::new(),
            summary: None,
            ack: incident.ack.as_ref().map(Ack::to_info),
            note: note.map(str::to_owned),
            lately,
        };
        self.dirty.history.push(dogwatch_wire::ctl::HistoryEntry {
            at: now,
            incident: Some(incident.number),
            kind: "notified".into(),
            reason: reason.into(),
            author: None,
            from: None,
            text: format!("{} {} to {receiver}", notification.id, kind.name()),
            detail: None,
        });
        let alone = self.must_go_alone(incident, &notification);
        self.outbox.insert(Row { alone, ..Row::new(seq, notification, says) });
        self.dirty.outbox.insert(seq);
    }

    /// A receiver that opened its own incident must get the end or the ack under the same key.
    fn must_go_alone(&self, incident: &Incident, told: &Notification) -> bool {
        let ends = matches!(told.kind, Kind::Recovery | Kind::Acknowledged) || !told.resolved.is_empty();
        let keeps_state = self.rules.receivers.get(&told.receiver).is_some_and(|rules| rules.keeps_state);
        let was_told = || incident.told.get(&told.receiver).is_some_and(|told| told.alone);
        let being_told = || {
            let mut lane = self.outbox.lane(incident.number, &told.receiver);
            lane.any(|row| !row.is_untried() && !row.is_digested())
        };
        ends && keeps_state && (was_told() || being_told())
    }

    pub(super) fn dedup_key(&self, number: u64) -> String {
        format!("dogwatch-{}-{number}", self.instance)
    }

    /// All firing alerts are suppressed, but some receivers know of resolved ones. When nobody
    /// knows of any problem any more, the suppressed alerts start at the first step of the policy
    /// later.
    fn tell_recoveries_of_the_visible(&mut self, incident: &mut Incident, truth: &Truth, now: Timestamp) {
        for receiver in self.audience(incident) {
            let knows = self.expected(incident, &receiver);
            if !knows.is_empty() && knows.keys().all(|key| !truth.firing.contains_key(key)) {
                self.tell_recovery(incident, &receiver, Reason::AllResolved, now);
            }
        }
        let knows = |receiver: &String| !self.expected(incident, receiver).is_empty();
        if incident.escalation.has_begun() && !self.audience(incident).iter().any(knows) {
            incident.forget_run();
            self.dirty.incidents.insert(incident.number);
        }
    }

    /// All firing alerts are suppressed. Receivers that know of several problems are notified which
    /// are resolved, with the current state of the others. Returns when to check for more.
    fn tell_parts_that_are_over(
        &mut self,
        incident: &mut Incident,
        truth: &Truth,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if incident.ack.is_some() {
            return None;
        }
        let owed: Vec<_> = self
            .audience(incident)
            .into_iter()
            .filter(|receiver| !self.outbox.lane(incident.number, receiver).any(Row::is_untried))
            .filter_map(|receiver| {
                let knows = self.expected(incident, &receiver);
                let resolved: BTreeSet<_> =
                    knows.keys().filter(|key| !truth.firing.contains_key(key)).cloned().collect();
                let claim = |key| Some((AlertKey::clone(key), *truth.firing.get(key)?));
                let firing: Vec<_> = knows.keys().filter_map(claim).collect();
                let says = Says { firing, resolved };
                (!says.firing.is_empty() && !says.resolved.is_empty()).then_some((receiver, says))
            })
            .collect();
        if owed.is_empty() {
            return None;
        }
        if incident.flush_at.is_none_or(|at| at > now) {
            incident.plan_flush(false, now);
            if incident.flush_at.is_some_and(|at| at > now) {
                return incident.flush_at;
            }
        }
        incident.last_flush = Some(now);
        self.dirty.incidents.insert(incident.number);
        for (receiver, says) in owed {
            self.push(incident, &receiver, Kind::Update, Reason::SomeResolved.name(), says, now);
        }
        None
    }

    fn tell_recovery(&mut self, incident: &Incident, receiver: &str, reason: Reason, now: Timestamp) {
        let told_before = incident.told.get(receiver).is_some_and(|told| !told.knows.is_empty());
        let tried = self.outbox.lane(incident.number, receiver).any(|row| !row.is_untried());
        let why = if told_before || tried { Reason::Replaced } else { Reason::NeverTold };
        self.supersede_untried(incident.number, receiver, why, now);
        let knows = self.expected(incident, receiver);
        if !knows.is_empty() {
            let says = Says { firing: Vec::new(), resolved: knows.into_keys().collect() };
            self.push(incident, receiver, Kind::Recovery, reason.name(), says, now);
        }
    }

    /// Nothing fires any more: exactly the receivers that were notified of the problem get the
    /// recovery.
    fn resolve(&mut self, incident: &mut Incident, now: Timestamp) {
        let unwatched = |key| self.alerts.get(key).is_some_and(Alert::is_unwatched);
        let reason =
            if incident.members.iter().all(unwatched) { Reason::Removed } else { Reason::AllResolved };
        for receiver in self.audience(incident) {
            self.tell_recovery(incident, &receiver, reason, now);
        }
        incident.resolved_at = Some(now);
        incident.flush_at = None;
        incident.withheld.clear();
        incident.closed = Some(self.view_incident(incident, now));
        self.groups.remove(&incident.group);
        self.dirty.incidents.insert(incident.number);
        self.note(now, Some(incident.number), "resolved", reason, "");
        for key in std::mem::take(&mut incident.members) {
            let Some(alert) = self.alerts.get_mut(&key) else { continue };
            alert.incidents.remove(&incident.number);
            if alert.incidents.is_empty() && alert.resolved_at.is_some() {
                self.forget(&key);
            } else {
                self.dirty_alerts.insert(key);
            }
        }
    }

    /// Resolved, and all recoveries were sent: the incident leaves memory.
    fn close(&mut self, mut incident: Incident) {
        let number = incident.number;
        if let Some(view) = &mut incident.closed {
            view.told.clone_from(&incident.heard);
        }
        for receiver in std::mem::take(&mut incident.told).into_keys() {
            self.dirty.told.insert((number, receiver));
        }
        incident.left_memory = true;
        self.dirty.incidents.remove(&number);
        self.dirty.closed.push(incident);
    }
}

fn by(ack: &Ack) -> String {
    format!("the ack of {} expired", ack.author)
}
