//! Runs an external plugin (any program that follows the Nagios plugin guidelines) and reads its
//! result.
//!
//! Whatever the plugin does:
//! - It runs without a shell, with an empty environment (`LC_ALL=C`, a fixed `PATH`, its state
//!   directory, and what the config sets), in `/`, with nothing on stdin.
//! - At most the first [`OUTPUT_MAX`] bytes of stdout and the last [`STDERR_MAX`] of stderr are
//!   kept. The rest is read and discarded, so that a flood of output blocks nothing.
//! - What it says on stderr is only shown with a problem, or if it says nothing on stdout.
//! - It has its own process group, and whatever is left in the group when the plugin ends is
//!   killed. At the deadline the group gets SIGTERM, and SIGKILL [`TERM_GRACE`] later. A grandchild
//!   that keeps the pipe open is not waited for.
//! - It is always reaped. Dropping the future kills the group at once.
//!
//! Exit codes 0 to 3 are the state. Everything else (other codes, a signal, a missing program, the
//! deadline) means that the plugin could not check: UNKNOWN with the reason as the first line and
//! the output as the detail. Times and sizes in perfdata become seconds and bytes. A process that
//! leaves the group (`setsid`) is not killed. One that the kernel cannot kill (state D) is left
//! behind and reaped when it ends.

mod kept;
mod reason;
mod state_directory;

use std::{
    collections::BTreeMap,
    fmt, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use dogwatch_checks::{CheckResult, State, output};
use kept::{Complaints, Printed};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, Interest, unix::AsyncFd},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

/// An external program, its arguments and its environment.
#[derive(Clone)]
pub struct Plugin {
    /// The program and its arguments. Never empty. A program name without a slash is looked up in
    /// [`PATH`].
    argv: Vec<String>,
    /// Added to the empty environment. Secrets belong here: everyone on the host can read `argv`.
    env: BTreeMap<String, String>,
    /// The state if the plugin times out; UNKNOWN by default.
    timeout_state: State,
    /// For files that it keeps between its runs; created when it runs.
    state_directory: Option<PathBuf>,
    role: Role,
}

/// What a program is for. Any exit code but 0 is a failure of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Plugin,
    Handler,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plugin => "plugin",
            Self::Handler => "handler",
        })
    }
}

/// How much output is kept: as much as NRPE can carry.
pub const OUTPUT_MAX: usize = 64 * 1_024;
/// How much of the end of stderr is kept: enough for its last lines.
pub const STDERR_MAX: usize = 4 * 1_024;
/// Between SIGTERM and SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);
/// The directory of the plugins, then the path of a Debian service.
pub const PATH: &str = "/usr/lib/nagios/plugins:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A process that has not ended this long after SIGKILL counts as unkillable.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Why a plugin in the config is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    #[error("is empty")]
    Empty,
    #[error("contains a NUL byte")]
    Nul,
    #[error("environment variable {0:?} is invalid: a name must not be empty or contain `=`")]
    EnvName(String),
}

impl Plugin {
    pub fn new(
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        timeout_state: State,
    ) -> Result<Self, PluginError> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(PluginError::Empty);
        }
        if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return Err(PluginError::EnvName(name.clone()));
        }
        if argv.iter().chain(env.keys()).chain(env.values()).any(|text| text.contains('\0')) {
            return Err(PluginError::Nul);
        }
        Ok(Self { argv, env, timeout_state, state_directory: None, role: Role::Plugin })
    }

    /// The same command with these variables, unless the config sets them.
    #[must_use]
    pub fn about(mut self, variables: [(&str, String); 3]) -> Self {
        for (name, value) in variables {
            // A NUL cannot be passed; a service has no such name.
            self.env.entry(name.to_owned()).or_insert_with(|| value.replace('\0', ""));
        }
        self
    }

    /// The command of a handler.
    pub fn handler(argv: Vec<String>, env: BTreeMap<String, String>) -> Result<Self, PluginError> {
        Ok(Self { role: Role::Handler, ..Self::new(argv, env, State::Unknown)? })
    }

    /// Gives the plugin a private directory below the state directory of the agent, for the files
    /// that it keeps between its runs and for temporary files. `check` is the name of the check.
    #[must_use]
    pub fn with_state_directory(mut self, agent: &Path, check: &str) -> Self {
        self.state_directory = Some(state_directory::of(agent, check));
        self
    }

    /// The program and its arguments.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// The file of a program, looked up as for the plugin itself.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        if program.contains('/') {
            return Some(Path::new("/").join(program)).filter(|path| path.exists());
        }
        let path = self.env.get("PATH").map_or(PATH, String::as_str);
        path.split(':').map(|folder| Path::new(folder).join(program)).find(|file| file.exists())
    }

    /// Why the program cannot be run, as far as can be told without running it.
    pub fn missing(&self) -> Option<String> {
        let program = self.argv.first()?;
        let found = self.find(program).is_some();
        let path = self.env.get("PATH").map_or(PATH, String::as_str);
        let place = if program.contains('/') { String::new() } else { format!(" in {path}") };
        (!found).then(|| format!("there is no program {program}{place}"))
    }

    /// Runs the plugin once. Returns at the latest [`TERM_GRACE`] and a second after `deadline`.
    pub async fn run(&self, deadline: Duration) -> CheckResult {
        let mut running = match self.start() {
            Ok(running) => running,
            Err(error) => return CheckResult::unknown(reason::not_started(self.program(), &error)),
        };
        let end = running.finish(deadline).await;
        self.verdict(end, &running.printed, &running.complaints)
    }

    fn program(&self) -> reason::Program<'_> {
        let path = self.env.get("PATH").map_or(PATH, String::as_str);
        reason::Program { role: self.role, name: &self.argv[0], path }
    }

    fn start(&self) -> io::Result<Running> {
        let directory = self.state_directory.as_deref().map(state_directory::environment);
        let mut child = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .envs(directory.into_iter().flatten())
            .envs(&self.env)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // An error from here on drops the child, which kills and reaps it.
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
        let ended = watch(pidfd_open(pid, PidfdFlags::empty())?)?;
        let group = Group(Some(pid));
        let (printed, complaints) = (Printed::default(), Complaints::default());
        Ok(Running { group, child, ended, stdout, stderr, printed, complaints })
    }

    fn verdict(&self, end: End, printed: &Printed, complaints: &Complaints) -> CheckResult {
        let role = self.role;
        let (state, reason) = match end {
            End::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => match State::from_exit_code(code) {
                    Some(state) => {
                        let mut result = complaints.added_to(printed.parse(state));
                        if role == Role::Handler && state != State::Ok {
                            let why = reason::exit_code(code, self.program());
                            let said = std::mem::take(&mut result.summary);
                            result.summary =
                                if said == output::NO_OUTPUT { why } else { format!("{why}: {said}") };
                        }
                        return result;
                    }
                    None => (State::Unknown, reason::exit_code(code, self.program())),
                },
                (None, Some(signal)) => (State::Unknown, format!("{role} was killed by signal {signal}")),
                (None, None) => (State::Unknown, format!("{role} ended without an exit code")),
            },
            End::Deadline(after) => {
                (self.timeout_state, format!("{role} timed out after {}", seconds(after)))
            }
            End::Unkillable(after) => (
                self.timeout_state,
                format!(
                    "{role} timed out after {} and cannot be killed: it hangs in the kernel",
                    seconds(after)
                ),
            ),
            End::Lost(error) => (State::Unknown, format!("cannot wait for the {role}: {error}")),
        };
        let mut result = CheckResult::new(state, reason);
        if !printed.is_empty() {
            let said = printed.parse(state);
            format!("output: {}\n{}", said.summary, said.detail).trim_end().clone_into(&mut result.detail);
        }
        complaints.added_to(result)
    }
}

/// Without the values of the environment, because they may be secrets.
impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<_> = self.env.keys().collect();
        f.debug_struct("Plugin").field("argv", &self.argv).field("env", &env).finish_non_exhaustive()
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// How a run ended.
enum End {
    Exited(ExitStatus),
    /// Stopped after this time.
    Deadline(Duration),
    /// Still running after SIGKILL.
    Unkillable(Duration),
    Lost(io::Error),
}

/// A running plugin.
struct Running {
    /// The first field, so that it is dropped before the child is reaped.
    group: Group,
    child: Child,
    /// Readable when the plugin has ended. Unlike `Child::wait` this does not reap, so the kernel
    /// cannot reuse the id of the group before the rest of the group is killed.
    ended: AsyncFd<OwnedFd>,
    /// The pipes; `None` after the other side has closed it.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    printed: Printed,
    complaints: Complaints,
}

impl Running {
    async fn finish(&mut self, deadline: Duration) -> End {
        let in_time = timeout(deadline, self.wait_and_read()).await;
        let stopped = match in_time {
            Ok(ended) => ended.map(|()| false),
            Err(_) => match self.stop().await {
                Ok(true) => Ok(true),
                Ok(false) => return End::Unkillable(deadline),
                Err(error) => Err(error),
            },
        };
        let stopped = match stopped {
            Ok(stopped) => stopped,
            Err(error) => return End::Lost(error),
        };
        self.drain();
        self.group.kill();
        match self.child.wait().await {
            Ok(_) if stopped => End::Deadline(deadline),
            Ok(status) => End::Exited(status),
            Err(error) => End::Lost(error),
        }
    }

    /// Sends TERM, then KILL. Returns whether the plugin has ended.
    async fn stop(&mut self) -> io::Result<bool> {
        self.group.signal(Signal::TERM);
        if let Ok(ended) = timeout(TERM_GRACE, self.wait_and_read()).await {
            return ended.map(|()| true);
        }
        self.group.signal(Signal::KILL);
        match timeout(KILL_GRACE, self.wait_and_read()).await {
            Ok(ended) => ended.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Reads until the plugin itself has ended, even if another process still holds the pipe.
    async fn wait_and_read(&mut self) -> io::Result<()> {
        let (mut out, mut err) = ([0; 4_096], [0; 1_024]);
        loop {
            tokio::select! {
                ended = self.ended.readable() => return ended.map(drop),
                length = read(&mut self.stdout, &mut out) => self.printed.push(&out[..length?]),
                length = read(&mut self.stderr, &mut err) => self.complaints.push(&err[..length?]),
            }
        }
    }

    /// Reads what is left in the pipes, without waiting for more.
    fn drain(&mut self) {
        drain(self.stdout.take(), |bytes| {
            self.printed.push(bytes);
            !self.printed.cut
        });
        drain(self.stderr.take(), |bytes| {
            self.complaints.push(bytes);
            true
        });
    }
}

/// Reads once. A closed pipe becomes `None`, which is never ready.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> io::Result<usize> {
    let Some(open) = pipe else { return std::future::pending().await };
    let length = open.read(buffer).await?;
    if length == 0 {
        *pipe = None;
    }
    Ok(length)
}

/// Passes on what is in a pipe. Bounded, because a grandchild may go on printing.
fn drain(pipe: Option<impl AsFd>, mut push: impl FnMut(&[u8]) -> bool) {
    let Some(pipe) = pipe else { return };
    let mut buffer = [0; 4_096];
    for _ in 0..=PIPE_BYTES_MAX / buffer.len() {
        match rustix::io::read(&pipe, &mut buffer) {
            Ok(0) => break,
            Ok(length) if !push(&buffer[..length]) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
}

/// The capacity of a pipe on Linux, unless someone has changed it.
const PIPE_BYTES_MAX: usize = 64 * 1_024;

#[expect(
    deprecated,
    reason = "unsound only for a descriptor that closes itself; the new name for it is an unsafe fn"
)]
pub(crate) fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// The process group of a plugin. Valid until its leader is reaped: then the id may be reused.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // An error means that no process is left.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Kills what is left. No signal is sent after this.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
