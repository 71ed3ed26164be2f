//! Silences that people create, extend and forget. `play.rs` explains the notation.

use std::time::Duration;

use dogwatch_wire::ctl;
use jiff::Timestamp;

use crate::{Refused, rules::moment::later, testing::World};

const MINUTE: Duration = Duration::from_mins(1);

const CONFIG: &str = r#"
    [[route]]
    receiver = "mail"
    group_by = ["host", "service"]
    group_wait = "0s"
    group_interval = "3m"
    repeat_interval = "1d"
    [period.quiet]
    time_zone = "UTC"
    hours = ["01:50-01:55", "02:05-02:10"]
    [receiver.mail.maildir]
    path = "/m"
"#;

fn silence(world: &mut World, ask: &ctl::NewSilence) -> Result<ctl::Silence, Refused> {
    let silence = world.core.on_silence(ask, "eva", world.now);
    world.turn(None);
    silence
}

fn ask(matcher: &str, minutes: u64) -> ctl::NewSilence {
    ctl::NewSilence { matchers: vec![matcher.into()], duration_s: minutes * 60, ..ctl::NewSilence::default() }
}

/// Advances minute by minute; agents keep reporting.
fn pass(world: &mut World, minutes: u32) {
    for _ in 0..minutes {
        world.agents_send(None);
        world.pass(MINUTE);
    }
}

/// Time of day and reason.
fn told(world: &World) -> Vec<String> {
    let line = |heard: &crate::testing::Heard| {
        let told = &heard.notification;
        format!("{} {}", told.created_at.strftime("%H:%M:%S"), told.reason)
    };
    world.heard.iter().map(line).collect()
}

fn states(world: &World) -> Vec<String> {
    world.core.silences(world.now).into_iter().map(|silence| silence.state).collect()
}

#[test]
fn a_silence_that_starts_later_suppresses_from_then_on() {
    let mut world = World::new(CONFIG, 1);
    let starts_at = Some(later(world.now, 5 * MINUTE));
    silence(&mut world, &ctl::NewSilence { starts_at, ..ask("host=web1", 10) }).unwrap();
    assert_eq!(states(&world), ["pending"]);
    world.report("web1", "disk", 'C');
    pass(&mut world, 6);
    assert_eq!(states(&world), ["active"]);
    world.report("web1", "swap", 'C');
    pass(&mut world, 12);
    assert_eq!(told(&world), ["01:46:40 first_notification", "02:01:40 silence_ended"]);
    assert_eq!(states(&world), [""; 0]);
}

#[test]
fn a_recurring_silence_suppresses_only_in_its_period_even_after_a_restart() {
    let mut world = World::new(CONFIG, 1);
    let period = Some("quiet".into());
    silence(&mut world, &ctl::NewSilence { period, ..ask("host=web1", 60) }).unwrap();
    assert_eq!(states(&world), ["waiting"]);
    pass(&mut world, 4);
    assert_eq!(states(&world), ["active"]);
    world.report("web1", "disk", 'C');
    pass(&mut world, 1);
    world.restart();
    pass(&mut world, 5);
    world.report("web1", "disk", 'O');
    pass(&mut world, 10);
    world.report("web1", "disk", 'C');
    pass(&mut world, 8);
    assert_eq!(told(&world), ["01:55:00 silence_ended", "01:56:40 all_resolved", "02:10:00 silence_ended"]);
}

#[test]
fn receivers_are_reminded_before_a_silence_ends_and_notified_once_of_what_remains() {
    let mut world = World::new(CONFIG, 1);
    world.report("web1", "disk", 'W');
    pass(&mut world, 1);
    silence(&mut world, &ask("host=web1", 60)).unwrap();
    pass(&mut world, 44);
    assert_eq!(world.heard.len(), 1);
    pass(&mut world, 2);
    let reminder = &world.heard[1].notification;
    let note = "silence 1 of eva ends at 2001-09-09 02:47 UTC";
    assert_eq!((reminder.reason.as_str(), reminder.note.as_deref()), ("silence_ending", Some(note)));
    assert_eq!(reminder.firing.len(), 1);
    world.restart();
    pass(&mut world, 5);
    assert_eq!(world.heard.len(), 2, "once, even after a restart");

    let ask = ctl::ExtendSilence { duration_s: 3_600, ..ctl::ExtendSilence::default() };
    world.core.on_silence_extend(1, &ask, "ben", world.now).unwrap();
    pass(&mut world, 44);
    assert_eq!(world.heard.len(), 2);
    world.report("web1", "disk", 'C');
    pass(&mut world, 17);
    let reasons: Vec<_> = world.heard[2..].iter().map(|heard| heard.notification.reason.as_str()).collect();
    assert_eq!(reasons, ["silence_ending"]);
    assert_eq!(
        world.heard[2].notification.firing[0].state,
        dogwatch_wire::State::Critical,
        "so its end changes nothing"
    );
}

#[test]
fn a_silence_that_suppresses_nothing_causes_no_reminder() {
    let mut world = World::new(CONFIG, 1);
    world.report("web1", "disk", 'C');
    pass(&mut world, 1);
    silence(&mut world, &ask("host=web1", 60)).unwrap();
    world.report("web1", "disk", 'O');
    pass(&mut world, 70);
    assert_eq!(told(&world), ["01:46:40 first_notification", "01:47:40 all_resolved"]);
}

#[test]
fn a_preview_shows_what_it_would_suppress_and_a_broad_one_needs_confirmation() {
    let mut world = World::new(CONFIG, 1);
    for host in 1..=12 {
        world.report(&format!("web{host}"), "disk", 'C');
    }
    world.report("db1", "disk", 'C');
    world.agents_send(None);
    let preview = ctl::NewSilence { dry_run: true, ..ask("host=~web1.*", 60) };
    let shown = silence(&mut world, &preview).unwrap();
    assert_eq!((shown.number, shown.matches, shown.hosts, shown.broad), (0, 4, 4, None));
    assert_eq!(shown.alerts[0], "CRITICAL web1/disk: disk is C");
    assert_eq!(states(&world), [""; 0]);

    for matcher in ["host=~web.*", "service=disk", "host=~.*"] {
        let refused = silence(&mut world, &ask(matcher, 60)).unwrap_err().to_string();
        assert!(refused.starts_with("it would silence") && refused.contains("--broad"), "{refused}");
    }
    let meant = ctl::NewSilence { broad: true, ..ask("host=~web.*", 60) };
    assert_eq!(silence(&mut world, &meant).unwrap().hosts, 12);
    let everything = ctl::NewSilence { matchers: vec![], broad: true, ..ask("", 60) };
    assert_eq!(silence(&mut world, &everything).unwrap().matches, 13);
}

#[test]
fn invalid_requests_are_refused_with_a_reason() {
    let mut world = World::new(CONFIG, 1);
    let past = Some(Timestamp::from_second(999_999_999).unwrap());
    for (asked, words) in [
        (ask("host=web1", 0), "after the start"),
        (ctl::NewSilence { ends_at: past, ..ask("host=web1", 5) }, "after the start"),
        (ask("host=web1", 366 * 24 * 60 + 1), "within a year"),
        (ctl::NewSilence { period: Some("nights".into()), ..ask("host=web1", 5) }, "periods: quiet"),
        (ask("host", 5), "is not a matcher"),
    ] {
        let refused = silence(&mut world, &asked).unwrap_err().to_string();
        assert!(refused.contains(words), "{asked:?}: {refused}");
    }
    let extend = world.core.on_silence_extend(7, &ctl::ExtendSilence::default(), "eva", world.now);
    assert_eq!(extend, Err(Refused::NoSilence(7)));
}
