//! When a check's handler runs: a command that tries to mend a problem, for example by restarting a
//! unit once. Pure; [`crate::runner`] runs it.
//!
//! A handler never stands in for a notification: a hard problem is announced at the same time. What
//! the handler did becomes part of what the service says.

use std::{collections::VecDeque, time::Duration};

use dogwatch_checks::State;

use crate::{moment::Moment, status::Status};

/// The handler of a check, from the config. Whether it runs does not depend on its command `C`.
#[derive(Debug, Clone)]
pub struct Handler<C> {
    pub command: C,
    /// As written, for people.
    pub words: String,
    /// The states that it is for.
    pub on: Vec<State>,
    /// Already at the first result of a problem, and not when it is hard.
    pub soft: bool,
    pub timeout: Duration,
    /// The least time between two runs for one service.
    pub cooldown: Duration,
    /// How often it runs for one service in 24 hours.
    pub per_day: usize,
}

/// The runs for one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runs {
    /// In the last 24 hours.
    at: VecDeque<Moment>,
    running: bool,
}

/// Whether to run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Run,
    /// It would run, but must not now, and why.
    Skip(&'static str),
    /// This result is nothing for it.
    Nothing,
}

impl Runs {
    /// Decides after a result. `before` and `after` are the status around it.
    pub fn decide<C>(
        &mut self,
        handler: &Handler<C>,
        before: Status,
        after: Status,
        now: Moment,
    ) -> Decision {
        let (problem, fits) = match after {
            Status::Ok => return Decision::Nothing,
            Status::Soft { problem, attempt } => (problem, handler.soft && attempt == 1),
            Status::Hard(problem) => {
                let is_new = before.hard() != after.hard();
                // With one attempt a problem is hard at once and never soft.
                (problem, is_new && (!handler.soft || before == Status::Ok))
            }
        };
        if !fits || !handler.on.contains(&problem.into()) {
            return Decision::Nothing;
        }
        while self.at.front().is_some_and(|&at| now.since(at) >= DAY) {
            self.at.pop_front();
        }
        if self.running {
            return Decision::Skip("its last run has not ended");
        }
        if self.at.back().is_some_and(|&at| now.since(at) < handler.cooldown) {
            return Decision::Skip("its cooldown is not over");
        }
        if self.at.len() >= handler.per_day {
            return Decision::Skip("it has reached its limit per day");
        }
        self.running = true;
        self.at.push_back(now);
        Decision::Run
    }

    pub fn on_ended(&mut self) {
        self.running = false;
    }
}

const DAY: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Problem;

    const SOFT: Status = Status::Soft { problem: Problem::Critical, attempt: 1 };
    const HARD: Status = Status::Hard(Problem::Critical);

    fn handler(soft: bool) -> Handler<()> {
        Handler {
            command: (),
            words: "/bin/true".into(),
            on: vec![State::Critical],
            soft,
            timeout: Duration::from_secs(30),
            cooldown: Duration::from_mins(10),
            per_day: 3,
        }
    }

    fn at(minute: u64) -> Moment {
        Moment(Duration::from_mins(minute))
    }

    #[test]
    fn it_runs_once_for_each_problem() {
        let mut runs = Runs::default();
        let handler = handler(false);
        assert_eq!(runs.decide(&handler, Status::Ok, SOFT, at(0)), Decision::Nothing);
        assert_eq!(runs.decide(&handler, SOFT, HARD, at(1)), Decision::Run);
        runs.on_ended();
        assert_eq!(runs.decide(&handler, HARD, HARD, at(30)), Decision::Nothing);
        let warning = Status::Hard(Problem::Warning);
        assert_eq!(runs.decide(&handler, Status::Ok, warning, at(31)), Decision::Nothing);
        assert_eq!(runs.decide(&handler, warning, HARD, at(32)), Decision::Run);
    }

    #[test]
    fn a_handler_for_soft_problems_runs_before_anybody_is_told() {
        let mut runs = Runs::default();
        let handler = handler(true);
        assert_eq!(runs.decide(&handler, Status::Ok, SOFT, at(0)), Decision::Run);
        runs.on_ended();
        let second = Status::Soft { problem: Problem::Critical, attempt: 2 };
        assert_eq!(runs.decide(&handler, SOFT, second, at(1)), Decision::Nothing);
        assert_eq!(runs.decide(&handler, second, HARD, at(20)), Decision::Nothing);
        assert_eq!(runs.decide(&handler, Status::Ok, HARD, at(40)), Decision::Run, "never soft");
    }

    #[test]
    fn it_is_bounded_by_time_by_day_and_by_itself() {
        let mut runs = Runs::default();
        let handler = handler(false);
        let decide = |runs: &mut Runs, minute| runs.decide(&handler, Status::Ok, HARD, at(minute));
        assert_eq!(decide(&mut runs, 0), Decision::Run);
        assert_eq!(decide(&mut runs, 20), Decision::Skip("its last run has not ended"));
        runs.on_ended();
        assert_eq!(decide(&mut runs, 5), Decision::Skip("its cooldown is not over"));
        for minute in [20, 40] {
            assert_eq!(decide(&mut runs, minute), Decision::Run);
            runs.on_ended();
        }
        assert_eq!(decide(&mut runs, 60), Decision::Skip("it has reached its limit per day"));
        assert_eq!(decide(&mut runs, 24 * 60 + 1), Decision::Run);
    }
}
