//! How often somebody may be told: a burst at once, then one in every interval (GCRA, as in ITU-T I.371), of which the last
//! few are kept for what is urgent.
//!
//! A word has to fit into several budgets (`budgets.rs`), so each is asked before any is spent. `governor`, which paces
//! elsewhere here, can only spend: it neither looks without taking nor keeps a reserve. Its arithmetic is one time.

use std::{num::NonZeroU32, time::Duration};

use jiff::Timestamp;

use crate::rules::moment::{between, later};

/// As configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// This many at once,
    pub burst: NonZeroU32,
    /// then one in every such span (not zero).
    pub every: Duration,
    /// The last so many of the burst are for urgent words; less than the burst.
    pub reserve: u32,
}

impl Rate {
    /// The default of a receiver: enough to see that the host is watched, little enough that a phone stays usable.
    pub const OF_RECEIVER: Self =
        Self::with_default_reserve(NonZeroU32::new(10).unwrap(), Duration::from_secs(30));
    /// The default of a user, over all receivers: more than one of them alone, much less than all of them together.
    pub const OF_USER: Self =
        Self::with_default_reserve(NonZeroU32::new(15).unwrap(), Duration::from_secs(20));

    /// A quarter of the burst is for what is urgent. Of a burst of one nothing can be kept.
    pub const fn with_default_reserve(burst: NonZeroU32, every: Duration) -> Self {
        let (quarter, most) = (burst.get().div_ceil(4), burst.get() - 1);
        Self { burst, every, reserve: if quarter < most { quarter } else { most } }
    }

    /// How far back something still weighs on the budget.
    pub fn memory(self) -> Duration {
        self.every.saturating_mul(self.burst.get())
    }

    /// How much of [`Rate::memory`] may be used up.
    fn room(self, urgent: bool) -> Duration {
        let reserve = if urgent { 0 } else { self.reserve };
        self.every.saturating_mul(self.burst.get().saturating_sub(reserve).max(1))
    }
}

/// One budget. What it remembers is when it will be whole again if nothing more is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    rate: Rate,
    whole_at: Timestamp,
    /// Last.
    spent_at: Timestamp,
}

impl Bucket {
    pub fn new(rate: Rate) -> Self {
        Self { rate, whole_at: Timestamp::MIN, spent_at: Timestamp::MIN }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// By another rate from now on. What was spent stays spent: a reload in a loop gives no budget away.
    pub fn set_rate(&mut self, rate: Rate) {
        let spent = between(self.spent_at, self.whole_at).div_duration_f64(self.rate.every);
        let spent = spent.min(rate.burst.get().into());
        self.whole_at = later(self.spent_at, rate.every.mul_f64(spent));
        self.rate = rate;
    }

    /// May one be spent now? If not: when, if nobody else spends before.
    pub fn look(&self, urgent: bool, now: Timestamp) -> Result<(), Timestamp> {
        let (after, room) = (between(now, self.after_one(now)), self.rate.room(urgent));
        if after <= room { Ok(()) } else { Err(later(now, after.saturating_sub(room))) }
    }

    /// Spends one, whether or not there is one: then it is as spent as it can be.
    pub fn spend(&mut self, now: Timestamp) {
        self.whole_at = self.after_one(now).min(later(now, self.rate.memory()));
        self.spent_at = now;
    }

    fn after_one(&self, now: Timestamp) -> Timestamp {
        later(self.whole_at.max(now), self.rate.every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + second).unwrap()
    }

    fn bucket(burst: u32, reserve: u32) -> Bucket {
        Bucket::new(Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(4), reserve })
    }

    fn asked(bucket: &mut Bucket, urgent: bool, seconds: std::ops::Range<i64>) -> String {
        let mut ask = |second| {
            let allowed = bucket.look(urgent, at(second)).is_ok();
            if allowed {
                bucket.spend(at(second));
            }
            if allowed { '!' } else { '.' }
        };
        seconds.map(&mut ask).collect()
    }

    /// docs/rate-limits.md says so, for pagers that are sold by the minute.
    #[test]
    fn the_busiest_minute_holds_the_burst_and_one_for_every_interval() {
        for (burst, every, most) in [(60, 1, 120), (10, 30, 12), (15, 20, 18)] {
            let rate = Rate {
                burst: NonZeroU32::new(burst).unwrap(),
                every: Duration::from_secs(every),
                reserve: 0,
            };
            let mut bucket = Bucket::new(rate);
            let mut spent = Vec::new();
            for second in 0..600 {
                // Idle for a while in the middle, so that it fills up again.
                while !(180..400).contains(&second) && bucket.look(true, at(second)).is_ok() {
                    bucket.spend(at(second));
                    spent.push(second);
                }
            }
            let in_minute = |from: &i64| spent.iter().filter(|at| (*from..=from + 60).contains(at)).count();
            assert_eq!(spent.iter().map(in_minute).max(), Some(most), "{rate:?}");
        }
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_in_each_interval() {
        assert_eq!(asked(&mut bucket(3, 0), false, 0..14), "!!!.!...!...!.");
    }

    #[test]
    fn the_reserve_is_there_for_the_urgent_however_much_else_is_asked() {
        let mut bucket = bucket(3, 2);
        assert_eq!(asked(&mut bucket, false, 0..14), "!...!...!...!.");
        assert_eq!(asked(&mut bucket, true, 14..24), "!!!...!...", "as if nothing else had been asked");
        // The others wait until the reserve is whole again.
        assert_eq!(asked(&mut bucket, false, 24..40), "........!...!...");
    }

    #[test]
    fn over_the_limit_it_says_when_to_come_back() {
        let mut bucket = bucket(3, 1);
        assert_eq!(asked(&mut bucket, true, 0..3), "!!!");
        assert_eq!(bucket.look(true, at(3)), Err(at(4)));
        assert_eq!(bucket.look(false, at(3)), Err(at(8)));
        assert_eq!((bucket.look(true, at(4)), bucket.look(false, at(8))), (Ok(()), Ok(())));
    }

    #[test]
    fn what_was_spent_over_the_limit_leaves_no_debt_beyond_an_empty_budget() {
        let mut bucket = bucket(3, 0);
        (0..50).for_each(|_| bucket.spend(at(0)));
        assert_eq!(asked(&mut bucket, false, 1..10), "...!...!.");
    }

    #[test]
    fn a_new_rate_gives_nothing_back() {
        let mut bucket = bucket(3, 0);
        (0..3).for_each(|_| bucket.spend(at(0)));
        bucket.set_rate(bucket.rate());
        assert_eq!(asked(&mut bucket, false, 0..4), "....");
        let mut slower = bucket;
        bucket.set_rate(Rate { every: Duration::from_secs(2), ..bucket.rate() });
        assert_eq!(asked(&mut bucket, false, 0..8), "..!.!.!.");
        slower.set_rate(Rate { every: Duration::from_secs(6), ..slower.rate() });
        assert_eq!(asked(&mut slower, false, 0..14), "......!.....!.");
    }

    #[test]
    fn a_quarter_is_kept_but_never_all() {
        let reserve = |burst| {
            Rate::with_default_reserve(NonZeroU32::new(burst).unwrap(), Duration::from_secs(1)).reserve
        };
        assert_eq!([1, 2, 3, 4, 5, 10, 120].map(reserve), [0, 1, 1, 1, 2, 3, 30]);
    }
}
