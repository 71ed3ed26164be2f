//! A host, its cache and its upstreams in virtual time: the real core in one thread, hours in a
//! second.
//!
//! A [`Scenario`] says what happens; the run's [`Log`] says what came of it. The cache is ours
//! ([`Resolver`]) or, to see what an outage does without it, a plain one that forgets at the end of
//! the TTL ([`PlainCache`]).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    hash::RandomState,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use dogwatch_dns_core::{
    cache::Bounds,
    health::endpoint::Endpoint,
    message::{
        name::{Key, read_key},
        reply::Transport,
        wire::Question,
    },
    moment::Moment,
    resolver::{self, Accepting, Client, Outcome, Resolver, Seeds, SensorResult, TcpCheck, TryError},
    settings::Settings,
    zones::{origin::Origin, pinned::Pinned},
};
use jiff::Timestamp;

use crate::{
    authority::{Act, Behaviour, Data, Judgement},
    dns_message::{A, Glance, NOERROR, push_name, query},
    forwarder::{Forwarder, Remembered, Sent},
    plain_cache::PlainCache,
    scenario::{
        Clients, Event, Names, Scenario,
        log::{Answered, Asker, Log, Sample},
    },
};

/// Which cache the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Dogwatch,
    PlainCache,
}

struct Ours {
    resolver: Resolver,
    settings: Settings,
}

fn upstream(place: usize) -> Endpoint {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, u8::try_from(place + 1).unwrap_or(u8::MAX)), 53)).into()
}

fn place_of(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => usize::from(v4.ip().octets()[3]) - 1,
        SocketAddr::V6(_) => unreachable!("the world's upstreams have IPv4 addresses"),
    }
}

/// The question for a name's address, as the core keeps it.
fn key_of(name: &str) -> Box<[u8]> {
    let mut wire = Vec::new();
    push_name(&mut wire, name);
    Key::new(&Question { name: &wire, kind: A, class: 1 }, false, false).as_bytes().into()
}

impl Ours {
    fn new(scenario: &Scenario, used: &[usize], disk: &Disk, seed: u64, now: Moment) -> Self {
        let mut settings = Settings {
            upstreams: used.iter().map(|&place| upstream(place)).collect(),
            ..Settings::default()
        };
        settings.max_stale = scenario.max_stale.unwrap_or(settings.max_stale);
        let bytes_max = scenario.cache_bytes.unwrap_or(settings.bounds.bytes_max);
        let pin =
            |(name, check_tcp): &(String, Option<u16>)| Pinned { key: key_of(name), check_tcp: *check_tcp };
        settings.pinned = scenario.pinned.iter().map(pin).collect();
        settings.bounds = Bounds { bytes_max, ..settings.bounds };
        let seeds = Seeds::repeatable(seed, RandomState::new());
        let mut core = Resolver::new(settings.clone(), seeds, now);
        // In the order in which they were learned, as from a file.
        let mut kept: Vec<_> = disk.kept.iter().collect();
        kept.sort_by_key(|(key, (_, learned))| (*learned, *key));
        for (key, (message, learned)) in kept {
            let flags = read_key(key).map(|(_, dnssec_ok, checking_disabled)| (dnssec_ok, checking_disabled));
            let (dnssec_ok, checking_disabled) = flags.unwrap_or_default();
            let age = now.since(*learned);
            let remembered = resolver::Remembered {
                dnssec_ok,
                checking_disabled,
                age,
                ..resolver::Remembered::new(message)
            };
            core.restore(&remembered, now);
        }
        if let Some(origin) = &disk.origin {
            core.restore_origin(origin, now);
        }
        Self { resolver: core, settings }
    }
}

impl Forwarder for Ours {
    fn on_query(&mut self, packet: &[u8], client: u64, now: Moment, out: &mut Vec<u8>) -> bool {
        let outcome = self.resolver.on_query(packet, Client::Stream(client), Transport::Udp, now, out);
        outcome == Outcome::Reply
    }

    fn on_reply(&mut self, try_id: u64, message: &[u8], now: Moment) {
        self.resolver.on_reply(try_id, message, now);
    }

    fn on_error(&mut self, try_id: u64, error: TryError, now: Moment) {
        self.resolver.on_error(try_id, error, now);
    }

    fn on_wakeup(&mut self, now: Moment) {
        self.resolver.on_wakeup(now);
    }

    fn next_wakeup(&self) -> Option<Moment> {
        self.resolver.next_wakeup()
    }

    fn poll_send(&mut self) -> Option<Sent> {
        self.resolver.poll_send().map(|send| Sent {
            try_id: send.try_id,
            upstream: place_of(send.upstream.address),
            over_tcp: send.transport == Transport::Tcp,
            message: send.message,
            timeout: send.timeout,
        })
    }

    fn poll_reply(&mut self) -> Option<(u64, Vec<u8>)> {
        self.resolver.poll_reply().map(|(client, message)| match client {
            Client::Stream(number) => (number, message),
            Client::Datagram { .. } => unreachable!("the world's clients have numbers"),
        })
    }

    fn origin(&self) -> Option<Origin> {
        Some(Origin::of(self.resolver.zones()))
    }

    fn poll_learned(&mut self) -> Option<Remembered> {
        let entry = self.resolver.poll_learned()?;
        Some((entry.key().as_bytes().to_vec(), entry.kept().message.to_vec(), entry.learned()))
    }

    fn use_upstreams(&mut self, used: &[usize], now: Moment) {
        self.settings.upstreams = used.iter().map(|&place| upstream(place)).collect();
        self.resolver.set(self.settings.clone(), now);
    }

    fn poll_check(&mut self) -> Option<TcpCheck> {
        self.resolver.poll_check()
    }

    fn on_checked(&mut self, check: &TcpCheck, accepting: Accepting, now: Moment) {
        self.resolver.on_checked(check, accepting, now);
    }

    fn look(&mut self, now: Moment, wall: Timestamp) -> (Vec<SensorResult>, Duration) {
        let (masking, sensors) = self.resolver.report(now, wall);
        (sensors, Duration::from_secs(masking.runway_s))
    }

    fn health(&self) -> u8 {
        self.resolver.health_number()
    }

    fn bytes(&self) -> u64 {
        self.resolver.cache().bytes() as u64
    }
}

/// What a crash leaves. What was learned less than a flush ago is lost.
#[derive(Default)]
struct Disk {
    kept: HashMap<Vec<u8>, (Vec<u8>, Moment)>,
    in_memory: VecDeque<(Moment, Remembered)>,
    origin: Option<Origin>,
}

/// The snapshot writer's interval, and the fsync.
const FLUSH: Duration = Duration::from_millis(600);

impl Disk {
    fn learn(&mut self, answer: Remembered, now: Moment) {
        self.flush(now);
        self.in_memory.push_back((now + FLUSH, answer));
    }

    fn flush(&mut self, now: Moment) {
        while self.in_memory.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, (key, message, learned))) = self.in_memory.pop_front() else { return };
            self.kept.insert(key, (message, learned));
        }
    }
}

/// What is on its way back: when, for which try, what.
type Delivery = (Duration, u64, Result<Vec<u8>, Lost>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lost {
    Timeout,
    Network,
}

/// A question that was asked.
#[derive(Clone)]
struct Asked {
    /// Of the run's names.
    index: Option<usize>,
    /// The question, if it is none of the run's names.
    stranger: Option<Box<Stranger>>,
    at: Duration,
    why: Asker,
    known: bool,
}

#[derive(Clone)]
struct Stranger {
    text: String,
    packet: Vec<u8>,
}

struct World<'a> {
    scenario: &'a Scenario,
    subject: Subject,
    names: Names,
    weights: Vec<f64>,
    packets: Vec<Vec<u8>>,
    seen: Vec<bool>,
    data: Data,
    /// What each name's addresses are now, sorted; empty if there are none.
    right: Vec<Vec<[u8; 4]>>,
    upstreams: Vec<Behaviour>,
    used: Vec<usize>,
    cache: Box<dyn Forwarder>,
    disk: Disk,
    /// While the process is not running: when it starts again.
    starts_at: Option<Duration>,
    /// Since the beginning.
    now: Duration,
    /// Time that passed while the machine slept.
    slept: Duration,
    wall: Timestamp,
    clients: Clients,
    /// When each kind asks next.
    next_query: Duration,
    next_flood: Duration,
    next_noise: Duration,
    flood: f64,
    noise: f64,
    next_sample: Duration,
    /// Until then is looked at often.
    watch_until: Duration,
    health: u8,
    /// How often it was woken at one time.
    wakeups: u32,
    woken_at: Duration,
    wire: BinaryHeap<Reverse<Delivery>>,
    /// Addresses that are being tried, and until when; and those where nobody takes a connection.
    checks: VecDeque<(Duration, TcpCheck, Accepting)>,
    closed: Vec<IpAddr>,
    /// In the order in which they asked.
    waiting: BTreeMap<u64, Asked>,
    next_client: u64,
    /// Names that the first round has asked for.
    swept: usize,
    random: fastrand::Rng,
    out: Vec<u8>,
    log: Log,
}

/// The id of every question: who asked is known by other means here.
const QUERY_ID: u16 = 4711;
const NEVER: Duration = Duration::MAX;
/// How often the check results are looked at around something that happens, and in quiet times.
const SAMPLE_OFTEN: Duration = Duration::from_secs(1);
const SAMPLE_SELDOM: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_mins(2);
const WAKEUPS_MAX: u32 = 10_000;
/// What a client waits at most: glibc's, for one server.
const STUB_TIMEOUT: Duration = Duration::from_secs(5);

fn right_answers(names: &Names, data: &Data) -> Vec<Vec<[u8; 4]>> {
    names.all.iter().map(|name| data.addresses(name).unwrap_or_default()).collect()
}

fn packet_of<'a>(asked: &'a Asked, packets: &'a [Vec<u8>]) -> &'a [u8] {
    match (asked.index, &asked.stranger) {
        (Some(index), _) => &packets[index],
        (None, stranger) => stranger.as_ref().map_or(&[], |stranger| &stranger.packet),
    }
}

/// Plays the scenario.
pub fn run(scenario: &Scenario, seed: u64, subject: Subject) -> Log {
    let mut world = World::new(scenario, seed, subject);
    for (at, event) in &scenario.events {
        world.run_until(*at);
        world.happen(event);
        world.watch_until = world.now + WATCH;
        world.next_sample = world.now;
        world.carry_out();
    }
    world.run_until(scenario.end);
    world.give_up_on_silence(STUB_TIMEOUT);
    world.log
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64, subject: Subject) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let names = scenario.names(&mut random);
        let packets = names.all.iter().map(|name| query(QUERY_ID, name, A, true)).collect();
        let data = scenario.data();
        let mut world = Self {
            scenario,
            subject,
            weights: names.weights(),
            packets,
            seen: vec![false; names.all.len()],
            right: right_answers(&names, &data),
            data,
            upstreams: vec![Behaviour::default(); scenario.upstreams],
            used: scenario.used.clone(),
            cache: Box::new(PlainCache::default()),
            disk: Disk::default(),
            names,
            starts_at: None,
            now: Duration::ZERO,
            slept: Duration::ZERO,
            // The night of OpenAI.
            wall: Timestamp::from_second(1_733_958_000).unwrap_or_default(),
            clients: scenario.clients,
            next_query: NEVER,
            next_flood: NEVER,
            next_noise: NEVER,
            flood: 0.0,
            noise: 0.0,
            next_sample: Duration::ZERO,
            watch_until: WATCH,
            health: 0,
            wakeups: 0,
            woken_at: Duration::ZERO,
            wire: BinaryHeap::new(),
            checks: VecDeque::new(),
            closed: Vec::new(),
            waiting: BTreeMap::new(),
            next_client: 0,
            swept: if scenario.sweep { 0 } else { usize::MAX },
            random,
            out: Vec::with_capacity(512),
            log: Log::default(),
        };
        world.start();
        world.next_query = world.arrival(world.clients.per_second);
        world
    }

    /// A new process, with what is on disk.
    fn start(&mut self) {
        let (seed, now) = (self.random.u64(..), self.moment());
        self.cache = match self.subject {
            Subject::Dogwatch => Box::new(Ours::new(self.scenario, &self.used, &self.disk, seed, now)),
            Subject::PlainCache => Box::new(PlainCache::new(&self.used)),
        };
        self.starts_at = None;
    }

    /// What the cache calls now.
    fn moment(&self) -> Moment {
        Moment::START + self.now + self.slept
    }

    fn wall(&self) -> Timestamp {
        let passed = jiff::SignedDuration::try_from(self.now + self.slept).unwrap_or_default();
        self.wall.checked_add(passed).unwrap_or(self.wall)
    }

    /// The time of the next question at this rate: arrivals are random.
    fn arrival(&mut self, per_second: f64) -> Duration {
        if per_second <= 0.0 {
            return NEVER;
        }
        let gap = Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() / per_second);
        self.now + gap.max(Duration::from_micros(100))
    }

    fn run_until(&mut self, end: Duration) {
        loop {
            let back = self.wire.peek().map_or(NEVER, |Reverse((at, ..))| *at);
            let wakeup = self.cache.next_wakeup().filter(|_| self.starts_at.is_none());
            let wakeup = wakeup.map_or(NEVER, |at| Moment::START.until(at).saturating_sub(self.slept));
            let asking = self.next_query.min(self.next_flood).min(self.next_noise);
            let starts = self.starts_at.unwrap_or(NEVER);
            let checked = self.checks.iter().map(|(at, ..)| *at).min().unwrap_or(NEVER);
            let next = back.min(wakeup).min(checked).min(asking).min(starts).min(self.next_sample);
            if next >= end {
                break;
            }
            self.now = self.now.max(next);
            if starts <= self.now {
                self.start();
            } else if checked <= self.now {
                self.hear_checks();
            } else if back <= self.now {
                self.hear_upstream();
            } else if self.next_sample <= self.now {
                self.sample();
            } else if asking <= self.now {
                self.ask_next();
            } else {
                self.wake_up();
            }
            self.carry_out();
        }
        self.now = end;
    }

    /// A core that wants to be woken at once, again and again, keeps a real daemon at 100 % of a
    /// CPU.
    fn wake_up(&mut self) {
        let now = self.moment();
        self.cache.on_wakeup(now);
        self.wakeups = match self.wakeups {
            spins @ WAKEUPS_MAX.. => spins + 1,
            wakeups if self.now == self.woken_at => wakeups + 1,
            _ => 0,
        };
        self.woken_at = self.now;
        if self.wakeups == WAKEUPS_MAX {
            self.log.complaints.push(format!("wants to be woken at once for ever, from {:?} on", self.now));
        }
        // It has been said; the run must end all the same.
        if self.wakeups >= WAKEUPS_MAX {
            self.now += Duration::from_millis(100);
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Mood { upstreams, of, mood } => {
                for &place in upstreams {
                    match of {
                        None => self.upstreams[place].set(*mood),
                        Some(name) => self.upstreams[place].set_only(&self.names.text(name), *mood),
                    }
                }
            }
            Event::Truth { name, fact } => {
                self.data.set(&self.names.text(name), fact.clone());
                self.right = right_answers(&self.names, &self.data);
            }
            Event::Closed(address) => self.closed.push(IpAddr::from(*address)),
            Event::Clients(per_second) => {
                self.clients.per_second = *per_second;
                self.next_query = self.arrival(*per_second);
            }
            Event::Flood(per_second) => {
                self.flood = *per_second;
                self.next_flood = self.arrival(*per_second);
            }
            Event::Noise(per_second) => {
                self.noise = *per_second;
                self.next_noise = self.arrival(*per_second);
            }
            Event::Use(used) => {
                self.used.clone_from(used);
                self.cache.use_upstreams(used, self.moment());
            }
            Event::Sleep(span) => {
                self.slept += *span;
                self.cache.on_wakeup(self.moment());
            }
            Event::Wall { back, by } => {
                let by = jiff::SignedDuration::try_from(*by).unwrap_or_default();
                let moved = if *back { self.wall.checked_sub(by) } else { self.wall.checked_add(by) };
                self.wall = moved.unwrap_or(self.wall);
            }
            // A stolen port is the process's business, which a core does not have.
            Event::Restart { down, orderly, .. } => {
                let now = self.moment();
                self.disk.flush(if *orderly { now + FLUSH } else { now });
                self.disk.in_memory.clear();
                self.disk.origin = self.cache.origin();
                self.wire.clear();
                self.checks.clear();
                // Their question goes to the second name server of resolv.conf, as the next ones.
                self.waiting.clear();
                self.starts_at = Some(self.now + *down);
            }
            Event::Ask { line, name } => {
                let text = self.names.text(name);
                let index = self.names.all.iter().position(|known| *known == text);
                let why = Asker::Line(u32::try_from(*line).unwrap_or(u32::MAX));
                match index {
                    Some(index) => self.ask(index, why),
                    None => self.ask_stranger(text, why),
                }
            }
        }
    }

    fn ask_next(&mut self) {
        if self.next_query <= self.now {
            self.next_query = self.arrival(self.clients.per_second);
            let index = if self.swept < self.names.all.len() {
                self.swept += 1;
                self.swept - 1
            } else {
                self.names.draw(&self.clients, &self.weights, &mut self.random)
            };
            self.ask(index, Asker::Program);
        } else if self.next_flood <= self.now {
            self.next_flood = self.arrival(self.flood);
            let text = format!("n{}.t300.test.", self.random.u32(1 << 20..1 << 24));
            self.ask_stranger(text, Asker::Flood);
        } else {
            self.next_noise = self.arrival(self.noise);
            let index = self.names.draw(&self.clients, &self.weights, &mut self.random);
            let domain = ["default.svc.cluster.test.", "svc.cluster.test.", "cluster.test."];
            let text = format!("{}{}", self.names.all[index], domain[self.random.usize(..3)]);
            self.ask_stranger(text, Asker::Noise);
        }
    }

    fn ask(&mut self, index: usize, why: Asker) {
        let known = self.seen[index];
        self.put(Asked { index: Some(index), stranger: None, at: self.now, why, known });
    }

    /// For a name that is none of the run's.
    fn ask_stranger(&mut self, text: String, why: Asker) {
        let packet = query(QUERY_ID, &text, A, true);
        let stranger = Some(Box::new(Stranger { text, packet }));
        self.put(Asked { index: None, stranger, at: self.now, why, known: false });
    }

    fn put(&mut self, asked: Asked) {
        if self.starts_at.is_some() {
            return;
        }
        let mut out = std::mem::take(&mut self.out);
        let client = self.next_client;
        self.next_client += 1;
        let now = self.moment();
        let packet = packet_of(&asked, &self.packets);
        if self.cache.on_query(packet, client, now, &mut out) {
            self.note(&asked, Some(&out));
        } else {
            self.waiting.insert(client, asked);
        }
        self.out = out;
    }

    fn note(&mut self, asked: &Asked, message: Option<&[u8]>) {
        let took = self.now.saturating_sub(asked.at);
        let mut answered = Answered::silence(asked.index, asked.at, took, asked.why, asked.known);
        if let Some(message) = message {
            let glance = Glance::at(message, packet_of(asked, &self.packets));
            answered = answered.told(self.judge(asked, &glance), &glance);
        }
        if let Some(index) = asked.index {
            self.seen[index] |= answered.worth == Judgement::Right;
        }
        self.log.answers.push(answered);
    }

    fn judge(&self, asked: &Asked, glance: &Glance) -> Judgement {
        let told = glance.addresses();
        let name = match (asked.index, &asked.stranger) {
            // Nearly every answer: what is true now, looked up once.
            (Some(index), _) if glance.rcode == NOERROR && !told.is_empty() && told == self.right[index] => {
                return if glance.truncated { Judgement::Failed } else { Judgement::Right };
            }
            (Some(index), _) => &self.names.all[index],
            (None, Some(stranger)) => &stranger.text,
            (None, None) => unreachable!("a question has a name"),
        };
        self.data.judge_told(name, (glance.rcode, glance.truncated), told)
    }

    fn hear_checks(&mut self) {
        let now = self.moment();
        let (due, waiting) =
            std::mem::take(&mut self.checks).into_iter().partition(|(at, ..)| *at <= self.now);
        self.checks = waiting;
        let due: VecDeque<_> = due;
        for (_, check, accepting) in due {
            self.cache.on_checked(&check, accepting, now);
        }
    }

    fn hear_upstream(&mut self) {
        let Some(Reverse((_, try_id, what))) = self.wire.pop() else { return };
        let now = self.moment();
        match what {
            Ok(message) => self.cache.on_reply(try_id, &message, now),
            Err(Lost::Timeout) => self.cache.on_error(try_id, TryError::Timeout, now),
            Err(Lost::Network) => self.cache.on_error(try_id, TryError::Network, now),
        }
        self.cache.on_wakeup(now);
    }

    /// Carries messages both ways, and what was learned to disk.
    fn carry_out(&mut self) {
        while let Some(send) = self.cache.poll_send() {
            self.log.sent.push((self.now, send.upstream, 1));
            let round_trip = Duration::from_millis(self.random.u64(1..20));
            let behaviour = &mut self.upstreams[send.upstream];
            let (takes, what) =
                match behaviour.act(&send.message, send.over_tcp, &self.data, self.now, &mut self.random) {
                    Act::Reply(message) => (round_trip, Ok(message)),
                    Act::Late(late, message) if late < send.timeout => (round_trip + late, Ok(message)),
                    Act::Late(..) | Act::Silence => (send.timeout, Err(Lost::Timeout)),
                    Act::Unreachable => (Duration::from_millis(1), Err(Lost::Network)),
                };
            self.wire.push(Reverse((self.now + takes, send.try_id, what)));
        }
        while let Some(check) = self.cache.poll_check() {
            let open = |all: &[IpAddr]| all.iter().any(|address| !self.closed.contains(address));
            let accepting = Accepting { old: open(&check.old), new: open(&check.new) };
            let takes = if accepting.new { Duration::from_millis(5) } else { Duration::from_secs(1) };
            self.checks.push_back((self.now + takes, check, accepting));
        }
        while let Some((client, message)) = self.cache.poll_reply() {
            if let Some(asked) = self.waiting.remove(&client) {
                self.note(&asked, Some(&message));
            }
        }
        let now = self.moment();
        while let Some(learned) = self.cache.poll_learned() {
            self.disk.learn(learned, now);
        }
        let health = self.cache.health();
        if health != self.health {
            self.health = health;
            self.watch_until = self.now + WATCH;
            self.look();
        }
    }

    fn sample(&mut self) {
        self.give_up_on_silence(STUB_TIMEOUT);
        let often = self.now < self.watch_until;
        self.next_sample = self.now + if often { SAMPLE_OFTEN } else { SAMPLE_SELDOM };
        if self.starts_at.is_none() {
            self.look();
        }
    }

    fn look(&mut self) {
        let (now, wall) = (self.moment(), self.wall());
        let (sensors, runway) = self.cache.look(now, wall);
        for sensor in sensors {
            self.log.on_sensor(self.now, &sensor.name, sensor.state, &sensor.text);
        }
        self.log.samples.push(Sample { at: self.now, bytes: self.cache.bytes(), runway });
    }

    /// Clients that have waited for longer than this have given up; the others may yet be answered.
    fn give_up_on_silence(&mut self, longest: Duration) {
        while let Some(first) = self.waiting.first_entry()
            && first.get().at + longest < self.now
        {
            let asked = first.remove();
            self.note(&asked, None);
        }
    }
}
