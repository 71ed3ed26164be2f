//! Random worlds in which hosts share an agent id (case G2): copies appear, restart, reboot, fall
//! silent and are mended, and alertd crashes. A failure prints the seed that repeats it.

use std::{collections::BTreeSet, time::Duration};

use super::model::{SECOND, every_duplicate_has_the_same_id_and_content, name, seeds};
use crate::testing::{Crash, Host, World};

const CONFIG: &str = r#"
    [[route]]
    receiver = "mail"
    group_by = ["host", "service"]
    group_wait = "1s"
    group_interval = "5s"
    [receiver.mail]
    rate = { burst = 1000, every = "1s" }
    [receiver.mail.maildir]
    path = "/m"
"#;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const SERVICES: [&str; 3] = ["disk", "load", "swap"];

/// How the copies in one world were made.
#[derive(Clone, Copy)]
struct Image {
    /// The state directory of the agent was copied too.
    state: bool,
    /// Containers of one kernel.
    boot: bool,
}

impl Image {
    fn of(seed: u64) -> Self {
        // A container with a copied state is a renamed host, if the first one is silent.
        let state = seed.is_multiple_of(2);
        Self { state, boot: !state && seed.is_multiple_of(3) }
    }

    fn copy(self, name: &str) -> Host {
        let own =
            |what: &str, is_copied: bool| if is_copied { what.into() } else { format!("{what}-{name}") };
        Host {
            agent: Some("id".into()),
            epoch: own("epoch", self.state),
            boot: own("boot", self.boot),
            run: format!("run-{name}"),
            ..Host::default()
        }
    }
}

fn random_step(world: &mut World, image: Image, step: u32) {
    let which = NAMES[world.random.usize(..NAMES.len())];
    let service = SERVICES[world.random.usize(..SERVICES.len())];
    let known = world.hosts.contains_key(which);
    match world.random.u32(..100) {
        0..40 if known => {
            let letter = ['O', 'C', 'C', 'W', 'X'][world.random.usize(..5)];
            world.report(which, service, letter);
        }
        40..46 if !known => drop(world.hosts.insert(which.into(), image.copy(which))),
        46..52 if known => {
            let host = world.hosts.get_mut(which).unwrap();
            host.run = format!("run-{which}-{step}");
            if step.is_multiple_of(2) && !image.boot {
                host.boot = format!("boot-{which}-{step}");
            }
        }
        52..56 if known => {
            let quiet = world.random.u32(..3) == 0;
            world.hosts.get_mut(which).unwrap().quiet = quiet;
        }
        56..60 if known && reported(world) == 1 => mend(world, which, step),
        _ => {}
    }
    let crashes = [Crash::Decided, Crash::Committed, Crash::Sent];
    let crash = (world.random.u32(..10) == 0).then(|| crashes[world.random.usize(..3)]);
    if world.agents_send(crash) {
        world.turn(crash);
    }
    let pause = Duration::from_millis(world.random.u64(1..20_000));
    world.pass(pause);
}

fn mend(world: &mut World, name: &str, step: u32) {
    let host = world.hosts.get_mut(name).unwrap();
    host.agent = Some(format!("id-of-{name}"));
    host.run = format!("run-{name}-{step}");
}

/// Open incidents about the id.
fn reported(world: &World) -> usize {
    world.open_incidents().iter().filter(|incident| incident.title.contains("machine-id")).count()
}

fn calm_down(world: &mut World) {
    world.hosts.values_mut().for_each(|host| host.quiet = false);
    for _ in 0..40 {
        world.agents_send(None);
        world.pass(10 * SECOND);
    }
}

/// What fires, by host and service.
fn firing(world: &World) -> BTreeSet<String> {
    let incidents = world.open_incidents();
    let alerts = incidents.iter().flat_map(|incident| &incident.alerts);
    let firing = alerts.filter(|alert| alert.resolved_at.is_none());
    firing.filter(|alert| alert.labels["host"] != "alertd1").map(|alert| name(&alert.labels)).collect()
}

/// What is wrong on the hosts.
fn wrong(world: &World) -> BTreeSet<String> {
    let hosts = world.hosts.iter();
    let states = hosts.flat_map(|(host, known)| known.states.values().map(move |state| (host, state)));
    let bad = states.filter(|(_, state)| state.state != dogwatch_wire::State::Ok);
    bad.map(|(host, state)| format!("{host}/{}", state.service)).collect()
}

/// What the mails say is wrong.
fn believed(world: &World) -> BTreeSet<String> {
    let mut believed = BTreeSet::new();
    for heard in &world.heard {
        for alert in &heard.notification.resolved {
            believed.remove(&name(&alert.labels));
        }
        // Two agents of one host may have reported the same alert.
        believed.extend(heard.notification.firing.iter().map(|alert| name(&alert.labels)));
    }
    believed.retain(|alert| !alert.starts_with("alertd1/"));
    believed
}

#[test]
fn g2_whatever_hosts_with_one_id_do_each_is_watched_and_people_know_the_truth() {
    for seed in seeds(120) {
        let image = Image::of(seed);
        let mut world = World::new(CONFIG, seed);
        world.hosts.insert("a".into(), image.copy("a"));
        for step in 0..120 {
            random_step(&mut world, image, step);
        }
        calm_down(&mut world);
        assert_eq!(firing(&world), wrong(&world), "seed {seed}");
        assert_eq!(believed(&world), wrong(&world), "seed {seed}");
        let status = world.core.status("test", Vec::new(), world.now);
        let hosts: Vec<_> = status.agents.iter().map(|agent| agent.host.as_str()).collect();
        assert_eq!(hosts.len(), world.hosts.len(), "seed {seed}: {:?}", status.agents);
        assert!(status.agents.iter().all(|agent| !agent.silent), "seed {seed}: {:?}", status.agents);
        let sharing = world.hosts.values().filter(|host| host.agent.as_deref() == Some("id")).count();
        assert_eq!(reported(&world), usize::from(sharing > 1), "seed {seed}: {:?}", status.agents);
        every_duplicate_has_the_same_id_and_content(&world, seed);
    }
}
