//! `pinned` and `pin_own` in dns.toml: the names that must always resolve.

use std::{fmt, fs, path::Path};

use dogwatch_daemon::config::{Problems, Source, Spanned};
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};
use toml::Value;

use dogwatch_dns_core::{
    message::{
        name::{self, Key},
        wire::Question,
    },
    zones::pinned::{PINNED_MAX, Pinned},
};

/// `"db.example"`, or `{ name = "db.example", types = ["A", "SRV"], check_tcp = 5432 }`.
#[derive(Debug)]
pub(super) struct PinnedFile {
    name: String,
    types: Option<Vec<String>>,
    check_tcp: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PinnedTable {
    name: String,
    types: Option<Vec<String>>,
    check_tcp: Option<u16>,
}

impl<'de> Deserialize<'de> for PinnedFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = PinnedFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a table like { name = \"db.example\", types = [\"A\"] }")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<PinnedFile, E> {
                Ok(PinnedFile { name: name.into(), types: None, check_tcp: None })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<PinnedFile, A::Error> {
                let PinnedTable { name, types, check_tcp } =
                    PinnedTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(PinnedFile { name, types, check_tcp })
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// Reads the names that the operator pins.
pub(super) fn resolve(
    written: &[Spanned<PinnedFile>],
    source: &Source,
    problems: &mut Problems,
) -> Vec<Pinned> {
    let mut all = Vec::new();
    for item in written {
        match questions(item.get_ref()) {
            Ok(pinned) => pinned.into_iter().for_each(|pinned| add(&mut all, pinned)),
            Err(message) => problems.add(source, item.span(), message),
        }
        if all.len() > PINNED_MAX {
            let message = format!(
                "more than {PINNED_MAX} pinned questions (two per name, A and AAAA, unless `types` is set); pin only \
                 the names that must work in an outage"
            );
            problems.add(source, item.span(), message);
            break;
        }
    }
    all
}

fn questions(PinnedFile { name, types, check_tcp }: &PinnedFile) -> Result<Vec<Pinned>, String> {
    let wrong = || format!("{name:?} is not a domain name; write one like \"db.example.org\"");
    if name.trim_end_matches('.').is_empty() || name.contains(['*', ' ', '/', ':']) {
        return Err(wrong());
    }
    let wire = name::from_text(name).ok_or_else(wrong)?;
    let kinds = match types {
        None => ADDRESSES.to_vec(),
        Some(types) if types.is_empty() => {
            return Err(format!("`types` of pinned {name:?} is empty; leave it out for A and AAAA"));
        }
        Some(types) => types.iter().map(|kind| kind_of(kind)).collect::<Result<_, _>>()?,
    };
    if *check_tcp == Some(0) {
        return Err(format!("check_tcp of pinned {name:?} must be a port, 1 to 65535"));
    }
    if check_tcp.is_some() && !kinds.iter().any(|kind| ADDRESSES.contains(kind)) {
        return Err(format!("check_tcp of pinned {name:?} needs addresses: add A or AAAA to its types"));
    }
    let pinned =
        |kind| Pinned { check_tcp: check_tcp.filter(|_| ADDRESSES.contains(&kind)), ..question(&wire, kind) };
    Ok(kinds.into_iter().map(pinned).collect())
}

const ADDRESSES: [u16; 2] = [1, 28];

fn kind_of(text: &str) -> Result<u16, String> {
    name::type_from_text(text)
        .ok_or_else(|| format!("{text:?} is not a record type; write one like A, AAAA, SRV or TYPE65"))
}

fn question(name: &[u8], kind: u16) -> Pinned {
    let key = Key::new(&Question { name, kind, class: 1 }, false, false);
    Pinned { key: key.as_bytes().into(), check_tcp: None }
}

fn add(all: &mut Vec<Pinned>, pinned: Pinned) {
    match all.iter_mut().find(|known| known.key == pinned.key) {
        Some(known) => known.check_tcp = known.check_tcp.or(pinned.check_tcp),
        None => all.push(pinned),
    }
}

/// Adds the hosts that dogwatch needs to send notifications in an outage: those named in
/// `agent.toml` and `alertd.toml` beside dns.toml. Ignores errors in these files; their own
/// programs report them.
pub(super) fn add_own(all: &mut Vec<Pinned>, dns_toml: &Path) {
    let Some(folder) = dns_toml.parent() else { return };
    for (file, table) in [("agent", "alertd"), ("alertd", "receiver")] {
        for value in documents(folder, file).iter().filter_map(|document| document.get(table)) {
            for host in hosts(value) {
                if let Some(wire) = name::from_text(&host).filter(|_| all.len() + 2 <= PINNED_MAX) {
                    for kind in ADDRESSES {
                        add(all, question(&wire, kind));
                    }
                }
            }
        }
    }
}

fn documents(folder: &Path, file: &str) -> Vec<toml::Table> {
    let mut paths = vec![folder.join(format!("{file}.toml"))];
    if let Ok(entries) = fs::read_dir(folder.join(format!("{file}.d"))) {
        paths.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
    }
    paths.sort();
    let read = |path: &Path| fs::read_to_string(path).ok()?.parse().ok();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .filter_map(|path| read(path))
        .collect()
}

/// The hosts in a part of a config: those in URLs, those under a key that names a host, and the
/// default hosts of PagerDuty and Slack.
fn hosts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => host_of_url(text).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(hosts).collect(),
        Value::Table(table) => table
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("server" | "host" | "address", Value::String(text)) => {
                    host_of_url(text).or_else(|| host_name(text)).into_iter().collect()
                }
                ("pagerduty", Value::Table(pager)) if !pager.contains_key("url") => {
                    vec!["events.pagerduty.com".to_owned()]
                }
                ("slack", Value::Table(chat)) if !chat.contains_key("url") => {
                    vec!["hooks.slack.com".to_owned()]
                }
                _ => hosts(value),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn host_of_url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    host_name(authority.rsplit('@').next()?)
}

/// `host` or `host:port`; `None` for an IP address or localhost.
fn host_name(text: &str) -> Option<String> {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => text,
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = host.bytes().all(letters) && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    (is_name && !host.eq_ignore_ascii_case("localhost")).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pinned: &[Pinned]) -> Vec<String> {
        let one = |pinned: &Pinned| {
            let (question, ..) = name::read_key(&pinned.key).unwrap();
            format!("{} {}", name::to_text(question.name), name::type_to_text(question.kind))
        };
        pinned.iter().map(one).collect()
    }

    #[test]
    fn check_tcp_needs_an_address_type() {
        let read = |text: &str| {
            let table: toml::Table = format!("pinned = {text}").parse().unwrap();
            questions(&PinnedFile::deserialize(table["pinned"].clone()).unwrap())
        };
        let ports =
            |text: &str| read(text).unwrap().iter().map(|pinned| pinned.check_tcp).collect::<Vec<_>>();
        assert_eq!(ports("\"db.example\""), [None, None]);
        assert_eq!(ports("{ name = \"db.example\", check_tcp = 443 }"), [Some(443), Some(443)]);
        assert_eq!(
            ports("{ name = \"db.example\", types = [\"SRV\", \"A\"], check_tcp = 443 }"),
            [None, Some(443)]
        );
        assert!(read("{ name = \"db.example\", check_tcp = 0 }").unwrap_err().contains("1 to 65535"));
        let srv = read("{ name = \"db.example\", types = [\"SRV\"], check_tcp = 443 }");
        assert!(srv.unwrap_err().contains("needs addresses"));
        // Listed twice, or also pinned by dogwatch itself.
        let mut all = Vec::new();
        for text in ["\"db.example\"", "{ name = \"DB.example\", check_tcp = 443 }", "\"db.example\""] {
            read(text).unwrap().into_iter().for_each(|pinned| add(&mut all, pinned));
        }
        assert_eq!(all.iter().map(|pinned| pinned.check_tcp).collect::<Vec<_>>(), [Some(443); 2]);
    }

    #[test]
    fn dogwatch_pins_the_hosts_it_needs_for_notifications() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(
            "agent.toml",
            "[alertd]\nsockets = [\"/run/alertd/alertd.sock\"]\nurls = [\"https://alerts.example.org:9847/\"]\n",
        );
        write(
            "alertd.toml",
            "[receiver.ops.email]\nto = [\"a@example.net\"]\nserver = \"Mail.example.org\"\n\
             [receiver.pager.pagerduty]\nrouting_key_file = \"/x\"\n\
             [receiver.local.email]\nserver = \"localhost\"\n[receiver.ip.webhook]\nurl = \"http://192.0.2.1/x\"\n",
        );
        fs::create_dir(folder.path().join("alertd.d")).unwrap();
        write(
            "alertd.d/chat.toml",
            "[receiver.chat.webhook]\nurl = \"https://u:p@hooks.example.org/a?b\"\n[receiver.team.slack]\nurl_file = \"/x\"\n",
        );
        write("alertd.d/broken.toml", "[[[");
        let mut all = Vec::new();
        add_own(&mut all, &folder.path().join("dns.toml"));
        let names: Vec<_> = shown(&all).into_iter().filter(|name| name.ends_with(" A")).collect();
        assert_eq!(
            names,
            [
                "alerts.example.org A",
                "hooks.example.org A",
                "hooks.slack.com A",
                "mail.example.org A",
                "events.pagerduty.com A"
            ]
        );
        assert_eq!(all.len(), 10);
    }
}
