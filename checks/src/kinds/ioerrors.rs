//! `ioerrors`: errors that the kernel counts for disks and filesystems.
//!
//! ext4 and btrfs keep their counts on the disk until someone repairs the filesystem or resets
//! them. What was there at first sight is not news; anything more is CRITICAL until it is repaired.
//!
//! A SCSI or SATA disk counts every command that did not succeed, also those of smartctl and udisks
//! that merely ask, so a healthy disk has a count that grows. Only [`BURST`] errors within
//! [`WINDOW`] are a problem. A timeout, or a disk that the kernel gave up, always is. xfs counts no
//! errors; the `disk` check notices when it shuts down.

use std::time::Duration;

use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{
        block::{self, names, number, text},
        btrfs,
    },
    result::CheckResult,
    root::{Root, in_container},
};

pub(crate) const KIND: Kind = Kind {
    name: "ioerrors",
    about: "errors of disks, ext4 and btrfs that the kernel counts",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("disks with error counters", |host| {
        !in_container(&host.root) && !read(&host.root).0.is_empty()
    }),
    interval: None,
    things: Things::Names,
    make,
};

const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "exclude",
    value: "PATTERN",
    help: "skip these disks and filesystems: \"sdb\", \"ext4 sdb*\", \"btrfs old\"; can be a list",
}];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(IoErrors { root: host.root.clone(), exclude: reader.patterns("exclude") }))
}

struct IoErrors {
    root: Root,
    exclude: Vec<crate::Pattern>,
}

/// What counts errors.
#[derive(Debug, Clone, PartialEq)]
struct Counted {
    thing: String,
    counts: Counts,
}

#[derive(Debug, Clone, PartialEq)]
enum Counts {
    Disk {
        /// `running`, `live`, `offline`.
        state: Option<String>,
        errors: Option<u64>,
        timeouts: Option<u64>,
    },
    /// Kept on the disk.
    Filesystem {
        errors: u64,
        /// Where they are: `corruption_errs 2 on device 1`.
        detail: String,
        repair: &'static str,
    },
}

impl Blocking for IoErrors {
    fn run(&self) -> Judgement {
        let (mut counted, mut blind) = read(&self.root);
        counted.retain(|one| {
            let pattern = self.exclude.iter().find(|pattern| pattern.matches(&one.thing));
            blind.extend(pattern.map(|pattern| Blind {
                thing: one.thing.clone(),
                why: format!("excluded by exclude = \"{pattern}\""),
            }));
            pattern.is_none()
        });
        Judgement::new(move |past| {
            let list = counted.into_iter().map(|Counted { thing, counts }| {
                let result = match counts {
                    Counts::Disk { state, errors, timeouts } => {
                        disk(&thing, state.as_deref(), errors, timeouts, past)
                    }
                    Counts::Filesystem { errors, detail, repair } => {
                        filesystem(&thing, errors, &detail, repair, past)
                    }
                };
                Finding::of(thing, result).at_once()
            });
            Findings::all(list.collect()).with_blind(blind)
        })
    }
}

fn read(root: &Root) -> (Vec<Counted>, Vec<Blind>) {
    let mut counted = Vec::new();
    let mut blind = Vec::new();
    for disk in block::disks(root) {
        let device = format!("/sys/block/{disk}/device");
        let state = text(root, &format!("{device}/state"));
        let count = |file: &str| hex(&text(root, &format!("{device}/{file}"))?);
        let (errors, timeouts) = (count("ioerr_cnt"), count("iotmo_cnt"));
        if state.is_none() && errors.is_none() {
            continue;
        }
        // To pull out a stick is no failure.
        if number(root, &format!("/sys/block/{disk}/removable")) == Some(1) {
            blind.push(Blind { thing: disk, why: "removable".into() });
            continue;
        }
        counted.push(Counted { thing: disk, counts: Counts::Disk { state, errors, timeouts } });
    }
    for device in names(root, "/sys/fs/ext4") {
        let base = format!("/sys/fs/ext4/{device}");
        let Some(errors) = number(root, &format!("{base}/errors_count")) else { continue };
        let place = text(root, &format!("{base}/last_error_func")).filter(|place| !place.is_empty());
        let detail = place.map(|place| format!("last in {place}")).unwrap_or_default();
        let name = text(root, &format!("/sys/block/{device}/dm/name")).unwrap_or(device);
        counted.push(Counted {
            thing: format!("ext4 {name}"),
            counts: Counts::Filesystem { errors, detail, repair: "run fsck" },
        });
    }
    for filesystem in btrfs::read(root) {
        let known = filesystem.devices.iter().filter_map(|device| Some((device, device.errors.as_ref()?)));
        let stats: Vec<_> =
            known.flat_map(|(device, stats)| stats.iter().map(move |stat| (device, stat))).collect();
        if stats.is_empty() {
            continue;
        }
        let detail = stats.iter().filter(|(_, (_, count))| *count > 0);
        let detail = detail.map(|(device, (name, count))| format!("{name} {count} on device {}", device.id));
        counted.push(Counted {
            thing: format!("btrfs {}", filesystem.name),
            counts: Counts::Filesystem {
                errors: stats.iter().fold(0, |sum, (_, (_, count))| sum.saturating_add(*count)),
                detail: detail.collect::<Vec<_>>().join(", "),
                repair: "run btrfs scrub, then btrfs device stats -z",
            },
        });
    }
    (counted, blind)
}

/// `0x1f`.
fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn disk(
    name: &str,
    state: Option<&str>,
    errors: Option<u64>,
    timeouts: Option<u64>,
    past: &mut Past,
) -> CheckResult {
    let mut within = |what: &str, counter: Option<u64>, span| {
        counter.map_or(0.0, |counter| past.increase_within(&format!("{name} {what}"), counter, span))
    };
    let recent = within("errors", errors, WINDOW);
    let timed_out = within("timeouts", timeouts, TIMEOUT_WINDOW);
    let count = |counter: Option<u64>, what: &str| {
        #[expect(clippy::cast_precision_loss, reason = "a count of events")]
        counter.map(|counter| Perf::new(format!("{name} {what}"), counter as f64, "c"))
    };
    let perfdata = [count(errors, "errors"), count(timeouts, "timeouts")].into_iter().flatten().collect();
    let gone = state.filter(|state| GIVEN_UP.contains(state));
    let (verdict, summary) = if let Some(state) = gone {
        (State::Critical, format!("the kernel has given up this disk (state {state})"))
    } else if timed_out > 0.0 {
        (State::Critical, format!("{} within an hour", plural(timed_out, "timeout")))
    } else if recent >= BURST {
        (State::Critical, format!("{recent:.0} I/O errors within 10 min (limit {BURST:.0})"))
    } else {
        (State::Ok, "no I/O errors".to_owned())
    };
    CheckResult::new(verdict, summary).with_perfdata(perfdata)
}

fn filesystem(name: &str, errors: u64, detail: &str, repair: &str, past: &mut Past) -> CheckResult {
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    let now = errors as f64;
    let key = format!("known {name}");
    let known = past.fact(&key).unwrap_or(now).min(now);
    past.learn(&key, known);
    let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    let (state, summary) = if now > known {
        (State::Critical, format!("{}{detail}; {repair}", plural(now - known, "new error")))
    } else if errors > 0 {
        (State::Ok, format!("no new errors, {errors} old{detail}"))
    } else {
        (State::Ok, "no errors".to_owned())
    };
    CheckResult::new(state, summary).with_perfdata(vec![Perf::new(format!("{name} errors"), now, "c")])
}

fn plural(count: f64, noun: &str) -> String {
    format!("{count:.0} {noun}{}", if count < 1.5 { "" } else { "s" })
}

/// States of a SCSI disk (scsi_device_state) and of an NVMe controller (nvme_ctrl_state).
const GIVEN_UP: &[&str] = &["offline", "transport-offline", "dead"];
/// Far more than programs that ask for SMART data cause, far less than a disk that fails.
const BURST: f64 = 100.0;
const WINDOW: Duration = Duration::from_mins(10);
const TIMEOUT_WINDOW: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{findings, lines};

    struct World {
        dir: tempfile::TempDir,
        host: Host,
        past: Past,
        minute: u64,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let host = Host::new(Root::captured(dir.path()));
            Self { dir, host, past: Past::default(), minute: 60 }
        }

        fn set(&self, path: &str, text: &str) {
            let path = self.dir.path().join("sys").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn run(&mut self) -> Vec<String> {
            self.minute += 1;
            let now = Duration::from_mins(self.minute);
            let found = findings("ioerrors", &[], &self.host, &mut self.past, now);
            assert!(found.list.iter().all(|finding| finding.lasting == Some(Duration::ZERO)));
            lines(&found)
        }
    }

    #[test]
    fn errors_of_ext4_are_news_once_and_stay_until_repaired() {
        let mut world = World::new();
        world.set("fs/ext4/features/lazy_itable_init", "supported\n");
        world.set("fs/ext4/sda1/errors_count", "3\n");
        world.set("fs/ext4/dm-0/errors_count", "0\n");
        world.set("fs/ext4/dm-0/last_error_func", "");
        world.set("block/dm-0/dm/name", "vg-root\n");
        assert_eq!(world.run(), ["ext4 vg-root OK no errors", "ext4 sda1 OK no new errors, 3 old"]);
        world.set("fs/ext4/dm-0/errors_count", "2\n");
        world.set("fs/ext4/dm-0/last_error_func", "ext4_find_entry\n");
        let critical = "ext4 vg-root CRITICAL 2 new errors (last in ext4_find_entry); run fsck";
        assert_eq!(world.run()[0], critical);
        world.past = world.past.facts_only();
        assert_eq!(world.run()[0], critical, "also after a restart");
        world.set("fs/ext4/dm-0/errors_count", "0\n");
        assert_eq!(world.run()[0], "ext4 vg-root OK no errors");
        world.set("fs/ext4/sda1/errors_count", "4\n");
        assert_eq!(world.run()[1], "ext4 sda1 CRITICAL 1 new error; run fsck");
    }

    #[test]
    fn errors_of_btrfs_name_the_device() {
        let mut world = World::new();
        let base = "fs/btrfs/0ab3ff6b-44f2-4a8e-b5a1-0123456789ab";
        let stats = |corruption: u32| {
            format!(
                "write_errs 0\nread_errs 0\nflush_errs 0\ncorruption_errs {corruption}\ngeneration_errs 0\n"
            )
        };
        world.set("fs/btrfs/features/raid56", "1\n");
        world.set(&format!("{base}/label"), "data\n");
        world.set(&format!("{base}/devinfo/1/error_stats"), &stats(0));
        world.set(&format!("{base}/devinfo/2/error_stats"), &stats(7));
        let old = "btrfs data OK no new errors, 7 old (corruption_errs 7 on device 2)";
        assert_eq!(world.run(), [old]);
        world.set(&format!("{base}/devinfo/1/error_stats"), &stats(1));
        let new = "btrfs data CRITICAL 1 new error (corruption_errs 1 on device 1, corruption_errs 7 on device 2); run btrfs scrub, then btrfs device stats -z";
        assert_eq!(world.run(), [new]);
    }

    #[test]
    fn a_disk_that_is_asked_for_smart_data_is_healthy_and_one_that_fails_is_not() {
        let mut world = World::new();
        world.set("block/sda/device/state", "running\n");
        world.set("block/sda/device/ioerr_cnt", "0x12\n");
        world.set("block/sdb/device/ioerr_cnt", "0x0\n");
        world.set("block/sdb/removable", "1\n");
        world.set("block/nvme0n1/device/state", "live\n");
        world.set("block/vda/size", "1\n");
        let quiet = ["nvme0n1 OK no I/O errors", "sda OK no I/O errors"];
        for minute in 0..120_u32 {
            world.set("block/sda/device/ioerr_cnt", &format!("{:#x}\n", 18 + 3 * minute));
            assert_eq!(world.run(), quiet, "smartctl_exporter asks every minute");
        }
        world.set("block/sda/device/ioerr_cnt", "0x400\n");
        assert!(world.run()[1].starts_with("sda CRITICAL "));
        world.set("block/nvme0n1/device/state", "dead\n");
        assert_eq!(world.run()[0], "nvme0n1 CRITICAL the kernel has given up this disk (state dead)");
    }

    #[test]
    fn a_timeout_is_critical_for_an_hour() {
        let mut world = World::new();
        world.set("block/sda/device/ioerr_cnt", "0x0\n");
        world.set("block/sda/device/iotmo_cnt", "0x5\n");
        assert_eq!(world.run(), ["sda OK no I/O errors"]);
        world.set("block/sda/device/iotmo_cnt", "0x6\n");
        assert_eq!(world.run(), ["sda CRITICAL 1 timeout within an hour"]);
        world.minute += 70;
        world.run();
        assert_eq!(world.run(), ["sda OK no I/O errors"]);
    }

    #[test]
    fn counts_are_hexadecimal() {
        assert_eq!(
            ["0x0", "0x1f", "12", "0x", "", "0xffffffffffffffffff"].map(hex),
            [Some(0), Some(31), None, None, None, None]
        );
    }
}
