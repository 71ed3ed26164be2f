//! What the loop is asked and told, and how it answers.

use std::sync::Arc;

use dogwatch_alertd_core::{
    BadBatch, Refused, Rules, ToldOpen,
    alertmanager_view::AlertsPage,
    rules::{alert::AlertKey, external::Posted, matcher::Matcher},
};
use dogwatch_wire::{Batch, BatchReply, ctl};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::Access;

pub(super) type Answer<T> = oneshot::Sender<T>;

/// What the outside asks of the loop.
pub enum Input {
    Batch(Box<Batch>, Answer<Result<BatchReply, BatchError>>),
    Ack(u64, ctl::Ack, String, Answer<Result<ctl::Incident, Refused>>),
    Unack(u64, ctl::Unack, String, Answer<Result<ctl::Incident, Refused>>),
    Silence(ctl::NewSilence, String, Answer<Result<ctl::Silence, Refused>>),
    ExtendSilence(u64, ctl::ExtendSilence, String, Answer<Result<ctl::Silence, Refused>>),
    Downtime(ctl::NewDowntime, String, Answer<Result<ctl::Downtime, Refused>>),
    CancelDowntime(u64, String, Answer<Result<ctl::Downtime, Refused>>),
    Downtimes(Answer<Vec<ctl::Downtime>>),
    EndSilence(u64, String, Answer<Result<ctl::Silence, Refused>>),
    /// Answered when it is settled, not when it is queued.
    Test(String, String, Answer<Result<ctl::NotificationInfo, Refused>>),
    Status(Answer<ctl::Status>),
    /// Whether alertd itself is well.
    Health(Answer<ctl::Health>),
    /// What anybody found; answered with the incidents that it belongs to.
    Posted(Vec<Posted>, Answer<Result<Vec<u64>, PostError>>),
    /// What fires and matches, as Alertmanager's API shows it, after one that was shown.
    Alerts(Arc<[Matcher]>, Option<AlertKey>, Answer<AlertsPage>),
    Receivers(Answer<Vec<String>>),
    /// An incident that is not over, and its route.
    Incident(u64, Answer<Option<(ctl::Incident, Vec<String>)>>),
    /// A link of a mail: incident, nonce, and who presses the button, if somebody does.
    Link(u64, String, Option<String>, Answer<Result<ctl::Incident, Refused>>),
    /// What a receiver was told of and is not over.
    ToldOpen(String, Answer<ToldOpen>),
    Silences(Answer<Vec<ctl::Silence>>),
    /// From a time, else now, until another, else for a week.
    OnCall(Option<Timestamp>, Option<Timestamp>, Answer<ctl::OnCall>),
    Route(ctl::AskRoute, Answer<Vec<ctl::Routed>>),
    Overrides(Answer<Vec<ctl::Override>>),
    Override(ctl::NewOverride, String, Answer<Result<ctl::Override, Refused>>),
    EndOverride(u64, String, Answer<Result<ctl::Override, Refused>>),
    Access(Access),
    /// Another input, and where it comes from.
    From(String, Box<Self>),
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error(transparent)]
    Bad(#[from] BadBatch),
    /// It is taken, but not durable: send it again.
    #[error("the store fails ({0}); keep these events and send them again")]
    NotDurable(String),
}

/// Why alerts that were posted were not taken, or not all.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("{}", .0.join("; "))]
    Bad(Vec<String>),
    /// Taken, but not durable: the sender is to post them again.
    #[error("the store fails ({0}); post these alerts again")]
    NotDurable(String),
}

/// What the loop is told besides inputs.
pub enum Order<D> {
    /// With what of the new config could not be used.
    Reload(Box<Rules>, D, Option<String>),
    /// The config on disk is wrong; the old one stays.
    ReloadFailed(String),
    /// Something that people should know until the next start.
    Notice(String),
    Stop,
}
