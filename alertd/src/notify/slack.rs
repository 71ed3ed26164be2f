//! `[receiver.NAME.slack]`: an incoming webhook of Slack, Mattermost, Rocket.Chat, Discord (a URL
//! that ends in `/slack`) or a compatible service.
//!
//! ```toml
//! [receiver.chat.slack]
//! url_file = "/etc/dogwatch/slack.url"   # contains the URL, which is a secret; or `url = "…"`
//! ```
//!
//! The message is `text` (shown on a phone) and one attachment per alert with a bar in the colour
//! of its state. Attachments instead of blocks, because only Slack supports blocks. Text from
//! plugins and labels cannot mention people (`<!here>`, `@channel`) or make links.
//!
//! Slack answers `200 ok`, 429 with `Retry-After` above about one message per second and channel,
//! or another 4xx if the webhook or its channel is gone, which the operator must fix. Slack does
//! not recognize duplicates: after a crash, a message may appear twice.

use std::{ops::Range, path::PathBuf, time::Duration};

use dogwatch_alertd_core::rules::{
    notification::{Accepted, DeliveryError, Kind, Notification, NotifiedAlert},
    text,
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use dogwatch_wire::State;
use serde::{Deserialize, Serialize};

use super::{
    facts, held,
    http::{self, Endpoint},
    secret::SecretFile,
    sender::Sender,
    words,
};

/// `[receiver.NAME.slack]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub url: Option<Spanned<String>>,
    /// The first line is the URL; read at each send.
    pub url_file: Option<Spanned<PathBuf>>,
    /// PEM file with additional CA certificates to trust, for a server with a private CA.
    pub ca_file: Option<Spanned<PathBuf>>,
    /// Default: the webhook's channel.
    pub channel: Option<String>,
    /// Default: the webhook's name.
    pub username: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Slack {
    to: To,
    channel: Option<String>,
    username: Option<String>,
}

#[derive(Debug, Clone)]
enum To {
    Known(Endpoint),
    InFile { url: SecretFile, ca_file: Option<PathBuf> },
}

/// Alerts that get an attachment. Slack recommends fewer than 20.
const ALERTS_MAX: usize = 10;
/// Lines of a digest in the message.
const DIGEST_LINES_MAX: usize = 30;

impl File {
    pub(super) fn resolve(self, at: Range<usize>, source: &Source, problems: &mut Problems) -> Option<Slack> {
        let to = match (self.url, self.url_file) {
            (Some(url), None) => To::Known(Endpoint::resolve(&url, self.ca_file, true, source, problems)?),
            (None, Some(file)) => To::InFile {
                url: SecretFile::new(file.into_inner()),
                ca_file: self.ca_file.map(Spanned::into_inner),
            },
            (Some(url), Some(_)) => {
                problems.add(source, url.span(), "both url and url_file are set; set only one");
                return None;
            }
            (None, None) => {
                let words =
                    "no URL; set url_file = \"/etc/dogwatch/slack.url\" and put the webhook's URL there";
                problems.add(source, at, words);
                return None;
            }
        };
        Some(Slack { to, channel: self.channel, username: self.username })
    }
}

impl Slack {
    pub(super) async fn send(
        &self,
        told: &Notification,
        sender: &Sender,
        http: &http::Http,
        deadline: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let to = self.endpoint().map_err(|reason| DeliveryError::Rejected { reason })?;
        let body = serde_json::to_vec(&self.message(told, sender)).map_err(|error| {
            DeliveryError::Rejected { reason: format!("cannot build the message: {error}") }
        })?;
        let answer = http.post(&to, &[], body, deadline).await?;
        if answer.status.is_success() { Ok(Accepted::delivered()) } else { Err(answer.into_error(&to)) }
    }

    fn endpoint(&self) -> Result<Endpoint, String> {
        match &self.to {
            To::Known(endpoint) => Ok(endpoint.clone()),
            To::InFile { url, ca_file } => {
                let url = http::safe_url(&url.read()?, true).map_err(|_| {
                    // The contents may be secret even if they are not a URL.
                    format!("{url:?} does not contain a URL that starts with https://")
                })?;
                Ok(Endpoint { url, ca_file: ca_file.clone() })
            }
        }
    }

    fn message<'a>(&'a self, told: &Notification, sender: &Sender) -> Message<'a> {
        Message {
            channel: self.channel.as_deref(),
            username: self.username.as_deref(),
            text: escaped(&sender.title(told)),
            attachments: attachments(told, sender),
        }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    text: String,
    attachments: Vec<Attachment>,
}

#[derive(Serialize)]
struct Attachment {
    /// For phone notifications and clients that show no attachments.
    fallback: String,
    color: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
    #[serde(skip_serializing_if = "String::is_empty")]
    footer: String,
    /// Slack interprets no mark-up, so that the text of alerts stays unchanged.
    mrkdwn_in: [&'static str; 0],
}

#[derive(Serialize)]
struct Field {
    title: String,
    value: String,
    short: bool,
}

fn attachments(told: &Notification, sender: &Sender) -> Vec<Attachment> {
    if let Some(text) = &sender.own_words.text {
        return vec![Attachment { color: colour(words::worst(told)), ..plain(text) }];
    }
    let alerts = told.firing.iter().chain(&told.resolved);
    let mut all: Vec<_> = alerts.take(ALERTS_MAX).map(|alert| attachment(alert, told, sender)).collect();
    let more = (told.firing.len() + told.resolved.len()).saturating_sub(ALERTS_MAX);
    if more > 0 {
        all.push(plain(&format!("… and {}", text::plural(more, "more alert"))));
    }
    if !told.digest.is_empty() {
        let lines = held::lines(told, &sender.zone, DIGEST_LINES_MAX);
        all.push(plain(&lines.join("\n")));
    }
    if told.kind == Kind::Test {
        all.push(plain(
            "This is a test; nothing is wrong. If you can read this, notifications reach you here.",
        ));
    }
    // What to do and why it was sent go below the last attachment.
    let foot: Vec<_> =
        facts::how_on(told, sender).into_iter().map(|(name, words)| format!("{name}: {words}")).collect();
    if let Some(last) = all.last_mut() {
        last.footer = escaped(&foot.join(" · "));
    } else {
        all.push(plain(&foot.join("\n")));
    }
    all
}

fn attachment(alert: &NotifiedAlert, told: &Notification, sender: &Sender) -> Attachment {
    let name = words::alert_name(alert);
    let state = if alert.resolved_at.is_some() { State::Ok } else { alert.state };
    let summary = text::line(&alert.summary, 1_000);
    let rows = facts::rows(alert, told, sender);
    let field = |(title, value): (String, String)| Field {
        short: value.chars().count() <= 40,
        title: escaped(&title),
        value: escaped(&value),
    };
    Attachment {
        fallback: escaped(&format!("{} {name}: {summary}", state.name())),
        color: colour(state),
        title: escaped(&format!("{} {name}", state.name())),
        text: escaped(&summary),
        fields: rows.into_iter().take(12).map(field).collect(),
        footer: String::new(),
        mrkdwn_in: [],
    }
}

fn plain(text: &str) -> Attachment {
    let text = escaped(text);
    Attachment {
        fallback: text.clone(),
        color: colour(State::Unknown),
        title: String::new(),
        text,
        fields: Vec::new(),
        footer: String::new(),
        mrkdwn_in: [],
    }
}

fn colour(state: State) -> &'static str {
    match state {
        State::Critical => "#b00020",
        State::Warning => "#daa038",
        State::Unknown => "#6b3fa0",
        State::Ok => "#1a7f37",
    }
}

/// Escapes Slack's three special characters, and breaks `@all`, which Mattermost and Discord look
/// for in the text.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("@\u{200b}"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::{Value, json};

    use super::{super::words::tests::problem, *};

    #[test]
    fn a_problem_is_a_title_and_an_attachment_in_its_colour() {
        let said = json_of(&problem());
        assert_eq!(
            said,
            json!({
                "text": "[#4711] CRITICAL web1/disk: /var 96% used",
                "attachments": [{
                    "fallback": "CRITICAL web1/disk: /var 96% used",
                    "color": "#b00020",
                    "title": "CRITICAL web1/disk",
                    "text": "/var 96% used",
                    "fields": said["attachments"][0]["fields"],
                    "footer": said["attachments"][0]["footer"],
                    "mrkdwn_in": [],
                }],
            })
        );
        let fields = said["attachments"][0]["fields"].to_string();
        assert!(fields.contains("since") && fields.contains("https://wiki.example/disk"), "{fields}");
        assert!(said["attachments"][0]["footer"].as_str().unwrap().contains("alertctl ack 4711"), "{said}");
    }

    #[test]
    fn plugin_output_cannot_mention_people_or_make_links() {
        let mut told = problem();
        let evil = "<!channel> <https://evil.example|click> @here & \u{202e}x";
        told.firing[0].summary = evil.into();
        told.firing[0].labels.insert("host".into(), evil.into());
        told.firing[0].annotations.insert(evil.into(), evil.into());
        let said = json_of(&told).to_string();
        assert!(!said.contains('<') && !said.contains("@here") && !said.contains('\u{202e}'), "{said}");
        assert!(said.contains("&lt;!channel&gt;"), "{said}");
    }

    #[test]
    fn many_alerts_are_truncated_and_counted() {
        let mut told = problem();
        told.firing = vec![told.firing[0].clone(); 400];
        let said = json_of(&told);
        let attachments = said["attachments"].as_array().unwrap();
        assert_eq!(attachments.len(), ALERTS_MAX + 1);
        assert_eq!(attachments[ALERTS_MAX]["text"], "… and 390 more alerts");
    }

    #[tokio::test]
    async fn ok_is_accepted_a_missing_channel_is_rejected_and_429_waits_as_asked() {
        let send = async |status, headers: &[(&'static str, &'static str)], body: &str| {
            let server = http::tests::Server::start(status, headers, body).await;
            let slack = Slack { to: To::Known(http::tests::at(&server.url)), channel: None, username: None };
            let sent =
                slack.send(&problem(), &sender(), &http::Http::default(), Duration::from_secs(10)).await;
            let said: Value = serde_json::from_slice(&server.requests()[0].1).unwrap();
            assert!(said["text"].is_string());
            sent
        };
        send(200, &[], "ok").await.unwrap();
        let gone = send(410, &[], "channel_is_archived").await.unwrap_err();
        assert!(
            matches!(&gone, DeliveryError::Rejected { reason } if reason.contains("channel_is_archived")),
            "{gone}"
        );
        let busy = send(429, &[("retry-after", "7")], "").await.unwrap_err();
        assert!(
            matches!(busy, DeliveryError::Retry { after: Some(after), .. } if after == Duration::from_secs(7))
        );
    }

    #[tokio::test]
    async fn the_url_may_be_in_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        let slack = Slack {
            to: To::InFile { url: SecretFile::new(path.clone()), ca_file: None },
            channel: Some("#ops".into()),
            username: None,
        };
        let server = http::tests::Server::start(200, &[], "ok").await;
        std::fs::write(&path, format!("{}\n", server.url)).unwrap();
        let send =
            async || slack.send(&problem(), &sender(), &http::Http::default(), Duration::from_secs(10)).await;
        send().await.unwrap();
        let said: Value = serde_json::from_slice(&server.requests()[0].1).unwrap();
        assert_eq!(said["channel"], "#ops");
        std::fs::write(&path, "http://hooks.example/T0/s3cret\n").unwrap();
        let error = send().await.unwrap_err().to_string();
        assert!(error.contains("https://") && !error.contains("s3cret"), "{error}");
    }

    fn json_of(told: &Notification) -> Value {
        let to = To::Known(http::tests::at("http://127.0.0.1/"));
        serde_json::to_value(Slack { to, channel: None, username: None }.message(told, &sender())).unwrap()
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
