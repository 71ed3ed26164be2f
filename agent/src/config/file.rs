//! `agent.toml` as written: all keys, without validation.

use std::{collections::BTreeMap, fmt};

use dogwatch_checks::Value;
use dogwatch_daemon::{
    config::{FilePath, Spanned},
    duration::Span,
};
use serde::{
    Deserialize, Deserializer,
    de::{
        self, IntoDeserializer,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

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
    pub(super) state_dir: Option<FilePath>,
    pub(super) socket: Option<FilePath>,
    pub(super) metrics: Option<Spanned<String>>,
    pub(super) machine_id_file: Option<FilePath>,
    pub(super) boot_grace: Option<Spanned<Span>>,
    pub(super) max_concurrent: Option<Spanned<usize>>,
    pub(super) spool_bytes_max: Option<Spanned<usize>>,
    pub(super) auto_checks: Option<bool>,
    pub(super) history: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertdFile {
    pub(super) sockets: Option<Spanned<Vec<FilePath>>>,
    /// An alertd on another host, over TLS.
    pub(super) url: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<FilePath>>,
    pub(super) ca_file: Option<Spanned<FilePath>>,
    pub(super) heartbeat: Option<Spanned<Span>>,
    pub(super) timeout: Option<Spanned<Span>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsFile {
    pub(super) control: Option<FilePath>,
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

/// One `[check.NAME]`, or one `[check.NAME."THING"]` in it. Its keys depend on its `kind`, so all
/// are kept with their positions for [`super::check`]. Only tables have a type here: a table with
/// another name is about the things that match it.
#[derive(Debug, Default)]
pub(super) struct CheckFile {
    pub(super) labels: Labels,
    pub(super) flapping: Option<Spanned<FlappingFile>>,
    pub(super) env: Option<Spanned<BTreeMap<String, String>>>,
    pub(super) handler: Option<Spanned<HandlerFile>>,
    pub(super) entries: Vec<(Spanned<String>, Spanned<Value>)>,
    pub(super) things: Vec<(Spanned<String>, CheckFile)>,
}

/// What a key of a check can have.
enum Entry {
    Value(Value),
    Table(Box<CheckFile>),
}

/// `flapping = { detect = true, start = 30, stop = 20 }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlappingFile {
    pub(super) detect: Option<bool>,
    pub(super) start: Option<f64>,
    pub(super) stop: Option<f64>,
}

/// `handler = { command = ["systemctl", "restart", "nginx"], per_day = 3 }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HandlerFile {
    pub(super) command: Spanned<Vec<String>>,
    pub(super) on: Option<Spanned<Vec<String>>>,
    /// `soft` or `hard`.
    pub(super) when: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<Span>>,
    pub(super) cooldown: Option<Spanned<Span>>,
    pub(super) per_day: Option<Spanned<usize>>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
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
                        "handler" => check.handler = Some(map.next_value()?),
                        "env" => check.env = Some(map.next_value()?),
                        _ => {
                            let value = map.next_value::<Spanned<Entry>>()?;
                            let span = value.span();
                            match value.into_inner() {
                                Entry::Value(value) => check.entries.push((key, Spanned::new(span, value))),
                                Entry::Table(table) => check.things.push((key, *table)),
                            }
                        }
                    }
                }
                Ok(check)
            }
        }
        from.deserialize_map(Visitor)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        /// One kind of value, read like all values of checks.
        fn value<'de, E: de::Error>(from: impl IntoDeserializer<'de, E>) -> Result<Entry, E> {
            Value::deserialize(from.into_deserializer()).map(Entry::Value)
        }
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Entry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, true, false, a list of strings, or a table")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Entry, E> {
                value(text)
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Entry, E> {
                value(flag)
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Entry, E> {
                value(number)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Entry, E> {
                value(number)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Entry, E> {
                value(number)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Entry, A::Error> {
                Value::deserialize(SeqAccessDeserializer::new(items)).map(Entry::Value)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<Entry, A::Error> {
                CheckFile::deserialize(MapAccessDeserializer::new(entries)).map(Box::new).map(Entry::Table)
            }
        }
        from.deserialize_any(Visitor)
    }
}
