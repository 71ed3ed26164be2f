//! `kernel`: what the kernel itself has found: tasks that hang, and memory that is broken.

use std::{sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past, State,
    Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{Readings, limits::HungTasks, meminfo::Meminfo},
    space::human,
    threshold::Range,
};

pub(crate) const KIND: Kind = Kind {
    name: "kernel",
    about: "hung tasks and broken memory that the kernel has found",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("signs of hung tasks and broken memory in /proc", |host| {
        has_hung_tasks(&host.readings) || corrupted(&host.readings).is_some()
    }),
    interval: None,
    things: Things::Names,
    make,
};

const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "warn_hung",
    value: "RANGE",
    help: "WARNING range for the number of tasks that began to hang in the last 30 minutes [0]",
}];

fn has_hung_tasks(readings: &Readings) -> bool {
    readings.get::<HungTasks>().is_ok()
}

fn corrupted(readings: &Readings) -> Option<u64> {
    readings.get::<Meminfo>().ok()?.corrupted
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let warn_hung = reader.range("warn_hung").unwrap_or(Range::above(0.0));
    let hung_existed = has_hung_tasks(&host.readings);
    Some(Check::blocking(Kernel { readings: host.readings.clone(), warn_hung, hung_existed }))
}

struct Kernel {
    readings: Arc<Readings>,
    warn_hung: Range,
    /// When the check was made.
    hung_existed: bool,
}

impl Blocking for Kernel {
    fn run(&self) -> Judgement {
        let hung = self.readings.get::<HungTasks>().map(|hung| hung.0);
        let (corrupted, warn_hung, hung_existed) =
            (corrupted(&self.readings), self.warn_hung, self.hung_existed);
        Judgement::new(move |past| {
            let mut list = Vec::new();
            match hung {
                Ok(count) => list.push(judge_hung(count, warn_hung, past)),
                Err(error) if hung_existed => {
                    list.push(Finding::of(HUNG, CheckResult::unknown(error.to_string())));
                }
                Err(_) => {}
            }
            list.extend(corrupted.map(judge_corrupted));
            Findings::all(list)
        })
    }
}

const HUNG: &str = "hung tasks";

fn judge_hung(count: u64, warn: Range, past: &mut Past) -> Finding {
    let recent = past.increase_within("hung", count, RECENT);
    let perfdata = vec![Perf::new("hung_tasks", recent, "").thresholds(Some(warn), None).bounds(0.0, None)];
    let result = if warn.alerts(recent) {
        let summary =
            format!("{recent:.0} times in the last 30 min, a task has hung in the kernel for two minutes");
        CheckResult::new(State::Warning, summary).with_detail(
            "Often a disk or a file server does not respond. journalctl -k --grep 'blocked for more' shows the tasks.",
        )
    } else {
        CheckResult::new(State::Ok, "no task has hung in the kernel in the last 30 min")
    };
    Finding::of(HUNG, result.with_perfdata(perfdata)).at_once()
}

/// A page is lost until the host reboots, and a module that breaks goes on breaking.
#[expect(clippy::cast_precision_loss, reason = "bytes of a few pages")]
fn judge_corrupted(bytes: u64) -> Finding {
    let bytes = bytes as f64;
    let perfdata = vec![Perf::new("corrupted_memory", bytes, "B").bounds(0.0, None)];
    let result = if bytes > 0.0 {
        let summary = format!("the kernel has given up {} of memory after memory errors", human(bytes));
        CheckResult::new(State::Warning, summary)
            .with_detail("A memory module is likely to fail: replace it.")
    } else {
        CheckResult::new(State::Ok, "no memory given up after memory errors")
    };
    Finding::of("broken memory", result.with_perfdata(perfdata)).at_once()
}

/// As for [`super::oom`].
const RECENT: Duration = Duration::from_mins(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Options,
        root::Root,
        testing::{findings, fixture, lines},
    };

    #[test]
    fn hung_tasks_and_broken_memory_are_services_of_their_own() {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        std::fs::create_dir_all(tree.path().join("proc/sys/kernel")).unwrap();
        let mut past = Past::default();
        let mut at = |minute, hung: &str, corrupted: u64| {
            let meminfo = format!("MemTotal: 9 kB\nMemAvailable: 9 kB\nHardwareCorrupted: {corrupted} kB\n");
            std::fs::write(tree.path().join("proc/meminfo"), meminfo).unwrap();
            std::fs::write(tree.path().join("proc/sys/kernel/hung_task_detect_count"), hung).unwrap();
            findings("kernel", &[], &host, &mut past, Duration::from_mins(minute))
        };
        assert_eq!(
            lines(&at(1, "4\n", 0)),
            [
                "hung tasks OK no task has hung in the kernel in the last 30 min",
                "broken memory OK no memory given up after memory errors"
            ]
        );
        let found = at(2, "6\n", 8);
        assert_eq!(
            lines(&found),
            [
                "hung tasks WARNING 2 times in the last 30 min, a task has hung in the kernel for two minutes",
                "broken memory WARNING the kernel has given up 8.0 KiB of memory after memory errors"
            ]
        );
        assert!(found.list.iter().all(|finding| finding.lasting == Some(Duration::ZERO)));
        assert_eq!(at(40, "6\n", 8).list[0].result.state, State::Ok);

        let options = Options::default();
        let Ok(Check::Blocking(check)) = KIND.build(&options, &host) else { panic!() };
        std::fs::remove_file(tree.path().join("proc/sys/kernel/hung_task_detect_count")).unwrap();
        let found = check.run().judge(&mut past, Duration::from_mins(41));
        assert_eq!(found.list[0].result.state, State::Unknown, "it existed");
    }

    #[test]
    fn an_old_kernel_has_no_such_check() {
        assert!(!KIND.is_built_in(&fixture("debian12-vm")));
    }
}
