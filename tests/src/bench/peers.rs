//! The other servers of the benchmarks, from Debian. Each forwards everything to one upstream
//! without validation and has a large enough cache; in an outage, it serves stale as well as it
//! can.
//!
//! Only processes started here are ever ended. Each lives in a folder of its own, which outlives a
//! `kill -9`.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::client::is_ready;
use crate::process::{Process, binary, free_port};

/// A server, or what stands in for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The bare limit; knows nothing of DNS.
    Echo,
    Dogwatch,
    Unbound,
    Dnsmasq,
    Knot,
    PowerDns,
    Dnsdist,
    /// No cache: the client asks the upstream. The control row of an outage.
    Direct,
}

impl Peer {
    pub const ALL: [Self; 8] = [
        Self::Echo,
        Self::Dogwatch,
        Self::Unbound,
        Self::Dnsmasq,
        Self::Knot,
        Self::PowerDns,
        Self::Dnsdist,
        Self::Direct,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Dogwatch => "dogwatch",
            Self::Unbound => "unbound",
            Self::Dnsmasq => "dnsmasq",
            Self::Knot => "knot-resolver",
            Self::PowerDns => "pdns-recursor",
            Self::Dnsdist => "dnsdist",
            Self::Direct => "no-cache",
        }
    }

    pub fn from_name(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|peer| peer.name() == name)
            .ok_or_else(|| format!("no such server; there are {}", Self::ALL.map(Self::name).join(", ")))
    }

    /// Whether answers can be checked: the echo gives none.
    pub fn is_dns(self) -> bool {
        self != Self::Echo
    }

    /// Its program, or which Debian package would bring it.
    pub fn program(self) -> Result<PathBuf, String> {
        let (program, package) = match self {
            Self::Echo | Self::Direct => return Ok(binary("bench")),
            Self::Dogwatch => return Ok(binary("dogwatch")),
            Self::Unbound => ("unbound", "unbound"),
            Self::Dnsmasq => ("dnsmasq", "dnsmasq-base"),
            Self::Knot => ("kresd", "knot-resolver"),
            Self::PowerDns => ("pdns_recursor", "pdns-recursor"),
            Self::Dnsdist => ("dnsdist", "dnsdist"),
        };
        let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
        let found = folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file());
        found.ok_or_else(|| format!("{program} is not installed (Debian package {package})"))
    }

    fn arguments(self, setup: &Setup) -> Vec<String> {
        let dir = setup.dir.display();
        let file = |name: &str| format!("{dir}/{name}");
        let words: &[&str] = match self {
            Self::Echo => &["echo", &format!("127.0.0.1:{}", setup.port)],
            Self::Direct => &[],
            Self::Dogwatch => &["dns", "--config", &file("dns.toml")],
            Self::Unbound => &["-d", "-c", &file("unbound.conf")],
            Self::Dnsmasq => &["-k", "-C", &file("dnsmasq.conf")],
            Self::Knot => &["-n", "-q", "-c", &file("kresd.conf"), &dir.to_string()],
            Self::PowerDns => &[&format!("--config-dir={dir}")],
            Self::Dnsdist => &["--supervised", "--disable-syslog", "-C", &file("dnsdist.conf")],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Its configuration file: name and text.
    fn configuration(self, setup: &Setup) -> Option<(&'static str, String)> {
        let Setup { dir, port, upstream, entries, stale } = setup;
        let (dir, up) = (dir.display(), upstream.port());
        // Generous: what one entry takes differs, and none may evict.
        let mib = (entries / 1_000).max(64);
        let if_stale = |text: &'static str| if *stale { text } else { "" };
        Some(match self {
            Self::Echo | Self::Direct => return None,
            Self::Dogwatch => (
                "dns.toml",
                format!(
                    "[dns]\nlisten = [\"127.0.0.1:{port}\"]\nupstreams = [\"{upstream}\"]\ncache_mib = {mib}\n\
                     state_dir = \"{dir}/state\"\ncontrol_socket = \"{dir}/control.sock\"\n\
                     metrics = \"127.0.0.1:0\"\n"
                ),
            ),
            // Stale at once and, for the way back, what makes it ask a dead upstream again within
            // seconds.
            Self::Unbound => (
                "unbound.conf",
                format!(
                    "server:\n interface: 127.0.0.1\n port: {port}\n do-daemonize: no\n chroot: \"\"\n\
                     username: \"\"\n directory: \"{dir}\"\n pidfile: \"{dir}/unbound.pid\"\n use-syslog: no\n\
                     logfile: \"{dir}/unbound.log\"\n num-threads: 1\n so-reuseport: yes\n\
                     do-not-query-localhost: no\n module-config: \"iterator\"\n msg-cache-size: {mib}m\n\
                     rrset-cache-size: {mib}m\n{}\
                     remote-control:\n control-enable: no\nforward-zone:\n name: \".\"\n\
                     forward-addr: 127.0.0.1@{up}\n",
                    if_stale(
                        " serve-expired: yes\n serve-expired-ttl: 86400\n serve-expired-ttl-reset: yes\n \
                         serve-expired-client-timeout: 0\n prefetch: yes\n infra-keep-probing: yes\n \
                         infra-host-ttl: 5\n infra-cache-max-rtt: 1000\n"
                    )
                ),
            ),
            Self::Dnsmasq => (
                "dnsmasq.conf",
                format!(
                    "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nno-poll\nuser=root\n\
                     pid-file={dir}/dnsmasq.pid\nlog-facility={dir}/dnsmasq.log\nserver=127.0.0.1#{up}\n\
                     cache-size={entries}\n{}",
                    if_stale("use-stale-cache=86400\n")
                ),
            ),
            // It loads its modules in order: serve_stale only works before the cache's.
            Self::Knot => (
                "kresd.conf",
                format!(
                    "net.listen('127.0.0.1', {port}, {{ kind = 'dns' }})\n\
                     cache.open({mib} * MB, 'lmdb://{dir}/cache')\ncache.max_ttl(604800)\n{}\
                     trust_anchors.remove('.')\nmodules.unload('ta_update')\nmodules.unload('ta_signal_query')\n\
                     modules.unload('ta_sentinel')\nmodules.unload('priming')\n\
                     policy.add(policy.all(policy.FORWARD({{'127.0.0.1@{up}'}})))\n",
                    if_stale("modules = { 'serve_stale < cache' }\n")
                ),
            ),
            Self::PowerDns => (
                "recursor.conf",
                format!(
                    "local-address=127.0.0.1\nlocal-port={port}\nforward-zones-recurse=.=127.0.0.1:{up}\n\
                     dont-query=\ndnssec=off\nthreads=1\nreuseport=yes\nsocket-dir={dir}\n\
                     max-cache-entries={entries}\nmax-packetcache-entries={entries}\ndaemon=no\n\
                     disable-syslog=yes\nloglevel=3\nquiet=yes\nsecurity-poll-suffix=\n{}",
                    if_stale("serve-stale-extensions=1440\n")
                ),
            ),
            Self::Dnsdist => (
                "dnsdist.conf",
                format!(
                    "addLocal(\"127.0.0.1:{port}\", {{ reusePort = true }})\n\
                     newServer({{ address = \"127.0.0.1:{up}\" }})\n\
                     pc = newPacketCache({entries}, {{ maxTTL = 604800{} }})\ngetPool(\"\"):setCache(pc)\n\
                     setSecurityPollSuffix(\"\")\n{}",
                    if_stale(", staleTTL = 30, keepStaleData = true"),
                    if_stale("setStaleCacheEntriesTTL(86400)\n")
                ),
            ),
        })
    }
}

/// Directory, port and task of a server.
#[derive(Debug, Clone)]
pub struct Setup {
    pub dir: PathBuf,
    pub port: u16,
    pub upstream: SocketAddr,
    /// Cache entries it must be able to hold.
    pub entries: u32,
    /// Configured to serve stale.
    pub stale: bool,
}

/// A running server. Dropping it kills it.
pub struct Server {
    pub peer: Peer,
    pub setup: Setup,
    core: Option<usize>,
    process: Option<Process>,
}

impl Server {
    /// Starts it in a folder of its own under `folder`, on `core` alone if one is given, and waits
    /// until it answers.
    pub fn start(
        peer: Peer,
        folder: &Path,
        stale: bool,
        upstream: SocketAddr,
        entries: u32,
        core: Option<usize>,
    ) -> Result<Self> {
        let dir = folder.join(peer.name());
        fs::create_dir_all(&dir)?;
        let port = if peer == Peer::Direct { upstream.port() } else { free_port() };
        let setup = Setup { dir, port, upstream, entries, stale };
        if let Some((name, text)) = peer.configuration(&setup) {
            fs::write(setup.dir.join(name), text)?;
        }
        let mut server = Self { peer, setup, core, process: None };
        server.run()?;
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Starts the process (again), in the same folder on the same port; does not wait.
    pub fn run(&mut self) -> Result<()> {
        if self.peer == Peer::Direct {
            return Ok(());
        }
        let program = self.peer.program().map_err(anyhow::Error::msg)?;
        let mut command = Command::new(program);
        command.args(self.peer.arguments(&self.setup)).current_dir(&self.setup.dir);
        let log_folder = &self.setup.dir;
        let mut start = || Process::start(self.peer.name(), &mut command, log_folder);
        self.process = Some(match self.core {
            Some(core) => on_core(core, start)?,
            None => start(),
        });
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        if !is_ready(self.address(), self.peer.is_dns(), Duration::from_secs(20))? {
            let log = self.process.as_ref().map(Process::log).unwrap_or_default();
            bail!("{} does not answer:\n{log}", self.peer.name());
        }
        Ok(())
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.setup.port))
    }

    /// `kill -9`, reaped.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, reaped: it may save what it knows.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
    }

    /// CPU time of its threads so far.
    pub fn cpu(&self) -> Duration {
        self.process.as_ref().map(Process::cpu).unwrap_or_default()
    }

    pub fn resident_bytes(&self) -> u64 {
        self.process.as_ref().map(Process::resident_bytes).unwrap_or_default()
    }

    pub fn peak_bytes(&self) -> u64 {
        self.process.as_ref().map(Process::peak_bytes).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }
}

/// Does `what` on `core` alone; a process started there stays there, with all its threads.
pub fn on_core<T>(core: usize, what: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).with_context(|| format!("cannot run on core {core}"))?;
    let done = what();
    sched_setaffinity(None, &before)?;
    Ok(done)
}

/// The cores we may use: one for the server, another for client and upstream. With one core both
/// are the same.
pub fn two_cores() -> io::Result<(usize, usize)> {
    let ours = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| ours.is_set(*core));
    let first = cores.next().unwrap_or(0);
    Ok((first, cores.next().unwrap_or(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_options_are_in_the_outage_configuration_only() {
        for peer in [Peer::Unbound, Peer::Dnsmasq, Peer::Knot, Peer::PowerDns, Peer::Dnsdist] {
            let text = |stale| {
                let upstream = SocketAddr::from(([127, 0, 0, 1], 5_300));
                let setup = Setup { dir: "/x".into(), port: 5_400, upstream, entries: 20_000, stale };
                peer.configuration(&setup).unwrap().1
            };
            let is_stale = |text: &str| text.contains("stale") || text.contains("serve-expired");
            assert!(is_stale(&text(true)) && !is_stale(&text(false)), "{}", peer.name());
            assert!(text(true).contains("5400") && text(true).contains("5300"), "{}", peer.name());
        }
    }

    #[test]
    fn a_name_leads_back_to_its_server() {
        for peer in Peer::ALL {
            assert_eq!(Peer::from_name(peer.name()), Ok(peer));
        }
        assert!(Peer::from_name("bind").unwrap_err().contains("unbound"));
    }
}
