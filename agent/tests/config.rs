//! What a person reads who wrote a config wrongly: everything at once, in order, each with its place and a way out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;

use common::{dogwatch, stderr};

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
fn every_problem_of_a_file_is_said_at_once() {
    let said = problems(&[("agent.toml", BROKEN)]);
    let expected = "\
agent.toml:2:1: unknown field `hots`, expected one of `host`, `labels`, `state_dir`, `socket`, `metrics`, \
`machine_id_file`, `boot_grace`, `max_concurrent`, `spool_bytes_max`, `auto_checks`; did you mean `host`?
agent.toml:3:11: \"9847\" is not an address and port; write \"127.0.0.1:9847\" or \"off\"
agent.toml:4:12: \"my-env\" is not a label name; use letters, digits and _
agent.toml:4:31: the label service is set by alertd; take another name
agent.toml:7:11: should name at least one socket of an alertd
agent.toml:8:13: \"30\" is not a duration; write a number and a unit, like \"30s\", \"5m\", \"2h\" or \"1d\"
agent.toml:11:18: retry_interval 5m must not be longer than interval 1m
agent.toml:14:1: check \"disk\": unknown key `intervall`; did you mean `interval`?
agent.toml:18:18: check \"load\": retry_interval 1m must not be longer than interval 30s
agent.toml:19:16: check \"load\": max_attempts should be a whole number of 1 to 255
";
    assert!(said.starts_with(expected), "{said}");
    let rest = &said[expected.len()..];
    for line in [
        "agent.toml:20:8: check \"load\": warn: ",
        "agent.toml:23:8: check \"root\": unknown kind `dsik`; did you mean `disk`?\n",
        "agent.toml:27:11: check \"web\": command should be an array of texts: no shell will split it\n",
        "agent.toml:29:8: check \"mail\": command is missing; write an array like [\"check_ping\", \"-H\", \"db1\"]\n",
        "agent.toml:34:1: check \"backup\": unknown key `freshnes`; did you mean `freshness`?\n",
        "agent.toml:35:12: check \"backup\": flapping: stop 30 and start 10 should be percentages with 0 < stop <= start <= 100\n",
        "agent.toml:37:8: check \"cache\": kind is missing; it is one of load, ",
    ] {
        assert!(rest.contains(line), "{line}\nis not in\n{rest}");
    }
    assert_eq!(rest.lines().count(), 7, "{rest}");
}

#[test]
fn a_check_may_be_written_once_and_both_files_are_named() {
    let said = problems(&[
        ("agent.toml", "[check.disk]\n"),
        ("agent.d/50-mine.toml", "\n[check.disk]\nwarn = \"10%\"\n"),
    ]);
    assert_eq!(said, "agent.d/50-mine.toml:2:8: check \"disk\" is in agent.toml already; names are unique\n");
}

#[test]
fn the_packaged_examples_are_valid_as_shipped_and_uncommented() {
    let agent = include_str!("../../packaging/etc/agent.toml");
    let dns = include_str!("../../packaging/etc/dns.toml");
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(code) if code.starts_with('[') || code.split(' ').nth(1) == Some("=") => code.to_owned(),
        _ => line.to_owned(),
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shipped.toml");
    for (text, command, missing_files) in
        [(agent, ["config", "check"], &[][..]), (dns, ["dns", "--check"], &["ca_file", "hosts_file"])]
    {
        let check = |text: &str| {
            fs::write(&file, text).unwrap();
            stderr(&dogwatch([command[0], command[1], "--config", file.to_str().unwrap()]))
        };
        assert_eq!(check(text), "");
        let uncommented = text.lines().map(uncomment).collect::<Vec<_>>().join("\n");
        let problems = check(&uncommented);
        let problems: Vec<_> = problems.lines().collect();
        assert_eq!(problems.len(), missing_files.len(), "{problems:#?}");
        for (problem, file) in problems.iter().zip(missing_files) {
            assert!(problem.contains(&format!(": {file} /etc/dogwatch/")), "{problem}");
        }
    }
}

#[test]
fn an_alertd_elsewhere_is_named_whole_and_nothing_is_sent_to_it_in_the_clear() {
    let said = |alertd: &str| problems(&[("agent.toml", &format!("[alertd]\n{alertd}\n"))]);
    for (alertd, words) in [
        ("url = \"https://mon1\"", "agent.toml:2:7: needs a token_file: on alertd's host"),
        ("token_file = \"/t\"", "agent.toml:2:14: belongs to an alertd on another host; give its url"),
        (
            "url = \"http://mon1\"\ntoken_file = \"/t\"",
            "agent.toml:2:7: a token must not travel in the clear",
        ),
        (
            "sockets = [\"/s\"]\nurl = \"https://mon1\"\ntoken_file = \"/t\"",
            "agent.toml:2:11: reports go to sockets of this host or to a url, not to both",
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
    let output = dogwatch(["list", "--json", "--config", main.to_str().unwrap()]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list[0]["labels"], serde_json::json!({"env": "prod", "team": "b", "role": "web"}));
    assert_eq!(list[0]["annotations"]["runbook"], "https://example.org/load");
    assert_eq!(list[0]["interval_s"], 120.0);
    assert_eq!(list[0]["retry_interval_s"], 15.0);
}

#[test]
fn without_any_check_the_host_is_watched_and_with_one_only_if_asked_for() {
    let names = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("agent.toml");
        fs::write(&main, format!("[dns]\ncontrol = \"{}\"\n{text}", main.display())).unwrap();
        let output = dogwatch(["list", "--json", "--config", main.to_str().unwrap()]);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let names =
            list.as_array().unwrap().iter().map(|check| check["service"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let auto = names("");
    for expected in ["load", "memory", "disk", "dns-upstream", "dns-stale", "dns-guard"] {
        assert!(auto.iter().any(|name| name == expected), "{expected} is not in {auto:?}");
    }
    assert_eq!(names("[check.mine]\nkind = \"passive\"\n"), ["mine"]);
    assert_eq!(
        names("[check.mine]\nkind = \"passive\"\n[agent]\nauto_checks = true\n").len(),
        auto.len() + 1
    );
}

/// What `config check` says about these files, paths relative to them.
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
