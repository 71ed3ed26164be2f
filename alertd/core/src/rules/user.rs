//! Users: people with ways to be reached, and the rules by which they want to be.
//!
//! A step of a policy that names a user (or a schedule, and so whoever is on call) starts a *page*: a run of that user's
//! personal rules beside the policy's own steps. It goes on while nobody has acked, whatever the policy does meanwhile, and
//! keeps its own copy of the rules, like the policy's run ([`crate::rules::escalation`], whose clock it shares).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    escalation::{Escalation, Policy, Step},
    ratelimit::Rate,
};

/// One `[user.NAME]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// At least one; what is notified are receivers.
    pub rules: Vec<Step>,
    /// In their place while something is CRITICAL; none: the same rules.
    pub critical: Vec<Step>,
    /// How often they may be told, by all ways that are theirs alone.
    pub rate: Rate,
}

impl User {
    pub fn rules(&self, critical: bool) -> &[Step] {
        if critical && !self.critical.is_empty() { &self.critical } else { &self.rules }
    }

    /// Everything that this user may be told by.
    pub fn receivers(&self) -> impl Iterator<Item = &String> {
        self.rules.iter().chain(&self.critical).flat_map(|rule| &rule.notify)
    }
}

/// A user being told, rule by rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub user: String,
    /// By the rules for CRITICAL.
    pub critical: bool,
    /// The rules as a policy of one round.
    pub run: Escalation,
    /// The next rule was brought forward, for a receiver could not be reached.
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

    /// Receivers of the next rule, and when it comes; `None` while held, and when all rules have run.
    pub fn next(&self) -> Option<(Timestamp, &[String])> {
        let (position, at) = self.run.next()?;
        let rule = self.run.policy.steps.get(position.step)?;
        Some((at, &rule.notify))
    }

    /// May the words that went to this receiver have been meant for this user?
    pub fn is_by(&self, receiver: &str) -> bool {
        self.run.policy.steps.iter().flat_map(|rule| &rule.notify).any(|name| name == receiver)
    }
}
