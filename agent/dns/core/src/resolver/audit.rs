//! Invariants between the resolver's tables, checked by the property tests and the fuzzer after
//! every step.

use std::{collections::BTreeMap, time::Duration};

use super::{
    FLIGHTS_MAX, PROBES_MAX, Resolver, WAITERS_MAX,
    flight::{Flight, Purpose, RESOLUTION_TIMER, TRIES_MAX, Try, TryState},
};
use crate::{message::reply::Transport, moment::Moment};

/// The longest time between two probes: those of an idle upstream.
const NEXT_STEP_WITHIN: Duration = Duration::from_secs(30);

impl Resolver {
    /// Returns the first broken invariant. Call [`Resolver::on_wakeup`] with the same `now` first.
    #[doc(hidden)]
    pub fn audit(&self, now: Moment) -> Result<(), String> {
        let is_probe = |flight: &&Flight| matches!(flight.purpose, Purpose::Probe(_));
        let probes = self.flights.values().filter(is_probe).count();
        if probes != self.probes_out || probes > PROBES_MAX || self.flights.len() - probes > FLIGHTS_MAX {
            return Err(format!(
                "{} flights, {probes} probes, {} counted",
                self.flights.len(),
                self.probes_out
            ));
        }
        // No state without a way out: whatever is not healthy has a next step soon.
        for zone in self.zones.iter() {
            for upstream in zone.group.all() {
                let next = upstream.breaker.next_wakeup();
                if next.is_none_or(|at| at > now + NEXT_STEP_WITHIN) {
                    return Err(format!("{} waits for nothing: {:?}", upstream.endpoint, upstream.breaker));
                }
            }
        }
        let mut earliest: BTreeMap<u64, Moment> = BTreeMap::new();
        for entry in &self.timers {
            let (at, id) = entry.0;
            let known = earliest.entry(id).or_insert(at);
            *known = at.min(*known);
        }
        for (&id, flight) in &self.flights {
            let probe = matches!(flight.purpose, Purpose::Probe(_));
            if flight.deadline <= now || flight.deadline > now + RESOLUTION_TIMER {
                return Err(format!("flight {id} ends at {:?}, now {now:?}", flight.deadline));
            }
            if earliest.get(&id).is_none_or(|&at| at > flight.next_event()) {
                return Err(format!("flight {id} has no timer for {:?}", flight.next_event()));
            }
            if flight.next_event() <= now {
                return Err(format!(
                    "flight {id} missed its wake-up at {:?}, now {now:?}",
                    flight.next_event()
                ));
            }
            if !probe && self.by_key.get(&flight.key) != Some(&id) {
                return Err(format!("flight {id} cannot be joined"));
            }
            let counts =
                |attempt: &&Try| attempt.transport == Transport::Udp && attempt.state != TryState::OtherCase;
            let udp = flight.tries.iter().filter(counts).count();
            // A probe whose name is denied asks the other upstreams too, as any other query does.
            let alone = probe && flight.denial.is_none();
            if udp > TRIES_MAX || flight.tries.len() > 2 * TRIES_MAX || alone && udp > 1 {
                return Err(format!("flight {id} has {} tries", flight.tries.len()));
            }
            if flight.waiters.len() > WAITERS_MAX || probe && !flight.waiters.is_empty() {
                return Err(format!("flight {id} has {} waiters", flight.waiters.len()));
            }
            for attempt in &flight.tries {
                let open = matches!(attempt.state, TryState::Pending | TryState::Late | TryState::OtherCase);
                if open && self.by_try.get(&attempt.id) != Some(&id) {
                    return Err(format!("the reply to try {} of flight {id} would be lost", attempt.id));
                }
            }
        }
        if let Some((_, id)) = self.by_key.iter().find(|(_, id)| !self.flights.contains_key(id)) {
            return Err(format!("clients may join flight {id}, which has ended"));
        }
        if let Some((attempt, id)) = self.by_try.iter().find(|(_, id)| !self.flights.contains_key(id)) {
            return Err(format!("try {attempt} belongs to flight {id}, which has ended"));
        }
        Ok(())
    }
}
