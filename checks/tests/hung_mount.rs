//! The `disk` check with a real filesystem that hangs: a FUSE mount without a server.
//!
//! Needs root: it runs in a new mount namespace (`unshare --mount`), where this program is started
//! again.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs::{self, File, OpenOptions},
    os::fd::AsRawFd as _,
    path::Path,
    process::Command,
};

use dogwatch_checks::{Check, CheckResult, Host, Options, State, kind};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

#[test]
fn a_dead_mount_is_critical_and_costs_one_thread_and_the_others_are_still_checked() {
    in_a_namespace("inside_a_new_mount_namespace");
}

#[test]
fn a_mount_below_another_one_never_has_its_numbers() {
    in_a_namespace("inside_with_a_hidden_mount");
}

/// Runs an ignored test of this file with mounts of its own.
fn in_a_namespace(test: &str) {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("not root")
    } else if !Path::new("/dev/fuse").exists() {
        Some("no /dev/fuse")
    } else {
        None
    };
    if let Some(why) = missing {
        assert!(std::env::var_os("DOGWATCH_TEST_STRICT").is_none_or(|strict| strict != "1"), "{why}");
        eprintln!("SKIPPED: {why}");
        return;
    }
    let inner = ["--ignored", "--exact", test, "--nocapture"];
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare").arg("--mount").arg(program).args(inner).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "started by the test above"]
fn inside_a_new_mount_namespace() {
    let point = tempfile::tempdir().unwrap();
    let point = point.path();
    let dead = DeadMount::at(point);
    let host = Host::live();
    let before = threads();

    for round in 0..3 {
        let result = run(&host, &[]);
        assert_eq!(result.state, State::Critical);
        assert!(
            result.summary.contains(&format!("{} has not responded for ", point.display())),
            "{}",
            result.summary
        );
        assert!(result.detail.contains("\n/ ") || result.detail.starts_with("/ "), "{}", result.detail);
        // One that hangs, and one that waits for the next check.
        assert!(threads() <= before + 2, "round {round}");
    }

    // The server ends: the thread returns with an error, and the mount can be read again.
    drop(dead);
    let error = loop {
        let result = run(&host, &[("path", point.to_str().unwrap())]);
        if !result.summary.contains("has not responded") {
            break result;
        }
    };
    assert_eq!(error.state, State::Critical);
    assert!(error.summary.contains("cannot be read"), "{}", error.summary);
    unmount(point, UnmountFlags::DETACH).unwrap();
    assert!(!run(&host, &[]).detail.contains(point.to_str().unwrap()));
}

#[test]
#[ignore = "started by the test above"]
fn inside_with_a_hidden_mount() {
    let top = tempfile::tempdir().unwrap();
    let below = top.path().join("a");
    let tmpfs = |point: &Path, size: &str| {
        let data = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("tmpfs", point, "tmpfs", MountFlags::empty(), data.as_c_str()).unwrap();
    };
    fs::create_dir(&below).unwrap();
    tmpfs(&below, "1M");
    let seen = run(&Host::live(), &[]);
    assert!(seen.detail.contains(&format!("{} 100% free (1.0 MiB)", below.display())), "{}", seen.detail);
    tmpfs(top.path(), "2M");
    fs::create_dir(&below).unwrap();
    let seen = run(&Host::live(), &[]);
    assert!(
        seen.detail.contains(&format!("{} 100% free (2.0 MiB)", top.path().display())),
        "{}",
        seen.detail
    );
    assert!(!seen.detail.contains(&below.display().to_string()), "{}", seen.detail);
    let named = run(&Host::live(), &[("path", below.to_str().unwrap())]);
    let wanted = format!("{} (on {}) 100% free (2.0 MiB)", below.display(), top.path().display());
    assert_eq!(named.summary, wanted);
}

fn run(host: &Host, options: &[(&str, &str)]) -> CheckResult {
    let options: Options = options.iter().copied().collect();
    match kind("disk").unwrap().build(&options, host).unwrap() {
        Check::Blocking(check) => check.run().once(),
        Check::Async(_) => panic!("disk blocks"),
    }
}

/// As long as it is open, nothing answers. When it is closed, all waiting calls return ENOTCONN.
struct DeadMount {
    _device: File,
}

impl DeadMount {
    fn at(point: &Path) -> Self {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let data = std::ffi::CString::new(data).unwrap();
        mount("hang", point, "fuse", MountFlags::empty(), data.as_c_str()).unwrap();
        Self { _device: device }
    }
}

/// Threads of this process, without helpers that are about to end.
fn threads() -> usize {
    let count = || fs::read_dir("/proc/self/task").unwrap().count();
    let mut least = count();
    for _ in 0..1_000 {
        std::thread::yield_now();
        least = least.min(count());
    }
    least
}
