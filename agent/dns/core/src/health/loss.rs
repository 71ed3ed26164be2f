//! Does an upstream lose packets? Counted over its last questions, with a gap between the two thresholds, so that an
//! upstream at the edge is not taken for well and ill by turns.
//!
//! An upstream that answers half of all questions is not dead, and its breaker stays closed. But each question to it costs
//! two or three packets and some clients half a second, and most likely it loses them because it has too much to do. So
//! known names are answered stale at once, and it is asked less.

use crate::moment::Moment;

/// Questions that are looked back on.
pub const WINDOW: u32 = 32;
/// Of these, so many without an answer in time make it lossy. One in ten lost does so hardly ever (0.1 % of all windows), …
const LOSSY_AT: u32 = 10;
/// … and one in three lost never lets it go again.
const WELL_AT: u32 = 1;

#[derive(Debug, Default)]
pub struct Loss {
    /// A bit for each of the last questions, the newest the lowest: set if no answer came in time.
    unanswered: u32,
    since: Option<Moment>,
}

impl Loss {
    /// Its answer came in time.
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

    /// What was late came after all: slow is not lost. Which of them it was does not matter.
    pub fn on_late_answer(&mut self) {
        self.unanswered &= self.unanswered.wrapping_sub(1);
    }

    /// How many of the last [`WINDOW`] questions got no answer in time.
    pub fn unanswered(&self) -> u32 {
        self.unanswered.count_ones()
    }

    /// Since when it loses too many.
    pub fn since(&self) -> Option<Moment> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it becomes lossy while each question is lost with this probability, and for how many of them it is.
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
    fn half_lost_is_lossy_for_good_and_a_few_lost_never() {
        assert_eq!(played(0.02), (0, 0));
        let (became, was) = played(0.5);
        assert!(became == 1 && was > 9_950, "{became} times, for {was}");
    }

    #[test]
    fn it_is_well_again_after_one_window_of_answers() {
        let mut loss = Loss::default();
        (0..WINDOW).for_each(|_| loss.on_late(Moment::START));
        assert_eq!((loss.since(), loss.unanswered()), (Some(Moment::START), WINDOW));
        (0..WINDOW - 2).for_each(|_| loss.on_answer());
        assert!(loss.since().is_some());
        loss.on_answer();
        assert_eq!(loss.since(), None);
    }

    #[test]
    fn what_is_only_late_is_not_lost() {
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
