//! How fast upstreams may be asked after an outage, and how fast they were asked before it.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, FakeRelativeClock},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};

use crate::moment::Moment;

/// A token bucket that runs on the caller's `now`.
pub struct Pace {
    // governor's own test clock is a clock that somebody else turns: just what a pure core needs.
    clock: FakeRelativeClock,
    turned_to: Moment,
    limiter: RateLimiter<NotKeyed, InMemoryState, FakeRelativeClock, NoOpMiddleware<Nanos>>,
}

impl Pace {
    pub fn new(per_second: u32, burst: u32, now: Moment) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        let clock = FakeRelativeClock::default();
        Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock, turned_to: now }
    }

    /// Takes a token, or says how long until there is one.
    pub fn take(&mut self, now: Moment) -> Result<(), Duration> {
        self.clock.advance(now.since(self.turned_to));
        self.turned_to = self.turned_to.max(now);
        self.limiter
            .check()
            // Rounded up to the clock's millisecond, or the caller wakes too early for ever.
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()) + Duration::from_millis(1))
    }
}

/// Mean events a second, over the last minutes.
#[derive(Debug)]
pub struct Meter {
    since: Moment,
    count: u32,
    per_second: f64,
    filled: Duration,
}

const WINDOW: Duration = Duration::from_secs(5);
const MEMORY: Duration = Duration::from_mins(3);

impl Meter {
    pub fn new(now: Moment) -> Self {
        Self { since: now, count: 0, per_second: 0.0, filled: Duration::ZERO }
    }

    pub fn on_event(&mut self, now: Moment) {
        self.roll(now);
        self.count += 1;
    }

    /// Forgets what was counted since the last full window: it was not a normal time.
    pub fn skip(&mut self, now: Moment) {
        (self.since, self.count) = (now, 0);
    }

    pub fn per_second(&mut self, now: Moment) -> f64 {
        self.roll(now);
        self.per_second
    }

    fn roll(&mut self, now: Moment) {
        let passed = now.since(self.since);
        if passed < WINDOW {
            return;
        }
        let seen = f64::from(self.count) / passed.as_secs_f64();
        self.filled = (self.filled + passed).min(MEMORY);
        // A mean over all that was seen until the memory is full, an exponential one from then on.
        let weight = (passed.as_secs_f64() / self.filled.as_secs_f64()).min(1.0);
        self.per_second += (seen - self.per_second) * weight;
        (self.since, self.count) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_says_when_the_next_token_comes() {
        let mut now = Moment::START;
        let mut pace = Pace::new(10, 1, now);
        let mut taken = 0;
        while now < Moment::START + Duration::from_secs(10) {
            match pace.take(now) {
                Ok(()) => taken += 1,
                Err(wait) => now = now + wait,
            }
        }
        assert!((98..=101).contains(&taken), "{taken}");
    }

    #[test]
    fn a_meter_reads_the_rate_of_quiet_times_and_skips_the_others() {
        let mut now = Moment::START;
        let mut meter = Meter::new(now);
        for _ in 0..6_000 {
            now = now + Duration::from_millis(50);
            meter.on_event(now);
        }
        assert!((meter.per_second(now) - 20.0).abs() < 0.5);
        now = now + Duration::from_hours(4);
        meter.skip(now);
        assert!((meter.per_second(now) - 20.0).abs() < 0.5);
    }
}
