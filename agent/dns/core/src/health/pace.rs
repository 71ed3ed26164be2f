//! Rate limits for upstream queries after an outage, and the rate measured before it.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, FakeRelativeClock},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};

use crate::moment::Moment;

/// A token bucket driven by the caller's `now`.
pub struct Pace {
    // governor's test clock is advanced by hand, which is what a pure core needs.
    clock: FakeRelativeClock,
    turned_to: Moment,
    limiter: RateLimiter<NotKeyed, InMemoryState, FakeRelativeClock, NoOpMiddleware<Nanos>>,
}

impl Pace {
    /// A full bucket of `burst` tokens, filled at `per_second`, or one token an hour if that is
    /// more.
    pub fn new(per_second: f64, burst: u32, now: Moment) -> Self {
        let clock = FakeRelativeClock::default();
        let limiter = RateLimiter::direct_with_clock(quota(per_second, burst), clock.clone());
        Self { limiter, clock, turned_to: now }
    }

    /// A bucket for an even flow: one token, or as many as arrive in 20 ms, since timers are no
    /// finer.
    pub fn even(per_second: f64, now: Moment) -> Self {
        Self::new(per_second, even_burst(per_second), now)
    }

    /// Sets a new rate for an even flow. The bucket is then empty, so frequent rate changes grant
    /// no extra tokens.
    pub fn set_rate(&mut self, per_second: f64, now: Moment) {
        *self = Self::even(per_second, now);
        for _ in 0..even_burst(per_second) {
            let _ = self.take(now);
        }
    }

    /// Takes a token, or returns the time until the next one.
    pub fn take(&mut self, now: Moment) -> Result<(), Duration> {
        self.clock.advance(now.since(self.turned_to));
        self.turned_to = self.turned_to.max(now);
        self.limiter
            .check()
            // Rounded up to the clock's millisecond; otherwise the caller would keep waking too
            // early.
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()) + Duration::from_nanos(999_999))
    }
}

fn even_burst(per_second: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let burst = (per_second / 50.0).clamp(0.0, 1_000.0) as u32;
    burst + 1
}

fn quota(per_second: f64, burst: u32) -> Quota {
    let period = Duration::from_secs_f64(1.0 / per_second.clamp(1.0 / 3_600.0, 1e6));
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(period).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN)).allow_burst(burst)
}

/// Mean events per second over the last minutes.
#[derive(Debug)]
pub struct Meter {
    since: Moment,
    count: u32,
    per_second: f64,
    filled: Duration,
}

const WINDOW: Duration = Duration::from_secs(5);
const MEMORY: Duration = Duration::from_mins(3);
/// An idle upstream is probed every 30 s, so a longer silence means that the machine slept or that
/// the time was not normal.
const UNWATCHED: Duration = Duration::from_mins(1);

impl Meter {
    pub fn new(now: Moment) -> Self {
        Self { since: now, count: 0, per_second: 0.0, filled: Duration::ZERO }
    }

    pub fn on_event(&mut self, now: Moment) {
        self.roll(now);
        self.count += 1;
    }

    /// Discards events counted since the last full window, because the time was not normal.
    pub fn skip(&mut self, now: Moment) {
        (self.since, self.count) = (now, 0);
    }

    pub fn per_second(&mut self, now: Moment) -> f64 {
        self.roll(now);
        self.per_second
    }

    /// The same, or `None` before it has watched long enough.
    pub fn known(&mut self, now: Moment) -> Option<f64> {
        let rate = self.per_second(now);
        (self.filled >= WINDOW).then_some(rate)
    }

    /// The rate as last computed, without counting the time since, which may be an outage.
    pub fn remembered(&self) -> Option<f64> {
        (self.filled >= WINDOW).then_some(self.per_second)
    }

    /// Continues with the rate measured by an earlier process.
    pub fn resume(&mut self, per_second: f64) {
        (self.per_second, self.filled) = (per_second, MEMORY);
    }

    fn roll(&mut self, now: Moment) {
        let passed = now.since(self.since);
        if passed < WINDOW {
            return;
        }
        if passed > UNWATCHED {
            return self.skip(now);
        }
        let seen = f64::from(self.count) / passed.as_secs_f64();
        self.filled = (self.filled + passed).min(MEMORY);
        // A plain mean until the memory is full, then an exponential one.
        let weight = (passed.as_secs_f64() / self.filled.as_secs_f64()).min(1.0);
        self.per_second += (seen - self.per_second) * weight;
        (self.since, self.count) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_its_rate_and_knows_when_the_next_token_comes() {
        let mut now = Moment::START;
        let mut pace = Pace::new(10.0, 1, now);
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
    fn frequent_rate_changes_grant_no_extra_tokens() {
        let mut now = Moment::START;
        let mut pace = Pace::new(0.5, 1, now);
        let mut taken = 0;
        for step in 0..200 {
            if step % 10 == 0 {
                pace.set_rate(if step % 20 == 0 { 0.5 } else { 0.4 }, now);
            }
            taken += i32::from(pace.take(now).is_ok());
            now = now + Duration::from_millis(500);
        }
        // About two in each five seconds.
        assert!((30..=40).contains(&taken), "{taken}");
    }

    #[test]
    fn time_asleep_is_not_measured() {
        let mut now = Moment::START;
        let mut meter = Meter::new(now);
        for _ in 0..600 {
            now = now + Duration::from_millis(100);
            meter.on_event(now);
        }
        now = now + Duration::from_hours(8);
        meter.on_event(now);
        assert!((9.0..11.0).contains(&meter.per_second(now)), "{}", meter.per_second(now));
        // Awake, but with only its probes to send, it learns the low rate after a while.
        for _ in 0..20 {
            now = now + Duration::from_secs(30);
            meter.on_event(now);
        }
        assert!(meter.per_second(now) < 0.5, "{}", meter.per_second(now));
    }

    #[test]
    fn a_meter_measures_normal_times_and_skips_the_rest() {
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
