//! Receivers: render one notification, try once to deliver it, and report the outcome.
//!
//! | module | contents |
//! | --- | --- |
//! | [`receiver`] | `[receiver.NAME]` in the config; [`Receivers::send`] |
//! | [`Sender`] | this alertd as the sender: host, time zone, links, template output |
//! | [`words`] | titles and reasons, the same for every receiver |
//! | `facts` | the rows below the title: facts about an alert, and what to do |
//! | `held` | the text of a digest |
//! | `ping` | the dead man's switch |
//! | [`template`] | templates that replace the built-in texts |
//! | [`mail`] | a notification as a MIME message |
//! | [`email`] | email by SMTP |
//! | [`maildir`] | email in a local directory |
//! | [`pagerduty`] | Events API v2 |
//! | [`slack`] | incoming webhooks of Slack, Mattermost and compatible services |
//! | [`irc`] | a bot in a channel that also accepts acks |
//! | [`ntfy`] | push messages to phones |
//! | [`webhook`] | signed JSON and its schema |
//! | [`exec`] | runs a program |
//!
//! Not here: when to send, how often, and to whom. A receiver does not retry or limit anything.

mod delivered;
pub mod email;
pub mod exec;
mod facts;
mod held;
mod http;
pub mod irc;
pub mod mail;
pub mod maildir;
pub mod ntfy;
pub mod pagerduty;
mod perfdata;
mod ping;
pub mod receiver;
#[cfg(test)]
pub(crate) mod schema;
mod sender;
pub mod slack;
mod smtp;
pub mod template;
mod tls;
pub mod webhook;
pub mod words;

use dogwatch_daemon::secret;
pub use dogwatch_daemon::secret::SecretFile;
pub use http::safe_url;
pub use ping::{DeadMan, DeadManFile};
pub use receiver::{Receiver, ReceiverFile, Receivers};
pub use sender::{Rendered, Sender};
