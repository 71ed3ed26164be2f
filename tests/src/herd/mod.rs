//! The herd: a thousand hosts return to one weak upstream after an outage, in virtual time.
//!
//! Each host asks for the same names, the popular ones often (Zipf), and keeps them in a cache of
//! its own. The upstream has room for twice the normal load and a queue of one second; the longer
//! its queue, the slower it works (an overloaded server spends its time on questions that nobody
//! waits for any more), and what finds the queue full is lost.
//!
//! Run once with real [`Dogwatch`] cores, once with [`Naive`] caches: those serve stale as well,
//! but refresh each name when a client asks for it, and ask again when no answer comes.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`host`] | one host in virtual time: its clients, its cache, what is on its way |
//! | [`dogwatch`], [`naive`] | the two kinds of cache |
//! | [`upstream`] | the weak one |
//! | [`report`] | table, curves and score |

mod dogwatch;
mod host;
mod naive;
mod report;
mod upstream;

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use dogwatch_dns_core::moment::Moment;
use serde::Serialize;

pub use self::report::{Report, svg};
use self::{
    dogwatch::Dogwatch,
    host::{Cache, Host, World},
    naive::Naive,
    upstream::Weak,
};

/// How a herd is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub hosts: u32,
    pub names: u32,
    /// Of each host's clients.
    pub queries_per_second: f64,
    pub ttl_s: (u32, u32),
    pub warm_up: Duration,
    /// Of which normal load is measured.
    pub normal: Duration,
    pub outage: Duration,
    pub after: Duration,
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            hosts: 200,
            names: 5_000,
            queries_per_second: 25.0,
            ttl_s: (5, 300),
            warm_up: Duration::from_mins(6),
            normal: Duration::from_mins(4),
            outage: Duration::from_mins(30),
            after: Duration::from_mins(10),
            seed: 0,
        }
    }
}

/// One kind of cache's way back.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub cache: &'static str,
    /// Queries a second that the upstream gets in normal times.
    pub normal: f64,
    /// Queries a second that it can answer.
    pub capacity: f64,
    /// Queries in each second since its return.
    pub heard: Vec<u32>,
    /// Of these: lost because its queue was full.
    pub lost: Vec<u32>,
    /// Its longest queue in each second, as the time that its last place waits.
    pub queue_ms: Vec<u32>,
    /// Answered each second.
    pub answered: Vec<u32>,
    /// Seconds until 90 and 99 % of the hot names of all hosts had a new answer; hot: asked for at
    /// least every five minutes.
    pub hot_fresh_s: [Option<u64>; FRESH_PERCENT.len()],
}

impl Run {
    pub fn peak(&self) -> u32 {
        self.heard.iter().copied().max().unwrap_or(0)
    }

    pub fn lost_total(&self) -> u64 {
        self.lost.iter().map(|&lost| u64::from(lost)).sum()
    }

    /// The peak as a multiple of what the upstream can answer.
    pub fn peak_of_capacity(&self) -> f64 {
        f64::from(self.peak()) / self.capacity
    }

    pub fn queue_ms_max(&self) -> u32 {
        self.queue_ms.iter().copied().max().unwrap_or(0)
    }

    /// Nothing was lost, and it never got more than it can answer.
    pub fn kept_upright(&self) -> bool {
        self.lost_total() == 0 && self.peak_of_capacity() <= 1.0
    }

    /// Seconds in which it got more than it can answer.
    pub fn seconds_over(&self) -> usize {
        self.heard.iter().filter(|&&heard| f64::from(heard) > self.capacity).count()
    }
}

/// Shares of the hot names.
const FRESH_PERCENT: [usize; 2] = [90, 99];

/// Both kinds of cache, in front of upstreams of the same capacity: twice the load that naive
/// caches make in normal times.
pub fn run(plan: Plan) -> (Run, Run) {
    let world = World::new(&plan);
    let naive = Herd::new(plan, &world, |_| Naive::new(&world)).run("naive", None);
    let governed = Herd::new(plan, &world, |host| Dogwatch::new(host, &plan, &world))
        .run("dogwatch", Some(naive.capacity));
    (naive, governed)
}

struct Herd<'a, C> {
    plan: Plan,
    world: &'a World,
    hosts: Vec<Host<C>>,
}

impl<'a, C: Cache> Herd<'a, C> {
    fn new(plan: Plan, world: &'a World, cache: impl Fn(u32) -> C) -> Self {
        let hosts = (0..plan.hosts).map(|host| Host::new(host, &plan, cache(host))).collect();
        Self { plan, world, hosts }
    }

    fn run(mut self, cache: &'static str, capacity: Option<f64>) -> Run {
        let returns_at = Moment::START + self.plan.warm_up + self.plan.normal + self.plan.outage;
        let heard = self.until_the_return(returns_at);
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let normal = heard as f64 / self.plan.normal.as_secs_f64();
        let run = self.since_the_return(returns_at, capacity.unwrap_or(2.0 * normal));
        Run { cache, normal, ..run }
    }

    /// Normal times and the outage; returns what was heard in the time of which normal load is
    /// measured. The upstream is strong or silent then, so no host knows of another, and each lives
    /// alone: its cache stays in the processor's.
    fn until_the_return(&mut self, returns_at: Moment) -> u64 {
        let measured_from = Moment::START + self.plan.warm_up;
        let outage_from = measured_from + self.plan.normal;
        let mut heard = 0;
        for host in &mut self.hosts {
            while host.next_at() < outage_from {
                host.step(self.world, &mut |now| {
                    heard += u64::from(now >= measured_from);
                    Some(Duration::ZERO)
                });
            }
            while host.next_at() < returns_at {
                host.step(self.world, &mut |_| None);
            }
        }
        heard
    }

    /// All together at the weak upstream.
    fn since_the_return(&mut self, returns_at: Moment, capacity: f64) -> Run {
        let seconds = usize::try_from(self.plan.after.as_secs()).unwrap_or(0);
        let mut run = Run {
            cache: "",
            normal: 0.0,
            capacity,
            heard: vec![0; seconds],
            lost: vec![0; seconds],
            queue_ms: vec![0; seconds],
            answered: vec![0; seconds],
            hot_fresh_s: [None; FRESH_PERCENT.len()],
        };
        let mut upstream = Weak::new(capacity, returns_at);
        let mut fresh = Fresh::new(self.world.hot, self.hosts.len());
        let mut next: BinaryHeap<_> = self
            .hosts
            .iter()
            .zip(0_usize..)
            .map(|(host, number)| Reverse((host.next_at(), number)))
            .collect();
        while let Some(Reverse((now, number))) =
            next.pop().filter(|Reverse((at, _))| *at < returns_at + self.plan.after)
        {
            let since_s = now.since(returns_at).as_secs();
            let Ok(second) = usize::try_from(since_s) else { break };
            let host = &mut self.hosts[number];
            let answered = host.step(self.world, &mut |now| {
                let wait = upstream.on_query(now);
                run.heard[second] += 1;
                run.lost[second] += u32::from(wait.is_none());
                run.queue_ms[second] = run.queue_ms[second].max(upstream.queue_ms(now));
                wait
            });
            next.push(Reverse((host.next_at(), number)));
            let Some(name) = answered else { continue };
            run.answered[second] += 1;
            fresh.on_answer(number, name);
            for (percent, reached) in FRESH_PERCENT.iter().zip(&mut run.hot_fresh_s) {
                if fresh.percent_reached(*percent) {
                    reached.get_or_insert(since_s);
                }
            }
        }
        run
    }
}

/// Which hot names of which hosts have a new answer.
struct Fresh {
    /// By host and name.
    seen: Vec<bool>,
    hot: usize,
    count: usize,
}

impl Fresh {
    fn new(hot: usize, hosts: usize) -> Self {
        Self { seen: vec![false; hot * hosts], hot, count: 0 }
    }

    fn on_answer(&mut self, host: usize, name: u32) {
        let name = name as usize;
        if name < self.hot && !std::mem::replace(&mut self.seen[host * self.hot + name], true) {
            self.count += 1;
        }
    }

    fn percent_reached(&self, percent: usize) -> bool {
        self.count * 100 >= self.seen.len() * percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_herd_that_comes_back_does_not_push_its_upstream_over_and_naive_caches_do() {
        let plan = Plan { hosts: 25, ..Plan::default() };
        let (naive, governed) = run(plan);
        assert!(naive.lost_total() > 0 && naive.peak_of_capacity() > 1.0, "{}", Report(plan, &[&naive]));
        assert_eq!(governed.lost_total(), 0, "{}", Report(plan, &[&naive, &governed]));
        assert!(governed.peak_of_capacity() < 0.9, "{}", Report(plan, &[&naive, &governed]));
        assert!(governed.hot_fresh_s[0].is_some(), "{}", Report(plan, &[&naive, &governed]));
    }
}
