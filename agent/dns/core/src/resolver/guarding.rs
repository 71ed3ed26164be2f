//! Applies the guard between an upstream's answer and the cache: doubts, second opinions, and their
//! outcome.

use std::{net::IpAddr, time::Duration};

use super::{
    LEARNED_MAX, Resolver,
    answering::Settled,
    flight::{Denial, Flight, Purpose, TRIES_MAX, TryState},
    refreshing::may_serve,
};
use crate::{
    cache::{Entry, Facts},
    guard::{self, Accepted, Displaced, Known, Reason, Stance, Witnesses},
    health::{
        breaker::{Failure, State, Weight},
        group::CLIENT_TIMER_MAX,
    },
    message::{
        name::{self, Key},
        wire::{self, Answer, Verdict},
    },
    moment::Moment,
    policy::{self, Cached, Plan, StaleReason},
    zones::zone::ZoneId,
};

/// What to do with an answer.
pub(super) enum Belief {
    Take,
    /// Ask this upstream too before replacing a good answer.
    AskToo(usize),
    /// Another upstream has already been asked.
    Wait,
    /// Keep the good answer.
    Hold(Reason),
    /// It comes from an upstream known to give false answers.
    Ignore,
    /// First check whether its addresses accept a connection.
    Check,
}

/// Uses over an answer's last lifetimes that make a name hot, as opposed to one asked for now and
/// then.
const HOT_USES: u32 = 4;
const TYPE_A: u16 = 1;
/// While upstreams are known to give false answers, answers for unknown names are cached no longer
/// than this.
const DISTRUSTED_TTL_S: u32 = 5;

impl Resolver {
    /// Decides what to do with an answer before it displaces anything, and records what it says
    /// about its upstream.
    pub(super) fn weigh(
        &mut self,
        flight: &mut Flight,
        try_id: u64,
        message: &[u8],
        answer: &mut Answer,
        now: Moment,
    ) -> Belief {
        let empty = answer.verdict == Verdict::NoData && !self.address_is_fresh(&flight.key, now);
        let zone = self.zones.get_mut(flight.zone);
        let new = addresses(message);
        let good = self
            .cache
            .find(&flight.key)
            .and_then(|slot| self.cache.get(slot))
            // An answer from another view is no evidence against this one.
            .filter(|entry| entry.verdict == Verdict::Positive && !entry.of_other_view())
            .filter(|entry| entry.stale_for(now).is_none() || may_serve(entry, zone, now))
            .map(|entry| (known(&entry, now), addresses(entry.kept().message)));
        let Some((known, old)) = good else {
            if zone.guard.distrusts_new(&flight.key, &new) {
                answer.ttl_s = answer.ttl_s.map(|ttl| ttl.min(DISTRUSTED_TTL_S));
            }
            self.note_answer(flight, try_id, answer.verdict == Verdict::Positive, now);
            return Belief::Take;
        };
        let reason = match answer.verdict {
            Verdict::NoData if empty => Some(Reason::Empty),
            Verdict::NoData | Verdict::NxDomain => Some(Reason::Gone),
            Verdict::Positive if all_nowhere(&new) && !old.iter().copied().any(guard::leads_nowhere) => {
                Some(Reason::Nowhere)
            }
            Verdict::Positive => zone.guard.converging(&old, &new).map(Reason::Converged),
        };
        let doubted = reason.filter(|&reason| zone.guard.doubts(&flight.key, reason, now));
        let Some(reason) = doubted else {
            let belief = if self.wants_check(flight, message, (known, &old, &new), now) {
                Belief::Check
            } else {
                self.believe(flight, message, reason, (&old, &new), now)
            };
            self.note_answer(flight, try_id, answer.verdict == Verdict::Positive, now);
            self.note_contradictions(flight, now);
            return belief;
        };
        if self.note_denial(flight, try_id, now) && !flight.pending() && flight.denial.is_none() {
            return Belief::Ignore;
        }
        let denial = flight.denial.get_or_insert_with(|| Denial { reason, known, message: message.into() });
        if reason == Reason::Gone {
            // If two denials differ, the plain "gone" counts.
            denial.reason = reason;
        }
        let group = &self.zones.get(flight.zone).group;
        let another = group
            .choose(&flight.tried())
            .filter(|&index| group.usable(index) && flight.tries.len() < TRIES_MAX);
        match another {
            _ if flight.pending() => Belief::Wait,
            Some(upstream) => Belief::AskToo(upstream),
            None => self.settle_denial(flight, now),
        }
    }

    /// Whether the A records of this key's name are cached and fresh: then only one type was
    /// withdrawn, and the name is fine.
    fn address_is_fresh(&self, key: &[u8], now: Moment) -> bool {
        let Some((question, dnssec_ok, checking_disabled)) = name::read_key(key) else { return false };
        let address = Key::new(&wire::Question { kind: TYPE_A, ..question }, dnssec_ok, checking_disabled);
        let entry = self.cache.find(address.as_bytes()).and_then(|slot| self.cache.get(slot));
        question.kind != TYPE_A
            && entry.is_some_and(|entry| entry.verdict == Verdict::Positive && entry.stale_for(now).is_none())
    }

    /// No upstream is left to ask: hold the good answer, or accept the new one if the hold is over.
    pub(super) fn settle_denial(&mut self, flight: &mut Flight, now: Moment) -> Belief {
        let Some(denial) = flight.denial.take() else { return Belief::Take };
        let denied = |state| matches!(state, TryState::Denied);
        let mut agreed: Vec<usize> = flight
            .tries
            .iter()
            .filter(|attempt| denied(attempt.state))
            .map(|attempt| attempt.upstream)
            .collect();
        agreed.sort_unstable();
        agreed.dedup();
        let mut asked = flight.tried();
        asked.sort_unstable();
        asked.dedup();
        let count = |upstreams: &[usize]| u8::try_from(upstreams.len()).unwrap_or(u8::MAX);
        let witnesses = Witnesses { asked: count(&asked), agreed: count(&agreed) };
        let held = match denial.reason {
            Reason::Gone | Reason::Empty | Reason::Nowhere => {
                let guard = &mut self.zones.get_mut(flight.zone).guard;
                guard.on_gone(&flight.key, denial.known, denial.reason, witnesses, now)
            }
            // Not a denial; found by a later check.
            Reason::Refused => false,
            Reason::Converged(_) => {
                let new = addresses(&denial.message);
                let displaced = self
                    .cache
                    .find(&flight.key)
                    .and_then(|slot| self.cache.get(slot))
                    .map(|entry| displaced(entry.entry()));
                displaced.is_some_and(|displaced| {
                    let old = addresses(&displaced.message);
                    let guard = &mut self.zones.get_mut(flight.zone).guard;
                    guard.on_moved(denial.known, (&old, &new), displaced, witnesses, now)
                })
            }
        };
        if held { Belief::Hold(denial.reason) } else { Belief::Take }
    }

    /// Lets an answer that is not in doubt replace a good one, unless it completes a mass
    /// convergence.
    pub(super) fn believe(
        &mut self,
        flight: &Flight,
        message: &[u8],
        settled: Option<Reason>,
        (old, new): (&[IpAddr], &[IpAddr]),
        now: Moment,
    ) -> Belief {
        let Some(entry) = self.cache.find(&flight.key).and_then(|slot| self.cache.get(slot)) else {
            return Belief::Take;
        };
        let guard = &mut self.zones.get_mut(flight.zone).guard;
        let known = known(&entry, now);
        let alone = Witnesses { asked: 1, agreed: 1 };
        if let Some(reason @ (Reason::Gone | Reason::Empty | Reason::Nowhere)) = settled {
            // The grace period is over, an operator accepted it, or the rules are off.
            let held = guard.on_gone(&flight.key, known, reason, alone, now);
            return if held { Belief::Hold(reason) } else { Belief::Take };
        }
        let moved = !old.is_empty() && !new.is_empty() && !new.iter().any(|address| old.contains(address));
        if moved && guard.on_moved(known, (old, new), displaced(entry.entry()), alone, now) {
            let address = guard.converging(old, new).or(new.first().copied());
            return address.map_or(Belief::Take, |address| Belief::Hold(Reason::Converged(address)));
        }
        if !moved {
            let kind = name::read_key(&flight.key).map_or(0, |(question, ..)| question.kind);
            let count = |message| wire::answers(message).filter(|(found, _)| *found == kind).count();
            let (before, after) = (count(entry.kept().message), count(message));
            if guard::shrunk(before, after) {
                guard.on_shrunk(&flight.key, before, after);
            }
        }
        if self.pins.contains(&flight.key) {
            guard.on_pinned(&flight.key, old, new);
        }
        guard.on_good(&flight.key, new, now);
        Belief::Take
    }

    /// Restores answers that were displaced before the convergence was detected.
    fn put_back(&mut self) {
        let mut back: Vec<Displaced> = Vec::new();
        for zone in self.zones.ids() {
            back.extend(self.zones.get_mut(zone).guard.take_put_back());
        }
        for old in back {
            let Some((question, ..)) = name::read_key(&old.key) else { continue };
            let Ok(answer) = wire::read_answer(&old.message, &question) else { continue };
            let back = self.cache.insert(&old.key, &old.message, &answer, old.learned).is_some();
            if back && self.learned.len() < LEARNED_MAX {
                self.learned.push_back(old.key);
            }
        }
    }

    /// An upstream gave an answer that is not in doubt.
    fn note_answer(&mut self, flight: &mut Flight, try_id: u64, positive: bool, now: Moment) {
        let Some(attempt) = flight.find(try_id) else { return };
        let late = std::mem::replace(&mut attempt.state, TryState::Answered) == TryState::Late;
        let (index, round_trip) = (attempt.upstream, now.since(attempt.sent));
        let (late, round_trip) = (late && !attempt.excused, (!attempt.excused).then_some(round_trip));
        let group = &mut self.zones.get_mut(flight.zone).group;
        group.on_answer(index, round_trip);
        if let Some(upstream) = group.get_mut(index) {
            if flight.known {
                upstream.breaker.note_answered(late);
            }
            if round_trip.is_some_and(|round_trip| round_trip > CLIENT_TIMER_MAX) {
                upstream.breaker.on_late_success(now);
            } else if positive || !lies(upstream.breaker.state()) {
                // An upstream caught lying must resolve a name to be trusted again; another "no"
                // may be one more lie.
                upstream.breaker.on_success(now);
            }
        }
        // An upstream that failed where another succeeded is at fault itself.
        for attempt in &flight.tries {
            if let TryState::Failed(why) = attempt.state
                && !attempt.excused
                && attempt.upstream != index
                && let Some(upstream) = group.get_mut(attempt.upstream)
            {
                upstream.breaker.on_failure(why, Weight::Weak, now);
            }
        }
    }

    /// An upstream denied a known name: it is alive, but its answer is in doubt. Returns whether it
    /// is known to lie.
    fn note_denial(&mut self, flight: &mut Flight, try_id: u64, now: Moment) -> bool {
        let Some(attempt) = flight.find(try_id) else { return false };
        let late = std::mem::replace(&mut attempt.state, TryState::Denied) == TryState::Late;
        let (index, round_trip) = (attempt.upstream, now.since(attempt.sent));
        let (late, round_trip) = (late && !attempt.excused, (!attempt.excused).then_some(round_trip));
        let group = &mut self.zones.get_mut(flight.zone).group;
        group.on_answer(index, round_trip);
        let Some(upstream) = group.get_mut(index) else { return false };
        upstream.breaker.note_answered(late);
        let lies = lies(upstream.breaker.state());
        if lies {
            upstream.breaker.on_failure(Failure::Lies, Weight::Strong, now);
        } else if round_trip.is_none_or(|round_trip| round_trip <= CLIENT_TIMER_MAX) {
            upstream.breaker.on_success(now);
        } else {
            upstream.breaker.on_late_success(now);
        }
        lies
    }

    /// An upstream has a name that others denied in the same flight.
    fn note_contradictions(&mut self, flight: &Flight, now: Moment) {
        let zone = self.zones.get_mut(flight.zone);
        for attempt in flight.tries.iter().filter(|attempt| attempt.state == TryState::Denied) {
            if zone.guard.on_contradicted(attempt.upstream, &flight.key, now)
                && let Some(upstream) = zone.group.get_mut(attempt.upstream)
            {
                upstream.breaker.condemn(Failure::Lies, now);
            }
        }
    }

    /// Adds the guard's verdict to what the cache has for a question.
    pub(super) fn guarded(&mut self, cached: Cached, key: &[u8], zone: ZoneId, now: Moment) -> Cached {
        let zone = self.zones.get_mut(zone);
        if !matches!(cached, Cached::Expired { .. }) || zone.guard.is_idle() {
            return cached;
        }
        let entry = self.cache.find(key).and_then(|slot| self.cache.get(slot));
        if entry.as_ref().is_some_and(|entry| zone.guard.confirmed_since(key, entry.learned())) {
            return cached;
        }
        let positive = entry.is_some_and(|entry| entry.verdict == Verdict::Positive);
        let usable = zone.group.all().iter().filter(|upstream| upstream.breaker.usable()).count();
        let stance = positive.then(|| zone.guard.stance(key, usable, now)).flatten();
        stance.map_or(cached, |Stance { why, ask }| Cached::Held { reason: stale_reason(why), ask })
    }

    /// Counts queries answered from names held by a trip, of which `key` is the last; asks
    /// upstreams if that is due.
    pub fn on_frozen(&mut self, key: &[u8], queries: u16, now: Moment) {
        let Some(slot) = self.cache.find(key) else { return };
        let zone_id = self.zones.of_key(key);
        // The call below counts the last one.
        self.zones.get_mut(zone_id).guard.on_frozen(queries.saturating_sub(1));
        let cached = self.cached(Some(slot), key, self.zones.get(zone_id), now);
        let cached = self.guarded(cached, key, zone_id, now);
        match policy::plan(cached, self.zones.get(zone_id).upstreams(), Duration::ZERO, now) {
            Plan::ReplyStaleThenAsk(_) => self.ask_again(key, zone_id, now),
            Plan::ReplyStaleThenRefresh(_) => self.queue_refresh(slot, zone_id),
            _ => {}
        }
    }

    /// Asks upstreams for a held name; the client has been answered.
    pub(super) fn ask_again(&mut self, key: &[u8], zone: ZoneId, now: Moment) {
        let zone = self.zones.get_mut(zone);
        let usable = zone.group.all().iter().filter(|upstream| upstream.breaker.usable()).count();
        zone.guard.on_ask(key, usable, now);
        self.ask_for(key, now);
    }

    /// Sends canaries for trips, and starts paced refreshes when a trip is over.
    pub(super) fn tend_guards(&mut self, now: Moment) {
        for id in self.zones.ids() {
            while let Some(canary) = self.zones.get_mut(id).guard.poll_canary(now) {
                if self.cache.find(&canary).is_some() {
                    self.ask_for(&canary, now);
                } else {
                    self.zones.get_mut(id).guard.forget(&canary);
                }
            }
            let zone = self.zones.get_mut(id);
            if zone.guard.take_recovered() {
                self.begin_recovery(id, now);
            }
        }
    }

    /// An operator accepts the current answers for all names at or below `suffix` (wire format).
    /// `None` if no such name is cached, which suggests a typing error.
    pub fn accept(&mut self, suffix: &[u8], now: Moment) -> Option<Accepted> {
        let suffix = suffix.to_ascii_lowercase();
        let known = |key: &[u8]| name::is_below(name::name_of(key), &suffix);
        if !self.cache.iter().any(|(_, entry)| known(entry.key().as_bytes())) {
            return None;
        }
        let mut all = Accepted::default();
        for id in self.zones.ids() {
            let zone = self.zones.get_mut(id);
            // A zone's names are its own: the root's guard does not know them.
            let accepted = zone.guard.accept(&suffix, now);
            all.trips += accepted.trips;
            all.keys.extend(accepted.keys);
        }
        // A few at once, so that an operator sees the effect; the rest when clients ask.
        for key in all.keys.iter().take(ACCEPT_ASKS) {
            self.ask_for(key, now);
        }
        self.tend_guards(now);
        Some(all)
    }

    /// The next guard event to log, with its zone.
    pub fn poll_guard_event(&mut self) -> Option<(String, guard::Event)> {
        self.zones.ids().find_map(|id| {
            let zone = self.zones.get_mut(id);
            let event = zone.guard.poll_event()?;
            Some((zone.name(), event))
        })
    }

    fn ask_for(&mut self, key: &[u8], now: Moment) {
        if !self.by_key.contains_key(key) && self.start(key, Purpose::Refresh, now).is_some() {
            self.counts.refreshes_started += 1;
        }
    }

    /// The good answer stays; waiting clients get it.
    pub(super) fn conclude_held(&mut self, flight: &mut Flight, reason: Reason, now: Moment) {
        if flight.purpose == Purpose::Refresh {
            self.counts.refreshes_held += 1;
        }
        // Settled for now; a pinned name is queried less and less while it is held.
        self.zones.get_mut(flight.zone).recovery.on_settled(&flight.key, false);
        self.pins.on_failed(&flight.key, now);
        self.put_back();
        self.answer_all(flight, Settled::Held(stale_reason(guard::HeldBy::Hold(reason))), now);
    }
}

/// Names queried at once after [`Resolver::accept`].
const ACCEPT_ASKS: usize = 16;

fn known(entry: &Facts, now: Moment) -> Known {
    // Only up to its expiry: while it is held, nothing proves that it is still good.
    let good_for =
        entry.good_since().map_or_else(Default::default, |since| entry.expires().min(now).since(since));
    Known { good_for, hot: entry.popularity() >= HOT_USES, uses: entry.popularity() }
}

fn displaced(entry: Entry<'_>) -> Displaced {
    Displaced {
        key: entry.key().as_bytes().into(),
        message: entry.kept().message.into(),
        learned: entry.learned(),
    }
}

fn lies(state: State) -> bool {
    matches!(state, State::Down { why: Failure::Lies, .. } | State::Recovering { why: Failure::Lies, .. })
}

pub(super) fn stale_reason(why: guard::HeldBy) -> StaleReason {
    match why {
        guard::HeldBy::Hold(Reason::Gone | Reason::Empty) => StaleReason::HeldGone,
        guard::HeldBy::Hold(Reason::Nowhere) => StaleReason::HeldNowhere,
        guard::HeldBy::Hold(Reason::Converged(_)) => StaleReason::HeldConverged,
        guard::HeldBy::Hold(Reason::Refused) => StaleReason::HeldRefused,
        guard::HeldBy::Trip => StaleReason::HeldTrip,
    }
}

fn all_nowhere(addresses: &[IpAddr]) -> bool {
    !addresses.is_empty() && addresses.iter().copied().all(guard::leads_nowhere)
}

/// The addresses in a message's answer section.
pub(super) fn addresses(message: &[u8]) -> Vec<IpAddr> {
    let address = |(kind, data): (u16, &[u8])| match kind {
        1 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        28 => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    };
    wire::answers(message).filter_map(address).collect()
}
