//! Reads the files that decide how this host resolves names, and which programs manage them.
//!
//! Only reads. All paths are below a given root, so that tests can use trees captured from real
//! hosts. Information that is not in files (running programs, the state of systemd-resolved) is
//! passed in as [`Running`].

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

pub const RESOLV_CONF: &str = "/etc/resolv.conf";
pub const RESOLVCONF_HEAD: &str = "/etc/resolvconf/resolv.conf.d/head";
pub const OPENRESOLV: &str = "/etc/resolvconf.conf";
pub const NETWORK_MANAGER_SERVERS: &str = "/run/NetworkManager/no-stub-resolv.conf";
pub const RESOLVED_SERVERS: &str = "/run/systemd/resolve/resolv.conf";

/// What exists at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Absent,
    File(File),
    Link(PathBuf),
    /// A directory or device, which we never touch.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Set with `chattr +i`.
    pub immutable: bool,
}

impl Node {
    /// Reads what exists at `path` below `root`.
    pub fn read(root: &Path, path: &Path) -> io::Result<Self> {
        let place = below(root, path);
        let meta = match fs::symlink_metadata(&place) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(error) => return Err(error),
        };
        if meta.is_symlink() {
            return Ok(Self::Link(fs::read_link(&place)?));
        }
        if !meta.is_file() {
            return Ok(Self::Other);
        }
        // Not every file system has attributes.
        let immutable = statx(CWD, &place, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
            .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::IMMUTABLE));
        Ok(Self::File(File {
            bytes: fs::read(&place)?,
            mode: meta.permissions().mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            immutable,
        }))
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::File(file) => Some(&file.bytes),
            _ => None,
        }
    }
}

/// The absolute path `path`, below `root`.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Information that is not in files.
#[derive(Debug, Clone, Default)]
pub struct Running {
    pub resolved: Option<Resolved>,
    pub network_manager: bool,
    pub dhclient: bool,
}

/// The state of systemd-resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Global servers, from resolved.conf.
    pub global: Vec<IpAddr>,
    pub links: Vec<Link>,
    /// It queries over TLS only.
    pub tls_only: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub servers: Vec<IpAddr>,
    pub domains: Vec<String>,
    /// Used for names that match no link's domain.
    pub default_route: bool,
}

impl Resolved {
    /// Parses the output of `resolvectl dns`, `domain`, `default-route` and `dnsovertls`.
    pub fn parse(dns: &str, domain: &str, default_route: &str, tls: &str) -> Self {
        let mut resolved = Self::default();
        for (link, words) in lines(dns) {
            let servers: Vec<IpAddr> = words.iter().filter_map(|word| server(word)).collect();
            match link {
                None => resolved.global = servers,
                Some(name) => {
                    resolved.links.push(Link { name: name.into(), servers, ..Link::default() });
                }
            }
        }
        for (name, words) in lines(domain) {
            if let Some(link) = resolved.links.iter_mut().find(|link| Some(link.name.as_str()) == name) {
                link.domains = words.iter().map(|word| word.trim_start_matches('~').to_owned()).collect();
            }
        }
        for (name, words) in lines(default_route) {
            if let Some(link) = resolved.links.iter_mut().find(|link| Some(link.name.as_str()) == name) {
                link.default_route = words.first() == Some(&"yes");
            }
        }
        resolved.tls_only = lines(tls).any(|(name, words)| name.is_none() && words.first() == Some(&"yes"));
        resolved
    }

    /// The links with servers that are used for any name.
    pub fn default_links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| link.default_route && !link.servers.is_empty())
    }
}

/// Parses lines such as `Link 3 (eth0): a b` or `Global: a b`.
fn lines(text: &str) -> impl Iterator<Item = (Option<&str>, Vec<&str>)> {
    text.lines().filter_map(|line| {
        let (head, rest) = line.split_once(':')?;
        let words = rest.split_whitespace().collect();
        if head == "Global" {
            return Some((None, words));
        }
        let name = head.strip_prefix("Link ")?.split_once('(')?.1.strip_suffix(')')?;
        Some((Some(name), words))
    })
}

/// Parses `192.0.2.1` or `192.0.2.1#dns.example`; `None` for other ports
/// (`[2001:db8::1]:5353%eth0`).
fn server(word: &str) -> Option<IpAddr> {
    word.split(['#', '%']).next()?.parse().ok()
}

/// The input of a plan.
#[derive(Debug, Clone)]
pub struct Host {
    pub resolv_conf: Node,
    /// The target of `/etc/resolv.conf` if it is a link.
    pub target: Option<(PathBuf, Node)>,
    pub running: Running,
    /// The other relevant files.
    pub files: BTreeMap<&'static str, Node>,
    /// The file in which the admin set the cache's upstreams, if any.
    pub own_upstreams: Option<PathBuf>,
    /// The file in which the admin set the client timer, if any.
    pub own_client_timer: Option<PathBuf>,
    /// Names that this host uses, to verify that resolving works.
    pub names: Vec<String>,
}

const FILES: [&str; 4] = [RESOLVCONF_HEAD, OPENRESOLV, NETWORK_MANAGER_SERVERS, RESOLVED_SERVERS];
const NAMES_MAX: usize = 4;

impl Host {
    /// `config` is dns.toml, `ours` our drop-in beside it.
    pub fn read(root: &Path, config: &Path, ours: &Path, running: Running) -> io::Result<Self> {
        let resolv_conf = Node::read(root, Path::new(RESOLV_CONF))?;
        let target = match &resolv_conf {
            Node::Link(_) => Some(follow(root, Path::new(RESOLV_CONF))?),
            _ => None,
        };
        let mut files = BTreeMap::new();
        for path in FILES {
            files.insert(path, Node::read(root, Path::new(path))?);
        }
        let mut host = Self {
            resolv_conf,
            target,
            running,
            files,
            own_upstreams: None,
            own_client_timer: None,
            names: Vec::new(),
        };
        host.read_config(root, config, ours);
        let mut names = host.text().map(super::text::search).unwrap_or_default();
        names.extend(package_mirrors(root));
        names.retain(|name| name.contains('.'));
        let mut seen = Vec::new();
        for name in names {
            if seen.len() < NAMES_MAX && !seen.contains(&name) {
                seen.push(name);
            }
        }
        host.names = seen;
        Ok(host)
    }

    /// The resolv.conf that glibc reads.
    pub fn text(&self) -> Option<&[u8]> {
        match &self.target {
            Some((_, node)) => node.bytes(),
            None => self.resolv_conf.bytes(),
        }
    }

    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path)?.bytes()
    }

    /// Finds the admin's own settings, which ours must not override. Ignores errors in the files;
    /// the cache reports them.
    fn read_config(&mut self, root: &Path, config: &Path, ours: &Path) {
        let mut paths = vec![config.to_owned()];
        let drop_ins = fs::read_dir(below(root, &config.with_extension("d")));
        let names = drop_ins.into_iter().flatten().flatten().map(|entry| entry.file_name());
        paths.extend(names.map(|name| config.with_extension("d").join(name)));
        for path in paths.into_iter().filter(|path| path != ours && is_toml(path)) {
            let Ok(text) = fs::read_to_string(below(root, &path)) else { continue };
            let Ok(table) = text.parse::<toml::Table>() else { continue };
            let Some(dns) = table.get("dns").and_then(toml::Value::as_table) else { continue };
            if dns.contains_key("upstreams") || dns.contains_key("resolv_conf") {
                self.own_upstreams = Some(path.clone());
            }
            if dns.contains_key("client_timer") {
                self.own_client_timer = Some(path);
            }
        }
    }
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "toml")
}

/// Follows links from `path` as the kernel would if `root` were `/`. A loop counts as absent.
fn follow(root: &Path, path: &Path) -> io::Result<(PathBuf, Node)> {
    let mut at = path.to_owned();
    for _ in 0..16 {
        match Node::read(root, &at)? {
            Node::Link(target) => at = normal(&at.parent().unwrap_or(Path::new("/")).join(target)),
            node => return Ok((at, node)),
        }
    }
    Ok((at, Node::Absent))
}

/// Removes `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// The hosts in the APT sources: every Debian host has some and needs to resolve them.
fn package_mirrors(root: &Path) -> Vec<String> {
    let mut texts = Vec::from_iter(fs::read_to_string(below(root, Path::new("/etc/apt/sources.list"))).ok());
    let listed = fs::read_dir(below(root, Path::new("/etc/apt/sources.list.d")));
    let mut paths: Vec<_> = listed.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    texts.extend(paths.into_iter().filter_map(|path| fs::read_to_string(path).ok()));
    let words = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.trim_start().starts_with('#'));
    let urls = words.flat_map(str::split_whitespace).filter_map(|word| word.split_once("://"));
    let hosts = urls.filter_map(|(_, rest)| rest.split(['/', ':']).next());
    hosts.filter(|host| host.parse::<IpAddr>().is_err() && !host.contains('@')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_resolvectl_is_parsed() {
        let resolved = Resolved::parse(
            "Global: 127.0.0.153 10.9.0.1\nLink 2 (d1):\nLink 3 (d0): 10.9.0.1#dns.example 2001:db8::1\n",
            "Global: ~. ~demo.test\nLink 2 (d1):\nLink 3 (d0): demo.test ~corp.test\n",
            "Link 2 (d1): no\nLink 3 (d0): yes\n",
            "Global: no\nLink 2 (d1): no\nLink 3 (d0): yes\n",
        );
        assert_eq!(resolved.global.len(), 2);
        let links: Vec<_> = resolved.default_links().collect();
        assert_eq!(links.len(), 1);
        assert_eq!((links[0].name.as_str(), links[0].servers.len()), ("d0", 2));
        assert_eq!(links[0].domains, ["demo.test", "corp.test"]);
        assert!(!resolved.tls_only, "only the global setting counts");
        assert!(Resolved::parse("", "", "", "Global: yes").tls_only);
    }

    #[test]
    fn the_hosts_in_apt_sources_are_found() {
        let root = tempfile::tempdir().unwrap();
        let list = root.path().join("etc/apt/sources.list.d");
        fs::create_dir_all(&list).unwrap();
        fs::write(
            list.join("a.sources"),
            "Types: deb\n# URIs: http://no.example/\nURIs: http://deb.debian.org/debian\n",
        )
        .unwrap();
        fs::write(
            list.join("b.list"),
            "deb [signed-by=/x] https://apt.example:8443/x y\ndeb http://192.0.2.1/ z\ndeb file:/repo ./\n",
        )
        .unwrap();
        assert_eq!(package_mirrors(root.path()), ["deb.debian.org", "apt.example"]);
    }
}
