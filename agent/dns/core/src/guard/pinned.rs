//! How the guard treats new addresses of a pinned name.

use std::net::IpAddr;

use super::{Event, Guard, Known, Reason, Witnesses, name_of};
use crate::moment::Moment;

impl Guard {
    /// None of a pinned name's new addresses accepts a TCP connection, and one of the old ones
    /// does. Returns whether the good answer is held.
    pub fn on_refused(
        &mut self,
        key: &[u8],
        known: Known,
        (old, new): (&[IpAddr], &[IpAddr]),
        now: Moment,
    ) -> bool {
        self.end_what_is_over(now);
        let name = name_of(key);
        if self.passed(name, now) {
            self.holds.remove(key);
            return false;
        }
        if let Some(hold) = self.holds.get(key) {
            if !self.holds_now(name, hold, now) {
                self.holds.remove(key);
                self.counts.honoured += 1;
                return false;
            }
        } else {
            if !self.start_hold(key, known, Reason::Refused, now) {
                self.counts.not_held += 1;
                return false;
            }
            self.say(Event::Changed { key: key.into(), from: old.into(), to: new.into(), believed: false });
        }
        if let Some(hold) = self.holds.get_mut(key) {
            hold.on_denied(Reason::Refused, Witnesses { asked: 1, agreed: 1 }, known.uses, now);
        }
        true
    }

    /// Whether upstreams are believed about this name, after an operator's accept or the end of a
    /// trip.
    pub fn believes(&self, key: &[u8], now: Moment) -> bool {
        self.passed(name_of(key), now)
    }

    /// A pinned name's new answer is believed; reports it if the addresses changed.
    pub fn on_pinned(&mut self, key: &[u8], old: &[IpAddr], new: &[IpAddr]) {
        let sorted = |addresses: &[IpAddr]| {
            let mut all = addresses.to_vec();
            all.sort_unstable();
            all
        };
        let (from, to) = (sorted(old), sorted(new));
        if from != to {
            self.say(Event::Changed { key: key.into(), from, to, believed: true });
        }
    }
}
