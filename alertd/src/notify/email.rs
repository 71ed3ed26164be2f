//! `[receiver.NAME.email]`: mail by SMTP submission.
//!
//! ```toml
//! [receiver.oncall.email]
//! to = ["ada@example.org"]
//! from = "dogwatch <dogwatch@example.org>"
//! server = "smtp.example.org"        # port 587 with STARTTLS, unless `port` and `tls` say otherwise
//! username = "dogwatch"
//! password_file = "/etc/dogwatch/smtp.password"
//! ```
//!
//! Promised: *accepted* means that the server answered 250 to the final dot, nothing less. Each recipient gets a message
//! of its own, so one bad address holds nobody else's mail back; a retry goes only to those who have not got it yet (this
//! memory is lost in a crash; then the same `Message-ID` goes out twice). A password never travels in the clear.
//!
//! Not done: finding the recipient's mail server (MX). Mail goes to the relay that the config names.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dogwatch_alertd_core::rules::{
    notification::{Accepted, DeliveryError, Notification},
    text,
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use lettre::message::Mailbox;
use serde::Deserialize;

use super::{
    delivered::Delivered,
    mail,
    receiver::Sender,
    secret::SecretFile,
    smtp::{Refusal, Session},
};

/// `[receiver.NAME.email]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub to: Spanned<Vec<Spanned<String>>>,
    /// Default: `dogwatch@` and this host's name.
    pub from: Option<Spanned<String>>,
    /// Relay's name or address. Default: the mail server of this host.
    pub server: Option<Spanned<String>>,
    /// Default: what [`Tls`] says.
    pub port: Option<u16>,
    /// Default: `none` to this host, `required` to any other.
    pub tls: Option<Spanned<Tls>>,
    pub username: Option<Spanned<String>>,
    /// Read at each send, so a new password needs no reload. Its first line counts.
    pub password_file: Option<Spanned<PathBuf>>,
    /// PEM file with further authorities to trust, for a relay with a private one.
    pub ca_file: Option<Spanned<PathBuf>>,
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// STARTTLS, certificate checked; without it nothing is sent. Port 587.
    Required,
    /// STARTTLS if the server offers it, certificate not checked (RFC 7435): keeps passive readers out. Port 25.
    Opportunistic,
    /// TLS from the first byte, certificate checked (RFC 8314). Port 465.
    Implicit,
    /// In the clear. Port 25.
    None,
}

impl Tls {
    fn port(self) -> u16 {
        match self {
            Self::Required => 587,
            Self::Implicit => 465,
            Self::Opportunistic | Self::None => 25,
        }
    }

    /// Nobody between us and the right server can read along.
    fn is_safe(self) -> bool {
        matches!(self, Self::Required | Self::Implicit)
    }
}

#[derive(Debug, Clone)]
pub struct Email {
    to: Vec<Mailbox>,
    from: Option<Mailbox>,
    pub(super) server: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    pub(super) login: Option<Login>,
    pub(super) ca_file: Option<PathBuf>,
    delivered: Arc<Delivered>,
}

#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: SecretFile,
}

impl File {
    pub(super) fn resolve(self, source: &Source, problems: &mut Problems) -> Option<Email> {
        let before = problems.0.len();
        let at = self.to.span();
        let to: Vec<_> =
            self.to.into_inner().into_iter().filter_map(|to| mailbox(&to, source, problems)).collect();
        if to.is_empty() && problems.0.len() == before {
            problems.add(source, at, "nobody to send to; write to = [\"ada@example.org\"]");
        }
        let from = self.from.and_then(|from| mailbox(&from, source, problems));
        let server = self.server.map_or_else(|| "localhost".into(), Spanned::into_inner);
        let local = is_this_host(&server);
        let tls =
            self.tls.as_ref().map_or(if local { Tls::None } else { Tls::Required }, |tls| *tls.get_ref());
        let login = match (self.username, self.password_file) {
            (Some(username), Some(password_file)) => {
                if !tls.is_safe() && !local {
                    problems.add(
                        source,
                        username.span(),
                        "a password must not travel in the clear; set tls = \"required\" or \"implicit\"",
                    );
                }
                Some(Login {
                    username: username.into_inner(),
                    password: SecretFile::new(password_file.into_inner()),
                })
            }
            (None, None) => None,
            (Some(username), None) => {
                problems.add(
                    source,
                    username.span(),
                    "username without password_file; write both or neither",
                );
                None
            }
            (None, Some(file)) => {
                problems.add(source, file.span(), "password_file without username; write both or neither");
                None
            }
        };
        let ca_file = self.ca_file.map(Spanned::into_inner);
        let port = self.port.unwrap_or(tls.port());
        (problems.0.len() == before).then(|| Email {
            to,
            from,
            server,
            port,
            tls,
            login,
            ca_file,
            delivered: Arc::default(),
        })
    }
}

fn mailbox(text: &Spanned<String>, source: &Source, problems: &mut Problems) -> Option<Mailbox> {
    match text.get_ref().parse() {
        Ok(mailbox) => Some(mailbox),
        Err(error) => {
            let message = format!("{:?} is not a mail address: {error}", text.get_ref());
            problems.add(source, text.span(), message);
            None
        }
    }
}

fn is_this_host(server: &str) -> bool {
    server == "localhost" || server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Email {
    /// The same way, to somebody else.
    pub fn to_address(&self, text: &str) -> Result<Self, String> {
        let to = text.parse().map_err(|error| format!("{text:?} is not a mail address: {error}"))?;
        Ok(Self { to: vec![to], delivered: Arc::default(), ..self.clone() })
    }

    pub(super) async fn send(
        &self,
        told: &Notification,
        sender: &Sender,
        deadline: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let at = Mutex::new("connecting");
        let all = self.send_to_all(told, sender, &at);
        tokio::time::timeout(deadline, all).await.unwrap_or_else(|_| {
            let at = *at.lock().unwrap_or_else(PoisonError::into_inner);
            Err(retry(format!("{}:{} gave no answer within {deadline:?} while {at}", self.server, self.port)))
        })
    }

    /// `at` says what is being waited for, should the caller lose patience.
    async fn send_to_all(
        &self,
        told: &Notification,
        sender: &Sender,
        at: &Mutex<&'static str>,
    ) -> Result<Accepted, DeliveryError> {
        let from = self.from(sender)?;
        let waiting: Vec<_> =
            self.to.iter().filter(|to| !self.delivered.has(&told.id, to.email.as_ref())).collect();
        if waiting.is_empty() {
            return Ok(Accepted { provider_id: None, ..Accepted::default() });
        }
        let mut session =
            Session::open(self, sender, at).await.map_err(|refusal| refusal.into_error(self))?;
        let mut outcome = Outcome { accepted: self.to.len() > waiting.len(), ..Outcome::default() };
        for to in waiting {
            let bytes = mail::message(told, &from, to, sender)?.formatted();
            match session.deliver(&from.email, &to.email, &bytes).await {
                Ok(reply) => {
                    self.delivered.note(&told.id, to.email.as_ref());
                    outcome.accepted = true;
                    outcome.said.push(text::line(&reply, 120));
                }
                Err(refusal) => {
                    outcome.note(to, &refusal);
                    if refusal.ends_session() {
                        break;
                    }
                }
            }
        }
        session.close().await;
        outcome.into_result(self)
    }

    fn from(&self, sender: &Sender) -> Result<Mailbox, DeliveryError> {
        if let Some(from) = &self.from {
            return Ok(from.clone());
        }
        Ok(Mailbox::new(Some("dogwatch".into()), mail::local_address("dogwatch", sender)?))
    }
}

/// What became of one notification's recipients.
#[derive(Default)]
struct Outcome {
    accepted: bool,
    /// The server's last words to each success.
    said: Vec<String>,
    later: Vec<String>,
    never: Vec<String>,
}

impl Outcome {
    fn note(&mut self, to: &Mailbox, refusal: &Refusal) {
        let words = format!("{}: {}", to.email, refusal.reason);
        if refusal.permanent { self.never.push(words) } else { self.later.push(words) }
    }

    fn into_result(self, email: &Email) -> Result<Accepted, DeliveryError> {
        let server = format!("{}:{}", email.server, email.port);
        if !self.later.is_empty() {
            return Err(retry(format!("{server}: {}", self.later.join("; "))));
        }
        if !self.accepted {
            return Err(DeliveryError::Rejected { reason: format!("{server}: {}", self.never.join("; ")) });
        }
        if !self.never.is_empty() {
            tracing::warn!(server, refused = self.never.join("; "), "mail went to some recipients only");
        }
        let refused = self.never.iter().map(|words| format!("refused {words}"));
        let said: Vec<_> = self.said.iter().cloned().chain(refused).collect();
        Ok(Accepted {
            provider_id: Some(said.join("; ")).filter(|said| !said.is_empty()),
            ..Accepted::default()
        })
    }
}

fn retry(reason: String) -> DeliveryError {
    DeliveryError::Retry { after: None, reason }
}

#[cfg(test)]
mod tests {
    use dogwatch_daemon::config;
    use jiff::tz::TimeZone;

    use super::{
        super::{smtp::tests::Server, words::tests::problem},
        *,
    };

    #[tokio::test]
    async fn a_mail_is_accepted_with_the_servers_queue_id() {
        let server = Server::start(|_| None).await;
        let accepted = send(&server, &["ada@example.org"]).await.unwrap();
        assert_eq!(accepted.provider_id.unwrap(), "queued as 17");
        assert_eq!(server.recipients(), ["ada@example.org"]);
    }

    #[tokio::test]
    async fn a_refusal_at_the_final_dot_is_a_refusal() {
        let server = Server::start(|step| (step == ".").then(|| "554 spam".into())).await;
        let error = send(&server, &["ada@example.org"]).await.unwrap_err();
        assert!(matches!(&error, DeliveryError::Rejected { reason } if reason.contains("spam")), "{error}");
    }

    #[tokio::test]
    async fn replies_that_are_one_off_never_count_as_accepted() {
        let server = Server::start(|step| (step == "DATA").then(|| "250 go".into())).await;
        let error = send(&server, &["ada@example.org"]).await.unwrap_err();
        assert!(error.to_string().contains("DATA answered out of turn: 250"), "{error}");
        let server = Server::start(|step| (step == ".").then(|| "354 go".into())).await;
        let error = send(&server, &["ada@example.org"]).await.unwrap_err();
        assert!(matches!(&error, DeliveryError::Retry { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_bad_address_holds_nobody_elses_mail_back() {
        let server =
            Server::start(|step| (step == "RCPT TO:<gone@example.org>").then(|| "550 no such user".into()))
                .await;
        let accepted = send(&server, &["gone@example.org", "ada@example.org"]).await.unwrap();
        let said = accepted.provider_id.unwrap();
        assert!(said.contains("refused gone@example.org") && said.contains("no such user"), "{said}");
        assert_eq!(server.recipients(), ["ada@example.org"]);
    }

    #[tokio::test]
    async fn a_retry_goes_only_to_those_who_have_not_got_it() {
        let server =
            Server::start(|step| (step == "RCPT TO:<bob@example.org>").then(|| "451 greylisted".into()))
                .await;
        let email = email(&server, &["ada@example.org", "bob@example.org"], "");
        let error = email.send(&problem(), &sender(), DEADLINE).await.unwrap_err();
        assert!(
            matches!(&error, DeliveryError::Retry { reason, .. } if reason.contains("greylisted")),
            "{error}"
        );
        server.answer(|_| None);
        email.send(&problem(), &sender(), DEADLINE).await.unwrap();
        assert_eq!(server.recipients(), ["ada@example.org", "bob@example.org"]);
    }

    #[tokio::test]
    async fn a_mute_server_is_left_at_the_deadline_with_the_step_it_hung_at() {
        let hung = |step: &'static str| async move {
            let server = Server::start(move |at| (at == step).then(String::new)).await;
            let email = email(&server, &["ada@example.org"], "");
            let error = email.send(&problem(), &sender(), Duration::from_millis(300)).await.unwrap_err();
            assert!(matches!(&error, DeliveryError::Retry { .. }), "{error}");
            error.to_string()
        };
        assert!(hung("greeting").await.ends_with("while greeting"));
        assert!(hung("DATA").await.ends_with("while starting the message"));
        assert!(hung(".").await.ends_with("while sending the message"));
    }

    #[tokio::test]
    async fn a_server_that_talks_without_end_is_left() {
        let server = Server::start(|at| (at == "greeting").then(|| "220 ".repeat(400_000))).await;
        let error = send(&server, &["ada@example.org"]).await.unwrap_err();
        assert!(error.to_string().contains("talks without end"), "{error}");
    }

    #[tokio::test]
    async fn without_starttls_nothing_is_said_when_tls_is_required() {
        let server = Server::start(|_| None).await;
        let email = email(&server, &["ada@example.org"], "tls = \"required\"");
        let error = email.send(&problem(), &sender(), DEADLINE).await.unwrap_err();
        assert!(
            matches!(&error, DeliveryError::Rejected { reason } if reason.contains("STARTTLS")),
            "{error}"
        );
        assert_eq!(server.recipients(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_missing_password_file_is_told_to_the_operator() {
        let server = Server::start(|_| None).await;
        let email =
            email(&server, &["ada@example.org"], "username = \"u\"\npassword_file = \"/nonexistent\"");
        let error = email.send(&problem(), &sender(), DEADLINE).await.unwrap_err();
        assert!(
            matches!(&error, DeliveryError::Rejected { reason } if reason.contains("/nonexistent")),
            "{error}"
        );
    }

    #[test]
    fn a_password_in_the_clear_and_wrong_addresses_are_refused_with_their_place() {
        let said = problems(
            "to = [\"ada\", \"bob@\"]\nserver = \"mx.example\"\ntls = \"none\"\nusername = \"u\"\npassword_file = \"/p\"\n",
        );
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(said[0].starts_with("alertd.toml:1:7: \"ada\" is not a mail address"), "{said:#?}");
        assert!(said[2].starts_with("alertd.toml:4:12: a password must not travel"), "{said:#?}");
        assert!(problems("to = []\n")[0].contains("nobody to send to"));
        assert!(problems("to = [\"a@b\"]\nusername = \"u\"\n")[0].contains("without password_file"));
    }

    #[test]
    fn another_host_is_reached_with_tls_unless_told_otherwise() {
        let of = |text: &str| {
            let email = resolve(text).unwrap();
            (email.tls, email.port)
        };
        assert_eq!(of("to = [\"a@b\"]"), (Tls::None, 25));
        assert_eq!(of("to = [\"a@b\"]\nserver = \"mx.example\""), (Tls::Required, 587));
        assert_eq!(of("to = [\"a@b\"]\nserver = \"mx.example\"\ntls = \"implicit\""), (Tls::Implicit, 465));
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn send(server: &Server, to: &[&str]) -> Result<Accepted, DeliveryError> {
        email(server, to, "").send(&problem(), &sender(), DEADLINE).await
    }

    fn email(server: &Server, to: &[&str], more: &str) -> Email {
        let port = server.address.port();
        resolve(&format!("to = {to:?}\nserver = \"127.0.0.1\"\nport = {port}\n{more}\n")).unwrap()
    }

    fn resolve(text: &str) -> Result<Email, Problems> {
        let source = Source { path: "alertd.toml".into(), text: text.into() };
        let mut problems = Problems::default();
        let email = config::parse::<File>(&source, &mut problems)
            .and_then(|file| file.resolve(&source, &mut problems));
        problems.or(email).map(|email| email.expect("a problem otherwise"))
    }

    fn problems(text: &str) -> Vec<String> {
        resolve(text).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    fn sender() -> Sender {
        Sender {
            host: "mon1".into(),
            zone: TimeZone::UTC,
            links: None,
            own_words: crate::notify::template::Rendered::default(),
        }
    }
}
