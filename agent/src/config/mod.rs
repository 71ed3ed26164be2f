//! `agent.toml`: as written ([`file`]) → as used ([`Config`]), or every problem at once, each with its place.
//!
//! Nothing after [`Config`] validates again. A default stands beside its reason in [`resolve`].

mod check;
mod file;
mod resolve;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dogwatch_checks::Host;
use dogwatch_daemon::config::{self, Problems};

use crate::{flapping::Thresholds, plugin::Plugin, schedule::Timing};

/// Everything `dogwatch run` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    pub agent: Agent,
    pub alertd: Alertd,
    /// Control socket of `dogwatch dns`.
    pub dns_control: PathBuf,
    pub checks: BTreeMap<Arc<str>, Check>,
    /// The checks include the built-in ones, so the agent looks from time to time for new things to check.
    pub auto_checks: bool,
}

impl Config {
    /// How many checks there are and where they come from: `12 checks: 7 built in, 5 from files`.
    pub fn summary(&self) -> String {
        let count = |is: fn(&Origin) -> bool| self.checks.values().filter(|check| is(&check.origin)).count();
        let files = count(|origin| matches!(origin, Origin::File { .. }));
        let changed = count(|origin| matches!(origin, Origin::Changed { .. }));
        let (all, built_in) = (self.checks.len(), self.checks.len() - files);
        let note = match changed {
            0 if !self.auto_checks => " (auto_checks = false)".to_owned(),
            0 => String::new(),
            _ => format!(" ({changed} changed in files)"),
        };
        let plural = if all == 1 { "" } else { "s" };
        format!("{all} check{plural}: {built_in} built in{note}, {files} from files")
    }

    /// What is valid but most likely a mistake.
    pub fn warnings(&self) -> Vec<String> {
        let nothing = "this host is not monitored: auto_checks is false and no [check.NAME] is configured";
        self.checks.is_empty().then(|| nothing.to_owned()).into_iter().collect()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// As people know it.
    pub host: String,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    /// `None`: no metrics page.
    pub metrics: Option<SocketAddr>,
    pub machine_id_file: PathBuf,
    /// After boot and after a long sleep no problem becomes hard for this long.
    pub boot_grace: Duration,
    /// Checks that run at once.
    pub max_concurrent: usize,
    /// JSON bytes of events kept for an alertd that does not answer.
    pub spool_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alertd {
    /// Tried in order at every batch; empty with a `remote`.
    pub sockets: Vec<PathBuf>,
    pub remote: Option<RemoteAlertd>,
    pub heartbeat: Duration,
    /// For one batch and its answer.
    pub timeout: Duration,
}

/// An alertd on another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAlertd {
    pub url: String,
    pub token_file: PathBuf,
    /// Whom to believe that it is that alertd; else this host's store.
    pub ca_file: Option<PathBuf>,
}

/// One service of this host.
#[derive(Debug, Clone)]
pub struct Check {
    pub kind: String,
    pub work: Work,
    pub timing: Timing,
    pub max_attempts: u8,
    pub timeout: Duration,
    pub flapping: Option<Thresholds>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub origin: Origin,
}

/// Where results come from.
#[derive(Debug, Clone)]
pub enum Work {
    /// Ours.
    Native(dogwatch_checks::Check),
    /// An external program.
    Plugin(Plugin),
    /// Somebody submits them.
    Passive(Passive),
}

/// A service that reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passive {
    /// How long a result holds that does not say so itself; `None`: for ever.
    pub freshness: Option<Duration>,
    /// Login names that may submit, besides root and the agent's own.
    pub submitters: Vec<String>,
}

/// Where a check comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in, because this host has what it checks.
    Auto,
    /// Built in, with settings from this file.
    Changed { path: PathBuf, line: usize },
    /// From this file.
    File { path: PathBuf, line: usize },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Changed { path, line } | Self::File { path, line } => {
                write!(f, "{}:{line}", path.display())
            }
        }
    }
}

/// Reads `path` and its drop-ins.
pub fn load(path: &Path, host: &Host) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let files = config::load::<file::ConfigFile>(path, &mut problems);
    let config = resolve::resolve(&files, &system_host_name(), host, &mut problems);
    problems.or(config)
}

/// The agent's socket: as `path` says, whatever else is wrong there.
pub fn socket(path: &Path) -> PathBuf {
    let files = config::load::<file::ConfigFile>(path, &mut Problems::default());
    let written = files.into_iter().rev().find_map(|(_, file)| file.agent.socket);
    written.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
}

/// Where this host's alertds are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertdsAt {
    Sockets(Vec<PathBuf>),
    /// On another host.
    Remote {
        url: String,
        ca_file: Option<PathBuf>,
    },
}

/// The alertds of an agent: as `path` says, whatever else is wrong there.
pub fn alertds_at(path: &Path) -> AlertdsAt {
    let mut files = config::load::<file::ConfigFile>(path, &mut Problems::default());
    let remote = files.iter().rev().find_map(|(_, file)| {
        let url = file.alertd.url.as_ref()?.get_ref().clone();
        let ca_file = file.alertd.ca_file.as_ref().map(|file| file.get_ref().clone());
        Some(AlertdsAt::Remote { url, ca_file })
    });
    remote.unwrap_or_else(|| {
        let sockets = files.iter_mut().rev().find_map(|(_, file)| file.alertd.sockets.take());
        let default = || vec![PathBuf::from(DEFAULT_ALERTD)];
        AlertdsAt::Sockets(sockets.map_or_else(default, toml::Spanned::into_inner))
    })
}

/// This machine's name as the kernel knows it.
fn system_host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The agent's identity at alertd: 32 hex digits from the machine id, which itself stays private (machine-id(5)).
pub fn agent_id(machine_id_file: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(machine_id_file)?;
    let machine_id = text.trim();
    if machine_id.len() != 32 || !machine_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = format!(
            "{} does not hold a machine id (32 hex digits); run systemd-machine-id-setup",
            machine_id_file.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let digest =
        ring::digest::digest(&ring::digest::SHA256, format!("dogwatch agent {machine_id}").as_bytes());
    Ok(data_encoding::HEXLOWER.encode(&digest.as_ref()[..16]))
}

/// Where the package's alertd listens.
const DEFAULT_ALERTD: &str = "/run/alertd/alertd.sock";
const DEFAULT_SOCKET: &str = "/run/dogwatch/agent.sock";

/// Where the package puts it.
pub const DEFAULT_PATH: &str = "/etc/dogwatch/agent.toml";
