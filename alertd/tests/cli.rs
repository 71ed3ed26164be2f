//! Exit codes and error messages of the binaries. This test also makes cargo build them for the
//! end-to-end tests.

use std::{
    fs,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

fn alertd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alertd")).args(arguments).output().expect("alertd is built")
}

#[test]
fn a_wrong_config_is_refused_with_every_problem_its_place_and_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alertd.toml");
    fs::write(
        &path,
        "[[route]]\nmatch = [\"host\"]\npolicy = \"oncal\"\n[policy.oncall]\nstep = [{ notify = [\"pagr\"] }]\n[receiver.pager.maildir]\npath = \"/p\"\n",
    )
    .unwrap();
    let out = alertd(&["--check", "--config", path.to_str().unwrap()]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].contains("alertd.toml:2:10: \"host\" is not a matcher"), "{said}");
    assert!(
        lines[1].contains("alertd.toml:3:10: there is no policy \"oncal\"; did you mean \"oncall\"?"),
        "{said}"
    );
    let third = "alertd.toml:5:21: there is no receiver, user or schedule \"pagr\"; did you mean \"pager\"?";
    assert!(lines[2].contains(third), "{said}");
}

#[test]
fn a_config_that_was_named_must_exist() {
    for check in [&["--check"][..], &[]] {
        let out = alertd(&[check, &["--config", "/nonexistent/alertd.toml"]].concat());
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{said}");
        assert!(
            said.contains(
                "/nonexistent/alertd.toml: does not exist; only the default, /etc/dogwatch/alertd.toml"
            ),
            "{said}"
        );
    }
}

/// S10: a broken disk is what alertd must report, so it is no reason not to start.
#[test]
fn an_unusable_state_directory_is_reported_and_alertd_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (path, socket) = (dir.path().join("alertd.toml"), dir.path().join("alertd.sock"));
    let config = format!("[alertd]\nstate_dir = \"/proc/nothing\"\nmetrics = \"off\"\nsocket = {socket:?}\n");
    fs::write(&path, config).unwrap();
    let mut alertd = Command::new(env!("CARGO_BIN_EXE_alertd"))
        .args(["--config", path.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let health = || {
        let mut ask = Command::new(env!("CARGO_BIN_EXE_alertctl"));
        ask.args(["--socket", socket.to_str().unwrap(), "health"]).output().unwrap()
    };
    let said = (0..100).find_map(|_| {
        let said = String::from_utf8_lossy(&health().stdout).into_owned();
        thread::sleep(Duration::from_millis(100));
        said.contains("cannot write").then_some(said)
    });
    alertd.kill().unwrap();
    alertd.wait().unwrap();
    let said = said.expect("alertd answers");
    let store = said.lines().find(|line| line.contains(" store ")).unwrap();
    assert!(store.contains("CRITICAL") && store.contains("/proc/nothing"), "{said}");
    assert!(said.contains("not known"), "{said}");
}

#[test]
fn alertctl_says_its_version() {
    let out = Command::new(env!("CARGO_BIN_EXE_alertctl")).arg("--version").output().unwrap();
    assert!(out.status.success());
}
