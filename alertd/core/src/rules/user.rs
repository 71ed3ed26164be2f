//! Users: people, the receivers that reach them, and their rules for being notified.
//!
//! A policy step that names a user (or a schedule, and so the person on call) starts a *page*: a
//! run of that user's personal rules, alongside the policy's own steps. It continues until someone
//! acknowledges, whatever the policy does meanwhile, and has its own copy of the rules, like the
//! run of a policy ([`crate::core::rules::escalation`], with which it shares the implementation).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    escalation::{Escalation, Policy, Step},
    ratelimit::Rate,
};

/// One validated `[user.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// At least one; `notify` names receivers.
    pub rules: Vec<Step>,
    /// Used instead while an alert is CRITICAL; empty: the same rules.
    pub critical: Vec<Step>,
    /// Rate limit over all receivers that belong to this user alone.
    pub rate: Rate,
}

impl User {
    pub fn rules(&self, critical: bool) -> &[Step] {
        if critical && !self.critical.is_empty() { &self.critical } else { &self.rules }
    }

    /// All receivers that may notify this user.
    pub fn receivers(&self) -> impl Iterator<Item = &String> {
        self.rules.iter().chain(&self.critical).flat_map(|rule| &rule.notify)
    }
}

/// A user being notified, rule by rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub user: String,
    /// Uses the rules for CRITICAL.
    pub critical: bool,
    /// The rules, as a policy with one round.
    pub run: Escalation,
    /// The next rule was brought forward because a receiver could not be reached.
    #[serde(default)]
    pub hastened: bool,
}

impl Page {
    pub fn begin(user: &User, critical: bool, now: Timestamp) -> Self {
        let steps = user.rules(critical).to_vec();
        let policy = Policy { name: user.name.clone(), steps, repeat: 0, repeat_every: Duration::ZERO };
        let mut run = Escalation::new(policy);
        run.restart(now);
        Self { user: user.name.clone(), critical, run, hastened: false }
    }

    /// Receivers of the next rule and its time; `None` while held and when all rules have run.
    pub fn next(&self) -> Option<(Timestamp, &[String])> {
        let (position, at) = self.run.next()?;
        let rule = self.run.policy.steps.get(position.step)?;
        Some((at, &rule.notify))
    }

    /// Whether notifications to this receiver may have been meant for this user.
    pub fn is_by(&self, receiver: &str) -> bool {
        self.run.policy.steps.iter().flat_map(|rule| &rule.notify).any(|name| name == receiver)
    }
}
