//! `[receiver.NAME.email]`: email by SMTP submission.
//!
//! ```toml
//! [receiver.oncall.email]
//! to = ["ada@example.org"]
//! from = "dogwatch <dogwatch@example.org>"
//! server = "smtp.example.org"        # default: port 587 with STARTTLS; change with `port` and `tls`
//! username = "dogwatch"
//! password_file = "/etc/dogwatch/smtp.password"
//! ```
//!
//! *Accepted* means that the server answered 250 after the message. Each recipient gets a separate
//! message, so one bad address does not stop the others, and a retry goes only to recipients who
//! have not received it (a crash loses this memory; then the same `Message-ID` is sent twice).
//! Passwords are never sent unencrypted.
//!
//! Not here: MX lookups. All email goes to the configured relay.

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
    secret::SecretFile,
    sender::Sender,
    smtp::{Refusal, Session},
};

/// `[receiver.NAME.email]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub to: Spanned<Vec<Spanned<String>>>,
    /// Default: `dogwatch@` plus this host's name.
    pub from: Option<Spanned<String>>,
    /// Name or address of the relay. Default: the mail server on this host.
    pub server: Option<Spanned<String>>,
    /// Default: see [`Tls`].
    pub port: Option<u16>,
    /// Default: `none` for this host, `required` for any other.
    pub tls: Option<Spanned<Tls>>,
    pub username: Option<Spanned<String>>,
    /// The first line is the password. Read at each send, so a new password needs no reload.
    pub password_file: Option<Spanned<PathBuf>>,
    /// PEM file with additional CA certificates to trust, for a relay with a private CA.
    pub ca_file: Option<Spanned<PathBuf>>,
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// STARTTLS with a verified certificate; without it nothing is sent. Port 587.
    Required,
    /// STARTTLS if the server offers it, certificate not verified (RFC 7435): protects against
    /// passive eavesdropping only. Port 25.
    Opportunistic,
    /// TLS from the start with a verified certificate (RFC 8314). Port 465.
    Implicit,
    /// No encryption. Port 25.
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

    /// Encrypted, and the server's certificate is verified.
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
            problems.add(source, at, "no recipients; set to = [\"ada@example.org\"]");
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
                        "the password would be sent unencrypted; set tls = \"required\" or \"implicit\"",
                    );
                }
                Some(Login {
                    username: username.into_inner(),
                    password: SecretFile::new(password_file.into_inner()),
                })
            }
            (None, None) => None,
            (Some(username), None) => {
                problems.add(source, username.span(), "username without password_file; set both or neither");
                None
            }
            (None, Some(file)) => {
                problems.add(source, file.span(), "password_file without username; set both or neither");
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
        Err(_) => {
            let message = not_an_address(text.get_ref());
            problems.add(source, text.span(), message);
            None
        }
    }
}

fn is_this_host(server: &str) -> bool {
    server == "localhost" || server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn not_an_address(text: &str) -> String {
    format!("{text:?} is not an email address; write for example \"ann@example.org\"")
}

impl Email {
    /// The same settings with another recipient.
    pub fn to_address(&self, text: &str) -> Result<Self, String> {
        let to = text.parse().map_err(|_| not_an_address(text))?;
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
            Err(retry(format!("{}:{}: no answer within {deadline:?} while {at}", self.server, self.port)))
        })
    }

    /// Sets `at` to the current step, for the error message if the deadline passes.
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

/// The outcome for all recipients of one notification.
#[derive(Default)]
struct Outcome {
    accepted: bool,
    /// The server's final reply for each accepted message.
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
            tracing::warn!(
                server,
                refused = self.never.join("; "),
                "the server refused some recipients of an email"
            );
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
    async fn an_accepted_email_has_the_servers_queue_id() {
        let server = Server::start(|_| None).await;
        let accepted = send(&server, &["ada@example.org"]).await.unwrap();
        assert_eq!(accepted.provider_id.unwrap(), "queued as 17");
        assert_eq!(server.recipients(), ["ada@example.org"]);
    }

    #[tokio::test]
    async fn a_refusal_after_the_message_is_a_rejection() {
        let server = Server::start(|step| (step == ".").then(|| "554 spam".into())).await;
        let error = send(&server, &["ada@example.org"]).await.unwrap_err();
        assert!(matches!(&error, DeliveryError::Rejected { reason } if reason.contains("spam")), "{error}");
    }

    #[tokio::test]
    async fn a_reply_to_another_step_never_counts_as_accepted() {
        let server = Server::start(|step| (step == "DATA").then(|| "250 go".into())).await;
        let error = send(&server, &["ada@example.org"]).await.unwrap_err();
        assert!(error.to_string().contains("unexpected reply to DATA: 250"), "{error}");
        let server = Server::start(|step| (step == ".").then(|| "354 go".into())).await;
        let error = send(&server, &["ada@example.org"]).await.unwrap_err();
        assert!(matches!(&error, DeliveryError::Retry { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_bad_address_does_not_stop_the_other_recipients() {
        let server =
            Server::start(|step| (step == "RCPT TO:<gone@example.org>").then(|| "550 no such user".into()))
                .await;
        let accepted = send(&server, &["gone@example.org", "ada@example.org"]).await.unwrap();
        let said = accepted.provider_id.unwrap();
        assert!(said.contains("refused gone@example.org") && said.contains("no such user"), "{said}");
        assert_eq!(server.recipients(), ["ada@example.org"]);
    }

    #[tokio::test]
    async fn a_retry_goes_only_to_recipients_who_have_not_received_it() {
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
    async fn a_timeout_names_the_step_at_which_the_server_hung() {
        let hung = |step: &'static str| async move {
            let server = Server::start(move |at| (at == step).then(String::new)).await;
            let email = email(&server, &["ada@example.org"], "");
            let error = email.send(&problem(), &sender(), Duration::from_millis(300)).await.unwrap_err();
            assert!(matches!(&error, DeliveryError::Retry { .. }), "{error}");
            error.to_string()
        };
        assert!(hung("greeting").await.ends_with("while waiting for the greeting"));
        assert!(hung("DATA").await.ends_with("while sending DATA"));
        assert!(hung(".").await.ends_with("while sending the message"));
    }

    #[tokio::test]
    async fn a_server_that_sends_without_end_is_dropped() {
        let server = Server::start(|at| (at == "greeting").then(|| "220 ".repeat(400_000))).await;
        let error = send(&server, &["ada@example.org"]).await.unwrap_err();
        assert!(error.to_string().contains("sent more than"), "{error}");
    }

    #[tokio::test]
    async fn without_starttls_nothing_is_sent_if_tls_is_required() {
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
    async fn a_missing_password_file_is_a_rejection_that_names_it() {
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
    fn unencrypted_passwords_and_bad_addresses_are_config_errors() {
        let said = problems(
            "to = [\"ada\", \"bob@\"]\nserver = \"mx.example\"\ntls = \"none\"\nusername = \"u\"\npassword_file = \"/p\"\n",
        );
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(
            said[0].starts_with(
                "alertd.toml:1:7: to: \"ada\" is not an email address; write for example \"ann@example.org\""
            ),
            "{said:#?}"
        );
        assert!(said[2].starts_with("alertd.toml:4:12: the password would be sent unencrypted"), "{said:#?}");
        assert!(problems("to = []\n")[0].contains("no recipients"));
        assert!(problems("to = [\"a@b\"]\nusername = \"u\"\n")[0].contains("without password_file"));
    }

    #[test]
    fn tls_is_the_default_except_for_this_host() {
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
            own_words: crate::notify::sender::Rendered::default(),
        }
    }
}
