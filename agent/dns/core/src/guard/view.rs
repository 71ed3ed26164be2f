//! Read access to the guard's state, for status and metrics.

use super::{Guard, Hold, Rules, Trip};
use crate::{message::name::name_of, moment::Moment};

impl Guard {
    /// Whether nothing is held.
    pub fn is_idle(&self) -> bool {
        self.holds.is_empty() && self.trips.is_empty()
    }

    pub fn trips(&self) -> &[Trip] {
        &self.trips
    }

    /// Whether a mass event is being held.
    pub fn tripped(&self) -> bool {
        !self.trips.is_empty()
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The names held now, in no particular order.
    pub fn holds(&self, now: Moment) -> impl Iterator<Item = (&[u8], &Hold)> {
        self.holds.iter().map(|(key, hold)| (&**key, hold)).filter(move |&(key, hold)| {
            !self.passed(name_of(key), now) && self.holds_now(name_of(key), hold, now)
        })
    }

    /// The hold on this name, if there is one now, and when it ends at the latest.
    pub fn hold(&self, key: &[u8], now: Moment) -> Option<(&Hold, Moment)> {
        let name = name_of(key);
        let hold =
            self.holds.get(key).filter(|hold| !self.passed(name, now) && self.holds_now(name, hold, now))?;
        Some((hold, self.until(name, hold)))
    }

    /// The trip that freezes this name, if there is one.
    pub fn trip_of(&self, key: &[u8]) -> Option<&Trip> {
        self.trips.iter().find(|trip| trip.freezes(name_of(key)))
    }
}
