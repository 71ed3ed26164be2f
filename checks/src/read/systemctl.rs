//! The output of `systemctl show`: one unit per block, one property per line.
//!
//! Times are read in the two forms that do not depend on the version of systemd: microseconds of
//! `CLOCK_MONOTONIC` (`…Monotonic` of units), and text in UTC or as a span (timers).

use std::time::Duration;

/// A unit, as far as the properties are known. A property that is missing has its default.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
pub(crate) struct Unit {
    pub(crate) id: String,
    /// Its other names (aliases).
    pub(crate) names: Vec<String>,
    pub(crate) description: String,
    /// `loaded`, `not-found`, `masked`.
    pub(crate) load: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub(crate) active: String,
    /// `running`, `exited`, `dead`, `auto-restart`, …
    pub(crate) sub: String,
    /// `success`, `exit-code`, `signal`, …
    pub(crate) result: String,
    pub(crate) oneshot: bool,
    pub(crate) restarts_itself: bool,
    pub(crate) restarts: u64,
    pub(crate) remains_after_exit: bool,
    /// The conditions were checked and at least one did not hold.
    pub(crate) condition_failed: bool,
    pub(crate) transient: bool,
    pub(crate) required: bool,
    pub(crate) wanted: bool,
    pub(crate) triggered_by: String,
    /// When it last became active and last stopped being active; zero if never in this boot.
    pub(crate) entered: Duration,
    pub(crate) left: Duration,
    /// When the main process last ended.
    pub(crate) exited: Duration,
    pub(crate) exit_status: u32,
    pub(crate) timer: Timer,
}

/// What only timers have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Timer {
    /// The longest time between two triggers; `None` if it triggers only once.
    pub(crate) period: Option<Duration>,
    /// Unix time.
    pub(crate) last_wall: Option<i64>,
    pub(crate) last_monotonic: Option<Duration>,
    pub(crate) random_delay: Duration,
    pub(crate) persistent: bool,
}

/// The properties to ask for.
pub(crate) const PROPERTIES: &str = "Id,Names,Type,Description,Restart,NRestarts,LoadState,ActiveState,SubState,\
Result,RemainAfterExit,ConditionResult,ConditionTimestampMonotonic,ActiveEnterTimestampMonotonic,\
ActiveExitTimestampMonotonic,ExecMainExitTimestampMonotonic,ExecMainStatus,RequiredBy,WantedBy,\
TriggeredBy,Transient,TimersCalendar,TimersMonotonic,LastTriggerUSec,LastTriggerUSecMonotonic,\
RandomizedDelayUSec,Persistent";

/// All units, each once, in their original order.
pub(crate) fn parse(text: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for block in text.split("\n\n") {
        let unit = parse_unit(block);
        if !unit.id.is_empty() && seen.insert(unit.id.clone()) {
            units.push(unit);
        }
    }
    units
}

fn parse_unit(block: &str) -> Unit {
    let mut unit = Unit::default();
    let (mut condition, mut checked) = (true, false);
    for (name, value) in block.lines().filter_map(|line| line.split_once('=')) {
        let text = || value.to_owned();
        match name {
            "Id" => unit.id = text(),
            "Names" => unit.names = value.split_whitespace().map(str::to_owned).collect(),
            "Description" => unit.description = text(),
            "LoadState" => unit.load = text(),
            "ActiveState" => unit.active = text(),
            "SubState" => unit.sub = text(),
            "Result" => unit.result = text(),
            "Type" => unit.oneshot = value == "oneshot",
            "Restart" => unit.restarts_itself = !matches!(value, "" | "no"),
            "NRestarts" => unit.restarts = value.parse().unwrap_or(0),
            "RemainAfterExit" => unit.remains_after_exit = value == "yes",
            "ConditionResult" => condition = value == "yes",
            "ConditionTimestampMonotonic" => checked = microseconds(value) > Duration::ZERO,
            "Transient" => unit.transient = value == "yes",
            "RequiredBy" => unit.required = !value.is_empty(),
            "WantedBy" => unit.wanted = !value.is_empty(),
            "TriggeredBy" => unit.triggered_by = text(),
            "ActiveEnterTimestampMonotonic" => unit.entered = microseconds(value),
            "ActiveExitTimestampMonotonic" => unit.left = microseconds(value),
            "ExecMainExitTimestampMonotonic" => unit.exited = microseconds(value),
            "ExecMainStatus" => unit.exit_status = value.parse().unwrap_or(0),
            "Persistent" => unit.timer.persistent = value == "yes",
            "RandomizedDelayUSec" => unit.timer.random_delay = span(value).unwrap_or_default(),
            "LastTriggerUSec" => unit.timer.last_wall = utc(value),
            "LastTriggerUSecMonotonic" => unit.timer.last_monotonic = span(value).filter(|at| !at.is_zero()),
            "TimersCalendar" | "TimersMonotonic" => {
                let period = timer_period(value);
                unit.timer.period = match (unit.timer.period, period) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
            _ => {}
        }
    }
    unit.condition_failed = checked && !condition;
    unit
}

fn microseconds(text: &str) -> Duration {
    Duration::from_micros(text.parse().unwrap_or(0))
}

/// `{ OnCalendar=*-*-* 00:00:00 ; next_elapse=… }`, `{ OnUnitActiveUSec=1d ; next_elapse=… }`.
fn timer_period(text: &str) -> Option<Duration> {
    let spec = text.trim_start_matches(['{', ' ']).split(" ;").next()?;
    match spec.split_once('=')? {
        ("OnCalendar", spec) => calendar_period(spec),
        ("OnUnitActiveUSec" | "OnUnitInactiveUSec", every) => span(every),
        _ => None,
    }
}

/// An upper bound for the time between two triggers of `[weekday] year-month-day hour:minute:second
/// [zone]`, as systemd prints it. Too long a bound only makes a warning late.
fn calendar_period(spec: &str) -> Option<Duration> {
    let mut words = spec.split_whitespace().peekable();
    let weekday = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())).is_some();
    let (date, time) = (words.next()?, words.next()?);
    let mut date = date.split(['-', '~']);
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let mut time = time.split(':');
    let (hour, minute) = (time.next()?, time.next()?);
    if !year.contains('*') {
        return None;
    }
    Some(match (month, day, weekday, hour, minute) {
        ("*", "*", false, "*", "*") => Duration::from_mins(1),
        ("*", "*", false, "*", _) => Duration::from_hours(1),
        ("*", "*", false, ..) => DAY,
        ("*", "*", true, ..) => 7 * DAY,
        ("*", ..) => 31 * DAY,
        _ => 366 * DAY,
    })
}

const DAY: Duration = Duration::from_hours(24);

/// `3h 48min 51.017976s`; `None` for `infinity`.
fn span(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = 0.0;
    for part in text.split_whitespace() {
        let digits = part.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = part.split_at(digits);
        let seconds = match unit {
            "us" | "μs" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "month" => 2_629_800.0,
            "y" => 31_557_600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(sum).ok()).flatten()
}

/// `Mon 2026-11-30 22:12:58 UTC` as Unix time.
fn utc(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace();
    let (_, date, time, zone) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if zone != "UTC" {
        return None;
    }
    let three = |text: &str, by: char| -> Option<[i64; 3]> {
        let numbers: Option<Vec<i64>> = text.split(by).map(|field| field.parse().ok()).collect();
        numbers?.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (three(date, '-')?, three(time, ':')?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01 in the Gregorian calendar, with years that start in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour.clamp(0, 23)) * 60 + minute.clamp(0, 59)) * 60 + second.clamp(0, 60))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Captured from systemd 252; see `tests/fixtures/README.md`.
    fn captured() -> Vec<Unit> {
        parse(include_str!("../../tests/fixtures/units/show.txt"))
    }

    #[test]
    fn each_unit_of_a_real_systemd_is_read_once() {
        let units = captured();
        let unit = |id: &str| units.iter().find(|unit| unit.id == id).unwrap();
        assert_eq!(units.iter().filter(|unit| unit.id == "crash.service").count(), 1);
        let restarting = unit("loop.service");
        assert_eq!((restarting.restarts, restarting.sub.as_str()), (254, "auto-restart"));
        assert!(restarting.restarts_itself && restarting.wanted && !restarting.required);
        assert!(unit("cond.service").condition_failed && !unit("web.service").condition_failed);
        assert!(unit("job.service").oneshot && unit("job.service").active == "failed");
        assert!(unit("killed.service").transient);
    }

    #[test]
    fn a_timer_has_a_period_and_its_last_trigger() {
        let units = captured();
        let timer = |id: &str| units.iter().find(|unit| unit.id == id).unwrap().timer.clone();
        let job = timer("job.timer");
        assert_eq!(job.period, Some(Duration::from_secs(10)));
        assert!(job.last_monotonic.unwrap() > Duration::from_hours(3) && job.last_wall.is_some());
        let daily = timer("daily.timer");
        assert_eq!((daily.period, daily.last_wall, daily.persistent), (Some(DAY), None, true));
        assert_eq!(daily.random_delay, Duration::from_hours(1));
    }

    #[test]
    fn periods_are_never_too_short() {
        for (spec, hours) in [
            ("*-*-* *:00/1:00", 1),
            ("*-*-* *:00:00", 1),
            ("*-*-* 06,18:00:00", 24),
            ("*-*-* 09..17:00/5:00", 24),
            ("*-*-* 00:00:00 Europe/Berlin", 24),
            ("Mon *-*-* 00:00:00", 7 * 24),
            ("Mon..Fri *-*-* *:00:00", 7 * 24),
            ("*-*-01 00:00:00", 31 * 24),
            ("*-*~01 00:00:00", 31 * 24),
            ("*-01,07-01 00:00:00", 366 * 24),
        ] {
            assert_eq!(calendar_period(spec), Some(Duration::from_hours(hours)), "{spec}");
        }
        assert_eq!(calendar_period("2030-01-01 00:00:00"), None);
        assert_eq!(timer_period("{ OnBootUSec=15min ; next_elapse=15min }"), None);
    }

    #[test]
    fn times_are_read() {
        assert_eq!(utc("Thu 1970-01-01 00:00:00 UTC"), Some(0));
        assert_eq!(utc("Mon 2026-11-30 22:12:58 UTC"), Some(1_796_076_778));
        assert_eq!(utc("Thu 2024-02-29 12:00:00 UTC"), Some(1_709_208_000));
        assert_eq!(["", "n/a", "Mon 2026-11-30 22:12:58 CET"].map(utc), [None; 3]);
        assert_eq!(span("1d 2h 3min"), Some(Duration::from_mins(1_563)));
        assert_eq!(span("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(["infinity", "", "5"].map(span), [None; 3]);
    }

    proptest! {
        #[test]
        fn any_output_can_be_read(text in "(([A-Z][A-Za-z]{0,30}=)?[\\PC{}:*~.-]{0,40}\n){0,20}") {
            parse(&text);
        }

        #[test]
        fn any_value_can_be_read(value in "\\PC{0,40}|[0-9a-z. :*~-]{0,40}") {
            let _ = (span(&value), utc(&value), timer_period(&value), calendar_period(&value));
            let _ = utc(&format!("Mon {value} UTC"));
        }
    }
}
