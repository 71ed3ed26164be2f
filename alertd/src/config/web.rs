//! `[alertd.web]`: the web page that links in emails open.
//!
//! ```toml
//! [alertd.web]
//! listen = "127.0.0.1:9850"               # behind a reverse proxy with TLS
//! url = "https://alerts.example.org"      # the URL that phones can reach
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
    secret::SecretFile,
};
use serde::Deserialize;

use crate::{notify::safe_url, web::links::Links};

/// `[alertd.web]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    pub listen: SocketAddr,
    /// The URL that phones can reach, without a slash at the end.
    pub url: String,
    pub key_file: PathBuf,
    pub link_lifetime: Duration,
}

impl Web {
    pub fn links(&self) -> Links {
        Links::new(self.url.clone(), SecretFile::new(self.key_file.clone()), self.link_lifetime)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebFile {
    #[serde(default = "listen_default")]
    listen: Spanned<String>,
    url: Spanned<String>,
    /// One key per line; the first one signs. Created at the first start. Default: `ack-link.key`
    /// in the state directory.
    key_file: Option<PathBuf>,
    /// How long a link works.
    link_lifetime: Option<Span>,
}

fn listen_default() -> Spanned<String> {
    Spanned::new(0..0, "127.0.0.1:9850".into())
}

/// One day, so that a link works for at least the current shift and the next.
const LINK_LIFETIME_DEFAULT: Span = Span::secs(24 * 3_600);

impl WebFile {
    pub(super) fn resolve(self, state_dir: &Path, source: &Source, problems: &mut Problems) -> Option<Web> {
        let before = problems.0.len();
        let listen = self.listen.get_ref().parse();
        if listen.is_err() {
            let words = format!(
                "{:?} is not an address; write IP:PORT, for example \"127.0.0.1:9850\"",
                self.listen.get_ref()
            );
            problems.add(source, self.listen.span(), words);
        }
        if let Err(words) = safe_url(self.url.get_ref(), true) {
            problems.add(source, self.url.span(), words);
        }
        (problems.0.len() == before).then_some(Web {
            listen: listen.ok()?,
            url: self.url.get_ref().trim_end_matches('/').to_owned(),
            key_file: self.key_file.unwrap_or_else(|| state_dir.join("ack-link.key")),
            link_lifetime: self.link_lifetime.unwrap_or(LINK_LIFETIME_DEFAULT).0,
        })
    }
}
