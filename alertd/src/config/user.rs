//! `[user.NAME]`: how to notify a person.
//!
//! ```toml
//! [user.ann]
//! email = "ann@example.org"      # email receivers in ann's rules send here instead of to their `to`
//! rules = [{ notify = ["mail"] }, { after = "5m", notify = ["ann-pager"] }]
//! critical = [{ notify = ["ann-pager"] }]     # instead of rules, while something is CRITICAL
//! rate = { burst = 15, every = "20s" }        # for all receivers that only ann's rules use
//! ```

use std::collections::BTreeMap;

use dogwatch_alertd_core::{
    ReceiverRules,
    rules::{escalation::Step, ratelimit::Rate, schedule::NOBODY, user::User},
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use serde::Deserialize;

use super::{
    Parts,
    names::{Names, check_known},
    policy::{StepFile, resolve_steps},
    rate::RateFile,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserFile {
    email: Option<Spanned<String>>,
    #[serde(default)]
    rules: Vec<Spanned<StepFile>>,
    #[serde(default)]
    critical: Vec<Spanned<StepFile>>,
    rate: Option<RateFile>,
}

impl Parts {
    /// Also adds the receivers that send to the address of one user: `mail/ann`.
    pub(super) fn users(
        &mut self,
        names: &Names,
        receivers: &mut BTreeMap<String, ReceiverRules>,
        problems: &mut Problems,
    ) -> BTreeMap<String, User> {
        let mut users = BTreeMap::new();
        for (name, entry) in std::mem::take(&mut self.users) {
            let source = self.sources[entry.source].clone();
            if name == NOBODY {
                let words = "user \"nobody\": this name is reserved and means that nobody is on call; choose another name";
                problems.add(&source, entry.span.clone(), words);
            }
            if entry.file.rules.is_empty() {
                let words = format!(
                    "user {name:?} has no rules; add rules = [{{ notify = [\"…\"] }}] with one of the receivers: {}",
                    names.receivers.iter().cloned().collect::<Vec<_>>().join(", ")
                );
                problems.add(&source, entry.span, words);
            }
            let check = |receiver: &Spanned<String>, problems: &mut Problems| {
                check_known(receiver, "receiver", &names.receivers, &source, problems);
            };
            let mut rules = resolve_steps(entry.file.rules, &source, &check, problems);
            let mut critical = resolve_steps(entry.file.critical, &source, &check, problems);
            if let Some(email) = entry.file.email {
                let steps = rules.iter_mut().chain(&mut critical);
                self.address(&name, &email, steps, receivers, &source, problems);
            }
            let rate = entry.file.rate.map_or(Rate::OF_USER, |rate| rate.resolve(&source, problems));
            users.insert(name.clone(), User { name, rules, critical, rate });
        }
        users
    }

    /// Replaces each email receiver by `receiver/user`, with its own record of notifications and
    /// its own rate limit.
    fn address<'a>(
        &mut self,
        user: &str,
        email: &Spanned<String>,
        steps: impl Iterator<Item = &'a mut Step>,
        receivers: &mut BTreeMap<String, ReceiverRules>,
        source: &Source,
        problems: &mut Problems,
    ) {
        let mut is_used = false;
        for receiver in steps.flat_map(|step| &mut step.notify) {
            let own = self.resolved.get(receiver).and_then(|found| found.to_address(email.get_ref()));
            let Some(own) = own else { continue };
            is_used = true;
            let own = match own {
                Ok(own) => own,
                Err(words) => return problems.add(source, email.span(), words),
            };
            let name = format!("{receiver}/{user}");
            if let Some(rules) = receivers.get(receiver).cloned() {
                receivers.insert(name.clone(), rules);
            }
            self.resolved.insert(name.clone(), own);
            *receiver = name;
        }
        if !is_used {
            let words = format!(
                "email is set, but no rule of user {user:?} names an email receiver; remove it, or add such a receiver"
            );
            problems.add(source, email.span(), words);
        }
    }
}
