//! Trips: when they begin, which answers they restore, when they end.

use std::net::IpAddr;

use super::{
    Cause, End, Event, Guard, Hold, Known, Reason, Trip, Witnesses,
    evidence::{self, Evidence},
    is_below,
    trial::{self, Trial, Verdict},
};
use crate::{
    message::name::{self, name_of},
    moment::Moment,
};

impl Guard {
    /// Returns whether a trip began.
    pub(super) fn look_for_mass_vanish(&mut self, key: &[u8], reason: Reason, now: Moment) -> bool {
        if !self.rules.mass_vanish {
            return false;
        }
        if let Some(trial) = &mut self.trial {
            trial.on_answer(key, false);
            return self.judge(now);
        }
        let cause = if reason == Reason::Nowhere { Cause::Nowhere } else { Cause::Gone };
        let domain = name::zone_of(key);
        let scope = if self.evidence.gone_in_several_domains() >= evidence::NAMES {
            self.suffix.clone()
        } else if self.domains.get(domain).is_some_and(|domain| domain.gone() >= evidence::NAMES) {
            domain.into()
        } else {
            return false;
        };
        let known = |trip: &Trip| trip.cause.vanish() && is_below(&scope, &trip.scope);
        if self.trips.iter().any(known) {
            return false;
        }
        let again = |(suffix, until): &(Box<[u8]>, Moment)| now < *until && is_below(&scope, suffix);
        if self.acquitted.as_ref().is_some_and(again) {
            return false;
        }
        let suspect = |domain: &[u8]| self.domains.get(domain).is_some_and(|domain| domain.gone() > 0);
        let controls = self.well.controls(&scope, suspect, |key| self.holds.contains_key(key));
        if controls.is_empty() {
            self.convict(cause, scope, now);
            return true;
        }
        self.trial = Some(Trial::new(cause, scope, controls, now));
        false
    }

    /// Ends the trial if its outcome is clear. Returns whether a trip began.
    pub(super) fn judge(&mut self, now: Moment) -> bool {
        let Some(verdict) = self.trial.as_ref().and_then(|trial| trial.verdict(now)) else { return false };
        let Some(trial) = self.trial.take() else { return false };
        match verdict {
            Verdict::Guilty if self.rules.mass_vanish => {
                self.convict(trial.cause, trial.scope, now);
                true
            }
            Verdict::Guilty | Verdict::Acquitted => {
                self.acquitted = Some((trial.scope, now + trial::ACQUITTED_FOR));
                false
            }
        }
    }

    fn convict(&mut self, cause: Cause, scope: Box<[u8]>, now: Moment) {
        // A zone-wide trip replaces those of single domains.
        self.trips.retain(|trip| !(trip.cause.vanish() && is_below(&trip.scope, &scope)));
        let mut trip = Trip::new(cause, scope, self.relapses.needed(cause, now), now);
        // In the order in which they vanished; the hash table's order is random.
        let mut gone: Vec<(&Box<[u8]>, &Hold)> = self
            .holds
            .iter()
            .filter(|(key, hold)| hold.reason.vanish() && is_below(name_of(key), &trip.scope))
            .collect();
        gone.sort_unstable_by_key(|&(key, hold)| (hold.since, key));
        trip.first_held = gone.first().map_or(now, |(_, hold)| hold.since);
        for (key, hold) in gone {
            trip.on_denied(key, hold.known, true);
        }
        self.start_trip(trip);
    }

    pub(super) fn start_convergence(&mut self, address: IpAddr, now: Moment) {
        let moved = self.moves.take(address);
        let first = moved.first().map(|first| name::zone_of(&first.displaced.key));
        let one = moved.iter().all(|other| Some(name::zone_of(&other.displaced.key)) == first);
        let scope = first.filter(|_| one).map_or_else(|| self.suffix.clone(), Into::into);
        let cause = Cause::Converged(address);
        let mut trip = Trip::new(cause, scope, self.relapses.needed(cause, now), now);
        for moved in moved {
            trip.on_denied(&moved.displaced.key, moved.known, true);
            self.start_hold(&moved.displaced.key, moved.known, Reason::Converged(address), now);
            self.put_back.push(moved.displaced);
        }
        self.start_trip(trip);
    }

    pub(super) fn on_converging(
        &mut self,
        key: &[u8],
        known: Known,
        address: IpAddr,
        witnesses: Witnesses,
        now: Moment,
    ) -> bool {
        let reason = Reason::Converged(address);
        if self.holds.get(key).is_some_and(|hold| !self.holds_now(name_of(key), hold, now)) {
            self.holds.remove(key);
            self.counts.honoured += 1;
            return false;
        }
        let new = !self.holds.contains_key(key);
        if new && !self.start_hold(key, known, reason, now) {
            self.counts.not_held += 1;
            return false;
        }
        if let Some(hold) = self.holds.get_mut(key) {
            hold.on_denied(reason, witnesses, known.uses, now);
        }
        let Some(index) = self.trips.iter().position(|trip| trip.cause.is_at(address)) else { return false };
        self.trips[index].on_denied(key, known, new);
        if self.trips[index].on_confirmed(key, witnesses, now) {
            // Two independent upstreams agree: this is a real move, however large.
            self.end_trip(index, End::Confirmed, now);
            self.holds.retain(|_, hold| hold.reason != reason);
            return false;
        }
        true
    }

    fn start_trip(&mut self, trip: Trip) {
        self.counts.trips[trip.cause.number()] += 1;
        self.credit = 0.0;
        let examples = trip.canaries().cloned().collect();
        self.say(Event::TripStarted { cause: trip.cause, scope: trip.scope.clone(), examples });
        self.trips.push(trip);
    }

    pub(super) fn end_trip(&mut self, index: usize, end: End, now: Moment) {
        let trip = self.trips.swap_remove(index);
        self.relapses.on_end(trip.cause, end, trip.needed, now);
        if end == End::Bound {
            self.pass(&trip.scope, now);
        }
        if let Cause::Converged(address) = trip.cause {
            // If the names came back, the same false answer may recur and must count as new.
            self.moves.judge(address, end == End::Returned, now);
        }
        // After an operator's accept, upstreams are asked at once, without pacing.
        self.recovered |= trip.cause.vanish() && end != End::Accepted;
        for (key, hold) in &mut self.holds {
            if trip.freezes(name_of(key)) && hold.reason.vanish() {
                hold.on_trip_end(end == End::Returned, now);
            }
        }
        // The same answers must not start another trip; new ones may.
        self.evidence = Evidence::default();
        self.domains.clear();
        self.say(Event::TripEnded {
            cause: trip.cause,
            lasted: now.since(trip.since),
            names: trip.names,
            scope: trip.scope,
            end,
        });
    }
}
