//! Installs the Debian packages that tests need. None of their services is started.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, bail};

use crate::sh;

/// Every package that a test or the lab uses, and its purpose.
pub(crate) const APT_PACKAGES: &[(&str, &str)] = &[
    ("bind9-dnsutils", "dig, as a client that is not ours"),
    ("binutils", "readelf, for the package's dependencies"),
    ("dbus", "the lab's hosts and systemctl as a user"),
    ("ldnsutils", "signs a zone for the differential test"),
    ("lintian", "checks the package"),
    ("mmdebstrap", "the lab's root file system"),
    ("monitoring-plugins-basic", "real Nagios plugins"),
    ("ngircd", "a real IRC server"),
    ("nsd", "a real authoritative server"),
    ("openssl", "certificates for the http and smtp tests"),
    ("opensmtpd", "a real SMTP server"),
    ("python3-aiosmtpd", "an SMTP server with TLS and login"),
    ("prometheus", "promtool, and a Prometheus that scrapes and sends alerts"),
    ("prometheus-alertmanager", "amtool, as a client that is not ours"),
    ("systemd-container", "systemd-nspawn, for the lab"),
    ("unbound", "an upstream in tests"),
];

/// Only `test --stress` needs it.
const STRESS: &[(&str, &str)] = &[("stress-ng", "keeps every core busy")];

/// Servers that only `bench` runs.
pub(crate) const PEERS: &[(&str, &str)] = &[
    ("dnsdist", "a peer in the bench"),
    ("dnsmasq-base", "a peer in the bench"),
    ("knot-resolver", "a peer in the bench"),
    ("pdns-recursor", "a peer in the bench"),
    ("prometheus-alertmanager", "a peer in the bench"),
    ("unbound", "a peer in the bench"),
];

/// Monitoring agents that only `bench agent` runs.
pub(crate) const AGENTS: &[(&str, &str)] = &[
    ("binutils", "strip, for the size of our programs"),
    ("collectd-core", "a peer in the bench"),
    ("icinga2", "a peer in the bench"),
    ("iproute2", "loopback in the namespaces of the peers"),
    ("monit", "a peer in the bench"),
    ("monitoring-plugins-basic", "plugins beside native checks"),
    ("nagios-nrpe-server", "a peer in the bench"),
    ("netdata", "a peer in the bench"),
    ("prometheus-node-exporter", "a peer in the bench"),
    ("zabbix-agent2", "a peer in the bench"),
];

/// The packages of `list` that are not installed.
fn missing(list: &[(&'static str, &str)]) -> Result<Vec<&'static str>> {
    let names: Vec<_> = list.iter().map(|(name, _)| *name).collect();
    if !sh::has("dpkg-query") {
        bail!("this is not Debian: install the equivalents of {} yourself", names.join(" "));
    }
    let installed = sh::output(&mut sh::command(&[
        "dpkg-query",
        "--show",
        "--showformat=${db:Status-Status} ${Package}\n",
    ]))?;
    let is_installed = |name: &str| installed.lines().any(|line| line == format!("installed {name}"));
    Ok(names.into_iter().filter(|name| !is_installed(name)).collect())
}

/// Installs missing packages of [`APT_PACKAGES`]. Without root, returns the command that would
/// install them; `None` if all are installed.
pub(crate) fn install(insist: bool) -> Result<Option<String>> {
    install_list(APT_PACKAGES, insist)
}

/// Does the same for the peers of a benchmark: [`PEERS`] or [`AGENTS`].
pub(crate) fn install_peers(list: &[(&'static str, &str)]) -> Result<Option<String>> {
    install_list(list, false)
}

/// Does the same for stress-ng.
pub(crate) fn install_stress() -> Result<Option<String>> {
    install_list(STRESS, false)
}

fn install_list(list: &[(&'static str, &str)], insist: bool) -> Result<Option<String>> {
    let missing = missing(list)?;
    if missing.is_empty() {
        return Ok(None);
    }
    let by_hand = format!("sudo apt-get install --no-install-recommends {}", missing.join(" "));
    if !sh::is_root() {
        if insist {
            bail!("only root may install; run: {by_hand}");
        }
        return Ok(Some(by_hand));
    }
    println!("installing from Debian: {}", missing.join(" "));
    let _nothing_starts = NothingStarts::begin()?;
    let mut line = vec!["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    line.extend(&missing);
    if apt(&line).is_err() {
        apt(&["apt-get", "update", "-qq"])?;
        apt(&line)?;
    }
    Ok(None)
}

fn apt(line: &[&str]) -> Result<()> {
    sh::output(sh::command(line).env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

/// Until this is dropped, installing a package starts no service: Debian's invoke-rc.d calls
/// `policy-rc.d`, and exit code 101 forbids the action.
struct NothingStarts {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NothingStarts {
    fn begin() -> Result<Self> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NothingStarts {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
