//! `disk`: space and inodes of all real filesystems; filesystems that fill up, hang, are missing,
//! or became read-only.
//!
//! Percentages are those of `df`: of the space that is used or free for everyone, without root's
//! reserve. A filesystem has become read-only if the kernel made it so after an error (its own
//! options have `ro` and those of the mount do not, or it has `emergency_ro`), if `/etc/fstab` says
//! that it is mounted writable, or if this process has seen it writable before; never if fstab
//! mounts it with `ro`. A filesystem that is read-only on purpose cannot fill up, so it is checked
//! only if its path is configured.
//!
//! `choose` has the mounts that count, `judge` and `forecast` what is said about them. Here is what
//! reads.

mod choose;
mod forecast;
mod judge;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use choose::{Choice, Filter};
use judge::{DiskLimits, Filesystem};

use crate::{
    Blind, Blocking, BuiltIn, Check, Host, Judgement, Kind, Lane, Things, clock,
    name::escaped,
    options::{OptionSpec, PerThing, Reader},
    read::{
        Readings, fstab,
        mountinfo::{self, Access, Mount},
    },
    root::{ReadError, Root, in_container},
    space::{Limit, Limits},
    statvfs::{Answer, Asker, PATIENCE},
};

pub(crate) const KIND: Kind = Kind {
    name: "disk",
    about: "space and inodes of all real filesystems; also filling, hanging, missing and read-only ones",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::Always,
    interval: None,
    things: Things::Paths,
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
        value: "PATTERN",
        help: "skip the filesystems mounted here or below, or where a pattern like \"/mnt/*\" matches; can be a list",
    },
    OptionSpec {
        name: "exclude_type",
        value: "PATTERN",
        help: "skip filesystems of this type, for example \"fuse.*\"; can be a list",
    },
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
    OptionSpec {
        name: "no_forecast",
        value: "",
        help: "do not alert when a filesystem will soon be full [WARNING a day before, below 40% free; CRITICAL 4 h before, below 20%]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let space = Limits { warn: Limit::percent_and_gib(10.0, 50.0), crit: Limit::percent_and_gib(5.0, 5.0) };
    let inodes = Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) };
    let only = reader.list("path").unwrap_or_default();
    let filter = Filter { points: reader.patterns("exclude"), types: reader.patterns("exclude_type") };
    if let Some(wrong) = only.iter().find(|path| !path.starts_with('/')) {
        reader.error("path", format!("{wrong:?} must start with a slash"));
    }
    if let Some(wrong) = filter.points.iter().find(|pattern| !pattern.as_str().starts_with(['/', '*'])) {
        reader.error("exclude", format!("\"{wrong}\" must start with a slash"));
    }
    Some(Check::blocking(Disk {
        readings: host.readings.clone(),
        in_container: OnceLock::new(),
        asker: host.asker.clone(),
        seen_writable: host.seen_writable.clone(),
        only: only.into_iter().map(PathBuf::from).collect(),
        filter,
        limits: Arc::new(reader.per_thing(|reader| DiskLimits {
            space: Limits::take(reader, "warn", "crit", space),
            inodes: Limits::take(reader, "warn_inodes", "crit_inodes", inodes),
            forecast: !reader.flag("no_forecast"),
        })),
    }))
}

struct Disk {
    readings: Arc<Readings>,
    in_container: OnceLock<bool>,
    asker: Arc<Asker>,
    seen_writable: Arc<SeenWritable>,
    only: Vec<PathBuf>,
    filter: Filter,
    limits: Arc<PerThing<DiskLimits>>,
}

impl Blocking for Disk {
    fn run(&self) -> Judgement {
        match self.read() {
            Ok((filesystems, blind)) => {
                let limits = Arc::clone(&self.limits);
                let hour = clock::unix_seconds() / 3_600;
                Judgement::new(move |past| judge::judge(&filesystems, blind, &limits, hour, past))
            }
            Err(error) => error.into(),
        }
    }
}

impl Disk {
    fn read(&self) -> Result<(Vec<Filesystem>, Vec<Blind>), ReadError> {
        let look = self.look(&self.readings.share(read_mounts)?);
        let as_read = |one: &Filesystem| match (&one.seen, &one.expected) {
            (Some(seen), Some(expected)) => seen.id == expected.id,
            (seen, _) => seen.is_some() || matches!(one.answer, Answer::Hung(_)),
        };
        if !look.0.iter().all(as_read) {
            // Something was mounted or unmounted after the shared reading.
            return Ok(self.look(&self.readings.renew(read_mounts)?));
        }
        Ok(look)
    }

    fn look(&self, mounts: &Arc<Vec<Mount>>) -> (Vec<Filesystem>, Vec<Blind>) {
        let fstab = self.fstab();
        self.seen_writable.look_at(mounts);
        let (expected, blind) = if self.only.is_empty() {
            let Choice { watched, absent, blind } = choose::choose(mounts, &fstab, &self.filter);
            let watched = watched.into_iter().map(|mount| (mount.point.clone(), Some(mount), None));
            let absent = absent.into_iter().map(|line| (line.point, None, Some(line.source)));
            (watched.chain(absent).collect::<Vec<_>>(), blind)
        } else {
            let named = self.only.iter().map(|path| {
                let mounted = mounts.iter().any(|mount| mount.point == *path);
                let line = fstab.iter().find(|line| line.point == *path && !mounted);
                (path.clone(), None, line.map(|line| line.source.clone()))
            });
            (named.collect(), Vec::new())
        };
        let points: Vec<_> = expected.iter().map(|(point, _, _)| point.clone()).collect();
        let answers = self.answers(mounts, &points);
        let filesystem = |((point, expected, absent), answer): ((PathBuf, Option<Mount>, _), Answer)| {
            let seen = seen(mounts, &point, &answer);
            let access =
                expected.as_ref().or(seen).map_or(Access::ReadWrite, |mount| self.access(mount, &fstab));
            Filesystem {
                seen: seen.cloned(),
                named: !self.only.is_empty(),
                point,
                expected,
                absent,
                access,
                answer,
            }
        };
        (expected.into_iter().zip(answers).map(filesystem).collect(), blind)
    }

    /// In the order of the points. Those that may hang are asked together.
    fn answers(&self, mounts: &[Mount], points: &[PathBuf]) -> Vec<Answer> {
        let at_once: Vec<bool> = points.iter().map(|point| answers_at_once(mounts, point)).collect();
        let each = || points.iter().zip(&at_once);
        let slow: Vec<_> = each().filter(|(_, at_once)| !**at_once).map(|(point, _)| point.clone()).collect();
        let mut slow = if slow.is_empty() { Vec::new() } else { self.asker.ask(&slow, PATIENCE) }.into_iter();
        let answer = |(point, at_once): (&PathBuf, &bool)| {
            if *at_once { Some(self.asker.ask_at_once(point)) } else { slow.next() }
        };
        each().filter_map(answer).collect()
    }

    /// Empty in a container, whose image may have any fstab that nobody mounts.
    fn fstab(&self) -> Arc<Vec<fstab::Line>> {
        if *self.in_container.get_or_init(|| in_container(self.readings.root())) {
            return Arc::default();
        }
        let read = |root: &Root| root.read_escaped("/etc/fstab").map(|text| fstab::parse(&text));
        self.readings.share(read).unwrap_or_default()
    }

    fn access(&self, mount: &Mount, fstab: &[fstab::Line]) -> Access {
        let line = fstab.iter().find(|line| line.point == mount.point);
        match mount.access() {
            Access::ReadOnly | Access::Lost if line.is_some_and(fstab::Line::is_read_only) => {
                Access::ReadOnly
            }
            Access::ReadOnly
                if line.is_some_and(fstab::Line::must_be_writable) || self.seen_writable.contains(mount) =>
            {
                Access::Lost
            }
            other => other,
        }
    }
}

/// Whether the kernel has the usage of this mount in memory, and the way to it too: it keeps the
/// directories above every mount point.
fn answers_at_once(mounts: &[Mount], point: &Path) -> bool {
    // As bytes: comparing components takes longer than the kernel takes to answer.
    let point = point.as_os_str().as_bytes();
    let mut is_mount_point = false;
    for mount in mounts {
        let above = mount.point.as_os_str().as_bytes();
        let on_the_way = above == b"/"
            || point.strip_prefix(above).is_some_and(|rest| rest.first().is_none_or(|&next| next == b'/'));
        if on_the_way && !IN_MEMORY.contains(&mount.fs_type.as_str()) {
            return false;
        }
        is_mount_point |= above == point;
    }
    is_mount_point
}

/// Filesystems whose statfs(2) reads counters in memory and takes no lock that is held while
/// waiting for a disk. Not xfs (before Linux 5.19 it waits for inodes to be freed), zfs (waits
/// while the pool is suspended) or vfat (may count clusters on disk).
const IN_MEMORY: &[&str] = &["ext2", "ext3", "ext4", "btrfs", "tmpfs", "devtmpfs"];

fn read_mounts(root: &Root) -> Result<Vec<Mount>, ReadError> {
    Ok(mountinfo::parse(&root.read_escaped("/proc/self/mountinfo")?))
}

/// The mount that answered. Old kernels do not tell, so then it is the one that should have.
fn seen<'a>(mounts: &'a [Mount], point: &Path, answer: &Answer) -> Option<&'a Mount> {
    match answer {
        Answer::Usage(usage) => match usage.mount {
            Some(mounted) => mounts.iter().find(|mount| mount.id == mounted.id),
            None => mountinfo::containing(mounts, point),
        },
        Answer::Failed(_) | Answer::Hung(_) => None,
    }
}

/// The mounts that were writable at the last check. Shared by all checks of a process.
#[derive(Debug, Default)]
pub(crate) struct SeenWritable(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The reading that was looked at last.
    last: Option<Arc<Vec<Mount>>>,
    writable: BTreeSet<(u64, String)>,
}

impl SeenWritable {
    /// Adds the mounts that are writable now and removes those that no longer exist.
    fn look_at(&self, mounts: &Arc<Vec<Mount>>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, mounts)) {
            return;
        }
        seen.last = Some(Arc::clone(mounts));
        let exists =
            |id: u64, device: &str| mounts.iter().any(|mount| mount.id == id && mount.device == device);
        seen.writable.retain(|(id, device)| exists(*id, device));
        let writable = mounts.iter().filter(|mount| mount.access() == Access::ReadWrite);
        seen.writable.extend(writable.map(|mount| (mount.id, mount.device.clone())));
    }

    fn contains(&self, mount: &Mount) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.writable.contains(&(mount.id, mount.device.clone()))
    }
}

/// A path for people, and the name of its service.
fn shown(point: &Path) -> String {
    escaped(point)
}
