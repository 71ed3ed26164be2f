//! The guard's input and output types.

use std::{net::IpAddr, time::Duration};

use super::{Cause, End, Reason};

/// What is known about the good answer that may be displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// How long answers were good without a break.
    pub good_for: Duration,
    /// Asked for often.
    pub hot: bool,
    /// Answers given from it so far.
    pub uses: u32,
}

/// How to answer a query for a held name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stance {
    pub why: HeldBy,
    /// It is time to ask upstreams again, in the background.
    pub ask: bool,
}

/// Why a client gets the old answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    Hold(Reason),
    /// A mass event covers this name, although upstreams have not been asked about it yet.
    Trip,
}

/// Something to log once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    TripStarted {
        cause: Cause,
        /// Every name below this.
        scope: Box<[u8]>,
        /// Some of the names.
        examples: Vec<Box<[u8]>>,
    },
    TripEnded {
        cause: Cause,
        scope: Box<[u8]>,
        end: End,
        lasted: Duration,
        names: u32,
    },
    /// An upstream denies several names that another upstream has.
    UpstreamLies {
        upstream: usize,
    },
    /// A steady name moved to an address that was never seen before.
    Moved {
        key: Box<[u8]>,
        from: IpAddr,
        to: IpAddr,
        good_for: Duration,
    },
    /// A pinned name's addresses changed.
    Changed {
        key: Box<[u8]>,
        from: Vec<IpAddr>,
        to: Vec<IpAddr>,
        /// False if none of the new addresses accepts a TCP connection and the old answer is kept.
        believed: bool,
    },
    /// A public name led to a private address; clients get no address.
    Rebinding {
        key: Box<[u8]>,
        address: IpAddr,
    },
    /// Most of a name's records are gone; the rest is believed.
    Shrunk {
        key: Box<[u8]>,
        from: usize,
        to: usize,
    },
}

/// Totals since start.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Names whose good answer was held although upstreams denied it.
    pub held: u64,
    /// Of those: an upstream had the name again.
    pub returned: u64,
    /// Of those: the grace period ended and the new answer was believed.
    pub honoured: u64,
    /// Of those: accepted by an operator.
    pub accepted: u64,
    /// Believed at once because the table of holds was full.
    pub not_held: u64,
    /// By [`Cause::number`].
    pub trips: [u64; Cause::NAMES.len()],
    /// Denials by one upstream that another contradicted.
    pub contradicted: u64,
    pub moved: u64,
    pub shrunk: u64,
    /// Answers blocked because a public name led to a private address.
    pub rebinding: u64,
}

/// The holds and trips that [`Guard::accept`] ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Keys of the names that were held.
    pub keys: Vec<Box<[u8]>>,
    pub trips: usize,
}
