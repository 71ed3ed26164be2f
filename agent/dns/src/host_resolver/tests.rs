//! Complete switches on temporary trees that look like real hosts, with a fake system that can fail
//! or be interrupted at any point.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    layout::{Link, NETWORK_MANAGER_SERVERS, RESOLVED_SERVERS, Resolved, Running},
    report,
    switch::STATE_DIR,
    system::{Answer, Died, Lookup, System},
    *,
};

const OURS: &str = "127.0.0.153";
const OLD: &str = "192.0.2.1";
const CONFIG: &str = "/etc/dogwatch/dns.toml";
/// Injects a failure.
type Spoil = fn(&mut World);

/// A host: its files, its running programs, and the injected failures.
struct World {
    root: tempfile::TempDir,
    running: Running,
    cache: Answer,
    old: Answer,
    /// The result of getaddrinfo once the host's files contain the cache.
    switched: Lookup,
    upstreams: Vec<IpAddr>,
    cache_is_asked: bool,
    failing: Option<&'static str>,
    ran: Vec<String>,
    /// Interrupts the switch at this step.
    dies_at: Option<u32>,
    steps: u32,
}

impl World {
    fn new(running: Running) -> Self {
        let world = Self {
            root: scratch(),
            running,
            cache: Answer::Code(0),
            old: Answer::Code(0),
            switched: Lookup::Found,
            upstreams: vec![OLD.parse().unwrap()],
            cache_is_asked: true,
            failing: None,
            ran: Vec::new(),
            dies_at: None,
            steps: 0,
        };
        for folder in [
            "etc/dogwatch",
            "etc/systemd",
            "etc/dhcp/dhclient-enter-hooks.d",
            "etc/dhcp/dhclient-exit-hooks.d",
            "var/lib",
            "run",
        ] {
            fs::create_dir_all(world.at(folder)).unwrap();
        }
        world.write("/etc/apt/sources.list", "deb http://deb.example/debian bookworm main\n");
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.at(path)).unwrap();
    }

    /// Every path with its kind, mode and content.
    fn tree(&self) -> BTreeMap<String, String> {
        fn walk(folder: &Path, root: &Path, tree: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let content = if kind.is_symlink() {
                    format!("-> {}", fs::read_link(&path).unwrap().display())
                } else if kind.is_dir() {
                    walk(&path, root, tree);
                    "folder".into()
                } else {
                    let mode = fs::metadata(&path).unwrap().permissions().mode();
                    format!("{mode:o} {}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
                };
                tree.insert(name, content);
            }
        }
        let mut tree = BTreeMap::new();
        walk(self.root.path(), self.root.path(), &mut tree);
        tree
    }

    fn back(&mut self) -> Result<Option<Disabled>, SwitchError> {
        let root = self.root.path().to_owned();
        Switch::new(&root, Path::new(CONFIG), OURS.parse().unwrap(), self).disable()
    }

    fn refresh(&mut self) -> Result<Option<Vec<PathBuf>>, SwitchError> {
        let root = self.root.path().to_owned();
        Switch::new(&root, Path::new(CONFIG), OURS.parse().unwrap(), self).refresh()
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Switch<'_, World>) -> T) -> T {
        let root = self.root.path().to_owned();
        work(&mut Switch::new(&root, Path::new(CONFIG), OURS.parse().unwrap(), self))
    }

    fn enable(&mut self) -> Result<Enabled, SwitchError> {
        self.with(|switch| switch.enable(&[]))
    }

    fn disable(&mut self) -> Option<Disabled> {
        self.back().unwrap()
    }

    fn status(&mut self) -> String {
        self.with(|switch| report::text(&report::look(switch).unwrap()))
    }

    fn is_switched(&self) -> bool {
        let readers = ["/etc/resolv.conf", layout::RESOLVCONF_HEAD, layout::OPENRESOLV];
        readers.iter().any(|path| fs::read_to_string(self.at(path)).is_ok_and(|text| text.contains(OURS)))
            || self.at("/etc/systemd/resolved.conf.d/90-dogwatch-dns.conf").exists()
    }
}

/// In memory if possible, because thousands of synced changes on a disk would be slow.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl System for World {
    fn running(&mut self) -> Running {
        self.running.clone()
    }

    fn run(&mut self, words: &[String]) -> Result<(), String> {
        let line = words.join(" ");
        let fails = self.failing.is_some_and(|failing| line.contains(failing));
        self.ran.push(line.clone());
        if fails { Err(format!("`{line}` failed with exit status: 1")) } else { Ok(()) }
    }

    fn ask(&mut self, server: IpAddr, _: &str) -> Answer {
        if server.to_string() == OURS { self.cache } else { self.old }
    }

    fn look_up(&mut self, _: &str) -> Lookup {
        if self.is_switched() { self.switched } else { Lookup::Found }
    }

    fn cache_upstreams(&mut self) -> Result<Vec<IpAddr>, String> {
        Ok(self.upstreams.clone())
    }

    fn cache_knows(&mut self, _: &str) -> Result<bool, String> {
        Ok(self.cache_is_asked)
    }

    fn fresh_label(&mut self) -> String {
        "fresh".into()
    }

    fn pause(&mut self, _: Duration) {}

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn step(&mut self) -> Result<(), Died> {
        self.steps += 1;
        if self.dies_at == Some(self.steps) { Err(Died) } else { Ok(()) }
    }
}

fn plain() -> World {
    let world = World::new(Running::default());
    world.write(
        "/etc/resolv.conf",
        &format!("# by hand\nsearch corp.example\nnameserver {OLD}\nnameserver 192.0.2.2\n"),
    );
    fs::set_permissions(world.at("/etc/resolv.conf"), fs::Permissions::from_mode(0o664)).unwrap();
    world
}

fn dhclient() -> World {
    let world = World::new(Running { dhclient: true, ..Running::default() });
    world.write("/etc/resolv.conf", &format!("domain corp.example\nsearch corp.example\nnameserver {OLD}\n"));
    world
}

/// As set up by Debian's resolvconf 1.91.
fn resolvconf() -> World {
    let world = World::new(Running::default());
    let head = "# Dynamic resolv.conf(5) file for glibc resolver(3) generated by resolvconf(8)\n#     DO NOT EDIT THIS FILE BY HAND -- YOUR CHANGES WILL BE OVERWRITTEN\n";
    world.write("/etc/resolvconf/resolv.conf.d/head", head);
    world.write("/run/resolvconf/resolv.conf", &format!("{head}nameserver {OLD}\n"));
    world.link("/etc/resolv.conf", "../run/resolvconf/resolv.conf");
    world
}

/// As set up by Debian's openresolv 3.12.
fn openresolv() -> World {
    let world = World::new(Running::default());
    world.write(
        "/etc/resolvconf.conf",
        "# Configuration for resolvconf(8)\n\nresolv_conf=/etc/resolv.conf\n#name_servers=127.0.0.1\n",
    );
    world.write("/etc/resolv.conf", &format!("# Generated by resolvconf\nnameserver {OLD}\n"));
    world
}

fn network_manager(link: bool) -> World {
    let world = World::new(Running { network_manager: true, ..Running::default() });
    let text = format!("# Generated by NetworkManager\nsearch demo.test\nnameserver {OLD}\n");
    world.write(NETWORK_MANAGER_SERVERS, &text);
    world.write("/run/NetworkManager/resolv.conf", &text);
    for folder in ["/etc/NetworkManager/conf.d", "/etc/NetworkManager/dispatcher.d"] {
        fs::create_dir_all(world.at(folder)).unwrap();
    }
    if link {
        world.link("/etc/resolv.conf", "/run/NetworkManager/resolv.conf");
    } else {
        world.write("/etc/resolv.conf", &text);
    }
    world
}

fn resolved() -> World {
    let link = Link {
        name: "eth0".into(),
        servers: vec![OLD.parse().unwrap()],
        domains: vec!["corp.example".into()],
        default_route: true,
    };
    let resolved = Resolved { links: vec![link], ..Resolved::default() };
    let world = World::new(Running { resolved: Some(resolved), ..Running::default() });
    world.write(
        "/run/systemd/resolve/stub-resolv.conf",
        "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n",
    );
    world.write(RESOLVED_SERVERS, &format!("nameserver {OLD}\nsearch corp.example\n"));
    world.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    world
}

fn hosts() -> Vec<(Manager, fn() -> World)> {
    vec![
        (Manager::Nobody, plain),
        (Manager::Dhclient, dhclient),
        (Manager::Resolvconf, resolvconf),
        (Manager::Openresolv, openresolv),
        (Manager::NetworkManager, || network_manager(false)),
        (Manager::NetworkManager, || network_manager(true)),
        (Manager::SystemdResolved, resolved),
    ]
}

#[test]
fn disable_restores_every_kind_of_host_byte_for_byte() {
    for (manager, host) in hosts() {
        let mut world = host();
        let before = world.tree();
        let done = world.enable().unwrap();
        assert_eq!(done.manager, manager);
        assert_eq!(done.old_servers[0].to_string(), OLD, "{manager}");
        assert!(world.is_switched(), "{manager}: {:#?}", world.tree());
        let config = world.text("/etc/dogwatch/dns.d/50-host-resolver.toml");
        assert!(!config.contains(OURS), "{config}");

        let enabled = world.tree();
        let again = world.enable().unwrap();
        assert_eq!(again.changed, Vec::<PathBuf>::new(), "{manager}");
        assert_eq!(world.tree(), enabled, "{manager}: enabling twice changes nothing");
        assert!(world.status().contains("has used the cache since"), "{}", world.status());

        let undone = world.disable().unwrap();
        assert_eq!((undone.kept.len(), undone.failed.len()), (0, 0), "{undone:?}");
        assert_eq!(world.tree(), before, "{manager}");
        assert!(world.disable().is_none());
    }
}

#[test]
fn resolv_conf_lists_the_cache_first_and_then_the_old_servers() {
    for host in [plain, dhclient, || network_manager(false), || network_manager(true)] {
        let mut world = host();
        world.enable().unwrap();
        let servers = text::all_servers(world.text("/etc/resolv.conf").as_bytes());
        assert_eq!(servers[..2], [OURS.parse::<IpAddr>().unwrap(), OLD.parse().unwrap()]);
        assert!(world.text("/etc/resolv.conf").contains("\noptions timeout:1\n"));
    }
}

#[test]
fn with_systemd_resolved_the_links_keep_their_servers_and_the_cache_is_added() {
    let mut world = resolved();
    world.enable().unwrap();
    let drop_in = world.text("/etc/systemd/resolved.conf.d/90-dogwatch-dns.conf");
    assert!(drop_in.ends_with(&format!("[Resolve]\n# The cache first, then the servers that were listed before.\nDNS=\nDNS={OURS}\nDomains=~corp.example\n")), "{drop_in}");
    assert!(world.ran.contains(&"systemctl restart systemd-resolved.service".to_owned()));
    assert!(world.text("/etc/dogwatch/dns.d/50-host-resolver.toml").contains(RESOLVED_SERVERS));
}

#[test]
fn the_servers_of_a_vpn_do_not_become_upstreams() {
    let mut world = resolved();
    let vpn = Link {
        name: "vpn0".into(),
        servers: vec!["10.0.0.1".parse().unwrap()],
        domains: vec!["vpn.example".into()],
        default_route: false,
    };
    world.running.resolved.as_mut().unwrap().links.push(vpn);
    world.enable().unwrap();
    assert!(
        world.text("/etc/dogwatch/dns.d/50-host-resolver.toml").contains(&format!("upstreams = [\"{OLD}\"]"))
    );
    assert!(!world.text("/etc/systemd/resolved.conf.d/90-dogwatch-dns.conf").contains("vpn.example"));
}

#[test]
fn an_interrupted_switch_is_undone_by_the_next_call() {
    for (manager, host) in hosts() {
        let mut whole = host();
        let before = whole.tree();
        whole.enable().unwrap();
        let (enabled, steps) = (whole.tree(), whole.steps);
        assert!(steps >= 8, "{manager}: {steps}");
        for step in 1..=steps {
            let mut world = host();
            world.dies_at = Some(step);
            assert!(matches!(world.enable(), Err(SwitchError::Died(_))), "{manager} at {step}");
            let status = world.status();
            let interrupted = status.contains("was interrupted");
            // Before the journal is written, there is nothing to undo.
            assert!(interrupted || step == 1, "{manager} at {step}: {status}");
            world.dies_at = None;
            if world.at("/etc/dogwatch/dns.d").exists() {
                world.write("/etc/dogwatch/dns.d/.50-host-resolver.toml.dogwatch-new", "[dn");
            }
            world.disable();
            let left: BTreeMap<_, _> =
                world.tree().into_iter().filter(|(path, _)| !path.starts_with(&STATE_DIR[1..])).collect();
            assert_eq!(left, before, "{manager} at {step}");

            let mut world = host();
            world.dies_at = Some(step);
            world.enable().unwrap_err();
            world.dies_at = None;
            world.enable().unwrap();
            let files = |tree: &BTreeMap<String, String>| {
                let own = |path: &&String| !path.starts_with(&STATE_DIR[1..]);
                tree.iter()
                    .filter(|(path, _)| own(path))
                    .map(|(a, b)| (a.clone(), b.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(files(&world.tree()), files(&enabled), "{manager} at {step}");
        }
    }
}

#[test]
fn an_interrupted_undo_is_finished_by_the_next_call() {
    for (manager, host) in hosts() {
        let mut whole = host();
        let before = whole.tree();
        whole.enable().unwrap();
        whole.steps = 0;
        whole.disable();
        for step in 1..=whole.steps {
            let mut world = host();
            world.enable().unwrap();
            (world.steps, world.dies_at) = (0, Some(step));
            assert!(matches!(world.back(), Err(SwitchError::Died(_))), "{manager} at {step}");
            world.dies_at = None;
            world.disable();
            assert_eq!(world.tree(), before, "{manager} at {step}");
        }
    }
}

#[test]
fn nothing_changes_while_the_cache_does_not_answer() {
    for (manager, host) in hosts() {
        for (cache, old, word) in [
            (Answer::PortClosed, Answer::Code(0), "does not answer on 127.0.0.153"),
            (Answer::Silence, Answer::Silence, "to check its upstreams"),
            (Answer::Code(2), Answer::Code(0), "the cache returns SERVFAIL, but 192.0.2.1 answers"),
            (Answer::Code(2), Answer::Silence, "no old server answers either"),
        ] {
            let mut world = host();
            (world.cache, world.old) = (cache, old);
            let before = world.tree();
            let said = world.enable().unwrap_err().to_string();
            assert!(said.contains(word) && said.contains("nothing was changed"), "{manager}: {said}");
            assert_eq!(world.tree(), before);
            assert_eq!(world.ran, Vec::<String>::new());
        }
    }
}

#[test]
fn a_failed_switch_is_undone_at_once() {
    let spoils: [(Spoil, &str); 6] = [
        (|world| world.switched = Lookup::Failed, "resolved before the switch, but not after"),
        (|world| world.cache_is_asked = false, "lookups do not reach the cache"),
        (|world| world.upstreams = vec![OURS.parse().unwrap()], "loop"),
        (|world| world.upstreams.clear(), "no upstreams"),
        (|world| world.upstreams = vec!["198.51.100.1".parse().unwrap()], "does not use the old servers"),
        (
            |world| world.failing = Some("reload dogwatch-dns"),
            "`systemctl reload dogwatch-dns.service` failed with",
        ),
    ];
    for (manager, host) in hosts() {
        for (spoil, word) in spoils {
            let mut world = host();
            let before = world.tree();
            spoil(&mut world);
            let error = world.enable().unwrap_err();
            assert!(matches!(error, SwitchError::Reverted(_)), "{manager}: {error}");
            assert!(error.to_string().contains(word), "{manager}: {error}");
            assert_eq!(world.tree(), before, "{manager}: {word}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_stops_the_switch_and_the_rest_is_reverted() {
    let mut world = network_manager(false);
    // A directory in place of the hook.
    fs::create_dir(world.at("/etc/NetworkManager/dispatcher.d/90-dogwatch-dns")).unwrap();
    let before = world.tree();
    let error = world.enable().unwrap_err();
    assert!(
        matches!(error, SwitchError::Reverted(_)) && error.to_string().contains("is not a file"),
        "{error}"
    );
    assert_eq!(world.tree(), before);
}

#[test]
fn later_edits_stay_and_only_our_lines_are_removed() {
    let mut world = plain();
    world.enable().unwrap();
    let edited = world.text("/etc/resolv.conf") + "nameserver 192.0.2.77\n";
    world.write("/etc/resolv.conf", &edited);
    assert!(world.status().contains("resolv.conf"), "{}", world.status());
    let undone = world.disable().unwrap();
    assert_eq!(undone.kept, [PathBuf::from("/etc/resolv.conf")]);
    assert_eq!(
        world.text("/etc/resolv.conf"),
        format!(
            "# by hand\nsearch corp.example\nnameserver {OLD}\nnameserver 192.0.2.2\nnameserver 192.0.2.77\n"
        )
    );
    assert!(report::disabled(Some(&undone)).contains("only our lines were removed"));

    let mut world = openresolv();
    world.enable().unwrap();
    let edited = world.text("/etc/resolvconf.conf") + "unbound_conf=/x\n";
    world.write("/etc/resolvconf.conf", &edited);
    world.disable().unwrap();
    assert!(world.text("/etc/resolvconf.conf").ends_with("#name_servers=127.0.0.1\nunbound_conf=/x\n"));

    let mut world = resolved();
    world.enable().unwrap();
    let drop_in = "/etc/systemd/resolved.conf.d/90-dogwatch-dns.conf";
    let edited = world.text(drop_in) + "Cache=no\n";
    world.write(drop_in, &edited);
    world.disable().unwrap();
    assert!(!world.at(drop_in).exists());
    assert_eq!(world.text(&format!("{drop_in}.edited")), edited);
}

#[test]
fn a_renewed_lease_is_adopted_and_undo_keeps_its_servers() {
    let mut world = dhclient();
    world.enable().unwrap();
    // The file that dhclient-script writes with our hook.
    world.write(
        "/etc/resolv.conf",
        &format!("search corp.example\nnameserver {OURS}\nnameserver 192.0.2.9\n"),
    );
    world.disable().unwrap();
    assert_eq!(world.text("/etc/resolv.conf"), "search corp.example\nnameserver 192.0.2.9\n");

    let mut world = network_manager(false);
    world.enable().unwrap();
    world.write(NETWORK_MANAGER_SERVERS, "# Generated by NetworkManager\nnameserver 192.0.2.9\n");
    // During an outage too.
    (world.cache, world.old, world.switched) = (Answer::Code(2), Answer::Silence, Lookup::Failed);
    let ran = world.ran.len();
    let followed = world.refresh().unwrap().unwrap();
    assert_eq!(followed, [PathBuf::from("/etc/resolv.conf")]);
    assert_eq!(world.ran.len(), ran, "NetworkManager's hook does not call NetworkManager");
    let servers = text::all_servers(world.text("/etc/resolv.conf").as_bytes());
    assert_eq!(servers, [OURS, "192.0.2.9"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    world.disable().unwrap();
    assert!(!world.is_switched());
    assert!(world.refresh().unwrap().is_none(), "a leftover hook does nothing");
}

#[test]
fn a_host_that_cannot_be_switched_safely_is_refused_with_a_reason() {
    let refused = |world: &mut World, word: &str| {
        let before = world.tree();
        let said = world.enable().unwrap_err().to_string();
        assert!(said.contains(word), "{said}");
        assert_eq!(world.tree(), before);
        assert!(world.status().contains(word), "{}", world.status());
    };
    let world = || World::new(Running::default());

    refused(&mut world(), "/etc/resolv.conf does not exist");
    let mut dangling = world();
    dangling.link("/etc/resolv.conf", "/run/nowhere/resolv.conf");
    refused(&mut dangling, "/run/nowhere/resolv.conf, which does not exist");
    let mut circle = world();
    circle.link("/etc/resolv.conf", "resolv.conf");
    refused(&mut circle, "which does not exist");
    let mut dead = world();
    dead.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    refused(&mut dead, "systemd-resolved does not run");
    let mut foreign = world();
    foreign.write("/run/connman/resolv.conf", "nameserver 192.0.2.1\n");
    foreign.link("/etc/resolv.conf", "/run/connman/resolv.conf");
    refused(&mut foreign, "written by an unknown program");
    for empty in ["", "# nothing\n", "search x.example\n", "nameserver 127.0.0.153\n"] {
        let mut world = world();
        world.write("/etc/resolv.conf", empty);
        refused(&mut world, "no name server besides 127.0.0.153");
    }
    let mut dhcpcd = world();
    dhcpcd.write("/etc/resolv.conf", "# Generated by dhcpcd from eth0.dhcp\nnameserver 192.0.2.1\n");
    refused(&mut dhcpcd, "/etc/resolv.conf.head");
    let mut gone = World::new(Running::default());
    gone.write("/etc/resolv.conf", "# Generated by NetworkManager\nnameserver 192.0.2.1\n");
    refused(&mut gone, "NetworkManager wrote");
    let mut tls = resolved();
    tls.running.resolved.as_mut().unwrap().tls_only = true;
    refused(&mut tls, "DNSOverTLS");
}

#[test]
fn an_admins_own_upstreams_and_timer_stay() {
    let mut world = plain();
    world.write("/etc/dogwatch/dns.toml", "[dns]\nupstreams = [\"198.51.100.1\"]\nclient_timer = \"1s\"\n");
    world.upstreams = vec!["198.51.100.1".parse().unwrap()];
    let done = world.enable().unwrap();
    assert_eq!(done.changed, [PathBuf::from("/etc/resolv.conf")]);
    assert!(done.remarks.iter().any(|remark| remark.contains("dns.toml")), "{:?}", done.remarks);
}

#[test]
fn the_cache_accepts_the_drop_in_that_enable_writes() {
    for (manager, host) in hosts() {
        let mut world = host();
        world.enable().unwrap();
        fs::write(world.at("/etc/dogwatch/dns.toml"), "").unwrap();
        let config = crate::config::Config::load(&world.at("/etc/dogwatch/dns.toml")).unwrap();
        let seconds = if manager == Manager::SystemdResolved { 1_800 } else { 900 };
        assert_eq!(config.client_timer, Duration::from_millis(seconds), "{manager}");
    }
}

#[test]
fn a_host_with_a_new_manager_is_switched_again() {
    let mut world = plain();
    world.enable().unwrap();
    world.running.network_manager = true;
    let text = format!("# Generated by NetworkManager\nnameserver {OLD}\n");
    world.write("/etc/resolv.conf", &text);
    world.write(NETWORK_MANAGER_SERVERS, &text);
    for folder in ["/etc/NetworkManager/conf.d", "/etc/NetworkManager/dispatcher.d"] {
        fs::create_dir_all(world.at(folder)).unwrap();
    }
    assert!(world.refresh().unwrap_err().to_string().contains("run `dogwatch dns enable`"));
    assert_eq!(world.enable().unwrap().manager, Manager::NetworkManager);
    world.disable().unwrap();
    assert_eq!(world.text("/etc/resolv.conf"), text);
}

#[test]
fn disable_works_after_the_listen_address_has_changed() {
    let mut world = plain();
    let before = world.tree();
    world.enable().unwrap();
    let edited = world.text("/etc/resolv.conf") + "# mine\n";
    world.write("/etc/resolv.conf", &edited);
    let root = world.root.path().to_owned();
    let other = "127.0.0.7".parse().unwrap();
    Switch::new(&root, Path::new("/etc/dogwatch/dns.toml"), other, &mut world).disable().unwrap().unwrap();
    assert!(!world.is_switched());
    assert_eq!(world.text("/etc/resolv.conf"), before["etc/resolv.conf"][7..].to_owned() + "# mine\n");
}

#[test]
fn only_an_address_with_port_53_can_be_used_in_resolv_conf() {
    let of = |listen: &[&str]| {
        let listen: Vec<SocketAddr> = listen.iter().map(|address| address.parse().unwrap()).collect();
        address_for_hosts(&listen).map(|ip| ip.to_string())
    };
    assert_eq!(of(&["127.0.0.1:5353", "127.0.0.153:53"]).as_deref(), Some(OURS));
    assert_eq!(of(&["0.0.0.0:53"]).as_deref(), Some("127.0.0.1"));
    assert_eq!(of(&["[::]:53"]).as_deref(), Some("::1"));
    assert_eq!(of(&["127.0.0.1:5353"]), None);
}
