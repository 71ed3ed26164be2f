//! Many hosts are silent together. The agents send every 30 s and announce 60 s.

use std::time::Duration;

use crate::{
    rules::{moment::later, notification::Kind},
    testing::World,
};

const CONFIG: &str = r#"
    [[route]]
    receiver = "mail"
    group_by = ["host", "service"]
    group_wait = "0s"
    [receiver.mail]
    rate = { burst = 1000, every = "1s", reserve = 0 }
    [receiver.mail.maildir]
    path = "/m"
"#;
const BEAT: Duration = Duration::from_secs(30);

fn fleet(hosts: usize) -> World {
    let mut world = World::new(CONFIG, 1);
    for host in 0..hosts {
        world.hosts.entry(name(host)).or_default();
    }
    beats(&mut world, 3);
    world
}

fn name(host: usize) -> String {
    format!("web{host:03}")
}

/// Lets time pass. The hosts send one after the other within each interval.
fn beats(world: &mut World, n: u32) {
    let names: Vec<_> = world.hosts.keys().cloned().collect();
    let step = BEAT / u32::try_from(names.len()).unwrap();
    for _ in 0..n {
        for one in &names {
            let quiet: Vec<_> = names.iter().map(|name| world.hosts[name].quiet).collect();
            for name in &names {
                world.hosts.get_mut(name).unwrap().quiet |= name != one;
            }
            world.agents_send(None);
            for (name, quiet) in names.iter().zip(quiet) {
                world.hosts.get_mut(name).unwrap().quiet = quiet;
            }
            world.pass(step);
        }
    }
}

fn cut(world: &mut World, hosts: std::ops::Range<usize>, quiet: bool) {
    for host in hosts {
        world.hosts.get_mut(&name(host)).unwrap().quiet = quiet;
    }
}

/// What was told since the last call: `P` and the summary, `R`.
fn told(world: &mut World) -> Vec<String> {
    let line = |heard: &crate::testing::Heard| {
        let told = &heard.notification;
        let alert = told.firing.first().or(told.resolved.first()).unwrap();
        let words = alert.summary.split(" since").next().unwrap();
        match told.kind {
            Kind::Problem => format!("P {words}"),
            Kind::Recovery => format!("R {}", alert.labels["service"]),
            other => format!("{other:?} {words}"),
        }
    };
    let lines = world.heard.iter().map(line).collect();
    world.heard.clear();
    lines
}

fn silent(world: &World) -> usize {
    world.core.sizes(world.now).silent
}

#[test]
fn many_silent_hosts_are_one_incident_and_so_is_their_return() {
    let mut world = fleet(100);
    cut(&mut world, 0..95, true);
    beats(&mut world, 8);
    assert_eq!(told(&mut world), ["P 95 of 100 hosts silent"]);
    let open = world.open_incidents();
    let said = &open[0].alerts[0];
    assert!(said.summary.ends_with("alertd itself may be cut off"), "{}", said.summary);
    assert!(said.detail.ends_with("web019 and 75 more"), "{}", said.detail);
    cut(&mut world, 0..95, false);
    beats(&mut world, 4);
    assert_eq!((told(&mut world), silent(&world)), (vec!["R agents".to_owned()], 0));
    assert!(world.core.findings().next().is_none());
}

#[test]
fn half_of_them_silent_is_one_incident() {
    let mut world = fleet(60);
    cut(&mut world, 0..30, true);
    beats(&mut world, 8);
    assert_eq!(told(&mut world), ["P 30 of 60 hosts silent"]);
}

#[test]
fn few_silent_hosts_are_named_one_by_one() {
    let mut world = fleet(60);
    cut(&mut world, 7..9, true);
    beats(&mut world, 8);
    let told = told(&mut world);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("P no heartbeat from the agent on web007"), "{told:?}");
}

#[test]
fn at_the_threshold_it_does_not_flap() {
    let mut world = fleet(40);
    cut(&mut world, 0..10, true);
    beats(&mut world, 8);
    assert_eq!(told(&mut world), ["P 10 of 40 hosts silent"]);
    for _ in 0..10 {
        cut(&mut world, 7..10, false);
        beats(&mut world, 6);
        cut(&mut world, 7..10, true);
        beats(&mut world, 6);
    }
    assert_eq!(told(&mut world), [""; 0]);
    assert_eq!(silent(&world), 10);
}

#[test]
fn a_restart_in_the_middle_changes_nothing() {
    let mut world = fleet(50);
    cut(&mut world, 0..40, true);
    beats(&mut world, 8);
    assert_eq!(told(&mut world), ["P 40 of 50 hosts silent"]);
    world.restart();
    beats(&mut world, 8);
    assert_eq!((told(&mut world), silent(&world)), (Vec::new(), 40));
    cut(&mut world, 0..40, false);
    beats(&mut world, 4);
    assert_eq!((told(&mut world), silent(&world)), (vec!["R agents".to_owned()], 0));
}

#[test]
fn a_pause_of_alertd_itself_makes_nobody_silent() {
    let mut world = fleet(50);
    let pause = Duration::from_mins(5);
    world.now = later(world.now, pause);
    world.core.on_leap(pause);
    world.turn(None);
    beats(&mut world, 8);
    assert_eq!((told(&mut world), silent(&world)), (Vec::new(), 0));
    // The same if it was killed.
    world.now = later(world.now, pause);
    world.restart();
    world.turn(None);
    beats(&mut world, 8);
    assert_eq!((told(&mut world), silent(&world)), (Vec::new(), 0));
}

#[test]
fn hosts_that_stay_silent_after_the_others_are_back_are_named() {
    let mut world = fleet(50);
    cut(&mut world, 0..40, true);
    beats(&mut world, 8);
    assert_eq!(told(&mut world), ["P 40 of 50 hosts silent"]);
    cut(&mut world, 0..20, false);
    beats(&mut world, 6);
    assert_eq!((told(&mut world), silent(&world)), (Vec::new(), 20));
    cut(&mut world, 0..38, false);
    beats(&mut world, 6);
    let told = told(&mut world);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told.iter().filter(|line| *line == "R agents").count(), 1);
    for host in ["web038", "web039"] {
        assert!(told.iter().any(|line| line.contains(&format!("on {host} for"))), "{told:?}");
    }
}
