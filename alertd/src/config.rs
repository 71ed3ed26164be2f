//! `alertd.toml` as written → [`Config`] as used, or every problem at once.
//!
//! ```toml
//! [[route]]                              # tried in order; what none of them takes goes to policy "default"
//! match = ["team=db", "severity!=low"]
//! policy = "db-oncall"                   # or: receiver = "db-mail"
//!
//! [policy.db-oncall]
//! step = [{ notify = ["chat"] }, { after = "5m", notify = ["pager"] }]
//!
//! [receiver.pager.pagerduty]             # how to reach it: see `notify`
//! ```
//!
//! With no config at all everything goes to policy `default`, one step, receiver `local`: a maildir below the state
//! directory. Both names may be defined otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU32,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use dogwatch_daemon::{
    config::{Problems, Source, Spanned, closest, load, parse},
    duration::Span,
};
use serde::Deserialize;

use crate::{
    core::{DEFAULT_POLICY, ReceiverRules, Rules},
    escalation::{Policy, Step},
    matcher::Matcher,
    notify::{Receiver, ReceiverFile, Receivers, Sender},
    ratelimit::Rate,
    route::{GroupBy, Route, Timing},
};

/// Where the receiver that is there without any config puts its mail, below the state directory.
const LOCAL_RECEIVER: &str = "local";

/// One file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    #[serde(default)]
    alertd: AlertdFile,
    #[serde(default)]
    route: Vec<RouteFile>,
    #[serde(default)]
    policy: BTreeMap<Spanned<String>, PolicyFile>,
    #[serde(default)]
    receiver: BTreeMap<Spanned<String>, ReceiverFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertdFile {
    /// Unix socket for agents and alertctl.
    socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    /// Address of the metrics page; `"off"` for none.
    metrics: Option<Spanned<String>>,
    /// What is over is forgotten after this long.
    keep_history: Option<Span>,
    /// Host name to show; else the system's.
    host: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    #[serde(default, rename = "match")]
    matchers: Vec<Spanned<String>>,
    #[serde(default, rename = "continue")]
    goes_on: bool,
    policy: Option<Spanned<String>>,
    receiver: Option<Spanned<String>>,
    group_by: Option<Vec<String>>,
    group_wait: Option<Span>,
    group_interval: Option<Span>,
    repeat_interval: Option<Span>,
    #[serde(default)]
    route: Vec<RouteFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    step: Vec<Spanned<StepFile>>,
    #[serde(default)]
    repeat: u32,
    repeat_every: Option<Spanned<Span>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFile {
    /// From the start of the round.
    #[serde(default = "no_time")]
    after: Span,
    notify: Vec<Spanned<String>>,
}

/// `rate = { burst = 5, every = "1m" }`: that many at once, then one in each interval; what is over goes into a digest.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateFile {
    burst: NonZeroU32,
    every: Span,
}

/// As used; nothing after it checks again.
#[derive(Debug, Clone)]
pub struct Config {
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    pub metrics: Option<SocketAddr>,
    pub keep_history: Duration,
    pub rules: Rules,
    pub receivers: Receivers,
}

/// Enough to be sure that the host is watched and told of, little enough that a phone stays usable.
const RATE_DEFAULT: Rate = Rate { burst: NonZeroU32::new(10).unwrap(), every: Duration::from_secs(30) };
/// A page is to leave within a second of the transition; what one agent reports together arrives together.
const GROUP_WAIT_DEFAULT: Duration = Duration::from_millis(500);
/// Worse news does not wait for this.
const GROUP_INTERVAL_DEFAULT: Duration = Duration::from_mins(1);
/// As in Alertmanager.
const REPEAT_INTERVAL_DEFAULT: Duration = Duration::from_hours(4);
/// Between rounds of a policy, after its last step, if it does not say otherwise.
const REPEAT_PAUSE_DEFAULT: Duration = Duration::from_mins(30);
/// A quarter, so that last month's incident can be read.
const KEEP_HISTORY_DEFAULT: Duration = Duration::from_hours(90 * 24);
/// As every agent expects them.
const SOCKET_DEFAULT: &str = "/run/alertd/alertd.sock";
const STATE_DIR_DEFAULT: &str = "/var/lib/alertd";
const METRICS_DEFAULT: &str = "127.0.0.1:9848";

fn no_time() -> Span {
    Span::secs(0)
}

impl Config {
    /// Reads `path` and its drop-ins.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let files = load::<ConfigFile>(path, &mut problems);
        Self::resolve(path, files, problems)
    }

    /// Reads one text, as a test writes it.
    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let source = Source { path: "alertd.toml".into(), text: text.into() };
        let file = parse::<ConfigFile>(&source, &mut problems);
        let files = file.map(|file| (source, file)).into_iter().collect();
        Self::resolve(Path::new("alertd.toml"), files, problems)
    }

    fn resolve(
        path: &Path,
        files: Vec<(Source, ConfigFile)>,
        mut problems: Problems,
    ) -> Result<Self, Problems> {
        let mut parts = Parts::default();
        for (source, file) in files {
            parts.take(source, file, &mut problems);
        }
        let state_dir = parts.alertd.state_dir.take().unwrap_or_else(|| STATE_DIR_DEFAULT.into());
        if !parts.receivers.contains_key(LOCAL_RECEIVER) {
            parts.add_local_receiver(path, &state_dir, &mut problems);
        }
        let names = parts.names();
        let mut rules = Rules {
            routes: parts.routes(&names, &mut problems),
            policies: parts.policies(&names, &mut problems),
            receivers: parts.receiver_rules(&names, &mut problems),
            host: parts.alertd.host.take().unwrap_or_else(|| Sender::of_this_host().host),
        };
        rules.policies.entry(DEFAULT_POLICY.into()).or_insert_with(|| only(DEFAULT_POLICY, LOCAL_RECEIVER));
        for receiver in rules.receivers.keys() {
            rules.policies.entry(direct(receiver)).or_insert_with(|| only(&direct(receiver), receiver));
        }
        let metrics = parts.metrics(&mut problems);
        let sender = Sender { host: rules.host.clone(), ..Sender::of_this_host() };
        problems.or(Self {
            socket: parts.alertd.socket.unwrap_or_else(|| SOCKET_DEFAULT.into()),
            state_dir,
            metrics,
            keep_history: parts.alertd.keep_history.map_or(KEEP_HISTORY_DEFAULT, |span| span.0),
            rules,
            receivers: Receivers::new(parts.resolved, sender),
        })
    }
}

/// A policy that a route with `receiver = …` means. No config can name it: names have no space.
fn direct(receiver: &str) -> String {
    format!("receiver {receiver}")
}

fn only(name: &str, receiver: &str) -> Policy {
    Policy {
        name: name.into(),
        steps: vec![Step { after: Duration::ZERO, notify: vec![receiver.into()] }],
        repeat: 0,
        repeat_every: REPEAT_PAUSE_DEFAULT,
    }
}

/// All files together, each thing with the file it stands in.
#[derive(Default)]
struct Parts {
    sources: Vec<Source>,
    alertd: AlertdFile,
    alertd_source: usize,
    routes: Vec<(usize, RouteFile)>,
    policies: BTreeMap<String, (usize, Range<usize>, PolicyFile)>,
    receivers: BTreeMap<String, ReceiverPart>,
    resolved: BTreeMap<String, Receiver>,
}

struct ReceiverPart {
    source: usize,
    fallback: Option<Spanned<String>>,
    rate: Rate,
}

/// What may be referred to.
struct Names {
    policies: BTreeSet<String>,
    receivers: BTreeSet<String>,
}

impl Parts {
    fn take(&mut self, source: Source, file: ConfigFile, problems: &mut Problems) {
        let at = self.sources.len();
        let AlertdFile { socket, state_dir, metrics, keep_history, host } = file.alertd;
        if metrics.is_some() {
            self.alertd_source = at;
        }
        let old = std::mem::take(&mut self.alertd);
        self.alertd = AlertdFile {
            socket: socket.or(old.socket),
            state_dir: state_dir.or(old.state_dir),
            metrics: metrics.or(old.metrics),
            keep_history: keep_history.or(old.keep_history),
            host: host.or(old.host),
        };
        self.routes.extend(file.route.into_iter().map(|route| (at, route)));
        for (name, policy) in file.policy {
            let span = name.span();
            if let Some(name) = usable(name, "policy", &source, problems)
                && self.policies.insert(name.clone(), (at, span.clone(), policy)).is_some()
            {
                problems.add(&source, span, format!("policy {name:?} is defined twice; keep one"));
            }
        }
        for (name, receiver) in file.receiver {
            self.take_receiver(at, &source, name, receiver, problems);
        }
        self.sources.push(source);
    }

    fn take_receiver(
        &mut self,
        at: usize,
        source: &Source,
        name: Spanned<String>,
        mut file: ReceiverFile,
        problems: &mut Problems,
    ) {
        let span = name.span();
        let Some(name) = usable(name, "receiver", source, problems) else { return };
        let rate = match file.rate.take() {
            Some(rate) if rate.get_ref().every.0.is_zero() => {
                problems.add(source, rate.span(), "rate: every must be longer than 0s, like \"1m\"");
                RATE_DEFAULT
            }
            Some(rate) => Rate { burst: rate.get_ref().burst, every: rate.get_ref().every.0 },
            None => RATE_DEFAULT,
        };
        let part = ReceiverPart { source: at, fallback: file.fallback.take(), rate };
        if self.receivers.insert(name.clone(), part).is_some() {
            problems.add(source, span.clone(), format!("receiver {name:?} is defined twice; keep one"));
        }
        if let Some(receiver) = file.resolve(&name, span, source, problems) {
            self.resolved.insert(name, receiver);
        }
    }

    /// The receiver that works without any account.
    fn add_local_receiver(&mut self, path: &Path, state_dir: &Path, problems: &mut Problems) {
        let maildir = toml::Value::String(state_dir.join("mail").display().to_string());
        let text = format!("[receiver.{LOCAL_RECEIVER}.maildir]\npath = {maildir}\n");
        let source = Source { path: path.to_owned(), text };
        if let Some(file) = parse::<ConfigFile>(&source, problems) {
            self.take(source, file, problems);
        }
    }

    fn names(&self) -> Names {
        let built_in = [DEFAULT_POLICY.to_owned()];
        Names {
            policies: self.policies.keys().cloned().chain(built_in).collect(),
            receivers: self.receivers.keys().cloned().collect(),
        }
    }

    /// The tree, under a root that takes everything.
    fn routes(&mut self, names: &Names, problems: &mut Problems) -> Route {
        let mut root = Route {
            matchers: Vec::new(),
            goes_on: false,
            group_by: GroupBy::Labels(vec!["host".into()]),
            timing: Timing {
                group_wait: GROUP_WAIT_DEFAULT,
                group_interval: GROUP_INTERVAL_DEFAULT,
                repeat_interval: REPEAT_INTERVAL_DEFAULT,
            },
            policy: DEFAULT_POLICY.into(),
            children: Vec::new(),
        };
        for (at, file) in std::mem::take(&mut self.routes) {
            let route = resolve_route(file, &root, &self.sources[at], names, problems);
            root.children.push(route);
        }
        root
    }

    fn policies(&mut self, names: &Names, problems: &mut Problems) -> BTreeMap<String, Policy> {
        let mut policies = BTreeMap::new();
        for (name, (at, span, file)) in std::mem::take(&mut self.policies) {
            let source = &self.sources[at];
            let policy = resolve_policy(&name, span, file, source, names, problems);
            policies.insert(name, policy);
        }
        policies
    }

    fn receiver_rules(&self, names: &Names, problems: &mut Problems) -> BTreeMap<String, ReceiverRules> {
        let mut rules = BTreeMap::new();
        for (name, part) in &self.receivers {
            let source = &self.sources[part.source];
            let fallback = part.fallback.as_ref().filter(|fallback| {
                let known = check_known(fallback, "receiver", &names.receivers, source, problems);
                let loops = known && self.comes_back_to(name, fallback.get_ref());
                if loops {
                    let words =
                        format!("fallback of {name:?} leads back to it; the last one has no fallback");
                    problems.add(source, fallback.span(), words);
                }
                known && !loops
            });
            let fallback = fallback.map(|fallback| fallback.get_ref().clone());
            rules.insert(name.clone(), ReceiverRules { fallback, rate: part.rate });
        }
        rules
    }

    fn comes_back_to<'a>(&'a self, start: &str, mut at: &'a str) -> bool {
        for _ in 0..=self.receivers.len() {
            if at == start {
                return true;
            }
            let next = self.receivers.get(at).and_then(|part| part.fallback.as_ref());
            let Some(next) = next else { return false };
            at = next.get_ref();
        }
        false
    }

    fn metrics(&self, problems: &mut Problems) -> Option<SocketAddr> {
        let text = self.alertd.metrics.as_ref().map_or(METRICS_DEFAULT, |text| text.get_ref().as_str());
        if text == "off" {
            return None;
        }
        let address = text.parse().ok();
        if address.is_none()
            && let Some(written) = &self.alertd.metrics
        {
            let words = format!("{text:?} is not an address; write \"127.0.0.1:9848\" or \"off\"");
            problems.add(&self.sources[self.alertd_source], written.span(), words);
        }
        address
    }
}

fn resolve_route(
    file: RouteFile,
    parent: &Route,
    source: &Source,
    names: &Names,
    problems: &mut Problems,
) -> Route {
    let mut matchers: Vec<Matcher> = Vec::new();
    for text in &file.matchers {
        match text.get_ref().parse() {
            Ok(matcher) => matchers.push(matcher),
            Err(words) => problems.add(source, text.span(), words),
        }
    }
    let policy = match (&file.policy, &file.receiver) {
        (Some(policy), Some(_)) => {
            problems.add(source, policy.span(), "a route has a policy or a receiver, not both; remove one");
            None
        }
        (Some(policy), None) => {
            check_known(policy, "policy", &names.policies, source, problems).then(|| policy.get_ref().clone())
        }
        (None, Some(receiver)) => check_known(receiver, "receiver", &names.receivers, source, problems)
            .then(|| direct(receiver.get_ref())),
        (None, None) => None,
    };
    let group_by = match file.group_by {
        None => parent.group_by.clone(),
        Some(labels) if labels == ["..."] => GroupBy::All,
        Some(labels) => GroupBy::Labels(labels),
    };
    let inherited = parent.timing;
    let mut route = Route {
        matchers,
        goes_on: file.goes_on,
        group_by,
        timing: Timing {
            group_wait: file.group_wait.map_or(inherited.group_wait, |span| span.0),
            group_interval: file.group_interval.map_or(inherited.group_interval, |span| span.0),
            repeat_interval: file.repeat_interval.map_or(inherited.repeat_interval, |span| span.0),
        },
        policy: policy.unwrap_or_else(|| parent.policy.clone()),
        children: Vec::new(),
    };
    for child in file.route {
        let child = resolve_route(child, &route, source, names, problems);
        route.children.push(child);
    }
    route
}

fn resolve_policy(
    name: &str,
    span: Range<usize>,
    file: PolicyFile,
    source: &Source,
    names: &Names,
    problems: &mut Problems,
) -> Policy {
    if file.step.is_empty() {
        problems.add(source, span, format!("policy {name:?} has no step; give it [[policy.{name}.step]]"));
    }
    let mut steps: Vec<Step> = Vec::new();
    for step in file.step {
        let span = step.span();
        let StepFile { after, notify } = step.into_inner();
        if notify.is_empty() {
            problems.add(
                source,
                span.clone(),
                "a step notifies somebody; name receivers in notify = [\"…\"]",
            );
        }
        if let Some(before) = steps.last().filter(|before| before.after > after.0) {
            let before = Span(before.after);
            let words =
                format!("after counts from the start, so {after} cannot follow {before}; sort the steps");
            problems.add(source, span, words);
        }
        for receiver in &notify {
            check_known(receiver, "receiver", &names.receivers, source, problems);
        }
        let notify = notify.into_iter().map(Spanned::into_inner).collect();
        steps.push(Step { after: after.0, notify });
    }
    let last = steps.iter().map(|step| step.after).max().unwrap_or_default();
    let repeat_every = match file.repeat_every {
        None => last + REPEAT_PAUSE_DEFAULT,
        Some(every) => {
            if every.get_ref().0 <= last {
                let words = format!("repeat_every must be longer than the last step's after, {}", Span(last));
                problems.add(source, every.span(), words);
            }
            every.get_ref().0
        }
    };
    Policy { name: name.into(), steps, repeat: file.repeat, repeat_every }
}

/// A name that can stand in a label, a path and a command line.
fn usable(name: Spanned<String>, what: &str, source: &Source, problems: &mut Problems) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let span = name.span();
    let name = name.into_inner();
    if !name.is_empty() && name.chars().all(good) {
        return Some(name);
    }
    problems.add(source, span, format!("{what} {name:?}: use letters, digits, - _ and . in names"));
    None
}

fn check_known(
    name: &Spanned<String>,
    what: &str,
    known: &BTreeSet<String>,
    source: &Source,
    problems: &mut Problems,
) -> bool {
    let name_text = name.get_ref();
    if known.contains(name_text) {
        return true;
    }
    let hint = match closest(name_text, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("define it with [{what}.{name_text}]"),
    };
    problems.add(source, name.span(), format!("there is no {what} {name_text:?}; {hint}"));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let problems = Config::from_text(text).err();
        problems.map_or(Vec::new(), |all| all.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_a_config_everything_reaches_a_local_maildir() {
        let config = Config::from_text("").unwrap();
        let ways = config.rules.routes.ways(&[("host".into(), "web1".into())].into());
        assert_eq!(ways.len(), 1);
        let policy = &config.rules.policies[&ways[0].policy];
        assert_eq!(policy.steps[0].notify, [LOCAL_RECEIVER]);
        assert!(config.rules.receivers.contains_key(LOCAL_RECEIVER));
        assert_eq!(config.socket, PathBuf::from("/run/alertd/alertd.sock"));
    }

    #[test]
    fn every_problem_is_said_at_once_with_its_place_and_what_was_meant() {
        let said = said(
            r#"
[alertd]
metrics = "localhost"
[[route]]
match = ["host=~("]
policy = "oncal"
[[route.route]]
receiver = "pagr"
[[route]]
policy = "oncall"
receiver = "pager"
[policy.oncall]
repeat_every = "1m"
step = [{ after = "5m", notify = ["pager"] }, { after = "2m", notify = ["mial"] }, { notify = [] }]
[policy."on call"]
step = []
[receiver.pager]
fallback = "mail"
rate = { burst = 1, every = "0s" }
[receiver.pager.maildir]
path = "/p"
[receiver.mail]
fallback = "pager"
[receiver.mail.maildir]
path = "/m"
"#,
        );
        let expected = [
            "3:11: \"localhost\" is not an address",
            "5:10: \"(\" is not a regular expression",
            "6:10: there is no policy \"oncal\"; did you mean \"oncall\"?",
            "8:12: there is no receiver \"pagr\"; did you mean \"pager\"?",
            "10:10: a route has a policy or a receiver, not both",
            "13:16: repeat_every must be longer than the last step's after",
            "14:47: after counts from the start, so 2m cannot follow 5m",
            "14:73: there is no receiver \"mial\"; did you mean \"mail\"?",
            "14:84: a step notifies somebody",
            "14:84: after counts from the start, so 0s cannot follow 2m",
            "15:9: policy \"on call\": use letters",
            "18:12: fallback of \"pager\" leads back to it",
            "19:8: rate: every must be longer than 0s",
            "23:12: fallback of \"mail\" leads back to it",
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(&format!("alertd.toml:{expected}")), "{said}\nbut expected {expected}");
        }
    }

    #[test]
    fn a_route_inherits_what_it_does_not_say() {
        let config = Config::from_text(
            r#"
            [[route]]
            group_by = ["team"]
            repeat_interval = "1d"
            receiver = "local"
            [[route.route]]
            match = ["host=db1"]
            group_wait = "9s"
            "#,
        )
        .unwrap();
        let way = &config.rules.routes.ways(&[("host".into(), "db1".into())].into())[0];
        assert_eq!((way.policy.as_str(), way.timing.group_wait), ("receiver local", Duration::from_secs(9)));
        assert_eq!(way.timing.repeat_interval, Duration::from_hours(24));
        assert_eq!(way.timing.group_interval, GROUP_INTERVAL_DEFAULT);
        assert_eq!(way.group, [("team".to_owned(), String::new())].into());
    }

    #[test]
    fn the_packaged_example_is_right_as_it_stands_and_with_everything_uncommented() {
        let text = include_str!("../../packaging/etc/alertd.toml");
        assert_eq!(said(text), Vec::<String>::new());
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
        let uncomment = |line: &str| match line.strip_prefix("# ") {
            Some(code) if code.starts_with('[') || code.split(' ').nth(1) == Some("=") => code.to_owned(),
            _ => line.to_owned(),
        };
        let lines: Vec<_> = text.lines().map(uncomment).collect();
        let text = lines.join("\n").replace("/etc/dogwatch/pagerduty.key", key.to_str().unwrap());
        let config = Config::from_text(&text).map_err(|problems| problems.to_string()).unwrap();
        assert_eq!(config.rules.policies["default"].steps.len(), 2);
        assert_eq!(config.rules.receivers["pager"].fallback.as_deref(), Some("ops"));
        assert_eq!(config.rules.routes.children.len(), 1);
    }
}
