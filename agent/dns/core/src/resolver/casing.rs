//! Mixed case (0x20) between a question and its answer: the case in which a query is sent, what the
//! answer's case says about the upstream, and what happens to an answer in different case.
//!
//! Such an answer is ignored: the right one may still arrive, and meanwhile the question is sent
//! again over TCP, where an off-path attacker cannot answer. If TCP fails, it is sent again over
//! UDP, in a new case and from a new port: an upstream that no longer keeps case shows it three
//! times in a row, which a forger cannot.

use std::{borrow::Cow, cmp::Reverse};

use super::{
    Resolver,
    flight::{Flight, Letters, Purpose, TRIES_MAX, TryState},
};
use crate::{
    health::{breaker::Failure, endpoint::Endpoint},
    message::{
        name,
        reply::Transport,
        wire::{
            letters::{self, Echo},
            rcode,
        },
    },
    moment::Moment,
};

impl Resolver {
    /// Chooses the case in which this flight's question is sent to `upstream`.
    pub(super) fn choose_letters(
        &mut self,
        flight: &Flight,
        upstream: usize,
        transport: Transport,
        now: Moment,
    ) -> Letters {
        let plain = Letters { chosen: 0, matter: false };
        let Some(asked) = self.zones.get_mut(flight.zone).group.get_mut(upstream) else { return plain };
        if transport == Transport::Tcp || asked.endpoint.is_stream() {
            return plain;
        }
        let first = !matches!(flight.purpose, Purpose::Probe(_))
            && flight.tries.iter().all(|attempt| attempt.upstream != upstream);
        if !asked.letter_case.mixes(asked.breaker.usable(), first, now) {
            return plain;
        }
        let chosen = letters::fitting(name::name_of(&flight.key), self.random.letters());
        Letters { chosen, matter: asked.letter_case.matters() }
    }

    /// Learns from the case of a message, and converts it as if we had asked in lower case. `None`
    /// if it must be rejected.
    pub(super) fn check_letters<'a>(
        &mut self,
        flight: &mut Flight,
        try_id: u64,
        message: &'a [u8],
        now: Moment,
    ) -> Option<Cow<'a, [u8]>> {
        let whole = Cow::Borrowed(message);
        let Some(attempt) = flight.find(try_id) else { return Some(whole) };
        let (upstream, own) = (attempt.upstream, attempt.letters);
        let answered_before = attempt.state == TryState::OtherCase;
        let Some(asked) = self.zones.get_mut(flight.zone).group.get_mut(upstream) else { return Some(whole) };
        if own.chosen == 0 {
            let in_vain = flight.tries.iter().any(|earlier| {
                earlier.upstream == upstream
                    && earlier.state == TryState::Late
                    && !earlier.excused
                    && earlier.letters.chosen != 0
            });
            if in_vain {
                asked.letter_case.on_lost(now);
            }
            // A name without letters, or in lower case by chance, must be repeated exactly too.
            let other = own.matter
                && letters::echo(message, name::name_of(&flight.key), own.chosen) == Echo::OtherCase;
            return (!other).then_some(whole);
        }
        let name = name::name_of(&flight.key);
        let error =
            message.get(3).is_none_or(|flags| !matches!(flags & 0x0f, rcode::NOERROR | rcode::NXDOMAIN));
        match letters::echo(message, name, own.chosen) {
            Echo::OtherCase if own.matter => return None,
            Echo::OtherCase => asked.letter_case.on_other(now),
            Echo::Same if answered_before => {
                // Both cannot be the upstream's.
                asked.letter_case.on_same();
                asked.forgeries.on_forged(1, now);
            }
            _ if error => asked.letter_case.on_lost(now),
            Echo::Same => asked.letter_case.on_same(),
            Echo::None => {}
        }
        Some(letters::neutral(message, name, own.chosen))
    }

    /// An answer in a different case than this flight's question was rejected.
    pub(super) fn on_other_case(&mut self, id: u64, mut flight: Flight, try_id: u64, now: Moment) {
        // The right one may still arrive.
        self.by_try.insert(try_id, id);
        let upstream = flight.find(try_id).map(|attempt| {
            let news = attempt.state != TryState::OtherCase;
            attempt.state = TryState::OtherCase;
            (attempt.upstream, news)
        });
        if let Some((upstream, true)) = upstream {
            if let Some(asked) = self.zones.get_mut(flight.zone).group.get_mut(upstream) {
                asked.counts.other_case += 1;
                asked.letter_case.on_other(now);
            }
            self.ask_beyond_forging(id, &mut flight, upstream, now);
        }
        self.timers.push(Reverse((flight.next_event(), id)));
        self.flights.insert(id, flight);
    }

    /// Asks again over TCP, or over UDP if that fails or if this upstream does not keep case.
    fn ask_beyond_forging(&mut self, id: u64, flight: &mut Flight, upstream: usize, now: Moment) {
        let zone = self.zones.get_mut(flight.zone);
        let Some(asked) = zone.group.get_mut(upstream) else { return };
        let mut own = flight.tries.iter().filter(|attempt| attempt.upstream == upstream);
        let fails = |state| matches!(state, TryState::Late | TryState::Failed(_));
        let no_tcp = own.clone().any(|attempt| attempt.transport == Transport::Tcp && fails(attempt.state));
        let matters = asked.letter_case.matters();
        let under_way = own.any(|attempt| {
            attempt.state == TryState::Pending
                && (attempt.transport == Transport::Tcp || !attempt.letters.matter)
        });
        if !under_way && now < flight.deadline && flight.tries.len() < 2 * TRIES_MAX {
            let transport = if matters && !no_tcp { Transport::Tcp } else { Transport::Udp };
            // The caller sets the timer.
            self.send(id, flight, upstream, transport, now);
        }
    }

    /// TCP failed for a flight whose UDP answer came in different case. One such answer may be
    /// forged, so UDP is tried again in mixed case until the upstream has shown itself.
    pub(super) fn ask_without_tcp(&mut self, id: u64, mut flight: Flight, try_id: u64, now: Moment) {
        let upstream = flight.find(try_id).map(|attempt| {
            attempt.state = TryState::Failed(Failure::TruncatedWithoutTcp);
            attempt.upstream
        });
        if let Some(upstream) = upstream {
            self.ask_beyond_forging(id, &mut flight, upstream, now);
        }
        self.timers.push(Reverse((flight.next_event(), id)));
        self.flights.insert(id, flight);
    }

    /// Replies to one query were dropped because they cannot be this upstream's: a wrong id, or
    /// another question.
    pub fn on_forged(&mut self, upstream: &Endpoint, packets: u32, now: Moment) {
        for zone in self.zones.ids() {
            self.zones.get_mut(zone).group.on_forged(upstream, packets, now);
        }
    }
}
