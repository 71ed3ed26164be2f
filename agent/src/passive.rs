//! How long a submitted result is valid. A job that stops reporting is as bad as a job that fails.

use std::time::Duration;

use crate::moment::Moment;

/// The freshness of one passive service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freshness {
    until: Option<Moment>,
}

impl Freshness {
    /// A result arrived at `now`, or monitoring started. It is valid for `span`; `None` means
    /// forever.
    pub fn on_result(&mut self, span: Option<Duration>, now: Moment) {
        self.until = span.map(|span| now + span);
    }

    /// Whether the last result has become stale. True once; then again after [`Self::again_after`].
    pub fn poll_stale(&mut self, now: Moment) -> bool {
        let stale = self.until.is_some_and(|until| until <= now);
        if stale {
            self.until = None;
        }
        stale
    }

    /// The status is still soft: report the stale result again after `span`.
    pub fn again_after(&mut self, span: Duration, now: Moment) {
        self.until = Some(now + span);
    }

    /// A stale result stays valid until `earliest`, because the agent itself paused.
    pub fn not_before(&mut self, earliest: Moment) {
        self.until = self.until.map(|until| until.max(earliest));
    }

    pub fn until(&self) -> Option<Moment> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_valid_for_its_time_and_becomes_stale_once() {
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
    fn a_soft_stale_result_is_reported_again() {
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
