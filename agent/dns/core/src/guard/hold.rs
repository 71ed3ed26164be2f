//! A hold: one name whose last good answer is kept although upstreams deny it, and for how long.

use std::{net::IpAddr, time::Duration};

use super::{Known, Rules};
use crate::moment::Moment;

/// How the new answer differs from the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// NXDOMAIN; or no records of this type although the name has an address.
    Gone,
    /// NOERROR without any record: the name exists but has no data.
    Empty,
    /// Only addresses that cannot be a server: 0.0.0.0, loopback, link-local.
    Nowhere,
    /// An address to which many names have moved.
    Converged(IpAddr),
    /// Only addresses that accept no TCP connection, while an old one does; for pinned names with
    /// `check_tcp`.
    Refused,
}

impl Reason {
    pub fn vanish(self) -> bool {
        matches!(self, Self::Gone | Self::Empty | Self::Nowhere)
    }
}

/// How many upstreams were asked, and how many of them gave this answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witnesses {
    pub asked: u8,
    pub agreed: u8,
}

impl Witnesses {
    /// A second upstream gave the same answer.
    pub fn confirmed(self) -> bool {
        self.agreed >= 2
    }
}

/// A hold on one name.
#[derive(Debug, Clone)]
pub struct Hold {
    pub reason: Reason,
    /// When an upstream first gave this answer.
    pub since: Moment,
    pub known: Known,
    /// From the last time upstreams were asked.
    pub witnesses: Witnesses,
    /// How often upstreams gave this answer.
    pub denials: u32,
    /// Do not ask upstreams again before this.
    pub recheck_at: Moment,
    gap: Duration,
    /// Until then it is judged anew, because the upstream recently gave false answers for
    /// neighbouring names.
    judged_at: Moment,
    /// Its next denial counts towards a mass vanish.
    pub(super) news: bool,
}

/// Any known name is held at least this long, until it is clear whether it is the only one.
pub(super) const JUDGING: Duration = Duration::from_mins(1);
/// An empty answer for a hot name is taken for an accident if the name was good for this long.
const STEADY: Duration = Duration::from_mins(30);
/// A name is held for one part in this many of the time that it was good.
const SHARE: u32 = 4;
/// Delay before upstreams are asked again, doubling …
const RECHECK_FIRST: Duration = Duration::from_secs(5);
/// … up to this, so that a returning name is noticed within half a minute.
const RECHECK_LONGEST: Duration = Duration::from_secs(30);

/// A held name is hot if it gave this many answers, no further apart than this on average.
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
        // After a restart the cache does not know that the name was hot; the queries since then
        // show it.
        let meanwhile = uses.saturating_sub(self.known.uses);
        self.known.hot |= meanwhile >= HOT_USES && HOT_GAP * meanwhile >= now.since(self.since);
        self.reason = reason;
        self.witnesses = witnesses;
        self.denials = self.denials.saturating_add(1);
        self.news = false;
    }

    /// A mass event that included this name is over; `returned` says whether the names came back.
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

    /// When the hold ends on its own; a trip may hold the name for longer.
    pub(super) fn until(&self, rules: &Rules) -> Moment {
        (self.since + self.grace(rules)).max(self.judged_at)
    }

    /// Whether it is worth a page: clients keep asking for the name, and the hold outlasts the
    /// judging time.
    pub fn matters(&self) -> bool {
        // An operator who pins a name with `check_tcp` wants to know.
        self.reason == Reason::Refused || self.known.hot && self.known.good_for > JUDGING * SHARE
    }

    fn grace(&self, rules: &Rules) -> Duration {
        let steady = self.known.hot && self.known.good_for >= STEADY;
        if self.reason == Reason::Empty && steady && rules.vanish {
            // Operators who retire a name delete it. A name in use that suddenly has no address is
            // what broken automation leaves behind (AWS, October 2025), and no address is worse
            // than the old one.
            return rules.empty_grace;
        }
        let share = (self.known.good_for / SHARE).max(JUDGING);
        let most = match self.reason {
            // Held only as long as the trip lasts.
            Reason::Converged(_) => Duration::ZERO,
            Reason::Gone | Reason::Empty | Reason::Nowhere if !rules.vanish => JUDGING,
            // Clients are better off with the old address, even if all upstreams agree: they may
            // all ask the same broken authority.
            Reason::Gone | Reason::Empty | Reason::Nowhere | Reason::Refused if self.known.hot => {
                rules.hot_vanish_grace
            }
            Reason::Gone | Reason::Empty | Reason::Nowhere if self.witnesses.confirmed() => {
                JUDGING.min(rules.vanish_grace)
            }
            // A failed TCP check applies whatever the rules for vanished names are.
            Reason::Gone | Reason::Empty | Reason::Nowhere | Reason::Refused => rules.vanish_grace,
        };
        share.min(most)
    }
}
