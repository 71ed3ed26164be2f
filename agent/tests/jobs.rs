//! Jobs whose wrapper is killed, that are too many, or that the agent remembers: the real agent and
//! the real `dogwatch job`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{AgentDir, Alertd, stderr, stdout, wait_for};
use dogwatch::api::{ServiceStatus, Start, Status, Submit};
use dogwatch_daemon::unix_http::Client;
use dogwatch_wire::State;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const CONFIG: &str = "[check.job]\n[check.self-check]\n";

#[tokio::test]
async fn a_killed_wrapper_is_noticed_and_its_command_goes_on() {
    let agent_dir = AgentDir::new(CONFIG);
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let mut wrapper = start(&agent_dir, &["copy"], "echo $$ > \"$0\"; exec sleep 100");
    let command = wait_for("the command", || {
        fs::read_to_string(agent_dir.path("pid")).ok()?.trim().parse::<i32>().ok().and_then(Pid::from_raw)
    });
    wait_for("the start", || service(&agent_dir, "job copy"));
    wrapper.kill().unwrap();
    wrapper.wait().unwrap();
    assert_eq!(alertd.states_of("job copy", 1).await, [State::Critical]);
    let said = service(&agent_dir, "job copy").unwrap().output;
    assert!(said.contains("was killed after ") && said.contains("the command may still run"), "{said}");
    assert!(test_kill_process(command).is_ok(), "the command was not killed");
    kill_process(command, Signal::KILL).unwrap();
    assert!(start(&agent_dir, &["copy"], "true").wait().unwrap().success());
    assert_eq!(alertd.states_of("job copy", 2).await, [State::Critical, State::Ok]);
}

#[tokio::test]
async fn a_wrapper_that_ends_as_it_should_is_not_taken_for_killed() {
    let agent_dir = AgentDir::new(CONFIG);
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let mut running: Vec<_> = (0..8).map(|_| start(&agent_dir, &["quick"], "true")).collect();
    for child in &mut running {
        assert!(child.wait().unwrap().success());
    }
    // SIGTERM ends the command, and its end is reported.
    let mut ended = start(&agent_dir, &["ended"], "echo $$ > \"$0\"; exec sleep 100");
    wait_for("the command", || fs::read_to_string(agent_dir.path("pid")).ok().filter(|pid| !pid.is_empty()));
    kill_process(Pid::from_child(&ended), Signal::TERM).unwrap();
    assert_eq!(ended.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(alertd.states_of("job ended", 1).await, [State::Critical]);
    assert!(service(&agent_dir, "job ended").unwrap().output.starts_with("was ended by signal 15"));
    let quick = service(&agent_dir, "job quick").unwrap();
    assert_eq!((quick.state.as_str(), quick.since), ("OK", None), "{quick:?}");
}

#[tokio::test]
async fn a_job_that_has_never_ended_is_late() {
    let agent_dir = AgentDir::new(CONFIG);
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let begun = Start { service: "job first".into(), ttl_s: Some(1) };
    client(&agent_dir).post::<()>("/v1/start", &begun).await.unwrap();
    assert_eq!(service(&agent_dir, "job first").unwrap().state, "PENDING");
    assert_eq!(alertd.states_of("job first", 1).await, [State::Critical]);
    let late = service(&agent_dir, "job first").unwrap();
    assert_eq!((late.output.as_str(), late.last_run), ("is late: it began and has not ended", None));
}

#[tokio::test]
async fn a_job_too_many_is_named_by_the_self_check_until_there_is_room() {
    let agent_dir = AgentDir::new(CONFIG);
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let report = async |n: usize| {
        let submit =
            Submit { service: format!("job {n:03}"), state: "OK".into(), text: "done".into(), ttl_s: None };
        client(&agent_dir).post::<()>("/v1/submit", &submit).await
    };
    for n in 0..200 {
        report(n).await.unwrap();
    }
    for _ in 0..2 {
        let refused = report(200).await.unwrap_err().to_string();
        assert!(refused.contains("there are already 200 jobs, which is the most"), "{refused}");
    }
    assert_eq!(alertd.states_of("self-check", 1).await, [State::Warning]);
    let said = service(&agent_dir, "self-check").unwrap().output;
    assert!(said.contains("1 job is not watched, because there are already 200: job 200;"), "{said}");
    assert_eq!(agent_dir.log().matches("a job is not watched").count(), 1, "{}", agent_dir.log());
    assert!(stdout(&agent_dir.ask(&["status"])).contains("job 200; end old ones"));

    let forgotten = agent_dir.ask(&["job", "--forget", "000"]);
    assert!(forgotten.status.success(), "{}", stderr(&forgotten));
    report(200).await.unwrap();
    // What was refused and is not wanted can be forgotten too.
    report(201).await.unwrap_err();
    assert!(agent_dir.ask(&["job", "--forget", "201"]).status.success());
    assert_eq!(alertd.states_of("self-check", 2).await[1], State::Ok);
}

#[tokio::test]
async fn a_job_keeps_its_state_its_duration_and_its_last_run_over_a_restart() {
    let agent_dir = AgentDir::new("[check.job]\n[check.backup]\nkind = \"passive\"\n");
    let agent = agent_dir.start();
    agent_dir.wait_until_up();
    assert!(start(&agent_dir, &["copy"], "sleep 0.2; echo 42 files").wait().unwrap().success());
    assert!(agent_dir.ask(&["submit", "backup", "OK", "all tapes | size=1GB"]).status.success());
    let before = [service(&agent_dir, "job copy").unwrap(), service(&agent_dir, "backup").unwrap()];
    assert!(before[0].duration_s.unwrap() >= 0.2, "{before:?}");
    assert_eq!(before[1].duration_s, None);
    assert_eq!(agent.stop(), Some(0));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    for (before, name) in before.into_iter().zip(["job copy", "backup"]) {
        let after = service(&agent_dir, name).unwrap();
        assert_eq!(after, ServiceStatus { detail: String::new(), ..before });
    }
}

#[test]
fn a_late_job_still_says_when_it_ran() {
    let agent_dir = AgentDir::new(CONFIG);
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    assert!(start(&agent_dir, &["copy", "--every", "1s", "--grace", "1s"], "true").wait().unwrap().success());
    let ran = service(&agent_dir, "job copy").unwrap().last_run;
    assert!(ran.is_some());
    let late = wait_for("the job to be late", || {
        service(&agent_dir, "job copy").filter(|service| service.state == "CRITICAL")
    });
    assert_eq!(late.last_run, ran);
    assert!(late.output.starts_with("is late: it has not run since "), "{late:?}");
}

#[test]
fn arguments_that_mean_nothing_are_refused() {
    let agent_dir = AgentDir::new(CONFIG);
    for (arguments, expected) in [
        (&["job", "", "--", "true"][..], "must have 1 to 100 bytes"),
        (&["job", "a\nb", "--", "true"], "must have 1 to 100 bytes"),
        (&["job", "a", "--every", "0s", "--", "true"], "must be 1s to 366d"),
        (&["job", "a", "--every", "999d", "--", "true"], "must be 1s to 366d"),
        (&["job", "a", "--every", "9999d", "--", "true"], "is too long; at most 3660d"),
        (&["job", "a", "--every", "5", "--", "true"], "write a number and a unit"),
        (&["job", "a", "--timeout", "0s", "--", "true"], "must be 1s to 366d"),
        (&["submit", "a", "OK", "x", "--ttl", "0s"], "must be 1s to 366d"),
        (&["graph", "load", "--since", "0s"], "--since"),
    ] {
        let output = common::dogwatch(arguments.iter().copied());
        assert!(!output.status.success(), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    drop(agent_dir);
}

/// Starts `dogwatch job`. The script gets the path of the file `pid` as `$0`.
fn start(agent_dir: &AgentDir, arguments: &[&str], script: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dogwatch"))
        .arg("job")
        .args(arguments)
        .arg("--socket")
        .arg(agent_dir.path("agent.sock"))
        .args(["--", "/bin/sh", "-c", script])
        .arg(agent_dir.path("pid"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn client(agent_dir: &AgentDir) -> Client {
    Client::new(agent_dir.path("agent.sock"), Duration::from_secs(20))
}

fn service(agent_dir: &AgentDir, name: &str) -> Option<ServiceStatus> {
    let status: Status = serde_json::from_slice(&agent_dir.ask(&["status", "--json"]).stdout).unwrap();
    status.services.into_iter().find(|service| service.service == name)
}
