//! Limits for free memory, swap and disk space: a percentage, a size, or both.
//!
//! A percentage means *free*, as in `check_disk` and `check_swap`; for used space write `"80%
//! used"`. With both, `"10%,50GiB"`, the check alerts only below both, because a tenth of 20 TB is
//! plenty.

use std::{fmt, str::FromStr};

use crate::{
    State,
    options::Reader,
    perfdata::Perf,
    threshold::{Number, Range, number},
};

/// Alerts if less is free. At least one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    percent: Option<f64>,
    bytes: Option<f64>,
}

impl Limit {
    pub(crate) const fn percent(percent: f64) -> Self {
        Self { percent: Some(percent), bytes: None }
    }

    pub(crate) const fn percent_and_gib(percent: f64, gib: f64) -> Self {
        Self { percent: Some(percent), bytes: Some(gib * GIB) }
    }

    /// How much of `total` must be free.
    pub(crate) fn floor(self, total: f64) -> f64 {
        let of_total = self.percent.map_or(f64::INFINITY, |percent| total * percent / 100.0);
        of_total.min(self.bytes.unwrap_or(f64::INFINITY))
    }

    /// Whether everything that is below `self` is also below `other`.
    fn is_stricter_than(self, other: Self) -> bool {
        let above = |a: Option<f64>, b: Option<f64>| matches!((a, b), (Some(a), Some(b)) if a > b);
        above(self.percent, other.percent) || above(self.bytes, other.bytes)
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limit = Self { percent: None, bytes: None };
        for part in text.split(',').map(str::trim) {
            let wrong = || {
                format!(
                    "{part:?} is not an amount of free space; write for example \"10%\", \"80% used\" or \"5GiB\""
                )
            };
            if let Some((percent, rest)) = part.split_once('%') {
                let percent = number(percent.trim()).filter(|percent| (0.0..=100.0).contains(percent));
                let percent = percent.ok_or_else(wrong)?;
                limit.percent = Some(match rest.trim() {
                    "" | "free" => percent,
                    "used" => 100.0 - percent,
                    _ => return Err(wrong()),
                });
            } else {
                if number(part).is_some() {
                    return Err(format!("{part:?} has no unit; write \"{part}%\" or \"{part}GiB\""));
                }
                limit.bytes = Some(bytes(part).filter(|bytes| *bytes <= LARGEST).ok_or_else(wrong)?);
            }
        }
        Ok(limit)
    }
}

/// The range of used space that a limit in the words of the config allows: `10% free`, `80% used`,
/// `5GiB`, `5GiB free`. `total` is the size of the whole, in bytes.
///
/// # Errors
///
/// The text is not such a limit.
pub fn used_range(text: &str, total: f64) -> Result<Range, String> {
    let limit: Limit = text.trim().trim_end_matches("free").trim().parse()?;
    Ok(Range::above((total - limit.floor(total)).max(0.0)))
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percent, self.bytes) {
            (Some(percent), Some(bytes)) => write!(f, "{}%,{}", Number(percent), human(bytes)),
            (Some(percent), None) => write!(f, "{}%", Number(percent)),
            (None, Some(bytes)) => f.write_str(&human(bytes)),
            (None, None) => f.write_str("nothing"),
        }
    }
}

/// The warning and critical limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    pub(crate) warn: Limit,
    pub(crate) crit: Limit,
}

impl Limits {
    /// Reads both options. A warning limit beyond the critical limit is an error.
    pub(crate) fn take(reader: &mut Reader<'_>, warn: &str, crit: &str, defaults: Self) -> Self {
        let limits = Self {
            warn: reader.value(warn).unwrap_or(defaults.warn),
            crit: reader.value(crit).unwrap_or(defaults.crit),
        };
        if limits.crit.is_stricter_than(limits.warn) {
            reader.error(
                if limits.warn == defaults.warn { crit } else { warn },
                format!(
                    "the warning limit ({} free) must be above the critical limit ({} free); limits are free space, for used space write \"80% used\"",
                    limits.warn, limits.crit
                ),
            );
        }
        limits
    }

    /// The state after `was`. A limit that was broken counts until a tenth more is free, so that a
    /// value that hovers around it does not alert each time.
    pub(crate) fn judge_after(self, was: State, free: f64, total: f64) -> State {
        let eased = |limit: Limit, broken: bool| limit.floor(total) * if broken { 1.1 } else { 1.0 };
        if free < eased(self.crit, was == State::Critical) {
            State::Critical
        } else if free < eased(self.warn, matches!(was, State::Warning | State::Critical)) {
            State::Warning
        } else {
            State::Ok
        }
    }

    /// The limit that a state stands for, `limit 10% and 50.0 GiB`.
    pub(crate) fn said(self, state: State) -> Option<String> {
        let limit = match state {
            State::Critical => self.crit,
            State::Warning => self.warn,
            State::Ok | State::Unknown => return None,
        };
        Some(format!("limit {}", limit.to_string().replace(',', " and ")))
    }

    /// Performance data for *used* space, as in `check_disk` 2.x.
    pub(crate) fn perf(self, label: impl Into<String>, unit: &str, free: f64, total: f64) -> Perf {
        let range = |limit: Limit| Some(Range::above((total - limit.floor(total)).max(0.0).floor()));
        Perf::new(label, total - free, unit).thresholds(range(self.warn), range(self.crit)).bounds(0.0, total)
    }
}

pub(crate) fn percent(part: f64, total: f64) -> f64 {
    if total > 0.0 { part / total * 100.0 } else { 0.0 }
}

const GIB: f64 = 1_073_741_824.0;
/// 1 EiB: no filesystem of Linux is larger in practice, so more is a mistake.
const LARGEST: f64 = GIB * 1_073_741_824.0;

/// A size as an option.
pub(crate) fn size(text: &str) -> Result<f64, String> {
    bytes(text).filter(|bytes| *bytes <= LARGEST).ok_or_else(|| {
        format!("{text:?} is not a size up to {}; write for example \"500MiB\" or \"2GiB\"", human(LARGEST))
    })
}

/// `5GiB`, `500 MB`, `1024`.
fn bytes(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (amount, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1_024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => GIB,
        "t" | "tib" => 1_024.0 * GIB,
        _ => return None,
    };
    Some(number(amount)? * factor)
}

/// `12.3 GiB`.
pub(crate) fn human(bytes: f64) -> String {
    let mut amount = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1_024.0 {
            return if unit == "B" { format!("{amount:.0} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1_024.0;
    }
    format!("{amount:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Limit {
        text.parse().unwrap()
    }

    #[test]
    fn a_limit_is_a_percentage_or_a_size_of_free_or_used_space() {
        for (text, floor_of_1000) in [
            ("10%", 100.0),
            ("10% free", 100.0),
            ("80% used", 200.0),
            ("50 B", 50.0),
            ("1KB", 1_000.0),
            ("10%, 50B", 50.0),
        ] {
            assert!((limit(text).floor(1_000.0) - floor_of_1000).abs() < 1e-9, "{text}");
        }
        assert!((limit("2GiB").floor(1e12) - 2.0 * GIB).abs() < 1.0);
        for wrong in ["", "ten", "110%", "-1%", "10% full", "15", "5 parsecs", "10%,,"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_limit_of_free_space_is_a_range_of_used_space() {
        for (text, above) in [("10% free", 90.0), ("80% used", 80.0), ("5 B free", 95.0), ("5B", 95.0)] {
            assert_eq!(used_range(text, 100.0), Ok(Range::above(above)), "{text}");
        }
        assert!(used_range("much", 100.0).is_err());
    }

    #[test]
    fn a_tenth_of_a_huge_disk_does_not_alert() {
        let limits =
            Limits { warn: Limit::percent_and_gib(10.0, 50.0), crit: Limit::percent_and_gib(5.0, 5.0) };
        assert_eq!(limits.judge_after(State::Ok, 600.0 * GIB, 20_000.0 * GIB), State::Ok);
        assert_eq!(limits.judge_after(State::Ok, 40.0 * GIB, 20_000.0 * GIB), State::Warning);
        assert_eq!(limits.judge_after(State::Ok, 1.5 * GIB, 20.0 * GIB), State::Warning);
        assert_eq!(limits.judge_after(State::Ok, 0.5 * GIB, 20.0 * GIB), State::Critical);
        assert_eq!(limits.judge_after(State::Ok, 4.0 * GIB, 20_000.0 * GIB), State::Critical);
    }

    #[test]
    fn a_broken_limit_is_cleared_by_a_tenth_more() {
        let limits = Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) };
        let states = |frees: &[f64]| {
            let mut was = State::Ok;
            let mut next = |free: &f64| {
                was = limits.judge_after(was, *free, 100.0);
                was
            };
            frees.iter().map(|free| next(free).to_string()[..1].to_owned()).collect::<String>()
        };
        assert_eq!(states(&[10.1, 9.9, 10.1, 9.9, 10.9, 11.1, 10.1]), "OWWWWOO");
        assert_eq!(states(&[4.9, 5.1, 5.4, 5.6, 5.1, 12.0]), "CCCWWO");
    }

    #[test]
    fn sizes_are_printed_for_people() {
        let printed = [0.0, 1_023.0, 1_536.0, 50.0 * GIB, 3_072.0 * GIB].map(human);
        assert_eq!(printed, ["0 B", "1023 B", "1.5 KiB", "50.0 GiB", "3.0 TiB"]);
    }
}
