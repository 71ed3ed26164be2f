//! A host, its cache and its upstream in virtual time: the real core, one thread, hours in a second.
//!
//! The host asks for a fixed set of names, the popular ones often (Zipf). The upstream knows all of them and can die.
//! The world knows the right answer of each name and judges every answer that the cache gives.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dogwatch_dns::{
    moment::Moment,
    reply::Transport,
    resolver::{Client, Outcome, Resolver, Settings, TryError},
};

use crate::{
    dns_message::{A, query},
    upstream::{Mood, name, reply, right_address},
};

/// How a world is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub names: u32,
    /// Client queries a second, in the mean; arrivals are random.
    pub queries_per_second: f64,
    pub ttl_s: (u32, u32),
}

impl Default for Plan {
    fn default() -> Self {
        Self { names: 5_000, queries_per_second: 25.0, ttl_s: (5, 300) }
    }
}

pub struct World {
    pub now: Moment,
    pub resolver: Resolver,
    pub mood: Mood,
    pub tally: Tally,
    /// When the check result `dns-upstream` became CRITICAL and stopped being so, last.
    pub critical_at: Option<Moment>,
    pub clear_at: Option<Moment>,
    random: fastrand::Rng,
    names: Vec<Name>,
    /// Cumulated popularity, to draw a name by.
    weights: Vec<f64>,
    next_query: Moment,
    mean_gap_s: f64,
    /// What is on its way back from the upstream.
    wire: BinaryHeap<Reverse<Delivery>>,
    /// Waiting clients: which name, since when.
    waiting: Vec<(usize, Moment)>,
    out: Vec<u8>,
}

/// When, for which try, what; `None` is a timeout.
type Delivery = (Moment, u64, Option<Vec<u8>>);

struct Name {
    packet: Vec<u8>,
    right: [u8; 4],
    /// Where the answer's address stands: after the question, a pointer and ten fixed bytes.
    address_at: usize,
    seen: bool,
}

/// What the clients got and the upstream heard since the tally was taken last.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub queries: u64,
    /// Queries for names that were answered before.
    pub known: u64,
    /// Of those: not answered right.
    pub wrong: u64,
    /// Of those: answered after a wait.
    pub waited: u64,
    pub longest_wait: Duration,
    pub upstream_queries: u64,
}

impl World {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let now = Moment::START;
        let upstreams = vec![SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 53)).into()];
        let names = (0..plan.names)
            .map(|number| {
                let packet = query(4711, &name(number, random.u32(plan.ttl_s.0..=plan.ttl_s.1)), A, false);
                Name { address_at: packet.len() + 12, packet, right: right_address(number), seen: false }
            })
            .collect();
        // Zipf with exponent 1: what DNS caches see (Jung et al., 2002).
        let weights = (1..=plan.names)
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / f64::from(rank);
                Some(*sum)
            })
            .collect();
        Self {
            now,
            resolver: Resolver::new(Settings { upstreams, ..Settings::default() }, random.u64(..), now),
            mood: Mood::Right,
            tally: Tally::default(),
            critical_at: None,
            clear_at: None,
            random,
            names,
            weights,
            next_query: now,
            mean_gap_s: 1.0 / plan.queries_per_second,
            wire: BinaryHeap::new(),
            waiting: Vec::new(),
            out: Vec::with_capacity(512),
        }
    }

    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let back = self.wire.peek().map(|Reverse((at, ..))| *at);
            let next = [Some(self.next_query), back, self.resolver.next_wakeup()].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next < end) else { break };
            self.now = self.now.max(next);
            if back.is_some_and(|at| at <= self.now) {
                self.hear_upstream();
            } else if self.next_query <= self.now {
                self.ask();
            } else {
                self.resolver.on_wakeup(self.now);
            }
            self.carry_out();
        }
        self.now = end;
    }

    /// The tally so far; a new one begins.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Names that were answered right at least once.
    pub fn seen(&self) -> usize {
        self.names.iter().filter(|name| name.seen).count()
    }

    fn ask(&mut self) {
        let gap = Duration::from_secs_f64(-self.mean_gap_s * (1.0 - self.random.f64()).ln());
        self.next_query = self.now + gap.max(Duration::from_millis(1));
        let total = self.weights.last().copied().unwrap_or(0.0);
        let drawn = self.random.f64() * total;
        let index = self.weights.partition_point(|&sum| sum < drawn).min(self.names.len() - 1);
        self.tally.queries += 1;
        self.tally.known += u64::from(self.names[index].seen);
        let mut out = std::mem::take(&mut self.out);
        let client = Client::Stream(self.waiting.len() as u64);
        let packet = &self.names[index].packet;
        match self.resolver.on_query(packet, client, Transport::Udp, self.now, &mut out) {
            Outcome::Reply => self.judge(index, &out),
            Outcome::Wait => self.waiting.push((index, self.now)),
            Outcome::Drop => self.tally.wrong += u64::from(self.names[index].seen),
        }
        self.out = out;
    }

    fn judge(&mut self, index: usize, answer: &[u8]) {
        let name = &mut self.names[index];
        let address = answer.get(name.address_at..name.address_at + 4);
        let code = answer[3] & 0x0f;
        let right = code == 0 && answer[7] == 1 && address == Some(&name.right);
        self.tally.wrong += u64::from(name.seen && !right);
        name.seen |= right;
    }

    fn hear_upstream(&mut self) {
        let Some(Reverse((_, try_id, message))) = self.wire.pop() else { return };
        match message {
            Some(message) => self.resolver.on_reply(try_id, &message, self.now),
            None => self.resolver.on_error(try_id, TryError::Timeout, self.now),
        }
        self.resolver.on_wakeup(self.now);
    }

    fn carry_out(&mut self) {
        while let Some(send) = self.resolver.poll_send() {
            self.tally.upstream_queries += 1;
            let message = reply(&send.message, self.mood);
            let takes = match message {
                Some(_) => Duration::from_millis(self.random.u64(1..20)),
                None => send.timeout,
            };
            self.wire.push(Reverse((self.now + takes, send.try_id, message)));
        }
        while let Some((client, answer)) = self.resolver.poll_reply() {
            let Client::Stream(number) = client else { continue };
            let Some(&(index, since)) = usize::try_from(number).ok().and_then(|at| self.waiting.get(at))
            else {
                continue;
            };
            if self.names[index].seen {
                self.tally.waited += 1;
                self.tally.longest_wait = self.tally.longest_wait.max(self.now.since(since));
            }
            self.judge(index, &answer);
        }
        while self.resolver.poll_learned().is_some() {}
        // 2 and 3: too slow, down; the check result is CRITICAL then.
        match (self.resolver.health_number() >= 2, self.critical_at, self.clear_at) {
            (true, None, _) => self.critical_at = Some(self.now),
            (false, Some(_), None) => self.clear_at = Some(self.now),
            (true, Some(_), Some(_)) => self.clear_at = None,
            _ => {}
        }
    }
}
