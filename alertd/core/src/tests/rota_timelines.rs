//! On-call timelines: who is notified when, and by whose rules. The world starts on Sunday, 9
//! September 2001 at 01:46:40 UTC.

use std::time::Duration;

use dogwatch_wire::ctl;

use super::play::play;
use crate::testing::World;

const MINUTE: Duration = Duration::from_mins(1);

/// Sundays: ann until 02:00, ben until 04:00, then nobody until the next day.
const ROTA: &str = r#"
    [alertd]
    catch_all = "desk"
    [[route]]
    policy = "rota"
    group_wait = "0s"
    repeat_interval = "1d"
    [policy.rota]
    step = [{ notify = ["primary"] }, { after = "20m", notify = ["boss"] }]
    [schedule.primary]
    time_zone = "UTC"
    [[schedule.primary.layer]]
    users = ["ann"]
    hours = ["00:00-02:00"]
    [[schedule.primary.layer]]
    users = ["ben"]
    hours = ["02:00-04:00"]
    [user.ann]
    rules = [{ notify = ["ann-mail"] }, { after = "3m", notify = ["ann-pager"] }]
    critical = [{ notify = ["ann-pager"] }]
    [user.ben]
    rules = [{ notify = ["ben-mail"] }]
    [user.boss]
    rules = [{ notify = ["chat"] }]
    [receiver.ann-mail.maildir]
    path = "/1"
    [receiver.ann-pager.maildir]
    path = "/2"
    [receiver.ben-mail.maildir]
    path = "/3"
    [receiver.chat.maildir]
    path = "/4"
    [receiver.desk.maildir]
    path = "/5"
"#;

#[test]
fn whoever_is_on_call_is_notified_by_their_own_rules_until_someone_acks() {
    let disk = "W . . . . . . O";
    let mail = "P . . . . . . R";
    let page = ". . . P . . . R";
    let world = play(
        ROTA,
        MINUTE,
        &[("web1/disk", disk)],
        &[("ann-mail", mail), ("ann-pager", page), ("chat", ". . . . . . . .")],
    );
    let reasons: Vec<_> = world.attempted.iter().map(|n| n.reason.as_str()).collect();
    assert_eq!(reasons[..2], ["first_notification", "personal_rule"]);

    let disk = "W . . . . . . O";
    let acks = ". n . . . . . .";
    let mail = "P A . . . . . R";
    let page = ". . . . . . . .";
    play(ROTA, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("ann-mail", mail), ("ann-pager", page)]);
}

#[test]
fn critical_rules_apply_at_once_or_when_the_alert_becomes_critical() {
    let disk = "C . . . . . O";
    let mail = ". . . . . . .";
    let page = "P . . . . . R";
    play(ROTA, MINUTE, &[("web1/disk", disk)], &[("ann-mail", mail), ("ann-pager", page)]);

    let disk = "W . C . . . O";
    let mail = "P . U . . . R";
    let page = ". . P . . . R";
    play(ROTA, MINUTE, &[("web1/disk", disk)], &[("ann-mail", mail), ("ann-pager", page)]);
}

#[test]
fn who_is_on_call_is_asked_when_the_step_runs_and_the_policy_goes_on_beside() {
    // 02:00 is in the seventh cell, so the problem in the eighth goes to ben.
    let swap = "W . . O . . . . . . . . . . . . . . . . O";
    let disk = ". . . . . . . W . . . . . . . . . . . . O";
    let mail = "P . . R . . . . . . . . . . . . . . . . .";
    let page = ". P . R . . . . . . . . . . . . . . . . .";
    let ben_ = ". . . . . . . P . . . . . . . . . . . . R";
    let boss = ". . . . . . . . . . . . . . . . . P . . R";
    play(
        ROTA,
        2 * MINUTE,
        &[("web1/swap", swap), ("web1/disk", disk)],
        &[("ann-mail", mail), ("ann-pager", page), ("ben-mail", ben_), ("chat", boss)],
    );
}

#[test]
fn a_users_rules_wait_while_silenced_or_acked_and_continue_afterwards() {
    let disk = "W . . . . . . . O";
    let mute = ". ( . . . ) . . .";
    let mail = "P . . . . . . . R";
    let page = ". . . . . . . P R";
    let inputs = [("silence host=web1", mute), ("web1/disk", disk)];
    play(ROTA, MINUTE, &inputs, &[("ann-mail", mail), ("ann-pager", page)]);

    let disk = "W . . . . . . . . O";
    let acks = ". n . u . . . . . .";
    let mail = "P A . M . . . . . R";
    let page = ". . . . . . P . . R";
    play(ROTA, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("ann-mail", mail), ("ann-pager", page)]);
}

#[test]
fn before_an_ack_ends_only_its_author_is_reminded() {
    let eva = ROTA.to_owned()
        + "[user.eva]\nrules = [{ notify = [\"eva-mail\"] }, { after = \"1m\", notify = [\"chat\"] }]\n[receiver.eva-mail.maildir]\npath = \"/6\"\n";
    let disk = "W . . . . . . . . . . . . . . . . . . . . . . . . . O";
    let acks = ". e20 . . . . . . . . . . . . . . . . . . . . . . . .";
    let kill = ". . . . ! . . . . . . ! . . . . . . . . . . . . . . .";
    let mail = "P A . . . . . . . . . . . . . . . . . . . . . . . . R";
    let eva_ = ". . . . . . . . . . . M . . . . . . . . . . . . . . R";
    let chat = ". . . . . . . . . . . . . . . . . . . . . . . . . . .";
    // The ack ends after 02:00, when ben is on call.
    let ben_ = ". . . . . . . . . . . . . . . . . . . . . P . . . . R";
    let inputs = [("process", kill), ("web1/disk", disk), ("ack", acks)];
    let heard = [("ann-mail", mail), ("eva-mail", eva_), ("chat", chat), ("ben-mail", ben_)];
    let world = play(&eva, MINUTE, &inputs, &heard);
    let said = world.heard.iter().find(|heard| heard.notification.reason == "ack_ending").unwrap();
    assert_eq!(said.notification.note.as_deref(), Some("the ack of eva ends at 2001-09-09 02:07 UTC"));
}

#[test]
fn a_restart_neither_repeats_nor_forgets_a_rule() {
    let disk = "W . . . . . . O";
    let kill = ". ! . . ! . ! .";
    let mail = "P . . . . . . R";
    let page = ". . . P . . . R";
    play(ROTA, MINUTE, &[("process", kill), ("web1/disk", disk)], &[("ann-mail", mail), ("ann-pager", page)]);
}

#[test]
fn a_failing_contact_brings_the_next_rule_forward() {
    let disk = "W . . . O";
    let mood = "r . . . .";
    let mail = ". . . . .";
    let inputs = [("receiver ann-mail", mood), ("web1/disk", disk)];
    let world = play(ROTA, MINUTE, &inputs, &[("ann-mail", mail), ("chat", ". . . . .")]);
    // ann is also notified that her email receiver fails, which is CRITICAL and goes first.
    let mut to_pager = world.heard.iter().filter(|heard| heard.notification.receiver == "ann-pager");
    let paged = to_pager.find(|heard| heard.notification.firing[0].labels["host"] == "web1").unwrap();
    assert_eq!(paged.notification.reason, "delivery_failed");
    assert_eq!(paged.notification.created_at, world.heard[0].notification.created_at, "immediately");
}

#[test]
fn with_nobody_on_call_the_catch_all_is_notified_an_alert_fires_and_the_next_on_call_takes_over() {
    let mut world = World::new(ROTA, 1);
    world.pass(Duration::from_hours(3)); // 04:46: nobody
    world.report("web1", "disk", 'W');
    world.agents_send(None);
    let heard = said(&world);
    assert!(heard.contains(&("desk", "web1/disk")), "{heard:?}");
    let own = world.open_incidents().into_iter().find(|one| one.title.contains("nobody is on call")).unwrap();
    assert_eq!(own.alerts[0].labels["schedule"], "primary");
    assert!(
        heard.iter().any(|(receiver, what)| *receiver == "desk" && what.ends_with("/oncall")),
        "{heard:?}"
    );
    // A restart in between changes nothing. At midnight, ann is on call and notified, and the alert
    // ends.
    world.restart();
    let before = world.heard.len();
    world.report("web1", "swap", 'W'); // counts as a heartbeat of the agent
    for _ in 0..=20 * 60 {
        world.agents_send(None);
        world.pass(MINUTE);
    }
    let heard: Vec<_> = said(&world).split_off(before);
    assert!(heard.contains(&("ann-mail", "web1/disk")), "{heard:?}");
    assert!(!world.open_incidents().iter().any(|one| one.title.contains("nobody is on call")));
}

#[test]
fn an_override_applies_at_once_survives_a_restart_and_can_be_ended() {
    let mut world = World::new(ROTA, 1);
    let ask = |user: &str, hours| ctl::NewOverride {
        schedule: "primary".into(),
        user: user.into(),
        from: None,
        until: crate::rules::moment::later(world.now, Duration::from_hours(hours)),
        comment: String::new(),
    };
    let (ben, nobody, late) = (ask("ben", 2), ask("nobody", 2), ask("ben", 9_000));
    let on_call = |world: &World| {
        let found = world.core.on_call(world.now, world.now);
        found.schedules[0].user.clone().unwrap_or_default()
    };
    assert_eq!(on_call(&world), "ann");
    let made = world.core.on_override(&ben, "eva", world.now).unwrap();
    assert_eq!((made.number, made.author.as_deref()), (Some(1), Some("eva")));
    assert_eq!(on_call(&world), "ben");
    world.turn(None);
    world.restart();
    assert_eq!(on_call(&world), "ben");
    assert_eq!(world.core.overrides(world.now).len(), 1);
    // The later one wins. When it ends, the earlier one applies again.
    let second = world.core.on_override(&nobody, "eva", world.now).unwrap().number.unwrap();
    assert_eq!((second, on_call(&world).as_str()), (2, ""));
    world.core.on_override_end(second, "eva", world.now).unwrap();
    assert_eq!(on_call(&world), "ben");
    world.core.on_override_end(1, "eva", world.now).unwrap();
    assert_eq!(on_call(&world), "ann");
    world.turn(None);
    world.restart();
    assert_eq!(on_call(&world), "ann");

    let unknown = ctl::NewOverride { schedule: "secondary".into(), ..ben.clone() };
    let who = ctl::NewOverride { user: "zoe".into(), ..ben.clone() };
    let past = ctl::NewOverride { until: world.now, ..ben };
    for (ask, words) in
        [(unknown, "primary"), (who, "ann, ben, boss"), (past, "must end in the future"), (late, "a year")]
    {
        let said = world.core.on_override(&ask, "eva", world.now).unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_name_removed_by_a_reload_means_the_catch_all() {
    let mut world = World::new(ROTA, 1);
    world.report("web1", "disk", 'W');
    world.agents_send(None);
    world.reload(&ROTA.replace("[user.boss]", "[user.chief]").replace("\"boss\"", "\"chief\""));
    for _ in 0..25 {
        world.agents_send(None);
        world.pass(MINUTE);
    }
    let heard = said(&world);
    assert_eq!(heard, [("ann-mail", "web1/disk"), ("ann-pager", "web1/disk"), ("desk", "web1/disk")]);
    let last = &world.heard.last().unwrap().notification;
    assert_eq!(last.reason, "no_one_on_call");
}

#[test]
fn coming_gaps_are_reported_once_per_schedule() {
    let mut world = World::new(ROTA, 1);
    world.turn(None);
    let warnings = world.core.status("test", vec![], world.now).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let words =
        "nobody is on call in schedule primary from Sun 09 Sep 04:00 until Mon 10 Sep 00:00 and 6 more times";
    assert!(warnings[0].starts_with(words), "{warnings:?}");
    world.reload(&ROTA.replace("time_zone", "gaps_ok = true\n    time_zone"));
    world.turn(None);
    assert_eq!(world.core.status("test", vec![], world.now).warnings, Vec::<String>::new());
}

#[test]
fn what_comes_next_names_people() {
    let mut world = World::new(ROTA, 1);
    world.report("web1", "disk", 'W');
    world.agents_send(None);
    let next = world.open_incidents()[0].next_step.clone().unwrap();
    assert_eq!((next.step, next.targets), (2, vec!["ann via ann-pager".to_owned()]));
}

/// Receiver and first alert of every notification, in order.
fn said(world: &World) -> Vec<(&str, &'static str)> {
    let said = world.heard.iter().filter_map(|heard| {
        let alert = heard.notification.firing.first().or(heard.notification.resolved.first())?;
        let name = format!("{}/{}", alert.labels["host"], alert.labels["service"]);
        Some((heard.notification.receiver.as_str(), &*name.leak()))
    });
    said.collect()
}
