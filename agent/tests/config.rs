//! Error messages for an invalid config: all at once, in order, each with its position and a
//! solution; and which checks a config leads to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{AgentDir, dogwatch, stderr, stdout};

const BROKEN: &str = r#"[agent]
hots = "web1"
metrics = "9847"
labels = { "my-env" = "prod", service = "x" }

[alertd]
sockets = []
heartbeat = "30"

[defaults]
retry_interval = "5m"

[check.disk]
intervall = "5m"

[check.load]
interval = "30s"
retry_interval = "1m"
max_attempts = 0
warn = "4:2"

[check.root]
kind = "dsik"

[check.web]
kind = "plugin"
command = "check_http -H localhost"

[check.mail]
kind = "plugin"

[check.backup]
kind = "passive"
freshnes = "25h"
flapping = { start = 10, stop = 30 }

[check.cache]
"#;

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let said = problems(&[("agent.toml", BROKEN)]);
    let expected = "\
agent.toml:2:1: unknown field `hots`, expected one of `host`, `labels`, `state_dir`, `socket`, `metrics`, \
`machine_id_file`, `boot_grace`, `max_concurrent`, `spool_bytes_max`, `auto_checks`, `history`; did you mean `host`?
agent.toml:3:11: metrics: \"9847\" is not an address and port; write \"127.0.0.1:9847\" or \"off\"
agent.toml:4:12: labels: \"my-env\" is not a label name; use letters, digits and _
agent.toml:4:31: dogwatch sets the label service itself; use another name
agent.toml:7:11: sockets: must name the socket of at least one alertd
agent.toml:8:13: heartbeat: \"30\" is not a duration; write a number and a unit, like \"30s\", \"5m\", \"2h\" or \"1d\"
agent.toml:11:18: retry_interval 5m must not be longer than interval 1m
agent.toml:14:1: check \"disk\": unknown key `intervall`; did you mean `interval`?
agent.toml:18:18: check \"load\": retry_interval 1m must not be longer than interval 30s
agent.toml:19:16: check \"load\": max_attempts must be a whole number from 1 to 255
";
    assert!(said.starts_with(expected), "{said}");
    let rest = &said[expected.len()..];
    for line in [
        "agent.toml:20:8: check \"load\": warn: ",
        "agent.toml:23:8: check \"root\": unknown kind `dsik`; did you mean `disk`?\n",
        "agent.toml:27:11: check \"web\": command must be an array of strings, because no shell splits it\n",
        "agent.toml:29:8: check \"mail\": command is missing; write an array like [\"check_ping\", \"-H\", \"db1\"]\n",
        "agent.toml:34:1: check \"backup\": unknown key `freshnes`; did you mean `freshness`?\n",
        "agent.toml:35:12: check \"backup\": flapping: stop 30 and start 10 must be percentages with 0 < stop <= start <= 100\n",
        "agent.toml:37:8: check \"cache\": kind is missing; use one of bond, ",
    ] {
        assert!(rest.contains(line), "{line}\nis not in\n{rest}");
    }
    assert_eq!(rest.lines().count(), 7, "{rest}");
}

#[test]
fn a_check_that_is_defined_twice_is_an_error_with_both_files() {
    let said = problems(&[
        ("agent.toml", "[check.disk]\n"),
        ("agent.d/50-mine.toml", "\n[check.disk]\nwarn = \"10%\"\n"),
    ]);
    assert_eq!(
        said,
        "agent.d/50-mine.toml:2:8: check \"disk\" is already defined in agent.toml; put all tables of a check into one file\n"
    );
}

#[test]
fn a_remote_alertd_needs_a_token_and_tls() {
    let said = |alertd: &str| problems(&[("agent.toml", &format!("[alertd]\n{alertd}\n"))]);
    for (alertd, words) in [
        ("url = \"https://mon1\"", "agent.toml:2:7: url: needs a token_file; run on alertd's host"),
        ("token_file = \"/t\"", "agent.toml:2:14: token_file: is for an alertd on another host; add its url"),
        (
            "url = \"http://mon1\"\ntoken_file = \"/t\"",
            "agent.toml:2:7: a token must not travel in the clear",
        ),
        (
            "sockets = [\"/s\"]\nurl = \"https://mon1\"\ntoken_file = \"/t\"",
            "agent.toml:2:11: use either sockets or a url, not both",
        ),
    ] {
        let said = said(alertd);
        assert!(said.starts_with(words), "{alertd}: {said}");
    }
}

#[test]
fn a_later_file_wins_and_labels_add_up() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("agent.d")).unwrap();
    let main = dir.path().join("agent.toml");
    fs::write(&main, "[agent]\nlabels = { env = \"prod\", team = \"a\" }\n[defaults]\ninterval = \"5m\"\n")
        .unwrap();
    let drop_in = "[agent]\nlabels = { team = \"b\" }\n[defaults]\ninterval = \"2m\"\n\
                   [check.load]\nlabels = { role = \"web\" }\nrunbook = \"https://example.org/load\"\n";
    fs::write(dir.path().join("agent.d/10.toml"), drop_in).unwrap();
    let checks = list(&main);
    let load = checks.iter().find(|check| check["service"] == "load").unwrap();
    assert_eq!(load["labels"], serde_json::json!({"env": "prod", "team": "b", "role": "web"}));
    assert_eq!(load["annotations"]["runbook"], "https://example.org/load");
    assert_eq!(load["interval_s"], 120.0);
    assert_eq!(load["retry_interval_s"], 15.0);
    let memory = checks.iter().find(|check| check["service"] == "memory").unwrap();
    assert_eq!(memory["labels"], serde_json::json!({"env": "prod", "team": "b"}), "a built-in check");
}

const BUILT_IN: [&str; 6] = ["load", "memory", "disk", "dns-upstream", "dns-stale", "dns-guard"];

#[test]
fn the_example_of_the_readme_adds_a_check_and_removes_none() {
    let built_in = names(&Files::new(&[]));
    for expected in BUILT_IN {
        assert!(built_in.contains(&expected.to_owned()), "{expected} is not in {built_in:?}");
    }
    let readme = include_str!("../../README.md");
    let (_, command) = readme.split_once("command = [").expect("the README shows a plugin");
    let (command, _) = command.split_once(']').unwrap();
    let drop_in = format!("[check.ntp]\nkind = \"plugin\"\ncommand = [{command}]\n");
    let files = Files::new(&[("agent.d/ntp.toml", &drop_in)]);
    assert_eq!(names(&files), with(&built_in, &["ntp"]));
    assert_eq!(
        files.check(),
        format!("{} checks: {} built in, 1 from files", built_in.len() + 1, built_in.len())
    );
}

#[test]
fn no_check_in_any_file_switches_the_built_in_ones_off() {
    let built_in = names(&Files::new(&[]));
    let passive = "[check.backup]\nkind = \"passive\"\n";
    let plugin = "[check.web]\nkind = \"plugin\"\ncommand = [\"true\"]\n";
    for (files, added) in [
        (&[("agent.toml", passive)][..], &["backup"][..]),
        (&[("agent.d/backup.toml", passive)], &["backup"]),
        (&[("agent.toml", plugin), ("agent.d/backup.toml", passive)], &["backup", "web"]),
        (&[("agent.d/10.toml", plugin), ("agent.d/20.toml", passive)], &["backup", "web"]),
        (&[("agent.toml", "[agent]\nauto_checks = true\n"), ("agent.d/10.toml", plugin)], &["web"]),
        (&[("agent.d/10.toml", "[check.root]\nkind = \"disk\"\npath = \"/\"\n")], &["root"]),
    ] {
        let files = Files::new(files);
        assert_eq!(names(&files), with(&built_in, added));
        let (all, built_in, from_files) = (built_in.len() + added.len(), built_in.len(), added.len());
        assert_eq!(files.check(), format!("{all} checks: {built_in} built in, {from_files} from files"));
    }
}

#[test]
fn a_check_with_a_built_in_name_changes_that_check_and_keeps_its_other_settings() {
    let built_in = names(&Files::new(&[]));
    let before = list(&Files::new(&[]).main());
    for name in BUILT_IN {
        let files = Files::new(&[("agent.d/mine.toml", &format!("[check.{name}]\nmax_attempts = 7\n"))]);
        assert_eq!(names(&files), built_in);
        let count = built_in.len();
        assert_eq!(
            files.check(),
            format!("{count} checks: {count} built in (1 changed in files), 0 from files")
        );
        let after = list(&files.main());
        for (before, after) in before.iter().zip(&after) {
            if after["service"] != name {
                assert_eq!(before, after);
                continue;
            }
            assert_eq!(after["max_attempts"], 7);
            for key in ["kind", "interval_s", "retry_interval_s", "timeout_s", "labels", "annotations"] {
                assert_eq!(before[key], after[key], "{key} of {name}");
            }
            assert!(after["origin"].as_str().unwrap().ends_with("mine.toml:1"), "{after}");
        }
    }
    let plugin = "[check.disk]\nkind = \"plugin\"\ncommand = [\"check_disk\"]\n";
    let files = Files::new(&[("agent.d/mine.toml", plugin)]);
    assert_eq!(names(&files), built_in, "another kind takes the place of the built-in check");
    let count = built_in.len();
    assert_eq!(files.check(), format!("{count} checks: {} built in, 1 from files", count - 1));
    assert_eq!(
        files.warnings(),
        "warning: agent.toml: [check.disk] at agent.d/mine.toml:1 has kind \"plugin\" and replaces the built-in \
         check of that name; use another name to keep both\n"
    );
}

#[test]
fn a_built_in_check_that_this_host_has_nothing_for_is_blind_and_not_unknown() {
    let tuned = "[check.zfs]\nmax_attempts = 7\n[check.dns-stale]\nmax_attempts = 7\n";
    let own = "[check.pools]\nkind = \"zfs\"\n";
    for auto_checks in [true, false] {
        let files = Files::new(&[]);
        let control = format!("[dns]\ncontrol = \"/nope\"\n[agent]\nauto_checks = {auto_checks}\n");
        fs::write(files.0.path().join("agent.d/00-dns.toml"), control).unwrap();
        let before = names(&files);
        fs::write(files.0.path().join("agent.d/mine.toml"), format!("{tuned}{own}")).unwrap();
        assert_eq!(names(&files), with(&before, &["pools"]));
        let main = files.main();
        let blind = dogwatch(["list", "--blind", "--config", main.to_str().unwrap()]);
        let blind = stdout(&blind).split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in [
            "zfs all this host has no ZFS pools of its own (settings at ",
            "dns-stale all the DNS cache is not enabled on this host (/nope does not exist) (settings at ",
        ] {
            assert!(blind.contains(expected), "{expected} is not in {blind}");
        }
    }
}

#[test]
fn settings_for_things_that_cannot_exist_are_an_error() {
    let said = |text: &str| {
        let said = problems(&[("agent.toml", text)]);
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    for (text, expected) in [
        (
            "[check.disk.\"data\"]\n",
            "agent.toml:1:13: check \"disk\": nothing that disk finds is called \"data\"; write [check.disk.\"/data\"]\n",
        ),
        (
            "[check.disk.\"/data/\"]\n",
            "agent.toml:1:13: check \"disk\": nothing that disk finds is called \"/data/\"; write [check.disk.\"/data\"]\n",
        ),
        (
            "[check.unit.nginx]\n",
            "agent.toml:1:13: check \"unit\": nothing that unit finds is called \"nginx\"; write [check.unit.\"nginx.service\"]\n",
        ),
        (
            "[check.diskio.\"/dev/sda\"]\n",
            "agent.toml:1:15: check \"diskio\": nothing that diskio finds is called \"/dev/sda\"; write [check.diskio.\"sda\"]\n",
        ),
        (
            "[check.nic.\"\"]\n",
            "agent.toml:1:12: check \"nic\": [check.nic.\"\"] names nothing; write for example \"*\"\n",
        ),
        (
            "[check.diskio]\ncrit = \"1s\"\n[check.diskio.sda]\nwarn = \"2s\"\n",
            "agent.toml:4:8: check \"diskio\": warn: the warning limit 2s must not be above the critical limit 1s\n",
        ),
        (
            "[check.nic.eth0]\nwarn_errors = \"9\"\ncrit_errors = \"8\"\n",
            "agent.toml:3:15: check \"nic\": crit_errors: ",
        ),
        (
            "[check.cpu.busy]\nwarn = \"90\"\n",
            "agent.toml:2:8: check \"cpu\": warn: is for the whole check; write it in the table of the check\n",
        ),
        (
            "[check.disk.\"/a\"]\nexclude = \"/b\"\n",
            "agent.toml:2:11: check \"disk\": exclude: is for the whole check",
        ),
        (
            "[check.t]\nkind = \"tcp\"\nhost = \"h\"\nport = 80\nwarn = 5\n",
            "agent.toml:5:8: check \"t\": warn: \"5\" is not a duration; write a number and a unit",
        ),
        (
            "[check.t]\nkind = \"tcp\"\nhost = \"h\"\nport = \"http\"\n",
            "agent.toml:4:8: check \"t\": port: \"http\" is not a whole number from 1 to 65535\n",
        ),
        ("[check.disk]\npath = []\n", "agent.toml:2:8: check \"disk\": path: must have at least one item"),
        ("[check.kmsg]\nexclude = [\"\"]\n", "agent.toml:2:11: check \"kmsg\": exclude: must not be empty\n"),
        (
            "[check.load]\nhandler = { command = [\"true\"], cooldown = \"0s\" }\n",
            "agent.toml:2:44: check \"load\": handler.cooldown must be 1s to 7d\n",
        ),
        (
            "[check.load]\nhandler = { command = [\"true\"], on = [] }\n",
            "agent.toml:2:38: check \"load\": handler.on must have at least one state",
        ),
        (
            "[check.load]\nhandler = { command = [] }\n",
            "agent.toml:2:23: check \"load\": handler.command is empty; write an array like [\"systemctl\"",
        ),
    ] {
        assert!(said(text).starts_with(expected), "{text}: {}", said(text));
    }
}

#[test]
fn only_auto_checks_false_switches_the_built_in_checks_off() {
    let off = "[agent]\nauto_checks = false\n";
    let one = "[check.disk]\n[check.backup]\nkind = \"passive\"\n";
    let files = Files::new(&[("agent.toml", off), ("agent.d/one.toml", one)]);
    assert_eq!(names(&files), ["backup", "disk"]);
    assert_eq!(files.check(), "2 checks: 0 built in (auto_checks = false), 2 from files");
    assert_eq!(files.warnings(), "");

    let files = Files::new(&[("agent.d/off.toml", off)]);
    assert_eq!(names(&files), Vec::<String>::new());
    assert_eq!(files.check(), "0 checks: 0 built in (auto_checks = false), 0 from files");
    assert_eq!(
        files.warnings(),
        "warning: agent.toml: this host is not monitored: auto_checks is false and no [check.NAME] is configured\n"
    );
}

/// Config files in a temporary directory, on a host with the DNS cache.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        fs::create_dir(made.0.path().join("agent.d")).unwrap();
        fs::write(made.main(), "").unwrap();
        for (name, text) in files {
            fs::write(made.0.path().join(name), text).unwrap();
        }
        let control = format!("[dns]\ncontrol = \"{}\"\n", made.main().display());
        fs::write(made.0.path().join("agent.d/00-dns.toml"), control).unwrap();
        made
    }

    fn main(&self) -> PathBuf {
        self.0.path().join("agent.toml")
    }

    /// The output of `config check` for these valid files, without their path.
    fn check(&self) -> String {
        let output = dogwatch(["config", "check", "--config", self.main().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let valid = format!("{}: valid, ", self.main().display());
        stdout(&output).trim_end().strip_prefix(&valid).unwrap().to_owned()
    }

    fn warnings(&self) -> String {
        let output = dogwatch(["config", "check", "--config", self.main().to_str().unwrap()]);
        stderr(&output).replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// The JSON of `list`.
fn list(config: &Path) -> Vec<serde_json::Value> {
    let output = dogwatch(["list", "--json", "--config", config.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(files: &Files) -> Vec<String> {
    list(&files.main()).iter().map(|check| check["service"].as_str().unwrap().to_owned()).collect()
}

/// In the order of `list`.
fn with(names: &[String], added: &[&str]) -> Vec<String> {
    let mut all: Vec<_> = names.iter().cloned().chain(added.iter().map(|&name| name.to_owned())).collect();
    all.sort();
    all
}

/// The errors of `config check` for these files, with relative paths.
fn problems(files: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("agent.d")).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let config = dir.path().join("agent.toml");
    let output = dogwatch(["config", "check", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    stderr(&output).replace(&format!("{}/", dir.path().display()), "")
}

/// A breaker's find: opening a FIFO waited for a writer, with the whole agent.
#[test]
fn a_drop_in_that_is_no_file_is_an_error_and_nobody_waits_for_it() {
    let agent_dir = AgentDir::new("");
    let drop_ins = agent_dir.path("agent.d");
    fs::create_dir_all(&drop_ins).unwrap();
    let fifo = drop_ins.join("10.toml");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let config = agent_dir.config();
    let output = dogwatch(["config", "check", "--config", config.to_str().unwrap()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("10.toml: cannot be read: it is not a regular file"), "{said}");
}
