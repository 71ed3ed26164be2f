use std::fs;

use super::*;
use crate::{
    kind,
    testing::{findings, lines},
};

/// A host with some processes. They start a minute after boot.
struct Machine {
    tree: tempfile::TempDir,
    host: Host,
    past: Past,
}

const PAGE: u64 = 4_096;

impl Machine {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        let machine = Self { tree, host, past: Past::default() };
        machine.write("etc/passwd", "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/false\n");
        machine.process(1, "systemd", 'S', "/sbin/init", 0);
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn process(&self, pid: u32, name: &str, state: char, arguments: &str, ticks: u64) {
        let stat = format!(
            "{pid} ({name}) {state} 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 6000 0 {} 0\n",
            (10 << 20) / PAGE
        );
        self.write(&format!("proc/{pid}/stat"), &stat);
        self.write(&format!("proc/{pid}/cmdline"), &arguments.replace(' ', "\0"));
        self.write(&format!("proc/{pid}/limits"), "Max open files            10         20        files\n");
        self.files(pid, 3);
        self.user(pid, 0);
    }

    fn files(&self, pid: u32, count: u32) {
        (0..count).for_each(|fd| self.write(&format!("proc/{pid}/fd/{fd}"), ""));
    }

    fn user(&self, pid: u32, uid: u32) {
        self.write(&format!("proc/{pid}/status"), &format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"));
    }

    fn ends(&self, pid: u32) {
        fs::remove_dir_all(self.tree.path().join(format!("proc/{pid}"))).unwrap();
    }

    fn run(&mut self, minute: u64, options: &[(&str, &str)]) -> Findings {
        findings("process", options, &self.host, &mut self.past, Duration::from_mins(minute))
    }

    fn line(&mut self, options: &[(&str, &str)]) -> String {
        lines(&self.run(61, options)).join("; ")
    }
}

#[test]
fn a_process_that_does_not_run_is_critical() {
    let mut machine = Machine::new();
    assert_eq!(machine.line(&[("name", "nginx")]), "- CRITICAL nginx: not running");
    machine.process(10, "nginx", 'Z', "", 0);
    assert_eq!(machine.line(&[("name", "nginx")]), "- CRITICAL nginx: not running", "only a zombie");
    machine.process(10, "nginx", 'S', "nginx: master process /usr/sbin/nginx", 0);
    assert_eq!(machine.line(&[("name", "nginx")]), "- OK nginx: 1 process, 10.0 MiB of memory");
    machine.ends(10);
    let two = [("name", "nginx"), ("name", "systemd")];
    assert_eq!(
        machine.line(&two),
        "nginx CRITICAL not running; systemd OK 1 process, 10.0 MiB of memory",
        "a service for each"
    );
}

#[test]
fn the_number_of_processes_can_be_limited() {
    let mut machine = Machine::new();
    (10..13).for_each(|pid| machine.process(pid, "worker", 'S', "worker", 0));
    let mut state = |count| machine.run(61, &[("name", "worker"), ("count", count)]).list[0].result.clone();
    assert_eq!(state("2:4").state, State::Ok);
    let result = state("1:2");
    assert_eq!(result.state, State::Critical);
    assert_eq!(result.summary, "worker: 3 processes (expected 1:2), 30.0 MiB of memory");
    assert_eq!(machine.run(61, &[("name", "xmrig"), ("count", "0")]).list[0].result.state, State::Ok);
}

#[test]
fn names_longer_than_the_kernel_keeps_are_found() {
    let mut machine = Machine::new();
    machine.process(10, "wazuh-logcollec", 'S', "/var/ossec/bin/wazuh-logcollector", 0);
    machine.process(11, "f2b/server", 'S', "/usr/bin/python3 /usr/bin/fail2ban-server -xf start", 0);
    for name in ["wazuh-logcollector", "wazuh-*", "f2b/server", "init"] {
        assert!(machine.line(&[("name", name)]).starts_with("- OK"), "{name}");
    }
    assert_eq!(
        machine.line(&[("name", "wazuh-logcollectors")]),
        "- CRITICAL wazuh-logcollectors: not running"
    );
    assert_eq!(
        machine.line(&[("cmdline", "*fail2ban-server *")]),
        "- OK *fail2ban-server *: 1 process, 10.0 MiB of memory"
    );
}

#[test]
fn processes_of_a_user_are_found() {
    let mut machine = Machine::new();
    for pid in 10..13 {
        machine.process(pid, "nginx", 'S', "nginx: worker", 0);
        machine.user(pid, if pid == 10 { 0 } else { 33 });
    }
    assert_eq!(
        machine.line(&[("user", "www-data")]),
        "- OK processes of www-data: 2 processes, 20.0 MiB of memory"
    );
    assert_eq!(
        machine.line(&[("name", "nginx"), ("user", "0")]),
        "- OK nginx: 1 process, 10.0 MiB of memory"
    );
    assert_eq!(
        machine.line(&[("user", "nobody")]),
        "- UNKNOWN user nobody is not in /etc/passwd; use the number of the user"
    );
}

#[test]
fn memory_processor_time_and_open_files_are_judged() {
    let mut machine = Machine::new();
    let options = [("name", "java"), ("warn_rss", "15MiB"), ("crit_rss", "1GiB"), ("warn_cpu", "150")];
    machine.process(10, "java", 'S', "java", 1_000);
    machine.run(61, &options);
    machine.process(10, "java", 'S', "java", 1_000 + 200 * 60);
    machine.process(11, "java", 'S', "java", 0);
    let found = machine.run(62, &options);
    assert_eq!(
        lines(&found),
        [
            "- WARNING java: 2 processes, 20.0 MiB of memory (limit 15.0 MiB), 200% of a processor (limit 150%)"
        ]
    );
    assert_eq!(
        found.list[0].result.perfdata_text(),
        "processes=2;;1:;0 memory=20971520B;15728640;1073741824;0 cpu=200%;150;;0 open_files=30%;80;95;0 uptime=3660s;;;0"
    );
    assert_eq!(found.list[0].lasting, None);
    machine.ends(11);
    machine.process(10, "java", 'S', "java", 1_000 + 2 * 200 * 60);
    let found = machine.run(63, &options);
    assert_eq!((found.list[0].result.state, found.list[0].lasting), (State::Warning, Some(BUSY)));
    machine.files(10, 9);
    assert_eq!(
        machine.run(64, &[("name", "java")]).list[0].result.summary,
        "java: 1 process, 10.0 MiB of memory, 0% of a processor, process 10 has 9 of 10 files open"
    );
}

#[test]
fn a_restart_can_be_noticed() {
    let mut machine = Machine::new();
    let options = [("name", "systemd"), ("min_uptime", "5m")];
    assert_eq!(
        lines(&machine.run(3, &options)),
        ["- WARNING systemd: 1 process, 10.0 MiB of memory, started 120 s ago"]
    );
    assert_eq!(machine.run(8, &options).list[0].result.state, State::Ok);
}

#[test]
fn files_that_cannot_be_counted_are_named() {
    let mut machine = Machine::new();
    fs::remove_dir_all(machine.tree.path().join("proc/1/fd")).unwrap();
    let found = machine.run(61, &[("name", "systemd")]);
    assert_eq!(found.blind[0].thing, "open files of systemd");
}

#[test]
fn what_to_look_for_is_required() {
    let errors = kind("process").unwrap().build(&[("count", "3")].into_iter().collect(), &Host::live());
    assert_eq!(errors.unwrap_err()[0].to_string(), "name: is required, unless cmdline or user is given");
}
