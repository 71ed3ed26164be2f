//! Names that must always resolve: those pinned by the operator, and those that dogwatch itself
//! needs to send alerts.
//!
//! A pinned name is queried at start and before each expiry, without any client. It is never
//! evicted, and while its upstreams have trouble it is served for seven days, however short
//! `max_stale` is (unless its zone does not serve stale). It is queried at most every five seconds,
//! so with a shorter TTL it is briefly stale, and clients wait for the current answer as usual.

use std::{collections::BTreeMap, time::Duration};

use crate::{moment::Moment, zones::warm};

/// A question whose answer must always be available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// As in [`crate::message::name::Key`].
    pub key: Box<[u8]>,
    /// The port on which new addresses must accept a TCP connection before they are believed.
    pub check_tcp: Option<u16>,
}

/// Most pinned questions: they are queried forever and never evicted.
pub const PINNED_MAX: usize = 256;
/// How far past its TTL a pinned answer is served while its upstreams have trouble. Also the limit
/// for every `max_stale`.
pub const STALE_MAX: Duration = Duration::from_hours(7 * 24);
/// Minimum time between two queries for one name, whatever its TTL.
const GAP: Duration = Duration::from_secs(5);
/// Delay after a failure for the name itself, doubling …
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// … up to this.
const RETRY_LONGEST: Duration = Duration::from_mins(1);

/// When to query each pinned name next.
pub struct Pins {
    pins: BTreeMap<Box<[u8]>, Pin>,
    next_at: Option<Moment>,
}

struct Pin {
    ask_at: Moment,
    failures: u8,
    check_tcp: Option<u16>,
}

impl Pins {
    /// All names are due at once, since none is cached yet.
    pub fn new(pinned: &[Pinned], now: Moment) -> Self {
        let mut pins = Self { pins: BTreeMap::new(), next_at: None };
        pins.set(pinned, now);
        pins
    }

    /// Applies a new list; names on both lists keep their schedule.
    pub fn set(&mut self, pinned: &[Pinned], now: Moment) {
        let mut old = std::mem::take(&mut self.pins);
        for name in pinned {
            let known = old.remove(&name.key);
            let (ask_at, failures) = known.map_or((now, 0), |pin| (pin.ask_at, pin.failures));
            self.pins.insert(name.key.clone(), Pin { ask_at, failures, check_tcp: name.check_tcp });
        }
        self.look_ahead();
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.pins.contains_key(key)
    }

    /// The port to check before new addresses are believed, whatever DO and CD bits were used.
    pub fn check_tcp(&self, key: &[u8]) -> Option<u16> {
        if self.pins.values().all(|pin| pin.check_tcp.is_none()) {
            return None;
        }
        let mut plain = key.to_vec();
        *plain.last_mut()? = 0;
        self.pins.get(plain.as_slice())?.check_tcp
    }

    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.pins.keys().map(|key| &**key)
    }

    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    /// An answer arrived; schedules the next query shortly before it expires. `spread` is 0.0..1.0.
    pub fn on_learned(&mut self, key: &[u8], expires: Moment, ttl: Duration, spread: f64, now: Moment) {
        let Some(pin) = self.pins.get_mut(key) else { return };
        pin.failures = 0;
        pin.ask_at = warm::refresh_at(expires, ttl, spread).unwrap_or(expires).max(now + GAP);
        self.look_ahead();
    }

    /// No upstream could answer.
    pub fn on_failed(&mut self, key: &[u8], now: Moment) {
        let Some(pin) = self.pins.get_mut(key) else { return };
        pin.ask_at = now + (RETRY_FIRST * (1 << pin.failures.min(5))).min(RETRY_LONGEST);
        pin.failures = pin.failures.saturating_add(1);
        self.look_ahead();
    }

    /// A name to query now. It is returned again after a while if no result is reported.
    pub fn poll(&mut self, now: Moment) -> Option<Box<[u8]>> {
        if self.next_at.is_none_or(|at| at > now) {
            return None;
        }
        let key = self.pins.iter().filter(|(_, pin)| pin.ask_at <= now).map(|(key, _)| key).min()?.clone();
        if let Some(pin) = self.pins.get_mut(&key) {
            pin.ask_at = now + RETRY_FIRST;
        }
        self.look_ahead();
        Some(key)
    }

    pub fn next_wakeup(&self) -> Option<Moment> {
        self.next_at
    }

    // Called on every turn of the loop, so the result is kept; there are few pins to scan.
    fn look_ahead(&mut self) {
        self.next_at = self.pins.values().map(|pin| pin.ask_at).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(names: &[&str]) -> Pins {
        let pinned: Vec<_> =
            names.iter().map(|name| Pinned { key: name.as_bytes().into(), check_tcp: None }).collect();
        Pins::new(&pinned, Moment::START)
    }

    #[test]
    fn it_is_queried_at_start_and_before_each_expiry() {
        let mut now = Moment::START;
        let mut pins = pins(&["a"]);
        assert_eq!(pins.poll(now).as_deref(), Some(&b"a"[..]));
        assert_eq!(pins.poll(now), None);
        let ttl = Duration::from_mins(5);
        for _ in 0..10 {
            pins.on_learned(b"a", now + ttl, ttl, 0.3, now);
            let next = pins.next_wakeup().unwrap();
            assert!(next < now + ttl && next >= now + ttl * 9 / 10);
            now = next;
            assert!(pins.poll(now).is_some());
        }
    }

    #[test]
    fn a_tiny_ttl_does_not_cause_constant_queries() {
        let mut now = Moment::START;
        let mut pins = pins(&["a"]);
        let mut asked = 0;
        while now < Moment::START + Duration::from_mins(1) {
            while let Some(key) = pins.poll(now) {
                asked += 1;
                pins.on_learned(&key, now, Duration::ZERO, 0.0, now);
            }
            now = pins.next_wakeup().unwrap();
        }
        assert_eq!(asked, 12);
    }

    #[test]
    fn a_broken_name_is_queried_less_and_less_but_without_end() {
        let mut now = Moment::START;
        let mut pins = pins(&["a"]);
        let mut gaps = Vec::new();
        for _ in 0..8 {
            let asked = now;
            let key = pins.poll(now).unwrap();
            pins.on_failed(&key, now);
            now = pins.next_wakeup().unwrap();
            gaps.push(now.since(asked).as_secs());
        }
        assert_eq!(gaps, [5, 10, 20, 40, 60, 60, 60, 60]);
    }

    #[test]
    fn a_new_list_keeps_the_schedule_of_names_on_both() {
        let now = Moment::START;
        let mut pins = pins(&["a", "b"]);
        let ttl = Duration::from_mins(5);
        for key in [b"a", b"b"] {
            assert!(pins.poll(now).is_some());
            pins.on_learned(key, now + ttl, ttl, 0.0, now);
        }
        let pin = |name: &str| Pinned { key: name.as_bytes().into(), check_tcp: None };
        pins.set(&[pin("b"), pin("c")], now);
        assert_eq!((pins.poll(now).as_deref(), pins.poll(now)), (Some(&b"c"[..]), None));
        assert!(!pins.contains(b"a") && pins.contains(b"b"));
    }
}
