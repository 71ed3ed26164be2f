//! The other monitoring agents, from Debian. Each runs in a mount namespace with its own `/run`;
//! those that listen on a fixed port also get a network namespace with nothing but loopback.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result, bail};

use super::checks::{self, Kind};
use crate::{files, process::daemon::Daemon, sh};

/// Where a peer finds what it needs.
pub(super) struct Place<'a> {
    /// A directory for configs and logs.
    pub(super) dir: &'a Path,
    /// The target of TCP checks.
    pub(super) target: SocketAddr,
    /// A free port, for the one that is scraped.
    pub(super) port: u16,
}

/// An agent that is not ours.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    /// The Debian packages that count as its installed size.
    pub(super) packages: &'static [&'static str],
    program: &'static str,
    own_network: bool,
    /// Directories of its own that must be empty and writable, and their owner.
    empty: &'static [&'static str],
    owner: &'static str,
    /// Arguments, with `CONFIG` for the path of its config and `PORT` for the port.
    arguments: &'static str,
    config: fn(&Place) -> String,
}

/// All peers, in the order of the table.
pub(super) const PEERS: &[Peer] = &[
    Peer {
        name: NODE_EXPORTER,
        does: "scraped every 15 s",
        packages: &["prometheus-node-exporter"],
        program: "/usr/bin/prometheus-node-exporter",
        own_network: false,
        empty: &[],
        owner: "root",
        arguments: "--web.listen-address=127.0.0.1:PORT",
        config: |_| String::new(),
    },
    Peer {
        name: "NRPE",
        does: "idle",
        packages: &["nagios-nrpe-server"],
        program: "/usr/sbin/nrpe",
        own_network: true,
        empty: &[],
        owner: "root",
        arguments: "-c CONFIG -f",
        config: |_| {
            "server_port=5666\nserver_address=127.0.0.1\nnrpe_user=nagios\nnrpe_group=nagios\n\
             allowed_hosts=127.0.0.1\npid_file=/run/nrpe.pid\n\
             command[load]=/usr/lib/nagios/plugins/check_load -w 100 -c 200\n"
                .into()
        },
    },
    Peer {
        name: "monit",
        does: "6 services every 30 s",
        packages: &["monit"],
        program: "/usr/bin/monit",
        own_network: true,
        empty: &[],
        owner: "root",
        arguments: "-I -c CONFIG -p /run/monit.pid",
        config: |_| {
            "set daemon 30\nset idfile /run/monit.id\nset statefile /run/monit.state\n\
             check system bench\n  if loadavg (5min) > 100 then alert\n  if memory usage > 99% then alert\n\
             check filesystem root with path /\n  if space usage > 99% then alert\n\
             check network lo with interface lo\n\
             check process monit with pidfile /run/monit.pid\n\
             check file passwd with path /etc/passwd\n\
             check directory etc with path /etc\n"
                .into()
        },
    },
    Peer {
        name: "Icinga 2",
        does: "50 plugins every 30 s",
        packages: &["icinga2", "icinga2-bin", "icinga2-common"],
        program: "/usr/sbin/icinga2",
        own_network: false,
        empty: &["/var/lib/icinga2", "/var/cache/icinga2", "/var/log/icinga2", "/run/icinga2"],
        owner: "nagios",
        arguments: "daemon -c CONFIG",
        config: icinga,
    },
    Peer {
        name: "collectd",
        does: "10 plugins every 10 s",
        packages: &["collectd-core"],
        program: "/usr/sbin/collectd",
        own_network: true,
        empty: &["/var/lib/collectd"],
        owner: "root",
        arguments: "-f -C CONFIG",
        config: |_| {
            let plugins = "cpu df disk entropy interface irq load memory processes swap users csv";
            let plugins: String =
                plugins.split(' ').map(|plugin| ["LoadPlugin ", plugin, "\n"].concat()).collect();
            format!(
                "Hostname bench\nFQDNLookup false\nPIDFile \"/run/collectd.pid\"\nInterval 10\n{plugins}\
                 <Plugin csv>\n  DataDir \"/var/lib/collectd\"\n</Plugin>\n"
            )
        },
    },
    Peer {
        name: "Zabbix agent 2",
        does: "idle",
        packages: &["zabbix-agent2"],
        program: "/usr/sbin/zabbix_agent2",
        own_network: true,
        empty: &[],
        owner: "root",
        arguments: "-f -c CONFIG",
        config: |_| {
            "LogType=console\nServer=127.0.0.1\nListenPort=10050\nHostname=bench\n\
             PidFile=/run/zabbix_agent2.pid\nControlSocket=/run/zabbix_agent2.sock\n\
             PluginSocket=/run/zabbix_agent2.plugin.sock\n"
                .into()
        },
    },
    Peer {
        name: "netdata",
        does: "Debian's defaults, every 1 s",
        packages: &["netdata", "netdata-core", "netdata-plugins-bash", "netdata-web"],
        program: "/usr/sbin/netdata",
        own_network: true,
        empty: &["/var/cache/netdata", "/var/lib/netdata", "/var/log/netdata", "/run/netdata"],
        owner: "netdata",
        arguments: "-D -P /run/netdata/netdata.pid -c CONFIG",
        config: |_| fs::read_to_string("/etc/netdata/netdata.conf").unwrap_or_default(),
    },
];

/// The one that xtask scrapes.
pub(super) const NODE_EXPORTER: &str = "node_exporter";

impl Peer {
    pub(super) fn start(&self, place: &Place) -> Result<Daemon> {
        if !sh::is_root() {
            bail!("only root may give it a namespace");
        }
        if !Path::new(self.program).exists() {
            bail!("{} is not installed", self.program);
        }
        let file = self.name.replace(' ', "-").to_lowercase();
        let config = place.dir.join(format!("{file}.conf"));
        // monit refuses a config that others can read; daemons that drop root must read theirs.
        let mode = if self.name == "monit" { 0o600 } else { 0o644 };
        files::write(&config, (self.config)(place).as_bytes(), mode)?;
        let config = config.display().to_string();
        let arguments = self.arguments.replace("CONFIG", &config).replace("PORT", &place.port.to_string());
        let mut script = String::from("set -e; mount -t tmpfs tmpfs /run; chmod 755 /run\n");
        if self.own_network {
            script += "ip link set lo up\n";
        }
        for dir in self.empty {
            let owner = self.owner;
            let _ = writeln!(script, "mkdir -p {dir}; mount -t tmpfs tmpfs {dir}; chown {owner}: {dir}");
        }
        let _ = writeln!(script, "exec {} {arguments}", self.program);
        let mut command = sh::command(&["unshare", "--mount"]);
        command.args(self.own_network.then_some("--net")).args(["sh", "-c"]).arg(script);
        Daemon::start(&mut command, &place.dir.join(format!("{file}.log")))
    }

    /// Installed size of its packages.
    pub(super) fn installed_kib(&self) -> Result<u64> {
        let mut command = sh::command(&["dpkg-query", "-W", "-f=${Installed-Size}\n"]);
        let sizes = sh::output(command.args(self.packages))?;
        sizes.lines().map(|line| line.trim().parse::<u64>().context("dpkg-query names a size")).sum()
    }
}

/// The same plugins as the agent's own row.
fn icinga(place: &Place) -> String {
    let mut text = String::from(
        "const NodeName = \"bench\"\nobject CheckerComponent \"checker\" { }\n\
         object CheckCommand \"none\" { command = [ \"/bin/true\" ] }\n\
         object Host \"bench\" { check_command = \"none\"; enable_active_checks = false }\n",
    );
    for number in 0..checks::FEW {
        let kind = Kind::mixed(number);
        let command: Vec<_> = kind.plugin(place.target).iter().map(|word| format!("{word:?}")).collect();
        let _ = writeln!(
            text,
            "object CheckCommand \"c{number}\" {{ command = [ {} ] }}\n\
             object Service \"s{number}\" {{ host_name = \"bench\"; check_command = \"c{number}\"; \
             check_interval = {every}s; retry_interval = {every}s }}",
            command.join(", "),
            every = checks::EVERY_S,
        );
    }
    text
}
