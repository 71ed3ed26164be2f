//! Decides whether to believe a well-formed answer that says a known name is gone or has moved.
//!
//! Errors never displace an answer; the breaker handles those. But NXDOMAIN for every name, an
//! empty answer for an important name, or one address for all names arrives promptly and well
//! formed, and RFC 8767 §4 would let it replace the cached answer. Three rules protect the last
//! known good answer:
//!
//! ```text
//!  single vanish     a known name becomes NXDOMAIN, empty, or an address that cannot be a server
//!                    → held for a quarter of the time it was good, at least 1 min, at most
//!                      `vanish_grace` (`hot_vanish_grace` if it is asked for often); 1 min if
//!                      another upstream agrees and it is not hot; `empty_grace` if the answer is
//!                      empty and the name is hot and was good for half an hour
//!  mass vanish       five names among the last 25 answers of a minute, and most names that were
//!                    well a moment ago are denied too ([`trial`]) → a trip: all names of that
//!                    domain, or of the zone, are held until canaries are back or four times as
//!                    many neighbours prove to be well; at most as long as the steadiest name was
//!                    good, within `vanish_grace` to `mass_grace`
//!  mass convergence  five names from three addresses move to one address never seen before → the
//!                    old answers are restored and held until the names get other addresses,
//!                    other upstreams confirm the move, or the same bound is reached
//! ```
//!
//! Promises: a hold ends at its bound, on an answer that is believed, when an operator accepts the
//! change ([`Guard::accept`]) or when the rule is switched off. A name that never had a good answer
//! is never held. Tables are bounded; names that do not fit are believed at once.

mod convergence;
mod evidence;
mod hold;
mod mass;
mod pinned;
mod rebinding;
mod rules;
mod said;
mod terms;
#[cfg(test)]
mod tests;
mod trial;
mod trip;
mod view;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

pub use self::{
    convergence::{Displaced, leads_nowhere, shrunk},
    hold::{Hold, Reason, Witnesses},
    rebinding::Rebinding,
    rules::Rules,
    terms::{Accepted, Counts, Event, HeldBy, Known, Stance},
    trip::{Cause, End, Trip},
};
use self::{
    convergence::{Move, Moves},
    evidence::{Evidence, Item, What},
    trial::{Trial, Well},
    trip::Relapses,
};
use crate::{message::name::name_of, moment::Moment};

/// Most holds on single names; about half a MiB when full. A trip can hold any number of names.
const HOLDS_MAX: usize = 4_096;
/// Most domains watched for vanishing names.
const DOMAINS_MAX: usize = 64;
const EVENTS_MAX: usize = 64;
/// A move is logged if the name had not changed for this long.
const STEADY: Duration = Duration::from_hours(1);
const REBINDING_SAID_EVERY: Duration = Duration::from_secs(10);
const PASSES_MAX: usize = 64;
/// After a trip's bound or an operator's accept, upstreams are believed for this long.
pub const PASS: Duration = Duration::from_hours(1);
/// Upstream queries per client query during a trip.
const ASKS_PER_QUERY: f32 = 0.03;
const CREDIT_MAX: f32 = 8.0;
/// A denied name needs this many times the credit, so that other names go first.
const DENIED_WAITS: f32 = 2.0;
/// Names that one upstream denies and another has, within [`evidence::WINDOW`], before the first
/// upstream is left out.
const LIES: usize = 3;

/// While a trip lasts, names that were last confirmed before `since` are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frozen {
    pub until: Moment,
    pub since: Moment,
}

/// A suffix below which upstreams are believed, and until when.
#[derive(Debug)]
struct Pass {
    suffix: Box<[u8]>,
    until: Moment,
}

/// The guard of one zone.
#[derive(Debug)]
pub struct Guard {
    rules: Rules,
    /// The suffix of the zone: the scope of a zone-wide trip.
    suffix: Box<[u8]>,
    holds: BTreeMap<Box<[u8]>, Hold>,
    trips: Vec<Trip>,
    relapses: Relapses,
    /// A mass vanish that is not proven yet.
    trial: Option<Trial>,
    /// The last trial found nothing: no other below this suffix until then.
    acquitted: Option<(Box<[u8]>, Moment)>,
    well: Well,
    /// For the whole zone, and for domains in which a name vanished recently.
    evidence: Evidence,
    domains: BTreeMap<Box<[u8]>, Evidence>,
    moves: Moves,
    passes: Vec<Pass>,
    contradictions: VecDeque<(Moment, usize, u64)>,
    /// Upstream queries earned by client queries during a trip.
    credit: f32,
    events: VecDeque<Event>,
    rebinding_said: Option<Moment>,
    put_back: Vec<Displaced>,
    recovered: bool,
    pub counts: Counts,
}

impl Guard {
    pub fn new(suffix: &[u8], rules: Rules) -> Self {
        Self {
            rules,
            suffix: suffix.into(),
            holds: BTreeMap::new(),
            trips: Vec::new(),
            relapses: Relapses::default(),
            trial: None,
            acquitted: None,
            well: Well::default(),
            evidence: Evidence::default(),
            domains: BTreeMap::new(),
            moves: Moves::default(),
            passes: Vec::new(),
            contradictions: VecDeque::new(),
            credit: 0.0,
            events: VecDeque::new(),
            rebinding_said: None,
            put_back: Vec::new(),
            recovered: false,
            counts: Counts::default(),
        }
    }

    /// Applies new rules. Holds by rules that are switched off end now; grace periods are
    /// recomputed.
    pub fn set_rules(&mut self, rules: Rules, now: Moment) {
        self.rules = rules;
        for index in (0..self.trips.len()).rev() {
            let on = match self.trips[index].cause {
                Cause::Gone | Cause::Nowhere => self.rules.mass_vanish,
                Cause::Converged(_) => self.rules.convergence,
            };
            if !on {
                self.end_trip(index, End::SwitchedOff, now);
            }
        }
        self.holds.retain(|_, hold| self.rules.cares(hold.reason));
    }

    /// The zone has other upstreams: evidence about the old ones says nothing about the new.
    pub fn forget_evidence(&mut self) {
        self.evidence = Evidence::default();
        self.domains.clear();
        self.trial = None;
        self.acquitted = None;
        self.well.forget();
        self.moves.forget();
        self.contradictions.clear();
    }

    /// How to answer a query for a name whose good answer is past its TTL; `None` means the guard
    /// has no objection.
    pub fn stance(&mut self, key: &[u8], upstreams: usize, now: Moment) -> Option<Stance> {
        if self.is_idle() {
            return None;
        }
        self.end_what_is_over(now);
        let name = name_of(key);
        if self.passed(name, now) {
            return None;
        }
        let hold = self.holds.get(key);
        if hold.is_some_and(|hold| !self.holds_now(name, hold, now)) {
            return None;
        }
        if !self.paced(key) {
            let hold = hold?;
            return Some(Stance { why: HeldBy::Hold(hold.reason), ask: now >= hold.recheck_at });
        }
        self.credit = (self.credit + ASKS_PER_QUERY).min(CREDIT_MAX);
        let why = hold.map_or(HeldBy::Trip, |hold| HeldBy::Hold(hold.reason));
        // Canaries cover the denied names; only client queries tell how their neighbours are.
        let wanted = if hold.is_some() { DENIED_WAITS } else { 1.0 };
        Some(Stance { why, ask: self.credit >= cost(upstreams) * wanted })
    }

    /// Domains below which every known good name is held, whatever its own hold says, unless an
    /// upstream has confirmed it since. Empty while upstreams are believed for some names.
    pub fn frozen_domains(&self) -> impl Iterator<Item = (&[u8], Frozen)> {
        let trips = self.trips.iter().filter(|trip| trip.cause.vanish() && self.passes.is_empty());
        // No name is held for longer than the longest grace period.
        trips.map(|trip| {
            let until = trip.until(&self.rules).min(trip.first_held + self.rules.bound());
            (&*trip.scope, Frozen { until, since: trip.since })
        })
    }

    /// Whether an upstream has confirmed this name, whose answer was learned then, since the trips
    /// around it began: it is not held.
    pub fn confirmed_since(&self, key: &[u8], learned: Moment) -> bool {
        let name = name_of(key);
        !self.holds.contains_key(key)
            && self.trips.iter().filter(|trip| trip.freezes(name)).all(|trip| learned >= trip.since)
    }

    /// Counts queries that were answered from names frozen by a trip without calling
    /// [`Self::stance`].
    pub fn on_frozen(&mut self, queries: u16) {
        self.credit = (self.credit + ASKS_PER_QUERY * f32::from(queries)).min(CREDIT_MAX);
    }

    /// Upstreams are being asked because of [`Stance::ask`].
    pub fn on_ask(&mut self, key: &[u8], upstreams: usize, now: Moment) {
        if self.paced(key) {
            self.credit = (self.credit - cost(upstreams)).max(0.0);
        }
        if let Some(hold) = self.holds.get_mut(key) {
            hold.on_ask(now);
        }
    }

    /// Whether an answer that would displace a good one is in doubt, so that another upstream
    /// should be asked too.
    pub fn doubts(&self, key: &[u8], reason: Reason, now: Moment) -> bool {
        let name = name_of(key);
        if !self.rules.cares(reason) || self.passed(name, now) {
            return false;
        }
        match reason {
            Reason::Gone | Reason::Empty | Reason::Nowhere => {
                self.holds.get(key).is_none_or(|hold| self.holds_now(name, hold, now))
            }
            Reason::Converged(address) => self.trips.iter().any(|trip| trip.cause.is_at(address)),
            // Other upstreams cannot settle this; a connection can.
            Reason::Refused => false,
        }
    }

    /// The address of a mass convergence among `new`, if the name did not have it before.
    pub fn converging(&self, old: &[IpAddr], new: &[IpAddr]) -> Option<IpAddr> {
        let suspect = |address: &&IpAddr| self.trips.iter().any(|trip| trip.cause.is_at(**address));
        new.iter().find(suspect).copied().filter(|address| !old.contains(address))
    }

    /// Whether an answer for an unknown name should be cached only briefly, because a trip suggests
    /// that it is false.
    pub fn distrusts_new(&self, key: &[u8], new: &[IpAddr]) -> bool {
        let name = name_of(key);
        self.trips.iter().any(|trip| trip.freezes(name)) || self.converging(&[], new).is_some()
    }

    /// All reachable upstreams say that a known name is gone. Returns whether the good answer is
    /// held.
    pub fn on_gone(
        &mut self,
        key: &[u8],
        known: Known,
        reason: Reason,
        witnesses: Witnesses,
        now: Moment,
    ) -> bool {
        self.end_what_is_over(now);
        let name = name_of(key);
        if !self.rules.cares(reason) || self.passed(name, now) {
            self.holds.remove(key);
            return false;
        }
        let mut new = false;
        if let Some(hold) = self.holds.get(key) {
            if !self.holds_now(name, hold, now) {
                self.holds.remove(key);
                self.counts.honoured += 1;
                return false;
            }
            if hold.news {
                self.note(Item::new(now, key, What::Gone));
                self.look_for_mass_vanish(key, reason, now);
            }
        } else {
            self.note(Item::new(now, key, What::Gone));
            let kept = self.start_hold(key, known, reason, now);
            // If a trip begins now, it counts all names held so far.
            new = !self.look_for_mass_vanish(key, reason, now);
            if !kept && !self.frozen(name) {
                self.counts.not_held += 1;
                return false;
            }
        }
        if let Some(hold) = self.holds.get_mut(key) {
            hold.on_denied(reason, witnesses, known.uses, now);
        }
        for trip in self.trips.iter_mut().filter(|trip| trip.freezes(name)) {
            trip.on_denied(key, known, new);
        }
        true
    }

    /// A known name moved to addresses none of which it had before. Returns whether the good answer
    /// is held. `displaced` is the answer that would be replaced.
    pub fn on_moved(
        &mut self,
        known: Known,
        (old, new): (&[IpAddr], &[IpAddr]),
        displaced: Displaced,
        witnesses: Witnesses,
        now: Moment,
    ) -> bool {
        self.end_what_is_over(now);
        let key = displaced.key.clone();
        let first_seen = self.moves.first_seen(new, now);
        if !self.rules.convergence || self.passed(name_of(&key), now) {
            self.holds.remove(&key);
            return false;
        }
        if let Some(address) = self.converging(old, new) {
            return self.on_converging(&key, known, address, witnesses, now);
        }
        self.counts.moved += 1;
        let (Some(&from), Some(&to)) = (old.first(), new.first()) else { return false };
        if known.good_for >= STEADY && first_seen.iter().any(|&(address, at)| address == to && at == now) {
            self.say(Event::Moved { key: key.clone(), from, to, good_for: known.good_for });
        }
        let Some((address, _)) = first_seen.into_iter().find(|(_, at)| now.since(*at) < evidence::WINDOW)
        else {
            return false;
        };
        self.note(Item::new(now, &key, What::Moved(address)));
        self.moves.push(Move { at: now, to: address, from, known, displaced });
        if self.evidence.moved_to(address) < evidence::NAMES || !self.moves.many_places(address, now) {
            return false;
        }
        self.start_convergence(address, now);
        true
    }

    /// An upstream has the name, with an answer that is believed. This ends any hold.
    pub fn on_good(&mut self, key: &[u8], addresses: &[IpAddr], now: Moment) {
        self.end_what_is_over(now);
        self.moves.note(addresses, now);
        self.well.note(key, now);
        if let Some(trial) = &mut self.trial {
            trial.on_answer(key, true);
            self.judge(now);
        }
        if self.evidence.watches(now) {
            self.note(Item::new(now, key, What::Still));
        }
        let name = name_of(key);
        let Some(hold) = self.holds.remove(key) else {
            for index in (0..self.trips.len()).rev() {
                if self.trips[index].freezes(name) && self.trips[index].on_alive(name) {
                    self.end_trip(index, End::Few, now);
                }
            }
            return;
        };
        self.counts.returned += 1;
        for index in (0..self.trips.len()).rev() {
            let trip = &mut self.trips[index];
            let of_this = match hold.reason {
                Reason::Gone | Reason::Empty | Reason::Nowhere => trip.freezes(name),
                Reason::Converged(address) => trip.cause.is_at(address),
                Reason::Refused => false,
            };
            if of_this && trip.on_returned(now) {
                self.end_trip(index, End::Returned, now);
            }
        }
    }

    /// `upstream` denied a name that another upstream has. Returns whether it should be left out.
    pub fn on_contradicted(&mut self, upstream: usize, key: &[u8], now: Moment) -> bool {
        self.counts.contradicted += 1;
        let name = evidence::hash(name_of(key));
        self.contradictions
            .retain(|&(at, who, what)| now.since(at) < evidence::WINDOW && (who, what) != (upstream, name));
        if self.contradictions.len() < EVENTS_MAX {
            self.contradictions.push_back((now, upstream, name));
        }
        let lies = self.contradictions.iter().filter(|(_, who, _)| *who == upstream).count() >= LIES;
        if lies {
            self.contradictions.retain(|(_, who, _)| *who != upstream);
            self.say(Event::UpstreamLies { upstream });
        }
        lies
    }

    /// A name lost most of its records: believed, counted and logged.
    pub fn on_shrunk(&mut self, key: &[u8], from: usize, to: usize) {
        self.counts.shrunk += 1;
        self.say(Event::Shrunk { key: key.into(), from, to });
    }

    /// An answer was blocked because of this private address.
    pub fn on_rebinding(&mut self, key: &[u8], address: IpAddr, now: Moment) {
        self.counts.rebinding += 1;
        // A web page can cause many of them.
        if self.rebinding_said.is_none_or(|at| now.since(at) >= REBINDING_SAID_EVERY) {
            self.rebinding_said = Some(now);
            self.say(Event::Rebinding { key: key.into(), address });
        }
    }

    /// A held name to ask upstreams for now, to find the end of a trip.
    pub fn poll_canary(&mut self, now: Moment) -> Option<Box<[u8]>> {
        self.end_what_is_over(now);
        if let Some(control) = self.trial.as_mut().and_then(Trial::poll_ask) {
            return Some(control);
        }
        let (holds, trips) = (&mut self.holds, &mut self.trips);
        trips.iter_mut().find_map(|trip| trip.poll_canary(holds, now))
    }

    /// The cache no longer has this canary.
    pub fn forget(&mut self, key: &[u8]) {
        self.holds.remove(key);
        if let Some(trial) = &mut self.trial {
            trial.forget(key);
        }
    }

    /// When [`Self::poll_canary`] has something to do.
    pub fn next_wakeup(&self) -> Option<Moment> {
        let trips = self.trips.iter().map(|trip| trip.canary_at.min(trip.until(&self.rules)));
        // What is to be asked is due at once.
        let trial = self.trial.as_ref().map(|trial| if trial.asks() { Moment::START } else { trial.until });
        trips.chain(trial).min()
    }

    /// An operator accepts the current answers for all names at or below `suffix` (wire format,
    /// lower case), now and for [`PASS`].
    pub fn accept(&mut self, suffix: &[u8], now: Moment) -> Accepted {
        let mut accepted = Accepted::default();
        for index in (0..self.trips.len()).rev() {
            if is_below(&self.trips[index].scope, suffix) {
                accepted.trips += 1;
                self.end_trip(index, End::Accepted, now);
            }
        }
        self.holds.retain(|key, _| {
            let ended = is_below(name_of(key), suffix);
            if ended {
                accepted.keys.push(key.clone());
            }
            !ended
        });
        accepted.keys.sort_unstable();
        self.counts.accepted += accepted.keys.len() as u64;
        self.pass(suffix, now);
        accepted
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Answers to restore into the cache: they were displaced before the convergence was detected.
    pub fn take_put_back(&mut self) -> Vec<Displaced> {
        std::mem::take(&mut self.put_back)
    }

    /// Whether a mass vanish has ended since the last call, so that names should be refreshed at a
    /// limited rate.
    pub fn take_recovered(&mut self) -> bool {
        std::mem::take(&mut self.recovered)
    }

    fn holds_now(&self, name: &[u8], hold: &Hold, now: Moment) -> bool {
        now < self.until(name, hold)
    }

    fn until(&self, name: &[u8], hold: &Hold) -> Moment {
        let trips = self.trips.iter().filter(|trip| match hold.reason {
            Reason::Gone | Reason::Empty | Reason::Nowhere => trip.freezes(name),
            Reason::Converged(address) => trip.cause.is_at(address),
            Reason::Refused => false,
        });
        // No matter how trips follow each other, no name is held for longer than the longest grace
        // period.
        let most = hold.since + self.rules.bound();
        let trip = trips.map(|trip| trip.until(&self.rules)).max().unwrap_or(hold.since);
        hold.until(&self.rules).max(trip).min(most)
    }

    /// Whether upstream queries for this name count against the shared credit.
    fn paced(&self, key: &[u8]) -> bool {
        let converged = self.holds.get(key).is_some_and(|hold| matches!(hold.reason, Reason::Converged(_)));
        converged || self.frozen(name_of(key))
    }

    fn frozen(&self, name: &[u8]) -> bool {
        self.trips.iter().any(|trip| trip.freezes(name))
    }

    /// False if the table is full.
    fn start_hold(&mut self, key: &[u8], known: Known, reason: Reason, now: Moment) -> bool {
        if self.holds.len() >= HOLDS_MAX {
            let spent: Vec<_> = self
                .holds
                .iter()
                .filter(|(key, hold)| !self.holds_now(name_of(key), hold, now))
                .map(|(key, _)| key.clone())
                .collect();
            for key in spent {
                self.holds.remove(&key);
            }
        }
        if self.holds.len() >= HOLDS_MAX {
            return false;
        }
        self.holds.insert(key.into(), Hold::new(known, reason, now));
        self.counts.held += 1;
        true
    }

    fn note(&mut self, item: Item) {
        if let Some(domain) = self.domains.get_mut(&*item.domain) {
            domain.push(item.clone());
        } else if item.what == What::Gone {
            if self.domains.len() >= DOMAINS_MAX {
                self.domains.retain(|_, domain| domain.watches(item.at));
            }
            if self.domains.len() < DOMAINS_MAX {
                self.domains.entry(item.domain.clone()).or_default().push(item.clone());
            }
        }
        self.evidence.push(item);
    }

    fn end_what_is_over(&mut self, now: Moment) {
        for index in (0..self.trips.len()).rev() {
            if now >= self.trips[index].until(&self.rules) {
                self.end_trip(index, End::Bound, now);
            }
        }
        self.judge(now);
        if !self.passes.is_empty() {
            self.passes.retain(|pass| now < pass.until);
        }
    }

    fn pass(&mut self, suffix: &[u8], now: Moment) {
        self.passes.retain(|pass| *pass.suffix != *suffix);
        if self.passes.len() >= PASSES_MAX {
            self.passes.remove(0);
        }
        self.passes.push(Pass { suffix: suffix.into(), until: now + PASS });
    }

    fn passed(&self, name: &[u8], now: Moment) -> bool {
        self.passes.iter().any(|pass| now < pass.until && is_below(name, &pass.suffix))
    }

    fn say(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }
}

fn cost(upstreams: usize) -> f32 {
    // A query is sent to at most three upstreams.
    f32::from(u16::try_from(upstreams.clamp(1, 3)).unwrap_or(1))
}

/// Whether `name` is `suffix` or below it. Both in wire format and lower case.
pub(crate) fn is_below(name: &[u8], suffix: &[u8]) -> bool {
    let mut rest = name;
    loop {
        if rest == suffix {
            return true;
        }
        let Some((&len, tail)) = rest.split_first().filter(|&(&len, _)| len > 0) else { return false };
        let Some(parent) = tail.get(usize::from(len)..) else { return false };
        rest = parent;
    }
}
