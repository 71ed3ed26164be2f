//! What goes into the guard and comes out of it.

use std::{net::IpAddr, time::Duration};

use super::{Cause, End, Reason};

/// What is known of the good answer that is about to be displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// For how long answers were good without a break.
    pub good_for: Duration,
    /// Asked for again and again.
    pub hot: bool,
    /// Answers given from it so far.
    pub uses: u32,
}

/// How a query for a held-back name is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stance {
    pub why: HeldBy,
    /// It is time to ask upstream again; nobody waits for it.
    pub ask: bool,
}

/// Why a client gets the old answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    Hold(Reason),
    /// Many names are gone; this one, though its turn to be asked has not come, is among them or near them.
    Trip,
}

/// Something to say once, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    TripStarted {
        cause: Cause,
        /// All names below it.
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
    /// An upstream says of several names that they are gone, and another upstream has them.
    UpstreamLies {
        upstream: usize,
    },
    /// A steady name has moved to an address that was never seen.
    Moved {
        key: Box<[u8]>,
        from: IpAddr,
        to: IpAddr,
        good_for: Duration,
    },
    /// A pinned name has other addresses.
    Changed {
        key: Box<[u8]>,
        from: Vec<IpAddr>,
        to: Vec<IpAddr>,
        /// False: none of the new ones takes a TCP connection, and the old ones are given.
        believed: bool,
    },
    /// Most of a name's records are gone; the rest is believed.
    Shrunk {
        key: Box<[u8]>,
        from: usize,
        to: usize,
    },
}

/// Totals since the start.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Names whose good answer was held against upstream's word.
    pub held: u64,
    /// Of those: upstream had the name again.
    pub returned: u64,
    /// Of those: the grace passed, and upstream was believed.
    pub honoured: u64,
    /// Of those: a person said so.
    pub accepted: u64,
    /// Believed at once, for the table of holds was full.
    pub not_held: u64,
    /// By [`Cause::number`].
    pub trips: [u64; Cause::NAMES.len()],
    /// Denials by one upstream that another contradicted.
    pub contradicted: u64,
    pub moved: u64,
    pub shrunk: u64,
}

/// What [`Guard::accept`] ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Keys of the names that were held.
    pub keys: Vec<Box<[u8]>>,
    pub trips: usize,
}
