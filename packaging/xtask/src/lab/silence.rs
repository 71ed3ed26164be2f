//! `cargo xtask drill silence`: fresh Debian hosts with the package and without a fault. Whatever
//! becomes a problem, and every mail, is a false alarm.
//!
//! The hosts share the kernel of this machine, so `/proc/loadavg`, `/proc/stat` and pressure are
//! those of whatever else runs here: start a build beside it to make them busy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;

use super::{
    Made, clean_when_interrupted,
    host::{self, Host},
    lifecycle::file_name,
    lock, packages, unfit,
};
use crate::{clock, deb, sh};

/// Fresh hosts without a fault: nothing may alarm
#[derive(Parser)]
#[command(name = "cargo xtask drill silence")]
pub(crate) struct Options {
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// Use the programs of the dev profile, which are quick to build
    #[arg(long)]
    dev: bool,
}

/// Name, release of Debian, and whether it is a container or a host for the checks.
const HOSTS: &[(&str, &str, Kind)] = &[
    ("deb12", "bookworm", Kind::Host),
    ("deb13", "trixie", Kind::Host),
    ("cont12", "bookworm", Kind::Container),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Host,
    Container,
}

/// The upstream of a host, started in it.
const PEER: &str = "root/peer.pl";
const UPSTREAM: &str = "127.0.0.2:53";
const LOOK: Duration = Duration::from_secs(10);
const READY_LIMIT: Duration = Duration::from_secs(30);

struct Watched {
    name: &'static str,
    suite: &'static str,
    kind: Kind,
    host: Host,
    services: BTreeSet<String>,
    /// The first words of each problem, by service; soft ones included.
    soft: BTreeMap<String, String>,
    hard: BTreeMap<String, String>,
    /// Times that the agent did not answer.
    silent: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(why) = unfit() {
        println!("SKIPPED silence: {why}");
        return Ok(());
    }
    let _lock = lock()?;
    clean_when_interrupted()?;
    let made = if options.dev { Made::Dev } else { Made::Release(deb::build(None)?) };
    let (package, _) = packages(made)?;
    let done = watch(&package, Duration::from_mins(options.minutes));
    host::clean();
    let alarms = done?;
    if alarms > 0 {
        bail!("{alarms} false alarms");
    }
    Ok(())
}

/// Returns the number of false alarms.
fn watch(package: &Path, length: Duration) -> Result<usize> {
    let mut hosts = Vec::new();
    for &(name, suite, kind) in HOSTS {
        println!("base image of {suite} {}", host::base_of(suite)?);
        hosts.push(Watched::boot(name, suite, kind, package).with_context(|| format!("cannot boot {name}"))?);
        println!("{name}: booted, package installed");
    }
    let from = clock::now();
    let (mut load, mut looks) = (Vec::new(), 0_u64);
    while clock::now().duration_since(from) < length {
        thread::sleep(LOOK);
        looks += 1;
        hosts.iter_mut().for_each(Watched::look);
        let now = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        load.extend(now.split(' ').next().and_then(|load| load.parse::<f64>().ok()));
        if looks.is_multiple_of(30) {
            let hard: usize = hosts.iter().map(|host| host.hard.len()).sum();
            println!("{:>3} min: {hard} false alarms", clock::now().duration_since(from).as_secs() / 60);
        }
    }
    load.sort_by(f64::total_cmp);
    let at = |share: usize| load.get(load.len() * share / 100).or(load.last()).copied().unwrap_or_default();
    println!(
        "\n{} minutes; load of the machine while it lasted: median {:.1}, 90 % {:.1}, most {:.1}",
        length.as_secs() / 60,
        at(50),
        at(90),
        at(100)
    );
    Ok(hosts.iter().map(Watched::report).sum())
}

impl Watched {
    fn boot(name: &'static str, suite: &'static str, kind: Kind, package: &Path) -> Result<Self> {
        let host = Host::boot_suite(name, suite, |root| {
            fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.2\noptions timeout:1\n")?;
            Ok(fs::write(root.join(PEER), include_str!("faults/peer.pl"))?)
        })?;
        if kind == Kind::Host {
            host.output(&["rm", "-f", "/run/systemd/container"])?;
        }
        host.output(&[
            "systemd-run",
            "-q",
            "--unit=lab-upstream",
            "perl",
            "/root/peer.pl",
            "dns",
            "upstream",
            UPSTREAM,
        ])?;
        let file = file_name(package)?;
        fs::copy(package, host.path("root").join(file))?;
        host.output(&["dpkg", "-i", &format!("/root/{file}")])?;
        let mut watched = Self {
            name,
            suite,
            kind,
            host,
            services: BTreeSet::new(),
            soft: BTreeMap::new(),
            hard: BTreeMap::new(),
            silent: 0,
        };
        let answers = sh::wait_until(READY_LIMIT, || watched.status().is_some());
        if !answers {
            bail!("the agent does not answer");
        }
        watched.look();
        Ok(watched)
    }

    fn status(&self) -> Option<serde_json::Value> {
        let said = self.host.output(&["dogwatch", "status", "--json"]);
        // Exit status 1 or 2 when something is wrong; what it prints counts.
        let said = said.or_else(|_| {
            let mut command = self.host.command(&["dogwatch", "status", "--json"]);
            command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        });
        serde_json::from_str(&said.ok()?).ok()
    }

    fn look(&mut self) {
        let Some(status) = self.status() else {
            self.silent += 1;
            return;
        };
        for service in status["services"].as_array().into_iter().flatten() {
            let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
            self.services.insert(text("service"));
            let state = text("state");
            if matches!(state.as_str(), "OK" | "PENDING") {
                continue;
            }
            let problems = if service["state_type"] == "HARD" { &mut self.hard } else { &mut self.soft };
            let said = format!("{state}: {}", text("output"));
            if !problems.contains_key(&text("service")) {
                println!("{} {} {said}", self.name, text("service"));
            }
            problems.entry(text("service")).or_insert(said);
        }
    }

    /// Prints what was seen, and returns the number of false alarms.
    fn report(&self) -> usize {
        let mails = self.host.output(&["find", "/var/lib/alertd", "-path", "*/new/*"]).unwrap_or_default();
        let mails: Vec<_> = mails.lines().collect();
        let kind = if self.kind == Kind::Host { "as a host" } else { "as a container" };
        println!(
            "{} ({}, {kind}): {} services, {} false alarms, {} soft only, {} mails, {} times no answer",
            self.name,
            self.suite,
            self.services.len(),
            self.hard.len(),
            self.soft.keys().filter(|service| !self.hard.contains_key(*service)).count(),
            mails.len(),
            self.silent,
        );
        for (service, said) in self.hard.iter().chain(&self.soft) {
            println!("  {service} {said}");
        }
        for mail in &mails {
            let subject = self.host.output(&["grep", "-m1", "^Subject:", mail]).unwrap_or_default();
            println!("  mail: {subject}");
        }
        self.hard.len() + mails.len()
    }
}
