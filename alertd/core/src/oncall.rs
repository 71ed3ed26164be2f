//! Resolves the targets of a step to receivers, users or whoever is on call, and handles the case
//! that nobody is.
//!
//! A target is resolved when its step runs. If nobody is on call, or a reload removed the target,
//! the catch-all is notified instead. alertd also raises an internal alert if nobody is on call.
//! When somebody is on call again, they are notified of the incidents they missed, unless somebody
//! acknowledged meanwhile.

use dogwatch_wire::ctl;
use jiff::Timestamp;

use super::{Core, review::Truth};
use crate::rules::{alert::Claim, incident::Incident, reason::Reason, user::Page};

/// The target of a step, as resolved now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Receiver(String),
    /// A user, and the schedule that put them on call.
    User(String, Option<String>),
    /// Nobody is on call in this schedule.
    Nobody(String),
    /// A reload removed it.
    Unknown,
}

impl Core {
    pub(super) fn who(&self, target: &str, now: Timestamp) -> Who {
        if self.rules.receivers.contains_key(target) {
            Who::Receiver(target.into())
        } else if self.rules.users.contains_key(target) {
            Who::User(target.into(), None)
        } else if let Some(schedule) = self.schedules.get(target) {
            match schedule.at(now) {
                Some(user) if self.rules.users.contains_key(user) => {
                    Who::User(user.into(), Some(target.into()))
                }
                _ => Who::Nobody(target.into()),
            }
        } else {
            Who::Unknown
        }
    }

    /// The receivers that a target stands for now, most urgent first.
    pub(super) fn receivers_of_target(&self, target: &str, now: Timestamp) -> Vec<String> {
        match self.who(target, now) {
            Who::Receiver(name) => vec![name],
            Who::User(name, _) => {
                let user = self.rules.users.get(&name);
                user.map_or(Vec::new(), |user| user.receivers().cloned().collect())
            }
            Who::Nobody(_) | Who::Unknown if target == self.rules.catch_all => Vec::new(),
            Who::Nobody(_) | Who::Unknown => self.receivers_of_target(&self.rules.catch_all, now),
        }
    }

    /// `ann`, or `primary (ann)` for a schedule.
    pub(super) fn target_text(&self, target: &str, now: Timestamp) -> String {
        match self.who(target, now) {
            Who::User(user, Some(schedule)) => format!("{schedule} ({user})"),
            Who::Nobody(schedule) => format!("{schedule} (nobody: {})", self.rules.catch_all),
            Who::Receiver(_) | Who::User(_, None) | Who::Unknown => target.into(),
        }
    }

    /// Notifies the target of a step.
    pub(super) fn tell_target(
        &mut self,
        incident: &mut Incident,
        target: &str,
        reason: Reason,
        truth: &Truth,
        now: Timestamp,
    ) {
        match self.who(target, now) {
            Who::Receiver(name) => self.tell_once(incident, &name, reason, truth, now),
            Who::User(user, by) => self.page(incident, &user, by.as_deref(), reason, truth, now),
            Who::Nobody(schedule) => {
                let text =
                    format!("nobody in schedule {schedule}; notifying {} instead", self.rules.catch_all);
                self.note(now, Some(incident.number), "nobody_on_call", Reason::NoOneOnCall, &text);
                incident.missed.insert(schedule.clone());
                self.raise_nobody(&schedule, now);
                self.tell_catch_all(incident, truth, now);
            }
            Who::Unknown => {
                let text = format!(
                    "{target} is no longer in the config; notifying {} instead",
                    self.rules.catch_all
                );
                self.note(now, Some(incident.number), "nobody_on_call", Reason::UnknownTarget, &text);
                self.tell_catch_all(incident, truth, now);
            }
        }
    }

    fn tell_catch_all(&mut self, incident: &mut Incident, truth: &Truth, now: Timestamp) {
        match self.who(&self.rules.catch_all, now) {
            Who::Receiver(name) => self.tell_once(incident, &name, Reason::NoOneOnCall, truth, now),
            Who::User(user, _) => self.page(incident, &user, None, Reason::NoOneOnCall, truth, now),
            // The config guarantees that the catch-all exists.
            Who::Nobody(_) | Who::Unknown => {}
        }
    }

    /// Sends one notification even if a step reaches a receiver in several ways.
    fn tell_once(
        &mut self,
        incident: &mut Incident,
        receiver: &str,
        reason: Reason,
        truth: &Truth,
        now: Timestamp,
    ) {
        let said = self
            .outbox
            .lane(incident.number, receiver)
            .any(|row| row.is_untried() && row.notification.created_at == now);
        if !said {
            self.tell(incident, receiver, reason, truth, now);
        }
    }

    /// The next step unless somebody acknowledges: a step of the policy, or a rule of a user.
    pub(super) fn next_step(&self, incident: &Incident, now: Timestamp) -> Option<ctl::NextStep> {
        if incident.resolved_at.is_some() {
            return None;
        }
        let steps = &incident.escalation.policy.steps;
        let targets = |step: usize, at: Timestamp| {
            let named = steps.get(step).map_or(&[][..], |step| &step.notify);
            named.iter().map(|target| self.target_text(target, at)).collect()
        };
        let number = |step: usize| u32::try_from(step + 1).unwrap_or(u32::MAX);
        let waits = !incident.escalation.has_begun() && incident.flush_at.is_some();
        if waits {
            let at = incident.flush_at.unwrap_or(now);
            return Some(ctl::NextStep { step: 1, targets: targets(0, at), at });
        }
        let step = incident.escalation.next().map(|(position, at)| ctl::NextStep {
            step: number(position.step),
            targets: targets(position.step, at),
            at,
        });
        let rules = incident.pages.iter().filter_map(|page| {
            let (position, at) = page.run.next()?;
            let rule = page.run.policy.steps.get(position.step)?;
            let targets =
                rule.notify.iter().map(|receiver| format!("{} via {receiver}", page.user)).collect();
            Some(ctl::NextStep { step: number(position.step), targets, at })
        });
        step.into_iter().chain(rules).min_by_key(|next| next.at)
    }

    /// Starts the rules of a user, unless they already run.
    fn page(
        &mut self,
        incident: &mut Incident,
        name: &str,
        by: Option<&str>,
        reason: Reason,
        truth: &Truth,
        now: Timestamp,
    ) {
        let Some(user) = self.rules.users.get(name) else { return };
        if incident.pages.iter().any(|page| page.user == name && page.next().is_some()) {
            return;
        }
        let mut page = Page::begin(user, is_critical(truth), now);
        let by = by.map(|schedule| format!(", on call in {schedule}")).unwrap_or_default();
        self.note(now, Some(incident.number), "paged", reason, &format!("{name}{by}"));
        incident.pages.retain(|page| page.user != name);
        self.run_rules(incident, &mut page, reason, truth, now);
        incident.pages.push(page);
        self.dirty.incidents.insert(incident.number);
    }

    /// Runs the due rules of all users.
    pub(super) fn run_pages(&mut self, incident: &mut Incident, truth: &Truth, now: Timestamp) {
        let schedules: Vec<_> =
            incident.missed.iter().filter(|name| self.is_covered(name, now)).cloned().collect();
        for schedule in schedules {
            incident.missed.remove(&schedule);
            self.dirty.incidents.insert(incident.number);
            self.tell_target(incident, &schedule, Reason::OnCallAgain, truth, now);
        }
        for mut page in std::mem::take(&mut incident.pages) {
            let rules = self.rules.users.get(&page.user).filter(|user| !user.critical.is_empty());
            let mut reason = Reason::PersonalRule;
            if let Some(user) = rules.filter(|_| is_critical(truth) && !page.critical) {
                page = Page::begin(user, true, now);
                reason = Reason::Worsened;
            }
            self.run_rules(incident, &mut page, reason, truth, now);
            incident.pages.push(page);
        }
    }

    fn run_rules(
        &mut self,
        incident: &mut Incident,
        page: &mut Page,
        first: Reason,
        truth: &Truth,
        now: Timestamp,
    ) {
        while let Some(due) = page.run.poll(now) {
            let reason = match due.step {
                _ if std::mem::take(&mut page.hastened) => Reason::DeliveryFailed,
                0 => first,
                _ => Reason::PersonalRule,
            };
            self.dirty.incidents.insert(incident.number);
            let receivers =
                page.run.policy.steps.get(due.step).map_or(Vec::new(), |rule| rule.notify.clone());
            for receiver in receivers {
                if self.rules.receivers.contains_key(&receiver) {
                    self.tell_once(incident, &receiver, reason, truth, now);
                } else {
                    let text = format!("receiver {receiver} of {} is no longer in the config", page.user);
                    self.note(now, Some(incident.number), "not_notified", Reason::UnknownTarget, &text);
                    self.tell_catch_all_receiver(incident, truth, now);
                }
            }
        }
    }

    /// Notifies only the first receiver of the catch-all, for use within the rules of a user.
    fn tell_catch_all_receiver(&mut self, incident: &mut Incident, truth: &Truth, now: Timestamp) {
        let all = self.receivers_of_target(&self.rules.catch_all, now);
        if let Some(receiver) = all.first() {
            self.tell_once(incident, receiver, Reason::UnknownTarget, truth, now);
        }
    }
}

fn is_critical(truth: &Truth) -> bool {
    truth.visible.values().any(|claim| *claim == Claim::Critical)
}
