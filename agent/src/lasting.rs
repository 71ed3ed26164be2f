//! Problems that count only after some time: what spikes by nature (load, pressure) is soft until
//! it has lasted. The state that becomes hard is the mildest one that the service had all the time.
//!
//! ```text
//! for = 10m      0    2    4    6    8    10   12
//! results        W    W    C    C    C    W    C
//! hard           -    -    -    -    -    W    W     never C for ten minutes
//! ```

use std::time::Duration;

use dogwatch_checks::State;

use crate::{
    moment::Moment,
    status::{Confirm, Problem},
};

/// Since when a service is at least this bad, without a break.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lasting {
    not_ok: Option<Moment>,
    critical: Option<Moment>,
}

impl Lasting {
    /// What a result confirms, if a problem must last for `span`.
    pub fn on_result(&mut self, state: State, span: Duration, now: Moment) -> Confirm {
        let is_critical = matches!(state, State::Critical | State::Unknown);
        self.not_ok = (state != State::Ok).then(|| self.not_ok.unwrap_or(now));
        self.critical = is_critical.then(|| self.critical.unwrap_or(now));
        let lasted = |since: Option<Moment>| since.is_some_and(|since| now.since(since) >= span);
        match Problem::of(state) {
            Some(problem) if is_critical && lasted(self.critical) => Confirm::Lasted(problem),
            Some(_) if lasted(self.not_ok) => Confirm::Lasted(Problem::Warning),
            _ => Confirm::NotYet,
        }
    }
}

impl Lasting {
    /// How long the present problem has lasted, at its worst state if that is what must last.
    pub fn lasted(&self, now: Moment) -> Option<Duration> {
        self.not_ok.map(|since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays one result every two minutes that must last for ten.
    fn play(results: &str) -> String {
        let mut lasting = Lasting::default();
        let letter = |(at, result): (u32, char)| {
            let state = match result {
                'W' => State::Warning,
                'C' => State::Critical,
                'U' => State::Unknown,
                _ => State::Ok,
            };
            let now = Moment(Duration::from_mins(100) + at * Duration::from_mins(2));
            match lasting.on_result(state, Duration::from_mins(10), now) {
                Confirm::Lasted(Problem::Warning) => 'W',
                Confirm::Lasted(Problem::Critical) => 'C',
                Confirm::Lasted(Problem::Unknown) => 'U',
                Confirm::NotYet | Confirm::After(_) => '-',
            }
        };
        (0..).zip(results.chars()).map(letter).collect()
    }

    #[test]
    fn a_problem_must_last() {
        assert_eq!(play("WWWWWWW.WWW"), "-----WW----");
        assert_eq!(play("CCCCCC"), "-----C");
        assert_eq!(play("UUUUUUU"), "-----UU");
    }

    #[test]
    fn the_mildest_state_of_the_time_becomes_hard() {
        assert_eq!(play("WWCCCWC"), "-----WW");
        assert_eq!(play("WWWWWWCCCCCC"), "-----WWWWWWC");
        assert_eq!(play("CCCCCCWWC"), "-----CWWW");
    }
}
