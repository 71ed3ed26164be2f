//! Reports the names that the guards hold: the check result `dns-guard`, and the guard's part of
//! `why`.

use jiff::Timestamp;

use super::{
    super::Resolver,
    words::{CRITICAL, OK, SensorResult, WARNING, WhyHeld, at, clock_time, coarse},
};
use crate::{
    guard::{Cause, Hold, Reason, Trip},
    message::name,
    moment::Moment,
    zones::zone::Zone,
};

/// How many names are held, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    pub names: usize,
    pub trips: usize,
}

impl Resolver {
    /// The check result `dns-guard`: CRITICAL while many names are held, WARNING while one name in
    /// use is held.
    pub(in crate::resolver) fn guard_sensor(&self, now: Moment, wall: Timestamp) -> SensorResult {
        let Holding { names, trips } = self.guard_holding(now);
        let perfdata = format!("trips={trips};;0.5;0 held_names={names};;;0");
        let worst_trip = self
            .zones
            .iter()
            .flat_map(|zone| zone.guard.trips().iter().map(move |trip| (zone, trip)))
            .max_by_key(|(_, trip)| trip.names);
        let worst_hold = self
            .zones
            .iter()
            .flat_map(|zone| zone.guard.holds(now).map(move |(key, hold)| (zone, key, hold)))
            .filter(|(_, _, hold)| hold.matters())
            .max_by_key(|(_, key, hold)| (hold.known.good_for, *key));
        let (state, text) = match (worst_trip, worst_hold) {
            (Some((zone, trip)), _) => (CRITICAL, trip_text(zone, trip, trips, now, wall)),
            (None, Some((zone, key, hold))) => (WARNING, hold_text(zone, key, hold, names, now, wall)),
            (None, None) if names > 0 => {
                let text = format!(
                    "rarely used names held for a short time, because the upstream says they are gone: {names}"
                );
                (OK, text)
            }
            (None, None) => (OK, "no answers are being held".to_owned()),
        };
        SensorResult { name: "dns-guard".into(), state, text, perfdata, blind: None }
    }

    /// How many names are held now.
    pub fn guard_holding(&self, now: Moment) -> Holding {
        let guards = || self.zones.iter().map(|zone| &zone.guard);
        Holding {
            names: guards().map(|guard| guard.holds(now).count()).sum(),
            trips: guards().map(|guard| guard.trips().len()).sum(),
        }
    }

    /// The hold of one name, if its answer is held.
    pub(in crate::resolver) fn why_held(&self, key: &[u8], now: Moment, wall: Timestamp) -> Option<WhyHeld> {
        let guard = &self.zones.get(self.zones.of_key(key)).guard;
        let trip = guard.trip_of(key);
        let text = name::to_text(name::name_of(key));
        if let Some((hold, until)) = guard.hold(key, now) {
            return Some(WhyHeld {
                says: says(hold.reason),
                since: at(hold.since, now, wall),
                until: at(until, now, wall),
                asked: hold.witnesses.asked,
                agreed: hold.witnesses.agreed,
                denials: hold.denials,
                mass: trip.is_some() || matches!(hold.reason, Reason::Converged(_)),
                end_with: accept(&text),
            });
        }
        let trip = trip?;
        Some(WhyHeld {
            says: "held with many related names that the upstream says are gone; not asked for itself".into(),
            since: at(trip.since, now, wall),
            until: at(trip.until(guard.rules()), now, wall),
            asked: 0,
            agreed: 0,
            denials: 0,
            mass: true,
            end_with: accept(&text),
        })
    }
}

fn trip_text(zone: &Zone, trip: &Trip, trips: usize, now: Moment, wall: Timestamp) -> String {
    let scope = name::to_text(&trip.scope);
    let among = if scope == "." { String::new() } else { format!(" in {scope}") };
    let what = match trip.cause {
        Cause::Gone => format!("the upstream says that many names{among} are gone"),
        Cause::Nowhere => format!("the upstream gives unusable addresses for many names{among}"),
        Cause::Converged(address) => {
            format!("the upstream gives many names{among} the same new address, {address}")
        }
    };
    let mut examples: Vec<String> = trip.canaries().map(|key| name::to_text(name::name_of(key))).collect();
    examples.sort_unstable();
    examples.dedup();
    examples.truncate(3);
    let since = clock_time(at(trip.since, now, wall), wall);
    let until = clock_time(at(trip.until(zone.guard.rules()), now, wall), wall);
    let others = if trips > 1 { format!("; more groups held: {}", trips - 1) } else { String::new() };
    format!(
        "{what} ({} so far: {}, …) since {since}; serving the last known good answers until {until} at the \
         latest{others}; if the upstream is right: {}",
        trip.names,
        examples.join(", "),
        accept(&scope),
    )
}

fn hold_text(zone: &Zone, key: &[u8], hold: &Hold, names: usize, now: Moment, wall: Timestamp) -> String {
    let text = name::to_text(name::name_of(key));
    let since = clock_time(at(hold.since, now, wall), wall);
    let until = zone.guard.hold(key, now).map_or(hold.since, |(_, until)| until);
    let until = clock_time(at(until, now, wall), wall);
    let others = if names > 1 { format!("; more names held: {}", names - 1) } else { String::new() };
    format!(
        "{text}: {} since {since} (confirmed by {} of {} upstreams), after {} of good answers; serving the last \
         known good answer until {until}{others}; if the upstream is right: {}",
        says(hold.reason),
        hold.witnesses.agreed,
        hold.witnesses.asked,
        coarse(hold.known.good_for),
        accept(&text),
    )
}

fn says(reason: Reason) -> String {
    match reason {
        Reason::Empty => "the upstream's answer is empty (no record of this type)".into(),
        Reason::Gone => "the upstream says the name or its records are gone".into(),
        Reason::Nowhere => {
            "the upstream gives an unusable address (unspecified, loopback or link-local)".into()
        }
        Reason::Refused => {
            "the upstream gives new addresses that accept no TCP connection, but an old address does".into()
        }
        Reason::Converged(address) => {
            format!("the upstream gives the address {address}, the same as for many other names")
        }
    }
}

fn accept(name: &str) -> String {
    format!("dogwatch dns accept {name}")
}
