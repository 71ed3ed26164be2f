//! What became of each alert, from the rows that alertd committed.

use std::collections::{BTreeMap, BTreeSet};

use dogwatch_alertd_core::rules::{
    alert::AlertKey,
    outbox::{Row, RowState},
};
use serde::Serialize;

/// Each alert that fired, in exactly one place: the first of these that is so.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Account {
    pub alerts: usize,
    /// In a message about it or its host.
    pub alone: usize,
    pub digested: usize,
    /// By number of the digest: alerts first notified in it.
    pub by_digest: BTreeMap<u64, usize>,
    /// Not notified, by reason: its parent or another alert explains it.
    pub withheld: BTreeMap<String, usize>,
    /// Over before anybody was tried, or replaced by newer words.
    pub superseded: usize,
    pub lost: usize,
    /// The first few.
    pub lost_names: Vec<String>,
    /// Receivers that got a problem and not its recovery.
    pub recoveries_owed: usize,
}

impl Account {
    pub fn sum(&self) -> usize {
        self.alone + self.digested + self.withheld.values().sum::<usize>() + self.superseded + self.lost
    }
}

/// Everything that was seen of the storm.
#[derive(Default)]
pub(super) struct Ledger {
    /// `host/service` of all that fired.
    pub(super) fired: BTreeMap<String, AlertKey>,
    /// As committed last, by number.
    pub(super) rows: BTreeMap<u64, Row>,
    /// `host/service` to why it was withheld.
    pub(super) withheld: BTreeMap<String, String>,
}

impl Ledger {
    pub(super) fn account(&self) -> Account {
        let mut account = Account { alerts: self.fired.len(), ..Account::default() };
        let mut alone = BTreeSet::new();
        let mut digested: BTreeMap<&AlertKey, u64> = BTreeMap::new();
        let mut superseded = BTreeSet::new();
        let mut owed: BTreeMap<(&str, &AlertKey), i32> = BTreeMap::new();
        for row in self.rows.values() {
            let told = match row.state {
                RowState::Accepted | RowState::Delivered => true,
                RowState::Digested { into } => self.rows.get(&into).is_some_and(|row| row.state.is_taken()),
                _ => false,
            };
            for (key, _) in &row.says.firing {
                match row.state {
                    RowState::Accepted | RowState::Delivered => drop(alone.insert(key)),
                    RowState::Digested { into } if told => {
                        digested.entry(key).and_modify(|first| *first = into.min(*first)).or_insert(into);
                    }
                    RowState::Superseded => drop(superseded.insert(key)),
                    _ => {}
                }
            }
            if told {
                let receiver = row.notification.receiver.as_str();
                owed.extend(row.says.firing.iter().map(|(key, _)| ((receiver, key), 1)));
                owed.extend(row.says.resolved.iter().map(|key| ((receiver, key), 0)));
            }
        }
        account.recoveries_owed = owed.values().filter(|owed| **owed == 1).count();
        for (name, key) in &self.fired {
            if alone.contains(key) {
                account.alone += 1;
            } else if let Some(digest) = digested.get(key) {
                account.digested += 1;
                *account.by_digest.entry(*digest).or_default() += 1;
            } else if let Some(why) = self.withheld.get(name) {
                *account.withheld.entry(why.clone()).or_default() += 1;
            } else if superseded.contains(key) {
                account.superseded += 1;
            } else {
                account.lost += 1;
                if account.lost_names.len() < 5 {
                    account.lost_names.push(name.clone());
                }
            }
        }
        account
    }
}
