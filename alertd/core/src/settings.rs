//! What the core needs of the config, checked by whoever builds it.
//!
//! The shell resolves `alertd.toml` into [`Rules`]; the core sees neither the file nor how a
//! receiver is reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::rules::{
    budgets::Limits, escalation::Policy, inhibit::Rule, mass::Mass, period::Period, quota::Quotas,
    ratelimit::Rate, route::Route, schedule::Schedule, user::User,
};

/// The policy of routes that name none; [`Rules::complete`] makes sure that it exists.
pub const DEFAULT_POLICY: &str = "default";
/// The receiver that exists without any config.
pub const LOCAL_RECEIVER: &str = "local";

/// The part of the config that the core needs.
#[derive(Debug, Clone)]
pub struct Rules {
    pub routes: Route,
    pub policies: BTreeMap<String, Policy>,
    pub receivers: BTreeMap<String, ReceiverRules>,
    /// Inhibition rules and dependencies.
    pub inhibit: Vec<Rule>,
    pub periods: BTreeMap<String, Period>,
    /// How long an external alert fires after its last post, if the post had no end time.
    pub resolve_timeout: Duration,
    /// How long a problem waits for reports of its cause after a start, and for its own recovery
    /// after the cause is resolved.
    pub settle: Duration,
    /// Receivers, users and schedules share one namespace.
    pub users: BTreeMap<String, User>,
    pub schedules: BTreeMap<String, Schedule>,
    /// Receiver or user to notify when nobody is on call.
    pub catch_all: String,
    /// Rate limit for all receivers together.
    pub rate: Option<Rate>,
    /// How much senders may make alertd remember.
    pub quotas: Quotas,
    /// When many silent hosts are one problem.
    pub mass: Mass,
    /// Host name of this alertd, for internal alerts.
    pub host: String,
}

impl Rules {
    /// Agents send a heartbeat at least every 30 s. A longer wait after an outage would delay
    /// pages.
    pub const SETTLE_DEFAULT: Duration = Duration::from_secs(30);
    /// As in Alertmanager.
    pub const RESOLVE_TIMEOUT_DEFAULT: Duration = Duration::from_mins(5);

    /// Adds what no config has to say: policy `default`, one policy for each receiver, and somebody
    /// to notify when nobody is on call if `catch_all` is empty.
    pub fn complete(&mut self) {
        let default = || Policy::only(DEFAULT_POLICY, LOCAL_RECEIVER);
        self.policies.entry(DEFAULT_POLICY.into()).or_insert_with(default);
        if self.catch_all.is_empty() {
            self.catch_all = self.first_of_default().unwrap_or(LOCAL_RECEIVER).to_owned();
        }
        for receiver in self.receivers.keys() {
            let direct = Policy::of_receiver(receiver);
            self.policies.entry(direct.name.clone()).or_insert(direct);
        }
    }

    /// The first target of policy `default` that needs nobody to be on call.
    fn first_of_default(&self) -> Option<&str> {
        let steps = &self.policies.get(DEFAULT_POLICY)?.steps;
        let mut targets = steps.iter().flat_map(|step| &step.notify);
        targets.find(|target| !self.schedules.contains_key(*target)).map(String::as_str)
    }

    pub(super) fn limits(&self) -> Limits {
        let mut named_by: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
        for (name, user) in &self.users {
            for receiver in user.receivers() {
                named_by.entry(receiver).or_default().insert(name);
            }
        }
        let own = |name: &String| {
            let alone = named_by.iter().filter(|(_, users)| users.iter().eq([&name]));
            alone.map(|(receiver, _)| (*receiver).clone()).collect()
        };
        Limits {
            receivers: self.receivers.iter().map(|(name, rules)| (name.clone(), rules.rate)).collect(),
            users: self.users.iter().map(|(name, user)| (name.clone(), (user.rate, own(name)))).collect(),
            all: self.rate,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverRules {
    pub fallback: Option<String>,
    pub rate: Rate,
    /// The receiver keeps an incident open until it gets the end under the same key, which a digest
    /// does not have.
    pub keeps_state: bool,
}
