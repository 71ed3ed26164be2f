//! Keep-warm: hot names are refreshed shortly before they expire, without waiting for a client to
//! ask.
//!
//! Each new answer is scheduled for the end of its TTL. At that time its use count decides whether
//! it is worth a query, and the budget whether one is allowed: never more per second than the host
//! asks anyway. A name that clients ask for several times per TTL thus rarely expires, a name that
//! they no longer ask for costs at most three more queries, and TTLs below ten seconds are left to
//! the clients. Nothing is kept warm while upstreams have trouble; the recovery takes
//! over then.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use crate::{
    cache::Slot,
    health::pace::Pace,
    moment::Moment,
    policy::{PREFETCH_TTL_MIN, prefetch_window},
};

/// How much an entry is used.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// Uses in this lifetime.
    pub uses: u32,
    /// Uses in earlier lifetimes, halved with each.
    pub past_uses: u32,
    /// Time since the last use.
    pub idle: Duration,
    pub ttl: Duration,
}

/// About three uses per TTL: if they come at random, 19 in 20 such names are asked for again within
/// the next TTL. Uses in this lifetime count double. Past uses count up to the current ones plus
/// four, because an outage is one long lifetime and makes a name look busier than it is.
const SCORE_LEAST: u32 = 12;
const PAST_SCORE: u32 = 4;
/// A busy name may go unused …
const BUSY: u32 = 20;
/// … for this many TTLs. Then it may expire.
const PAUSE_TTLS: u32 = 3;
/// Most scheduled entries; others are refreshed when a client asks.
const PLACES_MAX: usize = 262_144;
/// A host that asks little may still keep a few names warm.
const PER_SECOND_LEAST: f64 = 1.0;
const BURST: u32 = 10;
const BUDGET_EVERY: Duration = Duration::from_secs(10);
/// Time for the answer to arrive.
const LEAD: Duration = Duration::from_millis(200);

/// Whether a name is used enough to be refreshed without a query.
pub fn worth_it(used: Use) -> bool {
    let twice = used.uses.saturating_mul(2);
    let score = twice.saturating_add(used.past_uses.min(twice.saturating_add(PAST_SCORE)));
    let wanted = used.uses > 0 && score >= SCORE_LEAST;
    let pauses = used.past_uses >= BUSY && used.idle <= used.ttl * PAUSE_TTLS;
    wanted || pauses
}

/// When to refresh an answer with this TTL: at a random time near its end, so that names received
/// together spread out. `spread` is 0.0..1.0. `None` if it is too short to be kept warm.
pub fn refresh_at(expires: Moment, ttl: Duration, spread: f64) -> Option<Moment> {
    let slack = prefetch_window(ttl);
    (ttl >= PREFETCH_TTL_MIN).then(|| expires - LEAD - slack.saturating_sub(LEAD).mul_f64(spread))
}

/// Which entry to check when.
#[derive(Default)]
pub struct Schedule {
    /// By time, then by order of arrival, since slot numbers are arbitrary.
    due: BinaryHeap<Reverse<(Moment, u32, Slot)>>,
    arrivals: u32,
}

impl Schedule {
    /// Schedules an answer. The slot may hold another answer by then, which is harmless: it is
    /// judged on its own.
    pub fn on_learned(&mut self, slot: Slot, expires: Moment, ttl: Duration, spread: f64) {
        if self.due.len() < PLACES_MAX
            && let Some(at) = refresh_at(expires, ttl, spread)
        {
            self.arrivals = self.arrivals.wrapping_add(1);
            self.due.push(Reverse((at, self.arrivals, slot)));
        }
    }

    /// An entry to check now.
    pub fn poll(&mut self, now: Moment) -> Option<Slot> {
        let &Reverse((at, _, slot)) = self.due.peek()?;
        if at > now {
            return None;
        }
        self.due.pop();
        Some(slot)
    }

    pub fn next_wakeup(&self) -> Option<Moment> {
        self.due.peek().map(|&Reverse((at, ..))| at)
    }
}

/// How much of one zone's upstreams keep-warm may use.
pub struct Budget {
    pace: Pace,
    set_at: Moment,
}

impl Budget {
    pub fn new(now: Moment) -> Self {
        Self { pace: Pace::new(PER_SECOND_LEAST, BURST, now), set_at: now }
    }

    /// Whether one more refresh is within the budget; `usual` is this host's queries per second in
    /// normal times.
    pub fn take(&mut self, usual: f64, now: Moment) -> bool {
        if now.since(self.set_at) >= BUDGET_EVERY {
            self.set_at = now;
            self.pace = Pace::new(usual.max(PER_SECOND_LEAST), BURST, now);
        }
        self.pace.take(now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(uses: u32, past_uses: u32, idle_s: u64) -> Use {
        Use { uses, past_uses, idle: Duration::from_secs(idle_s), ttl: Duration::from_mins(1) }
    }

    #[test]
    fn a_name_is_kept_warm_while_in_use_and_for_a_few_ttls_after() {
        assert!(worth_it(used(3, 6, 10)));
        assert!(worth_it(used(6, 0, 10)), "a new name");
        assert!(!worth_it(used(2, 4, 10)), "twice per TTL: the client's own query costs less");
        assert!(worth_it(used(0, 20, 180)), "busy, in a pause");
        assert!(!worth_it(used(0, 9_999, 181)), "no longer used");
        assert!(!worth_it(used(0, 19, 50)));
        assert!(worth_it(used(u32::MAX, u32::MAX, 0)));
    }

    #[test]
    fn a_refresh_falls_into_the_end_of_the_ttl_and_short_ttls_are_left_alone() {
        let expires = Moment::START + Duration::from_mins(5);
        for spread in [0.0, 0.5, 1.0] {
            for ttl in [10, 60, 86_400] {
                let ttl = Duration::from_secs(ttl);
                let at = refresh_at(expires, ttl, spread).unwrap();
                assert!(
                    at < expires && at >= expires - (ttl / 10).min(Duration::from_secs(2)),
                    "{ttl:?} {spread}"
                );
            }
        }
        for ttl in [0, 1, 5, 9] {
            assert_eq!(refresh_at(expires, Duration::from_secs(ttl), 0.5), None);
        }
    }

    #[test]
    fn the_schedule_returns_each_entry_when_it_is_due() {
        let mut schedule = Schedule::default();
        let (now, ttl) = (Moment::START, Duration::from_secs(100));
        schedule.on_learned(7, now + ttl * 2, ttl, 0.0);
        schedule.on_learned(8, now + ttl, ttl, 0.0);
        schedule.on_learned(9, now + ttl, Duration::from_secs(5), 0.0);
        assert_eq!(schedule.poll(now), None);
        assert_eq!(schedule.poll(schedule.next_wakeup().unwrap()), Some(8));
        assert_eq!((schedule.poll(now + ttl), schedule.poll(now + ttl * 2)), (None, Some(7)));
        assert_eq!(schedule.next_wakeup(), None);
    }

    #[test]
    fn keeping_warm_never_takes_more_than_the_host_asks_anyway() {
        let mut now = Moment::START;
        let mut budget = Budget::new(now);
        let mut taken = 0;
        for _ in 0..6_000 {
            now = now + Duration::from_millis(10);
            taken += u32::from(budget.take(20.0, now));
        }
        // A minute at 20 per second, plus a burst each time the rate is updated.
        assert!((1_000..=1_270).contains(&taken), "{taken}");
    }
}
