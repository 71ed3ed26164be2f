//! A world around a core in virtual time: agents that send until they get a reply, receivers that
//! work or fail, and a process that can crash at any instruction. Records what every receiver got.

use std::{collections::BTreeMap, hash::RandomState, time::Duration};

use dogwatch_wire::{
    Batch, BatchReply, Event, EventKind, Heartbeat, HostChange, PROTOCOL, ServiceState, State, Transition,
    ctl,
};
use jiff::Timestamp;

use crate::{
    BadBatch, Change, Core, Lease, Rules,
    rules::{
        moment::later,
        notification::{Accepted, DeliveryError, Notification},
        quota::Quotas,
        sender::Sender,
    },
    testing::Memory,
};

/// How a receiver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Works,
    /// Rejects everything.
    Busy,
    /// Accepts it, but the response is lost.
    Mute,
    Rejects,
}

/// Where the process crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    Decided,
    Committed,
    Sent,
}

/// One notification that reached a receiver, whether or not alertd knows.
#[derive(Debug, Clone)]
pub struct Heard {
    pub notification: Notification,
}

/// A monitored host, with the events that alertd has not acknowledged.
#[derive(Default)]
pub struct Host {
    pub states: BTreeMap<String, ServiceState>,
    pub(crate) spool: Vec<Event>,
    pub(crate) last_seq: u64,
    pub quiet: bool,
    /// Changes to the host.
    pub changes: Vec<HostChange>,
    pub(crate) wants_states: bool,
    /// Agent id, if it is not `id-` and the name.
    pub agent: Option<String>,
    /// Host name, if it is not the name in [`World::hosts`].
    pub name: Option<String>,
    /// Empty: `e1`.
    pub epoch: String,
    /// Empty, like `boot`: an agent that does not send it.
    pub run: String,
    pub boot: String,
    /// Its clock is behind.
    pub behind: Duration,
    /// It has been told to start a new epoch this often.
    pub new_epochs: u32,
}

impl Host {
    fn on_reply(&mut self, reply: &BatchReply, name: &str) {
        if reply.acked_seq > self.last_seq || reply.start_epoch {
            self.new_epochs += 1;
            self.epoch = format!("{name}-{}", self.new_epochs);
            self.last_seq = 0;
            for event in &mut self.spool {
                self.last_seq += 1;
                event.seq = self.last_seq;
            }
            return;
        }
        self.spool.retain(|event| event.seq > reply.acked_seq);
        self.wants_states = reply.want_states;
    }
}

pub struct World {
    pub core: Core,
    pub store: Memory,
    pub now: Timestamp,
    pub moods: BTreeMap<String, Mood>,
    pub heard: Vec<Heard>,
    /// Notifications handed over, whatever the result: (incident, receiver).
    pub attempted: Vec<Notification>,
    /// The times of these.
    pub attempted_at: Vec<Timestamp>,
    pub hosts: BTreeMap<String, Host>,
    pub history: Vec<ctl::HistoryEntry>,
    pub random: fastrand::Rng,
    /// Maximum delay of disk and receivers, while the core continues to decide.
    pub slow: Option<Duration>,
    under_way: Vec<(Timestamp, UnderWay)>,
    rules: Rules,
    hash_key: RandomState,
    lives: u32,
    /// What agents over their quota were told.
    pub refused: Vec<String>,
}

/// The sender of all batches.
fn agents() -> Sender {
    Sender { name: "token:agents".into(), host: None }
}

enum UnderWay {
    /// The commit is not finished, so it is not sent yet.
    Lease(Box<Lease>),
    /// It was sent; the result has not arrived yet.
    Outcome(u64, Result<Accepted, DeliveryError>),
}

impl World {
    pub fn with_rules(rules: Rules, seed: u64) -> Self {
        let now = Timestamp::constant(1_000_000_000, 0);
        let store = Memory::default();
        #[expect(clippy::disallowed_methods, reason = "a test is its own shell, which draws the key")]
        let hash_key = RandomState::new();
        let core = Core::new(rules.clone(), "life0".into(), hash_key.clone(), store.load(now), now);
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
            hash_key,
            lives: 0,
            refused: Vec::new(),
        }
    }

    /// Sets the state of a service by its letter: Ok, Warning, Critical, Unknown, Flapping (`F`
    /// critical, `f` OK), X removed.
    pub fn report(&mut self, host: &str, service: &str, letter: char) {
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

    /// The host was reinstalled: new identity, empty spool.
    pub fn rename_agent(&mut self, host: &str, agent: &str) {
        let anew = Host { agent: Some(agent.into()), ..Host::default() };
        self.hosts.insert(host.into(), anew);
    }

    /// Every host that is not silent sends its events.
    ///
    /// # Panics
    ///
    /// If the core rejects a batch.
    pub fn agents_send(&mut self, crash: Option<Crash>) -> bool {
        let names: Vec<_> =
            self.hosts.iter().filter(|(_, host)| !host.quiet).map(|(n, _)| n.clone()).collect();
        for name in names {
            let host = &self.hosts[&name];
            let states = host.states.values().map(|s| (s.service.as_str(), s.state, s.flapping));
            let batch = Batch {
                protocol: PROTOCOL,
                agent: host.agent.clone().unwrap_or_else(|| format!("id-{name}")),
                host: host.name.clone().unwrap_or_else(|| name.clone()),
                epoch: if host.epoch.is_empty() { "e1".into() } else { host.epoch.clone() },
                run: host.run.clone(),
                boot: host.boot.clone(),
                sent_at: self.now.saturating_sub(host.behind).unwrap_or(Timestamp::MIN),
                events: host.spool.clone(),
                heartbeat: Some(Heartbeat {
                    digest: dogwatch_wire::digest(states),
                    next_within_s: 60,
                    version: "1".into(),
                    services: 1,
                    changes: host.changes.clone(),
                }),
                states: host.wants_states.then(|| host.states.values().cloned().collect()),
                states_part: None,
            };
            let reply = self.core.on_batch(&batch, &agents(), self.now);
            if let Err(refused @ BadBatch::OverQuota(_)) = &reply {
                self.refused.push(refused.to_string());
                self.turn(crash);
                continue;
            }
            let reply = reply.expect("what a host reports is taken");
            if !self.turn(crash) {
                return false;
            }
            let host = self.hosts.get_mut(&name).expect("it was listed above");
            host.on_reply(&reply, &name);
        }
        true
    }

    /// Decides, commits, sends and records until nothing is left to do now. Returns false if the
    /// process crashed and restarted.
    pub fn turn(&mut self, crash: Option<Crash>) -> bool {
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
            self.store.commit(&changes);
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

    /// Sends and records what is due. Returns false if the process crashes.
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

    /// SIGKILL and restart: only the store is left. Always returns false.
    pub fn restart(&mut self) -> bool {
        self.lives += 1;
        self.under_way.clear();
        let loaded = self.store.load(self.now);
        self.core = Core::new(
            self.rules.clone(),
            format!("life{}", self.lives),
            self.hash_key.clone(),
            loaded,
            self.now,
        );
        false
    }

    /// The hosts send. False if one was over its quota.
    pub fn agents_send_unless_refused(&mut self) -> bool {
        self.refused.clear();
        self.agents_send(None);
        self.refused.is_empty()
    }

    /// Applies other quotas while running.
    pub fn take_quotas(&mut self, quotas: Quotas) {
        self.rules.quotas = quotas;
        self.take_rules(self.rules.clone());
    }

    /// Applies a new config while running.
    pub fn take_rules(&mut self, rules: Rules) {
        self.rules = rules;
        self.core.on_reload(self.rules.clone());
    }

    /// Lets time pass, with wakeups whenever the core asks for them.
    pub fn pass(&mut self, by: Duration) {
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

    pub fn open_incidents(&self) -> Vec<ctl::Incident> {
        self.core.status("test", Vec::new(), self.now).incidents
    }
}
