//! Flapping: the state changed in too many of the recent results (Nagios Core, `base/flapping.c`).
//!
//! Between the last 21 states there are up to 20 changes. The weight of a change rises from 0.75
//! for the oldest to 1.25 for the newest, so that recent changes count more. A service starts to
//! flap when the weighted share reaches `start` and stops when it falls to `stop`. Hard states and
//! soft recoveries are recorded, soft problems are not.
//!
//! That rule alone misses a service that is checked much more often than it changes, so there is a
//! second one: a service also flaps if its hard state changed six times in 15 minutes, and until
//! it has changed less than three times in 15 minutes.

use std::{collections::VecDeque, time::Duration};

use dogwatch_checks::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// There are up to 20 changes between 21 states.
pub const STATES: usize = 21;

/// The weighted share of changes, in percent, at which a service starts and stops flapping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    pub start: f64,
    pub stop: f64,
}

impl Default for Thresholds {
    /// The defaults of Nagios Core. The six newest changes of twenty reach 30; the share falls to
    /// 20 when the last of them has become old.
    fn default() -> Self {
        Self { start: 30.0, stop: 20.0 }
    }
}

/// The last [`STATES`] states, oldest first. Serialized as one letter per state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct History([State; STATES]);

impl Default for History {
    fn default() -> Self {
        Self([State::Ok; STATES])
    }
}

impl History {
    pub fn record(&mut self, state: State) {
        self.0.rotate_left(1);
        self.0[STATES - 1] = state;
    }

    /// Weighted share of changes, from 0 to 100.
    pub fn percent(&self) -> f64 {
        let weights: f64 = self
            .0
            .windows(2)
            .zip(0_u8..)
            .filter(|(pair, _)| pair[0] != pair[1])
            .map(|(_, age)| 0.75 + f64::from(age) * 0.5 / 19.0)
            .sum();
        weights * 100.0 / 20.0
    }

    /// Whether the service flaps now, given whether it flapped before.
    pub fn is_flapping(&self, before: bool, thresholds: Thresholds) -> bool {
        let percent = self.percent();
        if percent >= thresholds.start {
            true
        } else if percent <= thresholds.stop {
            false
        } else {
            before
        }
    }
}

/// When the hard state last changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes(VecDeque<Timestamp>);

impl Changes {
    pub fn record(&mut self, at: Timestamp) {
        self.0.push_back(at);
        while self.0.len() > MANY {
            self.0.pop_front();
        }
    }

    /// Whether there were so many recently that the service flaps.
    pub fn are_many(&self, now: Timestamp, before: bool) -> bool {
        let recent = self.0.iter().filter(|at| now.duration_since(**at).unsigned_abs() < RECENT).count();
        recent >= if before { FEW } else { MANY }
    }
}

/// Three problems and their recoveries.
const MANY: usize = 6;
const FEW: usize = 3;
const RECENT: Duration = Duration::from_mins(15);

impl From<History> for String {
    fn from(history: History) -> Self {
        history.0.iter().map(|state| &state.name()[..1]).collect()
    }
}

impl TryFrom<String> for History {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not {STATES} states");
        let states: Vec<State> = text.chars().map(state).collect::<Option<_>>().ok_or_else(wrong)?;
        states.try_into().map(Self).map_err(|_| wrong())
    }
}

fn state(letter: char) -> Option<State> {
    State::ALL.into_iter().find(|state| state.name().starts_with(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Percent after 21 OK states and then these, newest last.
    fn percent(states: &str) -> f64 {
        history(states).percent()
    }

    #[test]
    fn changes_have_the_weights_of_nagios() {
        // By hand, from the formula w(x) = 0.75 + (x-1)·0.5/19, for the newest n changes.
        for (states, expected) in [
            ("O", 0.0),
            ("C", 1.25 * 5.0),
            ("CO", 12.37),
            ("COC", 18.36),
            ("COCO", 24.21),
            ("COCOC", 29.93),
            ("COCOCO", 35.53),
        ] {
            assert!((percent(states) - expected).abs() < 0.01, "{states}: {}", percent(states));
        }
        // The mean weight of all twenty changes is 1.
        assert!((percent("COCOCOCOCOCOCOCOCOCOC") - 100.0).abs() < 1e-9);
        // One change, the oldest possible: 0.75 of 20.
        let oldest = format!("O{}", "C".repeat(20));
        assert!((percent(&oldest) - 3.75).abs() < 1e-9);
    }

    #[test]
    fn a_change_between_two_problems_is_a_change() {
        assert!((percent("W") - percent("C")).abs() < 1e-9);
        assert!((percent("WC") - percent("CO")).abs() < 1e-9);
    }

    #[test]
    fn thirty_percent_takes_six_changes_and_twenty_takes_four() {
        let at =
            |start, states| history(states).is_flapping(false, Thresholds { start, ..Thresholds::default() });
        assert!(!at(30.0, "COCOC"));
        assert!(at(30.0, "COCOCO"));
        assert!(!at(20.0, "COC"));
        assert!(at(20.0, "COCO"));
    }

    #[test]
    fn between_the_thresholds_nothing_changes() {
        // Steady again after six changes; `F` flapping, `-` not. Sixteen results later two of the
        // six are forgotten and the other four weigh 15.8 %; one result earlier it was 20.07 %.
        let states = "COCOCO OOOOOOOOOOOOOOOOO";
        let drawn_ = "-----F FFFFFFFFFFFFFFF--";
        let mut history = History::default();
        let mut flapping = false;
        let drawn: String = states
            .chars()
            .map(|letter| {
                let Some(state) = state(letter) else { return letter };
                history.record(state);
                flapping = history.is_flapping(flapping, Thresholds::default());
                if flapping { 'F' } else { '-' }
            })
            .collect();
        assert_eq!(drawn, drawn_);
    }

    #[test]
    fn a_serialized_history_reads_back_as_the_same_history() {
        let before = history("CWUOC");
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(text, "\"OOOOOOOOOOOOOOOOCWUOC\"");
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), before);
        assert!(serde_json::from_str::<History>("\"OOO\"").is_err());
        assert!(serde_json::from_str::<History>("\"OOOOOOOOOOOOOOOOCWUOX\"").is_err());
    }

    fn history(states: &str) -> History {
        let mut history = History::default();
        for letter in states.chars() {
            history.record(state(letter).unwrap());
        }
        history
    }
}
