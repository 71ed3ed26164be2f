//! Outages as readable files: the world, the events, and the expected results.
//!
//! The same file runs against the pure core in virtual time ([`crate::dns_world`]) and, where it
//! has a `real` line, against the real binary ([`crate::scenario::real`]). Either gives a
//! [`log::Log`], which [`judge`] holds against the file.
//!
//! ```text
//! M1 Blackhole: the upstream drops everything      title, the first line
//! upstreams 2                                      number of upstreams; the cache uses all …
//! upstreams 2, used 1                              … or only these
//! names 60 ttl 2..8                                n0 … n59, each with a random TTL from this range
//! name db.test ttl 60 192.0.2.1 192.0.2.2          one more name with these addresses
//! name www.test ttl 300 -> db.test                 an alias
//! clients 30/s                                     query all names at this rate, evenly …
//! clients 30/s favour db.test 20%                  … or one more often; `zipf`: the first names most
//! sweep                                            first they query each name once
//! max_stale 2h
//! pin db.test www.test                             pinned names
//! pin db.test:5432                                 pinned, with a TCP check of new addresses
//! seeds 5                                          number of runs in virtual time
//! end 2m
//! outage 20s..1m                                   the part that a drill scores
//! real 20s=6s 22s=8s 2m=14s                        run it for real too; other times are interpolated
//! pending guards: why                              expected to fail until that feature exists
//!
//! 20s upstream 1,2 silent                          how an upstream behaves, see [`Mood`]
//! 20s upstream * nxdomain of db.test               only for names that end in this
//! 20s truth db.test gone                           the true answer: `gone`, addresses, `-> target`
//! 20s closed 192.0.2.1                             this address accepts no TCP connections; others do
//! 20s clients 1000/s
//! 20s flood 500/s                                  extra queries for random names
//! 20s noise 20/s                                   known names with search domains appended (ndots)
//! 20s use 2                                        the cache is given other upstreams
//! 20s sleep 8h                                     the machine is suspended
//! 20s wall +40d                                    the wall clock is set
//! 20s crash 2s                                     kill -9, restart after this time; `stop`: clean stop
//! 20s steal 2s                                     kill -9, another process has the port for this time
//!
//! 20s ask db.test: right stale ede 3 within 5ms ttl 30
//! 20s alert dns-upstream critical within 5s        a check result: ok, warning, critical, ill (not ok)
//! 20s..2m right 100%                               right answers for names seen before
//! 20s..2m usable 100%                              … answers that are right, or were once; also `fresh`
//! 20s..2m wrong 0                                  answers that were never true; also `failed`
//! 20s..2m wait 1800ms                              longest wait for a name seen before
//! 20s..2m waited 3                                 number of queries that waited at all
//! 20s..2m upstream 0.05 a query                    most upstream queries per query; also `upstream 20`
//! 20s..2m changes dns-upstream 0                   most changes of this check result
//! 20s..2m memory 2MiB                              most memory of the cache, as it reports it
//! 20s..2m sent 2 5%                                most of the upstream queries that go to upstream 2
//! virtual 20s alert dns-guard ill within 5s        only in virtual time; the real run is too short
//! ```

pub mod judge;
pub mod log;
mod parse;
pub mod real;

use std::time::Duration;

use crate::authority::{Data, Fact, Mood, name};

#[derive(Debug, Clone)]
pub struct Scenario {
    pub file: String,
    pub title: String,
    pub upstreams: usize,
    pub used: Vec<usize>,
    pub generated: Generated,
    pub named: Vec<(String, Fact)>,
    pub clients: Clients,
    /// Each name is asked for once in the beginning.
    pub sweep: bool,
    pub max_stale: Option<Duration>,
    pub cache_bytes: Option<usize>,
    /// With the port that must be open, if that matters.
    pub pinned: Vec<(String, Option<u16>)>,
    pub seeds: u64,
    pub end: Duration,
    pub outage: (Duration, Duration),
    pub real: Option<TimeMap>,
    pub pending: Option<String>,
    /// In order of time.
    pub events: Vec<(Duration, Event)>,
    pub wants: Vec<Want>,
}

/// Names that say what is right.
#[derive(Debug, Clone, Copy, Default)]
pub struct Generated {
    pub count: u32,
    pub ttl_s: (u32, u32),
}

/// How the host's programs ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clients {
    pub per_second: f64,
    /// The first names are the most popular, as 1/rank: what DNS caches see (Jung et al., 2002).
    pub zipf: bool,
    /// A named name (its place in the list), and its share of the questions.
    pub favourite: Option<(usize, f64)>,
}

#[derive(Debug, Clone)]
pub enum Event {
    Mood {
        upstreams: Vec<usize>,
        of: Option<NameRef>,
        mood: Mood,
    },
    Truth {
        name: NameRef,
        fact: Fact,
    },
    Closed([u8; 4]),
    Clients(f64),
    Flood(f64),
    Noise(f64),
    Use(Vec<usize>),
    Sleep(Duration),
    Wall {
        back: bool,
        by: Duration,
    },
    /// The process dies and starts again so much later; `orderly` lets it write what it knows.
    Restart {
        down: Duration,
        orderly: bool,
        stolen: bool,
    },
    Ask {
        line: usize,
        name: NameRef,
    },
}

/// As written; a generated name's TTL is the run's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameRef {
    Generated(u32),
    Text(String),
}

/// What must come of it.
#[derive(Debug, Clone)]
pub struct Want {
    pub line: usize,
    pub text: String,
    pub from: Duration,
    /// Equals `from` for what is wanted of a point in time.
    pub until: Duration,
    /// What rests on minutes that the real run does not have.
    pub virtual_only: bool,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Answer(Vec<AnswerWant>),
    Alert { sensor: String, state: StateWant, within: Duration },
    Share { of: Share, percent: f64 },
    Count { of: Counted, most: u64 },
    Wait(Duration),
    UpstreamPerQuery(f64),
    Upstream(u64),
    Changes { sensor: String, most: u64 },
    Memory(u64),
    Sent { upstream: usize, percent: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Right,
    Usable,
    Fresh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    Wrong,
    Failed,
    Waited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateWant {
    Exactly(u8),
    Ill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerWant {
    Right,
    Old,
    Wrong,
    Nxdomain,
    Failure,
    Fresh,
    Stale,
    Ede(u16),
    Within(Duration),
    TtlAtMost(u32),
    Addresses(usize),
}

/// Where the virtual run's times lie in the real run; in proportion between two points.
#[derive(Debug, Clone)]
pub struct TimeMap(pub Vec<(Duration, Duration)>);

impl TimeMap {
    pub fn map(&self, at: Duration) -> Duration {
        let (mut from, mut from_real) = (Duration::ZERO, Duration::ZERO);
        for &(to, to_real) in &self.0 {
            if at <= to {
                let share =
                    at.saturating_sub(from).as_secs_f64() / to.saturating_sub(from).as_secs_f64().max(1e-9);
                return from_real + to_real.saturating_sub(from_real).mul_f64(share);
            }
            (from, from_real) = (to, to_real);
        }
        from_real + at.saturating_sub(from)
    }
}

impl Scenario {
    /// Reads a file; the error names its line.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        parse::scenario(file, text)
    }

    /// The same with the times of the real run.
    #[must_use]
    pub fn mapped(mut self) -> Self {
        let Some(map) = self.real.clone() else { return self };
        for (at, _) in &mut self.events {
            *at = map.map(*at);
        }
        self.wants.retain(|want| !want.virtual_only);
        for want in &mut self.wants {
            (want.from, want.until) = (map.map(want.from), map.map(want.until));
        }
        self.end = map.map(self.end);
        self.outage = (map.map(self.outage.0), map.map(self.outage.1));
        self
    }

    /// The names of one run, with their last dots: first those that say what is right, then the
    /// others.
    pub fn names(&self, random: &mut fastrand::Rng) -> Names {
        let (low, high) = self.generated.ttl_s;
        let generated = (0..self.generated.count).map(|number| name(number, random.u32(low..=high)));
        let named = self.named.iter().map(|(name, _)| name.clone());
        let all: Vec<String> = generated.chain(named).collect();
        Names { generated: self.generated.count as usize, all }
    }

    /// What is true in the beginning.
    pub fn data(&self) -> Data {
        let mut data = Data::default();
        for (name, fact) in &self.named {
            data.set(name, fact.clone());
        }
        data
    }
}

/// A run's names.
#[derive(Debug, Clone)]
pub struct Names {
    pub generated: usize,
    pub all: Vec<String>,
}

impl Names {
    pub fn text(&self, name: &NameRef) -> String {
        match name {
            NameRef::Generated(number) => self.all[*number as usize].clone(),
            NameRef::Text(text) => text.clone(),
        }
    }

    /// Draws whom a program asks for.
    pub fn draw(&self, clients: &Clients, weights: &[f64], random: &mut fastrand::Rng) -> usize {
        if let Some((favourite, share)) = clients.favourite
            && random.f64() < share
        {
            return self.generated + favourite;
        }
        if clients.zipf {
            let drawn = random.f64() * weights.last().copied().unwrap_or(0.0);
            weights.partition_point(|&sum| sum < drawn).min(self.all.len() - 1)
        } else {
            random.usize(..self.all.len())
        }
    }

    /// Cumulated popularity by rank, to draw by.
    pub fn weights(&self) -> Vec<f64> {
        let ranks = (1..=self.all.len()).scan(0.0, |sum, rank| {
            *sum += 1.0 / f64::from(u32::try_from(rank).unwrap_or(u32::MAX));
            Some(*sum)
        });
        ranks.collect()
    }
}
