//! Rate limits per caller (GCRA, by `governor`), in a table of limited size.

use std::{
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use crate::clock;

/// Callers with their own limit. Further callers share one limit until others are forgotten.
const CALLERS_MAX: usize = 20_000;
/// How often, at most, callers whose limit is completely free again are forgotten.
const SWEEP: Duration = Duration::from_secs(5);

pub(super) struct Rates<K: Hash + Eq + Clone> {
    each: DefaultKeyedRateLimiter<K>,
    most: usize,
    others: DefaultDirectRateLimiter,
    swept: Mutex<Option<Instant>>,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    pub(super) fn new(quota: Quota) -> Self {
        Self::of(CALLERS_MAX, quota)
    }

    /// For at most that many callers with their own limit.
    pub(super) fn of(most: usize, quota: Quota) -> Self {
        Self {
            most,
            each: RateLimiter::keyed(quota),
            others: RateLimiter::direct(quota),
            swept: Mutex::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one request of this caller, or returns how long to wait.
    pub(super) fn take(&self, caller: &K) -> Result<(), Duration> {
        let wait = |until: NotUntil<_>| until.wait_time_from(self.clock.now());
        if self.each.len() >= self.most {
            self.sweep();
            if self.each.len() >= self.most {
                return self.others.check().map_err(wait);
            }
        }
        self.each.check_key(caller).map_err(wait)
    }

    fn sweep(&self) {
        let now = clock::instant();
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|last| now.duration_since(last) >= SWEEP) {
            *swept = Some(now);
            self.each.retain_recent();
            self.each.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn the_table_is_bounded_and_further_callers_share_one_limit() {
        let hourly = Quota::per_hour(NonZeroU32::new(2).unwrap());
        let rates = Rates::new(hourly);
        assert_eq!((rates.take(&0), rates.take(&0)), (Ok(()), Ok(())));
        assert!(rates.take(&0).unwrap_err() > Duration::from_mins(29));
        for caller in 1..CALLERS_MAX {
            assert_eq!(rates.take(&caller), Ok(()));
        }
        let beyond: Vec<_> = (0..3).map(|more| rates.take(&(CALLERS_MAX + more)).is_ok()).collect();
        assert_eq!((beyond.as_slice(), rates.each.len()), (&[true, true, false][..], CALLERS_MAX));
    }

    #[test]
    fn callers_whose_limit_is_free_again_make_room() {
        let rates = Rates::new(Quota::per_second(NonZeroU32::new(1_000_000).unwrap()));
        (0..CALLERS_MAX).for_each(|caller| assert_eq!(rates.take(&caller), Ok(())));
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(rates.take(&CALLERS_MAX), Ok(()));
        assert!(rates.each.len() < CALLERS_MAX / 2, "{}", rates.each.len());
    }
}
