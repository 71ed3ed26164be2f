//! The protocol between agents, `alertctl` and `alertd`: HTTP/1.1 with JSON bodies, on a unix
//! socket or over TLS.
//!
//! **Delivery.** An agent sends each [`Batch`] at least once. Each [`Event`] has a sequence number
//! that increases by one within an *epoch* (the lifetime of one spool). alertd commits its
//! decisions together with the last number it accepted, so a batch that arrives twice changes
//! nothing.
//!
//! **Order.** Events of one agent arrive in sequence. A gap means that the agent's spool was full
//! and dropped its oldest events; alertd then asks for the full state
//! ([`BatchReply::want_states`]).
//!
//! **Consistency.** A [`Heartbeat`] carries a [`digest`] of all hard states. If alertd's own digest
//! differs, it asks for the states and replaces its own. After data loss on either side, both agree
//! again within one heartbeat.
//!
//! **Identity.** [`Batch::agent`] comes from the machine id, which a cloned image has twice. alertd
//! tells the hosts apart by the process that sends ([`Batch::run`]) and by host name, boot id and
//! epoch. Senders that are older than `run` count as one process for each epoch.
//!
//! **Versions.** Messages are of version [`PROTOCOL`], so that agent and alertd can be upgraded in
//! any order. Only what an older reader would get wrong has a newer version ([`PROTOCOL_PARTS`]:
//! agents with more than [`limits::STATES_MAX`] services). Readers ignore unknown fields. alertd
//! answers a batch of a newer protocol with `400` and an [`ErrorReply`] that
//! names both versions. Files in `tests/golden/` pin every released message; old ones never change.
//!
//! **Limits.** See [`limits`]. alertd answers a larger body with `413` and never truncates it.
//!
//! This crate contains only serde types: no I/O, no clock, and no defaults that could differ
//! between the two sides.

pub mod agent;
mod backup;
pub mod ctl;
mod digest;
pub mod limits;
mod state;
mod token;

pub use agent::{
    Batch, BatchReply, Event, EventKind, Heartbeat, HostChange, ServiceState, StatesPart, Transition,
};
pub use digest::{digest, fnv1a};
use serde::{Deserialize, Serialize};
pub use state::State;

/// The protocol version of all messages, but for those that need a newer one.
pub const PROTOCOL: u32 = 1;

/// The version of a batch with [`Batch::states_part`], which alertd may not take for all states.
/// The newest that this build supports.
pub const PROTOCOL_PARTS: u32 = 2;

/// The body of every response that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// One lower-case sentence that says what is wrong and what to do.
    pub error: String,
}
