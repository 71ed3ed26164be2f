//! The receivers: each renders a notification for its medium and sends it once.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`receiver`] | `[receiver.NAME]` in the config; [`Receivers::send`], the one way out |
//! | [`words`] | the sentences a person reads, the same in every receiver |
//! | `facts` | what is known of an alert, how to go on: rows under the headline, the same in every receiver |
//! | `held` | what a digest says |
//! | `ping` | the dead-man's ping |
//! | [`template`] | words of the operator's own in the place of ours |
//! | [`mail`] | the words as a MIME message |
//! | [`email`] | a mail by SMTP |
//! | [`maildir`] | a mail as a file |
//! | [`pagerduty`] | Events API v2 |
//! | [`slack`] | incoming webhooks of Slack, Mattermost and the like |
//! | [`irc`] | a bot in a channel, which also takes acks |
//! | [`ntfy`] | push messages to phones |
//! | [`webhook`] | signed JSON, its schema |
//! | [`exec`] | a program of one's own |
//!
//! Not here: when to send, how often, to whom. A receiver neither retries nor limits; it says what came of one try.

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
pub use receiver::{Receiver, ReceiverFile, Receivers, Sender};
