//! Soft and hard states: how many results confirm a problem (the rules of Nagios Core,
//! `base/checks.c`).
//!
//! ```text
//!            bad, attempts left            bad, last attempt
//!   Ok ────────────────────────▶ Soft ────────────────────────▶ Hard ──┐ other bad: at once
//!   ▲ ◀──────────────────────────┘ OK: soft recovery             │ ▲───┘
//!   └────────────────────────────────────────────────────────────┘ OK: hard recovery
//! ```
//!
//! The status depends on the results alone. Flapping is in [`crate::flapping`], announcements are
//! in [`crate::service`], and acknowledgements, downtimes and notifications are alertd's.

use dogwatch_checks::State;
use serde::{Deserialize, Serialize};

/// A state that is not OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Problem {
    Warning,
    Critical,
    Unknown,
}

impl Problem {
    /// `None` for OK.
    pub fn of(state: State) -> Option<Self> {
        match state {
            State::Ok => None,
            State::Warning => Some(Self::Warning),
            State::Critical => Some(Self::Critical),
            State::Unknown => Some(Self::Unknown),
        }
    }
}

impl From<Problem> for State {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Warning => Self::Warning,
            Problem::Critical => Self::Critical,
            Problem::Unknown => Self::Unknown,
        }
    }
}

/// The status of a service. OK needs no confirmation, so only problems can be soft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// Seen `attempt` times in a row; not confirmed and not announced yet.
    Soft {
        problem: Problem,
        attempt: u8,
    },
    /// Seen `max_attempts` times in a row; confirmed.
    Hard(Problem),
}

/// How many problem results in a row confirm a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    After(u8),
    /// The host has just booted or resumed, or the problem has not lasted long enough: results are
    /// recorded, but no problem becomes hard.
    NotYet,
    /// A problem has lasted as long as it must ([`crate::lasting`]), in this state.
    Lasted(Problem),
}

/// What a result did to the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// OK after OK, or the same hard problem again.
    Stayed,
    /// A problem that is not confirmed yet: attempt 1, or one more.
    SoftProblem,
    /// OK before the problem was confirmed.
    SoftRecovery,
    /// A problem is confirmed.
    HardProblem,
    /// A confirmed problem became another one, without a soft phase.
    HardOther,
    /// A confirmed problem is over.
    HardRecovery,
}

impl Move {
    /// Whether the hard state has changed.
    pub fn is_hard(self) -> bool {
        matches!(self, Self::HardProblem | Self::HardOther | Self::HardRecovery)
    }
}

impl Status {
    /// Returns the status after one more result, and what the result did.
    pub fn after(self, result: State, confirm: Confirm) -> (Self, Move) {
        let Some(problem) = Problem::of(result) else {
            return match self {
                Self::Ok => (Self::Ok, Move::Stayed),
                Self::Soft { .. } => (Self::Ok, Move::SoftRecovery),
                Self::Hard(_) => (Self::Ok, Move::HardRecovery),
            };
        };
        let problem = if let Confirm::Lasted(lasted) = confirm { lasted } else { problem };
        let attempt = match self {
            Self::Ok => 1,
            Self::Soft { attempt, .. } => attempt.saturating_add(1),
            Self::Hard(before) if before == problem => return (self, Move::Stayed),
            Self::Hard(_) if confirm == Confirm::NotYet => return (self, Move::Stayed),
            Self::Hard(_) => return (Self::Hard(problem), Move::HardOther),
        };
        match confirm {
            Confirm::After(max) if attempt >= max => (Self::Hard(problem), Move::HardProblem),
            Confirm::Lasted(_) => (Self::Hard(problem), Move::HardProblem),
            Confirm::After(_) | Confirm::NotYet => (Self::Soft { problem, attempt }, Move::SoftProblem),
        }
    }

    /// The confirmed state. A soft problem is still OK.
    pub fn hard(self) -> State {
        match self {
            Self::Ok | Self::Soft { .. } => State::Ok,
            Self::Hard(problem) => problem.into(),
        }
    }

    /// Whether the next run comes after `retry_interval` rather than `interval`.
    pub fn is_soft(self) -> bool {
        matches!(self, Self::Soft { .. })
    }

    /// Nagios' "current attempt": 1 while OK, `max_attempts` once hard.
    pub fn attempt(self, max_attempts: u8) -> u8 {
        match self {
            Self::Ok => 1,
            Self::Soft { attempt, .. } => attempt,
            Self::Hard(_) => max_attempts,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Plays results (`.` OK, `W`, `C`, `U`) and draws each status (`ok`, `s2` soft attempt 2, `HC`
    /// hard critical).
    fn statuses(max_attempts: u8, results: &str) -> String {
        play(Confirm::After(max_attempts), results).0
    }

    /// The same, drawing what each result did: `-` nothing, `s` soft problem, `r` soft recovery,
    /// `P` problem, `X` other problem, `R` recovery.
    fn moves(max_attempts: u8, results: &str) -> String {
        play(Confirm::After(max_attempts), results).1
    }

    // One test for each row of Nagios' table.

    #[test]
    fn hard_ok_and_ok_stays_ok() {
        let results = "..  .. ";
        assert_eq!(statuses(3, results), "ok  ok ");
        assert_eq!(moves(3, results), "-   -  ");
        assert!(!Status::Ok.is_soft(), "next run after interval");
    }

    #[test]
    fn hard_ok_and_bad_is_soft_attempt_one() {
        let results = "..  CC ";
        assert_eq!(statuses(3, results), "ok  s1 ");
        assert_eq!(moves(3, results), "-   s  ");
        assert!(Status::Soft { problem: Problem::Critical, attempt: 1 }.is_soft(), "next run after retry");
    }

    #[test]
    fn hard_ok_and_bad_with_one_attempt_is_hard_at_once() {
        let results = "..  CC ";
        assert_eq!(statuses(1, results), "ok  HC ");
        assert_eq!(moves(1, results), "-   P  ");
        assert!(!Status::Hard(Problem::Critical).is_soft(), "next run after interval");
    }

    #[test]
    fn soft_bad_and_bad_is_one_attempt_more_whichever_problem_it_is() {
        let results = "..  CC  WW  UU ";
        assert_eq!(statuses(5, results), "ok  s1  s2  s3 ");
        assert_eq!(moves(5, results), "-   s   s   s  ");
    }

    #[test]
    fn soft_bad_and_bad_on_the_last_attempt_is_hard_with_the_latest_problem() {
        let results = "..  WW  WW  CC ";
        assert_eq!(statuses(3, results), "ok  s1  s2  HC ");
        assert_eq!(moves(3, results), "-   s   s   P  ");
    }

    #[test]
    fn soft_bad_and_ok_is_a_soft_recovery_and_resets_the_attempts() {
        let results = "..  CC  CC  ..  CC ";
        assert_eq!(statuses(3, results), "ok  s1  s2  ok  s1 ");
        assert_eq!(moves(3, results), "-   s   s   r   s  ");
    }

    #[test]
    fn hard_bad_and_the_same_bad_stays_as_it_is() {
        let results = "CC  CC  CC  CC ";
        assert_eq!(statuses(2, results), "s1  HC  HC  HC ");
        assert_eq!(moves(2, results), "s   P   -   -  ");
    }

    #[test]
    fn hard_bad_and_another_bad_is_hard_at_once() {
        let results = "CC  CC  WW  UU  CC ";
        assert_eq!(statuses(2, results), "s1  HC  HW  HU  HC ");
        assert_eq!(moves(2, results), "s   P   X   X   X  ");
    }

    #[test]
    fn hard_bad_and_ok_is_a_hard_recovery() {
        let results = "CC  CC  ..  .. ";
        assert_eq!(statuses(2, results), "s1  HC  ok  ok ");
        assert_eq!(moves(2, results), "s   P   R   -  ");
    }

    #[test]
    fn while_the_host_boots_no_problem_becomes_hard_and_recoveries_count() {
        let (statuses, moves) = play(Confirm::NotYet, "CC  CC  CC  .. ");
        assert_eq!(statuses, "s1  s2  s3  ok ");
        assert_eq!(moves, "s   s   s   r  ");
        let before = Status::Hard(Problem::Warning);
        assert_eq!(before.after(State::Critical, Confirm::NotYet), (before, Move::Stayed));
        assert_eq!(before.after(State::Ok, Confirm::NotYet), (Status::Ok, Move::HardRecovery));
    }

    #[test]
    fn after_the_boot_the_next_bad_result_is_hard() {
        let soft = Status::Soft { problem: Problem::Critical, attempt: 9 };
        assert_eq!(
            soft.after(State::Critical, Confirm::After(3)),
            (Status::Hard(Problem::Critical), Move::HardProblem)
        );
    }

    #[test]
    fn the_attempt_shown_is_nagios_current_attempt() {
        assert_eq!(Status::Ok.attempt(4), 1);
        assert_eq!(Status::Soft { problem: Problem::Warning, attempt: 2 }.attempt(4), 2);
        assert_eq!(Status::Hard(Problem::Warning).attempt(4), 4);
    }

    fn play(confirm: Confirm, results: &str) -> (String, String) {
        let mut status = Status::Ok;
        let (mut statuses, mut moves) = (String::new(), String::new());
        for result in results.split_whitespace() {
            let state = match result.as_bytes()[0] {
                b'W' => State::Warning,
                b'C' => State::Critical,
                b'U' => State::Unknown,
                _ => State::Ok,
            };
            let did;
            (status, did) = status.after(state, confirm);
            let drawn = match status {
                Status::Ok => "ok".to_owned(),
                Status::Soft { attempt, .. } => format!("s{attempt}"),
                Status::Hard(problem) => format!("H{}", &State::from(problem).name()[..1]),
            };
            let sign = match did {
                Move::Stayed => "-",
                Move::SoftProblem => "s",
                Move::SoftRecovery => "r",
                Move::HardProblem => "P",
                Move::HardOther => "X",
                Move::HardRecovery => "R",
            };
            let _ = write!(statuses, "{drawn:<4}");
            let _ = write!(moves, "{sign:<4}");
        }
        statuses.pop();
        moves.pop();
        (statuses, moves)
    }
}
