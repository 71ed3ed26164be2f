//! One `[check.NAME]`: the settings of every check, and those of its kind.

use std::{
    collections::BTreeMap,
    hash::Hasher as _,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dogwatch_checks::{Host, Lane, OptionError, Options, Pattern, State, Value};
use dogwatch_daemon::{
    config::{Problems, Source, Spanned, closest},
    duration::Span,
};
use dogwatch_wire::limits;

use super::{
    Check, Origin, Passive, Settings, Work,
    file::{CheckFile, FlappingFile, Labels},
};
use crate::{
    dns_sensor::{self, DnsSensor},
    flapping::Thresholds,
    handler::Handler,
    plugin::{Plugin, PluginError},
    schedule::Timing,
};

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

/// The keys that a table for some things may have besides those of the kind.
const OF_THINGS: [&str; 7] = ["enabled", "max_attempts", "for", "labels", "runbook", "note", "flapping"];

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
    let has_things = has_things(&kind);
    if let (Some(env), true) = (&file.env, kind != "plugin") {
        reader.problem(env.span(), "only plugins have an env");
    }
    let mut things = Vec::new();
    for (pattern, table) in &file.things {
        if !has_things {
            let message = format!("a check of kind {kind:?} has no things of its own; remove this table");
            problems.add(source, pattern.span(), message);
            continue;
        }
        let mut part = Reader { name: name.get_ref(), at: pattern.span(), file: table, source, problems };
        let settings = part.settings(&settings);
        let enabled = part.enabled();
        part.refuse_more_tables();
        things.push((Pattern::new(pattern.get_ref()), enabled.then_some(settings)));
    }
    let line = source.text[..name.span().start].matches('\n').count() + 1;
    let origin = Origin::File { path: source.path.clone(), line };
    if problems.0.len() > before {
        return None;
    }
    Some(Check {
        work: work?,
        lane: lane(&kind),
        definition: definition(&kind, file),
        kind,
        has_things,
        timing,
        timeout,
        settings,
        things,
        origin,
    })
}

/// Whether a check of this kind has a service for each thing that it finds.
fn has_things(kind: &str) -> bool {
    kind == "job" || dogwatch_checks::kind(kind).is_some_and(|kind| kind.has_things)
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

/// The built-in checks for what this host has.
pub(super) fn built_in(context: &Context<'_>) -> Vec<(Arc<str>, Check)> {
    let native = dogwatch_checks::built_in(context.host).filter_map(|kind| {
        let check = kind.build(&Options::default(), context.host).ok()?;
        Some((kind.name, kind.name, Work::Native(check)))
    });
    let has_cache = context.dns_control.exists() || cache_is_enabled();
    let dns = BUILT_IN_DNS.into_iter().filter(|_| has_cache).map(|name| {
        let sensor = DnsSensor { control: context.dns_control.clone(), sensor: name.to_owned() };
        (name, "dns", Work::Native(sensor.into_check()))
    });
    native
        .chain(dns)
        .chain([
            ("self-check", "self-check", Work::Own),
            ("job", "job", Work::Jobs(Passive { freshness: None, submitters: Vec::new() })),
        ])
        .map(|(name, kind, work)| {
            let check = Check {
                kind: kind.to_owned(),
                work,
                lane: lane(kind),
                has_things: has_things(kind),
                timing: default_timing(kind, context.defaults),
                timeout: context.defaults.timeout,
                settings: Settings {
                    max_attempts: default_attempts(kind, context.defaults),
                    lasting: None,
                    counts: false,
                    flapping: Some(Thresholds::default()),
                    labels: context.labels.clone(),
                    annotations: BTreeMap::new(),
                    handler: None,
                },
                things: Vec::new(),
                origin: Origin::Auto,
                definition: definition(kind, &CheckFile::default()),
            };
            (Arc::from(name), check)
        })
        .collect()
}

/// Whether systemd starts the DNS cache of the package. Then its checks do not go away with its
/// socket: a cache that is stopped is what they are for.
fn cache_is_enabled() -> bool {
    ["sockets.target.wants/dogwatch-dns.socket", "multi-user.target.wants/dogwatch-dns.service"]
        .iter()
        .any(|link| std::fs::symlink_metadata(Path::new("/etc/systemd/system").join(link)).is_ok())
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

/// Validates label names and values.
pub(super) fn labels(written: &Labels, source: &Source, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in written {
        let text = name.get_ref();
        let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !begins || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            problems.add(
                source,
                name.span(),
                format!("{text:?} is not a label name; use letters, digits and _"),
            );
        } else if matches!(text.as_str(), "host" | "service" | "check" | "thing") {
            problems.add(
                source,
                name.span(),
                format!("dogwatch sets the label {text} itself; use another name"),
            );
        } else if value.get_ref().len() > 256 {
            problems.add(source, value.span(), "a label's value must have at most 256 bytes");
        } else {
            labels.insert(text.clone(), value.get_ref().clone());
        }
    }
    labels
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
            let known = kinds().collect::<Vec<_>>().join(", ");
            self.problem(self.at.clone(), format!("kind is missing; use one of {known}"));
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
        let hint = closest(kind, kinds()).map_or_else(
            || format!("use one of {}", kinds().collect::<Vec<_>>().join(", ")),
            |meant| format!("did you mean `{meant}`?"),
        );
        self.problem(value.span(), format!("unknown kind `{kind}`; {hint}"));
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
        let (_, value) = self.entry(key)?;
        let read = match value.get_ref() {
            Value::Text(text) => text.parse::<Span>(),
            _ => Err("must be a duration like \"30s\" or \"5m\"".to_owned()),
        };
        let message = match read {
            Ok(span) if (SHORTEST..=LONGEST).contains(&span) => return Some(span.0),
            Ok(_) => format!("must be {SHORTEST} to {LONGEST}"),
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

    fn max_attempts(&mut self) -> Option<u8> {
        let (_, value) = self.entry("max_attempts")?;
        if let Value::Number(number) = value.get_ref()
            && (1.0..=255.0).contains(number)
            && number.fract() == 0.0
        {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a whole number of 1..=255"
            )]
            return Some(*number as u8);
        }
        self.problem(value.span(), "max_attempts must be a whole number from 1 to 255");
        None
    }

    fn labels(&mut self, shared: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = shared.clone();
        all.extend(labels(&self.file.labels, self.source, self.problems));
        // alertd adds host and service, and the agent check and thing.
        if all.len() > limits::LABELS_MAX - 4 {
            self.problem(
                self.at.clone(),
                format!("{} labels; at most {}", all.len(), limits::LABELS_MAX - 4),
            );
        }
        all
    }

    fn flapping(&mut self) -> Option<Thresholds> {
        let default = Thresholds::default();
        let Some(written) = &self.file.flapping else { return Some(default) };
        let FlappingFile { detect, start, stop } = *written.get_ref();
        let thresholds =
            Thresholds { start: start.unwrap_or(default.start), stop: stop.unwrap_or(default.stop) };
        if !(0.0 < thresholds.stop && thresholds.stop <= thresholds.start && thresholds.start <= 100.0) {
            let message = format!(
                "flapping: stop {} and start {} must be percentages with 0 < stop <= start <= 100",
                thresholds.stop, thresholds.start
            );
            self.problem(written.span(), message);
        }
        (detect != Some(false)).then_some(thresholds)
    }

    /// The settings of this table, or else of `base`.
    fn settings(&mut self, base: &Settings) -> Settings {
        let labels = self.labels(&base.labels);
        let mut annotations = base.annotations.clone();
        for key in ["runbook", "note"] {
            if let Some(text) = self.text(key) {
                annotations.insert(key.to_owned(), text.to_owned());
            }
        }
        let attempts = self.max_attempts();
        let lasting = self.lasting();
        if let (Some(_), Some(_), Some((key, _))) = (attempts, lasting, self.entry("for")) {
            self.problem(key.span(), "use either `for` or max_attempts, not both");
        }
        Settings {
            max_attempts: attempts.unwrap_or(base.max_attempts),
            lasting: if attempts.is_some() { None } else { lasting.or(base.lasting) },
            counts: attempts.is_some() || (base.counts && lasting.is_none()),
            flapping: if self.file.flapping.is_some() { self.flapping() } else { base.flapping },
            labels,
            annotations,
            handler: if self.file.handler.is_some() { self.handler() } else { base.handler.clone() },
        }
    }

    fn handler(&mut self) -> Option<Arc<Handler>> {
        let written = self.file.handler.as_ref()?.get_ref();
        let mut on = Vec::new();
        for name in written.on.iter().flat_map(Spanned::get_ref) {
            match name.parse() {
                Ok(state) if state != State::Ok => on.push(state),
                _ => {
                    let at = written.on.as_ref().map_or(self.at.clone(), Spanned::span);
                    self.problem(at, format!("handler.on: {name:?} must be WARNING, CRITICAL or UNKNOWN"));
                }
            }
        }
        if on.is_empty() {
            on.push(State::Critical);
        }
        let soft = match written.when.as_ref().map(|when| (when.get_ref().as_str(), when.span())) {
            None | Some(("hard", _)) => false,
            Some(("soft", _)) => true,
            Some((other, at)) => {
                self.problem(at, format!("handler.when: {other:?} must be \"soft\" or \"hard\""));
                false
            }
        };
        let spans = [
            (&written.timeout, Duration::from_secs(30), Span::secs(1), Span::secs(600)),
            (&written.cooldown, Duration::from_mins(10), Span::secs(1), LONGEST),
        ];
        let [timeout, cooldown] = spans.map(|(written, default, least, most)| match written {
            None => default,
            Some(span) if (least..=most).contains(span.get_ref()) => span.get_ref().0,
            Some(span) => {
                self.problem(span.span(), format!("handler: must be {least} to {most}"));
                default
            }
        });
        let per_day = match &written.per_day {
            None => 3,
            Some(count) if (1..=100).contains(count.get_ref()) => *count.get_ref(),
            Some(count) => {
                self.problem(count.span(), "handler.per_day must be 1 to 100");
                3
            }
        };
        let argv = written.command.get_ref().clone();
        let words = argv.join(" ");
        match Plugin::new(argv, written.env.clone(), State::Unknown) {
            Ok(command) => Some(Arc::new(Handler { command, words, on, soft, timeout, cooldown, per_day })),
            Err(error) => {
                self.problem(written.command.span(), format!("handler.command {error}"));
                None
            }
        }
    }

    /// `for`; zero is allowed.
    fn lasting(&mut self) -> Option<Duration> {
        let (_, value) = self.entry("for")?;
        if let Value::Text(text) = value.get_ref()
            && text.parse::<Span>().is_ok_and(|span| span.0.is_zero())
        {
            return Some(Duration::ZERO);
        }
        self.span("for")
    }

    /// `enabled = false`.
    fn enabled(&mut self) -> bool {
        match self.entry("enabled") {
            None => true,
            Some((_, value)) => {
                if let Value::Bool(enabled) = value.get_ref() {
                    return *enabled;
                }
                self.problem(value.span(), "enabled must be true or false");
                true
            }
        }
    }

    /// `warn = {}` is no table about a thing called `warn`.
    fn refuse_tables_for_options(&mut self, kind: &str) {
        let options = dogwatch_checks::kind(kind).map_or(&[][..], |kind| kind.options);
        for (key, _) in &self.file.things {
            let name = key.get_ref().as_str();
            if COMMON.contains(&name) || options.iter().any(|option| option.name == name) {
                self.problem(key.span(), format!("{name} must be a value, not a table"));
            }
        }
    }

    fn refuse_more_tables(&mut self) {
        for (key, _) in &self.file.things {
            self.problem(key.span(), format!("unknown table `{}`", key.get_ref()));
        }
        if let Some(env) = &self.file.env {
            self.problem(env.span(), "only plugins have an env");
        }
        let common = COMMON.iter().filter(|key| !OF_THINGS.contains(key));
        for key in common {
            if let Some((at, _)) = self.entry(key) {
                self.problem(
                    at.span(),
                    format!("{key} is for the whole check; write it in [check.{}]", self.name),
                );
            }
        }
    }

    fn work(&mut self, kind: &str, context: &Context<'_>) -> Option<Work> {
        match kind {
            "passive" => self.passive().map(Work::Passive),
            "job" => self.passive().map(Work::Jobs),
            "dns" => Some(self.dns(context)),
            "plugin" => self.plugin(context),
            "self-check" => {
                self.refuse_unknown(&kind_options("self-check"));
                Some(Work::Own)
            }
            _ => self.native(kind, context),
        }
    }

    fn passive(&mut self) -> Option<Passive> {
        self.refuse_unknown(&kind_options("passive"));
        let freshness = self.span("freshness");
        let submitters = match self.entry("submitters") {
            None => Vec::new(),
            Some((_, value)) => match value.get_ref() {
                Value::List(names) => names.clone(),
                Value::Text(name) => vec![name.clone()],
                _ => {
                    self.problem(value.span(), "submitters must be a list of user names");
                    return None;
                }
            },
        };
        Some(Passive { freshness, submitters })
    }

    fn dns(&mut self, context: &Context<'_>) -> Work {
        self.refuse_unknown(&kind_options("dns"));
        let sensor = self.text("sensor").unwrap_or(self.name).to_owned();
        Work::Native(DnsSensor { control: context.dns_control.clone(), sensor }.into_check())
    }

    fn plugin(&mut self, context: &Context<'_>) -> Option<Work> {
        self.refuse_unknown(&kind_options("plugin"));
        let timeout_state = match self.text("timeout_state").map(str::parse) {
            None => Some(State::Unknown),
            Some(Ok(state)) => Some(state),
            Some(Err(message)) => {
                let at = self.entry("timeout_state").map_or(self.at.clone(), |(_, value)| value.span());
                self.problem(at, format!("timeout_state: {message}"));
                None
            }
        };
        let Some((_, value)) = self.entry("command") else {
            self.problem(
                self.at.clone(),
                "command is missing; write an array like [\"check_ping\", \"-H\", \"db1\"]",
            );
            return None;
        };
        let Value::List(argv) = value.get_ref() else {
            self.problem(value.span(), "command must be an array of strings, because no shell splits it");
            return None;
        };
        let env = self.file.env.as_ref().map(|env| env.get_ref().clone()).unwrap_or_default();
        match Plugin::new(argv.clone(), env, timeout_state?) {
            Ok(plugin) => Some(Work::Plugin(plugin.with_state_directory(&context.state_dir, self.name))),
            Err(error) => {
                let at = match error {
                    PluginError::EnvName(_) => self.file.env.as_ref().map_or(value.span(), Spanned::span),
                    PluginError::Empty | PluginError::Nul => value.span(),
                };
                self.problem(at, format!("command {error}"));
                None
            }
        }
    }

    fn native(&mut self, kind: &str, context: &Context<'_>) -> Option<Work> {
        let kind = dogwatch_checks::kind(kind)?;
        let known: Vec<_> = kind.options.iter().map(|option| option.name).collect();
        self.refuse_unknown(&known.iter().copied());
        let options = self.own_entries().filter(|(key, _)| known.contains(&key.get_ref().as_str()));
        let mut options: Options =
            options.map(|(key, value)| (key.get_ref().clone(), value.get_ref().clone())).collect();
        for (pattern, table) in &self.file.things {
            let mut part = Reader {
                name: self.name,
                at: pattern.span(),
                file: table,
                source: self.source,
                problems: self.problems,
            };
            part.refuse_unknown(&known.iter().copied());
            let own = part.own_entries().filter(|(key, _)| known.contains(&key.get_ref().as_str()));
            let own: Options =
                own.map(|(key, value)| (key.get_ref().clone(), value.get_ref().clone())).collect();
            options.set_for(pattern.get_ref(), own);
        }
        match kind.build(&options, context.host) {
            Ok(check) => Some(Work::Native(check)),
            Err(errors) => {
                for OptionError { things, option, message } in errors {
                    let table = things.and_then(|things| {
                        self.file.things.iter().find(|(pattern, _)| *pattern.get_ref() == things)
                    });
                    let entries = table.map_or(&self.file.entries, |(_, table)| &table.entries);
                    let entry = entries.iter().find(|(key, _)| *key.get_ref() == option);
                    let at = entry.map_or(self.at.clone(), |(_, value)| value.span());
                    self.problem(at, format!("{option}: {message}"));
                }
                None
            }
        }
    }

    fn own_entries(&self) -> impl Iterator<Item = &'a (Spanned<String>, Spanned<Value>)> {
        self.file.entries.iter().filter(|(key, _)| !COMMON.contains(&key.get_ref().as_str()))
    }

    fn refuse_unknown(&mut self, own: &(impl Iterator<Item = &'static str> + Clone)) {
        let unknown: Vec<_> =
            self.own_entries().filter(|(key, _)| !own.clone().any(|own| own == key.get_ref())).collect();
        for (key, _) in unknown {
            let hint = match closest(key.get_ref(), own.clone().chain(COMMON)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("use one of {}", own.clone().chain(COMMON).collect::<Vec<_>>().join(", ")),
            };
            self.problem(key.span(), format!("unknown key `{}`; {hint}", key.get_ref()));
        }
    }
}

/// The keys of the agent's own kinds.
fn kind_options(kind: &str) -> impl Iterator<Item = &'static str> + Clone {
    let options: &'static [&'static str] = match kind {
        "passive" => &["freshness", "submitters"],
        "dns" => &["sensor"],
        "plugin" => &["command", "env", "timeout_state"],
        _ => &[],
    };
    options.iter().copied()
}
