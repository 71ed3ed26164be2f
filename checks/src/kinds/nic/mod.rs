//! `nic`: network interfaces that have lost their link, run slower than before, or lose packets.
//!
//! A service for each card, bond, VLAN and bridge to the outside. Interfaces of containers, virtual
//! machines and tunnels are not watched, nor those that an administrator has taken down.
//!
//! Only a card that has had a link can lose it: most servers have ports without a cable. A card
//! that disappears, for example into a container or a virtual machine, is no longer watched. A
//! laptop loses its link whenever someone unplugs it, so its links are not judged, nor are those of
//! Wi-Fi, modems and the USB cards of a BMC. The link of a port of a bond is judged by `bond`.
//!
//! Drops have a floor besides their percentage: the kernel also counts packets of protocols that it
//! does not speak as dropped, such as the loop detection of switches (netdata#5158), and on a quiet
//! host these are a large part of all packets. Ports of bridges and bonds drop what is not for
//! them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, PerThing, Reader},
    pattern::Pattern,
    perfdata::Perf,
    read::{
        Readings,
        net::{self, Carried, Counters, Interface, NetDev, Sort},
        portable::is_portable,
    },
    result::CheckResult,
    root::{ReadError, Root},
    space::human,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "nic",
    about: "network interfaces: link, speed, errors and drops",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("network cards of its own", has_cards),
    interval: None,
    things: Things::Names,
    make,
};

fn has_cards(host: &Host) -> bool {
    net::interfaces(&host.root).is_ok_and(|all| all.iter().any(|one| one.sort != Sort::Virtual))
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "interface",
        value: "NAME",
        help: "check only this interface, which must have a link; can be a list [all that lead outside]",
    },
    OptionSpec {
        name: "exclude",
        value: "NAME",
        help: "skip this interface; * matches any text; can be a list",
    },
    OptionSpec { name: "no_link_ok", value: "", help: "do not alert when the link is lost" },
    OptionSpec {
        name: "min_speed",
        value: "MBIT",
        help: "WARNING below this speed in Mbit/s; 0 for any speed [the highest so far]",
    },
    OptionSpec {
        name: "warn_errors",
        value: "RANGE",
        help: "WARNING range for errors in percent of the packets of 10 minutes [1]",
    },
    OptionSpec { name: "crit_errors", value: "RANGE", help: "CRITICAL range for errors [5]" },
    OptionSpec {
        name: "warn_drops",
        value: "RANGE",
        help: "WARNING range for drops in percent of the packets of 10 minutes [2]",
    },
    OptionSpec { name: "crit_drops", value: "RANGE", help: "CRITICAL range for drops [never]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Nic {
        root: host.root.clone(),
        readings: Arc::clone(&host.readings),
        only: reader.list("interface").unwrap_or_default(),
        exclude: reader.patterns("exclude"),
        limits: Arc::new(reader.per_thing(|reader| Limits {
            no_link_ok: reader.flag("no_link_ok"),
            min_speed: reader.whole("min_speed", 0..=10_000_000),
            errors: Thresholds {
                warn: reader.range("warn_errors").or(Some(Range::above(1.0))),
                crit: reader.range("crit_errors").or(Some(Range::above(5.0))),
            },
            drops: Thresholds {
                warn: reader.range("warn_drops").or(Some(Range::above(2.0))),
                crit: reader.range("crit_drops"),
            },
        })),
    }))
}

struct Nic {
    root: Root,
    readings: Arc<Readings>,
    only: Vec<String>,
    exclude: Vec<Pattern>,
    limits: Arc<PerThing<Limits>>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    no_link_ok: bool,
    min_speed: Option<u32>,
    errors: Thresholds,
    drops: Thresholds,
}

/// What is known about an interface.
#[derive(Debug)]
struct Seen {
    interface: Interface,
    /// Missing only while the interface appears or disappears.
    carried: Option<Carried>,
    /// Configured, so it must have a link.
    named: bool,
    /// Its link and its speed are expected to stay as they are.
    steady: bool,
}

impl Blocking for Nic {
    fn run(&self) -> Judgement {
        match self.read() {
            Ok((seen, blind)) => {
                let limits = Arc::clone(&self.limits);
                let only = self.only.clone();
                Judgement::new(move |past| judge(past, &seen, blind, &only, &limits))
            }
            Err(error) => error.into(),
        }
    }
}

impl Nic {
    fn read(&self) -> Result<(Vec<Seen>, Vec<Blind>), ReadError> {
        let dev = self.readings.get::<NetDev>()?;
        let portable = is_portable(&self.root);
        let (mut seen, mut blind) = (Vec::new(), BTreeSet::new());
        for interface in net::interfaces(&self.root)? {
            let named = self.only.contains(&interface.name);
            if !named && let Err(unseen) = self.wants(&interface) {
                blind.extend(unseen);
                continue;
            }
            let steady = interface.sort == Sort::Card
                && !interface.bonded
                && !portable
                && !GADGETS.contains(&interface.driver.as_str());
            seen.push(Seen { carried: dev.get(&interface.name), named, steady: steady || named, interface });
        }
        Ok((seen, blind.into_iter().collect()))
    }

    fn wants(&self, interface: &Interface) -> Result<(), Option<Blind>> {
        let blind = |why: String| Err(Some(Blind { thing: interface.name.clone(), why }));
        if !self.only.is_empty() || interface.name == "lo" {
            return Err(None);
        }
        if let Some(pattern) = self.exclude.iter().find(|pattern| pattern.matches(&interface.name)) {
            return blind(format!("excluded by exclude = \"{pattern}\""));
        }
        // One line for all, because containers come and go.
        if interface.sort == Sort::Virtual {
            let why = "veth, tap, tunnels and bridges without a port to the outside are not watched".into();
            return Err(Some(Blind { thing: "virtual interfaces".into(), why }));
        }
        if interface.up { Ok(()) } else { blind("taken down by an administrator".into()) }
    }
}

/// Drivers for USB gadgets: the card of a BMC, a telephone.
const GADGETS: [&str; 5] = ["cdc_ether", "cdc_eem", "cdc_ncm", "cdc_subset", "rndis_host"];
/// Drivers whose speed is what the hypervisor likes to say; it changes when the machine migrates.
const PARAVIRTUAL: [&str; 6] = ["virtio_net", "hv_netvsc", "vmxnet3", "vif", "xen_netfront", "ena"];

fn judge(
    past: &mut Past,
    seen: &[Seen],
    mut blind: Vec<Blind>,
    only: &[String],
    limits: &PerThing<Limits>,
) -> Findings {
    let mut list = Vec::new();
    for one in seen {
        match judge_one(past, one, *limits.of(&one.interface.name)) {
            Some(finding) => list.push(finding),
            None => blind.push(Blind {
                thing: one.interface.name.clone(),
                why: "has not had a link since the agent was installed".into(),
            }),
        }
    }
    let missing = only.iter().filter(|name| !seen.iter().any(|one| one.interface.name == **name));
    list.extend(missing.map(|name| {
        Finding::of(name, CheckResult::new(State::Critical, "does not exist")).lasting(LINK_PATIENCE)
    }));
    Findings::all(list).with_blind(blind)
}

/// The finding for one interface; `None` for a card that never had a link.
fn judge_one(past: &mut Past, seen: &Seen, limits: Limits) -> Option<Finding> {
    let name = seen.interface.name.as_str();
    let was = past.was(Some(name));
    let (rates, mut perfdata) = rates(past, seen);
    let losses = losses(past, seen, limits);
    let link = format!("link {name}");
    match seen.interface.carrier {
        Some(true) => {
            past.learn(&link, 1.0);
        }
        None if !seen.named => {}
        _ if past.fact(&link).is_none() && !seen.named => return None,
        _ => {
            let without = past.holds_for(&link, true).unwrap_or_default();
            let result = no_link(seen, limits, without).with_perfdata(perfdata);
            return Some(Finding::of(name, result).lasting(LINK_PATIENCE));
        }
    }
    past.holds_for(&link, false);

    let mut state = State::Ok;
    let mut problems = Vec::new();
    if let Some(problem) = slower(past, seen, limits) {
        state = State::Warning;
        problems.push(problem);
    }
    for loss in losses {
        let verdict = loss.limits.judge_after(loss.percent, was);
        if verdict != State::Ok && loss.counts {
            state = if verdict.severity() > state.severity() { verdict } else { state };
            problems.push(format!("{:.1}% {} over 10 min", loss.percent, loss.what));
        }
        perfdata.push(
            Perf::new(format!("{name} {}", loss.what), loss.percent, "%")
                .thresholds(loss.limits.warn, loss.limits.crit)
                .bounds(0.0, 100.0),
        );
    }
    problems.push(rates);
    Some(Finding::of(name, CheckResult::new(state, problems.join(", ")).with_perfdata(perfdata)))
}

fn no_link(seen: &Seen, limits: Limits, without: Duration) -> CheckResult {
    let Interface { name, sort, up, bonded, .. } = &seen.interface;
    let span = match without.as_secs() / 60 {
        0 => String::new(),
        minutes => format!(" for {minutes} min"),
    };
    let said = match sort {
        _ if !up => "taken down by an administrator".to_owned(),
        Sort::Wireless => "not connected".to_owned(),
        _ if *bonded => format!("no link{span}; its bond is checked by bond"),
        _ => format!("no link{span}"),
    };
    if !seen.steady || limits.no_link_ok {
        return CheckResult::new(State::Ok, said);
    }
    CheckResult::new(State::Critical, said).with_detail(format!(
        "Check the cable, the switch port and the transceiver. If the port is no longer used: \
         `ip link set {name} down`, or exclude = \"{name}\"."
    ))
}

/// A renegotiation or a reboot of the switch is not an outage.
const LINK_PATIENCE: Duration = Duration::from_secs(30);

/// How the link is worse than it was, if it is.
fn slower(past: &mut Past, seen: &Seen, limits: Limits) -> Option<String> {
    let interface = &seen.interface;
    let wire = interface.sort == Sort::Card && (seen.steady || interface.bonded);
    if !wire || PARAVIRTUAL.contains(&interface.driver.as_str()) {
        return None;
    }
    let best = format!("speed {}", interface.name);
    let before = past.fact(&best);
    if let Some(now) = interface.speed.map(f64::from)
        && before.is_none_or(|before| before < now)
    {
        past.learn(&best, now);
    }
    match (interface.speed, limits.min_speed.map(f64::from).or(before)) {
        (_, Some(0.0)) => None,
        (Some(now), Some(wanted)) if f64::from(now) < wanted => {
            Some(format!("only {}, {} is normal", bits(f64::from(now)), bits(wanted)))
        }
        (None, Some(wanted)) => Some(format!("speed unknown, {} is normal", bits(wanted))),
        _ if interface.half_duplex => Some("half duplex".into()),
        _ => None,
    }
}

fn bits(mbit: f64) -> String {
    if mbit < 1_000.0 { format!("{mbit} Mbit/s") } else { format!("{} Gbit/s", mbit / 1_000.0) }
}

/// Traffic per second: as text, and as performance data.
fn rates(past: &mut Past, seen: &Seen) -> (String, Vec<Perf>) {
    let name = &seen.interface.name;
    let Some(carried) = seen.carried else { return ("link is up".into(), Vec::new()) };
    let received = past.rate(&format!("received {name}"), carried.received.bytes);
    let sent = past.rate(&format!("sent {name}"), carried.sent.bytes);
    let speed = seen.interface.speed.map(|mbit| bits(f64::from(mbit))).unwrap_or_default();
    let (Some(received), Some(sent)) = (received, sent) else {
        return (if speed.is_empty() { "link is up".into() } else { speed }, Vec::new());
    };
    let most = seen.interface.speed.map(|mbit| f64::from(mbit) * 125_000.0);
    let perf = |what: &str, rate| Perf::new(format!("{name} {what}"), rate, "B").bounds(0.0, most);
    let separator = if speed.is_empty() { "" } else { ", " };
    let text = format!("{speed}{separator}in {}/s, out {}/s", human(received), human(sent));
    (text, vec![perf("in", received), perf("out", sent)])
}

/// A share of the packets that was lost within [`SPAN`], in the worse direction.
struct Loss {
    what: &'static str,
    percent: f64,
    /// There are enough packets for a percentage to mean something.
    counts: bool,
    limits: Thresholds,
}

/// Packets of one direction within [`SPAN`].
struct Flow {
    packets: f64,
    errors: f64,
    drops: f64,
}

fn losses(past: &mut Past, seen: &Seen, limits: Limits) -> Vec<Loss> {
    let (Some(carried), true) = (seen.carried, matches!(seen.interface.sort, Sort::Card | Sort::Bond)) else {
        return Vec::new();
    };
    let name = &seen.interface.name;
    let mut flow = |direction: &str, counters: Counters| {
        let mut within =
            |what: &str, counter| past.increase_within(&format!("{direction} {what} {name}"), counter, SPAN);
        Flow {
            packets: within("packets", counters.packets),
            errors: within("errors", counters.errors),
            drops: within("drops", counters.drops),
        }
    };
    let flows = [flow("in", carried.received), flow("out", carried.sent)];
    let errors = Loss::worst("errors", &flows, |flow| flow.errors, 0.0, limits.errors);
    let drops = Loss::worst("drops", &flows, |flow| flow.drops, DROPS, limits.drops);
    let drops_are_normal = seen.interface.promiscuous || seen.interface.port;
    if drops_are_normal { vec![errors] } else { vec![errors, drops] }
}

impl Loss {
    fn worst(
        what: &'static str,
        flows: &[Flow; 2],
        lost: fn(&Flow) -> f64,
        floor: f64,
        limits: Thresholds,
    ) -> Self {
        let share = |flow: &Flow| {
            let (lost, all) = (lost(flow), flow.packets + lost(flow));
            (all > PACKETS && lost > floor, if all > 0.0 { lost / all * 100.0 } else { 0.0 })
        };
        let [one, other] = [share(&flows[0]), share(&flows[1])];
        let (counts, percent) = if one > other { one } else { other };
        Self { what, percent, counts, limits }
    }
}

const SPAN: Duration = Duration::from_mins(10);
/// Fewer packets say nothing about a percentage.
const PACKETS: f64 = 1_000.0;
/// Ten per second. Spanning tree, LLDP and loop detection cause a few at most.
const DROPS: f64 = 6_000.0;

#[cfg(test)]
mod tests;
