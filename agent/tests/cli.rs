//! Exit codes and texts of the command line. Also makes cargo build the binary for the whole-system
//! tests.

mod common;

use common::{AgentDir, Alertd, dogwatch, stderr, stdout, wait_for};
use dogwatch_wire::State;

#[test]
fn a_one_shot_check_is_a_nagios_plugin() {
    for (words, code, begins) in [
        ("check load --warn 100000 --crit 100000", 0, "LOAD OK - "),
        ("check load --warn 100000 --crit @0:100000", 2, "LOAD CRITICAL - "),
        ("check load --warn @0:100000 --crit 100000", 1, "LOAD WARNING - "),
        ("check load --wran 1", 3, "UNKNOWN - unknown option --wran; did you mean `warn`?"),
        ("check load --colour 1", 3, "UNKNOWN - unknown option --colour; use one of "),
        ("check laod", 3, "UNKNOWN - unknown kind of check `laod`; did you mean `load`?"),
        ("check load --warn many", 3, "UNKNOWN - --warn"),
    ] {
        let output = dogwatch(words.split(' '));
        assert_eq!(output.status.code(), Some(code), "{words}: {}", stdout(&output));
        assert!(stdout(&output).starts_with(begins), "{words}: {}", stdout(&output));
    }
    let json = dogwatch("check load --warn 100000 --crit 100000 --json".split(' '));
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["state"], "OK");
    assert!(value["perfdata"].as_str().unwrap().contains("load1="));
}

#[test]
fn config_check_reports_all_problems_and_exits_with_1() {
    let agent_dir =
        AgentDir::new("[check.a]\nkind = \"laod\"\n[check.b]\nkind = \"load\"\nintervall = \"5m\"\n");
    let config = agent_dir.config();
    let output = dogwatch(["config", "check", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("did you mean `load`?") && said.contains("did you mean `interval`?"), "{said}");
    agent_dir.write_config("[check.load]\n");
    let output = dogwatch(["config", "check", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.ends_with(": valid, 1 check: 0 built in (auto_checks = false), 1 from files\n"), "{said}");
    let list = stdout(&dogwatch(["list", "--config", config.to_str().unwrap()]));
    assert!(list.contains("load     load      1m        15s       3"), "{list}");
}

#[test]
fn a_config_that_was_named_must_exist() {
    for words in [
        &["run"][..],
        &["status"],
        &["list"],
        &["list", "--blind"],
        &["discover"],
        &["submit", "backup", "OK", "done"],
        &["job", "--forget", "backup"],
        &["graph"],
        &["replay", "load", "--warn", "1"],
        &["config", "check"],
        &["dns"],
        &["dns", "status"],
        &["dns", "why", "example.org"],
    ] {
        let output = dogwatch(words.iter().copied().chain(["--config", "/nope/agent.toml"]));
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let said = [stderr(&output), stdout(&output)].concat();
        assert!(said.contains("/nope/agent.toml"), "{words:?}: {said}");
        assert!(said.contains("does not exist; only the default, /etc/dogwatch/"), "{words:?}: {said}");
    }
    // A job runs in any case.
    let job = ["job", "backup", "--config", "/nope/agent.toml", "--", "sh", "-c", "echo ran; exit 7"];
    let output = dogwatch(job);
    assert_eq!((output.status.code(), &*stdout(&output)), (Some(7), "ran\n"));
    assert!(stderr(&output).contains("/nope/agent.toml does not exist"), "{}", stderr(&output));
}

#[test]
fn the_agent_does_not_start_with_an_invalid_config_and_logs_all_problems() {
    let agent_dir = AgentDir::new("[check.a]\nkind = \"laod\"\n");
    let mut agent = agent_dir.start();
    assert_eq!(wait_for("the agent to end", || agent.ended()), 1);
    assert!(agent_dir.log().contains("unknown kind `laod`; did you mean `load`?"), "{}", agent_dir.log());
}

#[test]
fn status_and_submit_fail_without_an_agent() {
    let agent_dir = AgentDir::new("");
    for words in [&["status"][..], &["submit", "backup", "OK", "done"]] {
        let output = agent_dir.ask(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with("dogwatch: cannot reach "), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn a_submitted_result_is_valid_for_its_ttl_and_then_the_service_is_unknown() {
    let agent_dir = AgentDir::new("[check.backup]\nkind = \"passive\"\n[check.load]\ninterval = \"1h\"\n");
    let alertd = Alertd::new();
    let _serving = alertd.serve(&agent_dir.path("alertd.sock"));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();

    let submit = |words: &[&str]| agent_dir.ask(&[&["submit"], words].concat());
    assert!(submit(&["backup", "CRITICAL", "no tape | size=0B"]).status.success());
    assert!(submit(&["backup", "0", "all tapes written", "--ttl", "1s"]).status.success());
    let told = alertd.states_of("backup", 3).await;
    assert_eq!(told, [State::Critical, State::Ok, State::Unknown]);
    let status = stdout(&agent_dir.ask(&["status"]));
    assert!(status.contains("stale: the last result is from "), "{status}");

    for (words, says) in [
        (&["bakcup", "OK", "x"][..], "no check \"bakcup\""),
        (&["load", "OK", "x"], "only passive checks accept results"),
        (&["backup", "FINE", "x"], "is not a state"),
    ] {
        let output = submit(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    let long = "x".repeat(100_000);
    assert_eq!(submit(&["backup", "OK", &long]).status.code(), Some(1), "a body above the limit");
}

#[test]
fn status_as_json_has_every_service() {
    let agent_dir = AgentDir::new("[check.load]\ninterval = \"100ms\"\n[check.backup]\nkind = \"passive\"\n");
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let status = wait_for("the first result", || {
        let output = agent_dir.ask(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (status["services"][1]["state"] != "PENDING").then_some(status)
    });
    assert_eq!(status["services"][0]["service"], "backup");
    assert_eq!(status["services"][0]["state"], "PENDING");
    assert_eq!(status["services"][1]["service"], "load");
    let warnings = wait_for("the warning that alertd is unreachable", || {
        let status: serde_json::Value =
            serde_json::from_slice(&agent_dir.ask(&["status", "--json"]).stdout).unwrap();
        let warnings = status["warnings"].as_array().unwrap().clone();
        (!warnings.is_empty()).then_some(warnings)
    });
    assert!(warnings[0].as_str().unwrap().starts_with("cannot report to alertd"), "{warnings:?}");
}

#[test]
fn garbage_on_the_socket_does_no_harm() {
    use std::io::{Read as _, Write as _};
    let agent_dir = AgentDir::new("[check.backup]\nkind = \"passive\"\n");
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..50 {
        let mut stream = std::os::unix::net::UnixStream::connect(agent_dir.path("agent.sock")).unwrap();
        let garbage: Vec<u8> = (0..random.usize(1..5_000)).map(|_| random.u8(..)).collect();
        let body = match round % 3 {
            0 => garbage,
            1 => b"POST /v1/submit HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\n{\"a\":"
                .to_vec(),
            _ => [&b"POST /v1/submit HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n"[..], &garbage].concat(),
        };
        let _ = stream.write_all(&body);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 1_024]);
    }
    assert!(agent_dir.ask(&["submit", "backup", "OK", "still here"]).status.success());
    assert!(stdout(&agent_dir.ask(&["status"])).contains("still here"));
}
