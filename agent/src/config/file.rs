//! `agent.toml` as written: all keys, without validation.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use dogwatch_checks::Value;
use dogwatch_daemon::{config::Spanned, duration::Span};
use serde::{Deserialize, Deserializer, de};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    #[serde(default)]
    pub(super) agent: AgentFile,
    #[serde(default)]
    pub(super) alertd: AlertdFile,
    #[serde(default)]
    pub(super) dns: DnsFile,
    #[serde(default)]
    pub(super) defaults: DefaultsFile,
    #[serde(default)]
    pub(super) check: BTreeMap<Spanned<String>, CheckFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentFile {
    pub(super) host: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: Labels,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
    pub(super) metrics: Option<Spanned<String>>,
    pub(super) machine_id_file: Option<PathBuf>,
    pub(super) boot_grace: Option<Span>,
    pub(super) max_concurrent: Option<Spanned<usize>>,
    pub(super) spool_bytes_max: Option<Spanned<usize>>,
    pub(super) auto_checks: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertdFile {
    pub(super) sockets: Option<Spanned<Vec<PathBuf>>>,
    /// An alertd on another host, over TLS.
    pub(super) url: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
    pub(super) ca_file: Option<Spanned<PathBuf>>,
    pub(super) heartbeat: Option<Spanned<Span>>,
    pub(super) timeout: Option<Spanned<Span>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsFile {
    pub(super) control: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultsFile {
    pub(super) interval: Option<Spanned<Span>>,
    pub(super) retry_interval: Option<Spanned<Span>>,
    pub(super) max_attempts: Option<Spanned<u8>>,
    pub(super) timeout: Option<Spanned<Span>>,
}

pub(super) type Labels = BTreeMap<Spanned<String>, Spanned<String>>;

/// One `[check.NAME]`. Its keys depend on its `kind`, so all are kept with their positions for
/// [`super::check`]. Only tables have a type here.
#[derive(Debug, Default)]
pub(super) struct CheckFile {
    pub(super) labels: Labels,
    pub(super) flapping: Option<Spanned<FlappingFile>>,
    pub(super) env: Option<Spanned<BTreeMap<String, String>>>,
    pub(super) entries: Vec<(Spanned<String>, Spanned<Value>)>,
}

/// `flapping = { detect = true, start = 30, stop = 20 }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlappingFile {
    pub(super) detect: Option<bool>,
    pub(super) start: Option<f64>,
    pub(super) stop: Option<f64>,
}

impl<'de> Deserialize<'de> for CheckFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = CheckFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table like [check.NAME]")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<CheckFile, A::Error> {
                let mut check = CheckFile::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    match key.get_ref().as_str() {
                        "labels" => check.labels = map.next_value()?,
                        "flapping" => check.flapping = Some(map.next_value()?),
                        "env" => check.env = Some(map.next_value()?),
                        _ => check.entries.push((key, map.next_value()?)),
                    }
                }
                Ok(check)
            }
        }
        from.deserialize_map(Visitor)
    }
}
