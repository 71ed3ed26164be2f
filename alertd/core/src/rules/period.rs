//! Recurring time periods in local time, for example "weekdays 9 to 17" or "the last three days of
//! a month".
//!
//! The meaning is Alertmanager's: a period is in effect if the local time matches.
//!
//! - In the night that skips 02:00–03:00, `02:30-04:00` starts at 03:00 and `02:00-03:00` does not
//!   happen. In the night that has 02:00–03:00 twice, `02:00-03:00` lasts two hours and
//!   `02:30-02:45` happens twice.
//! - All given fields must match; within a field, one entry is enough.
//! - The end of an hour range is excluded.
//! - Days of the month can count from the end (`-1` is the last day). A day that the month does not
//!   have never matches; a range that ends beyond the month ends on its last day.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Range, RangeInclusive},
};

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};

#[derive(Debug, Clone)]
pub struct Period {
    pub zone: TimeZone,
    /// In effect if any of these matches; never if there are none.
    pub any: Vec<When>,
}

/// One set of conditions. An empty field always matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// In minutes of the day, up to 1440.
    pub hours: Vec<Range<u16>>,
    /// 1 is Monday, 7 is Sunday.
    pub weekdays: Vec<RangeInclusive<i8>>,
    /// Counted from 1, or from the end: -1 is the last day.
    pub days: Vec<RangeInclusive<i8>>,
    pub months: Vec<RangeInclusive<i8>>,
    pub years: Vec<RangeInclusive<i16>>,
}

/// Minutes in a day.
pub const DAY: u16 = 24 * 60;
/// How far ahead to look for a change, which covers all yearly periods.
const DAYS_AHEAD: usize = 400;

impl Period {
    pub fn contains(&self, at: Timestamp) -> bool {
        let wall = self.zone.to_datetime(at);
        self.any.iter().any(|when| when.contains(wall))
    }

    /// The next start or end of the period after `now`; `None` if there is none in the next 400
    /// days.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let inside = self.contains(now);
        let mut date = self.zone.to_datetime(now).date();
        for _ in 0..DAYS_AHEAD {
            let moments = self.edges(date).into_iter().filter(|at| *at > now);
            if let Some(change) = moments.into_iter().find(|at| self.contains(*at) != inside) {
                return Some(change);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// All moments of a day at which the period may start or end, ascending: midnight, ends of hour
    /// ranges, clock changes.
    fn edges(&self, date: Date) -> BTreeSet<Timestamp> {
        let hours = self.any.iter().flat_map(|when| &when.hours);
        let minutes: BTreeSet<u16> =
            hours.flat_map(|range| [range.start, range.end]).chain([0]).filter(|&m| m < DAY).collect();
        let mut moments = BTreeSet::new();
        for minute in minutes {
            let part = |n: u16| i8::try_from(n).unwrap_or(0);
            let (hour, minute) = (part(minute / 60), part(minute % 60));
            let ambiguous = self.zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
            // Two moments if the clock is set back; the end of the gap if it is set forward.
            moments.extend(ambiguous.earlier());
            moments.extend(ambiguous.later());
        }
        if let Some(&first) = moments.first() {
            let jumps = self.zone.following(first).map(|jump| jump.timestamp());
            moments.extend(jumps.take_while(|at| self.zone.to_datetime(*at).date() <= date));
        }
        moments
    }
}

impl When {
    fn contains(&self, wall: DateTime) -> bool {
        let minute = u16::try_from(wall.hour()).unwrap_or(0) * 60 + u16::try_from(wall.minute()).unwrap_or(0);
        let weekday = wall.date().weekday().to_monday_one_offset();
        given(&self.hours, |range| range.contains(&minute))
            && given(&self.weekdays, |range| range.contains(&weekday))
            && given(&self.days, |range| is_day(range, wall.date()))
            && given(&self.months, |range| range.contains(&wall.month()))
            && given(&self.years, |range| range.contains(&wall.year()))
    }
}

fn given<T>(entries: &[T], matches: impl Fn(&T) -> bool) -> bool {
    entries.is_empty() || entries.iter().any(matches)
}

fn is_day(range: &RangeInclusive<i8>, date: Date) -> bool {
    let last = date.days_in_month();
    let counted = |day: i8| if day < 0 { last + day + 1 } else { day };
    // A range that starts before the month (`-31` in April) starts with it; one that starts after
    // it never matches.
    let (first, until) = (counted(*range.start()), counted(*range.end()));
    first <= last && (first..=until).contains(&date.day())
}

/// All periods of the config and whether they are in effect.
#[derive(Debug, Default)]
pub struct Periods {
    all: BTreeMap<String, Period>,
    now: BTreeMap<String, Standing>,
}

/// The state of a period, from when it was computed until it ends.
#[derive(Debug, Clone, Copy)]
struct Standing {
    inside: bool,
    /// When to check again.
    until: Option<Timestamp>,
}

impl Periods {
    pub fn new(all: BTreeMap<String, Period>) -> Self {
        Self { all, now: BTreeMap::new() }
    }

    /// Applies a new config. The old states stay until the next check, so that nothing is sent in
    /// between.
    pub fn replace(&mut self, all: BTreeMap<String, Period>) {
        self.now.retain(|name, _| all.contains_key(name));
        self.now.values_mut().for_each(|standing| standing.until = Some(Timestamp::MIN));
        self.all = all;
    }

    /// Updates all periods. Returns true if any started or ended since the last call.
    pub fn turn(&mut self, now: Timestamp) -> bool {
        let mut changed = false;
        for (name, period) in &self.all {
            let old = self.now.get(name).copied();
            if old.is_some_and(|old| old.until.is_none_or(|until| until > now)) {
                continue;
            }
            let new = Standing { inside: period.contains(now), until: period.next_change(now) };
            changed |= old.map(|old| old.inside) != Some(new.inside);
            self.now.insert(name.clone(), new);
        }
        changed
    }

    /// Whether the period is in effect. A period that a reload removed never is.
    pub fn is_inside(&self, name: &str) -> bool {
        self.now.get(name).is_some_and(|standing| standing.inside)
    }

    /// When that changes next.
    pub fn until(&self, name: &str) -> Option<Timestamp> {
        self.now.get(name)?.until
    }

    pub fn knows(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.now.values().filter_map(|standing| standing.until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{rules::moment::later, tests::time_zone};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn daily(from_hour: u16, until_hour: u16) -> Period {
        let hours = std::iter::once(from_hour * 60..until_hour * 60).collect();
        let when = When { hours, ..When::default() };
        Period { zone: TimeZone::UTC, any: vec![when] }
    }

    /// Checks every minute of nights in which clocks change.
    #[test]
    fn the_next_change_agrees_with_a_minute_by_minute_search() {
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"];
        let starts =
            ["2026-03-07T12:00:00Z", "2026-03-28T12:00:00Z", "2026-04-04T06:00:00Z", "2026-10-24T12:00:00Z"];
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..60 {
            let zone = time_zone(zones[round % 4]);
            let mut hours = Vec::new();
            for _ in 0..random.usize(1..3) {
                let start = random.u16(0..8) * 30;
                hours.push(start..(start + random.u16(1..6) * 15).min(DAY));
            }
            let weekdays = if random.bool() { vec![6..=7] } else { vec![] };
            let period = Period { zone, any: vec![When { hours, weekdays, ..When::default() }] };
            let start: Timestamp = starts[(round / 4) % 4].parse().unwrap();
            let (mut at, mut expected) = (start, period.next_change(start));
            for minute in 1..48 * 60 {
                let next = later(start, Duration::from_secs(minute * 60));
                if period.contains(next) != period.contains(at) {
                    assert_eq!(expected, Some(next), "round {round}: {period:?}");
                    expected = period.next_change(next);
                }
                assert!(
                    expected.is_none_or(|expected| expected > next),
                    "round {round} at {next}: {period:?}"
                );
                at = next;
            }
        }
    }

    #[test]
    fn a_year_that_is_far_away_is_no_change() {
        let when = When { years: vec![2040..=2040], ..When::default() };
        let period = Period { zone: TimeZone::UTC, any: vec![when] };
        assert_eq!(period.next_change(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn periods_look_at_the_clock_only_when_one_may_change() {
        let mut periods = Periods::new([("nights".to_owned(), daily(22, 24))].into());
        assert!(periods.turn(at("2026-11-21T12:00:00Z")));
        assert!(!periods.is_inside("nights"));
        assert_eq!(periods.next_wakeup(), Some(at("2026-11-21T22:00:00Z")));
        assert!(!periods.turn(at("2026-11-21T21:59:59Z")));
        assert!(periods.turn(at("2026-11-21T22:00:00Z")));
        assert!(periods.is_inside("nights"));
        assert_eq!(periods.until("nights"), Some(at("2026-11-22T00:00:00Z")));
        assert!(!periods.is_inside("days"), "a missing period is never in effect");

        periods.replace([("nights".to_owned(), daily(23, 24))].into());
        assert!(periods.is_inside("nights"), "until it is looked at");
        assert!(periods.turn(at("2026-11-21T22:00:01Z")));
        assert!(!periods.is_inside("nights"));
        periods.replace([].into());
        assert!(!periods.is_inside("nights") && periods.next_wakeup().is_none());
    }
}
