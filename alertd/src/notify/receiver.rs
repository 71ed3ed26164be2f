//! `[receiver.NAME]` in the config: a name and exactly one table that says how to reach it.
//!
//! ```toml
//! [receiver.local.maildir]
//! path = "/var/mail/dogwatch"
//! ```

use std::{collections::BTreeMap, ops::Range, time::Duration};

use dogwatch_alertd_core::rules::notification::{Accepted, DeliveryError, Notification};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    email, exec,
    http::Http,
    irc, maildir, ntfy, pagerduty,
    sender::Sender,
    slack,
    template::{self, Templates},
    webhook,
};
use crate::{config::RateFile, engine::Input};

/// One `[receiver.NAME]` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverFile {
    /// The receiver to use when this one cannot be reached; `config.rs` reads it.
    pub fallback: Option<Spanned<String>>,
    /// Its rate limit; `config.rs` reads it.
    pub rate: Option<RateFile>,
    pub template: Option<template::File>,
    pub email: Option<email::File>,
    pub exec: Option<exec::File>,
    pub irc: Option<irc::File>,
    pub maildir: Option<maildir::File>,
    pub ntfy: Option<ntfy::File>,
    pub pagerduty: Option<pagerduty::File>,
    pub slack: Option<slack::File>,
    pub webhook: Option<webhook::File>,
}

/// A receiver, checked.
#[derive(Debug, Clone)]
pub struct Receiver {
    way: Medium,
    templates: Option<Templates>,
}

/// How to reach it.
#[derive(Debug, Clone)]
enum Medium {
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
    /// Returns the receiver, or adds all problems; `at` is the position of the name in `source`.
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
            found.push(file.resolve(source, problems).map(Medium::Email));
        }
        if let Some(file) = self.exec {
            found.push(file.resolve(source, problems).map(Medium::Exec));
        }
        if let Some(file) = self.irc {
            found.push(file.resolve(source, problems).map(Medium::Irc));
        }
        if let Some(file) = self.maildir {
            found.push(file.resolve(source, problems).map(Medium::Maildir));
        }
        if let Some(file) = self.ntfy {
            found.push(file.resolve(source, problems).map(Medium::Ntfy));
        }
        if let Some(file) = self.pagerduty {
            found.push(file.resolve(source, problems).map(Medium::PagerDuty));
        }
        if let Some(file) = self.slack {
            found.push(file.resolve(at.clone(), source, problems).map(Medium::Slack));
        }
        if let Some(file) = self.webhook {
            found.push(file.resolve(source, problems).map(Medium::Webhook));
        }
        if found.len() != 1 {
            let count = if found.is_empty() { "no" } else { "more than one" };
            problems.add(
                source,
                at,
                format!(
                    "receiver {name:?} has {count} delivery method; it needs exactly one of {}",
                    KINDS.map(|kind| format!("[receiver.{name}.{kind}]")).join(", ")
                ),
            );
        }
        let way = found.pop().flatten()?;
        let templates =
            self.template.and_then(|file| file.resolve(way.kind(), way.template_parts(), source, problems));
        (problems.0.len() == before).then_some(Receiver { way, templates })
    }
}

const KINDS: [&str; 8] = ["email", "exec", "irc", "maildir", "ntfy", "pagerduty", "slack", "webhook"];

impl Receiver {
    /// Does it keep an incident open until it gets the recovery with the incident's own key?
    pub fn keeps_state(&self) -> bool {
        matches!(self.way, Medium::PagerDuty(_))
    }

    /// The same receiver for one user's address, if it sends email; the error is about the address.
    pub fn to_address(&self, address: &str) -> Option<Result<Self, String>> {
        let Medium::Email(mail) = &self.way else { return None };
        let own = mail.to_address(address);
        Some(own.map(|own| Self { way: Medium::Email(own), templates: self.templates.clone() }))
    }
}

impl Medium {
    /// The parts of a notification that templates can replace.
    fn template_parts(&self) -> &'static [&'static str] {
        match self {
            Self::Email(_) | Self::Maildir(_) => &["subject", "text", "html"],
            Self::Irc(_) | Self::Ntfy(_) | Self::Slack(_) => &["subject", "text"],
            // With one event per alert, one subject would not fit.
            Self::PagerDuty(pager) if !pager.is_by_alert() => &["subject"],
            Self::Webhook(_) => &["json"],
            Self::Exec(_) | Self::PagerDuty(_) => &[],
        }
    }

    /// The table's name: `email`, `pagerduty`, …
    fn kind(&self) -> &'static str {
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

/// Extra time for a receiver to report what it was waiting for.
const GRACE: Duration = Duration::from_secs(3);

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

    /// Starts receivers that keep a connection and gives them access to the engine. Connections of
    /// `before` whose settings did not change are kept.
    pub fn start(&self, engine: &mpsc::Sender<Input>, before: Option<&Self>) {
        for (name, receiver) in &self.by_name {
            let before = before.and_then(|before| before.by_name.get(name));
            if let Medium::Irc(irc) = &receiver.way {
                let before = before
                    .and_then(|before| if let Medium::Irc(irc) = &before.way { Some(irc) } else { None });
                irc.start(name, engine, before);
            }
        }
    }

    /// Tries once to deliver `notification` to `receiver`, within `deadline`. May be cancelled: the
    /// id makes a repeat harmless.
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
        let (own_words, template_failed) =
            found.templates.as_ref().map(|own| own.render(notification, &self.sender)).unwrap_or_default();
        let (sender, http) = (&Sender { own_words, ..self.sender.clone() }, &self.http);
        let try_once = async {
            match &found.way {
                Medium::Email(email) => email.send(notification, sender, deadline).await,
                Medium::Exec(exec) => exec.send(notification, sender, deadline).await,
                Medium::Irc(irc) => irc.send(notification, sender, deadline).await,
                Medium::Maildir(maildir) => maildir.send(notification, sender).await,
                Medium::Ntfy(ntfy) => ntfy.send(notification, sender, http, deadline).await,
                Medium::Slack(slack) => slack.send(notification, sender, http, deadline).await,
                Medium::PagerDuty(pager) => pager.send(notification, sender, http, deadline).await,
                Medium::Webhook(hook) => hook.send(notification, sender, http, deadline).await,
            }
        };
        // A receiver that can say what it waited for enforces the deadline itself; this is the
        // backstop.
        let sent = tokio::time::timeout(deadline + GRACE, try_once).await.unwrap_or_else(|_| {
            Err(DeliveryError::Retry { after: None, reason: format!("no answer within {deadline:?}") })
        });
        sent.map(|accepted| Accepted { template_failed, ..accepted })
    }
}
