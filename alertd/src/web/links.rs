//! Makes the links in emails, and the key that signs them.

use std::{io, path::Path, time::Duration};

use data_encoding::HEXLOWER;
use dogwatch_alertd_core::rules::{
    moment::later,
    notification::{Kind, Notification},
};
use dogwatch_daemon::secret::SecretFile;

use super::link;

#[derive(Debug, Clone)]
pub struct Links {
    url: String,
    keys: SecretFile,
    lifetime: Duration,
}

/// The link in an email.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailLink {
    pub url: String,
    /// The text of its button.
    pub does: &'static str,
}

/// Creates the key file if there is none.
pub(super) fn make_key(path: &Path) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};

    use ring::rand::SecureRandom as _;
    if path.exists() {
        return Ok(());
    }
    let mut key = [0; 32];
    ring::rand::SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| io::Error::other("cannot get random bytes from the system"))?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", HEXLOWER.encode(&key))?;
    file.sync_all()
}

impl Links {
    pub(crate) fn new(url: String, keys: SecretFile, lifetime: Duration) -> Self {
        Self { url, keys, lifetime }
    }

    /// The link for one recipient: to acknowledge the incident if it is open, or to the list of
    /// open incidents for a digest. If the key cannot be read, the email is sent without a link.
    pub fn link(&self, told: &Notification, who: &str) -> Option<MailLink> {
        let open = matches!(told.kind, Kind::Problem | Kind::Update | Kind::Reminder);
        let acks = open && told.incident != 0 && told.ack.is_none();
        if !acks && told.kind != Kind::Digest {
            return None;
        }
        let keys = self
            .keys
            .lines()
            .map_err(|error| tracing::warn!("email is sent without a link: {error}"))
            .ok()?;
        let (key, expires_at) = (keys.first()?, later(told.created_at, self.lifetime));
        let url = &self.url;
        Some(if acks {
            let token = link::sign(key, told.incident, expires_at, &told.id, who);
            MailLink { url: format!("{url}/ack/{token}"), does: "Acknowledge" }
        } else {
            let token = link::sign_open(key, &told.receiver, expires_at, who);
            MailLink { url: format!("{url}/open/{token}"), does: "Show open incidents" }
        })
    }
}
