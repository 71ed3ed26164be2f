//! `voltage`: voltages, currents and power that are outside of their limits.
//!
//! The limits are those of the chip. Boards come with limits that nobody has set (lm-sensors#260:
//! min = max = 0 ALARM), so a pair of limits must be plausible (0 < min < max), and a board's chip
//! counts only after it has been within them. Batteries and USB chargers are left to `power`.

use std::{fmt::Write as _, fs, sync::Arc, time::Duration};

use super::temperature::{excluded, is_board_chip};
use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, PerThing, Reader},
    pattern::Pattern,
    perfdata::Perf,
    read::hwmon::{self, Quantity, Sensor},
    result::CheckResult,
    root::Root,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "voltage",
    about: "voltages, currents and power outside of their limits",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("voltage sensors", has_sensors),
    interval: None,
    things: Things::Names,
    make,
};

const QUANTITIES: [(Quantity, &str); 3] =
    [(Quantity::Voltage, "V"), (Quantity::Current, "A"), (Quantity::Power, "W")];

fn has_sensors(host: &Host) -> bool {
    let sensors = |(quantity, _)| hwmon::sensors(&host.root, quantity, |_| true);
    QUANTITIES
        .into_iter()
        .flat_map(sensors)
        .any(|sensor| own_limits(&sensor).is_some() && !is_supply(&host.root, &sensor))
}

/// Whether the kernel made this chip of a battery or a charger: a charger that is unplugged is
/// below its minimum.
fn is_supply(root: &Root, sensor: &Sensor) -> bool {
    let Ok(supplies) = fs::read_dir(root.path("/sys/class/power_supply")) else { return false };
    supplies.flatten().any(|supply| supply.file_name().to_string_lossy().replace('-', "_") == sensor.chip)
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "exclude",
        value: "SENSOR",
        help: "skip this sensor; * matches any text; can be a list",
    },
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range in V, A or W [the chip's min and max]" },
    OptionSpec {
        name: "crit",
        value: "RANGE",
        help: "CRITICAL range in V, A or W [the chip's lcrit and crit]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Voltage {
        root: host.root.clone(),
        exclude: reader.patterns("exclude"),
        limits: Arc::new(
            reader.per_thing(|reader| Thresholds { warn: reader.range("warn"), crit: reader.range("crit") }),
        ),
    }))
}

struct Voltage {
    root: Root,
    exclude: Vec<Pattern>,
    limits: Arc<PerThing<Thresholds>>,
}

impl Blocking for Voltage {
    fn run(&self) -> Judgement {
        let wanted = |name: &str| !self.exclude.iter().any(|pattern| pattern.matches(name));
        let read = |(quantity, unit)| {
            let sensors = hwmon::sensors(&self.root, quantity, wanted);
            sensors.into_iter().map(move |sensor| (sensor, unit))
        };
        let sensors: Vec<_> = QUANTITIES
            .into_iter()
            .flat_map(read)
            .filter(|(sensor, _)| !is_supply(&self.root, sensor))
            .collect();
        let mut blind: Vec<_> = self.exclude.iter().map(excluded).collect();
        let limits = Arc::clone(&self.limits);
        Judgement::new(move |past| {
            let mut list = Vec::new();
            for (sensor, unit) in &sensors {
                match judge(past, sensor, unit, *limits.of(&sensor.name)) {
                    Ok(finding) => list.push(finding),
                    Err(why) => blind.push(Blind { thing: sensor.name.clone(), why: why.into() }),
                }
            }
            Findings::all(list).with_blind(blind)
        })
    }
}

fn judge(past: &mut Past, sensor: &Sensor, unit: &str, limits: Thresholds) -> Result<Finding, &'static str> {
    if sensor.fault {
        return Err("not connected, says the chip");
    }
    let configured = limits != Thresholds::default();
    let limits = if configured { limits } else { own_limits(sensor).ok_or("has no plausible limits")? };
    let value = sensor.value.filter(|value| value.is_finite()).ok_or("cannot be read")?;
    let mut state = limits.judge(value);
    if state == State::Ok {
        past.learn(&sensor.name, 1.0);
    } else if !configured && is_board_chip(&sensor.chip) && past.fact(&sensor.name).is_none() {
        return Err("outside of its limits since it was first seen: probably not connected");
    }
    let mut summary = format!("{value:.2} {unit}");
    let limit = if state == State::Critical { limits.crit } else { limits.warn };
    if state == State::Ok && sensor.alarm && !configured && !is_board_chip(&sensor.chip) {
        state = State::Warning;
        summary.push_str(", but the chip reports an alarm");
    } else if let Some(limit) = limit.filter(|_| state != State::Ok) {
        let _ = write!(summary, ", {} {unit}", limit.crossed(value));
    }
    let perf = Perf::new(sensor.name.clone(), value, unit).thresholds(limits.warn, limits.crit);
    Ok(Finding::of(&sensor.name, CheckResult::new(state, summary).with_perfdata(vec![perf])).lasting(STEADY))
}

/// A value that is out of range for one reading was misread.
const STEADY: Duration = Duration::from_mins(3);

/// The limits of the chip, as far as they are plausible.
fn own_limits(sensor: &Sensor) -> Option<Thresholds> {
    let pair = |low: Option<f64>, high: Option<f64>| {
        let set = |limit: Option<f64>| limit.filter(|limit| *limit > 0.0 && limit.is_finite());
        match (set(low), set(high)) {
            (Some(low), Some(high)) if low < high => Some(Range::between(low, high)),
            // A lower limit of 0 is none: a power supply limits what it gives.
            (None, Some(high)) if low.is_none() || low == Some(0.0) => Some(Range::only_above(high)),
            (Some(low), None) if high.is_none() => Some(Range::below(low)),
            _ => None,
        }
    };
    // A board's chip that has no minimum has no limits that somebody has set.
    if is_board_chip(&sensor.chip) && sensor.min.is_none_or(|min| min <= 0.0) {
        return None;
    }
    let limits = Thresholds { warn: pair(sensor.min, sensor.max), crit: pair(sensor.low_crit, sensor.crit) };
    (limits != Thresholds::default()).then_some(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        built_in,
        testing::{findings, fixture, lines},
    };

    fn sensor(chip: &str, value: f64, limits: [f64; 4]) -> Sensor {
        let [low_crit, min, max, crit] = limits.map(|limit| (!limit.is_nan()).then_some(limit));
        let (name, chip) = (format!("{chip}/in1"), chip.to_owned());
        Sensor { name, chip, value: Some(value), low_crit, min, max, crit, ..Sensor::default() }
    }

    fn line(past: &mut Past, sensor: &Sensor) -> String {
        match judge(past, sensor, "V", Thresholds::default()) {
            Ok(finding) => format!("{} {}", finding.result.state, finding.result.summary),
            Err(why) => why.into(),
        }
    }

    const NONE: f64 = f64::NAN;

    #[test]
    fn a_power_supply_is_judged_by_its_own_limits() {
        let past = &mut Past::default();
        let mut output = |value| line(past, &sensor("dps920ab", value, [10.8, 11.4, 12.6, 13.2]));
        assert_eq!(output(12.1), "OK 12.10 V");
        assert_eq!(output(11.2), "WARNING 11.20 V, below 11.4 V");
        assert_eq!(output(10.5), "CRITICAL 10.50 V, below 10.8 V");
        let mut current = |value| line(past, &sensor("pmbus", value, [NONE, 0.0, 70.0, 80.0]));
        assert_eq!(current(0.0), "OK 0.00 V", "nothing is connected");
        assert_eq!(current(75.0), "WARNING 75.00 V, above 70 V");
    }

    #[test]
    fn limits_that_nobody_has_set_do_not_alert() {
        let past = &mut Past::default();
        for [min, max] in [[0.0, 0.0], [2.11, 1.02], [0.0, 1.74], [NONE, NONE]] {
            assert_eq!(
                line(past, &sensor("w83667hg", 3.33, [NONE, min, max, NONE])),
                "has no plausible limits",
                "{min} {max}"
            );
        }
        let probably = "outside of its limits since it was first seen: probably not connected";
        assert_eq!(line(past, &sensor("w83667hg", 1.72, [NONE, 0.08, 1.06, NONE])), probably);
        assert_eq!(line(past, &sensor("w83667hg", 1.0, [NONE, 0.08, 1.06, NONE])), "OK 1.00 V");
        let broken = line(past, &sensor("w83667hg", 1.72, [NONE, 0.08, 1.06, NONE]));
        assert_eq!(broken, "WARNING 1.72 V, above 1.06 V");
    }

    #[test]
    fn an_alarm_alone_is_a_warning() {
        let past = &mut Past::default();
        let mut supply = sensor("dps920ab", 12.1, [10.8, 11.4, 12.6, 13.2]);
        supply.alarm = true;
        assert_eq!(line(past, &supply), "WARNING 12.10 V, but the chip reports an alarm");
    }

    #[test]
    fn an_unplugged_usb_charger_is_no_voltage() {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join("sys/class").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("power_supply/ucsi-source-psy-USBC000:001/type", "USB\n");
        write("hwmon/hwmon3/name", "ucsi_source_psy_USBC000:001\n");
        for (file, text) in [("in0_input", "0"), ("in0_min", "5000"), ("in0_max", "20000")] {
            write(&format!("hwmon/hwmon3/{file}"), text);
        }
        let host = Host::new(Root::captured(tree.path()));
        assert!(!built_in(&host).any(|kind| kind.name == "voltage"));
        let found = findings("voltage", &[], &host, &mut Past::default(), Duration::from_hours(1));
        assert!(found.list.is_empty() && found.blind.is_empty());
    }

    #[test]
    fn the_supplies_of_a_server() {
        let host = fixture("sensors-server");
        let found = findings("voltage", &[], &host, &mut Past::default(), Duration::from_hours(1));
        assert_eq!(
            lines(&found),
            ["dps920ab/vout1 OK 12.05 V", "dps920ab/iout1 OK 21.50 A", "dps920ab/pout1 OK 259.00 W"]
        );
        assert_eq!(found.blind.len(), 1, "{:?}", found.blind);
        assert!(built_in(&host).any(|kind| kind.name == "voltage"));
        assert!(!built_in(&fixture("debian12-vm")).any(|kind| kind.name == "voltage"));
    }
}
