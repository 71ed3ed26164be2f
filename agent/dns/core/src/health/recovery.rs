//! Recovery after an outage: which stale names are refreshed, in which order, how fast, and when it
//! is over.
//!
//! An upstream that has just come back is weak, and a thousand hosts want everything from it at
//! once. So in the meantime known names are answered stale and refreshed here, never by the client
//! that asks:
//!
//! - **Order**: the names that clients asked for in the outage, most used first. A name that was
//!   refreshed and expired again takes turns with them, so that the long tail and short TTLs do not
//!   starve each other.
//! - **Rate**: below this host's query rate before the outage, including queries for unknown names.
//!   It starts at a quarter and doubles each half second. It still ends, because two of three
//!   refreshes are of names not tried yet.
//! - **Phase**: the host's id determines its start within the first second and its rate, ±25 %, so
//!   that a fleet does not act in step.
//! - **Slow or lossy upstreams**: about a seventh of that rate, as long as they are.
//! - **Errors**: one late refresh, or two failures in a row, pause it and halve the rate, which
//!   then grows again in small steps.
//! - **End**: when 98 % of the hot names are verified, or all waiting names were tried. Hot names
//!   are those that together got four fifths of the queries.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use crate::{health::pace::Pace, moment::Moment};

/// What the host's id determines about its recovery, both 0.0..1.0.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    start: f64,
    rate: f64,
}

impl Phase {
    /// `host` is a hash of something that differs between hosts, such as the machine id.
    pub fn of(host: u64) -> Self {
        let fraction = |bits: u64| f64::from(u32::try_from(bits & 0xffff).unwrap_or(0)) / 65_536.0;
        // Mixed because callers may pass consecutive numbers (the finalizer of MurmurHash3).
        let mut mixed = host ^ (host >> 33);
        mixed = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^= mixed >> 33;
        mixed = mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^= mixed >> 33;
        Self { start: fraction(mixed), rate: fraction(mixed >> 16) }
    }
}

/// A name to refresh.
pub struct Candidate {
    /// Client queries.
    pub uses: u32,
    pub pinned: bool,
    pub key: Box<[u8]>,
}

/// Share of the query rate before the outage. Below one because clients' new queries come on top.
const SHARE: f64 = 0.8;
/// Share of that rate while upstreams are slow or lossy. Clients are then all answered stale, and
/// such an upstream gets at most a fifth of the host's earlier rate (after `SHARE`, including the
/// spread and probes).
const SLOW_SHARE: f64 = 0.15;
/// How much the rate differs between hosts.
const RATE_SPREAD: f64 = 0.25;
const START_SPREAD: Duration = Duration::from_secs(1);
/// Initial share of the full rate; doubles each step until full.
const RAMP_FIRST: f64 = 0.25;
const RAMP_STEP: Duration = Duration::from_millis(500);
/// Growth per second after trouble; the rate never falls below `RAMP_LEAST`.
const RAMP_GENTLE: f64 = 0.125;
const RAMP_GENTLE_STEP: Duration = Duration::from_secs(1);
const RAMP_LEAST: f64 = 1.0 / 16.0;
/// After trouble nothing is sent for this long, doubling …
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// … up to this if trouble returns at once.
const PAUSE_LONGEST: Duration = Duration::from_secs(8);
/// A quiet host still recovers: one name in five seconds.
const PER_SECOND_LEAST: f64 = 0.2;
/// A host that has just started does not know its normal rate: the waiting names are spread over
/// this time …
const UNKNOWN_SPREAD_S: f64 = 30.0;
/// … within these bounds, because a whole fleet may have just started.
const PER_SECOND_UNKNOWN: std::ops::RangeInclusive<f64> = 2.0..=20.0;
/// A recovery lasts at least this long even with nothing to refresh.
const LASTS_LEAST: Duration = Duration::from_secs(2);
/// Upstreams that come and go, or are slow, keep it running without progress. Once they are healthy
/// it begins again; otherwise everything would count as tried, and clients would refresh all stale
/// names at once.
pub(crate) const OUTDATED_AFTER: Duration = Duration::from_secs(10);
const END_LOOKED_FOR_EVERY: Duration = Duration::from_millis(250);
/// Hot names got this share of the queries …
const HOT_PERCENT: u64 = 80;
/// … and this share of them must be verified.
const CLEAR_PERCENT: usize = 98;
/// Consecutive failures that are blamed on the upstream, not on the names.
const FAILED_IN_A_ROW: u32 = 2;
/// Most names waiting; less used ones are refreshed when a client asks.
pub const WAITING_MAX: usize = 65_536;
/// Clients' own queries delay refreshes by at most this many turns.
const OWED_MAX: u32 = 64;
/// One in this many refreshes is of a name that expired again.
const TURNS: u8 = 3;
/// Of four turns one goes to a refresh, however much clients ask.
const TURNS_FOR_CLIENTS: u32 = 3;

/// How far the refresh of a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefreshState {
    /// Waiting for its first refresh since the outage.
    Waiting {
        hot: bool,
    },
    Asked {
        hot: bool,
    },
    /// Tried; it may expire again.
    Settled,
    /// Waiting after it expired again, or expired for the first time since the outage.
    WaitingAgain,
    AskedAgain,
}

/// The rate for a host that does not know its normal one.
fn unknown_rate(waiting: usize) -> f64 {
    let waiting = f64::from(u32::try_from(waiting).unwrap_or(u32::MAX));
    (waiting / UNKNOWN_SPREAD_S).clamp(*PER_SECOND_UNKNOWN.start(), *PER_SECOND_UNKNOWN.end())
}

/// Ordered by uses, then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    pinned: bool,
    uses: u32,
    arrival: Reverse<u64>,
    key: Arc<[u8]>,
}

/// One group's recovery. Idle until [`Recovery::begin`].
pub struct Recovery {
    phase: Phase,
    running: Option<Running>,
}

struct Running {
    since: Moment,
    /// Rate per second when all is well.
    full_rate: f64,
    /// The share of it to use while upstreams are slow.
    share: f64,
    ramp: f64,
    ramp_at: Moment,
    gentle: bool,
    paused_until: Moment,
    pause: Duration,
    pace: Pace,
    /// The rate that `pace` is set to.
    paced: f64,
    next_at: Moment,
    first: BinaryHeap<Waiting>,
    again: BinaryHeap<Waiting>,
    turn: u8,
    states: BTreeMap<Arc<[u8]>, RefreshState>,
    arrivals: u64,
    /// Client queries sent in the meantime, which refreshes must make room for.
    owed: u32,
    turns_given: u32,
    failed_in_a_row: u32,
    progress: Progress,
}

/// Progress of a recovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The most used names, and how many of them upstreams have answered since.
    pub hot: usize,
    pub verified: usize,
    /// Names waiting for a refresh.
    pub waiting: usize,
}

impl Recovery {
    pub fn new(host: u64) -> Self {
        Self { phase: Phase::of(host), running: None }
    }

    /// Upstreams answer again. `before` is this host's queries per second before the outage, if
    /// known.
    pub fn begin(&mut self, before: Option<f64>, mut names: Vec<Candidate>, now: Moment) {
        // Finally by key: the cache's order is random, and a drill must be repeatable.
        names.sort_unstable_by(|a, b| {
            (b.pinned, b.uses).cmp(&(a.pinned, a.uses)).then_with(|| a.key.cmp(&b.key))
        });
        names.truncate(WAITING_MAX);
        let jitter = 1.0 + RATE_SPREAD * (2.0 * self.phase.rate - 1.0);
        let usual = match before {
            Some(before) => before.max(PER_SECOND_LEAST / SHARE),
            None => unknown_rate(names.len()),
        };
        let start = now + START_SPREAD.mul_f64(self.phase.start);
        let full_rate = usual * SHARE * jitter;
        let mut running = Running {
            since: now,
            full_rate,
            share: 1.0,
            ramp: RAMP_FIRST,
            ramp_at: start + RAMP_STEP,
            gentle: false,
            paused_until: start,
            pause: PAUSE_FIRST,
            pace: Pace::even(full_rate * RAMP_FIRST, now),
            paced: full_rate * RAMP_FIRST,
            next_at: start,
            first: BinaryHeap::new(),
            again: BinaryHeap::new(),
            turn: 0,
            states: BTreeMap::new(),
            arrivals: 0,
            owed: 0,
            turns_given: 0,
            failed_in_a_row: 0,
            progress: Progress::default(),
        };
        let all: u64 = names.iter().map(|name| u64::from(name.uses)).sum();
        let mut so_far = 0;
        for name in names {
            let hot = name.pinned || (name.uses > 0 && so_far * 100 < all * HOT_PERCENT);
            so_far += u64::from(name.uses);
            running.progress.hot += usize::from(hot);
            let key: Arc<[u8]> = name.key.into();
            running.states.insert(Arc::clone(&key), RefreshState::Waiting { hot });
            let waiting = running.waiting(name.uses, name.pinned, key);
            running.first.push(waiting);
        }
        self.running = Some(running);
    }

    /// Starts over with the names that are stale now, at the current rate.
    pub fn begin_again(&mut self, before: Option<f64>, names: Vec<Candidate>, now: Moment) {
        let old = self.running.take();
        self.begin(before, names, now);
        if let Some(old) = old {
            self.running = self.running.take().map(|new| Running {
                since: now,
                next_at: now.max(old.paused_until),
                first: new.first,
                again: new.again,
                states: new.states,
                arrivals: new.arrivals,
                progress: new.progress,
                ..old
            });
        }
    }

    /// Upstreams are down again, or the recovery is no longer needed.
    pub fn stop(&mut self) {
        self.running = None;
    }

    pub fn running(&self) -> bool {
        self.running.is_some()
    }

    /// It began so long ago that names verified then may have expired.
    pub fn outdated(&self, now: Moment) -> bool {
        self.running.as_ref().is_some_and(|running| now.since(running.since) >= OUTDATED_AFTER)
    }

    pub fn progress(&self) -> Progress {
        self.running.as_ref().map_or_else(Progress::default, |running| Progress {
            waiting: running.first.len() + running.again.len(),
            ..running.progress
        })
    }

    /// A client asked for this stale name, and was answered.
    pub fn push(&mut self, key: &[u8], uses: u32) {
        let Some(running) = &mut self.running else { return };
        let full = running.states.len() >= WAITING_MAX;
        match running.states.get_mut(key) {
            Some(state @ RefreshState::Settled) => *state = RefreshState::WaitingAgain,
            Some(_) => return,
            None if full => return,
            None => drop(running.states.insert(key.into(), RefreshState::WaitingAgain)),
        }
        if running.first.is_empty() && running.again.is_empty() {
            // Checks again soon; the rate limit still applies.
            running.next_at = running.since;
        }
        let waiting = running.waiting(uses, false, key.into());
        running.again.push(waiting);
    }

    /// Sets whether upstreams are slow or lossy.
    pub fn set_slow(&mut self, slow: bool) {
        if let Some(running) = &mut self.running {
            running.share = if slow { SLOW_SHARE } else { 1.0 };
        }
    }

    /// A query other than a refresh was sent; it counts as load too.
    pub fn on_other_question(&mut self) {
        if let Some(running) = &mut self.running {
            running.owed = (running.owed + 1).min(OWED_MAX);
        }
    }

    /// A probe is to be sent: it takes a query of the recovery's rate. The error says when there is
    /// one to spare.
    pub fn take_for_probe(&mut self, now: Moment) -> Result<(), Duration> {
        let Some(running) = &mut self.running else { return Ok(()) };
        running.set_rate(now);
        running.pace.take(now)
    }

    /// A name that is due for refresh. Report the outcome with [`Self::on_settled`].
    pub fn poll(&mut self, now: Moment) -> Option<Arc<[u8]>> {
        let running = self.running.as_mut()?;
        running.set_rate(now);
        loop {
            if running.first.is_empty() && running.again.is_empty() {
                running.next_at = (running.since + LASTS_LEAST).max(now + END_LOOKED_FOR_EVERY);
                return None;
            }
            if now < running.paused_until {
                running.next_at = running.paused_until;
                return None;
            }
            if let Err(wait) = running.pace.take(now) {
                running.next_at = now + wait;
                return None;
            }
            if running.owed > 0 && running.turns_given < TURNS_FOR_CLIENTS {
                running.owed -= 1;
                running.turns_given += 1;
                continue;
            }
            running.turns_given = 0;
            return running.take();
        }
    }

    pub fn next_wakeup(&self) -> Option<Moment> {
        Some(self.running.as_ref()?.next_at)
    }

    /// The outcome of a refresh; `verified` is false if it failed or was not worth sending.
    pub fn on_settled(&mut self, key: &[u8], verified: bool) {
        let Some(running) = &mut self.running else { return };
        if verified {
            running.failed_in_a_row = 0;
        }
        let Some(state) = running.states.get_mut(key) else { return };
        match std::mem::replace(state, RefreshState::Settled) {
            RefreshState::Asked { hot } | RefreshState::Waiting { hot } => {
                running.progress.verified += usize::from(hot && verified);
            }
            // Still queued; that refresh will find it fresh.
            again @ RefreshState::WaitingAgain => *state = again,
            RefreshState::Settled | RefreshState::AskedAgain => {}
        }
    }

    /// A refresh got no answer. A single failure may be the name's own fault.
    pub fn on_failed(&mut self, now: Moment) {
        let Some(running) = &mut self.running else { return };
        running.failed_in_a_row += 1;
        if running.failed_in_a_row >= FAILED_IN_A_ROW {
            self.on_trouble(now);
        }
    }

    /// A refresh is late, or several failed: the upstream is overloaded already.
    pub fn on_trouble(&mut self, now: Moment) {
        let Some(running) = &mut self.running else { return };
        // Refreshes sent together cause only one halving.
        if now < running.paused_until {
            return;
        }
        let again_at_once = running.gentle && now.since(running.paused_until) < running.pause;
        running.pause = if again_at_once { (running.pause * 2).min(PAUSE_LONGEST) } else { PAUSE_FIRST };
        running.failed_in_a_row = 0;
        running.ramp = (running.ramp / 2.0).max(RAMP_LEAST);
        running.gentle = true;
        running.paused_until = now + running.pause;
        running.ramp_at = running.paused_until + RAMP_GENTLE_STEP;
        running.next_at = running.paused_until;
    }

    /// Whether the important names are fresh; if so, ends the recovery.
    pub fn poll_all_clear(&mut self, now: Moment) -> bool {
        let Some(running) = &self.running else { return false };
        let Progress { hot, verified, .. } = running.progress;
        // Asked after each input: no walk over all names before the last one was tried.
        let asked = || running.states.values().any(|state| matches!(state, RefreshState::Asked { .. }));
        let tried = running.first.is_empty() && !asked();
        let clear = now.since(running.since) >= LASTS_LEAST
            && (tried || (hot > 0 && verified * 100 >= hot * CLEAR_PERCENT));
        if clear {
            self.running = None;
        }
        clear
    }
}

impl Running {
    fn waiting(&mut self, uses: u32, pinned: bool, key: Arc<[u8]>) -> Waiting {
        self.arrivals += 1;
        Waiting { pinned, uses, arrival: Reverse(self.arrivals), key }
    }

    fn take(&mut self) -> Option<Arc<[u8]>> {
        self.turn = (self.turn + 1) % TURNS;
        let (one, other) = if self.turn == 0 {
            (&mut self.again, &mut self.first)
        } else {
            (&mut self.first, &mut self.again)
        };
        let key = one.pop().or_else(|| other.pop())?.key;
        let state = self.states.get_mut(&key)?;
        *state = match *state {
            RefreshState::Waiting { hot } => RefreshState::Asked { hot },
            RefreshState::WaitingAgain
            | RefreshState::Settled
            | RefreshState::Asked { .. }
            | RefreshState::AskedAgain => RefreshState::AskedAgain,
        };
        Some(key)
    }

    fn set_rate(&mut self, now: Moment) {
        while self.ramp < 1.0 && now >= self.ramp_at {
            let (ramp, step) = if self.gentle {
                (self.ramp + RAMP_GENTLE, RAMP_GENTLE_STEP)
            } else {
                (self.ramp * 2.0, RAMP_STEP)
            };
            self.ramp = ramp.min(1.0);
            self.ramp_at = self.ramp_at + step;
        }
        let full_rate = (self.full_rate * self.share).max(PER_SECOND_LEAST.min(self.full_rate));
        let rate = full_rate * self.ramp;
        // Setting the rate restarts the wait for the next token.
        if (rate - self.paced).abs() > self.paced * 0.01 {
            self.pace.set_rate(rate, now);
            self.paced = rate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(uses: impl IntoIterator<Item = u32>) -> Vec<Candidate> {
        let candidate =
            |(number, uses): (u32, u32)| Candidate { uses, pinned: false, key: number.to_be_bytes().into() };
        (0..).zip(uses).map(candidate).collect()
    }

    fn number(key: &[u8]) -> u32 {
        u32::from_be_bytes(key.try_into().unwrap())
    }

    /// Runs a recovery for `seconds`; returns the number of refreshes each second. `answer` is
    /// called for each and reports the outcome.
    fn run(
        recovery: &mut Recovery,
        now: &mut Moment,
        seconds: u64,
        mut answer: impl FnMut(&mut Recovery, &[u8], Moment),
    ) -> Vec<usize> {
        let start = *now;
        let mut sent = vec![0; usize::try_from(seconds).unwrap()];
        while now.since(start) < Duration::from_secs(seconds) {
            while let Some(key) = recovery.poll(*now) {
                sent[usize::try_from(now.since(start).as_secs()).unwrap()] += 1;
                answer(recovery, &key, *now);
            }
            let next = recovery.next_wakeup().unwrap_or(*now + Duration::from_secs(1));
            *now = next.max(*now + Duration::from_millis(1));
        }
        *now = start + Duration::from_secs(seconds);
        sent
    }

    fn well(recovery: &mut Recovery, key: &[u8], _: Moment) {
        recovery.on_settled(key, true);
    }

    #[test]
    fn the_most_used_names_come_first_and_a_pinned_one_before_them() {
        let mut now = Moment::START;
        let mut recovery = Recovery::new(1);
        let mut all = names([3, 900, 20, 0, 900]);
        all[3].pinned = true;
        recovery.begin(Some(10.0), all, now);
        let mut order = Vec::new();
        run(&mut recovery, &mut now, 10, |recovery, key, _| {
            order.push(number(key));
            recovery.on_settled(key, true);
        });
        assert_eq!(order, [3, 1, 4, 2, 0]);
    }

    #[test]
    fn it_starts_slowly_and_stays_below_the_earlier_rate() {
        for host in 0..50 {
            let mut now = Moment::START;
            let mut recovery = Recovery::new(host);
            recovery.begin(Some(100.0), names((0..10_000).map(|_| 1)), now);
            let sent = run(&mut recovery, &mut now, 60, well);
            assert!(sent[0] <= 39 && sent[1] <= 100, "host {host}: {sent:?}");
            assert!(sent.iter().all(|&sent| sent <= 101), "host {host}: {sent:?}");
            assert!(sent[10..].iter().all(|&sent| sent >= 58), "host {host}: {sent:?}");
        }
    }

    #[test]
    fn hosts_differ_in_start_and_rate() {
        let rates: Vec<f64> = (0..1_000).map(|host| Phase::of(host).rate).collect();
        let mean = rates.iter().sum::<f64>() / 1_000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        let starts: Vec<f64> = (0..1_000).map(|host| Phase::of(host).start).collect();
        for tenth in 0..10 {
            let low = f64::from(tenth) / 10.0;
            let within = |start: &&f64| (low..low + 0.1).contains(*start);
            assert!((60..150).contains(&starts.iter().filter(within).count()), "{tenth}");
        }
    }

    #[test]
    fn trouble_stops_it_halves_the_rate_and_then_it_grows_in_small_steps() {
        let mut now = Moment::START;
        let mut recovery = Recovery::new(7);
        recovery.begin(Some(100.0), names((0..10_000).map(|_| 1)), now);
        let full = *run(&mut recovery, &mut now, 10, well).last().unwrap();
        recovery.on_trouble(now);
        // Other refreshes of the same batch are late too; that counts once.
        recovery.on_trouble(now + Duration::from_millis(10));
        let sent = run(&mut recovery, &mut now, 10, well);
        assert_eq!(sent[0], 0);
        assert!(sent[1].abs_diff(full / 2) <= 2, "{full}: {sent:?}");
        assert!(sent[9].abs_diff(full) <= 2 && sent[..6].is_sorted(), "{full}: {sent:?}");
    }

    #[test]
    fn slow_upstreams_get_a_seventh_of_the_rate_and_a_quiet_host_still_finishes() {
        let mut now = Moment::START;
        let mut recovery = Recovery::new(7);
        recovery.begin(Some(100.0), names((0..10_000).map(|_| 1)), now);
        let full = *run(&mut recovery, &mut now, 10, well).last().unwrap();
        recovery.set_slow(true);
        let slow = *run(&mut recovery, &mut now, 10, well).last().unwrap();
        recovery.set_slow(false);
        let again = *run(&mut recovery, &mut now, 10, well).last().unwrap();
        assert!(again.abs_diff(full) <= 1 && (slow * 7).abs_diff(full) <= 10, "{full} {slow} {again}");
        recovery.begin(Some(0.3), names((0..10_000).map(|_| 1)), now);
        recovery.set_slow(true);
        let sent: usize = run(&mut recovery, &mut now, 100, well).into_iter().sum();
        assert!((14..=20).contains(&sent), "{sent}");
    }

    #[test]
    fn an_upstream_that_fails_every_query_gets_few() {
        let mut now = Moment::START;
        let mut recovery = Recovery::new(7);
        recovery.begin(Some(100.0), names((0..10_000).map(|_| 1)), now);
        let sent = run(&mut recovery, &mut now, 60, |recovery, key, now| {
            recovery.on_settled(key, false);
            recovery.on_failed(now);
        });
        assert!(sent.iter().sum::<usize>() <= 25, "{sent:?}");
    }

    #[test]
    fn client_queries_count_as_load_but_do_not_starve_refreshes() {
        let refreshes = |others: u32| {
            let mut now = Moment::START;
            let mut recovery = Recovery::new(7);
            recovery.begin(Some(100.0), names((0..10_000).map(|_| 1)), now);
            let sent = run(&mut recovery, &mut now, 50, |recovery, key, _| {
                (0..others).for_each(|_| recovery.on_other_question());
                recovery.on_settled(key, true);
            });
            sent.iter().sum::<usize>()
        };
        let alone = refreshes(0);
        assert!(refreshes(1).abs_diff(alone / 2) <= 2);
        assert!(refreshes(20).abs_diff(alone / 4) <= 2);
    }

    #[test]
    fn it_ends_once_the_hot_names_are_verified() {
        let mut now = Moment::START;
        let mut recovery = Recovery::new(7);
        // A hundred names with 90 queries each, 900 with one: four fifths of the queries are for 88
        // names.
        recovery.begin(Some(50.0), names((0..1_000).map(|n| if n < 100 { 90 } else { 1 })), now);
        assert_eq!(recovery.progress(), Progress { hot: 88, verified: 0, waiting: 1_000 });
        let mut cleared = None;
        for _ in 0..600 {
            run(&mut recovery, &mut now, 1, well);
            let progress = recovery.progress();
            if recovery.poll_all_clear(now) {
                cleared = Some(progress);
                break;
            }
        }
        let cleared = cleared.unwrap();
        assert!(cleared.verified >= 86 && cleared.waiting > 0, "{cleared:?}");
        assert!(!recovery.running());
    }

    #[test]
    fn names_that_are_broken_themselves_do_not_delay_the_end() {
        let mut now = Moment::START;
        let mut recovery = Recovery::new(7);
        recovery.begin(Some(50.0), names((0..40).map(|_| 5)), now);
        run(&mut recovery, &mut now, 30, |recovery, key, _| {
            recovery.on_settled(key, !number(key).is_multiple_of(4));
        });
        assert!(recovery.poll_all_clear(now));
    }

    #[test]
    fn a_name_that_expires_again_takes_turns_with_the_long_tail() {
        let mut now = Moment::START;
        let mut recovery = Recovery::new(7);
        recovery.begin(Some(50.0), names((0..2_000).map(|n| 3_000 - n)), now);
        let mut again = 0;
        let sent = run(&mut recovery, &mut now, 20, |recovery, key, _| {
            again += usize::from(number(key) == 0);
            recovery.on_settled(key, true);
            // Its TTL is zero, and clients ask for it all the time.
            recovery.push(&0_u32.to_be_bytes(), 9_999);
            recovery.push(&0_u32.to_be_bytes(), 9_999);
        });
        let sent = sent.iter().sum::<usize>();
        assert!(again.abs_diff(sent / 3) <= 2, "{again} of {sent}");
    }

    #[test]
    fn a_host_with_a_low_or_unknown_rate_is_careful_too() {
        for (before, waiting, most) in [
            (Some(0.5), 1_000, 15..=31),
            (Some(0.0), 1_000, 8..=16),
            // Within the bounds: half a minute for all waiting names.
            (None, 200, 200..=200),
            (None, 100_000, 600..=1_180),
        ] {
            let mut now = Moment::START;
            let mut recovery = Recovery::new(7);
            recovery.begin(before, names((0..waiting).map(|_| 1)), now);
            let sent: usize = run(&mut recovery, &mut now, 59, well).iter().sum();
            assert!(most.contains(&sent), "{before:?}: {sent}");
        }
    }
}
