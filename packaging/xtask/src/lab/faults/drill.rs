//! Injects the faults of a place group by group, watches what the agent says, and counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use super::{
    super::Machine,
    list::{Fault, Place, Step},
};
use crate::clock;

/// How long a service may take to be OK again: more than the minute between two self-checks.
const MEND_LIMIT: Duration = Duration::from_secs(75);
const LOOK: Duration = Duration::from_millis(300);

pub(super) struct Drill<'a> {
    machine: &'a dyn Machine,
    place: &'static Place,
    pub(super) runs: Vec<Run>,
    alarms: BTreeMap<String, String>,
    /// Services that may still have a problem from a fault before.
    excused: BTreeSet<String>,
}

pub(super) struct Run {
    pub(super) fault: &'static Fault,
    phase: Phase,
    took: Option<Duration>,
    said: String,
}

enum Phase {
    Waiting,
    Injected(Instant),
    /// Found or missed, but a fault that is injected during this one is not done.
    Judged,
    Mending(Instant),
    Done,
}

/// What `dogwatch status` says about a service.
struct Service {
    name: String,
    state: String,
    is_hard: bool,
    output: String,
}

impl Service {
    fn is_problem(&self) -> bool {
        self.is_hard && !matches!(self.state.as_str(), "OK" | "PENDING")
    }
}

impl<'a> Drill<'a> {
    pub(super) fn new(machine: &'a dyn Machine, place: &'static Place, only: Option<&str>) -> Self {
        let wanted = |fault: &Fault| only.is_none_or(|text| fault.name.contains(text));
        let needed: Vec<_> =
            place.faults.iter().filter(|fault| wanted(fault)).filter_map(|fault| fault.during).collect();
        let runs = place
            .faults
            .iter()
            .filter(|fault| wanted(fault) || needed.contains(&fault.name))
            .map(|fault| Run { fault, phase: Phase::Waiting, took: None, said: String::new() })
            .collect();
        Self { machine, place, runs, alarms: BTreeMap::new(), excused: BTreeSet::new() }
    }

    /// Without a fault nothing may be a problem.
    pub(super) fn baseline(&mut self) {
        let from = clock::now();
        while clock::now().duration_since(from) < self.place.baseline {
            let services = self.services();
            self.watch(&services, 0);
            thread::sleep(LOOK);
        }
        let services = self.services();
        eprintln!("{} services without a fault, {} false alarms", services.len(), self.alarms.len());
    }

    pub(super) fn group(&mut self, group: u8) {
        loop {
            let mut open = false;
            for at in 0..self.runs.len() {
                if self.runs[at].fault.group == group && matches!(self.runs[at].phase, Phase::Waiting) {
                    self.inject(at);
                }
            }
            let services = self.services();
            for at in 0..self.runs.len() {
                if self.runs[at].fault.group == group {
                    self.judge(at, &services);
                    open |= !matches!(self.runs[at].phase, Phase::Done);
                }
            }
            self.watch(&services, group);
            if !open {
                break;
            }
            thread::sleep(LOOK);
        }
        let of_group = self.runs.iter().filter(|run| run.fault.group == group);
        self.excused
            .extend(of_group.filter(|run| run.fault.stays.is_some()).flat_map(|run| names(run.fault)));
    }

    fn inject(&mut self, at: usize) {
        let fault = self.runs[at].fault;
        if let Some(first) = fault.during {
            let is_there = |run: &Run| {
                run.fault.name == first && run.took.is_some() && matches!(run.phase, Phase::Judged)
            };
            if !self.runs.iter().any(is_there) {
                let over = |run: &Run| run.fault.name == first && matches!(run.phase, Phase::Done);
                if self.runs.iter().any(over) {
                    self.end(at, format!("{first:?} was missed"));
                }
                return;
            }
        }
        let from = clock::now();
        match self.step(fault.inject) {
            Ok(()) => self.runs[at].phase = Phase::Injected(from),
            Err(error) => self.end(at, format!("cannot inject: {error:#}")),
        }
    }

    fn end(&mut self, at: usize, said: String) {
        eprintln!("MISSED  {}: {said}", self.runs[at].fault.name);
        self.runs[at].said = said;
        self.runs[at].phase = Phase::Done;
    }

    fn judge(&mut self, at: usize, services: &[Service]) {
        let now = clock::now();
        let fault = self.runs[at].fault;
        match self.runs[at].phase {
            Phase::Waiting | Phase::Done => {}
            Phase::Injected(since) => {
                let seen = |(name, state): &(&str, &str)| {
                    let found = services.iter().find(|service| matches(name, &service.name));
                    let is = found.is_some_and(|found| found.is_hard && found.state == *state);
                    let said = found.map_or_else(
                        || format!("{name}: no such service"),
                        |found| {
                            let soft = if found.is_hard { "" } else { " (soft)" };
                            format!("{} {}{soft}: {}", found.name, found.state, found.output)
                        },
                    );
                    (is, said)
                };
                let (all, said): (Vec<bool>, Vec<String>) = fault.expect.iter().map(seen).unzip();
                let took = now.duration_since(since);
                let run = &mut self.runs[at];
                run.said = said.join("; ");
                if all.iter().all(|is| *is) {
                    run.took = Some(took);
                    eprintln!("found   {:<58} {:>5.1} s  {}", fault.name, took.as_secs_f64(), run.said);
                } else if took.as_secs() >= fault.limit_s {
                    eprintln!("MISSED  {:<58} {:>5.1} s  {}", fault.name, took.as_secs_f64(), run.said);
                } else {
                    return;
                }
                run.phase = Phase::Judged;
                self.mend(at);
            }
            Phase::Judged => self.mend(at),
            Phase::Mending(since) => self.mended(at, since, services),
        }
    }

    fn mend(&mut self, at: usize) {
        let fault = self.runs[at].fault;
        let used = |run: &Run| {
            run.fault.during == Some(fault.name) && !matches!(run.phase, Phase::Mending(_) | Phase::Done)
        };
        if self.runs[at].took.is_some() && self.runs.iter().any(used) {
            return;
        }
        if let Err(error) = self.step(fault.mend) {
            self.alarms.insert(format!("mending {}", fault.name), format!("{error:#}"));
        }
        self.runs[at].phase = Phase::Mending(clock::now());
    }

    fn mended(&mut self, at: usize, since: Instant, services: &[Service]) {
        let fault = self.runs[at].fault;
        let concerns = |service: &&Service| names(fault).any(|name| matches(&name, &service.name));
        let bad: Vec<_> = services
            .iter()
            .filter(concerns)
            .filter(|service| service.state != "OK" && service.state != "PENDING")
            .filter(|service| !self.shared(at, &service.name))
            .collect();
        let late = clock::now().duration_since(since) > MEND_LIMIT;
        if !bad.is_empty() && !late && fault.stays.is_none() {
            return;
        }
        for service in bad.iter().filter(|_| fault.stays.is_none()) {
            let said = format!(
                "still {} {} s after {:?} was mended: {}",
                service.state,
                MEND_LIMIT.as_secs(),
                fault.name,
                service.output
            );
            eprintln!("FALSE   {}: {said}", service.name);
            self.alarms.insert(service.name.clone(), said);
        }
        self.runs[at].phase = Phase::Done;
    }

    /// Whether another fault that is still there breaks the service too.
    fn shared(&self, at: usize, service: &str) -> bool {
        self.runs.iter().enumerate().any(|(other, run)| {
            other != at
                && !matches!(run.phase, Phase::Waiting | Phase::Done)
                && names(run.fault).any(|name| matches(&name, service))
        })
    }

    /// Notes problems that no fault explains.
    fn watch(&mut self, services: &[Service], group: u8) {
        for service in services.iter().filter(|service| service.is_problem()) {
            let explained = self
                .runs
                .iter()
                .filter(|run| run.fault.group == group)
                .flat_map(|run| names(run.fault))
                .chain(self.excused.iter().cloned())
                .any(|name| matches(&name, &service.name));
            if !explained && !self.alarms.contains_key(&service.name) {
                let said = format!("{}: {}", service.state, service.output);
                eprintln!("FALSE   {} {said}", service.name);
                self.alarms.insert(service.name.clone(), said);
            }
        }
    }

    fn step(&self, step: Step) -> Result<()> {
        match step {
            Step::Inside(script) => self.machine.inside(script).map(drop),
            Step::Outside(script) => self.machine.outside(script).map(drop),
        }
    }

    /// Empty while the agent does not answer.
    fn services(&self) -> Vec<Service> {
        let said = self.machine.inside("dogwatch status --json").unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let services = status["services"].as_array().into_iter().flatten();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        services
            .map(|service| Service {
                name: text(&service["service"]),
                state: text(&service["state"]),
                is_hard: service["state_type"] == "HARD",
                output: text(&service["output"]),
            })
            .collect()
    }

    pub(super) fn report(self, took: Duration) -> Report {
        let faults: Vec<_> = self
            .runs
            .into_iter()
            .map(|run| Row {
                fault: run.fault.name,
                found: run.took.is_some(),
                seconds_to_hard: run.took.map(|took| took.as_secs_f64()),
                stays: run.fault.stays,
                said: run.said,
            })
            .collect();
        Report {
            faults,
            false_alarms: self.alarms,
            not_possible_here: self.place.not_here.iter().copied().collect(),
            shortened: self.place.shortened,
            seconds: took.as_secs_f64(),
        }
    }
}

/// The services that a fault may break.
fn names(fault: &Fault) -> impl Iterator<Item = String> {
    fault.expect.iter().map(|(name, _)| *name).chain(fault.also.iter().copied()).map(ToOwned::to_owned)
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

#[derive(Serialize)]
pub(super) struct Report {
    faults: Vec<Row>,
    pub(super) false_alarms: BTreeMap<String, String>,
    not_possible_here: BTreeMap<&'static str, &'static str>,
    shortened: &'static str,
    seconds: f64,
}

#[derive(Serialize)]
pub(super) struct Row {
    fault: &'static str,
    found: bool,
    seconds_to_hard: Option<f64>,
    /// Why the problem stays after it was mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    stays: Option<&'static str>,
    said: String,
}

impl Report {
    pub(super) fn missed(&self) -> impl Iterator<Item = &Row> {
        self.faults.iter().filter(|row| !row.found)
    }

    pub(super) fn print(&self) {
        println!();
        let mut times = Vec::new();
        for row in &self.faults {
            let took = row.seconds_to_hard.map_or_else(|| "MISSED".into(), |took| format!("{took:.1} s"));
            println!("{:<62} {took:>7}", row.fault);
            times.extend(row.seconds_to_hard.map(|took| (took, row.fault)));
        }
        println!();
        for (what, why) in &self.not_possible_here {
            println!("not possible here: {what}: {why}");
        }
        for row in &self.faults {
            if let Some(why) = row.stays {
                println!("not waited for OK: {}: {why}", row.fault);
            }
        }
        println!("{}\n", self.shortened);
        times.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        println!("found {} of {} faults in {:.0} s", times.len(), self.faults.len(), self.seconds);
        for row in self.missed() {
            println!("  missed: {}: {}", row.fault, row.said);
        }
        if let (Some((median, _)), Some((worst, fault))) = (times.get(times.len() / 2), times.last()) {
            println!("time to hard: median {median:.1} s, worst {worst:.1} s ({fault})");
        }
        println!("false alarms: {}", self.false_alarms.len());
        for (service, said) in &self.false_alarms {
            println!("  {service}: {said}");
        }
    }
}
