//! What the guard makes of a pinned name's new addresses.

use std::net::IpAddr;

use super::{Event, Guard, Known, Reason, Witnesses, name_of};
use crate::moment::Moment;

impl Guard {
    /// None of a pinned name's new addresses takes a TCP connection, and one of the old does. Returns whether the good
    /// answer is held.
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

    /// Whether a person or a trip's end has said that upstream is to be believed about this name.
    pub fn believes(&self, key: &[u8], now: Moment) -> bool {
        self.passed(name_of(key), now)
    }

    /// A pinned name's answer is believed; it may have other addresses than before.
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
