//! Inhibition and dependencies: while a source fires, its targets are suppressed.
//!
//! The rules are Alertmanager's: a target is suppressed while a firing alert matches `source` and
//! has the same values for the labels in `equal`; a missing label equals an empty one. An alert
//! that matches both sides is not suppressed by another alert that does, so no alert inhibits
//! itself. A suppressed source still suppresses its targets. A *dependency* is the same rule
//! written from the other side (`of` depends `on`), with its own reason. Chains work, because
//! suppressed alerts still fire.
//!
//! Alerts are indexed by rule and the values of `equal`, so that an alert storm does not compare
//! every pair of alerts.

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::{
    alert::AlertKey,
    matcher::{Labels, Matcher, all_match},
    suppression::SuppressedBy,
};

#[derive(Debug, Clone)]
pub struct Rule {
    /// [`SuppressedBy::Inhibited`] or [`SuppressedBy::Dependency`].
    pub why: SuppressedBy,
    pub source: Vec<Matcher>,
    pub target: Vec<Matcher>,
    pub equal: Vec<String>,
}

impl Rule {
    fn values(&self, labels: &Labels) -> Vec<String> {
        self.equal.iter().map(|name| labels.get(name).cloned().unwrap_or_default()).collect()
    }

    /// Whether an agent on `host` could report a source for this target, as far as the host
    /// decides.
    fn may_come_from(&self, host: &str, target: &Labels) -> bool {
        let there = Labels::from([(HOST.to_owned(), host.to_owned())]);
        let elsewhere =
            self.equal.iter().any(|name| name == HOST) && target.get(HOST).map_or("", String::as_str) != host;
        !elsewhere && self.source.iter().filter(|matcher| matcher.name() == HOST).all(|m| m.matches(&there))
    }
}

const HOST: &str = "host";

/// All rules, and the firing alerts on either side of each.
#[derive(Debug, Default)]
pub struct Inhibitor {
    rules: Vec<Rule>,
    groups: BTreeMap<(usize, Vec<String>), Group>,
    places: BTreeMap<AlertKey, Vec<RuleRole>>,
}

/// The alerts of one rule that share the values of `equal`.
#[derive(Debug, Default)]
struct Group {
    /// True for sources that also match the target side.
    sources: BTreeMap<AlertKey, bool>,
    targets: BTreeSet<AlertKey>,
}

impl Group {
    /// Whether it suppresses anything, and whether even alerts that match both sides. Only a change
    /// of these two matters.
    fn power(&self) -> (bool, bool) {
        (!self.sources.is_empty(), self.sources.values().any(|both| !both))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct RuleRole {
    rule: usize,
    values: Vec<String>,
    source: bool,
    target: bool,
}

impl Inhibitor {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Updates an alert that fires with these labels, or no longer fires (`None`). Returns the
    /// targets to check again.
    pub fn update(&mut self, key: &AlertKey, labels: Option<&Labels>) -> BTreeSet<AlertKey> {
        let new = labels.map_or(Vec::new(), |labels| self.places_of(labels));
        let old = self.places.get(key).cloned().unwrap_or_default();
        if old == new {
            return BTreeSet::new();
        }
        let mut touched: BTreeMap<(usize, Vec<String>), (bool, bool)> = BTreeMap::new();
        for place in old {
            let id = (place.rule, place.values);
            let Some(group) = self.groups.get_mut(&id) else { continue };
            touched.entry(id).or_insert(group.power());
            group.sources.remove(key);
            group.targets.remove(key);
        }
        for place in &new {
            let id = (place.rule, place.values.clone());
            let group = self.groups.entry(id.clone()).or_default();
            touched.entry(id).or_insert(group.power());
            if place.source {
                group.sources.insert(key.clone(), place.target);
            }
            if place.target {
                group.targets.insert(key.clone());
            }
        }
        if new.is_empty() {
            self.places.remove(key);
        } else {
            self.places.insert(key.clone(), new);
        }
        let mut affected = BTreeSet::new();
        for (id, before) in touched {
            let Some(group) = self.groups.get(&id) else { continue };
            if group.power() != before {
                affected.extend(group.targets.iter().cloned());
            }
            if group.sources.is_empty() && group.targets.is_empty() {
                self.groups.remove(&id);
            }
        }
        affected
    }

    fn places_of(&self, labels: &Labels) -> Vec<RuleRole> {
        let place = |(at, rule): (usize, &Rule)| {
            let (source, target) = (all_match(&rule.source, labels), all_match(&rule.target, labels));
            (source || target).then(|| RuleRole { rule: at, values: rule.values(labels), source, target })
        };
        self.rules.iter().enumerate().filter_map(place).collect()
    }

    /// The first rule that suppresses this firing alert, and the source.
    pub fn muting(&self, key: &AlertKey) -> Option<(SuppressedBy, &AlertKey)> {
        self.places.get(key)?.iter().filter(|place| place.target).find_map(|place| {
            let group = self.groups.get(&(place.rule, place.values.clone()))?;
            let mutes = |(source, both): &(&AlertKey, &bool)| *source != key && !(place.source && **both);
            let (source, _) = group.sources.iter().find(mutes)?;
            Some((self.rules.get(place.rule)?.why, source))
        })
    }

    /// Whether an agent on one of `hosts` could report a source that suppresses this alert.
    pub fn awaits<'a>(
        &self,
        key: &AlertKey,
        labels: &Labels,
        hosts: &(impl Iterator<Item = &'a str> + Clone),
    ) -> bool {
        let targeted = self.places.get(key).into_iter().flatten().filter(|place| place.target);
        let mut rules = targeted.filter_map(|place| self.rules.get(place.rule));
        rules.any(|rule| hosts.clone().any(|host| rule.may_come_from(host, labels)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(source: &[&str], target: &[&str], equal: &[&str]) -> Rule {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Rule {
            why: SuppressedBy::Inhibited,
            source: parse(source),
            target: parse(target),
            equal: equal.iter().map(ToString::to_string).collect(),
        }
    }

    fn labels(text: &str) -> Labels {
        text.split(' ').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect()
    }

    fn key(text: &str) -> AlertKey {
        AlertKey::new("x", text)
    }

    /// The firing alerts that are suppressed.
    fn muted<'a>(rules: &[Rule], firing: &[&'a str]) -> Vec<&'a str> {
        let mut inhibitor = Inhibitor::new(rules.to_vec());
        for text in firing {
            inhibitor.update(&key(text), Some(&labels(text)));
        }
        firing.iter().copied().filter(|text| inhibitor.muting(&key(text)).is_some()).collect()
    }

    /// The cases of Alertmanager's tests for `inhibit.go` 0.34: equal labels, missing labels,
    /// alerts that match both sides.
    #[test]
    fn a_target_is_suppressed_by_a_source_with_equal_labels() {
        let one = [rule(&["s=1"], &["t=1"], &["e"])];
        for (firing, expected) in [
            (vec!["t=1 e=1"], vec![]),
            (vec!["s=1 e=1", "t=1 e=1"], vec!["t=1 e=1"]),
            (vec!["s=1 e=2", "t=1 e=1"], vec![]),
            // Missing labels are equal, and so are missing and empty ones.
            (vec!["s=1", "t=1"], vec!["t=1"]),
            (vec!["s=1 e=", "t=1"], vec!["t=1"]),
            (vec!["s=1 e=1", "t=1"], vec![]),
            // An alert on both sides is not suppressed by itself or another such alert, but by a
            // plain source. It still suppresses a plain target.
            (vec!["s=1 t=1 e=1"], vec![]),
            (vec!["s=1 t=1 e=1 n=1", "s=1 t=1 e=1 n=2"], vec![]),
            (vec!["s=1 t=1 e=1", "s=1 e=1"], vec!["s=1 t=1 e=1"]),
            (vec!["s=1 t=1 e=1", "t=1 e=1"], vec!["t=1 e=1"]),
        ] {
            assert_eq!(muted(&one, &firing), expected, "{firing:?}");
        }
    }

    #[test]
    fn without_equal_every_source_suppresses_every_target_and_chains_work() {
        let rules =
            [rule(&["host=router"], &["host=switch"], &[]), rule(&["host=switch"], &["host=web"], &[])];
        let firing = ["host=router", "host=switch", "host=web"];
        assert_eq!(muted(&rules, &firing), ["host=switch", "host=web"]);
    }

    #[test]
    fn only_targets_that_a_change_affects_are_reviewed_again() {
        let mut inhibitor = Inhibitor::new(vec![rule(&["s=1"], &["t=1"], &["e"])]);
        let mut update = |text: &str, fires: bool| {
            let labels = labels(text);
            let affected = inhibitor.update(&key(text), fires.then_some(&labels));
            affected.into_iter().map(|key| key.service.clone()).collect::<Vec<_>>()
        };
        assert_eq!(update("t=1 e=1", true), [""; 0]);
        assert_eq!(update("t=1 e=2", true), [""; 0]);
        assert_eq!(update("s=1 e=1", true), ["t=1 e=1"]);
        assert_eq!(update("s=1 e=1", true), [""; 0], "nothing new");
        assert_eq!(update("s=1 e=1 n=2", true), [""; 0], "a second source changes nothing");
        assert_eq!(update("s=1 e=1", false), [""; 0], "nor does the loss of one of two");
        assert_eq!(update("s=1 e=1 n=2", false), ["t=1 e=1"]);
        assert_eq!(update("t=1 e=1", false), [""; 0]);
        assert_eq!(update("t=1 e=2", false), [""; 0]);
        assert!(inhibitor.groups.is_empty() && inhibitor.places.is_empty(), "{inhibitor:?}");
    }

    #[test]
    fn an_alert_whose_labels_change_can_change_sides() {
        let mut inhibitor = Inhibitor::new(vec![rule(&["s=1"], &["t=1"], &[])]);
        inhibitor.update(&key("a"), Some(&labels("s=1")));
        inhibitor.update(&key("b"), Some(&labels("t=1")));
        assert_eq!(inhibitor.muting(&key("b")), Some((SuppressedBy::Inhibited, &key("a"))));
        let affected = inhibitor.update(&key("a"), Some(&labels("t=1")));
        assert_eq!(affected, [key("a"), key("b")].into(), "the released one and the new target");
        assert_eq!(inhibitor.muting(&key("b")), None);
    }

    #[test]
    fn a_source_is_awaited_only_from_hosts_that_could_report_it() {
        let mut inhibitor = Inhibitor::new(vec![rule(&["host=~switch.*", "service=ping"], &["dc=fra"], &[])]);
        let target = labels("host=web1 dc=fra");
        inhibitor.update(&key("t"), Some(&target));
        let awaits = |hosts: &[&'static str]| inhibitor.awaits(&key("t"), &target, &hosts.iter().copied());
        assert!(awaits(&["web2", "switch1"]));
        assert!(!awaits(&["web1", "web2"]));

        let mut inhibitor = Inhibitor::new(vec![rule(&["service=ping"], &["dc=fra"], &["host"])]);
        inhibitor.update(&key("t"), Some(&target));
        assert!(inhibitor.awaits(&key("t"), &target, &["web1"].into_iter()));
        assert!(!inhibitor.awaits(&key("t"), &target, &["web2"].into_iter()));
        assert!(!inhibitor.awaits(&key("other"), &target, &["web1"].into_iter()), "no target");
    }
}
