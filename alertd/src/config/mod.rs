//! Reads `alertd.toml` and its drop-ins into a [`Config`], or reports all errors at once.
//!
//! ```toml
//! [[route]]                              # tried in order; other alerts go to policy "default"
//! match = ["team=db", "severity!=low"]
//! policy = "db-oncall"                   # or: receiver = "db-mail"
//!
//! [policy.db-oncall]
//! step = [{ notify = ["chat"] }, { after = "5m", notify = ["pager"] }]
//!
//! [receiver.pager.pagerduty]             # how to send to it: see `notify`
//! ```
//!
//! Without a config, every alert goes to policy `default`, which has one step: receiver `local`, a
//! maildir in the state directory. The config may define both names differently.
//!
//! | file | section |
//! | --- | --- |
//! | `route.rs` | `[[route]]` |
//! | `inhibit.rs` | `[[inhibit]]`, `[[dependency]]` |
//! | `period.rs` | `[period.NAME]` |
//! | `policy.rs` | `[policy.NAME]` |
//! | `user.rs`, `schedule.rs` | `[user.NAME]`, `[schedule.NAME]` |
//! | `web.rs`, `listen.rs` | `[alertd.web]`, `[alertd.listen]` |
//! | `receiver.rs` | `[receiver.NAME]`: fallback and rate limit; `notify` has the rest |
//! | `quota.rs` | `[alertd.quota]` |
//! | `rights.rs` | `[alertd.rights]` |
//! | `rate.rs` | `rate = { … }` of receivers, users and `[alertd]` |
//! | `names.rs` | named entries of several files, references, did-you-mean |

mod inhibit;
mod listen;
mod names;
mod period;
mod policy;
mod quota;
mod rate;
mod receiver;
mod rights;
mod route;
mod schedule;
#[cfg(test)]
mod tests;
mod user;
mod web;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use dogwatch_daemon::{
    config::{FilePath, Problems, Source, Spanned, load},
    duration::Span,
    secret::doubtful_files,
};
use serde::Deserialize;

use self::{
    inhibit::{DependencyFile, InhibitFile},
    listen::ListenFile,
    names::{Names, Section, TARGET, check_known, take_named},
    period::PeriodFile,
    policy::PolicyFile,
    quota::QuotaFile,
    receiver::ReceiverPart,
    rights::RightsFile,
    route::RouteFile,
    schedule::ScheduleFile,
    user::UserFile,
    web::WebFile,
};
pub use self::{
    listen::{Listen, Pair},
    rate::RateFile,
    rights::Rights,
    web::Web,
};
use crate::notify::{DeadMan, DeadManFile, Receiver, ReceiverFile, Receivers, Sender};
pub use dogwatch_alertd_core::rules::schedule::NOBODY;
use dogwatch_alertd_core::{
    DEFAULT_POLICY, LOCAL_RECEIVER, Rules,
    rules::{mass::Mass, quota::Quotas, ratelimit::Rate},
};

/// One file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    #[serde(default)]
    alertd: AlertdFile,
    #[serde(default)]
    route: Vec<RouteFile>,
    #[serde(default)]
    inhibit: Vec<InhibitFile>,
    #[serde(default)]
    dependency: Vec<DependencyFile>,
    #[serde(default)]
    policy: BTreeMap<Spanned<String>, PolicyFile>,
    #[serde(default)]
    period: BTreeMap<Spanned<String>, PeriodFile>,
    #[serde(default)]
    receiver: BTreeMap<Spanned<String>, ReceiverFile>,
    #[serde(default)]
    user: BTreeMap<Spanned<String>, UserFile>,
    #[serde(default)]
    schedule: BTreeMap<Spanned<String>, ScheduleFile>,
    /// The dead man's switch, which gets pings while alertd works.
    dead_man: Option<Spanned<DeadManFile>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertdFile {
    /// Unix socket for agents and alertctl.
    socket: Option<FilePath>,
    state_dir: Option<FilePath>,
    /// Address of the metrics endpoint, or `"off"`.
    metrics: Option<Spanned<String>>,
    /// How long to keep resolved incidents, history and the audit log.
    keep_history: Option<Span>,
    /// After a start: how long an alert waits for reports of a possible cause. After a cause is
    /// resolved: how long an alert suppressed by it has to recover too.
    settle: Option<Span>,
    /// An external alert posted without an end time ends this long after its last post.
    resolve_timeout: Option<Spanned<Span>>,
    /// Host name to show. Default: the system's.
    host: Option<String>,
    /// Receiver or user to notify when nobody is on call.
    catch_all: Option<Spanned<String>>,
    /// The web page that links in emails open.
    web: Option<WebFile>,
    /// The API over TCP.
    listen: Option<ListenFile>,
    /// Rate limit for all receivers together. Default: no limit.
    rate: Option<RateFile>,
    /// How much senders may make alertd remember.
    quota: Option<QuotaFile>,
    /// What login names may do on the unix socket.
    rights: Option<RightsFile>,
}

/// The validated config. Nothing that uses it validates again.
#[derive(Debug, Clone)]
pub struct Config {
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    pub metrics: Option<SocketAddr>,
    pub web: Option<Web>,
    pub listen: Option<Listen>,
    pub dead_man: Option<DeadMan>,
    pub rights: Rights,
    /// For people: what is valid but most likely a mistake, or not safe.
    pub warnings: Vec<String>,
    pub keep_history: Duration,
    pub rules: Rules,
    pub receivers: Receivers,
}

/// Three months, so that last month's incidents can still be read.
const KEEP_HISTORY_DEFAULT: Duration = Duration::from_hours(90 * 24);
const RESOLVE_TIMEOUT_MIN: Duration = Duration::from_secs(10);
/// Agents use the same default.
const SOCKET_DEFAULT: &str = "/run/alertd/alertd.sock";
const STATE_DIR_DEFAULT: &str = "/var/lib/alertd";
const METRICS_DEFAULT: &str = "127.0.0.1:9848";

pub use crate::arguments::DEFAULT_PATH;

impl Config {
    /// Reads `path` and its drop-ins.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let files = load::<ConfigFile>(path, Path::new(DEFAULT_PATH), &mut problems);
        Self::resolve(path, files, problems)
    }

    /// Reads a config from text, for tests.
    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let source = Source { path: "alertd.toml".into(), text: text.into() };
        let file = dogwatch_daemon::config::parse::<ConfigFile>(&source, &mut problems);
        let files = file.map(|file| (source, file)).into_iter().collect();
        Self::resolve(Path::new("alertd.toml"), files, problems)
    }

    /// The rules of one text.
    #[cfg(test)]
    pub(crate) fn rules_of(text: &str) -> Rules {
        Self::from_text(text).map_err(|problems| problems.to_string()).unwrap().rules
    }

    fn resolve(
        path: &Path,
        files: Vec<(Source, ConfigFile)>,
        mut problems: Problems,
    ) -> Result<Self, Problems> {
        let mut parts = Parts::default();
        let warnings = files.iter().flat_map(|(source, _)| doubtful_files(&source.text)).collect();
        for (source, file) in files {
            parts.take(source, file, &mut problems);
        }
        let state_dir =
            parts.alertd.state_dir.take().map_or_else(|| STATE_DIR_DEFAULT.into(), |FilePath(path)| path);
        if !parts.receivers.contains_key(LOCAL_RECEIVER) {
            parts.add_local_receiver(path, &state_dir, &mut problems);
        }
        let names = parts.names(&mut problems);
        let mut rules = Rules {
            routes: parts.routes(&names, &mut problems),
            policies: parts.policies(&names, &mut problems),
            receivers: parts.receiver_rules(&names, &mut problems),
            inhibit: parts.inhibit_rules(&mut problems),
            periods: parts.periods(&mut problems),
            resolve_timeout: parts.resolve_timeout(&mut problems),
            settle: parts.alertd.settle.map_or(Rules::SETTLE_DEFAULT, |span| span.0),
            users: BTreeMap::new(),
            schedules: parts.schedules(&names, &mut problems),
            catch_all: parts.catch_all(&names, &mut problems).unwrap_or_default(),
            rate: parts.rate(&mut problems),
            quotas: parts.quotas(&mut problems),
            mass: Mass::default(),
            host: parts.alertd.host.take().unwrap_or_else(|| Sender::of_this_host().host),
        };
        rules.users = parts.users(&names, &mut rules.receivers, &mut problems);
        rules.complete();
        let metrics = parts.metrics(&mut problems);
        let web = parts.alertd.web.take();
        let web =
            web.and_then(|web| web.resolve(&state_dir, &parts.sources[parts.web_source], &mut problems));
        let listen = parts.alertd.listen.take();
        let listen = listen.and_then(|it| it.resolve(&parts.sources[parts.listen_source], &mut problems));
        let rights = match parts.alertd.rights.take() {
            Some(written) => rights::resolve(&written, &parts.sources[parts.rights_source], &mut problems),
            None => rights::defaults(),
        };
        let dead_man = parts.dead_man.take();
        let dead_man =
            dead_man.and_then(|(source, file)| file.resolve(&parts.sources[source], &mut problems));
        let links = web.as_ref().map(Web::links);
        let sender = Sender { host: rules.host.clone(), links, ..Sender::of_this_host() };
        problems.or(Self {
            socket: parts.alertd.socket.map_or_else(|| SOCKET_DEFAULT.into(), |FilePath(path)| path),
            state_dir,
            metrics,
            web,
            listen,
            dead_man,
            rights,
            warnings,
            keep_history: parts.alertd.keep_history.map_or(KEEP_HISTORY_DEFAULT, |span| span.0),
            rules,
            receivers: Receivers::new(parts.resolved, sender),
        })
    }
}

/// The entries of all files, each with the index of its file.
#[derive(Default)]
struct Parts {
    sources: Vec<Source>,
    alertd: AlertdFile,
    alertd_source: usize,
    catch_all_source: usize,
    web_source: usize,
    listen_source: usize,
    resolve_timeout_source: usize,
    rate_source: usize,
    quota_source: usize,
    rights_source: usize,
    routes: Vec<(usize, RouteFile)>,
    inhibits: Vec<(usize, InhibitFile)>,
    dependencies: Vec<(usize, DependencyFile)>,
    policies: Section<PolicyFile>,
    periods: Section<PeriodFile>,
    receivers: BTreeMap<String, ReceiverPart>,
    users: Section<UserFile>,
    schedules: Section<ScheduleFile>,
    dead_man: Option<(usize, DeadManFile)>,
    resolved: BTreeMap<String, Receiver>,
}

impl Parts {
    fn take(&mut self, source: Source, file: ConfigFile, problems: &mut Problems) {
        let at = self.sources.len();
        let AlertdFile {
            socket,
            state_dir,
            metrics,
            keep_history,
            settle,
            resolve_timeout,
            host,
            catch_all,
            web,
            listen,
            rate,
            quota,
            rights,
        } = file.alertd;
        if rights.is_some() {
            self.rights_source = at;
        }
        if quota.is_some() {
            self.quota_source = at;
        }
        if rate.is_some() {
            self.rate_source = at;
        }
        if listen.is_some() {
            self.listen_source = at;
        }
        if web.is_some() {
            self.web_source = at;
        }
        if catch_all.is_some() {
            self.catch_all_source = at;
        }
        if resolve_timeout.is_some() {
            self.resolve_timeout_source = at;
        }
        if metrics.is_some() {
            self.alertd_source = at;
        }
        let old = std::mem::take(&mut self.alertd);
        self.alertd = AlertdFile {
            socket: socket.or(old.socket),
            state_dir: state_dir.or(old.state_dir),
            metrics: metrics.or(old.metrics),
            keep_history: keep_history.or(old.keep_history),
            settle: settle.or(old.settle),
            resolve_timeout: resolve_timeout.or(old.resolve_timeout),
            host: host.or(old.host),
            catch_all: catch_all.or(old.catch_all),
            web: web.or(old.web),
            listen: listen.or(old.listen),
            rate: rate.or(old.rate),
            quota: quota.or(old.quota),
            rights: rights.or(old.rights),
        };
        self.routes.extend(file.route.into_iter().map(|route| (at, route)));
        self.inhibits.extend(file.inhibit.into_iter().map(|rule| (at, rule)));
        self.dependencies.extend(file.dependency.into_iter().map(|rule| (at, rule)));
        if let Some(dead_man) = file.dead_man {
            let span = dead_man.span();
            if self.dead_man.replace((at, dead_man.into_inner())).is_some() {
                problems.add(&source, span, "[dead_man] is defined twice; keep one");
            }
        }
        take_named(&mut self.policies, file.policy, "policy", (at, &source), problems);
        take_named(&mut self.periods, file.period, "period", (at, &source), problems);
        take_named(&mut self.users, file.user, "user", (at, &source), problems);
        take_named(&mut self.schedules, file.schedule, "schedule", (at, &source), problems);
        for (name, receiver) in file.receiver {
            self.take_receiver(at, &source, name, receiver, problems);
        }
        self.sources.push(source);
    }

    /// Receivers, users and schedules share one namespace, because a step contains only the name.
    fn names(&self, problems: &mut Problems) -> Names {
        let built_in = [DEFAULT_POLICY.to_owned()];
        let users = self.users.iter().map(|(name, entry)| (name, entry.source, &entry.span, "user"));
        let schedules =
            self.schedules.iter().map(|(name, entry)| (name, entry.source, &entry.span, "schedule"));
        for (name, source, span, what) in users.clone().chain(schedules.clone()) {
            let other = if self.receivers.contains_key(name) {
                "receiver"
            } else if what == "schedule" && self.users.contains_key(name) {
                "user"
            } else {
                continue;
            };
            let words = format!("{name:?} is also the name of a {other}; rename the {what} or the {other}");
            problems.add(&self.sources[source], span.clone(), words);
        }
        let receivers = self.receivers.keys().cloned();
        Names {
            policies: self.policies.keys().cloned().chain(built_in).collect(),
            periods: self.periods.keys().cloned().collect(),
            receivers: receivers.clone().collect(),
            users: self.users.keys().cloned().collect(),
            targets: receivers.chain(users.chain(schedules).map(|(name, ..)| name.clone())).collect(),
        }
    }

    /// The receiver or user to notify when nobody is on call, if the config names one.
    fn catch_all(&self, names: &Names, problems: &mut Problems) -> Option<String> {
        let written = self.alertd.catch_all.as_ref()?;
        let source = &self.sources[self.catch_all_source];
        let name = written.get_ref();
        let is_schedule =
            names.targets.contains(name) && !names.receivers.contains(name) && !names.users.contains(name);
        if is_schedule {
            let words =
                "catch_all cannot be a schedule, which may have nobody on call; name a receiver or a user";
            problems.add(source, written.span(), words);
        } else {
            check_known(written, TARGET, &names.targets, source, problems);
        }
        Some(name.clone())
    }

    fn resolve_timeout(&self, problems: &mut Problems) -> Duration {
        let Some(written) = &self.alertd.resolve_timeout else { return Rules::RESOLVE_TIMEOUT_DEFAULT };
        let span = written.get_ref().0;
        if span < RESOLVE_TIMEOUT_MIN {
            let words = "resolve_timeout must be at least 10s, or alerts end between two posts; Prometheus posts every minute";
            problems.add(&self.sources[self.resolve_timeout_source], written.span(), words);
        }
        span
    }

    fn rate(&self, problems: &mut Problems) -> Option<Rate> {
        self.alertd.rate.as_ref().map(|rate| rate.resolve(&self.sources[self.rate_source], problems))
    }

    fn quotas(&self, problems: &mut Problems) -> Quotas {
        let written = self.alertd.quota.as_ref();
        written
            .map_or_else(Quotas::default, |quota| quota.resolve(&self.sources[self.quota_source], problems))
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
            let words = format!(
                "{text:?} is not an address; write IP:PORT, for example \"127.0.0.1:9848\", or \"off\""
            );
            problems.add(&self.sources[self.alertd_source], written.span(), words);
        }
        address
    }
}
