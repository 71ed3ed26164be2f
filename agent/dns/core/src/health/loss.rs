//! Detects packet loss, over an upstream's last queries. The gap between the two thresholds keeps
//! an upstream at the limit from switching back and forth.
//!
//! An upstream that answers half of all queries is not dead, and its breaker stays closed. But each
//! query to it costs two or three packets and may cost a client half a second, and it is probably
//! losing packets because it is overloaded. So known names are answered stale at once, and it is
//! asked less.

use crate::moment::Moment;

/// The number of recent queries considered.
pub const WINDOW: u32 = 32;
/// Unanswered queries that make it lossy. With one in ten lost this almost never happens (0.1 % of
/// all windows), …
const LOSSY_AT: u32 = 10;
/// … and with one in three lost it never counts as sound again.
const WELL_AT: u32 = 1;

#[derive(Debug, Default)]
pub struct Loss {
    /// One bit per recent query, newest lowest: set if no answer came in time.
    unanswered: u32,
    since: Option<Moment>,
}

impl Loss {
    /// An answer came in time.
    pub fn on_answer(&mut self) {
        self.unanswered <<= 1;
        if self.unanswered() <= WELL_AT {
            self.since = None;
        }
    }

    pub fn on_late(&mut self, now: Moment) {
        self.unanswered = (self.unanswered << 1) | 1;
        if self.unanswered() >= LOSSY_AT {
            self.since.get_or_insert(now);
        }
    }

    /// A late answer came after all: slow is not lost. It does not matter which query it belonged
    /// to.
    pub fn on_late_answer(&mut self) {
        self.unanswered &= self.unanswered.wrapping_sub(1);
    }

    /// How many of the last [`WINDOW`] queries got no answer in time.
    pub fn unanswered(&self) -> u32 {
        self.unanswered.count_ones()
    }

    /// Since when it has been losing too many.
    pub fn since(&self) -> Option<Moment> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With each query lost at this probability: how often it becomes lossy, and for how many
    /// queries it is.
    fn played(share: f64) -> (u32, u32) {
        let mut random = fastrand::Rng::with_seed(7);
        let mut loss = Loss::default();
        let (mut became, mut was) = (0, 0);
        for _ in 0..10_000 {
            let before = loss.since().is_some();
            if random.f64() < share {
                loss.on_late(Moment::START);
            } else {
                loss.on_answer();
            }
            became += u32::from(!before && loss.since().is_some());
            was += u32::from(loss.since().is_some());
        }
        (became, was)
    }

    #[test]
    fn losing_half_is_always_lossy_and_losing_a_few_never() {
        assert_eq!(played(0.02), (0, 0));
        let (became, was) = played(0.5);
        assert!(became == 1 && was > 9_950, "{became} times, for {was}");
    }

    #[test]
    fn it_is_sound_again_after_one_window_of_answers() {
        let mut loss = Loss::default();
        (0..WINDOW).for_each(|_| loss.on_late(Moment::START));
        assert_eq!((loss.since(), loss.unanswered()), (Some(Moment::START), WINDOW));
        (0..WINDOW - 2).for_each(|_| loss.on_answer());
        assert!(loss.since().is_some());
        loss.on_answer();
        assert_eq!(loss.since(), None);
    }

    #[test]
    fn late_answers_do_not_count_as_lost() {
        let mut loss = Loss::default();
        for _ in 0..1_000 {
            loss.on_late(Moment::START);
            loss.on_late_answer();
        }
        assert_eq!((loss.since(), loss.unanswered()), (None, 0));
        loss.on_late_answer();
        assert_eq!(loss.unanswered(), 0);
    }
}
