//! `[schedule.NAME]`: who is on call when.
//!
//! ```toml
//! [schedule.db]
//! time_zone = "Europe/Berlin"
//! [[schedule.db.layer]]
//! users = ["ann", "ben"]              # take turns; the first one has the first shift
//! rotate = "weekly"                   # or daily, "3d", "2w"; "hourly" and "12h" count real hours
//! since = "2026-01-05 09:00"          # first handover, in the schedule's time zone
//! hours = ["mon-fri 09:00-17:00"]     # only at these times; default: always
//! [[schedule.db.override]]
//! user = "cem"                        # or "nobody"
//! from = "2026-12-24 12:00"
//! until = "2026-12-27 09:00"
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use dogwatch_alertd_core::rules::schedule::{Every, Hours, Layer, NOBODY, Override, Schedule, on_the_wall};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use jiff::{
    Timestamp,
    civil::{DateTime, Time, date},
    tz::TimeZone,
};
use serde::Deserialize;

use super::{
    Parts,
    names::{Entry, Names, check_known, no_zone},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleFile {
    time_zone: Spanned<String>,
    #[serde(default)]
    layer: Vec<Spanned<LayerFile>>,
    #[serde(default, rename = "override")]
    overrides: Vec<OverrideFile>,
    /// Times without anybody on call are intended.
    #[serde(default)]
    gaps_ok: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerFile {
    users: Vec<Spanned<String>>,
    rotate: Option<Spanned<String>>,
    since: Option<Spanned<String>>,
    #[serde(default)]
    hours: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideFile {
    user: Spanned<String>,
    from: Spanned<String>,
    until: Spanned<String>,
}

/// The longest shift, in hours or days.
const TURN_MAX: u16 = 1_000;

impl Parts {
    pub(super) fn schedules(&mut self, names: &Names, problems: &mut Problems) -> BTreeMap<String, Schedule> {
        let mut schedules = BTreeMap::new();
        for (name, entry) in std::mem::take(&mut self.schedules) {
            let source = &self.sources[entry.source];
            if let Some(schedule) = resolve_schedule(&name, entry, source, &names.users, problems) {
                schedules.insert(name, schedule);
            }
        }
        schedules
    }
}

fn resolve_schedule(
    name: &str,
    entry: Entry<ScheduleFile>,
    source: &Source,
    users: &BTreeSet<String>,
    problems: &mut Problems,
) -> Option<Schedule> {
    let ScheduleFile { time_zone, layer: layers, overrides, gaps_ok } = entry.file;
    if layers.is_empty() {
        let words = format!("schedule {name:?} has no layers; add [[schedule.{name}.layer]] with users");
        problems.add(source, entry.span, words);
    }
    let layers =
        layers.into_iter().filter_map(|layer| resolve_layer(layer, source, users, problems)).collect();
    let Ok(zone) = TimeZone::get(time_zone.get_ref()) else {
        problems.add(source, time_zone.span(), no_zone(time_zone.get_ref()));
        return None;
    };
    let overrides = overrides
        .into_iter()
        .filter_map(|one| resolve_override(&one, &zone, source, users, problems))
        .collect();
    Some(Schedule { name: name.into(), zone, layers, overrides, gaps_are_meant: gaps_ok })
}

fn resolve_layer(
    layer: Spanned<LayerFile>,
    source: &Source,
    users: &BTreeSet<String>,
    problems: &mut Problems,
) -> Option<Layer> {
    let before = problems.0.len();
    let span = layer.span();
    let LayerFile { users: names, rotate, since, hours } = layer.into_inner();
    for user in &names {
        check_known(user, "user", users, source, problems);
    }
    if names.is_empty() {
        problems.add(source, span.clone(), "this layer has no users; add at least one");
    }
    let since = match since {
        Some(text) => parse_at(&text, source, problems, |text| text.parse().ok()),
        // The start of the rotation only matters if there are several users.
        None if names.len() > 1 => {
            let words = "with several users, since is required: the start of the first shift, like since = \"2026-01-05 09:00\"";
            problems.add(source, span, words);
            None
        }
        None => Some(date(2000, 1, 1).at(0, 0, 0, 0)),
    };
    let every = match rotate {
        None => Some(Every::Days(7)),
        Some(text) => {
            let every = parse_every(text.get_ref());
            if every.is_none() {
                let words = format!(
                    "{:?} is not a rotation; write \"hourly\", \"daily\", \"weekly\", or a number of hours, days or weeks like \"12h\", \"3d\" or \"2w\"",
                    text.get_ref()
                );
                problems.add(source, text.span(), words);
            }
            every
        }
    };
    let hours = hours.iter().filter_map(|text| resolve_hours(text, source, problems)).collect();
    let users = names.into_iter().map(Spanned::into_inner).collect();
    let layer = Layer { users, every: every?, since: since?, hours };
    (problems.0.len() == before).then_some(layer)
}

fn resolve_hours(text: &Spanned<String>, source: &Source, problems: &mut Problems) -> Option<Hours> {
    let hours = parse_hours(text.get_ref());
    if hours.is_none() {
        let words = format!(
            "{:?} is not a time of the week; write it like \"mon-fri 09:00-17:00\", \"sat,sun\" or \"22:00-06:00\"",
            text.get_ref()
        );
        problems.add(source, text.span(), words);
    }
    hours
}

fn resolve_override(
    file: &OverrideFile,
    zone: &TimeZone,
    source: &Source,
    users: &BTreeSet<String>,
    problems: &mut Problems,
) -> Option<Override> {
    let user = Some(file.user.get_ref().clone()).filter(|user| user != NOBODY);
    if user.is_some() && !check_known(&file.user, "user", users, source, problems) {
        return None;
    }
    let moment = |text: &str| {
        let on_wall = || text.parse::<DateTime>().ok().and_then(|time| on_the_wall(time, zone));
        text.parse::<Timestamp>().ok().or_else(on_wall)
    };
    let from = parse_at(&file.from, source, problems, moment)?;
    let until = parse_at(&file.until, source, problems, moment)?;
    if until <= from {
        problems.add(source, file.until.span(), "until must be after from");
        return None;
    }
    Some(Override { user, from, until })
}

fn parse_at<T>(
    text: &Spanned<String>,
    source: &Source,
    problems: &mut Problems,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let span: Range<usize> = text.span();
    let parsed = parse(text.get_ref());
    if parsed.is_none() {
        let words = format!("{:?} is not a time; write one like \"2026-01-05 09:00\"", text.get_ref());
        problems.add(source, span, words);
    }
    parsed
}

/// `weekly`, `12h`, `3d`, `2w`.
fn parse_every(text: &str) -> Option<Every> {
    match text {
        "hourly" => return Some(Every::Hours(1)),
        "daily" => return Some(Every::Days(1)),
        "weekly" => return Some(Every::Days(7)),
        _ => {}
    }
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u16 = count.parse().ok().filter(|count| (1..=TURN_MAX).contains(count))?;
    match unit {
        "h" => Some(Every::Hours(count)),
        "d" => Some(Every::Days(count)),
        "w" => count.checked_mul(7).map(Every::Days),
        _ => None,
    }
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0x7f;

/// `[DAYS] [FROM-UNTIL]`, at least one of them.
fn parse_hours(text: &str) -> Option<Hours> {
    let words: Vec<_> = text.split_whitespace().collect();
    let (days, times) = match words.as_slice() {
        [days, times] => (parse_days(days)?, Some(*times)),
        [times] if times.contains(':') => (EVERY_DAY, Some(*times)),
        [days] => (parse_days(days)?, None),
        _ => return None,
    };
    let Some(times) = times else { return Some(Hours { days, from: Time::MIN, until: Time::MIN }) };
    let (from, until) = times.split_once('-')?;
    Some(Hours { days, from: parse_time(from)?, until: parse_time(until)? })
}

/// `mon-fri,sun`. A range may cross the end of the week: `sat-mon`.
fn parse_days(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|day| name.eq_ignore_ascii_case(day));
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        for offset in 0..=(last + 7 - first) % 7 {
            days |= 1 << ((first + offset) % 7);
        }
    }
    Some(days)
}

/// `09:00`. `24:00` is the end of the day, which is the start of the next one.
fn parse_time(text: &str) -> Option<Time> {
    if text == "24:00" { Some(Time::MIN) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use jiff::civil::time;

    use super::*;

    #[test]
    fn times_of_the_week_and_rotations_are_read_as_people_write_them() {
        let hours = |days, from, until| Some(Hours { days, from, until });
        let (nine, five, midnight) = (time(9, 0, 0, 0), time(17, 0, 0, 0), Time::MIN);
        for (text, expected) in [
            ("mon-fri 09:00-17:00", hours(0b1_1111, nine, five)),
            ("Sat,Sun", hours(0b110_0000, midnight, midnight)),
            ("sat-mon 09:00-24:00", hours(0b110_0001, nine, midnight)),
            ("17:00-09:00", hours(EVERY_DAY, five, nine)),
            ("mon", hours(1, midnight, midnight)),
            ("", None),
            ("mon-fri 9-17", None),
            ("monday", None),
            ("mon 09:00", None),
            ("mon 09:00-25:00", None),
            ("mon fri 09:00-17:00", None),
        ] {
            assert_eq!(parse_hours(text), expected, "{text:?}");
        }
        for (text, expected) in [
            ("weekly", Some(Every::Days(7))),
            ("2w", Some(Every::Days(14))),
            ("12h", Some(Every::Hours(12))),
            ("hourly", Some(Every::Hours(1))),
            ("1000d", Some(Every::Days(1_000))),
            ("0d", None),
            ("1001d", None),
            ("d", None),
            ("", None),
            ("1m", None),
            ("3€", None),
        ] {
            assert_eq!(parse_every(text), expected, "{text:?}");
        }
    }
}
