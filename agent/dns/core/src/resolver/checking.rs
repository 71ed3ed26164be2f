//! Pinned names with `check_tcp`: new addresses are believed once one of them accepts a TCP
//! connection, or if none of the old ones does either. This catches an upstream that came back with
//! old data or gives an address that now belongs to someone else, which no other rule would doubt.
//!
//! The shell makes the connections. Clients keep waiting, at most as long as for any answer. A
//! check without a result is no evidence: the new addresses are believed.

use std::{cmp::Reverse, net::IpAddr};

use super::{
    Resolver,
    flight::{Check, Flight},
    guarding::Belief,
};
use crate::{
    guard::{Known, Reason},
    message::{name, wire},
    moment::Moment,
};

/// Addresses for the shell to try; it returns this with the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpCheck {
    flight: u64,
    pub port: u16,
    pub old: Vec<IpAddr>,
    pub new: Vec<IpAddr>,
}

/// Which addresses accept a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepting {
    pub old: bool,
    pub new: bool,
}

impl Resolver {
    /// The next addresses to try.
    pub fn poll_check(&mut self) -> Option<TcpCheck> {
        self.checks.pop_front()
    }

    /// The result of a check.
    pub fn on_checked(&mut self, check: &TcpCheck, accepting: Accepting, now: Moment) {
        let Some(flight) = self.flights.remove(&check.flight) else { return };
        if flight.check.as_ref().is_some_and(|waiting| waiting.new == check.new) {
            self.settle_check(check.flight, flight, accepting, now);
        } else {
            // The upstream was removed from the config.
            self.flights.insert(check.flight, flight);
        }
        self.review_all(now);
    }

    /// Whether this answer must wait for a check; if so, it is stored in the flight.
    pub(super) fn wants_check(
        &self,
        flight: &mut Flight,
        message: &[u8],
        (known, old, new): (Known, &[IpAddr], &[IpAddr]),
        now: Moment,
    ) -> bool {
        let moved = !old.is_empty() && !new.is_empty() && !new.iter().any(|address| old.contains(address));
        let wanted = moved
            && self.pins.check_tcp(&flight.key).is_some()
            && !self.zones.get(flight.zone).guard.believes(&flight.key, now);
        if wanted {
            flight.check = Some(Check { message: message.into(), known, old: old.into(), new: new.into() });
        }
        wanted
    }

    pub(super) fn begin_check(&mut self, id: u64, flight: Flight) {
        if let (Some(check), Some(port)) = (&flight.check, self.pins.check_tcp(&flight.key)) {
            let (old, new) = (check.old.clone(), check.new.clone());
            self.checks.push_back(TcpCheck { flight: id, port, old, new });
        }
        self.timers.push(Reverse((flight.next_event(), id)));
        self.flights.insert(id, flight);
    }

    pub(super) fn settle_check(&mut self, id: u64, mut flight: Flight, accepting: Accepting, now: Moment) {
        let Some(Check { message, known, old, new }) = flight.check.take() else { return };
        let guard = &mut self.zones.get_mut(flight.zone).guard;
        let refused = accepting.old && !accepting.new;
        let belief = if refused && guard.on_refused(&flight.key, known, (&old, &new), now) {
            Belief::Hold(Reason::Refused)
        } else {
            self.believe(&flight, &message, None, (&old, &new), now)
        };
        let question = name::read_key(&flight.key).map(|(question, ..)| question);
        let answer = question.and_then(|question| wire::read_answer(&message, &question).ok());
        match (belief, answer) {
            (Belief::Hold(reason), _) => self.conclude_held(&mut flight, reason, now),
            (_, Some(answer)) => self.keep(&mut flight, &message, &answer, now),
            // It was readable when it arrived.
            (_, None) => {}
        }
        self.drop_flight(id, &flight);
    }
}
