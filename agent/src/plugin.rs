//! Runs an external plugin (any program that keeps the Nagios plugin contract) and reads its verdict.
//!
//! Promises, whatever the plugin does:
//! - no shell; a cleared environment (`LC_ALL=C`, a fixed `PATH`, what the config names), `/` as directory, nothing on stdin;
//! - at most [`OUTPUT_MAX`] bytes of stdout are kept, the rest is read and thrown away, so a flood blocks nobody; stderr
//!   goes nowhere;
//! - its process group is its own, and whatever is still in it when the plugin ends is killed; at the deadline the group
//!   gets SIGTERM, and [`TERM_GRACE`] later SIGKILL; a grandchild that keeps the pipe open is not waited for;
//! - the plugin is always reaped; dropping the future kills the group at once.
//!
//! Exit codes 0 to 3 are the verdict. Anything else (4 and up, a signal, a missing program, the deadline) means that the
//! plugin could not look: UNKNOWN with the reason as first line, what it printed as detail. Deliberately not done: a
//! process that left the group (`setsid`) is not hunted, and one that the kernel cannot kill (state D) is left behind to
//! be reaped when it ends.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use dogwatch_checks::{CheckResult, State, output};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::{
    io::{AsyncReadExt as _, Interest, unix::AsyncFd},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// An external program and what it is told.
#[derive(Clone)]
pub struct Plugin {
    /// The program and its arguments. Never empty. A bare program name is looked for in [`PATH`].
    argv: Vec<String>,
    /// Added to the cleared environment: the place for secrets, which in `argv` everybody on the host could read.
    env: BTreeMap<String, String>,
    /// What reaching the deadline means. UNKNOWN unless the operator says otherwise.
    timeout_state: State,
}

/// Kept of what a plugin prints: what NRPE carries at most.
pub const OUTPUT_MAX: usize = 64 * 1_024;
/// How long a plugin may take to die nicely.
pub const TERM_GRACE: Duration = Duration::from_secs(2);
/// Where programs are looked for: the plugins' own directory first, then as Debian has it for a service.
pub const PATH: &str = "/usr/lib/nagios/plugins:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the kernel may take to end a process that got SIGKILL before it counts as unkillable.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Why a config's plugin is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    #[error("names no program; write an array like [\"check_ping\", \"-H\", \"db1\"]")]
    Empty,
    #[error("holds a NUL byte, which no argument can")]
    Nul,
    #[error("environment variable {0:?} cannot exist: a name is not empty and holds no `=`")]
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
        Ok(Self { argv, env, timeout_state })
    }

    /// Runs the plugin once. Answers at the latest [`TERM_GRACE`] and a second after `deadline`.
    pub async fn run(&self, deadline: Duration) -> CheckResult {
        let mut running = match self.start() {
            Ok(running) => running,
            Err(error) => return CheckResult::unknown(self.could_not_start(&error)),
        };
        let end = running.finish(deadline).await;
        self.verdict(end, &running.printed.kept)
    }

    fn start(&self) -> io::Result<Running> {
        let mut child = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .envs(&self.env)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // A failure past this point drops the child, which kills and reaps it.
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
        let ended = watch(pidfd_open(pid, PidfdFlags::empty())?)?;
        let group = Group(Some(pid));
        Ok(Running { group, child, ended, stdout: Some(stdout), printed: Printed::default() })
    }

    fn could_not_start(&self, error: &io::Error) -> String {
        let program = &self.argv[0];
        match error.kind() {
            ErrorKind::NotFound => format!("plugin {program:?} does not exist"),
            ErrorKind::PermissionDenied => format!("plugin {program:?} may not be executed"),
            _ => format!("plugin {program:?} could not be started: {error}"),
        }
    }

    fn verdict(&self, end: End, printed: &[u8]) -> CheckResult {
        let (state, reason) = match end {
            End::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => match State::from_exit_code(code) {
                    Some(state) => return output::parse(state, printed),
                    None => (State::Unknown, out_of_contract(code)),
                },
                (None, Some(signal)) => (State::Unknown, format!("plugin died by signal {signal}")),
                (None, None) => (State::Unknown, "plugin ended in a way nobody knows".to_owned()),
            },
            End::Deadline(after) => {
                (self.timeout_state, format!("plugin was stopped after {}", seconds(after)))
            }
            End::Unkillable(after) => (
                self.timeout_state,
                format!(
                    "plugin was killed after {} and does not die: it hangs in the kernel",
                    seconds(after)
                ),
            ),
            End::Lost(error) => (State::Unknown, format!("plugin could not be waited for: {error}")),
        };
        let result = CheckResult::new(state, reason);
        if printed.is_empty() {
            return result;
        }
        let said = output::parse(state, printed);
        result.with_detail(format!("it printed: {}\n{}", said.summary, said.detail).trim_end())
    }
}

/// Without the values of the environment: they may be secrets.
impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<_> = self.env.keys().collect();
        f.debug_struct("Plugin").field("argv", &self.argv).field("env", &env).finish_non_exhaustive()
    }
}

fn out_of_contract(code: i32) -> String {
    let meaning = match code {
        126 => " (its wrapper may not execute a command)",
        127 => " (its wrapper misses a command)",
        128.. => " (its wrapper saw a command die by a signal)",
        _ => "",
    };
    format!("plugin exited with {code}, which is not a state{meaning}")
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// How a run ended.
enum End {
    Exited(ExitStatus),
    /// Stopped by us after this long.
    Deadline(Duration),
    /// SIGKILL did not end it.
    Unkillable(Duration),
    Lost(io::Error),
}

/// A started plugin.
struct Running {
    /// First, so that it is dropped first: before the child is reaped.
    group: Group,
    child: Child,
    /// Readable once the plugin has ended. Unlike `Child::wait` it does not reap, so the group's id cannot be given to
    /// somebody else before the rest of the group is killed.
    ended: AsyncFd<OwnedFd>,
    /// `None` once closed by the other side.
    stdout: Option<ChildStdout>,
    printed: Printed,
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

    /// TERM, then KILL. Whether the plugin is dead.
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

    /// Reads until the plugin itself has ended, whoever else still holds the pipe.
    async fn wait_and_read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4_096];
        loop {
            let Some(stdout) = self.stdout.as_mut() else {
                return self.ended.readable().await.map(drop);
            };
            tokio::select! {
                ended = self.ended.readable() => return ended.map(drop),
                read = stdout.read(&mut buffer) => match read {
                    Ok(0) => self.stdout = None,
                    Ok(length) => self.printed.push(&buffer[..length]),
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Takes what is left in the pipe after the end, without waiting for more. Bounded: a grandchild may go on printing.
    fn drain(&mut self) {
        let Some(stdout) = self.stdout.take() else { return };
        let mut buffer = [0; 4_096];
        while !self.printed.is_full() {
            match rustix::io::read(&stdout, &mut buffer) {
                Ok(0) => break,
                Ok(length) => self.printed.push(&buffer[..length]),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "unsound only for a descriptor that closes itself; the new name for it is an unsafe fn"
)]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// The first [`OUTPUT_MAX`] bytes.
#[derive(Default)]
struct Printed {
    kept: Vec<u8>,
}

impl Printed {
    fn push(&mut self, bytes: &[u8]) {
        let room = OUTPUT_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn is_full(&self) -> bool {
        self.kept.len() >= OUTPUT_MAX
    }
}

/// The plugin's process group, as long as its leader is not reaped: after that the number may mean somebody else.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // It fails when nobody is left, which is what is wanted.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Kills who is left. Nothing is signalled after this.
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
