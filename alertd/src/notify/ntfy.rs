//! `[receiver.NAME.ntfy]`: push messages to phones through ntfy.sh or another ntfy server.
//!
//! ```toml
//! [receiver.phone.ntfy]
//! url = "https://ntfy.example.org/ops-4f9c"   # server and topic; whoever guesses the topic can read it
//! token_file = "/etc/dogwatch/ntfy.token"     # sent as Authorization: Bearer
//! ```
//!
//! | state | priority | tag (shown as a symbol) |
//! | --- | --- | --- |
//! | CRITICAL | 5, which overrides "do not disturb" | `rotating_light` |
//! | UNKNOWN | 4 | `question` |
//! | WARNING | 4 | `warning` |
//! | OK, acknowledged, test | 3, 2, 3 | `white_check_mark`, `eyes`, `mag` |
//!
//! Messages are sent as JSON to the server's root (ntfy's "publish as JSON"), which, unlike
//! headers, allows any character in a title. A tap opens the first alert's runbook. Messages are
//! truncated to [`MESSAGE_BYTES_MAX`], because ntfy turns longer ones into an attachment.

use std::{path::PathBuf, time::Duration};

use dogwatch_alertd_core::rules::{
    notification::{Accepted, DeliveryError, Kind, Notification},
    text,
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use dogwatch_wire::State;
use hyper::{Uri, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};

use super::{
    facts,
    http::{self, Endpoint},
    secret::SecretFile,
    sender::Sender,
    words,
};

/// `[receiver.NAME.ntfy]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The topic's URL, as the app shows it.
    pub url: Spanned<String>,
    pub token_file: Option<Spanned<PathBuf>>,
    /// PEM file with additional CA certificates to trust, for a server with a private CA.
    pub ca_file: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Clone)]
pub struct Ntfy {
    /// The server's root.
    to: Endpoint,
    topic: String,
    token: Option<SecretFile>,
}

/// ntfy's default limit is 4,096.
const MESSAGE_BYTES_MAX: usize = 3_900;

impl File {
    pub(super) fn resolve(self, source: &Source, problems: &mut Problems) -> Option<Ntfy> {
        let secret = self.token_file.is_some();
        let mut to = Endpoint::resolve(&self.url, self.ca_file, secret, source, problems)?;
        let (folder, topic) = to.url.path().rsplit_once('/').unwrap_or_default();
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if topic.is_empty() || topic.len() > 64 || !topic.chars().all(good) {
            let words =
                "the URL does not end in a topic; write https://ntfy.sh/TOPIC with letters, digits, - and _";
            problems.add(source, self.url.span(), words);
            return None;
        }
        let topic = topic.to_owned();
        let root = format!("{}{folder}/", http::shown(&to.url));
        to.url = root.parse::<Uri>().ok()?;
        Some(Ntfy { to, topic, token: self.token_file.map(|path| SecretFile::new(path.into_inner())) })
    }
}

#[derive(Serialize)]
struct Push<'a> {
    topic: &'a str,
    title: String,
    message: String,
    priority: u8,
    tags: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    click: Option<String>,
}

#[derive(Deserialize)]
struct Reply {
    id: Option<String>,
}

impl Ntfy {
    pub(super) async fn send(
        &self,
        told: &Notification,
        sender: &Sender,
        http: &http::Http,
        deadline: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let rejected = |reason: String| DeliveryError::Rejected { reason };
        let mut headers = Vec::new();
        if let Some(token) = &self.token {
            headers.push((AUTHORIZATION, format!("Bearer {}", token.read().map_err(rejected)?)));
        }
        let body = serde_json::to_vec(&self.message(told, sender))
            .map_err(|error| rejected(format!("cannot build the message: {error}")))?;
        let answer = http.post(&self.to, &headers, body, deadline).await?;
        if !answer.status.is_success() {
            return Err(answer.into_error(&self.to));
        }
        let id = serde_json::from_slice::<Reply>(&answer.body).ok().and_then(|reply| reply.id);
        Ok(Accepted { provider_id: id.map(|id| text::line(&id, 100)), ..Accepted::default() })
    }

    fn message(&self, told: &Notification, sender: &Sender) -> Push<'_> {
        let (priority, tag) = match (told.kind, words::worst(told)) {
            (Kind::Test, _) => (3, "mag"),
            (Kind::Acknowledged, _) => (2, "eyes"),
            // A digest of an older version does not contain the states.
            (Kind::Digest, _) if told.summary.is_none() => (5, "rotating_light"),
            (Kind::Recovery, _) | (Kind::Digest, State::Ok) => (3, "white_check_mark"),
            (_, State::Critical) => (5, "rotating_light"),
            (_, State::Unknown) => (4, "question"),
            (_, State::Warning | State::Ok) => (4, "warning"),
        };
        let runbook = told.firing.iter().find_map(|alert| alert.annotations.get("runbook"));
        let is_url = |url: &&String| url.starts_with("https://") || url.starts_with("http://");
        Push {
            topic: &self.topic,
            title: sender.title(told),
            message: cut(sender.own_words.text.clone().unwrap_or_else(|| facts::short_text(told, sender))),
            priority,
            tags: [tag],
            click: runbook.filter(is_url).map(|url| text::line(url, 1_000)),
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use dogwatch_daemon::config;
    use jiff::tz::TimeZone;
    use serde_json::{Value, json};

    use super::{super::words::tests::problem, *};

    #[test]
    fn the_state_decides_the_priority() {
        let loud = |kind, state| {
            let mut told = Notification { kind, ..problem() };
            told.firing[0].state = state;
            ntfy("https://ntfy.sh/ops").unwrap().message(&told, &sender()).priority
        };
        assert_eq!(loud(Kind::Problem, State::Critical), 5);
        assert_eq!(loud(Kind::Reminder, State::Warning), 4);
        assert_eq!(loud(Kind::Recovery, State::Ok), 3);
        assert_eq!(loud(Kind::Acknowledged, State::Critical), 2);
    }

    #[test]
    fn many_alerts_fit_into_one_message() {
        let mut told = problem();
        told.firing[0].summary = "ü".repeat(3_000);
        told.firing = vec![told.firing[0].clone(); 100];
        let ntfy = ntfy("https://ntfy.sh/ops").unwrap();
        assert!(ntfy.message(&told, &sender()).message.len() <= 4_096);
    }

    #[tokio::test]
    async fn the_topic_and_the_token_go_to_the_servers_root() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "tk_1\n").unwrap();
        let server = http::tests::Server::start(200, &[], r#"{"id":"hwQ2YpKdmg","event":"message"}"#).await;
        let root = server.url.rsplit_once('/').unwrap().0;
        let mut ntfy = ntfy(&format!("{root}/ops-1")).unwrap();
        ntfy.token = Some(SecretFile::new(token));
        let send =
            async || ntfy.send(&problem(), &sender(), &http::Http::default(), Duration::from_secs(10)).await;
        assert_eq!(send().await.unwrap().provider_id.unwrap(), "hwQ2YpKdmg");
        let (headers, body) = server.requests()[0].clone();
        assert_eq!(headers["authorization"], "Bearer tk_1");
        let said: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            said,
            json!({
                "topic": "ops-1",
                "title": "[#4711] CRITICAL web1/disk: /var 96% used",
                "message": said["message"],
                "priority": 5,
                "tags": ["rotating_light"],
                "click": "https://wiki.example/disk",
            })
        );
        assert!(said["message"].as_str().unwrap().contains("alertctl ack 4711"), "{said}");
    }

    #[test]
    fn a_url_without_a_topic_is_a_config_error() {
        for url in ["https://ntfy.sh", "https://ntfy.sh/", "https://ntfy.sh/a.b"] {
            let said = ntfy(url).unwrap_err().to_string();
            assert!(said.contains("1:7") && said.contains("does not end in a topic"), "{url}: {said}");
        }
        assert_eq!(ntfy("https://push.example/ntfy/ops").unwrap().to.url, "https://push.example/ntfy/");
    }

    fn ntfy(url: &str) -> Result<Ntfy, Problems> {
        let source = Source { path: "alertd.toml".into(), text: format!("url = {url:?}\n") };
        let mut problems = Problems::default();
        let ntfy = config::parse::<File>(&source, &mut problems)
            .and_then(|file| file.resolve(&source, &mut problems));
        problems.or(ntfy).map(|ntfy| ntfy.expect("a problem otherwise"))
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
