//! Keep-warm: hot names are refreshed shortly before they expire, whether or not a client asks just then.
//!
//! Each answer that is learned gets a place in a schedule, in the last tenth of its TTL. When its time comes, the entry
//! itself tells whether it was used enough to be worth a question, and the budget whether there may be one: never more a
//! second than the host asks anyway. So a name that clients ask for some times a TTL hardly ever expires, one that they forget
//! costs three more questions at most, and TTLs below ten seconds are left to the clients. While the upstreams are
//! ill nothing is kept warm: then the schedule runs empty, and the recovery takes over.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use crate::{cache::Slot, health::pace::Pace, moment::Moment, policy::PREFETCH_TTL_MIN};

/// What an entry says of its use.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// In this lifetime.
    pub uses: u32,
    /// In those before, halved with each.
    pub past_uses: u32,
    /// Since the last use.
    pub idle: Duration,
    pub ttl: Duration,
}

/// About twice a TTL: then a refresh costs upstream hardly more than the clients' own questions would. Uses of this lifetime
/// count double, and those of the past no more than these and four: an outage is one long lifetime, and makes a name
/// look busier than it is.
const SCORE_LEAST: u32 = 6;
const PAST_SCORE: u32 = 4;
/// A busy name may pause …
const BUSY: u32 = 20;
/// … for so many TTLs. Then nobody wants it any more, and it may expire.
const PAUSE_TTLS: u32 = 3;
/// Places in the schedule; what finds none is refreshed when a client asks.
const PLACES_MAX: usize = 262_144;
/// A host that asks little may keep a few names warm.
const PER_SECOND_LEAST: f64 = 1.0;
const BURST: u32 = 10;
const BUDGET_EVERY: Duration = Duration::from_secs(10);
/// An answer takes a moment to come.
const LEAD: Duration = Duration::from_millis(200);

/// Whether a name is used enough to be refreshed unasked.
pub fn worth_it(used: Use) -> bool {
    let twice = used.uses.saturating_mul(2);
    let score = twice.saturating_add(used.past_uses.min(twice.saturating_add(PAST_SCORE)));
    let wanted = used.uses > 0 && score >= SCORE_LEAST;
    let pauses = used.past_uses >= BUSY && used.idle <= used.ttl * PAUSE_TTLS;
    wanted || pauses
}

/// When to refresh an answer that was learned with this TTL: in the last tenth, at a random place, so that names that
/// were learned together part. `spread` is 0.0..1.0. `None`: too short to be kept warm.
pub fn refresh_at(expires: Moment, ttl: Duration, spread: f64) -> Option<Moment> {
    let slack = ttl / 10;
    (ttl >= PREFETCH_TTL_MIN).then(|| expires - LEAD - slack.saturating_sub(LEAD).mul_f64(spread))
}

/// When to look at which entry.
#[derive(Default)]
pub struct Schedule {
    /// By time, then in the order of arrival: slots are chance.
    due: BinaryHeap<Reverse<(Moment, u32, Slot)>>,
    arrivals: u32,
}

impl Schedule {
    /// Notes an answer. That its slot may hold another by then does no harm: whatever is there is looked at.
    pub fn on_learned(&mut self, slot: Slot, expires: Moment, ttl: Duration, spread: f64) {
        if self.due.len() < PLACES_MAX
            && let Some(at) = refresh_at(expires, ttl, spread)
        {
            self.arrivals = self.arrivals.wrapping_add(1);
            self.due.push(Reverse((at, self.arrivals, slot)));
        }
    }

    /// An entry to look at now.
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

    /// Whether one more refresh is within it; `usual` is what this host asks a second in normal times.
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
    fn a_name_is_kept_warm_while_it_is_used_and_for_a_few_ttls_more() {
        assert!(worth_it(used(2, 4, 10)));
        assert!(!worth_it(used(1, 1, 10)), "about once a TTL: the client's own question costs less");
        assert!(worth_it(used(0, 20, 180)), "busy, and pauses");
        assert!(!worth_it(used(0, 9_999, 181)), "forgotten");
        assert!(!worth_it(used(0, 19, 50)));
        assert!(worth_it(used(u32::MAX, u32::MAX, 0)));
    }

    #[test]
    fn a_refresh_falls_into_the_last_tenth_and_short_ttls_are_left_alone() {
        let expires = Moment::START + Duration::from_mins(5);
        for spread in [0.0, 0.5, 1.0] {
            for ttl in [10, 60, 86_400] {
                let ttl = Duration::from_secs(ttl);
                let at = refresh_at(expires, ttl, spread).unwrap();
                assert!(at < expires && at >= expires - ttl / 10, "{ttl:?} {spread}");
            }
        }
        for ttl in [0, 1, 5, 9] {
            assert_eq!(refresh_at(expires, Duration::from_secs(ttl), 0.5), None);
        }
    }

    #[test]
    fn the_schedule_gives_each_entry_when_it_is_due() {
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
        // A minute at 20 a second, and a burst at each new look at the rate.
        assert!((1_000..=1_270).contains(&taken), "{taken}");
    }
}
