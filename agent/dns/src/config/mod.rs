//! Reads `dns.toml` and its drop-ins into a [`Config`].

mod guards;
mod pinned;
mod prefix;
mod upstreams;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dogwatch_daemon::{
    config::{self, FilePath, Problems, Source, Spanned},
    duration::Span,
};
use hickory_resolver::system_conf::parse_resolv_conf;
use serde::Deserialize;

pub use self::prefix::Prefix;

use dogwatch_dns_core::{
    cache::Bounds,
    guard,
    health::{endpoint::Endpoint, group::CLIENT_TIMER_MAX},
    settings::{NoUpstreams, Settings, ZoneSettings},
    zones::{local::LocalNames, pinned::Pinned},
};

use self::upstreams::{Written, ZoneTable};

/// One file as written. Later files override earlier ones, key by key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default)]
    dns: DnsTable,
    #[serde(default)]
    zone: BTreeMap<Spanned<String>, ZoneTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DnsTable {
    listen: Option<Spanned<Vec<Spanned<String>>>>,
    upstreams: Option<Vec<Spanned<String>>>,
    ca_file: Option<Spanned<PathBuf>>,
    hosts_file: Option<Spanned<PathBuf>>,
    resolv_conf: Option<FilePath>,
    allow: Option<Spanned<Vec<Spanned<String>>>>,
    max_stale: Option<Spanned<Span>>,
    client_timer: Option<Spanned<Span>>,
    cache_mib: Option<Spanned<u32>>,
    threads: Option<Spanned<u16>>,
    state_dir: Option<FilePath>,
    control_socket: Option<FilePath>,
    metrics: Option<Spanned<String>>,
    guards: Option<Vec<Spanned<String>>>,
    vanish_grace: Option<Spanned<Span>>,
    hot_vanish_grace: Option<Spanned<Span>>,
    empty_grace: Option<Spanned<Span>>,
    mass_grace: Option<Spanned<Span>>,
    rebinding_guard: Option<bool>,
    rebinding_allow: Option<Vec<Spanned<String>>>,
    pinned: Option<Vec<Spanned<pinned::PinnedFile>>>,
    pin_own: Option<bool>,
}

/// The resolved config, which the rest of the crate uses.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    pub upstreams: UpstreamSource,
    /// Forward zones: zones with their own upstreams.
    pub zones: Vec<ZoneSettings>,
    /// Names that the cache answers itself.
    pub local: Arc<LocalNames>,
    /// The networks whose clients may ask.
    pub allow: Vec<Prefix>,
    pub max_stale: Duration,
    pub client_timer: Duration,
    pub cache_bytes: usize,
    /// Threads per listen address that answer UDP queries from the cache.
    pub threads: usize,
    pub state_dir: PathBuf,
    pub control_socket: PathBuf,
    pub metrics: SocketAddr,
    pub guard: guard::Rules,
    /// For names outside `zones`.
    pub rebinding: guard::Rebinding,
    /// Questions that must always be answered, including those that dogwatch itself needs.
    pub pinned: Vec<Pinned>,
    /// Whether the hosts named in agent.toml and alertd.toml are pinned too.
    pub pin_own: bool,
    /// A hash of the machine ID.
    pub host_phase: u64,
}

/// Where the upstreams come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamSource {
    Listed(Vec<Endpoint>),
    /// A resolv.conf(5), reread when it changes.
    ResolvConf(PathBuf),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // A loopback address of its own does not conflict with a resolver that already runs.
            listen: vec![SocketAddr::from((Ipv4Addr::new(127, 0, 0, 153), 53))],
            upstreams: UpstreamSource::ResolvConf("/etc/resolv.conf".into()),
            zones: Vec::new(),
            local: Arc::default(),
            allow: vec![Prefix::loopback_v4(), Prefix::loopback_v6()],
            max_stale: Settings::default().max_stale,
            client_timer: CLIENT_TIMER_MAX,
            cache_bytes: Bounds::default().bytes_max,
            // One thread answers a few hundred thousand queries a second; a host sends a few
            // hundred.
            threads: 1,
            state_dir: "/var/lib/dogwatch-dns".into(),
            control_socket: "/run/dogwatch-dns/control.sock".into(),
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, 9849)),
            guard: guard::Rules::default(),
            rebinding: guard::Rebinding::default(),
            pinned: Vec::new(),
            pin_own: true,
            host_phase: 0,
        }
    }
}

/// The path of the packaged config. Without a file there, all defaults apply.
pub const DEFAULT_PATH: &str = "/etc/dogwatch/dns.toml";

impl Config {
    /// Reads `main` and its drop-ins. Reports all errors at once.
    pub fn load(main: &Path) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let files = config::load::<ConfigFile>(main, Path::new(DEFAULT_PATH), &mut problems);
        let mut config = Self::default();
        let mut written = Written::default();
        for (source, file) in &files {
            file.dns.apply(&mut config, source, &mut problems);
            written.take(source, file, &mut problems);
        }
        written.resolve(&mut config, &mut problems);
        if config.pin_own {
            pinned::add_own(&mut config.pinned, main);
        }
        config.host_phase = host_phase();
        problems.or(config)
    }

    /// The settings of the core, with the current upstreams.
    pub fn settings(&self) -> Settings {
        let (upstreams, no_upstreams) = match self.upstreams_now() {
            Ok(upstreams) => (upstreams, None),
            Err(none) => (Vec::new(), Some(none)),
        };
        Settings {
            upstreams,
            no_upstreams,
            zones: self.zones.clone(),
            local: Arc::clone(&self.local),
            max_stale: self.max_stale,
            client_timer: self.client_timer,
            bounds: Bounds { bytes_max: self.cache_bytes, ..Bounds::default() },
            guard: self.guard.clone(),
            rebinding: self.rebinding.clone(),
            pinned: self.pinned.clone(),
            host_phase: self.host_phase,
        }
    }

    fn upstreams_now(&self) -> Result<Vec<Endpoint>, NoUpstreams> {
        match &self.upstreams {
            UpstreamSource::Listed(endpoints) => Ok(endpoints.clone()),
            UpstreamSource::ResolvConf(path) => {
                let servers = name_servers(std::fs::read(path), path, &self.listen)?;
                Ok(servers.into_iter().map(Endpoint::from).collect())
            }
        }
    }
}

impl DnsTable {
    /// Applies all keys but the upstreams, which need the whole config.
    fn apply(&self, config: &mut Config, source: &Source, problems: &mut Problems) {
        if let Some(listen) = &self.listen {
            if listen.get_ref().is_empty() {
                let message = "must have at least one address, like [\"127.0.0.153:53\"]";
                problems.add(source, listen.span(), message);
            }
            let listen = listen.get_ref();
            config.listen = parse_all(listen, source, problems, address);
        }
        if let Some(FilePath(path)) = &self.resolv_conf {
            config.upstreams = UpstreamSource::ResolvConf(path.clone());
        }
        if let Some(path) = &self.hosts_file {
            match std::fs::read_to_string(path.get_ref()).map(|text| LocalNames::parse(&text)) {
                Ok(Ok(local)) => config.local = Arc::new(local),
                Ok(Err(lines)) => {
                    for (line, problem) in lines {
                        problems.add_whole(
                            path.get_ref(),
                            format!("line {line}: {problem}; write \"192.0.2.1 name\""),
                        );
                    }
                }
                Err(error) => {
                    let message = format!("cannot read hosts_file {}: {error}", path.get_ref().display());
                    problems.add(source, path.span(), message);
                }
            }
        }
        if let Some(allow) = &self.allow {
            if allow.get_ref().is_empty() {
                let message =
                    "must have at least one network, like [\"127.0.0.0/8\", \"::1\"], or nobody may ask";
                problems.add(source, allow.span(), message);
            }
            let allow = allow.get_ref();
            config.allow = parse_all(allow, source, problems, str::parse);
        }
        if let Some(max_stale) = &self.max_stale {
            config.max_stale = max_stale.get_ref().0;
            check_max_stale(max_stale, source, problems);
        }
        if let Some(timer) = &self.client_timer {
            config.client_timer = timer.get_ref().0;
            if config.client_timer > CLIENT_TIMER_MAX || config.client_timer.is_zero() {
                let message =
                    "client_timer must be above 0 and at most \"1800ms\", because clients give up after 2 s";
                problems.add(source, timer.span(), message);
            }
        }
        if let Some(mib) = &self.cache_mib {
            config.cache_bytes =
                usize::try_from(*mib.get_ref()).unwrap_or(usize::MAX).saturating_mul(1 << 20);
            if *mib.get_ref() == 0 {
                problems.add(source, mib.span(), "cache_mib must be at least 1");
            }
        }
        if let Some(threads) = &self.threads {
            config.threads = usize::from(*threads.get_ref());
            if !(1..=THREADS_MAX).contains(&config.threads) {
                let message =
                    format!("threads must be 1 to {THREADS_MAX}; use one per CPU core that DNS may use");
                problems.add(source, threads.span(), message);
            }
        }
        if let Some(metrics) = &self.metrics {
            match address(metrics.get_ref()) {
                Ok(parsed) => config.metrics = parsed,
                Err(message) => problems.add(source, metrics.span(), message),
            }
        }
        let graces = [&self.vanish_grace, &self.hot_vanish_grace, &self.empty_grace, &self.mass_grace];
        guards::apply(&mut config.guard, self.guards.as_ref(), graces, source, problems);
        config.rebinding.on = self.rebinding_guard.unwrap_or(config.rebinding.on);
        if let Some(allow) = &self.rebinding_allow {
            config.rebinding.allow = parse_all(allow, source, problems, guards::suffix);
        }
        if let Some(FilePath(path)) = &self.state_dir {
            config.state_dir.clone_from(path);
        }
        if let Some(FilePath(path)) = &self.control_socket {
            config.control_socket.clone_from(path);
        }
        if let Some(pinned) = &self.pinned {
            config.pinned = pinned::resolve(pinned, source, problems);
        }
        config.pin_own = self.pin_own.unwrap_or(config.pin_own);
    }
}

/// Limits ghost domains: names that are still served long after their zone was deleted.
const MAX_STALE_LIMIT: Duration = Duration::from_hours(7 * 24);
/// The packaged unit allows 64 tasks.
const THREADS_MAX: usize = 32;

/// Differs between hosts and is stable. Without a machine ID, hosts share a value, and their
/// refreshes are not spread out.
fn host_phase() -> u64 {
    std::fs::read("/etc/machine-id").map_or(0, |id| crc32fast::hash(&id).into())
}

fn parse_all<T>(
    written: &[Spanned<String>],
    source: &Source,
    problems: &mut Problems,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let mut all = Vec::new();
    for item in written {
        match parse(item.get_ref()) {
            Ok(value) => all.push(value),
            Err(message) => problems.add(source, item.span(), message),
        }
    }
    all
}

fn check_max_stale(written: &Spanned<Span>, source: &Source, problems: &mut Problems) {
    if written.get_ref().0 > MAX_STALE_LIMIT {
        let message = "max_stale must be at most \"7d\": longer would keep deleted names alive";
        problems.add(source, written.span(), message);
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address with a port; write one like \"127.0.0.153:53\""))
}

/// The name servers of a resolv.conf(5), without our own addresses, which would cause a loop.
fn name_servers(
    text: io::Result<Vec<u8>>,
    path: &Path,
    ourselves: &[SocketAddr],
) -> Result<Vec<SocketAddr>, NoUpstreams> {
    let none = |why: String| NoUpstreams { why: format!("{} {why}", path.display()), is_outage: false };
    let text = text.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => none("does not exist".into()),
        _ => none(format!("cannot be read ({error})")),
    })?;
    // The parser takes a file without servers for an error.
    let names_a_server = |line: &[u8]| line.trim_ascii_start().starts_with(b"nameserver");
    if !text.split(|&byte| byte == b'\n').any(names_a_server) {
        return Err(none("names no server".into()));
    }
    let (parsed, _) =
        parse_resolv_conf(text).map_err(|error| none(format!("is not a resolv.conf ({error})")))?;
    let mut servers = Vec::new();
    for server in parsed.name_servers() {
        let address = SocketAddr::new(server.ip, 53);
        if !ourselves.contains(&address) && !servers.contains(&address) {
            servers.push(address);
        }
    }
    if servers.is_empty() {
        return Err(NoUpstreams { is_outage: true, ..none("names no server but this cache".into()) });
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dns.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).map_err(|problems| problems.to_string())
    }

    #[test]
    fn without_a_file_it_listens_only_on_its_own_loopback_address() {
        let config = load("").unwrap();
        assert_eq!(config.listen[0].to_string(), "127.0.0.153:53");
        let allowed = |ip: &str| config.allow.iter().any(|prefix| prefix.contains(ip.parse().unwrap()));
        assert!(allowed("127.0.0.1") && allowed("::1") && allowed("::ffff:127.1.2.3"));
        assert!(!allowed("192.0.2.1") && !allowed("::2"));
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let said = load(
            "[dns]\nlisten = [\"127.0.0.1\", \"127.0.0.1:53\"]\nupstreams = [\"127.0.0.1\", \"dns.example\"]\n\
             max_stale = \"30d\"\nclient_timer = \"5s\"\ncache_mib = 0\nallow = [\"10.0.0.0/40\"]\nlissten = 1\n",
        )
        .unwrap_err();
        assert!(said.contains("did you mean `listen`?"), "{said}");
        let said = load(
            "[dns]\nlisten = [\"127.0.0.1\", \"127.0.0.1:53\"]\nupstreams = [\"127.0.0.1\", \"dns.example\"]\n\
             max_stale = \"30d\"\nclient_timer = \"5s\"\ncache_mib = 0\nallow = [\"10.0.0.0/40\"]\n\
             guards = [\"vanish\", \"mass\"]\nmass_grace = \"2d\"\n",
        )
        .unwrap_err();
        let words = [
            "dns.toml:2:",
            "would loop",
            "dns.example",
            "7d",
            "1800ms",
            "cache_mib",
            "10.0.0.0/40",
            "guard \"mass\"",
            "24h",
        ];
        for word in words {
            assert!(said.contains(word), "{word} in\n{said}");
        }
        assert_eq!(said.lines().count(), 9, "{said}");
    }

    #[test]
    fn pinned_names_default_to_address_types_and_errors_have_a_position() {
        let config = load(
            "[dns]\npin_own = false\npinned = [\"db.example.org\", { name = \"_sip._tcp.example.org\", types = [\"SRV\"] }]\n",
        );
        let kinds = |pinned: &Pinned| {
            dogwatch_dns_core::message::name::read_key(&pinned.key).map(|(question, ..)| question.kind)
        };
        let kinds: Vec<_> = config.unwrap().pinned.iter().filter_map(kinds).collect();
        assert_eq!(kinds, [1, 28, 33]);
        let many: Vec<String> = (0..200).map(|number| format!("\"n{number}.example\"")).collect();
        let said = load(&format!(
            "[dns]\npinned = [\n\"a..b\",\n{{ name = \"x.example\", types = [\"QUUX\"] }},\n\"*.example\",\n{}]\n",
            many.join(",")
        ))
        .unwrap_err();
        for place in ["dns.toml:3:", "dns.toml:4:", "dns.toml:5:", "dns.toml:6:"] {
            assert!(said.contains(place), "{place} in {said}");
        }
        assert!(said.contains("QUUX") && said.contains("more than 256"), "{said}");
        let said = load("[dns]\npinned = [{ name = \"x.example\", typos = [] }, 7]\n").unwrap_err();
        assert!(said.contains("typos") && said.contains("a name, or a table"), "{said}");
    }

    #[test]
    fn s13_the_rebinding_guard_is_off_by_default_and_in_forward_zones() {
        assert!(!load("").unwrap().rebinding.on);
        let config = load(
            "[dns]\nrebinding_guard = true\nrebinding_allow = [\"Plex.Direct\"]\n\
             [zone.\"corp.example\"]\nupstreams = [\"10.0.0.53\"]\n\
             [zone.\"guests.example\"]\nupstreams = [\"10.0.0.53\"]\nrebinding_guard = true\n",
        )
        .unwrap();
        assert!(config.rebinding.on);
        assert_eq!(config.rebinding.allow, [(*b"\x04plex\x06direct\0").into()]);
        let zones: Vec<bool> = config.zones.iter().map(|zone| zone.rebinding.on).collect();
        assert_eq!(zones, [false, true]);
        assert_eq!(config.zones[1].rebinding.allow.len(), 1);
        let said = load("[dns]\nrebinding_allow = [\"192.168.0.0/16\"]\n").unwrap_err();
        assert!(said.contains("is not a domain name"), "{said}");
    }

    #[test]
    fn guards_are_on_unless_the_list_says_otherwise() {
        assert_eq!(load("[dns]\n").unwrap().guard, guard::Rules::default());
        let off = load("[dns]\nguards = []\n").unwrap().guard;
        assert!(!off.vanish && !off.mass_vanish && !off.convergence);
        let some = load(
            "[dns]\nguards = [\"mass-vanish\"]\nvanish_grace = \"5m\"\nhot_vanish_grace = \"1h\"\nempty_grace = \"30m\"\n",
        );
        let some = some.unwrap().guard;
        assert!(!some.vanish && some.mass_vanish && !some.convergence);
        assert_eq!(some.vanish_grace, Duration::from_mins(5));
        assert_eq!(some.hot_vanish_grace, Duration::from_hours(1));
        assert_eq!(some.empty_grace, Duration::from_mins(30));
    }

    #[test]
    fn zones_have_their_own_upstreams_and_limits_and_drop_ins_override_single_keys() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("dns.toml");
        std::fs::write(
            &main,
            "[dns]\nupstreams = [\"tls://192.0.2.1#dns.example\", \"192.0.2.2\"]\n\
             [zone.\"Corp.Example.\"]\nupstreams = [\"10.0.0.1\"]\nmax_stale = \"7d\"\n\
             [zone.lab]\nupstreams = [\"10.0.0.2\"]\n",
        )
        .unwrap();
        std::fs::create_dir(dir.path().join("dns.d")).unwrap();
        let drop_in = "[dns]\nmax_stale = \"1h\"\n[zone.\"corp.example\"]\nserve_stale = false\n";
        std::fs::write(dir.path().join("dns.d/50-lab.toml"), drop_in).unwrap();
        let settings = Config::load(&main).unwrap().settings();
        let shown: Vec<_> = settings.upstreams.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["tls://192.0.2.1:853#dns.example", "192.0.2.2:53"]);
        let [corp, lab] = settings.zones.as_slice() else { panic!("{:?}", settings.zones) };
        assert_eq!(*corp.suffix, *b"\x04corp\x07example\0");
        assert_eq!((corp.serve_stale, corp.max_stale), (false, Duration::from_hours(7 * 24)));
        // A zone inherits missing keys from [dns].
        assert_eq!((lab.serve_stale, lab.max_stale), (true, Duration::from_hours(1)));
    }

    #[test]
    fn every_error_in_a_zone_is_reported_at_its_position() {
        let said = load(
            "[dns]\nupstreams = [\"192.0.2.1\", \"192.0.2.1:53\"]\n[zone.\"a..b\"]\nupstreams = [\"10.0.0.1\"]\n\
             [zone.\".\"]\nupstreams = [\"10.0.0.1\"]\n[zone.corp]\nmax_stale = \"30d\"\n\
             [zone.lab]\nupstreams = [\"tls://lab.example\", \"127.0.0.153\"]\nca_file = \"/nonexistent/ca.pem\"\n\
             [zone.LAB]\nupstreams = []\n",
        )
        .unwrap_err();
        let expected = [
            (2, "listed twice"),
            (3, "\"a..b\" is not a domain name"),
            (5, "[dns]"),
            (7, "zone \"corp\" has no upstreams"),
            (8, "7d"),
            (10, "tls://192.0.2.1#lab.example"),
            (10, "would loop"),
            (11, "/nonexistent/ca.pem"),
            (12, "the same zone as"),
        ];
        for (line, word) in expected {
            let place = format!("dns.toml:{line}:");
            assert!(
                said.lines().any(|said| said.contains(&place) && said.contains(word)),
                "{line} {word} in\n{said}"
            );
        }
        assert_eq!(said.lines().count(), expected.len(), "{said}");
    }

    #[test]
    fn an_invalid_zone_name_does_not_hide_errors_in_its_table() {
        let said = load(
            "[zone.\"a..b\"]\nupstreams = [\"dns.example\"]\nmax_stale = \"30d\"\nguards = [\"mass\"]\n\
             [zone.\".\"]\nmax_stale = \"31d\"\n\
             [zone.corp]\nguards = [\"mess\"]\nca_file = \"/nonexistent/ca.pem\"\n\
             [zone.lab]\nupstreams = [\"10.0.0.1\"]\n[zone.LAB]\nupstreams = [\"10.0.0.1\", \"10.0.0.1\"]\n",
        )
        .unwrap_err();
        let expected = [
            (1, "\"a..b\" is not a domain name"),
            (2, "dns.example"),
            (3, "7d"),
            (4, "guard \"mass\""),
            (5, "[dns]"),
            (6, "7d"),
            (7, "zone \"corp\" has no upstreams"),
            (8, "guard \"mess\""),
            (9, "/nonexistent/ca.pem"),
            (12, "the same zone as"),
            (13, "listed twice"),
        ];
        for (line, word) in expected {
            let place = format!("dns.toml:{line}:");
            assert!(
                said.lines().any(|said| said.contains(&place) && said.contains(word)),
                "{line} {word} in\n{said}"
            );
        }
        assert_eq!(said.lines().count(), expected.len(), "{said}");
    }

    #[test]
    fn our_own_address_in_resolv_conf_is_not_an_upstream() {
        let text = "nameserver 127.0.0.153\nnameserver 192.0.2.1\nnameserver 192.0.2.1\nsearch example\n";
        assert_eq!(servers(Ok(text)).unwrap(), ["192.0.2.1:53".parse().unwrap()]);
    }

    fn servers(text: Result<&str, io::ErrorKind>) -> Result<Vec<SocketAddr>, (String, bool)> {
        let text = text.map(|text| text.as_bytes().to_vec()).map_err(io::Error::from);
        let found = name_servers(text, Path::new("/etc/resolv.conf"), &Config::default().listen);
        found.map_err(|none| (none.why, none.is_outage))
    }

    #[test]
    fn a_resolv_conf_without_servers_is_no_outage_unless_programs_ask_this_cache() {
        for (text, why, is_outage) in [
            (Err(io::ErrorKind::NotFound), "does not exist", false),
            (Err(io::ErrorKind::PermissionDenied), "cannot be read (permission denied)", false),
            (Ok(""), "names no server", false),
            (Ok("# none yet\nsearch example.org\noptions edns0\n"), "names no server", false),
            (Ok("#nameserver 192.0.2.1\n"), "names no server", false),
            (Ok("search a\n nameserver 127.0.0.153\n"), "names no server but this cache", true),
        ] {
            let none = servers(text).unwrap_err();
            assert_eq!(none, (format!("/etc/resolv.conf {why}"), is_outage), "{text:?}");
        }
        let (why, is_outage) = servers(Ok("nameserver nonsense\n")).unwrap_err();
        assert!(why.starts_with("/etc/resolv.conf is not a resolv.conf (") && !is_outage, "{why}");
    }
}
