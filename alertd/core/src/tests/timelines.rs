//! Each rule as an example incident. [`play`] explains the notation.

use std::time::Duration;

use dogwatch_wire::{Batch, HostChange, PROTOCOL_PARTS, ServiceState, State, StatesPart};

use super::play::play;
use crate::{
    Refused,
    rules::{
        notification::{Kind, NotifiedAlert},
        sender::Sender,
    },
    testing::World,
};

const MINUTE: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);

/// Email immediately, the pager after five minutes; grouped by host; no waiting.
const TWO_STEPS: &str = r#"
    [[route]]
    policy = "two"
    group_wait = "0s"
    group_interval = "3m"
    repeat_interval = "1d"
    [policy.two]
    step = [{ notify = ["mail"] }, { after = "5m", notify = ["pager"] }]
    [receiver.mail.maildir]
    path = "/m"
    [receiver.pager.maildir]
    path = "/p"
"#;

const ONE_STEP: &str = r#"
    [[route]]
    receiver = "mail"
    group_wait = "0s"
    group_interval = "3m"
    repeat_interval = "10m"
    [receiver.mail.maildir]
    path = "/m"
"#;

#[test]
fn a_problem_and_its_recovery_are_each_notified_once() {
    let disk = ". C . . . . O . .";
    let mail = ". P . . . . R . .";
    play(ONE_STEP, MINUTE, &[("web1/disk", disk)], &[("mail", mail)]);
}

#[test]
fn the_policy_continues_until_an_ack_and_the_recovery_reaches_exactly_those_notified() {
    let disk = "C . . . . . . O";
    let mail = "P . . . . . . R";
    let page = ". . . . . P . R";
    play(TWO_STEPS, MINUTE, &[("web1/disk", disk)], &[("mail", mail), ("pager", page)]);

    let disk = "C . . . . . . O";
    let acks = ". . n . . . . .";
    let mail = "P . A . . . . R";
    let page = ". . . . . . . .";
    play(TWO_STEPS, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("mail", mail), ("pager", page)]);
}

#[test]
fn a_policy_repeats_as_often_as_configured() {
    let repeating = TWO_STEPS.replace("[policy.two]", "[policy.two]\nrepeat = 1\nrepeat_every = \"8m\"");
    let disk = "C . . . . . . . . . . . . . . . . . . . O";
    let mail = "P . . . . . . . M . . . . . . . . . . . R";
    let page = ". . . . . P . . . . . . . M . . . . . . R";
    play(&repeating, MINUTE, &[("web1/disk", disk)], &[("mail", mail), ("pager", page)]);
}

#[test]
fn a_page_lists_other_recent_changes_on_its_host() {
    let config = ONE_STEP.replacen("[[route]]", "[[route]]\n    group_by = [\"host\", \"service\"]", 1);
    let load = "C O . . . . .";
    let ntp = ". . W . . . .";
    let disk = ". . . . C . .";
    let other = ". . . C . . .";
    let mail = "P R P P P . .";
    let inputs = [("web1/load", load), ("web1/ntp", ntp), ("web1/disk", disk), ("web2/disk", other)];
    let mut world = play(&config, MINUTE, &inputs, &[("mail", mail)]);
    let said = |world: &World| -> Vec<String> {
        let heard = world.heard.last().unwrap();
        let lately = heard.notification.lately.iter();
        lately.map(|one| format!("{} {}", one.service.as_deref().unwrap_or("host"), one.what)).collect()
    };
    assert_eq!(said(&world), ["ntp WARNING", "load OK", "load CRITICAL"]);
    // It survives a restart, and a change from an hour ago is not new.
    world.restart();
    let wait = |world: &mut World, minutes: u32| {
        for _ in 0..minutes {
            world.pass(MINUTE);
            world.agents_send(None);
        }
    };
    wait(&mut world, 30);
    world.report("web1", "swap", 'C');
    world.agents_send(None);
    assert_eq!(said(&world), ["disk CRITICAL", "ntp WARNING", "load OK"]);
    let what = "1 package upgraded: exim4".into();
    world.hosts.get_mut("web1").unwrap().changes = vec![HostChange { at: world.now, what }];
    wait(&mut world, 61);
    world.report("web1", "mail", 'C');
    world.agents_send(None);
    assert_eq!(said(&world), ["host 1 package upgraded: exim4"]);
    wait(&mut world, 24 * 60);
    world.report("web1", "clock", 'C');
    world.agents_send(None);
    assert_eq!(said(&world), Vec::<String>::new());
}

#[test]
fn alerts_within_group_wait_are_one_notification() {
    let waiting = ONE_STEP.replace("group_wait = \"0s\"", "group_wait = \"2s\"");
    let disk = "C . . . . O .";
    let swap = ". W . . O . .";
    let mail = ". . P . . R .";
    let inputs = [("web1/disk", disk), ("web1/swap", swap)];
    let world = play(&waiting, SECOND, &inputs, &[("mail", mail)]);
    assert_eq!(world.heard[0].notification.firing.len(), 2);
}

#[test]
fn changes_in_a_group_wait_for_group_interval_but_worse_states_do_not() {
    let disk = "W . . . . . C . . . O";
    let swap = ". W . . . . . . . O .";
    let mail = "P . . U . . U . . U R";
    let world = play(ONE_STEP, MINUTE, &[("web1/disk", disk), ("web1/swap", swap)], &[("mail", mail)]);
    let reasons: Vec<_> = world.heard.iter().map(|heard| heard.notification.reason.as_str()).collect();
    assert_eq!(reasons, ["first_notification", "new_alerts", "worsened", "some_resolved", "all_resolved"]);
}

#[test]
fn a_second_full_filesystem_is_news_and_stays_when_the_first_is_emptied() {
    let first = "C . . . . . . O . . . .";
    let other = ". . C . . . . . . . . O";
    let mail = "P . . U . . . U . . . R";
    let inputs = [("web1/disk /var", first), ("web1/disk /srv", other)];
    let world = play(ONE_STEP, MINUTE, &inputs[..], &[("mail", mail)]);
    let told = |at: usize| {
        let told = &world.heard[at].notification;
        let names = |alerts: &[NotifiedAlert]| -> Vec<String> {
            alerts.iter().map(|alert| alert.labels["service"].clone()).collect()
        };
        (names(&told.firing), names(&told.resolved))
    };
    let joined = &world.heard[1].notification.firing;
    let joined: Vec<_> =
        joined.iter().filter(|alert| alert.joined).map(|alert| &alert.labels["service"]).collect();
    assert_eq!(joined, ["disk /srv"]);
    assert_eq!(told(2), (vec!["disk /srv".into()], vec!["disk /var".into()]), "one is left, and which");
    assert_eq!(told(3).1, ["disk /srv"]);
}

#[test]
fn what_alertctl_shows_is_what_is_full_now() {
    let mut world = World::new(ONE_STEP, 1);
    for (service, letter) in [("disk /var", 'C'), ("disk /srv", 'W'), ("disk /var", 'O')] {
        world.report("web1", service, letter);
        world.agents_send(None);
        world.pass(MINUTE);
    }
    let open = world.open_incidents();
    let firing = open[0].alerts.iter().filter(|alert| alert.resolved_at.is_none());
    let firing: Vec<_> = firing.map(|alert| alert.labels["service"].as_str()).collect();
    assert_eq!((open.len(), firing), (1, vec!["disk /srv"]));
    assert_eq!(open[0].state, State::Warning);
}

#[test]
fn a_reminder_is_sent_after_repeat_interval_but_not_while_acked() {
    let disk = "C . . . . . . . . . . . . . . . . . . . . . O";
    let acks = ". . . . . . . . . . . . s . . . . . . . . . .";
    let mail = "P . . . . . . . . . M . A . . . . . . . . . R";
    play(ONE_STEP, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("mail", mail)]);
}

#[test]
fn a_normal_ack_ends_with_any_state_change_and_the_policy_starts_again() {
    let disk = "W . . C . . . . . . O";
    let acks = ". n . . . . . . . . .";
    let mail = "P A . U . . . . . . R";
    let page = ". . . . . . . . P . R";
    play(TWO_STEPS, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("mail", mail), ("pager", page)]);
}

#[test]
fn an_ack_notification_names_the_alerts_its_receiver_knows() {
    let disk = "C . . O .";
    let acks = ". n . . .";
    let mail = "P A . R .";
    let world = play(ONE_STEP, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("mail", mail)]);
    let said = &world.heard[1].notification;
    assert_eq!((said.firing[0].labels["service"].as_str(), said.resolved.len()), ("disk", 0));
}

#[test]
fn an_email_link_acknowledges_once_even_after_a_restart() {
    let mut world = World::new(ONE_STEP, 1);
    world.report("web1", "disk", 'C');
    world.agents_send(None);
    let number = world.open_incidents()[0].number;
    assert!(world.core.link(number, "n1", world.now).unwrap().ack.is_none());
    let acked = world.core.on_ack_by_link(number, "n1", "ada@example.org (email link)", world.now).unwrap();
    assert_eq!(acked.ack.unwrap().author, "ada@example.org (email link)");
    world.turn(None);
    world.restart();
    let again = world.core.on_ack_by_link(number, "n1", "ada@example.org (email link)", world.now);
    assert_eq!(again, Err(Refused::LinkUsed(number)));
    assert_eq!(world.core.link(number, "n1", world.now), Err(Refused::LinkUsed(number)));
    // The link in another email works; no link works after the recovery.
    assert!(world.core.on_ack_by_link(number, "n2", "bob", world.now).is_ok());
    world.report("web1", "disk", 'O');
    world.agents_send(None);
    assert_eq!(world.core.on_ack_by_link(number, "n3", "bob", world.now), Err(Refused::NoIncident(number)));
}

#[test]
fn a_sticky_ack_lasts_until_all_is_ok() {
    let disk = "W . . C . . W . . . O . C";
    let acks = ". s . . . . . . . . . . .";
    let mail = "P A . . . . . . . . R . P";
    let page = ". . . . . . . . . . . . .";
    play(TWO_STEPS, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("mail", mail), ("pager", page)]);
}

#[test]
fn an_expired_ack_notifies_people_again() {
    let disk = "C . . . . . . . . . . . O";
    let acks = ". e3 . . . . . . . . . . .";
    let mail = "P A . . M . . . . . . . R";
    let page = ". . . . . . . . . P . . R";
    let world =
        play(TWO_STEPS, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("mail", mail), ("pager", page)]);
    assert_eq!(world.heard[2].notification.reason, "ack_expired");
}

#[test]
fn before_an_ack_by_an_unknown_author_ends_receivers_are_reminded_once_and_a_short_ack_just_ends() {
    let disk = "C . . . . . . . . . . . . . . . . . . . . . . . . . O";
    let acks = ". e20 . . . . . . . . . . . . . . . . . . . . . . . .";
    let mail = "P A . . . . . . . . . M . . . . . . . . . M . . . . R";
    let inputs = [("web1/disk", disk), ("ack", acks)];
    play(TWO_STEPS, MINUTE, &inputs, &[("mail", mail)]);
    let acks = ". e19 . . . . . . . . . . . . . . . . . . . . . . . .";
    let mail = "P A . . . . . . . . . . . . . . . . . . M . . . . . R";
    play(TWO_STEPS, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("mail", mail)]);
}

#[test]
fn removing_an_ack_starts_the_policy_again() {
    let disk = "C . . . . . . . . O";
    let acks = ". n . u . . . . . .";
    let mail = "P A . M . . . . . R";
    let page = ". . . . . . . . P R";
    play(TWO_STEPS, MINUTE, &[("web1/disk", disk), ("ack", acks)], &[("mail", mail), ("pager", page)]);
}

#[test]
fn an_ack_remains_when_one_of_several_problems_ends() {
    let disk = "C . . . . . . . O";
    let swap = "W . . O . . . . .";
    let acks = ". n . . . . . . .";
    let mail = "P A . . . . . . R";
    let inputs = [("web1/disk", disk), ("web1/swap", swap), ("ack", acks)];
    play(TWO_STEPS, MINUTE, &inputs, &[("mail", mail), ("pager", ". . . . . . . . .")]);
}

#[test]
fn a_silence_suppresses_a_problem_and_its_end_notifies_what_remains() {
    let disk = ". C . . . . . . . .";
    let mute = "( . . . ) . . . . .";
    let mail = ". . . . P . . . . .";
    let page = ". . . . . . . . . P";
    let inputs = [("silence host=web1", mute), ("web1/disk", disk)];
    let world = play(TWO_STEPS, MINUTE, &inputs, &[("mail", mail), ("pager", page)]);
    assert_eq!(world.heard[0].notification.reason, "silence_ended");
}

#[test]
fn a_problem_that_starts_and_ends_during_a_silence_is_not_notified() {
    let disk = ". C . O . . C .";
    let mute = "( . . . ) . . .";
    let mail = ". . . . . . P .";
    play(ONE_STEP, MINUTE, &[("silence host=web1", mute), ("web1/disk", disk)], &[("mail", mail)]);
}

#[test]
fn a_recovery_reaches_those_notified_even_if_silenced_or_acked() {
    let disk = "C . . O . .";
    let mute = ". ( . . . )";
    let mail = "P . . R . .";
    play(ONE_STEP, MINUTE, &[("web1/disk", disk), ("silence host=web1", mute)], &[("mail", mail)]);
}

#[test]
fn a_recovery_is_notified_even_if_a_silenced_alert_keeps_the_incident_open() {
    let disk = "C . . O . . . . .";
    let swap = ". . W . . . . O .";
    let mute = ". ( . . . . . . .";
    let mail = "P . . R . . . . .";
    let inputs = [("web1/disk", disk), ("silence service=swap", mute), ("web1/swap", swap)];
    play(ONE_STEP, MINUTE, &inputs, &[("mail", mail)]);
}

#[test]
fn the_policys_clock_stands_still_while_silenced() {
    let disk = "C . . . . . . . . . . .";
    let mute = ". . ( . . . ) . . . . .";
    let mail = "P . . . . . . . . . . .";
    let page = ". . . . . . . . . P . .";
    let inputs = [("web1/disk", disk), ("silence host=web1", mute)];
    play(TWO_STEPS, MINUTE, &inputs, &[("mail", mail), ("pager", page)]);
}

#[test]
fn a_recovery_reaches_those_notified_even_if_routes_changed_since() {
    let mut world = World::new(ONE_STEP, 1);
    world.report("web1", "disk", 'C');
    world.agents_send(None);
    world.reload(
        &ONE_STEP
            .replace("\"mail\"", "\"other\"")
            .replace("[receiver.mail", "[receiver.other.maildir]\npath = \"/o\"\n[receiver.mail"),
    );
    world.pass(MINUTE);
    world.report("web1", "disk", 'O');
    world.report("web2", "disk", 'C');
    world.agents_send(None);
    let heard: Vec<_> = world
        .heard
        .iter()
        .map(|heard| (heard.notification.receiver.as_str(), heard.notification.kind))
        .collect();
    assert_eq!(heard, [("mail", Kind::Problem), ("mail", Kind::Recovery), ("other", Kind::Problem)]);
}

#[test]
fn a_service_no_longer_watched_ends_without_claiming_a_recovery() {
    let disk = "C . X .";
    let mail = "P . R .";
    let world = play(ONE_STEP, MINUTE, &[("web1/disk", disk)], &[("mail", mail)]);
    let recovery = &world.heard[1].notification;
    assert_eq!(recovery.reason, "removed");
    assert_eq!(recovery.resolved[0].state, State::Critical);
}

#[test]
fn a_route_with_continue_opens_a_second_incident() {
    let config = ONE_STEP.to_owned()
        + "[receiver.audit.maildir]\npath = \"/a\"\n[[route]]\nreceiver = \"never\"\n[receiver.never.maildir]\npath = \"/n\"\n";
    let config = config.replacen(
        "[[route]]",
        "[[route]]\nmatch = [\"service=disk\"]\ncontinue = true\ngroup_wait = \"0s\"\nreceiver = \"audit\"\n[[route]]",
        1,
    );
    let disk = "C . . O .";
    let swap = "C . . . O";
    let mail = "P . . U R"; // group_interval ends at that moment
    let audit = "P . . R .";
    let inputs = [("web1/disk", disk), ("web1/swap", swap)];
    let never = ". . . . .";
    play(&config, MINUTE, &inputs, &[("mail", mail), ("audit", audit), ("never", never)]);
}

#[test]
fn a_flapping_service_is_notified_as_flapping() {
    let disk = "C . F f F f . O";
    let mail = "P . . U . . . R"; // less severe than CRITICAL, so it waits for group_interval
    play(ONE_STEP, MINUTE, &[("web1/disk", disk)], &[("mail", mail)]);
}

#[test]
fn a_silent_agent_is_an_alert_and_its_return_the_recovery() {
    let disk = ". . . . . . . .";
    let web1 = "h q . . . . h .";
    let mail = ". . P . . . R .";
    let world = play(ONE_STEP, MINUTE, &[("web1/disk", disk), ("host web1", web1)], &[("mail", mail)]);
    let alert = &world.heard[0].notification.firing[0];
    assert_eq!((alert.labels["host"].as_str(), alert.labels["service"].as_str()), ("web1", "agent"));
    assert_eq!(alert.summary, "no heartbeat from the agent on web1 for 125s");
}

#[test]
fn a_rejecting_receiver_brings_the_next_step_at_once_and_another_is_notified_that_it_fails() {
    let disk = "C . . . . . O .";
    let mood = "r . . . . . . .";
    let mail = ". . . . . . . .";
    let page = "PP . . . . M R ."; // the disk, and the failing email receiver
    let inputs = [("receiver mail", mood), ("web1/disk", disk)];
    let world = play(TWO_STEPS, MINUTE, &inputs, &[("mail", mail), ("pager", page)]);
    let reasons: Vec<_> = world.attempted.iter().map(|n| (n.receiver.as_str(), n.reason.as_str())).collect();
    assert_eq!(reasons[0], ("mail", "first_notification"));
    assert!(reasons.contains(&("pager", "delivery_failed")), "{reasons:?}");
    let open = world.open_incidents();
    assert_eq!(open[0].alerts[0].labels["receiver"], "mail");
}

#[test]
fn a_fallback_takes_over_from_a_rejecting_receiver_and_gets_the_recovery() {
    let config = ONE_STEP.replace("[receiver.mail.", "[receiver.mail]\nfallback = \"desk\"\n[receiver.mail.")
        + "[receiver.desk.maildir]\npath = \"/d\"\n";
    let disk = "C . . . . O .";
    let mood = "r . . . . . .";
    let heard = "PP . . . . R .";
    play(
        &config,
        MINUTE,
        &[("receiver mail", mood), ("web1/disk", disk)],
        &[("mail", ". . . . . . ."), ("desk", heard)],
    );
}

#[test]
fn a_busy_receiver_is_retried_and_the_policy_does_not_wait_forever() {
    let disk = "C . . . . . . . . . . O . . .";
    let mood = "b . . . . . . w . . . . . . .";
    let world = play(TWO_STEPS, MINUTE, &[("receiver mail", mood), ("web1/disk", disk)], &[]);
    let paged = world.heard.iter().find(|heard| heard.notification.receiver == "pager").unwrap();
    assert_eq!(paged.notification.reason, "delivery_failed");
    let mails: Vec<_> = world.heard.iter().filter(|heard| heard.notification.receiver == "mail").collect();
    assert_eq!(mails[0].notification.kind, Kind::Problem);
    assert_eq!(mails.last().unwrap().notification.kind, Kind::Recovery);
    let ids: std::collections::BTreeSet<_> = world
        .attempted
        .iter()
        .filter(|n| n.receiver == "mail" && n.kind == Kind::Problem)
        .map(|n| &n.id)
        .collect();
    assert_eq!(ids.len(), 1, "every attempt has the same text and id");
}

#[test]
fn in_a_storm_the_first_alerts_go_at_once_and_the_rest_in_a_digest() {
    let config = ONE_STEP
        .replace("[receiver.mail.", "[receiver.mail]\nrate = { burst = 2, every = \"1m\" }\n[receiver.mail.");
    let mut world = World::new(&config, 1);
    for host in 0..50 {
        world.report(&format!("web{host:02}"), "disk", 'C');
    }
    world.agents_send(None);
    assert_eq!(world.heard.len(), 2);
    world.pass(MINUTE);
    assert_eq!(world.heard.len(), 3);
    let digest = &world.heard[2].notification;
    assert_eq!((digest.kind, digest.digest.len()), (Kind::Digest, 48));
    assert_eq!(digest.digest[0].title, "CRITICAL web02/disk: disk is C");

    // Problems in the digest count as notified: their recoveries are sent, within the limits.
    for host in 0..50 {
        world.report(&format!("web{host:02}"), "disk", 'O');
    }
    world.agents_send(None);
    world.pass(10 * MINUTE);
    let recoveries: usize = world.heard[3..]
        .iter()
        .map(|heard| match heard.notification.kind {
            Kind::Recovery => 1,
            Kind::Digest => {
                heard.notification.digest.iter().filter(|line| line.kind == Kind::Recovery).count()
            }
            _ => 0,
        })
        .sum();
    assert_eq!(recoveries, 50);
    assert!(world.heard.len() <= 6, "{}", world.heard.len());
    assert_eq!(world.core.outbox_status().queued, 0);
}

#[test]
fn a_restart_repeats_no_notification_and_continues_every_timer() {
    let disk = "C . . . . . . . . . . . . O";
    let kill = ". ! . ! . . ! . . . ! . ! .";
    let mail = "P . . . . . . . . . . . . R";
    let page = ". . . . . P . . . . . . . R";
    let inputs = [("process", kill), ("web1/disk", disk)];
    play(TWO_STEPS, MINUTE, &inputs, &[("mail", mail), ("pager", page)]);
}

#[test]
fn acks_and_silences_survive_a_restart() {
    let disk = "C . . . . . . . . O";
    let acks = ". s . . . . . . . .";
    let kill = ". . ! . . . ! . . .";
    let swap = ". . . C . . . . . O";
    let mute = "( . . . . . . . . .";
    let mail = "P A . . . . . . . R";
    let inputs = [
        ("silence service=swap", mute),
        ("process", kill),
        ("web1/disk", disk),
        ("web2/swap", swap),
        ("ack", acks),
    ];
    play(TWO_STEPS, MINUTE, &inputs, &[("mail", mail), ("pager", ". . . . . . . . . .")]);
}

#[test]
fn a_running_escalation_keeps_its_policy_through_a_reload() {
    let mut world = World::new(TWO_STEPS, 1);
    world.report("web1", "disk", 'C');
    world.agents_send(None);
    world.pass(MINUTE);
    world.reload(&TWO_STEPS.replace("after = \"5m\"", "after = \"1h\""));
    world.pass(6 * MINUTE);
    assert_eq!(world.heard.last().unwrap().notification.receiver, "pager");
}

#[test]
fn an_alertd_that_lost_its_store_recovers_from_the_next_heartbeats() {
    let mut world = World::new(ONE_STEP, 1);
    world.report("web1", "disk", 'C');
    world.agents_send(None);
    world.store = crate::testing::Memory::default();
    world.restart();
    world.agents_send(None); // differs: asks for the states
    world.agents_send(None); // gets them
    assert_eq!(world.open_incidents()[0].alerts[0].labels["service"], "disk");
}

#[test]
fn states_that_come_in_parts_replace_only_what_is_in_the_part() {
    let mut world = World::new(ONE_STEP, 1);
    for service in ["a", "m", "z"] {
        world.report("h", service, 'C');
    }
    assert!(world.agents_send(None));
    let still_critical = world.hosts["h"].states["a"].clone();
    let mut report = |states: Vec<ServiceState>, after: &str, through: Option<&str>| {
        let part = StatesPart { after: after.into(), through: through.map(str::to_owned) };
        let batch = Batch {
            protocol: PROTOCOL_PARTS,
            agent: "id-h".into(),
            host: "h".into(),
            epoch: "e1".into(),
            sent_at: world.now,
            events: Vec::new(),
            heartbeat: None,
            states: Some(states),
            states_part: Some(part),
            boot: String::new(),
            run: String::new(),
        };
        let reply = world.core.on_batch(&batch, &Sender::default(), world.now).unwrap();
        assert!(!reply.want_states);
        let firing = world.core.alerts.of_agent("id-h").filter(|(_, alert)| alert.resolved_at.is_none());
        firing.map(|(key, _)| key.service.clone()).collect::<Vec<_>>()
    };
    assert_eq!(report(vec![still_critical.clone()], "", Some("m")), ["a", "z"], "m is gone");
    assert_eq!(report(vec![], "m", None), ["a"], "so is z");
    assert_eq!(report(vec![still_critical], "", Some("b")), ["a"], "the same part twice");
}
