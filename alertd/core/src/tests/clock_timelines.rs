//! The clock is wrong for a while: by a second or by ten years, ahead or behind, and alertd is
//! restarted before or after it is set right. No page is late because of a stored time, and none is
//! sent twice.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    rules::{moment::later, notification::Kind},
    testing::{Mood, World},
};

const CONFIG: &str = r#"
    [[route]]
    policy = "two"
    group_wait = "10s"
    group_interval = "3m"
    repeat_interval = "1d"
    [policy.two]
    step = [{ notify = ["mail"] }, { after = "5m", notify = ["pager"] }]
    [receiver.mail.maildir]
    path = "/m"
    [receiver.pager.maildir]
    path = "/p"
"#;
const MINUTE: Duration = Duration::from_mins(1);

fn steps() -> [Duration; 6] {
    let years = |count: u64| Duration::from_hours(count * 365 * 24);
    let hours = Duration::from_hours;
    [Duration::from_secs(1), MINUTE, hours(1), hours(24), years(1), years(10)]
}

/// The clock is set, and alertd restarted.
fn set(world: &mut World, to: Timestamp) {
    world.now = to;
    world.restart();
    world.agents_send(None);
    world.turn(None);
}

fn back(world: &World, by: Duration) -> Timestamp {
    world.now.checked_sub(by).unwrap()
}

fn told(world: &World, receiver: &str) -> usize {
    let problems = world
        .heard
        .iter()
        .filter(|heard| heard.notification.receiver == receiver && heard.notification.kind == Kind::Problem);
    problems.count()
}

#[test]
fn a_problem_of_a_clock_that_was_ahead_is_escalated_in_time() {
    for step in steps() {
        let mut world = World::new(CONFIG, 1);
        world.now = later(world.now, step);
        world.restart();
        world.report("web1", "disk", 'C');
        world.agents_send(None);
        world.turn(None);
        world.pass(MINUTE);
        assert_eq!(told(&world, "mail"), 1);
        let to = back(&world, step);
        set(&mut world, to);
        world.pass(5 * MINUTE);
        assert_eq!((told(&world, "mail"), told(&world, "pager")), (1, 1), "{step:?}");
        world.report("web1", "disk", 'O');
        world.agents_send(None);
        world.turn(None);
        world.pass(4 * MINUTE);
        let recovered = world.heard.iter().filter(|heard| heard.notification.kind == Kind::Recovery);
        assert_eq!(recovered.count(), 2, "{step:?}");
    }
}

#[test]
fn what_was_to_be_sent_or_tried_again_in_the_future_of_a_wrong_clock_is_sent_soon() {
    for step in steps() {
        for busy in [false, true] {
            let mut world = World::new(CONFIG, 1);
            world.now = later(world.now, step);
            world.restart();
            if busy {
                world.moods.insert("mail".into(), Mood::Busy);
            }
            world.report("web1", "disk", 'C');
            world.agents_send(None);
            world.turn(None);
            // Either the group waits, or the mail was refused.
            world.pass(if busy { MINUTE } else { Duration::from_secs(1) });
            assert_eq!(told(&world, "mail"), 0);
            let to = back(&world, step);
            world.moods.clear();
            set(&mut world, to);
            world.pass(10 * MINUTE);
            assert_eq!(told(&world, "mail"), 1, "{step:?}, busy: {busy}");
        }
    }
}

#[test]
fn a_problem_of_a_clock_that_was_behind_is_told_once_and_not_forgotten() {
    for step in steps() {
        let mut world = World::new(CONFIG, 1);
        world.report("web1", "disk", 'C');
        world.agents_send(None);
        world.turn(None);
        world.pass(MINUTE);
        let to = later(world.now, step);
        set(&mut world, to);
        world.pass(5 * MINUTE);
        assert_eq!((told(&world, "mail"), told(&world, "pager")), (1, 1), "{step:?}");
        assert_eq!(world.open_incidents().len(), 1, "{step:?}");
    }
}

#[test]
fn an_agent_is_missed_in_time_after_the_clock_was_set_back() {
    for step in steps() {
        let mut world = World::new(CONFIG, 1);
        world.now = later(world.now, step);
        world.restart();
        world.report("web1", "disk", 'O');
        world.agents_send(None);
        world.turn(None);
        let to = back(&world, step);
        set(&mut world, to);
        if let Some(host) = world.hosts.get_mut("web1") {
            host.quiet = true;
        }
        world.pass(5 * MINUTE);
        assert_eq!(world.open_incidents().len(), 1, "{step:?}: the agent is silent");
    }
}
