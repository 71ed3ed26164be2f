//! Queries to upstreams: flights and their tries, probes, refreshes, and what replies tell about
//! the upstreams.

use std::cmp::Reverse;

use super::{
    Client, FLIGHTS_KEPT, FLIGHTS_MAX, GIVES_WAY_AFTER, LEARNED_MAX, PROBES_MAX, RECHECK_AFTER, Resolver,
    Send, TryError, WAITERS_MAX, WAITERS_SURE, WAITERS_TOTAL,
    answering::Settled,
    checking::Accepting,
    flight::{Flight, LAST_TRY_AFTER, Purpose, RESOLUTION_TIMER, TRIES_MAX, Try, TryState, Waiter},
    guarding::Belief,
};
use crate::{
    health::breaker::{Failure, Weight},
    message::{
        name,
        reply::Transport,
        wire::{self, Answer, HEADER_LEN, NoAnswer, letters, rcode},
    },
    moment::Moment,
    policy::Upstreams,
    zones::zone::ZoneId,
};

impl Resolver {
    /// Adds a client to a flight. False if too many are waiting already.
    pub(super) fn join(
        &mut self,
        key: &[u8],
        packet: &[u8],
        client: Client,
        transport: Transport,
        until: Moment,
        now: Moment,
    ) -> bool {
        let id = match self.by_key.get(key) {
            Some(&id) => {
                self.counts.coalesced += 1;
                id
            }
            None => match self.start(key, Purpose::Client, now) {
                Some(id) => id,
                None => return false,
            },
        };
        let waiting = self.flights.get(&id).map_or(WAITERS_MAX, |flight| flight.waiters.len());
        let all = || self.flights.values().map(|flight| flight.waiters.len()).sum::<usize>();
        let room = waiting < WAITERS_SURE || (waiting < WAITERS_MAX && all() < WAITERS_TOTAL);
        let Some(flight) = self.flights.get_mut(&id).filter(|_| room) else { return false };
        self.counts.misses += 1;
        // The flight has a timer for its next event; a storm of clients must not add one each.
        if until < flight.next_event() {
            self.timers.push(Reverse((until, id)));
        }
        flight.waiters.push(Waiter { client, transport, packet: packet.into(), until });
        true
    }

    /// Starts a flight. `None` if there are too many, or if there is no upstream.
    pub(super) fn start(&mut self, key: &[u8], purpose: Purpose, now: Moment) -> Option<u64> {
        let known = matches!(purpose, Purpose::Probe(_)) || self.cache.find(key).is_some();
        let pinned = || self.pins.contains(key);
        let others = self.flights.len() - self.probes_out;
        let (places, most) = match purpose {
            Purpose::Probe(_) => (self.probes_out, PROBES_MAX),
            Purpose::Client if !known && !pinned() => (others, FLIGHTS_MAX - FLIGHTS_KEPT),
            Purpose::Client | Purpose::Refresh => (others, FLIGHTS_MAX),
        };
        if places >= most && (purpose != Purpose::Client || !self.make_room(now)) {
            return None;
        }
        let zone = self.zones.of_key(key);
        let upstream = match purpose {
            Purpose::Probe(upstream) => upstream,
            Purpose::Client | Purpose::Refresh => self.zones.get(zone).group.choose(&[])?,
        };
        let id = self.next_id;
        self.next_id += 1;
        let mut flight = Flight {
            key: key.into(),
            zone,
            purpose,
            known,
            waiters: Vec::new(),
            tries: Vec::with_capacity(2),
            deadline: now + RESOLUTION_TIMER,
            last_try_at: now + LAST_TRY_AFTER,
            denial: None,
            check: None,
        };
        self.send(id, &mut flight, upstream, Transport::Udp, now);
        self.timers.push(Reverse((flight.next_event(), id)));
        self.flights.insert(id, flight);
        match purpose {
            Purpose::Probe(_) => self.probes_out += 1,
            Purpose::Client | Purpose::Refresh => drop(self.by_key.insert(key.into(), id)),
        }
        Some(id)
    }

    /// Ends the question for an unknown name that has been under way for longest, if that is long.
    /// (Unbound calls it jostle.)
    fn make_room(&mut self, now: Moment) -> bool {
        // In the order in which they began.
        let slowest = self.flights.iter().find(|(_, flight)| {
            flight.purpose == Purpose::Client && !flight.known && !self.pins.contains(&flight.key)
        });
        let Some((&id, _)) =
            slowest.filter(|(_, flight)| now + RESOLUTION_TIMER >= flight.deadline + GIVES_WAY_AFTER)
        else {
            return false;
        };
        let Some(mut flight) = self.flights.remove(&id) else { return false };
        self.counts.overloads += flight.waiters.len() as u64;
        let why = flight.failure();
        self.conclude_failure(&mut flight, why, now);
        self.drop_flight(id, &flight);
        true
    }

    /// Its upstreams were removed from the config: clients should not wait for their timeouts.
    pub(super) fn ask_anew(&mut self, id: u64, now: Moment) {
        let Some(mut flight) = self.flights.remove(&id) else { return };
        // A probe was meant for the old upstream; its timer ends it.
        let upstream = match flight.purpose {
            Purpose::Probe(_) => None,
            Purpose::Client | Purpose::Refresh => self.zones.get(flight.zone).group.choose(&[]),
        };
        if let Some(upstream) = upstream {
            flight.last_try_at = (now + LAST_TRY_AFTER).min(flight.deadline);
            self.send(id, &mut flight, upstream, Transport::Udp, now);
        }
        self.timers.push(Reverse((flight.next_event(), id)));
        self.flights.insert(id, flight);
    }

    pub(super) fn send(
        &mut self,
        flight_id: u64,
        flight: &mut Flight,
        upstream: usize,
        transport: Transport,
        now: Moment,
    ) {
        let letters = self.choose_letters(flight, upstream, transport, now);
        let zone = self.zones.get_mut(flight.zone);
        let late_after = zone.group.late_after(upstream);
        let Some((question, dnssec_ok, checking_disabled)) = name::read_key(&flight.key) else { return };
        let Some(asked) = zone.group.get_mut(upstream) else { return };
        asked.counts.sent += 1;
        let endpoint = asked.endpoint.clone();
        let transport = if endpoint.is_stream() { Transport::Tcp } else { transport };
        // A connection may have to be set up first.
        let late_after = if transport == Transport::Tcp { late_after * 2 } else { late_after };
        zone.note_sent(now);
        if flight.purpose == Purpose::Client {
            zone.recovery.on_other_question();
        }
        let mut message = Vec::with_capacity(question.name.len() + 27);
        wire::write_query(&mut message, self.random.id(), &question, dnssec_ok, checking_disabled);
        if let Some(name) = message.get_mut(HEADER_LEN..HEADER_LEN + question.name.len()) {
            letters::mix(name, letters.chosen);
        }
        let try_id = self.next_id;
        self.next_id += 1;
        self.sends.push_back(Send {
            try_id,
            upstream: endpoint,
            transport,
            message,
            letters_matter: letters.matter,
            late_after,
            timeout: now.until(flight.deadline),
            probe: matches!(flight.purpose, Purpose::Probe(_)),
        });
        self.by_try.insert(try_id, flight_id);
        let late_at = now + late_after;
        flight.tries.push(Try {
            id: try_id,
            upstream,
            transport,
            sent: now,
            late_at,
            letters,
            excused: false,
            state: TryState::Pending,
        });
    }

    /// A message from an upstream arrived.
    pub fn on_reply(&mut self, try_id: u64, message: &[u8], now: Moment) {
        self.notice_pause(now);
        let Some((id, mut flight)) = self.take_flight(try_id) else { return };
        let Some(message) = self.check_letters(&mut flight, try_id, message, now) else {
            return self.on_other_case(id, flight, try_id, now);
        };
        let message = &*message;
        let read = name::read_key(&flight.key)
            .map_or(Err(NoAnswer::Malformed), |(question, ..)| wire::read_answer(message, &question));
        match read {
            // Empty and without SOA: from a lame or broken server, if the name had records a moment
            // ago.
            Ok(answer) if answer.ttl_s.is_none() && flight.known && !self.probe_of_apex(&flight) => {
                self.fail_try(id, flight, try_id, Failure::Malformed, now);
            }
            Ok(mut answer) => match self.weigh(&mut flight, try_id, message, &mut answer, now) {
                Belief::Take => {
                    self.keep(&mut flight, message, &answer, now);
                    self.drop_flight(id, &flight);
                }
                Belief::Hold(reason) => {
                    self.conclude_held(&mut flight, reason, now);
                    self.drop_flight(id, &flight);
                }
                Belief::AskToo(upstream) => {
                    self.send(id, &mut flight, upstream, Transport::Udp, now);
                    self.timers.push(Reverse((flight.next_event(), id)));
                    self.flights.insert(id, flight);
                }
                Belief::Wait => {
                    self.timers.push(Reverse((flight.next_event(), id)));
                    self.flights.insert(id, flight);
                }
                Belief::Check => self.begin_check(id, flight),
                Belief::Ignore => self.fail_try(id, flight, try_id, Failure::Lies, now),
            },
            Err(NoAnswer::Truncated) => self.retry_over_tcp(id, flight, try_id, now),
            Err(NoAnswer::Malformed) => self.fail_try(id, flight, try_id, Failure::Malformed, now),
            Err(NoAnswer::Rcode(code)) => {
                let why = match code {
                    rcode::SERVFAIL => Failure::Servfail,
                    rcode::REFUSED => Failure::Refused,
                    _ => Failure::BadCode,
                };
                self.fail_try(id, flight, try_id, why, now);
            }
        }
        self.review_all(now);
    }

    /// The transport failed.
    pub fn on_error(&mut self, try_id: u64, error: TryError, now: Moment) {
        self.notice_pause(now);
        let Some((id, mut flight)) = self.take_flight(try_id) else { return };
        let after_truncation = flight.tries.iter().any(|attempt| attempt.state == TryState::Replaced);
        let over_tcp = flight.find(try_id).is_some_and(|attempt| attempt.transport == Transport::Tcp);
        let for_letters = flight.tries.iter().any(|attempt| attempt.state == TryState::OtherCase);
        let why = match error {
            TryError::OtherCase => return self.on_other_case(id, flight, try_id, now),
            _ if over_tcp && for_letters && now < flight.deadline => {
                return self.ask_without_tcp(id, flight, try_id, now);
            }
            _ if over_tcp && after_truncation => Failure::TruncatedWithoutTcp,
            TryError::Local => {
                // It never left this host, so it is no evidence yet. The late timer continues as if
                // it were lost.
                self.counts.local_failures += 1;
                self.by_try.insert(try_id, id);
                self.flights.insert(id, flight);
                return;
            }
            TryError::Timeout => Failure::Timeout,
            TryError::Network => Failure::Network,
            TryError::Closed => Failure::Closed,
            TryError::Handshake => Failure::Handshake,
            TryError::CertificateExpired => Failure::CertificateExpired,
            TryError::CertificateName => Failure::CertificateName,
            TryError::CertificateUntrusted => Failure::CertificateUntrusted,
            TryError::Malformed => Failure::Malformed,
        };
        self.fail_try(id, flight, try_id, why, now);
        self.review_all(now);
    }

    /// A timer of this flight is due.
    pub(super) fn on_timer(&mut self, id: u64, now: Moment) {
        let Some(mut flight) = self.flights.remove(&id) else { return };
        if now >= flight.deadline {
            if flight.check.is_some() {
                return self.settle_check(id, flight, Accepting::default(), now);
            }
            self.note_timeouts(&mut flight, now);
            let why = flight.failure();
            self.conclude_failure(&mut flight, why, now);
            self.drop_flight(id, &flight);
            self.review_all(now);
            return;
        }
        self.note_late(&mut flight, now);
        // A recovering upstream is not asked twice for a name that no client waits for.
        let unhurried = flight.waiters.is_empty() && self.zones.get(flight.zone).recovery.running();
        let worth_a_retry = match flight.purpose {
            Purpose::Client => true,
            Purpose::Refresh => !unhurried,
            Purpose::Probe(_) => false,
        };
        let retry = worth_a_retry
            && flight.check.is_none()
            && flight.tries.len() < TRIES_MAX
            && self.zones.get(flight.zone).health != Upstreams::Down
            && (now >= flight.last_try_at
                || (flight.tries.len() == 1 && flight.tries[0].state == TryState::Late));
        if retry {
            let tried = flight.tried();
            // Another upstream, or the same one again, since a packet may have been lost.
            let group = &self.zones.get(flight.zone).group;
            let other = group.choose(&tried).filter(|&index| group.usable(index));
            if let Some(upstream) = other.or_else(|| group.choose(&[])) {
                self.send(id, &mut flight, upstream, Transport::Udp, now);
            }
        }
        if now >= flight.last_try_at {
            flight.last_try_at = flight.deadline;
        }
        let (due, waiting) =
            std::mem::take(&mut flight.waiters).into_iter().partition(|waiter| waiter.until <= now);
        flight.waiters = waiting;
        let due: Vec<Waiter> = due;
        for waiter in &due {
            self.answer(&flight.key, waiter, Settled::Late, now);
        }
        self.timers.push(Reverse((flight.next_event(), id)));
        self.flights.insert(id, flight);
        self.review_all(now);
    }

    fn note_late(&mut self, flight: &mut Flight, now: Moment) {
        let zone = self.zones.get_mut(flight.zone);
        for attempt in &mut flight.tries {
            if attempt.state != TryState::Pending || attempt.late_at > now {
                continue;
            }
            attempt.state = TryState::Late;
            if attempt.excused {
                continue;
            }
            // A slow upstream is always late, and so are answers to queries sent while it was slow:
            // that says nothing about its load.
            let slow = zone.health == Upstreams::Slow || attempt.sent < zone.health_since;
            if flight.purpose == Purpose::Refresh && !slow {
                zone.recovery.on_trouble(now);
            }
            let Some(upstream) = zone.group.get_mut(attempt.upstream) else { continue };
            if flight.known && attempt.transport == Transport::Udp {
                upstream.breaker.note_unanswered(now);
            }
            match flight.purpose {
                Purpose::Probe(_) => {
                    let weight = upstream.breaker.weight_of_probe(attempt.sent);
                    upstream.breaker.on_failure(Failure::Timeout, weight, now);
                }
                Purpose::Client | Purpose::Refresh => upstream.breaker.on_late(now),
            }
        }
    }

    fn note_timeouts(&mut self, flight: &mut Flight, now: Moment) {
        let group = &mut self.zones.get_mut(flight.zone).group;
        for attempt in &mut flight.tries {
            if !matches!(attempt.state, TryState::Pending | TryState::Late) {
                continue;
            }
            attempt.state = TryState::Failed(Failure::Timeout);
            if attempt.excused {
                continue;
            }
            let Some(upstream) = group.get_mut(attempt.upstream) else { continue };
            upstream.counts.failed[Failure::Timeout as usize] += 1;
            // Old evidence: by now the breaker knows more, so it only raises suspicion.
            upstream.breaker.on_failure(Failure::Timeout, Weight::Weak, now);
        }
    }

    fn fail_try(&mut self, id: u64, mut flight: Flight, try_id: u64, why: Failure, now: Moment) {
        let mut was_late = false;
        let group = &mut self.zones.get_mut(flight.zone).group;
        if let Some(attempt) = flight.find(try_id) {
            was_late = attempt.state == TryState::Late;
            attempt.state = TryState::Failed(why);
            // What the upstream said counts whenever it said it.
            attempt.excused &= !why.is_an_answer();
            let (index, sent) = (attempt.upstream, attempt.sent);
            if let Some(upstream) = group.get_mut(index).filter(|_| !attempt.excused) {
                upstream.counts.failed[why as usize] += 1;
                if why.is_an_answer() {
                    upstream.pauses = 0;
                }
                if flight.known && why.is_an_answer() {
                    upstream.breaker.note_answered(was_late);
                }
                // A late probe was counted when it became late.
                if !(was_late && matches!(flight.purpose, Purpose::Probe(_))) {
                    let weight = match (why, flight.purpose) {
                        // Whether the upstream can be reached does not depend on the question.
                        (why, _) if why.is_of_the_way() => Weight::Strong,
                        (_, Purpose::Probe(_)) => upstream.breaker.weight_of_probe(sent),
                        (_, Purpose::Client | Purpose::Refresh) => Weight::Weak,
                    };
                    upstream.breaker.on_failure(why, weight, now);
                }
            }
        }
        // After a stall the flight may be over although its timer has not fired.
        let another = flight.tries.len() < TRIES_MAX && now < flight.deadline;
        let others = group.choose(&flight.tried()).filter(|_| another);
        if let Some(upstream) = others.filter(|_| !matches!(flight.purpose, Purpose::Probe(_)) && !was_late) {
            self.send(id, &mut flight, upstream, Transport::Udp, now);
        }
        if flight.pending() {
            self.timers.push(Reverse((flight.next_event(), id)));
            self.flights.insert(id, flight);
        } else {
            self.conclude_failure(&mut flight, why, now);
            self.drop_flight(id, &flight);
        }
    }

    fn retry_over_tcp(&mut self, id: u64, mut flight: Flight, try_id: u64, now: Moment) {
        let udp = flight.find(try_id).filter(|attempt| attempt.transport == Transport::Udp).map(|attempt| {
            attempt.state = TryState::Replaced;
            attempt.upstream
        });
        match udp {
            Some(upstream) => {
                self.send(id, &mut flight, upstream, Transport::Tcp, now);
                self.timers.push(Reverse((flight.next_event(), id)));
                self.flights.insert(id, flight);
            }
            // A truncated answer over TCP is malformed.
            None => self.fail_try(id, flight, try_id, Failure::Malformed, now),
        }
    }

    /// Accepts an answer and caches it.
    pub(super) fn keep(&mut self, flight: &mut Flight, message: &[u8], answer: &Answer, now: Moment) {
        if flight.purpose == Purpose::Refresh {
            self.counts.refreshes_done += 1;
        }
        let zone = self.zones.get_mut(flight.zone);
        zone.recovery.on_settled(&flight.key, true);
        if let Some(address) = zone.settings.rebinding.blocks(name::name_of(&flight.key), message) {
            return self.answer_blocked(flight, address, now);
        }
        // A reload may have made the name local since it was asked.
        let kept = if self.is_local(&flight.key) {
            None
        } else {
            self.cache.insert(&flight.key, message, answer, now)
        };
        if let Some(slot) = kept {
            self.note_warm(slot, now);
            if self.learned.len() < LEARNED_MAX {
                self.learned.push_back(flight.key.clone());
            }
            self.zones.get_mut(flight.zone).note_canary(&flight.key, answer.verdict, now);
            self.answer_all(flight, Settled::Answered, now);
        } else {
            self.answer_unkept(flight, message, answer.len, answer.additionals, now);
        }
    }

    fn conclude_failure(&mut self, flight: &mut Flight, why: Failure, now: Moment) {
        // One upstream denied a known name, and no other gave an answer.
        if let Some(message) = flight.denial.as_ref().map(|denial| denial.message.clone()) {
            match self.settle_denial(flight, now) {
                Belief::Hold(reason) => return self.conclude_held(flight, reason, now),
                Belief::Take | Belief::AskToo(_) | Belief::Wait | Belief::Ignore | Belief::Check => {
                    let question = name::read_key(&flight.key).map(|(question, ..)| question);
                    if let Some(Ok(answer)) = question.map(|question| wire::read_answer(&message, &question))
                    {
                        return self.keep(flight, &message, &answer, now);
                    }
                }
            }
        }
        let blameless = flight.blameless();
        let zone = self.zones.get_mut(flight.zone);
        let (slow, recovery) = (zone.health == Upstreams::Slow, &mut zone.recovery);
        if flight.purpose == Purpose::Refresh {
            self.counts.refreshes_failed += 1;
            // Lost packets cause most of these failures, and the rate is low already.
            if !slow && !blameless {
                recovery.on_failed(now);
            }
        }
        if matches!(flight.purpose, Purpose::Probe(_)) {
            return;
        }
        recovery.on_settled(&flight.key, false);
        self.pins.on_failed(&flight.key, now);
        let jitter = RECHECK_AFTER.mul_f64(self.random.jitter() / 4.0);
        match self.cache.find(&flight.key).and_then(|slot| self.cache.get(slot)) {
            _ if blameless => {}
            Some(entry) => entry.set_recheck_at(now + RECHECK_AFTER - jitter),
            None => self.failures.insert(&flight.key, why, now),
        }
        self.answer_all(flight, Settled::Failed(why), now);
    }

    /// Reviews every group after new evidence, and acts on groups that went down or came back.
    pub(super) fn review_all(&mut self, now: Moment) {
        for zone in self.zones.ids() {
            self.review(zone, now);
        }
    }

    fn review(&mut self, id: ZoneId, now: Moment) {
        let zone = self.zones.get_mut(id);
        let health = zone.group.health(now);
        if health == zone.health {
            return;
        }
        self.counts.transitions += 1;
        let before = std::mem::replace(&mut zone.health, health);
        zone.health_since = now;
        match (before, health) {
            (_, Upstreams::Down) => {
                zone.down_at.get_or_insert(now);
                zone.recovery.stop();
                self.give_stale_to_all(id, now);
            }
            (Upstreams::Down, _) => self.begin_recovery(id, now),
            // It loses packets: refreshes are paced from now on.
            (Upstreams::Healthy, Upstreams::Slow) => {
                zone.down_at.get_or_insert(now);
                if !zone.recovery.running() {
                    self.begin_recovery(id, now);
                }
            }
            // Names verified while it was unstable or slow may be stale again.
            (Upstreams::Recovering | Upstreams::Slow, Upstreams::Healthy) if zone.recovery.outdated(now) => {
                self.begin_recovery(id, now);
            }
            (Upstreams::Healthy | Upstreams::Recovering | Upstreams::Slow, _) => {}
        }
    }

    /// The group went down: clients with a stale answer need not wait any longer.
    fn give_stale_to_all(&mut self, zone: ZoneId, now: Moment) {
        let waits = |flight: &Flight| flight.zone == zone && !flight.waiters.is_empty();
        let mut waiting: Vec<u64> =
            self.flights.iter().filter(|(_, flight)| waits(flight)).map(|(&id, _)| id).collect();
        waiting.sort_unstable();
        for id in waiting {
            let Some(mut flight) = self.flights.remove(&id) else { continue };
            if self.cache.find(&flight.key).is_some() {
                self.answer_all(&mut flight, Settled::Down, now);
            }
            self.flights.insert(id, flight);
        }
    }

    pub(super) fn send_probes(&mut self, now: Moment) {
        for id in self.zones.ids() {
            for index in 0..self.zones.get(id).group.all().len() {
                let jitter = self.random.jitter();
                loop {
                    let zone = self.zones.get_mut(id);
                    let Some(upstream) = zone.group.get_mut(index) else { break };
                    // While recovering, a probe comes out of the recovery's own rate.
                    if upstream.breaker.wants_paced_probe(now)
                        && let Err(wait) = zone.recovery.take_for_probe(now)
                    {
                        if upstream.breaker.postpone_probe(wait, now) {
                            break;
                        }
                        zone.recovery.on_other_question();
                    }
                    if !upstream.breaker.poll_probe(now, jitter) {
                        break;
                    }
                    let key = zone.next_canary();
                    self.counts.probes += 1;
                    self.start(&key, Purpose::Probe(index), now);
                }
            }
        }
    }

    fn probe_of_apex(&self, flight: &Flight) -> bool {
        matches!(flight.purpose, Purpose::Probe(_))
            && flight.key == self.zones.get(flight.zone).apex_question()
    }

    fn take_flight(&mut self, try_id: u64) -> Option<(u64, Flight)> {
        let id = self.by_try.remove(&try_id)?;
        let mut flight = self.flights.remove(&id)?;
        if flight.check.is_some() {
            // Its answer is already being processed.
            if let Some(attempt) = flight.find(try_id) {
                attempt.state = TryState::Replaced;
            }
            self.timers.push(Reverse((flight.next_event(), id)));
            self.flights.insert(id, flight);
            return None;
        }
        Some((id, flight))
    }

    /// Cleans up after a flight that was already removed from the table.
    pub(super) fn drop_flight(&mut self, id: u64, flight: &Flight) {
        self.forget_refresh(&flight.key);
        if self.by_key.get(&flight.key) == Some(&id) {
            self.by_key.remove(&flight.key);
        }
        for attempt in &flight.tries {
            self.by_try.remove(&attempt.id);
        }
        if matches!(flight.purpose, Purpose::Probe(_)) {
            self.probes_out -= 1;
        }
    }
}
