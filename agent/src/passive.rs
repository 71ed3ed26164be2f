//! How long a submitted result holds. A job that stops reporting is as bad as one that fails.

use std::time::Duration;

use crate::moment::Moment;

/// One passive service's freshness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freshness {
    until: Option<Moment>,
}

impl Freshness {
    /// A result (or the start of watching) at `now` that holds for `span`; `None`: for ever.
    pub fn on_result(&mut self, span: Option<Duration>, now: Moment) {
        self.until = span.map(|span| now + span);
    }

    /// Whether the last result has grown stale: true once, and again after `again` while `soft`, until it is believed.
    pub fn poll_stale(&mut self, now: Moment) -> bool {
        let stale = self.until.is_some_and(|until| until <= now);
        if stale {
            self.until = None;
        }
        stale
    }

    /// The stale result is soft: say it again after `span`.
    pub fn again_after(&mut self, span: Duration, now: Moment) {
        self.until = Some(now + span);
    }

    pub fn until(&self) -> Option<Moment> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_holds_as_long_as_it_said_and_is_stale_once() {
        let mut freshness = Freshness::default();
        freshness.on_result(Some(HOUR), at(0));
        assert!(!freshness.poll_stale(at(3_599)));
        assert!(freshness.poll_stale(at(3_600)));
        assert!(!freshness.poll_stale(at(9_999)));
        freshness.on_result(Some(HOUR), at(10_000));
        assert_eq!(freshness.until(), Some(at(13_600)));
        freshness.on_result(None, at(11_000));
        assert!(!freshness.poll_stale(at(99_999)));
    }

    #[test]
    fn while_it_is_not_believed_it_is_said_again() {
        let mut freshness = Freshness::default();
        freshness.on_result(Some(HOUR), at(0));
        assert!(freshness.poll_stale(at(3_600)));
        freshness.again_after(Duration::from_secs(15), at(3_600));
        assert!(!freshness.poll_stale(at(3_614)));
        assert!(freshness.poll_stale(at(3_615)));
    }

    const HOUR: Duration = Duration::from_hours(1);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }
}
