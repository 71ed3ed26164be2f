//! Escalation policies and their runs.
//!
//! ```text
//!            start                  poll (last step of the last round)
//!   Idle ───────────▶ Running ─────────────────────────────▶ Done
//!                      │   ▲                                  │
//!                pause │   │ resume (time stood still)        │ pause
//!                      ▼   │                                  ▼
//!                     Paused ◀────────────────────────────────┘ (resumes as Done)
//! ```
//!
//! A run has its own copy of the policy, so that a change of the config neither skips nor repeats a
//! step of an open incident. The times of steps count from the start of their round.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::moment::{between, later};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub name: String,
    /// At least one step; `after` never decreases.
    pub steps: Vec<Step>,
    /// How many times to repeat all steps.
    pub repeat: u32,
    /// Time from the start of one round to the start of the next; not shorter than the last
    /// `after`.
    pub repeat_every: Duration,
}

impl Policy {
    /// From the last step of a round to the next round, if the policy does not set `repeat_every`.
    pub const REPEAT_PAUSE_DEFAULT: Duration = Duration::from_mins(30);

    /// One step that notifies one receiver.
    pub fn only(name: &str, receiver: &str) -> Self {
        Self {
            name: name.into(),
            steps: vec![Step { after: Duration::ZERO, notify: vec![receiver.into()] }],
            repeat: 0,
            repeat_every: Self::REPEAT_PAUSE_DEFAULT,
        }
    }

    /// The policy of a route with `receiver = …`.
    pub fn of_receiver(receiver: &str) -> Self {
        Self::only(&Self::name_of_receiver(receiver), receiver)
    }

    /// Names in a config have no space, so none of them can be this one.
    pub fn name_of_receiver(receiver: &str) -> String {
        format!("receiver {receiver}")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub after: Duration,
    /// Names of receivers, users or schedules.
    pub notify: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    pub policy: Policy,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// Not started; nobody was notified.
    Idle,
    Running(Position),
    /// Stopped since a time, because the incident is acknowledged or suppressed.
    #[serde(rename = "held")]
    Paused {
        position: Position,
        since: Timestamp,
    },
    Done,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Counted from 0.
    pub step: usize,
    /// Counted from 0.
    pub round: u32,
    round_began: Timestamp,
}

impl Escalation {
    pub fn new(policy: Policy) -> Self {
        Self { policy, phase: Phase::Idle }
    }

    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// Starts with the first step, whether or not it ran before.
    pub fn restart(&mut self, now: Timestamp) {
        self.phase = Phase::Running(Position { step: 0, round: 0, round_began: now });
    }

    /// Resets to the state before the start.
    pub fn reset(&mut self) {
        self.phase = Phase::Idle;
    }

    /// Stops the clock of the steps.
    pub fn pause(&mut self, now: Timestamp) {
        if let Phase::Running(position) = self.phase {
            self.phase = Phase::Paused { position, since: now };
        }
    }

    pub fn resume(&mut self, now: Timestamp) {
        if let Phase::Paused { mut position, since } = self.phase {
            position.round_began = later(position.round_began, between(since, now));
            self.phase = Phase::Running(position);
        }
    }

    /// It cannot have begun or stopped later than `now`, and the next round not later than its
    /// pause permits: the clock was ahead.
    pub fn not_after(&mut self, now: Timestamp) {
        let position = match &mut self.phase {
            Phase::Running(position) => position,
            Phase::Paused { position, since } => {
                *since = (*since).min(now);
                position
            }
            Phase::Idle | Phase::Done => return,
        };
        let wait = if position.round == 0 { Duration::ZERO } else { self.policy.repeat_every };
        position.round_began = position.round_began.min(later(now, wait));
    }

    /// Returns the due step and advances to the next. Call until `None`.
    pub fn poll(&mut self, now: Timestamp) -> Option<Position> {
        let Phase::Running(due) = self.phase else { return None };
        if self.due_at(due) > now {
            return None;
        }
        self.phase = if due.step + 1 < self.policy.steps.len() {
            Phase::Running(Position { step: due.step + 1, ..due })
        } else if due.round < self.policy.repeat {
            let round_began = later(due.round_began, self.policy.repeat_every);
            Phase::Running(Position { step: 0, round: due.round + 1, round_began })
        } else {
            Phase::Done
        };
        Some(due)
    }

    /// A receiver could not be reached: makes the next step of this round due now, and returns true
    /// if there is one. Later steps keep their distance to it. A round never starts early, because
    /// that would notify people again who were reached.
    pub fn hasten(&mut self, now: Timestamp) -> bool {
        let early = |position: Position, at: Timestamp| Position {
            round_began: at.saturating_sub(self.policy.steps[position.step].after).unwrap_or(Timestamp::MIN),
            ..position
        };
        match self.phase {
            Phase::Running(position) if position.step > 0 && self.due_at(position) > now => {
                self.phase = Phase::Running(early(position, now));
                true
            }
            Phase::Paused { position, since } if position.step > 0 => {
                self.phase = Phase::Paused { position: early(position, since), since };
                true
            }
            Phase::Idle | Phase::Running(_) | Phase::Paused { .. } | Phase::Done => false,
        }
    }

    /// The next step and its time; `None` while stopped and when all steps are done.
    pub fn next(&self) -> Option<(Position, Timestamp)> {
        match self.phase {
            Phase::Running(position) => Some((position, self.due_at(position))),
            Phase::Idle | Phase::Paused { .. } | Phase::Done => None,
        }
    }

    fn due_at(&self, position: Position) -> Timestamp {
        let after = self.policy.steps.get(position.step).map_or(Duration::ZERO, |step| step.after);
        later(position.round_began, after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn policy(minutes: &[u64], repeat: u32, every: u64) -> Escalation {
        let step = |&minute: &u64| Step { after: Duration::from_secs(minute * 60), notify: vec![] };
        Escalation::new(Policy {
            name: "p".into(),
            steps: minutes.iter().map(step).collect(),
            repeat,
            repeat_every: Duration::from_secs(every * 60),
        })
    }

    /// One character a minute: `s` starts, `h` pauses, `r` resumes, `f` a receiver failed. Digits
    /// are the steps that ran.
    fn run(mut escalation: Escalation, events: &str) -> String {
        let step_at = |(minute, event)| {
            let now = at(minute);
            match event {
                's' => escalation.restart(now),
                'h' => escalation.pause(now),
                'r' => escalation.resume(now),
                'f' => drop(escalation.hasten(now)),
                _ => {}
            }
            let ran = std::iter::from_fn(|| escalation.poll(now)).map(|due| due.step + 1);
            ran.last().map_or("-".to_owned(), |step| step.to_string())
        };
        (0..).zip(events.chars()).map(step_at).collect()
    }

    #[test]
    fn steps_run_at_their_times_and_rounds_repeat() {
        let events = "..s.............";
        let ran_it = "--1--2---1--2---";
        assert_eq!(run(policy(&[0, 3], 1, 7), events), ran_it);
    }

    #[test]
    fn its_clock_stands_still_while_it_is_held() {
        let events = "s..h....r.......";
        let ran_it = "1--------2------";
        assert_eq!(run(policy(&[0, 4], 0, 5), events), ran_it);
    }

    #[test]
    fn a_failing_receiver_brings_the_next_step_forward_but_not_later_ones() {
        let events = "s.f.............";
        let ran_it = "1-2----3--------";
        assert_eq!(run(policy(&[0, 5, 10], 0, 15), events), ran_it);
    }

    #[test]
    fn a_round_never_begins_early() {
        let events = "s...f.............";
        let ran_it = "1-2-----1-2-------";
        assert_eq!(run(policy(&[0, 2], 1, 8), events), ran_it);
    }

    #[test]
    fn a_finished_run_stays_finished_until_restarted() {
        let events = "s..hr.f.s...";
        let ran_it = "1-2-----1-2-";
        assert_eq!(run(policy(&[0, 2], 0, 5), events), ran_it);
    }
}
