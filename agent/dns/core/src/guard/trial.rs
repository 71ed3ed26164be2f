//! Before many names are held because a few vanished, upstreams are asked for names that were well
//! a moment ago. An outsider can make names of their own domains vanish, but not those of others.
//!
//! ```text
//!  five names gone ──▶ trial: up to eight names that are well are asked for
//!                        │ most are denied too            ──▶ trip
//!                        │ at least half are confirmed, or
//!                        │ three seconds without a majority ──▶ acquitted for ten seconds
//!                        └ no such name is known           ──▶ trip at once
//! ```
//!
//! Meanwhile each vanished name is held by itself, so nothing is lost by asking first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Cause, is_below};
use crate::{
    message::name::{self, name_of},
    moment::Moment,
};

const LASTS: Duration = Duration::from_secs(3);
pub(super) const ACQUITTED_FOR: Duration = Duration::from_secs(10);
const CONTROLS_MAX: usize = 8;
/// Names remembered as well, for each of the domains confirmed last.
const OF_ONE_DOMAIN: usize = 8;
const DOMAINS_MAX: usize = 64;

/// A mass event that is not proven yet.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) cause: Cause,
    pub(super) scope: Box<[u8]>,
    pub(super) until: Moment,
    /// Still to be asked for.
    to_ask: Vec<Box<[u8]>>,
    /// Whether upstreams have them, as far as known.
    controls: BTreeMap<Box<[u8]>, Option<bool>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Guilty,
    Acquitted,
}

impl Trial {
    pub(super) fn new(cause: Cause, scope: Box<[u8]>, controls: Vec<Box<[u8]>>, now: Moment) -> Self {
        let known = controls.iter().map(|key| (key.clone(), None)).collect();
        Self { cause, scope, until: now + LASTS, to_ask: controls, controls: known }
    }

    pub(super) fn poll_ask(&mut self) -> Option<Box<[u8]>> {
        self.to_ask.pop()
    }

    pub(super) fn asks(&self) -> bool {
        !self.to_ask.is_empty()
    }

    pub(super) fn on_answer(&mut self, key: &[u8], well: bool) {
        if let Some(control) = self.controls.get_mut(key) {
            *control = Some(well);
        }
    }

    /// The cache no longer has this name.
    pub(super) fn forget(&mut self, key: &[u8]) {
        self.controls.remove(key);
    }

    pub(super) fn verdict(&self, now: Moment) -> Option<Verdict> {
        let count = |wanted| self.controls.values().filter(|known| **known == Some(wanted)).count();
        let (well, denied, all) = (count(true), count(false), self.controls.len());
        if denied * 2 > all || all == 0 {
            Some(Verdict::Guilty)
        } else if well * 2 >= all {
            Some(Verdict::Acquitted)
        } else if now >= self.until {
            Some(if denied > well { Verdict::Guilty } else { Verdict::Acquitted })
        } else {
            None
        }
    }
}

/// Names that upstreams confirmed lately, by domain.
#[derive(Debug, Default)]
pub(super) struct Well(BTreeMap<Box<[u8]>, (Moment, Names)>);

type Names = VecDeque<Box<[u8]>>;

impl Well {
    pub(super) fn note(&mut self, key: &[u8], now: Moment) {
        let domain = name::zone_of(key);
        if let Some((at, names)) = self.0.get_mut(domain) {
            *at = now;
            if names.iter().all(|known| **known != *key) {
                if names.len() >= OF_ONE_DOMAIN {
                    names.pop_front();
                }
                names.push_back(key.into());
            }
            return;
        }
        if self.0.len() >= DOMAINS_MAX
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(domain, _)| domain.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(domain.into(), (now, VecDeque::from([key.into()])));
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Names to ask for, the domains confirmed last first. Of several domains, those that
    /// `suspect` has say nothing about the others, and each of the others counts once.
    pub(super) fn controls(
        &self,
        scope: &[u8],
        suspect: impl Fn(&[u8]) -> bool,
        gone: impl Fn(&[u8]) -> bool,
    ) -> Vec<Box<[u8]>> {
        let mut domains: Vec<_> = self
            .0
            .iter()
            .filter(|(domain, (_, names))| {
                is_below(domain, scope) || names.iter().any(|key| is_below(name_of(key), scope))
            })
            .collect();
        let of_one = domains.len() == 1 && domains.iter().all(|(domain, _)| is_below(scope, domain));
        domains.sort_by_key(|(_, (at, _))| std::cmp::Reverse(*at));
        let each = if of_one { CONTROLS_MAX } else { 1 };
        let fit = |key: &[u8]| is_below(name_of(key), scope) && !gone(key);
        domains
            .into_iter()
            .filter(|(domain, _)| of_one || !suspect(domain))
            .flat_map(|(_, (_, names))| names.iter().rev().filter(|key| fit(key)).take(each))
            .take(CONTROLS_MAX)
            .cloned()
            .collect()
    }
}
