//! `[dead_man]`, the dead man's switch: alertd pings a service while it is healthy, and the service
//! alerts somebody when the pings stop.
//!
//! ```toml
//! [dead_man]
//! url = "https://hc-ping.com/0000-…"      # any URL that accepts GET, such as healthchecks.io
//! every = "60s"
//! ```
//!
//! When a ping is sent is decided in `selfwatch.rs`.

use std::{path::PathBuf, time::Duration};

use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};
use serde::Deserialize;

use super::http::{Endpoint, Http, shown};

/// `[dead_man]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadManFile {
    url: Spanned<String>,
    every: Option<Spanned<Span>>,
    /// PEM file with additional CA certificates to trust.
    ca_file: Option<Spanned<PathBuf>>,
}

/// Checked.
#[derive(Debug, Clone)]
pub struct DeadMan {
    to: Endpoint,
    pub every: Duration,
    http: Http,
}

const EVERY_DEFAULT: Duration = Duration::from_mins(1);
/// These services count in minutes; more frequent pings only cause load.
const EVERY_LEAST: Duration = Duration::from_secs(10);

impl DeadManFile {
    pub fn resolve(self, source: &Source, problems: &mut Problems) -> Option<DeadMan> {
        let every = self.every.as_ref().map_or(EVERY_DEFAULT, |every| every.get_ref().0);
        if let Some(written) = self.every.as_ref().filter(|_| every < EVERY_LEAST) {
            problems.add(source, written.span(), "every is shorter than 10s; use for example \"60s\"");
        }
        let to = Endpoint::resolve(&self.url, self.ca_file, false, source, problems)?;
        Some(DeadMan { to, every, http: Http::default() })
    }
}

impl DeadMan {
    /// Sends one ping; the error is a message for people.
    pub async fn ping(&self, deadline: Duration) -> Result<(), String> {
        let answer = self.http.get(&self.to, deadline).await.map_err(|error| error.to_string())?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(format!("{} answered {}", shown(&self.to.url), answer.status))
    }

    /// The target, without parts of the URL that may be secret.
    pub fn place(&self) -> String {
        shown(&self.to.url)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::http::tests::Server, *};

    fn dead_man(text: &str) -> Result<DeadMan, Vec<String>> {
        let mut problems = Problems::default();
        let source = Source { path: "x".into(), text: text.into() };
        let file: Option<DeadManFile> = dogwatch_daemon::config::parse(&source, &mut problems);
        let found = file.and_then(|file| file.resolve(&source, &mut problems));
        match found {
            Some(found) if problems.0.is_empty() => Ok(found),
            _ => Err(problems.0.iter().map(ToString::to_string).collect()),
        }
    }

    #[tokio::test]
    async fn a_ping_is_a_get_and_any_2xx_is_success() {
        let server = Server::start(204, &[], "").await;
        let dead_man = dead_man(&format!("url = \"{}\"", server.url)).unwrap();
        assert_eq!((dead_man.ping(Duration::from_secs(5)).await, dead_man.every), (Ok(()), EVERY_DEFAULT));
        assert_eq!(server.requests().len(), 1);
        assert!(server.requests()[0].1.is_empty());
    }

    #[tokio::test]
    async fn errors_do_not_reveal_the_secret_part_of_the_url() {
        let server = Server::start(404, &[], "").await;
        let gone = dead_man(&format!("url = \"{}\"", server.url)).unwrap();
        let error = gone.ping(Duration::from_secs(5)).await.unwrap_err();
        assert!(error.contains("answered 404") && !error.contains("hidden"), "{error}");
        let nobody = dead_man("url = \"http://127.0.0.1:9/secret\"").unwrap();
        let error = nobody.ping(Duration::from_secs(5)).await.unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn config_errors_say_what_is_wrong() {
        for (text, words) in [
            ("url = \"hc-ping.com/x\"", "write https://"),
            ("url = \"ftp://hc-ping.com/x\"", "neither http:// nor https://"),
            ("url = \"https://hc-ping.com/x\"\nevery = \"5s\"", "shorter than 10s"),
        ] {
            let said = dead_man(text).unwrap_err();
            assert!(said.len() == 1 && said[0].contains(words), "{text}: {said:?}");
        }
    }
}
