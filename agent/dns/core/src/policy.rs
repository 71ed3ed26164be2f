//! Decides what a client gets now and whether an upstream is asked (RFC 8767, with the group's health known).
//!
//! ```text
//!                     upstreams healthy           recovering, slow           down
//!  fresh              Reply                       Reply                      Reply
//!  fresh, near expiry ReplyThenRefresh            Reply                      Reply
//!  expired            ForwardOrReplyStale         ReplyStaleThenRefresh      ReplyStale
//!  expired, refresh   ReplyStale until recheck    ReplyStale …               ReplyStale
//!   failed just now
//!  expired, held back   ReplyStale, then ask when it is time          ReplyStale
//!  failed, not known  ReplyFailure                ReplyFailure               ReplyFailure
//!  not known          Forward                     Forward                    ForwardPaced
//! ```
//!
//! Stale at once is for ill upstreams only: in healthy times a client waits a moment for the truth, for an address that
//! moved is worse than 300 ms (coredns#4309, AdGuardHome#8596).

use std::{fmt, time::Duration};

use crate::moment::Moment;

/// What the cache holds for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cached {
    Nothing,
    /// Every upstream failed on it a moment ago (RFC 9520).
    Failed,
    Fresh {
        left: Duration,
        ttl: Duration,
    },
    Expired {
        recheck_at: Moment,
    },
    /// Expired, and the guard does not believe what upstream says now.
    Held {
        reason: StaleReason,
        ask: bool,
    },
}

/// How the group of upstreams does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstreams {
    Healthy,
    /// Back, but not proven; or proven, with refreshes still queued up from the outage.
    Recovering,
    /// Answers come too late for a waiting client, or too many do not come at all.
    Slow,
    Down,
}

/// Why a client got a stale answer. Names metric labels and the EDE text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleReason {
    /// The breaker is open.
    UpstreamDown,
    /// Upstream is back; refreshes are paced so that it stays so.
    Recovering,
    /// Upstream answers, but too late to wait for, or too seldom.
    UpstreamSlow,
    /// Upstream failed on this name a moment ago.
    RefreshFailed,
    /// Upstream has not answered within the client timer.
    ClientTimer,
    /// The core has so much to do that it cannot even be asked.
    Overloaded,
    /// The guard's doubts: see [`crate::guard`].
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

    /// For people who read `dig`'s output.
    pub fn text(self) -> &'static str {
        match self {
            Self::UpstreamDown => "stale: no upstream answers",
            Self::Recovering => "stale: upstream is coming back",
            Self::UpstreamSlow => "stale: every upstream is slow or loses packets",
            Self::RefreshFailed => "stale: upstream failed on this name",
            Self::ClientTimer => "stale: upstream is late",
            Self::Overloaded => "stale: the cache has too much to do to ask",
            Self::HeldGone => "held: upstream says the name is gone",
            Self::HeldNowhere => "held: upstream gives an address that leads nowhere",
            Self::HeldConverged => "held: upstream gives many names one new address",
            Self::HeldRefused => "held: upstream's new address takes no connection",
            Self::HeldTrip => "held: upstream says many names are gone",
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
    /// As before, but upstream is asked now, for the guard has paced it.
    ReplyStaleThenAsk(StaleReason),
    /// Ask upstream, but answer stale if it has not replied within `patience`.
    ForwardOrReplyStale {
        patience: Duration,
    },
    Forward,
    /// Ask upstream if the budget for hopeless tries allows it, else fail at once.
    ForwardPaced,
    ReplyFailure,
}

/// For people who ask why.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply => f.write_str("answered from the cache"),
            Self::ReplyThenRefresh => {
                f.write_str("answered from the cache, then refreshed, for its TTL is nearly over")
            }
            Self::ReplyStale(reason) => write!(f, "answered at once, {}", reason.text()),
            Self::ReplyStaleThenRefresh(reason) => {
                write!(f, "answered at once, {}; a refresh is queued", reason.text())
            }
            Self::ReplyStaleThenAsk(reason) => {
                write!(f, "answered at once, {}; upstream is asked again", reason.text())
            }
            Self::ForwardOrReplyStale { patience } => {
                write!(
                    f,
                    "asked upstream; answered stale if that takes more than {} ms",
                    patience.as_millis()
                )
            }
            Self::Forward => f.write_str("asked upstream"),
            Self::ForwardPaced => {
                f.write_str("asked upstream, a few such names a second; else SERVFAIL: no upstream answers")
            }
            Self::ReplyFailure => f.write_str("SERVFAIL: every upstream failed on it a moment ago"),
        }
    }
}

/// Decides. `patience` is the adaptive client timer.
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
        // The recovery cannot ask for what a trip covers; the trip itself does, at its own pace.
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

/// The last tenth of a TTL of ten seconds or more. Shorter ones would be refreshed all the time.
pub(crate) fn near_expiry(left: Duration, ttl: Duration) -> bool {
    ttl >= PREFETCH_TTL_MIN && left < ttl / 10
}

/// Below this TTL a prefetch saves nobody's wait.
pub const PREFETCH_TTL_MIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    #[test]
    fn stale_is_instant_only_while_the_upstreams_are_ill() {
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
    fn the_last_tenth_of_a_ttl_is_prefetched_but_never_while_ill() {
        let fresh =
            |left, ttl| Cached::Fresh { left: Duration::from_secs(left), ttl: Duration::from_secs(ttl) };
        let planned = |held, upstreams| plan(held, upstreams, PATIENCE, Moment::START);
        assert_eq!(planned(fresh(29, 300), Upstreams::Healthy), Plan::ReplyThenRefresh);
        assert_eq!(planned(fresh(31, 300), Upstreams::Healthy), Plan::Reply);
        assert_eq!(planned(fresh(0, 5), Upstreams::Healthy), Plan::Reply);
        assert_eq!(planned(fresh(29, 300), Upstreams::Down), Plan::Reply);
    }
}
