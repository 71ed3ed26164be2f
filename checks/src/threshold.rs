//! Warning and critical ranges in the syntax of the plugin guidelines, `[@]start:end`.
//!
//! Both bounds belong to the range. A missing start is 0, a missing end is infinity, `~` is minus
//! infinity. A value *outside* the range alerts; with a leading `@`, a value *inside* does. As in
//! monitoring-plugins 3.x, and unlike older versions, trailing characters are an error: `10x:20` is
//! not 10.

use std::{fmt, str::FromStr};

use crate::State;

/// A range that decides whether a value alerts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    start: f64,
    end: f64,
    alert_inside: bool,
}

/// Why a text is not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error(
        "{0:?} is not a number; write a range as [@]start:end, for example \"10\", \"10:\", \"~:10\" or \"@10:20\""
    )]
    NotANumber(String),
    #[error("{0:?} starts after its end")]
    StartAfterEnd(String),
}

impl Range {
    /// Alerts above `limit` (and below 0), written `limit`.
    pub const fn above(limit: f64) -> Self {
        Self { start: 0.0, end: limit, alert_inside: false }
    }

    /// Alerts below `limit`, written `limit:`.
    pub const fn below(limit: f64) -> Self {
        Self { start: limit, end: f64::INFINITY, alert_inside: false }
    }

    /// Alerts above `limit`, but not below 0, written `~:limit`.
    pub(crate) const fn only_above(limit: f64) -> Self {
        Self { start: f64::NEG_INFINITY, end: limit, alert_inside: false }
    }

    /// Alerts below `low` and above `high`, written `low:high`.
    pub(crate) const fn between(low: f64, high: f64) -> Self {
        Self { start: low, end: high, alert_inside: false }
    }

    /// How a value that alerts crosses this range, in words: `above 90`.
    pub(crate) fn crossed(self, value: f64) -> String {
        let Self { start, end, alert_inside } = self;
        match (alert_inside, value > end) {
            (true, _) => format!("between {} and {}", Number(start), Number(end)),
            (false, true) => format!("above {}", Number(end)),
            (false, false) => format!("below {}", Number(start)),
        }
    }

    /// Whether `value` alerts. NaN is outside of every range, so it alerts unless the range has an
    /// `@`.
    pub fn alerts(self, value: f64) -> bool {
        (self.start <= value && value <= self.end) == self.alert_inside
    }

    /// The range that a value must reach to clear an alert of this range: each bound is a tenth
    /// harder to reach. A range too narrow for that stays as it is.
    fn to_clear(self) -> Self {
        let outwards = if self.alert_inside { -EASE } else { EASE };
        let margin = |bound: f64| if bound.is_finite() { bound.abs() * outwards } else { 0.0 };
        let eased = Self { start: self.start + margin(self.start), end: self.end - margin(self.end), ..self };
        if eased.start < eased.end { eased } else { self }
    }

    /// Whether this range is strictly within another one, and alerts outside as that one does: a
    /// value between the two alerts here and not there.
    pub(crate) fn is_inside(self, other: Self) -> bool {
        !self.alert_inside
            && !other.alert_inside
            && other.start <= self.start
            && self.end <= other.end
            && (other.start, other.end) != (self.start, self.end)
    }

    /// The limit of a range that only alerts above it.
    pub(crate) fn upper(self) -> Option<f64> {
        (!self.alert_inside && self.start <= 0.0 && self.end.is_finite()).then_some(self.end)
    }

    /// The same range in a unit that is smaller by `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { start: scaled(self.start, factor), end: scaled(self.end, factor), ..self }
    }
}

/// The product. If the factor is 0.001 or another small power of ten, it is the number with a
/// shifted point: 36 ms are 0.036 s and not 0.036000000000000004 s.
pub(crate) fn scaled(value: f64, factor: f64) -> f64 {
    let exponent = factor.log10();
    if factor < 1.0 && exponent.fract().abs() < f64::EPSILON {
        format!("{value}e{exponent}").parse().unwrap_or(value * factor)
    } else {
        value * factor
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (alert_inside, bounds) = match text.strip_prefix('@') {
            Some(bounds) => (true, bounds),
            None => (false, text),
        };
        let wrong = || RangeError::NotANumber(text.to_owned());
        let number = |text| number(text).ok_or_else(wrong);
        let (start, end) = match bounds.split_once(':') {
            None => (0.0, number(bounds)?),
            Some(("", "")) => return Err(wrong()),
            Some((start, end)) => (
                match start {
                    "" => 0.0,
                    "~" => f64::NEG_INFINITY,
                    start => number(start)?,
                },
                if end.is_empty() { f64::INFINITY } else { number(end)? },
            ),
        };
        if start > end {
            return Err(RangeError::StartAfterEnd(text.to_owned()));
        }
        Ok(Self { start, end, alert_inside })
    }
}

/// The shortest text that reads back as the same range.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.alert_inside {
            f.write_str("@")?;
        }
        if self.start == f64::NEG_INFINITY {
            f.write_str("~:")?;
        } else if self.start != 0.0 || self.end == f64::INFINITY {
            write!(f, "{}:", Number(self.start))?;
        }
        if self.end < f64::INFINITY { write!(f, "{}", Number(self.end)) } else { Ok(()) }
    }
}

/// A decimal number with point and exponent. Unlike [`f64::from_str`], this does not accept `inf`,
/// `nan` or numbers that overflow.
pub(crate) fn number(text: &str) -> Option<f64> {
    let plausible = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-' | b'e' | b'E'));
    let number: f64 = if plausible { text.parse().ok()? } else { return None };
    number.is_finite().then_some(number)
}

/// Prints a number so that it reads back as the same number, with an exponent if it would be very
/// long.
pub(crate) struct Number(pub(crate) f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size >= 1e17 || (size < 1e-5 && size > 0.0) {
            write!(f, "{:e}", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// The warning and critical ranges of a check.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Thresholds {
    pub warn: Option<Range>,
    pub crit: Option<Range>,
}

impl Thresholds {
    /// The critical range is checked before the warning range.
    pub fn judge(self, value: f64) -> State {
        let alerts = |range: Option<Range>| range.is_some_and(|range| range.alerts(value));
        if alerts(self.crit) {
            State::Critical
        } else if alerts(self.warn) {
            State::Warning
        } else {
            State::Ok
        }
    }

    /// Like [`Self::judge`] for a value that hovers: a limit that was crossed at the last result
    /// clears when the value is a tenth back.
    pub fn judge_after(self, value: f64, before: State) -> State {
        let eased = |range: Option<Range>| range.map(Range::to_clear);
        let limits = match before {
            State::Critical => Self { warn: eased(self.warn), crit: eased(self.crit) },
            State::Warning => Self { warn: eased(self.warn), ..self },
            State::Ok | State::Unknown => self,
        };
        limits.judge(value)
    }
}

const EASE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn each_form_of_a_range_alerts_as_in_the_guidelines() {
        // range, values that alert, values that do not
        let cases: &[(&str, &[f64], &[f64])] = &[
            ("10", &[-0.001, 10.001, -5.0], &[0.0, 5.0, 10.0]),
            ("10:", &[9.999, -1.0], &[10.0, 1e300]),
            ("~:10", &[10.001], &[-1e300, 0.0, 10.0]),
            ("10:20", &[9.999, 20.001], &[10.0, 15.0, 20.0]),
            ("@10:20", &[10.0, 15.0, 20.0], &[9.999, 20.001]),
            (":5.75", &[-0.1, 5.751], &[0.0, 5.75]),
            ("@1:1", &[1.0], &[0.999, 1.001]),
            ("1:1", &[0.999, 1.001], &[1.0]),
            ("0", &[-0.1, 0.1], &[0.0]),
            ("@~:0", &[-3.0, 0.0], &[0.1]),
            ("@0", &[0.0], &[-0.1, 0.1]),
            ("-10:-5", &[-10.1, -4.9, 0.0], &[-10.0, -5.0]),
            ("12345678901234567890:", &[1.0, 12_345_678_901_234_560_000.0], &[12_345_678_901_234_567_890.0]),
            ("1e3:", &[999.0], &[1000.0]),
        ];
        for (text, alerting, quiet) in cases {
            for &value in *alerting {
                assert!(range(text).alerts(value), "{text} should alert at {value}");
            }
            for &value in *quiet {
                assert!(!range(text).alerts(value), "{text} should not alert at {value}");
            }
        }
    }

    #[test]
    fn invalid_ranges_are_errors() {
        for text in [
            "", "@", ":", "@:", "~", "~10", "2:1", "@2:1", "a", "1:b", "10x:20", "1:12%%", "1,5", "inf",
            "nan:", "1e999", "1:2:3", " 1",
        ] {
            assert!(text.parse::<Range>().is_err(), "{text:?}");
        }
        assert_eq!("2:1".parse::<Range>(), Err(RangeError::StartAfterEnd("2:1".into())));
    }

    #[test]
    fn a_crossed_range_is_told_in_words() {
        assert_eq!(range("10").crossed(11.5), "above 10");
        assert_eq!(range("10:").crossed(9.0), "below 10");
        assert_eq!(Range::between(11.4, 12.6).crossed(11.0), "below 11.4");
        assert_eq!(range("@0:5").crossed(3.0), "between 0 and 5");
    }

    #[test]
    fn a_problem_ends_a_tenth_below_its_limit() {
        let limits = Thresholds { warn: Some(Range::above(75.0)), crit: Some(Range::above(90.0)) };
        let mut was = State::Ok;
        let mut after = |value| {
            was = limits.judge_after(value, was);
            was
        };
        assert_eq!(after(70.0), State::Ok);
        assert_eq!(after(76.0), State::Warning);
        assert_eq!(after(70.0), State::Warning);
        assert_eq!(after(91.0), State::Critical);
        assert_eq!(after(85.0), State::Critical);
        assert_eq!(after(70.0), State::Warning);
        assert_eq!(after(67.0), State::Ok);
        assert_eq!(after(70.0), State::Ok);
    }

    #[test]
    fn a_value_that_is_not_a_number_alerts() {
        assert!(range("10").alerts(f64::NAN));
        assert!(!range("@10").alerts(f64::NAN));
    }

    #[test]
    fn the_critical_range_is_checked_before_the_warning_range() {
        let both = Thresholds { warn: Some(range("5")), crit: Some(range("10")) };
        assert_eq!(
            [3.0, 7.0, 11.0].map(|value| both.judge(value)),
            [State::Ok, State::Warning, State::Critical]
        );
        let swapped = Thresholds { warn: Some(range("10")), crit: Some(range("5")) };
        assert_eq!(swapped.judge(7.0), State::Critical);
        assert_eq!(Thresholds::default().judge(7.0), State::Ok);
    }

    #[test]
    fn a_limit_clears_when_the_value_is_a_tenth_back() {
        let states = |limits: Thresholds, values: &[f64]| {
            let mut state = State::Ok;
            let mut step = |&value| {
                state = limits.judge_after(value, state);
                state.name().chars().next().unwrap()
            };
            values.iter().map(&mut step).collect::<String>()
        };
        let above = Thresholds { warn: Some(range("80")), crit: Some(range("90")) };
        assert_eq!(states(above, &[79.0, 81.0, 79.0, 73.0, 71.0, 79.0]), "OWWWOO");
        assert_eq!(states(above, &[91.0, 89.0, 82.0, 80.5, 79.0, 71.0]), "CCCWWO");
        let below = Thresholds { warn: Some(range("10:")), crit: None };
        assert_eq!(states(below, &[10.0, 9.0, 10.5, 11.5]), "OWWO");
        let inside = Thresholds { warn: Some(range("@10:20")), crit: None };
        assert_eq!(states(inside, &[9.5, 10.0, 9.5, 8.9]), "OWWO");
        let exactly_one = Thresholds { warn: Some(range("1:1")), crit: None };
        assert_eq!(states(exactly_one, &[1.0, 2.0, 1.0]), "OWO");
        let none = Thresholds { warn: Some(range("0")), crit: None };
        assert_eq!(states(none, &[0.0, 1.0, 0.0]), "OWO");
    }

    #[test]
    fn ranges_print_in_their_shortest_form() {
        for (text, printed) in
            [("0:10", "10"), ("0:", "0:"), ("~:", "~:"), ("@0:5.5", "@5.5"), ("-1:2", "-1:2")]
        {
            assert_eq!(range(text).to_string(), printed);
        }
    }

    proptest! {
        #[test]
        fn a_printed_range_parses_to_the_same_range(start in proptest::num::f64::NORMAL, length in 0.0..1e300, open in 0..4, alert_inside: bool) {
            let mut range = Range { start, end: start + length, alert_inside };
            if open & 1 == 1 { range.start = f64::NEG_INFINITY; }
            if open & 2 == 2 { range.end = f64::INFINITY; }
            prop_assume!(range.end == f64::INFINITY || range.end.is_finite());
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn any_text_is_a_range_or_an_error(text in "[@~:0-9.eE+-]{0,12}|\\PC{0,20}") {
            if let Ok(range) = text.parse::<Range>() {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }
    }
}
