//! Exit codes and error messages of the binaries. This test also makes cargo build them for the
//! end-to-end tests.

use std::{
    fs,
    process::{Command, Output},
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

/// G22: as `dogwatch config check` and `dogwatch dns --check`.
#[test]
fn a_config_that_does_not_exist_is_refused_and_an_empty_one_is_right() {
    let out = alertd(&["--check", "--config", "/nonexistent/alertd.toml"]);
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "/nonexistent/alertd.toml does not exist\n");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alertd.toml");
    fs::write(&path, "").unwrap();
    let out = alertd(&["--check", "--config", path.to_str().unwrap()]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// G23: the agent and the cache are in `agent/tests/server.rs`.
#[test]
fn the_log_has_colour_only_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alertd.toml");
    fs::write(&path, "[alertd]\nstate_dir = \"/proc/nowhere\"\n").unwrap();
    for journal in [None, Some("8:12345")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alertd"));
        command.arg("--config").arg(&path).env_remove("JOURNAL_STREAM");
        if let Some(stream) = journal {
            command.env("JOURNAL_STREAM", stream);
        }
        let said = String::from_utf8(command.output().expect("alertd is built").stderr).unwrap();
        assert!(!said.is_empty() && !said.contains('\u{1b}'), "{said:?}");
        assert_eq!(said.lines().all(|line| line.starts_with('<')), journal.is_some(), "{said:?}");
    }
}

#[test]
fn an_unusable_state_directory_ends_the_daemon_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alertd.toml");
    fs::write(&path, "[alertd]\nstate_dir = \"/proc/nothing\"\nmetrics = \"off\"\n").unwrap();
    let out = alertd(&["--config", path.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("/proc/nothing"));
}

#[test]
fn alertctl_says_its_version() {
    let out = Command::new(env!("CARGO_BIN_EXE_alertctl")).arg("--version").output().unwrap();
    assert!(out.status.success());
}
