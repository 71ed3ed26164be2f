//! Decides what a client gets now and whether upstreams are asked (RFC 8767, with the group's
//! health known).
//!
//! ```text
//!                     upstreams healthy           recovering, slow           down
//!  fresh              Reply                       Reply                      Reply
//!  fresh, near expiry ReplyThenRefresh            Reply                      Reply
//!  expired            ForwardOrReplyStale         ReplyStaleThenRefresh      ReplyStale
//!  expired, refresh   ReplyStale until recheck    ReplyStale …               ReplyStale
//!   failed just now
//!  expired, held      ReplyStale, then ask when it is time                   ReplyStale
//!  failed, unknown    ReplyFailure                ReplyFailure               ReplyFailure
//!  unknown            Forward                     Forward                    ForwardPaced
//! ```
//!
//! Stale answers are given at once only while upstreams have trouble. While they are healthy, a
//! client waits briefly for the current answer, because the address of a server that moved is worse
//! than 300 ms (coredns#4309, AdGuardHome#8596).

use std::{fmt, time::Duration};

use crate::moment::Moment;

/// What the cache holds for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cached {
    Nothing,
    /// Every upstream failed for it a moment ago (RFC 9520).
    Failed,
    Fresh {
        left: Duration,
        ttl: Duration,
    },
    Expired {
        recheck_at: Moment,
    },
    /// Expired, and the guard does not believe the upstreams' current answer.
    Held {
        reason: StaleReason,
        ask: bool,
    },
}

/// The health of a group of upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstreams {
    Healthy,
    /// Answering again, but not proven yet; or proven, with refreshes still queued from the outage.
    Recovering,
    /// Answers come too late for a waiting client, or too many are lost.
    Slow,
    Down,
}

/// Why a client got a stale answer; also gives the metric labels and the EDE text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleReason {
    /// The breaker is open.
    UpstreamDown,
    /// Upstreams are back; refreshes are paced so as not to overload them.
    Recovering,
    /// Upstreams answer, but too late to wait for, or too rarely.
    UpstreamSlow,
    /// Upstreams failed for this name a moment ago.
    RefreshFailed,
    /// No upstream answered within the client timer.
    ClientTimer,
    /// The resolver's queue is full, so it could not even be asked.
    Overloaded,
    /// Held by the guard: see [`crate::guard`].
    HeldGone,
    HeldNowhere,
    HeldConverged,
    HeldRefused,
    HeldTrip,
}

impl StaleReason {
    pub const ALL: [Self; 11] = [
        Self::UpstreamDown,
        Self::Recovering,
        Self::UpstreamSlow,
        Self::RefreshFailed,
        Self::ClientTimer,
        Self::Overloaded,
        Self::HeldGone,
        Self::HeldNowhere,
        Self::HeldConverged,
        Self::HeldRefused,
        Self::HeldTrip,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::UpstreamDown => "upstream_down",
            Self::Recovering => "recovering",
            Self::UpstreamSlow => "upstream_slow",
            Self::RefreshFailed => "refresh_failed",
            Self::ClientTimer => "client_timer",
            Self::Overloaded => "overloaded",
            Self::HeldGone => "held_gone",
            Self::HeldNowhere => "held_nowhere",
            Self::HeldConverged => "held_converged",
            Self::HeldRefused => "held_refused",
            Self::HeldTrip => "held_trip",
        }
    }

    /// Extra text of the Extended DNS Error, as `dig` prints it.
    pub fn text(self) -> &'static str {
        match self {
            Self::UpstreamDown => "stale: all upstreams down",
            Self::Recovering => "stale: upstreams recovering",
            Self::UpstreamSlow => "stale: all upstreams slow or losing packets",
            Self::RefreshFailed => "stale: upstreams failed for this name",
            Self::ClientTimer => "stale: upstreams did not answer in time",
            Self::Overloaded => "stale: the cache is overloaded",
            Self::HeldGone => "held: upstreams say the name is gone",
            Self::HeldNowhere => "held: upstreams give an unusable address",
            Self::HeldConverged => "held: upstreams give many names one new address",
            Self::HeldRefused => "held: the new address accepts no TCP connection",
            Self::HeldTrip => "held: upstreams say many names are gone",
        }
    }
}

/// What to do with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Reply,
    ReplyThenRefresh,
    ReplyStale(StaleReason),
    ReplyStaleThenRefresh(StaleReason),
    /// As before, but upstreams are asked now, at the guard's pace.
    ReplyStaleThenAsk(StaleReason),
    /// Ask upstreams, but answer stale if none has replied within `patience`.
    ForwardOrReplyStale {
        patience: Duration,
    },
    Forward,
    /// Ask upstreams if the budget for likely failures allows it, otherwise fail at once.
    ForwardPaced,
    ReplyFailure,
}

/// The text shown by `dogwatch dns why`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply => f.write_str("answered from the cache"),
            Self::ReplyThenRefresh => {
                f.write_str("answered from the cache, then refreshed because its TTL is nearly over")
            }
            Self::ReplyStale(reason) => write!(f, "answered at once, {}", reason.text()),
            Self::ReplyStaleThenRefresh(reason) => {
                write!(f, "answered at once, {}; a refresh is queued", reason.text())
            }
            Self::ReplyStaleThenAsk(reason) => {
                write!(f, "answered at once, {}; upstreams are asked again", reason.text())
            }
            Self::ForwardOrReplyStale { patience } => {
                write!(
                    f,
                    "forwarded to upstreams; answered stale after {} ms without a reply",
                    patience.as_millis()
                )
            }
            Self::Forward => f.write_str("forwarded to upstreams"),
            Self::ForwardPaced => {
                f.write_str("forwarded to upstreams, at most a few such names a second; otherwise SERVFAIL: all upstreams down")
            }
            Self::ReplyFailure => f.write_str("SERVFAIL: every upstream failed for it a moment ago"),
        }
    }
}

/// Decides what to do. `patience` is the adaptive client timer.
pub fn plan(cached: Cached, upstreams: Upstreams, patience: Duration, now: Moment) -> Plan {
    match (cached, upstreams) {
        (Cached::Fresh { left, ttl }, Upstreams::Healthy) if near_expiry(left, ttl) => Plan::ReplyThenRefresh,
        (Cached::Fresh { .. }, _) => Plan::Reply,
        (Cached::Expired { .. }, Upstreams::Down) => Plan::ReplyStale(StaleReason::UpstreamDown),
        (Cached::Expired { recheck_at }, _) if now < recheck_at => {
            Plan::ReplyStale(StaleReason::RefreshFailed)
        }
        (Cached::Expired { .. }, Upstreams::Recovering) => {
            Plan::ReplyStaleThenRefresh(StaleReason::Recovering)
        }
        (Cached::Expired { .. }, Upstreams::Slow) => Plan::ReplyStaleThenRefresh(StaleReason::UpstreamSlow),
        (Cached::Expired { .. }, Upstreams::Healthy) => Plan::ForwardOrReplyStale { patience },
        (Cached::Held { reason, ask: false }, _) | (Cached::Held { reason, .. }, Upstreams::Down) => {
            Plan::ReplyStale(reason)
        }
        // The recovery does not refresh names covered by a trip; the trip asks for them at its own
        // pace.
        (Cached::Held { reason: StaleReason::HeldTrip, .. }, Upstreams::Recovering) => {
            Plan::ReplyStaleThenAsk(StaleReason::HeldTrip)
        }
        (Cached::Held { reason, .. }, Upstreams::Recovering) => Plan::ReplyStaleThenRefresh(reason),
        (Cached::Held { reason, .. }, _) => Plan::ReplyStaleThenAsk(reason),
        (Cached::Failed, _) => Plan::ReplyFailure,
        (Cached::Nothing, Upstreams::Down) => Plan::ForwardPaced,
        (Cached::Nothing, _) => Plan::Forward,
    }
}

/// Whether this is the end of a TTL of ten seconds or more. Shorter TTLs would be refreshed
/// constantly.
pub(crate) fn near_expiry(left: Duration, ttl: Duration) -> bool {
    ttl >= PREFETCH_TTL_MIN && left < prefetch_window(ttl)
}

/// The end of a TTL in which an answer is refreshed: its last tenth, but at most two seconds, which
/// is enough for a lost packet and a second try. Every second more is time that the old answer
/// would still have been good for.
pub(crate) fn prefetch_window(ttl: Duration) -> Duration {
    (ttl / 10).min(Duration::from_secs(2))
}

/// Below this TTL a prefetch saves no client any waiting.
pub const PREFETCH_TTL_MIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    #[test]
    fn stale_answers_are_immediate_only_while_upstreams_have_trouble() {
        let now = Moment::START;
        let expired = Cached::Expired { recheck_at: now };
        let planned = |upstreams| plan(expired, upstreams, PATIENCE, now);
        assert_eq!(planned(Upstreams::Healthy), Plan::ForwardOrReplyStale { patience: PATIENCE });
        assert_eq!(planned(Upstreams::Recovering), Plan::ReplyStaleThenRefresh(StaleReason::Recovering));
        assert_eq!(planned(Upstreams::Down), Plan::ReplyStale(StaleReason::UpstreamDown));
    }

    #[test]
    fn a_failed_refresh_is_not_tried_again_before_its_recheck_time() {
        let now = Moment::START;
        let held = |recheck_at| plan(Cached::Expired { recheck_at }, Upstreams::Healthy, PATIENCE, now);
        assert_eq!(held(now + PATIENCE), Plan::ReplyStale(StaleReason::RefreshFailed));
        assert_eq!(held(now), Plan::ForwardOrReplyStale { patience: PATIENCE });
    }

    #[test]
    fn the_end_of_a_ttl_is_prefetched_only_while_upstreams_are_healthy() {
        let fresh = |left_ms, ttl| Cached::Fresh {
            left: Duration::from_millis(left_ms),
            ttl: Duration::from_secs(ttl),
        };
        let planned = |held, upstreams| plan(held, upstreams, PATIENCE, Moment::START);
        assert_eq!(planned(fresh(1_900, 300), Upstreams::Healthy), Plan::ReplyThenRefresh);
        assert_eq!(planned(fresh(900, 10), Upstreams::Healthy), Plan::ReplyThenRefresh);
        assert_eq!(planned(fresh(1_100, 10), Upstreams::Healthy), Plan::Reply);
        assert_eq!(planned(fresh(2_100, 300), Upstreams::Healthy), Plan::Reply);
        assert_eq!(planned(fresh(0, 5), Upstreams::Healthy), Plan::Reply);
        assert_eq!(planned(fresh(1_900, 300), Upstreams::Down), Plan::Reply);
    }
}
