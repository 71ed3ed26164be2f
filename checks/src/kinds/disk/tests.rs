//! The whole check, from the files of a host to what is said.

use std::{fs, io::ErrorKind, time::Duration};

use super::{judge::judge, *};
use crate::{
    CheckResult, Findings, Past, State, kind,
    root::{FsUsage, MountedAs},
    testing::{findings, fixture, lines, run, run_with},
};

#[test]
fn all_real_filesystems_are_checked_and_the_fullest_is_named() {
    let result = run("disk", &fixture("debian12-vm"));
    assert_eq!(result.state, State::Ok);
    assert_eq!(result.summary, "/ 88% free (195.9 GiB); also OK: /run");
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
        "/var 2% free (400.0 MiB), limit 5% and 5.0 GiB; /srv/mail 60% free (60.0 GiB), 3% of inodes free, limit 5%; / 8% free (1.6 GiB), limit 10% and 50.0 GiB"
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

/// A host whose files a test writes.
struct Tree {
    dir: tempfile::TempDir,
    host: Host,
    past: Past,
    now: Duration,
}

impl Tree {
    fn new(mountinfo: &str, statvfs: &str, fstab: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(dir.path()));
        let tree = Self { dir, host, past: Past::default(), now: Duration::from_hours(1) };
        tree.write("proc/self/mountinfo", mountinfo);
        tree.write("statvfs", statvfs);
        tree.write("etc/fstab", fstab);
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A run a minute after the last.
    fn run(&mut self, options: &[(&str, &str)]) -> Findings {
        self.now += Duration::from_mins(1);
        findings("disk", options, &self.host, &mut self.past, self.now)
    }
}

const HALF: &str = "4096 26214400 13107200 13107200 6553600 6000000";

fn blind(findings: &Findings) -> Vec<String> {
    findings.blind.iter().map(|blind| format!("{}: {}", blind.thing, blind.why)).collect()
}

/// G3.
#[test]
fn what_cannot_be_judged_is_listed_and_never_has_the_numbers_of_another_filesystem() {
    let mut tree = Tree::new(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n\
         2 1 8:2 / /var/lib/docker rw - ext4 /dev/b rw\n\
         3 1 8:3 / /secret/data rw - ext4 /dev/c rw\n\
         4 1 8:4 / /mnt/a rw - ext4 /dev/d rw\n\
         5 1 0:9 / /home/u/.cache/doc rw - fuse.mystery mystery rw\n\
         6 1 8:6 / /media/ro ro - ext4 /dev/f ro\n\
         7 1 8:7 / /gone rw - ext4 /dev/g rw\n",
        &format!(
            "/ {HALF} 1\n/var/lib/docker 4096 1000 20 20 100 50 2\n/secret/data EACCES\n/mnt/a {HALF} 1\n\
             /home/u/.cache/doc 4096 500 0 0 30 0 5\n/media/ro {HALF} 6\n"
        ),
        "",
    );
    let found = tree.run(&[]);
    assert_eq!(
        lines(&found),
        ["/var/lib/docker CRITICAL 2% free (80.0 KiB), limit 5% and 5.0 GiB", "/ OK 50% free (50.0 GiB)"]
    );
    assert_eq!(
        blind(&found),
        [
            "/secret/data: no permission",
            "/mnt/a: hidden by another mount",
            "/home/u/.cache/doc: an image, always full",
            "/media/ro: read-only",
        ]
    );
    let named = tree.run(&[("path", "/mnt/a")]);
    assert_eq!(lines(&named), ["- OK /mnt/a (on /) 50% free (50.0 GiB)"]);
    let named = tree.run(&[("path", "/secret/data")]);
    assert_eq!(lines(&named), ["- UNKNOWN /secret/data cannot be read: no permission"]);
}

/// G3, G21.
#[test]
fn a_line_of_fstab_that_is_not_mounted_is_critical_after_a_minute() {
    let mount = "1 0 8:1 / / rw - ext4 /dev/a rw\n";
    let fstab = "UUID=1 / ext4 defaults\nLABEL=data /data ext4 defaults\n/dev/u /usb ext4 noauto\n/dev/l /link ext4\n";
    let mut tree = Tree::new(mount, &format!("/ {HALF} 1\n/data {HALF}\n/link {HALF} 9\n"), fstab);
    let found = tree.run(&[]);
    assert_eq!(
        lines(&found),
        ["/data CRITICAL in /etc/fstab (LABEL=data) but not mounted", "/ OK 50% free (50.0 GiB)"],
        "/link leads to the root of another mount"
    );
    assert_eq!(found.list[0].lasting, Some(Duration::from_mins(1)));
    assert!(found.all);
    let named = tree.run(&[("path", "/data")]);
    assert_eq!(lines(&named), ["- CRITICAL /data in /etc/fstab (LABEL=data) but not mounted"]);
    tree.write("proc/self/mountinfo", &format!("{mount}2 1 8:2 / /data rw - ext4 /dev/b rw\n"));
    assert_eq!(lines(&tree.run(&[]))[1], "/data OK 50% free (50.0 GiB)");
    tree.write("proc/self/mountinfo", mount);
    assert_eq!(tree.run(&[]).list[0].result.state, State::Critical);
    tree.write(".dockerenv", "");
    assert_eq!(lines(&tree.run(&[])), ["/ OK 50% free (50.0 GiB)"], "the fstab of an image");
}

/// G11.
#[test]
fn read_only_as_fstab_wants_it_is_fine() {
    let mounts = |usr: &str, usb: &str, home: &str| {
        format!(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /usr {usr} - ext4 /dev/b {usr}\n\
             3 1 8:3 / /usb {usb} - ext4 /dev/c {usb}\n4 1 8:4 / /home {home} - ext4 /dev/d {home}\n"
        )
    };
    let fstab = "/dev/a / ext4\n/dev/b /usr ext4 ro\n/dev/c /usb ext4 noauto\n/dev/d /home ext4 rw\n";
    let table = format!("/ {HALF}\n/usr {HALF}\n/usb {HALF}\n/home {HALF}\n");
    let mut tree = Tree::new(&mounts("ro", "ro", "rw"), &table, fstab);
    let mut worst = |usr: &str, usb: &str, home: &str| {
        tree.write("proc/self/mountinfo", &mounts(usr, usb, home));
        let found = tree.run(&[]);
        let problem = found.list.iter().find(|finding| finding.result.state != State::Ok);
        problem.map(|finding| (finding.thing.clone().unwrap(), finding.lasting))
    };
    assert_eq!(worst("ro", "ro", "rw"), None);
    assert_eq!(worst("rw", "ro", "rw"), None, "an apt hook remounts it");
    assert_eq!(worst("ro", "ro", "rw"), None, "and back");
    assert_eq!(worst("ro", "ro", "ro"), Some(("/home".into(), Some(Duration::ZERO))));
    assert_eq!(worst("ro", "rw", "rw"), None);
    assert_eq!(worst("ro", "ro", "rw"), Some(("/usb".into(), Some(Duration::ZERO))), "it was writable");
}

/// G18.
#[test]
fn patterns_exclude_and_a_malformed_one_is_an_error() {
    let host = fixture("full-disks");
    let things = |options: &[(&str, &str)]| {
        let found = findings("disk", options, &host, &mut Past::default(), Duration::ZERO);
        found.list.into_iter().filter_map(|finding| finding.thing).collect::<Vec<_>>()
    };
    assert_eq!(things(&[("exclude", "/s*"), ("exclude_type", "?fs")]), ["/var", "/", "/backup"]);
    assert_eq!(things(&[("exclude", "/nothing/*")]).len(), 5);
    for (name, wrong) in
        [("exclude", "/mnt/[ab]"), ("exclude", "mnt/*"), ("exclude", ""), ("exclude_type", "{a,b}")]
    {
        let options = [(name, wrong)].into_iter().collect();
        let errors = kind("disk").unwrap().build(&options, &host).unwrap_err();
        assert_eq!(errors[0].option, name, "{wrong}");
    }
}

#[test]
fn a_value_at_the_limit_does_not_alert_every_time() {
    let mut tree = Tree::new("1 0 8:1 / / rw - ext4 /dev/a rw\n", "", "");
    let mut state = |available: &u32| {
        tree.write("statvfs", &format!("/ 4096 1000 {available} {available} 0 0\n"));
        tree.run(&[]).list[0].result.state
    };

    let seen: Vec<_> = [101, 99, 101, 109, 112].iter().map(&mut state).collect();
    assert_eq!(seen, [State::Ok, State::Warning, State::Warning, State::Warning, State::Ok]);
}

#[test]
fn a_filesystem_that_fills_up_says_when_it_is_full() {
    let mut tree = Tree::new("1 0 8:1 / /var rw - ext4 /dev/a rw\n", "", "");
    // 6 hours long, 1 % of 100 GiB less in 10 minutes.
    let mut last = None;
    for minute in 0..=360_u32 {
        let free = 26_214_400 / 100 * 60 - 26_214 * minute;
        tree.write("statvfs", &format!("/var 4096 26214400 {free} {free} 0 0\n"));
        last = Some(tree.run(&[]));
    }
    // Too new to alert.
    assert_eq!(lines(&last.unwrap()), ["/var OK 24% free (24.0 GiB), full in 4 h at this rate"]);
}

#[test]
fn a_filesystem_that_hangs_is_critical_and_one_that_was_unmounted_meanwhile_is_gone() {
    let one = |answer: Answer, named: bool| {
        let mount = mountinfo::parse("7 1 0:9 / /nfs rw - nfs4 nas:/ rw\n").pop();
        let found = Filesystem {
            point: "/nfs".into(),
            seen: mount.clone(),
            expected: mount.filter(|_| !named),
            absent: None,
            access: Access::ReadWrite,
            named,
            answer,
        };
        let limits = Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) };
        let limits = PerThing::from(DiskLimits { space: limits, inodes: limits, forecast: true });
        judge(&[found], Vec::new(), &limits, 0, &mut Past::default())
    };
    let said = |answer, named| lines(&one(answer, named));
    let failed = |kind: ErrorKind| Answer::Failed(kind.into());
    let hung = Answer::Hung(Duration::from_secs(42));
    assert_eq!(said(hung, false), ["/nfs CRITICAL has not responded for 42 s"]);
    assert_eq!(one(failed(ErrorKind::NotConnected), false).list[0].result.state, State::Critical);
    assert_eq!(said(failed(ErrorKind::PermissionDenied), false), [""; 0]);
    assert_eq!(said(failed(ErrorKind::NotFound), false), [""; 0]);
    assert_eq!(said(failed(ErrorKind::NotFound), true), ["- CRITICAL /nfs does not exist"]);
    let mount = Some(MountedAs { id: 7, is_root: true });
    let without_inodes = FsUsage { used: 50, free: 50, reserved: 0, inodes: 0, inodes_free: 0, mount };
    assert_eq!(said(Answer::Usage(without_inodes), false), ["/nfs OK 50% free (50 B)"], "btrfs");
    let empty = FsUsage { used: 0, free: 0, ..without_inodes };
    assert_eq!(blind(&one(Answer::Usage(empty), false)), ["/nfs: has no size"]);
}

#[test]
fn the_fullest_filesystem_speaks_for_all_in_the_one_line_of_a_plugin() {
    let result: CheckResult = run_with(
        "disk",
        &[("warn", "1%"), ("crit", "1%"), ("warn_inodes", "1%"), ("crit_inodes", "1%")],
        &fixture("full-disks"),
    );
    assert_eq!(result.summary, "/var 2% free (400.0 MiB); also OK: /, /archive, /srv/mail, /backup");
}

#[test]
fn only_mounts_whose_usage_is_in_memory_are_read_without_a_helper() {
    let mounts = mountinfo::parse(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
         2 1 0:5 / /run rw - tmpfs tmpfs rw\n\
         3 1 8:2 / /srv rw - xfs /dev/sda2 rw\n\
         4 1 0:9 / /nfs rw - nfs4 nas:/ rw\n\
         5 4 8:3 / /nfs/local rw - ext4 /dev/sda3 rw\n\
         6 1 0:8 / /auto rw - autofs systemd-1 rw\n\
         7 1 8:4 / /hidden rw - ext4 /dev/sda4 rw\n\
         8 1 0:7 / /hidden rw - fuse.sshfs a:/ rw\n",
    );
    let at_once = |path: &str| answers_at_once(&mounts, Path::new(path));
    assert!(at_once("/") && at_once("/run"));
    for may_hang in ["/srv", "/nfs", "/nfs/local", "/auto", "/hidden"] {
        assert!(!at_once(may_hang), "{may_hang}");
    }
    assert!(!at_once("/var/lib"), "no mount point: the way to it may be on disk only");
}
