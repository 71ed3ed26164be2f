//! `fd`: open files of the whole host. At its maximum nothing can be opened any more, not even a
//! connection.

use std::sync::Arc;

use crate::{
    Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{Readings, limits::FileNr},
    space::percent,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "fd",
    about: "open files of the whole host",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("file handles that can be counted (/proc/sys/fs/file-nr)", |host| {
        host.readings.get::<FileNr>().is_ok()
    }),
    interval: None,
    things: Things::None,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range in % of the maximum [70]" },
    OptionSpec { name: "crit", value: "RANGE", help: "CRITICAL range in % of the maximum [90]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let limits = Thresholds {
        warn: reader.range("warn").or(Some(Range::above(70.0))),
        crit: reader.range("crit").or(Some(Range::above(90.0))),
    };
    Some(Check::blocking(OpenFiles { readings: host.readings.clone(), limits }))
}

struct OpenFiles {
    readings: Arc<Readings>,
    limits: Thresholds,
}

impl Blocking for OpenFiles {
    fn run(&self) -> Judgement {
        let files = match self.readings.get::<FileNr>() {
            Ok(files) => *files,
            Err(error) => return error.into(),
        };
        let limits = self.limits;
        Judgement::new(move |past| Findings::all(vec![Finding::whole(judge(files, limits, past))]))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of files")]
fn judge(files: FileNr, limits: Thresholds, past: &mut Past) -> CheckResult {
    let (open, max) = (files.open as f64, files.max as f64);
    let share = percent(open, max);
    let of_max = |range: Option<Range>| range.map(|range| range.scaled(max / 100.0));
    let perf = Perf::new("open_files", open, "").thresholds(of_max(limits.warn), of_max(limits.crit));
    let summary = format!("{} files are open, {share:.0}% of the maximum ({})", files.open, files.max);
    CheckResult::new(limits.judge_after(share, past.was(None)), summary)
        .with_perfdata(vec![perf.bounds(0.0, max)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        State,
        testing::{fixture, run},
    };

    #[test]
    fn open_files_are_judged_against_the_maximum() {
        let judged = |open, max| {
            let limits = Thresholds { warn: Some(Range::above(70.0)), crit: Some(Range::above(90.0)) };
            judge(FileNr { open, max }, limits, &mut Past::default())
        };
        let result = judged(8_000, 10_000);
        assert_eq!(
            result.to_nagios("fd"),
            "FD WARNING - 8000 files are open, 80% of the maximum (10000) | open_files=8000;7000;9000;0;10000"
        );
        assert_eq!(judged(9_500, 10_000).state, State::Critical);
        assert_eq!(judged(8_000, 9_223_372_036_854_775_807).state, State::Ok);
        assert_eq!(judged(8_000, 0).state, State::Ok);
        assert!(KIND.is_built_in(&Host::live()) && !KIND.is_built_in(&fixture("empty")));
        assert_eq!(run("fd", &fixture("empty")).state, State::Unknown);
    }
}
