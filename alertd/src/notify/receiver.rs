//! `[receiver.NAME]` in `alertd.toml`: a name and exactly one table that says how to reach it.
//!
//! ```toml
//! [receiver.local.maildir]
//! path = "/var/mail/dogwatch"
//! ```

use std::{collections::BTreeMap, ops::Range, time::Duration};

use dogwatch_daemon::config::{Problems, Source, Spanned};
use jiff::tz::TimeZone;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    Accepted, DeliveryError, Notification, email, exec, http::Http, irc, maildir, ntfy, pagerduty, slack,
    webhook,
};
use crate::{config::RateFile, engine::Input, web::Links};

/// One `[receiver.NAME]` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverFile {
    /// Who is told instead when this one cannot be reached; `config.rs` reads it.
    pub fallback: Option<Spanned<String>>,
    /// How often it may be told; `config.rs` reads it.
    pub rate: Option<Spanned<RateFile>>,
    pub email: Option<email::File>,
    pub exec: Option<exec::File>,
    pub irc: Option<irc::File>,
    pub maildir: Option<maildir::File>,
    pub ntfy: Option<ntfy::File>,
    pub pagerduty: Option<pagerduty::File>,
    pub slack: Option<slack::File>,
    pub webhook: Option<webhook::File>,
}

/// How to reach a receiver, checked.
#[derive(Debug, Clone)]
pub enum Receiver {
    Email(email::Email),
    Exec(exec::Exec),
    Irc(irc::Irc),
    Maildir(maildir::Maildir),
    Ntfy(ntfy::Ntfy),
    PagerDuty(pagerduty::PagerDuty),
    Slack(slack::Slack),
    Webhook(webhook::Webhook),
}

impl ReceiverFile {
    /// Returns the receiver, or notes every problem; `at` is where the name stands in `source`.
    pub fn resolve(
        self,
        name: &str,
        at: Range<usize>,
        source: &Source,
        problems: &mut Problems,
    ) -> Option<Receiver> {
        let before = problems.0.len();
        let mut found = Vec::new();
        if let Some(file) = self.email {
            found.push(file.resolve(source, problems).map(Receiver::Email));
        }
        if let Some(file) = self.exec {
            found.push(file.resolve(source, problems).map(Receiver::Exec));
        }
        if let Some(file) = self.irc {
            found.push(file.resolve(source, problems).map(Receiver::Irc));
        }
        if let Some(file) = self.maildir {
            found.push(file.resolve(source, problems).map(Receiver::Maildir));
        }
        if let Some(file) = self.ntfy {
            found.push(file.resolve(source, problems).map(Receiver::Ntfy));
        }
        if let Some(file) = self.pagerduty {
            found.push(file.resolve(source, problems).map(Receiver::PagerDuty));
        }
        if let Some(file) = self.slack {
            found.push(file.resolve(at.clone(), source, problems).map(Receiver::Slack));
        }
        if let Some(file) = self.webhook {
            found.push(file.resolve(source, problems).map(Receiver::Webhook));
        }
        if found.len() != 1 {
            let count = if found.is_empty() { "no" } else { "more than one" };
            problems.add(
                source,
                at,
                format!(
                    "receiver {name:?} has {count} way to be reached; give it exactly one table: {}",
                    KINDS.map(|kind| format!("[receiver.{name}.{kind}]")).join(", ")
                ),
            );
        }
        found.pop().flatten().filter(|_| problems.0.len() == before)
    }
}

const KINDS: [&str; 8] = ["email", "exec", "irc", "maildir", "ntfy", "pagerduty", "slack", "webhook"];

impl Receiver {
    /// The table's name: `email`, `pagerduty`, …
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Exec(_) => "exec",
            Self::Irc(_) => "irc",
            Self::Maildir(_) => "maildir",
            Self::Ntfy(_) => "ntfy",
            Self::PagerDuty(_) => "pagerduty",
            Self::Slack(_) => "slack",
            Self::Webhook(_) => "webhook",
        }
    }
}

/// What a receiver may take beyond the deadline to say what it was waiting for.
const GRACE: Duration = Duration::from_secs(3);

/// Who speaks: the host alertd runs on, and the time zone that people read times in.
#[derive(Debug, Clone)]
pub struct Sender {
    pub host: String,
    pub zone: TimeZone,
    /// Makes links that acknowledge, if there is a web server for them.
    pub links: Option<Links>,
}

impl Sender {
    /// This host's name and time zone, read once at the start.
    pub fn of_this_host() -> Self {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy();
        let host = if host.is_empty() { "localhost".into() } else { host.into_owned() };
        Self { host, zone: TimeZone::system(), links: None }
    }
}

/// All receivers by name.
#[derive(Debug, Clone)]
pub struct Receivers {
    by_name: BTreeMap<String, Receiver>,
    sender: Sender,
    http: Http,
}

impl Receivers {
    pub fn new(by_name: BTreeMap<String, Receiver>, sender: Sender) -> Self {
        Self { by_name, sender, http: Http::default() }
    }

    /// Starts what has a connection of its own, and hands it the way to ask alertd things. A connection of `before` that is
    /// still wanted as it is goes on.
    pub fn start(&self, engine: &mpsc::Sender<Input>, before: Option<&Self>) {
        for (name, receiver) in &self.by_name {
            let before = before.and_then(|before| before.by_name.get(name));
            if let Receiver::Irc(irc) = receiver {
                let before =
                    before.and_then(|before| if let Receiver::Irc(irc) = before { Some(irc) } else { None });
                irc.start(name, engine, before);
            }
        }
    }

    /// Hands `notification` to `receiver`, once, within `deadline`. Safe to drop half way: the id makes a repeat harmless.
    pub async fn send(
        &self,
        receiver: &str,
        notification: &Notification,
        deadline: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let Some(found) = self.by_name.get(receiver) else {
            return Err(DeliveryError::Rejected {
                reason: format!("receiver {receiver:?} is no longer in the config"),
            });
        };
        let (sender, http) = (&self.sender, &self.http);
        let try_once = async {
            match found {
                Receiver::Email(email) => email.send(notification, sender, deadline).await,
                Receiver::Exec(exec) => exec.send(notification, sender, deadline).await,
                Receiver::Irc(irc) => irc.send(notification, sender, deadline).await,
                Receiver::Maildir(maildir) => maildir.send(notification, sender).await,
                Receiver::Ntfy(ntfy) => ntfy.send(notification, sender, http, deadline).await,
                Receiver::Slack(slack) => slack.send(notification, sender, http, deadline).await,
                Receiver::PagerDuty(pager) => pager.send(notification, sender, http, deadline).await,
                Receiver::Webhook(hook) => hook.send(notification, sender, http, deadline).await,
            }
        };
        // A receiver that can say what it waited for keeps the deadline itself; this one stands behind it.
        tokio::time::timeout(deadline + GRACE, try_once).await.unwrap_or_else(|_| {
            Err(DeliveryError::Retry { after: None, reason: format!("no answer within {deadline:?}") })
        })
    }
}
