//! The last hours of a value, as a line that fits into a message: `▁▁▂▃▅▇ 62 % → 91 %`.

use std::{collections::VecDeque, time::Duration};

use crate::moment::Moment;

/// Averages of ten minutes, the oldest first; bounded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recent {
    steps: VecDeque<f32>,
    /// Number of the step in progress.
    step: u64,
    sum: f64,
    count: u32,
}

impl Recent {
    pub fn record(&mut self, value: f64, now: Moment) {
        let step = now.0.as_secs() / STEP.as_secs();
        if step != self.step {
            self.close(step);
        }
        self.sum += value;
        self.count += 1;
    }

    fn close(&mut self, next: u64) {
        if self.count > 0 {
            #[expect(clippy::cast_possible_truncation, reason = "a line eight levels high")]
            self.steps.push_back((self.sum / f64::from(self.count)) as f32);
            // A gap, for example a suspended host, is drawn as one step without a value.
            if next > self.step + 1 {
                self.steps.push_back(f32::NAN);
            }
        }
        (self.sum, self.count, self.step) = (0.0, 0, next);
        while self.steps.len() > STEPS_MAX {
            self.steps.pop_front();
        }
    }

    /// The line, from the first step to now, and the time that it covers; `None` while there is
    /// less than half an hour to draw.
    pub fn sparkline(&self) -> Option<(String, Duration)> {
        let mut values: Vec<f32> = self.steps.iter().copied().collect();
        if self.count > 0 {
            #[expect(clippy::cast_possible_truncation, reason = "a line eight levels high")]
            values.push((self.sum / f64::from(self.count)) as f32);
        }
        if values.len() < 3 {
            return None;
        }
        let steps = u32::try_from(values.len()).unwrap_or(u32::MAX);
        Some((sparkline(&values), STEP.saturating_mul(steps)))
    }
}

/// One character per value; a value that is missing is a space.
pub fn sparkline(values: &[f32]) -> String {
    let known = || values.iter().copied().filter(|value| !value.is_nan());
    let (low, high) = (known().fold(f32::INFINITY, f32::min), known().fold(f32::NEG_INFINITY, f32::max));
    let level = |value: f32| {
        if value.is_nan() {
            return ' ';
        }
        let part = if high > low { (value - low) / (high - low) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
        let at = (part * 7.0).round() as usize;
        LEVELS.get(at).copied().unwrap_or('█')
    };
    values.iter().map(|&value| level(value)).collect()
}

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const STEP: Duration = Duration::from_mins(10);
/// Six hours.
const STEPS_MAX: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_last_six_hours() {
        let mut recent = Recent::default();
        for minute in 0..12 * 60 {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            recent.record(minute as f64, Moment(Duration::from_mins(minute)));
            assert_eq!(recent.sparkline().is_some(), minute >= 20, "{minute}");
        }
        let (line, span) = recent.sparkline().unwrap();
        assert_eq!(line.chars().count(), STEPS_MAX + 1);
        assert!(line.starts_with('▁') && line.ends_with('█'), "{line}");
        assert_eq!(span, Duration::from_mins(370));
    }

    #[test]
    fn gaps_and_flat_lines_can_be_drawn() {
        assert_eq!(sparkline(&[1.0, f32::NAN, 1.0]), "▁ ▁");
        assert_eq!(sparkline(&[0.0, 0.5, 1.0]), "▁▅█");
        assert_eq!(sparkline(&[]), "");
    }
}
