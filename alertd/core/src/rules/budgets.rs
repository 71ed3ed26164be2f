//! The rate limits that a notification must fit into: the receiver's, its user's, and the one for
//! all receivers together.
//!
//! A receiver belongs to a user if only that user's rules name it. A receiver shared by several
//! people counts for none of them, so that notifications for one person never delay another's. All
//! limits are checked before any is used, so a notification delayed by one limit costs nothing from
//! the others. The limits are not stored: after a restart the outbox replays what was sent
//! ([`Budgets::spend`]).

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::rules::ratelimit::{Bucket, Rate};

/// Every rate limit of the config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub receivers: BTreeMap<String, Rate>,
    /// Users, with the receivers that only they use.
    pub users: BTreeMap<String, (Rate, Vec<String>)>,
    /// All receivers together.
    pub all: Option<Rate>,
}

/// Who the limit belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    Receiver(String),
    User(String),
    All,
}

impl Whose {
    /// For people: `the rate limit of user ann`.
    pub fn words(&self) -> String {
        match self {
            Self::Receiver(name) => format!("the rate limit of receiver {name}"),
            Self::User(name) => format!("the rate limit of user {name}"),
            Self::All => "the rate limit of all receivers together".into(),
        }
    }
}

/// A limit that is exceeded now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverBudget {
    pub until: Timestamp,
    /// The limit that lasts longest.
    pub by: Whose,
}

#[derive(Debug, Default)]
pub struct Budgets {
    buckets: BTreeMap<Whose, Bucket>,
    /// The user that each receiver belongs to.
    users: BTreeMap<String, String>,
}

impl Budgets {
    /// Applies the limits of a config. What was used stays used.
    pub fn set(&mut self, limits: &Limits) {
        let mut old = std::mem::take(&mut self.buckets);
        let receivers = limits.receivers.iter().map(|(name, rate)| (Whose::Receiver(name.clone()), *rate));
        let users = limits.users.iter().map(|(name, (rate, _))| (Whose::User(name.clone()), *rate));
        let all = limits.all.iter().map(|rate| (Whose::All, *rate));
        for (whose, rate) in receivers.chain(users).chain(all) {
            let mut bucket = old.remove(&whose).unwrap_or_else(|| Bucket::new(rate));
            bucket.set_rate(rate);
            self.buckets.insert(whose, bucket);
        }
        let own = limits.users.iter().flat_map(|(user, (_, own))| own.iter().map(move |name| (name, user)));
        self.users = own.map(|(receiver, user)| (receiver.clone(), user.clone())).collect();
    }

    /// Uses one of every limit that applies to `receiver`, or none at all.
    pub fn try_spend(&mut self, receiver: &str, urgent: bool, now: Timestamp) -> Result<(), OverBudget> {
        let holds = self.of(receiver).filter_map(|whose| {
            let until = self.buckets.get(&whose)?.look(urgent, now).err()?;
            Some(OverBudget { until, by: whose })
        });
        if let Some(held) = holds.max_by_key(|held| held.until) {
            return Err(held);
        }
        self.spend(receiver, now);
        Ok(())
    }

    /// Uses one of every limit, even if it is exceeded, because the notification was sent.
    pub fn spend(&mut self, receiver: &str, now: Timestamp) {
        for whose in self.of(receiver) {
            if let Some(bucket) = self.buckets.get_mut(&whose) {
                bucket.spend(now);
            }
        }
    }

    /// The limits that apply to `receiver`.
    fn of(&self, receiver: &str) -> impl Iterator<Item = Whose> + use<> {
        let user = self.users.get(receiver).cloned().map(Whose::User);
        [Some(Whose::Receiver(receiver.to_owned())), user, Some(Whose::All)].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + second).unwrap()
    }

    fn rate(burst: u32) -> Rate {
        Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(10), reserve: 0 }
    }

    /// `pager` and `mail/ann` belong to ann, `chat` to nobody.
    fn budgets(receiver: u32, user: u32, all: u32) -> Budgets {
        let names = ["pager", "mail/ann", "chat"];
        let limits = Limits {
            receivers: names.map(|name| (name.to_owned(), rate(receiver))).into(),
            users: [("ann".to_owned(), (rate(user), vec!["pager".into(), "mail/ann".into()]))].into(),
            all: Some(rate(all)),
        };
        let mut budgets = Budgets::default();
        budgets.set(&limits);
        budgets
    }

    fn held_by(budgets: &mut Budgets, receiver: &str) -> Option<Whose> {
        budgets.try_spend(receiver, true, at(0)).err().map(|held| held.by)
    }

    #[test]
    fn a_notification_must_fit_every_budget_and_costs_nothing_while_it_waits() {
        let mut budgets = budgets(2, 3, 5);
        let mut asked = |receiver| held_by(&mut budgets, receiver);
        assert_eq!((asked("pager"), asked("pager")), (None, None));
        assert_eq!(asked("pager"), Some(Whose::Receiver("pager".into())));
        assert_eq!(asked("mail/ann"), None);
        assert_eq!(asked("mail/ann"), Some(Whose::User("ann".into())));
        // Two of five are left for all, because delayed notifications cost nothing.
        assert_eq!((asked("chat"), asked("chat")), (None, None));
        assert_eq!(asked("other"), Some(Whose::All));
    }

    #[test]
    fn the_longest_wait_counts() {
        let mut budgets = budgets(1, 1, 1);
        budgets
            .buckets
            .get_mut(&Whose::All)
            .unwrap()
            .set_rate(Rate { every: Duration::from_mins(1), ..rate(1) });
        assert_eq!(held_by(&mut budgets, "pager"), None);
        let held = budgets.try_spend("pager", true, at(5)).unwrap_err();
        assert_eq!(held, OverBudget { until: at(60), by: Whose::All });
        assert_eq!(budgets.try_spend("pager", true, at(60)), Ok(()));
    }

    #[test]
    fn used_budget_survives_a_reload_and_a_restart() {
        let mut before = budgets(2, 2, 2);
        assert_eq!((held_by(&mut before, "pager"), held_by(&mut before, "mail/ann")), (None, None));
        let mut after = budgets(2, 2, 2);
        for receiver in ["pager", "mail/ann"] {
            after.spend(receiver, at(0));
        }
        for budgets in [&mut before, &mut after] {
            let limits = Limits {
                users: [("ann".to_owned(), (rate(2), vec!["chat".into()]))].into(),
                ..Limits::default()
            };
            budgets.set(&limits);
            assert_eq!(held_by(budgets, "chat"), Some(Whose::User("ann".into())));
        }
    }
}
