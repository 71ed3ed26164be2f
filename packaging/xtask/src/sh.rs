//! Runs commands: each either succeeds or fails with its command line and what it said.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::clock;

/// The top of the checkout. Fixed when xtask is built, which is in the same checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or_else(|| Path::new("."))
}

/// Where cargo builds: `target/`, or what `CARGO_TARGET_DIR` says.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A command that runs at the top of the checkout.
pub(crate) fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a name");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Packages to name when building the daemons as we were built ourselves: with the same features of
/// their dependencies, cargo compiles those once.
pub(crate) const SHARED: &[&str] = &["-p", "xtask", "-p", "dogwatch", "-p", "dogwatch-alertd"];

/// The cargo that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// The same with the lowest priority, for what computes beside something that must be in time.
pub(crate) fn cargo_nice(arguments: &[&str]) -> Command {
    let mut command = command(&["nice", "-n", "19"]);
    command.arg(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(arguments);
    command
}

/// Runs it with our own output; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs it and returns what it wrote to stdout, trimmed; an exit code other than 0 is an error that
/// quotes stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether `tool` is on the PATH (or in the sbin folders, which an ordinary user's PATH leaves
/// out).
pub(crate) fn has(tool: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(tool).is_file())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a skip is a failure (CI).
pub(crate) fn strict() -> bool {
    env::var("DOGWATCH_TEST_STRICT").is_ok_and(|value| value == "1")
}

/// Looks every 20 ms until `condition` holds; false after `limit`.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let from = clock::now();
    loop {
        if condition() {
            return true;
        }
        if clock::now().duration_since(from) > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
