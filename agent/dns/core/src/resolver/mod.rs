//! The core of the cache: queries, replies and time go in; answers, upstream queries and the next
//! wake-up time come out. No I/O, no clock.
//!
//! Promises, for any name that was answered before (unless evicted or past `max_stale`):
//! - It is answered whatever happens to the upstreams; while they have trouble, at once.
//! - Equal questions share one flight. A flight sends at most three queries and ends after six
//!   seconds.
//! - No failure removes an answer, and a late answer still refreshes it.
//! - After an outage, known names are refreshed no faster than the upstreams were asked before it.
//!
//! The shell feeds [`Resolver::on_query`], [`Resolver::on_reply`], [`Resolver::on_error`] and
//! [`Resolver::on_wakeup`], then drains [`Resolver::poll_send`], [`Resolver::poll_reply`],
//! [`Resolver::poll_check`] and [`Resolver::poll_learned`].
//!
//! | module | what it does |
//! | --- | --- |
//! | [`hit`] | answers a packet from the cache alone; the answering threads use it too |
//! | `client` | where an answer goes |
//! | `answering` | answers clients at once or when a flight ends |
//! | `flight` | one question on its way: waiting clients, tries, deadlines |
//! | `asking` | sends tries and probes, and learns from the replies |
//! | `casing` | chooses the case of a question's letters, and checks it in the answer (0x20) |
//! | `guarding` | asks the guard before an answer replaces a good one |
//! | `checking` | delays a pinned name's new addresses until one accepts a TCP connection |
//! | `pauses` | excuses upstreams for the time in which this daemon did not run |
//! | `refreshing` | refreshes after an outage, keep-warm, pinned names |
//! | `restoring` | puts back saved answers; time that the clock did not count |
//! | `report` | check results, status, listings, counters |
//! | `audit` | checks that the tables agree, for property tests and the fuzzer |

mod answering;
mod asking;
mod audit;
mod casing;
mod checking;
mod client;
mod flight;
mod guarding;
pub mod hit;
mod pauses;
mod refreshing;
mod report;
mod restoring;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    sync::Arc,
    time::Duration,
};

pub use self::{
    checking::{Accepting, TcpCheck},
    client::Client,
    report::{
        counts::{Counts, Tally},
        guard_sensor::Holding,
        inspect::{Flushed, Listed, Order, PAGE_MAX, Page, Selection},
        sensors::{Explanation, Masking, Status, UpstreamStatus},
        words::{DrillStatus, RecordsText, SensorResult, WhyHeld},
    },
    restoring::{Remembered, RememberedAnswers, Restored},
};
use self::{flight::Flight, report::counts::LastMinute, restoring::Start};
pub use crate::random::Seeds;
use crate::{
    cache::{self, Cache, Slot},
    fire_drill::FireDrill,
    health::{breaker::Failure, endpoint::Endpoint, failures::Failures},
    message::{
        name::Key,
        reply::{self, Transport},
        wire,
    },
    moment::Moment,
    policy::{self, Cached, Plan, StaleReason, Upstreams},
    random::Random,
    resolver::hit::{Hit, Odd, Reader, ZoneStates},
    settings::Settings,
    zones::{
        pinned::Pins,
        views::Views,
        warm,
        zone::{Zone, ZoneId, Zones},
    },
};

/// What to do after a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is in the buffer.
    Reply,
    /// It comes from [`Resolver::poll_reply`] later.
    Wait,
    Drop,
}

/// A query to send to an upstream. Its reply or error is returned with the same `try_id`.
#[derive(Debug)]
pub struct Send {
    pub try_id: u64,
    pub upstream: Endpoint,
    pub transport: Transport,
    pub message: Vec<u8>,
    /// UDP only: skip answers in different case, and report the first as [`TryError::OtherCase`].
    pub letters_matter: bool,
    /// When the answer counts as late: a persistent connection it was expected on is then no longer
    /// trusted.
    pub late_after: Duration,
    /// Give up after this time.
    pub timeout: Duration,
    /// It decides whether the upstream counts as healthy, so it must not wait behind others.
    pub probe: bool,
}

/// Why the transport got no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryError {
    Timeout,
    Network,
    /// The upstream closed the connection before it answered.
    Closed,
    Handshake,
    CertificateExpired,
    CertificateName,
    CertificateUntrusted,
    /// The reply is not a DNS message.
    Malformed,
    /// A reply came that matches except for its letter case. The try continues.
    OtherCase,
    /// Out of sockets or memory: not the upstream's fault.
    Local,
}

/// RFC 8767 §5, failure recheck timer. Shorter than its 30 s, because the breaker limits queries to
/// the group anyway.
const RECHECK_AFTER: Duration = Duration::from_secs(5);
/// A client without a stale answer gets its failure just before a stub resolver gives up
/// (resolv.conf(5): 5 s).
const FAIL_AFTER: Duration = Duration::from_millis(4_800);
/// Most flights at once, probes not counted; beyond that, queries are answered from the cache or
/// fail.
const FLIGHTS_MAX: usize = 1_024;
/// Most probes under way. They have places of their own: without a verdict, an upstream that went
/// silent under a flood of questions would count as healthy.
const PROBES_MAX: usize = 256;
/// Of these, places that only questions for known names can take.
const FLIGHTS_KEPT: usize = 128;
/// A question for an unknown name that has been under way for this long gives its place to a new
/// one: most likely its servers are dead. Not sooner, because its sockets stay open until its
/// deadline.
const GIVES_WAY_AFTER: Duration = Duration::from_millis(1_500);
/// Most clients waiting for one answer …
const WAITERS_MAX: usize = 2_048;
/// … of which this many always find room, and the others only …
const WAITERS_SURE: usize = 256;
/// … while no more wait for all answers together.
const WAITERS_TOTAL: usize = 16_384;
/// Most answers waiting for the snapshot writer.
const LEARNED_MAX: usize = 65_536;

pub struct Resolver {
    settings: Settings,
    cache: Cache,
    failures: Failures,
    zones: Zones,
    /// The zones' state as published to the answering threads.
    states: Arc<ZoneStates>,
    flights: BTreeMap<u64, Flight>,
    /// How many of them are probes.
    probes_out: usize,
    by_key: BTreeMap<Box<[u8]>, u64>,
    by_try: BTreeMap<u64, u64>,
    timers: BinaryHeap<Reverse<(Moment, u64)>>,
    next_id: u64,
    sends: VecDeque<Send>,
    replies: VecDeque<(Client, Vec<u8>)>,
    checks: VecDeque<TcpCheck>,
    learned: VecDeque<Box<[u8]>>,
    /// Flushed by an operator, not yet removed from disk.
    forgotten: VecDeque<Box<[u8]>>,
    fire_drill: Option<FireDrill>,
    /// Answers to keep warm, by the time to check them.
    warm: warm::Schedule,
    pins: Pins,
    last_minute: LastMinute,
    pub counts: Counts,
    /// The last restore from a snapshot, if any.
    start: Option<Start>,
    /// Set by the shell, for status output.
    pub restored: Restored,
    random: Random,
}

impl Resolver {
    /// An empty cache.
    pub fn new(settings: Settings, seeds: Seeds, now: Moment) -> Self {
        Self {
            cache: Cache::new(settings.bounds.clone(), seeds.hash_keys),
            failures: Failures::default(),
            zones: Zones::new(&settings, now),
            states: Arc::default(),
            flights: BTreeMap::new(),
            probes_out: 0,
            by_key: BTreeMap::new(),
            by_try: BTreeMap::new(),
            timers: BinaryHeap::new(),
            next_id: 1,
            sends: VecDeque::new(),
            replies: VecDeque::new(),
            checks: VecDeque::new(),
            learned: VecDeque::new(),
            forgotten: VecDeque::new(),
            fire_drill: None,
            warm: warm::Schedule::default(),
            pins: Pins::new(&settings.pinned, now),
            last_minute: LastMinute::default(),
            counts: Counts::default(),
            start: None,
            restored: Restored::default(),
            random: Random::new(seeds.key),
            settings,
        }
    }

    /// Applies new settings; the cache and the state of unchanged upstreams stay.
    pub fn set(&mut self, settings: Settings, now: Moment) {
        let before = Views::of(&self.zones);
        let kept = self.zones.set(&settings, now);
        let mut orphans = Vec::new();
        for (&id, flight) in &mut self.flights {
            let zone = self.zones.of_key(&flight.key);
            if kept.get(flight.zone) != Some(zone) {
                // Tries refer to upstreams by index, so those sent to the old list are dropped.
                for attempt in flight.tries.drain(..) {
                    self.by_try.remove(&attempt.id);
                }
                (flight.denial, flight.check) = (None, None);
                orphans.push(id);
            }
            flight.zone = zone;
        }
        if settings.pinned != self.settings.pinned {
            self.pins.set(&settings.pinned, now);
            self.pin_again();
        }
        self.cache.set_bounds(settings.bounds.clone());
        let local_names_differ = !Arc::ptr_eq(&settings.local, &self.settings.local);
        self.settings = settings;
        // This walks all entries, and resolv.conf is re-read every few seconds.
        if local_names_differ {
            self.forget_local_names();
        }
        self.on_other_views(&before, now);
        self.review_all(now);
        orphans.sort_unstable();
        for id in orphans {
            self.ask_anew(id, now);
        }
        self.states.republish(&self.zones);
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// Handles a client's query. On the hit path nothing is allocated beyond `out`, which is
    /// reused.
    pub fn on_query(
        &mut self,
        packet: &[u8],
        client: Client,
        transport: Transport,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Outcome {
        self.counts.queries += 1;
        let asked = match hit::read(self.cache.table(), packet, out) {
            Ok(asked) => asked,
            Err(odd) => {
                self.counts.unreadable += 1;
                return if odd == Odd::Refused { Outcome::Reply } else { Outcome::Drop };
            }
        };
        let hit = self.look_up(&asked.query, transport, now).answer(asked.hash, out);
        match hit {
            Hit::Fresh { refresh } => {
                self.counts.hits_fresh += 1;
                self.last_minute.on_answer(false, now);
                self.on_refresh_wanted(refresh.as_deref(), now);
                Outcome::Reply
            }
            Hit::Stale { reason, refresh } => {
                self.counts.hits_stale[reason as usize] += 1;
                self.last_minute.on_answer(true, now);
                self.on_refresh_wanted(refresh.as_deref(), now);
                // Every use here counts in the eviction order. Threads ask for a refresh once;
                // their uses are counted by the entry itself.
                if let Some(key) = &refresh {
                    self.forget_refresh(key);
                }
                Outcome::Reply
            }
            Hit::Frozen => {
                self.counts.hits_stale[StaleReason::HeldTrip as usize] += 1;
                self.last_minute.on_answer(true, now);
                self.on_frozen(Key::of(&asked.query).as_bytes(), 1, now);
                Outcome::Reply
            }
            Hit::Miss => {
                self.on_miss(asked.query, &Key::of(&asked.query), packet, client, transport, now, out)
            }
        }
    }

    /// A hit found its entry due for a refresh: at once if upstreams are healthy, otherwise paced.
    pub fn on_refresh_wanted(&mut self, key: Option<&[u8]>, now: Moment) {
        let Some((key, slot)) = key.and_then(|key| Some((key, self.cache.find(key)?))) else { return };
        let zone_id = self.zones.of_key(key);
        let fresh = self.cache.get(slot).is_none_or(|entry| entry.stale_for(now).is_none());
        if fresh || self.zones.get(zone_id).upstreams() == Upstreams::Healthy {
            self.start_refresh(key, now);
        } else {
            self.queue_refresh(slot, zone_id);
        }
    }

    /// Adds what the answering threads did since the last call.
    pub fn on_tally(&mut self, tally: &Tally, now: Moment) {
        self.counts.add(tally);
        self.last_minute.on_tally(tally, now);
    }

    /// What a thread needs to answer from the cache.
    pub fn reader(&self) -> Reader {
        self.states.republish(&self.zones);
        Reader { table: Arc::clone(self.cache.table()), zones: Arc::clone(&self.states) }
    }

    /// Publishes the zones' state to the threads. Call after every input.
    pub fn publish_zones(&self) {
        self.states.publish(&self.zones);
    }

    /// Removes cached upstream answers for names that are local now, so that the threads do not
    /// serve them.
    fn forget_local_names(&mut self) {
        let local: Vec<_> = self
            .cache
            .iter()
            .filter(|(_, entry)| self.is_local(&entry.key()))
            .map(|(slot, entry)| (slot, entry.key()))
            .collect();
        for (slot, key) in local {
            self.cache.remove(slot);
            self.forgotten.push_back(key.as_bytes().into());
        }
    }

    /// Whether a question is answered here, never by an upstream.
    fn is_local(&self, key: &[u8]) -> bool {
        crate::message::name::read_key(key)
            .is_some_and(|(question, ..)| self.settings.local.answer(question.name, &question).is_some())
    }

    /// Handles a query that the cache alone cannot answer.
    #[expect(clippy::too_many_arguments, reason = "a query as it came, and what was read from it")]
    fn on_miss(
        &mut self,
        query: wire::Query<'_>,
        key: &Key,
        packet: &[u8],
        client: Client,
        transport: Transport,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if let Some(message) =
            self.settings.local.answer(crate::message::name::name_of(key.as_bytes()), &query.question)
        {
            self.counts.hits_local += 1;
            let kept = reply::Kept { message: &message, ttl_offsets: &[] };
            reply::write_kept(out, &query, transport, kept, reply::Ttl::Aged(0), None);
            return Outcome::Reply;
        }
        let slot = self.cache.find(key.as_bytes());
        let zone_id = self.zones.of_key(key.as_bytes());
        let zone = self.zones.get(zone_id);
        let cached = self.cached(slot, key.as_bytes(), zone, now);
        let cached = self.guarded(cached, key.as_bytes(), zone_id, now);
        let zone = self.zones.get(zone_id);
        let patience = match cached {
            Cached::Expired { .. } => zone.group.patience(self.settings.client_timer),
            Cached::Nothing | Cached::Failed | Cached::Fresh { .. } | Cached::Held { .. } => FAIL_AFTER,
        };
        let asked = answering::ClientQuery { query, transport };
        let plan = policy::plan(cached, zone.upstreams(), patience, now);
        if matches!(plan, Plan::ForwardPaced) {
            // Someone needs them: they are probed at the fast rate again.
            self.zones.get_mut(zone_id).group.hurry(now);
        }
        match (plan, slot) {
            (Plan::Reply, Some(slot)) => self.reply_fresh(&asked, slot, now, out),
            (Plan::ReplyThenRefresh, Some(slot)) => {
                self.reply_fresh(&asked, slot, now, out);
                self.start_refresh(key.as_bytes(), now);
                Outcome::Reply
            }
            (Plan::ReplyStale(reason), Some(slot)) => self.reply_stale(&asked, slot, reason, now, out),
            (Plan::ReplyStaleThenRefresh(reason), Some(slot)) => {
                self.queue_refresh(slot, zone_id);
                self.reply_stale(&asked, slot, reason, now, out)
            }
            (Plan::ReplyStaleThenAsk(reason), Some(slot)) => {
                self.ask_again(key.as_bytes(), zone_id, now);
                self.reply_stale(&asked, slot, reason, now, out)
            }
            (Plan::ForwardOrReplyStale { patience }, Some(slot)) => {
                if self.join(key.as_bytes(), packet, client, transport, now + patience, now) {
                    return Outcome::Wait;
                }
                self.reply_stale(&asked, slot, StaleReason::ClientTimer, now, out)
            }
            (Plan::ForwardPaced, _) if !self.joinable(key.as_bytes(), zone_id, now) => {
                let why = self.zones.get(zone_id).group.last_failure();
                self.failures.insert(key.as_bytes(), why, now);
                self.reply_failure(&asked, why, now, out)
            }
            (Plan::ReplyFailure, _) => {
                let why = self.failures.get(key.as_bytes(), now).unwrap_or(Failure::Timeout);
                self.reply_failure(&asked, why, now, out)
            }
            _ => {
                if self.join(key.as_bytes(), packet, client, transport, now + FAIL_AFTER, now) {
                    return Outcome::Wait;
                }
                self.counts.overloads += 1;
                self.reply_failure(&asked, Failure::Timeout, now, out)
            }
        }
    }

    /// Time has passed: runs probes, timers and paced refreshes.
    pub fn on_wakeup(&mut self, now: Moment) {
        self.notice_pause(now);
        self.end_fire_drill_if_over(now);
        self.send_probes(now);
        while let Some(&Reverse((at, flight))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            self.on_timer(flight, now);
        }
        self.tend_guards(now);
        self.send_refreshes(now);
        self.ask_for_pinned(now);
        self.keep_warm(now);
        self.review_all(now);
        self.send_probes(now);
    }

    /// When [`Self::on_wakeup`] must be called next.
    pub fn next_wakeup(&self) -> Option<Moment> {
        let timer = self.timers.peek().map(|&Reverse((at, _))| at);
        let drill = self.fire_drill.as_ref().map(|drill| drill.until);
        let own = [timer, drill, self.warm.next_wakeup(), self.pins.next_wakeup()];
        self.zones.iter().filter_map(Zone::next_wakeup).chain(own.into_iter().flatten()).min()
    }

    pub fn poll_send(&mut self) -> Option<Send> {
        self.sends.pop_front()
    }

    /// An answer for a client that had to wait.
    pub fn poll_reply(&mut self) -> Option<(Client, Vec<u8>)> {
        self.replies.pop_front()
    }

    /// An answer received since the last call, to be written to disk.
    pub fn poll_learned(&mut self) -> Option<cache::EntryRef<'_>> {
        loop {
            let key = self.learned.pop_front()?;
            if let Some(slot) = self.cache.find(&key) {
                return self.cache.get(slot);
            }
        }
    }

    fn cached(&self, slot: Option<Slot>, key: &[u8], zone: &Zone, now: Moment) -> Cached {
        match slot.and_then(|slot| self.cache.get(slot)) {
            None if self.failures.get(key, now).is_some() => Cached::Failed,
            None => Cached::Nothing,
            Some(entry) => match entry.stale_for(now) {
                None => Cached::Fresh { left: now.until(entry.expires()), ttl: entry.ttl() },
                Some(_) if refreshing::may_serve(&entry, zone, now) => {
                    Cached::Expired { recheck_at: entry.recheck_at() }
                }
                Some(_) if self.failures.get(key, now).is_some() => Cached::Failed,
                Some(_) => Cached::Nothing,
            },
        }
    }

    /// The network has changed, for example another route or address: upstreams that were down may
    /// be reachable now.
    pub fn on_network_change(&mut self, now: Moment) {
        for zone in self.zones.ids() {
            self.zones.get_mut(zone).group.hurry(now);
        }
    }

    /// Whether this unknown question may be sent although all upstreams are down.
    fn joinable(&mut self, key: &[u8], zone: ZoneId, now: Moment) -> bool {
        self.by_key.contains_key(key) || self.zones.get_mut(zone).hopeless_pace.take(now).is_ok()
    }

    /// Lets the next hit request a refresh again.
    fn forget_refresh(&self, key: &[u8]) {
        if let Some(entry) = self.cache.find(key).and_then(|slot| self.cache.get(slot)) {
            entry.unask_refresh();
        }
    }
}
