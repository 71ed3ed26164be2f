//! `dogwatch dns enable` on hosts with every common manager of resolv.conf, one host after another.
//!
//! The upstream is at the far end of a veth pair, as the DHCP lease or the profile of the link
//! says. There are two upstreams, because a renewed lease may name another one.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    host::{Host, Layer},
    lifecycle::{file_name, main_pid, program, wait_active},
    observe,
};
use crate::{clock, outcome::Count, sh};

const FIRST: &str = "10.9.0.1";
const SECOND: &str = "10.9.0.3";
const OURS: &str = "127.0.0.153";
const LIMIT: Duration = Duration::from_secs(10);
/// The longest that a program may wait if the first server does not answer.
const QUICK: Duration = Duration::from_millis(2_500);
/// How often `enable` is killed.
const MOMENTS: u32 = 25;
const SERVICE: &str = "dogwatch-dns.service";

/// One kind of host.
struct Kind {
    name: &'static str,
    layer: Option<Layer>,
    /// Writes to its disk before it boots.
    prepare: fn(&Path) -> Result<()>,
    /// Brings up the link and its server after each boot.
    wire: fn(&Host) -> Result<()>,
    /// Changes the server of the link to [`SECOND`].
    renew: Option<fn(&Host) -> Result<()>>,
    /// The name that `enable` prints for the manager.
    manager: &'static str,
}

/// The hosts of `cargo xtask test`; `cargo xtask lab --resolver every` tests all. systemd-resolved
/// is left out because it may query only the server of the link for a while after the cache is
/// back, so that one step fails now and then.
const USUAL: &[&str] = &["plain", "resolvconf", "network-manager"];

const KINDS: &[Kind] = &[
    Kind {
        name: "plain",
        layer: None,
        prepare: |root| {
            resolv_conf(root, "# the admin's own\nsearch demo.test\nnameserver 10.9.0.1\noptions ndots:1\n")
        },
        wire: |_| Ok(()),
        renew: None,
        manager: "nobody",
    },
    Kind {
        name: "dhclient",
        layer: Some(Layer { name: "dhclient", packages: "isc-dhcp-client" }),
        prepare: |root| resolv_conf(root, ""),
        wire: lease,
        renew: Some(lease_second),
        manager: "dhclient",
    },
    Kind {
        name: "resolvconf",
        layer: Some(Layer { name: "resolvconf", packages: "resolvconf" }),
        prepare: |_| Ok(()),
        wire: |host| record(host, FIRST),
        renew: Some(|host| record(host, SECOND)),
        manager: "resolvconf",
    },
    Kind {
        name: "openresolv",
        layer: Some(Layer { name: "openresolv", packages: "openresolv" }),
        prepare: |_| Ok(()),
        wire: |host| record(host, FIRST),
        renew: Some(|host| record(host, SECOND)),
        manager: "openresolv",
    },
    Kind {
        name: "network-manager",
        layer: Some(Layer { name: "network-manager", packages: "network-manager" }),
        prepare: |root| {
            let config = "[keyfile]\nunmanaged-devices=interface-name:d1\n[device-veth]\nmatch-device=interface-name:d0\nmanaged=1\n";
            Ok(fs::write(root.join("etc/NetworkManager/conf.d/lab.conf"), config)?)
        },
        wire: profile,
        renew: Some(|host| {
            let line = format!("nmcli con mod lab ipv4.dns {SECOND} && nmcli con up lab");
            host.output(&["sh", "-c", &line]).map(drop)
        }),
        manager: "network-manager",
    },
    Kind {
        name: "systemd-resolved",
        layer: Some(Layer { name: "systemd-resolved", packages: "systemd-resolved libnss-resolve" }),
        prepare: |root| {
            let wants = root.join("etc/systemd/system/multi-user.target.wants");
            fs::create_dir_all(&wants)?;
            Ok(symlink(
                "/lib/systemd/system/systemd-networkd.service",
                wants.join("systemd-networkd.service"),
            )?)
        },
        wire: |host| {
            network_file(&host.path(""), FIRST)?;
            host.output(&["systemctl", "restart", "systemd-networkd"]).map(drop)
        },
        renew: Some(|host| {
            network_file(&host.path(""), SECOND)?;
            // Not networkctl: it needs a bus name that networkd may not have yet.
            host.output(&["systemctl", "restart", "systemd-networkd"]).map(drop)
        }),
        manager: "systemd-resolved",
    },
];

/// Tests `kind`, the `usual` ones, or `every` kind.
pub(crate) fn run(package: &Path, kind: &str, count: &mut Count) -> Result<()> {
    let chosen: Vec<_> = KINDS
        .iter()
        .filter(|known| {
            kind == "every" || known.name == kind || (kind == "usual" && USUAL.contains(&known.name))
        })
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no kind {kind:?}; there are {}",
        KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
    );
    for kind in chosen {
        let from = clock::now();
        if let Some(layer) = kind.layer {
            layer.make().with_context(|| format!("cannot install {} for the lab", layer.packages))?;
        }
        let host = Host::boot_on("lab-dns", kind.layer, kind.prepare)?;
        println!("host with {} booted, {}", kind.name, clock::took(from));
        let mut life = Life { kind, host, upstreams: Vec::new(), before: BTreeMap::new(), count };
        life.live(package)?;
        println!("{}: {}", kind.name, clock::took(from));
    }
    Ok(())
}

struct Life<'a> {
    kind: &'a Kind,
    host: Host,
    upstreams: Vec<Child>,
    /// `/etc` before `enable`.
    before: BTreeMap<String, String>,
    count: &'a mut Count,
}

impl Life<'_> {
    fn live(&mut self, package: &Path) -> Result<()> {
        self.wire()?;
        fs::copy(package, self.host.path("root").join(file_name(package)?))?;
        self.install(package)?;
        self.refusals();
        self.enable();
        if self.count.failed == 0 {
            self.cache_dies();
            self.upstream_dies()?;
            self.lease_changes();
            self.power_cut()?;
            self.interrupted();
        }
        self.leave();
        Ok(())
    }

    fn see(&mut self, what: &str, look: impl FnOnce(&Host) -> Result<String>) {
        observe(self.count, &format!("{}: {what}", self.kind.name), || look(&self.host));
    }

    /// The link, its far end with the upstreams, and the program that configures them.
    fn wire(&mut self) -> Result<()> {
        for line in [
            "link add d0 type veth peer name d1",
            "addr add 10.9.0.1/24 dev d1",
            "addr add 10.9.0.3/24 dev d1",
            "addr add 10.9.0.2/24 dev d0",
            "link set d1 up",
            "link set d0 up",
        ] {
            let words: Vec<_> = ["ip"].into_iter().chain(line.split(' ')).collect();
            sh::output(&mut self.host.in_network(&words))?;
        }
        self.start_upstreams()?;
        (self.kind.wire)(&self.host)?;
        let up = sh::wait_until(LIMIT, || look_up(&self.host, "www.demo.test").is_ok());
        ensure!(up, "{}: the host resolves no names before the test", self.kind.name);
        Ok(())
    }

    fn start_upstreams(&mut self) -> Result<()> {
        let program = program()?;
        for address in [FIRST, SECOND] {
            let listen = format!("{address}:53");
            let mut relay = self.host.in_network(&[&program, "relay", "--listen", &listen]);
            self.upstreams.push(relay.stdout(Stdio::null()).spawn()?);
        }
        Ok(())
    }

    fn stop_upstreams(&mut self) {
        for mut relay in self.upstreams.drain(..) {
            let _ = relay.kill();
            let _ = relay.wait();
        }
    }

    fn install(&mut self, package: &Path) -> Result<()> {
        let file = format!("/root/{}", file_name(package)?);
        self.host.output(&["dpkg", "-i", &file])?;
        wait_active(&self.host, SERVICE)?;
        self.before = etc(&self.host)?;
        Ok(())
    }

    fn refusals(&mut self) {
        let before = self.before.clone();
        self.see("enable --dry-run prints its plan and changes nothing", |host| {
            let said = host.output(&["dogwatch", "dns", "enable", "--dry-run"])?;
            ensure!(said.contains("would write") && said.contains(OURS), "it says {said}");
            unchanged(host, &before)?;
            Ok(said.lines().next().unwrap_or_default().to_owned())
        });
        self.see("enable refuses while the cache does not answer", |host| {
            host.output(&["systemctl", "stop", "dogwatch-dns.socket", SERVICE])?;
            let said = refused(host)?;
            unchanged(host, &before)?;
            host.output(&["systemctl", "start", "dogwatch-dns.socket", SERVICE])?;
            wait_active(host, SERVICE)?;
            Ok(said)
        });
        if self.kind.name == "plain" {
            self.refuses_a_cold_cache();
        }
        if self.kind.name == "resolvconf" {
            self.takes_back();
        }
    }

    fn refuses_a_cold_cache(&mut self) {
        let before = self.before.clone();
        self.stop_upstreams();
        self.see("enable refuses while the upstream is down and the cache empty", |host| {
            let said = refused(host)?;
            unchanged(host, &before)?;
            Ok(said)
        });
        let back = self.start_upstreams();
        self.see("the cache notices that the upstream is back", |host| {
            back?;
            let program = program()?;
            let ask = || host.in_network(&[&program, "ask", "--server", "127.0.0.153:53", "demo.test"]);
            let answered = || sh::output(&mut ask()).is_ok_and(|said| said.contains("192.0.2."));
            ensure!(sh::wait_until(2 * LIMIT, answered), "it has not within {} s", 2 * LIMIT.as_secs());
            Ok(String::new())
        });
    }

    /// resolvconf fails to write resolv.conf: a failure after the switch.
    fn takes_back(&mut self) {
        let before = self.before.clone();
        self.see("a switch that does not work is reverted", |host| {
            host.output(&["chmod", "-x", "/etc/resolvconf/update.d/libc"])?;
            let said = refused(host)?;
            host.output(&["chmod", "+x", "/etc/resolvconf/update.d/libc"])?;
            ensure!(said.contains("all changes were reverted"), "it says {said}");
            unchanged(host, &before)?;
            Ok(said)
        });
    }

    fn enable(&mut self) {
        let manager = self.kind.manager;
        self.see("enable: names go through the cache", |host| {
            let said = host.output(&["dogwatch", "dns", "enable", "--json"])?;
            let done: serde_json::Value = serde_json::from_str(&said)?;
            ensure!(done["manager"] == manager, "it calls the manager {}", done["manager"]);
            through_the_cache(host, "first.demo.test")
        });
        self.see("status is enabled, and a second enable changes nothing", |host| {
            let now = etc(host)?;
            host.output(&["dogwatch", "dns", "enable"])?;
            ensure!(etc(host)? == now, "it changed something");
            let status: serde_json::Value =
                serde_json::from_str(&host.output(&["dogwatch", "dns", "status", "--json"])?)?;
            ensure!(status["host"]["state"] == "enabled", "status: {}", status["host"]);
            ensure!(status["host"]["differing"] == serde_json::json!([]), "status: {}", status["host"]);
            Ok(format!("reads {}, behind it {}", status["host"]["servers"], status["host"]["old_servers"]))
        });
    }

    fn cache_dies(&mut self) {
        self.see("kill -9 of the cache: names resolve", |host| {
            let pid = main_pid(host, SERVICE)?;
            host.output(&["kill", "-KILL", &pid])?;
            quick(host, "killed.demo.test")
        });
        self.see("the cache stopped and its port closed: names resolve", |host| {
            host.output(&["systemctl", "stop", "dogwatch-dns.socket", SERVICE])?;
            let took = quick(host, "stopped.demo.test");
            host.output(&["systemctl", "start", "dogwatch-dns.socket", SERVICE])?;
            wait_active(host, SERVICE)?;
            took
        });
        self.see("the cache hangs and its port is open: names resolve", |host| {
            let pid = main_pid(host, SERVICE)?;
            host.output(&["kill", "-STOP", &pid])?;
            let took = quick(host, "hung.demo.test");
            host.output(&["kill", "-CONT", &pid])?;
            took
        });
        self.see("with the cache back, names go through it again", |host| {
            through_the_cache(host, "back.demo.test")
        });
    }

    fn upstream_dies(&mut self) -> Result<()> {
        self.see("a name that was looked up is in the cache", |host| {
            let mut why = String::new();
            // With systemd-resolved the cache may still wait for its upstream when the lookup is
            // done.
            let kept = sh::wait_until(LIMIT, || {
                let _ = look_up(host, "kept.demo.test");
                why = host.output(&["dogwatch", "dns", "why", "kept.demo.test"]).unwrap_or_default();
                why.lines().next().is_some_and(|line| line.ends_with(": fresh"))
            });
            ensure!(kept, "{why}");
            Ok(String::new())
        });
        self.stop_upstreams();
        self.see("the upstream goes down, the name expires: it still resolves", |host| {
            let mut why = String::new();
            let stale = sh::wait_until(LIMIT, || {
                let _ = look_up(host, "kept.demo.test");
                why = host.output(&["dogwatch", "dns", "why", "kept.demo.test"]).unwrap_or_default();
                why.lines().next().is_some_and(|line| line.ends_with(": stale"))
            });
            ensure!(stale, "it is not stale after {} s: {why}", LIMIT.as_secs());
            Ok(format!("stale, {}", quick(host, "kept.demo.test")?))
        });
        self.start_upstreams()
    }

    fn lease_changes(&mut self) {
        let Some(renew) = self.kind.renew else { return };
        self.see("the link gets another server: the cache stays first, the new one follows", |host| {
            renew(host)?;
            let mut status = serde_json::Value::Null;
            let followed = sh::wait_until(LIMIT, || {
                let said = host.output(&["dogwatch", "dns", "status", "--json"]).unwrap_or_default();
                status = serde_json::from_str(&said).unwrap_or_default();
                let upstreams = status["upstreams"].to_string();
                upstreams.contains(SECOND) && !upstreams.contains(&format!("{FIRST}:"))
            });
            ensure!(followed, "the cache's upstreams are {}", status["upstreams"]);
            let servers = servers(host)?;
            ensure!(servers.iter().any(|server| server == SECOND), "asked are {servers:?}");
            ensure!(servers.first().is_some_and(|server| server == OURS), "asked are {servers:?}");
            through_the_cache(host, "renewed.demo.test")
        });
    }

    fn power_cut(&mut self) -> Result<()> {
        self.stop_upstreams();
        self.host.power_cut()?;
        self.wire()?;
        wait_active(&self.host, SERVICE)?;
        self.see("after a power cut names go through the cache", |host| {
            let mut said = Err(anyhow::anyhow!("never asked"));
            sh::wait_until(LIMIT, || {
                said = through_the_cache(host, "booted.demo.test");
                said.is_ok()
            });
            said
        });
        let before = self.before.clone();
        self.see("disable restores every byte", |host| {
            host.output(&["dogwatch", "dns", "disable"])?;
            unchanged(host, &before)?;
            quick(host, "disabled.demo.test")
        });
        Ok(())
    }

    /// Kills `enable` after different times.
    fn interrupted(&mut self) {
        if self.kind.name != "plain" {
            return;
        }
        let before = self.before.clone();
        self.see("kill -9 of enable at any moment: disable restores everything", |host| {
            let (mut in_the_middle, mut done) = (0, 0);
            for after in 0..MOMENTS {
                let line = format!("timeout -s KILL 0.{:03} dogwatch dns enable", 5 + after * 8);
                done += u32::from(host.output(&["sh", "-c", &line]).is_ok());
                let status = host.output(&["dogwatch", "dns", "status"])?;
                in_the_middle += u32::from(status.contains("was interrupted"));
                look_up(host, "middle.demo.test").with_context(|| format!("after {line}: {status}"))?;
                host.output(&["dogwatch", "dns", "disable"])?;
                unchanged(host, &before).with_context(|| format!("after {line}"))?;
            }
            Ok(format!("{MOMENTS} times, {in_the_middle} in the middle, {done} too late"))
        });
    }

    fn leave(&mut self) {
        let before = self.before.clone();
        self.see("purge while enabled: every file is restored, names resolve", |host| {
            host.output(&["dogwatch", "dns", "enable"])?;
            host.output(&["dpkg", "-P", "dogwatch"])?;
            let took = quick(host, "purged.demo.test")?;
            let differing = differing(&etc(host)?, &before);
            let left: Vec<_> = differing.iter().filter(|path| !package_file(path)).collect();
            ensure!(left.is_empty(), "differs: {left:?}");
            ensure!(!host.path("var/lib/dogwatch-resolver").exists(), "the journal is left");
            Ok(took)
        });
        if self.count.failed > 0 {
            let journal = ["journalctl", "--no-pager", "-o", "short-monotonic", "-n", "40"];
            println!("{}", self.host.output(&journal).unwrap_or_default());
            println!(
                "{}",
                self.host
                    .output(&["sh", "-c", "ls -la /etc/resolv.conf; cat /etc/resolv.conf"])
                    .unwrap_or_default()
            );
        }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.stop_upstreams();
    }
}

fn resolv_conf(root: &Path, text: &str) -> Result<()> {
    Ok(fs::write(root.join("etc/resolv.conf"), text)?)
}

/// Does what ifupdown or a DHCP client does, for both resolvconfs.
fn record(host: &Host, server: &str) -> Result<()> {
    let line = format!("printf 'search demo.test\\nnameserver {server}\\n' | resolvconf -a d0.dhclient");
    host.output(&["sh", "-c", &line]).map(drop)
}

fn network_file(root: &Path, server: &str) -> Result<()> {
    let folder = root.join("etc/systemd/network");
    fs::create_dir_all(&folder)?;
    let text = format!("[Match]\nName=d0\n[Network]\nAddress=10.9.0.2/24\nDNS={server}\nDomains=demo.test\n");
    Ok(fs::write(folder.join("d0.network"), text)?)
}

fn profile(host: &Host) -> Result<()> {
    let add = format!(
        "nmcli -g NAME con | grep -qx lab || nmcli con add type ethernet ifname d0 con-name lab ipv4.method manual \
         ipv4.addresses 10.9.0.2/24 ipv4.dns {FIRST} ipv4.dns-search demo.test ipv6.method disabled; \
         nmcli con mod lab ipv4.dns {FIRST} && nmcli con up lab"
    );
    host.output(&["sh", "-c", &add]).map(drop)
}

fn lease(host: &Host) -> Result<()> {
    lease_of(host, FIRST)
}

fn lease_second(host: &Host) -> Result<()> {
    lease_of(host, SECOND)
}

/// Gets a lease from a DHCP server at the far end of the link.
fn lease_of(host: &Host, server: &str) -> Result<()> {
    let option = format!("--dhcp-option=6,{server}");
    let mut serve = host.in_network(&[
        "dnsmasq",
        "--port=0",
        "--no-daemon",
        "--conf-file=/dev/null",
        "--interface=d1",
        "--bind-interfaces",
        "--leasefile-ro",
        // The lease that the client remembers is from another server.
        "--dhcp-authoritative",
        "--dhcp-range=10.9.0.50,10.9.0.60,2m",
        "--dhcp-option=15,demo.test",
        &option,
    ]);
    let mut serve = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let _ = host.output(&["sh", "-c", "pkill -x dhclient"]);
    let leased = host.output(&["timeout", "20", "dhclient", "-4", "d0"]);
    let _ = serve.kill();
    let _ = serve.wait();
    leased.map(drop)
}

/// The servers in use, in order: from resolv.conf, or from systemd-resolved.
fn servers(host: &Host) -> Result<Vec<String>> {
    let path = host.output(&["readlink", "-f", "/etc/resolv.conf"])?;
    let stub = path.contains("systemd/resolve");
    let text = host.output(&["cat", if stub { "/run/systemd/resolve/resolv.conf" } else { &path }])?;
    Ok(text.lines().filter_map(|line| line.strip_prefix("nameserver ")).map(str::to_owned).collect())
}

/// Looks up a name like a program in the host.
fn look_up(host: &Host, name: &str) -> Result<String> {
    let said = host.output(&["getent", "ahostsv4", name])?;
    let address = said.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(address.starts_with("192.0.2."), "{name} is {said:?}");
    Ok(address)
}

fn quick(host: &Host, name: &str) -> Result<String> {
    let from = clock::now();
    look_up(host, name)?;
    let took = clock::now().duration_since(from);
    ensure!(took <= QUICK, "it took {} ms", took.as_millis());
    Ok(format!("in {} ms", took.as_millis()))
}

fn through_the_cache(host: &Host, name: &str) -> Result<String> {
    let from = clock::now();
    look_up(host, name)?;
    let took = clock::now().duration_since(from);
    let why = host.output(&["dogwatch", "dns", "why", name])?;
    ensure!(!why.contains("not cached"), "the cache was not used: {why}");
    Ok(format!("in {} ms", took.as_millis()))
}

/// Expects `enable` to fail. Returns its message.
fn refused(host: &Host) -> Result<String> {
    match host.output(&["dogwatch", "dns", "enable"]) {
        Ok(said) => bail!("it succeeded: {said}"),
        Err(error) => {
            let said = error.to_string();
            ensure!(said.contains("not enabled"), "{said}");
            Ok(said.split("dogwatch: ").last().unwrap_or_default().to_owned())
        }
    }
}

/// Everything in `/etc` and the target of resolv.conf: kind, mode, owner, content.
fn etc(host: &Host) -> Result<BTreeMap<String, String>> {
    let mut tree = BTreeMap::new();
    walk(&host.path("etc"), "/etc", &mut tree)?;
    tree.insert("what resolv.conf says".into(), host.output(&["cat", "/etc/resolv.conf"])?);
    Ok(tree)
}

fn walk(folder: &Path, name: &str, tree: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // NetworkManager stores the time of the last use in it.
        if path.ends_with("NetworkManager/system-connections") {
            continue;
        }
        let meta = fs::symlink_metadata(&path)?;
        let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        let content = if meta.is_symlink() {
            fs::read_link(&path)?.display().to_string()
        } else if meta.is_dir() {
            walk(&path, &name, tree)?;
            String::new()
        } else {
            String::from_utf8_lossy(&fs::read(&path)?).into_owned()
        };
        tree.insert(name, format!("{:o} {} {} {content}", meta.mode(), meta.uid(), meta.gid()));
    }
    Ok(())
}

fn differing(now: &BTreeMap<String, String>, before: &BTreeMap<String, String>) -> Vec<String> {
    let paths = now.keys().chain(before.keys());
    let mut differing: Vec<_> = paths.filter(|path| now.get(*path) != before.get(*path)).cloned().collect();
    differing.sort();
    differing.dedup();
    differing
}

fn unchanged(host: &Host, before: &BTreeMap<String, String>) -> Result<()> {
    let now = etc(host)?;
    let differing = differing(&now, before);
    let first =
        differing.first().map(|path| format!("{:?}, before it was {:?}", now.get(path), before.get(path)));
    ensure!(differing.is_empty(), "{differing:?} differ: {}", first.unwrap_or_default());
    Ok(())
}

/// Paths that the package itself adds and removes.
fn package_file(path: &str) -> bool {
    let ours =
        ["dogwatch", "alertd", "alertctl", "sockets.target.wants"].iter().any(|word| path.contains(word));
    let accounts = [
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/subuid",
        "/etc/subgid",
        "/etc/.pwd.lock",
    ];
    (ours && !path.contains("90-dogwatch")) || accounts.iter().any(|start| path.starts_with(start))
}
