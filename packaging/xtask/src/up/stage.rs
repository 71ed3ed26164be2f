//! One directory with everything that the daemons need: loopback ports above 1024, unix sockets,
//! generated configs. Used by `up` and `bench`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::part::{PARTS, Part};
use crate::{clock, sh};

const READY_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// One directory with everything that the daemons need.
pub(crate) struct Stage {
    /// As given: relative to the checkout, so that paths in configs and messages are short.
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    /// The upstream to which our relay forwards; `None` if this host has none.
    pub(crate) upstream: Option<SocketAddr>,
    /// The directory of the programs.
    pub(crate) binaries: PathBuf,
}

impl Stage {
    pub(crate) fn dns(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn relay(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + 1).into()
    }

    /// The address of a daemon's metrics page.
    pub(crate) fn metrics(&self, part: Part) -> SocketAddr {
        let offset = match part {
            Part::Upstream | Part::Agent => 47,
            Part::Alertd => 48,
            Part::Dns => 49,
        };
        (Ipv4Addr::LOCALHOST, self.port + offset).into()
    }

    pub(crate) fn socket(&self, part: Part) -> PathBuf {
        self.dir.join("run").join(format!("{}.sock", part.file()))
    }

    pub(crate) fn log(&self, part: Part) -> PathBuf {
        self.dir.join("log").join(format!("{}.log", part.file()))
    }

    pub(crate) fn config(&self, part: Part) -> PathBuf {
        self.dir.join("etc").join(format!("{}.toml", part.file()))
    }

    pub(crate) fn state(&self, part: Part) -> PathBuf {
        self.dir.join("lib").join(part.file())
    }

    pub(crate) fn pid_file(&self, part: Part) -> PathBuf {
        self.dir.join(format!("{}.pid", part.file()))
    }

    /// The directory of the maildir receiver.
    pub(crate) fn mail(&self) -> PathBuf {
        self.dir.join("mail")
    }

    /// Fails if a port or socket is in use, before anything starts.
    pub(crate) fn is_free(&self) -> Result<()> {
        for part in PARTS {
            if let Ok(pid) = fs::read_to_string(sh::root().join(self.pid_file(part)))
                && is_ours(&pid)
            {
                bail!("{} is still running from an earlier start: kill {pid}", part.name());
            }
            let socket = sh::root().join(self.socket(part));
            if UnixStream::connect(&socket).is_ok() {
                bail!(
                    "{} is in use: stop the process that listens on it, or use another --dir",
                    socket.display()
                );
            }
        }
        for address in [self.dns(), self.relay()] {
            let udp = UdpSocket::bind(address).map(drop);
            udp.and_then(|()| TcpListener::bind(address).map(drop)).with_context(|| self.in_use(address))?;
        }
        for part in [Part::Agent, Part::Alertd, Part::Dns] {
            let address = self.metrics(part);
            TcpListener::bind(address).with_context(|| self.in_use(address))?;
        }
        Ok(())
    }

    fn in_use(&self, address: SocketAddr) -> String {
        let other = if self.port < 60000 { self.port + 100 } else { 5300 };
        format!(
            "port {} is in use: stop the process that listens on it, or use another --port, for example {other}",
            address.port()
        )
    }

    /// Starts a daemon in its own process group, so that Ctrl-C reaches only xtask, and waits until
    /// it answers.
    pub(crate) fn start(&self, part: Part) -> Result<Child> {
        let log = fs::OpenOptions::new().create(true).append(true).open(sh::root().join(self.log(part)))?;
        let mut command = self.command(part);
        let mut child = std::os::unix::process::CommandExt::process_group(&mut command, 0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", part.name()))?;
        fs::write(sh::root().join(self.pid_file(part)), child.id().to_string())?;
        let mut ended = None;
        let ready = sh::wait_until(READY_LIMIT, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || self.serves(part)
        });
        if let Some(status) = ended {
            bail!("{} exited at once ({status}):\n{}", part.name(), self.last_lines(part));
        }
        if !ready {
            stop(&mut child);
            bail!(
                "{} does not answer after {} s:\n{}",
                part.name(),
                READY_LIMIT.as_secs(),
                self.last_lines(part)
            );
        }
        Ok(child)
    }

    fn command(&self, part: Part) -> Command {
        if part == Part::Upstream {
            // This program, even if cargo has replaced the file meanwhile.
            let mut command = sh::command(&["/proc/self/exe"]);
            command.arg("relay").arg("--listen").arg(self.relay().to_string());
            if let Some(to) = self.upstream {
                command.arg("--to").arg(to.to_string());
            }
            return command;
        }
        let program = if part == Part::Alertd { "alertd" } else { "dogwatch" };
        let mut command = sh::command(&[self.binaries.join(program)]);
        match part {
            Part::Dns => command.arg("dns"),
            Part::Agent => command.arg("run"),
            Part::Alertd | Part::Upstream => &mut command,
        };
        command.arg("--config").arg(self.config(part));
        command
    }

    fn serves(&self, part: Part) -> bool {
        match part {
            Part::Upstream => {
                crate::upstream::exchange(self.relay(), 1, "up.demo.test", Duration::from_secs(1)).is_ok()
            }
            Part::Dns => crate::upstream::exchange(self.dns(), 1, "up.demo.test", Duration::from_secs(2))
                .is_ok_and(|reply| reply.rcode == 0),
            Part::Alertd | Part::Agent => UnixStream::connect(sh::root().join(self.socket(part))).is_ok(),
        }
    }

    /// The last lines of a daemon's log.
    pub(crate) fn last_lines(&self, part: Part) -> String {
        let text = fs::read_to_string(sh::root().join(self.log(part))).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        lines[from..].iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// Sends SIGTERM, waits, and kills the process if it does not exit.
pub(crate) fn stop(child: &mut Child) {
    terminate(child);
    wait_or_kill(child);
}

/// Sends SIGTERM.
pub(crate) fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Waits for a process after SIGTERM and kills it if it does not exit. Returns whether it exited.
pub(crate) fn wait_or_kill(child: &mut Child) -> bool {
    let from = clock::now();
    let obeyed = sh::wait_until(STOP_LIMIT, || !matches!(child.try_wait(), Ok(None)));
    if !obeyed {
        eprintln!("process {} did not stop within {}: killing it", child.id(), clock::took(from));
        let _ = child.kill();
        let _ = child.wait();
    }
    obeyed
}

/// Whether this pid is one of our processes and not a reused number.
fn is_ours(pid: &str) -> bool {
    let name = fs::read_to_string(Path::new("/proc").join(pid).join("comm")).unwrap_or_default();
    !pid.is_empty() && ["dogwatch", "alertd", "exe"].contains(&name.trim())
}
