//! Service, outbox and state with an alertd behind a bad network, with crashes, in virtual time,
//! for many seeds.

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::Memory;
use dogwatch::{
    moment::Moment,
    report::{
        self, About,
        outbox::{Failure, Limits, NextBatch, Outbox, Verdict},
    },
    service::{Announced, Rules, Service},
    state::{Saved, SavedService},
    status::Confirm,
};
use dogwatch_checks::{CheckResult, State};
use dogwatch_wire::{Batch, BatchReply, Event, EventKind, Heartbeat, PROTOCOL, digest};
use jiff::Timestamp;

const MINUTE: u64 = 60;

#[test]
fn an_alert_raised_during_an_outage_arrives_exactly_once() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.loss_percent = 100;
        world.run_for(1, |_| State::Ok);
        world.run_for(30 * MINUTE, |_| State::Critical);
        assert_eq!(world.accepted(), Vec::<String>::new(), "seed {seed}");

        world.loss_percent = 40; // acks get lost too, so batches repeat
        world.run_for(10 * MINUTE, |_| State::Critical);
        assert_eq!(world.accepted(), ["db OK -> CRITICAL"], "seed {seed}");
    }
}

#[test]
fn despite_loss_repeats_and_crashes_every_change_arrives_once_and_in_order() {
    let (mut repeats, mut crashes, mut changes) = (0, 0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.loss_percent = 30;
        world.repeat_percent = 20;
        world.crash_permille = 5;
        let mut random = fastrand::Rng::with_seed(seed ^ 0xd1ce);
        for _ in 0..20 {
            let truth = [State::Ok, State::Warning, State::Critical, State::Ok][random.usize(..4)];
            world.run_for(random.u64(20..3 * MINUTE), |_| truth);
        }
        world.loss_percent = 0;
        world.crash_permille = 0;
        world.run_for(5 * MINUTE, |_| State::Critical);

        let mut before = State::Ok.name().to_owned();
        for change in world.accepted() {
            let (from, to) = change.strip_prefix("db ").unwrap().split_once(" -> ").unwrap();
            assert_eq!(from, before, "seed {seed}: lost between {:#?}", world.accepted());
            assert_ne!(from, to, "seed {seed}: twice in {:#?}", world.accepted());
            to.clone_into(&mut before);
        }
        assert_eq!(before, "CRITICAL", "seed {seed}");
        assert_eq!(world.alertd.gaps, 0, "seed {seed}");
        repeats += world.alertd.repeats;
        crashes += world.crashes;
        changes += world.accepted().len();
    }
    println!("200 seeds: {changes} changes, {repeats} repeats recognized, {crashes} crashes");
    assert!(repeats > 100 && crashes > 100, "too little happened: {repeats} repeats, {crashes} crashes");
}

#[test]
fn an_alertd_that_lost_its_store_is_corrected_by_the_next_heartbeat() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.run_for(5 * MINUTE, |_| State::Critical);
        world.alertd = Memory::default();
        world.run_for(MINUTE, |_| State::Critical);
        assert_eq!(world.alertd.states["db"], (State::Critical, false), "seed {seed}");
        assert!(world.alertd.asked_for_states > 0);
    }
}

/// One agent, one service, one alertd.
struct World {
    random: fastrand::Rng,
    /// Tenths of a second since boot.
    now: u64,
    loss_percent: u8,
    repeat_percent: u8,
    crash_permille: u16,
    crashes: u32,
    agent: Agent,
    disk: Disk,
    /// Messages in flight, with their time of arrival.
    to_alertd: Vec<(u64, Batch, Loss)>,
    to_agent: Vec<(u64, Option<BatchReply>)>,
    alertd: Memory,
}

/// What the network does to a batch.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    None,
    Answer,
    /// A copy that is delivered late; its answer is lost.
    Ghost,
}

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    spool: Vec<Event>,
    acked: u64,
    state: Saved,
}

/// What a crash destroys.
struct Agent {
    service: Service,
    outbox: Outbox,
    /// An order to the disk, and when it is done.
    order: Option<(u64, Vec<Event>, Saved)>,
    dirty: bool,
    next_run: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = Disk::default();
        Self {
            random: fastrand::Rng::with_seed(seed),
            now: 0,
            loss_percent: 0,
            repeat_percent: 0,
            crash_permille: 0,
            crashes: 0,
            agent: Agent::start(&disk, 0),
            disk,
            to_alertd: Vec::new(),
            to_agent: Vec::new(),
            alertd: Memory::default(),
        }
    }

    fn run_for(&mut self, seconds: u64, truth: impl Fn(u64) -> State) {
        for _ in 0..10 * seconds {
            self.now += 1;
            if self.random.u16(..1_000) < self.crash_permille && self.now.is_multiple_of(10) {
                self.crash();
            }
            self.check(truth(self.now));
            self.write();
            self.talk();
        }
    }

    /// A result every ten seconds. Two in a row make a problem hard.
    fn check(&mut self, truth: State) {
        if self.now < self.agent.next_run {
            return;
        }
        self.agent.next_run = self.now + 100;
        let rules = Rules { confirm: Confirm::After(2), flapping: None };
        let (at, nothing) = (wall(self.now), BTreeMap::new());
        if let Some(transition) = self.agent.service.on_result(&CheckResult::new(truth, "x"), rules, at) {
            let about = About { name: "db", labels: &nothing, annotations: &nothing };
            self.agent.outbox.push(at, report::transition(about, &transition));
        }
        self.agent.dirty = true;
    }

    /// Like `store`: events first, then the state. Both take half a second.
    fn write(&mut self) {
        if let Some((_, events, state)) = self.agent.order.take_if(|(done, ..)| *done <= self.now) {
            if let Some(last) = events.last() {
                self.agent.outbox.on_spooled(last.seq);
            }
            self.disk.take(events);
            self.disk.state = state;
            let settled = self.agent.outbox.settled();
            self.disk.acked = self.disk.acked.max(settled);
            self.disk.spool.retain(|event| event.seq > settled);
        }
        let events: Vec<Event> = self.agent.outbox.unspooled().cloned().collect();
        if self.agent.order.is_none() && (self.agent.dirty || !events.is_empty()) {
            self.agent.dirty = false;
            let state = self.agent.snapshot();
            self.agent.order = Some((self.now + self.random.u64(1..6), events, state));
        }
    }

    fn talk(&mut self) {
        let now = self.now;
        for (_, batch, loss) in self.to_alertd.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            let reply = self.alertd.take(batch);
            match loss {
                Loss::None => self.to_agent.push((now + 1, Some(reply))),
                Loss::Answer => self.to_agent.push((now + 100, None)),
                Loss::Ghost => {}
            }
        }
        for (_, reply) in self.to_agent.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            let random = self.random.f64();
            if let Some(reply) = reply {
                let verdict = self.agent.outbox.on_reply(&reply, moment(now), random);
                assert_eq!(verdict, Verdict::Accepted, "a disk that keeps synced data loses nothing");
            } else {
                let failure = Failure::Later { retry_after: None };
                self.agent.outbox.on_failure(failure, moment(now), random);
            }
        }
        if let Some(next) = self.agent.outbox.poll_send(moment(now)) {
            self.send(next);
        }
    }

    fn send(&mut self, next: NextBatch) {
        let batch = self.agent.batch(next, self.now);
        let lost = |random: &mut fastrand::Rng, percent| random.u8(..100) < percent;
        if lost(&mut self.random, self.repeat_percent) {
            let late = self.now + self.random.u64(1..600);
            self.to_alertd.push((
                late,
                Batch { heartbeat: None, states: None, ..batch.clone() },
                Loss::Ghost,
            ));
        }
        if lost(&mut self.random, self.loss_percent) {
            // Lost. The client gives up after ten seconds.
            self.to_agent.push((self.now + 100, None));
        } else {
            let fate = if lost(&mut self.random, self.loss_percent) { Loss::Answer } else { Loss::None };
            self.to_alertd.push((self.now + 1, batch, fate));
        }
    }

    /// `kill -9`: an order to the disk may not have started, may be half done, or done.
    fn crash(&mut self) {
        self.crashes += 1;
        if let Some((_, events, state)) = self.agent.order.take() {
            let steps = self.random.u8(..3);
            if steps > 0 {
                self.disk.take(events);
            }
            if steps > 1 {
                self.disk.state = state;
            }
        }
        // Messages to the agent are lost; messages to alertd arrive.
        self.to_agent.clear();
        for (_, _, loss) in &mut self.to_alertd {
            *loss = Loss::Ghost;
        }
        self.agent = Agent::start(&self.disk, self.now);
    }

    fn accepted(&self) -> Vec<String> {
        let changes = self.alertd.events.iter().map(|event| match &event.kind {
            EventKind::Transition(transition) => {
                let (service, state) = (&transition.now.service, transition.now.state.name());
                format!("{service} {} -> {state}", transition.from.name())
            }
            EventKind::Removed { service } => format!("{service} removed"),
        });
        changes.collect()
    }
}

impl Disk {
    fn take(&mut self, events: Vec<Event>) {
        let last = self.spool.last().map_or(0, |event| event.seq);
        self.spool.extend(events.into_iter().filter(|event| event.seq > last));
    }
}

impl Agent {
    fn start(disk: &Disk, now: u64) -> Self {
        let mut state = disk.state.clone();
        state.replay(EPOCH, &disk.spool);
        let next_seq = disk.spool.last().map_or(disk.acked, |event| event.seq).max(state.through) + 1;
        let waiting = disk.spool.iter().filter(|event| event.seq > disk.acked).cloned().collect();
        Self {
            service: state.services.remove("db").unwrap_or_default().service,
            outbox: Outbox::new(LIMITS, 0, waiting, next_seq, moment(now)),
            order: None,
            dirty: false,
            next_run: now,
        }
    }

    fn snapshot(&self) -> Saved {
        let db = SavedService { service: self.service.clone(), fresh_until: None, last: None };
        Saved {
            epoch: EPOCH,
            through: self.outbox.next_seq() - 1,
            services: [("db".to_owned(), db)].into(),
            pasts: BTreeMap::default(),
        }
    }

    fn batch(&self, next: NextBatch, now: u64) -> Batch {
        let nothing = BTreeMap::new();
        let about = About { name: "db", labels: &nothing, annotations: &nothing };
        let announced = self.service.announced();
        let state = announced.map_or(State::Ok, Announced::state);
        Batch {
            protocol: PROTOCOL,
            agent: "a".into(),
            host: "h".into(),
            epoch: format!("{EPOCH:016x}"),
            run: String::new(),
            boot: String::new(),
            sent_at: wall(now),
            events: next.events,
            heartbeat: next.heartbeat.then(|| Heartbeat {
                digest: digest([("db", state, false)]),
                next_within_s: 30,
                version: "0".into(),
                services: 1,
                changes: Vec::new(),
            }),
            states: next.states.then(|| vec![report::service_state(about, announced, wall(0))]),
            states_part: None,
        }
    }
}

const EPOCH: u64 = 1;
const LIMITS: Limits = Limits { bytes_max: 1_000_000, heartbeat: Duration::from_secs(30) };

fn moment(now: u64) -> Moment {
    Moment(Duration::from_millis(100 * now))
}

fn wall(now: u64) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(100 * now).expect("a short run")).expect("a time after 1970")
}
