//! Mixed letters (0x20) between a question and its answer: which letters a try is asked in, what its answer's letters say
//! of the upstream, and what happens to an answer that came in others.
//!
//! Such an answer is no answer: the right one may still come and is taken, and the same question goes out over TCP
//! meanwhile, where nobody off the path can answer. If there is no TCP either, the letters are given up before the
//! upstream is.

use std::{borrow::Cow, cmp::Reverse};

use super::{
    Resolver,
    flight::{Flight, Letters, Purpose, TryState},
};
use crate::{
    health::breaker::Failure,
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
    /// The letters in which this flight's question goes to `upstream`.
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
        let chosen = letters::fitting(name::name_of(&flight.key), self.letters.u64(..));
        Letters { chosen, matter: asked.letter_case.matters() }
    }

    /// Learns from the letters of a message, and makes it what it would be had we asked in lower case. `None`: it is not to
    /// be believed.
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
        let Some(asked) = self.zones.get_mut(flight.zone).group.get_mut(upstream) else { return Some(whole) };
        if own.chosen == 0 {
            let in_vain = flight.tries.iter().any(|earlier| {
                earlier.upstream == upstream && earlier.state == TryState::Late && earlier.letters.chosen != 0
            });
            if in_vain {
                asked.letter_case.on_lost(now);
            }
            // A name without letters, or nothing but lower case by chance, has to come back so too.
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
            _ if error => asked.letter_case.on_lost(now),
            Echo::Same => asked.letter_case.on_same(),
            Echo::None => {}
        }
        Some(letters::neutral(message, name, own.chosen))
    }

    /// An answer came in other letters than this flight's question, and is not believed.
    pub(super) fn on_other_case(&mut self, id: u64, mut flight: Flight, try_id: u64, now: Moment) {
        // The right one may still come.
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

    /// Asks again where letters do not matter: over TCP, or in lower case if this upstream's letters say nothing.
    fn ask_beyond_forging(&mut self, id: u64, flight: &mut Flight, upstream: usize, now: Moment) {
        let zone = self.zones.get_mut(flight.zone);
        let Some(asked) = zone.group.get_mut(upstream) else { return };
        let mut own = flight.tries.iter().filter(|attempt| attempt.upstream == upstream);
        if own.clone().any(|attempt| attempt.state == TryState::Late && attempt.transport == Transport::Tcp) {
            // TCP leads nowhere either.
            asked.letter_case.give_up(now);
        }
        let matters = asked.letter_case.matters();
        let under_way = own.any(|attempt| {
            attempt.state == TryState::Pending
                && (attempt.transport == Transport::Tcp || !attempt.letters.matter)
        });
        if !under_way && now < flight.deadline {
            let transport = if matters { Transport::Tcp } else { Transport::Udp };
            // The caller sets the timer.
            self.send(id, flight, upstream, transport, now);
        }
    }

    /// TCP brought nothing to a flight whose answer over UDP came in other letters: better its letters than no answer.
    pub(super) fn give_up_letters(&mut self, id: u64, mut flight: Flight, try_id: u64, now: Moment) {
        let upstream = flight.find(try_id).map(|attempt| {
            attempt.state = TryState::Failed(Failure::TruncatedWithoutTcp);
            attempt.upstream
        });
        if let Some(upstream) = upstream {
            if let Some(asked) = self.zones.get_mut(flight.zone).group.get_mut(upstream) {
                asked.letter_case.give_up(now);
            }
            self.ask_beyond_forging(id, &mut flight, upstream, now);
        }
        self.timers.push(Reverse((flight.next_event(), id)));
        self.flights.insert(id, flight);
    }
}
