//! `agent.toml`: from the text ([`file`]) to a valid [`Config`], or to all problems at once, each
//! with its position.
//!
//! Nothing else validates a [`Config`]. The defaults and their reasons are in [`resolve`].

mod check;
mod file;
mod resolve;
mod sandbox;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dogwatch_checks::{Host, Lane, Pattern, pattern};
use dogwatch_daemon::config::{self, Problems};

use crate::{flapping::Thresholds, handler::Handler, plugin::Plugin, schedule::Timing};

pub use sandbox::Sandbox;

/// The valid config of `dogwatch run`.
#[derive(Debug, Clone)]
pub struct Config {
    pub agent: Agent,
    pub alertd: Alertd,
    /// Control socket of `dogwatch dns`.
    pub dns_control: PathBuf,
    pub checks: BTreeMap<Arc<str>, Check>,
    /// The checks include the built-in ones, so the agent looks from time to time for new things to
    /// check.
    pub auto_checks: bool,
    /// Built-in checks that are gone because a check of another kind has their name.
    pub replaced: Vec<Arc<str>>,
    /// Built-in checks that a file switches off, and where.
    pub off: BTreeMap<Arc<str>, Origin>,
    /// Built-in checks that a file changes but that this host has nothing for, and why.
    pub absent: BTreeMap<Arc<str>, String>,
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
        let nothing = self.checks.is_empty().then(|| nothing.to_owned());
        let replaced = self.replaced.iter().filter_map(|name| {
            let check = self.checks.get(name)?;
            Some(format!(
                "[check.{name}] at {} has kind {:?} and replaces the built-in check of that name; \
                 use another name to keep both",
                check.origin, check.kind
            ))
        });
        let programs = self.checks.iter().flat_map(|(name, check)| {
            let plugin = match &check.work {
                Work::Plugin(plugin) => plugin.missing(),
                _ => None,
            };
            let handler = check.settings.handler.as_ref().and_then(|handler| handler.command.missing());
            let place = move |why: String| format!("[check.{name}] at {}: {why}", check.origin);
            plugin.into_iter().chain(handler).map(place)
        });
        let token = self.alertd.remote.iter().filter(|remote| !remote.token_file.exists()).map(|remote| {
            format!(
                "token_file {} does not exist; nothing can be reported without it",
                remote.token_file.display()
            )
        });
        nothing.into_iter().chain(replaced).chain(programs).chain(token).collect()
    }

    /// What the unit of the agent forbids to plugins and handlers.
    pub fn forbidden(&self, sandbox: &Sandbox) -> Vec<String> {
        let forbidden = self.checks.iter().flat_map(|(name, check)| {
            let plugin = match &check.work {
                Work::Plugin(plugin) => Some(plugin),
                _ => None,
            };
            let settings = [&check.settings]
                .into_iter()
                .chain(check.things.iter().filter_map(|(_, some)| some.as_ref()));
            let handlers = settings.filter_map(|settings| Some(&settings.handler.as_ref()?.command));
            plugin.into_iter().chain(handlers).flat_map(move |plugin| {
                let programs = sandbox::programs(plugin.argv(), |word| plugin.find(word));
                let why = sandbox.forbids(plugin.argv(), &programs);
                why.into_iter().map(move |why| format!("[check.{name}] at {}: {why}", check.origin))
            })
        });
        let mut forbidden: Vec<_> = forbidden.collect();
        // A handler counts for all things that have none of their own.
        forbidden.dedup();
        forbidden
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// The name in alerts.
    pub host: String,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    /// `None`: no metrics page.
    pub metrics: Option<SocketAddr>,
    pub machine_id_file: PathBuf,
    /// For this long after a boot or a suspend, no problem becomes hard.
    pub boot_grace: Duration,
    /// How many plugins run at once.
    pub max_concurrent: usize,
    /// JSON size of the events to keep while alertd does not answer.
    pub spool_bytes_max: usize,
    /// Keep the values of the services in [`crate::history`].
    pub history: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alertd {
    /// Tried in this order for every batch. Empty with a `remote`.
    pub sockets: Vec<PathBuf>,
    pub remote: Option<RemoteAlertd>,
    pub heartbeat: Duration,
    /// For a batch and its answer.
    pub timeout: Duration,
}

/// An alertd on another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAlertd {
    pub url: String,
    pub token_file: PathBuf,
    /// The CAs to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// One check of this host. It has one service, or one for each thing that it finds.
#[derive(Debug, Clone)]
pub struct Check {
    pub kind: String,
    pub work: Work,
    pub lane: Lane,
    /// It has a service for each thing, and none of its own as long as it can read the host.
    pub has_things: bool,
    pub timing: Timing,
    pub timeout: Duration,
    pub settings: Settings,
    /// Other settings for the things that match a pattern; `None`: they are not watched.
    pub things: Vec<(Pattern, Option<Settings>)>,
    pub origin: Origin,
    /// Hash of what the check does. When it changes, what is known of the check no longer counts.
    pub definition: u64,
}

/// What follows from the results of a service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many problem results in a row make a problem hard.
    pub max_attempts: u8,
    /// How long a problem must last to become hard. `None`: as the check says, which may be
    /// `max_attempts` results.
    pub lasting: Option<Duration>,
    /// The config says how many results make a problem hard, whatever the check says.
    pub counts: bool,
    pub flapping: Option<Thresholds>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// What to run when it becomes a problem.
    pub handler: Option<Arc<Handler<Plugin>>>,
}

impl Check {
    /// The settings for a thing; `None` if it is switched off.
    pub fn settings(&self, thing: Option<&str>) -> Option<&Settings> {
        match thing {
            None => Some(&self.settings),
            Some(thing) => match pattern::best(&self.things, thing) {
                Some(settings) => settings.as_ref(),
                None => Some(&self.settings),
            },
        }
    }
}

/// Where the results come from.
#[derive(Debug, Clone)]
pub enum Work {
    /// A check of dogwatch.
    Native(dogwatch_checks::Check),
    /// An external program.
    Plugin(Plugin),
    /// `dogwatch submit`.
    Passive(Passive),
    /// `dogwatch job`: a service for each job that has reported.
    Jobs(Passive),
    /// The agent checks itself.
    Own,
}

/// A service whose results are submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passive {
    /// How long a result without a TTL is valid; `None` means forever.
    pub freshness: Option<Duration>,
    /// Users who may submit results, besides root and the agent's own user.
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
    let files = read(path, &mut problems);
    let config = resolve::resolve(&files, &system_host_name(), host, &mut problems);
    problems.or(config)
}

fn read(path: &Path, problems: &mut Problems) -> Vec<(config::Source, file::ConfigFile)> {
    config::load(path, Path::new(DEFAULT_PATH), problems)
}

/// Why there is no config at a path that was named.
pub fn missing(path: &Path) -> Option<String> {
    let why = config::missing(path, Path::new(DEFAULT_PATH))?;
    Some(format!("{} {why}", path.display()))
}

/// The agent's socket, even if the rest of the config is invalid.
pub fn socket(path: &Path) -> PathBuf {
    let files = read(path, &mut Problems::default());
    let written = files.into_iter().rev().find_map(|(_, file)| file.agent.socket);
    written.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), |config::FilePath(path)| path)
}

/// Where the alertds of this host are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertdsAt {
    Sockets(Vec<PathBuf>),
    /// On another host.
    Remote {
        url: String,
        ca_file: Option<PathBuf>,
    },
}

/// The alertds of this host, even if the rest of the config is invalid.
pub fn alertds_at(path: &Path) -> AlertdsAt {
    let mut files = read(path, &mut Problems::default());
    let remote = files.iter().rev().find_map(|(_, file)| {
        let url = file.alertd.url.as_ref()?.get_ref().clone();
        let ca_file = file.alertd.ca_file.as_ref().map(|file| file.get_ref().0.clone());
        Some(AlertdsAt::Remote { url, ca_file })
    });
    remote.unwrap_or_else(|| {
        let sockets = files.iter_mut().rev().find_map(|(_, file)| file.alertd.sockets.take());
        let default = || vec![PathBuf::from(DEFAULT_ALERTD)];
        let paths = |written: toml::Spanned<Vec<config::FilePath>>| {
            written.into_inner().into_iter().map(|config::FilePath(path)| path).collect()
        };
        AlertdsAt::Sockets(sockets.map_or_else(default, paths))
    })
}

/// The host name from the kernel.
fn system_host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The id of the agent for alertd: 32 hex digits, derived from the machine id, which must stay
/// private (machine-id(5)).
pub fn agent_id(machine_id_file: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(machine_id_file)?;
    let machine_id = text.trim();
    if machine_id.len() != 32 || !machine_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = format!(
            "{} does not contain a machine id (32 hex digits); run systemd-machine-id-setup",
            machine_id_file.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let digest =
        ring::digest::digest(&ring::digest::SHA256, format!("dogwatch agent {machine_id}").as_bytes());
    Ok(data_encoding::HEXLOWER.encode(&digest.as_ref()[..16]))
}

/// The socket of the packaged alertd.
const DEFAULT_ALERTD: &str = "/run/alertd/alertd.sock";
const DEFAULT_SOCKET: &str = "/run/dogwatch/agent.sock";

/// The path of the packaged config.
pub const DEFAULT_PATH: &str = "/etc/dogwatch/agent.toml";
