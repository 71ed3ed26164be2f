//! The random worlds of `model.rs` with silent agents, downtimes, inhibition, dependencies and
//! muted periods, compared with a reference that checks every pair of alerts.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::model::{
    Chaos, SECOND, a_recovery_goes_only_to_receivers_that_may_know_the_problem,
    every_duplicate_has_the_same_id_and_content, every_problem_is_notified_within, name, run, seeds,
    what_people_believe_is_true, with_rules,
};
use crate::{rules::notification::Kind, testing::World};

/// The `settle` of `RULES`.
const SETTLE: Duration = Duration::from_secs(15);

/// The firing alerts, as `host/service`.
fn firing(world: &World) -> BTreeSet<String> {
    let open = world.open_incidents();
    let alerts = open.iter().flat_map(|incident| &incident.alerts);
    alerts.filter(|alert| alert.resolved_at.is_none()).map(|alert| name(&alert.labels)).collect()
}

/// Whether a firing alert or the time suppresses this alert, computed directly from `RULES`.
fn is_muted(alert: &str, firing: &BTreeSet<String>, now: Timestamp) -> bool {
    let minute = now.as_second() / 60 % (24 * 60) - 60;
    if [51, 52, 54].contains(&minute) {
        return true;
    }
    let (host, service) = alert.split_once('/').unwrap();
    let fires = |alert: &str| firing.contains(alert);
    let host_down = service != "agent" && fires(&format!("{host}/agent"));
    // Both sides match `swap`, so no swap alert suppresses another one or itself.
    let inhibited =
        host.starts_with("web") && ["disk", "load"].contains(&service) && fires(&format!("{host}/swap"));
    host_down || inhibited || (host.starts_with("web") && fires("db1/disk"))
}

fn in_downtime(world: &World, alert: &str) -> bool {
    let (host, service) = alert.split_once('/').unwrap();
    let active = world.core.downtimes(world.now).into_iter().filter(|downtime| downtime.state == "active");
    active.into_iter().any(|d| d.host == host && d.service.is_none_or(|covered| covered == service))
}

fn notices_reach_only_receivers_that_may_know_the_problem(world: &World, seed: u64) {
    let mut may_know: BTreeSet<(u64, &str)> = BTreeSet::new();
    for said in &world.attempted {
        let receiver = said.receiver.as_str();
        if ["downtime_started", "downtime_ended"].contains(&said.reason.as_str())
            && said.kind == Kind::Reminder
        {
            assert!(
                may_know.contains(&(said.incident, receiver)),
                "seed {seed}: {receiver} hears {}",
                said.reason
            );
        }
        may_know.insert((said.incident, receiver));
        may_know.extend(said.digest.iter().map(|line| (line.incident, receiver)));
    }
}

fn exactly_what_the_rules_say_is_suppressed(world: &World, seed: u64) {
    let firing = firing(world);
    let withheld: BTreeSet<String> =
        world.open_incidents().iter().flat_map(|i| &i.withheld).map(|w| w.alert.clone()).collect();
    let expected: BTreeSet<String> =
        firing.iter().filter(|alert| is_muted(alert, &firing, world.now)).cloned().collect();
    assert_eq!(withheld, expected, "seed {seed}: of {firing:?}");
}

#[test]
fn after_any_suppression_the_truth_is_notified_and_only_what_the_rules_say_is_suppressed() {
    let chaos = Chaos {
        acks: true,
        silences: true,
        moods: true,
        crashes: true,
        suppression: true,
        rota: false,
        limits: false,
        slow: false,
    };
    for seed in seeds(60) {
        let world = run(seed, &chaos);
        every_duplicate_has_the_same_id_and_content(&world, seed);
        notices_reach_only_receivers_that_may_know_the_problem(&world, seed);
        a_recovery_goes_only_to_receivers_that_may_know_the_problem(&world, seed);
        what_people_believe_is_true(&world, seed);
        exactly_what_the_rules_say_is_suppressed(&world, seed);
    }
}

#[test]
fn every_problem_is_notified_within_a_bound_after_its_suppression_ends() {
    let bound = 60 * SECOND + SETTLE;
    let chaos = Chaos {
        acks: false,
        silences: false,
        moods: false,
        crashes: true,
        suppression: true,
        rota: false,
        limits: false,
        slow: false,
    };
    for seed in seeds(40) {
        let mut world = World::new(&with_rules(), seed);
        let excused = |world: &World, alert: &str| {
            in_downtime(world, alert) || is_muted(alert, &firing(world), world.now)
        };
        every_problem_is_notified_within(bound, &mut world, &chaos, seed, &excused);
    }
}
