//! `process`: whether the processes with a name, a command line or a user run, and what they use.
//!
//! The name is that of the kernel, or the file name of the first argument, because the kernel keeps
//! only 15 bytes (monitoring-plugins#269). A command line never matches this program or its
//! parents, which may have the pattern as an argument. The memory of several processes is added up,
//! so memory that they share counts for each.

use std::{sync::Arc, time::Duration};

use crate::{
    Blind, Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past,
    State, Things,
    options::{OptionSpec, PerThing, Reader},
    pattern::Pattern,
    perfdata::Perf,
    read::Readings,
    read::processes::{self, Process},
    root::{ReadError, Root},
    space::{human, percent, size},
    threshold::{Range, Thresholds},
};

mod find;

use find::{Found, Wanted};

pub(crate) const KIND: Kind = Kind {
    name: "process",
    about: "processes that must run, and their memory, processor time and open files",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::Never,
    interval: None,
    things: Things::Names,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "name",
        value: "PATTERN",
        help: "name of the process; can be a list (required, unless cmdline or user is given)",
    },
    OptionSpec {
        name: "cmdline",
        value: "PATTERN",
        help: "only processes with this whole command line: \"java *my.Server*\"",
    },
    OptionSpec { name: "user", value: "USER", help: "only processes of this user (a name or a number)" },
    OptionSpec { name: "count", value: "RANGE", help: "CRITICAL outside this number of processes [1:]" },
    OptionSpec {
        name: "warn_rss",
        value: "SIZE",
        help: "WARNING above this memory, all processes together [none]",
    },
    OptionSpec { name: "crit_rss", value: "SIZE", help: "CRITICAL above this memory [none]" },
    OptionSpec {
        name: "warn_cpu",
        value: "RANGE",
        help: "WARNING range for the use of processors, for 10 minutes; 100 is one processor [none]",
    },
    OptionSpec { name: "crit_cpu", value: "RANGE", help: "CRITICAL range for the use of processors [none]" },
    OptionSpec {
        name: "warn_files",
        value: "RANGE",
        help: "WARNING range for the open files of a process in % of its limit [80]",
    },
    OptionSpec { name: "crit_files", value: "RANGE", help: "CRITICAL range for these files [95]" },
    OptionSpec {
        name: "min_uptime",
        value: "DURATION",
        help: "WARNING while no process runs for that long, that is, after a restart [none]",
    },
];

fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let wanted = Wanted {
        names: reader.list("name").unwrap_or_default().into_iter().map(Pattern::new).collect(),
        cmdline: reader.text("cmdline").map(Pattern::new),
        user: reader.text("user"),
    };
    let limits = reader.per_thing(|reader| {
        let above = |size: f64| Range::above(size);
        let names = ["warn_rss", "crit_rss"];
        let rss = names.map(|name| reader.parsed(name, size));
        reader.refuse_inverted(names, [rss[0].as_ref(), rss[1].as_ref()], |size| human(*size));
        Limits {
            count: reader.range("count").unwrap_or(Range::below(1.0)),
            rss: Thresholds { warn: rss[0].map(above), crit: rss[1].map(above) },
            cpu: Thresholds { warn: reader.range("warn_cpu"), crit: reader.range("crit_cpu") },
            files: Thresholds {
                warn: reader.range("warn_files").or(Some(Range::above(80.0))),
                crit: reader.range("crit_files").or(Some(Range::above(95.0))),
            },
            min_uptime: reader.time("min_uptime"),
        }
    });
    if wanted.is_everything() {
        reader.error("name", "is required, unless cmdline or user is given");
        return None;
    }
    Some(Check::blocking(Processes { readings: host.readings.clone(), wanted, limits: Arc::new(limits) }))
}

struct Processes {
    readings: Arc<Readings>,
    wanted: Wanted,
    limits: Arc<PerThing<Limits>>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    count: Range,
    rss: Thresholds,
    cpu: Thresholds,
    files: Thresholds,
    min_uptime: Option<Duration>,
}

impl Blocking for Processes {
    fn run(&self) -> Judgement {
        let limits = Arc::clone(&self.limits);
        match self.wanted.find(&self.readings) {
            Ok(Ok(found)) => Judgement::new(move |past| judge(&found, &limits, past)),
            Ok(Err(unknown_user)) => CheckResult::unknown(unknown_user).into(),
            Err(error) => error.into(),
        }
    }
}

fn judge(groups: &[Found], limits: &PerThing<Limits>, past: &mut Past) -> Findings {
    let mut blind = Vec::new();
    let mut list = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let whole = groups.len() == 1;
        list.push(judge_group(group, at, whole, limits.of(&group.what), past));
        if group.hides_files {
            let thing = format!("open files of {}", group.what);
            blind.push(Blind { thing, why: "no permission (needs CAP_SYS_PTRACE or Linux 6.2)".into() });
        }
    }
    Findings::all(list).with_blind(blind)
}

fn judge_group(group: &Found, at: usize, whole: bool, limits: &Limits, past: &mut Past) -> Finding {
    let before = past.was((!whole).then_some(group.what.as_str()));
    let mut said = Vec::new();
    let mut perfdata = Vec::new();
    let mut perf = |label: &str, value: f64, unit: &str, limits: Thresholds| {
        let label = if whole { label.to_owned() } else { format!("{} {label}", group.what) };
        perfdata.push(Perf::new(label, value, unit).thresholds(limits.warn, limits.crit).bounds(0.0, None));
    };

    let count = float(group.processes.len());
    let count_limits = Thresholds { warn: None, crit: Some(limits.count) };
    let mut state = count_limits.judge(count);
    perf("processes", count, "", count_limits);
    let expected = if state == State::Ok { String::new() } else { format!(" (expected {})", limits.count) };
    said.push(match group.processes.len() {
        0 => "not running".to_owned(),
        1 => format!("1 process{expected}"),
        many => format!("{many} processes{expected}"),
    });

    let rss = group.resident_bytes();
    let judged = limits.rss.judge_after(rss, before);
    state = state.max(judged);
    perf("memory", rss, "B", limits.rss);
    if count > 0.0 {
        said.push(format!("{} of memory{}", human(rss), limit(judged, limits.rss, human)));
    }

    let cpu = cpu_percent(group, at, past);
    let mut busy = State::Ok;
    if let Some(cpu) = cpu {
        busy = limits.cpu.judge_after(cpu, before);
        perf("cpu", cpu, "%", limits.cpu);
        said.push(format!(
            "{cpu:.0}% of a processor{}",
            limit(busy, limits.cpu, |limit| format!("{limit}%"))
        ));
    }

    if let Some(files) = group.fullest {
        let share = percent(files.open, files.limit);
        let judged = limits.files.judge_after(share, before);
        state = state.max(judged);
        perf("open_files", share, "%", limits.files);
        if judged != State::Ok {
            said.push(format!("process {} has {} of {} files open", files.pid, files.open, files.limit));
        }
    }

    if let Some(uptime) = group.uptime(past.now()) {
        perf("uptime", uptime.as_secs_f64(), "s", Thresholds::default());
        if limits.min_uptime.is_some_and(|least| uptime < least) {
            state = state.max(State::Warning);
            said.push(format!("started {} s ago", uptime.as_secs()));
        }
    }

    let only_busy = state == State::Ok && busy != State::Ok;
    let said = said.join(", ");
    let (thing, summary) =
        if whole { (None, format!("{}: {said}", group.what)) } else { (Some(group.what.clone()), said) };
    let result = CheckResult::new(state.max(busy), summary).with_perfdata(perfdata);
    let finding = Finding { thing, result, lasting: None };
    if only_busy { finding.lasting(BUSY) } else { finding }
}

/// ` (limit 2.0 GiB)` for a problem.
fn limit(state: State, limits: Thresholds, text: impl Fn(f64) -> String) -> String {
    let range = match state {
        State::Critical => limits.crit,
        State::Warning => limits.warn,
        State::Ok | State::Unknown => None,
    };
    let limit = range.map(|range| range.upper().map_or_else(|| range.to_string(), &text));
    limit.map(|limit| format!(" (limit {limit})")).unwrap_or_default()
}

/// Of all processes together; 100 is one processor. `None` at the first reading.
fn cpu_percent(group: &Found, at: usize, past: &mut Past) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "100")]
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let prefix = format!("cpu {at} ");
    let rates: Vec<f64> = group
        .processes
        .iter()
        .filter_map(|process| past.rate(&format!("{prefix}{}", process.id()), process.ticks))
        .collect();
    past.keep_only(&prefix, |known| group.processes.iter().any(|process| process.id() == known));
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / ticks_per_second * 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "a number of processes")]
fn float(count: usize) -> f64 {
    count as f64
}

/// A process may be busy for a while.
const BUSY: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests;
