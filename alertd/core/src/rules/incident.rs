//! Incidents: the alerts of one group, with a number for people.
//!
//! An incident opens with the first alert of its group and is resolved when none of its alerts
//! fires. A later problem opens a new incident with a new number. Timing and policy are copied when
//! it opens, so a new config only applies to new incidents.

use std::collections::{BTreeMap, BTreeSet};

use dogwatch_wire::ctl;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    ack::Ack,
    alert::{AlertKey, Claim},
    escalation::{Escalation, Policy},
    moment::later,
    reason::Cause,
    route::{Hours, Timing},
    suppression::{self, Suppressions},
    told::Told,
    user::Page,
};

/// Alerts with the same group key belong to the same incident.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupKey {
    pub route: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Incident {
    pub number: u64,
    pub group: GroupKey,
    pub timing: Timing,
    #[serde(default)]
    pub hours: Hours,
    pub opened_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    /// When to check for changes next.
    pub flush_at: Option<Timestamp>,
    pub last_flush: Option<Timestamp>,
    /// Why the escalation starts.
    pub cause: Cause,
    /// Alerts that were suppressed at the last check.
    #[serde(serialize_with = "suppression::to_rows", deserialize_with = "suppression::from_rows")]
    pub withheld: Suppressions,
    pub escalation: Escalation,
    /// Acknowledged or completely suppressed: only a person, a timer set by a person, or a change
    /// can cause a notification.
    #[serde(default)]
    pub quiet: bool,
    /// Users whose own rules are running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Page>,
    /// Schedules that had nobody on call when a step ran.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missed: BTreeSet<String>,
    /// The next step runs early, because a receiver could not be reached.
    #[serde(default)]
    pub hastened: bool,
    pub ack: Option<Ack>,
    /// Nonces of links that were used to acknowledge it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub used_links: BTreeSet<String>,
    /// Receivers that were notified of the problem, in order. Never shrinks.
    pub heard: Vec<String>,
    /// Its state when it was resolved.
    pub closed: Option<ctl::Incident>,
    /// Resolved, and all recoveries were sent.
    pub left_memory: bool,
    /// What each receiver knows; separate rows in the store.
    #[serde(skip)]
    pub told: BTreeMap<String, Told>,
    /// Rebuilt from the alerts at the start.
    #[serde(skip)]
    pub members: BTreeSet<AlertKey>,
    /// When a suppression may end. Computed at each check.
    #[serde(skip)]
    pub look_at: Option<Timestamp>,
}

impl Incident {
    pub fn open(
        number: u64,
        group: GroupKey,
        timing: Timing,
        hours: Hours,
        policy: Policy,
        now: Timestamp,
    ) -> Self {
        Self {
            number,
            group,
            timing,
            hours,
            opened_at: now,
            resolved_at: None,
            flush_at: Some(later(now, timing.group_wait)),
            last_flush: None,
            cause: Cause::Opened,
            withheld: Suppressions::new(),
            escalation: Escalation::new(policy),
            quiet: false,
            hastened: false,
            pages: Vec::new(),
            missed: BTreeSet::new(),
            ack: None,
            used_links: BTreeSet::new(),
            heard: Vec::new(),
            closed: None,
            left_memory: false,
            told: BTreeMap::new(),
            members: BTreeSet::new(),
            look_at: None,
        }
    }

    /// The incident without the fields that have separate rows.
    #[must_use]
    pub fn to_row(&self) -> Self {
        Self { told: BTreeMap::new(), members: BTreeSet::new(), ..self.clone() }
    }

    /// A member has another key. Returns the receivers that know of it.
    pub fn rekey(&mut self, old: &AlertKey, new: &AlertKey) -> Vec<String> {
        if self.members.remove(old) {
            self.members.insert(new.clone());
        }
        if let Some(why) = self.withheld.remove(old) {
            self.withheld.insert(new.clone(), why);
        }
        let mut who = Vec::new();
        for (receiver, told) in &mut self.told {
            for (key, _) in told.knows.iter_mut().filter(|(key, _)| key == old) {
                key.clone_from(new);
                who.push(receiver.clone());
            }
            told.knows.sort();
        }
        who
    }

    /// Whether it waits for its first notification: open, policy not started, not acknowledged, and
    /// not completely suppressed.
    pub fn is_gathering(&self, now: Timestamp) -> bool {
        // A check planned for later than that was planned before the clock was set back.
        let soon = later(now, self.timing.group_wait);
        let waits = self.resolved_at.is_none() && self.ack.is_none() && !self.quiet;
        waits && !self.escalation.has_begun() && self.flush_at.is_some_and(|at| now < at && at <= soon)
    }

    /// Plans the next check for changes: soon if urgent, otherwise not before `group_interval` has
    /// passed. Returns true if that is earlier than planned.
    pub fn plan_flush(&mut self, urgent: bool, now: Timestamp) -> bool {
        let soon = later(now, self.timing.group_wait);
        let at = match self.last_flush {
            Some(last) if !urgent => soon.max(later(last, self.timing.group_interval)),
            _ => soon,
        };
        let earlier = self.flush_at.is_none_or(|planned| at < planned);
        if earlier {
            self.flush_at = Some(at);
        }
        earlier
    }

    /// Removes the ack and starts the policy again.
    pub fn end_ack(&mut self, cause: Cause, now: Timestamp) -> Option<Ack> {
        let ended = self.ack.take()?;
        self.begin_again(cause, now);
        Some(ended)
    }

    pub fn begin_again(&mut self, cause: Cause, now: Timestamp) {
        self.cause = cause;
        self.pages.clear();
        self.missed.clear();
        if self.escalation.has_begun() {
            self.escalation.restart(now);
        }
        self.flush_at = Some(now);
    }

    /// Resets the policy, because nobody knows of any problem any more. The next notification
    /// starts at the first step.
    pub fn forget_run(&mut self) {
        self.pages.clear();
        self.missed.clear();
        self.escalation.reset();
    }

    /// Stops the clocks of the policy and of the users' rules.
    pub fn pause(&mut self, now: Timestamp) {
        self.escalation.pause(now);
        self.pages.iter_mut().for_each(|page| page.run.pause(now));
    }

    pub fn resume(&mut self, now: Timestamp) {
        self.escalation.resume(now);
        self.pages.iter_mut().for_each(|page| page.run.resume(now));
    }

    /// When the incident must be checked again, if nothing happens before. Receivers in
    /// `on_their_way` have pending notifications; their reminders count from the delivery.
    pub fn next_wakeup(&self, on_their_way: &[&str]) -> Option<Timestamp> {
        if self.resolved_at.is_some() {
            return None;
        }
        if self.quiet {
            let expires = self.ack.as_ref().and_then(|ack| ack.remind_at().or(ack.expires_at));
            return [expires, self.look_at, self.flush_at].into_iter().flatten().min();
        }
        let reminded = self.told.iter().filter(|(name, _)| !on_their_way.contains(&name.as_str()));
        let repeat = reminded.map(|(_, told)| later(told.last_at, self.timing.repeat_interval)).min();
        let step = self.escalation.next().map(|(_, at)| at);
        let page = self.pages.iter().filter_map(Page::next).map(|(at, _)| at).min();
        [self.flush_at, step, page, repeat, self.look_at].into_iter().flatten().min()
    }

    pub fn route_text(&self) -> String {
        self.group.route.last().cloned().unwrap_or_default()
    }
}

/// The number of alerts by state, worst first: `2 CRITICAL, 1 WARNING`.
pub fn counts(claims: impl IntoIterator<Item = Claim>) -> String {
    let mut by_claim: BTreeMap<Claim, usize> = BTreeMap::new();
    for claim in claims {
        *by_claim.entry(claim).or_default() += 1;
    }
    let name = |claim| match claim {
        Claim::Critical => "CRITICAL",
        Claim::Unknown => "UNKNOWN",
        Claim::Flapping => "flapping",
        Claim::Warning => "WARNING",
    };
    let parts: Vec<_> =
        by_claim.iter().rev().map(|(&claim, count)| format!("{count} {}", name(claim))).collect();
    parts.join(", ")
}
