//! Whether an upstream repeats a question's letters in the case in which they were asked, and so what an answer in other
//! letters means.
//!
//! ```text
//!            8 answers in our letters             3 of the last few in others, or others and no TCP
//!   Learning ─────────────────────────▶ Kept ────────────────────────────────────────────▶ NotKept
//!      │ ▲ ▲                              │ the upstream goes down: its software may be another │
//!      │ │ └──────────────────────────────┘                                                     │
//!      │ └──────────────────────────── an hour ────────────────────────────────────────────────┘
//!      └── 2 answers in others; or 3 questions came to nothing before any answer was in ours ──▶ NotKept
//! ```
//!
//! While it is learned, any letters are taken, so an upstream that writes as it likes is not ill. Only from `Kept` on is an
//! answer in other letters not believed; and what asks how an upstream does when it is down asks in lower case, so that
//! no upstream is dead to us for its letters alone.

use std::time::Duration;

use crate::moment::Moment;

/// What is known of one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterCase {
    Learning { same: u8, other: u8, lost: u8 },
    Kept { doubt: u8 },
    NotKept { until: Moment },
}

/// Answers without one exception. A farm of unequal servers behind one address should show itself before that.
const SAME_MIN: u8 = 8;
/// One may be a forgery.
const OTHER_MAX: u8 = 2;
/// As many lost packets in a row, before anything else was heard, would be much.
const LOST_MAX: u8 = 3;
/// Each answer in other letters weighs as much as eight in ours …
const DOUBT: u8 = 8;
/// … and three in a row are no accident: a forger must guess id and port for each.
const DOUBT_MAX: u8 = 3 * DOUBT;
/// Looking again costs an upstream of the usual kind nothing.
const LOOK_AGAIN_AFTER: Duration = Duration::from_hours(1);

impl LetterCase {
    pub const UNKNOWN: Self = Self::Learning { same: 0, other: 0, lost: 0 };

    /// Whether to mix the letters of the next question. `usable`: by its breaker; `first`: a client's question or a
    /// refresh that has not gone to this upstream before.
    pub fn mixes(&mut self, usable: bool, first: bool, now: Moment) -> bool {
        match self {
            Self::Learning { .. } | Self::Kept { .. } if !usable => *self = Self::UNKNOWN,
            Self::NotKept { until } if now >= *until => *self = Self::UNKNOWN,
            _ => {}
        }
        match self {
            // Who drops or refuses such questions still gets the second, and every probe, as plain as can be.
            Self::Learning { .. } => usable && first,
            Self::Kept { .. } => true,
            Self::NotKept { .. } => false,
        }
    }

    /// Whether an answer in other letters is to be believed no more than one with another id.
    pub fn matters(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }

    /// An answer repeated our letters.
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

    /// An answer came in other letters.
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

    /// A question in mixed letters came to nothing: an error, or silence where the same in lower case was answered.
    pub fn on_lost(&mut self, now: Moment) {
        if let Self::Learning { same: 0, other: 0, lost } = self {
            *lost += 1;
            if *lost >= LOST_MAX {
                self.give_up(now);
            }
        }
    }

    pub fn give_up(&mut self, now: Moment) {
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

    /// Plays answers, one a second: `.` our letters, `o` others, `x` nothing, `D` asked while it is down, `h` an hour of
    /// nothing. Returns after each: `l`earning, `K`ept, `n`ot kept.
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
    fn who_writes_as_he_likes_is_left_alone_for_an_hour() {
        let evidence = "oo.........h........";
        let expected = "lnnnnnnnnnnllllllllK";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn who_is_deaf_to_mixed_letters_is_left_alone_and_a_lossy_way_is_no_deafness() {
        assert_eq!(states("xxx"), "lln");
        assert_eq!(states(".xxxxxxx......."), "llllllllllllllK");
    }

    #[test]
    fn a_forgery_now_and_then_changes_nothing() {
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
    fn while_it_is_learned_second_tries_and_probes_are_plain() {
        let (mut case, now) = (LetterCase::UNKNOWN, Moment::START);
        assert_eq!((case.mixes(true, true, now), case.mixes(true, false, now)), (true, false));
        let mut case = LetterCase::Kept { doubt: 0 };
        assert!(case.mixes(true, false, now), "what is not mixed can be forged");
        assert!(!case.mixes(false, true, now) && !case.matters());
    }
}
