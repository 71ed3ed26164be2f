//! `[receiver.NAME.irc]`: a bot in a channel. Notifications go in, `!ack 4711 looking into it` comes back.
//!
//! ```toml
//! [receiver.team.irc]
//! server = "irc.example.org"        # port 6697 with TLS, unless `port` and `tls` say otherwise
//! channel = "#ops"
//! nick = "dogwatch"
//! account = "dogwatch"              # login by SASL PLAIN, if the network wants it
//! password_file = "/etc/dogwatch/irc.password"
//! nicks = { ann_ = "ann", bob = "bob" }   # who may ack, and as whom
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`line`] | one line of the protocol, read and written |
//! | [`bot`] | the conversation, as a value |
//! | [`commands`] | what people may say, what they are answered |
//! | `actor` | the connection and its task |
//!
//! Promised: *accepted* means that the server has answered a PING that came after the last line, with no complaint in between.
//! The connection outlives a reload that does not change its table. Who is not in `nicks` is answered, but changes nothing.
//! A nick is no proof where anybody can take it: `require_account` takes the services' word for who it is instead.
//!
//! Not done: private messages, several channels, DCC, colours.

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

use super::{receiver::Sender, secret::SecretFile};
use crate::engine::Input;

/// `[receiver.NAME.irc]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub server: Spanned<String>,
    /// Default: 6697, or 6667 without TLS.
    pub port: Option<u16>,
    /// Default: true, but to this host.
    pub tls: Option<bool>,
    /// PEM file with further authorities to trust, for a server with a private one.
    pub ca_file: Option<Spanned<PathBuf>>,
    pub channel: Spanned<String>,
    /// First line: the channel's key.
    pub channel_key_file: Option<Spanned<PathBuf>>,
    pub nick: Option<Spanned<String>>,
    /// Services account; default none.
    pub account: Option<Spanned<String>>,
    pub password_file: Option<Spanned<PathBuf>>,
    /// The server's own password (`PASS`).
    pub server_password_file: Option<Spanned<PathBuf>>,
    /// Nick, or account with `require_account`, to the name that an ack gets.
    #[serde(default)]
    pub nicks: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    pub require_account: bool,
}

/// Equal ones are one connection.
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
    /// Names folded as servers compare them.
    nicks: BTreeMap<String, String>,
    require_account: bool,
}

/// Clones share the connection.
#[derive(Debug, Clone)]
pub struct Irc {
    config: Arc<Config>,
    jobs: Arc<OnceLock<mpsc::Sender<actor::Job>>>,
}

/// Notifications that wait for the task.
const JOBS_MAX: usize = 8;
/// Incidents that a digest's line names.
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
            let words = format!("{channel:?} is no channel; write channel = \"#ops\"");
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
                format!("{:?} is no nick; write letters and digits", nick.get_ref()),
            );
        }
        let file = |path: Spanned<PathBuf>| SecretFile::new(path.into_inner());
        for secret in [&self.password_file, &self.server_password_file].into_iter().flatten() {
            if !tls && !local {
                problems.add(
                    source,
                    secret.span(),
                    "a password must not travel in the clear; set tls = true",
                );
            }
        }
        let login = match (self.account, self.password_file) {
            (Some(account), Some(password)) => Some((account.into_inner(), file(password))),
            (None, None) => None,
            (Some(one), None) => {
                problems.add(source, one.span(), "account without password_file; write both or neither");
                None
            }
            (None, Some(one)) => {
                problems.add(source, one.span(), "password_file without account; write both or neither");
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

    /// Whose word a command is; the error is what to answer.
    fn user(&self, nick: &str, account: Option<&str>, accounts: bool) -> Result<String, String> {
        let name = match (self.require_account, account) {
            (false, _) => nick,
            (true, Some(account)) => account,
            (true, None) if accounts => {
                return Err("log in to services first; I take orders from accounts only".into());
            }
            (true, None) => {
                return Err("this server does not tell me who is logged in; I take no orders here".into());
            }
        };
        self.nicks.get(&line::fold(name)).cloned().ok_or_else(|| {
            let name = text::line(name, 40);
            format!("I do not know {name}, so I change nothing; an operator adds nicks = {{ {name} = \"USER\" }} to alertd.toml")
        })
    }
}

impl Irc {
    /// Connects, or goes on with the connection of `before` if nothing about it changed.
    pub(super) fn start(&self, name: &str, engine: &mpsc::Sender<Input>, before: Option<&Self>) {
        let kept = before.filter(|before| before.config == self.config).and_then(|before| before.jobs.get());
        let jobs = kept.cloned().unwrap_or_else(|| {
            let (jobs, taken) = mpsc::channel(JOBS_MAX);
            tokio::spawn(actor::run(name.to_owned(), Arc::clone(&self.config), taken, engine.clone()));
            jobs
        });
        // Started once only.
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
            Err(_) => Err(retry(format!("{server} did not take it within {deadline:?}"))),
        }
    }
}

/// One line for what happened, one for what to do; a digest in one.
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
            named.push(format!("and {} more: !status", held - DIGEST_NAMED));
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
    fn a_problem_is_two_lines_a_digest_too_and_a_recovery_one() {
        let sender = Sender {
            host: "mon1".into(),
            zone: jiff::tz::TimeZone::UTC,
            links: None,
            own_words: crate::notify::template::Rendered::default(),
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
    fn who_may_change_something_is_who_the_config_knows() {
        let irc = resolve("server = \"irc.example\"\nchannel = \"#ops\"\nnicks = { \"Ann[m]\" = \"ann\" }\n")
            .unwrap();
        let user = |nick: &str, account| irc.config.user(nick, account, true);
        assert_eq!(user("ann{M}", None), Ok("ann".into()));
        assert!(user("eve", Some("ann{m}")).unwrap_err().contains("I do not know eve"));
        let strict = Config { require_account: true, ..(*irc.config).clone() };
        assert_eq!(strict.user("eve", Some("ann[m]"), true), Ok("ann".into()));
        assert!(strict.user("ann[m]", None, true).unwrap_err().contains("log in"));
        assert!(strict.user("ann[m]", None, false).unwrap_err().contains("does not tell me"));
    }

    #[test]
    fn a_wrong_table_is_said_with_its_places() {
        let said = |text: &str| resolve(text).unwrap_err().to_string();
        let all = said(
            "server = \"x.example\"\nchannel = \"ops\"\nnick = \"a b\"\naccount = \"x\"\ntls = false\nserver_password_file = \"/p\"\n",
        );
        for part in [
            "2:11: \"ops\" is no channel",
            "3:8: \"a b\" is no nick",
            "4:11: account without",
            "6:24: a password must not",
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
