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
    assert!(lines[0].contains("alertd.toml:2:10: match: \"host\" is not a matcher"), "{said}");
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

#[test]
fn files_that_a_config_names_and_that_do_not_exist_are_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alertd.toml");
    let config =
        "[receiver.ops.webhook]\nurl = \"https://ops.example\"\nsecret_file = \"/nonexistent/secret\"\n";
    fs::write(&path, config).unwrap();
    let out = alertd(&["--check", "--config", path.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0));
    let warning = "warning: secret_file /nonexistent/secret does not exist\n";
    assert_eq!(String::from_utf8_lossy(&out.stderr), warning);
    let mut check = Command::new(env!("CARGO_BIN_EXE_alertctl"));
    let out = check.args(["config", "check", "--config", path.to_str().unwrap()]).output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&out.stdout).starts_with(warning), "{out:?}");
}

#[test]
fn the_log_has_colour_only_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alertd.toml");
    fs::write(&path, "[alertd]\nnonsense = 1\n").unwrap();
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
fn alertd_without_its_metrics_port_runs_and_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (path, socket) = (dir.path().join("alertd.toml"), dir.path().join("alertd.sock"));
    let state = dir.path().join("state");
    let config = format!("[alertd]\nstate_dir = {state:?}\nmetrics = \"{address}\"\nsocket = {socket:?}\n");
    fs::write(&path, config).unwrap();
    let mut alertd = Command::new(env!("CARGO_BIN_EXE_alertd"))
        .args(["--config", path.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = (0..200).find_map(|_| {
        let mut status = Command::new(env!("CARGO_BIN_EXE_alertctl"));
        status.args(["--socket", socket.to_str().unwrap(), "status"]);
        thread::sleep(Duration::from_millis(100));
        Some(status.output().unwrap()).filter(|output| output.status.success())
    });
    alertd.kill().unwrap();
    alertd.wait().unwrap();
    let said = String::from_utf8(said.expect("alertd answers").stdout).unwrap();
    assert!(said.contains(&format!("cannot serve metrics on {address}: Address already in use")), "{said}");
}

/// Its unit starts it again.
#[test]
fn if_the_main_loop_panics_alertd_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (path, socket) = (dir.path().join("alertd.toml"), dir.path().join("alertd.sock"));
    let state = dir.path().join("state");
    let config = format!("[alertd]\nstate_dir = {state:?}\nmetrics = \"off\"\nsocket = {socket:?}\n");
    fs::write(&path, config).unwrap();
    let log = dir.path().join("log");
    let mut alertd = Command::new(env!("CARGO_BIN_EXE_alertd"))
        .args(["--config", path.to_str().unwrap()])
        .env("ALERTD_PANIC_AT", "decided")
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let ended = (0..200).find_map(|_| {
        let mut send = Command::new(env!("CARGO_BIN_EXE_alertctl"));
        send.args(["--socket", socket.to_str().unwrap(), "send", "BackupFailed"]);
        send.output().unwrap();
        thread::sleep(Duration::from_millis(100));
        alertd.try_wait().unwrap()
    });
    let _ = alertd.kill();
    let said = fs::read_to_string(log).unwrap();
    assert_eq!(ended.expect("alertd ends").code(), Some(1), "{said}");
    assert!(said.contains("the main loop has panicked"), "{said}");
}

/// As `dogwatch`: `agent/tests/output.rs`.
#[test]
fn output_that_is_lost_is_an_error_and_output_that_nobody_reads_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (path, socket) = (dir.path().join("alertd.toml"), dir.path().join("nobody.sock"));
    fs::write(&path, "").unwrap();
    let alertctl = |words: &[&str], stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alertctl"));
        command.args(["--socket", socket.to_str().unwrap()]).args(words).stdout(stdout);
        command
    };
    let full = || fs::File::options().write(true).open("/dev/full").unwrap().into();
    let check = ["config", "check", "--config", path.to_str().unwrap()];
    let out = alertctl(&check, full()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.starts_with("alertctl: cannot write to standard output: No space left on device"), "{said}");
    // A plugin that could not say anything is UNKNOWN, which it is here anyway: nobody answers.
    assert_eq!(alertctl(&["health"], full()).output().unwrap().status.code(), Some(3));

    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let out = alertctl(&check, closed().into()).output().unwrap();
    assert_eq!((out.status.code(), &*out.stderr), (Some(0), &b""[..]));
    let status = alertctl(&["status"], Stdio::null()).stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(3), "no panic");
}

#[test]
fn alertctl_says_its_version() {
    let out = Command::new(env!("CARGO_BIN_EXE_alertctl")).arg("--version").output().unwrap();
    assert!(out.status.success());
}
