//! One host in virtual time: clients that ask, a cache, and what is on its way to it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use dogwatch_dns_core::{message::name::from_text, moment::Moment};

use super::Plan;
use crate::{
    dns_message::{A, query},
    upstream::name,
};

/// What all hosts share.
pub(super) struct World {
    /// By name: a client's packet.
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) ttl_s: Vec<u32>,
    /// Cumulated popularity, to draw a name by.
    weights: Vec<f64>,
    /// By name in wire format.
    pub(super) numbers: HashMap<Vec<u8>, u32>,
    /// So many of the first names are asked for every five minutes or more.
    pub(super) hot: usize,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let ttl_s: Vec<u32> = (0..plan.names).map(|_| random.u32(plan.ttl_s.0..=plan.ttl_s.1)).collect();
        let named = || (0..).zip(&ttl_s).map(|(number, &ttl_s)| name(number, ttl_s));
        let packets = named().map(|name| query(4711, &name, A, false)).collect();
        let numbers = named().map(|text| from_text(&text).unwrap_or_default()).zip(0..).collect();
        // Zipf with exponent 1: what DNS caches see (Jung et al., 2002).
        let weights: Vec<f64> = (1..=plan.names)
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / f64::from(rank);
                Some(*sum)
            })
            .collect();
        let total = weights.last().copied().unwrap_or(1.0);
        let every_s = |rank: u32| f64::from(rank) * total / plan.queries_per_second;
        let hot = (1..=plan.names).take_while(|&rank| every_s(rank) <= 300.0).count();
        Self { packets, ttl_s, weights, numbers, hot }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> u32 {
        let drawn = random.f64() * self.weights.last().copied().unwrap_or(0.0);
        let place = self.weights.partition_point(|&sum| sum < drawn);
        u32::try_from(place.min(self.weights.len() - 1)).unwrap_or(0)
    }
}

/// A question to the upstream.
pub(super) struct Ask {
    pub(super) try_id: u64,
    pub(super) name: u32,
    /// `None`: the cache keeps its own time.
    pub(super) timeout: Option<Duration>,
    pub(super) message: Vec<u8>,
}

/// A host's cache, as the herd drives it.
pub(super) trait Cache {
    fn on_query(&mut self, name: u32, now: Moment, world: &World);
    fn on_answer(&mut self, ask: &Ask, now: Moment, world: &World);
    fn on_timeout(&mut self, try_id: u64, now: Moment);
    fn on_wakeup(&mut self, now: Moment);
    fn poll_ask(&mut self, world: &World) -> Option<Ask>;
    fn next_wakeup(&self) -> Option<Moment>;
}

pub(super) struct Host<C> {
    cache: C,
    queries_per_second: f64,
    next_query: Moment,
    wakes_at: Option<Moment>,
    /// What comes of open tries, by when and in which order they were made; true: an answer.
    coming: BTreeMap<(Moment, u64), (Ask, bool)>,
    asked: u64,
    random: fastrand::Rng,
}

impl<C: Cache> Host<C> {
    pub(super) fn new(number: u32, plan: &Plan, cache: C) -> Self {
        let random = fastrand::Rng::with_seed(plan.seed << 32 | u64::from(number));
        let mut host = Self {
            cache,
            queries_per_second: plan.queries_per_second,
            next_query: Moment::START,
            wakes_at: None,
            coming: BTreeMap::new(),
            asked: 0,
            random,
        };
        host.next_query = Moment::START + host.gap();
        host
    }

    /// When something happens here next.
    pub(super) fn next_at(&self) -> Moment {
        let coming = self.coming.first_key_value().map(|(&(at, _), _)| at);
        [coming, self.wakes_at].into_iter().flatten().fold(self.next_query, Moment::min)
    }

    /// Has it happen. `upstream` says when the answer to what is asked at a moment is ready; `None`: never. Returns the name
    /// of an answer that came.
    pub(super) fn step(
        &mut self,
        world: &World,
        upstream: &mut impl FnMut(Moment) -> Option<Duration>,
    ) -> Option<u32> {
        let now = self.next_at();
        let mut answered = None;
        if self.next_query == now {
            let name = world.draw(&mut self.random);
            self.next_query = now + self.gap();
            self.cache.on_query(name, now, world);
        } else if self.wakes_at == Some(now) {
            self.cache.on_wakeup(now);
        } else if let Some((_, (ask, is_answer))) = self.coming.pop_first() {
            if is_answer {
                self.cache.on_answer(&ask, now, world);
                answered = Some(ask.name);
            } else {
                self.cache.on_timeout(ask.try_id, now);
            }
        }
        self.send(world, now, upstream);
        // A cache that wants to wake at once wakes at the next tick of its clock.
        self.wakes_at = self.cache.next_wakeup().map(|at| at.max(now + Duration::from_millis(1)));
        answered
    }

    fn send(&mut self, world: &World, now: Moment, upstream: &mut impl FnMut(Moment) -> Option<Duration>) {
        while let Some(ask) = self.cache.poll_ask(world) {
            self.asked += 1;
            let fate = match upstream(now) {
                Some(wait) => Some((now + wait + self.way(), true)),
                None => ask.timeout.map(|timeout| (now + timeout, false)),
            };
            if let Some((at, is_answer)) = fate {
                self.coming.insert((at, self.asked), (ask, is_answer));
            }
        }
    }

    /// There and back.
    fn way(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(1..20))
    }

    /// Until this host's clients ask again.
    fn gap(&mut self) -> Duration {
        let mean_s = 1.0 / self.queries_per_second;
        Duration::from_secs_f64(-mean_s * (1.0 - self.random.f64()).ln()).max(Duration::from_millis(1))
    }
}
