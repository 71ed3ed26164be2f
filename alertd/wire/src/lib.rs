//! What agents and `alertctl` may say to `alertd`: HTTP/1.1 with JSON bodies, on a unix socket.
//!
//! **Delivery.** An agent sends [`Batch`]es at least once. Each [`Event`] carries a sequence number that grows by
//! one within an *epoch* (the life of one spool). alertd commits what it decides together with the last number it took,
//! so a batch that comes twice changes nothing: at-least-once on the way, exactly once in effect.
//!
//! **Order.** Events of one agent arrive in sequence. A gap means that a bounded spool had to let its oldest events go;
//! alertd then asks for the whole state ([`BatchReply::want_states`]) instead of guessing.
//!
//! **Truth.** A [`Heartbeat`] carries a [`digest`] of all hard states. If alertd's own differs it asks for the states
//! and takes the agent's word. So a lost alertd, a restored backup or a dropped event heals within one heartbeat.
//!
//! **Versions.** [`PROTOCOL`] is the newest this build speaks. Readers ignore fields they do not know. A batch of a newer
//! protocol is answered `400` with an [`ErrorReply`] that names both versions. Files in `tests/golden/` pin every message
//! ever released; old ones never change.
//!
//! **Limits.** See [`limits`]. A body beyond them is answered `413`, never cut.
//!
//! Nothing but serde lives here: no I/O, no clock, no defaults that differ between the two sides.

pub mod agent;
mod backup;
pub mod ctl;
mod digest;
pub mod limits;
mod state;
mod token;

pub use agent::{Batch, BatchReply, Event, EventKind, Heartbeat, HostChange, ServiceState, Transition};
pub use digest::{digest, fnv1a};
use serde::{Deserialize, Serialize};
pub use state::State;

/// The newest protocol version this build speaks.
pub const PROTOCOL: u32 = 1;

/// Body of every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// One lower-case sentence that says what to do.
    pub error: String,
}
