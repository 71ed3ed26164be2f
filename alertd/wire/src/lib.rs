//! The protocol of agents and `alertctl` with `alertd`: HTTP/1.1 with JSON bodies, over a unix
//! socket or TLS.
//!
//! **Delivery.** An agent sends each [`Batch`] at least once. An [`Event`] has a sequence number,
//! which grows by one within an *epoch* (the lifetime of one spool). alertd commits its decisions
//! together with the last number, so a repeated batch changes nothing: events take effect exactly
//! once.
//!
//! **Order.** Events of an agent arrive in sequence. A gap means that the agent's spool was full
//! and dropped its oldest events. alertd then asks for all states ([`BatchReply::want_states`]).
//!
//! **Truth.** A [`Heartbeat`] has a [`digest`] of all hard states. If alertd's own digest differs,
//! it asks for the states and replaces its own. So a lost store, a restored backup or a dropped
//! event is corrected with the next heartbeat.
//!
//! **Versions.** [`PROTOCOL`] is the newest version of this build. Readers ignore unknown fields. A
//! batch of a newer version is answered with `400` and an [`ErrorReply`] that names both versions.
//! The files in `tests/golden/` pin every message ever released; existing files never change.
//!
//! **Limits.** See [`limits`]. A body that exceeds them is answered with `413`.
//!
//! This crate has no I/O, no clock, and no defaults that could differ between the two sides.

pub mod agent;
mod backup;
pub mod ctl;
mod digest;
pub mod limits;
mod state;
mod token;

pub use agent::{Batch, BatchReply, Event, EventKind, Heartbeat, HostChange, ServiceState, Transition};
pub use digest::digest;
use serde::{Deserialize, Serialize};
pub use state::State;

/// The newest protocol version of this build.
pub const PROTOCOL: u32 = 1;

/// The body of every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// One lower-case sentence: what is wrong and what to do.
    pub error: String,
}
