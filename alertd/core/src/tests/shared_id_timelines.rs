//! Hosts that share an agent id, step by step (case G2).

use std::{collections::BTreeSet, time::Duration};

use dogwatch_wire::{State, ctl};

use crate::{
    rules::{moment::later, notification::Kind},
    testing::{Host, World},
};

const SECOND: Duration = Duration::from_secs(1);
/// The heartbeat of the agents in the world is due after 60 s.
const STEP: Duration = Duration::from_secs(20);

/// Grouped by host and service, so that each alert is an incident.
const CONFIG: &str = r#"
    [[route]]
    receiver = "mail"
    group_by = ["host", "service"]
    group_wait = "1s"
    group_interval = "5s"
    [receiver.mail.maildir]
    path = "/m"
"#;

/// An agent as `host boot epoch run`, with the id that all copies have.
fn agent(words: &str) -> Host {
    let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
    let [host, boot, epoch, run] = <[String; 4]>::try_from(words).unwrap();
    Host { agent: Some("id".into()), name: Some(host), boot, epoch, run, ..Host::default() }
}

/// `a` is the host of the image, `b` its copy; one problem on each.
fn world(a: &str, b: &str) -> World {
    skewed_world(a, b, "")
}

/// The clock of one of the two is behind.
fn skewed_world(a: &str, b: &str, skewed: &str) -> World {
    let behind = |name| if name == skewed { Duration::from_hours(5) } else { Duration::ZERO };
    let mut world = World::new(CONFIG, 1);
    world.hosts.insert("a".into(), Host { behind: behind("a"), ..agent(a) });
    world.report("a", "disk", 'C');
    steps(&mut world, 3);
    assert_eq!(mails(&world), ["Problem web1/disk CRITICAL"]);
    world.hosts.insert("b".into(), Host { behind: behind("b"), ..agent(b) });
    world.report("b", "swap", 'C');
    world
}

fn steps(world: &mut World, count: u32) {
    for _ in 0..count {
        world.agents_send(None);
        world.pass(STEP.saturating_sub(SECOND));
        world.now = later(world.now, SECOND);
    }
}

fn mails(world: &World) -> Vec<String> {
    let mails = world.heard.iter().map(|heard| {
        let told = &heard.notification;
        let alerts = told.firing.iter().chain(&told.resolved).map(|alert| {
            let state = if alert.resolved_at.is_some() { "ended" } else { alert.state.name() };
            format!("{}/{} {state}", alert.labels["host"], alert.labels["service"])
        });
        format!("{:?} {}", told.kind, alerts.collect::<Vec<_>>().join(", "))
    });
    mails.collect()
}

fn open(world: &World) -> BTreeSet<String> {
    let incidents = world.open_incidents();
    let alerts = incidents.iter().flat_map(|incident| &incident.alerts);
    let firing = alerts.filter(|alert| alert.resolved_at.is_none());
    firing.map(|alert| format!("{}/{}", alert.labels["host"], alert.labels["service"])).collect()
}

/// The alert about the id: state and text.
fn shared(world: &World) -> Option<(State, String)> {
    let incidents = world.open_incidents();
    let mut alerts = incidents.iter().flat_map(|incident| &incident.alerts);
    let alert: &ctl::Alert =
        alerts.find(|alert| alert.labels.contains_key("shared_id") && alert.resolved_at.is_none())?;
    Some((alert.state, alert.summary.clone()))
}

fn agents(world: &World) -> Vec<String> {
    let status = world.core.status("test", Vec::new(), world.now);
    let state = |silent| if silent { "silent" } else { "alive" };
    status
        .agents
        .iter()
        .map(|agent| format!("{} {} {}", agent.agent, agent.host, state(agent.silent)))
        .collect()
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn g2_two_hosts_with_one_machine_id_are_both_watched_and_one_alert_says_so() {
    // Name, boot and state are the copy's own: certain at its first batch.
    let mut world = world("web1 b1 e1 r1", "web2 b2 e2 r2");
    world.agents_send(None);
    let (state, text) = shared(&world).unwrap();
    assert_eq!(state, State::Warning);
    assert!(text.starts_with("web1 and web2 have the same /etc/machine-id, as copies"), "{text}");
    assert!(text.contains("systemd-machine-id-setup && systemctl restart dogwatch"), "{text}");
    steps(&mut world, 30);
    let told: Vec<_> =
        mails(&world)[1..].iter().map(|mail| mail.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(
        told,
        ["Problem web2/swap CRITICAL", "Problem alertd1/alertd WARNING"],
        "no more in ten minutes"
    );
    assert_eq!(agents(&world), ["id web1 alive", "id~r2 web2 alive"]);
    world.report("a", "disk", 'O');
    steps(&mut world, 3);
    assert_eq!(mails(&world).last().unwrap(), "Recovery web1/disk ended");
    assert_eq!(open(&world), names(&["alertd1/alertd", "web2/swap"]));
}

#[test]
fn g2_copies_of_every_kind_are_told_apart_without_a_false_recovery() {
    for (copy, kind) in [
        ("web2 b2 e2 r2", "its own name and state"),
        ("web2 b2 e1 r2", "a copied state"),
        ("web1 b2 e2 r2", "the same name"),
        ("web1 b2 e1 r2", "the same name and a copied state"),
        ("web2 b1 e2 r2", "a container with its own state"),
        ("web2 b1 e1 r2", "a container with a copied state"),
        ("web1 b1 e2 r2", "a container with the same name"),
        ("web1 b1 e1 r2", "the same name, state and kernel"),
    ] {
        let mut world = world("web1 b1 e1 r1", copy);
        steps(&mut world, 20);
        let host = copy.split(' ').next().unwrap();
        assert!(shared(&world).is_some(), "{kind}: {:?}", agents(&world));
        assert_eq!(open(&world), names(&["alertd1/alertd", "web1/disk", &format!("{host}/swap")]), "{kind}");
        assert_eq!(agents(&world).len(), 2, "{kind}");
        let wrong: Vec<_> = mails(&world).into_iter().filter(|mail| mail.contains("ended")).collect();
        assert!(wrong.is_empty() || kind.ends_with("kernel"), "{kind}: {wrong:?}");
        assert!(mails(&world).len() <= 6, "{kind}: {:?}", mails(&world));
        // Their spools are no longer the same.
        let epochs: BTreeSet<_> = world.hosts.values().map(|host| host.epoch.clone()).collect();
        assert_eq!(epochs.len(), 2, "{kind}");

        // Restarts and reboots, of the agents and of alertd, change nothing.
        let before = mails(&world).len();
        for round in 0..6 {
            for (name, host) in &mut world.hosts {
                host.run = format!("{name}{round}");
                if round % 2 == 0 && !kind.contains("kernel") && !kind.contains("container") {
                    host.boot = format!("{name}{round}");
                }
            }
            if round == 3 {
                world.restart();
            }
            steps(&mut world, 7);
        }
        assert_eq!(mails(&world).len(), before, "{kind}: {:?}", mails(&world));
        assert_eq!(agents(&world).len(), 2, "{kind}");
    }
}

#[test]
fn g2_a_copy_that_dies_is_missed_and_so_is_its_original() {
    for dead in ["a", "b"] {
        for copy in ["web2 b2 e2 r2", "web2 b2 e1 r2", "web1 b2 e1 r2"] {
            let mut world = world("web1 b1 e1 r1", copy);
            steps(&mut world, 9);
            world.hosts.get_mut(dead).unwrap().quiet = true;
            steps(&mut world, 12);
            let host = if dead == "a" { "web1" } else { &copy[..4] };
            assert!(open(&world).contains(&format!("{host}/agent")), "{dead} {copy}: {:?}", open(&world));
            let silent = agents(&world).iter().filter(|agent| agent.ends_with("silent")).count();
            assert_eq!(silent, 1, "{dead} {copy}");
            world.hosts.get_mut(dead).unwrap().quiet = false;
            steps(&mut world, 5);
            assert!(!open(&world).contains(&format!("{host}/agent")), "{dead} {copy}");
        }
    }
}

#[test]
fn g2_a_copy_of_a_dead_host_does_not_bring_it_back() {
    let mut world = world("web1 b1 e1 r1", "web2 b2 e2 r2");
    world.hosts.get_mut("b").unwrap().quiet = true;
    world.hosts.get_mut("a").unwrap().quiet = true;
    steps(&mut world, 15);
    world.hosts.get_mut("b").unwrap().quiet = false;
    steps(&mut world, 15);
    assert_eq!(agents(&world), ["id web1 silent", "id~r2 web2 alive"]);
    assert!(open(&world).contains("web1/agent"));
}

#[test]
fn g2_a_renamed_host_is_no_copy() {
    for (renamed, how) in [
        ("web9 b1 e1 r2", "the agent was restarted"),
        ("web9 b2 e1 r2", "the host was rebooted"),
        ("web9 b1 e1 r1", "the agent was reloaded"),
        ("web1 b2 e2 r2", "reinstalled with the old id"),
        ("web1 b1 e2 r2", "a new state directory"),
    ] {
        let mut world = World::new(CONFIG, 1);
        world.hosts.insert("a".into(), agent("web1 b1 e1 r1"));
        world.report("a", "disk", 'C');
        steps(&mut world, 3);
        turn_into(&mut world, "a", renamed);
        steps(&mut world, 20);
        assert_eq!(shared(&world), None, "{how}");
        assert_eq!(agents(&world).len(), 1, "{how}: {:?}", agents(&world));
        let host = &renamed[..4];
        assert!(agents(&world)[0].ends_with(&format!(" {host} alive")), "{how}: {:?}", agents(&world));
        let silent = mails(&world).iter().any(|mail| mail.contains("agent"));
        assert!(!silent, "{how}: {:?}", mails(&world));
        assert_eq!(world.open_incidents().len(), 1, "{how}: {:?}", mails(&world));
    }
}

#[test]
fn g2_an_agent_that_crashes_again_and_again_is_no_copy() {
    let mut world = World::new(CONFIG, 1);
    world.hosts.insert("a".into(), agent("web1 b1 e1 r0"));
    world.report("a", "disk", 'C');
    for round in 0..200 {
        world.hosts.get_mut("a").unwrap().run = format!("r{round}");
        world.agents_send(None);
        world.pass(2 * SECOND);
        if round % 50 == 49 {
            world.restart();
        }
    }
    assert_eq!((shared(&world), agents(&world)), (None, vec!["id web1 alive".to_owned()]));
    assert_eq!(mails(&world), ["Problem web1/disk CRITICAL"]);
}

#[test]
fn g2_mending_a_copy_ends_the_alert_and_nothing_else() {
    for copy in ["web2 b2 e2 r2", "web2 b2 e1 r2", "web1 b2 e1 r2"] {
        for mended in ["a", "b"] {
            for rebooted in [false, true] {
                let case = format!("{copy} {mended} {rebooted}");
                let mut world = world("web1 b1 e1 r1", copy);
                steps(&mut world, 9);
                let (before, firing) = (mails(&world).len(), open(&world));
                mend(&mut world, mended, rebooted);
                steps(&mut world, 20);
                assert_eq!(mails(&world)[before..], ["Recovery alertd1/alertd ended"], "{case}");
                let mut expected = firing.clone();
                expected.remove("alertd1/alertd");
                assert_eq!(open(&world), expected, "{case}");
                assert_eq!(agents(&world).len(), 2, "{case}: {:?}", agents(&world));

                // The other one too, which is more than necessary.
                mend(&mut world, if mended == "a" { "b" } else { "a" }, rebooted);
                steps(&mut world, 20);
                assert_eq!(mails(&world).len(), before + 1, "{case}: {:?}", mails(&world));
                assert!(agents(&world).iter().all(|agent| agent.ends_with("alive")), "{case}");
                world.report(mended, if mended == "a" { "disk" } else { "swap" }, 'O');
                steps(&mut world, 3);
                assert_eq!(mails(&world).len(), before + 2, "{case}");
                assert_eq!(world.heard.last().unwrap().notification.kind, Kind::Recovery, "{case}");
            }
        }
    }
}

/// The same host with the same problems, but its agent says other things of itself.
fn turn_into(world: &mut World, name: &str, words: &str) {
    let Host { name: host, boot, epoch, run, .. } = agent(words);
    let known = world.hosts.get_mut(name).unwrap();
    (known.name, known.boot, known.epoch, known.run) = (host, boot, epoch, run);
}

/// A new machine id, and the agent is restarted.
fn mend(world: &mut World, name: &str, rebooted: bool) {
    let host = world.hosts.get_mut(name).unwrap();
    host.agent = Some(format!("new-{name}"));
    host.run = format!("new-{name}");
    if rebooted {
        host.boot = format!("new-{name}");
    }
}

#[test]
fn g2_a_copy_that_was_reinstalled_is_recognized_by_its_name() {
    let mut world = world("web1 b1 e1 r1", "web2 b2 e2 r2");
    steps(&mut world, 9);
    let before = mails(&world).len();
    turn_into(&mut world, "b", "web2 b9 e9 r9");
    world.hosts.get_mut("b").unwrap().agent = Some("new".into());
    steps(&mut world, 20);
    let after = mails(&world)[before..].to_vec();
    let of_swap = |mail: &String| mail.starts_with("Update web2/swap CRITICAL");
    assert!(after.iter().all(|mail| of_swap(mail) || mail.contains("alertd1")), "{after:?}");
    assert!(after.contains(&"Recovery alertd1/alertd ended".to_owned()), "{after:?}");
    assert_eq!(agents(&world), ["id web1 alive", "new web2 alive"]);
    assert_eq!(open(&world), names(&["web1/disk", "web2/swap"]));
}

#[test]
fn g2_a_third_copy_is_named_in_the_same_alert() {
    let mut world = world("web1 b1 e1 r1", "web2 b2 e2 r2");
    steps(&mut world, 3);
    world.hosts.insert("c".into(), agent("web3 b3 e3 r3"));
    steps(&mut world, 9);
    let (_, text) = shared(&world).unwrap();
    assert!(text.starts_with("web1, web2 and web3 have the same"), "{text}");
    assert_eq!(agents(&world).len(), 3);
    let about_it = mails(&world).iter().filter(|mail| mail.contains("alertd1/alertd")).count();
    assert_eq!(about_it, 1, "{:?}", mails(&world));
}

#[test]
fn g2_a_copy_whose_clock_is_behind_or_ahead_is_found_too() {
    for behind in ["a", "b"] {
        for copy in ["web2 b2 e2 r2", "web2 b2 e1 r2", "web1 b2 e1 r2"] {
            let mut world = skewed_world("web1 b1 e1 r1", copy, behind);
            steps(&mut world, 20);
            assert!(shared(&world).is_some(), "{behind} {copy}");
            assert_eq!(agents(&world).len(), 2, "{behind} {copy}: {:?}", agents(&world));
            assert_eq!(open(&world).len(), 3, "{behind} {copy}");
        }
    }
}

#[test]
fn g2_the_alert_names_addresses_and_boot_ids_as_far_as_they_are_known() {
    let mut world = world("web1 b1 e1 r1", "web1 b2 e2 r2");
    world.core.come_from(Some("192.0.2.7".into()));
    steps(&mut world, 9);
    let (_, text) = shared(&world).unwrap();
    assert!(text.starts_with("2 hosts named web1 (192.0.2.7) have the same /etc/machine-id"), "{text}");
    let about_it = world.heard.iter().map(|heard| &heard.notification.firing[0]);
    let alert = about_it.clone().find(|alert| alert.labels.contains_key("shared_id")).unwrap();
    assert_eq!(alert.detail.lines().count(), 2, "{}", alert.detail);
    assert!(alert.detail.contains("boot_id b1") && alert.detail.contains("boot_id b2"), "{}", alert.detail);
    // Over the unix socket there is none.
    world.core.come_from(Some("uid 0".into()));
    steps(&mut world, 3);
    assert!(shared(&world).unwrap().1.starts_with("2 hosts named web1 have"), "reworded");
}

#[test]
fn g2_acks_and_silences_of_the_two_are_their_own() {
    let mut world = world("web1 b1 e1 r1", "web2 b2 e1 r2");
    steps(&mut world, 9);
    let ask = ctl::NewSilence {
        matchers: vec!["host=web2".into()],
        duration_s: 3_600,
        ..ctl::NewSilence::default()
    };
    world.core.on_silence(&ask, "eva", world.now).unwrap();
    let before = mails(&world).len();
    world.report("b", "load", 'C');
    world.report("a", "load", 'C');
    steps(&mut world, 6);
    assert_eq!(mails(&world)[before..], ["Problem web1/load CRITICAL"]);
}
