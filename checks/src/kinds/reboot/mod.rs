//! `reboot`: the host was not shut down properly before it booted, or waits for a reboot.
//!
//! `reboot unexpected` is a WARNING for the first 10 minutes after a boot without a shutdown before
//! it (power loss, kernel panic, reset). Only `/var/log/wtmp` tells; without it, nothing is said.
//!
//! `reboot required` is a WARNING when `/run/reboot-required`, or a kernel that is newer than the
//! running one, is older than a week. The age of a kernel is the time at which its file was created
//! here (ctime): packages keep the time of the build as mtime. A container has no kernel of its
//! own, so the check is not built in there.

mod kernel;

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, State, Things, clock,
    options::{OptionSpec, Reader},
    output::clean,
    read::wtmp,
    result::CheckResult,
    root::{ReadError, Root, in_container},
    span,
};

pub(crate) const KIND: Kind = Kind {
    name: "reboot",
    about: "unexpected reboots, and reboots that are needed for a new kernel or library",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("record of boots and kernels, as a container has none", built_in),
    interval: Some(Duration::from_mins(5)),
    things: Things::Names,
    make,
};

fn built_in(host: &Host) -> bool {
    let exists = |path| host.root.path(path).exists();
    !in_container(&host.root)
        && exists("/proc/sys/kernel/osrelease")
        && (exists("/var/log/wtmp") || exists("/usr/bin/dpkg") || !kernels(&host.root).is_empty())
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn_after",
        value: "TIME",
        help: "WARNING when a reboot has been needed for this long [7d]",
    },
    OptionSpec {
        name: "ignore_kernel",
        value: "",
        help: "a newer kernel alone does not need a reboot (on hosts that stay with an older one)",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Reboot {
        root: host.root.clone(),
        warn_after: reader.delay("warn_after").unwrap_or(Duration::from_hours(7 * 24)),
        ignore_kernel: reader.flag("ignore_kernel"),
    }))
}

struct Reboot {
    root: Root,
    warn_after: Duration,
    ignore_kernel: bool,
}

#[derive(Debug, Default, PartialEq)]
struct Reading {
    /// Release of the running kernel.
    running: String,
    /// The last shutdown was clean, if that can be told.
    clean: Option<bool>,
    /// Age of `/run/reboot-required`, and the packages that asked for it.
    required: Option<(Duration, Vec<String>)>,
    /// The newest installed kernel and its age, if it is newer than the running one.
    newer: Option<(String, Duration)>,
}

impl Blocking for Reboot {
    fn run(&self) -> Judgement {
        match self.read() {
            Ok(reading) => {
                let warn_after = self.warn_after;
                Judgement::new(move |past| judge(&reading, past.now(), warn_after))
            }
            Err(error) => error.into(),
        }
    }
}

impl Reboot {
    fn read(&self) -> Result<Reading, ReadError> {
        let now = clock::unix_seconds();
        let age = |since: i64| Duration::from_secs(u64::try_from(now.saturating_sub(since)).unwrap_or(0));
        let running = self.root.read("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let boot = self.root.read("/proc/stat")?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        let records = tail(&self.root.path("/var/log/wtmp"));
        let clean = records.zip(boot).and_then(|(records, boot)| wtmp::clean_shutdown(&records, boot));
        let flag = fs::metadata(self.root.path("/run/reboot-required")).ok();
        let packages = self.root.read("/run/reboot-required.pkgs").unwrap_or_default();
        let newest = kernels(&self.root)
            .into_iter()
            .filter(|(release, _)| !self.ignore_kernel && kernel::is_newer(release, &running))
            .reduce(|one, other| if kernel::is_newer(&other.0, &one.0) { other } else { one });
        Ok(Reading {
            clean,
            required: flag.map(|flag| (age(flag.mtime()), names(&packages))),
            newer: newest.filter(|_| !in_container(&self.root)).map(|(release, at)| (release, age(at))),
            running,
        })
    }
}

/// Installed kernels, each with its ctime.
fn kernels(root: &Root) -> Vec<(String, i64)> {
    let list = |directory: &str| {
        let entries = fs::read_dir(root.path(directory)).into_iter().flatten().flatten();
        entries.take(ENTRIES_MAX).filter_map(|entry| {
            Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.ctime(), entry.path()))
        })
    };
    let images: Vec<_> = list("/boot")
        .filter_map(|(name, at, _)| Some((name.strip_prefix("vmlinuz-")?.to_owned(), at)))
        .collect();
    if !images.is_empty() {
        return images;
    }
    // No separate images (Arch), or `/boot` is private. A directory without modules is a leftover.
    list("/lib/modules")
        .filter(|(_, _, path)| path.join("modules.builtin").exists())
        .map(|(name, at, _)| (name, at))
        .collect()
}

const ENTRIES_MAX: usize = 1_000;

/// The packages without repetitions.
fn names(packages: &str) -> Vec<String> {
    let mut names: Vec<_> = packages.lines().map(|name| clean(name.trim())).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

/// The last part of a file that grows with each login.
fn tail(path: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// About 2,700 records.
const TAIL: u64 = 1_024 * 1_024;

fn judge(reading: &Reading, up: Duration, warn_after: Duration) -> Findings {
    let mut list = vec![Finding::of("required", required(reading, warn_after)).at_once()];
    let mut blind = Vec::new();
    match reading.clean {
        Some(clean) => list.push(Finding::of("unexpected", unexpected(clean, up)).at_once()),
        None => blind.push(Blind {
            thing: "unexpected".into(),
            why: "/var/log/wtmp does not tell how the host was shut down".into(),
        }),
    }
    Findings::all(list).with_blind(blind)
}

fn unexpected(clean: bool, up: Duration) -> CheckResult {
    let since = span::human(up);
    if clean {
        return CheckResult::new(State::Ok, format!("up for {since} after a clean shutdown"));
    }
    let state = if up < NEWS { State::Warning } else { State::Ok };
    CheckResult::new(
        state,
        format!("booted {since} ago without a clean shutdown: crash, reset or power loss"),
    )
}

/// How long an unexpected reboot is news.
const NEWS: Duration = Duration::from_mins(10);

fn required(reading: &Reading, warn_after: Duration) -> CheckResult {
    let mut reasons = Vec::new();
    let mut oldest = Duration::ZERO;
    if let Some((release, age)) = &reading.newer {
        oldest = oldest.max(*age);
        let (release, running) = (clean(release), clean(&reading.running));
        reasons.push(format!(
            "kernel {release} was installed {} ago, but {running} is running",
            span::human(*age)
        ));
    }
    if let Some((age, packages)) = &reading.required {
        oldest = oldest.max(*age);
        let shown = packages.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        let of = if shown.is_empty() { String::new() } else { format!(" by {shown}") };
        reasons.push(format!("requested{of} {} ago", span::human(*age)));
    }
    if reasons.is_empty() {
        return CheckResult::new(State::Ok, format!("no reboot needed; kernel {}", clean(&reading.running)));
    }
    let state = if oldest > warn_after { State::Warning } else { State::Ok };
    CheckResult::new(state, format!("reboot needed: {}", reasons.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Past, built_in,
        testing::{findings, lines},
    };

    const DAY: Duration = Duration::from_hours(24);

    /// A host that booted at 2000, with a kernel image for each release.
    fn host(images: &[&str]) -> (tempfile::TempDir, Host) {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("proc/sys/kernel/osrelease", b"6.1.0-28-amd64\n");
        write("proc/stat", b"cpu  1 2 3\nbtime 2000\n");
        for release in images {
            write(&format!("boot/vmlinuz-{release}"), b"");
        }
        let host = Host::new(Root::captured(tree.path()));
        (tree, host)
    }

    fn said(host: &Host, up: Duration) -> Vec<String> {
        lines(&findings("reboot", &[], host, &mut Past::default(), up))
    }

    #[test]
    fn a_boot_without_a_shutdown_is_a_warning_for_ten_minutes() {
        let (tree, host) = host(&["6.1.0-28-amd64"]);
        let wtmp =
            [wtmp::tests::record(2, "reboot", 1_000), wtmp::tests::record(2, "reboot", 2_000)].concat();
        fs::create_dir_all(tree.path().join("var/log")).unwrap();
        fs::write(tree.path().join("var/log/wtmp"), wtmp).unwrap();
        let text = "ago without a clean shutdown: crash, reset or power loss";
        let minutes = Duration::from_mins;
        assert_eq!(said(&host, minutes(4))[1], format!("unexpected WARNING booted 4 min {text}"));
        assert_eq!(said(&host, minutes(12))[1], format!("unexpected OK booted 12 min {text}"));
    }

    #[test]
    fn without_records_nothing_is_said_about_the_shutdown() {
        let (_tree, host) = host(&["6.1.0-28-amd64", "6.1.0-9-amd64", "6.1.0-30-cloud-amd64"]);
        let found = findings("reboot", &[], &host, &mut Past::default(), DAY);
        assert_eq!(lines(&found), ["required OK no reboot needed; kernel 6.1.0-28-amd64"]);
        assert_eq!(found.blind[0].thing, "unexpected");
    }

    #[test]
    fn a_new_kernel_and_a_requested_reboot_are_named() {
        let (tree, host) = host(&["6.1.0-28-amd64", "6.1.0-29-amd64", "6.1.0-30-amd64"]);
        fs::create_dir_all(tree.path().join("run")).unwrap();
        fs::write(tree.path().join("run/reboot-required"), "").unwrap();
        fs::write(tree.path().join("run/reboot-required.pkgs"), "libc6\nlibc6\ndbus\n").unwrap();
        assert_eq!(
            said(&host, DAY),
            ["required OK reboot needed: kernel 6.1.0-30-amd64 was installed 0 s ago, but \
                 6.1.0-28-amd64 is running; requested by dbus, libc6 0 s ago"]
        );
        let ignored = findings("reboot", &[("ignore_kernel", "true")], &host, &mut Past::default(), DAY);
        assert_eq!(lines(&ignored), ["required OK reboot needed: requested by dbus, libc6 0 s ago"]);
        let file = File::open(tree.path().join("run/reboot-required")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(said(&host, DAY)[0].starts_with("required WARNING"));
    }

    #[test]
    fn a_kernel_may_wait_a_week() {
        let state = |days: u32| {
            let newer = Some(("6.1.0-30-amd64".to_owned(), days * DAY));
            required(&Reading { newer, ..Reading::default() }, 7 * DAY).state
        };
        assert_eq!((state(6), state(8)), (State::Ok, State::Warning));
    }

    #[test]
    fn a_container_has_no_kernel() {
        let (tree, host) = host(&["6.1.0-30-amd64"]);
        assert!(built_in(&host).any(|kind| kind.name == "reboot"));
        fs::write(tree.path().join(".dockerenv"), "").unwrap();
        assert!(!built_in(&host).any(|kind| kind.name == "reboot"));
        assert_eq!(said(&host, DAY), ["required OK no reboot needed; kernel 6.1.0-28-amd64"]);
    }
}
