//! When a filesystem will be full.
//!
//! A straight line through the last hour and one through the last six hours must agree, and the
//! last 20 minutes must still go down. netdata had such an alarm and removed it (#10688),
//! because nightly jobs and unpacked archives triggered it (#859, #9802). So a forecast alerts only
//! when a filesystem has been known for more than a day, and when less is free than at the bottom
//! of earlier dips: a backup that is written and deleted every night leaves a dip that is known.
//! A dip is forgotten over weeks. Until then, the ordinary limits still apply.

use std::time::Duration;

use crate::{Past, State};

/// What is known about a filesystem that fills up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Forecast {
    /// Time until it is full.
    pub(super) left: Duration,
    pub(super) state: State,
}

/// Records the free space and returns a forecast if it goes down. `hour` is the Unix time in hours.
pub(super) fn forecast(past: &mut Past, point: &str, free: f64, total: f64, hour: i64) -> Option<Forecast> {
    let mut trend =
        |minutes| past.trend(&format!("free {minutes} {point}"), free, Duration::from_mins(minutes));
    let trends = (trend(20), trend(60), trend(360));
    let percent = crate::space::percent(free, total);
    let is_news = is_news(past, point, percent, hour);
    let (Some(now), Some(hour), Some(day)) = trends else { return None };
    // The slower of both: then both agree.
    let rate = hour.max(day);
    if rate >= 0.0 {
        return None;
    }
    let left = Duration::try_from_secs_f64(free / -rate).ok()?;
    let below = |hours, most: f64| left < Duration::from_hours(hours) && percent < most;
    let state = match () {
        () if now >= 0.0 || !is_news => State::Ok,
        () if below(4, 20.0) => State::Critical,
        () if below(24, 40.0) => State::Warning,
        () => State::Ok,
    };
    Some(Forecast { left, state })
}

/// Whether less is free than ever before, as far as that is known.
#[expect(clippy::cast_precision_loss, reason = "hours since 1970")]
fn is_news(past: &mut Past, point: &str, percent: f64, hour: i64) -> bool {
    let hour = hour as f64;
    let [since, dip, low, low_at] = ["since", "dip", "low", "low-at"].map(|name| format!("{name} {point}"));
    let Some(first) = past.fact(&since) else {
        past.learn(&since, hour);
        past.learn(&dip, percent.floor());
        return false;
    };
    let known =
        past.fact(&low).zip(past.fact(&low_at)).map(|(low, at)| low + FORGOTTEN * (hour - at).max(0.0));
    let bottom = past.fact(&dip).unwrap_or(percent).min(percent.floor());
    if percent > bottom + SLACK {
        // The dip has ended.
        if known.is_none_or(|known| bottom < known) {
            past.learn(&low, bottom);
            past.learn(&low_at, hour);
        }
        past.learn(&dip, percent.floor());
    } else {
        past.learn(&dip, bottom);
    }
    hour - first >= KNOWN_HOURS && known.is_none_or(|known| percent < known - SLACK)
}

/// Forgets the filesystems that no longer exist.
pub(super) fn forget_others(past: &mut Past, exists: impl Fn(&str) -> bool) {
    let gone = past.facts(FACTS[0]).map(|(point, _)| point).filter(|point| !exists(point));
    for point in gone.map(str::to_owned).collect::<Vec<_>>() {
        for name in FACTS {
            past.forget(&format!("{name}{point}"));
        }
    }
}

/// Hour of the first run; percentages at the bottom of the current dip and of an earlier one, and
/// the hour in which that ended.
const FACTS: [&str; 4] = ["since ", "dip ", "low ", "low-at "];
/// A nightly job has run at least once.
const KNOWN_HOURS: f64 = 26.0;
/// Percentage points: no two backups have the same size.
const SLACK: f64 = 5.0;
/// Percentage points per hour: half a point a day.
const FORGOTTEN: f64 = 0.5 / 24.0;

/// `full in 3 h at this rate`; nothing if it is far away.
pub(super) fn said(left: Duration) -> Option<String> {
    let minutes = left.as_secs() / 60;
    let left = match minutes {
        0..=89 => format!("{minutes} min"),
        90..=2_879 => format!("{} h", (minutes + 30) / 60),
        2_880..=10_079 => format!("{} days", minutes / 1_440),
        _ => return None,
    };
    Some(format!("full in {left} at this rate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of a filesystem with a free percentage for each hour, one for [`STEP`] minutes.
    fn states(minutes: u32, percent: impl Fn(f64) -> f64) -> Vec<(f64, Option<Forecast>)> {
        let mut past = Past::default();
        (0..minutes)
            .step_by(STEP)
            .map(|minute| {
                let now = Duration::from_mins(u64::from(minute));
                past.begin(now + Duration::from_hours(1));
                let hour = f64::from(minute) / 60.0;
                let free = percent(hour).max(0.0) * 1e10;
                (hour, forecast(&mut past, "/var", free, 1e12, 480_000 + i64::from(minute / 60)))
            })
            .collect()
    }

    const STEP: usize = 4;

    /// In minutes.
    fn longest_alert(states: &[(f64, Option<Forecast>)]) -> usize {
        let alerts =
            |(_, forecast): &(f64, Option<Forecast>)| forecast.is_some_and(|it| it.state != State::Ok);
        states.split(|state| !alerts(state)).map(|alert| alert.len() * STEP).max().unwrap_or_default()
    }

    /// 60 % free, and 2 % less every hour since hour 48.
    #[test]
    fn a_filesystem_that_keeps_filling_alerts_before_the_ordinary_limits() {
        let states = states(78 * 60, |hour| 60.0 - 2.0 * (hour - 48.0).max(0.0));
        let first = |wanted| {
            let (hour, forecast) =
                states.iter().find(|(_, it)| it.is_some_and(|it| it.state == wanted)).unwrap();
            (hour.round(), forecast.unwrap().left.as_secs() / 3_600)
        };
        assert_eq!(first(State::Warning), (58.0, 19), "at 40 % free");
        assert_eq!(first(State::Critical), (74.0, 3), "4 h before it is full");
        assert!(states.iter().filter(|(hour, _)| *hour < 48.0).all(|(_, it)| it.is_none()));
    }

    #[test]
    fn a_nightly_backup_that_writes_and_deletes_does_not_alert() {
        // From 1 to 3 o'clock it writes 30 %; at 5 o'clock it deletes that.
        let backup = |hour: f64| match hour % 24.0 {
            night if (1.0..3.0).contains(&night) => 60.0 - 15.0 * (night - 1.0),
            night if (3.0..5.0).contains(&night) => 30.0,
            _ => 60.0,
        };
        let quiet = states(9 * 24 * 60, backup);
        assert_eq!(longest_alert(&quiet), 0);
        assert!(quiet.iter().any(|(_, it)| it.is_some()), "but it is said");
        // A bigger one on Sundays.
        let weekly = |hour: f64| backup(hour) - if hour > 168.0 && hour < 173.0 { 3.0 } else { 0.0 };
        assert_eq!(longest_alert(&states(9 * 24 * 60, weekly)), 0);
    }

    #[test]
    fn a_fill_that_goes_deeper_than_the_backup_alerts_once_it_is_below() {
        let runaway = |hour: f64| {
            let backup = if (1.0..5.0).contains(&(hour % 24.0)) { 30.0 } else { 0.0 };
            70.0 - backup - 3.0 * (hour - 80.0).max(0.0)
        };
        let states = states(110 * 60, runaway);
        let (hour, _) = states.iter().find(|(_, it)| it.is_some_and(|it| it.state != State::Ok)).unwrap();
        assert!((90.0..99.0).contains(hour), "{hour}");
    }

    /// netdata#859, #1148, #6114: apt, one big file, the first minutes after boot.
    #[test]
    fn a_single_step_is_not_a_trend() {
        let file = states(60 * 60, |hour| if hour < 50.0 { 60.0 } else { 30.0 });
        assert!(longest_alert(&file) < 30, "shorter than it must last: {}", longest_alert(&file));
        let apt = states(60 * 60, |hour| if hour < 50.0 { 30.0 } else { 28.8 });
        assert!(longest_alert(&apt) < 30);
        let boot = states(600, |hour| 30.0 - (hour * 20.0).min(10.0));
        assert_eq!(longest_alert(&boot), 0);
    }

    #[test]
    fn a_filesystem_that_is_gone_is_forgotten() {
        let mut past = Past::default();
        for point in ["/", "/mnt/stick"] {
            forecast(&mut past, point, 1.0, 2.0, 480_000);
        }
        forget_others(&mut past, |point| point == "/");
        assert_eq!(past.facts("").map(|(key, _)| key).collect::<Vec<_>>(), ["dip /", "since /"]);
    }

    #[test]
    fn the_time_that_is_left_is_said_in_words() {
        let said =
            [20, 89, 185, 47 * 60, 72 * 60, 8 * 1_440].map(|minutes| said(Duration::from_mins(minutes)));
        let wanted = ["20 min", "89 min", "3 h", "47 h", "3 days"]
            .map(|left| Some(format!("full in {left} at this rate")));
        assert_eq!(said[..5], wanted);
        assert_eq!(said[5], None);
    }
}
