//! A question on its way: who waits for it, which upstreams were asked, what happens when.

use std::{net::IpAddr, time::Duration};

use crate::{
    guard, health::breaker::Failure, message::reply::Transport, moment::Moment, resolver::client::Client,
    zones::zone::ZoneId,
};

/// Why an upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits.
    Client,
    /// To have a young answer for whoever asks next.
    Refresh,
    /// To learn how this upstream does.
    Probe(usize),
}

pub(super) struct Waiter {
    pub(super) client: Client,
    pub(super) transport: Transport,
    /// The client's packet; it was readable.
    pub(super) packet: Box<[u8]>,
    /// When it gets what there is: the stale answer, or the failure.
    pub(super) until: Moment,
}

/// The letters of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Letters {
    /// As [`crate::message::wire::letters::mix`] takes them; zero is lower case.
    pub(super) chosen: u64,
    /// An answer in others is not believed.
    pub(super) matter: bool,
}

/// One message to one upstream.
pub(super) struct Try {
    pub(super) id: u64,
    pub(super) upstream: usize,
    pub(super) transport: Transport,
    pub(super) sent: Moment,
    pub(super) late_at: Moment,
    pub(super) letters: Letters,
    pub(super) state: TryState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TryState {
    Pending,
    /// Pending, and counted as late.
    Late,
    Failed(Failure),
    Answered,
    /// Said that a known name is gone or elsewhere.
    Denied,
    /// Something came in other letters than were asked, and is not believed; the right answer may still come.
    OtherCase,
    /// By a try over TCP. Says nothing any more.
    Replaced,
}

pub(super) struct Flight {
    pub(super) key: Box<[u8]>,
    /// Whose upstreams are asked; tries and probes name them by place.
    pub(super) zone: ZoneId,
    pub(super) purpose: Purpose,
    /// It resolved before, so a failure now is the upstream's.
    pub(super) known: bool,
    pub(super) waiters: Vec<Waiter>,
    pub(super) tries: Vec<Try>,
    pub(super) deadline: Moment,
    /// A third try, in case both others were lost.
    pub(super) last_try_at: Moment,
    /// The first answer that would displace a good one and is doubted.
    pub(super) denial: Option<Denial>,
    /// The answer that is in, while its addresses are tried: nobody is asked meanwhile.
    pub(super) check: Option<Check>,
}

/// What an upstream said against a good answer.
pub(super) struct Denial {
    pub(super) reason: guard::Reason,
    pub(super) known: guard::Known,
    pub(super) message: Box<[u8]>,
}

/// A pinned name's new addresses, about to be tried.
pub(super) struct Check {
    pub(super) message: Box<[u8]>,
    pub(super) known: guard::Known,
    pub(super) old: Vec<IpAddr>,
    pub(super) new: Vec<IpAddr>,
}

/// RFC 8767 §5, query resolution timer. Longer than the slowest upstream that is of any use.
pub(super) const RESOLUTION_TIMER: Duration = Duration::from_secs(6);
/// Most messages for one question, TCP upgrades aside (RFC 9520 §3.1: two retries).
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

    /// What to tell who waited in vain: the last reason given, or that nobody answered.
    pub(super) fn failure(&self) -> Failure {
        let given = self.tries.iter().rev().find_map(|attempt| match attempt.state {
            TryState::Failed(why) => Some(why),
            _ => None,
        });
        given.unwrap_or(Failure::Timeout)
    }
}
