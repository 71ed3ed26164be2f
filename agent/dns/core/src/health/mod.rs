//! Whether upstreams work, and how hard they may be asked.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`breaker`] | decides whether one upstream works; probes it while in doubt or down |
//! | [`loss`] | counts the unanswered questions of an upstream |
//! | [`letter_case`] | finds out whether an upstream repeats the case of our letters (0x20) |
//! | [`forgery`] | counts forged replies, and notices a wave of them |
//! | [`endpoint`] | an upstream's address and transport |
//! | [`group`] | the upstreams of one zone: which to ask, and how long to wait |
//! | `failures` | remembers questions that no upstream could answer just now |
//! | [`pace`] | limits how fast upstreams are asked |
//! | [`recovery`] | orders and paces the refreshes after an outage |

pub mod breaker;
pub mod endpoint;
pub(crate) mod failures;
pub mod forgery;
pub mod group;
pub mod letter_case;
pub mod loss;
pub mod pace;
pub mod recovery;
