//! `[receiver.NAME.irc]`: a bot that sends notifications to a channel and accepts
//! `!ack 4711 looking into it`.
//!
//! ```toml
//! [receiver.team.irc]
//! server = "irc.example.org"        # default: port 6697 with TLS; change with `port` and `tls`
//! channel = "#ops"
//! nick = "dogwatch"
//! account = "dogwatch"              # SASL PLAIN login, if the network requires it
//! password_file = "/etc/dogwatch/irc.password"
//! nicks = { ann = "ann", bob = "bob" }    # who may acknowledge, by services account
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`line`] | reads and writes one line of the protocol |
//! | [`bot`] | the state of the conversation, as a value |
//! | [`commands`] | commands and their answers |
//! | `actor` | the connection and its task |
//!
//! *Delivered* means that the server answered a PING sent after the last line, and reported no
//! error before that. The connection survives a reload that does not change its table. People who
//! are not in `nicks` get answers but cannot change anything. People are known by their services
//! account, because on many networks anybody can take any nick. `require_account = false` trusts
//! nicks.
//!
//! Not supported: private messages, several channels, DCC, colours.

pub mod bot;
pub mod commands;
pub mod line;

mod actor;
#[cfg(test)]
mod bot_tests;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use dogwatch_alertd_core::rules::{
    notification::{Accepted, DeliveryError, Kind, Notification},
    text,
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::{secret::SecretFile, sender::Sender};
use crate::engine::Input;

/// `[receiver.NAME.irc]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub server: Spanned<String>,
    /// Default: 6697, or 6667 without TLS.
    pub port: Option<u16>,
    /// Default: true, except for this host.
    pub tls: Option<bool>,
    /// PEM file with additional CA certificates to trust, for a server with a private CA.
    pub ca_file: Option<Spanned<PathBuf>>,
    pub channel: Spanned<String>,
    /// The first line is the channel's key.
    pub channel_key_file: Option<Spanned<PathBuf>>,
    pub nick: Option<Spanned<String>>,
    /// Services account. Default: no login.
    pub account: Option<Spanned<String>>,
    pub password_file: Option<Spanned<PathBuf>>,
    /// The server's password (`PASS`).
    pub server_password_file: Option<Spanned<PathBuf>>,
    /// From services accounts (nicks without `require_account`) to the user names that acks get.
    #[serde(default)]
    pub nicks: BTreeMap<Spanned<String>, String>,
    /// Default: true. On many networks anybody can take any nick.
    #[serde(default = "yes")]
    pub require_account: bool,
}

fn yes() -> bool {
    true
}

/// Receivers with equal configs share a connection across reloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    server: String,
    port: u16,
    tls: bool,
    ca_file: Option<PathBuf>,
    channel: String,
    channel_key: Option<SecretFile>,
    nick: String,
    login: Option<(String, SecretFile)>,
    server_password: Option<SecretFile>,
    /// Keys are case-folded as servers compare names.
    nicks: BTreeMap<String, String>,
    require_account: bool,
}

/// Clones share the connection.
#[derive(Debug, Clone)]
pub struct Irc {
    config: Arc<Config>,
    jobs: Arc<OnceLock<mpsc::Sender<actor::Job>>>,
}

/// Notifications that may wait for the task.
const JOBS_MAX: usize = 8;
/// Incidents listed for a digest.
const DIGEST_NAMED: usize = 3;

impl File {
    pub(super) fn resolve(self, source: &Source, problems: &mut Problems) -> Option<Irc> {
        let before = problems.0.len();
        let server = self.server.into_inner();
        let local = server == "localhost"
            || server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let tls = self.tls.unwrap_or(!local);
        let channel = self.channel.get_ref().clone();
        if !channel.starts_with(['#', '&', '+', '!']) || !is_word(&channel) || channel.len() > 64 {
            let words = format!("{channel:?} is not a channel name; write for example channel = \"#ops\"");
            problems.add(source, self.channel.span(), words);
        }
        if let Some(nick) = &self.nick
            && (!is_word(nick.get_ref())
                || nick.get_ref().len() > 30
                || nick.get_ref().starts_with(['#', ':']))
        {
            problems.add(
                source,
                nick.span(),
                format!("{:?} is not a valid nick; use letters and digits", nick.get_ref()),
            );
        }
        let file = |path: Spanned<PathBuf>| SecretFile::new(path.into_inner());
        for secret in [&self.password_file, &self.server_password_file].into_iter().flatten() {
            if !tls && !local {
                problems.add(source, secret.span(), "the password would be sent unencrypted; set tls = true");
            }
        }
        let login = match (self.account, self.password_file) {
            (Some(account), Some(password)) => Some((account.into_inner(), file(password))),
            (None, None) => None,
            (Some(one), None) => {
                problems.add(source, one.span(), "account without password_file; set both or neither");
                None
            }
            (None, Some(one)) => {
                problems.add(source, one.span(), "password_file without account; set both or neither");
                None
            }
        };
        let nicks = self.nicks.into_iter().map(|(nick, user)| (line::fold(nick.get_ref()), user)).collect();
        let config = Config {
            server,
            port: self.port.unwrap_or(if tls { 6697 } else { 6667 }),
            tls,
            ca_file: self.ca_file.map(Spanned::into_inner),
            channel,
            channel_key: self.channel_key_file.map(file),
            nick: self.nick.map_or_else(|| "dogwatch".into(), Spanned::into_inner),
            login,
            server_password: self.server_password_file.map(file),
            nicks,
            require_account: self.require_account,
        };
        (problems.0.len() == before).then(|| Irc { config: Arc::new(config), jobs: Arc::default() })
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',')
}

impl Config {
    fn identity(&self) -> Result<bot::Identity, String> {
        let read = |secret: &Option<SecretFile>| secret.as_ref().map(SecretFile::read).transpose();
        let login = match &self.login {
            Some((account, password)) => Some((account.clone(), password.read()?)),
            None => None,
        };
        Ok(bot::Identity {
            nick: self.nick.clone(),
            channel: self.channel.clone(),
            channel_key: read(&self.channel_key)?,
            server_password: read(&self.server_password)?,
            login,
        })
    }

    /// The user who sent a command; the error is the answer to send.
    fn user(&self, nick: &str, account: Option<&str>, accounts: bool) -> Result<String, String> {
        let name = match (self.require_account, account) {
            (false, _) => nick,
            (true, Some(account)) => account,
            (true, None) if accounts => {
                return Err("please log in to services first; only known accounts may do this".into());
            }
            (true, None) => {
                return Err("nobody may do this here, because this server does not report accounts".into());
            }
        };
        self.nicks.get(&line::fold(name)).cloned().ok_or_else(|| {
            let name = text::line(name, 40);
            format!(
                "{name} may not do this; to allow it, add nicks = {{ {name} = \"USER\" }} \
                 to this receiver in the config"
            )
        })
    }
}

impl Irc {
    /// Connects, or keeps the connection of `before` if its config did not change.
    pub(super) fn start(&self, name: &str, engine: &mpsc::Sender<Input>, before: Option<&Self>) {
        let kept = before.filter(|before| before.config == self.config).and_then(|before| before.jobs.get());
        let jobs = kept.cloned().unwrap_or_else(|| {
            let (jobs, taken) = mpsc::channel(JOBS_MAX);
            tokio::spawn(actor::run(name.to_owned(), Arc::clone(&self.config), taken, engine.clone()));
            jobs
        });
        // Can only be set once.
        let _ = self.jobs.set(jobs);
    }

    pub(super) async fn send(
        &self,
        told: &Notification,
        sender: &Sender,
        deadline: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let retry = |reason: String| DeliveryError::Retry { after: None, reason };
        let (done, outcome) = oneshot::channel();
        let job = actor::Job { texts: texts(told, sender), done };
        let exchange = async {
            let jobs = self.jobs.get()?;
            jobs.send(job).await.ok()?;
            outcome.await.ok()
        };
        let server = &self.config.server;
        match tokio::time::timeout(deadline, exchange).await {
            Ok(Some(Ok(()))) => Ok(Accepted::delivered()),
            Ok(Some(Err(reason))) => Err(retry(format!("{server}: {reason}"))),
            Ok(None) => Err(retry(format!("the connection to {server} is closed"))),
            Err(_) => Err(retry(format!("{server} did not accept the notification within {deadline:?}"))),
        }
    }
}

/// One line for what happened and one for what to do; for a digest, one that lists incidents.
fn texts(told: &Notification, sender: &Sender) -> Vec<String> {
    let mut lines = vec![sender.title(told)];
    if let Some(text) = &sender.own_words.text {
        lines.extend(text.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        return lines;
    }
    if !told.digest.is_empty() {
        let held = told.summary.as_ref().map_or(0, |summary| summary.held()).max(told.digest.len());
        let named = told.digest.iter().take(DIGEST_NAMED);
        let mut named: Vec<_> =
            named.map(|held| format!("#{} {}", held.incident, text::line(&held.title, 80))).collect();
        if held > DIGEST_NAMED {
            named.push(format!("and {} more; see !status", held - DIGEST_NAMED));
        }
        lines.push(named.join(" · "));
    }
    if matches!(told.kind, Kind::Problem | Kind::Update | Kind::Reminder) {
        let number = told.incident;
        let mut parts = Vec::new();
        if let Some(alert) = told.firing.first() {
            let age = text::age(alert.since, told.created_at);
            parts.push(format!("since {} ({age})", text::clock_time(alert.since, &sender.zone)));
        }
        parts.extend(
            told.firing.iter().find_map(|alert| Some(text::line(alert.annotations.get("runbook")?, 200))),
        );
        if told.ack.is_none() {
            parts.push(format!("!ack {number} COMMENT"));
        }
        lines.push(format!("[#{number}] {}", parts.join(" · ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use dogwatch_daemon::config;

    use super::{super::words::tests::problem, *};

    #[test]
    fn a_problem_has_two_lines_and_a_recovery_one() {
        let sender = Sender {
            host: "mon1".into(),
            zone: jiff::tz::TimeZone::UTC,
            links: None,
            own_words: crate::notify::sender::Rendered::default(),
        };
        assert_eq!(
            texts(&problem(), &sender),
            [
                "[#4711] CRITICAL web1/disk: /var 96% used",
                "[#4711] since 02:12 Sat 21 Nov 2026 UTC (4 min) · https://wiki.example/disk · !ack 4711 COMMENT"
            ]
        );
        assert_eq!(texts(&Notification { kind: Kind::Recovery, ..problem() }, &sender).len(), 1);
    }

    #[test]
    fn only_people_in_the_config_may_change_something() {
        let irc = resolve("server = \"irc.example\"\nchannel = \"#ops\"\nnicks = { \"Ann[m]\" = \"ann\" }\n")
            .unwrap();
        let user = |nick: &str, account| irc.config.user(nick, account, true);
        assert!(user("ann[m]", None).unwrap_err().contains("log in"), "S15: by default a nick is not enough");
        assert_eq!(user("eve", Some("ann[m]")), Ok("ann".into()));
        let lax = Config { require_account: false, ..(*irc.config).clone() };
        let user = |nick: &str, account| lax.user(nick, account, true);
        assert_eq!(user("ann{M}", None), Ok("ann".into()));
        assert!(user("eve", Some("ann{m}")).unwrap_err().contains("eve may not do this"));
        let strict = Config { require_account: true, ..(*irc.config).clone() };
        assert_eq!(strict.user("eve", Some("ann[m]"), true), Ok("ann".into()));
        assert!(strict.user("ann[m]", None, true).unwrap_err().contains("log in"));
        assert!(strict.user("ann[m]", None, false).unwrap_err().contains("does not report accounts"));
    }

    #[test]
    fn config_errors_have_their_positions() {
        let said = |text: &str| resolve(text).unwrap_err().to_string();
        let all = said(
            "server = \"x.example\"\nchannel = \"ops\"\nnick = \"a b\"\naccount = \"x\"\ntls = false\nserver_password_file = \"/p\"\n",
        );
        for part in [
            "2:11: channel: \"ops\" is not a channel name",
            "3:8: nick: \"a b\" is not a valid nick",
            "4:11: account without",
            "6:24: the password would be sent unencrypted",
        ] {
            assert!(all.contains(part), "{part}\n{all}");
        }
        let irc = resolve("server = \"localhost\"\nchannel = \"#ops\"\n").unwrap();
        assert_eq!((irc.config.tls, irc.config.port), (false, 6667));
    }

    fn resolve(text: &str) -> Result<Irc, Problems> {
        let source = Source { path: "alertd.toml".into(), text: text.into() };
        let mut problems = Problems::default();
        let irc = config::parse::<File>(&source, &mut problems)
            .and_then(|file| file.resolve(&source, &mut problems));
        problems.or(irc).map(|irc| irc.expect("a problem otherwise"))
    }
}
