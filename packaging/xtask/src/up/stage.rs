//! Where the three daemons live when they do not live in `/run`, `/var/lib` and `/etc`: one folder,
//! loopback ports above 1024, unix sockets, generated configs. Used by `up` and by `bench`.

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

/// One folder with all that the daemons need.
pub(crate) struct Stage {
    /// As given: relative to the checkout, so that paths in configs and messages are short.
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    /// The upstream behind ours; `None` if this host has none.
    pub(crate) upstream: Option<SocketAddr>,
    /// Where the programs are.
    pub(crate) binaries: PathBuf,
}

impl Stage {
    pub(crate) fn dns(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn relay(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + 1).into()
    }

    /// Where a part's metrics page is.
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

    /// Where the maildir receiver delivers.
    pub(crate) fn mail(&self) -> PathBuf {
        self.dir.join("mail")
    }

    /// Says which port or socket somebody else has, before anything starts.
    pub(crate) fn is_free(&self) -> Result<()> {
        for part in PARTS {
            if let Ok(pid) = fs::read_to_string(sh::root().join(self.pid_file(part)))
                && is_ours(&pid)
            {
                bail!("{} still runs from an earlier start: kill {pid}", part.name());
            }
            let socket = sh::root().join(self.socket(part));
            if UnixStream::connect(&socket).is_ok() {
                bail!("somebody listens on {}: stop it, or give another --dir", socket.display());
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
            "port {} is in use: stop what listens there, or give another --port, such as {other}",
            address.port()
        )
    }

    /// Starts a part in a process group of its own, so that Ctrl-C reaches only us, and waits until
    /// it serves.
    pub(crate) fn start(&self, part: Part) -> Result<Child> {
        let log = fs::OpenOptions::new().create(true).append(true).open(sh::root().join(self.log(part)))?;
        let mut command = self.command(part);
        // The mode of sockets and files is the daemons' business, not the umask's of whoever
        // started us.
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
            bail!("{} ended at once ({status}):\n{}", part.name(), self.last_lines(part));
        }
        if !ready {
            stop(&mut child);
            bail!(
                "{} does not serve after {} s:\n{}",
                part.name(),
                READY_LIMIT.as_secs(),
                self.last_lines(part)
            );
        }
        Ok(child)
    }

    fn command(&self, part: Part) -> Command {
        if part == Part::Upstream {
            // This very program, even if cargo has put a newer one in its place meanwhile.
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

    /// The end of a part's log.
    pub(crate) fn last_lines(&self, part: Part) -> String {
        let text = fs::read_to_string(sh::root().join(self.log(part))).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        lines[from..].iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// Asks a process to stop, waits, and ends it if it does not.
pub(crate) fn stop(child: &mut Child) {
    terminate(child);
    wait_or_kill(child);
}

/// Asks a process to stop.
pub(crate) fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Waits for a process that was asked to stop. Returns whether it obeyed.
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

/// Whether a process of that number is one of ours (numbers are used again).
fn is_ours(pid: &str) -> bool {
    let name = fs::read_to_string(Path::new("/proc").join(pid).join("comm")).unwrap_or_default();
    !pid.is_empty() && ["dogwatch", "alertd", "exe"].contains(&name.trim())
}
