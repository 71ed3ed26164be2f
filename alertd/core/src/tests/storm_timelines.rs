//! Alert storms: digests, urgent notifications that pass the limits, and a process that crashes
//! again and again without causing a storm.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dogwatch_wire::State;

use crate::{
    rules::{moment::later, notification::Kind, outbox::RowState, storm::Group},
    testing::{Crash, World},
};

const MINUTE: Duration = Duration::from_mins(1);

/// Ten notifications at once, four of them reserved for CRITICAL, then one per minute.
const ONE_MAILBOX: &str = r#"
    [[route]]
    receiver = "mail"
    group_wait = "0s"
    [receiver.mail]
    rate = { burst = 10, every = "1m", reserve = 4 }
    [receiver.mail.maildir]
    path = "/m"
"#;

fn storm(world: &mut World, hosts: std::ops::Range<u32>, letter: char) {
    hosts.for_each(|host| world.report(&format!("web{host:03}"), "disk", letter));
    world.agents_send(None);
}

/// Lets time pass, with heartbeats from all agents.
fn minutes(world: &mut World, n: u32) {
    for _ in 0..n {
        world.pass(MINUTE);
        world.agents_send(None);
    }
}

fn digests(world: &World) -> Vec<Vec<Group>> {
    let digests = world.heard.iter().filter(|heard| heard.notification.kind == Kind::Digest);
    digests.map(|heard| heard.notification.summary.clone().unwrap().groups).collect()
}

#[test]
fn a_storm_is_one_digest_with_all_hosts_and_so_is_its_end() {
    let mut world = World::new(ONE_MAILBOX, 1);
    let began = world.now;
    storm(&mut world, 0..412, 'C');
    assert_eq!(world.heard.len(), 10);
    minutes(&mut world, 1);
    let said = digests(&world);
    assert_eq!((said.len(), said[0].len()), (1, 1));
    let all = &said[0][0];
    assert_eq!((all.state, all.check.as_str(), all.hosts, all.alerts), (State::Critical, "disk", 412, 402));
    assert_eq!(all.since, began);

    storm(&mut world, 0..412, 'O');
    minutes(&mut world, 20);
    let over: u64 = digests(&world)[1..].iter().flatten().map(|group| group.alerts).sum();
    let alone = world.heard.iter().filter(|heard| heard.notification.kind == Kind::Recovery).count();
    assert_eq!(over + u64::try_from(alone).unwrap(), 412);
    assert!(world.heard.len() < 16, "{}", world.heard.len());
    assert_eq!(world.core.outbox_status().queued, 0);
}

/// PagerDuty keeps an incident open until it is resolved with the same key.
#[test]
fn an_entry_opened_at_the_receiver_is_closed_with_the_same_key() {
    let config = ONE_MAILBOX
        .replace("[receiver.mail.maildir]", "[receiver.mail.pagerduty]")
        .replace("path = \"/m\"", "routing_key_file = \"/k\"");
    let mut world = World::new(&config, 1);
    storm(&mut world, 0..50, 'C');
    minutes(&mut world, 1);
    assert_eq!((keys(&world, Kind::Problem).len(), digests(&world).len()), (10, 1));
    // Also if the process crashes in between.
    world.restart();
    storm(&mut world, 0..50, 'O');
    minutes(&mut world, 30);
    assert_eq!(keys(&world, Kind::Recovery), keys(&world, Kind::Problem));
    let over: u64 = digests(&world)[1..].iter().flatten().map(|group| group.alerts).sum();
    assert_eq!(over, 40);
    assert_eq!(world.core.outbox_status().queued, 0);
}

fn keys(world: &World, kind: Kind) -> BTreeSet<String> {
    let said = world.heard.iter().filter(|heard| heard.notification.kind == kind);
    said.map(|heard| heard.notification.dedup_key.clone()).collect()
}

#[test]
fn every_notification_of_a_storm_is_accounted_for() {
    let mut world = World::new(ONE_MAILBOX, 1);
    storm(&mut world, 0..200, 'C');
    // Resolved before anybody could be notified.
    storm(&mut world, 150..160, 'O');
    minutes(&mut world, 5);
    let mut account: BTreeMap<&str, usize> = BTreeMap::new();
    for row in world.store.outbox.values() {
        *account.entry(row.state.name()).or_default() += 1;
        if let RowState::Digested { into } = row.state {
            assert!(world.store.outbox[&into].state.is_taken());
        }
    }
    assert_eq!(account, [("accepted", 11), ("digested", 180), ("superseded", 10)].into());
}

#[test]
fn a_storm_of_warnings_does_not_delay_a_critical_page() {
    let mut world = World::new(ONE_MAILBOX, 1);
    storm(&mut world, 0..300, 'W');
    assert_eq!(world.heard.len(), 6);
    for host in 500..504 {
        world.report(&format!("db{host}"), "disk", 'C');
        world.agents_send(None);
        let last = &world.heard.last().unwrap().notification;
        assert_eq!((last.kind, last.firing[0].state), (Kind::Problem, State::Critical));
    }
    // The reserve is used up: the fifth waits, and the next message is a digest for all.
    world.report("db504", "disk", 'C');
    world.agents_send(None);
    assert_eq!(world.heard.len(), 10);
    minutes(&mut world, 1);
    let digest = &world.heard[10].notification;
    assert_eq!(
        (digest.kind, digest.digest[0].title.as_str()),
        (Kind::Digest, "CRITICAL db504/disk: disk is C")
    );
    assert_eq!(digest.summary.as_ref().unwrap().problems, 295);
}

const PEOPLE: &str = r#"
    [alertd]
    rate = { burst = ALL, every = "1m", reserve = 0 }
    [policy.default]
    step = [{ notify = ["ann", "chat"] }]
    [user.ann]
    rules = [{ notify = ["mail", "phone"] }]
    rate = { burst = 8, every = "1m", reserve = 0 }
    [receiver.mail]
    rate = { burst = 3, every = "1m", reserve = 0 }
    [receiver.mail.maildir]
    path = "/m"
    [receiver.phone.maildir]
    path = "/p"
    [receiver.chat.maildir]
    path = "/c"
"#;

/// Half a minute of crashes, each after a few more hosts. Returns how many notifications were
/// started to mail, to ann, and to all.
fn crash_again_and_again(all: &str) -> [usize; 3] {
    let mut world = World::new(&PEOPLE.replace("ALL", all), 1);
    let crashes = [Crash::Committed, Crash::Sent, Crash::Decided];
    for life in 0..60_u32 {
        storm(&mut world, life * 5..life * 5 + 5, 'W');
        world.turn(Some(crashes[life as usize % 3]));
        world.now = later(world.now, Duration::from_millis(500));
        world.restart();
    }
    let begun = [&["mail"][..], &["mail", "phone"], &["mail", "phone", "chat"]].map(|receivers| {
        let told = world.attempted.iter().filter(|told| receivers.contains(&told.receiver.as_str()));
        told.map(|told| told.id.as_str()).collect::<BTreeSet<_>>().len()
    });
    minutes(&mut world, 10);
    assert_eq!(world.core.outbox_status().queued, 0, "nothing is lost");
    begun
}

#[test]
fn a_loop_of_crashes_floods_nobody() {
    // Exactly the bursts: mail's own, ann's through both receivers, and seven of ten for the chat.
    assert_eq!(crash_again_and_again("40"), [3, 8, 15]);
    let [_, _, all] = crash_again_and_again("6");
    assert_eq!(all, 6);
}

#[test]
fn a_reload_restores_no_budget_and_a_higher_rate_releases_waiting_notifications() {
    let mut world = World::new(ONE_MAILBOX, 1);
    storm(&mut world, 0..30, 'W');
    assert_eq!(world.heard.len(), 6);
    (0..5).for_each(|_| world.reload(ONE_MAILBOX));
    world.turn(None);
    assert_eq!(world.heard.len(), 6);
    world.reload(&ONE_MAILBOX.replace("burst = 10", "burst = 50"));
    world.turn(None);
    assert_eq!(digests(&world)[0][0].alerts, 24);
}
