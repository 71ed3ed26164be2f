//! Queries without a waiting client: after an outage, to keep hot names warm, and for pinned names.

use std::time::Duration;

use super::{Resolver, flight::Purpose};
use crate::{
    cache::{Entry, Facts, Slot},
    health::recovery::{Candidate, Progress},
    message::wire::Verdict,
    moment::Moment,
    policy::{Upstreams, prefetch_window},
    zones::{
        pinned, warm,
        zone::{Zone, ZoneId},
    },
};

impl Resolver {
    /// This zone's upstreams answer again, partly or fully, or are truthful again: refreshes the
    /// names that clients asked for in the meantime, at a limited rate.
    pub(super) fn begin_recovery(&mut self, id: ZoneId, now: Moment) {
        let down_at = self.zones.get(id).down_at.unwrap_or(now - LIED_FOR);
        let belongs = |key: &[u8]| self.zones.of_key(key) == id;
        let asked = |entry: &Facts| entry.popularity() > 0 && entry.last_used() >= down_at;
        let stale = |entry: &Facts| entry.stale_for(now).is_some();
        let candidate = |entry: Entry<'_>| Candidate {
            uses: entry.popularity(),
            pinned: entry.pinned(),
            key: entry.key().as_bytes().into(),
        };
        let mut names: Vec<Candidate> = self
            .cache
            .iter()
            .map(|(_, entry)| entry)
            // A refresh requested in the last recovery and not sent.
            .inspect(|entry| entry.unask_refresh())
            .filter(|entry| {
                stale(entry) && (entry.pinned() || asked(entry)) && belongs(entry.key().as_bytes())
            })
            .map(|entry| candidate(entry.entry()))
            .collect();
        // Pinned names that have no answer yet.
        let missing = self.pins.keys().filter(|key| belongs(key) && self.cache.find(key).is_none());
        names.extend(missing.map(|key| Candidate { uses: 0, pinned: true, key: key.into() }));
        let zone = self.zones.get_mut(id);
        zone.baseline.skip(now);
        let before = zone.baseline.known(now);
        if zone.recovery.outdated(now) && zone.health == Upstreams::Healthy {
            zone.recovery.begin_again(before, names, now);
        } else {
            zone.recovery.begin(before, names, now);
        }
        // Failures from the outage no longer apply.
        let zones = &self.zones;
        self.failures.forget(|key| zones.of_key(key) == id);
    }

    /// The combined progress of all zones' recoveries.
    pub fn recovery_progress(&self) -> Progress {
        self.zones.iter().map(|zone| zone.recovery.progress()).fold(Progress::default(), |all, one| {
            Progress {
                hot: all.hot + one.hot,
                verified: all.verified + one.verified,
                waiting: all.waiting + one.waiting,
            }
        })
    }

    /// A client got this stale answer while upstreams are recovering.
    pub(super) fn queue_refresh(&mut self, slot: Slot, zone: ZoneId) {
        if let Some(entry) = self.cache.get(slot) {
            self.zones.get_mut(zone).recovery.push(entry.key().as_bytes(), entry.popularity());
        }
    }

    pub(super) fn send_refreshes(&mut self, now: Moment) {
        for zone in self.zones.ids() {
            self.send_refreshes_of(zone, now);
        }
    }

    fn send_refreshes_of(&mut self, id: ZoneId, now: Moment) {
        if !self.zones.get(id).recovery.running() || self.zones.get(id).health == Upstreams::Down {
            return;
        }
        let zone = self.zones.get_mut(id);
        zone.recovery.set_slow(zone.health == Upstreams::Slow);
        while let Some(key) = self.zones.get_mut(id).recovery.poll(now) {
            let entry = self.cache.find(&key).and_then(|slot| self.cache.get(slot));
            let fresh = entry.as_ref().is_some_and(|entry| entry.stale_for(now).is_none());
            let gone = entry.is_none() && !self.pins.contains(&key);
            drop(entry);
            if fresh || gone || !self.start_refresh(&key, now) {
                self.zones.get_mut(id).recovery.on_settled(&key, fresh);
            }
        }
        let zone = self.zones.get_mut(id);
        if zone.health == Upstreams::Healthy && zone.recovery.poll_all_clear(now) {
            zone.down_at = None;
            zone.baseline.skip(now);
        }
    }

    /// Schedules a check of a new answer: is it worth keeping warm?
    pub(super) fn note_warm(&mut self, slot: Slot, now: Moment) {
        let spread = self.random.jitter();
        if let Some(entry) = self.cache.get(slot).filter(|entry| entry.verdict == Verdict::Positive) {
            self.warm.on_learned(slot, entry.expires(), entry.ttl(), spread);
        }
        self.note_pinned(slot, now);
    }

    pub(super) fn note_pinned(&mut self, slot: Slot, now: Moment) {
        if self.pins.is_empty() {
            return;
        }
        let spread = self.random.jitter();
        let Some(entry) = self.cache.get(slot) else { return };
        let (key, expires, ttl) = (entry.key(), entry.expires(), entry.ttl());
        drop(entry);
        let pinned = self.pins.contains(key.as_bytes());
        if pinned {
            self.pins.on_learned(key.as_bytes(), expires, ttl, spread, now);
        }
        self.cache.pin(slot, pinned);
    }

    /// The list of pinned names changed: unpins the entries removed from it and pins the new ones.
    pub(super) fn pin_again(&mut self) {
        let of = |pinned: &dyn Fn(&[u8], bool) -> bool| -> Vec<Slot> {
            let chosen =
                self.cache.iter().filter(|(_, entry)| pinned(entry.key().as_bytes(), entry.pinned()));
            chosen.map(|(slot, _)| slot).collect()
        };
        let to_pin = of(&|key, _| self.pins.contains(key));
        let to_let_go = of(&|key, was| was && !self.pins.contains(key));
        for slot in to_let_go {
            self.cache.pin(slot, false);
        }
        for slot in to_pin {
            self.cache.pin(slot, true);
        }
    }

    /// Refreshes hot names that are about to expire.
    pub(super) fn keep_warm(&mut self, now: Moment) {
        while let Some(slot) = self.warm.poll(now) {
            let Some(entry) = self.cache.get(slot).filter(|entry| !entry.pinned()) else { continue };
            // The slot may hold another entry, or this one may be refreshed already.
            let left = now.until(entry.expires());
            if left.is_zero() || left > prefetch_window(entry.ttl()) {
                continue;
            }
            let used = use_of(&entry, now);
            let key = entry.key();
            drop(entry);
            let id = self.zones.of_key(key.as_bytes());
            let zone = self.zones.get_mut(id);
            if !warm::worth_it(used) || zone.upstreams() != Upstreams::Healthy {
                continue;
            }
            let usual = zone.baseline.per_second(now);
            if !zone.warm.take(usual, now) {
                self.counts.warm_over_budget += 1;
            } else if self.start_refresh(key.as_bytes(), now) {
                self.counts.warm_refreshes += 1;
            }
        }
    }

    pub(super) fn ask_for_pinned(&mut self, now: Moment) {
        while let Some(key) = self.pins.poll(now) {
            let id = self.zones.of_key(&key);
            let zone = self.zones.get_mut(id);
            match zone.upstreams() {
                Upstreams::Healthy => {
                    if self.start_refresh(&key, now) {
                        self.counts.pinned_refreshes += 1;
                    }
                }
                // Before all names that clients use.
                Upstreams::Recovering => zone.recovery.push(&key, u32::MAX),
                // The probes will show when it is worth asking.
                Upstreams::Slow | Upstreams::Down => {}
            }
        }
    }

    pub(super) fn start_refresh(&mut self, key: &[u8], now: Moment) -> bool {
        // While upstreams deny many names, only the guard's own queries are sent for them.
        let guard = &self.zones.get(self.zones.of_key(key)).guard;
        let learned = self.cache.find(key).and_then(|slot| Some(self.cache.get(slot)?.learned()));
        if guard.trip_of(key).is_some() && !learned.is_some_and(|at| guard.confirmed_since(key, at)) {
            self.forget_refresh(key);
            return false;
        }
        let under_way = self.by_key.contains_key(key);
        let started = !under_way && self.start(key, Purpose::Refresh, now).is_some();
        if !started && !under_way {
            self.forget_refresh(key);
        }
        self.counts.refreshes_started += u64::from(started);
        started
    }
}

/// Whether this expired answer may still be served. A pinned name outlives `max_stale` while its
/// upstreams have trouble, but not if only the name itself is broken.
pub(super) fn may_serve(entry: &Facts, zone: &Zone, now: Moment) -> bool {
    let stale_for = now.since(entry.expires());
    let ill = zone.upstreams() != Upstreams::Healthy;
    zone.may_serve(stale_for) || (ill && stale_for <= stale_max(entry, zone))
}

/// After false answers from an upstream that was never down, names used within this time are
/// refreshed.
const LIED_FOR: Duration = Duration::from_mins(10);

/// The use counts on which keep-warm decides.
pub(super) fn use_of(entry: &Facts, now: Moment) -> warm::Use {
    warm::Use {
        uses: entry.uses().into(),
        past_uses: entry.past_uses().into(),
        idle: now.since(entry.last_used()),
        ttl: entry.ttl(),
    }
}

/// How far past its TTL an answer is served when no upstream answers.
pub(super) fn stale_max(entry: &Facts, zone: &Zone) -> Duration {
    let zone_max = zone.max_stale();
    if entry.pinned() && zone.settings.serve_stale { pinned::STALE_MAX.max(zone_max) } else { zone_max }
}
