//! A world around a core in virtual time: agents that retry until answered, receivers that work or
//! fail, and a process that can end at any point. Steps the world and records what every receiver
//! got.

use std::{collections::BTreeMap, time::Duration};

use dogwatch_wire::{
    Batch, Event, EventKind, Heartbeat, HostChange, PROTOCOL, ServiceState, State, Transition, ctl,
};
use jiff::Timestamp;

use crate::{
    config::Config,
    core::{
        Change, Core, Lease, Rules,
        rules::{
            moment::later,
            notification::{Accepted, DeliveryError, Kind, Notification},
        },
    },
    store::{Store as _, memory::Memory},
};

pub(crate) fn notification(created_at: Timestamp) -> Notification {
    Notification {
        id: String::new(),
        incident: 1,
        dedup_key: String::new(),
        receiver: "mail".into(),
        kind: Kind::Problem,
        reason: String::new(),
        created_at,
        group: [].into(),
        firing: Vec::new(),
        resolved: Vec::new(),
        digest: Vec::new(),
        summary: None,
        ack: None,
        note: None,
        lately: Vec::new(),
    }
}

/// How a receiver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    /// Accepts nothing and says so.
    Busy,
    /// Accepts, but the answer is lost.
    Mute,
    Rejects,
}

/// The point at which the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    Decided,
    Committed,
    Sent,
}

/// A notification that reached a receiver, whether or not alertd knows.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) notification: Notification,
}

/// A watched host, with the events that alertd has not acknowledged yet.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) states: BTreeMap<String, ServiceState>,
    spool: Vec<Event>,
    last_seq: u64,
    pub(crate) quiet: bool,
    /// Changes made to the host itself.
    pub(crate) changes: Vec<HostChange>,
    wants_states: bool,
    /// The agent id, if it is not `id-` plus the name.
    agent: Option<String>,
}

pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) store: Memory,
    pub(crate) now: Timestamp,
    pub(crate) moods: BTreeMap<String, Mood>,
    pub(crate) heard: Vec<Heard>,
    /// All attempts, whatever their outcome.
    pub(crate) attempted: Vec<Notification>,
    /// The time of each attempt.
    pub(crate) attempted_at: Vec<Timestamp>,
    pub(crate) hosts: BTreeMap<String, Host>,
    pub(crate) history: Vec<ctl::HistoryEntry>,
    pub(crate) random: fastrand::Rng,
    /// Commits and receivers take up to this long while the core keeps deciding.
    pub(crate) slow: Option<Duration>,
    under_way: Vec<(Timestamp, UnderWay)>,
    rules: Rules,
    lives: u32,
}

enum UnderWay {
    /// Not sent yet: its commit is still running.
    Lease(Box<Lease>),
    /// Sent; the outcome has not arrived yet.
    Outcome(u64, Result<Accepted, DeliveryError>),
}

impl World {
    pub(crate) fn new(config: &str, seed: u64) -> Self {
        let rules = Config::from_text(config).map_err(|problems| problems.to_string()).unwrap().rules;
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let mut store = Memory::default();
        let core = Core::new(rules.clone(), "life0".into(), store.load(now).unwrap(), now);
        Self {
            core,
            store,
            now,
            moods: BTreeMap::new(),
            heard: Vec::new(),
            attempted: Vec::new(),
            attempted_at: Vec::new(),
            hosts: BTreeMap::new(),
            history: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            slow: None,
            under_way: Vec::new(),
            rules,
            lives: 0,
        }
    }

    /// `web1/disk` is now in the state `letter`: O OK, W WARNING, C CRITICAL, U UNKNOWN, flapping
    /// (`F` critical, `f` OK), X removed.
    pub(crate) fn report(&mut self, host: &str, service: &str, letter: char) {
        let (state, flapping) = match letter {
            'W' => (State::Warning, false),
            'C' => (State::Critical, false),
            'U' => (State::Unknown, false),
            'F' => (State::Critical, true),
            'f' => (State::Ok, true),
            _ => (State::Ok, false),
        };
        let now = ServiceState {
            service: service.into(),
            state,
            since: self.now,
            flapping,
            summary: format!("{service} is {letter}"),
            detail: String::new(),
            perfdata: String::new(),
            labels: [].into(),
            annotations: [].into(),
        };
        let agent = self.hosts.entry(host.into()).or_default();
        let kind = if letter == 'X' {
            agent.states.remove(service);
            EventKind::Removed { service: service.into() }
        } else {
            let before = agent.states.insert(service.into(), now.clone());
            let from = before.map_or(State::Ok, |before| before.state);
            EventKind::Transition(Transition { from, now })
        };
        agent.last_seq += 1;
        agent.spool.push(Event { seq: agent.last_seq, at: self.now, kind });
    }

    /// The host was reinstalled: another agent id, an empty spool.
    pub(crate) fn rename_agent(&mut self, host: &str, agent: &str) {
        let anew = Host { agent: Some(agent.into()), ..Host::default() };
        self.hosts.insert(host.into(), anew);
    }

    /// Every host that is not silent sends its pending events.
    pub(crate) fn agents_send(&mut self, crash: Option<Crash>) -> bool {
        let names: Vec<_> =
            self.hosts.iter().filter(|(_, host)| !host.quiet).map(|(n, _)| n.clone()).collect();
        for name in names {
            let host = &self.hosts[&name];
            let states = host.states.values().map(|s| (s.service.as_str(), s.state, s.flapping));
            let batch = Batch {
                protocol: PROTOCOL,
                agent: host.agent.clone().unwrap_or_else(|| format!("id-{name}")),
                host: name.clone(),
                epoch: "e1".into(),
                sent_at: self.now,
                events: host.spool.clone(),
                heartbeat: Some(Heartbeat {
                    digest: dogwatch_wire::digest(states),
                    next_within_s: 60,
                    version: "1".into(),
                    services: 1,
                    changes: host.changes.clone(),
                }),
                states: host.wants_states.then(|| host.states.values().cloned().collect()),
            };
            let reply = self.core.on_batch(&batch, self.now).unwrap();
            if !self.turn(crash) {
                return false;
            }
            let host = self.hosts.get_mut(&name).unwrap();
            host.spool.retain(|event| event.seq > reply.acked_seq);
            host.wants_states = reply.want_states;
        }
        true
    }

    /// Decides, commits, sends and records until nothing is left to do now. False if the process
    /// crashed and restarted.
    pub(crate) fn turn(&mut self, crash: Option<Crash>) -> bool {
        loop {
            if !self.arrive(crash) {
                return self.restart();
            }
            self.core.settle(self.now);
            let leases = self.core.poll_send(64, self.now);
            let changes = self.core.take_changes();
            let busy = !changes.is_empty() || !leases.is_empty();
            if crash == Some(Crash::Decided) && busy {
                return self.restart();
            }
            self.store.commit(&changes).unwrap();
            self.history.extend(changes.iter().filter_map(|change| match change {
                Change::History(entry) => Some(entry.clone()),
                _ => None,
            }));
            if crash == Some(Crash::Committed) && busy {
                return self.restart();
            }
            for lease in leases {
                let at = self.some_time();
                self.under_way.push((at, UnderWay::Lease(Box::new(lease))));
            }
            if !busy {
                return true;
            }
        }
    }

    fn some_time(&mut self) -> Timestamp {
        match self.slow {
            Some(longest) if self.random.bool() => later(self.now, longest.mul_f64(self.random.f64())),
            _ => self.now,
        }
    }

    /// Sends and records everything that has arrived. False if the process crashed.
    fn arrive(&mut self, crash: Option<Crash>) -> bool {
        while let Some(next) = self.under_way.iter().position(|(at, _)| *at <= self.now) {
            match self.under_way.remove(next).1 {
                UnderWay::Lease(lease) => {
                    let outcome = self.deliver(&lease.notification);
                    if crash == Some(Crash::Sent) {
                        return false;
                    }
                    let at = self.some_time();
                    self.under_way.push((at, UnderWay::Outcome(lease.seq, outcome)));
                }
                UnderWay::Outcome(seq, outcome) => {
                    let random = self.random.u64(..);
                    self.core.on_delivery(seq, outcome, random, self.now);
                }
            }
        }
        true
    }

    fn deliver(&mut self, notification: &Notification) -> Result<Accepted, DeliveryError> {
        let mood = self.moods.get(&notification.receiver).copied().unwrap_or(Mood::Works);
        self.attempted.push(notification.clone());
        self.attempted_at.push(self.now);
        if matches!(mood, Mood::Works | Mood::Mute) {
            self.heard.push(Heard { notification: notification.clone() });
        }
        match mood {
            Mood::Works => Ok(Accepted::default()),
            Mood::Busy | Mood::Mute => Err(DeliveryError::Retry { after: None, reason: "no answer".into() }),
            Mood::Rejects => Err(DeliveryError::Rejected { reason: "unknown user".into() }),
        }
    }

    /// SIGKILL and start: only the store remains. Always returns false.
    pub(crate) fn restart(&mut self) -> bool {
        self.lives += 1;
        self.under_way.clear();
        let loaded = self.store.load(self.now).unwrap();
        self.core = Core::new(self.rules.clone(), format!("life{}", self.lives), loaded, self.now);
        false
    }

    /// Applies a new config while running.
    pub(crate) fn reload(&mut self, config: &str) {
        self.rules = Config::from_text(config).map_err(|problems| problems.to_string()).unwrap().rules;
        self.core.on_reload(self.rules.clone());
    }

    /// Lets time pass, waking the core whenever it asks for it.
    pub(crate) fn pass(&mut self, by: Duration) {
        let end = later(self.now, by);
        while let Some(at) = self.next_wakeup().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.turn(None);
        }
        self.now = end;
    }

    fn next_wakeup(&self) -> Option<Timestamp> {
        let arrives = self.under_way.iter().map(|(at, _)| *at).min();
        self.core.next_wakeup().into_iter().chain(arrives).min()
    }

    pub(crate) fn open_incidents(&self) -> Vec<ctl::Incident> {
        self.core.status("test", Vec::new(), self.now).incidents
    }
}

/// Plays `inputs` step by step and compares what each receiver got with `expected`. Both are lines
/// of cells separated by spaces, one cell per step; `.` means nothing.
///
/// | row | cells |
/// | --- | --- |
/// | `host/service` | see [`World::report`] |
/// | `ack` | `n` normal, `s` sticky, `e3` expires after 3 steps, `u` unack; of the newest incident |
/// | `silence MATCHER` | `(` from here, `)` until here |
/// | `receiver NAME` | `w` works, `b` busy, `r` rejects from here on |
/// | `host NAME` | `q` falls silent, `h` reports again |
/// | `process` | `!` SIGKILL and start |
///
/// Heard: Problem, Update, reMinder, Recovery, Acknowledged, Digest.
pub(crate) fn play(
    config: &str,
    step: Duration,
    inputs: &[(&str, &str)],
    expected: &[(&str, &str)],
) -> World {
    let mut world = World::new(config, 1);
    let rows: Vec<(&str, Vec<&str>)> =
        inputs.iter().map(|(name, line)| (*name, line.split_whitespace().collect())).collect();
    let steps = rows.iter().map(|(_, cells)| cells.len()).max().unwrap();
    let mut heard: BTreeMap<&str, Vec<String>> =
        expected.iter().map(|(receiver, _)| (*receiver, Vec::new())).collect();
    for at in 0..steps {
        let before = world.heard.len();
        for (name, cells) in &rows {
            if let Some(cell) = cells.get(at).filter(|cell| **cell != ".") {
                apply(&mut world, name, cell, step);
            }
        }
        world.agents_send(None);
        world.turn(None);
        world.pass(step.saturating_sub(Duration::from_millis(1)));
        world.now = later(world.now, Duration::from_millis(1));
        for (receiver, line) in &mut heard {
            let said: String = world.heard[before..]
                .iter()
                .filter(|heard| heard.notification.receiver == *receiver)
                .map(|heard| letter(heard.notification.kind))
                .collect();
            line.push(if said.is_empty() { ".".into() } else { said });
        }
    }
    for (receiver, line) in expected {
        let line: Vec<_> = line.split_whitespace().collect();
        let decisions: Vec<_> =
            world.attempted.iter().map(|n| format!("{} {:?} {}", n.receiver, n.kind, n.reason)).collect();
        assert_eq!(heard[receiver].join(" "), line.join(" "), "{receiver} heard; in order: {decisions:#?}");
    }
    world
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::Problem => 'P',
        Kind::Update => 'U',
        Kind::Reminder => 'M',
        Kind::Recovery => 'R',
        Kind::Acknowledged => 'A',
        Kind::Digest => 'D',
        Kind::Test => 'T',
    }
}

fn apply(world: &mut World, row: &str, cell: &str, step: Duration) {
    let now = world.now;
    match row.split_once(' ') {
        Some(("silence", matcher)) if cell == "(" => {
            let ask = ctl::NewSilence {
                matchers: vec![matcher.into()],
                duration_s: 86_400,
                ..ctl::NewSilence::default()
            };
            world.core.on_silence(&ask, "eva", now).unwrap();
        }
        Some(("silence", _)) => {
            let number = world.core.silences(now)[0].number;
            world.core.on_silence_end(number, "eva", now).unwrap();
        }
        Some(("receiver", name)) => {
            let mood = match cell {
                "b" => Mood::Busy,
                "r" => Mood::Rejects,
                _ => Mood::Works,
            };
            world.moods.insert(name.into(), mood);
        }
        Some(("host", name)) => world.hosts.entry(name.into()).or_default().quiet = cell == "q",
        _ if row == "process" => drop(world.restart()),
        _ if row == "ack" => ack(world, cell, step),
        _ => {
            let (host, service) = row.split_once('/').unwrap();
            world.report(host, service, cell.chars().next().unwrap());
        }
    }
}

fn ack(world: &mut World, cell: &str, step: Duration) {
    let number = world.open_incidents().iter().map(|incident| incident.number).max().unwrap();
    if cell == "u" {
        world.core.on_unack(number, &ctl::Unack::default(), "eva", world.now).unwrap();
        return;
    }
    let steps = cell.strip_prefix('e').map(|steps| steps.parse::<u64>().unwrap());
    let expire_s = steps.map(|steps| steps * step.as_secs());
    let ask = ctl::Ack { comment: String::new(), sticky: cell == "s", expire_s };
    world.core.on_ack(number, &ask, "eva", world.now).unwrap();
}
