//! One agent with many misbehaving plugins at once, and one good check among them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use common::{AgentDir, Alertd, dogwatch, stdout, wait_for};
use dogwatch::api::{ServiceStatus, Status};
use dogwatch_wire::State;

/// Name, script, expected state, and how the output must start.
const PLUGINS: &[(&str, &str, State, &str)] = &[
    ("floods", "yes 'all is well | a=1'", State::Unknown, "plugin timed out after"),
    ("floods-and-ends", "head -c 20000000 /dev/zero | tr '\\\\0' x; exit 1", State::Warning, "xxx"),
    ("hangs", "echo waiting; sleep 600", State::Unknown, "plugin timed out after"),
    ("ignores-term", "trap '' TERM; while :; do sleep 1; done", State::Unknown, "plugin timed out after"),
    ("leaves-a-child", "sleep 600 & echo done; exit 2", State::Critical, "done"),
    ("wrong-code", "echo hm; exit 42", State::Unknown, "plugin exited with code 42, expected 0 to 3"),
    ("dies", "kill -KILL $$", State::Unknown, "plugin was killed by signal 9"),
    ("garbage", "printf '\\\\377\\\\000\\\\033[31m'; exit 2", State::Critical, "\u{fffd}"),
];

#[tokio::test]
async fn misbehaving_plugins_get_their_state_and_delay_no_other_check() {
    let agent_dir = AgentDir::new("");
    agent_dir.write_config(&config(agent_dir.dir.path()));
    let alertd = Alertd::new();
    let _serving = alertd.serve(&agent_dir.path("alertd.sock"));
    let agent = agent_dir.start();
    agent_dir.wait_until_up();

    for &(name, _, state, text) in PLUGINS {
        assert_eq!(alertd.states_of(name, 1).await[0], state, "{name}");
        let status = service(&agent_dir, name);
        assert!(status.output.starts_with(text), "{name}: {}", status.output);
    }
    assert_eq!(alertd.states_of("missing", 1).await, [State::Unknown]);
    assert!(service(&agent_dir, "missing").output.ends_with("does not exist"));

    // The good check ran on time all along.
    let good = service(&agent_dir, "good");
    assert_eq!((good.state.as_str(), good.output.as_str()), ("OK", "fine"));
    wait_for("one more run of the good check", || {
        (service(&agent_dir, "good").last_run > good.last_run).then_some(())
    });
    assert_eq!(alertd.memory(|memory| memory.states_of("good")), [], "it was always OK");

    wait_for("a plugin that runs", || (!left(agent_dir.dir.path()).is_empty()).then_some(()));
    assert_eq!(agent.stop(), Some(0));
    wait_for("the last plugin's end", || left(agent_dir.dir.path()).is_empty().then_some(()));
}

#[test]
fn invalid_plugins_are_found_by_config_check() {
    let agent_dir = AgentDir::new(
        "[check.one]\nkind = \"plugin\"\ncommand = \"check_ping -H db1\"\n\
         [check.two]\nkind = \"plugin\"\ncommand = []\n\
         [check.three]\nkind = \"plugin\"\ncommand = [\"x\"]\nenv = { \"A=B\" = \"c\" }\n\
         [check.four]\nkind = \"disk\"\nwarn_inode = \"5%\"\n\
         [check.five]\nkind = \"disk\"\nwarn = \"80%\"\ncrit = \"90%\"\n",
    );
    let output = dogwatch(["config", "check", "--config", agent_dir.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output) + &common::stderr(&output);
    for expected in [
        "an array of strings, because no shell splits it",
        "command is empty",
        "\"A=B\" is invalid",
        "did you mean `warn_inodes`?",
        "for used space write \"80% used\"",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
}

fn config(agent_dir: &Path) -> String {
    let mut config = String::new();
    // A plugin that is to end by itself has time for that on a busy machine.
    let mut check = |name: &str, command: &str, timeout: &str| {
        let _ = write!(
            config,
            "[check.{name}]\nkind = \"plugin\"\ninterval = \"500ms\"\ntimeout = \"{timeout}\"\nmax_attempts = 1\n\
             flapping = {{ detect = false }}\nenv = {{ MARK = \"{}\" }}\ncommand = {command}\n",
            agent_dir.display()
        );
    };
    for (name, script, _, text) in PLUGINS {
        let timeout = if text.starts_with("plugin timed out") { "1s" } else { "60s" };
        check(name, &format!("[\"/bin/sh\", \"-c\", \"{script}\"]"), timeout);
    }
    check("good", "[\"/bin/sh\", \"-c\", \"echo fine\"]", "60s");
    check("missing", "[\"/no/such/plugin\"]", "60s");
    config
}

fn service(agent_dir: &AgentDir, name: &str) -> ServiceStatus {
    let status: Status = serde_json::from_slice(&agent_dir.ask(&["status", "--json"]).stdout).unwrap();
    let services: BTreeMap<_, _> =
        status.services.into_iter().map(|one| (one.service.clone(), one)).collect();
    services[name].clone()
}

/// Running processes of this test.
fn left(agent_dir: &Path) -> Vec<String> {
    let mark = format!("MARK={}", agent_dir.display());
    let marked = |environ: Vec<u8>| environ.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes());
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|process| fs::read(process.join("environ")).is_ok_and(marked))
        .map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default())
        .collect()
}
