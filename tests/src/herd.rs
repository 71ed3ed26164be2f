//! The herd: a thousand hosts come back to one weak upstream after an outage, in virtual time.
//!
//! Each host asks for the same names, the popular ones often (Zipf), and keeps them in a cache of its own. The upstream has
//! room for twice the normal load and a queue of one second; the longer its queue, the slower it works (an overloaded server
//! spends its time on questions that nobody waits for any more), and what finds the queue full is lost.
//!
//! Run once with real [`Resolver`]s, once with [`Naive`] caches: those serve stale as well, but refresh each name when a
//! client asks for it, and ask again when no answer comes.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fmt::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dogwatch_dns::{
    moment::Moment,
    reply::Transport,
    resolver::{Client, Remembered, Resolver, Settings, TryError},
    wire::{Question, read_question},
};
use serde::Serialize;

use crate::{
    dns_message::{A, query},
    upstream::{Mood, name, reply},
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
    /// Queries a second that the upstream hears in normal times.
    pub normal: f64,
    /// Queries a second that it can answer.
    pub capacity: f64,
    /// What it heard in each second since its return.
    pub heard: Vec<u32>,
    /// Of these: lost because its queue was full.
    pub lost: Vec<u32>,
    /// Its longest queue in each second, as the time that its last place waits.
    pub queue_ms: Vec<u32>,
    /// Answered each second.
    pub answered: Vec<u32>,
    /// Seconds until 90 and 99 % of the hot names of all hosts had a new answer; hot: asked for at least every five minutes.
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

    /// Nothing was lost, and it never heard more than it can answer.
    pub fn kept_upright(&self) -> bool {
        self.lost_total() == 0 && self.peak_of_capacity() <= 1.0
    }

    /// Seconds in which it heard more than it can answer.
    pub fn seconds_over(&self) -> usize {
        self.heard.iter().filter(|&&heard| f64::from(heard) > self.capacity).count()
    }
}

/// Shares of the hot names.
const FRESH_PERCENT: [usize; 2] = [90, 99];

/// Both kinds of cache, in front of upstreams of the same capacity: twice the load that naive caches make in normal times.
pub fn run(plan: Plan) -> (Run, Run) {
    let naive = Herd::new(plan, None, |_, world| Naive::new(world)).run("naive");
    let governed = Herd::new(plan, Some(naive.capacity), |host, world| Dogwatch::new(host, plan, world));
    (naive, governed.run("dogwatch"))
}

/// What all hosts share.
struct World {
    /// By name: a client's packet.
    packets: Vec<Vec<u8>>,
    ttl_s: Vec<u32>,
    /// Cumulated popularity, to draw a name by.
    weights: Vec<f64>,
    key_to_name: HashMap<Vec<u8>, u32>,
}

/// A question to the upstream.
struct Ask {
    try_id: u64,
    name: u32,
    timeout: Duration,
    message: Vec<u8>,
}

/// A host's cache, as the herd drives it.
trait Cache {
    fn on_query(&mut self, name: u32, now: Moment, world: &World);
    fn on_answer(&mut self, ask: &Ask, now: Moment, world: &World);
    fn on_timeout(&mut self, try_id: u64, now: Moment);
    fn on_wakeup(&mut self, now: Moment);
    fn poll_ask(&mut self, world: &World) -> Option<Ask>;
    fn next_wakeup(&self) -> Option<Moment>;
}

/// The real core.
struct Dogwatch {
    resolver: Resolver,
    out: Vec<u8>,
}

impl Dogwatch {
    fn new(host: u32, plan: Plan, world: &World) -> Self {
        let settings = Settings {
            upstreams: vec![SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 53)).into()],
            host_phase: u64::from(host),
            ..Settings::default()
        };
        let seed = plan.seed << 32 | u64::from(host);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut resolver = Resolver::new(settings, seed, Moment::START);
        // It has been up for long: every name is known.
        for packet in &world.packets {
            if let Some(message) = reply(packet, Mood::Right) {
                let remembered = Remembered {
                    message: &message,
                    dnssec_ok: false,
                    checking_disabled: false,
                    uses: 0,
                    good_for: Duration::ZERO,
                    age: Duration::from_secs(random.u64(0..600)),
                    unseen: Duration::ZERO,
                };
                resolver.restore(&remembered, Moment::START);
            }
        }
        Self { resolver, out: Vec::with_capacity(512) }
    }
}

impl Cache for Dogwatch {
    fn on_query(&mut self, name: u32, now: Moment, world: &World) {
        let packet = &world.packets[name as usize];
        self.resolver.on_query(packet, Client::Stream(0), Transport::Udp, now, &mut self.out);
    }

    fn on_answer(&mut self, ask: &Ask, now: Moment, _: &World) {
        if let Some(answer) = reply(&ask.message, Mood::Right) {
            self.resolver.on_reply(ask.try_id, &answer, now);
            self.resolver.on_wakeup(now);
        }
    }

    fn on_timeout(&mut self, try_id: u64, now: Moment) {
        self.resolver.on_error(try_id, TryError::Timeout, now);
        self.resolver.on_wakeup(now);
    }

    fn on_wakeup(&mut self, now: Moment) {
        self.resolver.on_wakeup(now);
    }

    fn poll_ask(&mut self, world: &World) -> Option<Ask> {
        while self.resolver.poll_reply().is_some() {}
        while self.resolver.poll_learned().is_some() {}
        let send = self.resolver.poll_send()?;
        let name = read_question(&send.message).and_then(|(Question { name, .. }, _)| {
            let name = name.to_ascii_lowercase();
            world.key_to_name.get(&name).copied()
        });
        let name = name.unwrap_or(u32::MAX);
        Some(Ask { try_id: send.try_id, name, timeout: send.timeout, message: send.message })
    }

    fn next_wakeup(&self) -> Option<Moment> {
        self.resolver.next_wakeup()
    }
}

/// A cache that answers stale and refreshes on demand: equal questions share one try, a try is repeated after 376 ms and
/// twice that each time (as Unbound does with an upstream it knows nothing of), five in all, and a name that failed rests 5 s.
struct Naive {
    names: Vec<Held>,
    asks: Vec<Ask>,
    timers: BinaryHeap<Reverse<(Moment, u32)>>,
    next_id: u64,
}

#[derive(Clone, Copy)]
struct Held {
    expires: Moment,
    rests_until: Moment,
    tries: u32,
    retry_at: Option<Moment>,
}

const NAIVE_FIRST_RETRY: Duration = Duration::from_millis(376);
const NAIVE_TRIES: u32 = 5;
const NAIVE_REST: Duration = Duration::from_secs(5);

impl Naive {
    fn new(world: &World) -> Self {
        let held = Held { expires: Moment::START, rests_until: Moment::START, tries: 0, retry_at: None };
        Self {
            names: vec![held; world.packets.len()],
            asks: Vec::new(),
            timers: BinaryHeap::new(),
            next_id: 1,
        }
    }

    fn ask(&mut self, name: u32, now: Moment) {
        let held = &mut self.names[name as usize];
        let wait = NAIVE_FIRST_RETRY * (1 << held.tries);
        held.tries += 1;
        held.retry_at = Some(now + wait);
        self.timers.push(Reverse((now + wait, name)));
        self.next_id += 1;
        self.asks.push(Ask { try_id: self.next_id, name, timeout: Duration::MAX, message: Vec::new() });
    }
}

impl Cache for Naive {
    fn on_query(&mut self, name: u32, now: Moment, _: &World) {
        let held = self.names[name as usize];
        if now >= held.expires && now >= held.rests_until && held.retry_at.is_none() {
            self.ask(name, now);
        }
    }

    fn on_answer(&mut self, ask: &Ask, now: Moment, world: &World) {
        let ttl = Duration::from_secs(world.ttl_s[ask.name as usize].into());
        self.names[ask.name as usize] =
            Held { expires: now + ttl, rests_until: now, tries: 0, retry_at: None };
    }

    fn on_timeout(&mut self, _: u64, _: Moment) {}

    fn on_wakeup(&mut self, now: Moment) {
        while let Some(&Reverse((at, name))) = self.timers.peek().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            let held = &mut self.names[name as usize];
            if held.retry_at != Some(at) {
                continue;
            }
            if held.tries < NAIVE_TRIES {
                self.ask(name, now);
            } else {
                *held = Held { rests_until: now + NAIVE_REST, tries: 0, retry_at: None, ..*held };
            }
        }
    }

    fn poll_ask(&mut self, _: &World) -> Option<Ask> {
        self.asks.pop()
    }

    fn next_wakeup(&self) -> Option<Moment> {
        self.timers.peek().map(|&Reverse((at, _))| at)
    }
}

/// The weak upstream.
struct Server {
    up: bool,
    /// Queries a second; `None`: as many as come.
    capacity: Option<f64>,
    /// When the last place of its queue is served, in seconds since the start.
    busy_until_s: f64,
}

/// Its queue.
const QUEUE_S: f64 = 1.0;

impl Server {
    /// When the answer to what comes now is ready; `None` if it is lost.
    fn on_query(&mut self, now_s: f64) -> Option<f64> {
        if !self.up {
            return None;
        }
        let Some(capacity) = self.capacity else { return Some(now_s) };
        let queue = self.queue_s(now_s);
        if queue >= QUEUE_S {
            return None;
        }
        // At a full queue it does half of what it can.
        self.busy_until_s = now_s + queue + (1.0 + queue / QUEUE_S) / capacity;
        Some(self.busy_until_s)
    }

    fn queue_s(&self, now_s: f64) -> f64 {
        (self.busy_until_s - now_s).max(0.0)
    }
}

struct Host<C> {
    cache: C,
    wakes_at: Option<Moment>,
    /// Hot names that upstream has answered since its return.
    fresh: Vec<bool>,
    /// Tries without an end so far.
    open: HashMap<u64, Ask>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Query,
    Wakeup,
    Answer(u64),
    Timeout(u64),
}

struct Herd<C> {
    plan: Plan,
    world: Arc<World>,
    hosts: Vec<Host<C>>,
    server: Server,
    now: Moment,
    events: BinaryHeap<Reverse<(Moment, u32, Event)>>,
    random: fastrand::Rng,
    hot: usize,
    /// Heard since it was looked at last.
    heard: u64,
    /// Seconds since the upstream's return.
    since_return: Option<Since>,
}

struct Since {
    at: Moment,
    run: Run,
    fresh: usize,
}

impl<C: Cache> Herd<C> {
    fn new(plan: Plan, capacity: Option<f64>, make: impl Fn(u32, &World) -> C) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let ttl_s: Vec<u32> = (0..plan.names).map(|_| random.u32(plan.ttl_s.0..=plan.ttl_s.1)).collect();
        let named = || (0..).zip(&ttl_s).map(|(number, &ttl_s)| name(number, ttl_s));
        let packets: Vec<Vec<u8>> = named().map(|name| query(4711, &name, A, false)).collect();
        let wire = |text: String| dogwatch_dns::name::from_text(&text).unwrap_or_default();
        let key_to_name = named().map(wire).zip(0..).collect();
        // Zipf with exponent 1: what DNS caches see (Jung et al., 2002).
        let weights: Vec<f64> = (1..=plan.names)
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / f64::from(rank);
                Some(*sum)
            })
            .collect();
        let total = weights.last().copied().unwrap_or(1.0);
        let every = |rank: u32| f64::from(rank) * total / plan.queries_per_second;
        let hot = (1..=plan.names).take_while(|&rank| every(rank) <= 300.0).count();
        let world = Arc::new(World { packets, ttl_s, weights, key_to_name });
        let hosts = (0..plan.hosts)
            .map(|host| Host {
                cache: make(host, &world),
                wakes_at: None,
                fresh: vec![false; hot],
                open: HashMap::new(),
            })
            .collect();
        let mut herd = Self {
            plan,
            world,
            hosts,
            server: Server { up: true, capacity: None, busy_until_s: 0.0 },
            now: Moment::START,
            events: BinaryHeap::new(),
            random,
            hot,
            heard: 0,
            since_return: None,
        };
        for host in 0..plan.hosts {
            let first = herd.now + herd.gap();
            herd.events.push(Reverse((first, host, Event::Query)));
        }
        // Only what comes back is weak: the warm-up is not what is measured.
        herd.since_return = capacity.map(|capacity| herd.since(capacity));
        herd
    }

    fn since(&self, capacity: f64) -> Since {
        let seconds = usize::try_from(self.plan.after.as_secs()).unwrap_or(0);
        let run = Run {
            cache: "",
            normal: 0.0,
            capacity,
            heard: vec![0; seconds],
            lost: vec![0; seconds],
            queue_ms: vec![0; seconds],
            answered: vec![0; seconds],
            hot_fresh_s: [None; FRESH_PERCENT.len()],
        };
        Since { at: Moment::START + Duration::from_hours(10_000), run, fresh: 0 }
    }

    fn run(mut self, cache: &'static str) -> Run {
        self.run_for(self.plan.warm_up);
        self.heard = 0;
        self.run_for(self.plan.normal);
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let normal = self.heard as f64 / self.plan.normal.as_secs_f64();
        self.server.up = false;
        self.run_for(self.plan.outage);
        self.server.up = true;
        let mut since = self.since_return.take().unwrap_or_else(|| self.since(2.0 * normal));
        since.at = self.now;
        self.server.capacity = Some(since.run.capacity);
        self.since_return = Some(since);
        self.run_for(self.plan.after);
        let run = self.since_return.map_or_else(|| unreachable!("set above"), |since| since.run);
        Run { cache, normal, ..run }
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(&Reverse((at, host, event))) = self.events.peek() {
            if at >= end {
                break;
            }
            self.events.pop();
            self.now = self.now.max(at);
            self.on_event(host, event);
        }
        self.now = end;
    }

    fn on_event(&mut self, number: u32, event: Event) {
        let now = self.now;
        let world = Arc::clone(&self.world);
        let next_query = (event == Event::Query).then(|| (now + self.gap(), self.draw()));
        let Some(host) = self.hosts.get_mut(number as usize) else { return };
        match event {
            Event::Query => {
                if let Some((at, name)) = next_query {
                    self.events.push(Reverse((at, number, Event::Query)));
                    host.cache.on_query(name, now, &world);
                }
            }
            Event::Wakeup if host.wakes_at == Some(now) => {
                host.wakes_at = None;
                host.cache.on_wakeup(now);
            }
            Event::Wakeup => return,
            Event::Answer(try_id) => {
                let Some(ask) = host.open.remove(&try_id) else { return };
                host.cache.on_answer(&ask, now, &world);
                if let Some(since) = &mut self.since_return
                    && now >= since.at
                {
                    let second = usize::try_from(now.since(since.at).as_secs()).unwrap_or(0);
                    if let Some(answered) = since.run.answered.get_mut(second) {
                        *answered += 1;
                    }
                    if let Some(fresh) = host.fresh.get_mut(ask.name as usize).filter(|fresh| !**fresh) {
                        *fresh = true;
                        since.fresh += 1;
                        let all = self.hot * self.plan.hosts as usize;
                        for (percent, reached) in FRESH_PERCENT.iter().zip(&mut since.run.hot_fresh_s) {
                            if since.fresh * 100 >= all * percent {
                                reached.get_or_insert(now.since(since.at).as_secs());
                            }
                        }
                    }
                }
            }
            Event::Timeout(try_id) => {
                if host.open.remove(&try_id).is_none() {
                    return;
                }
                host.cache.on_timeout(try_id, now);
            }
        }
        self.carry_out(number);
    }

    fn carry_out(&mut self, number: u32) {
        let now = self.now;
        let now_s = now.since(Moment::START).as_secs_f64();
        let Some(host) = self.hosts.get_mut(number as usize) else { return };
        while let Some(ask) = host.cache.poll_ask(&self.world) {
            self.heard += 1;
            let served_s = self.server.on_query(now_s);
            if let Some(since) = self.since_return.as_mut().filter(|since| now >= since.at) {
                let second = usize::try_from(now.since(since.at).as_secs()).unwrap_or(0);
                let run = &mut since.run;
                if let (Some(heard), Some(lost), Some(queue)) =
                    (run.heard.get_mut(second), run.lost.get_mut(second), run.queue_ms.get_mut(second))
                {
                    *heard += 1;
                    *lost += u32::from(served_s.is_none());
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "at most some seconds"
                    )]
                    let queue_ms = (self.server.queue_s(now_s) * 1_000.0) as u32;
                    *queue = queue_ms.max(*queue);
                }
            }
            let (at, event) = match served_s {
                Some(served_s) => {
                    let way = Duration::from_millis(self.random.u64(1..20));
                    let waits = Duration::from_secs_f64((served_s - now_s).max(0.0));
                    (now + waits + way, Event::Answer(ask.try_id))
                }
                None if ask.timeout == Duration::MAX => continue,
                None => (now + ask.timeout, Event::Timeout(ask.try_id)),
            };
            self.events.push(Reverse((at, number, event)));
            host.open.insert(ask.try_id, ask);
        }
        let wakeup = host.cache.next_wakeup().map(|at| at.max(now + Duration::from_millis(1)));
        if let Some(at) = wakeup.filter(|&at| host.wakes_at.is_none_or(|known| at < known || known <= now)) {
            host.wakes_at = Some(at);
            self.events.push(Reverse((at, number, Event::Wakeup)));
        }
    }

    /// Until this host's clients ask again.
    fn gap(&mut self) -> Duration {
        let mean_s = 1.0 / self.plan.queries_per_second;
        Duration::from_secs_f64(-mean_s * (1.0 - self.random.f64()).ln()).max(Duration::from_millis(1))
    }

    fn draw(&mut self) -> u32 {
        let total = self.world.weights.last().copied().unwrap_or(0.0);
        let drawn = self.random.f64() * total;
        let place = self.world.weights.partition_point(|&sum| sum < drawn);
        u32::try_from(place).unwrap_or(0).min(self.plan.names - 1)
    }
}

/// Both runs as a table, a plot and a score line each.
pub struct Report<'a>(pub Plan, pub &'a [&'a Run]);

const PLOT_SECONDS: usize = 120;
const PLOT_ROWS: u32 = 10;

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(plan, runs) = self;
        let Some(capacity) = runs.first().map(|run| run.capacity) else { return Ok(()) };
        writeln!(
            f,
            "{} hosts × {} names, {} queries/s each, TTL {}–{} s; upstream silent for {} min, then back with room for {capacity:.0} queries/s",
            plan.hosts,
            plan.names,
            plan.queries_per_second,
            plan.ttl_s.0,
            plan.ttl_s.1,
            plan.outage.as_secs() / 60
        )?;
        writeln!(f, "\nqueries a second at the upstream, by second since its return (lost; longest queue):")?;
        write!(f, "{:>9}", "second")?;
        for run in *runs {
            write!(f, " {:>30}", run.cache)?;
        }
        writeln!(f)?;
        for (from, to) in [
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 5),
            (5, 10),
            (10, 20),
            (20, 30),
            (30, 60),
            (60, 120),
            (120, 300),
            (300, 600),
        ] {
            write!(f, "{:>9}", if to == from + 1 { from.to_string() } else { format!("{from}–{}", to - 1) })?;
            for run in *runs {
                let Some(heard) = run.heard.get(from..to) else { break };
                let mean = heard.iter().sum::<u32>() / u32::try_from(to - from).unwrap_or(1);
                let lost: u32 = run.lost[from..to].iter().sum();
                let queue = run.queue_ms[from..to].iter().max().copied().unwrap_or(0);
                write!(f, " {:>30}", format!("{mean} ({lost} lost; {queue} ms)"))?;
            }
            writeln!(f)?;
        }
        let top = runs.iter().map(|run| run.peak()).max().unwrap_or(1).max(1);
        for run in *runs {
            writeln!(f, "\n{}: queries/s, one column a second; ─ capacity, · normal", run.cache)?;
            f.write_str(&plot(run, top))?;
        }
        writeln!(f)?;
        let after =
            |seconds: Option<u64>| seconds.map_or("not within the run".into(), |s| format!("after {s} s"));
        for run in *runs {
            writeln!(
                f,
                "score {:<9} normal {:.0}/s  peak {}/s = {:.2}× capacity ({:.2}× normal)  {} s over capacity  lost {}  longest queue {} ms  hot names fresh: 90 % {}, 99 % {}",
                run.cache,
                run.normal,
                run.peak(),
                run.peak_of_capacity(),
                f64::from(run.peak()) / run.normal,
                run.seconds_over(),
                run.lost_total(),
                run.queue_ms_max(),
                after(run.hot_fresh_s[0]),
                after(run.hot_fresh_s[1]),
            )?;
        }
        Ok(())
    }
}

fn plot(run: &Run, top: u32) -> String {
    let mut text = String::new();
    for row in (1..=PLOT_ROWS).rev() {
        let (low, high) = (top * (row - 1) / PLOT_ROWS, top * row / PLOT_ROWS);
        let within = |level: f64| level > f64::from(low) && level <= f64::from(high);
        let ground = if within(run.capacity) {
            '─'
        } else if within(run.normal) {
            '·'
        } else {
            ' '
        };
        let _ = write!(text, "{high:>8} ");
        for &heard in run.heard.iter().take(PLOT_SECONDS) {
            text.push(if heard > low { '█' } else { ground });
        }
        text.push('\n');
    }
    text
}

/// The curves as a picture for a browser.
pub fn svg(runs: &[&Run]) -> String {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 300.0;
    const LEFT: f64 = 60.0;
    const BOTTOM: f64 = 40.0;
    let seconds = PLOT_SECONDS.min(runs.iter().map(|run| run.heard.len()).min().unwrap_or(0));
    let top = f64::from(runs.iter().map(|run| run.peak()).max().unwrap_or(1).max(1)) * 1.05;
    let place =
        |second: usize| LEFT + (WIDTH - LEFT - 10.0) * f64::from(u32::try_from(second).unwrap_or(0)) / 120.0;
    let level = |value: f64| HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 20.0) * value / top;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    let mut line = |value: f64, label: &str, colour: &str| {
        let y = level(value);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-dasharray=\"4 3\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{label}</text>",
            WIDTH - 10.0,
            WIDTH - 12.0,
            y - 4.0
        );
    };
    if let Some(run) = runs.first() {
        line(run.capacity, "capacity", "#b00020");
        line(run.normal, "normal load", "#606060");
    }
    for (run, colour) in runs.iter().zip(["#c06000", "#0060a0"]) {
        let points: Vec<String> = (0..seconds)
            .map(|second| format!("{:.1},{:.1}", place(second), level(f64::from(run.heard[second]))))
            .collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    for (row, (run, colour)) in (0_u32..).zip(runs.iter().zip(["#c06000", "#0060a0"])) {
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}: peak {:.2}× capacity, {} lost</text>",
            LEFT + 60.0,
            30 + 16 * row,
            run.cache,
            run.peak_of_capacity(),
            run.lost_total()
        );
    }
    for second in (0..=PLOT_SECONDS).step_by(20) {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{second} s</text>",
            place(second),
            HEIGHT - 20.0
        );
    }
    let _ =
        writeln!(out, "<text x=\"4\" y=\"14\">queries/s at the upstream, since its return</text>\n</svg>");
    out
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
