//! An incident: the alerts of one group, under a number that people work on.
//!
//! It opens with the first alert of its group and is over when none of its alerts fires. A problem after that is a new
//! incident with a new number. Its timing and its policy are copies from the day it opened: a new config is for new
//! incidents.

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
    route::{Hours, RouteMatch, Timing},
    suppression::{self, Suppressions},
    told::Told,
    user::Page,
};

/// Two alerts with the same of these belong together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// When to look for news next.
    pub flush_at: Option<Timestamp>,
    pub last_flush: Option<Timestamp>,
    /// Why the escalation starts when it does.
    pub cause: Cause,
    /// Firing but told to nobody when last looked at.
    #[serde(serialize_with = "suppression::to_rows", deserialize_with = "suppression::from_rows")]
    pub withheld: Suppressions,
    pub escalation: Escalation,
    /// Acked, or all of it withheld: only a person, a timer of theirs, or a change can make it speak.
    #[serde(default)]
    pub quiet: bool,
    /// Users who are being told by their own rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Page>,
    /// Schedules that had nobody when a step asked.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missed: BTreeSet<String>,
    /// The next step was brought forward, for a receiver could not be reached.
    #[serde(default)]
    pub hastened: bool,
    pub ack: Option<Ack>,
    /// Nonces of links that have acknowledged it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub used_links: BTreeSet<String>,
    /// Who was told of the problem, in order, whatever came after.
    pub heard: Vec<String>,
    /// As it was when it was over.
    pub closed: Option<ctl::Incident>,
    /// Over, and everybody has heard.
    pub left_memory: bool,
    /// By receiver; rows of their own in the store.
    #[serde(skip)]
    pub told: BTreeMap<String, Told>,
    /// Rebuilt from the alerts.
    #[serde(skip)]
    pub members: BTreeSet<AlertKey>,
    /// When something that is withheld may be free again. Found anew at each look.
    #[serde(skip)]
    pub look_at: Option<Timestamp>,
}

impl Incident {
    pub fn open(number: u64, way: &RouteMatch, policy: Policy, now: Timestamp) -> Self {
        Self {
            number,
            group: GroupKey { route: way.path.clone(), labels: way.group.clone() },
            timing: way.timing,
            hours: way.hours.clone(),
            opened_at: now,
            resolved_at: None,
            flush_at: Some(later(now, way.timing.group_wait)),
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

    /// Without what has rows of its own.
    #[must_use]
    pub fn to_row(&self) -> Self {
        Self { told: BTreeMap::new(), members: BTreeSet::new(), ..self.clone() }
    }

    /// Waits to be told for the first time: open, its policy not begun, and neither acked nor withheld as a whole.
    pub fn is_gathering(&self, now: Timestamp) -> bool {
        // A look that is further off than that was planned before the clock was set back.
        let soon = later(now, self.timing.group_wait);
        let waits = self.resolved_at.is_none() && self.ack.is_none() && !self.quiet;
        waits && !self.escalation.has_begun() && self.flush_at.is_some_and(|at| now < at && at <= soon)
    }

    /// Plans a look at the news: soon for what is worse, else not before `group_interval` is over. True if that is earlier
    /// than what was planned.
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

    /// Takes the ack away; the policy begins again.
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

    /// Nobody knows of it any more: what fires is told from the policy's first step on, once it may be told.
    pub fn forget_run(&mut self) {
        self.pages.clear();
        self.missed.clear();
        self.escalation.reset();
    }

    /// The clocks of the policy and of the people it pages stand still from here.
    pub fn pause(&mut self, now: Timestamp) {
        self.escalation.pause(now);
        self.pages.iter_mut().for_each(|page| page.run.pause(now));
    }

    pub fn resume(&mut self, now: Timestamp) {
        self.escalation.resume(now);
        self.pages.iter_mut().for_each(|page| page.run.resume(now));
    }

    /// When it has to be looked at again, if nothing happens before. `on_their_way`: receivers that have words coming,
    /// whose reminder counts from the arrival of those.
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

/// Counts by state, worst first: `2 CRITICAL, 1 WARNING`.
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
