//! Judges the units of one reading.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Limits, Reading, Settings, timer};
use crate::{
    Blind, Finding, Findings, Past, State, output::clean, pattern::Pattern, perfdata::Perf,
    read::systemctl::Unit, result::CheckResult, span,
};

/// The result of one unit.
struct Judged {
    thing: String,
    state: State,
    summary: String,
    lasting: Option<Duration>,
    perf: Option<Perf>,
    /// It has a result even while it is well.
    kept: bool,
    description: String,
}

pub(super) fn judge(reading: &Reading, settings: &Settings, past: &mut Past) -> Findings {
    let before: BTreeMap<String, State> =
        past.problems().map(|(thing, state)| (thing.to_owned(), state)).collect();
    let mut judged = Vec::new();
    let mut blind = Vec::new();
    for unit in &reading.units {
        let named = settings.named.iter().find(|pattern| is_named(unit, pattern));
        let thing = named.filter(|pattern| pattern.is_literal()).map_or(unit.id.as_str(), Pattern::as_str);
        let was = before.get(thing).copied().unwrap_or(State::Ok);
        let one = judge_one(unit, thing, named.is_some(), was, reading, settings.limits.of(thing), past);
        if one.state == State::Ok && !one.kept && was == State::Ok {
            continue;
        }
        match settings.exclude.iter().find(|pattern| pattern.matches(thing)) {
            Some(pattern) => {
                let why = format!("excluded by exclude = \"{pattern}\"");
                blind.push(Blind { thing: thing.to_owned(), why });
            }
            None => judged.push(one),
        }
    }
    judged.extend(settings.named.iter().filter_map(|pattern| {
        let exists = reading.units.iter().any(|unit| is_named(unit, pattern));
        (!exists).then(|| Judged::critical(pattern.as_str(), "no unit has this name"))
    }));
    let mut list: Vec<_> = bounded(judged).into_iter().map(Judged::into_finding).collect();
    let present: BTreeSet<_> = list.iter().filter_map(|finding| finding.thing.clone()).collect();
    let gone = before.keys().filter(|thing| {
        !present.contains(*thing) && !settings.exclude.iter().any(|pattern| pattern.matches(thing))
    });
    list.extend(gone.map(|thing| Finding::of(thing, CheckResult::new(State::Ok, "no longer failed"))));
    Findings::all(list).with_blind(blind)
}

fn is_named(unit: &Unit, pattern: &Pattern) -> bool {
    pattern.matches(&unit.id) || unit.names.iter().any(|name| pattern.matches(name))
}

fn judge_one(
    unit: &Unit,
    thing: &str,
    named: bool,
    was: State,
    reading: &Reading,
    limits: &Limits,
    past: &mut Past,
) -> Judged {
    let keeps_running = keeps_running(unit, reading);
    let result = |state, summary: String, lasting| Judged {
        thing: thing.to_owned(),
        state,
        summary,
        lasting,
        perf: None,
        kept: named || keeps_running,
        description: clean(&unit.description),
    };
    let restarts = restarts(unit, past);
    if unit.active == "failed" {
        let lasting = if unit.restarts_itself { Duration::from_mins(1) } else { Duration::ZERO };
        let after = match unit.restarts {
            0 => String::new(),
            count => format!(" after {count} restarts"),
        };
        let state = if named { State::Critical } else { severity(unit, reading) };
        return result(state, format!("failed{after}: {}", why(unit)), Some(lasting));
    }
    if let Some(late) = timer::late(unit, reading) {
        return result(State::Warning, late, Some(Duration::from_mins(10)));
    }
    let perf = unit.restarts_itself.then(|| {
        Perf::new("restarts", restarts, "")
            .thresholds(limits.restarts.warn, limits.restarts.crit)
            .bounds(0.0, None)
    });
    let restarted = limits.restarts.judge(restarts);
    if restarted != State::Ok {
        let last = if unit.result == "success" { String::new() } else { format!(", last {}", why(unit)) };
        let summary = format!("restarted {restarts:.0} times within 10 minutes{last}");
        return Judged { perf, ..result(restarted, summary, Some(Duration::ZERO)) };
    }
    let (state, summary, lasting) = match (unit.active.as_str(), unit.sub.as_str()) {
        (_, "auto-restart") if unit.result == "success" => {
            (State::Ok, "waits for its next start".into(), None)
        }
        (_, "auto-restart") => {
            let summary = format!("not running, waits for its restart: {}", why(unit));
            (State::Warning, summary, Some(Duration::from_mins(10)))
        }
        ("active" | "reloading", "exited") => (State::Ok, "active".into(), None),
        ("active" | "reloading", _) => (State::Ok, "running".into(), None),
        ("activating", _) if was != State::Ok => (was, "is starting again after a problem".into(), None),
        ("activating" | "deactivating", _) if unit.oneshot || !named => {
            (State::Ok, unit.active.clone(), None)
        }
        ("activating" | "deactivating", _) => {
            (State::Warning, format!("still {}", unit.active), Some(Duration::from_mins(10)))
        }
        _ => {
            let (state, summary) = stopped(unit, named, keeps_running && limits.warn_stopped);
            let lasting = Duration::from_mins(if named { 1 } else { 5 });
            (state, summary, Some(lasting))
        }
    };
    Judged { perf, ..result(state, summary, lasting) }
}

/// How often a unit was restarted within 10 minutes. A service that ends on purpose and lets
/// systemd start it again (`Restart=always` in place of a timer) has no restarts.
fn restarts(unit: &Unit, past: &mut Past) -> f64 {
    if !unit.restarts_itself {
        return 0.0;
    }
    let count =
        past.increase_within(&format!("restarts {}", unit.id), unit.restarts, Duration::from_mins(10));
    let on_purpose = format!("ends on purpose {}", unit.id);
    if unit.sub == "auto-restart" {
        if unit.result == "success" {
            past.learn(&on_purpose, 1.0);
        } else {
            past.forget(&on_purpose);
        }
    }
    if past.fact(&on_purpose).is_some() { 0.0 } else { count }
}

/// An enabled service that is meant to run all the time.
fn keeps_running(unit: &Unit, reading: &Reading) -> bool {
    let is_up = |target: &str| reading.units.iter().any(|unit| unit.id == target && unit.active == "active");
    let mut targets = reading.enabled.iter().filter(|(name, _)| *name == unit.id).map(|&(_, target)| target);
    targets.any(is_up)
        && unit.id.ends_with(".service")
        && unit.load == "loaded"
        && !unit.oneshot
        && !unit.condition_failed
        && unit.triggered_by.is_empty()
}

/// What a failure of this unit is worth. A job, a session or a mount that nothing needs can wait
/// until the morning.
fn severity(unit: &Unit, reading: &Reading) -> State {
    let enabled = reading.enabled.iter().any(|(name, _)| *name == unit.id);
    let instance_of_socket = unit.id.contains('@') && unit.triggered_by.contains(".socket");
    let serious = match unit.id.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("service") => {
            let job = unit.oneshot || unit.transient || unit.triggered_by.contains(".timer");
            let of_user = unit.id.starts_with("user@") || unit.id.starts_with("user-runtime-dir@");
            let used = enabled || unit.wanted || unit.required || unit.restarts_itself;
            used && !job && !of_user && !instance_of_socket
        }
        Some("socket") => true,
        // The generator for fstab writes Requires= into local-fs.target unless there is a nofail.
        Some("mount") => unit.required,
        _ => false,
    };
    if serious { State::Critical } else { State::Warning }
}

/// The state and summary of a unit that is not active.
fn stopped(unit: &Unit, named: bool, warn: bool) -> (State, String) {
    let (mut state, summary) = match unit.load.as_str() {
        "not-found" => (State::Critical, "no unit has this name".to_owned()),
        "masked" => (State::Critical, "is masked".to_owned()),
        _ if unit.condition_failed => {
            (State::Critical, "not started: a condition of the unit does not hold".to_owned())
        }
        _ if unit.oneshot && unit.result == "success" && !unit.remains_after_exit => {
            return (State::Ok, "not running now; its last run succeeded".into());
        }
        _ if unit.entered.is_zero() => (State::Warning, "enabled, but not started since boot".to_owned()),
        // It stopped being active before its process ended: systemd ended the process.
        _ if unit.remains_after_exit || (unit.exited >= unit.left && !unit.exited.is_zero()) => {
            (State::Ok, "stopped on request".to_owned())
        }
        _ => {
            let ran = unit.left.saturating_sub(unit.entered);
            let summary = format!("not running; it ended by itself {} after its start", span::human(ran));
            // Some daemons find that they are not needed: irqbalance with one processor.
            (if ran < Duration::from_mins(5) { State::Ok } else { State::Warning }, summary)
        }
    };
    if named {
        state = State::Critical;
    } else if !warn {
        state = State::Ok;
    }
    (state, summary)
}

/// `exited with status 1`.
fn why(unit: &Unit) -> String {
    let status = unit.exit_status;
    match (unit.result.as_str(), status) {
        ("exit-code", 203) => "its program could not be executed (status 203)".into(),
        ("exit-code", 217) => "its user does not exist (status 217)".into(),
        ("exit-code", _) => format!("exited with status {status}"),
        ("signal", _) => format!("killed by signal {status}"),
        ("core-dump", _) => format!("crashed with signal {status}"),
        ("timeout", _) => "timed out".into(),
        ("watchdog", _) => "did not answer its watchdog".into(),
        ("oom-kill", _) => "killed for lack of memory".into(),
        ("start-limit-hit", _) => "started too often".into(),
        ("resources", _) => "a resource that it needs was missing".into(),
        ("", _) => "no reason given".into(),
        (other, _) => clean(other),
    }
}

/// Merges many failed instances of a template, and what is beyond [`UNITS_MAX`].
fn bounded(judged: Vec<Judged>) -> Vec<Judged> {
    let (mut list, loose): (Vec<_>, Vec<_>) = judged.into_iter().partition(|one| one.kept);
    let mut groups: BTreeMap<String, Vec<Judged>> = BTreeMap::new();
    for one in loose {
        let group = match (one.thing.split_once('@'), one.thing.rsplit_once('.')) {
            (Some((template, _)), Some((_, suffix))) => format!("{template}@*.{suffix}"),
            _ => one.thing.clone(),
        };
        groups.entry(group).or_default().push(one);
    }
    let mut rest = Vec::new();
    for (group, members) in groups {
        let room = list.len() + members.len() <= UNITS_MAX;
        match members.len() {
            0..=INSTANCES_MAX if room => list.extend(members),
            0..=INSTANCES_MAX => rest.extend(members),
            _ => list.push(merged(&group, &members)),
        }
    }
    if !rest.is_empty() {
        list.push(merged("other units", &rest));
    }
    list
}

const INSTANCES_MAX: usize = 5;
const UNITS_MAX: usize = 200;

fn merged(thing: &str, members: &[Judged]) -> Judged {
    let troubled: Vec<_> = members.iter().filter(|one| one.state != State::Ok).collect();
    let names: Vec<_> = troubled.iter().take(3).map(|one| one.thing.as_str()).collect();
    let worst = troubled.iter().max_by_key(|one| one.state.severity());
    Judged {
        thing: thing.to_owned(),
        state: worst.map_or(State::Ok, |one| one.state),
        summary: format!("{} units have a problem: {}, …", troubled.len(), names.join(", ")),
        lasting: worst.and_then(|one| one.lasting),
        perf: None,
        kept: false,
        description: String::new(),
    }
}

impl Judged {
    fn critical(thing: &str, summary: &str) -> Self {
        Self {
            thing: thing.to_owned(),
            state: State::Critical,
            summary: summary.to_owned(),
            lasting: Some(Duration::from_mins(1)),
            perf: None,
            kept: true,
            description: String::new(),
        }
    }

    fn into_finding(self) -> Finding {
        let result = CheckResult::new(self.state, self.summary)
            .with_detail(self.description)
            .with_perfdata(self.perf.into_iter().collect());
        let finding = Finding::of(self.thing, result);
        match self.lasting {
            Some(lasting) => finding.lasting(lasting),
            None => finding,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
