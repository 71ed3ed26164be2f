//! A question being resolved: the clients waiting for it, the upstreams asked, and its timers.

use std::{net::IpAddr, time::Duration};

use crate::{
    guard, health::breaker::Failure, message::reply::Transport, moment::Moment, resolver::client::Client,
    zones::zone::ZoneId,
};

/// Why upstreams are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A client waits.
    Client,
    /// To have a fresh answer for the next client.
    Refresh,
    /// To find out whether this upstream is healthy.
    Probe(usize),
}

pub(super) struct Waiter {
    pub(super) client: Client,
    pub(super) transport: Transport,
    /// The client's packet, known to be readable.
    pub(super) packet: Box<[u8]>,
    /// When the client gets what there is: a stale answer or a failure.
    pub(super) until: Moment,
}

/// The letter case of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Letters {
    /// As [`crate::message::wire::letters::mix`] takes them; zero is lower case.
    pub(super) chosen: u64,
    /// An answer in different case is rejected.
    pub(super) matter: bool,
}

/// One query to one upstream.
pub(super) struct Try {
    pub(super) id: u64,
    pub(super) upstream: usize,
    pub(super) transport: Transport,
    pub(super) sent: Moment,
    pub(super) late_at: Moment,
    pub(super) letters: Letters,
    /// This daemon paused meanwhile, so its lateness or failure is no evidence.
    pub(super) excused: bool,
    pub(super) state: TryState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TryState {
    Pending,
    /// Pending, and counted as late.
    Late,
    Failed(Failure),
    Answered,
    /// It denied or moved a known name.
    Denied,
    /// An answer in different case was rejected; the right one may still arrive.
    OtherCase,
    /// Replaced by a try over TCP; its answer no longer counts.
    Replaced,
}

pub(super) struct Flight {
    pub(super) key: Box<[u8]>,
    /// The zone whose upstreams are asked; tries and probes refer to them by index.
    pub(super) zone: ZoneId,
    pub(super) purpose: Purpose,
    /// It resolved before, so a failure now is the upstream's fault.
    pub(super) known: bool,
    pub(super) waiters: Vec<Waiter>,
    pub(super) tries: Vec<Try>,
    pub(super) deadline: Moment,
    /// When to send the third try, in case both others were lost.
    pub(super) last_try_at: Moment,
    /// The first doubted answer that would displace a good one.
    pub(super) denial: Option<Denial>,
    /// The answer being checked; no upstream is asked meanwhile.
    pub(super) check: Option<Check>,
}

/// An upstream's answer that would displace a good one.
pub(super) struct Denial {
    pub(super) reason: guard::Reason,
    pub(super) known: guard::Known,
    pub(super) message: Box<[u8]>,
}

/// A pinned name's new addresses, waiting for the check.
pub(super) struct Check {
    pub(super) message: Box<[u8]>,
    pub(super) known: guard::Known,
    pub(super) old: Vec<IpAddr>,
    pub(super) new: Vec<IpAddr>,
}

/// RFC 8767 §5, query resolution timer. Longer than the slowest usable upstream takes.
pub(super) const RESOLUTION_TIMER: Duration = Duration::from_secs(6);
/// Most queries for one question, not counting retries over TCP (RFC 9520 §3.1: two retries).
pub(super) const TRIES_MAX: usize = 3;
pub(super) const LAST_TRY_AFTER: Duration = Duration::from_secs(1);

impl Flight {
    pub(super) fn next_event(&self) -> Moment {
        let late = self
            .tries
            .iter()
            .filter(|attempt| attempt.state == TryState::Pending)
            .map(|attempt| attempt.late_at);
        let waiters = self.waiters.iter().map(|waiter| waiter.until);
        let may_try = self.tries.len() < TRIES_MAX && self.check.is_none();
        let last_try = (may_try && !matches!(self.purpose, Purpose::Probe(_))).then_some(self.last_try_at);
        late.chain(waiters).chain(last_try).min().map_or(self.deadline, |event| event.min(self.deadline))
    }

    pub(super) fn find(&mut self, try_id: u64) -> Option<&mut Try> {
        self.tries.iter_mut().find(|attempt| attempt.id == try_id)
    }

    pub(super) fn tried(&self) -> Vec<usize> {
        self.tries.iter().map(|attempt| attempt.upstream).collect()
    }

    pub(super) fn pending(&self) -> bool {
        self.tries.iter().any(|attempt| matches!(attempt.state, TryState::Pending | TryState::Late))
    }

    /// The failure to report to clients: the last one seen, or a timeout.
    pub(super) fn failure(&self) -> Failure {
        let given = self.tries.iter().rev().find_map(|attempt| match attempt.state {
            TryState::Failed(why) => Some(why),
            _ => None,
        });
        given.unwrap_or(Failure::Timeout)
    }
}
