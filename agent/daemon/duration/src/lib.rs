//! Durations as people write them: `"90s"`, `"5m"`, `"2h 30m"`, `"1d"`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A span of time from a config file or a command line. Never negative. A number without a unit is
/// an error, because nobody can tell what it means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl Span {
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

/// Nothing here lasts longer. More is a mistake, and would overflow the calendar.
const LONGEST: Duration = Duration::from_hours(3_660 * 24);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a duration; write a number and a unit, like \"30s\", \"5m\", \"2h\" or \"1d\""
            )
        };
        // A day is always 24 h: monitoring intervals do not follow the calendar.
        let mut total = Duration::ZERO;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let seconds = match unit {
                "ms" => 0.001,
                "s" | "sec" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                _ => return Err(wrong()),
            };
            let number: f64 = number.parse().map_err(|_| wrong())?;
            total = Duration::try_from_secs_f64(number * seconds)
                .ok()
                .and_then(|part| total.checked_add(part))
                .ok_or_else(wrong)?;
            rest = tail.trim_start();
        }
        if total > LONGEST {
            return Err(format!("{text:?} is too long; at most 3660d, which is ten years"));
        }
        Ok(Self(total))
    }
}

/// The shortest text that reads back as the same span: `1h30m`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration like \"30s\" or \"5m\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_notations_are_understood() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("2h 30m", 9_000), ("1h30m", 5_400), ("1d", 86_400)]
        {
            assert_eq!(text.parse::<Span>().unwrap(), Span::secs(seconds), "{text}");
        }
        assert_eq!("1.5s".parse::<Span>().unwrap().0, Duration::from_millis(1_500));
        assert_eq!("250ms".parse::<Span>().unwrap().0, Duration::from_millis(250));
    }

    #[test]
    fn a_missing_unit_or_an_overflow_is_an_error() {
        for text in
            ["", "5", "5 minutes ago", "-3s", "s", "1e400d", "99999999999999999999w", "1..2s", "3661d"]
        {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_printed_span_reads_back_as_the_same_span() {
        for text in ["0s", "90ms", "1m30s", "1d2h"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }
}
