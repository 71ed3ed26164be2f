//! `power`: power supplies of a server, and a UPS that the kernel knows.
//!
//! A supply without mains is a problem only where there is a second one; a host with one would not
//! say anything. Batteries are not judged: a laptop runs on its battery whenever it is carried
//! around. Most servers show their power supplies only through IPMI; see also `voltage`.

use std::{fs, path::Path, time::Duration};

use super::temperature::excluded;
use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, Reader},
    pattern::Pattern,
    perfdata::Perf,
    read::{hwmon::text, portable::is_portable},
    result::CheckResult,
    root::Root,
    threshold::Range,
};

pub(crate) const KIND: Kind = Kind {
    name: "power",
    about: "power supplies of a server, and its UPS",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("power supplies that can be read", has_supplies),
    interval: None,
    things: Things::Names,
    make,
};

fn has_supplies(host: &Host) -> bool {
    let supplies = supplies(&host.root);
    let count = |kind: &str| supplies.iter().filter(|supply| supply.kind == kind).count();
    !is_portable(&host.root) && (count(MAINS) > 1 || count(UPS) > 0)
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "exclude",
        value: "NAME",
        help: "skip this supply; * matches any text; can be a list",
    },
    OptionSpec {
        name: "crit",
        value: "RANGE",
        help: "CRITICAL range for the charge of a UPS without mains, in percent [20:]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Power {
        root: host.root.clone(),
        exclude: reader.patterns("exclude"),
        charge: reader.range("crit").unwrap_or(Range::below(20.0)),
    }))
}

struct Power {
    root: Root,
    exclude: Vec<Pattern>,
    charge: Range,
}

/// An entry of `/sys/class/power_supply` (the kernel's `ABI/testing/sysfs-class-power`).
#[derive(Debug, Clone, PartialEq)]
struct Supply {
    name: String,
    kind: String,
    online: Option<bool>,
    discharging: bool,
    /// Percent.
    charge: Option<f64>,
}

const MAINS: &str = "Mains";
const UPS: &str = "UPS";

fn supplies(root: &Root) -> Vec<Supply> {
    let Ok(entries) = fs::read_dir(root.path("/sys/class/power_supply")) else { return Vec::new() };
    let mut supplies: Vec<_> = entries.flatten().filter_map(|entry| supply(&entry.path())).collect();
    supplies.sort_by(|one, other| one.name.cmp(&other.name));
    supplies
}

fn supply(at: &Path) -> Option<Supply> {
    let read = |file: &str| text(&at.join(file));
    Some(Supply {
        name: at.file_name()?.to_str()?.to_owned(),
        kind: read("type")?,
        online: read("online").map(|online| online != "0"),
        discharging: read("status").as_deref() == Some("Discharging"),
        charge: read("capacity").and_then(|percent| percent.parse().ok()),
    })
}

impl Blocking for Power {
    fn run(&self) -> Judgement {
        let supplies = supplies(&self.root);
        let (charge, exclude) = (self.charge, self.exclude.clone());
        let portable = is_portable(&self.root);
        Judgement::new(move |past| {
            let mut findings = judge(past, &supplies, charge, portable);
            let is_excluded = |thing: &str| exclude.iter().any(|pattern| pattern.matches(thing));
            findings.list.retain(|finding| !finding.thing.as_deref().is_some_and(is_excluded));
            findings.with_blind(exclude.iter().map(excluded).collect())
        })
    }
}

fn judge(past: &mut Past, supplies: &[Supply], charge: Range, portable: bool) -> Findings {
    let mains = || supplies.iter().filter(|supply| supply.kind == MAINS);
    for supply in mains().filter(|supply| supply.online == Some(true)) {
        past.learn(&supply.name, 1.0);
    }
    let missing: Vec<_> = past
        .facts("")
        .map(|(name, _)| name.to_owned())
        .filter(|name| !mains().any(|one| one.name == *name))
        .collect();
    let several = mains().count() + missing.len() > 1 && !portable;
    let mut list = Vec::new();
    for supply in supplies {
        let result = match supply.kind.as_str() {
            MAINS => judge_mains(past, supply, several),
            UPS => judge_ups(supply, charge),
            _ => continue,
        };
        list.push(Finding::of(&supply.name, result).lasting(MINUTE));
    }
    if several {
        list.extend(missing.into_iter().map(|name| {
            Finding::of(name, CheckResult::new(State::Critical, "was there before and is missing"))
                .lasting(MINUTE)
        }));
    }
    Findings::all(list)
}

/// The lights flicker.
const MINUTE: Duration = Duration::from_mins(1);

fn judge_mains(past: &Past, supply: &Supply, several: bool) -> CheckResult {
    let lost = supply.online == Some(false) && past.fact(&supply.name).is_some();
    match supply.online {
        Some(true) => CheckResult::new(State::Ok, "online"),
        _ if lost && several => {
            CheckResult::new(State::Warning, "no mains; the host runs on its other power supply")
        }
        _ => CheckResult::new(State::Ok, "no mains"),
    }
}

fn judge_ups(ups: &Supply, charge: Range) -> CheckResult {
    let left = ups.charge.map(|charge| format!(", {charge}% charge left")).unwrap_or_default();
    let perf = ups.charge.map(|value| {
        Perf::new(format!("{} charge", ups.name), value, "%")
            .thresholds(None, Some(charge))
            .bounds(0.0, 100.0)
    });
    let on_battery = ups.discharging || ups.online == Some(false);
    let state = match ups.charge {
        _ if !on_battery => State::Ok,
        Some(value) if charge.alerts(value) => State::Critical,
        _ => State::Warning,
    };
    let said = if on_battery { "no mains, on battery" } else { "on mains" };
    CheckResult::new(state, format!("{said}{left}")).with_perfdata(perf.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        built_in,
        testing::{findings, lines},
    };

    struct World(tempfile::TempDir, Past);

    impl World {
        fn new(supplies: &[(&str, &str)]) -> Self {
            let world = Self(tempfile::tempdir().unwrap(), Past::default());
            for (name, kind) in supplies {
                world.set(name, "type", kind);
                world.set(name, "online", "1");
            }
            world
        }

        fn set(&self, supply: &str, file: &str, text: &str) {
            let at = self.0.path().join("sys/class/power_supply").join(supply);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(file), format!("{text}\n")).unwrap();
        }

        fn host(&self) -> Host {
            Host::new(Root::captured(self.0.path()))
        }

        fn lines(&mut self) -> Vec<String> {
            self.lines_with(&[])
        }

        fn lines_with(&mut self, options: &[(&str, &str)]) -> Vec<String> {
            let host = self.host();
            lines(&findings("power", options, &host, &mut self.1, Duration::from_hours(1)))
        }

        fn is_built_in(&self) -> bool {
            built_in(&self.host()).any(|kind| kind.name == "power")
        }
    }

    #[test]
    fn one_of_two_supplies_without_mains_is_a_warning_and_a_missing_one_critical() {
        let mut world = World::new(&[("PSU1", "Mains"), ("PSU2", "Mains")]);
        assert!(world.is_built_in());
        assert_eq!(world.lines(), ["PSU1 OK online", "PSU2 OK online"]);
        world.set("PSU2", "online", "0");
        let lost = "PSU2 WARNING no mains; the host runs on its other power supply";
        assert_eq!(world.lines(), ["PSU1 OK online", lost]);
        fs::remove_dir_all(world.0.path().join("sys/class/power_supply/PSU2")).unwrap();
        assert_eq!(world.lines(), ["PSU1 OK online", "PSU2 CRITICAL was there before and is missing"]);
        assert_eq!(world.lines_with(&[("exclude", "PSU2")]), ["PSU1 OK online"]);
    }

    #[test]
    fn a_laptop_on_its_battery_is_fine() {
        let mut world = World::new(&[("AC", "Mains"), ("BAT0", "Battery"), ("dock", "Mains")]);
        world.set("BAT0", "capacity", "7");
        assert!(!world.is_built_in());
        world.lines();
        world.set("AC", "online", "0");
        world.set("BAT0", "status", "Discharging");
        assert_eq!(world.lines(), ["AC OK no mains", "dock OK online"]);
    }

    #[test]
    fn a_second_supply_that_was_never_connected_is_fine() {
        let mut world = World::new(&[("PSU1", "Mains"), ("PSU2", "Mains")]);
        world.set("PSU2", "online", "0");
        assert_eq!(world.lines(), ["PSU1 OK online", "PSU2 OK no mains"]);
    }

    #[test]
    fn a_ups_without_mains_is_a_warning_and_critical_when_it_runs_empty() {
        let mut world = World::new(&[("ups0", "UPS")]);
        assert!(world.is_built_in());
        world.set("ups0", "capacity", "100");
        assert_eq!(world.lines(), ["ups0 OK on mains, 100% charge left"]);
        world.set("ups0", "status", "Discharging");
        world.set("ups0", "capacity", "60");
        assert_eq!(world.lines(), ["ups0 WARNING no mains, on battery, 60% charge left"]);
        world.set("ups0", "capacity", "19");
        assert_eq!(world.lines(), ["ups0 CRITICAL no mains, on battery, 19% charge left"]);
    }
}
