use jiff::civil::{Time, date, time};
use serde::Deserialize;

use super::*;
use crate::tests::time_zone;

/// `tests/vectors/schedules.json`; the README next to it explains the fields.
#[derive(Deserialize)]
struct File {
    format: u32,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    #[serde(rename = "why")]
    _why: String,
    schedule: ScheduleText,
    from: Timestamp,
    until: Timestamp,
    shifts: Vec<(Timestamp, Option<String>)>,
    gaps: Vec<(Timestamp, Timestamp)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleText {
    time_zone: String,
    layers: Vec<LayerText>,
    #[serde(default)]
    overrides: Vec<OverrideText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerText {
    users: Vec<String>,
    every: String,
    since: DateTime,
    #[serde(default)]
    hours: Vec<HoursText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursText {
    days: Vec<String>,
    from: Time,
    until: Time,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideText {
    user: Option<String>,
    from: Timestamp,
    until: Timestamp,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn read(text: ScheduleText) -> Schedule {
    let day = |name: &String| 1 << DAYS.iter().position(|day| day == name).unwrap();
    let hours =
        |text: HoursText| Hours { days: text.days.iter().map(day).sum(), from: text.from, until: text.until };
    let layer = |text: LayerText| {
        let (count, unit) = text.every.split_at(text.every.len() - 1);
        let count = count.parse().unwrap();
        Layer {
            users: text.users,
            every: if unit == "h" { Every::Hours(count) } else { Every::Days(count) },
            since: text.since,
            hours: text.hours.into_iter().map(hours).collect(),
        }
    };
    let by_hand = |text: OverrideText| Override { user: text.user, from: text.from, until: text.until };
    Schedule {
        name: "vector".into(),
        zone: time_zone(&text.time_zone),
        layers: text.layers.into_iter().map(layer).collect(),
        overrides: text.overrides.into_iter().map(by_hand).collect(),
        gaps_are_meant: false,
    }
}

#[test]
fn every_published_vector_holds() {
    let file: File = serde_json::from_str(include_str!("../../../../tests/vectors/schedules.json")).unwrap();
    assert_eq!((file.format, file.vectors.len()), (1, 27));
    for vector in file.vectors {
        let (name, schedule) = (&vector.name, read(vector.schedule));
        let shifts = schedule.shifts(vector.from, vector.until);
        let began: Vec<_> = shifts.iter().map(|shift| (shift.from, shift.user.clone())).collect();
        assert_eq!(began, vector.shifts, "{name}: shifts");
        let gaps = schedule.gaps(vector.from, vector.until);
        let gaps: Vec<_> = gaps.iter().map(|gap| (gap.from, gap.until)).collect();
        assert_eq!(gaps, vector.gaps, "{name}: gaps");
        // The same for single moments: within every shift, and around every handover.
        for shift in &shifts {
            let mut at = shift.from;
            while at < shift.until {
                assert_eq!(schedule.at(at), shift.user.as_deref(), "{name}: at {at}");
                at = at.checked_add(SignedDuration::from_mins(41)).unwrap();
            }
        }
        for pair in shifts.windows(2) {
            assert_eq!(pair[0].until, pair[1].from, "{name}: no gap");
            let before = pair[1].from.checked_sub(SignedDuration::from_nanos(1)).unwrap();
            assert_eq!(schedule.at(before), pair[0].user.as_deref(), "{name}: just before {}", pair[1].from);
        }
    }
}

/// `shifts` and `at` agree at every moment, in every time zone, in years with and without leap
/// days.
#[test]
fn shifts_and_at_agree_at_every_moment() {
    let zones =
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo"];
    for (name, year) in zones.into_iter().zip([2028, 2026, 2027, 2026, 2011, 2026]) {
        let start = date(year - 1, 12, 29).at(2, 15, 0, 0);
        let office = Hours { days: 0b1_0101, from: time(8, 30, 0, 0), until: time(2, 30, 0, 0) };
        let users = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        let schedule = Schedule {
            name: "s".into(),
            zone: time_zone(name),
            layers: vec![
                Layer { users: users(&["a", "b", "c"]), every: Every::Days(3), since: start, hours: vec![] },
                Layer {
                    users: users(&["d", "e"]),
                    every: Every::Hours(11),
                    since: start,
                    hours: vec![office],
                },
            ],
            overrides: vec![],
            gaps_are_meant: false,
        };
        let from: Timestamp = format!("{year}-01-01T00:00:00Z").parse().unwrap();
        let until: Timestamp = format!("{}-01-01T00:00:00Z", year + 1).parse().unwrap();
        let shifts = schedule.shifts(from, until);
        assert_eq!((shifts[0].from, shifts.last().unwrap().until), (from, until), "{name}");
        let mut place = 0;
        let mut at = from;
        while at < until {
            while shifts[place].until <= at {
                place += 1;
            }
            assert_eq!(shifts[place].user.as_deref(), schedule.at(at), "{name} {at}");
            at = at.checked_add(SignedDuration::from_mins(4 * 60 + 37)).unwrap();
        }
    }
}

#[test]
fn a_look_ahead_is_bounded_and_an_empty_schedule_has_one_gap() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let (from, until) = (at("2026-01-01T00:00:00Z"), at("2036-01-01T00:00:00Z"));
    let mut schedule = Schedule {
        name: "s".into(),
        zone: TimeZone::UTC,
        layers: vec![],
        overrides: vec![],
        gaps_are_meant: false,
    };
    assert_eq!(schedule.gaps(from, until), [Shift { user: None, from, until }]);
    let users = vec!["a".into(), "b".into()];
    let since = date(2020, 1, 1).at(0, 0, 0, 0);
    schedule.layers.push(Layer { users, every: Every::Hours(1), since, hours: vec![] });
    assert_eq!(schedule.shifts(from, until).len(), CHANGES_MAX);
    schedule.layers.clear();
    schedule.gaps_are_meant = true;
    assert_eq!(schedule.gaps(from, until), []);
}
