//! `bond`: bonds that have lost ports.
//!
//! A bond should have as many active ports as it ever had, or as many as it has now, whichever is
//! more: a card that has failed completely disappears from the list of ports. With LACP, only ports
//! in the active aggregate count, and only the highest number so far is expected: two aggregates to
//! two switches, of which one waits, are a common setup.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, PerThing, Reader},
    pattern::Pattern,
    perfdata::Perf,
    read::bond::{self, Bond, PortState},
    result::CheckResult,
    root::Root,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "bond",
    about: "bonds that have lost ports",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("bonds", has_bonds),
    interval: None,
    things: Things::Names,
    make,
};

fn has_bonds(host: &Host) -> bool {
    bond::bonds(&host.root).is_ok_and(|bonds| !bonds.is_empty())
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "exclude", value: "NAME", help: "skip this bond; * matches any text; can be a list" },
    OptionSpec {
        name: "ports",
        value: "NUMBER",
        help: "how many active ports the bond should have [the most so far]",
    },
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range for the number of lost ports [0]" },
    OptionSpec { name: "crit", value: "RANGE", help: "CRITICAL range for the number of lost ports [all]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Bonds {
        root: host.root.clone(),
        exclude: reader.patterns("exclude"),
        limits: Arc::new(reader.per_thing(|reader| Limits {
            ports: reader.whole("ports", 1..=1_000),
            lost: Thresholds {
                warn: reader.range("warn").or(Some(Range::above(0.0))),
                crit: reader.range("crit"),
            },
        })),
    }))
}

struct Bonds {
    root: Root,
    exclude: Vec<Pattern>,
    limits: Arc<PerThing<Limits>>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    ports: Option<u32>,
    lost: Thresholds,
}

impl Blocking for Bonds {
    fn run(&self) -> Judgement {
        let bonds = match bond::bonds(&self.root) {
            Ok(bonds) => bonds,
            Err(error) => return error.into(),
        };
        let excluded = |bond: &Bond| {
            let pattern = self.exclude.iter().find(|pattern| pattern.matches(&bond.name))?;
            Some(Blind { thing: bond.name.clone(), why: format!("excluded by exclude = \"{pattern}\"") })
        };
        let blind: Vec<_> = bonds.iter().filter_map(excluded).collect();
        let limits = Arc::clone(&self.limits);
        Judgement::new(move |past| judge(past, &bonds, blind, &limits))
    }
}

fn judge(past: &mut Past, bonds: &[Bond], mut blind: Vec<Blind>, limits: &PerThing<Limits>) -> Findings {
    let mut list = Vec::new();
    for bond in bonds {
        if blind.iter().any(|blind| blind.thing == bond.name) {
            continue;
        }
        match judge_one(past, bond, *limits.of(&bond.name)) {
            Ok(finding) => list.push(finding.lasting(PATIENCE)),
            Err(why) => blind.push(Blind { thing: bond.name.clone(), why: why.into() }),
        }
    }
    Findings::all(list).with_blind(blind)
}

/// As for the link of a single card.
const PATIENCE: Duration = Duration::from_secs(30);

fn judge_one(past: &mut Past, bond: &Bond, limits: Limits) -> Result<Finding, &'static str> {
    if !bond.up {
        return Err("taken down by an administrator");
    }
    let count = |state| bond.ports.iter().filter(|port| port.state == state).count();
    let left_out = count(PortState::LeftOut);
    let active = count(PortState::Active);
    // A port that LACP leaves out may do so on purpose, unless it has been active before.
    let present = bond.ports.len() - left_out;
    let most = past.fact(&bond.name).unwrap_or(0.0).max(number(present));
    if most < 1.0 && limits.ports.is_none() && bond.ports.is_empty() {
        return Err("has no ports");
    }
    past.learn(&bond.name, most);
    let wanted = limits.ports.map_or(most, f64::from).max(1.0);
    let lost = (wanted - number(active)).max(0.0);
    let mut state = limits.lost.judge(lost);
    if active == 0 {
        state = State::Critical;
    }
    let mut summary = format!("{active} of {wanted} ports active");
    let mut named = 0;
    for port in &bond.ports {
        let why = match port.state {
            PortState::Active => continue,
            PortState::NoLink => "has no link",
            PortState::LeftOut => "is left out by LACP",
        };
        let _ = write!(summary, ", {} {why}", port.name);
        named += 1;
    }
    let gone = lost - f64::from(named);
    if gone >= 1.0 {
        let _ = write!(summary, ", {gone} missing from the bond");
    }
    let perf = Perf::new(format!("{} active", bond.name), number(active), "").bounds(0.0, wanted);
    let result =
        CheckResult::new(state, summary).with_detail(format!("mode {}", bond.mode)).with_perfdata(vec![perf]);
    Ok(Finding::of(&bond.name, result))
}

#[expect(clippy::cast_precision_loss, reason = "a number of ports")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        built_in,
        testing::{findings, fixture, lines, run},
    };

    #[test]
    fn a_bond_without_one_of_its_ports_is_a_warning_and_without_all_critical() {
        let found = run("bond", &fixture("bonds"));
        assert_eq!(found.state, State::Critical);
        assert_eq!(
            found.summary,
            "bond2 0 of 2 ports active, eth4 has no link, eth5 has no link; \
             bond1 1 of 2 ports active, eth3 has no link"
        );
        assert!(found.detail.contains("bond0 2 of 2 ports active\nmode 802.3ad"), "{}", found.detail);
        assert!(!found.detail.contains("bond3"), "it has no ports");
        assert!(built_in(&fixture("bonds")).any(|kind| kind.name == "bond"));
        assert!(!built_in(&fixture("debian12-vm")).any(|kind| kind.name == "bond"));
    }

    #[test]
    fn ports_that_have_left_the_bond_or_the_aggregate_are_missed() {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        let write = |path: &str, text: &str| {
            let path = tree.path().join("sys/class/net").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("bond0/bonding/mode", "802.3ad 4\n");
        write("bond0/bonding/ad_aggregator", "1\n");
        write("bond0/bonding/slaves", "eth0 eth1 eth2 eth3\n");
        for (port, aggregate) in [("eth0", "1"), ("eth1", "1"), ("eth2", "2"), ("eth3", "2")] {
            write(&format!("{port}/bonding_slave/mii_status"), "up\n");
            write(&format!("{port}/bonding_slave/ad_aggregator_id"), aggregate);
        }
        let mut past = Past::default();
        let mut line = |options: &[(&str, &str)]| {
            let found = findings("bond", options, &host, &mut past, Duration::from_hours(1));
            lines(&found).join("\n")
        };
        let standby = ", eth2 is left out by LACP, eth3 is left out by LACP";
        assert_eq!(line(&[]), format!("bond0 OK 2 of 2 ports active{standby}"), "a second switch waits");
        assert_eq!(line(&[("ports", "4")]), format!("bond0 WARNING 2 of 4 ports active{standby}"));
        write("bond0/bonding/slaves", "eth0 eth1\n");
        write("eth1/bonding_slave/ad_aggregator_id", "7\n");
        assert_eq!(line(&[]), "bond0 WARNING 1 of 2 ports active, eth1 is left out by LACP");
        write("bond0/bonding/slaves", "eth0\n");
        assert_eq!(line(&[]), "bond0 WARNING 1 of 2 ports active, 1 missing from the bond");
        assert_eq!(line(&[("ports", "1")]), "bond0 OK 1 of 1 ports active");
        assert_eq!(line(&[("crit", "0")]), "bond0 CRITICAL 1 of 2 ports active, 1 missing from the bond");
        write("bond0/bonding/slaves", "\n");
        assert_eq!(line(&[]), "bond0 CRITICAL 0 of 2 ports active, 2 missing from the bond");
        assert_eq!(line(&[("exclude", "bond*")]), "");
        write("bond0/flags", "0x1402\n");
        assert_eq!(line(&[]), "", "taken down");
    }
}
