//! Summarizes many alerts: "412 hosts: disk CRITICAL, since 14:02, most in dc=fra1". Pure.
//!
//! Alerts of one check in one state form a group. A group is described by the label that explains
//! most: nearly all alerts of the group have the same value, although the label has many values
//! elsewhere. `rack=r12` of thirty racks explains more than `env=prod` of two. A value that all
//! alerts everywhere share explains nothing and is only used if there is nothing better.

use std::collections::{BTreeMap, BTreeSet};

use dogwatch_wire::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::matcher::Labels;

/// One alert of a digest.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    pub labels: &'a Labels,
    pub state: State,
    /// Whether it is resolved.
    pub over: bool,
    pub since: Timestamp,
    /// The reader knows it from another notification. It belongs to the storm, but not to the
    /// digest.
    pub known: bool,
}

/// Alerts of one check in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// OK for resolved alerts.
    pub state: State,
    /// Value of `service`, or of `alertname`.
    pub check: String,
    /// Number of alerts that are new to the reader.
    pub alerts: u64,
    /// All hosts with this problem, including those the reader knows or will know from other
    /// notifications.
    pub hosts: u64,
    /// When the first one started.
    pub since: Timestamp,
    /// Up to two labels that most alerts share, with the percentage of alerts that have them.
    pub shared: Vec<Shared>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    pub label: String,
    pub value: String,
    pub percent: u8,
}

impl Group {
    /// Whether it is large enough to be described in a sentence instead of listing names.
    pub fn is_storm(&self) -> bool {
        self.alerts.max(self.hosts) >= STORM_LEAST
    }
}

/// Smaller groups are listed by name.
const STORM_LEAST: u64 = 10;
/// Minimum percentage of alerts with the same value for a label to be named.
const SHARED_PERCENT_LEAST: usize = 60;
/// These labels describe the problem, its owner or its source, not what alerts have in common.
const NO_PLACE: [&str; 12] = [
    "service",
    "alertname",
    "host",
    "instance",
    "severity",
    "state",
    "check",
    "job",
    "team",
    "owner",
    "receiver",
    "runbook",
];

/// Groups the alerts of a digest: problems before recoveries, largest group first.
pub fn groups(items: &[Item<'_>]) -> Vec<Group> {
    let mut by_check: BTreeMap<(State, &str), Vec<&Item<'_>>> = BTreeMap::new();
    for item in items {
        let state = if item.over { State::Ok } else { item.state };
        by_check.entry((state, check_of(item.labels))).or_default().push(item);
    }
    let values = values_by_label(items);
    let mut groups: Vec<_> = by_check
        .into_iter()
        .filter(|(_, members)| members.iter().any(|item| !item.known))
        .map(|((state, check), members)| group(state, check, &members, &values))
        .collect();
    groups.sort_by(|a, b| {
        let rank = |group: &Group| (group.state == State::Ok, std::cmp::Reverse((group.hosts, group.alerts)));
        rank(a).cmp(&rank(b)).then_with(|| a.check.cmp(&b.check))
    });
    groups
}

fn group(state: State, check: &str, members: &[&Item<'_>], values: &BTreeMap<&str, BTreeSet<&str>>) -> Group {
    let hosts: BTreeSet<_> = members.iter().filter_map(|item| host_of(item.labels)).collect();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Group {
        state,
        check: check.to_owned(),
        alerts: count(members.iter().filter(|item| !item.known).count()),
        hosts: count(hosts.len()),
        since: members.iter().map(|item| item.since).min().unwrap_or_default(),
        shared: if members.len() > 1 { shared(members, values) } else { Vec::new() },
    }
}

/// The name of the problem, without the place.
pub fn check_of(labels: &Labels) -> &str {
    ["service", "alertname"].iter().find_map(|name| labels.get(*name)).map_or("", String::as_str)
}

fn host_of(labels: &Labels) -> Option<&str> {
    ["host", "instance"].iter().find_map(|name| labels.get(*name)).map(String::as_str)
}

fn values_by_label<'a>(items: &[Item<'a>]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for item in items {
        for (label, value) in item.labels.iter().filter(|(label, _)| !NO_PLACE.contains(&label.as_str())) {
            values.entry(label).or_default().insert(value);
        }
    }
    values
}

/// The label that explains most, and a second one if it explains as much.
fn shared(members: &[&Item<'_>], values: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<Shared> {
    let mut having: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for item in members {
        for (label, value) in item.labels {
            if values.contains_key(label.as_str()) && !value.is_empty() {
                *having.entry((label, value)).or_default() += 1;
            }
        }
    }
    let most = having.into_iter().filter(|(_, n)| n * 100 >= members.len() * SHARED_PERCENT_LEAST);
    let mut scored: Vec<_> = most
        .map(|((label, value), n)| {
            let known_values = values.get(label).map_or(1, BTreeSet::len);
            (explains(n, members.len(), known_values), label, value, n)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let best = scored.first().map_or(0.0, |(score, ..)| *score);
    let as_good = scored.into_iter().take_while(|(score, ..)| best - score < 1e-9).take(2);
    as_good
        .map(|(_, label, value, n)| Shared {
            label: label.to_owned(),
            value: value.to_owned(),
            percent: u8::try_from(n * 100 / members.len()).unwrap_or(100),
        })
        .collect()
}

/// How surprising it is, in bits, that `n` of `all` alerts have the same value of a label with
/// `values` values, compared with hosts picked at random. Adds one to the number of values, because
/// values of hosts without alerts are not visible here.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn explains(n: usize, all: usize, values: usize) -> f64 {
    let share = n as f64 / all as f64;
    share * (share * (values + 1) as f64).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + second).unwrap()
    }

    /// `disk w1 dc=fra1 rack=r1`.
    fn labels(text: &str) -> Labels {
        let mut words = text.split(' ');
        let mut named = |name: &str| (name.to_owned(), words.next().unwrap().to_owned());
        let mut labels: Labels = [named("service"), named("host")].into();
        labels.extend(words.map(|word| word.split_once('=').unwrap()).map(|(n, v)| (n.into(), v.into())));
        labels
    }

    fn critical(labels: &Labels) -> Item<'_> {
        Item { labels, state: State::Critical, over: false, since: at(0), known: false }
    }

    /// This many hosts for each set of labels.
    fn hosts(parts: &[(usize, &str)]) -> Vec<Labels> {
        let mut number = 0;
        let mut one = |words: &str| {
            number += 1;
            labels(&format!("disk w{number} {words}"))
        };
        parts.iter().flat_map(|&(n, words)| (0..n).map(|_| one(words)).collect::<Vec<_>>()).collect()
    }

    fn shared_by(parts: &[(usize, &str)]) -> Vec<String> {
        let labels = hosts(parts);
        let items: Vec<_> = labels.iter().map(critical).collect();
        let groups = groups(&items);
        groups[0].shared.iter().map(|s| format!("{}={} {}", s.label, s.value, s.percent)).collect()
    }

    #[test]
    fn the_label_that_explains_most_is_named() {
        for (parts, expected) in [
            (
                &[(398, "dc=fra1 env=prod"), (10, "dc=ams1 env=prod"), (4, "dc=lon1 env=test")][..],
                &["dc=fra1 96"][..],
            ),
            // All in one rack of many: the rack is named, not the site.
            (&[(40, "dc=fra1 rack=r1"), (1, "dc=fra1 rack=r2"), (1, "dc=ams1 rack=r3")], &["rack=r1 95"]),
            // Half and half: no label is named.
            (&[(20, "dc=fra1"), (20, "dc=ams1")], &[]),
            // Both labels explain the same: both are named.
            (&[(20, "dc=fra1 env=prod")], &["dc=fra1 100", "env=prod 100"]),
            (&[(20, "team=db")], &[]),
            (&[(12, "site=x"), (7, "site=")], &["site=x 63"]),
        ] {
            assert_eq!(shared_by(parts), expected, "{parts:?}");
        }
    }

    #[test]
    fn of_what_everybody_has_the_rarer_label_explains_more() {
        // Other checks fail elsewhere, in different racks but the same environment.
        let disk = hosts(&[(20, "env=prod rack=r7")]);
        let load: Vec<_> = (0..9).map(|n| labels(&format!("load x{n} env=prod rack=r{n}"))).collect();
        let items: Vec<_> = disk.iter().chain(&load).map(critical).collect();
        let groups = groups(&items);
        assert_eq!((groups[0].check.as_str(), groups[0].shared[0].label.as_str()), ("disk", "rack"));
        assert_eq!((groups[1].check.as_str(), groups[1].shared[0].label.as_str()), ("load", "env"));
    }

    #[test]
    fn groups_are_by_check_and_state_and_recoveries_come_last() {
        let (one, two) = (labels("disk w1"), labels("disk w2"));
        let ping = labels("ping w1");
        let items = [
            Item { over: true, ..critical(&one) },
            Item { over: true, ..critical(&two) },
            Item { over: true, ..critical(&ping) },
            critical(&ping),
            Item { state: State::Warning, since: at(-5), ..critical(&one) },
            Item { state: State::Warning, ..critical(&two) },
        ];
        let shown: Vec<_> = groups(&items)
            .into_iter()
            .map(|group| (group.state, group.check, group.hosts, group.since))
            .collect();
        let expected = [
            (State::Warning, "disk", 2, at(-5)),
            (State::Critical, "ping", 1, at(0)),
            (State::Ok, "disk", 2, at(0)),
            (State::Ok, "ping", 1, at(0)),
        ];
        assert_eq!(
            shown,
            expected.map(|(state, check, hosts, since)| (state, check.to_owned(), hosts, since))
        );
    }

    #[test]
    fn alerts_the_receiver_knows_count_for_the_storm_but_form_no_group() {
        let disks = hosts(&[(30, "dc=fra1")]);
        let known = |item| Item { known: true, ..item };
        let mut items: Vec<_> = disks.iter().map(critical).collect();
        items[..10].iter_mut().for_each(|item| *item = known(*item));
        let ping = labels("ping w1");
        items.push(known(critical(&ping)));
        let groups = groups(&items);
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].alerts, groups[0].hosts, groups[0].is_storm()), (20, 30, true));
    }
}
