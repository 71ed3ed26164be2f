//! Runs commands. An error names the command line and quotes its output.

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

/// The root of the checkout in which xtask was built.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or_else(|| Path::new("."))
}

/// The target directory: `target/` or `CARGO_TARGET_DIR`.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A command that runs at the root of the checkout.
pub(crate) fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a name");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Packages to name when building the daemons. With xtask among them, dependencies get the features
/// that they have in the build of xtask itself, and cargo does not compile them again.
pub(crate) const SHARED: &[&str] = &["-p", "xtask", "-p", "dogwatch", "-p", "dogwatch-alertd"];

/// The cargo that runs xtask.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// The same with the lowest priority, for computations beside tests that depend on time.
pub(crate) fn cargo_nice(arguments: &[&str]) -> Command {
    let mut command = command(&["nice", "-n", "19"]);
    command.arg(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(arguments);
    command
}

/// Runs it with the output of xtask. An exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs it and returns its stdout, trimmed. An exit code other than 0 is an error that quotes
/// stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether `tool` is on the PATH or in an sbin directory.
pub(crate) fn has(tool: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(tool).is_file())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a skip counts as a failure (CI).
pub(crate) fn strict() -> bool {
    env::var("DOGWATCH_TEST_STRICT").is_ok_and(|value| value == "1")
}

/// Polls `condition` every 20 ms. Returns false if it does not hold within `limit`.
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
