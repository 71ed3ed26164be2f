//! The checks of the bench, natively and as plugins.

use std::{fmt::Write as _, net::SocketAddr};

/// The usual number of checks on a host.
pub(super) const FEW: usize = 50;
/// Their interval in seconds.
pub(super) const EVERY_S: u64 = 30;

/// The directory of monitoring-plugins in Debian.
const PLUGINS: &str = "/usr/lib/nagios/plugins";

/// A check that both the agent and monitoring-plugins have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    Disk,
    Swap,
    Tcp,
    Procs,
}

impl Kind {
    /// The kinds of a mix of cheap checks, in turn.
    pub(super) fn mixed(number: usize) -> Self {
        [Self::Load, Self::Disk, Self::Swap, Self::Tcp][number % 4]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Disk => "disk /",
            Self::Swap => "swap",
            Self::Tcp => "tcp",
            Self::Procs => "procs",
        }
    }

    /// The lines of a native check.
    pub(super) fn native(self, target: SocketAddr) -> String {
        match self {
            Self::Load => "kind = \"load\"".into(),
            Self::Disk => "kind = \"disk\"\npath = \"/\"".into(),
            Self::Swap => "kind = \"swap\"".into(),
            Self::Tcp => format!("kind = \"tcp\"\nhost = \"{}\"\nport = {}", target.ip(), target.port()),
            Self::Procs => "kind = \"procs\"".into(),
        }
    }

    /// The command line of the plugin, with thresholds that nothing exceeds.
    pub(super) fn plugin(self, target: SocketAddr) -> Vec<String> {
        let (ip, port) = (target.ip().to_string(), target.port().to_string());
        let words: Vec<&str> = match self {
            Self::Load => vec!["check_load", "-w", "1000", "-c", "2000"],
            Self::Disk => vec!["check_disk", "-w", "1%", "-c", "1%", "-p", "/"],
            Self::Swap => vec!["check_swap", "-w", "0", "-c", "0"],
            Self::Tcp => vec!["check_tcp", "-H", &ip, "-p", &port],
            Self::Procs => vec!["check_procs", "-w", "100000", "-c", "200000"],
        };
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words[0] = format!("{PLUGINS}/{}", words[0]);
        words
    }
}

/// `[defaults]` and this many checks, each of the kind that `kind` names for its number.
pub(super) fn config(
    count: usize,
    every: &str,
    plugins: bool,
    target: SocketAddr,
    kind: impl Fn(usize) -> Kind,
) -> String {
    let mut text = format!("[defaults]\ninterval = \"{every}\"\nretry_interval = \"{every}\"\n");
    for number in 0..count {
        let kind = kind(number);
        let lines = if plugins {
            format!("kind = \"plugin\"\ncommand = {:?}", kind.plugin(target))
        } else {
            kind.native(target)
        };
        let _ = writeln!(text, "\n[check.bench-{number}]\n{lines}");
    }
    text
}
