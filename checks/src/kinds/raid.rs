//! `raid`: the arrays of md (mdadm).
//!
//! A check of the array, a resync after a crash and a reshape are no problem; the summary says how
//! far they are. Mismatches count for RAID 4, 5 and 6 only: RAID 1 and 10 have them with swap on
//! the array, and they are harmless there (md(4), netdata#10247).

use std::{sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, State, Things,
    options::{OptionSpec, PerThing, Reader},
    perfdata::Perf,
    read::md::{self, Array},
    result::CheckResult,
    root::{Root, in_container},
};

pub(crate) const KIND: Kind = Kind {
    name: "raid",
    about: "the arrays of md: missing and failed disks, rebuilds, mismatches",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("md arrays of its own", |host| {
        !in_container(&host.root) && !md::read(&host.root).is_empty()
    }),
    interval: None,
    things: Things::Devices,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "missing",
        value: "COUNT",
        help: "how many disks are missing on purpose, as in the system array of a NAS [0]",
    },
    OptionSpec {
        name: "mismatches",
        value: "COUNT",
        help: "WARNING above this number of sectors that differ, for RAID 4, 5 and 6 [1024]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let limits = reader.per_thing(|reader| Limits {
        missing: reader.whole("missing", 0..=1_000).unwrap_or(0),
        mismatches: reader.whole("mismatches", 0..=u64::MAX).unwrap_or(1_024),
    });
    Some(Check::blocking(Raid { root: host.root.clone(), limits: Arc::new(limits) }))
}

struct Raid {
    root: Root,
    limits: Arc<PerThing<Limits>>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    missing: u64,
    mismatches: u64,
}

impl Blocking for Raid {
    fn run(&self) -> Judgement {
        let arrays = md::read(&self.root);
        let list = arrays.iter().map(|array| judge(array, *self.limits.of(&array.name)));
        Findings::all(list.collect()).into()
    }
}

fn judge(array: &Array, limits: Limits) -> Finding {
    let mut said = Vec::new();
    let mut state = State::Ok;
    let mut problem = |severity: State, text: String| {
        state = state.max(severity);
        said.push(text);
    };
    let is_started = array.state != "inactive";
    let redundant = !matches!(array.level.as_str(), "raid0" | "linear" | "faulty" | "");
    if !is_started {
        problem(State::Critical, "not started".into());
    }
    if array.state == "broken" {
        problem(State::Critical, "broken: a disk is missing".into());
    }
    let missing = array.degraded.saturating_sub(limits.missing);
    if missing > 0 {
        // A spare has taken over, so nobody has to get up.
        let rebuilds = array.action == "recover" && array.completed.is_some();
        let severity = if rebuilds { State::Warning } else { State::Critical };
        problem(severity, format!("degraded: {} of {} disks missing", array.degraded, array.disks));
    }
    if !array.faulty.is_empty() {
        let severity = if redundant { State::Warning } else { State::Critical };
        problem(severity, format!("failed: {}", array.faulty.join(", ")));
    }
    let idle_or_checked = matches!(array.action.as_str(), "" | "idle" | "check");
    let parity = matches!(array.level.as_str(), "raid4" | "raid5" | "raid6");
    if array.mismatches > limits.mismatches && parity && idle_or_checked {
        problem(State::Warning, format!("{} sectors differ (limit {})", array.mismatches, limits.mismatches));
    }
    if said.is_empty() {
        said.push(match (redundant, array.degraded) {
            (true, 0) => format!("all {} disks present", array.disks),
            (true, missing) => format!("{missing} of {} disks missing, as configured", array.disks),
            (false, _) => format!("{} disks, no redundancy", array.disks),
        });
    }
    said.extend(progress(array));
    if !array.level.is_empty() {
        said.insert(0, array.level.clone());
    }
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let perf = |label: &str, count: u64| {
        Perf::new(format!("{} {label}", array.name), count as f64, "").bounds(0.0, None)
    };
    let mut perfdata = vec![perf("missing", array.degraded), perf("failed", array.faulty.len() as u64)];
    if redundant {
        perfdata.push(perf("mismatches", array.mismatches));
    }
    let result = CheckResult::new(state, said.join(", ")).with_perfdata(perfdata);
    let finding = Finding::of(array.name.as_str(), result);
    // Disks may turn up one after the other at boot.
    if is_started { finding.at_once() } else { finding.lasting(Duration::from_mins(1)) }
}

/// `rebuilt by 43%, done in about 2 h`.
fn progress(array: &Array) -> Option<String> {
    let action = match array.action.as_str() {
        "recover" => "rebuild",
        "resync" => "resync",
        "check" => "check",
        "repair" => "repair",
        "reshape" => "reshape",
        _ => return None,
    };
    let Some((done, all)) = array.completed.filter(|(_, all)| *all > 0) else {
        return Some(format!("{action} waits"));
    };
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    let percent = done as f64 / all as f64 * 100.0;
    let left = (all.saturating_sub(done) / 2).checked_div(array.kib_per_second);
    let left = left.map(|seconds| format!(", done in {}", about(seconds))).unwrap_or_default();
    Some(format!("{action} at {percent:.0}%{left}"))
}

fn about(seconds: u64) -> String {
    match seconds / 60 {
        0 => "less than a minute".into(),
        minutes @ 1..=89 => format!("{minutes} min"),
        minutes => format!("{} h", (minutes + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        Past,
        testing::{findings, lines},
    };

    /// A host with arrays: for each, its files.
    fn host(arrays: &[(&str, &[(&str, &str)])]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (array, files) in arrays {
            for (file, text) in *files {
                let path = dir.path().join("sys/block").join(array).join("md").join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{text}\n")).unwrap();
            }
        }
        let host = Host::new(Root::captured(dir.path()));
        (dir, host)
    }

    fn said(options: &[(&str, &str)], files: &[(&str, &str)]) -> Vec<String> {
        let (_dir, host) = host(&[("md0", files)]);
        lines(&findings("raid", options, &host, &mut Past::default(), Duration::ZERO))
    }

    const CLEAN: &[(&str, &str)] = &[
        ("array_state", "clean"),
        ("level", "raid1"),
        ("raid_disks", "2"),
        ("degraded", "0"),
        ("sync_action", "idle"),
        ("sync_completed", "none"),
        ("sync_speed", "none"),
        ("mismatch_cnt", "2432"),
        ("metadata_version", "1.2"),
        ("dev-sda1/state", "in_sync"),
        ("dev-sdb1/state", "in_sync,write_mostly"),
    ];

    fn with<'a>(files: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [CLEAN, files].concat()
    }

    #[test]
    fn a_healthy_array_is_fine_also_while_it_is_checked() {
        assert_eq!(said(&[], CLEAN), ["md0 OK raid1, all 2 disks present"]);
        let check =
            [("sync_action", "check"), ("sync_completed", "4300000 / 10000000"), ("sync_speed", "1000")];
        assert_eq!(
            said(&[], &with(&check)),
            ["md0 OK raid1, all 2 disks present, check at 43%, done in 47 min"]
        );
        // node_exporter#3500
        let delayed = [("sync_action", "resync"), ("sync_completed", "delayed")];
        assert_eq!(said(&[], &with(&delayed)), ["md0 OK raid1, all 2 disks present, resync waits"]);
        let auto_read_only = [("array_state", "read-auto")];
        assert_eq!(said(&[], &with(&auto_read_only)), ["md0 OK raid1, all 2 disks present"]);
    }

    #[test]
    fn a_missing_disk_is_critical_at_once_until_a_spare_takes_over() {
        let missing = [("degraded", "1"), ("dev-sdb1/state", "faulty")];
        assert_eq!(
            said(&[], &with(&missing)),
            ["md0 CRITICAL raid1, degraded: 1 of 2 disks missing, failed: sdb1"]
        );
        let removed = [("degraded", "1")];
        assert_eq!(said(&[], &with(&removed)), ["md0 CRITICAL raid1, degraded: 1 of 2 disks missing"]);
        let rebuild = [
            ("degraded", "1"),
            ("sync_action", "recover"),
            ("sync_completed", "100 / 1000"),
            ("sync_speed", "0"),
        ];
        assert_eq!(
            said(&[], &with(&rebuild)),
            ["md0 WARNING raid1, degraded: 1 of 2 disks missing, rebuild at 10%"]
        );
        let failed = [("dev-sdc1/state", "faulty")];
        assert_eq!(said(&[], &with(&failed)), ["md0 WARNING raid1, failed: sdc1"]);
        // The system array of a NAS has room for twelve disks.
        assert_eq!(
            said(&[("missing", "1")], &with(&removed)),
            ["md0 OK raid1, 1 of 2 disks missing, as configured"]
        );
        let (_dir, host) = host(&[("md0", &with(&missing))]);
        let found = findings("raid", &[], &host, &mut Past::default(), Duration::ZERO);
        assert_eq!(found.list[0].lasting, Some(Duration::ZERO));
    }

    #[test]
    fn mismatches_count_for_parity_only() {
        let raid6 = [("level", "raid6"), ("raid_disks", "6")];
        assert_eq!(said(&[], &with(&raid6)), ["md0 WARNING raid6, 2432 sectors differ (limit 1024)"]);
        assert_eq!(said(&[("mismatches", "3000")], &with(&raid6)), ["md0 OK raid6, all 6 disks present"]);
        let repair =
            [("level", "raid6"), ("sync_action", "repair"), ("sync_completed", "1 / 2"), ("sync_speed", "1")];
        assert_eq!(
            said(&[], &with(&repair)),
            ["md0 OK raid6, all 2 disks present, repair at 50%, done in less than a minute"]
        );
    }

    #[test]
    fn arrays_without_redundancy_not_started_and_containers() {
        let raid0: &[_] = &[("array_state", "clean"), ("level", "raid0"), ("raid_disks", "2")];
        let inactive: &[_] = &[("array_state", "inactive"), ("level", "raid5"), ("raid_disks", "3")];
        let container: &[_] = &[("array_state", "inactive"), ("metadata_version", "external:imsm")];
        let volume: &[_] = &[
            ("array_state", "active"),
            ("level", "raid1"),
            ("raid_disks", "2"),
            ("metadata_version", "external:/md127/0"),
        ];
        let stopped: &[_] = &[("array_state", "clear")];
        let broken: &[_] = &[("array_state", "broken"), ("level", "raid0"), ("raid_disks", "2")];
        let (_dir, host) = host(&[
            ("md0", raid0),
            ("md1", inactive),
            ("md126", volume),
            ("md127", container),
            ("md2", stopped),
            ("md3", broken),
        ]);
        let found = findings("raid", &[], &host, &mut Past::default(), Duration::ZERO);
        assert_eq!(
            lines(&found),
            [
                "md0 OK raid0, 2 disks, no redundancy",
                "md1 CRITICAL raid5, not started",
                "md126 OK raid1, all 2 disks present",
                "md3 CRITICAL raid0, broken: a disk is missing",
            ]
        );
        assert_eq!(found.list[1].lasting, Some(Duration::from_mins(1)));
    }
}
