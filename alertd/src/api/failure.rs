//! Error answers: the status and a message for people.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dogwatch_alertd_core::Refused;
use dogwatch_daemon::config::closest;
use dogwatch_wire::{ErrorReply, limits};

use crate::{metrics, store::StoreError};

/// How long an agent should wait before it sends again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// For a sender over its quota, which does not end soon.
const OVER_QUOTA_WAIT: Duration = Duration::from_secs(30);

pub(crate) enum Failure {
    Bad(String),
    /// No token, or an invalid one.
    Unknown(String),
    /// A valid token that lacks the scope.
    Forbidden(String),
    NotFound(String),
    TooLarge,
    /// The body did not arrive in time.
    Slow(Duration),
    /// Over the rate limit; the time to wait.
    TooMany(Duration),
    /// The sender is over its quota.
    OverQuota(String),
    /// Try again later.
    Unavailable(String),
}

impl Failure {
    pub(crate) fn into_parts(self) -> (StatusCode, String) {
        match self {
            Self::Bad(error) => (StatusCode::BAD_REQUEST, error),
            Self::Unknown(error) => (StatusCode::UNAUTHORIZED, error),
            Self::Forbidden(error) => (StatusCode::FORBIDDEN, error),
            Self::NotFound(error) => (StatusCode::NOT_FOUND, error),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {} bytes; split the request", limits::BODY_BYTES_MAX),
            ),
            Self::Slow(patience) => {
                (StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {patience:?}"))
            }
            Self::TooMany(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!("too many requests; try again in {} s", whole_seconds(wait)),
            ),
            Self::OverQuota(error) => (StatusCode::TOO_MANY_REQUESTS, error),
            Self::Unavailable(error) => (StatusCode::SERVICE_UNAVAILABLE, error),
        }
    }

    /// In the format of the API of that path: Alertmanager's errors are JSON strings, ours are
    /// objects.
    pub(crate) fn answer(self, path: &str) -> Response {
        if path.starts_with("/api/v2/") { self.with(Json) } else { self.into_response() }
    }

    pub(crate) fn with<B: IntoResponse>(self, body: impl FnOnce(String) -> B) -> Response {
        let wait = match &self {
            Self::TooMany(wait) => Some(*wait),
            Self::Unavailable(_) => Some(RETRY_AFTER),
            Self::OverQuota(_) => Some(OVER_QUOTA_WAIT),
            _ => None,
        };
        if let Some(reason) = self.refusal() {
            metrics::refused(reason);
        }
        let (status, error) = self.into_parts();
        let mut response = (status, body(error)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = wait {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"dogwatch\""));
        }
        response
    }

    /// For the metric: the reason if the request was refused before it was handled.
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Unknown(_) => Some("token"),
            Self::Forbidden(_) => Some("scope"),
            Self::TooLarge => Some("size"),
            Self::Slow(_) => Some("slow"),
            Self::TooMany(_) => Some("rate"),
            Self::OverQuota(_) => Some("quota"),
            Self::Bad(_) | Self::NotFound(_) | Self::Unavailable(_) => None,
        }
    }
}

/// Rounds up, and never returns zero.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0).max(u64::from(wait.is_zero()))
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.with(|error| Json(ErrorReply { error }))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::BadSilence(_)
            | Refused::BadDowntime(_)
            | Refused::BadOverride(_)
            | Refused::BadToken(_) => Self::Bad(refused.to_string()),
            Refused::NoHost(ref host, ref known) => {
                Self::Bad(match closest(host, known.iter().map(String::as_str)) {
                    Some(meant) => format!("unknown host {host:?}; did you mean {meant:?}?"),
                    None => refused.to_string(),
                })
            }
            Refused::NoIncident(_)
            | Refused::LinkUsed(_)
            | Refused::NotAcked(_)
            | Refused::NoSilence(_)
            | Refused::NoDowntime(_)
            | Refused::NoReceiver(..)
            | Refused::NoSchedule(..)
            | Refused::NoUser(..)
            | Refused::NoToken(_)
            | Refused::NoOverride(_) => Self::NotFound(refused.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(format!("cannot read the store: {error}"))
    }
}
