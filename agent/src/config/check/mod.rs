//! One `[check.NAME]`: the settings of every check, and those of its kind.

mod built_in;
mod handler;
mod settings;
mod things;
mod work;

use std::{collections::BTreeMap, hash::Hasher as _, ops::Range, path::PathBuf, time::Duration};

use dogwatch_checks::{Host, Lane, Value};
use dogwatch_daemon::{
    config::{Problems, Source, Spanned, closest, hint},
    duration::Span,
};

pub(super) use built_in::{absent, built_in};
pub(super) use settings::labels;

use super::{Check, Origin, Settings, file::CheckFile};
use crate::{dns_sensor, flapping::Thresholds, schedule::Timing};

/// The defaults of all checks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub(super) interval: Duration,
    pub(super) retry_interval: Duration,
    pub(super) max_attempts: u8,
    pub(super) timeout: Duration,
}

/// What all checks of a config have in common.
pub(super) struct Context<'a> {
    pub(super) defaults: Defaults,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) dns_control: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) host: &'a Host,
}

/// The kinds that the agent adds to those of dogwatch-checks.
const KINDS: [&str; 5] = ["plugin", "passive", "dns", "job", "self-check"];

/// For whoever knows the units as one service.
const SYSTEMD: &str =
    "units are checked one by one; use [check.unit], with `exclude` for units that may fail";

/// The built-in checks of the DNS cache, all of kind `dns`.
const BUILT_IN_DNS: [&str; 3] = ["dns-upstream", "dns-stale", "dns-guard"];

/// The limits of every interval and timeout.
pub(super) const SHORTEST: Span = Span(Duration::from_millis(100));
pub(super) const LONGEST: Span = Span::secs(7 * 86_400);
/// The limit of a result's validity: a job that runs once a year.
const LONGEST_VALID: Span = Span::secs(366 * 86_400);

/// The keys of every kind.
const COMMON: [&str; 11] = [
    "kind",
    "enabled",
    "interval",
    "retry_interval",
    "max_attempts",
    "for",
    "timeout",
    "labels",
    "runbook",
    "note",
    "flapping",
];

fn kinds() -> impl Iterator<Item = &'static str> {
    dogwatch_checks::KINDS.iter().map(|kind| kind.name).chain(KINDS)
}

/// Whether a table switches its check off.
pub(super) fn is_off(file: &CheckFile) -> bool {
    let off = |(key, value): &(Spanned<String>, Spanned<Value>)| {
        key.get_ref() == "enabled" && *value.get_ref() == Value::Bool(false)
    };
    file.entries.iter().any(off)
}

/// `None` only with at least one new problem.
pub(super) fn resolve(
    name: &Spanned<String>,
    file: &CheckFile,
    source: &Source,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<Check> {
    let before = problems.0.len();
    let mut reader = Reader { name: name.get_ref(), at: name.span(), file, source, problems };
    reader.check_name();
    let kind = reader.kind()?;
    let defaults = Settings {
        max_attempts: default_attempts(&kind, context.defaults),
        lasting: None,
        counts: false,
        flapping: Some(Thresholds::default()),
        labels: context.labels.clone(),
        annotations: BTreeMap::new(),
        handler: None,
    };
    let settings = reader.settings(&defaults);
    reader.enabled();
    reader.refuse_tables_for_options(&kind);
    let Timings { timing, timeout } = reader.timings(&kind, context.defaults);
    let work = reader.work(&kind, context);
    if let (Some(env), true) = (&file.env, kind != "plugin") {
        reader.problem(env.span(), "only plugins have an env");
    }
    let things = reader.things(&kind, &settings);
    let line = source.text[..name.span().start].matches('\n').count() + 1;
    let origin = Origin::File { path: source.path.clone(), line };
    if problems.0.len() > before {
        return None;
    }
    Some(Check {
        work: work?,
        lane: lane(&kind),
        definition: definition(&kind, file),
        has_things: has_things(&kind),
        kind,
        timing,
        timeout,
        settings,
        things,
        origin,
    })
}

/// Whether a check of this kind has a service for each thing that it finds.
fn has_things(kind: &str) -> bool {
    kind == "job" || dogwatch_checks::kind(kind).is_some_and(|kind| kind.things.exist())
}

fn lane(kind: &str) -> Lane {
    match dogwatch_checks::kind(kind) {
        Some(kind) => kind.lane,
        None if kind == "plugin" => Lane::Plugin,
        None => Lane::Local,
    }
}

/// A hash of everything that decides what the results of a check are about.
fn definition(kind: &str, file: &CheckFile) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(kind.as_bytes());
    let own = |(key, _): &&(Spanned<String>, Spanned<Value>)| !COMMON.contains(&key.get_ref().as_str());
    for (key, value) in file.entries.iter().filter(own) {
        hasher.write(format!("\0{}={:?}", key.get_ref(), value.get_ref()).as_bytes());
    }
    if let Some(env) = &file.env {
        hasher.write(format!("\0{:?}", env.get_ref()).as_bytes());
    }
    hasher.finish()
}

fn default_timing(kind: &str, defaults: Defaults) -> Timing {
    if kind == "dns" {
        return Timing { interval: dns_sensor::INTERVAL, retry_interval: dns_sensor::INTERVAL };
    }
    let own = dogwatch_checks::kind(kind).and_then(|kind| kind.interval);
    let interval = own.unwrap_or(defaults.interval);
    Timing { interval, retry_interval: defaults.retry_interval.min(interval) }
}

/// The DNS cache and passive jobs report only what they are sure of.
fn default_attempts(kind: &str, defaults: Defaults) -> u8 {
    match kind {
        "dns" | "passive" | "job" | "self-check" => 1,
        _ => defaults.max_attempts,
    }
}

struct Timings {
    timing: Timing,
    timeout: Duration,
}

/// Reads one table and collects its problems.
struct Reader<'a> {
    name: &'a str,
    at: Range<usize>,
    file: &'a CheckFile,
    source: &'a Source,
    problems: &'a mut Problems,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, at: Range<usize>, message: impl AsRef<str>) {
        self.problems.add(self.source, at, format!("check {:?}: {}", self.name, message.as_ref()));
    }

    fn entry(&self, key: &str) -> Option<&'a (Spanned<String>, Spanned<Value>)> {
        self.file.entries.iter().find(|(name, _)| name.get_ref() == key)
    }

    fn check_name(&mut self) {
        let name = self.name;
        if name.is_empty() || name.len() > 100 || name.trim() != name || name.chars().any(char::is_control) {
            self.problem(self.at.clone(), "a name must have 1 to 100 bytes and no control characters");
        }
    }

    fn kind(&mut self) -> Option<String> {
        let Some((_, value)) = self.entry("kind") else {
            // The name of a built-in check implies its kind.
            if kinds().any(|kind| kind == self.name) {
                return Some(self.name.to_owned());
            }
            if BUILT_IN_DNS.contains(&self.name) {
                return Some("dns".to_owned());
            }
            if self.name == "systemd" {
                self.problem(self.at.clone(), SYSTEMD);
                return None;
            }
            let message = match closest(self.name, kinds()) {
                Some(meant) => {
                    format!("kind is missing; did you mean [check.{meant}]? All kinds: dogwatch check --help")
                }
                None => format!("kind is missing; {}", hint(self.name, kinds())),
            };
            self.problem(self.at.clone(), message);
            return None;
        };
        let Value::Text(kind) = value.get_ref() else {
            self.problem(value.span(), "kind must be a string");
            return None;
        };
        if kinds().any(|known| known == kind) {
            return Some(kind.clone());
        }
        if kind == "systemd" {
            self.problem(value.span(), SYSTEMD);
            return None;
        }
        self.problem(value.span(), format!("unknown kind `{kind}`; {}", hint(kind, kinds())));
        None
    }

    fn text(&mut self, key: &str) -> Option<&'a str> {
        let (_, value) = self.entry(key)?;
        match value.get_ref() {
            Value::Text(text) if text.len() <= 1_024 => Some(text),
            _ => {
                self.problem(value.span(), format!("{key} must be a string of at most 1024 bytes"));
                None
            }
        }
    }

    fn span(&mut self, key: &str) -> Option<Duration> {
        self.span_up_to(key, LONGEST)
    }

    fn span_up_to(&mut self, key: &str, most: Span) -> Option<Duration> {
        let (_, value) = self.entry(key)?;
        let read = match value.get_ref() {
            Value::Text(text) => text.parse::<Span>(),
            _ => Err("must be a duration like \"30s\" or \"5m\"".to_owned()),
        };
        let message = match read {
            Ok(span) if (SHORTEST..=most).contains(&span) => return Some(span.0),
            Ok(_) => format!("must be {SHORTEST} to {most}"),
            Err(message) => message,
        };
        self.problem(value.span(), format!("{key}: {message}"));
        None
    }

    fn timings(&mut self, kind: &str, defaults: Defaults) -> Timings {
        let default = default_timing(kind, defaults);
        let interval = self.span("interval");
        let retry = self.span("retry_interval");
        let timeout = self.span("timeout");
        let interval_used = interval.unwrap_or(default.interval);
        if let (Some(retry), Some((_, value))) = (retry, self.entry("retry_interval"))
            && retry > interval_used
        {
            let message = format!(
                "retry_interval {} must not be longer than interval {}",
                Span(retry),
                Span(interval_used)
            );
            self.problem(value.span(), message);
        }
        // With a shorter interval and no retry_interval, retries must be at least as frequent.
        let retry_interval = retry.unwrap_or(default.retry_interval.min(interval_used));
        let timing = Timing { interval: interval_used, retry_interval };
        Timings { timing, timeout: timeout.unwrap_or(defaults.timeout) }
    }
}
