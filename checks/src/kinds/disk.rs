//! `disk`: space and inodes of all real filesystems; filesystems that hang, are missing, or became
//! read-only.
//!
//! Percentages are those of `df`: of the space that is used or free for everyone, without root's
//! reserve. A filesystem has become read-only if the kernel made it so after an error (its own
//! options have `ro` and those of the mount do not, or it has `emergency_ro`), if it is writable in
//! `/etc/fstab`, or if this process has seen it writable before. A filesystem that is read-only on
//! purpose cannot fill up, so it is checked only if its path is configured.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Blind, Blocking, Check, Finding, Findings, Host, Judgement, Kind, Lane, State, always,
    options::{OptionSpec, PerThing, Reader},
    perfdata::Perf,
    read::mountinfo::{self, Access, Mount},
    result::CheckResult,
    root::{FsUsage, ReadError, Root},
    space::{Limit, Limits, human, percent},
    statvfs::{Answer, Asker, PATIENCE},
};

pub(crate) const KIND: Kind = Kind {
    name: "disk",
    about: "space and inodes of all real filesystems; also hanging, missing and read-only ones",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: always,
    interval: None,
    has_things: true,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "path",
        value: "PATH",
        help: "check only the filesystem at this path; can be a list [all real filesystems]",
    },
    OptionSpec {
        name: "exclude",
        value: "PATH",
        help: "skip the filesystems mounted here or below; can be a list",
    },
    OptionSpec { name: "exclude_type", value: "TYPE", help: "skip filesystems of this type; can be a list" },
    OptionSpec {
        name: "warn",
        value: "LIMIT",
        help: "WARNING below this free space: \"10%\", \"5GiB\", \"90% used\"; with two, WARNING below both [10%,50GiB]",
    },
    OptionSpec { name: "crit", value: "LIMIT", help: "CRITICAL below this free space [5%,5GiB]" },
    OptionSpec {
        name: "warn_inodes",
        value: "LIMIT",
        help: "WARNING below this number of free inodes [10%]",
    },
    OptionSpec {
        name: "crit_inodes",
        value: "LIMIT",
        help: "CRITICAL below this number of free inodes [5%]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let space = Limits { warn: Limit::percent_and_gib(10.0, 50.0), crit: Limit::percent_and_gib(5.0, 5.0) };
    let inodes = Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) };
    Some(Check::blocking(Disk {
        root: host.root.clone(),
        asker: host.asker.clone(),
        seen_writable: host.seen_writable.clone(),
        only: absolute(reader, "path"),
        exclude: absolute(reader, "exclude"),
        exclude_types: reader.list("exclude_type").unwrap_or_default(),
        limits: Arc::new(reader.per_thing(|reader| DiskLimits {
            space: Limits::take(reader, "warn", "crit", space),
            inodes: Limits::take(reader, "warn_inodes", "crit_inodes", inodes),
        })),
    }))
}

fn absolute(reader: &mut Reader<'_>, name: &str) -> Vec<PathBuf> {
    let paths = reader.list(name).unwrap_or_default();
    if let Some(wrong) = paths.iter().find(|path| !path.starts_with('/')) {
        reader.error(name, format!("{wrong:?} must start with a slash"));
    }
    paths.into_iter().map(PathBuf::from).collect()
}

struct Disk {
    root: Root,
    asker: Arc<Asker>,
    seen_writable: Arc<SeenWritable>,
    only: Vec<PathBuf>,
    exclude: Vec<PathBuf>,
    exclude_types: Vec<String>,
    limits: Arc<PerThing<DiskLimits>>,
}

#[derive(Debug, Clone, Copy)]
struct DiskLimits {
    space: Limits,
    inodes: Limits,
}

/// One filesystem and its usage.
#[derive(Debug)]
struct Filesystem {
    point: PathBuf,
    access: Access,
    /// Its path is configured, so it is a problem if it is missing or cannot be read.
    named: bool,
    answer: Answer,
}

impl Blocking for Disk {
    fn run(&self) -> Judgement {
        match self.read() {
            Ok(filesystems) => {
                let limits = Arc::clone(&self.limits);
                Judgement::new(move |_| judge(&filesystems, &limits))
            }
            Err(error) => error.into(),
        }
    }
}

impl Disk {
    fn read(&self) -> Result<Vec<Filesystem>, ReadError> {
        let mounts = mountinfo::parse(&self.root.read("/proc/self/mountinfo")?);
        // A container or a new image may have no fstab.
        let wanted = mountinfo::writable_in_fstab(&self.root.read("/etc/fstab").unwrap_or_default());
        self.seen_writable.look_at(&mounts);
        let chosen = self.choose(&mounts);
        let points: Vec<_> = chosen.iter().map(|(point, _)| point.clone()).collect();
        let answers = self.asker.ask(&points, PATIENCE);
        Ok(chosen
            .into_iter()
            .zip(answers)
            .map(|((point, mount), answer)| Filesystem {
                access: mount.map_or(Access::ReadWrite, |mount| self.access(&mount, &wanted)),
                named: !self.only.is_empty(),
                point,
                answer,
            })
            .collect())
    }

    /// The paths to read, each with its mount.
    fn choose(&self, mounts: &[Mount]) -> Vec<(PathBuf, Option<Mount>)> {
        if !self.only.is_empty() {
            let with_mount = |path: &PathBuf| (path.clone(), mountinfo::containing(mounts, path).cloned());
            return self.only.iter().map(with_mount).collect();
        }
        mountinfo::worth_watching(mounts)
            .into_iter()
            .filter(|mount| !self.exclude.iter().any(|excluded| mount.point.starts_with(excluded)))
            .filter(|mount| !self.exclude_types.contains(&mount.fs_type))
            .map(|mount| (mount.point.clone(), Some(mount)))
            .collect()
    }

    fn access(&self, mount: &Mount, wanted: &[PathBuf]) -> Access {
        match mount.access() {
            Access::ReadOnly if wanted.contains(&mount.point) || self.seen_writable.contains(mount) => {
                Access::Lost
            }
            other => other,
        }
    }
}

/// The mounts that were writable at the last check. Shared by all checks of a process.
#[derive(Debug, Default)]
pub(crate) struct SeenWritable(Mutex<BTreeSet<(String, PathBuf)>>);

impl SeenWritable {
    /// Adds the mounts that are writable now and removes those that no longer exist.
    fn look_at(&self, mounts: &[Mount]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(device, point)| {
            mounts.iter().any(|mount| mount.device == *device && mount.point == *point)
        });
        let writable = mounts.iter().filter(|mount| mount.access() == Access::ReadWrite);
        seen.extend(writable.map(|mount| (mount.device.clone(), mount.point.clone())));
    }

    fn contains(&self, mount: &Mount) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contains(&(mount.device.clone(), mount.point.clone()))
    }
}

fn judge(filesystems: &[Filesystem], limits: &PerThing<DiskLimits>) -> Findings {
    let mut list = Vec::new();
    let mut blind = Vec::new();
    for filesystem in filesystems {
        let point = shown(&filesystem.point);
        let limits = *limits.of(&point);
        let Some((verdict, said)) = judge_one(filesystem, limits) else {
            blind.push(Blind { thing: point, why: "no space that could run out, or no permission".into() });
            continue;
        };
        let perfdata = match filesystem.answer {
            Answer::Usage(usage) => perf(&point, usage, limits),
            Answer::Failed(_) | Answer::Hung(_) => Vec::new(),
        };
        // A check of one path has one service, named like the check.
        let finding = if filesystem.named && filesystems.len() == 1 {
            Finding::whole(CheckResult::new(verdict, format!("{point} {said}")).with_perfdata(perfdata))
        } else {
            Finding::of(point, CheckResult::new(verdict, said).with_perfdata(perfdata))
        };
        list.push(finding);
    }
    Findings::all(list).with_blind(blind)
}

/// The state of one filesystem and its text; `None` if it does not count.
fn judge_one(filesystem: &Filesystem, limits: DiskLimits) -> Option<(State, String)> {
    let usage = match &filesystem.answer {
        Answer::Usage(usage) => *usage,
        Answer::Hung(since) => {
            return Some((State::Critical, format!("has not responded for {} s", since.as_secs().max(1))));
        }
        Answer::Failed(error) => {
            return match error.kind() {
                // FUSE mounts of users, if the agent is not root.
                ErrorKind::PermissionDenied if !filesystem.named => None,
                ErrorKind::PermissionDenied => Some((State::Unknown, "cannot be read: no permission".into())),
                ErrorKind::NotFound => Some((State::Critical, "does not exist".into())),
                _ => Some((State::Critical, format!("cannot be read: {error}"))),
            };
        }
    };
    if usage.used + usage.free == 0 || (filesystem.access == Access::ReadOnly && !filesystem.named) {
        return None;
    }
    let total = bytes(usage.used + usage.free);
    let mut verdict = limits.space.judge(bytes(usage.free), total);
    let mut said = format!("{:.0}% free ({})", percent(bytes(usage.free), total), human(bytes(usage.free)));
    if usage.inodes > 0 {
        let inodes = limits.inodes.judge(bytes(usage.inodes_free), bytes(usage.inodes));
        if inodes != State::Ok {
            let free = percent(bytes(usage.inodes_free), bytes(usage.inodes));
            let _ = write!(said, ", {free:.0}% of inodes free");
        }
        verdict = verdict.max(inodes);
    }
    if filesystem.access == Access::Lost {
        said += ", became read-only";
        verdict = State::Critical;
    }
    Some((verdict, said))
}

fn perf(point: &str, usage: FsUsage, limits: DiskLimits) -> Vec<Perf> {
    let (free, total) = (bytes(usage.free), bytes(usage.free + usage.used));
    let mut perfdata = vec![limits.space.perf(point, "B", free, total)];
    if usage.inodes > 0 {
        let (free, total) = (bytes(usage.inodes_free), bytes(usage.inodes));
        perfdata.push(limits.inodes.perf(format!("{point} inodes"), "", free, total));
    }
    perfdata
}

fn shown(point: &Path) -> String {
    crate::output::clean(&point.to_string_lossy()).replace('\n', " ")
}

#[expect(clippy::cast_precision_loss, reason = "bytes or inodes; the error does not matter")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::{
        kind,
        testing::{fixture, run, run_with},
    };

    #[test]
    fn all_real_filesystems_are_checked_and_the_fullest_is_named() {
        let result = run("disk", &fixture("debian12-vm"));
        assert_eq!(result.state, State::Ok);
        assert_eq!(result.summary, "2 checked: /, /run");
        assert_eq!(result.detail, "/ 88% free (195.9 GiB)\n/run 100% free (2.4 GiB)");
        let labels: Vec<_> = result.perfdata.iter().map(|perf| perf.label.as_str()).collect();
        assert_eq!(labels, ["/", "/ inodes", "/run", "/run inodes"]);
    }

    #[test]
    fn full_filesystems_are_listed_worst_first() {
        let result = run("disk", &fixture("full-disks"));
        assert_eq!(result.state, State::Critical);
        assert_eq!(
            result.summary,
            "/var 2% free (400.0 MiB); /srv/mail 60% free (60.0 GiB), 3% of inodes free; / 8% free (1.6 GiB)"
        );
        // A tenth of /archive is far more than 50 GiB.
        assert!(result.detail.contains("/archive 8% free (800.0 GiB)"), "{}", result.detail);
    }

    #[test]
    fn limits_and_filesystems_can_be_configured() {
        let host = fixture("full-disks");
        let state = |options: &[(&str, &str)]| run_with("disk", options, &host).state;
        assert_eq!(state(&[("path", "/")]), State::Warning);
        assert_eq!(state(&[("path", "/"), ("warn", "5%"), ("crit", "1%")]), State::Ok);
        assert_eq!(state(&[("path", "/"), ("crit", "91% used")]), State::Critical);
        assert_eq!(state(&[("path", "/archive"), ("warn", "10%")]), State::Warning);
        assert_eq!(state(&[("exclude", "/var"), ("exclude", "/srv")]), State::Warning);
        assert_eq!(
            state(&[("exclude_type", "ext4"), ("exclude_type", "xfs"), ("exclude_type", "btrfs")]),
            State::Unknown,
            "no filesystem is left"
        );
        assert_eq!(state(&[("path", "/srv/mail"), ("warn_inodes", "2%"), ("crit_inodes", "1%")]), State::Ok);
    }

    #[test]
    fn a_missing_path_is_critical() {
        let result = run_with("disk", &[("path", "/srv/backup")], &fixture("full-disks"));
        assert_eq!((result.state, result.summary.as_str()), (State::Critical, "/srv/backup does not exist"));
    }

    #[test]
    fn a_filesystem_that_became_read_only_is_critical() {
        let result = run("disk", &fixture("readonly"));
        assert_eq!(result.state, State::Critical);
        // /data has mismatching options, /home is writable in fstab, /media is read-only on
        // purpose.
        assert_eq!(
            result.summary,
            "/home 50% free (50.0 GiB), became read-only; /data 50% free (50.0 GiB), became read-only"
        );
        assert!(!result.detail.contains("/media"));
    }

    #[test]
    fn a_read_only_remount_is_noticed() {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        fs::create_dir_all(tree.path().join("proc/self")).unwrap();
        fs::write(tree.path().join("statvfs"), "/x 4096 1000 500 500 100 50\n").unwrap();
        let mounted = |options: &str| {
            let line = format!("1 1 8:1 / /x {options} - ext4 /dev/a {options}\n");
            fs::write(tree.path().join("proc/self/mountinfo"), line).unwrap();
            run_with("disk", &[("path", "/x"), ("warn", "1%"), ("crit", "1%")], &host).state
        };
        assert_eq!(mounted("ro"), State::Ok, "it was never writable");
        assert_eq!(mounted("rw"), State::Ok);
        assert_eq!(mounted("ro"), State::Critical);
        assert_eq!(mounted("rw"), State::Ok);
    }

    #[test]
    fn a_filesystem_that_hangs_is_critical_and_one_without_permission_does_not_count() {
        let found =
            |answer, named| Filesystem { point: "/nfs".into(), access: Access::ReadWrite, named, answer };
        let limits = DiskLimits {
            space: Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) },
            inodes: Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) },
        };
        let one = |answer, named| judge_one(&found(answer, named), limits);
        let failed = |kind: ErrorKind| Answer::Failed(kind.into());
        let hung = one(Answer::Hung(Duration::from_secs(42)), false);
        assert_eq!(hung, Some((State::Critical, "has not responded for 42 s".into())));
        assert_eq!(one(failed(ErrorKind::NotConnected), false).unwrap().0, State::Critical);
        assert_eq!(one(failed(ErrorKind::PermissionDenied), false), None);
        assert_eq!(one(failed(ErrorKind::PermissionDenied), true).unwrap().0, State::Unknown);
        let without_inodes = FsUsage { used: 50, free: 50, inodes: 0, inodes_free: 0 };
        assert_eq!(one(Answer::Usage(without_inodes), false).unwrap().0, State::Ok, "btrfs");
    }

    #[test]
    fn a_filesystem_that_cannot_be_read_outranks_a_warning() {
        let found = |point: &str, answer| Filesystem {
            point: point.into(),
            access: Access::ReadWrite,
            named: true,
            answer,
        };
        let limits = DiskLimits {
            space: Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) },
            inodes: Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) },
        };
        let usage = |free| Answer::Usage(FsUsage { used: 100 - free, free, inodes: 0, inodes_free: 0 });
        let unreadable = found("/a", Answer::Failed(ErrorKind::PermissionDenied.into()));
        let mut filesystems = vec![found("/b", usage(8)), unreadable];
        let limits = PerThing::from(limits);
        let result = judge(&filesystems, &limits).summed_up();
        assert_eq!(result.state, State::Unknown);
        assert!(
            result.summary.starts_with("/a cannot be read: no permission; /b 8% free"),
            "{}",
            result.summary
        );
        filesystems.push(found("/c", usage(2)));
        let result = judge(&filesystems, &limits).summed_up();
        assert_eq!(result.state, State::Critical);
        assert!(result.summary.starts_with("/c 2% free"), "{}", result.summary);
    }

    #[test]
    fn a_relative_path_is_an_error() {
        let options = [("path", "var")].into_iter().collect();
        let errors = kind("disk").unwrap().build(&options, &Host::live()).unwrap_err();
        assert_eq!(errors[0].to_string(), "path: \"var\" must start with a slash");
    }

    #[test]
    fn the_filesystems_of_this_host_can_be_read() {
        let result = run("disk", &Host::live());
        assert_ne!(result.state, State::Unknown, "{}", result.summary);
        assert!(result.perfdata.iter().any(|perf| perf.label == "/"));
    }
}
