//! A trip: many names vanish or move together, from detection to the end.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use super::{Hold, Known, Rules, Witnesses, evidence, is_below};
use crate::{message::name::name_of, moment::Moment};

/// What happened to the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Gone,
    Nowhere,
    Converged(IpAddr),
}

impl Cause {
    pub const NAMES: [&str; 3] = ["vanish", "nowhere", "convergence"];

    /// Index into [`Self::NAMES`].
    pub fn number(self) -> usize {
        match self {
            Self::Gone => 0,
            Self::Nowhere => 1,
            Self::Converged(_) => 2,
        }
    }

    pub(super) fn vanish(self) -> bool {
        !matches!(self, Self::Converged(_))
    }

    pub(super) fn is_at(self, address: IpAddr) -> bool {
        self == Self::Converged(address)
    }
}

/// Why a trip ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The names are back.
    Returned,
    /// Its grace period ended; upstreams are believed.
    Bound,
    /// Accepted by an operator.
    Accepted,
    /// Other upstreams confirm it.
    Confirmed,
    /// Most other names were there all along: these are really gone, however many they are.
    Few,
    SwitchedOff,
}

#[derive(Debug)]
pub struct Trip {
    pub cause: Cause,
    /// Every name below this. For a convergence: only those that moved.
    pub scope: Box<[u8]>,
    pub since: Moment,
    /// When the first of its names was held.
    pub(super) first_held: Moment,
    /// Names that upstreams denied.
    pub names: u32,
    /// How long the steadiest of them was good.
    steadiest: Duration,
    canaries: VecDeque<Box<[u8]>>,
    pub(super) canary_at: Moment,
    /// Names that came back, less names denied again.
    score: u8,
    pub(super) needed: u8,
    /// Hashes of names that another upstream confirmed.
    confirmed: Vec<u64>,
    /// Hashes of names that upstreams have and never denied.
    alive: BTreeSet<u64>,
}

const CANARIES_MAX: usize = 16;
/// One canary at a time, this far apart; after a success, the next at once. This finds the end
/// within five seconds.
const CANARY_GAP: Duration = Duration::from_secs(2);
/// Names that must come back, less names denied again, to end the trip …
const NEEDED: u8 = 3;
/// … doubled with each relapse, up to this.
const NEEDED_MOST: u8 = 24;
/// Healthy names needed for each one that is gone, and in total at least, to conclude that it is
/// not a mass event.
const ALIVE_FOR_EACH: usize = 4;
const ALIVE_LEAST: usize = 20;
/// If more than a quarter of this many names are gone, only their return ends the trip.
const ALIVE_MAX: usize = 4_096;
const RELAPSE_WINDOW: Duration = Duration::from_mins(2);
/// Names of a convergence that other upstreams must confirm.
const CONFIRMED: usize = 3;

impl Trip {
    pub(super) fn new(cause: Cause, scope: Box<[u8]>, needed: u8, now: Moment) -> Self {
        Self {
            cause,
            scope,
            since: now,
            first_held: now,
            names: 0,
            steadiest: Duration::ZERO,
            canaries: VecDeque::new(),
            canary_at: now + CANARY_GAP,
            score: 0,
            needed,
            confirmed: Vec::new(),
            alive: BTreeSet::new(),
        }
    }

    /// Whether queries for this name are answered from the cache during the trip.
    pub(super) fn freezes(&self, name: &[u8]) -> bool {
        self.cause.vanish() && is_below(name, &self.scope)
    }

    /// When it ends at the latest; longer for names that were steady for longer.
    pub fn until(&self, rules: &Rules) -> Moment {
        self.since + self.steadiest.max(rules.vanish_grace).min(rules.mass_grace)
    }

    /// Names used as canaries and as examples in messages.
    pub fn canaries(&self) -> impl Iterator<Item = &Box<[u8]>> {
        self.canaries.iter()
    }

    /// `new` says whether this name was not among them before.
    pub(super) fn on_denied(&mut self, key: &[u8], known: Known, new: bool) {
        self.score = self.score.saturating_sub(1);
        self.steadiest = self.steadiest.max(known.good_for);
        self.names = self.names.saturating_add(u32::from(new));
        let known = self.canaries.iter().any(|canary| **canary == *key);
        if !known && self.canaries.len() < CANARIES_MAX {
            self.canaries.push_back(key.into());
        }
    }

    /// A held name is back. Returns whether the trip is over.
    pub(super) fn on_returned(&mut self, now: Moment) -> bool {
        self.score = self.score.saturating_add(1);
        self.canary_at = now;
        self.score >= self.needed
    }

    /// An upstream has a name that it never denied. Returns whether the trip is over: fewer than a
    /// fifth of the names asked for are gone, so they would not start a trip.
    pub(super) fn on_alive(&mut self, name: &[u8]) -> bool {
        let wanted = usize::try_from(self.names).unwrap_or(usize::MAX).saturating_mul(ALIVE_FOR_EACH);
        let wanted = wanted.max(ALIVE_LEAST);
        // No more than the number that decides is stored, and none if that cannot be reached.
        if wanted <= ALIVE_MAX {
            self.alive.insert(evidence::hash(name));
        }
        self.alive.len() >= wanted
    }

    /// Returns whether other upstreams confirmed enough names.
    pub(super) fn on_confirmed(&mut self, key: &[u8], witnesses: Witnesses, now: Moment) -> bool {
        let name = evidence::hash(name_of(key));
        if witnesses.confirmed() && !self.confirmed.contains(&name) {
            self.confirmed.push(name);
            self.canary_at = now;
        }
        self.confirmed.len() >= CONFIRMED
    }

    pub(super) fn poll_canary(
        &mut self,
        holds: &mut BTreeMap<Box<[u8]>, Hold>,
        now: Moment,
    ) -> Option<Box<[u8]>> {
        if now < self.canary_at {
            return None;
        }
        self.canary_at = now + CANARY_GAP;
        self.canaries.retain(|key| holds.contains_key(key));
        if self.canaries.is_empty() {
            let ours = |key: &[u8], hold: &Hold| match self.cause {
                Cause::Converged(address) => hold.reason == super::Reason::Converged(address),
                Cause::Gone | Cause::Nowhere => hold.reason.vanish() && is_below(name_of(key), &self.scope),
            };
            let mut more: Vec<_> = holds.iter().filter(|(key, hold)| ours(key, hold)).collect();
            more.sort_unstable_by_key(|&(key, hold)| (hold.since, key));
            self.canaries.extend(more.into_iter().take(CANARIES_MAX).map(|(key, _)| key.clone()));
        }
        let canary = self.canaries.pop_front()?;
        self.canaries.push_back(canary.clone());
        if let Some(hold) = holds.get_mut(&canary) {
            hold.on_ask(now);
        }
        Some(canary)
    }
}

/// Ends that did not last, so that a flapping upstream does not start and end trips in a row.
#[derive(Debug, Default)]
pub(super) struct Relapses {
    ended: Option<(Cause, Moment, u8)>,
}

impl Relapses {
    pub(super) fn on_end(&mut self, cause: Cause, end: End, needed: u8, now: Moment) {
        self.ended = (end == End::Returned).then_some((cause, now, needed));
    }

    /// How many names must come back to end a new trip.
    pub(super) fn needed(&self, cause: Cause, now: Moment) -> u8 {
        match self.ended {
            Some((ended, at, needed))
                if ended.number() == cause.number() && now.since(at) < RELAPSE_WINDOW =>
            {
                (needed * 2).min(NEEDED_MOST)
            }
            _ => NEEDED,
        }
    }
}
