//! Times in which the agent did not run, although it should have: it was stopped (SIGSTOP), its
//! virtual machine was paused, or the host was overloaded. Our own delay is no fault of what we
//! watch.

use std::time::Duration;

use crate::moment::Moment;

/// Notices pauses of the loop.
#[derive(Debug, Default)]
pub struct Pauses {
    /// When the loop wanted to be awake again.
    wake: Option<Moment>,
    /// What the present turn of the loop is late by, if that was a pause.
    now: Duration,
}

impl Pauses {
    /// The loop waits until `wake` at the latest.
    pub fn on_wait(&mut self, wake: Option<Moment>) {
        (self.wake, self.now) = (wake, Duration::ZERO);
    }

    /// The loop is awake. Returns how long the pause before that was, if there was one; once.
    pub fn on_wake(&mut self, now: Moment) -> Option<Duration> {
        let late = now.since(self.wake.take()?);
        if late < PAUSE_MIN {
            return None;
        }
        self.now = late;
        Some(late)
    }

    /// How much of a delay is not ours: of one that is seen in this turn.
    pub fn without(&self, late: Duration) -> Duration {
        late.saturating_sub(self.now)
    }
}

/// Whether the result of a run that a pause fell into counts. Such a check is run once more; but a
/// host that makes us pause again and again must not make us blind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Excuse {
    paused: bool,
    used: u8,
}

impl Excuse {
    /// There was a pause while the check ran.
    pub fn on_pause(&mut self) {
        self.paused = true;
    }

    /// It has ended. Returns whether its result counts.
    pub fn counts(&mut self) -> bool {
        let excused = std::mem::take(&mut self.paused) && self.used < EXCUSES_MAX;
        self.used = if excused { self.used + 1 } else { 0 };
        !excused
    }
}

/// When the loop should be awake although nothing is due, so that a pause is noticed: used while
/// checks run. On a grid, so that the alarm is not set anew in each turn.
pub fn next_beat(now: Moment) -> Moment {
    Moment(Duration::from_secs((now.0.as_secs() / BEAT_S + 1) * BEAT_S))
}

const BEAT_S: u64 = 2;
/// Deadlines are longer than this, and a busy host causes shorter delays.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const EXCUSES_MAX: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_comes_much_too_late_was_a_pause() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.on_wake(at(1_000)), None, "the first one");
        pauses.on_wait(Some(at(1_010)));
        assert_eq!(pauses.on_wake(at(1_014)), None, "only busy");
        assert_eq!(pauses.without(secs(4)), secs(4));
        pauses.on_wait(Some(at(1_020)));
        assert_eq!(pauses.on_wake(at(1_005)), None, "something came before");
        pauses.on_wait(Some(at(1_020)));
        assert_eq!(pauses.on_wake(at(1_080)), Some(secs(60)));
        assert_eq!((pauses.without(secs(61)), pauses.without(secs(3))), (secs(1), secs(0)));
        assert_eq!(pauses.on_wake(at(1_081)), None, "once");
        pauses.on_wait(None);
        assert_eq!(pauses.without(secs(61)), secs(61));
        assert_eq!(pauses.on_wake(at(9_000)), None, "nothing was due");
    }

    #[test]
    fn a_result_is_excused_twice_in_a_row_at_most() {
        let mut excuse = Excuse::default();
        assert!(excuse.counts());
        for counts in [false, false, true, false] {
            excuse.on_pause();
            assert_eq!(excuse.counts(), counts);
        }
        assert!(excuse.counts());
    }

    #[test]
    fn beats_are_on_a_grid() {
        assert_eq!(next_beat(at(10)), at(12));
        assert_eq!(next_beat(Moment(Duration::from_millis(11_999))), at(12));
    }

    fn at(seconds: u64) -> Moment {
        Moment(secs(seconds))
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
