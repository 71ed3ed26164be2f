//! The random worlds of `model.rs` with hosts that fall silent, downtimes, inhibition, dependencies and quiet
//! hours, against a reference that
//! compares every pair of alerts.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::model::{
    Chaos, SECOND, a_recovery_goes_only_to_those_who_may_know_of_the_problem,
    every_duplicate_has_the_same_id_and_words, every_problem_is_told_within, name, run, seeds,
    what_people_believe_is_true, with_rules,
};
use crate::{rules::notification::Kind, testing::World};

/// `RULES`' settle.
const SETTLE: Duration = Duration::from_secs(15);

/// What fires, as `host/service`.
fn firing(world: &World) -> BTreeSet<String> {
    let open = world.open_incidents();
    let alerts = open.iter().flat_map(|incident| &incident.alerts);
    alerts.filter(|alert| alert.resolved_at.is_none()).map(|alert| name(&alert.labels)).collect()
}

/// Does something that fires mute this alert, or the hour, by the letter of `RULES`?
fn is_muted(alert: &str, firing: &BTreeSet<String>, now: Timestamp) -> bool {
    let minute = now.as_second() / 60 % (24 * 60) - 60;
    if [51, 52, 54].contains(&minute) {
        return true;
    }
    let (host, service) = alert.split_once('/').unwrap();
    let fires = |alert: &str| firing.contains(alert);
    let host_down = service != "agent" && fires(&format!("{host}/agent"));
    // Both sides match a swap, so no swap mutes another, least of all itself.
    let inhibited =
        host.starts_with("web") && ["disk", "load"].contains(&service) && fires(&format!("{host}/swap"));
    host_down || inhibited || (host.starts_with("web") && fires("db1/disk"))
}

fn in_downtime(world: &World, alert: &str) -> bool {
    let (host, service) = alert.split_once('/').unwrap();
    let active = world.core.downtimes(world.now).into_iter().filter(|downtime| downtime.state == "active");
    active.into_iter().any(|d| d.host == host && d.service.is_none_or(|covered| covered == service))
}

fn notices_reach_only_those_who_may_know_of_the_problem(world: &World, seed: u64) {
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

fn withheld_is_exactly_what_the_rules_say(world: &World, seed: u64) {
    let firing = firing(world);
    let withheld: BTreeSet<String> =
        world.open_incidents().iter().flat_map(|i| &i.withheld).map(|w| w.alert.clone()).collect();
    let expected: BTreeSet<String> =
        firing.iter().filter(|alert| is_muted(alert, &firing, world.now)).cloned().collect();
    assert_eq!(withheld, expected, "seed {seed}: of {firing:?}");
}

#[test]
fn after_any_suppression_the_truth_is_told_and_only_what_the_rules_say_is_withheld() {
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
        every_duplicate_has_the_same_id_and_words(&world, seed);
        notices_reach_only_those_who_may_know_of_the_problem(&world, seed);
        a_recovery_goes_only_to_those_who_may_know_of_the_problem(&world, seed);
        what_people_believe_is_true(&world, seed);
        withheld_is_exactly_what_the_rules_say(&world, seed);
    }
}

#[test]
fn whatever_mutes_it_every_problem_is_told_within_a_bound_after_that_is_over() {
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
        every_problem_is_told_within(bound, &mut world, &chaos, seed, &excused);
    }
}
