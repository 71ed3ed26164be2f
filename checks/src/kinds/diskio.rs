//! `diskio`: how long reads and writes take, for each disk.
//!
//! Only slowness is judged. `busy` is not: an SSD serves many requests at once, so it may be busy
//! all the time and have room. (Since Linux 4.17 it is also too high for fast disks: sysstat#187.
//! It is capped by the length of the queue, as in sysstat#405.)
//!
//! Nobody waits for a backup that streams: its writes queue up in the page cache and take long. So
//! the time of writes does not count while a disk writes at [`STREAM`]. A disk that spins may be
//! slow for half an hour, any other for two minutes.

use std::{sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, PerThing, Reader},
    perfdata::Perf,
    read::{
        block,
        diskstats::{Counters, Diskstats},
    },
    result::CheckResult,
    root::in_container,
    space::human,
    threshold::Range,
};

pub(crate) const KIND: Kind = Kind {
    name: "diskio",
    about: "how long reads and writes take, for each disk",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("disks of its own", |host| {
        !in_container(&host.root)
            && host.root.path("/proc/diskstats").exists()
            && !block::disks(&host.root).is_empty()
    }),
    interval: None,
    things: Things::Devices,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn",
        value: "TIME",
        help: "WARNING if reads or writes take longer on average [100ms; 200ms if the disk spins]",
    },
    OptionSpec { name: "crit", value: "TIME", help: "CRITICAL if reads or writes take longer [none]" },
    OptionSpec {
        name: "lasting",
        value: "TIME",
        help: "how long a disk must be slow [2m; 30m if the disk spins]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let limits = reader.per_thing(|reader| {
        let [warn, crit] = reader.times(["warn", "crit"], [None; 2], Reader::time);
        Limits { warn, crit, lasting: reader.delay("lasting") }
    });
    Some(Check::blocking(DiskIo { host: host.clone(), limits: Arc::new(limits) }))
}

struct DiskIo {
    host: Host,
    limits: Arc<PerThing<Limits>>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    warn: Option<Duration>,
    crit: Option<Duration>,
    lasting: Option<Duration>,
}

/// A disk and whether it spins.
type Disk = (Counters, bool);

impl Blocking for DiskIo {
    fn run(&self) -> Judgement {
        let stats = match self.host.readings.get::<Diskstats>() {
            Ok(stats) => stats,
            Err(error) => return error.into(),
        };
        let root = &self.host.root;
        let known = block::disks(root);
        let disk = |counters: &Counters| {
            let name = counters.name.replace('/', "!");
            known.contains(&name).then(|| (counters.clone(), block::spins(root, &name)))
        };
        let disks: Vec<Disk> = stats.0.iter().filter_map(disk).collect();
        let limits = Arc::clone(&self.limits);
        Judgement::new(move |past| {
            Findings::all(disks.iter().map(|disk| judge(disk, *limits.of(&disk.0.name), past)).collect())
        })
    }
}

/// What a disk did since the last run.
#[derive(Debug, Clone, Copy)]
struct Activity {
    read: Direction,
    write: Direction,
    /// From 0 to 1.
    busy: f64,
    /// The average number of requests in flight.
    queue: f64,
}

#[derive(Debug, Clone, Copy)]
struct Direction {
    requests: f64,
    /// The average of a request.
    seconds: f64,
    bytes_per_second: f64,
}

fn activity(counters: &Counters, past: &mut Past) -> Option<Activity> {
    let mut since = |key: &str, counter| past.advance(&format!("{} {key}", counters.name), counter);
    let steps = [
        since("reads", counters.reads),
        since("reading", counters.reading_ms),
        since("read", counters.sectors_read),
        since("writes", counters.writes),
        since("writing", counters.writing_ms),
        since("written", counters.sectors_written),
        since("busy", counters.busy_ms),
        since("queued", counters.queued_ms),
    ];
    #[expect(clippy::cast_precision_loss, reason = "averages")]
    let step = |at: usize| steps[at].map(|(increase, seconds)| (increase as f64, seconds));
    let direction = |at: usize| {
        let ((requests, seconds), (ms, _), (sectors, _)) = (step(at)?, step(at + 1)?, step(at + 2)?);
        Some(Direction {
            requests,
            seconds: ms / 1_000.0 / requests,
            bytes_per_second: sectors * 512.0 / seconds,
        })
    };
    let ((busy_ms, seconds), (queued_ms, _)) = (step(6)?, step(7)?);
    let queue = queued_ms / 1_000.0 / seconds;
    let busy = (busy_ms / 1_000.0 / seconds).min(queue).min(1.0);
    Some(Activity { read: direction(0)?, write: direction(3)?, busy, queue })
}

fn judge((counters, spins): &Disk, limits: Limits, past: &mut Past) -> Finding {
    let name = counters.name.as_str();
    let was = past.was(Some(name));
    let Some(activity) = activity(counters, past) else {
        return Finding::of(name, CheckResult::new(State::Ok, "waiting for a second reading"));
    };
    let (slow, lasting) = if *spins { (SLOW_IF_SPINNING, LASTING_IF_SPINNING) } else { (SLOW, LASTING) };
    let warn = limits.warn.unwrap_or_else(|| limits.crit.unwrap_or(slow).min(slow));
    let state_of = |direction: Direction| {
        let above = |limit: Duration, broken: bool| {
            direction.seconds > limit.as_secs_f64() / if broken { 1.1 } else { 1.0 }
        };
        if direction.requests < ENOUGH {
            State::Ok
        } else if limits.crit.is_some_and(|crit| above(crit, was == State::Critical)) {
            State::Critical
        } else if above(warn, was != State::Ok) {
            State::Warning
        } else {
            State::Ok
        }
    };
    let read = state_of(activity.read);
    let streams = activity.write.bytes_per_second >= STREAM;
    let write = if streams { State::Ok } else { state_of(activity.write) };
    let state = read.max(write);
    let said = |verb: &str, direction: Direction, state: State| {
        let limit = match state {
            State::Critical => limits.crit.unwrap_or(warn),
            _ => warn,
        };
        let limit = if state == State::Ok {
            String::new()
        } else {
            format!(" (limit {})", time(limit.as_secs_f64()))
        };
        (direction.requests > 0.0).then(|| format!("{verb} take {}{limit}", time(direction.seconds)))
    };
    let rates = format!(
        "{:.0}% busy, reads {}/s, writes {}/s",
        activity.busy * 100.0,
        human(activity.read.bytes_per_second),
        human(activity.write.bytes_per_second)
    );
    let times = [said("reads", activity.read, read), said("writes", activity.write, write)];
    let summary = times.into_iter().flatten().chain([rates]).collect::<Vec<_>>().join(", ");
    let result = CheckResult::new(state, summary).with_perfdata(perf(name, activity, warn, limits.crit));
    Finding::of(name, result).lasting(limits.lasting.unwrap_or(lasting))
}

/// `3.1 ms`, `1.2 s`.
fn time(seconds: f64) -> String {
    match seconds * 1_000.0 {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

fn perf(name: &str, activity: Activity, warn: Duration, crit: Option<Duration>) -> Vec<Perf> {
    let limit = |limit: Duration| Range::above(limit.as_secs_f64());
    let one = |label: &str, value: f64, unit: &str| {
        // More digits say nothing.
        let digits = if unit == "B" { 1.0 } else { 1e6 };
        let value = (value * digits).round() / digits;
        Perf::new(format!("{name} {label}"), value, unit).bounds(0.0, None)
    };
    // Without a request, there is no time: `U`.
    let time = |label: &str, direction: Direction| {
        one(label, direction.seconds, "s").thresholds(Some(limit(warn)), crit.map(limit))
    };
    vec![
        time("read time", activity.read),
        time("write time", activity.write),
        one("busy", activity.busy * 100.0, "%").bounds(0.0, 100.0),
        one("queue", activity.queue, ""),
        one("read rate", activity.read.bytes_per_second, "B"),
        one("write rate", activity.write.bytes_per_second, "B"),
    ]
}

/// Fewer requests say nothing.
const ENOUGH: f64 = 10.0;
/// Bytes per second. A disk that writes this much is busy, not broken.
const STREAM: f64 = 20.0 * 1_048_576.0;
/// awesome-prometheus-alerts: 100 ms for 2 minutes.
const SLOW: Duration = Duration::from_millis(100);
const LASTING: Duration = Duration::from_mins(2);
const SLOW_IF_SPINNING: Duration = Duration::from_millis(200);
const LASTING_IF_SPINNING: Duration = Duration::from_mins(30);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        root::Root,
        testing::{findings, lines},
    };

    /// Counters of one disk that a test moves on.
    struct World {
        dir: tempfile::TempDir,
        host: Host,
        past: Past,
        minute: u64,
        counters: [u64; 11],
    }

    impl World {
        fn new(spins: bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let disk = dir.path().join("sys/block/sda/queue");
            fs::create_dir_all(&disk).unwrap();
            fs::create_dir_all(dir.path().join("sys/block/dm-0")).unwrap();
            fs::create_dir_all(dir.path().join("proc")).unwrap();
            fs::write(disk.join("rotational"), if spins { "1\n" } else { "0\n" }).unwrap();
            let host = Host::new(Root::captured(dir.path()));
            Self { dir, host, past: Past::default(), minute: 60, counters: [1_000; 11] }
        }

        /// A minute with these reads and writes, each with its milliseconds, and MiB per second.
        fn minute(&mut self, [reads, read_ms, writes, write_ms]: [u64; 4], mib: u64) -> Finding {
            let sectors = mib * 2_048 * 60;
            let total = reads * read_ms + writes * write_ms;
            let steps =
                [reads, 0, sectors, reads * read_ms, writes, 0, sectors, writes * write_ms, 0, 60_000, total];
            for (counter, step) in self.counters.iter_mut().zip(steps) {
                *counter += step;
            }
            let counters = self.counters.map(|counter| counter.to_string()).join(" ");
            let text =
                ["8 0 sda", "8 1 sda1", "253 0 dm-0", "7 0 loop0"].map(|name| format!("{name} {counters}\n"));
            fs::write(self.dir.path().join("proc/diskstats"), text.concat()).unwrap();
            self.minute += 1;
            let now = Duration::from_mins(self.minute);
            let mut found = findings("diskio", &[], &self.host, &mut self.past, now);
            assert_eq!(found.list.len(), 1, "only the whole disk: {:?}", lines(&found));
            found.list.remove(0)
        }

        fn state(&mut self, requests: [u64; 4], mib: u64) -> State {
            self.minute(requests, mib).result.state
        }
    }

    #[test]
    fn a_slow_disk_is_a_warning_after_two_minutes() {
        let mut world = World::new(false);
        let first = world.minute([0; 4], 0);
        assert_eq!(
            (first.result.state, first.result.summary.as_str()),
            (State::Ok, "waiting for a second reading")
        );
        assert!(world.past.is_incomplete());
        assert_eq!(world.state([6_000, 2, 6_000, 5], 5), State::Ok);
        let slow = world.minute([600, 350, 60, 5], 2);
        assert_eq!((slow.result.state, slow.lasting), (State::Warning, Some(Duration::from_mins(2))));
        assert_eq!(
            slow.result.summary,
            "reads take 350 ms (limit 100 ms), writes take 5.0 ms, 100% busy, reads 2.0 MiB/s, writes 2.0 MiB/s"
        );
        assert_eq!(world.state([600, 95, 60, 5], 2), State::Warning, "not yet clear");
        assert_eq!(world.state([600, 90, 60, 5], 2), State::Ok);
        assert_eq!(world.state([9, 5_000, 9, 5_000], 0), State::Ok, "too few requests to tell");
        assert_eq!(world.state([0; 4], 0), State::Ok);
    }

    #[test]
    fn a_backup_does_not_alert() {
        let mut world = World::new(true);
        world.minute([0; 4], 0);
        assert_eq!(world.state([3_000, 15, 9_000, 1_700], 120), State::Ok, "writes wait in the page cache");
        assert_eq!(world.state([600, 150, 600, 150], 2), State::Ok);
        let slow = world.minute([600, 900, 600, 10], 2);
        assert_eq!((slow.result.state, slow.lasting), (State::Warning, Some(Duration::from_mins(30))));
        let mut flash = World::new(false);
        flash.minute([0; 4], 0);
        assert_eq!(flash.state([60, 1, 9_000, 600], 200), State::Ok);
        assert_eq!(flash.state([60, 1, 900, 600], 2), State::Warning, "little, and slow");
    }

    /// sysstat#187: a fast disk counts as busy for a whole tick.
    #[test]
    fn busy_is_capped_by_the_queue() {
        let mut world = World::new(false);
        world.minute([0; 4], 0);
        let quiet = world.minute([600, 1, 0, 0], 0).result;
        let busy = quiet.perfdata.iter().find(|perf| perf.label == "sda busy").unwrap();
        assert!(busy.value.unwrap() < 1.1, "{busy}");
        let unknown = quiet.perfdata.iter().find(|perf| perf.label == "sda write time").unwrap();
        assert_eq!(unknown.value, None);
    }

    #[test]
    fn a_counter_that_wraps_is_no_alert() {
        let mut world = World::new(false);
        world.minute([0; 4], 0);
        world.minute([600, 1, 600, 1], 1);
        world.counters = [10; 11];
        assert_eq!(world.minute([600, 1, 600, 1], 1).result.summary, "waiting for a second reading");
        assert_eq!(world.state([600, 1, 600, 1], 1), State::Ok);
    }

    #[test]
    fn limits_that_contradict_are_an_error() {
        let options = [("warn", "2s"), ("crit", "1s")].into_iter().collect();
        let errors = crate::kind("diskio").unwrap().build(&options, &Host::live()).unwrap_err();
        assert_eq!(errors[0].option, "crit");
    }
}
