//! Explains how an alert would be routed and who would be notified now. Changes nothing.

use std::time::Duration;

use dogwatch_wire::ctl;
use jiff::Timestamp;

use super::{Core, oncall::Who};
use crate::rules::{escalation::Step, route::RouteMatch};

impl Core {
    pub fn routed(&self, ask: &ctl::AskedAlert, now: Timestamp) -> ctl::Routed {
        let tree = self.rules.routes.visits(&ask.labels).into_iter().map(|visit| ctl::RouteNode {
            depth: visit.depth,
            matchers: visit.matchers,
            matched: visit.matched,
            takes: visit.takes,
        });
        let ways = self.rules.routes.matches_for(&ask.labels);
        let muting =
            self.silences.iter().filter(|one| one.is_active(&self.periods, now) && one.matches(&ask.labels));
        ctl::Routed {
            labels: ask.labels.clone(),
            tree: tree.collect(),
            ways: ways.into_iter().map(|way| self.view_way(way, ask.critical, now)).collect(),
            silenced_by: muting.map(|silence| silence.number).collect(),
        }
    }

    fn view_way(&self, way: RouteMatch, critical: bool, now: Timestamp) -> ctl::RouteWay {
        let policy = self.policy(&way.policy);
        let step = |step: &Step| ctl::RouteStep {
            after_ms: millis(step.after),
            targets: step.notify.iter().map(|target| self.view_target(target, critical, now)).collect(),
        };
        ctl::RouteWay {
            path: way.path,
            group: way.group,
            group_wait_ms: millis(way.timing.group_wait),
            group_interval_ms: millis(way.timing.group_interval),
            repeat_interval_ms: millis(way.timing.repeat_interval),
            mute_during: way.hours.mute_during,
            active_during: way.hours.active_during,
            steps: policy.steps.iter().map(step).collect(),
            policy: policy.name,
            repeat: policy.repeat,
        }
    }

    fn view_target(&self, target: &str, critical: bool, now: Timestamp) -> ctl::RouteTarget {
        let receiver = |name: String| vec![ctl::RouteRule { after_ms: 0, receivers: vec![name] }];
        let of_user = |name: &str| {
            let rules = self.rules.users.get(name).map_or(&[][..], |user| user.rules(critical));
            let rule =
                |rule: &Step| ctl::RouteRule { after_ms: millis(rule.after), receivers: rule.notify.clone() };
            rules.iter().map(rule).collect()
        };
        let nobody_on_call = matches!(self.who(target, now), Who::Nobody(_) | Who::Unknown);
        let meant = if nobody_on_call { &self.rules.catch_all } else { target };
        let (user, rules) = match self.who(meant, now) {
            Who::Receiver(name) => (None, receiver(name)),
            Who::User(name, _) => (Some(name.clone()), of_user(&name)),
            Who::Nobody(_) | Who::Unknown => (None, Vec::new()),
        };
        ctl::RouteTarget { name: target.into(), user, nobody_on_call, rules }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
