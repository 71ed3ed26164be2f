//! Questions that no upstream could answer recently, so that a client retrying in a loop does not
//! cause a query storm (RFC 9520).
//!
//! Only for questions without a last known good answer. Bounded; the oldest is dropped first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{health::breaker::Failure, moment::Moment};

/// RFC 9520 §3.2: at least 1 s, at most 5 min; 5 s is what Unbound and CoreDNS do.
const FAILURE_TTL: Duration = Duration::from_secs(5);
const FAILURES_MAX: usize = 4_096;

#[derive(Default)]
pub(crate) struct Failures {
    by_key: BTreeMap<Box<[u8]>, (Moment, Failure)>,
    order: VecDeque<(Moment, Box<[u8]>)>,
}

impl Failures {
    pub(crate) fn insert(&mut self, key: &[u8], why: Failure, now: Moment) {
        self.expire(now);
        while self.by_key.len() >= FAILURES_MAX {
            self.drop_oldest();
        }
        let until = now + FAILURE_TTL;
        self.by_key.insert(key.into(), (until, why));
        self.order.push_back((until, key.into()));
    }

    pub(crate) fn get(&self, key: &[u8], now: Moment) -> Option<Failure> {
        self.by_key.get(key).filter(|(until, _)| now < *until).map(|&(_, why)| why)
    }

    /// Some upstreams are back: failures from their outage no longer apply.
    pub(crate) fn forget(&mut self, of_theirs: impl Fn(&[u8]) -> bool) {
        self.by_key.retain(|key, _| !of_theirs(key));
        self.order.retain(|(_, key)| !of_theirs(key));
    }

    fn expire(&mut self, now: Moment) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((until, key)) = self.order.pop_front() else { return };
        // A newer failure of the same question stays.
        if self.by_key.get(&key).is_some_and(|(theirs, _)| *theirs == until) {
            self.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lasts_five_seconds_and_memory_is_bounded() {
        let now = Moment::START;
        let mut failures = Failures::default();
        failures.insert(b"a", Failure::Servfail, now);
        assert_eq!(failures.get(b"a", now + Duration::from_secs(4)), Some(Failure::Servfail));
        assert_eq!(failures.get(b"a", now + Duration::from_secs(5)), None);
        for number in 0..10_000_u32 {
            failures.insert(&number.to_be_bytes(), Failure::Timeout, now);
        }
        assert!(failures.by_key.len() <= FAILURES_MAX && failures.order.len() <= FAILURES_MAX);
    }
}
