//! Reads the part of `alertd.toml` that these tests use into rules.
//!
//! The shell reads the real file, with all checks and error messages. Here, an unknown key is a
//! panic, so that a test cannot rely on a key that this reader ignores.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use jiff::civil::{Time, date};
use serde::Deserialize;

use crate::{
    DEFAULT_POLICY, LOCAL_RECEIVER, ReceiverRules, Rules,
    rules::{
        escalation::{Policy, Step},
        inhibit::Rule,
        matcher::Matcher,
        period::{Period, When},
        quota::Quotas,
        ratelimit::Rate,
        route::{self, GroupBy, Route, Timing},
        schedule::{self, Every, Layer, Schedule},
        suppression::SuppressedBy,
        user::User,
    },
    testing::World,
};

impl World {
    /// A world with the rules of a config.
    pub(crate) fn new(config: &str, seed: u64) -> Self {
        Self::with_rules(rules(config), seed)
    }

    /// Applies another config while running.
    pub(crate) fn reload(&mut self, config: &str) {
        self.take_rules(rules(config));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    alertd: Alertd,
    #[serde(default)]
    route: Vec<RouteFile>,
    #[serde(default)]
    policy: BTreeMap<String, PolicyFile>,
    #[serde(default)]
    receiver: BTreeMap<String, ReceiverFile>,
    #[serde(default)]
    user: BTreeMap<String, UserFile>,
    #[serde(default)]
    schedule: BTreeMap<String, ScheduleFile>,
    #[serde(default)]
    period: BTreeMap<String, PeriodFile>,
    #[serde(default)]
    inhibit: Vec<InhibitFile>,
    #[serde(default)]
    dependency: Vec<DependencyFile>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alertd {
    settle: Option<String>,
    resolve_timeout: Option<String>,
    catch_all: Option<String>,
    rate: Option<RateFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    #[serde(default, rename = "match")]
    matchers: Vec<String>,
    #[serde(default, rename = "continue")]
    goes_on: bool,
    policy: Option<String>,
    receiver: Option<String>,
    group_by: Option<Vec<String>>,
    group_wait: Option<String>,
    group_interval: Option<String>,
    repeat_interval: Option<String>,
    mute_during: Option<Vec<String>>,
    active_during: Option<Vec<String>>,
    #[serde(default)]
    route: Vec<RouteFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    step: Vec<StepFile>,
    #[serde(default)]
    repeat: u32,
    repeat_every: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFile {
    after: Option<String>,
    notify: Vec<String>,
}

/// How to send to a receiver does not matter to the core, but whether the receiver keeps incidents
/// open does. PagerDuty does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiverFile {
    fallback: Option<String>,
    rate: Option<RateFile>,
    maildir: Option<toml::Table>,
    pagerduty: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateFile {
    burst: NonZeroU32,
    every: String,
    reserve: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserFile {
    rules: Vec<StepFile>,
    #[serde(default)]
    critical: Vec<StepFile>,
    rate: Option<RateFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleFile {
    time_zone: String,
    layer: Vec<LayerFile>,
    #[serde(default)]
    gaps_ok: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerFile {
    users: Vec<String>,
    #[serde(default)]
    hours: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeriodFile {
    time_zone: String,
    hours: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InhibitFile {
    source: Vec<String>,
    target: Vec<String>,
    #[serde(default)]
    equal: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DependencyFile {
    of: Vec<String>,
    on: Vec<String>,
    #[serde(default)]
    equal: Vec<String>,
}

fn rules(config: &str) -> Rules {
    let mut file: File = toml::from_str(config).unwrap();
    let local =
        ReceiverFile { fallback: None, rate: None, maildir: Some(toml::Table::new()), pagerduty: None };
    file.receiver.entry(LOCAL_RECEIVER.into()).or_insert(local);
    let mut routes = Route::root(DEFAULT_POLICY);
    routes.children = file.route.into_iter().map(|route| route.resolve(&routes)).collect();
    let named = |(name, file): (String, UserFile)| (name.clone(), file.resolve(name));
    let mut rules = Rules {
        routes,
        policies: file.policy.into_iter().map(|(name, file)| (name.clone(), file.resolve(name))).collect(),
        receivers: file.receiver.into_iter().map(|(name, file)| (name, file.resolve())).collect(),
        inhibit: inhibit(file.dependency, file.inhibit),
        periods: file.period.into_iter().map(|(name, file)| (name, file.resolve())).collect(),
        resolve_timeout: file
            .alertd
            .resolve_timeout
            .map_or(Rules::RESOLVE_TIMEOUT_DEFAULT, |text| span(&text)),
        settle: file.alertd.settle.map_or(Rules::SETTLE_DEFAULT, |text| span(&text)),
        users: file.user.into_iter().map(named).collect(),
        schedules: file.schedule.into_iter().map(|(name, file)| (name.clone(), file.resolve(name))).collect(),
        catch_all: file.alertd.catch_all.unwrap_or_default(),
        rate: file.alertd.rate.map(RateFile::resolve),
        quotas: Quotas::default(),
        mass: crate::rules::mass::Mass::default(),
        host: "alertd1".into(),
    };
    rules.complete();
    rules
}

impl RouteFile {
    /// Resolves the route with inherited settings.
    fn resolve(self, parent: &Route) -> Route {
        let own_policy = self.policy.or_else(|| self.receiver.as_deref().map(Policy::name_of_receiver));
        let time = |written: Option<String>, inherited| written.map_or(inherited, |text| span(&text));
        let mut route = Route {
            matchers: matchers(&self.matchers),
            goes_on: self.goes_on,
            group_by: match self.group_by {
                None => parent.group_by.clone(),
                Some(labels) if labels == ["..."] => GroupBy::All,
                Some(labels) => GroupBy::Labels(labels),
            },
            timing: Timing {
                group_wait: time(self.group_wait, parent.timing.group_wait),
                group_interval: time(self.group_interval, parent.timing.group_interval),
                repeat_interval: time(self.repeat_interval, parent.timing.repeat_interval),
            },
            hours: route::Hours {
                mute_during: self.mute_during.unwrap_or_else(|| parent.hours.mute_during.clone()),
                active_during: self.active_during.unwrap_or_else(|| parent.hours.active_during.clone()),
            },
            policy: own_policy.unwrap_or_else(|| parent.policy.clone()),
            children: Vec::new(),
        };
        route.children = self.route.into_iter().map(|child| child.resolve(&route)).collect();
        route
    }
}

impl PolicyFile {
    fn resolve(self, name: String) -> Policy {
        let steps = steps(self.step);
        let last = steps.iter().map(|step| step.after).max().unwrap_or_default();
        let default = last + Policy::REPEAT_PAUSE_DEFAULT;
        let repeat_every = self.repeat_every.map_or(default, |text| span(&text));
        Policy { name, steps, repeat: self.repeat, repeat_every }
    }
}

impl ReceiverFile {
    fn resolve(self) -> ReceiverRules {
        assert!(self.maildir.is_some() != self.pagerduty.is_some(), "a receiver is a maildir or PagerDuty");
        ReceiverRules {
            fallback: self.fallback,
            rate: self.rate.map_or(Rate::OF_RECEIVER, RateFile::resolve),
            keeps_state: self.pagerduty.is_some(),
        }
    }
}

impl RateFile {
    fn resolve(self) -> Rate {
        let rate = Rate::with_default_reserve(self.burst, span(&self.every));
        Rate { reserve: self.reserve.unwrap_or(rate.reserve), ..rate }
    }
}

impl UserFile {
    fn resolve(self, name: String) -> User {
        let rate = self.rate.map_or(Rate::OF_USER, RateFile::resolve);
        User { name, rules: steps(self.rules), critical: steps(self.critical), rate }
    }
}

impl ScheduleFile {
    fn resolve(self, name: String) -> Schedule {
        let layer = |layer: LayerFile| Layer {
            users: layer.users,
            every: Every::Days(7),
            since: date(2000, 1, 1).at(0, 0, 0, 0),
            hours: layer.hours.iter().map(|text| hours_of_layer(text)).collect(),
        };
        Schedule {
            name,
            zone: super::time_zone(&self.time_zone),
            layers: self.layer.into_iter().map(layer).collect(),
            overrides: Vec::new(),
            gaps_are_meant: self.gaps_ok,
        }
    }
}

impl PeriodFile {
    fn resolve(self) -> Period {
        let minute =
            |time: Time| u16::try_from(time.hour()).unwrap() * 60 + u16::try_from(time.minute()).unwrap();
        let hours = self.hours.iter().map(|text| {
            let (from, until) = times(text);
            minute(from)..minute(until)
        });
        let when = When { hours: hours.collect(), ..When::default() };
        Period { zone: super::time_zone(&self.time_zone), any: vec![when] }
    }
}

fn inhibit(dependencies: Vec<DependencyFile>, inhibits: Vec<InhibitFile>) -> Vec<Rule> {
    let rule = |why, source: &[String], target: &[String], equal| Rule {
        why,
        source: matchers(source),
        target: matchers(target),
        equal,
    };
    let dependencies =
        dependencies.into_iter().map(|file| rule(SuppressedBy::Dependency, &file.on, &file.of, file.equal));
    let inhibits = inhibits
        .into_iter()
        .map(|file| rule(SuppressedBy::Inhibited, &file.source, &file.target, file.equal));
    dependencies.chain(inhibits).collect()
}

fn matchers(texts: &[String]) -> Vec<Matcher> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn steps(files: Vec<StepFile>) -> Vec<Step> {
    let step = |file: StepFile| Step {
        after: file.after.map_or(Duration::ZERO, |text| span(&text)),
        notify: file.notify,
    };
    files.into_iter().map(step).collect()
}

/// `02:00-04:00`, on every day.
fn hours_of_layer(text: &str) -> schedule::Hours {
    let (from, until) = times(text);
    schedule::Hours { days: 0x7f, from, until }
}

fn times(text: &str) -> (Time, Time) {
    let (from, until) = text.split_once('-').unwrap();
    (from.parse().unwrap(), until.parse().unwrap())
}

/// `500ms`, `20s`, `5m`, `1h`, `1d`.
fn span(text: &str) -> Duration {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap();
    let count: u64 = text[..unit].parse().unwrap();
    match &text[unit..] {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_mins(count),
        "h" => Duration::from_hours(count),
        "d" => Duration::from_hours(24 * count),
        other => panic!("no unit of time: {other:?}"),
    }
}
