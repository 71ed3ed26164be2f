//! The inputs of the engine, and its answers.

use std::sync::Arc;

use dogwatch_alertd_core::{
    BadBatch, Refused, Rules, ToldOpen,
    alertmanager_view::AlertsPage,
    rules::{alert::AlertKey, external::Posted, matcher::Matcher, sender::Sender, token::Hash},
};
use dogwatch_daemon::bounds::Held;
use dogwatch_wire::{Batch, BatchReply, ctl};
use jiff::Timestamp;
use tokio::sync::oneshot;

pub(super) type Answer<T> = oneshot::Sender<T>;

/// A request to the engine.
pub enum Input {
    Batch(Box<Batch>, Sender, Answer<Result<BatchReply, BatchError>>),
    Ack(u64, ctl::Ack, String, Answer<Result<ctl::Incident, Refused>>),
    Unack(u64, ctl::Unack, String, Answer<Result<ctl::Incident, Refused>>),
    Silence(ctl::NewSilence, String, Answer<Result<ctl::Silence, Refused>>),
    ExtendSilence(u64, ctl::ExtendSilence, String, Answer<Result<ctl::Silence, Refused>>),
    Downtime(ctl::NewDowntime, String, Answer<Result<ctl::Downtime, Refused>>),
    CancelDowntime(u64, String, Answer<Result<ctl::Downtime, Refused>>),
    Downtimes(Answer<Vec<ctl::Downtime>>),
    EndSilence(u64, String, Answer<Result<ctl::Silence, Refused>>),
    /// Answered when the test notification is finished, not when it is queued.
    Test(String, String, Answer<Result<ctl::NotificationInfo, Refused>>),
    Status(Answer<ctl::Status>),
    /// The health of alertd itself.
    Health(Answer<ctl::Health>),
    /// External alerts; answered with the numbers of their incidents.
    Posted(Vec<Posted>, Sender, Answer<Result<Vec<u64>, PostError>>),
    /// A page of the firing alerts that match, for Alertmanager's API, starting after a key.
    Alerts(Arc<[Matcher]>, Option<AlertKey>, Answer<AlertsPage>),
    Receivers(Answer<Vec<String>>),
    /// An open incident and its route.
    Incident(u64, Answer<Option<(ctl::Incident, Vec<String>)>>),
    /// A link from an email: incident, nonce, and the author if the button was pressed.
    Link(u64, String, Option<String>, Answer<Result<ctl::Incident, Refused>>),
    /// The open incidents that a receiver was notified of.
    ToldOpen(String, Answer<ToldOpen>),
    Silences(Answer<Vec<ctl::Silence>>),
    /// Who is on call from a time (default: now) until another (default: a week later).
    OnCall(Option<Timestamp>, Option<Timestamp>, Answer<ctl::OnCall>),
    Route(ctl::AskRoute, Answer<Vec<ctl::Routed>>),
    Overrides(Answer<Vec<ctl::Override>>),
    Override(ctl::NewOverride, String, Answer<Result<ctl::Override, Refused>>),
    EndOverride(u64, String, Answer<Result<ctl::Override, Refused>>),
    Access(Access),
    /// Another input, whose body counts against the budget of all bodies until it is handled.
    Holding(Held, Box<Self>),
    /// Another input together with its origin, for the audit log.
    From(String, Box<Self>),
}

/// Why a batch was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error(transparent)]
    Bad(#[from] BadBatch),
    /// It was handled but is not on disk: send it again.
    #[error("cannot write to the store ({0}); keep these events and send them again")]
    NotDurable(String),
}

/// Why posted alerts were not, or not all, accepted.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("{}", .0.join("; "))]
    Bad(Vec<String>),
    /// Those that fit were accepted.
    #[error("{0}")]
    OverQuota(String),
    /// They were handled but are not on disk: post them again.
    #[error("cannot write to the store ({0}); post these alerts again")]
    NotDurable(String),
}

/// An order from the process to the engine.
pub enum Order<D> {
    /// A new config; the last field says which parts of it could not be applied.
    Reload(Box<Rules>, D, Option<String>),
    /// The config on disk is invalid; the running config stays.
    ReloadFailed(String),
    /// A message to show in the status until the next start.
    Notice(String),
    Stop,
}

/// Inputs about tokens and their users.
pub enum Access {
    List(Answer<Vec<ctl::Token>>),
    Create(ctl::NewToken, Hash, String, Answer<Result<ctl::Token, Refused>>),
    Revoke(String, String, Answer<Result<ctl::Token, Refused>>),
    /// A token was used for the first time in a while.
    Used(String),
    /// Who was refused what; answered once it is in the audit log.
    Refused(String, String, Answer<()>),
    /// Somebody made a backup: caller and description. Answered with the store's error, if it has
    /// one.
    BackedUp(String, String, Answer<Option<String>>),
}
