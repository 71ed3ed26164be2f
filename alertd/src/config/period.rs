//! `[period.NAME]`: recurring time periods.
//!
//! ```toml
//! [period.nights]
//! time_zone = "Europe/Berlin"
//! hours = ["22:00-24:00", "00:00-07:00"]
//!
//! [period.off-hours]                     # in effect if any entry matches
//! time_zone = "Europe/Berlin"
//! any = [
//!   { weekdays = ["sat-sun"] },
//!   { hours = ["00:00-08:00", "18:00-24:00"] },
//!   { days = ["-1"], months = ["dec"] },
//! ]
//! ```

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
};

use dogwatch_alertd_core::rules::period::{DAY, Period, When};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::{
    Parts,
    names::{Entry, no_zone},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PeriodFile {
    /// IANA name.
    time_zone: Spanned<String>,
    #[serde(default)]
    hours: Vec<Spanned<String>>,
    #[serde(default)]
    weekdays: Vec<Spanned<String>>,
    #[serde(default)]
    days: Vec<Spanned<String>>,
    #[serde(default)]
    months: Vec<Spanned<String>>,
    #[serde(default)]
    years: Vec<Spanned<String>>,
    #[serde(default)]
    any: Vec<Spanned<WhenFile>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhenFile {
    #[serde(default)]
    hours: Vec<Spanned<String>>,
    #[serde(default)]
    weekdays: Vec<Spanned<String>>,
    #[serde(default)]
    days: Vec<Spanned<String>>,
    #[serde(default)]
    months: Vec<Spanned<String>>,
    #[serde(default)]
    years: Vec<Spanned<String>>,
}

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl Parts {
    pub(super) fn periods(&mut self, problems: &mut Problems) -> BTreeMap<String, Period> {
        let mut periods = BTreeMap::new();
        for (name, entry) in std::mem::take(&mut self.periods) {
            let source = &self.sources[entry.source];
            if let Some(period) = resolve(&name, entry, source, problems) {
                periods.insert(name, period);
            }
        }
        periods
    }
}

fn resolve(name: &str, entry: Entry<PeriodFile>, source: &Source, problems: &mut Problems) -> Option<Period> {
    let PeriodFile { time_zone, hours, weekdays, days, months, years, any } = entry.file;
    let before = problems.0.len();
    let own = WhenFile { hours, weekdays, days, months, years }.resolve(source, problems);
    let mut whens: Vec<When> = Vec::new();
    for when in any {
        let span = when.span();
        let when = when.into_inner().resolve(source, problems);
        if when == When::default() {
            problems.add(
                source,
                span,
                "this entry is empty and would always be in effect; add hours, weekdays, days, months or years",
            );
        }
        whens.push(when);
    }
    match (own == When::default(), whens.is_empty()) {
        (true, true) if problems.0.len() == before => {
            let words =
                format!("period {name:?} is empty; add hours, weekdays, days, months or years, or any = […]");
            problems.add(source, entry.span, words);
        }
        (false, true) => whens.push(own),
        (false, false) => {
            let words =
                format!("period {name:?} has both any and fields next to it; move the fields into any");
            problems.add(source, entry.span, words);
        }
        (true, _) => {}
    }
    let Ok(zone) = TimeZone::get(time_zone.get_ref()) else {
        problems.add(source, time_zone.span(), no_zone(time_zone.get_ref()));
        return None;
    };
    Some(Period { zone, any: whens })
}

impl WhenFile {
    fn resolve(self, source: &Source, problems: &mut Problems) -> When {
        When {
            hours: each(self.hours, hours, source, problems),
            weekdays: each(
                self.weekdays,
                |text| named(text, &WEEKDAYS, "a weekday", "mon-fri"),
                source,
                problems,
            ),
            days: each(self.days, days, source, problems),
            months: each(self.months, |text| named(text, &MONTHS, "a month", "nov-feb"), source, problems),
            years: each(self.years, years, source, problems),
        }
    }
}

fn each<T>(
    texts: Vec<Spanned<String>>,
    parse: impl Fn(&str) -> Result<Vec<T>, String>,
    source: &Source,
    problems: &mut Problems,
) -> Vec<T> {
    let mut all = Vec::new();
    for text in texts {
        match parse(text.get_ref()) {
            Ok(parsed) => all.extend(parsed),
            Err(words) => problems.add(source, text.span(), words),
        }
    }
    all
}

/// `09:00-17:30`. The end is excluded; 24:00 is midnight.
fn hours(text: &str) -> Result<Vec<Range<u16>>, String> {
    let wrong = || format!("{text:?} is not a time range; write it like \"09:00-17:30\" or \"22:00-24:00\"");
    let (from, until) = text.split_once('-').ok_or_else(wrong)?;
    let (from, until) = (minute(from).ok_or_else(wrong)?, minute(until).ok_or_else(wrong)?);
    if from == until {
        return Err(format!("{text:?} ends when it begins; for the whole day, write \"00:00-24:00\""));
    }
    if from > until {
        return Err(format!(
            "{text:?} crosses midnight; split it into \"{}-24:00\" and \"00:00-{}\"",
            &text[..5],
            &text[6..]
        ));
    }
    Ok(std::iter::once(from..until).collect())
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    let (hour, minute): (u16, u16) =
        (hour.parse().ok().filter(|_| digits(hour))?, minute.parse().ok().filter(|_| digits(minute))?);
    let at = hour * 60 + minute;
    (minute < 60 && at <= DAY).then_some(at)
}

/// `mon`, `monday` or `mon-fri`. A range may cross the end of the week or year.
fn named(text: &str, names: &[&str], what: &str, example: &str) -> Result<Vec<RangeInclusive<i8>>, String> {
    let number = |name: &str| {
        let name = name.to_ascii_lowercase();
        let at = names.iter().position(|full| *full == name || (name.len() == 3 && full.starts_with(&name)));
        i8::try_from(at? + 1).ok()
    };
    let (from, until) = text.split_once('-').unwrap_or((text, text));
    let wrong =
        || format!("{text:?} is not {what} or a range; write it like \"{}\" or {example:?}", &names[0][..3]);
    let (from, until) = (number(from).ok_or_else(wrong)?, number(until).ok_or_else(wrong)?);
    let last = i8::try_from(names.len()).unwrap_or(i8::MAX);
    Ok(if from <= until { vec![from..=until] } else { vec![from..=last, 1..=until] })
}

/// `1`, `-1`, `1..15`, `-3..-1`.
fn days(text: &str) -> Result<Vec<RangeInclusive<i8>>, String> {
    let wrong = || {
        format!(
            "{text:?} is not a day of the month; write it like \"15\", \"-1\" for the last day, or \"-3..-1\""
        )
    };
    let day = |text: &str| text.parse().ok().filter(|day: &i8| (1..=31).contains(&day.unsigned_abs()));
    let (from, until) = text.split_once("..").unwrap_or((text, text));
    let (from, until): (i8, i8) = (day(from).ok_or_else(wrong)?, day(until).ok_or_else(wrong)?);
    // As in Alertmanager, reject ranges that are empty in every month, and ranges that start with a
    // day counted from the end and end with one counted from the start.
    if (from > 0) == (until > 0) && from > until || from < 0 && until > 0 {
        return Err(format!("{text:?} ends before it begins"));
    }
    Ok(vec![from..=until])
}

/// `2026`, `2026-2028`.
fn years(text: &str) -> Result<Vec<RangeInclusive<i16>>, String> {
    let year = |text: &str| text.parse().ok().filter(|year| (1970..=9999).contains(year));
    let (from, until) = text.split_once('-').unwrap_or((text, text));
    match (year(from), year(until)) {
        (Some(from), Some(until)) if from <= until => Ok(vec![from..=until]),
        _ => Err(format!("{text:?} is not a year; write it like \"2026\" or \"2026-2028\"")),
    }
}

#[cfg(test)]
mod tests {
    use dogwatch_alertd_core::rules::period::Period;
    use jiff::Timestamp;
    use serde::Deserialize;

    use crate::config::Config;

    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        about: String,
        period: String,
        #[serde(default)]
        inside: Vec<Timestamp>,
        #[serde(default)]
        outside: Vec<Timestamp>,
        changes_after: Timestamp,
        changes: Vec<Timestamp>,
    }

    fn period(text: &str) -> Period {
        let config =
            Config::from_text(&format!("[period.p]\n{text}")).map_err(|all| all.to_string()).unwrap();
        config.rules.periods["p"].clone()
    }

    #[test]
    fn the_published_vectors_hold() {
        let text = include_str!("../../tests/vectors/periods.json");
        let File { vectors } = serde_json::from_str(text).unwrap();
        assert!(vectors.len() > 10, "{}", vectors.len());
        for vector in vectors {
            let (about, period) = (&vector.about, period(&vector.period));
            for at in vector.inside {
                assert!(period.contains(at), "{about}: {at} is inside");
            }
            for at in vector.outside {
                assert!(!period.contains(at), "{about}: {at} is outside");
            }
            let mut at = vector.changes_after;
            let mut changes = Vec::new();
            while changes.len() < vector.changes.len() {
                let Some(next) = period.next_change(at) else { break };
                changes.push(next);
                at = next;
            }
            assert_eq!(changes, vector.changes, "{about}");
        }
    }
}
