//! The sender of a notification: this alertd, with the links and template output that go into a
//! message.

use dogwatch_alertd_core::rules::notification::Notification;
use jiff::tz::TimeZone;

use super::words;
use crate::web::Links;

/// What texts need beside the notification: this host's name and time zone, links, and templates.
#[derive(Debug, Clone)]
pub struct Sender {
    pub host: String,
    pub zone: TimeZone,
    /// Makes the links in emails, if the web server is on.
    pub links: Option<Links>,
    /// The texts from the receiver's templates for this notification.
    pub own_words: Rendered,
}

impl Sender {
    /// The title: from the template, or built in.
    pub(super) fn title(&self, told: &Notification) -> String {
        self.own_words.subject.clone().unwrap_or_else(|| words::title(told, &self.zone))
    }

    /// Reads this host's name and time zone.
    pub fn of_this_host() -> Self {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy();
        let host = if host.is_empty() { "localhost".into() } else { host.into_owned() };
        Self { host, zone: TimeZone::system(), links: None, own_words: Rendered::default() }
    }
}

/// The output of a receiver's templates for one notification; `None` means the built-in text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    pub subject: Option<String>,
    pub text: Option<String>,
    pub html: Option<String>,
    pub json: Option<String>,
}
