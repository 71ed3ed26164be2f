//! How often one receiver may be told, after `governor`'s GCRA: a burst at once, then one in every interval.
//!
//! `governor` reads a clock of its own when it is asked; here that clock is a cell that is set to the caller's `now` just
//! before, so `now` stays an argument. `governor` also forgets everything at a restart; [`RateLimit::replay`] gives it back
//! the notifications that the outbox says were begun, in order, which leaves exactly the budget that was left.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use jiff::Timestamp;

use crate::moment::later;

/// As configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// This many at once,
    pub burst: NonZeroU32,
    /// then one in every such span (not zero).
    pub every: Duration,
}

impl Rate {
    /// How far back a notification still weighs on the budget.
    pub fn memory(self) -> Duration {
        self.every.saturating_mul(self.burst.get())
    }
}

pub struct RateLimit {
    rate: Rate,
    limiter: RateLimiter<NotKeyed, InMemoryState, SetClock, NoOpMiddleware<Nanos>>,
    clock: SetClock,
}

impl RateLimit {
    pub fn new(rate: Rate) -> Self {
        let quota = Quota::with_period(rate.every)
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
            .allow_burst(rate.burst);
        let clock = SetClock::default();
        Self { rate, limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Spends one, or says when there is one to spend.
    pub fn spend(&self, now: Timestamp) -> Result<(), Timestamp> {
        self.clock.set(now);
        self.limiter.check().map_err(|not_until| later(now, not_until.wait_time_from(self.clock.now())))
    }

    /// Gives back the memory of what was sent before the restart; `sent_at` ascending.
    pub fn replay(&self, sent_at: impl IntoIterator<Item = Timestamp>) {
        for at in sent_at {
            // Over the limit here means that the limit was wider then; the budget is as spent as it can be.
            let _ = self.spend(at);
        }
    }
}

/// A clock that stands where it was set, in nanoseconds after 1970.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn set(&self, now: Timestamp) {
        self.0.store(u64::try_from(now.as_nanosecond()).unwrap_or(0), Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + second).unwrap()
    }

    fn limit() -> RateLimit {
        RateLimit::new(Rate { burst: NonZeroU32::new(3).unwrap(), every: Duration::from_secs(4) })
    }

    fn asked_every_second(limit: &RateLimit, seconds: std::ops::Range<i64>) -> String {
        seconds.map(|second| if limit.spend(at(second)).is_ok() { '!' } else { '.' }).collect()
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_in_each_interval() {
        assert_eq!(asked_every_second(&limit(), 0..14), "!!!.!...!...!.");
    }

    #[test]
    fn over_the_limit_it_says_when_to_come_back() {
        let limit = limit();
        for _ in 0..3 {
            limit.spend(at(0)).unwrap();
        }
        assert_eq!(limit.spend(at(1)), Err(at(4)));
        assert_eq!(limit.spend(at(4)), Ok(()));
    }

    #[test]
    fn a_restart_forgets_no_spending() {
        let before = limit();
        let first = asked_every_second(&before, 0..6);
        let after = limit();
        after.replay((0..).zip(first.chars()).filter(|&(_, c)| c == '!').map(|(second, _)| at(second)));
        assert_eq!(asked_every_second(&after, 6..20), asked_every_second(&before, 6..20));
    }
}
