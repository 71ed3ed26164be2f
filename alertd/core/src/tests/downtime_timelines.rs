//! Downtimes from creation to end. `play.rs` explains the notation.

use std::time::Duration;

use dogwatch_wire::ctl;

use crate::{Refused, rules::moment::later, testing::World};

const MINUTE: Duration = Duration::from_mins(1);

/// Email at once, the pager after five minutes.
const CONFIG: &str = r#"
    [[route]]
    policy = "two"
    group_by = ["host", "service"]
    group_wait = "0s"
    group_interval = "3m"
    repeat_interval = "1d"
    [policy.two]
    step = [{ notify = ["mail"] }, { after = "5m", notify = ["pager"] }]
    [period.quiet]
    time_zone = "UTC"
    hours = ["01:50-01:55", "02:05-02:10"]
    [receiver.mail.maildir]
    path = "/m"
    [receiver.pager.maildir]
    path = "/p"
"#;

fn world() -> World {
    let mut world = World::new(CONFIG, 1);
    for host in ["web1", "web2"] {
        world.report(host, "disk", 'O');
    }
    world.agents_send(None);
    world
}

fn fixed(minutes: u64) -> ctl::NewDowntime {
    let comment = "new disk".into();
    ctl::NewDowntime { host: "web1".into(), duration_s: minutes * 60, comment, ..ctl::NewDowntime::default() }
}

fn announce(world: &mut World, ask: &ctl::NewDowntime) -> Result<ctl::Downtime, Refused> {
    let made = world.core.on_downtime(ask, "eva", world.now);
    world.turn(None);
    made
}

/// Advances minute by minute; agents keep reporting.
fn pass(world: &mut World, minutes: u32) {
    for _ in 0..minutes {
        world.agents_send(None);
        world.pass(MINUTE);
    }
}

/// Time of day, receiver and reason.
fn told(world: &World) -> Vec<String> {
    let line = |heard: &crate::testing::Heard| {
        let told = &heard.notification;
        format!("{} {} {}", told.created_at.strftime("%H:%M:%S"), told.receiver, told.reason)
    };
    world.heard.iter().map(line).collect()
}

fn states(world: &World) -> Vec<String> {
    world.core.downtimes(world.now).into_iter().map(|downtime| downtime.state).collect()
}

#[test]
fn a_problem_in_a_downtime_is_notified_afterwards_if_it_still_exists() {
    let mut world = world();
    announce(&mut world, &fixed(10)).unwrap();
    world.report("web1", "disk", 'C');
    world.report("web1", "swap", 'C');
    world.report("web2", "disk", 'C');
    pass(&mut world, 3);
    world.report("web1", "swap", 'O');
    let open = world.open_incidents();
    let by: Vec<_> =
        open.iter().flat_map(|i| &i.withheld).map(|w| (w.reason.as_str(), w.by.as_str())).collect();
    assert!(by.contains(&("downtime", "downtime 1 of web1")), "{by:?}");
    world.restart();
    pass(&mut world, 9);
    assert_eq!(
        told(&world),
        [
            "01:46:40 mail first_notification", // web2
            "01:51:40 pager escalation_step",
            "01:56:40 mail downtime_ended",
        ]
    );
}

#[test]
fn only_receivers_that_knew_the_problem_are_notified_of_start_and_end() {
    let mut world = world();
    world.report("web1", "disk", 'C');
    pass(&mut world, 2);
    announce(&mut world, &fixed(10)).unwrap();
    pass(&mut world, 15);
    assert_eq!(
        told(&world),
        [
            "01:46:40 mail first_notification",
            "01:48:40 mail downtime_started",
            "01:58:40 mail downtime_ended",
            "02:01:40 pager escalation_step", // its clock was stopped
        ]
    );
    let started = world.heard[1].notification.note.clone().unwrap();
    assert_eq!(started, "downtime 1 of web1 by eva until 2001-09-09 01:58 UTC: new disk");
}

#[test]
fn changes_in_a_downtime_replace_the_end_message_and_a_recovery_is_immediate() {
    for (letter, last) in [('O', "01:49:40 mail all_resolved"), ('C', "01:58:40 mail worsened")] {
        let mut world = world();
        world.report("web1", "disk", 'W');
        pass(&mut world, 2);
        announce(&mut world, &fixed(10)).unwrap();
        pass(&mut world, 1);
        world.report("web1", "disk", letter);
        pass(&mut world, 10);
        assert_eq!(told(&world)[1..], ["01:48:40 mail downtime_started", last]);
    }
}

#[test]
fn a_flexible_downtime_begins_with_the_first_problem_and_survives_a_restart() {
    let mut world = world();
    let starts_at = Some(later(world.now, 2 * MINUTE));
    let ask = ctl::NewDowntime { flexible_s: Some(300), starts_at, ..fixed(10) };
    announce(&mut world, &ask).unwrap();
    assert_eq!(states(&world), ["pending"]);
    pass(&mut world, 9);
    assert_eq!(states(&world), ["waiting"]);
    world.report("web1", "disk", 'C');
    pass(&mut world, 2);
    assert_eq!(states(&world), ["active"]);
    world.restart();
    pass(&mut world, 4);
    assert_eq!((told(&world), states(&world)), (vec!["02:00:40 mail downtime_ended".to_owned()], vec![]));
}

#[test]
fn a_problem_that_exists_when_the_window_opens_starts_a_flexible_downtime() {
    let mut world = world();
    world.report("web1", "disk", 'C');
    pass(&mut world, 1);
    announce(&mut world, &ctl::NewDowntime { flexible_s: Some(120), ..fixed(60) }).unwrap();
    pass(&mut world, 3);
    assert_eq!(told(&world)[1..], ["01:47:40 mail downtime_started", "01:49:40 mail downtime_ended"]);
    assert_eq!(states(&world), [""; 0]);
}

#[test]
fn a_hosts_downtime_covers_the_silence_of_its_agent_and_a_services_only_that_service() {
    let mut world = world();
    announce(&mut world, &fixed(30)).unwrap();
    let service = Some("disk".into());
    announce(&mut world, &ctl::NewDowntime { host: "web2".into(), service, ..fixed(30) }).unwrap();
    world.hosts.get_mut("web1").unwrap().quiet = true;
    world.report("web2", "disk", 'C');
    world.report("web2", "swap", 'C');
    pass(&mut world, 4);
    let services: Vec<_> =
        world.heard.iter().map(|h| h.notification.firing[0].labels["service"].as_str()).collect();
    assert_eq!(services, ["swap"]);
}

#[test]
fn a_cancelled_downtime_is_over_at_once() {
    let mut world = world();
    announce(&mut world, &fixed(60)).unwrap();
    world.report("web1", "disk", 'C');
    pass(&mut world, 2);
    assert_eq!(world.core.on_downtime_cancel(1, "ben", world.now).unwrap().state, "over");
    world.turn(None);
    assert_eq!(told(&world), ["01:48:40 mail downtime_ended"]);
    assert_eq!(world.core.on_downtime_cancel(1, "ben", world.now), Err(Refused::NoDowntime(1)));
}

#[test]
fn a_recurring_downtime_is_in_effect_in_its_period() {
    let mut world = world();
    announce(&mut world, &ctl::NewDowntime { period: Some("quiet".into()), ..fixed(60) }).unwrap();
    assert_eq!(states(&world), ["waiting"]);
    pass(&mut world, 4);
    world.report("web1", "disk", 'C');
    pass(&mut world, 5);
    world.report("web1", "disk", 'O');
    pass(&mut world, 10);
    world.report("web1", "disk", 'C');
    pass(&mut world, 5);
    assert_eq!(
        told(&world),
        ["01:55:00 mail downtime_ended", "01:55:40 mail all_resolved", "02:10:00 mail downtime_ended"]
    );
}

#[test]
fn invalid_requests_are_refused_with_a_reason() {
    let mut world = world();
    let default = ctl::NewDowntime::default;
    for (ask, words) in [
        (ctl::NewDowntime { host: "wbe1".into(), ..fixed(5) }, "unknown host \"wbe1\""),
        (fixed(0), "after the start"),
        (fixed(400 * 24 * 60), "within a year"),
        (ctl::NewDowntime { period: Some("night".into()), ..fixed(5) }, "periods: quiet"),
        (ctl::NewDowntime { flexible_s: Some(0), ..fixed(5) }, "at least a second"),
        (ctl::NewDowntime { flexible_s: Some(9), period: Some("quiet".into()), ..fixed(5) }, "not both"),
        (ctl::NewDowntime { host: "web1".into(), ..default() }, "after the start"),
    ] {
        let refused = announce(&mut world, &ask).unwrap_err().to_string();
        assert!(refused.contains(words), "{ask:?}: {refused}");
    }
}
