//! The cache's policy against a reference of one page: for each question, the last answer of the
//! upstream.
//!
//! A case is a list of [`Step`]s: clients ask, upstreams answer, fail, lie, come late or twice,
//! time passes or jumps, the loop stalls, the config is reloaded, the daemon restarts from its
//! snapshot. Each answer of an upstream has a serial number in its data, so that whatever a client
//! is told can be traced to the moment it was learned. After each step:
//!
//! - nobody is told what upstream never said to this question (name, type, DO, CD), nor anything
//!   older than told before;
//! - nothing is served past its TTL and `max_stale`; a TTL never grows, a stale one is 1 to 30 s;
//! - whoever asks for what is known is never told of a failure, and never waits longer than the
//!   client timer;
//! - every query is answered once, within 4.8 s, with its own id and its own spelling;
//! - an answer that a live question waits for is learned, however late it is; one that comes twice
//!   is not;
//! - what was learned is kept until evicted, also through a restart and a reload;
//! - whoever waits waits for somebody who was asked;
//! - the resolver's tables agree with each other (`Resolver::audit`): no flight longer than 6 s, no
//!   more than three tries, no waiter, try or timer left behind; and it never asks to be woken in
//!   the past.
//!
//! The property test draws steps at random, the fuzzer by coverage: a step is four bytes. [`Seen`]
//! tells what the stories came to, so that a model which checks nothing does not pass for one which
//! holds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::RandomState,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dogwatch_dns_core::{
    cache::Bounds,
    guard::{Rebinding, Rules},
    health::endpoint::Endpoint,
    message::{
        name::{self, Key, read_key},
        reply::Transport,
        wire::Question,
    },
    moment::Moment,
    resolver::{Client, Outcome, Remembered, Resolver, Seeds, TryError},
    settings::{Settings, ZoneSettings},
};

use crate::dns_message::{NOERROR, NXDOMAIN, Reply, SERVFAIL, SOA, push_name, read_name};

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Ask {
        question: Asks,
        form: u8,
    },
    /// An upstream answers one of the open tries.
    Reply {
        which: u8,
        what: What,
    },
    /// An upstream answers a try that is long settled, or for the second time.
    ReplyAgain {
        which: u8,
        what: What,
    },
    Error {
        which: u8,
        error: u8,
    },
    Pass {
        ms: u32,
    },
    /// Time passes, and every upstream answers everything at once.
    Well {
        ms: u32,
        what: What,
    },
    /// Time passes and nobody wakes the resolver.
    Stall {
        ms: u32,
    },
    Reload {
        settings: u8,
    },
    Restart {
        off_s: u32,
    },
    /// Time that the clock did not count.
    Unseen {
        s: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asks {
    name: u8,
    kind: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
}

/// What an upstream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Positive {
        ttl: u32,
    },
    /// Through an alias, with more records behind it.
    Chain {
        ttl: u32,
    },
    /// Too big for a datagram without EDNS, and comes over TCP.
    Big {
        ttl: u32,
    },
    /// An address that leads nowhere.
    Nowhere {
        ttl: u32,
    },
    NxDomain {
        ttl: u32,
    },
    NoData {
        ttl: u32,
    },
    EmptyWithoutSoa,
    Code(u8),
    Truncated,
    /// A right answer to another question.
    Other,
    Garbage(u8),
}

const NAMES: [&str; 6] =
    ["a.example", "b.example", "www.deep.example", "x.corp.test", "y.corp.test", "z.nostale.test"];
const KINDS: [u16; 3] = [1, 28, 16];
const TTLS: [u32; 8] = [0, 1, 5, 30, 60, 300, 3_600, 90_000];

impl Step {
    /// Any four bytes are a step.
    pub fn from(bytes: [u8; 4]) -> Self {
        let [op, a, b, c] = bytes;
        let what = || match b % 16 {
            0..4 => What::Positive { ttl: TTLS[usize::from(c % 8)] },
            4 => What::Nowhere { ttl: TTLS[usize::from(c % 8)] },
            5 => What::Chain { ttl: TTLS[usize::from(c % 8)] },
            6 => What::Big { ttl: TTLS[usize::from(c % 8)] },
            7 | 8 => What::NxDomain { ttl: TTLS[usize::from(c % 8)] },
            9 => What::NoData { ttl: TTLS[usize::from(c % 8)] },
            10 => What::EmptyWithoutSoa,
            11 => What::Code(2),
            12 => What::Code(c & 15),
            13 => What::Truncated,
            14 => What::Other,
            _ => What::Garbage(c),
        };
        // Milliseconds to hours, finer where the timers are.
        let ms = match a % 8 {
            0..3 => u32::from(c),
            3..5 => u32::from(c) * 40,
            5 | 6 => u32::from(c) * 1_000,
            _ => u32::from(c) * 15_000,
        };
        match op % 32 {
            0..10 => Self::Ask { question: Asks::from(a), form: b },
            10..18 => Self::Reply { which: a, what: what() },
            18 => Self::ReplyAgain { which: a, what: what() },
            19 | 20 => Self::Error { which: a, error: b },
            21..24 => Self::Pass { ms },
            24..28 => Self::Well { ms: ms.min(600_000), what: what() },
            28 => Self::Stall { ms: ms.min(20_000) },
            29 => Self::Reload { settings: a },
            30 => Self::Restart { off_s: ms / 1_000 },
            _ => Self::Unseen { s: ms / 100 },
        }
    }

    pub fn all_from(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks().0.iter().copied().map(Self::from).collect()
    }
}

impl What {
    /// The TTL of what may be kept, and whether it says no.
    fn lifetime(self) -> Option<(u32, bool)> {
        match self {
            Self::Positive { ttl } | Self::Nowhere { ttl } | Self::Chain { ttl } | Self::Big { ttl } => {
                Some((ttl, false))
            }
            Self::NxDomain { ttl } | Self::NoData { ttl } => Some((ttl, true)),
            Self::EmptyWithoutSoa | Self::Code(_) | Self::Truncated | Self::Other | Self::Garbage(_) => None,
        }
    }
}

impl Asks {
    fn from(byte: u8) -> Self {
        Self {
            // Few questions, so that they meet.
            name: byte % 6,
            kind: KINDS[[0, 0, 0, 0, 0, 1, 1, 2][usize::from(byte / 6 % 8)]],
            dnssec_ok: byte / 48 % 4 == 1,
            checking_disabled: byte / 48 % 4 == 2,
        }
    }

    fn key(self) -> Vec<u8> {
        let name = name::from_text(NAMES[usize::from(self.name)]).expect("a name");
        let question = Question { name: &name, kind: self.kind, class: 1 };
        Key::new(&question, self.dnssec_ok, self.checking_disabled).as_bytes().to_vec()
    }

    fn of(key: &[u8]) -> Option<Self> {
        let (question, dnssec_ok, checking_disabled) = read_key(key)?;
        let text = name::to_text(question.name);
        let name = NAMES.iter().position(|known| *known == text)?;
        Some(Self { name: u8::try_from(name).ok()?, kind: question.kind, dnssec_ok, checking_disabled })
    }

    fn in_zone(self) -> usize {
        [0, 0, 0, 1, 1, 2][usize::from(self.name)]
    }
}

/// An answer as upstream gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    serial: u32,
    at: Moment,
    ttl: u32,
    negative: bool,
    /// Time that it has aged and no clock counted; ends its freshness at most.
    unseen: Duration,
}

impl Given {
    /// As the cache bounds it.
    fn lifetime(self) -> Duration {
        let most = if self.negative { 15 * 60 } else { 24 * 3_600 };
        Duration::from_secs(u64::from(self.ttl.min(most)))
    }

    fn age(self, now: Moment) -> Duration {
        now.since(self.at) + self.unseen
    }
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    question: Asks,
    form: u8,
    until: Moment,
}

struct Try {
    id: u64,
    question: Option<Asks>,
    message: Vec<u8>,
    transport: Transport,
    until: Moment,
    sent_at: Moment,
    /// How much had happened when it was sent.
    sent: u64,
    /// Its upstreams are no longer configured.
    orphan: bool,
}

/// How often the stories came to what they are about.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub fresh: u64,
    pub stale: u64,
    /// Stale because the guard doubts upstream.
    pub held: u64,
    pub failures: u64,
    pub truncated: u64,
    /// Learned when no client waits any longer.
    pub learned_late: u64,
    pub ignored_twice: u64,
    pub evicted: u64,
    /// Known after a reload or a restart, and told.
    pub reloads: u64,
    pub restored: u64,
    pub outages: u64,
}

impl Seen {
    pub fn add(&mut self, other: &Self) {
        self.fresh += other.fresh;
        self.stale += other.stale;
        self.held += other.held;
        self.failures += other.failures;
        self.truncated += other.truncated;
        self.learned_late += other.learned_late;
        self.ignored_twice += other.ignored_twice;
        self.evicted += other.evicted;
        self.reloads += other.reloads;
        self.restored += other.restored;
        self.outages += other.outages;
    }
}

pub struct World {
    now: Moment,
    settings: Settings,
    resolver: Resolver,
    next_client: u64,
    waiting: BTreeMap<u64, Waiting>,
    open: Vec<Try>,
    settled: Vec<Try>,
    serial: u32,
    /// All that upstream said and the resolver heard, by serial.
    given: HashMap<u32, (Asks, Given)>,
    /// What the cache must hold.
    known: HashMap<Asks, Given>,
    /// Empty answers without SOA: passed on at once, never kept.
    unkept_at: HashMap<Asks, Moment>,
    /// The youngest serial that a client was told.
    told: HashMap<Asks, u32>,
    /// What the writer got: question, message, when learned, uses.
    disk: Vec<(Asks, Vec<u8>, Moment, u16)>,
    /// Forgotten there though still known.
    off_disk: HashSet<Asks>,
    evicted: u64,
    /// Counts tries, replies and errors; and which was the last that a question's flight may have
    /// ended with.
    events: u64,
    touched: HashMap<Asks, u64>,
    seen: Seen,
    story: Vec<Step>,
}

/// Plays the steps.
///
/// # Panics
/// If a promise is broken; the message has the steps up to there.
pub fn play(seed: u64, steps: &[Step]) -> Seen {
    let mut world = World::new(seed);
    for &step in steps {
        world.step(step);
    }
    world.finish()
}

impl World {
    fn new(seed: u64) -> Self {
        let (now, settings) = (Moment::START, settings(u8::try_from(seed % 32).unwrap_or(0)));
        Self {
            now,
            resolver: Resolver::new(settings.clone(), seeds(seed), now),
            settings,
            next_client: 1,
            waiting: BTreeMap::new(),
            open: Vec::new(),
            settled: Vec::new(),
            serial: 0,
            given: HashMap::new(),
            known: HashMap::new(),
            unkept_at: HashMap::new(),
            told: HashMap::new(),
            disk: Vec::new(),
            off_disk: HashSet::new(),
            evicted: 0,
            events: 0,
            touched: HashMap::new(),
            seen: Seen::default(),
            story: Vec::new(),
        }
    }

    fn broken(&self, what: &str) -> ! {
        let story: Vec<_> = self.story.iter().map(|step| format!("  {step:?}")).collect();
        panic!("{what}\nat {:?} after\n{}", self.now, story.join("\n"));
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(&what());
        }
    }

    fn step(&mut self, step: Step) {
        self.story.push(step);
        match step {
            Step::Ask { question, form } => self.ask(question, form),
            Step::Reply { which, what } => {
                if let Some(index) = pick(which, self.open.len()) {
                    let attempt = self.open.remove(index);
                    self.reply(&attempt, what);
                    self.touch(&attempt);
                    self.settle(attempt);
                }
            }
            Step::ReplyAgain { which, what } => {
                if let Some(index) = pick(which, self.settled.len()) {
                    let attempt = self.settled.remove(index);
                    self.reply_again(&attempt, what);
                }
            }
            Step::Error { which, error } => {
                if let Some(index) = pick(which, self.open.len()) {
                    let attempt = self.open.remove(index);
                    let error =
                        [TryError::Timeout, TryError::Network, TryError::Malformed][usize::from(error % 3)];
                    self.resolver.on_error(attempt.id, error, self.now);
                    self.touch(&attempt);
                    self.settle(attempt);
                }
            }
            Step::Pass { ms } => self.pass(Duration::from_millis(ms.into()), None),
            Step::Well { ms, what } => self.pass(Duration::from_millis(ms.into()), Some(what)),
            Step::Stall { ms } => {
                let span = Duration::from_millis(ms.into());
                self.now = self.now + span;
                for waiting in self.waiting.values_mut() {
                    waiting.until = waiting.until + span;
                }
            }
            Step::Reload { settings: number } => {
                let old = std::mem::replace(&mut self.settings, settings(number));
                self.resolver.set(self.settings.clone(), self.now);
                for attempt in &mut self.open {
                    let question = attempt.question;
                    attempt.orphan |= question.is_none_or(|question| {
                        asked_for(&old, question) != asked_for(&self.settings, question)
                    });
                }
                self.note_other_views(&old);
                self.seen.reloads += 1;
            }
            Step::Restart { off_s } => self.restart(Duration::from_secs(off_s.into())),
            Step::Unseen { s } => {
                let unseen = Duration::from_secs(s.into());
                self.resolver.on_unseen_time(unseen, self.now);
                for given in self.known.values_mut() {
                    let left = given.lifetime().saturating_sub(given.age(self.now));
                    given.unseen += left.min(unseen);
                }
            }
        }
        self.after();
    }

    /// Everything comes to rest when upstreams stay silent.
    fn finish(&mut self) -> Seen {
        self.pass(Duration::from_secs(12), None);
        self.after();
        self.check(self.waiting.is_empty(), || "somebody still waits".into());
        self.seen.outages += self.resolver.counts.transitions;
        self.seen
    }

    fn ask(&mut self, question: Asks, form: u8) {
        let client = self.next_client;
        self.next_client += 1;
        let packet = packet(client, question, form);
        let transport = if form & 1 == 0 { Transport::Udp } else { Transport::Tcp };
        let known = self.known.get(&question).copied();
        let within =
            |most: Duration| known.is_some_and(|given| given.age(self.now) < given.lifetime() + most);
        let (fresh, usable) = (within(Duration::ZERO), within(self.max_stale(question)));
        let mut out = vec![0xee; 7];
        match self.resolver.on_query(&packet, Client::Stream(client), transport, self.now, &mut out) {
            Outcome::Reply => {
                self.waiting.insert(client, Waiting { question, form, until: self.now });
                self.judge(client, &out);
            }
            Outcome::Wait => {
                self.check(!fresh, || format!("{question:?} is fresh, yet its client waits"));
                let most = if usable { self.settings.client_timer } else { Duration::from_millis(4_800) };
                self.waiting.insert(client, Waiting { question, form, until: self.now + most });
            }
            Outcome::Drop => self.broken("a good query is dropped"),
        }
    }

    fn reply(&mut self, attempt: &Try, what: What) {
        self.serial += 1;
        let serial = self.serial;
        let message = reply_to(&attempt.message, what, serial, attempt.transport);
        let Some(question) = attempt.question else {
            return self.resolver.on_reply(attempt.id, &message, self.now);
        };
        let before = self.learned(question);
        let whole = attempt.transport == Transport::Tcp || !matches!(what, What::Big { .. });
        if let Some((ttl, negative)) = what.lifetime().filter(|_| whole) {
            self.given.insert(
                serial,
                (question, Given { serial, at: self.now, ttl, negative, unseen: Duration::ZERO }),
            );
        }
        // Codes 0 and 3 without SOA are the same.
        if matches!(what, What::EmptyWithoutSoa | What::Code(0 | 3)) {
            self.unkept_at.insert(question, self.now);
        }
        self.resolver.on_reply(attempt.id, &message, self.now);
        let after = self.learned(question);
        // After a second opinion it may be the first that is taken.
        if after != before {
            let Some(&(given_to, given)) = after.and_then(|serial| self.given.get(&serial)) else {
                self.broken("learned what upstream never said, or forgotten over an answer")
            };
            self.check(given_to == question, || format!("{question:?} learned what {given_to:?} was given"));
            self.known.insert(question, given);
        }
        // Nothing has come of this question since it was sent, so its flight is as it was: no doubt
        // is possible of what is no denial.
        let alive =
            !attempt.orphan && self.touched.get(&question).is_none_or(|&touched| touched < attempt.sent);
        let good = matches!(what, What::Positive { .. } | What::Chain { .. } | What::Big { .. });
        if good && whole && alive {
            self.check(after == Some(serial), || {
                format!("{question:?} learned {after:?}, not {serial} from a live try")
            });
            let late = self.now.since(attempt.sent_at) > self.settings.client_timer;
            self.seen.learned_late += u64::from(late);
        }
    }

    /// An answer to a try that is over is for nobody.
    fn reply_again(&mut self, attempt: &Try, what: What) {
        self.serial += 1;
        let message = reply_to(&attempt.message, what, self.serial, attempt.transport);
        let held = |world: &Self| attempt.question.and_then(|question| world.learned(question));
        let before = held(self);
        self.resolver.on_reply(attempt.id, &message, self.now);
        self.check(held(self) == before, || format!("{:?} heard twice", attempt.question));
        self.seen.ignored_twice += 1;
    }

    /// Something came of it: its flight may be over.
    fn touch(&mut self, attempt: &Try) {
        self.events += 1;
        if let Some(question) = attempt.question {
            self.touched.insert(question, self.events);
        }
    }

    /// The serial that the cache holds.
    fn learned(&self, question: Asks) -> Option<u32> {
        let slot = self.resolver.cache().find(&question.key())?;
        serial_of(&Reply::parse(self.resolver.cache().get(slot)?.kept().message))
    }

    fn settle(&mut self, attempt: Try) {
        self.settled.push(attempt);
        if self.settled.len() > 8 {
            self.settled.remove(0);
        }
    }

    /// Time passes; upstreams are silent, or all say the same.
    fn pass(&mut self, span: Duration, what: Option<What>) {
        let end = self.now + span;
        loop {
            self.wake();
            while let Some(what) = what
                && let Some(attempt) = self.open.pop()
            {
                self.reply(&attempt, what);
                self.touch(&attempt);
                self.settle(attempt);
                self.drain();
            }
            if self.now >= end {
                return;
            }
            let next = self.open.iter().map(|attempt| attempt.until).chain(self.resolver.next_wakeup()).min();
            self.now = next.unwrap_or(end).clamp(self.now + Duration::from_millis(1), end);
        }
    }

    /// Timeouts of the transport, then the resolver's own timers, until it is content.
    fn wake(&mut self) {
        let now = self.now;
        let (over, open) =
            std::mem::take(&mut self.open).into_iter().partition(|attempt| attempt.until <= now);
        self.open = open;
        let over: Vec<Try> = over;
        for attempt in over {
            self.resolver.on_error(attempt.id, TryError::Timeout, now);
            self.touch(&attempt);
            self.settle(attempt);
            self.drain();
        }
        for _ in 0..20 {
            self.resolver.on_wakeup(now);
            self.drain();
            if self.resolver.next_wakeup().is_none_or(|next| next > now) {
                return;
            }
        }
        self.broken("it wants to be woken now, and now, and now");
    }

    fn after(&mut self) {
        self.drain();
        self.wake();
        if let Err(wrong) = self.resolver.audit(self.now) {
            self.broken(&wrong);
        }
        let evicted = self.resolver.cache().evicted;
        let lost: Vec<_> =
            self.known.keys().filter(|question| self.learned(**question).is_none()).copied().collect();
        let gone = evicted - self.evicted;
        self.check(lost.len() as u64 <= gone, || format!("{lost:?} are forgotten, yet {gone} were evicted"));
        for question in lost {
            self.known.remove(&question);
        }
        self.seen.evicted += gone;
        self.evicted = evicted;
        for (question, given) in &self.known {
            let held = self.learned(*question);
            self.check(held == Some(given.serial), || format!("{question:?} holds {held:?}, not {given:?}"));
        }
        self.check(self.resolver.cache().bytes() <= self.settings.bounds.bytes_max, || {
            "over the byte cap".into()
        });
        for waiting in self.waiting.values() {
            let asked = |attempt: &Try| attempt.question == Some(waiting.question) && !attempt.orphan;
            self.check(self.open.iter().any(asked), || format!("{waiting:?} waits, and nobody is asked"));
        }
        let late = self.waiting.values().find(|waiting| waiting.until < self.now);
        self.check(late.is_none(), || format!("{late:?} waits too long"));
    }

    fn drain(&mut self) {
        while let Some(send) = self.resolver.poll_send() {
            let query = &send.message;
            self.check(query[2] & 0x81 == 1 && query[4..12] == [0, 1, 0, 0, 0, 0, 0, 1], || {
                format!("sent {query:?}")
            });
            let (text, at) = read_name(query, 12);
            let kind = u16::from_be_bytes([query[at], query[at + 1]]);
            let place = NAMES.iter().position(|known| text.trim_end_matches('.').eq_ignore_ascii_case(known));
            let question = place.and_then(|place| {
                Some(Asks {
                    name: u8::try_from(place).ok()?,
                    kind,
                    dnssec_ok: query[query.len() - 4] & 0x80 != 0,
                    checking_disabled: query[3] & 0x10 != 0,
                })
            });
            // The canary of a zone that knows no name yet is its own.
            let canary = ["", "corp.test.", "nostale.test."].contains(&text.as_str());
            self.check(question.is_some() || canary, || format!("nobody asked for {text} type {kind}"));
            self.check(!send.timeout.is_zero() && send.timeout <= Duration::from_secs(6), || {
                format!("a try of {:?}", send.timeout)
            });
            self.events += 1;
            self.open.push(Try {
                sent_at: self.now,
                sent: self.events,
                orphan: false,
                id: send.try_id,
                question,
                transport: send.transport,
                until: self.now + send.timeout,
                message: send.message,
            });
        }
        while let Some((client, message)) = self.resolver.poll_reply() {
            let Client::Stream(client) = client else { self.broken("nobody asked that way") };
            self.judge(client, &message);
        }
        while let Some(entry) = self.resolver.poll_learned() {
            let question = Asks::of(&entry.key());
            let uses = u16::try_from(entry.popularity()).unwrap_or(u16::MAX);
            let record = (entry.kept().message.to_vec(), entry.learned());
            let Some(question) = question else { continue };
            self.off_disk.remove(&question);
            self.disk.push((question, record.0, record.1, uses));
            // As the writer does now and then; some older news stays among the newer.
            if self.disk.iter().filter(|(other, ..)| *other == question).count() > 3 {
                let first = self.disk.iter().position(|(other, ..)| *other == question);
                first.map(|first| self.disk.remove(first));
            }
        }
    }

    fn judge(&mut self, client: u64, message: &[u8]) {
        let Some(waiting) = self.waiting.remove(&client) else {
            self.broken("an answer for nobody, or the second")
        };
        let Waiting { question, form, .. } = waiting;
        let reply = Reply::parse(message);
        let spelled = spelled(question, form);
        self.check(
            u64::from(reply.id) == client & 0xffff
                && reply.name.trim_end_matches('.') == spelled
                && reply.kind == question.kind,
            || format!("{reply:?} is no answer to {spelled}"),
        );
        let edns = (form & 2 != 0 || question.dnssec_ok).then_some(question.dnssec_ok);
        self.check(reply.edns == edns, || format!("{reply:?}, OPT should be {edns:?}"));
        self.check(reply.flags & 0x8580 & !0x400 == 0x8180, || format!("flags {:04x}", reply.flags));
        let known = self.known.get(&question).copied();
        if reply.rcode == SERVFAIL {
            self.seen.failures += 1;
            if let Some(given) = known {
                let old = given.age(self.now) >= given.lifetime() + self.max_stale(question);
                self.check(old, || format!("{question:?} is known ({given:?}), yet fails: {reply:?}"));
            }
            return;
        }
        self.check(reply.rcode == NOERROR || reply.rcode == NXDOMAIN, || format!("{reply:?}"));
        if reply.truncated {
            self.check(form & 1 == 0 && reply.answers.is_empty(), || format!("{reply:?}"));
            self.seen.truncated += 1;
            return;
        }
        let Some(serial) = serial_of(&reply) else {
            let passed_on = self.unkept_at.get(&question) == Some(&self.now) && known.is_none();
            return self.check(passed_on, || format!("an empty answer from nowhere to {question:?}"));
        };
        let Some(&(given_to, given)) = self.given.get(&serial) else {
            self.broken("upstream never said that")
        };
        self.check(given_to == question, || format!("{question:?} got the answer to {given_to:?}"));
        // What is held has aged as the clock could not see.
        let given = known.filter(|known| known.serial == serial).unwrap_or(given);
        let told = self.told.insert(question, serial);
        self.check(told.is_none_or(|told| told <= serial), || {
            format!("{question:?} went back from {told:?} to {serial}")
        });
        match &reply.extended_error {
            Some((3 | 19, why)) => {
                self.seen.stale += 1;
                self.seen.held += u64::from(why.starts_with("held"));
            }
            _ => self.seen.fresh += 1,
        }
        self.judge_age(&reply, question, given);
    }

    fn judge_age(&self, reply: &Reply, question: Asks, given: Given) {
        let age = given.age(self.now);
        let most = given.lifetime() + self.max_stale(question);
        // What was learned this moment may be told, though its TTL be zero.
        self.check(age <= most, || format!("{question:?}: {given:?} is {age:?} old, {most:?} is the most"));
        let records = reply.answers.iter().chain(&reply.authorities);
        let stale = reply.extended_error.as_ref().map(|(code, _)| matches!(code, 3 | 19));
        for record in records {
            let left = u64::from(given.ttl).saturating_sub(age.as_secs());
            let in_range = match stale {
                Some(true) => (1..=30).contains(&record.ttl) && record.ttl <= given.ttl.max(1),
                _ if reply.edns.is_some() => u64::from(record.ttl) <= left,
                _ => u64::from(record.ttl) <= left.max(30),
            };
            self.check(in_range, || {
                format!("TTL {} of {given:?}, {age:?} old, stale: {stale:?}", record.ttl)
            });
        }
        if reply.edns.is_some() && stale != Some(true) {
            let fresh = age < given.lifetime() || age.is_zero();
            self.check(fresh, || format!("{question:?}: {given:?} is {age:?} old and not called stale"));
        }
    }

    fn max_stale(&self, question: Asks) -> Duration {
        match self.settings.zones.get(question.in_zone().wrapping_sub(1)) {
            Some(zone) if !zone.serve_stale => Duration::ZERO,
            Some(zone) => zone.max_stale,
            None => self.settings.max_stale,
        }
    }

    /// What other upstreams said of a zone's names ends with the reload that adds the zone or takes
    /// it away: a "no" is forgotten, all else is asked anew; the disk forgets both.
    fn note_other_views(&mut self, old: &Settings) {
        let (before, now, here) = (old, &self.settings, self.now);
        self.known.retain(|&question, given| {
            let moved = asked_for(before, question).0 != asked_for(now, question).0;
            if moved {
                given.unseen += given.lifetime().saturating_sub(given.age(here));
            }
            !(moved && given.negative)
        });
        while let Some(key) = self.resolver.poll_forgotten() {
            let question = Asks::of(&key);
            self.disk.retain(|(other, ..)| Some(*other) != question);
            self.off_disk.extend(question);
        }
    }

    fn restart(&mut self, off: Duration) {
        self.now = self.now + off;
        let off_disk = std::mem::take(&mut self.off_disk);
        self.known.retain(|question, _| !off_disk.contains(question));
        (self.waiting, self.open, self.settled) = Default::default();
        self.known.values_mut().for_each(|given| given.unseen = Duration::ZERO);
        self.seen.outages += self.resolver.counts.transitions;
        let seeds = seeds(self.now.since(Moment::START).as_secs());
        self.resolver = Resolver::new(self.settings.clone(), seeds, self.now);
        self.evicted = 0;
        self.disk.sort_by_key(|(_, _, learned, _)| *learned);
        for (question, message, learned, uses) in &self.disk {
            let remembered = Remembered {
                dnssec_ok: question.dnssec_ok,
                checking_disabled: question.checking_disabled,
                uses: *uses,
                age: self.now.since(*learned),
                ..Remembered::new(message)
            };
            self.seen.restored += u64::from(self.resolver.restore(&remembered, self.now));
        }
    }
}

fn pick(which: u8, len: usize) -> Option<usize> {
    (len > 0).then(|| usize::from(which) % len)
}

fn seeds(seed: u64) -> Seeds {
    Seeds::repeatable(seed, RandomState::new())
}

fn settings(number: u8) -> Settings {
    let upstream = |last| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 53)).into();
    let zone = |suffix: &str, last, serve_stale| ZoneSettings {
        suffix: name::from_text(suffix).expect("a name").into(),
        upstreams: vec![upstream(last)],
        max_stale: Duration::from_hours(if number & 4 == 0 { 2 } else { 100 }),
        serve_stale,
        guard: Rules::default(),
        rebinding: Rebinding::default(),
    };
    Settings {
        upstreams: (1..=1 + number % 3).map(upstream).collect(),
        zones: if number & 8 == 0 {
            vec![zone("corp.test", 9, true), zone("nostale.test", 1, false)]
        } else {
            Vec::new()
        },
        max_stale: Duration::from_hours(if number & 2 == 0 { 72 } else { 1 }),
        bounds: Bounds { bytes_max: if number & 16 == 0 { 1 << 20 } else { 3_200 }, ..Bounds::default() },
        ..Settings::default()
    }
}

/// Which upstreams a question is for, and as whose.
fn asked_for(settings: &Settings, question: Asks) -> (usize, &[Endpoint]) {
    match question.in_zone() {
        zone @ 1.. if !settings.zones.is_empty() => (zone, &settings.zones[zone - 1].upstreams),
        _ => (0, &settings.upstreams),
    }
}

/// Bits of `form`: 1 TCP, 2 EDNS, 4 capitals, 8 AD.
fn packet(client: u64, question: Asks, form: u8) -> Vec<u8> {
    let edns = form & 2 != 0 || question.dnssec_ok;
    let id = u16::try_from(client & 0xffff).expect("masked");
    let mut packet = crate::dns_message::query(id, &spelled(question, form), question.kind, edns);
    packet[3] |= if question.checking_disabled { 0x10 } else { 0 } | if form & 8 != 0 { 0x20 } else { 0 };
    if question.dnssec_ok {
        let flags = packet.len() - 4;
        packet[flags] |= 0x80;
    }
    packet
}

fn spelled(question: Asks, form: u8) -> String {
    let name = NAMES[usize::from(question.name)];
    if form & 4 == 0 { name.to_owned() } else { name.to_uppercase() }
}

fn serial_of(reply: &Reply) -> Option<u32> {
    // An address may have a first byte of its own.
    let low = |bytes: [u8; 4]| u32::from_be_bytes(bytes) & 0xff_ffff;
    let soa = reply.authorities.iter().find(|record| record.kind == SOA).and_then(|soa| soa.data.get(2..6));
    let answer = reply.answers.last().and_then(|answer| answer.data.get(..4));
    answer.or(soa).and_then(|bytes| bytes.try_into().ok()).map(low)
}

fn reply_to(query: &[u8], what: What, serial: u32, transport: Transport) -> Vec<u8> {
    let (_, name_end) = read_name(query, 12);
    let mut reply = query[..name_end + 4].to_vec();
    let kind = [query[name_end], query[name_end + 1]];
    reply[2] = 0x81;
    reply[3] = 0x80 | (query[3] & 0x10);
    reply[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    let record = |reply: &mut Vec<u8>, ttl: u32, data: &[u8]| {
        reply.extend([0xc0, 12, kind[0], kind[1], 0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        reply.extend(data);
    };
    // 11.0.0.0/8: an address like any other.
    let address = (serial | 11 << 24).to_be_bytes();
    match what {
        What::Positive { ttl } => {
            reply[7] = 1;
            record(&mut reply, ttl, &address);
        }
        What::Nowhere { ttl } => {
            reply[7] = 1;
            record(&mut reply, ttl, &serial.to_be_bytes());
        }
        What::Chain { ttl } => {
            reply[7] = 2;
            reply.extend([0xc0, 12, 0, 5, 0, 1]);
            reply.extend(ttl.to_be_bytes());
            reply.extend([0, 2, 0xc0, 12]);
            record(&mut reply, ttl, &address);
            reply[11] = 2;
            record(&mut reply, 7, &[1; 4]);
            reply.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }
        What::Big { ttl } => {
            reply[7] = 1;
            record(&mut reply, ttl, &[address.to_vec(), vec![0; 560]].concat());
            if transport == Transport::Udp {
                reply.truncate(name_end + 4);
                reply[2] |= 2;
                reply[7] = 0;
            }
        }
        What::NxDomain { ttl } | What::NoData { ttl } => {
            reply[3] |= if matches!(what, What::NxDomain { .. }) { 3 } else { 0 };
            reply[9] = 1;
            reply.extend([0xc0, 12, 0, 6, 0, 1]);
            reply.extend(ttl.to_be_bytes());
            // Root as server and mailbox, then serial, three timers and the minimum.
            reply.extend([0, 22, 0, 0]);
            reply.extend(serial.to_be_bytes());
            reply.extend([0; 12]);
            reply.extend(ttl.to_be_bytes());
        }
        What::EmptyWithoutSoa => {}
        What::Code(code) => reply[3] |= code,
        What::Truncated => reply[2] |= 2,
        What::Other => {
            reply.truncate(12);
            reply[7] = 1;
            push_name(&mut reply, "other.example.");
            reply.extend([kind[0], kind[1], 0, 1]);
            record(&mut reply, 60, &serial.to_be_bytes());
        }
        What::Garbage(length) => reply.truncate(usize::from(length) % reply.len()),
    }
    reply
}
