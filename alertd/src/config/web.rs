//! `[alertd.web]`: where the links of mails lead.
//!
//! ```toml
//! [alertd.web]
//! listen = "127.0.0.1:9850"               # a reverse proxy with TLS stands before it
//! url = "https://alerts.example.org"      # as phones reach it
//! ```

use std::path::{Path, PathBuf};

use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};
use serde::Deserialize;

use crate::{notify::safe_url, web::Web};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebFile {
    #[serde(default = "listen_default")]
    listen: Spanned<String>,
    url: Spanned<String>,
    /// One key a line, the first signs; made at the first start. Default: `ack-link.key` in the state directory.
    key_file: Option<PathBuf>,
    /// A link works for so long.
    link_lifetime: Option<Span>,
}

fn listen_default() -> Spanned<String> {
    Spanned::new(0..0, "127.0.0.1:9850".into())
}

/// A shift and the next; what is older is another day's problem.
const LINK_LIFETIME_DEFAULT: Span = Span::secs(24 * 3_600);

impl WebFile {
    pub(super) fn resolve(self, state_dir: &Path, source: &Source, problems: &mut Problems) -> Option<Web> {
        let before = problems.0.len();
        let listen = self.listen.get_ref().parse();
        if listen.is_err() {
            let words = format!("{:?} is not an address; write \"127.0.0.1:9850\"", self.listen.get_ref());
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
