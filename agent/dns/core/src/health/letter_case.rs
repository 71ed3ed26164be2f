//! Whether an upstream repeats the case of a question's letters, and so how to treat an answer in
//! different case.
//!
//! ```text
//!            8 answers in our case                  3 of the last few in another
//!   Learning ─────────────────────────▶ Kept ────────────────────────────────────▶ NotKept
//!      │ ▲ ▲                              │ the upstream goes down: its              │
//!      │ │ └──────────────────────────────┘ software may change                     │
//!      │ └──────────────────────────── an hour ─────────────────────────────────────┘
//!      └── 2 answers in another case; or 3 queries lost before any answer in ours ──▶ NotKept
//! ```
//!
//! While learning, any case is accepted, so an upstream that changes case does not look broken.
//! Only in `Kept` is an answer in different case rejected. Probes of an upstream that is down use
//! lower case, so that no upstream is considered down because of case alone.

use std::time::Duration;

use crate::moment::Moment;

/// What is known about one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterCase {
    Learning { same: u8, other: u8, lost: u8 },
    Kept { doubt: u8 },
    NotKept { until: Moment },
}

/// Consecutive matching answers required. A pool of different servers behind one address should
/// show itself before that.
const SAME_MIN: u8 = 8;
/// A single one may be a forgery.
const OTHER_MAX: u8 = 2;
/// This many lost packets in a row, before any answer, would be unlikely.
const LOST_MAX: u8 = 3;
/// Each answer in different case outweighs eight in ours …
const DOUBT: u8 = 8;
/// … and three in a row are no coincidence: an attacker must guess id and port for each.
const DOUBT_MAX: u8 = 3 * DOUBT;
/// Trying again costs nothing with most upstreams.
const LOOK_AGAIN_AFTER: Duration = Duration::from_hours(1);

impl LetterCase {
    pub const UNKNOWN: Self = Self::Learning { same: 0, other: 0, lost: 0 };

    /// Whether to mix the case of the next query. `usable` comes from its breaker; `first` is true
    /// for a client's query or a refresh not yet sent to this upstream.
    pub fn mixes(&mut self, usable: bool, first: bool, now: Moment) -> bool {
        match self {
            Self::Learning { .. } | Self::Kept { .. } if !usable => *self = Self::UNKNOWN,
            Self::NotKept { until } if now >= *until => *self = Self::UNKNOWN,
            _ => {}
        }
        match self {
            // An upstream that drops or refuses mixed case still gets the retry, and every probe,
            // in lower case.
            Self::Learning { .. } => usable && first,
            Self::Kept { .. } => true,
            Self::NotKept { .. } => false,
        }
    }

    /// Whether to reject an answer in different case, like one with a wrong id.
    pub fn matters(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }

    /// An answer repeated our case.
    pub fn on_same(&mut self) {
        match self {
            Self::Learning { same, .. } => {
                *same += 1;
                if *same >= SAME_MIN {
                    *self = Self::Kept { doubt: 0 };
                }
            }
            Self::Kept { doubt } => *doubt = doubt.saturating_sub(1),
            Self::NotKept { .. } => {}
        }
    }

    /// An answer came in different case.
    pub fn on_other(&mut self, now: Moment) {
        match self {
            Self::Learning { same, other, .. } => {
                *same = 0;
                *other += 1;
                if *other >= OTHER_MAX {
                    self.give_up(now);
                }
            }
            Self::Kept { doubt } => {
                *doubt = doubt.saturating_add(DOUBT);
                if *doubt >= DOUBT_MAX {
                    self.give_up(now);
                }
            }
            Self::NotKept { .. } => {}
        }
    }

    /// A mixed-case query failed: an error, or silence where the same query in lower case was
    /// answered.
    pub fn on_lost(&mut self, now: Moment) {
        if let Self::Learning { same: 0, other: 0, lost } = self {
            *lost += 1;
            if *lost >= LOST_MAX {
                self.give_up(now);
            }
        }
    }

    fn give_up(&mut self, now: Moment) {
        *self = Self::NotKept { until: now + LOOK_AGAIN_AFTER };
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Learning { .. } => "learning",
            Self::Kept { .. } => "kept",
            Self::NotKept { .. } => "not_kept",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays answers, one per second: `.` our case, `o` different case, `x` no answer, `D` queried
    /// while down, `h` an idle hour. Returns the state after each: `l`earning, `K`ept, `n`ot kept.
    fn states(evidence: &str) -> String {
        let mut now = Moment::START;
        let mut case = LetterCase::UNKNOWN;
        let one = |sign| {
            now = now + Duration::from_secs(if sign == 'h' { 3_600 } else { 1 });
            case.mixes(sign != 'D', true, now);
            match sign {
                '.' => case.on_same(),
                'o' => case.on_other(now),
                'x' => case.on_lost(now),
                _ => {}
            }
            match case {
                LetterCase::Learning { .. } => 'l',
                LetterCase::Kept { .. } => 'K',
                LetterCase::NotKept { .. } => 'n',
            }
        };
        evidence.chars().map(one).collect()
    }

    #[test]
    fn it_is_kept_after_eight_answers_without_exception() {
        let evidence = "........ooo";
        let expected = "lllllllKKKn";
        assert_eq!(states(evidence), expected);
        let evidence = ".......o........o";
        let expected = "lllllllllllllllKK";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn an_upstream_that_changes_case_is_left_alone_for_an_hour() {
        let evidence = "oo.........h........";
        let expected = "lnnnnnnnnnnllllllllK";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn an_upstream_that_ignores_mixed_case_is_left_alone_but_packet_loss_alone_is_tolerated() {
        assert_eq!(states("xxx"), "lln");
        assert_eq!(states(".xxxxxxx......."), "llllllllllllllK");
    }

    #[test]
    fn an_occasional_forgery_changes_nothing() {
        let evidence = "........o........o........o........o........";
        assert!(states(evidence).ends_with(&"K".repeat(36)));
    }

    #[test]
    fn after_an_outage_it_is_learned_anew() {
        let evidence = "........D.......";
        let expected = "lllllllKllllllll";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn while_learning_retries_and_probes_are_in_lower_case() {
        let (mut case, now) = (LetterCase::UNKNOWN, Moment::START);
        assert_eq!((case.mixes(true, true, now), case.mixes(true, false, now)), (true, false));
        let mut case = LetterCase::Kept { doubt: 0 };
        assert!(case.mixes(true, false, now), "a query in lower case is easier to forge");
        assert!(!case.mixes(false, true, now) && !case.matters());
    }
}
