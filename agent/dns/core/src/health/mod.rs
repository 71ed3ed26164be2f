//! Upstream health: breakers, groups of upstreams, packet loss, letter case, pacing and recovery.

pub mod breaker;
pub mod endpoint;
pub(crate) mod failures;
pub mod group;
pub mod letter_case;
pub mod loss;
pub mod pace;
pub mod recovery;
