//! The core in random worlds in virtual time: problems, acks, silences, failing receivers, and
//! SIGKILL at every instruction that matters. A failure prints the seed that repeats it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dogwatch_wire::ctl;
use jiff::Timestamp;

use crate::{
    rules::{
        moment::{between, later},
        notification::{Kind, Notification},
        outbox::RowState,
    },
    testing::{Crash, Mood, World},
};

/// Both receivers are eventually notified of a problem; `desk` is the fallback of `mail`.
pub(super) const CONFIG: &str = r#"
    [[route]]
    policy = "oncall"
    group_wait = "1s"
    group_interval = "20s"
    repeat_interval = "5m"
    [policy.oncall]
    repeat = 3
    repeat_every = "4m"
    step = [{ notify = ["mail"] }, { after = "1m", notify = ["pager", "mail"] }]
    [receiver.mail]
    fallback = "desk"
    rate = { burst = 3, every = "10s" }
    [receiver.mail.maildir]
    path = "/m"
    [receiver.desk.maildir]
    path = "/d"
    [receiver.pager.maildir]
    path = "/p"
"#;

/// Inhibition rules and dependencies. `model_suppress.rs` has the reference.
const RULES: &str = r#"
    [alertd]
    settle = "15s"
    [[inhibit]]
    source = ["service=swap"]
    target = ["service=~disk|load|swap", "host=~web.*"]
    equal = ["host"]
    [[dependency]]
    of = ["host=~web.*"]
    on = ["host=db1", "service=disk"]
    [period.quiet]
    time_zone = "Asia/Kathmandu" # offset of 5:45
    hours = ["07:36-07:38", "07:39-07:40"]
"#;

/// `CONFIG` with `RULES`, and a route that is muted at 01:51, 01:52 and 01:54 UTC.
pub(super) fn with_rules() -> String {
    CONFIG.replacen("[[route]]", "[[route]]\n    mute_during = [\"quiet\"]", 1) + RULES
}

const HOSTS: [&str; 3] = ["web1", "web2", "db1"];
const SERVICES: [&str; 3] = ["disk", "load", "swap"];
pub(super) const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::struct_excessive_bools, reason = "any of them may be on")]
pub(super) struct Chaos {
    pub(super) acks: bool,
    pub(super) silences: bool,
    pub(super) moods: bool,
    pub(super) crashes: bool,
    /// Agents become silent; downtimes, inhibition and dependencies apply.
    pub(super) suppression: bool,
    /// Schedules with gaps, and overrides.
    pub(super) rota: bool,
    /// Rate limits of users and of all receivers together.
    pub(super) limits: bool,
    /// Commits and receivers take up to 20 s, while the core continues to decide.
    pub(super) slow: bool,
}

fn random_step(world: &mut World, chaos: &Chaos) {
    let host = HOSTS[world.random.usize(..HOSTS.len())];
    let service = SERVICES[world.random.usize(..SERVICES.len())];
    match world.random.u32(..100) {
        0..30 => {
            let letter = ['O', 'O', 'W', 'C', 'C', 'U', 'F', 'X'][world.random.usize(..8)];
            world.report(host, service, letter);
        }
        30..36 if chaos.acks => {
            let open = world.open_incidents();
            if let Some(incident) = open.first() {
                let sticky = world.random.bool();
                let ask = ctl::Ack { comment: String::new(), sticky, expire_s: Some(60) };
                world.core.on_ack(incident.number, &ask, "eva", world.now).unwrap();
            }
        }
        36..40 if chaos.silences => {
            let matchers = vec![format!("host={host}"), format!("service={service}")];
            let duration_s = world.random.u64(1..120);
            let ask = ctl::NewSilence { matchers, duration_s, ..ctl::NewSilence::default() };
            world.core.on_silence(&ask, "eva", world.now).unwrap();
        }
        46..50 if chaos.suppression => {
            let quiet = world.random.u32(..5) < 2;
            world.hosts.entry(host.into()).or_default().quiet = quiet;
        }
        50..54 if chaos.rota => override_somebody(world),
        54..58 if chaos.suppression => {
            let service = world.random.bool().then(|| service.to_owned());
            let flexible_s = world.random.bool().then(|| world.random.u64(1..60));
            let duration_s = world.random.u64(1..90);
            let host = host.into();
            let ask =
                ctl::NewDowntime { host, service, flexible_s, duration_s, ..ctl::NewDowntime::default() };
            // An unknown host is refused.
            let _ = world.core.on_downtime(&ask, "eva", world.now);
        }
        58..59 if chaos.suppression => {
            let _ = world.core.on_downtime_cancel(world.random.u64(1..9), "eva", world.now);
        }
        40..46 if chaos.moods => {
            let receiver = ["mail", "desk", "pager"][world.random.usize(..3)];
            let mood =
                [Mood::Works, Mood::Works, Mood::Busy, Mood::Mute, Mood::Rejects][world.random.usize(..5)];
            world.moods.insert(receiver.into(), mood);
        }
        _ => {}
    }
    let crashes = [Crash::Decided, Crash::Committed, Crash::Sent];
    let crash = (chaos.crashes && world.random.u32(..8) == 0).then(|| crashes[world.random.usize(..3)]);
    if world.agents_send(crash) {
        world.turn(crash);
    }
    let pause = Duration::from_millis(world.random.u64(1..8_000));
    world.pass(pause);
}

fn override_somebody(world: &mut World) {
    let by_hand = world.core.overrides(world.now).first().and_then(|one| one.number);
    if let Some(number) = by_hand.filter(|_| world.random.bool()) {
        world.core.on_override_end(number, "eva", world.now).unwrap();
        return;
    }
    let user = ["ann", "ben", "boss", "nobody"][world.random.usize(..4)];
    let from = later(world.now, world.random.u32(..40) * SECOND);
    let until = later(from, world.random.u32(1..90) * SECOND);
    let ask = ctl::NewOverride {
        schedule: "primary".into(),
        user: user.into(),
        from: Some(from),
        until,
        comment: String::new(),
    };
    world.core.on_override(&ask, "eva", world.now).unwrap();
}

/// Everything works again, and nothing new happens until all is settled.
fn calm_down(world: &mut World) {
    world.moods.clear();
    world.slow = None;
    world.hosts.values_mut().for_each(|host| host.quiet = false);
    for silence in world.core.silences(world.now) {
        world.core.on_silence_end(silence.number, "eva", world.now).unwrap();
    }
    for downtime in world.core.downtimes(world.now) {
        world.core.on_downtime_cancel(downtime.number, "eva", world.now).unwrap();
    }
    for incident in world.open_incidents().iter().filter(|incident| incident.ack.is_some()) {
        world.core.on_unack(incident.number, &ctl::Unack::default(), "eva", world.now).unwrap();
    }
    for _ in 0..90 {
        world.agents_send(None);
        world.pass(10 * SECOND);
    }
}

/// What every receiver knows of every incident, from its notifications.
fn knowledge(world: &World) -> BTreeMap<(u64, String), BTreeMap<String, (String, bool)>> {
    let mut knows: BTreeMap<_, BTreeMap<String, (String, bool)>> = BTreeMap::new();
    for heard in &world.heard {
        for said in spelled_out(world, &heard.notification) {
            let entry = knows.entry((said.incident, said.receiver.clone())).or_default();
            for alert in &said.firing {
                entry.insert(name(&alert.labels), (alert.state.name().into(), alert.flapping));
            }
            for alert in &said.resolved {
                entry.remove(&name(&alert.labels));
            }
        }
    }
    knows
}

/// A digest has the same content as the notifications that it replaces.
fn spelled_out(world: &World, notification: &Notification) -> Vec<Notification> {
    if notification.kind != Kind::Digest {
        return vec![notification.clone()];
    }
    let digest = world.store.outbox.values().find(|row| row.notification.id == notification.id);
    let Some(digest) = digest else { return Vec::new() };
    let into = RowState::Digested { into: digest.seq };
    world.store.outbox.values().filter(|row| row.state == into).map(|row| row.notification.clone()).collect()
}

pub(super) fn name(labels: &BTreeMap<String, String>) -> String {
    format!("{}/{}", labels["host"], labels["service"])
}

pub(super) fn every_duplicate_has_the_same_id_and_content(world: &World, seed: u64) {
    let mut by_id: BTreeMap<&str, &Notification> = BTreeMap::new();
    for notification in &world.attempted {
        let first = by_id.entry(&notification.id).or_insert(notification);
        assert_eq!(*first, notification, "seed {seed}: same id, different text");
    }
    // Between two different problem notifications for one incident to one receiver, there is a
    // recovery, accepted or rejected.
    let mut open: BTreeMap<(u64, &str), &str> = BTreeMap::new();
    let mut heard = world.heard.iter().peekable();
    for attempted in &world.attempted {
        let Notification { id, incident, receiver, kind, .. } = attempted;
        let was_heard = heard.next_if(|heard| heard.notification.id == *id).is_some();
        match kind {
            Kind::Problem if was_heard => {
                let before = open.insert((*incident, receiver), id);
                let same = before.is_none_or(|before| before == id);
                assert!(same, "seed {seed}: {receiver} was notified of {incident} twice");
            }
            Kind::Recovery => drop(open.remove(&(*incident, receiver.as_str()))),
            Kind::Digest => {
                for line in attempted.digest.iter().filter(|line| line.kind == Kind::Recovery) {
                    open.remove(&(line.incident, receiver.as_str()));
                }
            }
            _ => {}
        }
    }
}

pub(super) fn a_recovery_goes_only_to_receivers_that_may_know_the_problem(world: &World, seed: u64) {
    let mut may_know: BTreeSet<(u64, &str)> = BTreeSet::new();
    for attempted in &world.attempted {
        // Uses the lines of a digest, because rows of a failed digest are no longer marked as
        // digested.
        let lines = attempted.digest.iter().map(|line| (line.incident, line.kind));
        for (incident, kind) in lines.chain([(attempted.incident, attempted.kind)]) {
            let who = (incident, attempted.receiver.as_str());
            match kind {
                Kind::Recovery if attempted.reason == "fallback" => {}
                // A line of a digest does not show that it is for a fallback.
                Kind::Recovery if attempted.kind == Kind::Digest && attempted.receiver == "desk" => {}
                Kind::Recovery => {
                    assert!(may_know.contains(&who), "seed {seed}: {who:?} was only notified of a recovery");
                }
                Kind::Problem | Kind::Update | Kind::Reminder => drop(may_know.insert(who)),
                _ => {}
            }
        }
    }
}

/// At the end, nobody knows of a problem that does not exist, and somebody knows of every problem
/// that does.
pub(super) fn what_people_believe_is_true(world: &World, seed: u64) {
    let knows = knowledge(world);
    let open: BTreeMap<u64, ctl::Incident> =
        world.open_incidents().into_iter().map(|incident| (incident.number, incident)).collect();
    let truth = |incident: &ctl::Incident| -> BTreeMap<String, (String, bool)> {
        let firing = incident.alerts.iter().filter(|alert| alert.resolved_at.is_none());
        firing.map(|alert| (name(&alert.labels), (alert.state.name().into(), alert.flapping))).collect()
    };
    for ((number, receiver), believes) in &knows {
        let is = open.get(number).map(&truth).unwrap_or_default();
        let recovery_was_refused = world
            .attempted
            .iter()
            .any(|n| n.incident == *number && n.receiver == *receiver && n.kind == Kind::Recovery)
            || world.store.outbox.values().any(|row| {
                row.notification.incident == *number
                    && row.notification.receiver == *receiver
                    && row.state == RowState::Failed
            });
        for alert in believes.keys().filter(|alert| !is.contains_key(*alert)) {
            assert!(
                recovery_was_refused,
                "seed {seed}: {receiver} never gets the end of {alert} of {number}"
            );
        }
    }
    for (number, incident) in &open {
        for (alert, state) in truth(incident) {
            if alert.ends_with("/receiver") || is_withheld(incident, &alert) {
                continue;
            }
            let told = knows.iter().any(|((n, _), believes)| {
                n == number
                    && believes
                        .get(&alert)
                        .is_some_and(|(s, f)| (f, s) == (&state.1, &state.0) || (*f && state.1))
            });
            assert!(told, "seed {seed}: no receiver knows that {alert} of {number} is {state:?}");
        }
    }
    let status = world.core.outbox_status();
    assert_eq!((status.queued, status.leased), (0, 0), "seed {seed}: all is settled at the end");
}

fn is_withheld(incident: &ctl::Incident, alert: &str) -> bool {
    incident.withheld.iter().any(|withheld| withheld.alert == alert)
}

pub(super) fn run(seed: u64, chaos: &Chaos) -> World {
    let config = match chaos {
        Chaos { suppression: true, .. } => with_rules(),
        Chaos { limits: true, .. } => super::model_limits::LIMITS.to_owned(),
        Chaos { rota: true, .. } => super::model_rota::ROTA.to_owned(),
        _ => CONFIG.to_owned(),
    };
    let mut world = World::new(&config, seed);
    world.slow = chaos.slow.then_some(20 * SECOND);
    for _ in 0..150 {
        random_step(&mut world, chaos);
    }
    calm_down(&mut world);
    world
}

#[test]
fn whatever_happens_the_right_receivers_know_the_truth_and_ids_are_unique() {
    let chaos = Chaos {
        acks: true,
        silences: true,
        moods: true,
        crashes: true,
        suppression: false,
        rota: false,
        limits: false,
        slow: false,
    };
    for seed in seeds(60) {
        let world = run(seed, &chaos);
        every_duplicate_has_the_same_id_and_content(&world, seed);
        a_recovery_goes_only_to_receivers_that_may_know_the_problem(&world, seed);
        what_people_believe_is_true(&world, seed);
    }
}

#[test]
fn without_failures_everything_is_notified_once() {
    let chaos = Chaos {
        acks: true,
        silences: true,
        moods: false,
        crashes: false,
        suppression: false,
        rota: false,
        limits: false,
        slow: false,
    };
    for seed in seeds(30) {
        let world = run(seed, &chaos);
        let ids: BTreeSet<_> = world.heard.iter().map(|heard| &heard.notification.id).collect();
        assert_eq!(ids.len(), world.heard.len(), "seed {seed}");
        what_people_believe_is_true(&world, seed);
    }
}

#[test]
fn decisions_made_during_slow_deliveries_mislead_no_receiver() {
    for seed in seeds(60) {
        let crashes = seed % 2 == 0;
        let chaos = Chaos {
            acks: true,
            silences: true,
            moods: crashes,
            crashes,
            suppression: seed % 3 == 0,
            rota: false,
            limits: false,
            slow: true,
        };
        let world = run(seed, &chaos);
        every_duplicate_has_the_same_id_and_content(&world, seed);
        a_recovery_goes_only_to_receivers_that_may_know_the_problem(&world, seed);
        what_people_believe_is_true(&world, seed);
    }
}

#[test]
fn killed_at_any_instruction_every_problem_is_notified_within_the_policys_time() {
    // group_wait, group_interval, the longest delay by the rate limit, the next attempt of the
    // agent.
    let bound = 60 * SECOND;
    let chaos = Chaos {
        acks: false,
        silences: false,
        moods: false,
        crashes: true,
        suppression: false,
        rota: false,
        limits: false,
        slow: false,
    };
    for seed in seeds(40) {
        let mut world = World::new(CONFIG, seed);
        every_problem_is_notified_within(bound, &mut world, &chaos, seed, &|_, _| false);
    }
}

/// `excused` alerts fire, but nobody has to know of them yet; their time starts when that ends.
pub(super) fn every_problem_is_notified_within(
    bound: Duration,
    world: &mut World,
    chaos: &Chaos,
    seed: u64,
    excused: &dyn Fn(&World, &str) -> bool,
) {
    let mut since: BTreeMap<String, (String, Timestamp)> = BTreeMap::new();
    for _ in 0..150 {
        random_step(world, chaos);
        world.agents_send(None);
        let now = world.now;
        let knows = knowledge(world);
        let mut firing = BTreeMap::new();
        for incident in world.open_incidents() {
            for alert in incident.alerts.iter().filter(|alert| alert.resolved_at.is_none()) {
                let key = name(&alert.labels);
                if excused(world, &key) {
                    continue;
                }
                let state = format!("{} {}", alert.state.name(), alert.flapping);
                let began = since.get(&key).filter(|(was, _)| *was == state).map_or(now, |(_, at)| *at);
                let told = knows.iter().any(|((n, _), k)| *n == incident.number && k.contains_key(&key));
                let late = between(began, now) > bound;
                assert!(
                    told || !late,
                    "seed {seed}: {key} has fired since {began}, but nobody was notified by {now}: {:?}",
                    incident.withheld
                );
                firing.insert(key, (state, began));
            }
        }
        since = firing;
    }
}

/// `DOGWATCH_SEEDS=5000` runs more seeds, `DOGWATCH_SEEDS=17..18` only one.
#[expect(clippy::disallowed_methods, reason = "the environment sets the number of seeds")]
pub(super) fn seeds(few: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("DOGWATCH_SEEDS").unwrap_or_default();
    match asked.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..asked.parse().unwrap_or(few),
    }
}
