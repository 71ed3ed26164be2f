//! The email receiver with real mail servers: OpenSMTPD without TLS; aiosmtpd with STARTTLS or TLS
//! and login, with a wrong password, with an untrusted certificate.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use dogwatch_alertd::notify::{ReceiverFile, Receivers, Rendered, Sender};
use dogwatch_alertd_core::rules::notification::{Accepted, DeliveryError, Kind, Notification, NotifiedAlert};
use dogwatch_daemon::config::{Problems, Source, parse};
use dogwatch_tests::{
    certificates::Certificates,
    mail_server::{MailServer, PASSWORD, SafePorts, USERNAME},
    process::wait_for,
};
use dogwatch_wire::State;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_real_server_takes_the_mail_and_a_retry_is_the_same_mail() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = MailServer::opensmtpd(dir.path()) else { return };
    let config = format!("server = \"127.0.0.1\"\nport = {}\n", server.port);
    let accepted = send(&config, &notification()).await.unwrap();
    assert!(accepted.provider_id.unwrap().contains("Message accepted for delivery"));
    // After a crash alertd does not know that it was sent.
    send(&config, &notification()).await.unwrap();
    wait_for("both mails", || server.mails().len() == 2);
    let mails = server.mails();
    assert_eq!(mails[0].header("Subject"), "[#4711] CRITICAL =?utf-8?b?d8OpYjEvZGlzazo=?= /var 96% used");
    for name in ["Message-ID", "Date", "X-Dogwatch-Id", "In-Reply-To", "Content-Type"] {
        assert_eq!(mails[0].header(name), mails[1].header(name), "{name}");
    }
    assert_eq!(mails[0].header("To"), "ada@example.org");
}

#[tokio::test]
async fn with_tls_and_login_the_mail_goes_through_and_the_password_is_never_said() {
    let dir = tempfile::tempdir().unwrap();
    let Some((server, ports)) = MailServer::aiosmtpd(dir.path()) else { return };
    let password = write(dir.path(), "password", PASSWORD);
    send(&starttls(&ports, &password, &ports.authority), &notification()).await.unwrap();
    send(&implicit(&ports, &password), &notification()).await.unwrap();
    wait_for("both mails", || server.mails().len() == 2);
    assert_eq!(server.mails()[0].header("X-RcptTo"), "ada@example.org");
    assert_eq!(server.log().matches("good").count(), 2, "{}", server.log());

    let wrong = write(dir.path(), "wrong", "guess");
    let error = send(&starttls(&ports, &wrong, &ports.authority), &notification()).await.unwrap_err();
    assert!(matches!(&error, DeliveryError::Rejected { reason } if reason.contains("login")), "{error}");
    assert!(!error.to_string().contains("guess"), "{error}");
    assert_eq!(server.mails().len(), 2);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_gets_neither_mail_nor_password() {
    let dir = tempfile::tempdir().unwrap();
    let Some((server, ports)) = MailServer::aiosmtpd(dir.path()) else { return };
    let password = write(dir.path(), "password", PASSWORD);
    let other = tempfile::tempdir().unwrap();
    let Some(others) = Certificates::make(other.path()) else { return };
    let error = send(&starttls(&ports, &password, &others.authority), &notification()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!((server.mails().len(), server.log().matches("login").count()), (0, 0));
}

fn starttls(ports: &SafePorts, password: &str, authority: &Path) -> String {
    format!(
        "server = \"localhost\"\nport = {}\ntls = \"required\"\nca_file = \"{}\"\n\
         username = {USERNAME:?}\npassword_file = {password:?}\n",
        ports.starttls,
        authority.display()
    )
}

fn implicit(ports: &SafePorts, password: &str) -> String {
    starttls(ports, password, &ports.authority)
        .replace("\"required\"", "\"implicit\"")
        .replace(&ports.starttls.to_string(), &ports.implicit.to_string())
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, format!("{text}\n")).unwrap();
    path.display().to_string()
}

/// One try by a receiver that was made a moment ago, as after a restart.
async fn send(config: &str, told: &Notification) -> Result<Accepted, DeliveryError> {
    let text = format!("[email]\nto = [\"ada@example.org\"]\nfrom = \"dogwatch@example.org\"\n{config}");
    let source = Source { path: "alertd.toml".into(), text };
    let mut problems = Problems::default();
    let file: ReceiverFile = parse(&source, &mut problems).unwrap();
    let receiver = file.resolve("oncall", 0..0, &source, &mut problems);
    let receiver = problems.or(receiver).unwrap().unwrap();
    let sender = Sender {
        host: "mon1".into(),
        zone: jiff::tz::TimeZone::UTC,
        links: None,
        own_words: Rendered::default(),
    };
    Receivers::new(BTreeMap::from([("oncall".into(), receiver)]), sender).send("oncall", told, DEADLINE).await
}

fn notification() -> Notification {
    let labels =
        [("host", "wéb1"), ("service", "disk")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    Notification {
        id: "n-1".into(),
        incident: 4711,
        dedup_key: "alertd/4711".into(),
        receiver: "oncall".into(),
        kind: Kind::Problem,
        reason: "first_notification".into(),
        created_at: "2026-11-21T02:16:00Z".parse().unwrap(),
        group: BTreeMap::new(),
        firing: vec![NotifiedAlert {
            labels: labels.into(),
            annotations: BTreeMap::new(),
            state: State::Critical,
            flapping: false,
            summary: "/var 96% used".into(),
            detail: "größer als erlaubt\n.\n..leading dots".into(),
            perfdata: String::new(),
            since: "2026-11-21T02:12:00Z".parse().unwrap(),
            resolved_at: None,
            joined: false,
        }],
        resolved: Vec::new(),
        digest: Vec::new(),
        summary: None,
        ack: None,
        note: None,
        lately: Vec::new(),
    }
}
