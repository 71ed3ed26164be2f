//! Pauses of this daemon: it was stopped, its machine was suspended, or it was overloaded. Nobody
//! knows what upstreams did meanwhile, so no query that was under way counts against them: its
//! answer may have come and be waiting, or have been lost with the machine asleep.
//!
//! A pause shows as a timer that is handled too late. The queries are *excused*: they can still be
//! answered, and are sent again if they are not, but their lateness, failure and round trip say
//! nothing about the upstream. After [`EXCUSES_MAX`] pauses without an answer from it, they do, or
//! an outage on an overloaded host would never be found.

use std::{cmp::Reverse, time::Duration};

use super::{
    Resolver,
    flight::{Flight, TryState},
};
use crate::moment::Moment;

/// A timer handled so late shows a pause. Timers of a daemon that is not overloaded are a few
/// milliseconds late.
const PAUSE_LEAST: Duration = Duration::from_millis(50);
/// After a pause, answers that are waiting to be read get this long before the question is sent
/// again.
const GRACE: Duration = Duration::from_millis(100);
/// Pauses in a row for which an upstream that does not answer is excused.
const EXCUSES_MAX: u8 = 5;
/// After a longer pause, the measured query rate starts anew.
const RATE_KEPT: Duration = Duration::from_secs(1);

impl Resolver {
    /// Notices a pause. Call it before timers, replies or errors are handled.
    pub(super) fn notice_pause(&mut self, now: Moment) {
        let Some(&Reverse((due, _))) = self.timers.peek() else { return };
        let late = now.since(due);
        if late >= PAUSE_LEAST {
            self.on_pause(due, late, now);
        }
    }

    /// The daemon did not run since `since`, or perhaps longer.
    pub(super) fn on_pause(&mut self, since: Moment, lasted: Duration, now: Moment) {
        self.counts.pauses += 1;
        for zone in self.zones.ids() {
            let zone = self.zones.get_mut(zone);
            if lasted >= RATE_KEPT {
                zone.baseline.skip(now);
            }
            zone.group.on_pause();
        }
        let zones = &self.zones;
        for (&id, flight) in &mut self.flights {
            let group = &zones.get(flight.zone).group;
            let excusable =
                |upstream: usize| group.all().get(upstream).is_some_and(|one| one.pauses <= EXCUSES_MAX);
            if flight.excuse(since, now + GRACE, excusable) {
                self.timers.push(Reverse((flight.next_event(), id)));
            }
        }
    }
}

impl Flight {
    /// Excuses the tries sent until `since`, and waits for them until `until`. Returns whether
    /// there were any.
    fn excuse(&mut self, since: Moment, until: Moment, excusable: impl Fn(usize) -> bool) -> bool {
        let mut any = false;
        for attempt in &mut self.tries {
            let open = matches!(attempt.state, TryState::Pending | TryState::Late | TryState::OtherCase);
            if open && attempt.sent <= since && excusable(attempt.upstream) {
                attempt.excused = true;
                attempt.late_at = attempt.late_at.max(until);
                any = true;
            }
        }
        if any {
            self.last_try_at = self.last_try_at.max(until).min(self.deadline);
        }
        any
    }

    /// It failed during a pause of this daemon, and no upstream is known to have failed it.
    pub(super) fn blameless(&self) -> bool {
        self.tries.iter().any(|attempt| attempt.excused)
            && !self
                .tries
                .iter()
                .any(|attempt| !attempt.excused && matches!(attempt.state, TryState::Failed(_)))
    }
}
