//! `fan`: fans that have turned and stand still, or are below their minimum.
//!
//! Boards have more connectors than fans, so only a fan that has turned is watched. Some fans rest
//! on purpose: those of laptops, graphics cards and power supplies, and those that their board does
//! not drive at the moment (`pwm` 0). The minimum of a board's chip is often left over from its
//! reset, so it counts only for a fan that has been above it.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::temperature::excluded;
use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, PerThing, Reader},
    pattern::Pattern,
    perfdata::Perf,
    read::{
        hwmon::{self, Quantity, Sensor},
        portable::is_portable,
    },
    result::CheckResult,
    root::Root,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "fan",
    about: "fans that stand still or are too slow",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("fans that can be read", has_fans),
    interval: None,
    things: Things::Names,
    make,
};

fn has_fans(host: &Host) -> bool {
    hwmon::any(&host.root, Quantity::Fan) && !is_portable(&host.root)
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "exclude", value: "SENSOR", help: "skip this fan; * matches any text; can be a list" },
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range in RPM [below the chip's minimum]" },
    OptionSpec { name: "crit", value: "RANGE", help: "CRITICAL range in RPM [stands still]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Fan {
        root: host.root.clone(),
        exclude: reader.patterns("exclude"),
        limits: Arc::new(
            reader.per_thing(|reader| Thresholds { warn: reader.range("warn"), crit: reader.range("crit") }),
        ),
    }))
}

struct Fan {
    root: Root,
    exclude: Vec<Pattern>,
    limits: Arc<PerThing<Thresholds>>,
}

impl Blocking for Fan {
    fn run(&self) -> Judgement {
        let wanted = |name: &str| !self.exclude.iter().any(|pattern| pattern.matches(name));
        let fans = hwmon::sensors(&self.root, Quantity::Fan, wanted);
        let rests = is_portable(&self.root);
        let mut blind: Vec<_> = self.exclude.iter().map(excluded).collect();
        let limits = Arc::clone(&self.limits);
        Judgement::new(move |past| {
            let mut list = Vec::new();
            for fan in &fans {
                match judge(past, fan, *limits.of(&fan.name), rests) {
                    Ok(finding) => list.push(finding),
                    Err(why) => blind.push(Blind { thing: fan.name.clone(), why: why.into() }),
                }
            }
            Findings::all(list).with_blind(blind)
        })
    }
}

fn judge(past: &mut Past, fan: &Sensor, limits: Thresholds, rests: bool) -> Result<Finding, &'static str> {
    if fan.fault {
        return Err("not connected, says the chip");
    }
    let rpm = fan.value.filter(|rpm| (0.0..=FASTEST).contains(rpm)).ok_or("cannot be read")?;
    let best = past.fact(&fan.name);
    if rpm > 0.0 && best.is_none_or(|best| best < rpm && best < fan.min.unwrap_or(0.0)) {
        past.learn(&fan.name, rpm);
    }
    let configured = limits != Thresholds::default();
    let Some(best) = past.fact(&fan.name) else {
        if !configured {
            return Err("has never turned");
        }
        return Ok(finding(fan, limits, rpm, limits.judge(rpm), ""));
    };
    if configured {
        return Ok(finding(fan, limits, rpm, limits.judge(rpm), ""));
    }
    if rpm > 0.0 {
        let slow = fan.min.is_some_and(|min| rpm < min && min <= best);
        let own = Thresholds { warn: fan.min.filter(|min| *min <= best).map(Range::below), crit: None };
        let state = if slow { State::Warning } else { State::Ok };
        return Ok(finding(fan, own, rpm, state, ""));
    }
    let (state, why) = if rests || RESTING.iter().any(|chip| fan.chip.starts_with(chip)) {
        (State::Ok, "; it may rest")
    } else if fan.drive == Some(0.0) {
        (State::Ok, "; the board does not drive it")
    } else {
        (State::Critical, "; it has turned before")
    };
    Ok(finding(fan, Thresholds::default(), rpm, state, why))
}

fn finding(fan: &Sensor, limits: Thresholds, rpm: f64, state: State, why: &str) -> Finding {
    let mut summary = if rpm > 0.0 { format!("{rpm} RPM") } else { format!("stands still{why}") };
    if state != State::Ok
        && let Some(limit) = if state == State::Critical { limits.crit } else { limits.warn }
    {
        let _ = write!(summary, ", {} RPM", limit.crossed(rpm));
    }
    let perf = Perf::new(fan.name.clone(), rpm, "").thresholds(limits.warn, limits.crit).bounds(0.0, None);
    Finding::of(&fan.name, CheckResult::new(state, summary).with_perfdata(vec![perf])).lasting(MINUTE)
}

const MINUTE: Duration = Duration::from_mins(1);
const FASTEST: f64 = 50_000.0;
/// Graphics cards, laptops and power supplies stop their fans when they are cool.
const RESTING: [&str; 9] =
    ["amdgpu", "nouveau", "xe", "i915", "corsair", "thinkpad", "dell_smm", "applesmc", "asus"];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{findings, fixture, lines};

    /// A host with one fan that changes.
    struct One(tempfile::TempDir, Past, Duration);

    impl One {
        fn new(chip: &str) -> Self {
            let one = Self(tempfile::tempdir().unwrap(), Past::default(), Duration::from_hours(1));
            one.set("name", chip);
            one
        }

        fn set(&self, file: &str, text: &str) {
            let at = self.0.path().join("sys/class/hwmon/hwmon0");
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(file), format!("{text}\n")).unwrap();
        }

        fn line(&mut self, rpm: u32) -> String {
            self.line_with(rpm, &[])
        }

        fn line_with(&mut self, rpm: u32, options: &[(&str, &str)]) -> String {
            self.set("fan1_input", &rpm.to_string());
            self.2 += Duration::from_mins(1);
            let host = Host::new(Root::captured(self.0.path()));
            let found = findings("fan", options, &host, &mut self.1, self.2);
            lines(&found).first().cloned().unwrap_or_else(|| "not watched".into())
        }
    }

    #[test]
    fn a_fan_that_has_turned_and_stands_still_is_critical_even_after_a_restart() {
        let mut one = One::new("nct6798");
        one.set("fan1_alarm", "1");
        assert_eq!(one.line(0), "not watched", "lm-sensors#441: an open connector, 0 RPM ALARM");
        assert_eq!(one.line(1_200), "nct6798/fan1 OK 1200 RPM");
        assert_eq!(one.line(0), "nct6798/fan1 CRITICAL stands still; it has turned before");
        one.1 = one.1.facts_only();
        assert_eq!(one.line(0), "nct6798/fan1 CRITICAL stands still; it has turned before");
        one.set("pwm1", "0");
        assert_eq!(one.line(0), "nct6798/fan1 OK stands still; the board does not drive it");
        one.set("pwm1", "80");
        assert!(one.line(0).contains("CRITICAL"));
        assert_eq!(one.line_with(0, &[("crit", "@0:0"), ("exclude", "*")]), "not watched");
    }

    #[test]
    fn a_minimum_counts_for_a_fan_that_has_been_above_it() {
        let mut one = One::new("w83667hg");
        one.set("fan1_min", "10546");
        assert_eq!(one.line(1_171), "w83667hg/fan1 OK 1171 RPM", "a value after reset");
        one.set("fan1_min", "600");
        assert_eq!(one.line(1_171), "w83667hg/fan1 OK 1171 RPM");
        assert_eq!(one.line(400), "w83667hg/fan1 WARNING 400 RPM, below 600 RPM");
        assert_eq!(one.line_with(400, &[("crit", "500:")]), "w83667hg/fan1 CRITICAL 400 RPM, below 500 RPM");
    }

    #[test]
    fn fans_of_laptops_and_graphics_cards_may_rest() {
        let mut one = One::new("amdgpu");
        one.line(900);
        assert_eq!(one.line(0), "amdgpu/fan1 OK stands still; it may rest");
        let mut one = One::new("nct6798");
        let dmi = one.0.path().join("sys/class/dmi/id");
        fs::create_dir_all(&dmi).unwrap();
        fs::write(dmi.join("chassis_type"), "10\n").unwrap();
        one.line(900);
        assert_eq!(one.line(0), "nct6798/fan1 OK stands still; it may rest");
    }

    #[test]
    fn the_fans_of_a_desktop() {
        let host = fixture("sensors-desktop");
        let found = findings("fan", &[], &host, &mut Past::default(), Duration::from_hours(1));
        assert_eq!(lines(&found), ["nct6798/fan2 OK 573 RPM"]);
        assert_eq!(found.blind[0].why, "has never turned");
    }
}
