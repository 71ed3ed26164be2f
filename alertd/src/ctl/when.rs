//! Times as people type them: `2026-12-24 12:00`, `18:00`, `+2h`, `now`, or RFC 3339. Pure.

use std::{str::FromStr, time::Duration};

use dogwatch_alertd_core::rules::{moment::later, schedule::on_the_wall};
use dogwatch_daemon::duration::Span;
use jiff::{
    Timestamp,
    civil::{DateTime, Time},
    tz::TimeZone,
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    Moment(Timestamp),
    /// A date and time in the local time zone.
    Wall(DateTime),
    /// The next occurrence of a local time of day.
    Clock(Time),
    /// From now.
    After(Duration),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "now" {
            return Ok(Self::After(Duration::ZERO));
        }
        if let Ok(span) = text.strip_prefix('+').unwrap_or(text).parse::<Span>() {
            return Ok(Self::After(span.0));
        }
        let moment = text.parse().map(Self::Moment).ok();
        let wall = || text.parse().map(Self::Wall).ok();
        let clock = || text.parse().map(Self::Clock).ok();
        moment.or_else(wall).or_else(clock).ok_or_else(|| {
            format!("{text:?} is not a time; write one like \"2026-12-24 12:00\", 18:00, +2h or now")
        })
    }
}

impl When {
    /// Returns the moment that is meant. A time that cannot be represented becomes the latest one.
    pub fn moment(self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let on_wall = |time| on_the_wall(time, zone).unwrap_or(Timestamp::MAX);
        match self {
            Self::Moment(at) => at,
            Self::Wall(time) => on_wall(time),
            Self::After(span) => later(now, span),
            Self::Clock(time) => {
                let today = zone.to_datetime(now).date();
                let at = on_wall(today.to_datetime(time));
                if at > now { at } else { today.tomorrow().map_or(at, |day| on_wall(day.to_datetime(time))) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_the_moment_they_mean() {
        let now: Timestamp = "2026-03-28T20:00:00Z".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (text, expected) in [
            ("now", "2026-03-28T20:00:00Z"),
            ("+2h", "2026-03-28T22:00:00Z"),
            ("1d", "2026-03-29T20:00:00Z"),
            ("2026-04-01 09:00", "2026-04-01T07:00:00Z"),
            ("2026-04-01", "2026-03-31T22:00:00Z"),
            ("2026-04-01T09:00:00Z", "2026-04-01T09:00:00Z"),
            ("2026-04-01T09:00:00+05:00", "2026-04-01T04:00:00Z"),
            ("22:00", "2026-03-28T21:00:00Z"),
            ("02:30", "2026-03-29T01:30:00Z"), // clocks go forward: 03:30
            ("20:59", "2026-03-29T18:59:00Z"),
        ] {
            let moment = text.parse::<When>().unwrap().moment(now, &berlin);
            assert_eq!(moment.to_string(), expected, "{text}");
        }
        for text in ["", "tomorrow", "25:00", "2026-13-01", "-2h"] {
            assert!(text.parse::<When>().is_err(), "{text:?}");
        }
    }
}
