//! Users: people with their own notification rules.
//!
//! When a step of a policy reaches a user, directly or through a schedule, it starts a *page*: a
//! run of that user's rules beside the steps of the policy. It continues until somebody
//! acknowledges. Like the run of the policy ([`crate::rules::escalation`]), it has its own copy of
//! the rules.

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
    /// At least one rule; the targets are receivers.
    pub rules: Vec<Step>,
    /// Used instead while something is CRITICAL. Empty for the same rules.
    pub critical: Vec<Step>,
    /// Rate limit for all receivers that only this user's rules name.
    pub rate: Rate,
}

impl User {
    pub fn rules(&self, critical: bool) -> &[Step] {
        if critical && !self.critical.is_empty() { &self.critical } else { &self.rules }
    }

    /// All receivers in this user's rules.
    pub fn receivers(&self) -> impl Iterator<Item = &String> {
        self.rules.iter().chain(&self.critical).flat_map(|rule| &rule.notify)
    }
}

/// A run of a user's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub user: String,
    /// Whether the rules for CRITICAL are used.
    pub critical: bool,
    /// The rules, as a policy without repeats.
    pub run: Escalation,
    /// The next rule runs early, because a receiver could not be reached.
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

    /// The receivers and time of the next rule; `None` while stopped and when all rules have run.
    pub fn next(&self) -> Option<(Timestamp, &[String])> {
        let (position, at) = self.run.next()?;
        let rule = self.run.policy.steps.get(position.step)?;
        Some((at, &rule.notify))
    }

    /// Whether notifications to this receiver may have been for this user.
    pub fn is_by(&self, receiver: &str) -> bool {
        self.run.policy.steps.iter().flat_map(|rule| &rule.notify).any(|name| name == receiver)
    }
}
