//! One agent, every way a plugin can misbehave at once, and a good check in the midst of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use common::{Alertd, Place, dogwatch, stdout, wait_for};
use dogwatch::api::{ServiceStatus, Status};
use dogwatch_wire::State;

/// Name, script, the state it should come to, and how its first line should begin.
const PLUGINS: &[(&str, &str, State, &str)] = &[
    ("floods", "yes 'all is well | a=1'", State::Unknown, "plugin was stopped after"),
    ("floods-and-ends", "head -c 20000000 /dev/zero | tr '\\\\0' x; exit 1", State::Warning, "xxx"),
    ("hangs", "echo waiting; sleep 600", State::Unknown, "plugin was stopped after"),
    ("ignores-term", "trap '' TERM; while :; do sleep 1; done", State::Unknown, "plugin was stopped after"),
    ("leaves-a-child", "sleep 600 & echo done; exit 2", State::Critical, "done"),
    ("wrong-code", "echo hm; exit 42", State::Unknown, "plugin exited with 42, which is not a state"),
    ("dies", "kill -KILL $$", State::Unknown, "plugin died by signal 9"),
    ("garbage", "printf '\\\\377\\\\000\\\\033[31m'; exit 2", State::Critical, "\u{fffd}"),
];

#[tokio::test]
async fn whatever_plugins_do_each_gets_its_state_and_none_holds_up_another() {
    let place = Place::new("");
    place.write_config(&config(place.dir.path()));
    let alertd = Alertd::new();
    let _serving = alertd.serve(&place.path("alertd.sock"));
    let agent = place.start();
    place.wait_until_up();

    for &(name, _, state, text) in PLUGINS {
        assert_eq!(alertd.states_of(name, 1).await[0], state, "{name}");
        let status = service(&place, name);
        assert!(status.output.starts_with(text), "{name}: {}", status.output);
    }
    assert_eq!(alertd.states_of("missing", 1).await, [State::Unknown]);
    assert!(service(&place, "missing").output.ends_with("does not exist"));

    // The good one went on all the while, in time.
    let good = service(&place, "good");
    assert_eq!((good.state.as_str(), good.output.as_str()), ("OK", "fine"));
    wait_for("one more run of the good check", || {
        (service(&place, "good").last_run > good.last_run).then_some(())
    });
    assert_eq!(alertd.memory(|memory| memory.states_of("good")), [], "it never was anything but OK");

    wait_for("a plugin that runs", || (!left(place.dir.path()).is_empty()).then_some(()));
    assert_eq!(agent.stop(), Some(0));
    wait_for("the last plugin's end", || left(place.dir.path()).is_empty().then_some(()));
}

#[test]
fn a_plugin_in_the_config_is_checked_before_it_runs() {
    let place = Place::new(
        "[check.one]\nkind = \"plugin\"\ncommand = \"check_ping -H db1\"\n\
         [check.two]\nkind = \"plugin\"\ncommand = []\n\
         [check.three]\nkind = \"plugin\"\ncommand = [\"x\"]\nenv = { \"A=B\" = \"c\" }\n\
         [check.four]\nkind = \"disk\"\nwarn_inode = \"5%\"\n\
         [check.five]\nkind = \"disk\"\nwarn = \"80%\"\ncrit = \"90%\"\n",
    );
    let output = dogwatch(["config", "check", "--config", place.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output) + &common::stderr(&output);
    for expected in [
        "an array of texts: no shell will split it",
        "names no program",
        "\"A=B\" cannot exist",
        "did you mean `warn_inodes`?",
        "for used write \"80% used\"",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
}

fn config(place: &Path) -> String {
    let mut config = String::new();
    let mut check = |name: &str, command: &str| {
        let _ = write!(
            config,
            "[check.{name}]\nkind = \"plugin\"\ninterval = \"500ms\"\ntimeout = \"1s\"\nmax_attempts = 1\n\
             flapping = {{ detect = false }}\nenv = {{ MARK = \"{}\" }}\ncommand = {command}\n",
            place.display()
        );
    };
    for (name, script, ..) in PLUGINS {
        check(name, &format!("[\"/bin/sh\", \"-c\", \"{script}\"]"));
    }
    check("good", "[\"/bin/sh\", \"-c\", \"echo fine\"]");
    check("missing", "[\"/no/such/plugin\"]");
    config
}

fn service(place: &Place, name: &str) -> ServiceStatus {
    let status: Status = serde_json::from_slice(&place.ask(&["status", "--json"]).stdout).unwrap();
    let services: BTreeMap<_, _> =
        status.services.into_iter().map(|one| (one.service.clone(), one)).collect();
    services[name].clone()
}

/// Living processes that carry this test's mark.
fn left(place: &Path) -> Vec<String> {
    let mark = format!("MARK={}", place.display());
    let marked = |environ: Vec<u8>| environ.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes());
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|process| fs::read(process.join("environ")).is_ok_and(marked))
        .map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default())
        .collect()
}
