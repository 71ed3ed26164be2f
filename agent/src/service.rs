//! One service: its status after each result, and what to announce to alertd.
//!
//! An announcement is the difference between the current truth and the last announcement. So
//! nothing is announced twice, and a change that was not announced (while flapping, while booting)
//! is announced when the reason has ended:
//!
//! ```text
//! results     .  C  C  C  .  C  C  …  .  C  .  .  .  .  .
//! hard        .  .  .  C  .  .  C  …  .  C  .  .  .  .  .
//! flapping                               F  F  F  F  -  -
//! announced            P  R     P        F           E      once at the start, once with the truth at the end
//! ```

use dogwatch_checks::{CheckResult, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    flapping::{Changes, History, Thresholds},
    status::{Confirm, Problem, Status},
};

/// How the results of a service are interpreted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    pub confirm: Confirm,
    /// `None`: flapping is not detected.
    pub flapping: Option<Thresholds>,
}

/// The status of a service and its last announcement. Saved to disk in this form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    status: Status,
    flapping: bool,
    history: History,
    #[serde(default)]
    changes: Changes,
    announced: Option<Announced>,
}

/// The last announcement to alertd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Announced {
    /// `None` is OK.
    pub problem: Option<Problem>,
    /// When this hard state began.
    pub since: Timestamp,
    pub flapping: bool,
    pub said: Said,
}

/// The output of the result that decided the state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    pub summary: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub perfdata: String,
}

/// A hard change, or the start or end of flapping, to report to alertd.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The previous announcement.
    pub from: State,
    pub now: Announced,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            status: Status::Ok,
            flapping: false,
            history: History::default(),
            changes: Changes::default(),
            announced: None,
        }
    }
}

impl Service {
    /// Applies a result. Returns what to announce.
    pub fn on_result(&mut self, result: &CheckResult, rules: Rules, at: Timestamp) -> Option<Transition> {
        let (status, did) = self.status.after(result.state, rules.confirm);
        self.status = status;
        if did.is_hard() {
            self.changes.record(at);
        }
        // Like Nagios: hard states and soft recoveries are recorded, soft problems are not.
        if !status.is_soft() {
            self.history.record(status.hard());
        }
        self.flapping = rules.flapping.is_some_and(|thresholds| {
            self.changes.are_many(at, self.flapping) || self.history.is_flapping(self.flapping, thresholds)
        });
        self.announce(result, at)
    }

    fn announce(&mut self, result: &CheckResult, at: Timestamp) -> Option<Transition> {
        let (before, was_flapping, since) = match &self.announced {
            Some(announced) => (announced.state(), announced.flapping, Some(announced.since)),
            None => (State::Ok, false, None),
        };
        let state = self.status.hard();
        let muted = self.flapping && was_flapping;
        if muted || (state == before && self.flapping == was_flapping) {
            return None;
        }
        let now = Announced {
            problem: Problem::of(state),
            since: if state == before { since.unwrap_or(at) } else { at },
            flapping: self.flapping,
            said: Said::of(result),
        };
        self.announced = Some(now.clone());
        Some(Transition { from: before, now })
    }

    /// Applies an announcement that the spool has and the saved state does not.
    pub fn on_replayed(&mut self, announced: Announced) {
        self.status = announced.problem.map_or(Status::Ok, Status::Hard);
        self.flapping = announced.flapping;
        self.announced = Some(announced);
    }

    /// What the service is about has changed: a soft problem is forgotten. A hard one stays until
    /// a result says otherwise.
    pub fn redefined(&mut self) {
        if self.status.is_soft() {
            self.status = self
                .announced
                .as_ref()
                .and_then(|announced| announced.problem)
                .map_or(Status::Ok, Status::Hard);
        }
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn flapping(&self) -> bool {
        self.flapping
    }

    /// Weighted share of recent changes, in percent.
    pub fn flapping_percent(&self) -> f64 {
        self.history.percent()
    }

    /// The problem that was announced goes on with another text: what to say now. Its state and its
    /// beginning stay.
    pub fn reworded(&mut self, result: &CheckResult) -> Option<Transition> {
        let goes_on = self.status == self.announced.as_ref()?.problem.map_or(Status::Ok, Status::Hard);
        let announced = self.announced.as_mut()?;
        let is_steady = announced.problem.is_some() && !announced.flapping && !self.flapping && goes_on;
        if !is_steady || announced.said.summary == result.summary {
            return None;
        }
        announced.said = Said::of(result);
        Some(Transition { from: announced.state(), now: announced.clone() })
    }

    /// `None` if nothing was ever announced: for alertd the service is OK.
    pub fn announced(&self) -> Option<&Announced> {
        self.announced.as_ref()
    }
}

impl Said {
    fn of(result: &CheckResult) -> Self {
        Self {
            summary: result.summary.clone(),
            detail: result.detail.clone(),
            perfdata: result.perfdata_text(),
        }
    }
}

impl Announced {
    pub fn state(&self) -> State {
        self.problem.map_or(State::Ok, State::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hard_changes_are_announced() {
        let results = ". . C C . C C C C W . .";
        let notices = "- - - - - - - P - X R -";
        assert_eq!(announced(3, results), notices);
    }

    #[test]
    fn a_problem_that_goes_on_can_get_another_text_and_nothing_else_can() {
        let mut service = Service::default();
        let rules = Rules { confirm: Confirm::After(2), flapping: None };
        let at = Timestamp::UNIX_EPOCH;
        let full = |text: &str| CheckResult::new(State::Critical, text);
        let mut after = |state: State, text: &str| {
            let result = CheckResult::new(state, text);
            let announced = service.on_result(&result, rules, at).is_some();
            let reworded = service.reworded(&result).map(|again| again.now.said.summary);
            (announced, reworded)
        };
        assert_eq!(after(State::Ok, "80% free"), (false, None));
        assert_eq!(after(State::Critical, "7% free"), (false, None), "soft");
        assert_eq!(after(State::Critical, "6% free"), (true, None));
        assert_eq!(after(State::Critical, "6% free"), (false, None), "the same text");
        assert_eq!(after(State::Critical, "0% free"), (false, Some("0% free".into())));
        assert_eq!(after(State::Ok, "80% free"), (true, None), "over");
        assert_eq!(service.reworded(&full("0% free")), None, "nothing goes on");
    }

    #[test]
    fn flapping_is_announced_once_and_its_end_reports_the_true_state() {
        //             six changes: flapping   silent  steady: ends 16 results later
        let results = "C . C . C . C . C C C C C C C C C C C C C C C C C C";
        let notices = "P R P R P F - - - - - - - - - - - - - - - - - - E -";
        assert_eq!(announced(1, results), notices);
        let mut world = World::new(1);
        let last = results.split(' ').filter_map(|result| world.result(result)).last().unwrap();
        assert_eq!((last.from, last.now.state(), last.now.flapping), (State::Ok, State::Critical, false));
    }

    #[test]
    fn the_end_of_flapping_is_announced_even_in_the_same_state() {
        let results = "C . C . C . . . . . . . . . . . . . . . . . . .";
        let notices = "P R P R P F - - - - - - - - - - - - - - - E - -";
        assert_eq!(announced(1, results), notices);
    }

    #[test]
    fn without_flap_detection_every_hard_change_is_announced() {
        let results = "C . C . C . C . C .";
        let notices = "P R P R P R P R P R";
        let mut world = World::new(1);
        world.rules.flapping = None;
        assert_eq!(world.play(results), notices);
    }

    #[test]
    fn a_service_that_changes_often_flaps_however_often_it_is_checked() {
        // Checked every 5 s, changes every 20 s: a quarter of the results, which is below 30 %.
        let mut world = World::new(3);
        world.step = 5;
        let notices = world.play("C C C C . . . . ".repeat(27 * 8).trim_end());
        let count = notices.split(' ').filter(|&notice| notice != "-").count();
        assert!(count <= 6, "{count} announcements in 36 minutes: {notices}");
        let after = world.play(". ".repeat(400).trim_end());
        assert_eq!(after.matches('E').count(), 1, "{after}");
        assert!(!after.contains('P'));
    }

    #[test]
    fn other_rates_and_changes_between_problems_flap_too() {
        for (step, cycle, max_attempts) in [
            (1, "C ".repeat(20) + &". ".repeat(20), 1),
            (5, "W W W W C C C C ".to_owned(), 3),
            (10, "C C C . . . ".to_owned(), 3),
            (30, "U U . . ".to_owned(), 1),
            (60, "C . ".to_owned(), 1),
        ] {
            let mut world = World::new(max_attempts);
            world.step = step;
            let results = cycle.len() / 2;
            let cycles = 36 * 60 / usize::try_from(step).unwrap() / results;
            let notices = world.play(cycle.repeat(cycles).trim_end());
            let count = notices.split(' ').filter(|&notice| notice != "-").count();
            assert!(count <= 7, "every {step} s {cycle:?}: {count} in 36 minutes: {notices}");
        }
    }

    #[test]
    fn a_restart_repeats_and_loses_no_announcement() {
        let mut world = World::new(3);
        assert_eq!(world.play(". C C C C"), "- - - P -");
        world.restart();
        assert_eq!(world.play("C C . ."), "- - R -");
    }

    #[test]
    fn a_restart_in_the_soft_phase_keeps_the_attempt() {
        let mut world = World::new(3);
        assert_eq!(world.play(". C C"), "- - -");
        world.restart();
        assert_eq!(world.play("C"), "P");
    }

    #[test]
    fn the_spool_wins_over_an_older_state_file() {
        let mut world = World::new(2);
        let before = world.service.clone();
        world.play("C");
        let transition = world.result("C").unwrap();
        // Killed after the spool had the transition and before the state file had it.
        world.service = before;
        world.service.on_replayed(transition.now);
        assert_eq!(world.play("C C . ."), "- - R -");
    }

    #[test]
    fn since_is_the_start_of_the_hard_state_and_survives_the_start_of_flapping() {
        let mut world = World::new(1);
        for result in "C . C . C".split(' ') {
            world.result(result);
        }
        let began = world.service.announced().unwrap().since;
        world.rules.flapping = Some(Thresholds { start: 25.0, stop: 20.0 });
        let flapping = world.result("C").unwrap().now;
        assert_eq!((flapping.flapping, flapping.since), (true, began));
    }

    #[test]
    fn a_problem_seen_while_booting_is_announced_afterwards() {
        let mut world = World::new(2);
        world.rules.confirm = Confirm::NotYet;
        assert_eq!(world.play("C C C C"), "- - - -");
        world.rules.confirm = Confirm::After(2);
        assert_eq!(world.play("C C"), "P -");
    }

    fn announced(max_attempts: u8, results: &str) -> String {
        World::new(max_attempts).play(results)
    }

    struct World {
        service: Service,
        rules: Rules,
        now: i64,
        /// Seconds between results.
        step: i64,
    }

    impl World {
        fn new(max_attempts: u8) -> Self {
            let rules =
                Rules { confirm: Confirm::After(max_attempts), flapping: Some(Thresholds::default()) };
            Self { service: Service::default(), rules, now: 0, step: 60 }
        }

        fn result(&mut self, letter: &str) -> Option<Transition> {
            self.now += self.step;
            let state = match letter {
                "W" => State::Warning,
                "C" => State::Critical,
                "U" => State::Unknown,
                _ => State::Ok,
            };
            let at = Timestamp::from_second(self.now).unwrap();
            self.service.on_result(&CheckResult::new(state, letter), self.rules, at)
        }

        /// Draws the announcements: `P` problem, `X` another problem, `R` recovery, `F` start and
        /// `E` end of flapping.
        fn play(&mut self, results: &str) -> String {
            let notice = |letter| {
                let was_flapping = self.service.flapping();
                match self.result(letter) {
                    None => "-",
                    Some(told) if told.now.flapping => "F",
                    Some(_) if was_flapping => "E",
                    Some(told) if told.now.problem.is_none() => "R",
                    Some(told) if told.from == State::Ok => "P",
                    Some(_) => "X",
                }
            };
            results.split(' ').map(notice).collect::<Vec<_>>().join(" ")
        }

        fn restart(&mut self) {
            let text = serde_json::to_string(&self.service).unwrap();
            self.service = serde_json::from_str(&text).unwrap();
        }
    }
}
