//! Many names vanish or move together: from then on until it is over.

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

    /// Of [`Self::NAMES`].
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
    /// Its grace passed; upstream is believed now.
    Bound,
    /// A person said so.
    Accepted,
    /// Other upstreams say the same.
    Confirmed,
    /// Most of the others were there all the time: these are gone by themselves, however many they are.
    Few,
    SwitchedOff,
}

#[derive(Debug)]
pub struct Trip {
    pub cause: Cause,
    /// All names below it. Of a convergence: those that moved.
    pub scope: Box<[u8]>,
    pub since: Moment,
    /// Since when the first of its names is held.
    pub(super) first_held: Moment,
    /// Names that upstream denied.
    pub names: u32,
    /// For how long the steadiest of them was good.
    steadiest: Duration,
    canaries: VecDeque<Box<[u8]>>,
    pub(super) canary_at: Moment,
    /// How many more names came back than were denied again.
    score: u8,
    pub(super) needed: u8,
    /// Names that another upstream confirmed, as hashes.
    confirmed: Vec<u64>,
    /// Names that upstream has and never denied, as hashes.
    alive: BTreeSet<u64>,
}

const CANARIES_MAX: usize = 16;
/// One canary at a time, this far apart; the next at once when one is back. Finds the end within five seconds.
const CANARY_GAP: Duration = Duration::from_secs(2);
/// Names back, less names denied again, until it is over …
const NEEDED: u8 = 3;
/// … doubled with each relapse, up to this.
const NEEDED_MOST: u8 = 24;
/// Names that are well, for each that is gone, until the gone ones are no mass; and so many at least.
const ALIVE_FOR_EACH: usize = 4;
const ALIVE_LEAST: usize = 20;
/// With more names gone than a quarter of this, only their return ends it.
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

    /// Whether clients' questions for this name are answered from what is kept while it lasts.
    pub(super) fn freezes(&self, name: &[u8]) -> bool {
        self.cause.vanish() && is_below(name, &self.scope)
    }

    /// When it ends at the latest: names that were steady for long are worth more.
    pub fn until(&self, rules: &Rules) -> Moment {
        self.since + self.steadiest.max(rules.vanish_grace).min(rules.mass_grace)
    }

    /// Names to ask for, and to name to people.
    pub fn canaries(&self) -> impl Iterator<Item = &Box<[u8]>> {
        self.canaries.iter()
    }

    /// `new`: this name was not among them before.
    pub(super) fn on_denied(&mut self, key: &[u8], known: Known, new: bool) {
        self.score = self.score.saturating_sub(1);
        self.steadiest = self.steadiest.max(known.good_for);
        self.names = self.names.saturating_add(u32::from(new));
        let known = self.canaries.iter().any(|canary| **canary == *key);
        if !known && self.canaries.len() < CANARIES_MAX {
            self.canaries.push_back(key.into());
        }
    }

    /// A name that was held is back. Returns whether it is over.
    pub(super) fn on_returned(&mut self, now: Moment) -> bool {
        self.score = self.score.saturating_add(1);
        self.canary_at = now;
        self.score >= self.needed
    }

    /// Upstream has a name that it never denied. Returns whether it is over: fewer than a fifth of all that were asked for are
    /// gone, the share that would not have tripped it.
    pub(super) fn on_alive(&mut self, name: &[u8]) -> bool {
        let wanted = usize::try_from(self.names).unwrap_or(usize::MAX).saturating_mul(ALIVE_FOR_EACH);
        let wanted = wanted.max(ALIVE_LEAST);
        // More are not needed than decide, and none is where they never could.
        if wanted <= ALIVE_MAX {
            self.alive.insert(evidence::hash(name));
        }
        self.alive.len() >= wanted
    }

    /// Returns whether other upstreams confirm enough of them.
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

/// Ends that did not last, so that a flapping upstream does not flap us.
#[derive(Debug, Default)]
pub(super) struct Relapses {
    ended: Option<(Cause, Moment, u8)>,
}

impl Relapses {
    pub(super) fn on_end(&mut self, cause: Cause, end: End, needed: u8, now: Moment) {
        self.ended = (end == End::Returned).then_some((cause, now, needed));
    }

    /// How many names must be back until a new trip is over.
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
