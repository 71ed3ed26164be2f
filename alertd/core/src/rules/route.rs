//! The route tree: which policies handle an alert, depending on its labels.
//!
//! As in Alertmanager, routes are tried depth first in order. A matching child takes the alert, and
//! its siblings are not tried unless it has `continue`. If no child matches, the route itself takes
//! the alert. Inheritance is resolved once, in `config/route.rs`. The root matches everything, so
//! that every alert has a route.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::rules::matcher::{Labels, Matcher, all_match};

/// One route, with inherited settings filled in.
#[derive(Debug, Clone)]
pub struct Route {
    pub matchers: Vec<Matcher>,
    pub goes_on: bool,
    pub group_by: GroupBy,
    pub timing: Timing,
    pub hours: Hours,
    /// Name of the escalation policy.
    pub policy: String,
    pub children: Vec<Route>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    Labels(Vec<String>),
    /// `"..."`: a separate incident for every distinct set of labels.
    All,
}

/// Names of the periods in which a route is muted, or the only ones in which it is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    pub mute_during: Vec<String>,
    /// Empty for always.
    pub active_during: Vec<String>,
}

/// When the notifications of a group are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Time between the first alert and the first notification, so that related alerts can arrive.
    pub group_wait: Duration,
    /// Minimum time between two updates of a group. Worse states do not wait.
    pub group_interval: Duration,
    /// Time without a notification after which a reminder is sent.
    pub repeat_interval: Duration,
}

impl Timing {
    pub const DEFAULT: Self = Self {
        // A page must be sent within a second of the state change. Alerts that an agent reports
        // together arrive together, so a short wait is enough.
        group_wait: Duration::from_millis(500),
        group_interval: Duration::from_mins(1),
        // As in Alertmanager.
        repeat_interval: Duration::from_hours(4),
    };
}

/// One way of an alert through the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Matchers of the routes from the root down, outermost first.
    pub path: Vec<String>,
    /// Values of the labels that the alert is grouped by.
    pub group: BTreeMap<String, String>,
    pub timing: Timing,
    pub hours: Hours,
    pub policy: String,
}

/// One route that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// 0 for the root.
    pub depth: u32,
    pub matchers: String,
    pub matched: bool,
    /// Whether this route takes the alert.
    pub takes: bool,
}

impl Route {
    /// The root: it matches everything. The routes of a config are its children.
    pub fn root(policy: &str) -> Self {
        Self {
            matchers: Vec::new(),
            goes_on: false,
            group_by: GroupBy::Labels(vec!["host".into()]),
            timing: Timing::DEFAULT,
            hours: Hours::default(),
            policy: policy.into(),
            children: Vec::new(),
        }
    }

    pub fn matches_for(&self, labels: &Labels) -> Vec<RouteMatch> {
        let mut ways = Vec::new();
        self.descend(labels, &mut Vec::new(), &mut ways);
        ways
    }

    fn descend(&self, labels: &Labels, path: &mut Vec<String>, ways: &mut Vec<RouteMatch>) -> bool {
        if !all_match(&self.matchers, labels) {
            return false;
        }
        path.push(self.text());
        let mut taken = false;
        for child in &self.children {
            if child.descend(labels, path, ways) {
                taken = true;
                if !child.goes_on {
                    break;
                }
            }
        }
        if !taken {
            ways.push(RouteMatch {
                path: path.clone(),
                group: self.group_by.of(labels),
                timing: self.timing,
                hours: self.hours.clone(),
                policy: self.policy.clone(),
            });
        }
        path.pop();
        true
    }

    /// Every route that is tried, in order.
    pub fn visits(&self, labels: &Labels) -> Vec<Visit> {
        let mut visits = Vec::new();
        self.visit(labels, 0, &mut visits);
        visits
    }

    fn visit(&self, labels: &Labels, depth: u32, visits: &mut Vec<Visit>) -> bool {
        let matched = all_match(&self.matchers, labels);
        let at = visits.len();
        visits.push(Visit { depth, matchers: self.text(), matched, takes: false });
        if !matched {
            return false;
        }
        let mut taken = false;
        for child in &self.children {
            if child.visit(labels, depth + 1, visits) {
                taken = true;
                if !child.goes_on {
                    break;
                }
            }
        }
        visits[at].takes = !taken;
        true
    }

    /// The matchers, as people write them.
    pub fn text(&self) -> String {
        if self.matchers.is_empty() {
            return "everything".into();
        }
        let matchers: Vec<_> = self.matchers.iter().map(ToString::to_string).collect();
        format!("{{{}}}", matchers.join(","))
    }
}

impl GroupBy {
    fn of(&self, labels: &Labels) -> BTreeMap<String, String> {
        match self {
            Self::All => labels.clone(),
            Self::Labels(names) => names
                .iter()
                .map(|name| (name.clone(), labels.get(name).cloned().unwrap_or_default()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(matchers: &[&str], policy: &str, goes_on: bool, children: Vec<Route>) -> Route {
        Route {
            matchers: matchers.iter().map(|text| text.parse().unwrap()).collect(),
            goes_on,
            group_by: GroupBy::Labels(vec!["host".into()]),
            timing: Timing {
                group_wait: Duration::ZERO,
                group_interval: Duration::ZERO,
                repeat_interval: Duration::ZERO,
            },
            hours: Hours::default(),
            policy: policy.into(),
            children,
        }
    }

    fn tree() -> Route {
        route(
            &[],
            "root",
            false,
            vec![
                route(&["team=audit"], "audit", true, vec![]),
                route(
                    &["host=~db.*"],
                    "db",
                    false,
                    vec![
                        route(&["service=disk"], "storage", false, vec![]),
                        route(&["service=~disk|swap"], "never-for-disk", false, vec![]),
                    ],
                ),
                route(&["host=web1"], "web", false, vec![]),
            ],
        )
    }

    fn policies(pairs: &[(&str, &str)]) -> Vec<String> {
        let labels = pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        tree().matches_for(&labels).into_iter().map(|way| way.policy).collect()
    }

    #[test]
    fn the_first_child_that_matches_takes_it_unless_it_continues() {
        assert_eq!(policies(&[("host", "db1"), ("service", "disk")]), ["storage"]);
        assert_eq!(policies(&[("host", "db1"), ("service", "swap")]), ["never-for-disk"]);
        assert_eq!(policies(&[("host", "db1"), ("service", "load")]), ["db"]);
        assert_eq!(policies(&[("host", "web1")]), ["web"]);
        assert_eq!(policies(&[("host", "x")]), ["root"]);
        assert_eq!(policies(&[]), ["root"]);
        assert_eq!(policies(&[("host", "web1"), ("team", "audit")]), ["audit", "web"]);
    }

    #[test]
    fn the_visits_end_where_the_ways_do() {
        let all = ["db1", "web1", "x"].into_iter().flat_map(|host| {
            ["disk", "load"].map(|service| [("host", host), ("service", service), ("team", "audit")])
        });
        for pairs in all {
            let labels = pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect();
            let visits = tree().visits(&labels);
            let ends: Vec<_> =
                visits.iter().filter(|visit| visit.takes).map(|visit| &visit.matchers).collect();
            let ways = tree().matches_for(&labels);
            let last: Vec<_> = ways.iter().filter_map(|way| way.path.last()).collect();
            assert_eq!(ends, last, "{pairs:?}");
        }
    }

    #[test]
    fn a_way_names_its_matchers_and_its_group() {
        let labels = [("host".into(), "db1".into()), ("service".into(), "disk".into())].into();
        let ways = tree().matches_for(&labels);
        assert_eq!(ways[0].path, ["everything", "{host=~\"db.*\"}", "{service=\"disk\"}"]);
        assert_eq!(ways[0].group, [("host".to_owned(), "db1".to_owned())].into());
        assert_eq!(GroupBy::All.of(&labels), labels);
    }
}
