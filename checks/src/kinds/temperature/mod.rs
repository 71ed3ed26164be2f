//! `temperature`: sensors of processors, disks, boards and thermal zones against their own limits.
//!
//! Limits are those of the chip (max and crit), if plausible; otherwise 80 and 90 °C. Many inputs
//! measure nothing (lm-sensors#260, netdata#23673: 3.9 million °C), so a sensor does not count if
//! the chip says that it is faulty, or if it is below -40 or above 125 °C. A sensor of a board's
//! monitoring chip counts only after it has been within its limits once: open inputs show 90 to
//! 127 °C for ever.
//!
//! A processor may be hot for minutes; a warning therefore needs ten of them. A laptop runs at its
//! limit whenever it works, so it never alerts more than WARNING. Where a sensor sums up others
//! (the package of a processor, the composite temperature of an NVMe disk), the others are left
//! out.

use std::{sync::Arc, time::Duration};

use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, PerThing, Reader},
    pattern::Pattern,
    perfdata::Perf,
    read::{
        hwmon::{self, Quantity, Sensor},
        portable::is_portable,
        thermal,
    },
    result::CheckResult,
    root::Root,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "temperature",
    about: "temperatures of processors, disks and boards",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("temperature sensors", has_sensors),
    interval: None,
    things: Things::Names,
    make,
};

fn has_sensors(host: &Host) -> bool {
    hwmon::any(&host.root, Quantity::Temperature) || !thermal::zones(&host.root, &[], |_| true).is_empty()
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "exclude",
        value: "SENSOR",
        help: "do not read this sensor, for example \"drivetemp/*\"; * matches any text; can be a list",
    },
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range in °C [the chip's own limit, or 80]" },
    OptionSpec { name: "crit", value: "RANGE", help: "CRITICAL range in °C [the chip's own limit, or 90]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Temperature {
        root: host.root.clone(),
        exclude: reader.patterns("exclude"),
        limits: Arc::new(
            reader.per_thing(|reader| Thresholds { warn: reader.range("warn"), crit: reader.range("crit") }),
        ),
    }))
}

struct Temperature {
    root: Root,
    exclude: Vec<Pattern>,
    limits: Arc<PerThing<Thresholds>>,
}

impl Blocking for Temperature {
    fn run(&self) -> Judgement {
        let wanted = |name: &str| !self.exclude.iter().any(|pattern| pattern.matches(name));
        let mut sensors = hwmon::sensors(&self.root, Quantity::Temperature, wanted);
        let zones = thermal::zones(&self.root, &sensors, wanted);
        sensors.extend(zones);
        let portable = is_portable(&self.root);
        let mut blind: Vec<_> = self.exclude.iter().map(excluded).collect();
        let limits = Arc::clone(&self.limits);
        Judgement::new(move |past| {
            let list = summing_up(&sensors)
                .filter_map(|sensor| match judge(past, sensor, *limits.of(&sensor.name), portable) {
                    Ok(finding) => Some(finding),
                    Err(why) => {
                        blind.push(Blind { thing: sensor.name.clone(), why: why.into() });
                        None
                    }
                })
                .collect();
            Findings::all(list).with_blind(blind)
        })
    }
}

/// For the list of what is not watched. The sensors themselves are not read.
pub(super) fn excluded(pattern: &Pattern) -> Blind {
    Blind { thing: pattern.to_string(), why: format!("excluded by exclude = \"{pattern}\"") }
}

/// Leaves out sensors that another one of their chip includes.
fn summing_up(sensors: &[Sensor]) -> impl Iterator<Item = &Sensor> {
    sensors.iter().filter(|sensor| {
        let chip = sensor.name.strip_suffix(&sensor.label).unwrap_or_default();
        let has = |label: &str| {
            sensors.iter().any(|other| other.name.starts_with(chip) && other.label.starts_with(label))
        };
        !match sensor.chip.as_str() {
            "coretemp" => sensor.label.starts_with("Core ") && has("Package"),
            "nvme" => sensor.label != "Composite" && has("Composite"),
            // Tctl may be up to 27 °C above Tdie, to keep the fan fast.
            "k10temp" | "zenpower" => sensor.label == "Tctl" && has("Tdie"),
            _ => false,
        }
    })
}

fn judge(
    past: &mut Past,
    sensor: &Sensor,
    limits: Thresholds,
    portable: bool,
) -> Result<Finding, &'static str> {
    if sensor.fault {
        return Err("not connected, says the chip");
    }
    let value = sensor.value.ok_or("cannot be read (it may be asleep)")?;
    if !PLAUSIBLE.contains(&value) {
        return Err("not plausible: probably not connected");
    }
    let alarm = sensor.alarm && has_own_limits(sensor) && limits == Thresholds::default();
    let own = own_limits(sensor);
    let limits = Thresholds {
        warn: limits.warn.or(Some(Range::only_above(own.0))),
        crit: limits.crit.or(Some(Range::only_above(own.1))),
    };
    let mut state = limits.judge_after(value, past.was(Some(&sensor.name)));
    if state == State::Ok {
        past.learn(&sensor.name, 1.0);
    } else if is_board_chip(&sensor.chip) && past.fact(&sensor.name).is_none() {
        return Err("above its limit since it was first seen: probably not connected");
    }
    if portable && state == State::Critical {
        state = State::Warning;
    }
    let alarm = alarm && state == State::Ok;
    if alarm {
        state = State::Warning;
    }
    let summary = match state {
        State::Ok => format!("{value:.0} °C"),
        _ if alarm => format!("{value:.0} °C, but the chip reports an alarm"),
        _ => {
            let crossed = [limits.crit, limits.warn].into_iter().flatten().find(|range| range.alerts(value));
            match crossed {
                Some(range) => format!("{value:.0} °C, {} °C", range.crossed(value)),
                // Just below the limit that it has crossed.
                None => format!("{value:.0} °C, still near its limit"),
            }
        }
    };
    let perf = Perf::new(sensor.name.clone(), (value * 10.0).round() / 10.0, "C")
        .thresholds(limits.warn, limits.crit);
    let finding = Finding::of(&sensor.name, CheckResult::new(state, summary).with_perfdata(vec![perf]));
    Ok(if state == State::Warning { finding.lasting(HOT) } else { finding })
}

const PLAUSIBLE: std::ops::RangeInclusive<f64> = -40.0..=125.0;
const HOT: Duration = Duration::from_mins(10);

/// Warning and critical limit.
fn own_limits(sensor: &Sensor) -> (f64, f64) {
    let plausible = |limit: Option<f64>| limit.filter(|limit| (30.0..=125.0).contains(limit));
    let crit = plausible(sensor.crit);
    // The same for every processor (k10temp: 70 °C) or memory module (spd5118: 55 °C), and lower
    // than what they reach at work.
    let max = plausible(sensor.max).filter(|_| !matches!(sensor.chip.as_str(), "k10temp" | "spd5118"));
    match (max, crit) {
        (Some(max), Some(crit)) if max < crit => (max, crit),
        (_, Some(crit)) => (crit - 5.0, crit),
        (Some(max), None) => (max, max + 10.0),
        // AMD's processors run at up to 95 °C.
        (None, None) if sensor.chip == "k10temp" || sensor.chip == "zenpower" => (95.0, 105.0),
        (None, None) => (80.0, 90.0),
    }
}

/// An alarm means nothing if the limits are not set.
fn has_own_limits(sensor: &Sensor) -> bool {
    let set = |limit: Option<f64>| limit.is_some_and(|limit| limit > 0.0);
    !is_board_chip(&sensor.chip) && (set(sensor.max) || set(sensor.crit))
}

/// Monitoring chips of boards, whose inputs may be open and whose limits nobody has set.
pub(super) fn is_board_chip(chip: &str) -> bool {
    BOARD_CHIPS.iter().any(|prefix| chip.starts_with(prefix))
}

const BOARD_CHIPS: [&str; 14] =
    ["nct", "it8", "w83", "f71", "f81", "sch", "dme", "vt", "lm", "adt", "asus", "asb", "smsc", "pc87"];

#[cfg(test)]
mod tests;
