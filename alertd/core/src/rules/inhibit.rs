//! Inhibition and dependencies: while a source fires, the targets that belong to it are told to nobody.
//!
//! Alertmanager's rules: a target is muted while some firing alert matches `source` and has the same values of the labels in
//! `equal`; a label that is missing counts as empty. An alert that matches both sides is muted by no alert of which the
//! same is true, so nothing inhibits itself. A source that is itself silenced or muted still mutes. A *dependency* is the
//! same rule told from the other side (`of` depends `on`), with a reason of its own; chains work, because what is withheld
//! still fires.
//!
//! Kept as an index by rule and values of `equal`, so that a storm asks a map and not every pair of alerts.

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

    /// May an agent on `host` report a source for this target? Only the host is known of what it may say.
    fn may_come_from(&self, host: &str, target: &Labels) -> bool {
        let there = Labels::from([(HOST.to_owned(), host.to_owned())]);
        let elsewhere =
            self.equal.iter().any(|name| name == HOST) && target.get(HOST).map_or("", String::as_str) != host;
        !elsewhere && self.source.iter().filter(|matcher| matcher.name() == HOST).all(|m| m.matches(&there))
    }
}

const HOST: &str = "host";

/// All rules, and which firing alerts stand on which side of them.
#[derive(Debug, Default)]
pub struct Inhibitor {
    rules: Vec<Rule>,
    groups: BTreeMap<(usize, Vec<String>), Group>,
    places: BTreeMap<AlertKey, Vec<RuleRole>>,
}

/// The alerts of one rule with the same values of `equal`.
#[derive(Debug, Default)]
struct Group {
    /// True of those that match the target's side too.
    sources: BTreeMap<AlertKey, bool>,
    targets: BTreeSet<AlertKey>,
}

impl Group {
    /// Mutes something, and mutes even those that match both sides: what a change has to change to matter.
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

    /// Takes an alert that fires with these labels, or fires no more (`None`). Returns the targets that have to be looked
    /// at again.
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

    /// The first rule that mutes this firing alert, and the alert that does.
    pub fn muting(&self, key: &AlertKey) -> Option<(SuppressedBy, &AlertKey)> {
        self.places.get(key)?.iter().filter(|place| place.target).find_map(|place| {
            let group = self.groups.get(&(place.rule, place.values.clone()))?;
            let mutes = |(source, both): &(&AlertKey, &bool)| *source != key && !(place.source && **both);
            let (source, _) = group.sources.iter().find(mutes)?;
            Some((self.rules.get(place.rule)?.why, source))
        })
    }

    /// Could an agent on one of `hosts` report a source that mutes this alert?
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

    /// Which of the alerts that fire are muted.
    fn muted<'a>(rules: &[Rule], firing: &[&'a str]) -> Vec<&'a str> {
        let mut inhibitor = Inhibitor::new(rules.to_vec());
        for text in firing {
            inhibitor.update(&key(text), Some(&labels(text)));
        }
        firing.iter().copied().filter(|text| inhibitor.muting(&key(text)).is_some()).collect()
    }

    /// As Alertmanager's own tables have it, by `inhibit.go` at 0.34: equal labels, missing labels, two-sided matches.
    #[test]
    fn a_target_is_muted_by_a_source_with_equal_labels() {
        let one = [rule(&["s=1"], &["t=1"], &["e"])];
        for (firing, expected) in [
            (vec!["t=1 e=1"], vec![]),
            (vec!["s=1 e=1", "t=1 e=1"], vec!["t=1 e=1"]),
            (vec!["s=1 e=2", "t=1 e=1"], vec![]),
            // A label that is missing on both sides is equal; so are missing and empty.
            (vec!["s=1", "t=1"], vec!["t=1"]),
            (vec!["s=1 e=", "t=1"], vec!["t=1"]),
            (vec!["s=1 e=1", "t=1"], vec![]),
            // Both sides: not by itself, not by another of its kind, but by a plain source; it still mutes a plain target.
            (vec!["s=1 t=1 e=1"], vec![]),
            (vec!["s=1 t=1 e=1 n=1", "s=1 t=1 e=1 n=2"], vec![]),
            (vec!["s=1 t=1 e=1", "s=1 e=1"], vec!["s=1 t=1 e=1"]),
            (vec!["s=1 t=1 e=1", "t=1 e=1"], vec!["t=1 e=1"]),
        ] {
            assert_eq!(muted(&one, &firing), expected, "{firing:?}");
        }
    }

    #[test]
    fn without_equal_every_source_mutes_every_target_and_chains_hold() {
        let rules =
            [rule(&["host=router"], &["host=switch"], &[]), rule(&["host=switch"], &["host=web"], &[])];
        let firing = ["host=router", "host=switch", "host=web"];
        assert_eq!(muted(&rules, &firing), ["host=switch", "host=web"]);
    }

    #[test]
    fn only_what_a_change_frees_or_mutes_is_looked_at_again() {
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
        assert_eq!(update("s=1 e=1 n=2", true), [""; 0], "a second source frees and mutes nothing");
        assert_eq!(update("s=1 e=1", false), [""; 0], "nor does the loss of one of two");
        assert_eq!(update("s=1 e=1 n=2", false), ["t=1 e=1"]);
        assert_eq!(update("t=1 e=1", false), [""; 0]);
        assert_eq!(update("t=1 e=2", false), [""; 0]);
        assert!(inhibitor.groups.is_empty() && inhibitor.places.is_empty(), "{inhibitor:?}");
    }

    #[test]
    fn an_alert_whose_labels_change_changes_sides() {
        let mut inhibitor = Inhibitor::new(vec![rule(&["s=1"], &["t=1"], &[])]);
        inhibitor.update(&key("a"), Some(&labels("s=1")));
        inhibitor.update(&key("b"), Some(&labels("t=1")));
        assert_eq!(inhibitor.muting(&key("b")), Some((SuppressedBy::Inhibited, &key("a"))));
        let affected = inhibitor.update(&key("a"), Some(&labels("t=1")));
        assert_eq!(affected, [key("a"), key("b")].into(), "the one that is free, and the new target");
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
