//! One name whose good answer is kept against upstream's word, and for how long.

use std::{net::IpAddr, time::Duration};

use super::{Known, Rules};
use crate::moment::Moment;

/// What upstream says of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// NXDOMAIN; or nothing of this type, though the name's address is well.
    Gone,
    /// NOERROR without a record: the name is there, and leads to nothing.
    Empty,
    /// Only addresses that lead nowhere: 0.0.0.0, loopback, link-local.
    Nowhere,
    /// An address that many names have moved to.
    Converged(IpAddr),
    /// Only addresses that take no TCP connection, while an old one does; for pinned names with `check_tcp`.
    Refused,
}

impl Reason {
    pub fn vanish(self) -> bool {
        matches!(self, Self::Gone | Self::Empty | Self::Nowhere)
    }
}

/// How many upstreams were asked about it, and how many of them said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witnesses {
    pub asked: u8,
    pub agreed: u8,
}

impl Witnesses {
    /// Another upstream than the first said so too.
    pub fn confirmed(self) -> bool {
        self.agreed >= 2
    }
}

/// A name held by itself.
#[derive(Debug, Clone)]
pub struct Hold {
    pub reason: Reason,
    /// When upstream said so first.
    pub since: Moment,
    pub known: Known,
    /// As of the last time that upstream was asked.
    pub witnesses: Witnesses,
    /// How often upstream said so.
    pub denials: u32,
    /// Upstream is not asked again before.
    pub recheck_at: Moment,
    gap: Duration,
    /// Upstream lied about its neighbours until lately: it is judged anew until then.
    judged_at: Moment,
    /// Its next denial counts as news towards a mass vanish.
    pub(super) news: bool,
}

/// Any known name is held this long: until it is clear whether it is alone.
pub(super) const JUDGING: Duration = Duration::from_mins(1);
/// An empty answer for a hot name is an accident if the name was good for this long.
const STEADY: Duration = Duration::from_mins(30);
/// A name is held for this part of the time that it was good.
const SHARE: u32 = 4;
/// Upstream is asked again after this, doubling …
const RECHECK_FIRST: Duration = Duration::from_secs(5);
/// … up to this: a name that is back is seen within half a minute.
const RECHECK_LONGEST: Duration = Duration::from_secs(30);

/// Answers from a held name, and how far apart they are at most, that make it hot.
const HOT_USES: u32 = 4;
const HOT_GAP: Duration = Duration::from_secs(15);

impl Hold {
    pub(super) fn new(known: Known, reason: Reason, now: Moment) -> Self {
        Self {
            reason,
            since: now,
            known,
            witnesses: Witnesses { asked: 0, agreed: 0 },
            denials: 0,
            recheck_at: now + RECHECK_FIRST,
            gap: RECHECK_FIRST,
            judged_at: now,
            news: false,
        }
    }

    pub(super) fn on_denied(&mut self, reason: Reason, witnesses: Witnesses, uses: u32, now: Moment) {
        // After a restart nobody knows any more that it was hot: who asks meanwhile tells.
        let meanwhile = uses.saturating_sub(self.known.uses);
        self.known.hot |= meanwhile >= HOT_USES && HOT_GAP * meanwhile >= now.since(self.since);
        self.reason = reason;
        self.witnesses = witnesses;
        self.denials = self.denials.saturating_add(1);
        self.news = false;
    }

    /// Many names were held, and this one among them; that is over, for upstream has others of them back or not.
    pub(super) fn on_trip_end(&mut self, returned: bool, now: Moment) {
        self.recheck_at = self.recheck_at.min(now);
        if returned {
            self.judged_at = now + JUDGING;
            self.news = true;
        }
    }

    pub(super) fn on_ask(&mut self, now: Moment) {
        self.gap = (self.gap * 2).min(RECHECK_LONGEST);
        self.recheck_at = now + self.gap;
    }

    /// When it ends by itself; a trip may hold it for longer.
    pub(super) fn until(&self, rules: &Rules) -> Moment {
        (self.since + self.grace(rules)).max(self.judged_at)
    }

    /// Whether it is worth a page: clients keep asking for it, and it is held for longer than it takes to judge.
    pub fn matters(&self) -> bool {
        // Who pins a name and has its addresses tried wants to know.
        self.reason == Reason::Refused || self.known.hot && self.known.good_for > JUDGING * SHARE
    }

    fn grace(&self, rules: &Rules) -> Duration {
        let steady = self.known.hot && self.known.good_for >= STEADY;
        if self.reason == Reason::Empty && steady && rules.vanish {
            // Who takes a name out of use deletes it. A name in use that is left with no address is what a broken automaton
            // makes (AWS), and no address is worse than the old one.
            return rules.empty_grace;
        }
        let share = (self.known.good_for / SHARE).max(JUDGING);
        let most = match self.reason {
            // Only as long as the trip.
            Reason::Converged(_) => Duration::ZERO,
            Reason::Gone | Reason::Empty | Reason::Nowhere if !rules.vanish => JUDGING,
            // Its users would rather have the old address, whoever agrees: all upstreams ask the same broken authority.
            Reason::Gone | Reason::Empty | Reason::Nowhere | Reason::Refused if self.known.hot => {
                rules.hot_vanish_grace
            }
            Reason::Gone | Reason::Empty | Reason::Nowhere if self.witnesses.confirmed() => {
                JUDGING.min(rules.vanish_grace)
            }
            // What is tried by its port is so whatever the rules for all names are.
            Reason::Gone | Reason::Empty | Reason::Nowhere | Reason::Refused => rules.vanish_grace,
        };
        share.min(most)
    }
}
