//! A service per thing, jobs, and what belongs to a check's definition: the real agent, and a fake
//! alertd that records everything.

mod common;

use std::{fs, net::TcpListener};

use common::{AgentDir, Alertd, dogwatch, stderr, stdout, wait_for};
use dogwatch_wire::{EventKind, State};
use rustix::process::Signal;

#[tokio::test]
async fn every_filesystem_is_a_service_that_can_be_tuned_and_switched_off_alone() {
    let agent_dir = AgentDir::new(
        "[check.disk]\ninterval = \"200ms\"\n[check.disk.\"/\"]\nwarn = \"100%\"\ncrit = \"0%\"\nmax_attempts = 1\n\
         labels = { team = \"storage\" }\n",
    );
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    assert_eq!(alertd.states_of("disk /", 1).await, [State::Warning]);
    let labels = alertd
        .wait_for("the transition", |memory| {
            memory.events.iter().find_map(|event| match &event.kind {
                EventKind::Transition(transition) => Some(transition.now.labels.clone()),
                EventKind::Removed { .. } => None,
            })
        })
        .await;
    let expected = [("check", "disk"), ("team", "storage"), ("thing", "/")];
    assert!(expected.iter().all(|(name, value)| labels.get(*name).is_some_and(|l| l == value)), "{labels:?}");

    agent_dir.write_config("[check.disk]\ninterval = \"200ms\"\n[check.disk.\"/\"]\nenabled = false\n");
    agent.signal(Signal::HUP);
    alertd
        .wait_for("disk / to be removed", |memory| {
            let removed = EventKind::Removed { service: "disk /".into() };
            memory.events.iter().any(|event| event.kind == removed).then_some(())
        })
        .await;
    wait_for("the blind spot", || {
        let status = stdout(&agent_dir.ask(&["status", "--json"]));
        status.contains("switched off in the config").then_some(())
    });
}

#[tokio::test]
async fn what_befalls_one_thing_is_news_of_its_own_and_no_other_hides_it() {
    let agent_dir = AgentDir::new("");
    let (first, second) = (agent_dir.path("first"), agent_dir.path("second"));
    for path in [&first, &second] {
        fs::write(path, "x").unwrap();
    }
    agent_dir.write_config(&format!(
        "[check.backup]\nkind = \"file\"\npath = [{first:?}, {second:?}]\ninterval = \"200ms\"\nmax_attempts = 1\n"
    ));
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let name = |path: &std::path::Path| format!("backup {}", path.display());
    fs::remove_file(&first).unwrap();
    assert_eq!(alertd.states_of(&name(&first), 1).await, [State::Critical]);
    fs::remove_file(&second).unwrap();
    assert_eq!(alertd.states_of(&name(&second), 1).await, [State::Critical]);
    fs::write(&first, "x").unwrap();
    assert_eq!(alertd.states_of(&name(&first), 2).await, [State::Critical, State::Ok]);
    let left = alertd.memory(|memory| {
        memory
            .states
            .iter()
            .filter(|(_, (state, _))| *state == State::Critical)
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(left, [name(&second)]);
}

#[tokio::test]
async fn a_job_is_a_service_from_its_first_run_until_it_is_forgotten() {
    let agent_dir = AgentDir::new("[check.job]\n");
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    agent_dir.wait_until_up();
    let socket = agent_dir.path("agent.sock");
    let job = |script: &str| {
        let socket = socket.to_str().unwrap();
        let words = ["job", "backup", "--every", "1h", "--socket", socket, "--", "/bin/sh", "-c", script];
        dogwatch(words)
    };
    let failed = job("echo copying; echo no space left >&2; exit 3");
    assert_eq!(
        (failed.status.code(), stdout(&failed), stderr(&failed)),
        (Some(3), "copying\n".into(), "no space left\n".into())
    );
    assert_eq!(alertd.states_of("job backup", 1).await, [State::Critical]);
    let status = stdout(&agent_dir.ask(&["status", "--json"]));
    assert!(status.contains("failed with exit code 3 after 0s: no space left"), "{status}");
    assert_eq!(job("true").status.code(), Some(0));
    assert_eq!(alertd.states_of("job backup", 2).await, [State::Critical, State::Ok]);

    assert_eq!(agent.stop(), Some(0));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    assert!(stdout(&agent_dir.ask(&["status"])).contains("job backup"), "it survives a restart");
    let forgotten = agent_dir.ask(&["job", "backup", "--forget"]);
    assert!(forgotten.status.success(), "{}", stderr(&forgotten));
    assert!(!stdout(&agent_dir.ask(&["status"])).contains("job backup"));
    assert!(!agent_dir.ask(&["job", "backup", "--forget"]).status.success());
}

#[test]
fn what_a_job_leaves_running_can_still_write() {
    let agent_dir = AgentDir::new("[check.job]\n");
    let socket = agent_dir.path("agent.sock");
    let script = "(sleep 1; echo late) & echo started";
    let words = ["job", "bg", "--socket", socket.to_str().unwrap(), "--", "/bin/sh", "-c", script];
    assert_eq!(stdout(&dogwatch(words)), "started\nlate\n");
}

#[test]
fn a_config_that_cannot_mean_what_it_says_is_refused() {
    let agent_dir = AgentDir::new("");
    for (config, words) in [
        ("[check.load]\nenabled = 0\n", "enabled must be true or false"),
        ("[check.disk]\nwarn = {}\n", "warn must be a value, not a table"),
        ("[check.disk]\n[check.\"disk /\"]\nkind = \"passive\"\n", "is the name of a service of the check"),
    ] {
        agent_dir.write_config(config);
        let output = dogwatch(["config", "check", "--config", agent_dir.config().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{config}");
        assert!(stderr(&output).contains(words), "{config}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn a_reload_without_the_config_file_changes_nothing() {
    let agent_dir = AgentDir::new("[check.backup]\nkind = \"passive\"\n[check.self-check]\n");
    let agent = agent_dir.start();
    agent_dir.wait_until_up();
    fs::remove_file(agent_dir.config()).unwrap();
    agent.signal(Signal::HUP);
    let socket = agent_dir.path("agent.sock");
    wait_for("the warning", || {
        let status = stdout(&dogwatch(["status", "--socket", socket.to_str().unwrap()]));
        assert!(status.contains("backup"), "{status}");
        status.contains("agent.toml is gone").then_some(())
    });
}

#[tokio::test]
async fn a_job_that_does_not_run_again_is_late_and_runs_without_an_agent_too() {
    let agent_dir = AgentDir::new("[check.job]\n");
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let socket = agent_dir.path("agent.sock");
    let job = ["job", "mirror", "--every", "1s", "--grace", "1s", "--socket", socket.to_str().unwrap()];
    let run = || dogwatch(job.into_iter().chain(["--", "/bin/echo", "done"]));
    let alone = run();
    assert_eq!((alone.status.code(), stdout(&alone)), (Some(0), "done\n".into()));
    assert!(stderr(&alone).contains("could not report the result to the agent"), "{}", stderr(&alone));
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    assert!(run().status.success());
    assert_eq!(alertd.states_of("job mirror", 1).await, [State::Critical]);
    assert!(stdout(&agent_dir.ask(&["status"])).contains("is late: it has not run since"));
}

#[tokio::test]
async fn the_state_of_a_check_belongs_to_its_definition() {
    let passive = "[check.backup]\nkind = \"passive\"\n";
    let agent_dir = AgentDir::new(passive);
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    agent_dir.wait_until_up();
    assert!(agent_dir.ask(&["submit", "backup", "OK", "fine"]).status.success());
    // A freshness that is added later is armed, although a result without one was there before.
    agent_dir.write_config(&format!("{passive}freshness = \"1s\"\n"));
    agent.signal(Signal::HUP);
    assert_eq!(alertd.states_of("backup", 1).await, [State::Unknown]);
    // Of another kind: what was stale has nothing to do with the plugin.
    agent_dir.write_config(
        "[check.backup]\nkind = \"plugin\"\ncommand = [\"/bin/echo\", \"ran\"]\ninterval = \"200ms\"\n",
    );
    agent.signal(Signal::HUP);
    assert_eq!(alertd.states_of("backup", 2).await, [State::Unknown, State::Ok]);
    let slow = |word: &str| {
        format!(
            "[check.backup]\nkind = \"plugin\"\ninterval = \"1h\"\n\
             command = [\"/bin/sh\", \"-c\", \"touch {0}/{word}; sleep 2; echo {word}\"]\n",
            agent_dir.dir.path().display()
        )
    };
    agent_dir.write_config(&slow("old"));
    agent.signal(Signal::HUP);
    wait_for("the old command to run", || agent_dir.path("old").exists().then_some(()));
    agent_dir.write_config(&slow("new"));
    agent.signal(Signal::HUP);
    wait_for("the new command's result", || {
        let status = stdout(&agent_dir.ask(&["status"]));
        assert!(!status.contains(" old"), "the old command's result counts for the new one: {status}");
        status.contains(" new").then_some(())
    });
}

/// The command of the old definition is still running when the check becomes a passive one, or is
/// removed and added again.
#[tokio::test]
async fn the_result_of_an_older_definition_counts_for_nothing() {
    let agent_dir = AgentDir::new("");
    let dir = agent_dir.dir.path().display().to_string();
    let slow = |word: &str, code: u8| {
        format!(
            "[check.backup]\nkind = \"plugin\"\ninterval = \"1h\"\nmax_attempts = 1\n\
             command = [\"/bin/sh\", \"-c\", \"touch {dir}/{word}; while [ ! -e {dir}/{word}.go ]; do sleep 0.05; \
             done; touch {dir}/{word}.ended; echo {word}; exit {code}\"]\n"
        )
    };
    agent_dir.write_config(&slow("first", 2));
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    let wait_for_file =
        |name: String| wait_for(&name.clone(), || agent_dir.path(&name).exists().then_some(()));
    let go_on = |word: &str| {
        fs::write(agent_dir.path(&format!("{word}.go")), "").unwrap();
        wait_for_file(format!("{word}.ended"));
    };
    wait_for_file("first".into());
    agent_dir.write_config("[check.backup]\nkind = \"passive\"\n[check.extra]\nkind = \"passive\"\n");
    agent.signal(Signal::HUP);
    wait_for("the reload", || stdout(&agent_dir.ask(&["status"])).contains("extra").then_some(()));
    go_on("first");
    assert!(agent_dir.ask(&["submit", "backup", "WARNING", "slow"]).status.success());
    assert_eq!(alertd.states_of("backup", 1).await, [State::Warning]);

    agent_dir.write_config(&slow("second", 2));
    agent.signal(Signal::HUP);
    wait_for_file("second".into());
    agent_dir.write_config("[check.extra]\nkind = \"passive\"\n");
    agent.signal(Signal::HUP);
    wait_for("the removal", || (!stdout(&agent_dir.ask(&["status"])).contains("backup")).then_some(()));
    agent_dir.write_config(&slow("third", 0));
    agent.signal(Signal::HUP);
    go_on("second");
    go_on("third");
    wait_for("the new result", || stdout(&agent_dir.ask(&["status"])).contains(" third").then_some(()));
    assert_eq!(alertd.memory(|memory| memory.states_of("backup")), [State::Warning], "{}", agent_dir.log());
}

#[tokio::test]
async fn a_handler_mends_a_problem_and_the_incident_says_so() {
    let agent_dir = AgentDir::new("");
    let dir = agent_dir.dir.path().display();
    fs::write(agent_dir.path("switch"), "2").unwrap();
    agent_dir.write_config(&format!(
        "[check.web]\nkind = \"plugin\"\ninterval = \"200ms\"\nmax_attempts = 1\n\
         command = [\"/bin/sh\", \"-c\", \"exit $(cat {dir}/switch)\"]\n\
         handler = {{ command = [\"/bin/sh\", \"-c\", \"echo 0 > {dir}/switch; env > {dir}/env\"], per_day = 1 }}\n"
    ));
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let _agent = agent_dir.start();
    let states = alertd.states_of("web", 3).await;
    assert_eq!(states, [State::Critical, State::Critical, State::Ok], "announced all the same");
    let said = alertd
        .wait_for("what the handler did", |memory| {
            let details: Vec<String> = memory
                .events
                .iter()
                .filter_map(|event| match &event.kind {
                    EventKind::Transition(transition) => Some(transition.now.detail.clone()),
                    EventKind::Removed { .. } => None,
                })
                .collect();
            (details.len() >= 3).then_some(details)
        })
        .await;
    assert!(said[0].contains("handler running: /bin/sh -c echo 0"), "{said:?}");
    assert!(said[1].contains("handler ran at "), "{said:?}");
    assert!(said[2].contains("; recovered after "), "{said:?}");
    let env = fs::read_to_string(agent_dir.path("env")).unwrap();
    for line in ["DOGWATCH_SERVICE=web", "DOGWATCH_CHECK=web", "DOGWATCH_STATE=CRITICAL"] {
        assert!(env.lines().any(|known| known == line), "{line}\n{env}");
    }
    // A second problem on the same day is only announced.
    fs::write(agent_dir.path("switch"), "2").unwrap();
    assert_eq!(alertd.states_of("web", 4).await.last(), Some(&State::Critical));
}

#[test]
fn two_agents_do_not_share_a_state_directory() {
    let agent_dir = AgentDir::new("[check.job]\n");
    let _first = agent_dir.start();
    agent_dir.wait_until_up();
    let mut second = agent_dir.start();
    let code = wait_for("the second agent's end", || second.ended());
    assert_eq!(code, 1);
    assert!(agent_dir.log().contains("another agent is running with this directory"), "{}", agent_dir.log());
}

#[test]
fn an_agent_without_its_metrics_port_watches_and_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let agent_dir = AgentDir::new("[check.load]\n");
    let config = fs::read_to_string(agent_dir.config()).unwrap();
    let config = config.replace("metrics = \"off\"", &format!("metrics = \"127.0.0.1:{port}\""));
    fs::write(agent_dir.config(), config).unwrap();
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let status = stdout(&agent_dir.ask(&["status"]));
    assert!(status.contains(&format!("cannot serve metrics on 127.0.0.1:{port}")), "{status}");
}

#[tokio::test]
async fn the_history_can_be_drawn_and_replayed() {
    let agent_dir = AgentDir::new("[check.load]\ninterval = \"100ms\"\n");
    let agent = agent_dir.start();
    agent_dir.wait_until_up();
    let with_config = |words: &[&str]| {
        let config = agent_dir.config();
        dogwatch(words.iter().copied().chain(["--config", config.to_str().unwrap()]))
    };
    wait_for("a result", || stdout(&agent_dir.ask(&["status"])).contains("per processor").then_some(()));
    assert_eq!(agent.stop(), Some(0), "which writes the rows in progress");
    let drawn = stdout(&with_config(&["graph", "load", "load5", "--since", "1h"]));
    assert!(drawn.starts_with("load, load5: now "), "{drawn}");
    let svg = agent_dir.path("load.svg");
    assert!(with_config(&["graph", "load", "load5", "--svg", svg.to_str().unwrap()]).status.success());
    assert!(fs::read_to_string(svg).unwrap().starts_with("<svg "));
    let replayed = stdout(&with_config(&["replay", "load", "load5", "--warn", "@0:1000000"]));
    assert!(replayed.starts_with("1 problem in "), "{replayed}");
    let wrong = with_config(&["graph", "laod"]);
    assert!(stderr(&wrong).contains("did you mean \"load\"?"), "{}", stderr(&wrong));
}
