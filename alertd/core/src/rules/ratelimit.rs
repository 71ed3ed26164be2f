//! A rate limit: a burst at once, then one per interval (GCRA, ITU-T I.371). The last few of the
//! burst are reserved for urgent notifications.
//!
//! A notification must fit into several limits (`budgets.rs`), so all are checked before any is
//! used. The crate `governor`, used elsewhere, can neither check without using nor keep a reserve.

use std::{num::NonZeroU32, time::Duration};

use jiff::Timestamp;

use crate::rules::moment::{between, later};

/// The configured rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// This many at once …
    pub burst: NonZeroU32,
    /// … then one per interval, which is not zero.
    pub every: Duration,
    /// How many of the burst are reserved for urgent notifications; less than the burst.
    pub reserve: u32,
}

impl Rate {
    /// The default of a receiver: high enough for every notification of a normal incident, low
    /// enough to keep a phone usable.
    pub const OF_RECEIVER: Self =
        Self::with_default_reserve(NonZeroU32::new(10).unwrap(), Duration::from_secs(30));
    /// The default of a user, for all receivers: more than one receiver alone, much less than their
    /// sum.
    pub const OF_USER: Self =
        Self::with_default_reserve(NonZeroU32::new(15).unwrap(), Duration::from_secs(20));

    /// Reserves a quarter of the burst. A burst of one has no reserve.
    pub const fn with_default_reserve(burst: NonZeroU32, every: Duration) -> Self {
        let (quarter, most) = (burst.get().div_ceil(4), burst.get() - 1);
        Self { burst, every, reserve: if quarter < most { quarter } else { most } }
    }

    /// How long a notification counts against the limit.
    pub fn memory(self) -> Duration {
        self.every.saturating_mul(self.burst.get())
    }

    /// How much of [`Rate::memory`] may be used.
    fn room(self, urgent: bool) -> Duration {
        let reserve = if urgent { 0 } else { self.reserve };
        self.every.saturating_mul(self.burst.get().saturating_sub(reserve).max(1))
    }
}

/// One limit. Its only state is the time at which it is completely free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    rate: Rate,
    whole_at: Timestamp,
    /// When it was last used.
    spent_at: Timestamp,
}

impl Bucket {
    pub fn new(rate: Rate) -> Self {
        Self { rate, whole_at: Timestamp::MIN, spent_at: Timestamp::MIN }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Applies a different rate. What was used stays used, so that repeated reloads allow nothing
    /// extra.
    pub fn set_rate(&mut self, rate: Rate) {
        let spent = between(self.spent_at, self.whole_at).div_duration_f64(self.rate.every);
        let spent = spent.min(rate.burst.get().into());
        self.whole_at = later(self.spent_at, rate.every.mul_f64(spent));
        self.rate = rate;
    }

    /// Checks whether one can be used now. If not, returns when, unless others are used before.
    pub fn look(&self, urgent: bool, now: Timestamp) -> Result<(), Timestamp> {
        let (after, room) = (between(now, self.after_one(now)), self.rate.room(urgent));
        if after <= room { Ok(()) } else { Err(later(now, after.saturating_sub(room))) }
    }

    /// Uses one, even if the limit is exceeded; then the limit is completely used.
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

    /// docs/rate-limits.md describes this for providers that limit per minute.
    #[test]
    fn the_busiest_minute_has_the_burst_and_one_per_interval() {
        for (burst, every, most) in [(60, 1, 120), (10, 30, 12), (15, 20, 18)] {
            let rate = Rate {
                burst: NonZeroU32::new(burst).unwrap(),
                every: Duration::from_secs(every),
                reserve: 0,
            };
            let mut bucket = Bucket::new(rate);
            let mut spent = Vec::new();
            for second in 0..600 {
                // Pause in the middle, so that the limit becomes free again.
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
    fn a_burst_is_allowed_at_once_and_then_one_per_interval() {
        assert_eq!(asked(&mut bucket(3, 0), false, 0..14), "!!!.!...!...!.");
    }

    #[test]
    fn the_reserve_stays_available_to_urgent_notifications() {
        let mut bucket = bucket(3, 2);
        assert_eq!(asked(&mut bucket, false, 0..14), "!...!...!...!.");
        assert_eq!(asked(&mut bucket, true, 14..24), "!!!...!...", "as if nothing else had been asked");
        // The others wait until the reserve is free again.
        assert_eq!(asked(&mut bucket, false, 24..40), "........!...!...");
    }

    #[test]
    fn over_the_limit_it_returns_when_to_try_again() {
        let mut bucket = bucket(3, 1);
        assert_eq!(asked(&mut bucket, true, 0..3), "!!!");
        assert_eq!(bucket.look(true, at(3)), Err(at(4)));
        assert_eq!(bucket.look(false, at(3)), Err(at(8)));
        assert_eq!((bucket.look(true, at(4)), bucket.look(false, at(8))), (Ok(()), Ok(())));
    }

    #[test]
    fn charges_over_the_limit_leave_no_debt_beyond_an_empty_budget() {
        let mut bucket = bucket(3, 0);
        (0..50).for_each(|_| bucket.spend(at(0)));
        assert_eq!(asked(&mut bucket, false, 1..10), "...!...!.");
    }

    #[test]
    fn a_new_rate_restores_no_budget() {
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
    fn a_quarter_is_reserved_but_never_all() {
        let reserve = |burst| {
            Rate::with_default_reserve(NonZeroU32::new(burst).unwrap(), Duration::from_secs(1)).reserve
        };
        assert_eq!([1, 2, 3, 4, 5, 10, 120].map(reserve), [0, 1, 1, 1, 2, 3, 30]);
    }
}
