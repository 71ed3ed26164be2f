//! Finds out what manages this host's resolver configuration, and what has to change so that the
//! cache comes first. Pure.
//!
//! | manager | recognized by | changes | old servers come from |
//! | --- | --- | --- | --- |
//! | none | `/etc/resolv.conf` is a plain file | our lines in it | fixed in the cache's config |
//! | dhclient | the same, and dhclient runs | the same, and hooks that add our lines to the file it writes | the file itself, without us |
//! | Debian's resolvconf | link into `/run/resolvconf` | our lines in its `head` (a record for `lo` would drop the old servers) | the same |
//! | openresolv | a comment in the file | a block in `/etc/resolvconf.conf` | the same |
//! | NetworkManager | link into its `/run`, or a comment in the file | NetworkManager stops writing the file; a dispatcher script keeps it current | its own list in `/run` |
//! | systemd-resolved | link into its `/run`, or its stub is the only server | a drop-in with one more global server | its own list in `/run` |
//!
//! systemd-resolved has no order of servers: it keeps using the global server that answered last,
//! and a server that hangs costs 5 s (measured with version 252). So the old servers are not listed
//! beside ours. They stay on their links and are queried *at the same time*; the first answer wins,
//! so neither a dead cache nor a dead upstream costs time.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{
    layout::{
        Host, NETWORK_MANAGER_SERVERS, Node, OPENRESOLV, RESOLV_CONF, RESOLVCONF_HEAD, RESOLVED_SERVERS,
        Resolved,
    },
    text,
};

/// What writes the host's resolver configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manager {
    Nobody,
    Dhclient,
    Resolvconf,
    Openresolv,
    NetworkManager,
    SystemdResolved,
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "no program (a plain file)",
            Self::Dhclient => "dhclient",
            Self::Resolvconf => "resolvconf",
            Self::Openresolv => "openresolv",
            Self::NetworkManager => "NetworkManager",
            Self::SystemdResolved => "systemd-resolved",
        })
    }
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// For a new file; an existing file keeps its mode.
    pub mode: u32,
    pub why: &'static str,
}

/// Files, and the command that makes a program reread them. To undo, the files are restored and the
/// same command runs again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub puts: Vec<Put>,
    pub then: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub manager: Manager,
    /// The servers used if the cache does not answer.
    pub old_servers: Vec<IpAddr>,
    /// First the cache's own config, then the host's.
    pub stages: Vec<Stage>,
    /// Notes for the operator.
    pub remarks: Vec<String>,
}

/// The facts about the cache that a plan needs.
#[derive(Debug, Clone)]
pub struct Cache {
    pub address: IpAddr,
    /// Our drop-in in dns.d.
    pub drop_in: PathBuf,
}

/// Why no safe change is possible, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

const RESOLVED_FILES: [&str; 4] = [
    "/run/systemd/resolve/stub-resolv.conf",
    RESOLVED_SERVERS,
    "/usr/lib/systemd/resolv.conf",
    "/lib/systemd/resolv.conf",
];
const RESOLVCONF_FILES: [&str; 2] = ["/run/resolvconf/resolv.conf", "/etc/resolvconf/run/resolv.conf"];
const NETWORK_MANAGER_FILES: [&str; 2] = ["/run/NetworkManager/resolv.conf", NETWORK_MANAGER_SERVERS];
const NETWORK_MANAGER_DROP_IN: &str = "/etc/NetworkManager/conf.d/90-dogwatch-dns.conf";
const NETWORK_MANAGER_HOOK: &str = "/etc/NetworkManager/dispatcher.d/90-dogwatch-dns";
const RESOLVED_DROP_IN: &str = "/etc/systemd/resolved.conf.d/90-dogwatch-dns.conf";
const DHCLIENT_ENTER: &str = "/etc/dhcp/dhclient-enter-hooks.d/dogwatch-dns";
const DHCLIENT_EXIT: &str = "/etc/dhcp/dhclient-exit-hooks.d/dogwatch-dns";
const RESOLVED_STUBS: [[u8; 4]; 2] = [[127, 0, 0, 53], [127, 0, 0, 54]];

/// Finds out what manages the host's resolv.conf.
pub fn detect(host: &Host, ours: IpAddr) -> Result<Manager, Refusal> {
    let refuse = |why: String| Err(Refusal(why));
    if let Some((path, node)) = &host.target {
        let place = path.display().to_string();
        let is = |known: &[&str]| known.contains(&place.as_str());
        if is(&RESOLVED_FILES) {
            return match host.running.resolved {
                Some(_) => Ok(Manager::SystemdResolved),
                None => refuse(format!(
                    "{RESOLV_CONF} is a link to {place}, but systemd-resolved does not run: run `systemctl start systemd-resolved`, or replace the link with your own file"
                )),
            };
        }
        if *node == Node::Absent {
            return refuse(format!(
                "{RESOLV_CONF} is a link to {place}, which does not exist, so this host cannot resolve names; fix that first"
            ));
        }
        if is(&RESOLVCONF_FILES) {
            return Ok(Manager::Resolvconf);
        }
        if is(&NETWORK_MANAGER_FILES) {
            return network_manager(host);
        }
        if path.starts_with("/run") || path.starts_with("/tmp") {
            return refuse(format!(
                "{RESOLV_CONF} is a link to {place}, which is written by an unknown program: configure that program to put `nameserver {ours}` first"
            ));
        }
    }
    let Some(text) = host.text() else {
        return refuse(format!(
            "{RESOLV_CONF} does not exist, so this host cannot resolve names; fix that first"
        ));
    };
    let head = String::from_utf8_lossy(text);
    let says = |word: &str| head.lines().take(5).any(|line| line.starts_with('#') && line.contains(word));
    if says("enerated by NetworkManager") {
        return network_manager(host);
    }
    if says("enerated by resolvconf") {
        return Ok(Manager::Openresolv);
    }
    if says("enerated by dhcpcd") || says("resolv.conf from") {
        return refuse(format!(
            "dhcpcd writes {RESOLV_CONF}: add `nameserver {ours}` to /etc/resolv.conf.head, then run `dhcpcd --rebind`"
        ));
    }
    let servers = text::servers(text, ours);
    if !servers.is_empty() && servers.iter().all(|server| is_resolved_stub(*server)) {
        return match host.running.resolved {
            Some(_) => Ok(Manager::SystemdResolved),
            None => refuse(format!(
                "{RESOLV_CONF} points to the stub of systemd-resolved, but systemd-resolved does not run, so this host cannot resolve names; fix that first"
            )),
        };
    }
    Ok(if host.running.dhclient { Manager::Dhclient } else { Manager::Nobody })
}

fn network_manager(host: &Host) -> Result<Manager, Refusal> {
    if host.running.network_manager {
        return Ok(Manager::NetworkManager);
    }
    Err(Refusal(format!(
        "NetworkManager wrote {RESOLV_CONF}, but does not run: run `systemctl start NetworkManager`, or write your own file"
    )))
}

/// The necessary changes. Derived from the files without our lines, so that the plan is the same
/// before and after the switch.
pub fn plan(host: &Host, cache: &Cache) -> Result<Plan, Refusal> {
    let ours = cache.address;
    let manager = detect(host, ours)?;
    let text = host.text().unwrap_or_default();
    let mut plan =
        Plan { manager, old_servers: text::servers(text, ours), stages: Vec::new(), remarks: Vec::new() };
    let switch = match manager {
        Manager::Nobody => Stage { puts: vec![in_place(host, ours)?], then: None },
        Manager::Dhclient => {
            Stage { puts: vec![enter_hook(ours), exit_hook(ours), in_place(host, ours)?], then: None }
        }
        Manager::Resolvconf => {
            let head = host.file(RESOLVCONF_HEAD).unwrap_or_default();
            let mut bytes = text::without_cache(head, ours);
            bytes.extend_from_slice(text::resolv_conf_block(ours).as_bytes());
            let why = "resolvconf puts it at the top of every resolv.conf";
            Stage {
                puts: vec![Put { path: RESOLVCONF_HEAD.into(), bytes, mode: 0o644, why }],
                then: Some(words("resolvconf -u")),
            }
        }
        Manager::Openresolv => openresolv(host, ours)?,
        Manager::NetworkManager => {
            let servers = host.file(NETWORK_MANAGER_SERVERS).unwrap_or_default();
            plan.old_servers = text::servers(servers, ours);
            network_manager_stage(servers, ours)
        }
        Manager::SystemdResolved => {
            let resolved = host.running.resolved.clone().unwrap_or_default();
            plan.old_servers = resolved_servers(&resolved, ours);
            resolved_stage(&resolved, ours)?
        }
    };
    if plan.old_servers.is_empty() {
        return Err(Refusal(format!(
            "no name server besides {ours} is configured, so there would be no fallback if the cache does not answer; add one first"
        )));
    }
    if text::has_option(text, "rotate") && manager != Manager::SystemdResolved {
        plan.remarks.push(format!("`options rotate` in {RESOLV_CONF} makes some lookups bypass the cache"));
    }
    if plan.old_servers.len() > 2 && manager != Manager::SystemdResolved {
        let unused: Vec<_> = plan.old_servers[2..].iter().map(ToString::to_string).collect();
        plan.remarks.push(format!(
            "glibc uses at most three servers, so only the cache will use {}",
            unused.join(", ")
        ));
    }
    if manager == Manager::SystemdResolved {
        plan.remarks.push(
            "systemd-resolved queries the cache and its own servers at the same time and uses the first good answer".into(),
        );
    }
    let own = cache_config(host, &plan, cache);
    plan.remarks.extend(
        host.own_upstreams
            .iter()
            .map(|path| format!("the cache's upstreams stay as set in {}", path.display())),
    );
    plan.stages = vec![
        Stage { puts: Vec::from_iter(own), then: Some(words("systemctl reload dogwatch-dns.service")) },
        switch,
    ];
    Ok(plan)
}

/// The cache's drop-in: its upstreams must no longer come from resolv.conf, which now contains the
/// cache itself.
fn cache_config(host: &Host, plan: &Plan, cache: &Cache) -> Option<Put> {
    let mut body = String::new();
    if host.own_upstreams.is_none() {
        let pinned = format!("upstreams = {}\n", listed(&plan.old_servers));
        let follows = |path: &str| format!("resolv_conf = \"{path}\"\n");
        let split = host.running.resolved.as_ref().is_some_and(has_split_links);
        body.push_str(&match plan.manager {
            Manager::Nobody => pinned,
            // The manager keeps the old servers in the file; the cache ignores itself.
            Manager::Dhclient | Manager::Resolvconf | Manager::Openresolv => follows(RESOLV_CONF),
            Manager::NetworkManager => follows(NETWORK_MANAGER_SERVERS),
            // The servers of a VPN must not be asked for all names.
            Manager::SystemdResolved if split => pinned,
            Manager::SystemdResolved => follows(RESOLVED_SERVERS),
        });
    }
    if host.own_client_timer.is_none() && plan.manager != Manager::SystemdResolved {
        body += "# Programs try the next server after one second; a stale answer must come sooner.\nclient_timer = \"900ms\"\n";
    }
    if body.is_empty() {
        return None;
    }
    let head = text::own_file("the cache's upstreams are the servers that this host used before");
    let undo = "# `dogwatch dns disable` removes this file. Files read later override it.\n";
    Some(Put {
        path: cache.drop_in.clone(),
        bytes: format!("{head}{undo}[dns]\n{body}").into_bytes(),
        mode: 0o644,
        why: "the cache's upstreams are the old servers, not the cache itself",
    })
}

fn listed(servers: &[IpAddr]) -> String {
    let quoted: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// `/etc/resolv.conf` itself, or the plain file that it links to.
fn in_place(host: &Host, ours: IpAddr) -> Result<Put, Refusal> {
    let (path, node) = match &host.target {
        Some((path, node)) => (path.clone(), node),
        None => (PathBuf::from(RESOLV_CONF), &host.resolv_conf),
    };
    if let Node::File(file) = node
        && file.immutable
    {
        let place = path.display();
        return Err(Refusal(format!(
            "{place} is immutable: run `chattr -i {place}`, then `dogwatch dns enable`, then `chattr +i {place}`"
        )));
    }
    let bytes = text::with_cache(node.bytes().unwrap_or_default(), ours);
    Ok(Put { path, bytes, mode: 0o644, why: "the cache first, then the old servers" })
}

fn enter_hook(ours: IpAddr) -> Put {
    let says = text::own_file("the cache comes before the servers from DHCP");
    let bytes = format!(
        "{says}# Read by dhclient-script; `dogwatch dns disable` removes it.\n\
         if [ -x /usr/bin/dogwatch ] && [ -n \"$new_domain_name_servers\" ]; then\n\
         \tnew_domain_name_servers=\"{ours} $new_domain_name_servers\"\n\
         fi\n"
    );
    Put {
        path: DHCLIENT_ENTER.into(),
        bytes: bytes.into_bytes(),
        mode: 0o644,
        why: "the cache stays first when the lease is renewed",
    }
}

fn exit_hook(ours: IpAddr) -> Put {
    let says = text::own_file("a server that hangs costs one second instead of five");
    let mark = says.trim_end();
    let bytes = format!(
        "{says}# Read by dhclient-script; `dogwatch dns disable` removes it.\n\
         if [ -x /usr/bin/dogwatch ] && grep -q '^nameserver {ours}$' {RESOLV_CONF} && ! grep -q '^options.*timeout' {RESOLV_CONF}; then\n\
         \tprintf '%s\\n' '{mark}' 'options timeout:1' >>{RESOLV_CONF}\n\
         fi\n"
    );
    Put {
        path: DHCLIENT_EXIT.into(),
        bytes: bytes.into_bytes(),
        mode: 0o644,
        why: "the timeout stays when the lease is renewed",
    }
}

fn openresolv(host: &Host, ours: IpAddr) -> Result<Stage, Refusal> {
    let Some(config) = host.file(OPENRESOLV) else {
        return Err(Refusal(format!("openresolv wrote {RESOLV_CONF}, but {OPENRESOLV} does not exist")));
    };
    let block = format!(
        "name_servers=\"{ours} $name_servers\"\nresolv_conf_local_only=NO\nresolv_conf_options=\"timeout:1 $resolv_conf_options\"\n"
    );
    let says = "the cache first, then the old servers; to undo, run `dogwatch dns disable`";
    let bytes = text::with_block(config, says, &block);
    let why = "openresolv uses it to write resolv.conf";
    Ok(Stage {
        puts: vec![Put { path: OPENRESOLV.into(), bytes, mode: 0o644, why }],
        then: Some(words("resolvconf -u")),
    })
}

fn network_manager_stage(servers: &[u8], ours: IpAddr) -> Stage {
    let says = text::own_file("dogwatch manages resolv.conf; `dogwatch dns disable` removes this file");
    let config = format!("{says}[main]\nrc-manager=unmanaged\n");
    let says = text::own_file("updates the old servers in resolv.conf when NetworkManager changes them");
    let hook = format!(
        "#!/bin/sh\n{says}case \"$2\" in\n\
         up | down | dhcp4-change | dhcp6-change | dns-change | vpn-up | vpn-down | reapply)\n\
         \t[ ! -x /usr/bin/dogwatch ] || exec /usr/bin/dogwatch dns enable --refresh ;;\n\
         esac\n"
    );
    let put = |path: &str, bytes: Vec<u8>, mode, why| Put { path: path.into(), bytes, mode, why };
    Stage {
        puts: vec![
            put(
                NETWORK_MANAGER_DROP_IN,
                config.into_bytes(),
                0o644,
                "NetworkManager stops writing resolv.conf",
            ),
            put(
                NETWORK_MANAGER_HOOK,
                hook.into_bytes(),
                0o755,
                "NetworkManager reports when its servers change",
            ),
            put(RESOLV_CONF, text::with_cache(servers, ours), 0o644, "the cache first, then the old servers"),
        ],
        then: Some(words("systemctl reload NetworkManager.service")),
    }
}

/// The servers used for any name: those of the default links, then the global ones.
fn resolved_servers(resolved: &Resolved, ours: IpAddr) -> Vec<IpAddr> {
    let mut all: Vec<_> = resolved.default_links().flat_map(|link| link.servers.clone()).collect();
    all.extend(&resolved.global);
    let mut servers = Vec::new();
    for server in all {
        if server != ours && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// Whether a link has servers for its own domains only.
fn has_split_links(resolved: &Resolved) -> bool {
    resolved.links.iter().any(|link| !link.default_route && !link.servers.is_empty())
}

fn resolved_stage(resolved: &Resolved, ours: IpAddr) -> Result<Stage, Refusal> {
    if resolved.tls_only {
        return Err(Refusal(
            "systemd-resolved queries over TLS only (DNSOverTLS=yes), which the cache does not serve: \
             set DNSOverTLS=no in resolved.conf, and use TLS upstreams in dns.toml"
                .into(),
        ));
    }
    let global: Vec<_> =
        resolved.global.iter().filter(|server| **server != ours).map(ToString::to_string).collect();
    // A name under a link's domain goes only to that link, unless a global domain matches too.
    let mut domains: Vec<&str> = Vec::new();
    for domain in resolved.default_links().flat_map(|link| &link.domains) {
        if domain != "." && !domains.contains(&domain.as_str()) {
            domains.push(domain);
        }
    }
    let mut config =
        text::own_file("one more server beside those of the links; `dogwatch dns disable` removes this file");
    config += "[Resolve]\n# The cache first, then the servers that were listed before.\nDNS=\n";
    config += format!("DNS={ours} {}", global.join(" ")).trim_end();
    config += "\n";
    for domain in domains {
        // Writing to a string cannot fail.
        let _ = writeln!(config, "Domains=~{domain}");
    }
    Ok(Stage {
        puts: vec![Put {
            path: RESOLVED_DROP_IN.into(),
            bytes: config.into_bytes(),
            mode: 0o644,
            why: "systemd-resolved queries the cache too",
        }],
        // Version 252 reads its config only at start; the servers of the links survive a restart.
        then: Some(words("systemctl restart systemd-resolved.service")),
    })
}

pub(super) fn is_resolved_stub(server: IpAddr) -> bool {
    RESOLVED_STUBS.iter().any(|stub| server == IpAddr::from(*stub))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}
