//! What the result of a plugin says when the plugin itself says nothing useful.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use dogwatch::plugin::{OUTPUT_MAX, Plugin};
use dogwatch_checks::{CheckResult, State};
use tempfile::TempDir;

#[tokio::test]
async fn a_plugin_that_explains_itself_only_on_stderr_is_quoted() {
    for (script, state, summary, detail) in [
        (
            r#"printf 'Traceback (most recent call last):\n  File "x", line 1\nModuleNotFoundError: No module named foo\n' >&2; exit 1"#,
            State::Warning,
            "ModuleNotFoundError: No module named foo (from stderr; nothing on stdout)",
            "stderr: Traceback (most recent call last):\nstderr:   File \"x\", line 1\n\
             stderr: ModuleNotFoundError: No module named foo",
        ),
        (
            "printf \"Can't locate Foo.pm in @INC at x line 3.\\nBEGIN failed--compilation aborted at x line 3.\\n\" >&2; exit 2",
            State::Critical,
            "Can't locate Foo.pm in @INC at x line 3. (from stderr; nothing on stdout)",
            "stderr: Can't locate Foo.pm in @INC at x line 3.\nstderr: BEGIN failed--compilation aborted at x line 3.",
        ),
        (
            "echo '0 problems?'; echo warning: deprecated >&2; exit 1",
            State::Warning,
            "0 problems?",
            "stderr: warning: deprecated",
        ),
        ("echo fine; echo warning: deprecated >&2; exit 0", State::Ok, "fine", ""),
        ("exit 2", State::Critical, "(no output)", ""),
        (
            "echo only stderr >&2",
            State::Ok,
            "only stderr (from stderr; nothing on stdout)",
            "stderr: only stderr",
        ),
        (
            "echo ' '; printf '\\033[31mred\\033[0m\\n\\n' >&2; exit 3",
            State::Unknown,
            "red (from stderr; nothing on stdout)",
            "stderr: red",
        ),
    ] {
        let result = sh(script).await;
        assert_eq!((result.state, &*result.summary, &*result.detail), (state, summary, detail), "{script}");
    }
}

#[tokio::test]
async fn stderr_is_shown_after_a_wrong_exit_code_and_a_timeout_too() {
    let missing = sh("no-such-command").await;
    assert!(missing.detail.starts_with("stderr: ") && missing.detail.ends_with("not found"), "{missing:?}");
    let slow = plugin(&["/bin/sh", "-c", "echo out; echo connecting to db1 >&2; sleep 60"]);
    let slow = slow.run(Duration::from_millis(300)).await;
    assert_eq!(slow.detail, "output: out\nstderr: connecting to db1");
}

#[tokio::test]
async fn a_flood_on_stderr_blocks_nothing_and_its_end_is_kept() {
    let flood = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo the end >&2; exit 2";
    let result = sh(flood).await;
    assert_eq!(result.summary, "the end (from stderr; nothing on stdout)");
    let line = sh("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 2").await;
    assert!(line.summary.starts_with("xxx") && line.summary.len() < 1_000, "{}", line.summary.len());
    let both = sh(
        "for i in 1 2 3 4 5 6 7 8 9; do yes out | head -c 50000; yes err | head -c 50000 >&2; done; exit 1",
    );
    assert_eq!(both.await.summary, "out");
}

#[tokio::test]
async fn a_plugin_that_cannot_start_says_why() {
    let home = Home::new();
    let here = home.0.path().display();
    home.write("data", "no program", 0o644);
    for (content, mode, says) in [
        (
            "#!/usr/bin/python2\n",
            0o755,
            "the interpreter \"/usr/bin/python2\" in its first line does not exist",
        ),
        (
            "#! /no/such/sh -e\necho",
            0o755,
            "the interpreter \"/no/such/sh\" in its first line does not exist",
        ),
        (
            "#!/bin/sh\r\necho ok\r\n",
            0o755,
            "its first line ends with a carriage return (Windows line ends), so \"/bin/sh\" is not found",
        ),
        ("#!/bin/sh\necho", 0o644, "it is not executable (mode 0644); run chmod +x on it"),
        ("", 0o755, "it is empty"),
        ("echo ok\n", 0o755, "it is not a program, and its first line does not start with #!"),
        ("\u{feff}#!/bin/sh\necho ok\n", 0o755, "starts with a byte order mark"),
        ("#!DATA\n", 0o755, "the interpreter"),
    ] {
        let file = home.write("check", &content.replace("DATA", &format!("{here}/data")), mode);
        let result = plugin(&[&file]).run(PATIENCE).await;
        assert_eq!(result.state, State::Unknown);
        assert!(result.summary.contains(says), "{content:?}: {}", result.summary);
        assert!(result.summary.contains(&format!("plugin {file:?}")), "{}", result.summary);
    }
}

#[tokio::test]
async fn what_is_no_file_is_named() {
    let home = Home::new();
    let folder = home.0.path().to_str().unwrap().to_owned();
    let result = plugin(&[&folder]).run(PATIENCE).await;
    assert_eq!(result.summary, format!("plugin {folder:?} is a directory"));
    let link = format!("{folder}/link");
    symlink("/no/such/target", &link).unwrap();
    let result = plugin(&[&link]).run(PATIENCE).await;
    assert_eq!(result.summary, format!("plugin {link:?} is a link to /no/such/target, which does not exist"));
    let alien = home.write("alien", "\u{7f}ELF", 0o755);
    let result = plugin(&[&alien]).run(PATIENCE).await;
    assert!(result.summary.ends_with("it is a program for another architecture"), "{}", result.summary);
    let nothing = plugin(&["no-such-plugin"]).run(PATIENCE).await;
    assert_eq!(nothing.summary, "plugin \"no-such-plugin\" does not exist");
}

#[tokio::test]
async fn exit_codes_of_env_and_ssh_are_not_taken_for_a_signal() {
    let home = Home::new();
    for (script, says) in [
        ("#!/bin/sh\nexit 255\n", "plugin exited with code 255, expected 0 to 3"),
        ("#!/bin/sh\nexit 254\n", "plugin exited with code 254, expected 0 to 3"),
        (
            "#!/usr/bin/env no-such-python\n",
            ": the interpreter \"no-such-python\" in its first line is not in PATH (",
        ),
        ("#!/usr/bin/env sh\r\necho ok\r\n", ": its first line ends with a carriage return"),
        ("#!/bin/sh\nno-such-command\n", " (in a shell script: a command does not exist)"),
        ("#!/bin/sh\nkill -9 $$\n", "plugin was killed by signal 9"),
    ] {
        let file = home.write("check", script, 0o755);
        let result = plugin(&[&file]).run(PATIENCE).await;
        assert_eq!(result.state, State::Unknown);
        assert!(result.summary.contains(says), "{script:?}: {}", result.summary);
        assert!(!says.starts_with("plugin") || result.summary == says, "{}", result.summary);
    }
}

#[tokio::test]
async fn perfdata_has_base_units_and_half_a_value_is_dropped() {
    let result = sh("echo 'ok | time=1200ms;2000;5000;0 /=2MB;5;6 pl=20%;20;60'").await;
    assert_eq!(result.perfdata_text(), "time=1.2s;2;5;0 /=2000000B;5000000;6000000 pl=20%;20;60");
    let hundred = sh("printf 'ok | '; seq -s ' ' -f 'v%g=1' 1 100").await;
    assert_eq!((hundred.perfdata.len(), hundred.detail.as_str()), (100, ""));
    let flood = sh("printf 'ok | '; seq -s ' ' -f 'value-with-a-long-label-%g=123456789' 1 1000000").await;
    assert!(flood.perfdata.iter().all(|perf| perf.value == Some(123_456_789.0)), "{flood:?}");
    assert!(flood.detail.contains(&format!("only the first {} KiB are kept", OUTPUT_MAX / 1_024)));
    assert!(flood.detail.contains("perfdata: only the first 1000 of "), "{}", flood.detail);
}

#[tokio::test]
async fn a_plugin_has_a_private_directory_that_lasts() {
    let home = Home::new();
    let agent = home.0.path().join("state");
    let script = "echo run >> $MP_STATE_PATH/count; mktemp > /dev/null; wc -l < $NAGIOS_PLUGIN_STATE_DIRECTORY/count; \
                  stat -c %a $MP_STATE_PATH $TMPDIR; ls $TMPDIR | wc -l";
    let of = |check: &str| plugin(&["/bin/sh", "-c", script]).with_state_directory(&agent, check);
    let seen = async |plugin: &Plugin| {
        let result = plugin.run(PATIENCE).await;
        format!("{} {}", result.summary, result.detail.replace('\n', " "))
    };
    let web = of("web");
    assert_eq!(seen(&web).await, "1 700 700 1");
    assert_eq!(seen(&web).await, "2 700 700 2");
    assert_eq!(seen(&of("../web")).await, "1 700 700 1");
    assert!(agent.join("plugins/web/count").exists() && agent.join("plugins/%2E.%2Fweb/count").exists());
    assert_eq!(fs::metadata(agent.join("plugins")).unwrap().permissions().mode() & 0o777, 0o700);

    // What the config sets counts, and a plugin that needs no files runs without a directory.
    let env = [("MP_STATE_PATH".to_owned(), "/srv".to_owned())].into();
    let own =
        Plugin::new(vec!["/bin/sh".into(), "-c".into(), "echo $MP_STATE_PATH".into()], env, State::Unknown);
    assert_eq!(own.unwrap().with_state_directory(&agent, "own").run(PATIENCE).await.summary, "/srv");
    let nowhere = plugin(&["/bin/echo", "ok"]).with_state_directory(Path::new("/proc/none"), "x");
    assert_eq!(nowhere.run(PATIENCE).await.summary, "ok");
}

/// Longer than any of these plugins needs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

async fn sh(script: &str) -> CheckResult {
    plugin(&["/bin/sh", "-c", script]).run(PATIENCE).await
}

fn plugin(argv: &[&str]) -> Plugin {
    let argv = argv.iter().map(|&text| text.to_owned()).collect();
    Plugin::new(argv, [].into(), State::Unknown).unwrap()
}
