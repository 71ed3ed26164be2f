//! Names that must never be missing: those that the operator pins, and those that dogwatch itself needs to raise an alarm.
//!
//! A pinned name is asked for at the start and before each expiry, without any client; it is never evicted; and while its
//! upstreams are ill it is served for seven days, however short `max_stale` is (unless its zone is never served stale).
//! It is never asked for more often than every five seconds, so a TTL below that is stale for moments, and then as ever
//! a client waits for the truth.

use std::{collections::BTreeMap, time::Duration};

use crate::{moment::Moment, zones::warm};

/// A question whose answer must never be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// As in [`crate::message::name::Key`].
    pub key: Box<[u8]>,
    /// Where its new addresses must take a TCP connection before they are believed.
    pub check_tcp: Option<u16>,
}

/// Most pinned questions: each is asked for ever and can never make room for another.
pub const PINNED_MAX: usize = 256;
/// How far past its TTL a pinned answer is served while its upstreams are ill. Nothing may outlive its zone for longer.
pub const STALE_MAX: Duration = Duration::from_hours(7 * 24);
/// Between two questions for one name, whatever its TTL.
const GAP: Duration = Duration::from_secs(5);
/// After a failure of the name itself, doubling …
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// … up to this.
const RETRY_LONGEST: Duration = Duration::from_mins(1);

/// When each pinned name is to be asked for next.
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
    /// All are due at once: nobody knows them yet.
    pub fn new(pinned: &[Pinned], now: Moment) -> Self {
        let mut pins = Self { pins: BTreeMap::new(), next_at: None };
        pins.set(pinned, now);
        pins
    }

    /// Takes a new list; names on both keep their time.
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

    /// The port to try before new addresses are believed, whichever DO and CD they were asked for with.
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

    /// It is known, and asked for again shortly before it expires. `spread` is 0.0..1.0.
    pub fn on_learned(&mut self, key: &[u8], expires: Moment, ttl: Duration, spread: f64, now: Moment) {
        let Some(pin) = self.pins.get_mut(key) else { return };
        pin.failures = 0;
        pin.ask_at = warm::refresh_at(expires, ttl, spread).unwrap_or(expires).max(now + GAP);
        self.look_ahead();
    }

    /// Nobody could tell.
    pub fn on_failed(&mut self, key: &[u8], now: Moment) {
        let Some(pin) = self.pins.get_mut(key) else { return };
        pin.ask_at = now + (RETRY_FIRST * (1 << pin.failures.min(5))).min(RETRY_LONGEST);
        pin.failures = pin.failures.saturating_add(1);
        self.look_ahead();
    }

    /// A name to ask for now. It comes again after a while if nothing is heard of it.
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

    // There are few, and this is asked for on every turn of the loop.
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
    fn it_is_asked_for_at_the_start_and_before_each_expiry() {
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
    fn a_tiny_ttl_keeps_nobody_busy() {
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
    fn a_name_that_fails_by_itself_is_asked_for_less_and_less_but_for_ever() {
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
    fn a_new_list_keeps_what_is_known_of_names_on_both() {
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
