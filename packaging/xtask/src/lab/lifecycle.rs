//! The life cycle of the package on one host. Every line is an observation of the running system.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::host::Host;
use crate::{
    clock,
    deb::{SERVICES, UNITS},
    outcome::Count,
    sh,
};

/// The upstream inside the host, which its resolv.conf names.
const UPSTREAM: &str = "127.0.0.2:53";
const RESOLV_CONF: &str = "# the admin's own\nnameserver 127.0.0.2\noptions timeout:1\n";
const CACHE: &str = "127.0.0.153:53";
const NAME: &str = "www.demo.test";
/// A restart after a crash: systemd's RestartSec of 1 s, and the start.
const RESTART_LIMIT: Duration = Duration::from_secs(10);
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Every check runs within its first interval of a minute.
const CHECK_LIMIT: Duration = Duration::from_secs(75);
/// Paths that dpkg, systemd and the shadow tools write, whatever is installed.
const NOT_OURS: &[&str] = &[
    "/etc/.pwd.lock",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/subgid",
    "/etc/subuid",
    "/root/",
    "/run/",
    "/var/cache/",
    "/var/lib/dpkg/",
    "/var/lib/systemd/",
    "/var/log/",
    "/var/tmp/",
];

struct Life<'a> {
    host: Host,
    upstream: Option<Child>,
    count: &'a mut Count,
}

/// Installs `first`, uses it, upgrades to `second`, removes it and purges it.
pub(crate) fn run(first: &Path, second: &Path, count: &mut Count) -> Result<()> {
    let from = clock::now();
    let mut life = Life { host: Host::boot("lab", RESOLV_CONF)?, upstream: None, count };
    println!("host booted, {}", clock::took(from));
    for package in [first, second] {
        fs::copy(package, life.host.path("root").join(file_name(package)?))?;
    }
    let before = life.files()?;
    life.start_upstream()?;
    life.install(first)?;
    if life.count.failed == 0 {
        life.sandbox();
        life.first_results();
        life.first_alert();
        life.crashes();
        life.upgrade(second)?;
        life.admin_decides(second)?;
        life.power_cut();
    } else {
        println!("     the other steps need running services; only remove and purge are tested");
    }
    life.leave(&before);
    if life.count.failed > 0 {
        println!("--- journal of the units");
        let journal = [
            "journalctl",
            "--no-pager",
            "-o",
            "short-monotonic",
            "-n",
            "60",
            "-u",
            "dogwatch*",
            "-u",
            "alertd",
        ];
        println!("{}", life.host.output(&journal).unwrap_or_default());
    }
    Ok(())
}

impl Life<'_> {
    /// Makes one observation and prints it with the time it took.
    fn see(&mut self, what: &str, look: impl FnOnce(&Host) -> Result<String>) {
        super::observe(self.count, what, || look(&self.host));
    }

    /// Our demo upstream, in the host's network.
    fn start_upstream(&mut self) -> Result<()> {
        let program = program()?;
        let relay =
            self.host.in_network(&[&program, "relay", "--listen", UPSTREAM]).stdout(Stdio::null()).spawn()?;
        self.upstream = Some(relay);
        let ready = sh::wait_until(READY_LIMIT, || ask(&self.host, UPSTREAM, NAME).is_ok());
        ensure!(ready, "the lab's own upstream on {UPSTREAM} does not answer");
        Ok(())
    }

    fn stop_upstream(&mut self) {
        if let Some(mut relay) = self.upstream.take() {
            let _ = relay.kill();
            let _ = relay.wait();
        }
    }

    fn install(&mut self, package: &Path) -> Result<()> {
        let file = format!("/root/{}", file_name(package)?);
        self.see("installing on a clean Debian asks no question", |host| {
            host.output(&["dpkg", "-i", &file]).map(|_| String::new())
        });
        self.see("the resolver configuration is unchanged", |host| {
            let now = fs::read_to_string(host.path("etc/resolv.conf"))?;
            ensure!(now == RESOLV_CONF, "resolv.conf is now {now:?}");
            Ok(String::new())
        });
        self.see("systemd-analyze verify finds no problem in the units", |host| {
            let mut verify = vec!["systemd-analyze", "verify", "--man=no", "--recursive-errors=one"];
            verify.extend(UNITS);
            host.output(&verify).map(|_| String::new())
        });
        for unit in UNITS {
            self.see(&format!("{unit} is enabled and active"), |host| {
                ensure!(host.output(&["systemctl", "is-enabled", unit])? == "enabled", "not enabled");
                wait_active(host, unit)?;
                Ok(String::new())
            });
        }
        Ok(())
    }

    /// Checks what the kernel, not systemd, lets the processes do.
    fn sandbox(&mut self) {
        for (service, user) in [
            ("dogwatch.service", "dogwatch"),
            ("dogwatch-dns.service", "dogwatch-dns"),
            ("alertd.service", "alertd"),
        ] {
            self.see(&format!("{service} runs as {user} without capabilities"), |host| {
                let pid = main_pid(host, service)?;
                let uid = host.output(&["id", "-u", user])?;
                let status = host.output(&["cat", &format!("/proc/{pid}/status")])?;
                for (field, value) in [
                    ("Uid", uid.as_str()),
                    ("CapEff", "0000000000000000"),
                    ("CapBnd", "0000000000000000"),
                    ("NoNewPrivs", "1"),
                    ("Seccomp", "2"),
                ] {
                    let is = status_field(&status, field);
                    ensure!(is == Some(value), "{field} is {is:?}, not {value}");
                }
                Ok(format!("uid {uid}, no capability, NoNewPrivs 1, Seccomp 2"))
            });
            self.see(&format!("{service} cannot write outside its state"), |host| {
                let pid = main_pid(host, service)?;
                for place in ["/usr", "/etc", "/var", "/"] {
                    let file = format!("{place}/dogwatch-lab-probe");
                    let written = host.output(&["nsenter", "-t", &pid, "-m", "touch", &file]);
                    let said = written.err().map(|error| error.to_string()).unwrap_or_default();
                    ensure!(said.contains("Read-only file system"), "{file} could be written: {said}");
                }
                Ok("EROFS in /usr /etc /var /".into())
            });
        }
    }

    fn first_results(&mut self) {
        self.see("the first check has run and is OK", |host| wait_service(host, "disk /", "OK"));
        self.see("the sandbox permits reading the state of systemd", |host| {
            wait_service(host, "unit alertd.service", "OK")
        });
        self.see("the cache answers on 127.0.0.153 over UDP", |host| ask_until_answered(host, NAME));
        if sh::has("dig") {
            self.see("the cache answers dig over TCP", |host| {
                let mut dig = host.in_network(&["dig", "+tcp", "+short", "+time=3", "@127.0.0.153", NAME]);
                let said = sh::output(&mut dig)?;
                ensure!(said.starts_with("192.0.2."), "dig says {said:?}");
                Ok(said)
            });
        }
    }

    /// From a failing check to an email from the built-in receiver, and back to OK.
    fn first_alert(&mut self) {
        self.see("a drop-in takes effect after a reload", |host| {
            let drop_in = host.path("etc/dogwatch/agent.d");
            fs::create_dir_all(&drop_in)?;
            fs::write(drop_in.join("lab.toml"), "[check.lab]\nkind = \"passive\"\n")?;
            host.output(&["systemctl", "reload", "dogwatch.service"])?;
            wait_for("the check to be known", || {
                host.output(&["dogwatch", "submit", "lab", "OK", "fine"]).is_ok()
            })?;
            Ok(String::new())
        });
        self.see("a failing check becomes an email", |host| {
            host.output(&["dogwatch", "submit", "lab", "CRITICAL", "somebody pulled the plug"])?;
            let mut mails = String::new();
            wait_for("a mail that says so", || {
                mails =
                    host.output(&["grep", "-rl", "pulled the plug", "/var/lib/alertd"]).unwrap_or_default();
                mails.contains("/new/")
            })?;
            Ok(mails.lines().find(|path| path.contains("/new/")).unwrap_or_default().to_owned())
        });
        self.see("root acknowledges it, and alertd records the name", |host| {
            let incidents = incidents(host)?;
            let number = incidents.first().context("no incident is open")?["number"].to_string();
            host.output(&["alertctl", "ack", &number, "on my way"])?;
            let why = host.output(&["alertctl", "why", &number])?;
            ensure!(why.contains("root"), "alertctl why does not mention root: {why}");
            Ok(format!("incident {number}"))
        });
        self.see("the recovery closes the incident", |host| {
            host.output(&["dogwatch", "submit", "lab", "OK", "mended"])?;
            wait_for("no incident with lab in it", || {
                incidents(host)
                    .is_ok_and(|open| !open.iter().any(|incident| incident.to_string().contains("\"lab\"")))
            })?;
            Ok(String::new())
        });
    }

    fn crashes(&mut self) {
        for service in SERVICES {
            self.see(&format!("kill -9 of {service}: systemd restarts it"), |host| {
                let old = main_pid(host, service)?;
                host.output(&["kill", "-KILL", &old])?;
                let back = sh::wait_until(RESTART_LIMIT, || {
                    main_pid(host, service).is_ok_and(|pid| pid != old) && is_active(host, service)
                });
                ensure!(back, "not restarted after {} s", RESTART_LIMIT.as_secs());
                Ok(String::new())
            });
        }
        self.see("the cache still answers", |host| ask(host, CACHE, NAME));
        self.stop_upstream();
        self.see("kill -9 of the cache while the upstream is down: the name resolves", |host| {
            let old = main_pid(host, "dogwatch-dns.service")?;
            host.output(&["kill", "-KILL", &old])?;
            ask_until_answered(host, NAME)
        });
        if let Err(error) = self.start_upstream() {
            self.see("the upstream comes back", |_| Err(error));
        }
    }

    fn upgrade(&mut self, package: &Path) -> Result<()> {
        let file = format!("/root/{}", file_name(package)?);
        let edit = "# edited by the admin\n";
        let config = self.host.path("etc/dogwatch/agent.toml");
        let edited = fs::read_to_string(&config)? + edit;
        fs::write(&config, &edited)?;
        let old: Vec<_> =
            SERVICES.iter().map(|service| main_pid(&self.host, service).unwrap_or_default()).collect();
        let program = program()?;
        let flood = self
            .host
            .in_network(&[&program, "ask", "--server", CACHE, "--rate", "200", "--seconds", "8", NAME])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        self.see("an upgrade over an edited conffile asks no question", |host| {
            let mut dpkg = host.command(&["dpkg", "-i", &file]);
            sh::output(&mut dpkg)?;
            ensure!(fs::read_to_string(&config)? == edited, "the admin's edit is gone");
            Ok("the edit is kept".into())
        });
        self.see("no query is lost during the upgrade", |_| {
            let output = flood.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            ensure!(output.status.success(), "{said}: {}", String::from_utf8_lossy(&output.stderr).trim());
            Ok(said)
        });
        self.see("every service runs the new program", |host| {
            for (service, old) in SERVICES.iter().zip(&old) {
                wait_active(host, service)?;
                ensure!(main_pid(host, service)? != *old, "{service} was not restarted");
            }
            Ok(String::new())
        });
        Ok(())
    }

    fn admin_decides(&mut self, package: &Path) -> Result<()> {
        let file = format!("/root/{}", file_name(package)?);
        self.see("a disabled service stays disabled and stopped", |host| {
            host.output(&["systemctl", "disable", "--quiet", "--now", "alertd.service"])?;
            host.output(&["dpkg", "-i", &file])?;
            let enabled = host.output(&["systemctl", "show", "-P", "UnitFileState", "alertd.service"])?;
            ensure!(enabled == "disabled" && !is_active(host, "alertd.service"), "alertd is {enabled}");
            Ok(String::new())
        });
        self.see("a masked service is not started", |host| {
            host.output(&["systemctl", "mask", "--quiet", "alertd.service"])?;
            host.output(&["dpkg", "-i", &file])?;
            ensure!(!is_active(host, "alertd.service"), "alertd runs");
            host.output(&["systemctl", "unmask", "--quiet", "alertd.service"])?;
            host.output(&["systemctl", "enable", "--quiet", "--now", "alertd.service"])?;
            Ok(String::new())
        });
        Ok(())
    }

    fn power_cut(&mut self) {
        self.stop_upstream();
        let from = clock::now();
        if let Err(error) = self.host.power_cut() {
            self.see("power cut", |_| Err(error));
            return;
        }
        println!("     power cut and boot: {}", clock::took(from));
        for unit in UNITS {
            self.see(&format!("{unit} is active after the boot"), |host| {
                wait_active(host, unit).map(|()| String::new())
            });
        }
        self.see("the name resolves after the boot with the upstream down", |host| {
            ask_until_answered(host, NAME)
        });
    }

    fn leave(&mut self, before: &BTreeSet<String>) {
        self.see("remove stops the services and keeps conffiles and state", |host| {
            host.output(&["dpkg", "-r", "dogwatch"])?;
            for unit in UNITS {
                ensure!(!is_active(host, unit), "{unit} still runs");
            }
            ensure!(host.path("etc/dogwatch/agent.toml").exists(), "agent.toml is gone");
            ensure!(host.path("var/lib/alertd").exists(), "alertd's state is gone");
            Ok(String::new())
        });
        let after = self.host.output(&["dpkg", "-P", "dogwatch"]).and_then(|_| self.files());
        self.see("purge leaves no file and no user", |host| {
            let after = after?;
            let left: Vec<_> = after
                .difference(before)
                .filter(|path| is_ours(path) || !NOT_OURS.iter().any(|start| path.starts_with(start)))
                .collect();
            ensure!(left.is_empty(), "left: {left:?}");
            for user in ["dogwatch", "dogwatch-dns", "alertd"] {
                ensure!(host.output(&["getent", "passwd", user]).is_err(), "user {user} is left");
                ensure!(host.output(&["getent", "group", user]).is_err(), "group {user} is left");
            }
            Ok("no file, user or group".into())
        });
        self.see("the resolver configuration is unchanged at the end", |host| {
            ensure!(fs::read_to_string(host.path("etc/resolv.conf"))? == RESOLV_CONF, "it changed");
            Ok(String::new())
        });
    }

    /// Every path on the host's disk.
    fn files(&self) -> Result<BTreeSet<String>> {
        let found = self
            .host
            .output(&["find", "/", "-xdev", "-not", "-path", "/proc/*", "-not", "-path", "/sys/*"])?;
        let run = self.host.output(&["find", "/run", "-maxdepth", "1"])?;
        Ok(found.lines().chain(run.lines()).map(ToOwned::to_owned).collect())
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.stop_upstream();
    }
}

/// A copy of this program from the start of the lab: cargo may replace the file meanwhile.
pub(super) fn program() -> Result<String> {
    let copy = super::host::folder().join("xtask");
    if !copy.exists() {
        fs::copy("/proc/self/exe", &copy)?;
    }
    Ok(copy.display().to_string())
}

/// A path with one of our names belongs to the package, except in dpkg's log and lists.
fn is_ours(path: &str) -> bool {
    let exempt = ["/root/", "/var/log/journal", "/var/lib/dpkg/"].iter().any(|start| path.starts_with(start));
    !exempt && (path.contains("dogwatch") || path.contains("alertd"))
}

pub(super) fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("a package has a file name")
}

fn ask(host: &Host, server: &str, name: &str) -> Result<String> {
    let program = program()?;
    let said = sh::output(&mut host.in_network(&[&program, "ask", "--server", server, name]))?;
    let value = said.trim_start_matches(name).trim();
    ensure!(value.starts_with("192.0.2."), "{server} says {value}");
    Ok(value.to_owned())
}

fn ask_until_answered(host: &Host, name: &str) -> Result<String> {
    let mut said = Err(anyhow::anyhow!("never asked"));
    sh::wait_until(READY_LIMIT, || {
        said = ask(host, CACHE, name);
        said.is_ok()
    });
    said
}

/// Waits until the agent reports `state` for `service`. Returns the output of the check.
fn wait_service(host: &Host, service: &str, state: &str) -> Result<String> {
    let mut seen = String::from("the agent does not know it");
    let found = sh::wait_until(CHECK_LIMIT, || {
        let Ok(status) = status(host) else { return false };
        let services = status["services"].as_array().into_iter().flatten();
        let Some(found) = services.into_iter().find(|known| known["service"] == service) else {
            return false;
        };
        seen =
            format!("{} {}", found["state"].as_str().unwrap_or("?"), found["output"].as_str().unwrap_or("?"));
        found["state"] == state
    });
    ensure!(found, "after {} s {service} is: {seen}", CHECK_LIMIT.as_secs());
    Ok(seen)
}

/// alertd's open incidents.
fn incidents(host: &Host) -> Result<Vec<serde_json::Value>> {
    let status: serde_json::Value = serde_json::from_str(&host.output(&["alertctl", "status", "--json"])?)?;
    Ok(status["incidents"].as_array().cloned().unwrap_or_default())
}

fn wait_for(what: &str, condition: impl FnMut() -> bool) -> Result<()> {
    ensure!(
        sh::wait_until(READY_LIMIT, condition),
        "{what} did not happen within {} s",
        READY_LIMIT.as_secs()
    );
    Ok(())
}

fn status(host: &Host) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&host.output(&["dogwatch", "status", "--json"])?)?)
}

fn is_active(host: &Host, unit: &str) -> bool {
    host.output(&["systemctl", "is-active", unit]).is_ok_and(|state| state == "active")
}

pub(super) fn wait_active(host: &Host, unit: &str) -> Result<()> {
    if !sh::wait_until(READY_LIMIT, || is_active(host, unit)) {
        let state =
            host.output(&["systemctl", "show", unit, "-P", "StatusText", "-P", "Result"]).unwrap_or_default();
        bail!("{unit} is not active after {} s ({})", READY_LIMIT.as_secs(), state.replace('\n', ", "));
    }
    Ok(())
}

pub(super) fn main_pid(host: &Host, service: &str) -> Result<String> {
    let pid = host.output(&["systemctl", "show", "-P", "MainPID", service])?;
    ensure!(pid != "0", "{service} has no process");
    Ok(pid)
}

/// The first value of a line of /proc/PID/status.
fn status_field<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()
}
