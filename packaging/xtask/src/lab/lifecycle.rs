//! The life of the package on one host. Every line printed is an observation of the running system.

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
/// What dpkg, systemd and the shadow tools write on their own, whatever is installed.
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

/// Installs `first`, lives with it, upgrades to `second`, removes, purges.
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
        println!("     the rest needs running services: only remove and purge are looked at");
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
        self.see("install on a clean Debian asks nothing", |host| {
            host.output(&["dpkg", "-i", &file]).map(|_| String::new())
        });
        self.see("the resolver configuration is untouched", |host| {
            let now = fs::read_to_string(host.path("etc/resolv.conf"))?;
            ensure!(now == RESOLV_CONF, "resolv.conf is now {now:?}");
            Ok(String::new())
        });
        self.see("systemd finds nothing wrong in the units", |host| {
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

    /// Asks the kernel, not systemd, what the processes may do.
    fn sandbox(&mut self) {
        for (service, user) in [
            ("dogwatch.service", "dogwatch"),
            ("dogwatch-dns.service", "dogwatch-dns"),
            ("alertd.service", "alertd"),
        ] {
            self.see(&format!("{service} runs as {user} without a right to lose"), |host| {
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
        self.see("the first check has run, and finds a writable disk with room", |host| {
            wait_service(host, "disk", "OK")
        });
        self.see("systemd's own state can be asked from inside the sandbox", |host| {
            wait_service(host, "systemd", "OK")
        });
        self.see("the first answer comes through 127.0.0.153, over UDP", |host| {
            ask_until_answered(host, NAME)
        });
        if sh::has("dig") {
            self.see("and over TCP, to a client that is not ours", |host| {
                let mut dig = host.in_network(&["dig", "+tcp", "+short", "+time=3", "@127.0.0.153", NAME]);
                let said = sh::output(&mut dig)?;
                ensure!(said.starts_with("192.0.2."), "dig says {said:?}");
                Ok(said)
            });
        }
    }

    /// From a broken check to a mail in the receiver that is there without any config, and back.
    fn first_alert(&mut self) {
        self.see("a drop-in takes effect by reload", |host| {
            let drop_in = host.path("etc/dogwatch/agent.d");
            fs::create_dir_all(&drop_in)?;
            fs::write(drop_in.join("lab.toml"), "[check.lab]\nkind = \"passive\"\n")?;
            host.output(&["systemctl", "reload", "dogwatch.service"])?;
            wait_for("the check to be known", || {
                host.output(&["dogwatch", "submit", "lab", "OK", "fine"]).is_ok()
            })?;
            Ok(String::new())
        });
        self.see("a broken check becomes a mail", |host| {
            host.output(&["dogwatch", "submit", "lab", "CRITICAL", "somebody pulled the plug"])?;
            let mut mails = String::new();
            wait_for("a mail that says so", || {
                mails =
                    host.output(&["grep", "-rl", "pulled the plug", "/var/lib/alertd"]).unwrap_or_default();
                mails.contains("/new/")
            })?;
            Ok(mails.lines().find(|path| path.contains("/new/")).unwrap_or_default().to_owned())
        });
        self.see("root acknowledges it, and alertd knows who that was", |host| {
            let incidents = incidents(host)?;
            let number = incidents.first().context("no incident is open")?["number"].to_string();
            host.output(&["alertctl", "ack", &number, "on my way"])?;
            let why = host.output(&["alertctl", "why", &number])?;
            ensure!(why.contains("root"), "alertctl why says nothing of root: {why}");
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
            self.see(&format!("kill -9 of {service}: back by itself"), |host| {
                let old = main_pid(host, service)?;
                host.output(&["kill", "-KILL", &old])?;
                let back = sh::wait_until(RESTART_LIMIT, || {
                    main_pid(host, service).is_ok_and(|pid| pid != old) && is_active(host, service)
                });
                ensure!(back, "not back after {} s", RESTART_LIMIT.as_secs());
                Ok(String::new())
            });
        }
        self.see("the cache still answers", |host| ask(host, CACHE, NAME));
        self.stop_upstream();
        self.see("kill -9 of the cache while the upstream is dead: the name goes on", |host| {
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
        self.see("upgrade over an edited conffile asks nothing", |host| {
            let mut dpkg = host.command(&["dpkg", "-i", &file]);
            sh::output(&mut dpkg)?;
            ensure!(fs::read_to_string(&config)? == edited, "the admin's edit is gone");
            Ok("the edit is kept".into())
        });
        self.see("0 of the queries asked meanwhile are lost", |_| {
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
        self.see("what the admin disabled stays disabled and stopped", |host| {
            host.output(&["systemctl", "disable", "--quiet", "--now", "alertd.service"])?;
            host.output(&["dpkg", "-i", &file])?;
            let enabled = host.output(&["systemctl", "show", "-P", "UnitFileState", "alertd.service"])?;
            ensure!(enabled == "disabled" && !is_active(host, "alertd.service"), "alertd is {enabled}");
            Ok(String::new())
        });
        self.see("what the admin masked is not started", |host| {
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
        println!("     power cut and boot, {}", clock::took(from));
        for unit in UNITS {
            self.see(&format!("after the boot {unit} is active"), |host| {
                wait_active(host, unit).map(|()| String::new())
            });
        }
        self.see("and the name is known, with the upstream still dead", |host| {
            ask_until_answered(host, NAME)
        });
    }

    fn leave(&mut self, before: &BTreeSet<String>) {
        self.see("remove stops everything and keeps conffiles and state", |host| {
            host.output(&["dpkg", "-r", "dogwatch"])?;
            for unit in UNITS {
                ensure!(!is_active(host, unit), "{unit} still runs");
            }
            ensure!(host.path("etc/dogwatch/agent.toml").exists(), "agent.toml is gone");
            ensure!(host.path("var/lib/alertd").exists(), "alertd's state is gone");
            Ok(String::new())
        });
        let after = self.host.output(&["dpkg", "-P", "dogwatch"]).and_then(|_| self.files());
        self.see("purge leaves nothing", |host| {
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
        self.see("the resolver configuration is as it was", |host| {
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

/// This program, as it was when the lab began: cargo may put a newer one in its place meanwhile.
pub(super) fn program() -> Result<String> {
    let copy = super::host::folder().join("xtask");
    if !copy.exists() {
        fs::copy("/proc/self/exe", &copy)?;
    }
    Ok(copy.display().to_string())
}

/// Whatever folder it is in, a path with one of our names is ours (but for dpkg's own log and list
/// of what was here).
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

/// Waits until the agent holds `service` to be in `state`; returns the check's output.
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

/// What alertd holds open.
fn incidents(host: &Host) -> Result<Vec<serde_json::Value>> {
    let status: serde_json::Value = serde_json::from_str(&host.output(&["alertctl", "status", "--json"])?)?;
    Ok(status["incidents"].as_array().cloned().unwrap_or_default())
}

fn wait_for(what: &str, condition: impl FnMut() -> bool) -> Result<()> {
    ensure!(sh::wait_until(READY_LIMIT, condition), "waited {} s in vain for {what}", READY_LIMIT.as_secs());
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
