//! Standard output that is a closed pipe or a full disk.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::{
    fs::File,
    io::Read as _,
    process::{Command, Output, Stdio},
};

use common::{AgentDir, stderr};

#[test]
fn a_full_disk_is_an_error_and_no_result() {
    let agent_dir = AgentDir::new("[check.backup]\nkind = \"passive\"\n");
    let config = agent_dir.config();
    let config = config.to_str().unwrap();
    for (words, code) in [
        (&["--help"][..], 1),
        (&["graph", "--help"], 1),
        (&["--version"], 1),
        (&["check", "load", "--warn", "100000", "--crit", "100000"], 3),
        (&["check", "load", "--json"], 3),
        (&["check", "--help"], 3),
        (&["check", "nothing"], 3),
        (&["list", "--config", config], 1),
        (&["list", "--json", "--config", config], 1),
        (&["config", "check", "--config", config], 1),
    ] {
        let output = run(words, File::options().write(true).open("/dev/full").unwrap().into());
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        let message = "dogwatch: cannot write to standard output: No space left on device";
        assert_eq!(stderr(&output).matches(message).count(), 1, "{words:?}: {}", stderr(&output));
    }
}

#[test]
fn a_closed_pipe_is_no_error_and_the_exit_code_stays() {
    let agent_dir = AgentDir::new("[check.backup]\nkind = \"passive\"\n");
    let config = agent_dir.config();
    for (words, code) in [
        (&["check", "load", "--warn", "@0:100000", "--crit", "100000"][..], 1),
        (&["check", "--help"], 3),
        (&["--help"], 0),
        (&["list", "--config", config.to_str().unwrap()], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(words, writer.into());
        assert_eq!((output.status.code(), &*stderr(&output)), (Some(code), ""), "{words:?}");
    }
}

#[test]
fn a_closed_stderr_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = dogwatch(&["list", "--config", "/no/such/agent.toml"]);
    let status = command.stderr(writer).stdout(Stdio::null()).status().unwrap();
    assert!(status.code().is_some_and(|code| code <= 1), "{status}");
}

/// `head -1` reads a part and closes the pipe while more comes.
#[test]
fn a_reader_that_has_seen_enough_gets_its_line() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = dogwatch(&["check", "--help"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 6];
    reader.read_exact(&mut start).unwrap();
    drop(reader);
    assert_eq!(&start, b"Usage:");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

fn run(words: &[&str], stdout: Stdio) -> Output {
    dogwatch(words).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

fn dogwatch(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dogwatch"));
    command.args(words).stdin(Stdio::null());
    command
}
