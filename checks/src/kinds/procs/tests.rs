use std::fs;

use super::*;
use crate::root::Root;
use crate::testing::{findings, fixture, lines};

/// A host with some processes.
struct Machine {
    tree: tempfile::TempDir,
    host: Host,
    past: Past,
}

impl Machine {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        let machine = Self { tree, host, past: Past::default() };
        machine.write("proc/loadavg", "0.1 0.1 0.1 1/2000 4711\n");
        machine.write("proc/sys/kernel/pid_max", "32768\n");
        machine.write("proc/sys/kernel/threads-max", "8000\n");
        machine.process(1, "systemd", 'S', 0, 100);
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn process(&self, pid: u32, name: &str, state: char, parent: u32, ticks: u64) {
        let flags = if parent == 2 { 0x0020_0000 } else { 0 };
        let stat = format!(
            "{pid} ({name}) {state} {parent} 1 1 0 -1 {flags} 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {} 0 10 0\n",
            pid * 100
        );
        self.write(&format!("proc/{pid}/stat"), &stat);
    }

    fn run(&mut self, minute: u64) -> Findings {
        findings("procs", &[], &self.host, &mut self.past, Duration::from_mins(minute))
    }

    fn line(&mut self, minute: u64, thing: usize) -> String {
        lines(&self.run(minute)).remove(thing)
    }
}

#[test]
fn threads_are_judged_against_the_lowest_limit() {
    let mut machine = Machine::new();
    let found = machine.run(1);
    assert_eq!(
        lines(&found),
        [
            "count OK 2000 processes and threads, 25% of kernel.threads-max (8000)",
            "zombies OK no zombies",
            "blocked OK no process hangs in the kernel"
        ]
    );
    assert_eq!(
        found.list[0].result.perfdata_text(),
        "used=25%;85;95;0;100 tasks=2000;;;0;8000 processes=1;;;0"
    );
    machine.write("sys/fs/cgroup/pids.max", "max\n");
    machine.write("sys/fs/cgroup/pids.current", "90\n");
    assert!(machine.line(2, 0).starts_with("count OK 2000"));
    machine.write("sys/fs/cgroup/pids.max", "100\n");
    for pid in [50, 51, 52] {
        machine.process(pid, "fork bomb", 'S', 1, 0);
    }
    assert_eq!(
        machine.line(3, 0),
        "count WARNING 90 processes and threads, 90% of pids.max of the container (100); most often fork bomb (3 processes)"
    );
}

#[test]
fn zombies_name_the_parent_that_left_them() {
    let mut machine = Machine::new();
    machine.process(10, "python3", 'S', 1, 5);
    for pid in 100..105 {
        machine.process(pid, "sh", 'Z', 10, 0);
    }
    assert_eq!(machine.line(1, 1), "zombies OK 5 zombies, left by python3 (10)");
    machine.process(105, "sh", 'Z', 1, 0);
    let found = machine.run(2);
    assert_eq!(lines(&found)[1], "zombies WARNING 6 zombies, 5 of them left by python3 (10)");
    assert_eq!(found.list[1].lasting, Some(SUSTAINED), "a busy host may have some for a moment");
    assert!(found.list[1].result.detail.starts_with("sh (100), parent python3 (10)\n"));
    for pid in 200..240 {
        machine.process(pid, "sh", 'Z', 999, 0);
    }
    let found = machine.run(3);
    assert_eq!(lines(&found)[1], "zombies CRITICAL 46 zombies, 40 of them left by ? (999)");
    assert!(found.list[1].result.detail.ends_with("\nand 26 more"));
}

#[test]
fn a_process_that_hangs_for_five_minutes_alerts_with_its_name_and_place() {
    let mut machine = Machine::new();
    machine.process(10, "rsync", 'D', 1, 5);
    machine.write("proc/10/wchan", "nfs_wait_bit_killable");
    for minute in 1..=5 {
        assert_eq!(machine.line(minute, 2), "blocked OK no process hangs in the kernel", "{minute}");
    }
    let found = machine.run(6);
    assert_eq!(
        lines(&found)[2],
        "blocked WARNING hangs in the kernel: rsync (10) for 5 min in nfs_wait_bit_killable"
    );
    assert_eq!(found.list[2].lasting, Some(Duration::ZERO));
    assert_eq!(found.list[2].result.perfdata_text(), "blocked=1;0;9;0 uninterruptible=1;;;0");
    for pid in 20..30 {
        machine.process(pid, "ls", 'D', 1, 0);
    }
    machine.run(7);
    assert_eq!(
        machine.line(12, 2),
        "blocked CRITICAL hang in the kernel: rsync (10) for 11 min in nfs_wait_bit_killable, and 10 more"
    );
}

#[test]
fn a_backup_that_gets_on_a_driver_and_a_paused_container_do_not_hang() {
    let mut machine = Machine::new();
    for minute in 1..=20 {
        machine.process(10, "tar", 'D', 1, minute);
        machine.process(11, "vchiq-slot/0", 'D', 2, 0);
        machine.process(12, "nginx", 'D', 1, 0);
        machine.write("proc/12/cgroup", "8:freezer:/docker/abc\n1:name=systemd:/docker/abc\n");
        machine.write("sys/fs/cgroup/freezer/docker/abc/freezer.state", "FROZEN\n");
        assert_eq!(machine.line(minute, 2), "blocked OK no process hangs in the kernel", "{minute}");
    }
    machine.process(12, "nginx", 'S', 1, 0);
    machine.write("sys/fs/cgroup/freezer/docker/abc/freezer.state", "THAWED\n");
    assert_eq!(machine.line(21, 2), "blocked OK no process hangs in the kernel");
}

#[test]
fn with_hidepid_zombies_and_hangs_are_not_watched() {
    let mut machine = Machine::new();
    fs::remove_dir_all(machine.tree.path().join("proc/1")).unwrap();
    let found = machine.run(1);
    assert_eq!(found.list.len(), 1);
    let blind: Vec<_> = found.blind.iter().map(|blind| blind.thing.as_str()).collect();
    assert_eq!(blind, ["zombies", "blocked"]);
}

#[test]
fn processes_that_cannot_be_read_are_unknown() {
    let found = findings("procs", &[], &fixture("empty"), &mut Past::default(), Duration::ZERO);
    assert_eq!(found.list[0].result.state, State::Unknown);
}

#[test]
fn this_host_has_processes() {
    let found = findings("procs", &[], &Host::live(), &mut Past::default(), Duration::from_hours(1));
    assert_eq!(found.list.len(), 3, "{found:?}");
    assert!(found.list.iter().all(|finding| finding.result.state != State::Unknown), "{found:?}");
}
